"""Archives unpacked for reading: files only, under new names, so that no member can leave the folder."""

import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from stat import S_ISLNK
from typing import IO

from halebrain.core.errors import DataError
from halebrain.core.leftovers import scratch_folder

_MAX_BYTES = 32 * 2**30
"""A scan is never larger than this when unpacked."""
_ZIP_ENCRYPTED = 0x1
_DAMAGED = (OSError, EOFError, zlib.error, tarfile.TarError, zipfile.BadZipFile, NotImplementedError, ValueError)

Member = tuple[str, bool, int, Callable[[], IO[bytes] | None] | None]
"""Name, whether it is a link or a device, size, and what opens it; `None` for all but files."""


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Give a temporary folder with the files of a `.zip` or `.tar(.gz)`; it is gone when the block ends.

    A `DataError` where it is damaged, encrypted or too large, or a member leaves the folder or is a link.
    """
    with scratch_folder() as folder:
        try:
            with closing(_members(path)) as members:
                _unpack(members, folder, path)
        except _DAMAGED as error:
            raise DataError(
                "an archive must be readable",
                received=type(error).__name__,
                where=path,
                remedy="it is damaged or incomplete; copy it again",
            ) from None
        yield folder


def _unpack(members: Iterator[Member], folder: Path, path: Path) -> None:
    total = 0
    for number, member in enumerate(members, start=1):
        total += member[2]
        if total > _MAX_BYTES:
            raise DataError(
                f"an archive may hold {_MAX_BYTES >> 30} GiB at most",
                where=path,
                remedy="unpack it yourself and give the folder of one series",
            )
        _keep(member, folder / f"{number:07d}", path, number)


def _keep(member: Member, target: Path, path: Path, number: int) -> None:
    name, strange, _, opened = member
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if strange or ".." in parts or parts[:1] == ("/",) or name[1:2] == ":":
        kind = "a link or a device" if strange else "a path outside the folder"
        raise DataError(
            "an archive must hold files below its own folder",
            received=f"{kind} (member {number})",
            where=path,
            remedy="unpack it yourself and give the folder",
        )
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    content = None if opened is None or hidden else opened()
    if content is not None:
        with content, target.open("wb") as handle:
            shutil.copyfileobj(content, handle)


def _members(path: Path) -> Generator[Member, None, None]:
    if path.name.lower().endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.flag_bits & _ZIP_ENCRYPTED:
                    raise DataError("an archive must not be encrypted", where=path, remedy="unpack it first")
                link = S_ISLNK(info.external_attr >> 16)
                yield info.filename, link, info.file_size, None if info.is_dir() else partial(archive.open, info)
        return
    with tarfile.open(path) as archive:
        for member in archive:
            plain = member.isfile() or member.isdir()
            opened = partial(archive.extractfile, member) if member.isfile() else None
            yield member.name, not plain, member.size, opened
