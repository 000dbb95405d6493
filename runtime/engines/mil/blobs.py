"""Core ML's weight files: is a weight there, whole, and of the size its op says?"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np

from phoneward.errors import EngineError

# MILBlob's StorageFormat.hpp: a file header, then records of 64 bytes that name type, size, place
_SENTINEL = 0xDEADBEEF
_RECORD = struct.Struct("<IIQQ")


def check_blob(file: Path, offset: int, value: Any) -> None:
    """Check the record at `offset` of a weight file against the tensor that refers to it.

    Raises:
        EngineError: there is no record, its bytes are cut, or not those of the tensor's shape.
    """
    available = file.stat().st_size
    # systems refuse to seek to what no file can have
    if offset + _RECORD.size > available:
        raise EngineError(f"{file}: truncated: no weights at byte {offset}")
    with file.open("rb") as stream:
        stream.seek(offset)
        head = stream.read(_RECORD.size)
    sentinel, _, size, start = _RECORD.unpack(head)
    if sentinel != _SENTINEL:
        raise EngineError(f"{file}: damaged: no record of weights at byte {offset}")
    end = start + size
    if end > available:
        raise EngineError(f"{file}: truncated: has {available} bytes, weights go to byte {end}")
    needed = _bytes_needed(value.type.tensorType)
    if size != needed:
        raise EngineError(f"{file}: {size} bytes at byte {offset}, where a tensor needs {needed}")


def _bytes_needed(tensor: Any) -> int:
    from coremltools.converters.mil.mil import types

    dtype = types.PROTO_TO_BUILTIN_TYPE.get(tensor.dataType)
    if dtype is None or dtype is types.str:
        raise EngineError(f"weights of element type {tensor.dataType}, which has no size")
    count: int = math.prod(dimension.constant.size for dimension in tensor.dimensions)
    if types.is_sub_byte(dtype):
        return -(-count * int(dtype.get_bitwidth()) // 8)
    return count * int(np.dtype(types.nptype_from_builtin(dtype)).itemsize)
