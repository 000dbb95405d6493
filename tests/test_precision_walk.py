"""Where half precision goes wrong is found, and where it does not nothing is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types

from phoneward.runtime.engines.mil.precision import (
    DRIFT,
    JUMP,
    LIMIT,
    NAN,
    OVERFLOW,
    UNDERFLOW,
    PrecisionReport,
    compare,
    precision_of,
)
from phoneward.runtime.engines.mil.program import Program
from tests.blame_models import package

X = np.linspace(0.5, 2.0, 64, dtype=np.float32).reshape(1, 64)


def walked(body: Callable[[Any], Any], folder: Path, *samples: Any) -> PrecisionReport:
    """Build a half-precision package of one input `x` and walk it."""
    specs = [mb.TensorSpec(shape=X.shape, dtype=types.fp16)]

    @mb.program(input_specs=specs, opset_version=ct.target.iOS17)
    def program(x: Any) -> Any:
        return body(x)

    path = package(program, folder / "model.mlpackage", pass_pipeline=ct.PassPipeline.EMPTY)
    rows: list[Mapping[str, Any]] = [{"x": sample} for sample in samples or (X,)]
    return precision_of(Program.load(path), rows)


def half(value: float) -> np.float16:
    return np.float16(value)


def test_an_overflow_is_named_with_its_range(tmp_path: Path) -> None:
    def body(x: Any) -> Any:
        loud = mb.mul(x=mb.mul(x=x, y=half(300), name="loud"), y=half(300), name="louder")
        return mb.mul(x=loud, y=half(1e-4), name="quiet")

    report = walked(body, tmp_path)
    first = report.findings[0]
    assert (first.kind, first.op.name, first.op.type) == (OVERFLOW, "louder", "mul")
    assert first.op.high == pytest.approx(180000, rel=1e-3)
    assert first.op.overflowed == int((X * 9e4 >= 65520).sum())
    assert "65504" in first.text
    assert report.first(NAN) is None


def test_what_is_no_number_is_named_after_its_cause(tmp_path: Path) -> None:
    def body(x: Any) -> Any:
        one = mb.exp(x=mb.mul(x=x, y=half(8), name="wide"), name="one")
        return mb.sub(x=one, y=mb.mul(x=one, y=half(0.5), name="two"), name="difference")

    report = walked(body, tmp_path)
    assert [(f.kind, f.op.name) for f in report.findings] == [
        (OVERFLOW, "one"),
        (NAN, "difference"),
    ]


def test_values_that_vanish_are_named_where_they_count(tmp_path: Path) -> None:
    def body(x: Any) -> Any:
        tiny = mb.mul(x=mb.mul(x=x, y=half(1e-5), name="small"), y=half(1e-4), name="tiny")
        return mb.mul(x=tiny, y=half(6e4), name="back")

    finding = walked(body, tmp_path).first(UNDERFLOW)
    assert finding is not None
    assert (finding.op.name, finding.op.vanished, finding.op.size) == ("tiny", 64, 64)


def test_the_tails_of_a_softmax_may_vanish(tmp_path: Path) -> None:
    report = walked(
        lambda x: mb.softmax(x=mb.mul(x=x, y=half(64), name="sharp"), axis=-1, name="s"), tmp_path
    )
    assert report.ops[-1].vanished > 32
    assert report.first(UNDERFLOW) is None


def test_what_a_larger_term_absorbs_is_no_finding(tmp_path: Path) -> None:
    def body(x: Any) -> Any:
        small = mb.mul(x=mb.mul(x=x, y=half(1e-5), name="small"), y=half(1e-4), name="tiny")
        return mb.add(x=x, y=mb.reshape(x=small, shape=X.shape, name="moved"), name="trunk")

    report = walked(body, tmp_path)
    assert next(op for op in report.ops if op.name == "tiny").vanished == X.size
    assert report.findings == ()


def test_cancellation_is_a_jump_of_the_op_that_cancels(tmp_path: Path) -> None:
    def body(x: Any) -> Any:
        return mb.sub(x=mb.add(x=x, y=half(2000), name="far"), y=half(2000), name="near")

    report = walked(body, tmp_path)
    (finding,) = report.findings
    # the values are lost where the offset is added, whose result is a range of 1.5 at 2000
    assert (finding.kind, finding.op.name) == (JUMP, "far")
    assert finding.op.error > LIMIT
    assert finding.op.own_error == pytest.approx(finding.op.error)
    assert finding.op.inherited < 1e-3


def test_errors_that_add_up_are_a_drift(tmp_path: Path) -> None:
    def body(x: Any) -> Any:
        for index in range(6):
            # each step doubles the error's share of the range
            x = mb.mul(x=mb.sub(x=x, y=half(1.0), name=f"s{index}"), y=half(1), name=f"m{index}")
            x = mb.add(x=mb.mul(x=x, y=x, name=f"q{index}"), y=half(0.4), name=f"a{index}")
        return x

    report = walked(body, tmp_path)
    kinds = {finding.kind for finding in report.findings}
    assert kinds <= {DRIFT, JUMP}
    for finding in report.findings:
        grew = finding.op.error > 4 * finding.op.inherited
        assert grew == (finding.kind == JUMP)


def test_a_healthy_program_has_no_findings(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float16)
    report = walked(
        lambda x: mb.softmax(x=mb.linear(x=mb.tanh(x=x), weight=weight), axis=-1, name="y"),
        tmp_path,
    )
    assert report.findings == ()
    assert 0 < report.outputs["y"] < 5e-3
    assert all(op.half and op.error < LIMIT for op in report.ops)


def test_samples_are_merged(tmp_path: Path) -> None:
    report = walked(lambda x: mb.mul(x=x, y=half(2), name="y"), tmp_path, X, 100 * X, -X)
    (op,) = report.ops
    assert (op.low, op.high, op.size) == (-4.0, 400.0, 3 * X.size)


def test_no_sample_proves_nothing(tmp_path: Path) -> None:
    report = walked(lambda x: mb.relu(x=x, name="y"), tmp_path)
    assert report.outputs == {"y": report.ops[0].error}
    with pytest.raises(ValueError, match="no sample"):
        precision_of(Program.load(tmp_path / "model.mlpackage"), [])


@pytest.mark.parametrize(
    ("exact", "got", "error", "counts"),
    [
        ([0.0, 4.0], [1.0, 4.0], 0.25, (0, 0, 0)),
        ([3.0, 3.0], [3.0, 6.0], 1.0, (0, 0, 0)),
        ([0.0, 0.0], [0.0, 0.5], 0.5, (0, 0, 0)),
        ([1.0, 2.0], [1.0, np.inf], np.inf, (1, 0, 0)),
        ([1.0, 2.0], [np.nan, 2.0], np.inf, (0, 1, 0)),
        ([-np.inf, 1.0, 2.0], [-np.inf, 1.0, 2.5], 0.5, (0, 0, 0)),
        ([1e-9, 2.0], [0.0, 2.0], 5e-10, (0, 0, 1)),
    ],
)
def test_comparison_is_that_of_parity(
    exact: list[float], got: list[float], error: float, counts: tuple[int, int, int]
) -> None:
    seen = compare(torch.tensor(exact), torch.tensor(got))
    assert seen.error == pytest.approx(error)
    assert (seen.overflowed, seen.nans, seen.vanished) == counts


def test_decisions_are_counted() -> None:
    flags = torch.tensor([True, False, False, True])
    assert compare(flags, torch.tensor([True, False, True, True])).error == 0.25
    assert compare(torch.tensor([3, 900]), torch.tensor([3, 2])).error == 0.5
    assert compare(flags, flags).error == 0.0
