"""Child process: many small networks in turns on one engine.

One engine a process: the idle threads of a second one would cost the first up to half its speed.
What is timed is all that a caller waits for: laying out the image, the graphs, the entropy at an
exit, in Python.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from phoneward.apps.bench.cbnet.cases import images_of, open_case, slice_of
from phoneward.apps.bench.cbnet.records import CaseTime, TimeJob, Times
from phoneward.apps.bench.child import serve
from phoneward.profiles.measure.local.noise import with_others
from phoneward.profiles.measure.local.steadiness import warm_up
from phoneward.runtime.classifier import Classifier

if TYPE_CHECKING:
    from numpy.typing import NDArray


def measure(job: TimeJob) -> Times:
    """Let the cases take turns, the other way round in every second turn."""
    with ExitStack() as stack:
        opened = [
            stack.enter_context(open_case(case, job.engine, job.threads)) for case in job.cases
        ]
        images = [images_of(case)[0] for case in job.cases]
        for classifier, own, case in zip(opened, images, job.cases, strict=True):
            warm_up(lambda c=classifier, i=own[: case.batch]: c.answers(i))  # type: ignore[misc]

        def turns() -> list[list[int]]:
            taken: list[list[int]] = [[] for _ in job.cases]
            for turn in range(job.turns):
                order = range(len(job.cases))
                for index in reversed(order) if turn % 2 else order:
                    part = slice_of(images[index], turn, job.images)
                    taken[index].append(timed(opened[index], part, job.cases[index].batch))
            return taken

        taken, others = with_others(turns)
    return Times(
        times=tuple(CaseTime(mean_ns=tuple(turns)) for turns in taken),
        others=others,
    )


def timed(classifier: Classifier, images: NDArray[Any], batch: int) -> int:
    """Nanoseconds an image: one call an image, or with a batch one call with all of them.

    A cascade then gathers the images that do not leave from all batches, as it does for its users.
    """
    size = 1 if batch == 1 else len(images)
    began = time.perf_counter_ns()
    for start in range(0, len(images), size):
        classifier.answers(images[start : start + size])
    return round((time.perf_counter_ns() - began) / len(images))


if __name__ == "__main__":
    serve(TimeJob, measure)
