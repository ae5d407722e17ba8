"""VGG-16 for CIFAR: batch norm, average pooling, one linear classifier. [Simonyan2015, Bu2022]"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

VGG16_WIDTHS: tuple[tuple[int, ...], ...] = (
    (64, 64),
    (128, 128),
    (256, 256, 256),
    (512, 512, 512),
    (512, 512, 512),
)


class CifarVGG(nn.Module):
    """Blocks of 3x3 convolutions with batch norm, halved in size by average pools between them.

    The last pool averages over all that is left of the image (2x2 at 32x32), so other image sizes work as well.
    """

    def __init__(
        self, widths: Sequence[Sequence[int]], classes: int, activation: Callable[[], nn.Module], dropout: float = 0.0
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        c_in = 3
        for k, block in enumerate(widths):
            for c_out in block:
                layers += [nn.Conv2d(c_in, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out), activation()]
                c_in = c_out
            layers.append(nn.AvgPool2d(2) if k + 1 < len(widths) else nn.AdaptiveAvgPool2d(1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(c_in, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, 3, H, W], H and W at least 16, to class scores [B, classes]."""
        return self.classifier(self.features(x))


def vgg16(activation: Callable[[], nn.Module] = nn.ReLU, classes: int = 10) -> CifarVGG:
    """Build VGG-16 (14.7 M parameters) for 32x32 images."""
    return CifarVGG(VGG16_WIDTHS, classes, activation)
