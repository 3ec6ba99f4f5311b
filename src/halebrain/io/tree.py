"""The files below a folder, listed once; unreadable files and links are kept with a reason."""

import bisect
import itertools
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from halebrain.core.errors import DataError, HalebrainError
from halebrain.core.wording import counted, printable
from halebrain.io.files import check_link, is_hidden
from halebrain.io.formats.hdr_img import has_header, is_hdr_img
from halebrain.io.volume import SUFFIXES

NIFTI = r"(?i:\.nii(?:\.gz)?)"
"""The ending of a NIfTI file as a regular expression, whatever its case."""


_FOREIGN = (
    *(".nrrd", ".nhdr", ".mha", ".mhd", ".mnc", ".mnc.gz", ".brik", ".brik.gz", ".par"),
    *(".nii.bz2", ".nii.xz", ".nii.zst"),
)
"""Endings of images in formats that are not read."""


class LeftOut(NamedTuple):
    """An image, or a link to a folder, that is not used: its relative path, and why, in words that fit any number."""

    name: str
    reason: str


class FileTree:
    """Every file below `root`, by its path relative to it with forward slashes.

    Hidden files (`._scan.nii.gz`, which macOS leaves beside each file of an archive) are passed over. A link is taken
    where it ends at a file below `root` (git-annex); links to folders are not followed.

    Args:
        root: An existing folder.
        walk: Whether to list it; a source whose files are named by a table need not.

    Attributes:
        root: As given.
        names: All files, sorted; those in `broken` too.
        broken: Name → error of each file that must not or cannot be read: a link that leads out of `root` or nowhere,
            or a name that is no UTF-8. It is the scan that it belongs to that fails.
        left_out: Links to folders, and images in formats that are not read.
    """

    def __init__(self, root: Path, *, walk: bool = True) -> None:
        self.root = root
        self.broken: dict[str, HalebrainError] = {}
        self.left_out: list[LeftOut] = []
        names: list[str] = []
        for folder, folders, files in os.walk(root) if walk else ():
            folders[:] = sorted(name for name in folders if self._enters(Path(folder) / name))
            names += [name for file in files if (name := self._taken(Path(folder) / file))]
        self.names: tuple[str, ...] = tuple(sorted(names))
        reason = "in a format that is not read: convert to NIfTI"
        self.left_out += [LeftOut(name, reason) for name in self.names if name.lower().endswith(_FOREIGN)]
        self._folded = {name.lower(): name for name in names} | {name: name for name in names}

    def match(self, pattern: str, *, prefix: str | None = None) -> Iterator[tuple[Path, re.Match[str]]]:
        """Yield each file whose relative path ends in `pattern`, a regular expression from a folder or file name on.

        With `prefix`, "" too, it must fit the whole relative path, and only files whose path begins with it are tested.
        """
        compiled = re.compile(rf"(?:.*/)?{pattern}" if prefix is None else pattern, re.DOTALL)
        first = bisect.bisect_left(self.names, prefix or "")
        for name in itertools.takewhile(
            lambda n: n.startswith(prefix or ""), itertools.islice(self.names, first, None)
        ):
            found = compiled.fullmatch(name)
            if found:
                yield self.root / name, found

    def images(self) -> Iterator[str]:
        """Yield the relative path of each file whose ending is that of a scan, whatever its case.

        A pair is known by its header; an image without its header is included, so that reading it reports the problem.
        """
        for name in self.names:
            path = self.root / name
            if name.lower().endswith(SUFFIXES) or (is_hdr_img(path) and not has_header(path)):
                yield name

    def has(self, path: Path) -> bool:
        """Return whether `path`, below `root`, is a file that is there."""
        return self.first(path) == path

    def first(self, *candidates: Path) -> Path | None:
        """Return the first of `candidates` that is there, else the first that is there in another case."""
        inside = [self.relative(path) for path in candidates if path.is_relative_to(self.root)]
        for name in (*inside, *map(str.lower, inside)):
            if name in self._folded:
                return self.root / self._folded[name]
        return None

    def image(self, stem: Path, *, ending: str = ".nii.gz") -> Path | None:
        """Return the image at `stem`, which has no ending: with `ending` where it is there, else with another one."""
        return self.first(*(stem.with_name(f"{stem.name}{end}") for end in (ending, ".nii.gz", ".nii")))

    def relative(self, path: Path) -> str:
        """Return `path` relative to `root`, for messages."""
        return path.relative_to(self.root).as_posix()

    def _enters(self, path: Path) -> bool:
        if is_hidden(path.name):
            return False
        if path.is_symlink():
            reason = "links to folders, which are not followed: give those folders themselves"
            self.left_out.append(LeftOut(self.relative(path), reason))
            return False
        return True

    def _taken(self, path: Path) -> str | None:
        """Return the name of a file, and note what keeps it from being read; `None` for what is no file."""
        name = self.relative(path)
        if is_hidden(path.name) or not (path.is_symlink() or path.is_file()):
            return None
        try:
            check_name(path)
            if path.is_symlink():
                check_link(path, self.root)
        except HalebrainError as error:
            self.broken[name] = error
        return name


def check_name(path: Path) -> None:
    """Refuse a file whose name is no UTF-8: it could not be written into a table or a page."""
    if any("\ud800" <= letter <= "\udfff" for letter in path.as_posix()):
        raise DataError("a file name must be UTF-8", where=path, remedy="rename it")


def summed_left_out(left_out: Iterable[LeftOut]) -> str:
    """Return one line that counts what is left out by reason and names the first of each; "" where there is nothing.

    Example:
        >>> summed_left_out([LeftOut("a_mask.nii", "named as masks"), LeftOut("b_mask.nii", "named as masks")])
        '2 images are left out: named as masks (first a_mask.nii)'
    """
    groups = grouped_left_out(left_out)
    total = sum(len(names) for names in groups.values())
    if not total:
        return ""
    each = [
        f"{f'{len(names)} ' if len(groups) > 1 else ''}{reason} ({'first ' if len(names) > 1 else ''}{names[0]})"
        for reason, names in groups.items()
    ]
    return f"{counted(total, 'image')} {'is' if total == 1 else 'are'} left out: {'; '.join(each)}"


def grouped_left_out(left_out: Iterable[LeftOut]) -> dict[str, list[str]]:
    """Return reason → names that can be printed, the most frequent reason first."""
    groups: dict[str, list[str]] = {}
    for name, reason in left_out:
        groups.setdefault(reason, []).append(one_line(name))
    return dict(sorted(groups.items(), key=lambda group: -len(group[1])))


def one_line(text: str) -> str:
    """Return `text` so that it can be printed in one line, whatever the names in it hold."""
    return printable(text).replace("\n", "\\n").replace("\r", "\\r")


def label(name: str) -> str:
    """Return `name` as a BIDS label: letters and digits only.

    Example:
        >>> label("BraTS2021_00000")
        'BraTS202100000'
    """
    return "".join(letter for letter in name if letter.isalnum())
