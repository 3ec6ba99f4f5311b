"""HD-BET (Isensee et al. 2019), run as the user has installed it: the command `hd-bet`, version 1 or 2.

It never downloads weights here: they must lie in `~/hd-bet_params` or in the folder that `HALEBRAIN_HDBET_WEIGHTS`
names, which is checked first, and the run has no way to the network.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from halebrain.core.errors import UnavailableError
from halebrain.core.home import named_path, user_home
from halebrain.core.leftovers import scratch_folder
from halebrain.core.types import Volume
from halebrain.preprocessing.brain.base import BRAIN_EXTRACTORS, BrainMask, plausible_brain
from halebrain.preprocessing.brain.command import learned_device, mask_by_command, run_command
from halebrain.preprocessing.geometry import reorient

COMMAND = "hd-bet"
WEIGHTS_VARIABLE = "HALEBRAIN_HDBET_WEIGHTS"
_NOWHERE = "http://127.0.0.1:9"
_OFFLINE = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), _NOWHERE)
_OFFLINE |= {"no_proxy": "", "NO_PROXY": ""}
_RELEASE = {1: "", 2: "release_2.0.0"}
"""Path of the weights of each version in `~/hd-bet_params`."""
_WEIGHTS = {1: "0.model", 2: "fold_all/checkpoint_final.pth"}
_MASKS = ("brain_bet.nii.gz", "brain_bet_mask.nii.gz", "brain_mask.nii.gz")
"""File name of the mask of `brain.nii.gz` in each version."""


@BRAIN_EXTRACTORS.register("hdbet")
def extract_by_hdbet(volume: Volume) -> BrainMask:
    """Return the brain of a whole head, found by the user's HD-BET.

    HD-BET wants a scan with its axes in the order of the MNI template; it gets one, and the mask is brought back.
    """
    command = shutil.which(COMMAND)
    if command is None:
        raise UnavailableError(
            "HD-BET needs the command hd-bet",
            received="none on PATH",
            remedy="install it (pip install hd-bet), choose another brain extractor, or give --brain-mask",
        )
    version = _version(command)
    weights = _find_weights(version)
    standard, to_original = reorient(volume, "RAS")
    with _home(version, weights) as environment:
        mask = mask_by_command(
            lambda scan, out: [command, *_arguments(version, scan, out / "brain.nii.gz")],
            standard,
            _MASKS,
            environment=environment,
        )
    return plausible_brain(to_original(mask), volume, "hdbet")


def is_available() -> bool:
    """Return whether there is an `hd-bet` on PATH; not whether it has weights."""
    return shutil.which(COMMAND) is not None


@lru_cache(maxsize=8)
def _version(command: str) -> int:
    """Return 1 or 2, by the options that the command says it has."""
    said = run_command([command, "--help"], where=command, environment=_OFFLINE)
    return 2 if "--save_bet_mask" in said else 1


def _arguments(version: int, scan: Path, out: Path) -> list[str]:
    device = learned_device()
    files = ["-i", str(scan), "-o", str(out)]
    if version == 2:
        return [*files, "-device", device, "--disable_tta", "--save_bet_mask", "--no_bet_image"]
    return [*files, "-device", "cpu" if device == "cpu" else "0", "-mode", "fast", "-tta", "0", "-s", "1"]


def _find_weights(version: int) -> Path:
    """Return the folder that holds the weights of a version: `fold_all` of version 2, `0.model` of version 1."""
    root = named_path(WEIGHTS_VARIABLE) or (user_home() or Path("~")) / "hd-bet_params"
    for folder in (root / _RELEASE[version], root):
        if os.access(folder / _WEIGHTS[version], os.R_OK):
            return folder.absolute()
    raise UnavailableError(
        f"HD-BET {version} needs its weights on this machine",
        received=f"no {_WEIGHTS[version]}",
        where=root,
        remedy=f"put them there, or name their folder in {WEIGHTS_VARIABLE}; they are not downloaded",
    )


@contextmanager
def _home(version: int, weights: Path) -> Iterator[dict[str, str]]:
    """Give the variables under which HD-BET, which looks in `~/hd-bet_params` only, finds `weights`."""
    own = user_home()
    if own is not None and (own / "hd-bet_params" / _RELEASE[version]).absolute() == weights:
        yield dict(_OFFLINE)
        return
    with scratch_folder() as home:
        link = home / "hd-bet_params" / _RELEASE[version]
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(weights, target_is_directory=True)
        # Packages that pip put into the user's own folder are found by HOME too.
        packages = os.environ.get("PYTHONUSERBASE") or (None if own is None else str(own / ".local"))
        yield {**_OFFLINE, "HOME": str(home)} | ({} if packages is None else {"PYTHONUSERBASE": packages})
