"""Sources of anatomies: one file and one line here for each."""

from halebrain.simulation.anatomy_labels import LabelAnatomies
from halebrain.simulation.anatomy_source import ANATOMY_SOURCES, BaseAnatomy, gather_anatomies, load_base
from halebrain.simulation.anatomy_t1 import T1Anatomies

__all__ = ["ANATOMY_SOURCES", "BaseAnatomy", "LabelAnatomies", "T1Anatomies", "gather_anatomies", "load_base"]
