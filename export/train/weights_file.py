"""Trained weights as the bytes of a safetensors file."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def serialized(state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return a safetensors file; equal arguments make equal files."""
    from safetensors.torch import save

    return _with_sorted_header(save(dict(state), dict(metadata)))


def _with_sorted_header(content: bytes) -> bytes:
    """Put the header's keys in order: safetensors writes the metadata's in any."""
    length = struct.unpack("<Q", content[:8])[0]
    header = json.dumps(json.loads(content[8 : 8 + length]), sort_keys=True, separators=(",", ":"))
    text = header.encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8
    return struct.pack("<Q", len(text)) + text + content[8 + length :]
