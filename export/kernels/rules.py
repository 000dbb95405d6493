"""Op by op, what it is to an engine: a kernel, part of one, or nothing; as data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from phoneward.export.kernels.calls import GETITEM, Call
from phoneward.export.kernels.work import (
    Work,
    adaptive_pool,
    attention,
    convolution,
    einsum,
    gather,
    linear,
    moves_nothing,
    plain,
    pool,
    product,
)

_OTHER = plain("other")


class Role(Enum):
    """What becomes of a call."""

    KERNEL = "a kernel of its own"
    VIEW = "nothing: the same elements under another shape"
    AFFINE = "a batch norm: folds into the weights before it, else a kernel"
    ACTIVATION = "part of the kernel before it, else a kernel"
    ELEMENTWISE = "part of the kernel before it where that can be, else a kernel"
    CONSTANT = "known before anything runs"
    NOTHING = "a check that an engine does not have"


@dataclass(frozen=True)
class OpRule:
    """Role and work of an op; `activation` is its name as kernels state it.

    Where `free` says so of a call it is a view.
    """

    role: Role
    work: Callable[[Call], Work] = _OTHER
    activation: str | None = None
    free: Callable[[Call], bool] = lambda call: False


def _all(names: str, rule: OpRule) -> dict[str, OpRule]:
    return {f"aten.{name}": rule for name in names.split()}


def _activations(names: str) -> dict[str, OpRule]:
    return {
        f"aten.{name}": OpRule(Role.ACTIVATION, plain("activation"), name) for name in names.split()
    }


RULES: dict[str, OpRule] = {
    GETITEM: OpRule(Role.VIEW),
    **_all(
        "view reshape flatten unflatten squeeze unsqueeze expand expand_as reshape_as view_as "
        "_unsafe_view dropout feature_dropout alias contiguous clone detach lift_fresh_copy to "
        "_to_copy type_as float lift_fresh detach_copy",
        OpRule(Role.VIEW),
    ),
    **_all(
        "zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty sym_size",
        OpRule(Role.CONSTANT),
    ),
    **_all("_assert_tensor_metadata _assert_async _assert_scalar", OpRule(Role.NOTHING)),
    **_all(
        "conv1d conv2d conv_transpose1d conv_transpose2d convolution",
        OpRule(Role.KERNEL, convolution),
    ),
    **_all("linear", OpRule(Role.KERNEL, linear)),
    **_all("matmul mm bmm addmm baddbmm", OpRule(Role.KERNEL, product)),
    **_all("einsum", OpRule(Role.KERNEL, einsum)),
    **_all("scaled_dot_product_attention", OpRule(Role.KERNEL, attention)),
    **_all("softmax _softmax log_softmax", OpRule(Role.KERNEL, plain("softmax"))),
    **_all(
        "layer_norm group_norm rms_norm instance_norm native_layer_norm native_group_norm",
        OpRule(Role.KERNEL, plain("norm")),
    ),
    **_all(
        "batch_norm _native_batch_norm_legit_no_training",
        OpRule(Role.AFFINE, plain("elementwise")),
    ),
    **_all("max_pool1d max_pool2d avg_pool1d avg_pool2d", OpRule(Role.KERNEL, pool)),
    **_all("max_pool2d_with_indices", OpRule(Role.KERNEL, pool)),
    **_all(
        "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool2d _adaptive_avg_pool2d",
        OpRule(Role.KERNEL, adaptive_pool),
    ),
    **_all(
        "mean sum amax amin max min var std var_mean norm linalg_vector_norm logsumexp prod all "
        "any",
        OpRule(Role.KERNEL, plain("reduce")),
    ),
    **_all(
        "upsample_bilinear2d upsample_nearest2d upsample_bicubic2d _upsample_bicubic2d_aa "
        "_upsample_bilinear2d_aa upsample_nearest_exact2d grid_sampler",
        OpRule(Role.KERNEL, plain("resize")),
    ),
    **_all("permute transpose t", OpRule(Role.KERNEL, plain("move"), free=moves_nothing)),
    **_all("slice narrow", OpRule(Role.KERNEL, plain("move"), free=moves_nothing)),
    **_all("pad constant_pad_nd", OpRule(Role.KERNEL, plain("move"), free=moves_nothing)),
    **_all(
        "cat stack concat select unbind split split_with_sizes chunk roll flip repeat "
        "repeat_interleave pixel_shuffle pixel_unshuffle channel_shuffle copy slice_scatter "
        "select_scatter movedim swapaxes unfold im2col col2im meshgrid tile fill masked_fill "
        "index_put",
        OpRule(Role.KERNEL, plain("move")),
    ),
    **_all("embedding index gather index_select take_along_dim", OpRule(Role.KERNEL, gather)),
    **_all(
        "topk sort argsort argmax argmin cumsum cumprod scatter scatter_add one_hot nonzero tril "
        "triu",
        OpRule(Role.KERNEL, _OTHER),
    ),
    **_activations(
        "relu relu6 hardtanh hardswish hardsigmoid silu gelu sigmoid tanh leaky_relu elu mish "
        "softplus prelu selu celu clamp"
    ),
    **_all(
        "add sub mul div rsub neg abs square sqrt rsqrt reciprocal pow exp exp2 log log2 erf sin "
        "cos clamp_min clamp_max maximum minimum where eq ne lt le gt ge logical_and "
        "logical_or logical_not bitwise_and bitwise_or bitwise_not floor ceil round sign "
        "floor_divide remainder addcmul addcdiv lerp atan2 __and__ __or__ isfinite nan_to_num",
        OpRule(Role.ELEMENTWISE, plain("elementwise")),
    ),
}
