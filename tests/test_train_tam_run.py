"""The training of `efficienttam-nano` as a whole: its curriculum, its feeder, its interruptions."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from phoneward.errors import DataError, InvalidSpec, WeightsError
from phoneward.export.models.efficienttam.variants import NANO
from phoneward.export.train.loop import Schedule
from phoneward.export.train.tam import curve, plan
from phoneward.export.train.tam.batch import Sampling
from phoneward.export.train.tam.feed import Feed, Feeder
from phoneward.export.train.tam.losses import LossWeights, loss_of
from phoneward.export.train.tam.plan import CURRICULUM, Part, shortened
from phoneward.export.train.tam.run import Training, run

SIDE = 64
TINY = (
    Part("one", (Sampling("still", SIDE, 1, clips=1, objects=1),), Schedule(2, 1, 1e-3, clip=1.0)),
    Part(
        "two",
        (
            Sampling("slow", SIDE, 2, clips=1, objects=1, alike=1.0, recolour=1.0),
            Sampling("image", SIDE, 1, clips=2, objects=1),
        ),
        Schedule(1, 1, 1e-3, clip=1.0),
        weights=LossWeights(focal=10.0, outline=0.5),
        mean_with="one",
        average=0.5,
    ),
)


class Stop(Exception):
    """Raised in the middle of a training."""


def test_a_training_that_was_interrupted_ends_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phoneward.export.train.tam.run.EPOCH", 2)
    whole = Training(TINY, tmp_path / "whole")
    parts = replace(whole, folder=tmp_path / "parts")
    losses = 0

    def stop(*arguments: object) -> torch.Tensor:
        nonlocal losses
        losses += 1
        if losses == 4:  # in the middle of the second epoch
            raise Stop
        return loss_of(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched, pytest.raises(Stop):
        patched.setattr("phoneward.export.train.tam.run.loss_of", stop)
        run(parts, lambda *_: None)
    with (parts.folder / "0-one.csv").open("a") as figures:
        figures.write("1,")  # a line that was cut short
    file = run(parts, lambda *_: None)
    assert file.read_bytes() == run(whole, lambda *_: None).read_bytes()
    assert file.stat().st_size < 6e6
    one, two = (
        torch.load(whole.folder / f"{name}.pt", weights_only=True)[what]
        for name, what in (("0-one", "model"), ("1-two", "average"))
    )
    name = "sam_mask_decoder.mask_tokens.weight"
    assert not torch.equal(one[name], two[name])
    mean = (one[name] + two[name]) / 2
    assert torch.equal(load_file(file)[name], mean.half())
    assert curve.draw(whole).stat().st_size > 1000
    rows, others = (curve.read(each.folder / "0-one.csv") for each in (whole, parts))
    assert len(rows["loss"]) == 4
    for name in ("epoch", "step", "loss", "first_iou", "last_iou"):
        np.testing.assert_array_equal(rows[name], others[name])
    # the weights are ones to begin with, in a folder of another training
    with pytest.raises(InvalidSpec, match="weights"):
        run(replace(whole, weights=file), lambda *_: None)
    with pytest.raises(WeightsError, match="missing"):
        small = tmp_path / "small.pt"
        torch.save({"a": torch.zeros(1)}, small)
        run(replace(whole, folder=tmp_path / "other", weights=small), lambda *_: None)


def test_the_curriculum_goes_from_easy_to_hard() -> None:
    levels = [part.samplings[0].level for part in CURRICULUM]
    assert levels == [
        *("image", "slow", "full", "full", "full"),
        *("image", "full", "full"),
        *("image", "slow", "full"),
        *("full", "full"),
    ]
    for part in CURRICULUM[-2:]:
        assert [each.level for each in part.samplings] == ["full", "image", "full", "slow"]
    # what is hard to tell apart comes last
    assert [all(each.alike for each in part.samplings) for part in CURRICULUM].index(True) == 12
    sizes = [part.size for part in CURRICULUM]
    assert sizes == sorted(sizes)
    assert sizes[-1] == NANO.image
    # first without the trunk, then with it; outlines last
    kinds = [(part.trunk, part.weights.outline) for part in CURRICULUM]
    assert (kinds[0], kinds) == ((0, 0), sorted(kinds))
    for kind in set(kinds):
        frames = [part.frames for part in CURRICULUM if (part.trunk, part.weights.outline) == kind]
        assert frames == sorted(frames)
    # what is averaged with was trained before
    names = [part.name for part in CURRICULUM]
    assert len(names) == len(set(names))
    means = [(part.mean_with, names[:number]) for number, part in enumerate(CURRICULUM)]
    assert all(name in before for name, before in means if name)
    # every age that a memory bank holds is seen
    assert CURRICULUM[-1].frames > NANO.slots


def test_the_curve_is_of_the_longest_clips_alone() -> None:
    mixed = next(part for part in CURRICULUM if part.name == "mixed")
    steps = np.arange(8.0)
    assert curve.of_the_longest(mixed, steps).tolist() == [True, False] * 4
    assert curve.of_the_longest(CURRICULUM[0], steps).all()


def test_a_curriculum_made_short_averages_the_same_share_of_its_steps() -> None:
    quick, half = (shortened(CURRICULUM, share) for share in (0.01, 0.5))
    assert all(part.schedule.epochs == 1 for part in quick)
    averaged = [index for index, part in enumerate(CURRICULUM) if part.average]
    assert averaged
    for parts in (quick, half):
        for index in averaged:
            whole, short = (
                part.average**part.schedule.epochs for part in (CURRICULUM[index], parts[index])
            )
            assert short == pytest.approx(whole)
    assert shortened(CURRICULUM, 1.0) == CURRICULUM
    assert plan.EPOCH > 1


def test_a_feeder_that_was_killed_ends_the_training_with_a_reason() -> None:
    one = Sampling("still", SIDE, 1, clips=1, objects=1)
    with Feeder() as feeder:
        batches = iter(Feed(feeder, (one,), (0,), 2))
        feeder.ask(one, (1,))  # begins the process
        (child,) = multiprocessing.active_children()
        child.kill()
        with pytest.raises(DataError, match="clips: .*killed.*the same command goes on"):
            next(batches)


def test_the_feeder_ends_with_a_training_that_is_killed() -> None:
    script = (
        "import multiprocessing as m, time\n"
        "from phoneward.export.train.tam.feed import Feeder, Sampling\n"
        "if __name__ == '__main__':\n"
        "    feeder = Feeder()\n"
        "    feeder.ask(Sampling('still', 64, 1, clips=1, objects=1), (1,)).result()\n"
        "    print(m.active_children()[0].pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert Path(f"/proc/{child}").exists()
        process.kill()
    until = time.monotonic() + 20
    while alive(child) and time.monotonic() < until:
        time.sleep(0.1)
    assert not alive(child)


def alive(pid: int) -> bool:
    """Is it a process that still runs?"""
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
