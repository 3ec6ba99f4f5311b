"""The files of a model bundle: their names, what they state, how they are read, checked to the byte, and changed."""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from halebrain.core.config import Config
from halebrain.core.errors import DataError, MissingInputError
from halebrain.core.files import atomic_folder, write_text

FORMAT = 1
WEIGHTS, CONFIG, CARD, MANIFEST = "model.safetensors", "config.yaml", "card.md", "manifest.json"
HEALTHY_MAP = "healthy_map.safetensors"
"""The healthy residual map, which a bundle may lack."""
_HASHED = (WEIGHTS, CONFIG, CARD)
_SEALED = ("format", "files", "versions", "training", "calibration")
_ADDED_KEYS = ("about", "healthy_map")
"""Keys that a manifest may lack, as bundles of earlier versions do."""
_MOST_BYTES, _MOST_TEXT = 16 << 30, 64 << 20
"""No bundle file is larger than this when unpacked."""


class About(Config):
    """What users and distributors of the weights must know; it is stored in the model.

    Args:
        licence: SPDX identifier of the licence of the weights ("CC-BY-4.0").
        citation: How to cite them, one line.
        authors: Who made them.
        data: Training data in words: data sets, with their licences.
        figures: Performance figures, one line each: on which scans, and the command that computes it.
        limits: Known limits by modality, in words; results on such scans carry them as a flag.
    """

    licence: str = Field(min_length=1)
    citation: str = Field(min_length=1)
    authors: tuple[str, ...] = Field(min_length=1)
    data: str = Field(min_length=1)
    figures: tuple[str, ...] = ()
    limits: dict[str, str] = Field(default_factory=dict)


class _Stage(BaseModel):
    """The keys that are read from a training summary; other keys are kept unchanged."""

    train_subjects: list[str] = []
    val_subjects: list[str] = []
    modalities: list[str] = []
    pathologies: list[str] = []
    start: "dict[str, _Stage | str]" = {}


class _Calibration(BaseModel):
    subjects: list[str] = []


class _Stated(BaseModel):
    """What a manifest must hold to be read at all."""

    files: dict[str, str]
    training: dict[str, _Stage]
    calibration: _Calibration


def _read_files(path: Path) -> dict[str, bytes]:
    """Return name → content of every file in a bundle folder or zip, unchecked."""
    if path.is_dir():
        return {file.name: file.read_bytes() for file in sorted(path.iterdir()) if file.is_file()}
    if not path.exists():
        raise MissingInputError("a model must exist", where=path, remedy="give a bundle folder or zip with --model")
    if not zipfile.is_zipfile(path):
        raise DataError(
            "a model must be a bundle folder or a zip of one",
            where=path,
            remedy="halebrain models list shows the known ones",
        )
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(entry) for name, entry in _entries(archive, path).items()}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        raise DataError("a bundle zip must be whole", received=error, where=path, remedy="copy it again") from error


def _entries(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """Return the entries by name, each checked before any is unpacked; they lie at the top, or all in one folder."""
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    if len({entry.filename.rpartition("/")[0] for entry in entries}) > 1:
        raise DataError("the files of a bundle zip must lie in one folder", where=path, remedy="zip the folder again")
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        name = entry.filename.rpartition("/")[2]
        _check_known([name], path)
        limit = _MOST_BYTES if name in (WEIGHTS, HEALTHY_MAP) else _MOST_TEXT
        if entry.compress_size > path.stat().st_size:
            raise DataError(
                "a bundle zip must hold what it lists",
                received=f"'{name}' of {entry.compress_size} bytes in a file of {path.stat().st_size}",
                where=path,
                remedy="it is damaged or incomplete; copy it again",
            )
        if name in found or entry.file_size > limit:
            raise DataError(
                "a bundle zip must hold each file once, with a plausible size",
                received=f"'{name}' twice" if name in found else f"'{name}' of {entry.file_size >> 20} MiB",
                where=path,
                remedy="copy it again",
            )
        found[name] = entry
    return found


def _check_known(names: Iterable[str], path: Path) -> None:
    if unknown := sorted(set(names) - {*_HASHED, HEALTHY_MAP, MANIFEST}):
        raise DataError("a bundle holds known files only", received=unknown[0], where=path, remedy="remove it")


def checked_files(path: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return name → content of a bundle's files, each known and checked against its hash, and the manifest."""
    files = _read_files(path)
    if missing := sorted({*_HASHED, MANIFEST} - set(files)):
        raise DataError("a bundle must be complete", received=f"no {missing[0]}", where=path, remedy="copy it again")
    _check_known(files, path)
    try:
        manifest: dict[str, Any] = json.loads(files[MANIFEST])
        hashes, version = manifest["files"], manifest["format"]
        sealed = {key: manifest[key] for key in (*_SEALED, *(key for key in _ADDED_KEYS if key in manifest))}
        changed = manifest["sha256"] != _content_hash(sealed) or len(manifest) != len(sealed) + 1
        _Stated.model_validate(manifest)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            "a bundle needs a valid manifest.json", received=repr(error), where=path, remedy="copy the bundle again"
        ) from error
    if version != FORMAT:
        raise DataError(
            f"this version reads bundle format {FORMAT}",
            received=version,
            where=path,
            remedy="install the version of HaleBrain that wrote it",
        )
    _check_hashes(files, hashes, changed=changed, path=path)
    return files, manifest


def sealed_text(manifest: dict[str, Any]) -> str:
    """Return the manifest as JSON with a hash of its content, including thresholds and training subjects."""
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    return json.dumps({**content, "sha256": _content_hash(content)}, indent=2) + "\n"


def _content_hash(content: dict[str, Any]) -> str:
    # Through JSON, so that what is hashed is what will be read back.
    text = json.dumps(json.loads(json.dumps(content)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def model_hash(files: dict[str, bytes]) -> str:
    """Return the hash of weights, configuration and healthy map, if there is one, which names the model."""
    return hashlib.sha256(files[WEIGHTS] + files[CONFIG] + files.get(HEALTHY_MAP, b"")).hexdigest()


def _check_hashes(files: dict[str, bytes], hashes: dict[str, str], *, changed: bool, path: Path) -> None:
    if changed:
        raise DataError(
            "a bundle's manifest.json must match its own sha256",
            where=path / MANIFEST,
            remedy="the file was changed or damaged; copy the bundle again",
        )
    if HEALTHY_MAP in hashes and HEALTHY_MAP not in files:
        raise DataError("a bundle must be complete", received=f"no {HEALTHY_MAP}", where=path, remedy="copy it again")
    for name in (*_HASHED, *({HEALTHY_MAP} & {*files})):
        found = hashlib.sha256(files[name]).hexdigest()
        if hashes.get(name) != found:
            raise DataError(
                "a bundle file must match its recorded sha256",
                received=f"{found[:12]}… instead of {str(hashes.get(name))[:12]}…",
                where=path / name,
                remedy="the file was changed or damaged; copy the bundle again",
            )


def copy_bundle(source: Path, path: Path) -> None:
    """Write the files of a bundle folder or zip into a new folder, to the byte."""
    write_files(checked_files(source)[0], path)


def read_card(path: Path) -> str:
    """Return a bundle's card as Markdown, bytes that are no UTF-8 replaced; raises as `checked_files`."""
    return checked_files(path)[0][CARD].decode("utf-8", "replace")


def store_calibration(path: Path, calibration: dict[str, Any]) -> None:
    """Replace the thresholds in the bundle folder at `path`; weights and configuration are not changed."""
    manifest = checked_files(path)[1]
    manifest["calibration"] = calibration
    write_text(path / MANIFEST, sealed_text(manifest))


def store_scoring(
    path: Path,
    calibration: dict[str, Any],
    *,
    config: bytes,
    healthy_map: bytes,
    fitted_on: Mapping[str, object],
    about: About | None,
    card: str,
) -> None:
    """Replace what turns a reconstruction into a score in the bundle folder at `path`: the weights are not changed.

    Args:
        path: The folder.
        calibration: Its thresholds.
        config: Its configuration.
        healthy_map: Its healthy residual map; empty = it has none.
        fitted_on: Contrast → what the manifest states of the scans of the map.
        about: Licence, citation and figures; figures of other scores do not belong there.
        card: Its card.
    """
    files, manifest = checked_files(path)
    files[CONFIG], files[CARD] = config, card.encode()
    if about is not None:
        manifest["about"] = about.model_dump(mode="json")
    if healthy_map:
        files[HEALTHY_MAP], manifest["healthy_map"] = healthy_map, dict(fitted_on)
    manifest["files"] = {name: hashlib.sha256(raw).hexdigest() for name, raw in files.items() if name != MANIFEST}
    manifest["calibration"] = calibration
    files[MANIFEST] = sealed_text(manifest).encode()
    write_files(files, path, overwrite=True)


def name_of(path: Path) -> str:
    """Return the name of a model in a folder or zip: that of the folder around it where it is called "model"."""
    place = path.resolve()
    if place.name == "model":
        return place.parent.name
    return place.name.removesuffix(".zip")


def store_about(path: Path, about: About, *, card: str) -> None:
    """Replace licence, citation and card in the bundle folder at `path`.

    Weights and configuration stay, to the byte.
    """
    if path.is_file():
        raise DataError("a model is described in its folder", where=path, remedy="unpack the zip")
    files, manifest = checked_files(path)
    files[CARD] = card.encode()
    manifest["files"][CARD] = hashlib.sha256(files[CARD]).hexdigest()
    manifest["about"] = about.model_dump(mode="json")
    files[MANIFEST] = sealed_text(manifest).encode()
    write_files(files, path, overwrite=True)


def write_files(files: dict[str, bytes], path: Path, *, overwrite: bool = False) -> None:
    """Write a folder of these files, whole or not at all."""
    with atomic_folder(path, overwrite=overwrite) as folder:
        for name, raw in files.items():
            (folder / name).write_bytes(raw)
