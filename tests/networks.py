"""A gallery of awkward little networks, each written as somebody elsewhere writes them.

Every one takes images [B, 3, 16, 16] and gives class scores [B, 10]. `GALLERY` names them; `make` builds one with
weights and batch-norm statistics that are random but lively, so that most rectifiers fire.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE, CLASSES = 16, 10


def conv_bn(c_in: int, c_out: int, size: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution and its batch norm."""
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, size, stride, padding=size // 2, groups=groups, bias=False), nn.BatchNorm2d(c_out)
    )


class LambdaLayer(nn.Module):
    """A function as a module, as the best-known CIFAR ResNet has it."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class OptionABlock(nn.Module):
    """Functional rectifiers, an in-place add, and a shortcut by slicing and zero channels. [He2016, option A]"""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.shortcut: nn.Module = nn.Sequential()
        if stride != 1:
            add = (c_out - c_in) // 2
            self.shortcut = LambdaLayer(lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, add, add), "constant", 0))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out)


class OptionAResNet(nn.Module):
    """The CIFAR ResNet of many checkpoints: F.avg_pool2d by the map's own size, x.view(x.size(0), -1)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.layer1 = nn.Sequential(OptionABlock(8, 8, 1))
        self.layer2 = nn.Sequential(OptionABlock(8, 16, 2), OptionABlock(16, 16, 1))
        self.linear = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer2(self.layer1(out))
        out = F.avg_pool2d(out, out.size()[3])
        out = out.view(out.size(0), -1)
        return self.linear(out)


class ReusedReLU(nn.Module):
    """One nn.ReLU(inplace=True) called four times, one of them after the add."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.stem, self.a, self.b = conv_bn(3, 12), conv_bn(12, 12), conv_bn(12, 12)
        self.fc1, self.fc2 = nn.Linear(12, 20), nn.Linear(20, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        x = self.relu(self.b(self.relu(self.a(x))) + x)
        x = x.mean([2, 3])
        return self.fc2(self.relu(self.fc1(x)))


class ReusedConvolution(nn.Module):
    """One convolution and one batch norm called in a loop: weights shared over depth."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.core = conv_bn(3, 12), nn.Conv2d(12, 12, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.fc = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        for _ in range(3):
            x = x + torch.relu(self.norm(self.core(x))) * 0.5
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class Nested(nn.Module):
    """Sequentials in Sequentials, dropout between, a hidden linear layer behind a 1-D batch norm."""

    def __init__(self) -> None:
        super().__init__()
        block = lambda i, o: nn.Sequential(conv_bn(i, o), nn.Sequential(nn.ReLU(), nn.Dropout2d(0.1)))  # noqa: E731
        self.net = nn.Sequential(
            nn.Sequential(block(3, 8), nn.Sequential(block(8, 12), nn.AvgPool2d(2))),
            nn.Sequential(block(12, 12), nn.AdaptiveAvgPool2d((2, 2)), nn.Flatten()),
            nn.Sequential(nn.Linear(48, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(), nn.Linear(24, CLASSES)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class ControlFlow(nn.Module):
    """Branches and loops over settings and shapes, not over data; asserts; a ModuleDict and a ModuleList."""

    def __init__(self, depth: int = 3, wide: bool = True, last: str = "mean") -> None:
        super().__init__()
        self.wide, self.last = wide, last
        self.stem = conv_bn(3, 12)
        self.layers = nn.ModuleList(conv_bn(12, 12) for _ in range(depth))
        self.heads = nn.ModuleDict({"mean": nn.Linear(12, CLASSES), "max": nn.Linear(12, CLASSES)})

    def forward(self, x: Tensor, scale: float = 1.0, unused: Tensor | None = None) -> Tensor:
        x = F.relu(self.stem(x), inplace=True)
        for i, layer in enumerate(self.layers):
            y = layer(x)
            if self.wide and i % 2 == 0:
                y = y + x
            elif i == 1:
                y.add_(x)
            x = y.relu()
        if unused is not None:
            x = x + unused
        x = x * scale
        x = x.mean(dim=3).mean(dim=2) if self.last == "mean" else x.amax((2, 3))
        return self.heads[self.last](x)


class Depthwise(nn.Module):
    """Inverted residuals with depthwise convolutions and ReLU6. [Sandler2018]"""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, 8), nn.ReLU6(inplace=True))
        self.expand = nn.Sequential(conv_bn(8, 24, 1), nn.ReLU6(inplace=True))
        self.depth = nn.Sequential(conv_bn(24, 24, 3, 1, groups=24), nn.ReLU6(inplace=True))
        self.project = conv_bn(24, 8, 1)
        self.grouped = nn.Sequential(conv_bn(8, 16, 3, 2, groups=4), nn.ReLU6())
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(16, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.project(self.depth(self.expand(x)))
        x = nn.functional.adaptive_avg_pool2d(self.grouped(x), (1, 1))
        return self.classifier(torch.flatten(x, 1))


class Bounded(nn.Module):
    """Hardtanh(0, c), clamp with both bounds, clamp(min=0), F.relu6 and F.hardtanh."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = conv_bn(3, 12), conv_bn(12, 12), conv_bn(12, 12), conv_bn(12, 12)
        self.e = conv_bn(12, 12)
        self.tanh = nn.Hardtanh(0.0, 3.0, inplace=True)
        self.fc = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.tanh(self.a(x))
        x = torch.clamp(self.b(x), 0.0, 2.0)
        x = self.c(x).clamp(min=0)
        x = F.relu6(self.d(x))
        x = F.hardtanh(self.e(x), 0.0, 4.0)
        return self.fc(x.mean((-2, -1)))


class Fire(nn.Module):
    """Concatenated branches, and the classifier a convolution with a rectifier behind it. [Iandola2016]"""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(3, 8, 1)
        self.one, self.three = nn.Conv2d(8, 10, 1), nn.Conv2d(8, 10, 3, padding=1)
        self.activation = nn.ReLU(inplace=True)
        self.final = nn.Sequential(nn.Dropout(), nn.Conv2d(20, CLASSES, 1), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.squeeze(x))
        x = torch.cat([self.activation(self.one(x)), self.activation(self.three(x))], 1)
        return torch.flatten(nn.AdaptiveAvgPool2d((1, 1))(self.final(x)), 1)


class DenselyConnected(nn.Module):
    """Batch norm and rectifier before each convolution, on all that came so far. [Huang2017]"""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(8 + 6 * i), nn.ReLU(), nn.Conv2d(8 + 6 * i, 6, 3, padding=1, bias=False))
            for i in range(3)
        )
        self.norm, self.fc = nn.BatchNorm2d(26), nn.Linear(26, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for layer in self.layers:
            features.append(layer(torch.cat(features, dim=1)))
        out = F.relu(self.norm(torch.cat(features, 1)), inplace=True)
        return self.fc(F.avg_pool2d(out, 16).squeeze(3).squeeze(2))


class MaxPools(nn.Module):
    """Max pools behind rectifiers, before one, overlapping, padded, and as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv_bn(3, 8), conv_bn(8, 12), conv_bn(12, 16)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.fc = nn.Linear(16 * 2 * 2, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.a(x)))
        x = self.relu(F.max_pool2d(self.b(x), 2))
        x = F.max_pool2d(F.relu(self.c(x)), kernel_size=2)
        return self.fc(x.reshape(x.shape[0], -1))


class PoolAtTheEnd(nn.Module):
    """A max pool straight before the classifier, and one whose input is a sum of two rectified branches."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv_bn(3, 12), conv_bn(12, 12), conv_bn(12, 12)
        self.fc = nn.Linear(12 * 4 * 4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.a(x)), 2)
        x = F.max_pool2d(F.relu(self.c(F.relu(self.b(x)))), 2)
        return self.fc(x.flatten(1))


class Shuffled(nn.Module):
    """Channels split and shuffled by view and transpose. [Ma2018]"""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch = conv_bn(3, 16), nn.Sequential(conv_bn(8, 8), nn.ReLU(inplace=True))
        self.last = nn.Sequential(conv_bn(16, 16), nn.ReLU(inplace=True))
        self.fc = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        left, right = x.chunk(2, dim=1)
        x = torch.cat((left, self.branch(right)), dim=1)
        b, c, h, w = x.shape
        x = x.view(b, 2, c // 2, h, w).transpose(1, 2).contiguous().view(b, -1, h, w)
        return self.fc(self.last(x).mean([2, 3]))


class Perceptron(nn.Module):
    """No convolution at all."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.ModuleList([nn.Linear(3 * SIZE * SIZE, 40), nn.Linear(40, 30), nn.Linear(30, CLASSES)])

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(-1, 3 * SIZE * SIZE)
        for layer in self.fc[:-1]:
            x = F.relu(layer(x))
        return self.fc[-1](x)


class ConvolutionWithoutNorm(nn.Module):
    """Biases instead of batch norm, zero padding as a module of its own, dilation, uneven strides."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.ZeroPad2d((1, 1, 1, 1)),
            nn.Conv2d(3, 10, 3),
            nn.ReLU(True),
            nn.Conv2d(10, 12, 3, stride=(2, 1), padding=2, dilation=2),
            nn.ReLU(True),
            nn.Conv2d(12, 12, (1, 3), padding=(0, 1)),
            nn.ReLU(True),
            nn.AvgPool2d(4, count_include_pad=False),
        )
        self.out = nn.LazyLinear(CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.features(x).flatten(start_dim=1))


class NormAfterReLU(nn.Module):
    """Batch norm behind the rectifier, which cannot be folded back, and one applied to the image itself."""

    def __init__(self) -> None:
        super().__init__()
        self.norm0, self.conv1, self.norm1 = nn.BatchNorm2d(3), nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.conv2, self.norm2 = nn.Conv2d(12, 12, 3, stride=2, padding=1), nn.BatchNorm2d(12)
        self.fc = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(F.relu(self.conv1(self.norm0(x))))
        x = self.norm2(F.relu(self.conv2(x)))
        return self.fc(x.mean(-1).mean(-1))


class NormalisesItself(nn.Module):
    """Mean and deviation as buffers inside the network."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.1, 0.0, -0.1]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.9, 1.0, 1.1]).view(1, 3, 1, 1))
        self.body = nn.Sequential(conv_bn(3, 12), nn.ReLU(), conv_bn(12, 12), nn.ReLU())
        self.fc = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.mean) / self.std
        return self.fc(self.body(x).mean((2, 3)))


GALLERY: tuple[type[nn.Module], ...] = (
    OptionAResNet,
    ReusedReLU,
    ReusedConvolution,
    Nested,
    ControlFlow,
    Depthwise,
    Bounded,
    Fire,
    DenselyConnected,
    MaxPools,
    PoolAtTheEnd,
    Shuffled,
    Perceptron,
    ConvolutionWithoutNorm,
    NormAfterReLU,
    NormalisesItself,
)


def images(n: int, size: int = SIZE, seed: int = 1) -> Tensor:
    """Return n images of smooth noise, float32 [n, 3, size, size], about unit variance."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(n, 3, max(2, size // 4), max(2, size // 4), generator=generator)
    smooth = F.interpolate(coarse, size=size, mode="bilinear")
    return smooth + 0.3 * torch.randn(n, 3, size, size, generator=generator)


def stir(net: nn.Module, size: int = SIZE, batches: int = 3, shift: float = 0.0) -> nn.Module:
    """Give batch norm random gains and the statistics of some images, and return the network in eval mode.

    The statistics are plain means over the batches (no moving average), so that signals neither fade nor explode.
    shift is added to batch norm's biases: at 1 most rectifiers are open, which keeps a network of fifty random layers
    from amplifying the least disturbance a thousandfold, as batch norm's random networks do.
    """
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.7, 1.3)
        nn.init.uniform_(norm.bias, shift - 0.2, shift + 0.3)
        norm.momentum = None
    net.train()
    with torch.no_grad():
        for seed in range(batches):
            net(images(16, size, seed=100 + seed))
    return net.eval()


def make(kind: type[nn.Module], seed: int = 0) -> nn.Module:
    """Build one of the gallery, in eval mode."""
    torch.manual_seed(seed)
    return stir(kind())


class Residual(nn.Module):
    """For images [B, 3, 8, 8]: a shortcut, a stride, an average pool folded into taps."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 20, 1)
        self.pool, self.out = nn.AvgPool2d(2), nn.Linear(20 * 4, 6)

    def forward(self, x):
        x = torch.relu(self.a(x))[:, :, ::2, ::2]
        x = torch.relu(self.b(x) + x)
        return self.out(torch.flatten(torch.relu(self.c(self.pool(x))), 1))


class Mixed(nn.Module):
    """For images [B, 3, 8, 8]: max pools of spikes, two sources side by side, a grouped convolution (as traced)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 8, 1), nn.Conv2d(16, 8, 3, padding=1)
        self.d, self.out = nn.Conv2d(16, 16, 3, groups=4), nn.Linear(16, 6)

    def forward(self, x):
        x = F.max_pool2d(torch.relu(self.a(x)), 2)
        x = torch.cat([torch.relu(self.b(x)), torch.relu(self.c(x))], 1)
        return self.out(torch.relu(self.d(x)).mean((2, 3)))


class NoReLU(nn.Module):
    """Nothing to convert."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3 * SIZE * SIZE, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1))


class DataDependent(nn.Module):
    """Takes a branch by the image's values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        if x.mean() > 0.5:
            x = x * 2
        return self.fc(x.mean((2, 3)))


class WithSigmoid(nn.Module):
    """Two rectifiers, and between them one activation without a counterpart, named `gate`."""

    def __init__(self, gate: nn.Module | None = None) -> None:
        super().__init__()
        self.conv, self.gate, self.fc = nn.Conv2d(3, 8, 3), gate or nn.Sigmoid(), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.gate(F.relu(self.conv(x)) - 0.1)).mean((2, 3)))


class SqueezeExcite(nn.Module):
    """Two quantities multiplied that both depend on the image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.down, self.fc = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        x = x * F.relu(self.down(x.mean((2, 3), keepdim=True)))
        return self.fc(x.mean((2, 3)))


class BoundedBelow(nn.Module):
    """Hardtanh(-1, 1) does not rectify."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.tanh, self.fc = nn.Conv2d(3, 8, 3), nn.Hardtanh(), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.tanh(F.relu(self.conv(x)) - 0.1)).mean((2, 3)))
