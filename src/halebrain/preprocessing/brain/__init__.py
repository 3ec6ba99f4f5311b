"""Brain extraction: one file and one name here for each way to find the brain."""

from halebrain.preprocessing.brain import atlas, auto, deepbet, given, hdbet, synthstrip
from halebrain.preprocessing.brain.atlas import extract_by_atlas
from halebrain.preprocessing.brain.auto import extract_automatically
from halebrain.preprocessing.brain.base import BRAIN_EXTRACTORS, BrainExtractor, BrainMask
from halebrain.preprocessing.brain.given import from_given_mask

__all__ = [
    "BRAIN_EXTRACTORS",
    "BrainExtractor",
    "BrainMask",
    "extract_automatically",
    "extract_by_atlas",
    "from_given_mask",
]
