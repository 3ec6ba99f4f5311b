"""The virtual cohort: healthy brains and patients with exact ground truth, from the MNI152 template or other brains.

One file and one name here for each source of anatomies and each group of diseases.
"""

from halebrain.simulation import anatomy_labels, anatomy_t1, diseases
from halebrain.simulation.anatomy_source import ANATOMY_SOURCES

__all__ = ["ANATOMY_SOURCES"]
