"""The benchmark of predictions: fits without what it asks for, and adds up the errors."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cached_property
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from phoneward.apps.bench.predict_accuracy import accuracy
from phoneward.apps.bench.predict_baselines import BASELINES, PLAIN, baseline
from phoneward.apps.bench.predict_protocol import (
    PROTOCOLS,
    Scores,
    fold_priors,
    score,
)
from phoneward.apps.bench.predict_records import (
    Accuracy,
    Compared,
    Excluded,
    GroupResult,
    Miss,
    PredictResults,
)
from phoneward.apps.bench.predict_transfer import transfers
from phoneward.profiles.predict.fit import fit_prior
from phoneward.profiles.predict.intervals import widening_by_unit
from phoneward.profiles.predict.parameters import Parameters, load_parameters
from phoneward.profiles.predict.rows import (
    MODELS,
    Observations,
    digest,
    load_observations,
    load_rows,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.profiles.predict.group import Group
    from phoneward.profiles.predict.process import Prior

    Array = NDArray[np.float64]
    Indices = NDArray[np.intp]

# what the shipped widening is taken from: graphs that are known elsewhere, and new ones
KNOWN, NEW = "known elsewhere", "left out everywhere"
_ACCELERATORS = ("npu", "ane", "ane15")
_WORST = 20


class Run:
    """One run; `say` is told what happens."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say
        self._observed = load_observations()
        self._rows = self._observed.rows
        self._units = np.array([row.group.unit for row in self._rows])
        self._fitted: Prior | None = None

    def fit(self) -> None:
        """Fit prices and variances to all rows, instead of taking the shipped ones."""
        self._say("fitting all rows")
        self._fitted = fit_prior(self._observed)

    def parameters(self) -> Parameters:
        """Return the fit, with the widening that its own left-out rows ask for."""
        known, new = (self._scores[name] for name in (KNOWN, NEW))
        return Parameters(self._prior, self._widening(known), self._widening(new), digest())

    def results(self, command: str) -> PredictResults:
        """Evaluate."""
        scores = {name: self._interval(name) for name in PROTOCOLS}
        baselines = {
            (protocol, name): baseline(name, self._observed, self._plain, hidden)
            for protocol, hidden in PROTOCOLS.items()
            for name in BASELINES
        }
        compare = _Comparison(self._observed, scores, baselines)
        by_device, pooled = transfers(self._observed, self._prior, self._say)
        return PredictResults(
            command=command,
            digest=digest(),
            rows=len(self._rows),
            models=len({row.model for row in self._rows}),
            pooled={
                pool: {protocol: compare(protocol, chosen) for protocol in PROTOCOLS}
                for pool, chosen in self._pools().items()
            },
            groups=tuple(self._groups(compare)),
            transfer=by_device,
            transfer_pooled=pooled,
            excluded=_excluded(),
            misses=self._misses(scores[KNOWN]),
        )

    @cached_property
    def _prior(self) -> Prior:
        return self._fitted or load_parameters().prior

    @cached_property
    def _folds(self) -> list[tuple[Indices, Prior]]:
        self._say("fitting without each fold of architectures")
        return fold_priors(self._observed, self._prior)

    @cached_property
    def _scores(self) -> dict[str, Scores]:
        self._say("predicting rows that are left out")
        return score(self._observed, self._folds, PROTOCOLS)

    @cached_property
    def _plain(self) -> dict[str, Array]:
        path = files("phoneward.profiles.predict") / "data" / MODELS
        lines = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
        return {line["model"]: np.array([float(line[name]) for name in PLAIN]) for line in lines}

    def _widening(self, scores: Scores, rest: Indices | None = None) -> dict[str, float]:
        chosen = np.arange(len(self._rows)) if rest is None else rest
        errors = scores.mean - self._observed.log_ms
        return widening_by_unit(self._units[chosen].tolist(), errors[chosen], scores.std[chosen])

    def _interval(self, protocol: str) -> Scores:
        """Widen each architecture's intervals by what the others' errors ask for."""
        scores, everything = self._scores[protocol], np.arange(len(self._rows))
        std = scores.std.copy()
        for fold, _ in self._folds:
            factors = self._widening(scores, np.setdiff1d(everything, fold))
            std[fold] *= [factors.get(unit, 1.0) for unit in self._units[fold]]
        return Scores(scores.mean, std)

    def _pools(self) -> dict[str, Indices]:
        on_phone = np.array([_forms().get(row.group.device) == "phone" for row in self._rows])
        cpu, accelerated = self._units == "cpu", np.isin(self._units, _ACCELERATORS)
        pools = {
            "phone CPUs and Neural Engines": (cpu & on_phone) | accelerated,
            "Neural Engines: Hexagon": self._units == "npu",
            "Neural Engines: Apple": np.isin(self._units, ("ane", "ane15")),
            "CPUs of phones": cpu & on_phone,
            "CPUs of boards": cpu & ~on_phone,
            "GPUs": self._units == "gpu",
            "NNAPI": self._units == "nnapi",
        }
        return {name: np.flatnonzero(mask) for name, mask in pools.items()}

    def _groups(self, compare: _Comparison) -> list[GroupResult]:
        found = []
        for group in sorted({row.group for row in self._rows}, key=repr):
            chosen = np.array([i for i, row in enumerate(self._rows) if row.group == group])
            threads = f" {group.threads}" if group.threads else ""
            protocols = {protocol: compare(protocol, chosen) for protocol in PROTOCOLS}
            found.append(
                GroupResult(
                    device=group.device,
                    runtime=group.runtime,
                    unit=group.unit + threads,
                    precision="float" if group.numeric == "fp" else group.numeric,
                    lab=group.lab,
                    protocols=protocols,
                )
            )
        return found

    def _misses(self, scores: Scores) -> tuple[Miss, ...]:
        errors = np.abs(scores.mean - self._observed.log_ms)
        worst = np.argsort(-errors)[:_WORST]
        return tuple(
            Miss(
                model=self._rows[i].model,
                where=_where(self._rows[i].group),
                published_ms=self._rows[i].latency_ms,
                predicted_ms=round(float(np.exp(scores.mean[i])), 3),
            )
            for i in worst.tolist()
        )


class _Comparison:
    """Adds up errors of some rows under a protocol."""

    def __init__(
        self,
        observed: Observations,
        scores: Mapping[str, Scores],
        baselines: Mapping[tuple[str, str], Array],
    ) -> None:
        self._truth, self._scores, self._baselines = observed.log_ms, scores, baselines

    def __call__(self, protocol: str, chosen: Indices) -> Compared:
        scores = self._scores[protocol]
        others = {name: self._baselines[protocol, name][chosen] for name in BASELINES}
        return Compared(
            model=accuracy(self._truth[chosen], scores.mean[chosen], scores.std[chosen]),
            baselines={
                name: _answered(self._truth[chosen], guess) for name, guess in others.items()
            },
        )


def _answered(truth: Array, guess: Array) -> Accuracy | None:
    there = ~np.isnan(guess)
    return accuracy(truth[there], guess[there]) if there.any() else None


def _excluded() -> tuple[Excluded, ...]:
    reasons = Counter(row.excluded.split(",")[0] for row in load_rows() if row.excluded)
    return tuple(Excluded(reason=why, rows=count) for why, count in sorted(reasons.items()))


def _forms() -> dict[str, str]:
    path = files("phoneward.profiles.predict") / "data" / "devices.csv"
    lines = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    return {line["device"]: line["form"] for line in lines}


def _where(group: Group) -> str:
    parts = (group.device, group.runtime, group.unit, group.threads, group.numeric)
    return " ".join(part for part in parts if part)
