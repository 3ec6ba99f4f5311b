"""DICOM: bytes flipped or cut, tags changed, files without preamble, mixed series, archives."""

import functools
import io
import tarfile
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless

from fuzzing.base import Attempt, kind, variable
from fuzzing.damage import JUNK, changed
from fuzzing.nifti import check_scan, head

_MR = "1.2.840.10008.5.1.4.1.1.4"
_ENHANCED = "1.2.840.10008.5.1.4.1.1.4.1"
_ROOT = "1.2.826.0.1.3680043.9.7433."
_TAGS: dict[str, tuple[Any, ...]] = {
    "Rows": (0, 1, 65535, None),
    "Columns": (0, 7, 65535, None),
    "BitsAllocated": (1, 8, 12, 32, 64, 0),
    "BitsStored": (0, 8, 17, 65535),
    "HighBit": (0, 7, 65535),
    "PixelRepresentation": (1, 2, None),
    "SamplesPerPixel": (0, 3, None),
    "PhotometricInterpretation": ("RGB", "MONOCHROME1", "PALETTE COLOR", "", None),
    "NumberOfFrames": ("0", "1", "2", "-1", "999999999"),
    "ImagePositionPatient": (["0", "0", "0"], ["1", "2"], ["1e30", "0", "0"], [], None),
    "ImageOrientationPatient": (["1", "0", "0", "0", "1", "0"], ["0"] * 6, ["1", "0", "0", "1", "0", "0"], [], None),
    "PixelSpacing": (["0", "0"], ["-1", "1"], ["1e-9", "1"], ["1e9", "1e9"], ["1"], [], None),
    "RescaleSlope": ("0", "1e38", "-1", ""),
    "RescaleIntercept": ("1e38", "-1024"),
    "SeriesInstanceUID": ("1.2.3", "", None, "x" * 64),
    "SOPInstanceUID": ("1.2.3", "", None),
    "SOPClassUID": ("1.2.840.10008.5.1.4.1.1.88.11", "", None),
    "SeriesNumber": ("99999999999", "", None, "-1"),
    "Modality": ("CT", "PT", "SEG", "", None, "MR\\CT"),
    "ImageType": (["DERIVED", "SECONDARY", "P"], ["ORIGINAL", "PRIMARY", "LOCALIZER"], [], None),
    "EchoTime": ("3.6", "", "-1", None),
    "InversionTime": ("900", ""),
    "InstanceNumber": ("1", "", None),
    "SpecificCharacterSet": ("ISO 2022 IR 87", "nonsense", ["", "x"]),
}


@functools.cache
def _slice(index: int, series: int) -> bytes:
    return _bytes(_dataset(index, series))


def _dataset(index: int, series: int = 1) -> FileDataset:
    made = _empty(_MR, f"{_ROOT}{series}.{index + 1}", series)
    made.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
    made.InstanceNumber = index + 1
    made.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    made.ImagePositionPatient = ["-100", "-110", str(-80 + 16 * index)]
    made.PixelSpacing, made.SliceThickness, made.EchoTime = ["14", "15"], "16", "3.5"
    _set_pixels(made, head()[:, :, index].T)
    return made


@functools.cache
def _multi_frame() -> bytes:
    made = _empty(_ENHANCED, f"{_ROOT}7.1", 7)
    made.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    orientation, measures, shared = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    measures.PixelSpacing, measures.SliceThickness = ["14", "15"], "16"
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = Sequence([orientation]), Sequence([measures])
    groups = []
    for index in range(head().shape[2]):
        place, group = Dataset(), Dataset()
        place.ImagePositionPatient = ["-100", "-110", str(-80 + 16 * index)]
        group.PlanePositionSequence = Sequence([place])
        groups.append(group)
    made.SharedFunctionalGroupsSequence, made.PerFrameFunctionalGroupsSequence = Sequence([shared]), Sequence(groups)
    made.NumberOfFrames = len(groups)
    _set_pixels(made, np.transpose(head(), (2, 1, 0)))
    return _bytes(made)


def _empty(sop_class: str, uid: str, series: int) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID, made.SOPInstanceUID, made.PatientName = sop_class, uid, "NAME^SECRET"
    made.StudyInstanceUID, made.SeriesInstanceUID = f"{_ROOT}100", f"{_ROOT}{series}"
    made.FrameOfReferenceUID, made.Modality, made.SeriesNumber = f"{_ROOT}200", "MR", series
    return made


def _set_pixels(made: FileDataset, stored: np.ndarray[Any, Any]) -> None:
    made.Rows, made.Columns = stored.shape[-2:]
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 0
    made.PixelData = np.ascontiguousarray(stored, dtype=np.uint16).tobytes()


def _bytes(made: FileDataset) -> bytes:
    stream = io.BytesIO()
    made.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


@kind("dicom", weight=16)
def dicom(random: Random, folder: Path) -> Attempt:
    """Write a series, an archive of one, or a multi-frame file, and read it."""
    if random.random() < 0.2:
        about, raw = _one_spoilt(_multi_frame(), random)
        path = folder / random.choice(("f.dcm", "f", "f.ima", "f.nii.gz"))
        path.write_bytes(raw)
    else:
        about, files = _series(random)
        path = _laid(files, folder, random)
    # The field's own converter is asked now and then only: it starts a process.
    how = "auto" if random.random() < 0.03 else "pydicom"
    return Attempt(f"{path.name}: {about}", functools.partial(_read, path, how, random.random() < 0.3))


def _series(random: Random) -> tuple[str, dict[str, bytes]]:
    files = {f"IM{index:03d}": _slice(index, 1) for index in range(head().shape[2])}
    victim = random.choice(sorted(files))
    match random.randrange(7):
        case 0:
            about, files[victim] = _one_spoilt(files[victim], random)
        case 1:
            name, value = _wish(random)
            about = f"{name} = {value!r} in all"
            files = {key: _set(raw, name, value) for key, raw in files.items()}
        case 2:
            del files[victim]
            about = f"no {victim}"
        case 3:
            second = random.choice((2, 3))
            files |= {f"OTHER{index:03d}": _slice(index, second) for index in range(random.choice((1, 5, 12)))}
            about = "two series"
        case 4:
            files["COPY"] = files[victim]
            about = "a slice twice"
        case 5:
            files = {key: raw[132:] for key, raw in files.items()}
            about = "no preamble"
        case _:
            files[random.choice(("DICOMDIR", "notes.txt", "x.nii.gz", "IM999"))] = random.choice(JUNK)
            about = "another file beside them"
    return about, files


def _one_spoilt(raw: bytes, random: Random) -> tuple[str, bytes]:
    if random.random() < 0.5:
        return changed(raw, random)
    if random.random() < 0.3:
        return _recoded(raw, random)
    name, value = _wish(random)
    return f"{name} = {value!r}", _set(raw, name, value)


def _wish(random: Random) -> tuple[str, Any]:
    name = random.choice(sorted(_TAGS))
    return name, random.choice(_TAGS[name])


def _set(raw: bytes, name: str, value: Any) -> bytes:
    made = pydicom.dcmread(io.BytesIO(raw))
    if value is None:
        if name in made:
            delattr(made, name)
    else:
        setattr(made, name, value)
    return _bytes(made)


def _recoded(raw: bytes, random: Random) -> tuple[str, bytes]:
    made = pydicom.dcmread(io.BytesIO(raw))
    syntax = random.choice((ImplicitVRLittleEndian, ExplicitVRBigEndian, JPEG2000Lossless))
    made.file_meta.TransferSyntaxUID = syntax
    if syntax is JPEG2000Lossless:
        from pydicom.encaps import encapsulate

        made.PixelData = encapsulate([random.randbytes(50)])
        return "JPEG 2000 that is none", _bytes(made)
    little = syntax is ImplicitVRLittleEndian
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, made, implicit_vr=little, little_endian=little, force_encoding=True)
    return syntax.name, stream.getvalue()


def _laid(files: dict[str, bytes], folder: Path, random: Random) -> Path:
    """Write files as a folder, in two folders, or as an archive, and return what is to be read."""
    where = random.choice(("series", "series", "series", "series.zip", "series.tar.gz", "nested"))
    path = folder / where
    if where.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as archive:
            for name, raw in files.items():
                archive.writestr(zipfile.ZipInfo(_member(name, random)), raw)
    elif where.endswith(".gz"):
        with tarfile.open(path, "w:gz", compresslevel=1) as tar:
            for name, raw in files.items():
                info = tarfile.TarInfo(_member(name, random))
                info.size = len(raw)
                tar.addfile(info, io.BytesIO(raw))
    else:
        for number, (name, raw) in enumerate(files.items()):
            place = path / (f"part{number % 2}" if where == "nested" else "")
            place.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(raw)
        return path
    if random.random() < 0.3:
        path.write_bytes(changed(path.read_bytes(), random)[1])
    return path


def _member(name: str, random: Random) -> str:
    return random.choice(("../", "/", "a/../../", "\x1b")) + name if random.random() < 0.01 else name


def _read(path: Path, how: str, chosen: bool) -> None:
    from halebrain.inference.scans import find_scans
    from halebrain.io.volume import read_volume

    with variable("HALEBRAIN_DICOM", how):
        if chosen:
            for scan in find_scans(path)[:3]:
                volume = read_volume(scan.image)
                check_scan(volume.data, volume.affine)
        else:
            volume = read_volume(path)
            check_scan(volume.data, volume.affine)
