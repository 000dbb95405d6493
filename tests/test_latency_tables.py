"""What a latency report prints for people."""

from __future__ import annotations

import pytest

from phoneward.apps.cli.latency import print_report
from tests import reports


def test_counts_of_instructions_do_not_stand_under_heads_of_milliseconds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_report(reports.emulated_report())
    out = capsys.readouterr().out
    assert "instructions" in out
    assert "emulated" in out
    assert "p50" not in out
    assert "ms" not in out.split()
