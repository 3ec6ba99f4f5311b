"""Selection of one of several series: `PATH#NUMBER`."""

import os
from pathlib import Path


def split_selection(path: Path) -> tuple[Path, str | None]:
    """Return the place on disk and the series chosen in it, where one is.

    A path that exists as it stands is never split.

    Example:
        >>> split_selection(Path("export#4"))
        (PosixPath('export'), '4')
    """
    # Unlike `Path.exists`, this is silent about a name that no file can have.
    if os.path.lexists(path) or "#" not in path.name:
        return path, None
    name, _, series = path.name.rpartition("#")
    return (path.with_name(name), series.strip()) if name and series.strip() else (path, None)
