"""Every kind of network that people bring, one small network each, and what must happen to it.

`CONVERTS` convert exactly; `REFUSED` are refused, with the words that the reason must have. Every network takes images
[B, 3, 16, 16] and gives scores [B, 10].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint
from torchvision import ops

from tests.networks import CLASSES, stir


class Net(nn.Module):
    """Convolution, rectifier, something in the middle, convolution, rectifier, something at the head, scores."""

    def __init__(
        self,
        mid: Callable[[Tensor], Tensor] | None = None,
        *,
        pre: Callable[[Tensor], Tensor] | None = None,
        head: Callable[[Tensor], Tensor] | None = None,
        conv: Callable[[nn.Module], nn.Module] = lambda layer: layer,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        act: Callable[[Tensor], Tensor] = F.relu,
        wide: int = 16,
    ) -> None:
        super().__init__()
        self.pre, self.mid, self.act = pre or nn.Identity(), mid or nn.Identity(), act
        self.head = head or (lambda x: x.mean((2, 3)))
        self.first, self.norm = conv(nn.Conv2d(3, 16, 3, padding=1)), norm(16)
        self.second, self.out = nn.Conv2d(wide, 24, 3, 2, 1), nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.first(self.pre(x))))
        return self.out(self.head(F.relu(self.second(self.mid(x)))))


def _net(*args: Any, **options: Any) -> Callable[[], nn.Module]:
    return lambda: Net(*args, **options)


def _around(change: Callable[[nn.Module, Tensor], Tensor]) -> Callable[[], nn.Module]:
    """A network whose own forward is given; it calls the usual one by Net.forward."""
    return lambda: type("Own", (Net,), {"forward": change})()


class Sequence(nn.Module):
    """Rows of the image as a sequence: convolutions in one dimension, batch norm behind the rectifier, pools."""

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv1d(48, 24, 3, padding=1), nn.BatchNorm1d(24), nn.ReLU(), pool, nn.Conv1d(24, 24, 3), nn.ReLU()
        )
        self.norm, self.out = nn.BatchNorm1d(24), nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(self.net(x.flatten(1, 2))).mean(2))


class Volume(nn.Module):
    """Colours as the depth of a volume."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Conv3d(1, 8, 3, padding=1), nn.Conv3d(8, 12, 3, padding=1), nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.b(F.relu(self.a(x[:, None])))).mean((2, 3, 4)))


class Tokens(nn.Module):
    """Patches as rows of features, mixed over rows and over features by linear layers. [Tolstikhin2021]"""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.rows = nn.Conv2d(3, 24, 4, 4), nn.Linear(16, 16)
        self.features, self.out = nn.Linear(24, 24), nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.embed(x).flatten(2).transpose(1, 2))
        x = x + F.relu(self.rows(x.mT)).mT
        return self.out(F.relu(self.features(x)).mean(1))


class ClipFunction(torch.autograd.Function):
    """A clip with a gradient of its own, as trained clips have."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, up: Tensor) -> Tensor:
        return torch.clamp(x, torch.zeros(()), up)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients, None


class LastAxis(nn.Module):
    """A linear layer from an axis of one pixel to many."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.widen, self.out = nn.Conv2d(3, 16, 3), nn.Linear(1, 16), nn.Linear(16 * 16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(F.relu(self.a(x)), 1)
        return self.out(F.relu(self.widen(x)).flatten(1))


class StoredClip(nn.Module):
    """A rectifier with a stored upper bound, spelled in one of many ways."""

    def __init__(self, spell: Callable[[Tensor, Tensor], Tensor], bound: Tensor | None = None) -> None:
        super().__init__()
        self.up, self.spell = nn.Parameter(torch.tensor(0.8) if bound is None else bound), spell

    def forward(self, x: Tensor) -> Tensor:
        return self.spell(x, self.up)


class OwnNorm(nn.BatchNorm2d):
    """Batch norm by inheritance, which fx does not know."""


class Functional(nn.Module):
    """A layer of torch's functions on stored tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(16, 16, 3, 3) / 12)
        self.register_buffer("mean", torch.randn(16) / 4)
        self.register_buffer("variance", torch.rand(16) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.weight, None, 1, 1)
        return F.relu(F.batch_norm(x, self.mean, self.variance, None, None, False, 0.1, 0.3))


class Branches(Net):
    """Branches, loops and assertions over shapes, devices and types, and a class asked for."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 3:
            x = x[None]
        assert isinstance(x, Tensor) and x.shape[1] == 3 and len(x) > 0
        torch._assert(x.size(0) > 0, "no image")
        if x.is_cuda:
            x = x.cpu()
        x = x.view((-1, 3) + x.size()[-2:])  # noqa: RUF005, as people write it
        for _ in range(x.size(2) // 8):
            x = x + 0.1
        half = int(x.size(1) * 0.7)
        return super().forward(torch.cat([x[:, half:], x[:, :half]], 1))


class Handed(nn.Module):
    """Arguments handed on by star, as averaged and wrapped models do."""

    def __init__(self) -> None:
        super().__init__()
        self.module = Net()

    def forward(self, *inputs: Tensor, **options: Any) -> Tensor:
        return self.module(*inputs, **options)


def _hooked() -> nn.Module:
    net = Net()
    net.first.register_forward_hook(lambda module, inputs, output: output * 1.5)
    net.second.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 0.5,))
    return net


def _compiled() -> nn.Module:
    inner = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU())
    body = nn.Sequential(
        torch.compile(inner, backend="eager"), nn.Conv2d(16, 24, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    )
    return torch.compile(nn.Sequential(body, nn.Flatten(), nn.Linear(24, CLASSES)), backend="eager")


class Autocast(Net):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return super().forward(x).float()


class HalfInside(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.half().to(torch.float64).float())


class InPlace(nn.Module):
    """What is overwritten is not read again, or is read as it then is."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        kept = x
        F.relu(x, True)
        x = self.b(x)
        x += kept
        left, right = x.chunk(2, 1)
        left = left.relu_()
        return self.out(torch.cat([left, F.relu(right)], 1).mean((2, 3)))


class ZerosJoined(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        zeros = torch.zeros(x.size(0), 4, x.size(2), x.size(3))
        return torch.cat([x[:, :12], zeros], 1) + torch.ones_like(x) * 0.1 + x.new_full(x.shape, 0.1)


def _spatial(x: Tensor) -> Tensor:
    return x.reshape(x.shape[0], 4, 4, *x.shape[2:])


def _doubled(x: Tensor) -> Tensor:
    return x * 2


UP = torch.linspace(0.3, 1.5, 16).reshape(1, 16, 1, 1)
CONVERTS: dict[str, Callable[[], nn.Module]] = {
    # Python around the calls
    "branches, loops and assertions over shapes": Branches,
    "arguments handed on": Handed,
    "hooks that change values": _hooked,
    "compiled, whole and inside": _compiled,
    "batch norm by inheritance": _net(norm=OwnNorm),
    "SyncBatchNorm": _net(norm=nn.SyncBatchNorm),
    "DataParallel": lambda: nn.DataParallel(Net()),
    "DataParallel inside": lambda: nn.Sequential(nn.DataParallel(Net())),
    "AveragedModel": lambda: torch.optim.swa_utils.AveragedModel(Net()),
    "weight norm by hooks": _net(conv=nn.utils.weight_norm),
    "weight norm as a parametrization": _net(conv=parametrizations.weight_norm),
    "weight norm without batch norm": _net(conv=parametrizations.weight_norm, norm=lambda c: nn.Identity()),
    "spectral norm": _net(conv=nn.utils.spectral_norm),
    "spectral norm as a parametrization": _net(conv=parametrizations.spectral_norm),
    "orthogonal weights": _net(conv=parametrizations.orthogonal),
    "pruned": _net(conv=lambda layer: prune.l1_unstructured(layer, "weight", 0.5)),
    "functions on stored tensors": _net(Functional()),
    "autocast inside": Autocast,
    "half and double inside": HalfInside,
    "in place": InPlace,
    "attributes that hide nothing": _net(lambda x: F.relu(x.data.mT - 0.1).mT.real),
    # before the first site
    "tanh of the image": _net(pre=torch.tanh),
    "standardised by its own deviation": _net(
        pre=lambda x: (x - x.mean((1, 2, 3), True)) / x.std((1, 2, 3), keepdim=True)
    ),
    "one channel repeated": _net(pre=lambda x: x[:, :1].repeat(1, 3, 1, 1)),
    "resized": _net(pre=lambda x: F.interpolate(x, 20, mode="bicubic")),
    "clamped": _net(pre=lambda x: x.clamp(-1, 1)),
    "layer norm of the image": _net(pre=nn.LayerNorm([3, 16, 16])),
    "a spectrum of the image": _net(pre=lambda x: torch.fft.ifft2(torch.fft.fft2(x) * 1.5).real),
    "masked by the image": _around(lambda self, x: Net.forward(self, x.masked_fill(x < 0, 0.1))),
    "a gate of the image alone": _net(pre=lambda x: x * torch.sigmoid(x)),
    # identities and affine maps
    "stochastic depth": _net(ops.StochasticDepth(0.3, "row")),
    "drop block": _net(ops.DropBlock2d(0.3, 3)),
    "reflected border": _net(nn.ReflectionPad2d(1)),
    "replicated border": _net(nn.ReplicationPad2d((1, 0, 2, 1))),
    "constant border": _net(nn.ConstantPad2d(1, 0.3)),
    "circular border": _net(lambda x: F.pad(x, (1, 1, 1, 1), mode="circular")),
    "pixel unshuffle": _net(nn.PixelUnshuffle(2), wide=64),
    "pixel shuffle": _net(nn.PixelShuffle(2), wide=4),
    "nearest upsampling": _net(nn.Upsample(scale_factor=2)),
    "bilinear upsampling": _net(nn.UpsamplingBilinear2d(scale_factor=2)),
    "bilinear by function": _net(lambda x: F.interpolate(x, scale_factor=1.5, mode="bilinear")),
    "repeat": _net(lambda x: x.repeat(1, 2, 1, 1), wide=32),
    "tile": _net(lambda x: torch.tile(x, (1, 2, 1, 1)), wide=32),
    "repeat interleave": _net(lambda x: x.repeat_interleave(2, 1), wide=32),
    "unbind": _net(lambda x: torch.stack(_spatial(x).unbind(1), 2).flatten(1, 2)),
    "movedim": _net(lambda x: x.movedim(3, 2) + x),
    "swapaxes": _net(lambda x: x.swapaxes(2, 3)),
    "index select": _net(lambda x: x.index_select(1, torch.arange(15, -1, -1))),
    "a list of channels": _net(lambda x: x[:, [3, 1, 2, 0]], wide=4),
    "cumsum": _net(lambda x: x.cumsum(1) * 0.2),
    "einsum": _net(lambda x: torch.einsum("bchw,cd->bdhw", x, torch.eye(16).roll(1, 0))),
    "lerp": _net(lambda x: torch.lerp(x, x.flip(3), 0.3)),
    "addcmul": _net(lambda x: torch.addcmul(x, x.flip(2), torch.full((1, 16, 1, 1), 0.5))),
    "constants like the input": _net(ZerosJoined()),
    "divided by a stored number": _net(lambda x: x / torch.linspace(1, 2, 16).reshape(16, 1, 1)),
    "transposed convolution": _net(nn.ConvTranspose2d(16, 16, 2, 2)),
    "shuffled channels": _net(nn.ChannelShuffle(4)),
    "group convolution": _net(nn.Conv2d(16, 16, 3, groups=4)),
    # rectifiers and clips
    "threshold": _net(act=nn.Threshold(0, 0)),
    "leaky by nothing": _net(act=nn.LeakyReLU(0.0)),
    "maximum with zero": _net(act=lambda x: torch.maximum(x, torch.zeros(()))),
    "clamp between stored bounds": _net(act=StoredClip(lambda x, up: torch.clamp(x, torch.zeros(()), up))),
    "minimum of rectifier and bound": _net(act=StoredClip(lambda x, up: torch.minimum(F.relu(x), up))),
    "rectifier of minimum": _net(act=StoredClip(lambda x, up: F.relu(torch.minimum(x, up)))),
    "two rectifiers": _net(act=StoredClip(lambda x, up: up - F.relu(up - F.relu(x)))),
    "difference of rectifiers": _net(act=StoredClip(lambda x, up: F.relu(x) - F.relu(x - up))),
    "difference of a rectifier and its own": _net(
        act=StoredClip(lambda x, up: (lambda y: y - F.relu(y - up))(F.relu(x)))
    ),
    "a bound a channel": _net(act=StoredClip(lambda x, up: torch.clamp(x, torch.zeros(()), up), UP)),
    "clip with a gradient of its own": _net(act=StoredClip(lambda x, up: ClipFunction.apply(x, up))),
    "recomputed for the gradient": _net(lambda x: checkpoint(nn.ReLU(), x - 0.1, use_reentrant=True)),
    "rectifier and maximum": _net(act=lambda x: F.relu(x).clamp(max=1.2)),
    # pools and shapes
    "max pool over the whole map": _net(head=lambda x: F.max_pool2d(x, kernel_size=x.size()[2:]).flatten(1)),
    "maximum over the whole map": _net(head=lambda x: x.amax((2, 3))),
    "max pool with a border of minus infinity": _net(
        lambda x: F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-torch.inf), 3, 2)
    ),
    "adaptive max pool to one": _net(head=lambda x: F.adaptive_max_pool2d(x, 1).flatten(1)),
    "maxima over one axis after the other": _net(head=lambda x: x.max(-1)[0].max(-1).values),
    "maximum over one axis": _net(head=lambda x: torch.max(x, 2, keepdim=True)[0].mean((2, 3))),
    "maximum over points": _net(head=lambda x: torch.max(x.flatten(2), 2)[0]),
    "everything squeezed": _net(head=lambda x: F.adaptive_avg_pool2d(x, 1).squeeze()),
    "linear over the last axis": _net(nn.Linear(16, 16)),
    "linear over an axis of one": lambda: LastAxis(),
    "sequences": lambda: Sequence(nn.Identity()),
    "sequences, averaged": lambda: Sequence(nn.AvgPool1d(2)),
    "sequences, max-pooled": lambda: Sequence(nn.MaxPool1d(2)),
    "volumes": Volume,
    "tokens": Tokens,
    # types
    "double": lambda: Net().double(),
    "half": lambda: Net().half(),
    "bfloat16": lambda: Net().bfloat16(),
}


class NoStatistics(Net):
    def __init__(self) -> None:
        super().__init__(nn.BatchNorm2d(16, track_running_stats=False))


class Restless(Net):
    """Batch norm that the network itself puts into training mode."""

    def __init__(self) -> None:
        super().__init__(norm=nn.Identity)
        self.norm = nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> Tensor:
        self.norm.train()
        return super().forward(x)


class Crops(Net):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(torch.cat([x, x.flip(3)], 0))
        return (y[: x.size(0)] + y[x.size(0) :]) / 2


class Frames(Net):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(torch.stack([x, x.flip(3)], 1).flatten(0, 1))
        return y.reshape(-1, 2, CLASSES).mean(1)


class OneByOne(Net):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([super(OneByOne, self).forward(image[None]) for image in x])


class FirstImage(Net):
    def forward(self, *xs: Tensor) -> Tensor:
        return super().forward(xs[0][:1].expand_as(xs[0]))


class ReadsNumpy(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.from_numpy(x.numpy() * 2))


class Branching(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * 2 if x.mean() > 0 else x)


class Assigns(Net):
    def forward(self, x: Tensor) -> Tensor:
        x = x.clone()
        x[:, 0] = 0
        return super().forward(x)


class ReadAfterwards(Net):
    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        view = x.reshape(x.shape)
        F.relu_(x)
        return self.out(F.relu(self.second(x + view)).mean((2, 3)))


class Quantiser(torch.autograd.Function):
    """Rounding that passes gradients straight through."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.floor(x * 4 + 0.5) / 4

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients


def _quantised() -> nn.Module:
    import torch.ao.quantization as quantization

    return quantization.quantize_dynamic(Net(), {nn.Linear}, dtype=torch.qint8)


def _scripted_inside() -> nn.Module:
    return Net(torch.jit.script(nn.Sequential(nn.Conv2d(16, 16, 1))))


def _always_training() -> nn.Module:
    layer = nn.Dropout(0.5)
    layer.train = lambda mode=True: layer  # type: ignore[method-assign]
    return Net(layer)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    # not affine
    "batch norm without running statistics": (NoStatistics, "batch norm without running statistics"),
    "batch norm of the batch": (
        _net(lambda x: F.batch_norm(x, None, None, training=True)),
        "batch norm without running statistics",
    ),
    "batch norm in training mode": (lambda: Restless(), "norm: batch norm in training mode"),
    "spectrum": (_net(lambda x: torch.fft.ifft2(torch.fft.fft2(x)).real), "fft_fft2 has no integrate-and-fire"),
    "where by values": (_net(lambda x: torch.where(x > 0.1, x, x * 0)), "gt has no integrate-and-fire"),
    "layout of the memory": (_net(lambda x: torch.kron(x, torch.ones(1, 1, 2, 2))), "kron|view size"),
    "floor division": (_net(lambda x: x // 0.5), "belongs to a quantiser"),
    "division that rounds": (_net(lambda x: torch.div(x, 0.5, rounding_mode="floor")), "belongs to a quantiser"),
    "division that truncates": (_net(lambda x: x.div(0.5, rounding_mode="trunc")), "belongs to a quantiser"),
    "comparison": (_net(lambda x: x + (x == 0).float()), "eq has no integrate-and-fire counterpart"),
    "comparison with more": (_net(lambda x: x * (x > 0.5)), "gt has no integrate-and-fire counterpart"),
    "cast to integers": (_net(lambda x: x.to(torch.int32).float()), "to gives int32"),
    "cast to integers by name": (_net(lambda x: x.int() * 1.0), "int has no integrate-and-fire counterpart"),
    "rounding": (_net(lambda x: (x * 8).round() / 8), "round rounds: it belongs to a quantiser.*keep the clip"),
    "quantiser": (_net(Quantiser.apply), "floor: .*belongs to a quantiser"),
    "gate": (
        _net(lambda x: x * torch.sigmoid(x.mean((2, 3), True))),
        "sigmoid in the middle of the network .a gate or attention.",
    ),
    "softmax in the middle": (_net(lambda x: x * x.softmax(1)), "softmax in the middle of the network"),
    "softmax at the end": (lambda: nn.Sequential(Net(), nn.Softmax(1)), "Drop it: class scores need no softmax"),
    "squeeze and excitation": (_net(ops.SqueezeExcitation(16, 8)), "multiplies two quantities"),
    "product": (_net(lambda x: x * x.flip(3)), "multiplies two quantities"),
    "product hidden in einsum": (_net(lambda x: torch.einsum("bchw,bchw->bchw", x, x)), "einsum is not affine"),
    "product hidden in addcmul": (_net(lambda x: torch.addcmul(x, x, x)), "addcmul is not affine"),
    "divided by what comes from neurons": (
        _net(lambda x: 1 / (x + 1)),
        "has no integrate-and-fire counterpart|not linear",
    ),
    "power": (_net(lambda x: x**2), "pow has no integrate-and-fire counterpart"),
    "group norm": (_net(nn.GroupNorm(4, 16)), "mid: GroupNorm divides by a deviation.*Use batch norm"),
    "GELU": (_net(nn.GELU()), "mid: GELU has no integrate-and-fire counterpart"),
    "leaky rectifier": (_net(act=nn.Sequential(nn.ReLU(), nn.LeakyReLU(0.1))), "leaky_relu has no integrate"),
    "bounded below": (_net(nn.Hardtanh()), "mid: hardtanh has no integrate-and-fire counterpart"),
    "pool with indices": (
        _net(lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2)),
        "a max pool that gives indices as well has no rule|max_pool2d_with_indices has no|max_unpool2d has no",
    ),
    "scripted function": (_net(torch.jit.script(_doubled)), "a scripted function .* stands between"),
    "maximum over channels": (_net(lambda x: x + x.max(1, True)[0]), "max has no rule. Use max_pool2d"),
    "sorted": (_net(lambda x: x.sort(1).values), "sort has no integrate-and-fire counterpart"),
    # images not apart
    "sum over everything": (_net(lambda x: x + x.sum() * 1e-4), "mixes the images of a batch"),
    "mean over the batch": (_net(lambda x: x - x.mean(0)), "mixes the images of a batch"),
    "batch turned round": (_net(lambda x: x.flip(0)), "mixes the images of a batch"),
    "deviation of the whole batch": (_net(pre=lambda x: x / x.std()), "mixes the images of a batch"),
    "the first image for all": (FirstImage, "mixes the images of a batch"),
    "crops in the batch": (Crops, "frames or crops of an image are folded into the batch"),
    "frames in the batch": (Frames, "frames or crops of an image are folded into the batch"),
    "one image after the other": (OneByOne, "works through them one by one"),
    # not followed
    "branch by values": (Branching, "control flow depends on its data"),
    "number of a tensor": (_net(lambda x: x * x.mean().item()), "control flow depends on its data"),
    "NumPy": (ReadsNumpy, "control flow depends on its data"),
    "assignment": (Assigns, "writes into part of a tensor"),
    "read after being overwritten": (ReadAfterwards, "changes in place a tensor that .* reads again"),
    "dropout always on": (_net(lambda x: F.dropout(x, 0.5)), "dropout that is always on"),
    "dropout that never evaluates": (_always_training, "mid: dropout that is always on"),
    "noise": (_net(lambda x: x + torch.randn_like(x)), "drawn at random"),
    "noise drawn once a call": (_net(lambda x: x + torch.rand(1)), "drawn at random"),
    # other things than networks
    "scripted": (lambda: torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())), "a scripted network"),
    "scripted inside": (_scripted_inside, "mid: a scripted network"),
    "quantised": (_quantised, "out: Linear is quantised"),
    "a function": (lambda: lambda x: x.mean((2, 3)), "A network is needed"),
    "lazy": (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.ReLU(), nn.Linear(8, 10)), "a lazy layer"),
    "no class scores": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), "must return class scores"),
    "several outputs": (_around(lambda self, x: (Net.forward(self, x), x)), "must return class scores .* got tuple"),
    "nothing of the image": (_around(lambda self, x: torch.zeros(x.size(0), 10)), "do not come from its image"),
    "another size": (_net(head=lambda x: x.flatten(1), norm=nn.Identity), "does not run on an input of shape"),
    "a fixed batch": (_net(pre=lambda x: x.view(1, 3, 16, 16), norm=nn.Identity), "but not on 2 at a time"),
    "no rectifier": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(768, 10)), "calls no ReLU"),
    "no rectifier but others": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(768, 30), nn.Tanh(), nn.Linear(30, 10)),
        "calls no ReLU.*2: Tanh",
    ),
}


def make(build: Callable[[], Any], seed: int = 0) -> Any:
    """Build a network of one kind, in eval mode, with lively batch norm."""
    torch.manual_seed(seed)
    net = build()
    floats = isinstance(net, nn.Module) and all(p.dtype == torch.float32 for p in net.parameters())
    has_norm = floats and any(isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for m in net.modules())
    if has_norm and all(m.track_running_stats for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        return stir(net)
    return net.eval() if isinstance(net, nn.Module) else net
