"""The mask as a DICOM segmentation (`--dicom-seg`): refused before any work where it cannot be, and made."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from halebrain.core.about import versions
from halebrain.core.errors import UsageError
from halebrain.core.types import Affine, MaskArray
from halebrain.io.dicom.segmentation import SegmentationAbout, check_highdicom, check_source, segmentation_bytes
from halebrain.io.formats import FORMATS
from halebrain.io.volume import format_of


def check_dicom(images: Iterable[Path]) -> None:
    """Refuse scans that are no DICOM.

    Raises:
        UsageError: One is in another format.
        UnavailableError: highdicom is not installed.
    """
    check_highdicom()
    for image in images:
        if not is_dicom(image):
            raise UsageError("--dicom-seg needs DICOM scans", received=image.name, remedy="remove it")


def is_dicom(image: Path) -> bool:
    """Return whether a scan is a DICOM file, folder or archive."""
    return format_of(image) is FORMATS.get("dicom")


def mask_as_dicom(
    mask: MaskArray, affine: Affine, image: Path, *, model: tuple[str | None, str | None], said: Mapping[str, str]
) -> bytes:
    """Return a mask as a DICOM segmentation on the series of its scan.

    Args:
        mask: Bool, on the grid of the scan.
        affine: Of that grid.
        image: The DICOM file, folder or archive.
        model: Name and hash.
        said: How the mask was made, in words.
    """
    check_dicom([image])
    check_source(image)
    name, sha256 = model
    about = SegmentationAbout(versions()["halebrain"], str(name), str(sha256), dict(said))
    return segmentation_bytes(mask, affine, image, about)
