"""ResNet for CIFAR. [He2016, section 4.2]"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: y = act(F(x) + S(x)).

    S is the identity, or a strided 1x1 convolution where the shape changes (option B).
    """

    def __init__(self, c_in: int, c_out: int, stride: int, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.act1 = activation()
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))
        self.act2 = activation()

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, c_in, H, W] to [B, c_out, H/stride, W/stride]."""
        y = self.act1(self.bn1(self.conv1(x)))
        return self.act2(self.bn2(self.conv2(y)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """Three stages of `blocks` basic blocks with 16, 32 and 64 channels, then a mean over space and one linear layer.

    Depth is 6 * blocks + 2; blocks = 3 is ResNet-20.
    """

    def __init__(self, blocks: int, classes: int, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.act1 = activation()
        stages, c_in = [], 16
        for c_out, stride in ((16, 1), (32, 2), (64, 2)):
            stage = []
            for i in range(blocks):
                stage.append(BasicBlock(c_in, c_out, stride if i == 0 else 1, activation))
                c_in = c_out
            stages.append(nn.Sequential(*stage))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, 3, H, W] to class scores [B, classes]."""
        return self.fc(self.flatten(self.pool(self.stages(self.act1(self.bn1(self.conv1(x)))))))


def resnet20(activation: Callable[[], nn.Module] = nn.ReLU, classes: int = 10) -> CifarResNet:
    """Build ResNet-20 (0.27 M parameters) for 32x32 images."""
    return CifarResNet(3, classes, activation)
