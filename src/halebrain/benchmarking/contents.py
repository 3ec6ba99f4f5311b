"""Whether scans and weights of a benchmark are still those that its results were made from.

The hash of a cell knows scans by their names, so that a data set can be moved, and files of weights by their paths.
What these hold is kept beside the results and compared at every further run.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from halebrain.core.errors import DataError
from halebrain.core.files import file_lock, write_text
from halebrain.core.progress import track
from halebrain.io.checksum import file_sha256, json_sha256, scan_sha256
from halebrain.io.manifest import Manifest

CONTENTS = "contents"
"""Folder with one file for each fold: name of a scan → kind of file → its sha256, null where it was not there."""
_WEIGHTS = "weights.json"
"""File beside these: path in the settings of a training → its sha256."""
_Hashes = dict[str, dict[str, str | None]]


def check_contents(output: Path, fold: int, manifest: Manifest) -> None:
    """Remember what the files of a fold's scans hold; files that are not there are left to the cells that need them.

    Raises:
        DataError: A file of a scan that an earlier run knew holds something else now, or the table names a mask that it
            did not name before, or names one no more.
    """
    path = output / CONTENTS / f"fold{fold}.json"
    records = track(manifest.records, description=f"Checking scans of fold {fold}", total=len(manifest.records))
    now: _Hashes = {
        record.scan_id: {kind: scan_sha256(path) if path.exists() else None for kind, path in record.files.items()}
        for record in records
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(path):
        before: _Hashes = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        by_name = {record.scan_id: record for record in manifest.records}
        changed = [
            (by_name[name], kind)
            for name in sorted(now.keys() & before.keys())
            for kind in sorted(now[name].keys() | before[name].keys())
            if _is_changed(kind, before[name], now[name])
        ]
        if changed:
            record, kind = changed[0]
            raise DataError(
                "the scans of a benchmark must not change",
                received=f"{len(changed)} changed, the first the {kind.replace('_', ' ')} of {record.scan_id}",
                where=getattr(record, kind) or manifest.where,
                remedy="begin the benchmark again with another --output, or bring the former files back",
            )
        known = {
            name: {kind: sha256 or before.get(name, {}).get(kind) for kind, sha256 in own.items()}
            for name, own in now.items()
        }
        if before | known != before:
            write_text(path, json.dumps(before | known, indent=1, sort_keys=True) + "\n")


def check_weights(output: Path, files: Iterable[Path]) -> None:
    """Remember what the weights hold that trainings start from; those that are not there are left to the cells.

    Raises:
        DataError: One that an earlier run knew holds something else now.
    """
    now = {str(path): _sha256_of(path) for path in sorted(set(files)) if path.exists()}
    path = output / CONTENTS / _WEIGHTS
    if not now:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(path):
        before: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        for name, sha256 in now.items():
            if before.get(name, sha256) != sha256:
                raise DataError(
                    "the weights that a benchmark starts from must not change",
                    received="other content than in an earlier run",
                    where=name,
                    remedy="give the new ones another path, or bring the former back",
                )
        if before | now != before:
            write_text(path, json.dumps(before | now, indent=1, sort_keys=True) + "\n")


def _sha256_of(path: Path) -> str:
    """Return the hash of a file, or of all files of a model's folder."""
    if path.is_file():
        return file_sha256(path)
    inside = sorted(file for file in path.rglob("*") if file.is_file())
    return json_sha256([[file.relative_to(path).as_posix(), file_sha256(file)] for file in inside])


def _is_changed(kind: str, before: dict[str, str | None], now: dict[str, str | None]) -> bool:
    """Return whether a file of a scan holds something else, or is named in one of the tables only."""
    if kind in before and kind in now:  # a file that is not there is named all the same
        return None not in (before[kind], now[kind]) and before[kind] != now[kind]
    return (before if kind in before else now)[kind] is not None
