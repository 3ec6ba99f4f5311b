"""Running a brain extractor that the user has installed: a separate program, in a temporary folder."""

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from halebrain.core.errors import ConfigError, DataError, UnavailableError
from halebrain.core.leftovers import scratch_folder
from halebrain.core.types import MaskArray, Volume
from halebrain.io.nifti import write_volume
from halebrain.io.volume import read_mask

DEVICE_VARIABLE = "HALEBRAIN_BRAIN_DEVICE"
"""Device of learned extractors: "cpu", "cuda", or "auto" (the default: CUDA if available)."""
_TIMEOUT_S = 3600
_DEVICES = ("auto", "cpu", "cuda")


def run_command(arguments: Sequence[str], *, where: str, environment: Mapping[str, str] | None = None) -> str:
    """Run a program without a shell, an hour at most, and return what it printed; `where` is the scan it is for."""
    name = Path(arguments[0]).name
    try:
        done = subprocess.run(
            list(arguments),
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=_TIMEOUT_S,
            env={**os.environ, **(environment or {})},
            check=False,
        )
    except OSError as error:
        raise UnavailableError(
            f"the program {name} must start",
            received=error.strerror or error,
            where=arguments[0],
            remedy="install it again, or use --brain atlas",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise DataError(
            f"{name} must end within an hour", where=where, remedy="check the scan, or use --brain atlas"
        ) from error
    if done.returncode != 0:
        lines = [line.strip() for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip()]
        said = lines[-1][:300] if lines else "no message"
        raise DataError(
            f"{name} must end without an error",
            received=f"exit code {done.returncode}: {said}",
            where=where,
            remedy="run it on the scan by hand, or give --brain-mask",
        )
    return done.stdout


def mask_by_command(
    arguments: Callable[[Path, Path], Sequence[str]],
    volume: Volume,
    masks: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
) -> MaskArray:
    """Return the mask that a program writes for a scan, from the scan's file and the output folder in its arguments."""
    with scratch_folder() as folder:
        scan, out = folder / "scan.nii.gz", folder / "out"
        write_volume(scan, volume.data, volume.affine)
        out.mkdir()
        line = arguments(scan, out)
        run_command(line, where=volume.name, environment=environment)
        written = [out / name for name in masks if (out / name).is_file()]
        if not written:
            raise DataError(
                f"{Path(line[0]).name} must write a mask",
                received="none, and no error",
                where=volume.name,
                remedy="run it yourself to see why, or use --brain atlas",
            )
        return read_mask(written[0], volume)


def learned_device() -> Literal["cpu", "cuda"]:
    """Return where learned extractors run, by `HALEBRAIN_BRAIN_DEVICE`."""
    wanted = os.environ.get(DEVICE_VARIABLE) or "auto"
    if wanted not in _DEVICES:
        raise ConfigError(
            "the device of brain extractors must be auto, cpu or cuda",
            received=repr(wanted),
            where=DEVICE_VARIABLE,
            remedy="unset it",
        )
    if wanted == "auto":
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"
    return "cuda" if wanted == "cuda" else "cpu"
