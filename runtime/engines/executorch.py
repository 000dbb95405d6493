"""ExecuTorch's Python runtime. It needs torch, which its package brings."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from phoneward.errors import EngineError
from phoneward.runtime.engines.session import Session

if TYPE_CHECKING:
    from numpy.typing import NDArray

_IDENTIFIER = slice(4, 6), b"ET"


class ExecuTorchSession(Session):
    """The method `forward` of a program, with XNNPACK.

    ExecuTorch has one thread pool a process, and loaded programs hold on to it: resetting it
    under a live one hangs (ExecuTorch 1.5.1). So all sessions that are open at the same time have
    the same number of threads, and asking for another is an `EngineError`.
    """

    # weak: a session that its owner lost without closing it no longer counts
    _open: ClassVar[weakref.WeakSet[ExecuTorchSession]] = weakref.WeakSet()

    def _load(self) -> None:
        from executorch.runtime import Runtime, Verification

        self._check_identifier()
        self._set_threads()
        # the program keeps the file's memory alive for its method
        self._program: Any = Runtime.get().load_program(
            self.path, verification=Verification.InternalConsistency
        )
        self._method: Any = self._program.load_method("forward")
        self._open.add(self)

    def _run(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        import torch

        results = self._method.execute([torch.from_numpy(array) for array in arrays])
        return [np.array(result.numpy()) for result in results]

    def _unload(self) -> None:
        del self._method, self._program
        self._open.discard(self)

    def _check_identifier(self) -> None:
        # ExecuTorch 1.5.1 ends the process over an identifier that is not UTF-8
        place, expected = _IDENTIFIER
        with self.path.open("rb") as stream:
            if stream.read(8)[place] != expected:
                raise EngineError(f"{self.path}: not an ExecuTorch program")

    def _set_threads(self) -> None:
        from executorch.extension.pybindings.portable_lib import (
            _threadpool_get_thread_count,
            _unsafe_reset_threadpool,
        )

        present = _threadpool_get_thread_count()
        if present == self.threads:
            return
        if self._open:
            raise EngineError(
                f"ExecuTorch has one thread pool a process: close the sessions with {present} "
                f"threads before opening one with {self.threads}"
            )
        _unsafe_reset_threadpool(self.threads)
