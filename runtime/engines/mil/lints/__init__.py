"""What keeps a Core ML package off the Neural Engine, or slow on it, told without a Mac.

These are warnings: Core ML alone decides where an op runs, by chip, system and neighbours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from phoneward.runtime.engines.mil.lints.lint import Effect, Finding, Lint, Rule
from phoneward.runtime.engines.mil.lints.operations import OPERATIONS
from phoneward.runtime.engines.mil.lints.precision import PRECISION
from phoneward.runtime.engines.mil.lints.shapes import SHAPES
from phoneward.runtime.engines.mil.lints.subject import Subject

if TYPE_CHECKING:
    from phoneward.runtime.engines.mil.package import Package

__all__ = ["RULES", "Effect", "Finding", "Lint", "Rule", "lint"]

RULES: tuple[Rule, ...] = (*PRECISION, *SHAPES, *OPERATIONS)


def lint(package: Package) -> tuple[Lint, ...]:
    """Check a package by every rule; returns one lint for each that found something.

    Raises:
        EngineError: its program is not valid, or has ops that coremltools does not know.
    """
    subject = Subject.of(package)
    return tuple(found for rule in RULES if (found := rule.check(subject)) is not None)
