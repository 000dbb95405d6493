"""The little of LiteRT's C interface that a profiled inference takes, by ctypes.

The declarations are those of `litert/c/*.h` at version 2.3; the profiler is switched on by an
opaque option whose payload is TOML, as `litert_runtime_options.h` writes it.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phoneward.closing import Closing
from phoneward.errors import EngineError

if TYPE_CHECKING:
    from numpy.typing import NDArray

OPERATOR, DELEGATED = 1 << 1, 1 << 3
"""Kinds of events: an op of the graph, and one inside a delegate."""
_CPU = 1
_WRITE = 1
_LIBRARY = "libLiteRt.dylib" if sys.platform == "darwin" else "libLiteRt.so"

Handle = ctypes.c_void_p


class _TensorType(ctypes.Structure):
    _fields_ = (
        ("element_type", ctypes.c_int),
        ("rank_and_flag", ctypes.c_uint32),
        ("dimensions", ctypes.c_int32 * 8),
        ("strides", ctypes.c_uint32 * 8),
    )


class _Event(ctypes.Structure):
    _fields_ = (
        ("tag", ctypes.c_char_p),
        ("kind", ctypes.c_int),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("memory", ctypes.c_int64 * 6),
        ("metadata", ctypes.c_uint64 * 2),
        ("source", ctypes.c_int),
    )


@dataclass(frozen=True)
class Event:
    """One op of one inference."""

    name: str
    kind: int
    elapsed_us: int


class ProfiledModel(Closing):
    """A compiled model on the CPU with its profiler on. Its first signature is what runs."""

    def __init__(self, path: Path, threads: int) -> None:
        """Load and compile; raises `EngineError`."""
        self._library = ctypes.CDLL(str(_folder() / _LIBRARY))
        self._undo: list[tuple[str, Handle]] = []
        try:
            self._load(path, threads)
        except EngineError:
            self.close()
            raise

    def _load(self, path: Path, threads: int) -> None:
        self._environment = self._make(
            "LiteRtCreateEnvironment", ctypes.c_int(0), None, undo="LiteRtDestroyEnvironment"
        )
        model = self._make(
            "LiteRtCreateModelFromFile",
            self._environment,
            str(path).encode(),
            undo="LiteRtDestroyModel",
        )
        self._compiled = self._make(
            "LiteRtCreateCompiledModel",
            self._environment,
            model,
            self._options(threads),
            undo="LiteRtDestroyCompiledModel",
        )
        self._profiler = self._make("LiteRtCompiledModelGetProfiler", self._compiled)
        self._signature = self._make("LiteRtGetModelSignature", model, ctypes.c_size_t(0))
        self._inputs, self._outputs = self._buffers("Input"), self._buffers("Output")

    def feed(self, tensors: Sequence[tuple[str, NDArray[Any]]]) -> None:
        """Fill the inputs, by name where the file has these names, else in this order."""
        by_name = dict(tensors)
        known = [name for name, _ in self._inputs]
        arrays = (
            [by_name[n] for n in known]
            if set(known) == set(by_name)
            else [array for _, array in tensors]
        )
        if len(arrays) != len(known):
            raise EngineError(f"the file has {len(known)} inputs, not {len(arrays)}")
        for (name, buffer), array in zip(self._inputs, arrays, strict=True):
            data = np.ascontiguousarray(array)
            size = ctypes.c_size_t()
            self._call("LiteRtGetTensorBufferPackedSize", buffer, ctypes.byref(size))
            if size.value != data.nbytes:
                raise EngineError(f"input '{name}' has {size.value} bytes, not {data.nbytes}")
            address = self._make("LiteRtLockTensorBuffer", buffer, lock=True)
            ctypes.memmove(address, data.ctypes.data, data.nbytes)
            self._call("LiteRtUnlockTensorBuffer", buffer)

    def infer(self) -> list[Event]:
        """Run once; returns the ops in the order of execution."""
        self._call("LiteRtResetProfiler", self._profiler)
        self._call("LiteRtStartProfiler", self._profiler)
        arguments = []
        for buffers in (self._inputs, self._outputs):
            handles = (Handle * len(buffers))(*(buffer.value for _, buffer in buffers))
            arguments += [ctypes.c_size_t(len(buffers)), handles]
        self._call("LiteRtRunCompiledModel", self._compiled, ctypes.c_size_t(0), *arguments)
        self._call("LiteRtStopProfiler", self._profiler)
        count = ctypes.c_int()
        self._call("LiteRtGetNumProfilerEvents", self._profiler, ctypes.byref(count))
        events = (_Event * count.value)()
        self._call("LiteRtGetProfilerEvents", self._profiler, count, events)
        return [
            Event((event.tag or b"").decode(), event.kind, event.elapsed_us)
            for event in events
            if event.kind in (OPERATOR, DELEGATED)
        ]

    def close(self) -> None:
        """Free all of it; closing twice is harmless."""
        while self._undo:
            function, handle = self._undo.pop()
            destroy = getattr(self._library, function)
            destroy.restype = None
            destroy(handle)

    def _options(self, threads: int) -> Handle:
        # the compiled model keeps what it needs of its options
        options = self._make("LiteRtCreateOptions", undo="LiteRtDestroyOptions")
        self._call("LiteRtSetOptionsHardwareAccelerators", options, ctypes.c_int(_CPU))
        for name, toml in (
            ("runtime_options_string", "enable_profiling = true\n"),
            ("xnnpack", f"num_threads = {threads}\n"),
        ):
            c = ctypes.CDLL(None)
            c.strdup.restype = Handle
            payload = Handle(c.strdup(toml.encode()))
            free = ctypes.cast(c.free, Handle)
            option = self._make("LiteRtCreateOpaqueOptions", name.encode(), payload, free)
            self._call("LiteRtAddOpaqueOptions", options, option)
        return options

    def _buffers(self, side: str) -> list[tuple[str, Handle]]:
        count = ctypes.c_size_t()
        self._call(f"LiteRtGetNumSignature{side}s", self._signature, ctypes.byref(count))
        found = []
        for number in range(count.value):
            index = ctypes.c_size_t(number)
            name = ctypes.c_char_p()
            self._call(f"LiteRtGetSignature{side}Name", self._signature, index, ctypes.byref(name))
            tensor = self._make(f"LiteRtGetSignature{side}TensorByIndex", self._signature, index)
            kind = _TensorType()
            self._call("LiteRtGetRankedTensorType", tensor, ctypes.byref(kind))
            needs = self._make(
                f"LiteRtGetCompiledModel{side}BufferRequirements",
                self._compiled,
                ctypes.c_size_t(0),
                index,
            )
            buffer = self._make(
                "LiteRtCreateManagedTensorBufferFromRequirements",
                self._environment,
                ctypes.byref(kind),
                needs,
                undo="LiteRtDestroyTensorBuffer",
            )
            found.append(((name.value or b"").decode(), buffer))
        return found

    def _make(self, function: str, *arguments: Any, undo: str = "", lock: bool = False) -> Handle:
        """Call what gives a handle by its last argument (for a lock, before the mode)."""
        handle = Handle()
        mode = [ctypes.c_int(_WRITE)] if lock else []
        self._call(function, *arguments, ctypes.byref(handle), *mode)
        if undo:
            self._undo.append((undo, handle))
        return handle

    def _call(self, function: str, *arguments: Any) -> None:
        found = getattr(self._library, function)
        found.restype = ctypes.c_int
        if status := found(*arguments):
            raise EngineError(f"LiteRT's {function} failed with status {status}")


def _folder() -> Path:
    spec = importlib.util.find_spec("ai_edge_litert")
    if spec is None or spec.origin is None:
        raise EngineError("ai-edge-litert is not installed")
    return Path(spec.origin).parent
