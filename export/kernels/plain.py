"""Small networks that benchmarks name and neither timm nor torchvision builds.

Only their graphs count here, so they have no weights to load.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

# channels and stride a block, arXiv 1704.04861 table 1
_V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2))
_V1_BLOCKS = (*_V1, (1024, 1))

# kernel, expansion, channels, stride a block: ProxylessNAS for mobile, arXiv 1812.00332 figure 4
_PROXYLESS = (
    (3, 1, 16, 1),
    (5, 3, 32, 2),
    (3, 3, 32, 1),
    (7, 3, 40, 2),
    (3, 3, 40, 1),
    (5, 3, 40, 1),
    (5, 3, 40, 1),
    (7, 6, 80, 2),
    (5, 3, 80, 1),
    (5, 3, 80, 1),
    (5, 3, 80, 1),
    (5, 6, 96, 1),
    (5, 3, 96, 1),
    (5, 3, 96, 1),
    (5, 3, 96, 1),
    (7, 6, 192, 2),
    (7, 6, 192, 1),
    (7, 3, 192, 1),
    (7, 3, 192, 1),
    (7, 6, 320, 1),
)


def mobilenet_v1(width: float) -> nn.Module:
    """MobileNet (arXiv 1704.04861) with all channels times `width`; (1, 3, H, W) to 1,000."""
    channels = int(32 * width)
    layers: list[nn.Module] = [_conv(3, channels, 3, 2)]
    for out, stride in _V1_BLOCKS:
        layers += [_depthwise(channels, 3, stride), _conv(channels, int(out * width), 1, 1)]
        channels = int(out * width)
    return nn.Sequential(*layers, *_head(channels))


def proxyless_mobile() -> nn.Module:
    """ProxylessNAS for mobile phones (arXiv 1812.00332); (1, 3, H, W) to 1,000."""
    channels = 32
    layers: list[nn.Module] = [_conv(3, channels, 3, 2)]
    for kernel, expansion, out, stride in _PROXYLESS:
        layers.append(_Inverted(channels, out, kernel, expansion, stride))
        channels = out
    return nn.Sequential(*layers, _conv(channels, 1280, 1, 1), *_head(1280))


def mobilenet_v2(width: float) -> nn.Module:
    """MobileNetV2 (arXiv 1801.04381) of torchvision at a width that has no name there."""
    from torchvision.models import mobilenet_v2 as build

    return build(width_mult=width)


class _Inverted(nn.Module):
    def __init__(self, channels: int, out: int, kernel: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = channels * expansion
        widened = [_conv(channels, inner, 1, 1)] if expansion > 1 else []
        narrowed = nn.Sequential(nn.Conv2d(inner, out, 1, bias=False), nn.BatchNorm2d(out))
        self.layers = nn.Sequential(*widened, _depthwise(inner, kernel, stride), narrowed)
        self.residual = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.layers(x)
        return x + answer if self.residual else answer


def _conv(channels: int, out: int, kernel: int, stride: int, groups: int = 1) -> nn.Module:
    padded = (kernel - 1) // 2
    conv = nn.Conv2d(channels, out, kernel, stride, padded, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU6())


def _depthwise(channels: int, kernel: int, stride: int) -> nn.Module:
    return _conv(channels, channels, kernel, stride, groups=channels)


def _head(channels: int) -> tuple[nn.Module, ...]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000)


PLAIN: dict[str, Callable[[], nn.Module]] = {
    "mobilenet_v1": lambda: mobilenet_v1(1.0),
    "mobilenet_v1_075": lambda: mobilenet_v1(0.75),
    "mobilenet_v1_050": lambda: mobilenet_v1(0.5),
    "mobilenet_v1_025": lambda: mobilenet_v1(0.25),
    "mobilenet_v2_130": lambda: mobilenet_v2(1.3),
    "proxyless_mobile": proxyless_mobile,
}
