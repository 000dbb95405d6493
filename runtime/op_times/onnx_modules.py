"""Which PyTorch module each node of an ONNX file comes from, as `torch.onnx` wrote it there.

Reads the few fields of the protobuf that tell, so that a board needs no `onnx` package: of a
ModelProto the graph (7), of that the nodes (1), of these outputs (2), name (3) and the
properties (9), of these key (1) and value (2).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

_GRAPH, _NODE, _OUTPUT, _NAME, _PROPERTY = 7, 1, 2, 3, 9
_KEY, _VALUE = 1, 2
_SCOPES = "pkg.torch.onnx.name_scopes"
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_MORE, _LOW = 0x80, 0x7F
# scopes: the root, the modules down to the innermost, and the op itself
_FEWEST_SCOPES = 2


def modules_of(path: Path) -> dict[str, str]:
    """Return the module path by the name of a node and by the names of its outputs.

    Raises:
        ValueError: the file is no protobuf.
    """
    found: dict[str, str] = {}
    for graph in _only(memoryview(path.read_bytes()), _GRAPH):
        for node in _only(graph, _NODE):
            module = _module(node)
            if module is not None:
                for name in (*_only(node, _NAME), *_only(node, _OUTPUT)):
                    found[bytes(name).decode()] = module
    return found


def _module(node: memoryview) -> str | None:
    for entry in _only(node, _PROPERTY):
        pair = {number: bytes(value) for number, value in _fields(entry)}
        if pair.get(_KEY) == _SCOPES.encode():
            scopes = ast.literal_eval(pair.get(_VALUE, b"[]").decode())
            return str(scopes[-2]) if len(scopes) >= _FEWEST_SCOPES else None
    return None


def _only(data: memoryview, number: int) -> Iterator[memoryview]:
    return (value for field, value in _fields(data) if field == number)


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the number and bytes of each field that has bytes."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        kind = tag & 7
        if kind == _VARINT:
            _, place = _varint(data, place)
        elif kind in (_EIGHT, _FOUR):
            place += 8 if kind == _EIGHT else 4
        elif kind == _BYTES:
            length, place = _varint(data, place)
            if place + length > len(data):
                raise ValueError("a field reaches beyond the end")
            yield tag >> 3, data[place : place + length]
            place += length
        else:
            raise ValueError(f"wire type {kind} is not one of protobuf's")


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if place >= len(data):
            raise ValueError("a number reaches beyond the end")
        byte = data[place]
        value |= (byte & _LOW) << shift
        place, shift = place + 1, shift + 7
        if not byte & _MORE:
            return value, place
