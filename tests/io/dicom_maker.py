"""DICOM series made for tests, with names that must not show anywhere."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from halebrain.core.types import Volume
from halebrain.io.dicom.headers import read_frames
from halebrain.io.dicom.read import read_series
from halebrain.io.dicom.series import SeriesInfo, group_series
from halebrain.io.files import dicom_files

CT, MR, ENHANCED = (f"1.2.840.10008.5.1.4.1.1.{tail}" for tail in ("2", "4", "4.1"))
SECRETS = {
    "PatientName": "LOUDNAME^ZELDA",
    "PatientID": "LOUDID4711",
    "PatientBirthDate": "19010203",
    "InstitutionName": "LOUDHOSPITAL",
    "InstitutionAddress": "LOUDSTREET 7",
    "AccessionNumber": "LOUDACC99",
    "ReferringPhysicianName": "LOUDDOCTOR^WHO",
    "OperatorsName": "LOUDOPERATOR",
    "StudyDescription": "LOUDSTUDY",
    "SeriesDescription": "LOUDSERIES",
    "ProtocolName": "LOUDPROTOCOL",
    "PatientComments": "LOUDCOMMENT",
}
LOUD = ("LOUD", "19010203", "1.2.826.0.1.3680043.8.498")
"""What no output may hold: every secret, and the start of every UID that pydicom makes."""
DIAGONAL = np.array([[5.0, 0, 0, -10], [0, 7.5, 0, -12], [0, 0, 10.0, 5], [0, 0, 0, 1]])
"""An affine in RAS whose columns are: along a row, along a column, along the slices."""


def read_dicom(path: Path, series: int | str | None = None) -> Volume:
    """Read one series, without what is asked of a scan."""
    data, affine, notes = read_series(path, None if series is None else str(series))
    return Volume(data, affine, name=str(path), notes=notes)


def list_series(folder: Path) -> list[SeriesInfo]:
    """Return what lies in a folder, image by image."""
    return [one.info for one in group_series(read_frames(dicom_files(folder), folder)[0])]


@dataclass
class Maker:
    """One series: an array `(column, row, slice)` on a RAS affine, written slice by slice.

    `change(dataset, number)` may spoil each slice before it is written.
    """

    data: np.ndarray
    affine: np.ndarray = field(default_factory=lambda: DIAGONAL)
    number: int = 4
    modality: str = "MR"
    slope: float | None = None
    intercept: float = 0.0
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "M", "ND")
    uid: str = field(default_factory=generate_uid)
    study: str = field(default_factory=generate_uid)
    frame_of_reference: str = field(default_factory=generate_uid)

    def grid(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return row direction, column direction, spacings and step, in LPS."""
        lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ self.affine
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        return lps[:3, 0] / spacing[0], lps[:3, 1] / spacing[1], spacing, lps

    def slice(self, index: int) -> FileDataset:
        along_row, along_column, spacing, lps = self.grid()
        made = _dataset(CT if self.modality == "CT" else MR, self.modality, self.uid, self.number)
        made.StudyInstanceUID, made.FrameOfReferenceUID = self.study, self.frame_of_reference
        made.ImageType = list(self.image_type)
        made.InstanceNumber = index + 1
        made.ImageOrientationPatient = _texts([*along_row, *along_column])
        made.ImagePositionPatient = _texts(lps[:3, 3] + index * lps[:3, 2])
        made.PixelSpacing = _texts([spacing[1], spacing[0]])
        made.SliceThickness = "99"
        made.EchoTime = "3.5"
        if self.slope is not None:
            made.RescaleSlope, made.RescaleIntercept = _texts([self.slope, self.intercept])
        _set_pixels(made, self.data[:, :, index].T)
        return made

    def write(self, folder: Path, change: Any = None, skip: tuple[int, ...] = ()) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        count = self.data.shape[2]
        order = np.random.default_rng(1).permutation(count)
        for name, index in enumerate(int(n) for n in order):
            if index in skip:
                continue
            made = self.slice(index)
            if change is not None:
                change(made, index)
            made.save_as(folder / f"LOUDFILE{self.number}_{name:04d}", enforce_file_format=True)
        return folder

    def write_multi_frame(
        self, path: Path, order: tuple[int, ...] | None = None, slopes: tuple[float, ...] | None = None
    ) -> Path:
        """Write one file; `order`: slices as they are stored, `slopes`: the scale of each slice."""
        order = tuple(range(self.data.shape[2])) if order is None else order
        along_row, along_column, spacing, lps = self.grid()
        made = _dataset(ENHANCED, self.modality, self.uid, self.number)
        made.StudyInstanceUID, made.FrameOfReferenceUID = self.study, self.frame_of_reference
        made.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
        orientation, measures = Dataset(), Dataset()
        orientation.ImageOrientationPatient = _texts([*along_row, *along_column])
        measures.PixelSpacing = _texts([spacing[1], spacing[0]])
        measures.SliceThickness = "99"
        shared = Dataset()
        shared.PlaneOrientationSequence = Sequence([orientation])
        shared.PixelMeasuresSequence = Sequence([measures])
        groups = []
        for index in order:
            place, value, group = Dataset(), Dataset(), Dataset()
            place.ImagePositionPatient = _texts(lps[:3, 3] + index * lps[:3, 2])
            value.RescaleSlope, value.RescaleIntercept = _texts(
                [slopes[index] if slopes else self.slope or 1.0, self.intercept]
            )
            value.RescaleType = "US"
            group.PlanePositionSequence = Sequence([place])
            group.PixelValueTransformationSequence = Sequence([value])
            groups.append(group)
        made.SharedFunctionalGroupsSequence = Sequence([shared])
        made.PerFrameFunctionalGroupsSequence = Sequence(groups)
        made.NumberOfFrames = len(groups)
        _set_pixels(made, np.transpose(self.data[:, :, list(order)], (2, 1, 0)))
        made.save_as(path, enforce_file_format=True)
        return path


def write_report(path: Path, modality: str = "SR") -> Path:
    """Write an object without pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = _dataset("1.2.840.10008.5.1.4.1.1.88.11", modality, generate_uid(), 99)
    made.save_as(path, enforce_file_format=True)
    return path


def _dataset(kind: str, modality: str, series: str, number: int) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(kind)
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    for name, value in SECRETS.items():
        setattr(made, name, value)
    made.SOPClassUID, made.SOPInstanceUID = UID(kind), meta.MediaStorageSOPInstanceUID
    made.StudyInstanceUID, made.SeriesInstanceUID = generate_uid(), series
    made.FrameOfReferenceUID = generate_uid()
    made.Modality, made.SeriesNumber = modality, number
    return made


def _set_pixels(made: FileDataset, stored: np.ndarray) -> None:
    made.Rows, made.Columns = stored.shape[-2:]
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 16, 15
    made.PixelRepresentation = int(stored.dtype == np.int16)
    made.PixelData = np.ascontiguousarray(stored).tobytes()


def _texts(values: Any) -> list[str]:
    return [f"{value:.10f}"[:16] for value in values]
