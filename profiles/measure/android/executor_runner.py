"""ExecuTorch's `executor_runner`: its flags, and what it logs.

On Android it writes to the system's log (runtime/platform/default/android.cpp), under the tag
`ExecuTorch`. Newer ones log each execution, older ones the sum alone. After pytorch/executorch
examples/portable/executor_runner/executor_runner.cpp.
"""

from __future__ import annotations

import re

from phoneward.profiles.measure.android.runner import RunnerError, Task
from phoneward.profiles.report.schema import Aggregate, Measured

_WARMUP_RUNS = 5
_LOADED = re.compile(r"Model loaded in ([\d.]+) ms")
_ITERATION = re.compile(r"Iteration (\d+) of (\d+): ([\d.]+) ms")
_TOTAL = re.compile(r"Model executed successfully (\d+) time\(s\) in ([\d.]+) ms")
_NO_BACKEND = re.compile(r"[Bb]ackend (\w+) is not (?:registered|available)")
_ERROR = re.compile(r"^(?:E .*?\] |F .*?\] |ERROR: )?(.*(?:[Ff]ailed|[Ee]rror|0x\d+).*)$", re.M)


class ExecutorRunner:
    """The runner for ExecuTorch files."""

    name = "executor_runner"
    engine = "executorch"
    format = "executorch"
    log_tag: str | None = "ExecuTorch"

    def describes(self, help_text: str) -> bool:
        """Tell whether `--help` printed this runner's help."""
        return "-model_path" in help_text and "-num_executions" in help_text

    def measure(self, task: Task, help_text: str) -> tuple[Measured, str | None]:
        """Time an artifact; raises `RunnerError`."""
        flags = [f"--model_path={task.model}"]
        if "-cpu_threads" in help_text:
            flags.append(f"--cpu_threads={task.request.threads}")
        elif task.request.threads != 1:
            raise RunnerError("this executor_runner cannot be told a number of threads")
        if "-print_output" in help_text:
            flags.append("--print_output=none")
        runs = task.request.runs
        output = task.run([*flags, f"--num_executions={1 + _WARMUP_RUNS + runs}"])
        _check_delegate(output)
        cold = [
            _loaded(task.run([*flags, "--num_executions=1"]))
            for _ in range(task.request.cold_starts)
        ]
        measured = parse(output, 1 + _WARMUP_RUNS + runs).model_copy(
            update={"cold_load_ns": tuple(ns for ns in cold if ns is not None)}
        )
        delegation = task.artifact.delegation
        return measured, delegation.delegate if delegation else None


def _check_delegate(output: str) -> None:
    if missing := _NO_BACKEND.search(output):
        raise RunnerError(f"executor_runner was built without the delegate {missing[1]}")


def parse(output: str, executions: int) -> Measured:
    """Read the time of each execution, or of all where it tells no more.

    Raises:
        RunnerError: it told neither, or the log has lost lines.
    """
    _check_delegate(output)
    total = _TOTAL.search(output)
    if total is None or int(total[1]) != executions:
        said = _ERROR.search(output)
        raise RunnerError(f"executor_runner told no times: {said[1] if said else _end(output)}")
    found = {int(index): _ns(ms) for index, of, ms in _ITERATION.findall(output)}
    if not found:
        mean = float(total[2]) * 1e6 / executions
        source = "executor_runner, which tells only the sum, the first inference in it"
        return Measured(aggregate=Aggregate(source=source, count=executions, mean_ns=mean))
    if sorted(found) != list(range(1, executions + 1)):
        raise RunnerError(
            f"Android's log kept {len(found)} of {executions} times; ask for fewer runs, or "
            "enlarge it: adb logcat -G 4M"
        )
    times = [found[index] for index in range(1, executions + 1)]
    if min(times) <= 0:
        raise RunnerError("executor_runner told a time that is not above zero")
    return Measured(
        samples_ns=tuple(times[1 + _WARMUP_RUNS :]),
        first_ns=times[0],
        warmup_runs=_WARMUP_RUNS,
    )


def _loaded(output: str) -> int | None:
    found = _LOADED.search(output)
    return _ns(found[1]) if found and float(found[1]) > 0 else None


def _ns(milliseconds: str) -> int:
    return round(float(milliseconds) * 1e6)


def _end(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
