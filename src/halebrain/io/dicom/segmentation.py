"""Writing DICOM: a mask as a DICOM segmentation on the grid of its source series.

The standard requires that a segmentation names the patient and the study of its source; those fields that it requires,
and no others, are copied from the headers into the file. None of them reaches a message or a log.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt

from halebrain.core.errors import DataError, UnavailableError
from halebrain.core.types import Affine, MaskArray
from halebrain.io.dicom.frames import Frame
from halebrain.io.dicom.geometry import sorted_grid
from halebrain.io.dicom.headers import quiet
from halebrain.io.dicom.read import open_series
from halebrain.io.dicom.source_headers import source_headers
from halebrain.io.files import split_selection

_TOLERANCE_MM = 1e-3
_SERIES = 9000
"""Added to the number of the source series."""
_SAYS = "Anomalies detected by software; research use only"


@dataclass(frozen=True)
class SegmentationAbout:
    """Provenance of a segmentation.

    Args:
        version: Version of HaleBrain.
        model: Name of the model.
        model_sha256: Its hash.
        parameters: Further settings, as text.
    """

    version: str
    model: str
    model_sha256: str
    parameters: dict[str, str] = field(default_factory=dict)


def check_highdicom() -> None:
    """Refuse where no segmentation can be written.

    Raises:
        UnavailableError: highdicom is not installed.
    """
    if find_spec("highdicom") is None:
        raise UnavailableError("DICOM-SEG needs highdicom", remedy="pip install 'halebrain[dicom]'")


def check_source(source: Path) -> None:
    """Refuse a series that no segmentation can refer to; raises as `segmentation_bytes`."""
    place, series = split_selection(source)
    with open_series(place, series) as chosen:
        source_headers(*sorted_grid(chosen.frames, source), source)


def segmentation_bytes(mask: MaskArray, affine: Affine, source: Path, about: SegmentationAbout) -> bytes:
    """Return a binary DICOM segmentation of one series.

    Every source frame has its own segmentation frame, empty ones too, so that the segmentation lies on the same grid.

    Args:
        mask: Bool `(i, j, k)` on the grid of the scan as it is read.
        affine: That grid, RAS+ mm.
        source: The DICOM folder, archive or multi-frame file (`PATH#NUMBER`: one series).
        about: What made it.

    Raises:
        UnavailableError: highdicom is not installed.
        DataError: The mask lies on another grid, or the headers lack what a segmentation must refer to.
    """
    check_highdicom()
    place, series = split_selection(source)
    with open_series(place, series) as chosen:
        frames, grid = sorted_grid(chosen.frames, source)
        planes = _planes(mask, affine, grid, len(frames), frames[0].shape, source)
        headers = source_headers(frames, grid, source)
        if frames[0].index is not None:  # as they are stored in the one file
            planes = planes[np.argsort([frame.index or 0 for frame in frames])]
        return _encode(planes, headers, frames, about, source)


def _planes(
    mask: MaskArray, affine: Affine, grid: Affine, count: int, shape: tuple[int, int], where: Path
) -> npt.NDArray[np.uint8]:
    """Return the mask slice by slice, `(slice, row, column)`, turned from the volume's axes to the series' own."""
    turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(affine), nibabel.io_orientation(grid))
    turned = nibabel.orientations.apply_orientation(mask.astype(np.uint8), turn)
    lies = affine @ nibabel.orientations.inv_ornt_aff(turn, mask.shape)
    if turned.shape != (shape[1], shape[0], count) or not np.allclose(lies, grid, atol=_TOLERANCE_MM):
        raise DataError(
            "a mask must lie on the grid of its series",
            received=f"shape {mask.shape}",
            where=where,
            remedy="remove --dicom-seg; the NIfTI mask lies on the grid of the scan",
        )
    return np.ascontiguousarray(turned.transpose(2, 1, 0))


def _encode(
    planes: npt.NDArray[np.uint8],
    headers: Sequence[Any],
    frames: Sequence[Frame],
    about: SegmentationAbout,
    where: Path,
) -> bytes:
    with quiet():
        try:
            import highdicom

            made = highdicom.seg.Segmentation(
                source_images=headers,
                pixel_array=planes,
                segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=[_segment(about)],
                series_instance_uid=highdicom.UID(),
                series_number=_SERIES + max(frames[0].number or 0, 0),
                sop_instance_uid=highdicom.UID(),
                instance_number=1,
                manufacturer="HaleBrain",
                manufacturer_model_name="HaleBrain",
                software_versions=about.version,
                device_serial_number=about.model_sha256[:16] or "0",
                series_description=_SAYS,
                content_label="ANOMALY",
                content_description=_SAYS,
                omit_empty_frames=False,
            )
            buffer = io.BytesIO()
            made.save_as(buffer)
        except Exception:  # what highdicom says of a header may quote it
            raise DataError(
                "a series must have the headers that DICOM-SEG refers to",
                where=where,
                remedy="remove --dicom-seg; the NIfTI mask lies on the same grid",
            ) from None
    return buffer.getvalue()


def _segment(about: SegmentationAbout) -> Any:
    """Return what the one segment is: an abnormality of the brain, found automatically, in SNOMED CT's terms."""
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    algorithm = AlgorithmIdentificationSequence(
        name="HaleBrain",
        family=codes.DCM.ArtificialIntelligence,
        version=about.version,
        source="HaleBrain",
        parameters={"model": about.model, "model_sha256": about.model_sha256, **about.parameters},
    )
    return SegmentDescription(
        segment_number=1,
        segment_label="Anomaly",
        segmented_property_category=Code("49755003", "SCT", "Morphologically Abnormal Structure"),
        segmented_property_type=Code("52988006", "SCT", "Lesion"),
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        anatomic_regions=[Code("12738006", "SCT", "Brain")],
    )
