"""ExecuTorch's event trace (ETDump), read by its own Inspector."""

from __future__ import annotations

import re
import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phoneward.runtime.op_times import OpDuration, OpTable

if TYPE_CHECKING:
    from phoneward.runtime.op_times import OpRun

# containers of other events, and what happens once
_NOT_OPS = {"OPERATOR_CALL", "DELEGATE_CALL", "Method::execute", "Method::init"}
_NOT_OPS |= {"Program::load_method"}
_NATIVE = "native_call_"
_NS_A_MS = 1e6


def op_times(run: OpRun) -> OpTable:
    """Run with the event tracer on; the first inference is left out."""
    ops = []
    for event in _events(run):
        raw = event.perf_data.raw if event.perf_data else ()
        if event.name in _NOT_OPS or not raw:
            continue
        native = event.name.startswith(_NATIVE)
        name = event.name.removeprefix(_NATIVE)
        later = raw[1:] or raw
        ops.append(
            OpDuration(
                name=name,
                kind=re.sub(r" #\d+$", "", name),
                median_ns=round(statistics.median(later) * _NS_A_MS),
                module=_module(event),
                unit="portable" if native else (event.delegate_backend_name or "delegate"),
            )
        )
    return OpTable(tuple(ops))


def _module(event: Any) -> str | None:
    for hierarchy in (event.module_hierarchy or {}).values():
        if hierarchy:
            return str(list(hierarchy.values())[-1][0]) or None
    return None


def _events(run: OpRun) -> list[Any]:
    import torch
    from executorch.devtools import Inspector
    from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
    from executorch.runtime import Runtime

    _unsafe_reset_threadpool(run.threads)
    program = Runtime.get().load_program(run.path, enable_etdump=True)
    method = program.load_method("forward")
    tensors = [torch.from_numpy(run.tensors[spec.name]) for spec in run.inputs]
    for _ in range(run.runs + 1):
        method.execute(tensors)
    with tempfile.TemporaryDirectory() as folder:
        dump = str(Path(folder) / "trace.etdp")
        program.write_etdump_result_to_file(dump, str(Path(folder) / "debug.bin"))
        blocks = Inspector(etdump_path=dump).event_blocks
    return [event for block in blocks for event in block.events]
