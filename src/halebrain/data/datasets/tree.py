"""The files below a folder, listed once; links that lead out of it or nowhere are named and not followed."""

import bisect
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path

from halebrain.io.nifti import SUFFIXES


class FileTree:
    """Every file below `root`, by its path relative to it with forward slashes.

    Hidden files (`._scan.nii.gz`, which macOS leaves beside each file of an archive) are passed over. A link is taken
    where it ends at a file below `root` (git-annex); links to folders are not followed.

    Args:
        root: An existing folder.
        walk: Whether to list it; a source whose files are named by a table need not.

    Attributes:
        root: As given.
        problems: What and why, a pair for each file that cannot be used.
    """

    def __init__(self, root: Path, *, walk: bool = True) -> None:
        self.root = root
        self.problems: list[tuple[str, str]] = []
        self._inside = root.resolve()
        self._names: set[str] = set()
        for folder, folders, files in os.walk(root) if walk else ():
            folders[:] = sorted(name for name in folders if self._enters(Path(folder) / name))
            for name in sorted(files):
                self._take(Path(folder) / name)
        self.names: tuple[str, ...] = tuple(sorted(self._names))

    def match(self, pattern: str, *, prefix: str | None = None) -> Iterator[tuple[Path, re.Match[str]]]:
        """Yield each file whose relative path ends in `pattern`, a regular expression from a folder or file name on.

        With `prefix`, "" too, it must fit the whole relative path, and only files whose path begins so are looked at.
        """
        compiled = re.compile(rf"(?:.*/)?{pattern}" if prefix is None else pattern, re.DOTALL)
        first = bisect.bisect_left(self.names, prefix or "")
        for name in itertools.takewhile(
            lambda n: n.startswith(prefix or ""), itertools.islice(self.names, first, None)
        ):
            found = compiled.fullmatch(name)
            if found:
                yield self.root / name, found

    def scans(self) -> Iterator[str]:
        """Yield the relative path of each NIfTI file."""
        return (name for name in self.names if name.endswith(SUFFIXES))

    def has(self, path: Path) -> bool:
        """Return whether `path`, below `root`, is a file that can be used."""
        return path.is_relative_to(self.root) and path.relative_to(self.root).as_posix() in self._names

    def first(self, *candidates: Path) -> Path | None:
        """Return the first of `candidates` that is there."""
        return next((path for path in candidates if self.has(path)), None)

    def relative(self, path: Path) -> str:
        """Return `path` relative to `root`, for messages."""
        return path.relative_to(self.root).as_posix()

    def _enters(self, path: Path) -> bool:
        if path.name.startswith(".") or path.name == "__MACOSX":
            return False
        if path.is_symlink():
            self._refuse(path, "a link to a folder, which is not followed; give that folder itself")
            return False
        return True

    def _take(self, path: Path) -> None:
        if path.name.startswith("."):
            return
        if path.is_symlink():
            # A loop of links counts as one that leads nowhere.
            end = Path(os.path.realpath(path))
            if not end.is_file():
                self._refuse(path, "a link that leads nowhere; fetch or copy the file")
                return
            if not end.is_relative_to(self._inside):
                self._refuse(path, "a link out of the data set, which is not followed; copy the file")
                return
        if not path.is_file():
            return
        name = self.relative(path)
        if any("\ud800" <= letter <= "\udfff" for letter in name):
            self._refuse(path, "a name that is no UTF-8; rename the file")
            return
        self._names.add(name)

    def _refuse(self, path: Path, reason: str) -> None:
        self.problems.append((printable(self.relative(path)), reason))


def label(name: str) -> str:
    """Return `name` as a BIDS label: letters and digits only.

    Example:
        >>> label("BraTS2021_00000")
        'BraTS202100000'
    """
    return "".join(letter for letter in name if letter.isalnum())


def printable(name: str) -> str:
    """Return `name` with every byte that is no UTF-8 spelt out in hexadecimal, so that it can be printed."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
