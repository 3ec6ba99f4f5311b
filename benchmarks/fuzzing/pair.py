"""A header and an image in two files: NIfTI pairs and Analyze 7.5, with SPM's .mat beside it."""

import functools
import io
from pathlib import Path
from random import Random
from typing import Any

import nibabel
import numpy as np
import scipy.io
from nibabel.spm2analyze import Spm2AnalyzeImage

from fuzzing.base import Attempt, kind
from fuzzing.damage import JUNK, changed, packed, spoil_field
from fuzzing.nifti import AFFINE, _read, head

_KINDS = (nibabel.Nifti1Pair, nibabel.Nifti2Pair, nibabel.AnalyzeImage, Spm2AnalyzeImage)


@functools.cache
def _parts(which: int, dtype: Any) -> tuple[Any, dict[str, bytes]]:
    """Return the header as a structured array, and the bytes of all files by ending."""
    image = _KINDS[which](head().astype(dtype), AFFINE if which < 2 else np.diag([-15.0, 14.0, 16.0, 1.0]))
    files = image.make_file_map()
    for holder in files.values():
        holder.fileobj = io.BytesIO()
    image.to_file_map(files)
    endings = {"header": ".hdr", "image": ".img", "mat": ".mat"}
    written = {endings[name]: holder.fileobj.getvalue() for name, holder in files.items()}
    dtype_of_header = image.header.structarr.dtype
    return np.frombuffer(written[".hdr"][: dtype_of_header.itemsize], dtype=dtype_of_header)[0], written


@kind("pair", weight=8)
def pair(random: Random, folder: Path) -> Attempt:
    """Write the files of one pair, and read it by one of them."""
    first, written = _parts(random.randrange(len(_KINDS)), random.choice((np.uint8, np.int16, np.float32)))
    files = dict(written)
    header = first.copy().reshape(())
    target = random.choice((".hdr", ".hdr", ".img", ".mat"))
    about = "whole"
    match random.randrange(5):
        case 0 | 1:
            about = ", ".join(spoil_field(header, random) for _ in range(random.choice((1, 1, 2))))
            files[".hdr"] = header.tobytes() + files[".hdr"][header.dtype.itemsize :]
        case 2 if target in files:
            done, files[target] = changed(files[target], random)
            about = f"{target} {done}"
        case 3 if target in files:
            about = f"no {target}"
            del files[target]
        case 4:
            about, files[".mat"] = _transform(random)
    packs = random.random() < 0.2
    for ending, raw in files.items():
        gz = packs and ending != ".mat" and random.random() < 0.8
        (folder / f"a{ending}{'.gz' if gz else ''}").write_bytes(packed(raw) if gz else raw)
    there = sorted(path for path in folder.iterdir() if ".mat" not in path.name) or [folder / "a.hdr"]
    path = random.choice(there)
    return Attempt(f"{path.name}: {about}", functools.partial(_read, path, random.random() < 0.7, None))


def _transform(random: Random) -> tuple[str, bytes]:
    """Return a .mat that tells another transform, or none."""
    matrix: Any = AFFINE.copy()
    match random.randrange(6):
        case 0:
            matrix[random.randrange(4), random.randrange(4)] = random.choice((0.0, np.nan, np.inf, 1e30))
        case 1:
            matrix = random.choice((np.eye(3), np.zeros((4, 4)), np.zeros((0, 0)), np.eye(4) * 1j, np.eye(4)[None]))
        case 2:
            matrix = np.array(["text"])
        case 3:
            return "no .mat", random.choice(JUNK)
    stream = io.BytesIO()
    scipy.io.savemat(
        stream,
        {random.choice(("mat", "mat", "M", "other")): matrix},
        format=random.choice("45") if matrix.ndim <= 2 else "5",
    )
    raw = stream.getvalue()
    return changed(raw, random) if random.random() < 0.3 else (f"transform {np.shape(matrix)}", raw)
