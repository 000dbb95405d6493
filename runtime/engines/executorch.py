"""ExecuTorch's Python runtime. It needs torch, which its package brings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from phoneward.runtime.engines.session import Session

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ExecuTorchSession(Session):
    """The method `forward` of a program, with XNNPACK.

    ExecuTorch has one thread pool a process: `threads` holds for every session of the process
    until the next one is opened.
    """

    def _load(self) -> None:
        from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
        from executorch.runtime import Runtime, Verification

        _unsafe_reset_threadpool(self.threads)
        # the program keeps the file's memory alive for its method
        self._program: Any = Runtime.get().load_program(
            self.path, verification=Verification.InternalConsistency
        )
        self._method: Any = self._program.load_method("forward")

    def _run(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        import torch

        results = self._method.execute([torch.from_numpy(array) for array in arrays])
        return [np.array(result.numpy()) for result in results]

    def _unload(self) -> None:
        del self._method, self._program
