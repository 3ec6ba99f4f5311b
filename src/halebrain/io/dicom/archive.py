"""Archives unpacked for reading: files only, under names of our own, so that no member can leave the folder."""

import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from stat import S_ISLNK
from typing import IO

from halebrain.core.errors import DataError

_MAX_BYTES = 32 * 2**30
"""More than this, unpacked, is no scan."""
_ZIP_ENCRYPTED = 0x1
_DAMAGED = (OSError, EOFError, zlib.error, tarfile.TarError, zipfile.BadZipFile, NotImplementedError, ValueError)

Member = tuple[str, bool, int, IO[bytes] | None]
"""Name, whether it is a link or a device, size, and content; `None` for a folder."""


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Give a temporary folder with the files of a `.zip` or `.tar(.gz)`; it is gone when the block ends.

    Raises:
        DataError: The archive is damaged, encrypted or too large, or a member leaves the folder or is a link.
    """
    with tempfile.TemporaryDirectory(prefix="halebrain-") as name:
        folder = Path(name)
        total = 0
        try:
            for number, member in enumerate(_members(path), start=1):
                total += member[2]
                if total > _MAX_BYTES:
                    raise DataError(f"an archive may hold {_MAX_BYTES >> 30} GiB at most", where=path)
                _keep(member, folder / f"{number:07d}", path, number)
        except _DAMAGED as error:
            raise DataError(
                "an archive must be readable",
                received=type(error).__name__,
                where=path,
                remedy="it is damaged or cut off; copy it again",
            ) from None
        yield folder


def _keep(member: Member, target: Path, path: Path, number: int) -> None:
    name, strange, _, content = member
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if strange or ".." in parts or parts[:1] == ("/",) or name[1:2] == ":":
        kind = "a link or a device" if strange else "one that leaves the folder"
        raise DataError(
            "an archive must hold files below its own folder",
            received=f"{kind} (member {number})",
            where=path,
            remedy="unpack it yourself and give the folder",
        )
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    if content is not None and not hidden:
        with content, target.open("wb") as handle:
            shutil.copyfileobj(content, handle)


def _members(path: Path) -> Iterator[Member]:
    if path.name.lower().endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.flag_bits & _ZIP_ENCRYPTED:
                    raise DataError("an archive must not be encrypted", where=path, remedy="unpack it first")
                link = S_ISLNK(info.external_attr >> 16)
                content = None if info.is_dir() or link else archive.open(info)
                yield info.filename, link, info.file_size, content
        return
    with tarfile.open(path) as archive:
        for member in archive:
            plain = member.isfile() or member.isdir()
            yield member.name, not plain, member.size, archive.extractfile(member) if member.isfile() else None
