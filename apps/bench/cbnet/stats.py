"""Figures from turns: medians of times, ratios paired within turns, and which system wins."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from phoneward.apps.bench.cbnet.records import Judgement, Results, System
from phoneward.apps.bench.cbnet.systems import RIVALS


@dataclass(frozen=True)
class Table:
    """The times of a benchmark, by system, engine and batch."""

    results: Results

    def turns(self, system: System, engine: str, batch: int) -> list[int]:
        """Return nanoseconds an image of each turn of each round, in order."""
        (index,) = (
            i
            for i, case in enumerate(self.results.cases)
            if case.system == system and case.batch == batch
        )
        return [
            ns
            for one in self.results.rounds
            if one.engine == engine
            for ns in one.times.times[index].mean_ns
        ]

    def typical_us(self, system: System, engine: str, batch: int = 1) -> float:
        """Return microseconds an image, the middle turn's."""
        return statistics.median(self.turns(system, engine, batch)) / 1e3

    def ratio(self, system: System, other: System, engine: str, batch: int = 1) -> float:
        """Return how many times as long `other` takes; the middle of the ratios within turns."""
        pairs = zip(
            self.turns(other, engine, batch), self.turns(system, engine, batch), strict=True
        )
        return statistics.median(slow / fast for slow, fast in pairs)

    def best_engine(self, system: System, batch: int = 1) -> str:
        """Return the engine with the shortest time."""
        return min(self.engines, key=lambda engine: self.typical_us(system, engine, batch))

    @property
    def engines(self) -> list[str]:
        """Return the engines in the order of the first round."""
        return list(dict.fromkeys(one.engine for one in self.results.rounds))

    def systems(self, data: str) -> list[System]:
        """Return the systems of a data set, each once, in order."""
        found = [case.system for case in self.results.cases if case.system.data == data]
        return list(dict.fromkeys(found))

    def named(self, data: str, name: str) -> System:
        """Return a system by name."""
        return next(system for system in self.systems(data) if system.name == name)

    def held_out(self, system: System, engine: str) -> float:
        """Return the accuracy that choices are made with."""
        (found,) = (
            one.judgement.accuracy
            for one in self.results.accuracies
            if one.on == "held out" and one.system == system and one.engine == engine
        )
        return found

    def judged(self, system: System, engine: str) -> list[Judgement]:
        """Return what the system does on the test set, of each seed."""
        return [
            one.judgement
            for one in self.results.accuracies
            if one.on == "test"
            and one.engine == engine
            and (one.system.data, one.system.name) == (system.data, system.name)
        ]

    def least(self, data: str) -> float:
        """Return the held-out accuracy of the best of the rivals."""
        rivals = [self.named(data, name) for name in RIVALS]
        return max(self.held_out(rival, self.best_engine(rival)) for rival in rivals)

    def fastest(self, data: str, *, converting: bool) -> System | None:
        """Return the fastest system that is as accurate as all rivals, if there is one.

        Accuracy is that on held-out images, time that of one image, both on the system's best
        engine. With `converting` only systems with an autoencoder count, otherwise all but rivals.
        """
        least = self.least(data)
        candidates = [
            system
            for system in self.systems(data)
            if system.name not in RIVALS
            and self.held_out(system, self.best_engine(system)) >= least
            and (system.model == "cbnet" or not converting)
        ]
        return min(
            candidates, key=lambda one: self.typical_us(one, self.best_engine(one)), default=None
        )
