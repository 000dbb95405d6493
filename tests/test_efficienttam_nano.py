"""The model that ships with Phoneward segments and tracks, on pictures that it never saw."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from phoneward.apps.cli.annotated import sequences_of
from phoneward.apps.cli.demo_tracking import track_everywhere
from phoneward.export.clip import TorchStage
from phoneward.export.models import find
from phoneward.export.pipeline import Options, export_bundle
from phoneward.export.request import make_request
from phoneward.export.train.clips import held_out
from phoneward.export.weights import PRETRAINED, SHIPPED, load, resolve
from phoneward.names import ParityStatus
from phoneward.runtime.evaluation import PromptKind, Sequence, evaluate
from phoneward.runtime.evaluation.baselines import BASELINES
from phoneward.runtime.prompts import Prompt
from phoneward.runtime.tracker import Tracker

CLIPS = 4
FRAMES = 12


@pytest.fixture(scope="module")
def tracker() -> Tracker:
    card, family = find("efficienttam-nano")
    modules = family.build(card, load(resolve(PRETRAINED, card)))
    return Tracker({spec.name: TorchStage(modules[spec.name], spec) for spec in card.stages})


def sequences() -> Iterator[Sequence]:
    return sequences_of(held_out(CLIPS, frames=FRAMES))


def test_the_weights_are_part_of_the_package() -> None:
    card, _ = find("efficienttam-nano")
    found = resolve(PRETRAINED, card)
    assert found.path == SHIPPED / "efficienttam_nano.safetensors"
    assert found.path.stat().st_size < 6_000_000
    assert found.record.kind == "package"
    assert found.record.licence == "apache-2.0"


def test_it_follows_a_mask_better_than_what_does_not_move(tracker: Tracker) -> None:
    copy = BASELINES.get("copy")()
    result = evaluate(tracker, sequences(), baselines={"copy": copy})
    assert result.tracker.jf > 0.75
    assert result.tracker.jf > result.baselines[0].jf + 0.2


def test_it_finds_what_is_clicked(tracker: Tracker) -> None:
    result = evaluate(tracker, sequences(), prompt=PromptKind.CLICK)
    assert result.tracker.jf > 0.63


@pytest.mark.parametrize(
    "engines",
    [
        pytest.param({"onnx": "onnxruntime", "tflite": "litert"}, id="two"),
        # minutes to lower
        pytest.param(
            {"onnx": "onnxruntime", "tflite": "litert", "executorch": "executorch"},
            id="all",
            marks=pytest.mark.matrix,
        ),
    ],
)
def test_engines_follow_the_bundled_clip(engines: dict[str, str], tmp_path: Path) -> None:
    """What `phoneward demo` ends with."""
    request = make_request("efficienttam-nano", PRETRAINED, (), list(engines))
    bundle = export_bundle(request, tmp_path / "bundle", Options(use_cache=False))
    assert [each.status for each in bundle.manifest.clips] == [ParityStatus.OK] * len(engines)
    rows = track_everywhere(bundle, tmp_path / "tracks", lambda step, done, total: None)
    assert [row.engine for row in rows] == list(engines.values())
    for row in rows:
        assert row.agreement > 0.98  # with the first
        assert row.frames == 60
        assert row.overlay.stat().st_size > 10_000


def test_it_says_when_the_object_has_left(tracker: Tracker) -> None:
    """A frame of one colour has nothing in it."""
    _, clip = next(held_out(1, frames=2))
    mask = clip.masks[0] == 1
    tracker.reset()
    first = tracker.prompt(0, clip.frames[0], Prompt(1, mask=mask))
    gone = tracker.track(1, np.full_like(clip.frames[0], 127))
    assert first.scores[0] > 0 > gone.scores[0]
    assert not gone.masks.any()
