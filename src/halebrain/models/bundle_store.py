"""Read and change a bundle on disk without building its networks: card, thresholds, licence, copies."""

import hashlib
from pathlib import Path
from typing import Any

from halebrain.core.errors import DataError
from halebrain.core.files import atomic_folder, write_text
from halebrain.models.about import About
from halebrain.models.bundle_files import CARD, MANIFEST, checked_manifest, read_files, sealed_text


def bundle_files(path: Path) -> dict[str, bytes]:
    """Return name → content of a bundle's files, each checked against its hash.

    Raises:
        MissingInputError: There is nothing at `path`.
        DataError: A file is missing, unknown or changed.
    """
    files = read_files(path)
    checked_manifest(files, path)
    return files


def copy_bundle(source: Path, path: Path) -> None:
    """Write the files of a bundle folder or zip into a new folder, to the byte.

    Raises:
        CannotWriteError: The folder exists, or cannot be written.
        MissingInputError, DataError: As `bundle_files`.
    """
    files = bundle_files(source)
    _write_files(files, path)


def read_card(path: Path) -> str:
    """Return a bundle's card as Markdown, bytes that are no UTF-8 replaced; raises as `bundle_files`."""
    return bundle_files(path)[CARD].decode("utf-8", "replace")


def store_calibration(path: Path, calibration: dict[str, Any]) -> None:
    """Replace the thresholds in the bundle folder at `path`; weights and configuration are not changed."""
    manifest = checked_manifest(read_files(path), path)
    manifest["calibration"] = calibration
    write_text(path / MANIFEST, sealed_text(manifest))


def store_about(path: Path, about: About, *, card: str) -> None:
    """Replace licence, citation and card in the bundle folder at `path`; weights and configuration stay, to the byte.

    Raises:
        DataError: The bundle is damaged, or no folder.
        CannotWriteError: It cannot be written.
    """
    if path.is_file():
        raise DataError("a model is described in its folder", where=path, remedy="unpack the zip")
    files = read_files(path)
    manifest = checked_manifest(files, path)
    files[CARD] = card.encode()
    manifest["files"][CARD] = hashlib.sha256(files[CARD]).hexdigest()
    manifest["about"] = about.model_dump(mode="json")
    files[MANIFEST] = sealed_text(manifest).encode()
    _write_files(files, path, overwrite=True)


def _write_files(files: dict[str, bytes], path: Path, *, overwrite: bool = False) -> None:
    with atomic_folder(path, overwrite=overwrite) as folder:
        for name, raw in files.items():
            (folder / name).write_bytes(raw)
