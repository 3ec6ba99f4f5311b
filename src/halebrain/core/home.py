"""HaleBrain's folder on a machine, also for users without a home folder (containers, services)."""

import atexit
import os
import shutil
import sys
from pathlib import Path

from halebrain.core.errors import ConfigError
from halebrain.core.leftovers import new_scratch_folder

VARIABLE = "HALEBRAIN_HOME"
_MATPLOTLIB = "MPLCONFIGDIR"


def user_home() -> Path | None:
    """Return the user's home folder; `None` if it is unknown (no `HOME` and no entry for the user id)."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def named_path(variable: str) -> Path | None:
    """Return the path that an environment variable names; `None` where it names none."""
    named = os.environ.get(variable)
    try:
        return Path(named).expanduser() if named else None
    except RuntimeError as error:
        raise ConfigError(
            "~ '~' needs a home folder", received=named, where=variable, remedy="give the full path of the folder"
        ) from error


def halebrain_home() -> Path | None:
    """Return what `HALEBRAIN_HOME` names, or `~/.halebrain`, which need not exist; `None` where there is no home."""
    home = user_home()
    return named_path(VARIABLE) or (None if home is None else home / ".halebrain")


def is_writable(folder: Path) -> bool:
    """Return whether a folder can be written, or made."""
    for place in (folder, *folder.parents):
        try:
            place.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return False
        return place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    return False


def settle_matplotlib() -> None:
    """Give matplotlib a temporary folder if its own is not writable, child processes too.

    To be called before matplotlib is imported.
    """
    if os.environ.get(_MATPLOTLIB) or all(is_writable(base / "matplotlib") for base in _matplotlib_bases()):
        return
    folder = new_scratch_folder()
    os.environ[_MATPLOTLIB] = str(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)


def _matplotlib_bases() -> list[Path]:
    """Return where matplotlib keeps its settings and its fonts; a path that is not writable without a home folder."""
    home = user_home() or Path("/nonexistent")
    if sys.platform == "darwin":
        return [home]
    return [
        Path(os.environ.get(name) or home / usual)
        for name, usual in (("XDG_CONFIG_HOME", ".config"), ("XDG_CACHE_HOME", ".cache"))
    ]
