"""How pages are made again: another threshold, another smallest size, and what they become."""

from dataclasses import dataclass, replace
from pathlib import Path

from halebrain.core.messages import Notify, log_message
from halebrain.core.provenance import ChosenThreshold


@dataclass(frozen=True)
class RemakeSettings:
    """How pages are made again.

    Args:
        threshold: The new threshold; `None` = not changed.
        min_lesion_mm3: The new smallest lesion, mm³; `None` = not changed.
        scan: The scan, where it is not stored beside the page; of a single detection only.
        notify: Receives warnings.
        grow_to: Lower threshold to which findings of the new threshold grow; `None` = they do not.
        keep_growth: Whether they grow to the lower threshold that the mask has, where it lies below the new one.
    """

    threshold: float | None = None
    min_lesion_mm3: float | None = None
    scan: Path | None = None
    notify: Notify = log_message
    grow_to: float | None = None
    keep_growth: bool = False


def changed_threshold(before: ChosenThreshold, settings: RemakeSettings) -> ChosenThreshold:
    """Return the new threshold."""
    new, value, grow_to = before, settings.threshold, settings.grow_to
    if value is not None and settings.keep_growth and before.grow_to is not None and before.grow_to < value:
        grow_to = before.grow_to
    if value is not None and (value, grow_to) != (before.value, before.grow_to):
        new = new.fixed_at(value, grow_to=grow_to)
    return new if settings.min_lesion_mm3 is None else replace(new, min_lesion_mm3=settings.min_lesion_mm3)
