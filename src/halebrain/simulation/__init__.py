"""The virtual cohort: healthy brains and patients with exact ground truth, from the MNI152 template or other brains.

One file and one line here for each source of anatomies and each group of diseases.
"""

from halebrain.simulation import diseases
from halebrain.simulation.anatomy_labels import LabelAnatomies
from halebrain.simulation.anatomy_source import ANATOMY_SOURCES
from halebrain.simulation.anatomy_t1 import T1Anatomies

__all__ = ["ANATOMY_SOURCES", "LabelAnatomies", "T1Anatomies", "diseases"]
