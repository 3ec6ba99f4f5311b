"""DICOM: a folder, an archive or a multi-frame file."""

from pathlib import Path

from halebrain.io.files import split_selection
from halebrain.io.formats.base import FORMATS, Image, ScanFormat, checked_affine


def read_dicom_image(path: Path) -> Image:
    """Read the one series that a path means, or the one chosen as `PATH#NUMBER`."""
    # pydicom loads where a DICOM is read, and only there.
    from halebrain.io.dicom.read import read_series

    place, series = split_selection(path)
    data, affine, notes = read_series(place, series)
    return Image(data.shape, checked_affine(affine, path), lambda: data, notes)


FORMATS.register("dicom")(
    ScanFormat("DICOM", (".dcm", ".zip", ".tar.gz", ".tgz"), read_dicom_image, companions=(".ima", ".tar"))
)
