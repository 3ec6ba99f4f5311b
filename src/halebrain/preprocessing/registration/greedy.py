"""Affine registration by Greedy (Yushkevich et al. 2016, github.com/pyushkevich/greedy), normalised mutual information.

It runs in a separate process: its optimiser prints to the process's standard output, which holds results here, and a
crash of compiled code costs one scan.
"""

import importlib.util
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np

from halebrain.core.errors import DataError, UnavailableError
from halebrain.core.leftovers import scratch_folder
from halebrain.core.types import Affine
from halebrain.io.nifti import write_volume
from halebrain.preprocessing.registration.base import REGISTRATION_ENGINES, Brain, template_brain
from halebrain.preprocessing.template import Template

_PACKAGE = "picsl_greedy"
_PROGRAM = f"import sys; from {_PACKAGE} import Greedy3D; Greedy3D().execute(sys.argv[1])"
_ITERATIONS = "60x40x10"
"""At 8, 4 and 2 mm."""
_TIMEOUT_S = 600.0


@REGISTRATION_ENGINES.register("greedy")
def register_by_greedy(brain: Brain, start: Affine, template: Template) -> Affine:
    """Return the template-to-native matrix near `start`."""
    check_installed()
    atlas = template_brain(template)
    with scratch_folder() as folder:
        write_volume(folder / "fixed.nii", atlas.data, atlas.affine)
        write_volume(folder / "moving.nii", brain.image.data, brain.image.affine)
        np.savetxt(folder / "start.mat", start, fmt="%.17g")
        # One thread and no jitter of the sampling points: with either, no two runs are alike.
        line = (
            "-d 3 -a -dof 12 -m NMI -i fixed.nii moving.nii -ia start.mat -o found.mat "
            f"-n {_ITERATIONS} -jitter 0 -threads 1 -V 0"
        )
        _run([sys.executable, "-P", "-c", _PROGRAM, line], folder, brain.image.name)
        matrix: Affine = np.loadtxt(folder / "found.mat", dtype=np.float64)
    return matrix


@lru_cache(maxsize=1)
def is_available() -> bool:
    """Return whether picsl_greedy is installed; nothing is imported."""
    return importlib.util.find_spec(_PACKAGE) is not None


def check_installed() -> None:
    """Raise an `UnavailableError` where picsl_greedy is not installed."""
    if not is_available():
        raise UnavailableError(
            "registration by Greedy needs the package picsl_greedy",
            remedy="pip install picsl_greedy, or use registration: simpleitk",
        )


def _run(arguments: list[str], folder: Path, where: str) -> None:
    reason = ""
    try:
        done = subprocess.run(
            arguments,
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=_TIMEOUT_S,
            check=False,
        )
        if done.returncode == 0 and (folder / "found.mat").is_file():
            return
        said = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        reason = f"exit code {done.returncode}: {said[-1][-160:] if said else 'no message'}"
    except subprocess.TimeoutExpired:
        reason = f"no result after {_TIMEOUT_S:.0f} s"
    raise DataError(
        "a scan must register to the template",
        received=reason,
        where=where,
        remedy="check its orientation and brain mask, or use registration: simpleitk",
    )
