"""Whatever comes: a stripped scan as it is, a whole head through the fallback that is always there."""

from halebrain.core.errors import DataError
from halebrain.core.types import Volume
from halebrain.preprocessing.brain.atlas import extract_by_atlas
from halebrain.preprocessing.brain.base import BRAIN_EXTRACTORS, BrainMask
from halebrain.preprocessing.brain.stripped import extract_stripped


@BRAIN_EXTRACTORS.register("auto")
def extract_automatically(volume: Volume) -> BrainMask:
    """Return the brain of a scan, with or without its skull.

    Raises:
        DataError: It is not stripped, and no brain was found in it.
    """
    try:
        return extract_stripped(volume)
    except DataError:
        return extract_by_atlas(volume)
