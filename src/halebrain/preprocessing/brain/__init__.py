"""Brain extraction: one file and one line here for each way to find the brain."""

from halebrain.preprocessing.brain.atlas import extract_by_atlas
from halebrain.preprocessing.brain.auto import extract_automatically
from halebrain.preprocessing.brain.base import BRAIN_EXTRACTORS, BrainExtractor, BrainMask
from halebrain.preprocessing.brain.deepbet import extract_by_deepbet
from halebrain.preprocessing.brain.given import extract_nothing, extract_stripped, from_given_mask
from halebrain.preprocessing.brain.hdbet import extract_by_hdbet
from halebrain.preprocessing.brain.synthstrip import extract_by_synthstrip

__all__ = [
    "BRAIN_EXTRACTORS",
    "BrainExtractor",
    "BrainMask",
    "extract_automatically",
    "extract_by_atlas",
    "extract_by_deepbet",
    "extract_by_hdbet",
    "extract_by_synthstrip",
    "extract_nothing",
    "extract_stripped",
    "from_given_mask",
]
