"""No brain extraction: the whole field of view counts as brain."""

import numpy as np

from halebrain.core.types import Volume
from halebrain.preprocessing.brain.base import BRAIN_EXTRACTORS, BrainMask, volume_ml


@BRAIN_EXTRACTORS.register("none")
def extract_nothing(volume: Volume) -> BrainMask:
    """Return a mask that is true everywhere, with a note."""
    mask = np.ones(volume.shape, dtype=bool)
    note = "no brain was extracted: the whole field of view counts as brain"
    return BrainMask(mask, "none", 1.0, volume_ml(mask, volume), notes=(note,))
