"""FreeSurfer's MGH and MGZ."""

import gzip
import struct
from pathlib import Path
from typing import Any

import nibabel

from halebrain.io.formats.base import FORMATS, Image, ScanFormat, checked_affine, missing_affine
from halebrain.io.formats.loading import first_bytes, load

_GOOD_RAS = slice(28, 30)
"""Bytes that say whether the header's geometry is to be believed."""


def read_mgh(path: Path) -> Image:
    """Read a `.mgh` or `.mgz`.

    Raises:
        DataError: It is damaged, no MGH, or states no geometry.
    """
    image, data = load(path, "MGH", _opened)
    if struct.unpack(">h", first_bytes(path, 30)[_GOOD_RAS])[0] <= 0:
        raise missing_affine(path, "a header without geometry (goodRASFlag 0)")
    return Image(data, checked_affine(image.affine, path))


def _opened(path: Path) -> Any:
    # From memory: nibabel leaves a file open whose header it refuses.
    raw = path.read_bytes()
    return nibabel.MGHImage.from_bytes(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw)


FORMATS.register("mgh")(ScanFormat("MGH", (".mgh", ".mgz"), read_mgh))
