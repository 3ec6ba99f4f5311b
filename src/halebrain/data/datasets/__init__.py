"""Data sets: one file and one line here for each."""

from halebrain.data.datasets.atlas2 import Atlas2Source
from halebrain.data.datasets.base import SOURCES, Source, SourceResult, build_source, read_source
from halebrain.data.datasets.bids import BidsSource, bids_manifest
from halebrain.data.datasets.brats import BratsSource
from halebrain.data.datasets.folder import FolderSource
from halebrain.data.datasets.ixi import IxiSource
from halebrain.data.datasets.mood import MoodSource
from halebrain.data.datasets.mslub import MslubSource
from halebrain.data.datasets.published import PublishedSource
from halebrain.data.datasets.table import TableSource
from halebrain.data.datasets.tables import add_people
from halebrain.data.datasets.wmh import WmhSource

__all__ = [
    "SOURCES",
    "Atlas2Source",
    "BidsSource",
    "BratsSource",
    "FolderSource",
    "IxiSource",
    "MoodSource",
    "MslubSource",
    "PublishedSource",
    "Source",
    "SourceResult",
    "TableSource",
    "WmhSource",
    "add_people",
    "bids_manifest",
    "build_source",
    "read_source",
]
