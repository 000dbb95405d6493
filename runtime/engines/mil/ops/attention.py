"""Attention."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from phoneward.runtime.engines.mil.numerics import Sums, rounded
from phoneward.runtime.engines.mil.signature import Table

TABLE = Table()


@TABLE.op
def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *, sums: Sums
) -> Tensor:
    mask = attn_mask
    if sums.exact and mask is None:
        return F.scaled_dot_product_attention(query, key, value)
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape).masked_fill(~mask, -math.inf)
    scores = sums.matmul(query, key.mT) / math.sqrt(query.shape[-1])
    scores = scores if mask is None else scores + mask
    if sums.exact:
        # not PyTorch's own: it answers zeros where a mask leaves nothing, the definition does not
        return scores.softmax(-1) @ value
    scores = rounded(scores)
    powers = rounded((scores - scores.amax(-1, keepdim=True)).exp())
    return sums.matmul(rounded(powers / sums.total(powers, (-1,))), value)
