"""Whether the scans of a benchmark are still those that its results were made from.

The hash of a cell knows scans by their names, so that a data set can be moved. What their files hold is kept beside the
results and compared at every further run.
"""

import json
from pathlib import Path

from halebrain.core.errors import DataError
from halebrain.core.files import file_lock, write_text
from halebrain.core.progress import track
from halebrain.io.checksum import scan_sha256
from halebrain.io.manifest import Manifest

CONTENTS = "contents"
"""Folder with one file for each fold: name of a scan → kind of file → its sha256."""
_Hashes = dict[str, dict[str, str]]


def check_contents(output: Path, fold: int, manifest: Manifest) -> None:
    """Remember what the files of a fold's scans hold; files that are not there are left to the cells that need them.

    Raises:
        DataError: A file of a scan that an earlier run knew holds something else now.
    """
    path = output / CONTENTS / f"fold{fold}.json"
    records = track(manifest.records, description=f"Checking scans of fold {fold}", total=len(manifest.records))
    now = {
        record.scan_id: {kind: scan_sha256(path) for kind, path in record.files.items() if path.exists()}
        for record in records
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(path):
        before: _Hashes = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        by_name = {record.scan_id: record for record in manifest.records}
        changed = [
            (by_name[name], kind)
            for name in sorted(now.keys() & before.keys())
            for kind, sha256 in now[name].items()
            if sha256 != before[name].get(kind, sha256)
        ]
        if changed:
            record, kind = changed[0]
            raise DataError(
                "the scans of a benchmark must not change",
                received=f"{len(changed)} changed, the first the {kind.replace('_', ' ')} of {record.scan_id}",
                where=getattr(record, kind),
                remedy="begin the benchmark again with another --output, or bring the former files back",
            )
        known = {name: before.get(name, {}) | own for name, own in now.items()}
        if before | known != before:
            write_text(path, json.dumps(before | known, indent=1, sort_keys=True) + "\n")
