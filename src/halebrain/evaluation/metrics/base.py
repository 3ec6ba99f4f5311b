"""What a metric is: a pure function, its unit, its direction, and what it says where there is nothing to measure."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from halebrain.core.registry import Registry


class MetricFunction(Protocol):
    """A metric of one scan; keyword-only, so that nobody swaps the arguments."""

    def __call__(
        self,
        *,
        prediction: npt.NDArray[np.generic],
        reference: npt.NDArray[np.bool_],
        spacing_mm: tuple[float, float, float],
    ) -> float:
        """Return the value; both arrays are 1-D, over the voxels of the brain."""
        ...


@dataclass(frozen=True)
class EmptyPolicy:
    """What a metric is where prediction, reference or both hold no lesion.

    A number is the value, NaN = undefined (left out of means, and counted), `None` = the function is right there too.

    Args:
        no_reference: Value without a lesion in the reference.
        no_prediction: Value where nothing was predicted but there is a lesion.
        neither: Value where neither has one.
    """

    no_reference: float | None
    no_prediction: float | None
    neither: float | None


@dataclass(frozen=True)
class Metric:
    """One metric.

    Args:
        name: As in tables.
        unit: "" for a pure number.
        higher_is_better: Direction; `None` where neither is.
        needs: "score" = graded map, "mask" = binary map.
        on_empty: What it says where there is nothing to measure.
        fn: The function.
    """

    name: str
    unit: str
    higher_is_better: bool | None
    needs: Literal["score", "mask"]
    on_empty: EmptyPolicy
    fn: MetricFunction

    def __call__(
        self,
        *,
        prediction: npt.NDArray[np.generic],
        reference: npt.NDArray[np.bool_],
        spacing_mm: tuple[float, float, float],
    ) -> float:
        """Return the value for one scan, the empty cases by policy."""
        has_reference = bool(reference.any())
        has_prediction = self.needs == "score" or bool(prediction.any())
        value: float | None = None  # measured, unless a policy below says otherwise
        if not has_reference:
            value = self.on_empty.no_reference if has_prediction else self.on_empty.neither
        elif not has_prediction:
            value = self.on_empty.no_prediction
        if value is not None:
            return value
        return float(self.fn(prediction=prediction, reference=reference, spacing_mm=spacing_mm))


METRICS: Registry[Metric] = Registry("metric")
