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
from pydicom.dataset import Dataset

from halebrain.core.errors import DataError, UnavailableError
from halebrain.core.types import Affine, MaskArray
from halebrain.io.dicom.geometry import sorted_grid
from halebrain.io.dicom.headers import Frame, open_header, quiet
from halebrain.io.dicom.read import open_series
from halebrain.io.files import split_selection

_TOLERANCE_MM = 1e-3
_SERIES = 9000
"""Added to the number of the source series."""
_SAYS = "Anomalies detected by software; research use only"


@dataclass(frozen=True)
class SegmentationAbout:
    """Provenance of a segmentation: version of HaleBrain, model, its hash, and further settings as text."""

    version: str
    model: str
    model_sha256: str
    parameters: dict[str, str] = field(default_factory=dict)


def check_highdicom() -> None:
    """Refuse where no segmentation can be written, as highdicom is not installed."""
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


_REQUIRED_BY_STANDARD = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber"),
)
"""Of patient and study; may be empty, may not be absent."""
_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_TAGS = (*_UIDS, *_REQUIRED_BY_STANDARD, "SpecificCharacterSet", "Modality", "Rows", "Columns", "ImagePositionPatient")
_SEXES = ("M", "F", "O", "")
_DIGITS = 16
"""A number in DICOM is a text of at most this length."""


def source_headers(frames: Sequence[Frame], grid: Affine, where: Path) -> list[Any]:
    """Return the headers of sorted frames: one a slice, or one of a multi-frame file.

    Direction, pixel size and distance are those of `grid` (`(column, row, slice)` to RAS+ mm), so that one slice with
    other rounding does not differ; positions are those of the headers. A `DataError` where UIDs are missing, shared or
    different where they may not be, or the scan is a part of its multi-frame files.
    """
    files = list(dict.fromkeys(frame.file for frame in frames))
    with quiet():
        found = [open_header(file, _TAGS) for file in files]
        for header in found:
            _complete(header)
    _check_uids(found, where)
    step_mm = float(np.linalg.norm(grid[:3, 2]))
    if any(frame.index is not None for frame in frames):
        _check_whole(frames, len(files), where)
        found[0].update(_functional_groups(sorted(frames, key=lambda frame: frame.index or 0), step_mm))
        return found
    for header in found:
        header.ImageOrientationPatient = _orientation(frames[0])
        header.PixelSpacing = _texts(frames[0].spacing)
        header.SliceThickness = header.SpacingBetweenSlices = _text(step_mm)
    return found


def _complete(header: Any) -> None:
    for name in _REQUIRED_BY_STANDARD:
        if header.get(name) is None:
            setattr(header, name, "")
    if str(header.PatientSex) not in _SEXES:
        header.PatientSex = ""


def _check_uids(headers: Sequence[Any], where: Path) -> None:
    for name in _UIDS:
        values = {str(header.get(name) or "") for header in headers}
        if "" in values:
            raise _refused(f"no {name} in a header", where)
        if name == "SOPInstanceUID" and len(values) != len(headers):
            raise _refused("slices that share one SOPInstanceUID", where)
        if name != "SOPInstanceUID" and len(values) > 1:
            raise _refused(f"slices with different {name}", where)


def _check_whole(frames: Sequence[Frame], n_files: int, where: Path) -> None:
    """Refuse a scan that is one image of several in a multi-frame file, or that several such files make up."""
    if n_files > 1:
        raise _refused("a scan in several multi-frame files", where)
    with quiet():
        header = open_header(frames[0].file, ["NumberOfFrames"])
    if int(header.get("NumberOfFrames") or 1) != len(frames):
        raise _refused("a multi-frame file that holds other images too", where)


def _functional_groups(frames: Sequence[Frame], step_mm: float) -> Dataset:
    """Return where the frames of a multi-frame file lie, as the standard has it, wherever its writer put that."""
    made, shared, orientation, measures = Dataset(), Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = _orientation(frames[0])
    measures.PixelSpacing = _texts(frames[0].spacing)
    measures.SliceThickness = measures.SpacingBetweenSlices = _text(step_mm)
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    groups = []
    for frame in frames:
        group, position = Dataset(), Dataset()
        position.ImagePositionPatient = _texts(frame.position)
        group.PlanePositionSequence = [position]
        groups.append(group)
    made.NumberOfFrames = len(frames)
    made.SharedFunctionalGroupsSequence, made.PerFrameFunctionalGroupsSequence = [shared], groups
    return made


def _orientation(frame: Frame) -> list[str]:
    return _texts(None if frame.orientation is None else frame.orientation.ravel())


def _texts(values: Any) -> list[str]:
    return [_text(float(value)) for value in values]


def _text(value: float) -> str:
    # Ten decimals of a cosine, or as many as fit.
    return f"{value:.10f}"[:_DIGITS]


def _refused(received: str, where: Path) -> DataError:
    return DataError(
        "DICOM-SEG needs the UIDs and the slices of one whole series",
        received=received,
        where=where,
        remedy="remove --dicom-seg; the NIfTI mask lies on the same grid",
    )
