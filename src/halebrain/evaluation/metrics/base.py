"""Interface of the metrics: a pure function of a case, with unit, direction, and values for empty masks."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from halebrain.core.registry import Registry
from halebrain.evaluation.case import Case
from halebrain.evaluation.statistics import SHARE, UNBOUNDED

UNDEFINED = float("nan")


@dataclass(frozen=True)
class EmptyPolicy:
    """Value of a metric if prediction, reference or both hold no lesion.

    A number is the value, NaN = undefined (left out of means, and counted), `None` = the function is right there too.

    Args:
        no_reference: Value without a lesion in the reference.
        no_prediction: Value where nothing was predicted but there is a lesion.
        neither: Value where neither has one.
    """

    no_reference: float | None
    no_prediction: float | None
    neither: float | None


NO_LESION = EmptyPolicy(no_reference=UNDEFINED, no_prediction=0.0, neither=UNDEFINED)
"""Undefined on a healthy scan; 0 where the lesion was missed altogether."""
ALWAYS = EmptyPolicy(no_reference=None, no_prediction=None, neither=None)
"""Defined on every scan."""


@dataclass(frozen=True)
class Metric:
    """One metric.

    Args:
        name: As in tables.
        unit: "" for a pure number in [0, 1].
        higher_is_better: Direction; `None` where neither is.
        needs: "score" = graded map, "mask" = binary map at a frozen threshold.
        on_empty: Values for empty masks.
        says: What it is, in a line, with its source.
        fn: The function.
    """

    name: str
    unit: str
    higher_is_better: bool | None
    needs: Literal["score", "mask"]
    on_empty: EmptyPolicy
    says: str
    fn: Callable[[Case], float]

    @property
    def bounds(self) -> tuple[float, float]:
        """The range of its values."""
        if not self.unit:
            return SHARE
        return UNBOUNDED if self.higher_is_better is None else (0.0, math.inf)

    def __call__(self, case: Case) -> float:
        """Return the value for one scan, the empty cases by policy."""
        has_prediction = self.needs == "score" or bool(case.predicted.any())
        value: float | None = None  # measured, unless a policy below says otherwise
        if not case.has_reference:
            value = self.on_empty.no_reference if has_prediction else self.on_empty.neither
        elif not has_prediction:
            value = self.on_empty.no_prediction
        return float(self.fn(case)) if value is None else value


METRICS: Registry[Metric] = Registry("metric")


def define(
    name: str,
    says: str,
    fn: Callable[[Case], float],
    *,
    needs: Literal["score", "mask"],
    unit: str = "",
    better: Literal["higher", "lower", "nearer to 0"] = "higher",
    on_empty: EmptyPolicy = NO_LESION,
) -> None:
    """Register a metric."""
    direction = {"higher": True, "lower": False, "nearer to 0": None}[better]
    METRICS.register(name)(Metric(name, unit, direction, needs, on_empty, says, fn))
