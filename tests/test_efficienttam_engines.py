"""The exported stages, run by each engine, answer as the official predictor did.

`pytest -rP` prints the worst figures of each scenario. A stage is lowered when a scenario first
asks for it; encode and memorize do not read the object score's bias, so that all share them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from phoneward.export.backends import BACKENDS, About, Graph
from phoneward.export.models import find
from phoneward.export.recipe import Recipe
from phoneward.export.rewrites import apply_all
from phoneward.quiet import noise_to
from phoneward.runtime.engines import engines_for, open_session
from phoneward.runtime.tracker import Tracker
from tests.efficienttam_golden import SCENARIOS, check, scenario_of
from tests.efficienttam_stages import golden_stages
from tests.test_efficienttam_golden import LARGE, LARGE_SCENARIOS

if TYPE_CHECKING:
    from phoneward.bundle import Stage
    from phoneward.export.backends import Lowered
    from phoneward.runtime.engines.session import Session

FORMATS = ("onnx", "tflite", "executorch", "coreml")
BIASED = ("prompt", "propagate")
# the others are in the matrix: `mil` is slow, and two formats take minutes to lower; the small
# tracker that ships is lowered to ONNX and TFLite in every run
ALWAYS = {"onnx": tuple(SCENARIOS), "coreml": ("two_objects_ti_512",)}


class Workshop:
    """Lowers stages when they are first asked for, and opens them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: dict[tuple[str, str, str, float], tuple[Path, Lowered]] = {}

    def tracker(self, format_name: str, variant: str, bias: float, opened: ExitStack) -> Tracker:
        """A tracker over the stages of a variant in a format."""
        (engine,) = engines_for(format_name)[:1]
        stages = {}
        for stage in find(variant)[0].stages:
            path, lowered = self._lower(format_name, variant, bias, stage)
            session: Session = open_session(engine, path, lowered.inputs, lowered.outputs, 2)
            stages[stage.name] = opened.enter_context(session)
        return Tracker(stages)

    def _lower(
        self, format_name: str, variant: str, bias: float, stage: Stage
    ) -> tuple[Path, Lowered]:
        key = format_name, variant, stage.name, bias if stage.name in BIASED else 0.0
        if key not in self._made:
            card, family = find(variant)
            backend, recipe = BACKENDS.get(format_name), Recipe(format_name)
            module = copy.deepcopy(golden_stages(variant, bias)[stage.name].module)
            path = self.folder / f"{'-'.join(map(str, key))}{backend.suffix}"
            with noise_to(path.with_suffix(".log")):
                apply_all(module, family.rewrites(card, recipe))
                graph = Graph(module, stage, About(variant, "golden weights", "none", "0"))
                self._made[key] = path, backend.lower(graph, recipe, path)
        return self._made[key]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    return Workshop(tmp_path_factory.mktemp("lowered"))


def combinations() -> Iterator[Any]:
    for format_name in FORMATS:
        for name in SCENARIOS:
            always = name in ALWAYS.get(format_name, ())
            yield pytest.param(format_name, name, marks=[] if always else [pytest.mark.matrix])


@pytest.mark.parametrize(("format_name", "name"), list(combinations()))
def test_an_engine_answers_as_the_official_predictor(
    format_name: str, name: str, workshop: Workshop
) -> None:
    scenario = scenario_of(name)
    with ExitStack() as opened:
        variant, bias = scenario["variant"], scenario["object_score_bias"]
        check(name, workshop.tracker(format_name, variant, bias, opened))


@pytest.mark.matrix
@pytest.mark.parametrize("name", LARGE_SCENARIOS)
@pytest.mark.parametrize("format_name", FORMATS)
def test_an_engine_answers_as_the_official_predictor_at_1024_pixels(
    format_name: str, name: str, workshop: Workshop
) -> None:
    scenario = scenario_of(name, LARGE)
    with ExitStack() as opened:
        variant, bias = scenario["variant"], scenario["object_score_bias"]
        check(name, workshop.tracker(format_name, variant, bias, opened), LARGE)
