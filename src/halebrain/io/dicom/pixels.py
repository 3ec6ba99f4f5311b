"""The pixels of a series as one array, in the units that the header gives them."""

import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from halebrain.core.errors import DataError, UnavailableError
from halebrain.core.types import FloatArray
from halebrain.io.dicom.headers import Frame, quiet


def read_pixels(frames: Sequence[Frame], where: Path) -> FloatArray:
    """Return the values of sorted frames, shape `(column, row, slice)`; pixels that nothing decodes are refused."""
    rows, columns = frames[0].shape
    data = np.empty((columns, rows, len(frames)), np.float32)
    for slot, plane in _planes(frames, where):
        frame = frames[slot]
        if plane.shape != (rows, columns) or not frame.grey:
            raise DataError(
                "a DICOM scan must hold one grey value per pixel",
                where=where,
                remedy="export the original images, not colour ones",
            )
        # Values that overflow become infinite and are refused by the reader.
        with np.errstate(all="ignore"):
            data[:, :, slot] = (plane.astype(np.float64) * frame.slope + frame.intercept).T
    return data


def _planes(frames: Sequence[Frame], where: Path) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    by_file: dict[Path, list[int]] = {}
    for slot, frame in enumerate(frames):
        by_file.setdefault(frame.file, []).append(slot)
    for file, slots in by_file.items():
        stored = _decode(file, where)
        for slot in slots:
            index = frames[slot].index
            if (stored.ndim == 3 and (index or 0) >= len(stored)) or stored.ndim not in (2, 3):
                raise DataError(
                    "a DICOM file must hold as many frames as its header states",
                    where=where,
                    remedy="export the series again",
                )
            yield slot, stored[index or 0] if stored.ndim == 3 else stored


def _decode(file: Path, where: Path) -> npt.NDArray[Any]:
    with quiet():
        try:
            # From memory: of a file, a damaged length would ask for as much memory as it says.
            dataset = pydicom.dcmread(io.BytesIO(file.read_bytes()), force=True)
            if "TransferSyntaxUID" not in dataset.file_meta:
                # Without the group that says it, pixels are stored as the header is.
                implicit = dataset.original_encoding[0]
                dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
            syntax = dataset.file_meta.TransferSyntaxUID
            compressed = syntax.is_compressed
        except Exception:  # what a damaged file raises is not listed, and may quote it
            raise _damaged(where) from None
        try:
            counts = dataset.get("NumberOfFrames") or 1, dataset.get("SamplesPerPixel") or 1
            bits = math.prod(map(int, (*counts, dataset.Rows, dataset.Columns, dataset.BitsAllocated)))
            if not compressed and bits // 8 > file.stat().st_size:
                raise ValueError("more pixels than the file holds")  # before memory is asked for them
            return np.asarray(dataset.pixel_array)
        except Exception as error:  # as above
            if compressed and isinstance(error, RuntimeError | NotImplementedError | ImportError):
                raise UnavailableError(
                    "compressed pixels need a decoder",
                    received=syntax.name,
                    where=where,
                    remedy="pip install 'halebrain[dicom]', or export them uncompressed",
                ) from None
            raise _damaged(where) from None


def _damaged(where: Path) -> DataError:
    return DataError(
        "every slice must be readable",
        received="missing or truncated pixel data",
        where=where,
        remedy="export the series again",
    )
