"""Model bundles: zips with damaged or hostile entries, and whole ones whose content says something else."""

import functools
import hashlib
import json
import struct
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import yaml

from fuzzing import model
from fuzzing.base import Attempt, command, kind, variable
from fuzzing.damage import bytes_of, changed, spoil_value

_CONFIG, _WEIGHTS, _MANIFEST, _CARD = "config.yaml", "model.safetensors", "manifest.json", "card.md"
_NAMES = (
    "../config.yaml",
    "/config.yaml",
    "a/../../card.md",
    "C:\\card.md",
    "model/config.yaml",
    ".hidden",
    "__MACOSX/._x",
)


@kind("bundle", weight=14)
def bundle(random: Random, folder: Path) -> Attempt:
    """Write a zip or a folder, and load, list, import, verify or describe it."""
    files = dict(model.files())
    about = _spoil_content(files, random) if random.random() < 0.65 else "whole"
    path = folder / "m"
    if about != "whole" and random.random() < 0.4:
        path.mkdir()
        for name, raw in files.items():
            (path / name).write_bytes(raw)
    else:
        path = folder / "m.zip"
        about = f"{about}, {_zipped(files, path, random)}"
    how = random.choice(("load", "load", "load", "import", "verify", "info", "list"))
    return Attempt(f"{how}: {about}", functools.partial(_use, path, how, folder / "home"))


def _spoil_content(files: dict[str, bytes], random: Random) -> str:
    """Change what a bundle says, and seal it again, as one from elsewhere would be."""
    manifest = json.loads(files[_MANIFEST])
    match random.randrange(6):
        case 0 | 1:
            done, config = spoil_value(yaml.safe_load(files[_CONFIG]), random)
            files[_CONFIG] = yaml.safe_dump(config).encode()
            about = f"config: {done}"
        case 2 | 3:
            del manifest["sha256"]
            done, manifest = spoil_value(manifest, random)
            about = f"manifest: {done}"
        case 4:
            about = _spoil_weights(files, random)
        case _:
            name = random.choice((_CONFIG, _CARD, _MANIFEST))
            done, files[name] = changed(files[name], random)
            about = f"{name}: {done}"
            if name == _MANIFEST:
                return about
    _seal(files, manifest, random)
    return about


def _seal(files: dict[str, bytes], manifest: Any, random: Random) -> None:
    from halebrain.models.bundle_files import sealed_text

    if isinstance(manifest, dict) and isinstance(manifest.get("files"), dict):
        for name in (_CONFIG, _WEIGHTS, _CARD):
            if name in manifest["files"]:
                manifest["files"][name] = hashlib.sha256(files[name]).hexdigest()
    try:
        files[_MANIFEST] = sealed_text(manifest).encode()
    except (AttributeError, TypeError, ValueError):  # what it is now has no seal
        files[_MANIFEST] = json.dumps(manifest).encode()


def _spoil_weights(files: dict[str, bytes], random: Random) -> str:
    raw = files[_WEIGHTS]
    size = struct.unpack("<Q", raw[:8])[0]
    header, body = json.loads(raw[8 : 8 + size]), raw[8 + size :]
    name = random.choice(sorted(key for key in header if key != "__metadata__"))
    match random.randrange(6):
        case 0:
            shape = header[name]["shape"]
            header[name]["shape"] = random.choice((shape[::-1], [1, *shape], [2**40], [-1], [], [0], None))
            about = f"{name} of shape {header[name]['shape']}"
        case 1:
            header[name]["dtype"] = random.choice(("F16", "BF16", "I64", "BOOL", "F8", ""))
            about = f"{name} of type {header[name]['dtype']}"
        case 2:
            header[name]["data_offsets"] = random.choice(([0, 2**60], [5, 2], [-4, 0], [], None))
            about = f"{name} at {header[name]['data_offsets']}"
        case 3:
            header[name + "x"] = header.pop(name)
            about = f"{name} by another name"
        case 4:
            low, high = header[name]["data_offsets"]
            wrong = random.choice((float("nan"), float("inf"), 1e38))
            body = body[:low] + struct.pack("<f", wrong) * ((high - low) // 4) + body[high:]
            about = f"{name} = {wrong}"
        case _:
            about, files[_WEIGHTS] = changed(raw, random)
            return f"weights {about}"
    text = json.dumps(header).encode()
    files[_WEIGHTS] = struct.pack("<Q", len(text)) + text + body
    return about


def _zipped(files: dict[str, bytes], path: Path, random: Random) -> str:
    """Write a zip, damaged or not."""
    how = random.randrange(9)
    names = {name: name for name in files}
    extra: dict[str, bytes] = {}
    about = "zip"
    match how:
        case 0:
            victim, wrong = random.choice(sorted(files)), random.choice(_NAMES)
            names[victim] = wrong
            about = f"{victim} as {wrong}"
        case 1:
            extra[random.choice((*_NAMES, "config.yaml", "run.py", "a\x1b[31m", "ü" * 200, "d/"))] = b"x"
            about = f"{next(iter(extra))!r} beside"
        case 2:
            size = random.choice((1, 8, 100))
            extra[random.choice(("zeros", _CARD, "a/" + _WEIGHTS))] = bytes(size << 20)
            about = f"{size} MiB of zeros"
        case 3:
            names = {name: f"model/{name}" for name in files}
            about = "in a folder"

    def write(stream: Any) -> None:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, raw in [*((names[name], raw) for name, raw in files.items()), *extra.items()]:
                entry = zipfile.ZipInfo(name)
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, raw)

    raw = bytes_of(write)
    if how in (4, 5):
        about, raw = changed(raw, random)
    elif how == 6:
        about, raw = _spoil_entry(raw, random)
    path.write_bytes(raw)
    return about


def _spoil_entry(raw: bytes, random: Random) -> tuple[str, bytes]:
    """Change one field of an entry of the central directory."""
    data = bytearray(raw)
    places = [n for n in range(len(raw) - 4) if raw[n : n + 4] == b"PK\1\2"]
    place = random.choice(places)
    offset, size, name = random.choice(
        ((8, 2, "flags"), (10, 2, "method"), (20, 4, "packed size"), (24, 4, "size"), (16, 4, "crc"), (42, 4, "offset"))
    )
    wrong = random.choice((0, 1, 99, 2**16 - 1, 2**31, 2**32 - 1)) & (2 ** (8 * size) - 1)
    data[place + offset : place + offset + size] = wrong.to_bytes(size, "little")
    return f"{name} = {wrong}", bytes(data)


def _use(path: Path, how: str, home: Path) -> None:
    with variable("HALEBRAIN_HOME", home):
        match how:
            case "load":
                _load(path)
            case "import":
                command("models", "import", path, "--name", "x")
            case "list":
                from halebrain.models.store import export_model

                export_model(path, home / "models" / "x.zip")
                command("models", "list")
            case _:
                command("models", how, path)


def _load(path: Path) -> None:
    """Do what `detect` does with a model before it opens a scan."""
    from halebrain.inference.predictor import Predictor
    from halebrain.models.bundle import load_bundle
    from halebrain.thresholds.calibration import read_calibration
    from halebrain.thresholds.choose import ThresholdSelector

    found = load_bundle(path)
    ThresholdSelector(read_calibration(found), "auto")
    json.dumps(Predictor(found).provenance().to_json())
    found.seen_subjects("train_subjects", "val_subjects")
