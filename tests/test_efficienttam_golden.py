"""The PyTorch stages, run by the tracker, answer as the official predictor did on its golden clips.

`pytest -rP` prints the worst figures of each scenario.
"""

from __future__ import annotations

import pytest

from phoneward.runtime.tracker import Tracker
from tests.efficienttam_golden import GOLDEN, SCENARIOS, check, scenario_of
from tests.efficienttam_stages import golden_stages

LARGE = GOLDEN / "large"
LARGE_SCENARIOS = ("point_ti_1", "point_ti_2")


@pytest.mark.parametrize("name", SCENARIOS)
def test_it_answers_as_the_official_predictor(name: str) -> None:
    scenario = scenario_of(name)
    parts = golden_stages(scenario["variant"], scenario["object_score_bias"])
    check(name, Tracker(parts))


@pytest.mark.matrix
@pytest.mark.parametrize("name", LARGE_SCENARIOS)
def test_it_answers_as_the_official_predictor_at_1024_pixels(name: str) -> None:
    scenario = scenario_of(name, LARGE)
    parts = golden_stages(scenario["variant"], scenario["object_score_bias"])
    check(name, Tracker(parts), LARGE)
