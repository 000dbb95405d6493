"""The work folder: converted files, kept so that a second benchmark only times."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from phoneward.apps.bench.child import kept, run_child
from phoneward.apps.bench.convert import ANSWER, TENSOR
from phoneward.apps.bench.machine import DISTRIBUTIONS
from phoneward.apps.bench.records import (
    EAGER,
    Agreement,
    Conversion,
    ConvertJob,
    Profile,
    Subject,
    TimeJob,
    Timing,
    Variant,
)
from phoneward.export.cache import key_of, versions
from phoneward.export.models import find
from phoneward.runtime.engines import format_of
from phoneward.runtime.parity import compare
from phoneward.spec import TensorSpec

# what decides the bytes of a naive file, so that work on the export leaves those files alone
_NAIVE_CODE = (
    ("phoneward.apps.bench", "naive.py"),
    ("phoneward.apps.bench", "convert.py"),
    ("phoneward.export.models", "random_init.py"),
)


@dataclass(frozen=True)
class Workshop:
    """A folder with one subfolder a converted file, and the number of threads to run with."""

    root: Path
    threads: int

    def convert(self, model: str, format_name: str, variant: Variant) -> Conversion:
        """Convert in a child process unless that is done already; raises `ChildError`."""
        folder = self._folder(model, format_name, variant)
        job = ConvertJob(
            model=model,
            format=format_name,
            variant=variant,
            folder=str(folder),
            threads=self.threads,
        )
        return kept("convert", job, Conversion, folder, f"{format_name}-{variant}-*")

    def time(self, subject: Subject, runs: int) -> Timing:
        """Time a converted subject in a child process; raises `ChildError`."""
        return run_child("worker", self._job(subject, runs), Timing, self._scratch(subject, "time"))

    def profile(self, subject: Subject, runs: int) -> Profile:
        """Profile a converted subject in a child process; raises `ChildError`."""
        scratch = self._scratch(subject, "profile")
        return run_child("profile_ops", self._job(subject, runs), Profile, scratch)

    def agreement(self, ours: Subject, *, naive: bool) -> Agreement:
        """Compare the answers that the last timings of a pair left behind."""
        answer = np.load(self._answer(ours))
        folder = self._folder(ours.model, format_of(ours.engine), "ours")
        torch = compare("logits", np.load(folder / ANSWER), answer)
        other = None
        if naive:
            expected = np.load(self._answer(ours.model_copy(update={"variant": "naive"})))
            other = compare("logits", expected, answer)
        return Agreement(
            model=ours.model,
            engine=ours.engine,
            naive_max_abs=other.max_abs_error if other else None,
            naive_relative=other.relative_error if other else None,
            torch_max_abs=torch.max_abs_error,
            torch_relative=torch.relative_error,
        )

    def _job(self, subject: Subject, runs: int) -> TimeJob:
        answer = str(self._answer(subject))
        path, tensor = None, ""
        inputs: tuple[TensorSpec, ...] = ()
        outputs: tuple[TensorSpec, ...] = ()
        if subject.engine != EAGER:
            format_name = format_of(subject.engine)
            made = self.convert(subject.model, format_name, subject.variant)
            folder = self._folder(subject.model, format_name, subject.variant)
            path, tensor = str(folder / made.path), str(folder / TENSOR)
            inputs, outputs = made.inputs, made.outputs
        return TimeJob(
            subject=subject,
            path=path,
            inputs=inputs,
            outputs=outputs,
            tensor=tensor,
            answer=answer,
            runs=runs,
            threads=self.threads,
        )

    def _answer(self, subject: Subject) -> Path:
        return self._scratch(subject, "answer").with_suffix(".npy")

    def _scratch(self, subject: Subject, what: str) -> Path:
        return self.root / "runs" / f"{str(subject).replace(' ', '-')}-{what}"

    def _folder(self, model: str, format_name: str, variant: Variant) -> Path:
        parts: dict[str, object] = {"card": find(model)[0], "tools": versions(DISTRIBUTIONS)}
        if variant == "ours":
            key = key_of({**parts, "format": format_name})
        else:
            code = [(resources.files(p) / file).read_bytes() for p, file in _NAIVE_CODE]
            key = hashlib.sha256(repr((parts, code)).encode()).hexdigest()
        return self.root / model / f"{format_name}-{variant}-{key[:12]}"
