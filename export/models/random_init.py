"""Random weights under which a network behaves like a trained one, so that parity means something.

Framework defaults hide errors: layer scales of 1e-5 mute whole attention blocks, and untouched
BatchNorm statistics let activations fade or explode with depth. Equally likely classes invent
errors: the best two of a thousand then differ by less than half precision resolves, where a
trained network has a favourite.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

_NORMS = (nn.modules.batchnorm._BatchNorm,)
_CALIBRATION_IMAGES = 4
# the last matrix of a residual branch; with a smaller gain a block adds to the stream what it does
# in trained networks, and does not double the rounding errors of the blocks before it
_ENDS_BRANCH = re.compile(r"(\.proj|\.out_proj|\.fc2)(\.conv)?\.weight$")
_BRANCH_GAIN = 0.4
_OCTAVES = (4, 16, 64)
_GAIN_EXPONENT = -1 / 3


def randomise(
    model: nn.Module, image_shape: tuple[int, ...], seed: int, classifiers: Collection[str] = ()
) -> None:
    """Fill `model` in place, a function of the seed and of the parameters' order and shapes.

    Matrices and kernels get normal values that keep variance (LeCun), less so at the end of a
    residual branch, one-dimensional weights (norms) values around 1, layer scales values around
    0.2, everything else values around 0. The rows of the modules named in `classifiers` get gains
    of a heavy tail (Pareto, exponent 3). BatchNorm statistics are then measured on random images
    of shape `image_shape` (1, 3, H, W), coarse and fine like photographs, of unit variance.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(_draw(name, parameter, generator))
        for name in classifiers:
            weight = cast(Tensor, model.get_submodule(name).weight)
            weight *= torch.rand((len(weight), 1), generator=generator) ** _GAIN_EXPONENT
        _calibrate_batchnorm(model, image_shape, generator)
    model.eval()


def _draw(name: str, parameter: Tensor, generator: torch.Generator) -> Tensor:
    values = torch.randn(parameter.shape, generator=generator)
    if parameter.ndim >= 2 and name.endswith("weight"):
        gain = _BRANCH_GAIN if _ENDS_BRANCH.search(name) else 1.0
        return values * gain * math.sqrt(1 / math.prod(parameter.shape[1:]))
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
    model(_images(image_shape, generator))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _images(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    images = torch.zeros(())
    for side in (*_OCTAVES, shape[-1]):
        noise = torch.randn((_CALIBRATION_IMAGES, shape[1], side, side), generator=generator)
        images = images + functional.interpolate(noise, size=shape[2:], mode="bilinear")
    return images / images.std()
