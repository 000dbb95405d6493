"""How artifacts, clips and their parity are shown, for `export`, `verify` and `demo`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from phoneward.apps.cli.output import print_json, print_table
from phoneward.bundle import Artifact, ClipParity, Delegation, Parity, Price
from phoneward.names import ParityStatus

_COLUMNS = (
    "stage",
    "format",
    "precision",
    "size",
    "max error / range",
    "SNR dB",
    "top-1",
    "fell back",
    "parity",
)

_CLIP_COLUMNS = (
    "format",
    "precision",
    "frames",
    "mean IoU",
    "least IoU",
    "drift",
    "max error / range",
    "judged by",
    "parity",
)

_MOST_KEPT = 20
_KEPT_COLUMNS = ("op", "module", "kept as", "why")


def artifact_json(artifact: Artifact, bundle: Path | None) -> dict[str, Any]:
    """Return an artifact as the commands' JSON has it.

    `path` and `log` are absolute, and null where no bundle was written.
    """
    record = artifact.model_dump(mode="json")
    for key in ("path", "log"):
        if record[key] is not None:
            record[key] = None if bundle is None else str(bundle.absolute() / record[key])
    return record


def clips_json(clips: Sequence[ClipParity]) -> list[dict[str, Any]]:
    """Return clips as the commands' JSON has them."""
    return [clip.model_dump(mode="json") for clip in clips]


def show_failure(
    artifacts: Sequence[Artifact],
    error: str,
    *,
    json_output: bool,
    clips: Sequence[ClipParity] = (),
) -> None:
    """Show every verdict of an export whose gate failed, and the error."""
    if json_output:
        rows = [artifact_json(artifact, None) for artifact in artifacts]
        judged = {"artifacts": rows, "clips": clips_json(clips), "price": None}
        print_json({"bundle": None, **judged, "error": error})
    else:
        print_artifacts(artifacts)
        print_kept(artifacts)
        print_clips(clips)
        typer.echo(f"error: {error}", err=True)


def print_artifacts(artifacts: Sequence[Artifact]) -> None:
    """Print one row an artifact with the figures of its parity."""
    rows = []
    for artifact in artifacts:
        parity = artifact.parity
        rows.append(
            (
                artifact.stage,
                artifact.format,
                f"{artifact.precision}" + (f" {artifact.target}" if artifact.target else ""),
                f"{artifact.bytes / 1e6:.1f} MB",
                _worst(parity),
                _snr(parity),
                "" if parity.top1_agreement is None else f"{parity.top1_agreement:.0%}",
                _fallback(artifact.delegation),
                _verdict(parity),
            )
        )
    print_table("Artifacts against PyTorch", _COLUMNS, rows)
    for artifact in artifacts:
        if artifact.parity.reason and artifact.parity.status is ParityStatus.FAILED:
            print(f"{artifact.format}-{artifact.precision}: {artifact.parity.reason}")


def print_kept(artifacts: Sequence[Artifact]) -> None:
    """Print what half-precision artifacts have in single precision, why, and how much that is."""
    for artifact in artifacts:
        kept = artifact.keep_fp32
        if kept is None:
            continue
        if kept.kept:
            rows = [(op.op, op.module or "", op.name, op.reason) for op in kept.kept[:_MOST_KEPT]]
            title = f"{artifact.stage} {artifact.format}-{artifact.precision}: kept in fp32"
            print_table(title, _KEPT_COLUMNS, rows)
            if more := len(kept.kept) - len(rows):
                print(f"... and {more} more; bundle.json and --json have all.")
        share = kept.float_ops / kept.ops if kept.ops else 0.0
        print(
            f"{artifact.stage} {artifact.format}-{artifact.precision} computes "
            f"{kept.float_ops} of {kept.ops} ops in fp32 ({share:.1%})."
        )


def print_clips(clips: Sequence[ClipParity]) -> None:
    """Print one row a clip; nothing where there is none."""
    if not clips:
        return
    rows = [
        (
            clip.format,
            clip.precision,
            clip.frames or "",
            _figure(clip.mean_iou, ".4f"),
            _figure(clip.min_iou, ".4f"),
            _figure(clip.drift, "+.4f"),
            _figure(clip.relative_error, ".1e"),
            clip.basis,
            _verdict(clip),
        )
        for clip in clips
    ]
    print_table("A clip tracked by all stages, against PyTorch", _CLIP_COLUMNS, rows)
    for clip in clips:
        if clip.reason and clip.status is ParityStatus.FAILED:
            print(f"clip {clip.format}-{clip.precision}: {clip.reason}")


def price_line(price: Price) -> str:
    """Say in one line what the knobs cost and gain."""
    told = "; random weights, whose masks are noise" if price.random_weights else ""
    masks = (
        f"{price.knobs} instead of {price.baseline}: "
        f"mask IoU {price.mean_iou:.3f} (least {price.min_iou:.3f}) with the full model's, "
        f"logits off by {price.logit_difference:.1e} of their range{told}"
    )
    if price.milliseconds is None or price.baseline_milliseconds is None:
        return f"{masks}; no engine here to time them"
    share = price.milliseconds / price.baseline_milliseconds
    return (
        f"{masks}; propagate takes {price.milliseconds:.1f} ms instead of "
        f"{price.baseline_milliseconds:.1f} ms ({share:.2f}x; {price.engine}, "
        f"{price.format}-{price.precision}, {price.threads} threads, median of {price.rounds})"
    )


def _figure(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _verdict(parity: Parity | ClipParity) -> str:
    notes = [note for note in (parity.engine, "cached" if parity.cached else None) if note]
    return f"{parity.status}" + (f" ({', '.join(notes)})" if notes else "")


def _worst(parity: Parity) -> str:
    if not parity.outputs:
        return ""
    return f"{max(output.relative_error for output in parity.outputs):.1e}"


def _snr(parity: Parity) -> str:
    values = [output.snr_db for output in parity.outputs if output.snr_db is not None]
    return f"{min(values):.0f}" if values else ""


def _fallback(delegation: Delegation | None) -> str:
    if delegation is None:
        return ""
    ops = ", ".join(f"{count} {name}" for name, count in sorted(delegation.fallback.items()))
    return ops or f"none ({delegation.partitions} {delegation.delegate})"
