"""The weights that a training begins with, chosen so that few steps are spent on finding a start.

Memory attention is begun as a search for what looks alike: the features of a frame and those in its
memory are projected by the same matrix, into channels that the rotary code hardly turns, so that
attention goes to similar places from the first step on. What is left to learn is what else counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from phoneward.errors import MissingExtra
from phoneward.export.models import find
from phoneward.export.models.efficienttam.lite0_trunk import Lite0Trunk
from phoneward.export.models.efficienttam.model import EfficientTAM
from phoneward.export.weights import from_package, load

if TYPE_CHECKING:
    from phoneward.export.models.efficienttam.variants import Variant

_CONTENT = 3 / 4  # of a memory's channels, for what a place looks like
_SHARPNESS = 12.0
_SCALE = 0.1
_NEARNESS = 1.4
_SHARES = (0.3, 0.5, 1.0)  # of strides 4, 8 and 16 in the features
_FINE = 0.5


def begin(variant: Variant, seed: int) -> EfficientTAM:
    """Return a model whose trunk, if it can, has seen ImageNet; all else is drawn and arranged.

    Raises:
        MissingExtra, WeightsError: as `imagenet`.
    """
    torch.manual_seed(seed)
    model = EfficientTAM(variant)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.5)
    trunk = model.image_encoder.trunk
    with torch.no_grad():
        if isinstance(trunk, Lite0Trunk):
            trunk.load_imagenet(imagenet())
            _even_neck(model, trunk)
        else:
            trunk.pos_embed.normal_(std=0.02)
        for block in model.memory_encoder.fuser.layers:
            block.gamma.fill_(_SCALE)
        # a mask prompt looks like the logits of an earlier answer
        model.mask_downsample.weight.fill_(20 / 16)
        model.mask_downsample.bias.fill_(-10)
        for codes in (model.maskmem_tpos_enc, model.no_mem_embed, model.no_obj_ptr):
            codes.normal_(std=0.02)
        matching(model)
        locating(model)
    return model


def imagenet() -> dict[str, Tensor]:
    """EfficientNet-Lite0's ImageNet weights.

    Raises:
        MissingExtra: the package with them is not installed.
        WeightsError: they cannot be read.
    """
    card, _ = find("efficientnet_lite0")
    found = from_package(card)
    if found is None:
        raise MissingExtra(str(card.package), "demo")
    state = load(found)
    assert state is not None
    return state


def _even_neck(model: EfficientTAM, trunk: Lite0Trunk) -> None:
    """Let each level of the trunk have its share of the features, whatever its scale and width."""
    noise = torch.randn(4, 3, 16, 16)
    images = nn.functional.interpolate(noise, scale_factor=8, mode="bilinear")
    levels = trunk.levels(trunk(images, trunk.positions(8)))
    weight = model.image_encoder.neck.convs[0].conv_1x1.weight
    weight.normal_()
    columns_of = weight.split([each.shape[1] for each in levels], dim=1)
    for share, columns, maps in zip(_SHARES, columns_of, levels, strict=True):
        columns.mul_(share / maps.square().sum(1).mean().sqrt())
    fine = model.image_encoder.fine
    if fine is None:
        return
    for convolution, maps in ((fine.conv_s0, levels[0]), (fine.conv_s1, levels[1])):
        places = maps.unflatten(1, (convolution.in_channels, -1))
        convolution.weight.normal_().mul_(_FINE / places.square().sum(1).mean().sqrt())
        convolution.bias.zero_()


def matching(model: EfficientTAM) -> None:
    """Begin memory attention as a search for what looks alike."""
    widths = model.variant.widths
    channels, memory = widths.channels, widths.memory
    content = int(_CONTENT * memory)
    encoder = model.memory_encoder
    basis = torch.linalg.qr(torch.randn(channels, channels))[0]
    encoder.pix_feat_proj.weight.copy_(basis[:, :, None, None])
    encoder.pix_feat_proj.bias.zero_()
    # the mask goes to the channels that carry no content, and mixes with nothing yet
    last = encoder.mask_downsampler.encoder[-1]
    last.weight[:content] *= _SCALE
    encoder.pix_feat_proj.weight[content:] *= _SCALE
    encoder.out_proj.weight.zero_()
    encoder.out_proj.bias.zero_()
    encoder.out_proj.weight[:memory, :memory, 0, 0] = torch.eye(memory)
    gain = (_SHARPNESS * channels**0.5 / content) ** 0.5
    for layer in model.memory_attention.layers:
        cross = layer.cross_attn_image
        places = _slow(channels)[:content]
        cross.q_proj.weight.mul_(_SCALE)
        cross.k_proj.weight.mul_(_SCALE)
        cross.q_proj.weight[places] += gain * basis[:content]
        cross.k_proj.weight[places] += gain * torch.eye(memory)[:content]
        layer.self_attn.out_proj.weight.mul_(_SCALE)
        layer.linear2.weight.mul_(_SCALE)


def locating(model: EfficientTAM) -> None:
    """Begin the decoder as one whose prompts find their place in the image, and are found there.

    Queries and keys are projected by the same matrix, so that the codes of equal places match.
    """
    decoder = model.sam_mask_decoder.transformer
    attentions = [decoder.final_attn_token_to_image]
    for layer in decoder.layers:
        attentions += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
    for attention in attentions:
        width, channels = attention.q_proj.weight.shape
        basis = torch.linalg.qr(torch.randn(channels, width))[0].T
        attention.q_proj.weight.copy_(_NEARNESS * basis)
        attention.k_proj.weight.copy_(_NEARNESS * basis)


def _slow(channels: int) -> Tensor:
    """Channels by how little the rotary code turns them: the highest of each axis first."""
    half = channels // 2
    order = torch.arange(half - 1, -1, -1)
    return torch.stack((order, half + order), dim=1).flatten()
