"""Child process: follow one object through the bundled clip, with PyTorch or with artifacts."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from phoneward.apps.bench.child import serve
from phoneward.apps.bench.nano_records import Followed, FollowJob
from phoneward.apps.bench.records import EAGER
from phoneward.apps.cli.demo_tracking import MODEL, POINT, clip
from phoneward.apps.cli.prompts import parse_prompts
from phoneward.bundle import Bundle
from phoneward.runtime.frames import open_frames
from phoneward.runtime.tracker import Tracker

if TYPE_CHECKING:
    from numpy.typing import NDArray


def follow(job: FollowJob) -> Followed:
    """Track as `phoneward track` does, without decoding video or drawing."""
    with open_frames(clip()) as frames:
        pixels = [np.ascontiguousarray(each.pixels) for each in frames]
    (at,) = parse_prompts((POINT,), (), ())
    logits, frame_ms = [], []
    with ExitStack() as stack:
        tracker = _tracker(job, stack)
        logits.append(tracker.prompt(0, pixels[0], at.prompt).logits[0])
        for index in range(1, len(pixels)):
            began = time.perf_counter()
            tracked = tracker.track(index, pixels[index])
            frame_ms.append((time.perf_counter() - began) * 1000)
            logits.append(tracked.logits[0])
    found: NDArray[np.float32] = np.stack(logits)
    np.save(job.answer, found)
    return Followed(engine=str(tracker.engine or EAGER), frame_ms=tuple(frame_ms))


def _tracker(job: FollowJob, stack: ExitStack) -> Tracker:
    if job.bundle is not None:
        bundle = Bundle.open(Path(job.bundle))
        return stack.enter_context(Tracker.open(bundle, threads=job.threads))
    import torch

    from phoneward.export.clip import TorchStage
    from phoneward.export.models import find
    from phoneward.export.weights import load, resolve

    torch.set_num_threads(job.threads)
    card, family = find(MODEL)
    modules = family.build(card, load(resolve("pretrained", card)))
    return Tracker({spec.name: TorchStage(modules[spec.name], spec) for spec in card.stages})


if __name__ == "__main__":
    serve(FollowJob, follow)
