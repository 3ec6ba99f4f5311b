"""The mask as a DICOM segmentation (`--dicom-seg`): refused before any work where it cannot be, and made."""

from collections.abc import Iterable
from pathlib import Path

from halebrain.core.about import versions
from halebrain.core.errors import UsageError
from halebrain.core.exam_provenance import ExamProvenance
from halebrain.core.provenance import ChosenThreshold, Provenance
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
    mask: MaskArray,
    affine: Affine,
    image: Path,
    made: Provenance | ExamProvenance,
    threshold: ChosenThreshold,
    **said: str,
) -> bytes:
    """Return a mask on the grid of a scan as a DICOM segmentation on the series of that scan.

    `image` is its file, folder or archive; `said` is stated of how the mask was made, besides model and threshold.
    """
    check_dicom([image])
    check_source(image)
    words = {"threshold": f"{threshold.value:.6g}", "method": threshold.name, **said}
    about = SegmentationAbout(versions()["halebrain"], str(made.model), str(made.model_sha256), words)
    return segmentation_bytes(mask, affine, image, about)
