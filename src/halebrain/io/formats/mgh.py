"""FreeSurfer's MGH and MGZ."""

import struct
from pathlib import Path

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
    image, data = load(path, "MGH", nibabel.MGHImage.from_filename)
    if struct.unpack(">h", first_bytes(path, 30)[_GOOD_RAS])[0] <= 0:
        raise missing_affine(path, "a header without geometry (goodRASFlag 0)")
    return Image(data, checked_affine(image.affine, path))


FORMATS.register("mgh")(ScanFormat("MGH", (".mgh", ".mgz"), read_mgh))
