"""dcm2niix, if installed, reads the pixels; the headers still determine the grid."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np

from halebrain.core.errors import ConfigError, UnavailableError
from halebrain.core.leftovers import scratch_folder
from halebrain.core.types import Affine, FloatArray
from halebrain.io.dicom.headers import Frame

ENVIRONMENT = "HALEBRAIN_DICOM"
"""Environment variable: "auto" (dcm2niix if it is installed and its result agrees), "pydicom", or "dcm2niix"."""
_CHOICES = ("auto", "pydicom", "dcm2niix")
_TIMEOUT_S = 900
_TOLERANCE_MM = 1e-2


def chosen_converter() -> str:
    """Return which converter to use, as the environment names it; "auto" where it names none."""
    choice = os.environ.get(ENVIRONMENT, "auto") or "auto"
    if choice not in _CHOICES:
        raise ConfigError(
            f"{ENVIRONMENT} must be one of {', '.join(_CHOICES)}", received=repr(choice), remedy="unset it"
        )
    if choice == "dcm2niix" and shutil.which("dcm2niix") is None:
        raise UnavailableError(
            "dcm2niix must be on the PATH", where=ENVIRONMENT, remedy="pip install 'halebrain[dicom]', or unset it"
        )
    return choice


def convert(frames: Sequence[Frame], affine: Affine) -> FloatArray | None:
    """Return the values of sorted frames on the grid of `affine` (RAS+ mm), as dcm2niix reads them.

    `None` where dcm2niix is not there, fails, or sees another grid. What it prints and the sidecar that it could write
    carry names; the first is thrown away, the second is off.
    """
    program = shutil.which("dcm2niix")
    if program is None:
        return None
    with scratch_folder() as folder:
        inside, outside = folder / "in", folder / "out"
        inside.mkdir()
        outside.mkdir()
        for number, file in enumerate(dict.fromkeys(frame.file for frame in frames)):
            shutil.copyfile(file, inside / f"{number:06d}.dcm")
        options = ["-b", "n", "-z", "n", "-p", "n", "-x", "n", "-m", "y", "-f", "scan", "-o", str(outside)]
        try:
            subprocess.run(
                [program, *options, str(inside)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=True,
                timeout=_TIMEOUT_S,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        written = list(outside.glob("*.nii"))
        shape = (frames[0].shape[1], frames[0].shape[0], len(frames))
        return _on_grid(written[0], affine, shape) if len(written) == 1 else None


def _on_grid(path: Path, affine: Affine, shape: tuple[int, int, int]) -> FloatArray | None:
    """Return an image with its axes turned and flipped to lie on a grid; `None` where it is another grid."""
    image = nibabel.load(path)
    if len(image.shape) != 3:
        return None
    turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), nibabel.io_orientation(affine))
    turned = image.as_reoriented(turn)
    if turned.shape != shape or not np.allclose(turned.affine, affine, atol=_TOLERANCE_MM):
        return None
    return np.asarray(turned.dataobj, dtype=np.float32)
