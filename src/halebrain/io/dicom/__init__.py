"""DICOM in: which series a folder holds, its grid in space, and its pixels.

Of each header only the tags that say where a pixel lies and what it is worth are read, so that no name of a person or a
place can reach a message, a log or an output.
"""

from halebrain.io.dicom.read import list_series, read_dicom
from halebrain.io.dicom.series import SeriesInfo

__all__ = ["SeriesInfo", "list_series", "read_dicom"]
