"""NIfTI-1 and NIfTI-2, both byte orders: header fields, extensions, affines, units, bodies, gzip, other names."""

import functools
from pathlib import Path
from random import Random
from typing import Any

import nibabel
import numpy as np

from fuzzing.base import Attempt, check, kind
from fuzzing.damage import FLOATS, JUNK, bytes_of, changed, damaged_gzip, packed, spoil_field

AFFINE = np.array([[-15.0, 0, 0, 100], [0, 14.0, 1.0, -110], [0, -1.0, 16.0, -80], [0, 0, 0, 1]])
"""A head of 210 × 224 × 192 mm, turned a little, in few voxels."""
SHAPE = (14, 16, 12)
_PLACED = ("dim", "datatype", "bitpix", "pixdim", "vox_offset", "scl_slope", "scl_inter", "xyzt_units", "qform_code")
_PLACED += ("sform_code", "quatern_b", "qoffset_x", "srow_x", "srow_y", "srow_z", "magic", "intent_code")
_TYPES = (np.uint8, np.int16, np.int32, np.float32, np.float64, np.uint16, np.int8, np.complex64)


@functools.cache
def head() -> np.ndarray[Any, Any]:
    """Return values of a small head, 0 around it."""
    index = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij"))
    inside = (index**2).sum(axis=0) < 0.9
    values: np.ndarray[Any, Any] = np.where(inside, np.random.default_rng(0).integers(20, 120, SHAPE), 0)
    return values


@functools.cache
def parts(two: bool, big: bool, dtype: Any, dims: tuple[int, ...] = SHAPE) -> tuple[Any, bytes]:
    """Return the header of a whole file, as a structured array, and the bytes after it.

    Args:
        two: NIfTI-2.
        big: Big endian.
        dtype: On disk.
        dims: Shape, of as many voxels as a head has.
    """
    kind_of_image = nibabel.Nifti2Image if two else nibabel.Nifti1Image
    data = head().astype(dtype).reshape(dims)
    header = kind_of_image.header_class(endianness=">" if big else "<")
    image = kind_of_image(data, AFFINE, header)
    image.header.set_data_dtype(dtype)
    image.set_sform(AFFINE, code=1)
    image.set_qform(AFFINE, code=1)
    image.header.set_xyzt_units("mm")
    raw = bytes_of(image.to_stream)
    size = image.header.sizeof_hdr
    return np.frombuffer(raw[:size], dtype=image.header.structarr.dtype)[0], raw[size:]


@kind("nifti", weight=30)
def nifti(random: Random, folder: Path) -> Attempt:
    """Write one file, and read it as a scan or as a map."""
    about, raw, same = _spoilt(random)
    name = random.choice(("a.nii", "a.nii.gz", "a.nii.gz", "A.NII.GZ", "sub-1_T1w.nii.gz", "a b\x1bü.nii", "a.mgz"))
    if random.random() < 0.1:
        about, raw = damaged_gzip(raw, random)
        name = "a.nii.gz"
    elif random.random() < 0.9 and name.lower().endswith("gz"):
        raw, same = packed(raw), None
    path = folder / name
    path.write_bytes(raw)
    return Attempt(f"{name!r}: {about}", functools.partial(_read, path, random.random() < 0.7, same))


def _spoilt(random: Random) -> tuple[str, bytes, np.ndarray[Any, Any] | None]:
    """Return what was done, the bytes, and what they hold where that is untouched."""
    two, big, dtype = random.random() < 0.3, random.random() < 0.3, random.choice(_TYPES)
    dims = random.choice((SHAPE, SHAPE, SHAPE, (*SHAPE, 1), (*SHAPE, 1, 1), (14, 16, 6, 2), (14, 192), (7, 2, 16, 12)))
    head_of_file, body = parts(two, big, dtype, dims)
    header = head_of_file.copy().reshape(())
    match random.randrange(8):
        case 0 | 1:
            return spoil_field(header, random), header.tobytes() + body, None
        case 2 | 3:
            done = [spoil_field(header, random, _PLACED) for _ in range(random.choice((1, 1, 2, 3)))]
            return ", ".join(done), header.tobytes() + body, None
        case 4:
            about, body = _extended(random, body, header.dtype.newbyteorder("="), big)
            return about, header.tobytes() + body, None
        case 5:
            spacing = random.choice((*FLOATS, 1e-6, 0.001, 1000.0, 15000.0))
            with np.errstate(all="ignore"):
                for name in ("srow_x", "srow_y", "srow_z"):
                    header[name] *= spacing
                header["pixdim"] *= spacing
            header["xyzt_units"] = random.choice((0, 1, 2, 3, 8, 10, 255))
            return f"spacing × {spacing}, units {header['xyzt_units']}", header.tobytes() + body, None
        case 6:
            about, raw = changed(header.tobytes() + body, random)
            return about, raw, None
        case _ if random.random() < 0.3:
            return "no NIfTI", random.choice(JUNK), None
    return f"whole, {np.dtype(dtype)}, {dims}", header.tobytes() + body, head()


def _extended(random: Random, body: bytes, _: Any, big: bool) -> tuple[str, bytes]:
    size = random.choice((0, 1, 8, 15, 16, 32, 2**20, 2**31 - 1, -16))
    order = "big" if big else "little"
    code = random.choice((0, 2, 4, 6, 44, -1))
    words = size.to_bytes(4, order, signed=True) + code.to_bytes(4, order, signed=True)
    return f"extension of {size} bytes, code {code}", b"\1\0\0\0" + words + random.randbytes(24) + body[4:]


def _read(path: Path, as_scan: bool, same: np.ndarray[Any, Any] | None) -> None:
    from halebrain.io.volume import read_array, read_volume

    if as_scan:
        volume = read_volume(path)
        check_scan(volume.data, volume.affine)
        data = volume.data
    else:
        data, affine = read_array(path)
        check_place(data, affine)
    if same is not None and not np.iscomplexobj(same):
        check(data.size == same.size and np.array_equal(data.ravel("F"), same.ravel("F")), "other values than the file")


def check_scan(data: np.ndarray[Any, Any], affine: np.ndarray[Any, Any]) -> None:
    """Raise where a scan that was read cannot be one."""
    check_place(data, affine)
    check(bool(np.isfinite(data).all()), "a scan with values that are not finite")
    check(bool(data.min() < data.max()), "a scan that shows nothing")


def check_place(data: np.ndarray[Any, Any], affine: np.ndarray[Any, Any]) -> None:
    """Raise where an image that was read lies nowhere."""
    check(data.ndim == 3 and data.size > 0 and data.dtype == np.float32, "no image of three dimensions")
    check(affine.shape == (4, 4) and bool(np.isfinite(affine).all()), "an affine that is not finite")
    check(np.allclose(affine[3], (0, 0, 0, 1)), "an affine with another last row")
    check(abs(float(np.linalg.det(affine[:3, :3]))) > 1e-9, "an affine that cannot be inverted")
