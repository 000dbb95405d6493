"""ONNX Runtime's own profile: a trace of every node.

Nodes that it fused keep the name of one of them or of their result, by which the PyTorch module is
found; nodes of its own (reordering of layouts) come from none.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phoneward.runtime.op_times import OpDuration, OpTable
from phoneward.runtime.op_times.onnx_modules import modules_of

if TYPE_CHECKING:
    from phoneward.runtime.op_times import OpRun

_ERRORS_ONLY = 3
_SUFFIX = "_kernel_time"
# what it appends to the names of nodes that it made of others
_OWN_ENDINGS = ("_nchwc", "_nhwc")


def op_times(run: OpRun) -> OpTable:
    """Run under the profiler; the first inference is left out."""
    events = _trace(run)
    times: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_SUFFIX):
            arguments = event["args"]
            name = event["name"].removesuffix(_SUFFIX)
            key = name, arguments["op_name"], arguments.get("provider", "")
            times[key].append(1000 * int(event["dur"]))
    modules = modules_of(run.path)
    ops = []
    for (name, kind, provider), durations in times.items():
        calls = max(1, round(len(durations) / (run.runs + 1)))
        later = durations[calls:] or durations
        median = int(statistics.median(later)) * calls
        unit = provider.removesuffix("ExecutionProvider") or None
        ops.append(OpDuration(name, kind, median, _module(name, modules), unit, calls))
    return OpTable(tuple(ops))


def _module(name: str, modules: Mapping[str, str]) -> str | None:
    for ending in _OWN_ENDINGS:
        name = name.removesuffix(ending)
    return modules.get(name)


def _trace(run: OpRun) -> list[dict[str, Any]]:
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = run.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "trace")
        session = onnxruntime.InferenceSession(
            str(run.path), options, providers=["CPUExecutionProvider"]
        )
        for _ in range(run.runs + 1):
            session.run(None, dict(run.tensors))
        text = Path(session.end_profiling()).read_text(encoding="utf-8")
    events: list[dict[str, Any]] = json.loads(text)
    return events
