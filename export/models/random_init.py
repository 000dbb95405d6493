"""Random weights under which a network behaves like a trained one, so that parity means something.

Framework defaults hide errors: layer scales of 1e-5 mute whole attention blocks, and untouched
BatchNorm statistics let activations fade or explode with depth.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_NORMS = (nn.modules.batchnorm._BatchNorm,)
_CALIBRATION_IMAGES = 4


def randomise(model: nn.Module, image_shape: tuple[int, ...], seed: int) -> None:
    """Fill `model` in place, a function of the seed and of the parameters' order and shapes.

    Matrices and kernels get He-scaled normal values, one-dimensional weights (norms) values around
    1, layer scales values around 0.2, everything else values around 0; BatchNorm statistics are
    then measured on random images of shape `image_shape` (1, 3, H, W), standard normal.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(_draw(name, parameter, generator))
        _calibrate_batchnorm(model, image_shape, generator)
    model.eval()


def _draw(name: str, parameter: Tensor, generator: torch.Generator) -> Tensor:
    values = torch.randn(parameter.shape, generator=generator)
    if parameter.ndim >= 2 and name.endswith("weight"):
        return values * math.sqrt(2 / math.prod(parameter.shape[1:]))
    if name.endswith("gamma"):
        return 0.2 * (1 + 0.1 * values)
    if name.endswith(("weight", "scale")):
        return 1 + 0.1 * values
    return 0.05 * values


def _calibrate_batchnorm(
    model: nn.Module, image_shape: tuple[int, ...], generator: torch.Generator
) -> None:
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, _NORMS)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    images = torch.randn((_CALIBRATION_IMAGES, *image_shape[1:]), generator=generator)
    model(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
