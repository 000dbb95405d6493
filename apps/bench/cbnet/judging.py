"""Child process: the whole test set classified by many small networks on one engine."""

from __future__ import annotations

from phoneward.apps.bench.cbnet.cases import images_of, open_case
from phoneward.apps.bench.cbnet.records import Case, JudgeJob, Judgement, Judgements
from phoneward.apps.bench.child import serve

_CHUNKS = 10


def judge(job: JudgeJob) -> Judgements:
    """Classify every image of the test set with every case."""
    return Judgements(judgements=tuple(_judged(case, job) for case in job.cases))


def _judged(case: Case, job: JudgeJob) -> Judgement:
    images, classes = images_of(case)
    size = _CHUNKS * case.batch
    with open_case(case, job.engine, job.threads) as classifier:
        right, left = 0, 0
        for start in range(0, len(images), size):
            answers = classifier.answers(images[start : start + size])
            right += int((answers.logits.argmax(axis=1) == classes[start : start + size]).sum())
            left += int(answers.exited.sum())
        exit_rate = left / len(images) if classifier.exits else None
    return Judgement(accuracy=right / len(images), exit_rate=exit_rate)


if __name__ == "__main__":
    serve(JudgeJob, judge)
