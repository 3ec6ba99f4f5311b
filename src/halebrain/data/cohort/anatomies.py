"""Sources of anatomies: one file and one line here for each."""

from halebrain.data.cohort.anatomy_labels import LabelAnatomies
from halebrain.data.cohort.anatomy_source import ANATOMY_SOURCES, BaseAnatomy, gather_anatomies, load_base
from halebrain.data.cohort.anatomy_t1 import T1Anatomies

__all__ = ["ANATOMY_SOURCES", "BaseAnatomy", "LabelAnatomies", "T1Anatomies", "gather_anatomies", "load_base"]
