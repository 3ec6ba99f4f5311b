"""FreeSurfer's MGH and MGZ."""

import struct
from functools import partial
from pathlib import Path

import nibabel

from halebrain.io.formats.base import (
    FORMATS,
    Image,
    ScanFormat,
    checked_affine,
    missing_affine,
    without_trailing_ones,
)
from halebrain.io.formats.loading import first_bytes, opened, read_header, read_values

_VERSION = struct.pack(">i", 1)
_TYPE = slice(20, 24)
_TYPES = {struct.pack(">i", code) for code in (0, 1, 3, 4, 10)}
"""Codes of unsigned byte, integer, float, short and unsigned short."""
_GOOD_RAS = slice(28, 30)
"""Bytes of the flag that marks the header's geometry as valid."""


def read_mgh(path: Path) -> Image:
    """Read the header of an MGH file, packed (`.mgz`) or not."""
    opener = partial(opened, nibabel.MGHImage, {"image": path})
    image = read_header(opener, path, "MGH")
    if struct.unpack(">h", first_bytes(path, 30)[_GOOD_RAS])[0] <= 0:
        raise missing_affine(path, "a header without geometry (goodRASFlag 0)")
    shape = without_trailing_ones(image.shape)
    return Image(shape, checked_affine(image.affine, path), partial(read_values, opener, path, "MGH"))


def _is_mgh(head: bytes) -> bool:
    return len(head) >= 284 and head[:4] == _VERSION and head[_TYPE] in _TYPES


FORMATS.register("mgh")(ScanFormat("MGH", (".mgh", ".mgz"), read_mgh, recognises=_is_mgh))
