"""What an energy per inference is: predicted from a power, or measured by a counter."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, model_validator

from phoneward.spec import Spec

Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(gt=0)]
Seconds = Annotated[FiniteFloat, Field(gt=0)]
Joules = Annotated[FiniteFloat, Field(ge=0)]
Watts = Annotated[FiniteFloat, Field(ge=0)]
# a file may hold fewer digits than a computation has
_ROUNDING = 1e-6


def _same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_ROUNDING)


class PredictedEnergy(Spec):
    """A constant power times a time. No counter has seen it.

    Attributes:
        joules: of one inference.
        power_watts: the power that is assumed for all of the time.
        seconds: of one inference.
        basis: what the power is of and who says so, in words.
    """

    provenance: Literal["predicted"] = "predicted"
    joules: Joules
    power_watts: Watts
    seconds: Seconds
    basis: Text

    @model_validator(mode="after")
    def _is_power_times_time(self) -> PredictedEnergy:
        if not _same(self.joules, self.power_watts * self.seconds):
            raise ValueError("joules must be power_watts times seconds")
        return self


class MeasuredEnergy(Spec):
    """What a counter gave for a span in which inferences ran one after the other.

    Attributes:
        joules: of one inference, all that the counter sees: also what the machine takes idle.
        inferences: in the span.
        seconds: length of the span.
        total_joules: of the span.
        idle_joules: of a span of the same length in which nothing was asked of the machine; None
            if none was counted.
        above_idle_joules: of one inference, what `total_joules` exceeds `idle_joules` by; None
            exactly if `idle_joules` is.
        counter: its name, e.g. `rapl`.
        domain: what it sees, e.g. `package-0`.
    """

    provenance: Literal["measured"] = "measured"
    joules: Joules
    inferences: Count
    seconds: Seconds
    total_joules: Joules
    idle_joules: Joules | None = None
    above_idle_joules: Joules | None = None
    counter: Text
    domain: Text

    @model_validator(mode="after")
    def _is_a_share_of_the_span(self) -> MeasuredEnergy:
        if not _same(self.joules * self.inferences, self.total_joules):
            raise ValueError("joules must be total_joules divided by inferences")
        return self

    @model_validator(mode="after")
    def _is_above_the_idle_span(self) -> MeasuredEnergy:
        if self.idle_joules is None or self.above_idle_joules is None:
            if self.idle_joules is not self.above_idle_joules:
                raise ValueError("idle_joules and above_idle_joules come together")
            return self
        above = self.above_idle_joules * self.inferences
        # of the total: a small difference of two large numbers has few digits
        if not math.isclose(
            above + self.idle_joules, self.total_joules, rel_tol=_ROUNDING, abs_tol=0.0
        ):
            raise ValueError("above_idle_joules must be what total_joules exceeds idle_joules by")
        return self


Energy = Annotated[PredictedEnergy | MeasuredEnergy, Field(discriminator="provenance")]
