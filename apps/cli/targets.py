"""What was chosen for a latency target, and why, in words and as JSON."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from phoneward.apps.cli.output import print_json

if TYPE_CHECKING:
    from phoneward.export.target.choice import Priced
    from phoneward.export.target.search import Decision, Infeasible


def print_decision(decision: Decision) -> None:
    """Say what was chosen, what a frame takes by stage, and what was passed over in its format."""
    from phoneward.export.target.search import words

    wanted, chosen = decision.wanted, decision.chosen
    print(f"Target: {wanted.target_ms:g} ms a frame on {wanted.device}")
    print(f"Chosen: {chosen.choice}: {words(chosen)}")
    if len(chosen.stages) > 1:
        parts = (f"{name} {stage.latency_ms:.3g}" for name, stage in chosen.stages)
        print(f"A frame: {', '.join(parts)} ms (predicted)")
    alike = [p for p in decision.passed_over if p.choice.recipe == chosen.choice.recipe]
    for priced in alike:
        print(f"Passed over: {priced.choice}: {words(priced)}")
    if not decision.sure:
        print("The upper end of the interval does not meet the target: measure it on the device.")
    for cliff in chosen.frame.cliffs:
        print(f"Mind: {cliff}")


def decision_json(decision: Decision) -> dict[str, Any]:
    """Return the decision with every figure."""
    return {
        "target_ms": decision.wanted.target_ms,
        "device": decision.wanted.device,
        "feasible": True,
        "chosen": _priced_json(decision.chosen),
        "sure": decision.sure,
        "passed_over": [_priced_json(priced) for priced in decision.passed_over],
    }


def show_infeasible(missed: Infeasible, *, json_output: bool) -> None:
    """Say on standard error, or as JSON, why nothing meets the target and what would."""
    if json_output:
        document = {"bundle": None, "target": _infeasible_json(missed), "error": str(missed)}
        print_json(document)
    else:
        print(f"error: {missed}", file=sys.stderr)


def _infeasible_json(missed: Infeasible) -> dict[str, Any]:
    return {
        "target_ms": missed.wanted.target_ms,
        "device": missed.wanted.device,
        "feasible": False,
        "fastest": _priced_json(missed.fastest),
        "stage": missed.stage,
        "closest": {**_priced_json(missed.closest), "feasible": missed.feasible},
    }


def _priced_json(priced: Priced) -> dict[str, Any]:
    frame = priced.frame
    return {
        "model": priced.choice.card.name,
        "format": priced.choice.recipe.format,
        "precision": str(priced.choice.recipe.precision),
        "knobs": asdict(priced.choice.card.knobs),
        "latency_ms": frame.latency_ms,
        "interval_ms": list(frame.interval_ms),
        "level": frame.level,
        "provenance": frame.provenance,
        "stages_ms": {name: stage.latency_ms for name, stage in priced.stages},
        "cliffs": list(frame.cliffs),
    }
