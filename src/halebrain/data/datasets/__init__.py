"""Data sets: publishers' layouts as tables in `publishers`, other kinds in a file and one name here for each."""

from halebrain.data.datasets import bids, folder, published, publishers, table
from halebrain.data.datasets.base import SOURCES, Source, SourceResult, build_source, read_source
from halebrain.data.datasets.bids import bids_manifest

__all__ = ["SOURCES", "Source", "SourceResult", "bids_manifest", "build_source", "read_source"]
