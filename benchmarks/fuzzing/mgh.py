"""FreeSurfer's MGH and MGZ: header fields, bodies, gzip, other names."""

import functools
from pathlib import Path
from random import Random
from typing import Any

import nibabel
import numpy as np

from fuzzing.base import Attempt, kind
from fuzzing.damage import JUNK, bytes_of, changed, damaged_gzip, packed, spoil_field
from fuzzing.nifti import AFFINE, _read, head


@functools.cache
def _parts(dtype: Any) -> tuple[Any, bytes]:
    image = nibabel.MGHImage(head().astype(dtype), AFFINE)
    raw = bytes_of(image.to_stream)
    header = image.header.structarr
    return np.frombuffer(raw[: header.dtype.itemsize], dtype=header.dtype)[0], raw[header.dtype.itemsize :]


@kind("mgh", weight=8)
def mgh(random: Random, folder: Path) -> Attempt:
    """Write one file, and read it."""
    first, body = _parts(random.choice((np.uint8, np.int16, np.int32, np.float32)))
    header = first.copy().reshape(())
    same = None
    match random.randrange(4):
        case 0 | 1:
            about = ", ".join(spoil_field(header, random) for _ in range(random.choice((1, 1, 2))))
            raw = header.tobytes() + body
        case 2:
            about, raw = changed(header.tobytes() + body, random)
        case _ if random.random() < 0.2:
            about, raw = "no MGH", random.choice(JUNK)
        case _:
            about, raw, same = "whole", header.tobytes() + body, head()
    name = random.choice(("a.mgh", "a.mgz", "a.mgz", "a.MGZ", "a.mgh.gz"))
    if name.lower().endswith("z"):
        about, raw = (about, packed(raw)) if random.random() < 0.7 else damaged_gzip(raw, random)
    path = folder / name
    path.write_bytes(raw)
    return Attempt(f"{name}: {about}", functools.partial(_read, path, random.random() < 0.7, same))
