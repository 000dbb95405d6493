"""The results about efficienttam-nano as a Markdown page."""

from __future__ import annotations

from collections.abc import Mapping

from phoneward.apps.bench.nano_records import ClipRow, Judged, NanoResults, Refused
from phoneward.apps.bench.page import markdown_table, provenance
from phoneward.names import Precision
from phoneward.runtime.evaluation.prompting import PromptKind

TARGET_MS = 40.0
TARGET_IOU = {Precision.FP32: 0.98, Precision.FP16: 0.95}

_PAGE = """\
# efficienttam-nano, measured

{provenance}
How it was trained, and what it fails at: [its model card](../efficienttam-nano.md).

## On clips that no training saw

Generated clips of 24 frames ([clips.md](../clips.md)), judged as DAVIS judges
([evaluate.md](../evaluate.md)); means over objects, in per cent. Choices were made on some of them
while the model was developed: no training saw their pictures, but they are no untouched test.

{judged}
`copy` leaves the first mask where it is, `flow` moves it by optical flow, `template` to where its
box is seen again. With a click, all three are given the mask that the model makes of it.

## The bundled clip, on every engine

One object through {frames} frames, from one click. IoU with the masks of PyTorch, frame by frame;
milliseconds a frame on {threads} threads, from pixels to a mask of their size, without decoding
and drawing: the median of a process of its own, then of {rounds} processes in turn.

{clip}
Asked for: a mean IoU of {fp32} in fp32 and {fp16} in fp16, and {ms:.0f} ms a frame on the best
engine. The fastest took {best:.1f} ms, {verdict}.

`mil` runs Core ML's program operator by operator in NumPy, to check it: no engine to be fast with.
No Core ML runtime and no phone took part.
"""


def render(results: NanoResults, pictures: Mapping[PromptKind, str]) -> str:
    """Write the whole page; `pictures` are the names of the evaluations' sheets."""
    reference, *rows = results.clip
    best = min(each.frame_ms for each in rows)
    return _PAGE.format(
        provenance=provenance(results.machine, results.date, results.command),
        judged="\n".join(_scores(each, pictures[each.prompt]) for each in results.judged),
        frames=len(reference.ious),
        threads=results.threads,
        rounds=results.rounds,
        clip=_clip(results),
        fp32=TARGET_IOU[Precision.FP32],
        fp16=TARGET_IOU[Precision.FP16],
        ms=TARGET_MS,
        best=best,
        verdict="as asked for" if best <= TARGET_MS else "**more than asked for**",
    )


def _scores(judged: Judged, picture: str) -> str:
    rows = [
        (
            "**nano**" if one is judged.scores[0] else one.name,
            *(f"{100 * value:.1f}" for value in (one.jf, one.j.mean, one.f.mean)),
            *(f"{100 * value:.1f}" for value in (one.j.decay, one.f.decay)),
            f"{one.frame_ms:.1f}",
        )
        for one in judged.scores
    ]
    subject = judged.subject
    title = (
        f"Prompt: {judged.prompt.value}. {judged.objects} objects in {judged.clips} clips; "
        f"{subject.format} {subject.precision} by {subject.engine}, {subject.threads} threads.\n\n"
    )
    table = markdown_table(("", "J&F", "J", "F", "J decay", "F decay", "ms/frame"), rows)
    return (
        f"{title}{table}\n![The worst clips, the quartiles and the best; white: true]({picture})\n"
    )


def _clip(results: NanoResults) -> str:
    rows = [_ran(one) for one in results.clip] + [_refused(one) for one in results.refused]
    head = ("engine", "artifacts", "mean IoU", "least IoU", "as asked for", "ms/frame")
    return markdown_table(head, rows)


def _ran(one: ClipRow) -> tuple[str, ...]:
    return (
        one.runs[0].engine,
        f"{one.format} {one.precision}",
        f"{one.mean_iou:.4f}",
        f"{min(one.ious):.4f}",
        "yes" if one.mean_iou >= TARGET_IOU[one.precision] else "**no**",
        f"{one.frame_ms:.1f}",
    )


def _refused(one: Refused) -> tuple[str, ...]:
    return "", f"{one.format} {one.precision}", f"**{one.error}**", "", "**no**", ""
