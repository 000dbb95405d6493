"""What a lint is: a rule with its evidence, what it finds in a package, and what is told of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from phoneward.spec import Spec

if TYPE_CHECKING:
    from phoneward.runtime.engines.mil.lints.subject import Subject

Effect = Literal["leaves", "slows", "tooling"]

_KINDS_TOLD = 4


class Lint(Spec):
    """All that a rule found in a package, as one warning.

    `effect`: `leaves` says that Core ML runs these ops on the CPU or GPU, `slows` that the Neural
    Engine pads, copies or converts for them, `tooling` that Apple's tools tell less. `ops` are
    names of ops, inputs, outputs or functions in the program, `modules` the PyTorch modules they
    come from (`""` is the model's own forward), as far as the package tells. `evidence` says
    where it is documented or was measured.
    """

    code: str
    effect: Effect
    message: str
    ops: tuple[str, ...]
    modules: tuple[str, ...]
    evidence: tuple[str, ...]


@dataclass(frozen=True)
class Finding:
    """One place: the name of an op (or input, output, function), and what it is, in few words."""

    name: str
    kind: str


@dataclass(frozen=True)
class Rule:
    """One check. `message` says what is wrong and what to do; the kinds found follow it."""

    code: str
    effect: Effect
    message: str
    evidence: tuple[str, ...]
    find: Callable[[Subject], Iterable[Finding]]

    def check(self, subject: Subject) -> Lint | None:
        """Return what it finds as one lint, or None."""
        findings = list(self.find(subject))
        if not findings:
            return None
        ops = tuple(dict.fromkeys(finding.name for finding in findings))
        modules = (subject.modules.module_of(name) for name in ops)
        return Lint(
            code=self.code,
            effect=self.effect,
            message=f"{self.message}: {_kinds(findings)}",
            ops=ops,
            modules=tuple(dict.fromkeys(module for module in modules if module is not None)),
            evidence=self.evidence,
        )


def _kinds(findings: Iterable[Finding]) -> str:
    """`12 gather, 3 scatter and 5 of 2 more kinds`."""
    counts = Counter(finding.kind for finding in findings).most_common()
    told = ", ".join(f"{count} {kind}" for kind, count in counts[:_KINDS_TOLD])
    rest = counts[_KINDS_TOLD:]
    return f"{told} and {sum(c for _, c in rest)} of {len(rest)} more kinds" if rest else told
