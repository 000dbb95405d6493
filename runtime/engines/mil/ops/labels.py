"""Labels of a classifier."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from phoneward.runtime.engines.mil.signature import Labels, Table

TABLE = Table()


@TABLE.mover
def classify(probabilities: Tensor, classes: Labels) -> tuple[Any, dict[Any, float]]:
    """The label of the largest probability, the first of equal ones, and the scores of all.

    Labels are texts or whole numbers. Core ML keeps one score of labels that are equal: the last.
    """
    scores = probabilities.reshape(-1)
    if scores.numel() != len(classes):
        raise ValueError(f"{len(classes)} labels for {scores.numel()} probabilities")
    labels = [label if isinstance(label, str) else int(label) for label in classes]
    return labels[int(scores.argmax())], dict(zip(labels, scores.tolist(), strict=True))
