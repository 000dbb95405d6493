"""Child process: energy of many small networks on one engine, by a counter of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phoneward.apps.bench.cbnet.cases import images_of, open_case
from phoneward.apps.bench.cbnet.records import Counted, CountJob
from phoneward.apps.bench.child import serve
from phoneward.profiles.energy.counters import COUNTERS
from phoneward.profiles.energy.measure import measure

if TYPE_CHECKING:
    from phoneward.apps.bench.cbnet.records import Case
    from phoneward.profiles.energy.counters import Counter
    from phoneward.profiles.energy.schema import MeasuredEnergy


def count(job: CountJob) -> Counted:
    """Count each case in turn, images one at a time, and an idle span after each."""
    counter = COUNTERS.get(job.counter)()
    return Counted(energies=tuple(counted(case, job, counter) for case in job.cases))


def counted(case: Case, job: CountJob, counter: Counter) -> MeasuredEnergy:
    """Return the energy of an image."""
    images = images_of(case)[0][: job.images]
    with open_case(case, job.engine, job.threads) as classifier:

        def work() -> None:
            for start in range(len(images)):
                classifier.answers(images[start : start + 1])

        work()
        return measure(work, len(images), counter, idle=True)


if __name__ == "__main__":
    serve(CountJob, count)
