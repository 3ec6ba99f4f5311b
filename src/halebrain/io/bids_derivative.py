"""Derivative data sets that HaleBrain writes: allowed places, description files, and the table of participants."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import halebrain
from halebrain.core.about import NOTICE
from halebrain.core.errors import CannotWriteError, DataError, UsageError
from halebrain.core.files import write_text
from halebrain.io.tables import MISSING, read_table

NAME = "halebrain"
"""Our name in `GeneratedBy`; the folder of a derivative within its raw data must hold it."""
BIDS_VERSION = "1.10.0"
RESULTS = "Anomalies in brain MRI, by HaleBrain"
PREPARED = "Scans prepared by HaleBrain"
COHORT = "HaleBrain virtual cohort"
"""Names of the three kinds of data sets that are made here."""
DESCRIPTION = "dataset_description.json"
_DERIVATIVES = "derivatives"
_IGNORE = ".bidsignore"
_IGNORED = """logs/
*.html
figures
failed.tsv
group_anomaly.*
**/*_lesions.*
**/*_findings.*
**/*_review.tsv
**/*_provenance.json
**/*_mosaic.png
**/*_thumbnail.jpg
**/*_display.npz
**/*_seg.dcm
"""
"""Files that BIDS has no name for."""
_README = f"""# Anomalies in brain MRI, by HaleBrain

Results are of exams (all scans of a participant and session, `desc-exam`) or of scans alone (`desc-anomaly`).

An exam has, in the folder of its scans, one table of findings (`desc-exam_findings.tsv`), one page with a viewer, and a
JSON with the provenance (`desc-exam_provenance.json`). On the grid of each of its scans it has a score
(`desc-exam_probseg`) and a mask (`desc-exam_mask`), beside the score of that scan alone (`desc-anomaly_probseg`), a
brain mask, a pseudo-healthy reconstruction and a signed residual.

A scan alone has, in the same folder and on the same grid, an anomaly score (`desc-anomaly_probseg`), an
anomaly mask (`desc-anomaly_mask`), a brain mask, a pseudo-healthy reconstruction, a signed residual, the uncertainty,
a table of findings (`desc-anomaly_lesions.tsv`), a page with a viewer, the scan as the page shows it
(`desc-anomaly_display.npz`), pictures, and a JSON with the provenance (`desc-anomaly_provenance.json`). `rec` names the
contrast that a mask or a score belongs to.

`index.html` is the page of all results. `participants.tsv` holds age, sex, handedness and group from the raw data.
`group_anomaly.tsv`, if present, has one row for each exam or scan; `logs` holds the errors of those that
failed.

{NOTICE}
"""
PARTICIPANTS = "participants.tsv"
_log = logging.getLogger(__name__)
_ID = "participant_id"
_NOT_TAKEN = "age, sex, handedness and group are not copied"
_KEPT = (_ID, "age", "sex", "handedness", "group")
"""Columns that are copied. Others may identify a person, and derivatives are made to be shared."""


def begin_derivative(output: Path, raw: Path) -> None:
    """Make `output` a BIDS derivative of `raw`: its description, its README and its `.bidsignore`.

    Raises:
        UsageError: It would lie where raw data are.
        CannotWriteError: There is another data set, or the folder cannot be written.
    """
    check_place(output, raw)
    _check_owner(output)
    files = {
        DESCRIPTION: json.dumps(_description(output, raw), indent=2) + "\n",
        _IGNORE: _IGNORED,
        "README.md": _README,
    }
    for name, text in files.items():
        path = output / name
        # Jobs of several participants share a folder; what is there already need not be written again.
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)


def update_ignored(folder: Path) -> None:
    """Write the `.bidsignore` of an earlier version again, where `folder` lies in a derivative of ours."""
    root = next((each for each in (folder, *folder.resolve().parents) if (each / DESCRIPTION).is_file()), None)
    if root is not None and _holds_results(root):
        write_text(root / _IGNORE, _IGNORED)


def check_place(output: Path, raw: Path) -> None:
    """Refuse an output folder among raw data; only `derivatives/NAME` is free for others there."""
    inner, outer = output.resolve(), raw.resolve()
    if not inner.is_relative_to(outer):
        return
    parts = inner.relative_to(outer).parts
    remedy = f"use {raw / _DERIVATIVES / NAME}"
    if len(parts) < 2 or parts[0] != _DERIVATIVES:
        raise UsageError("results must not be written into the raw data", where=output, remedy=remedy)
    if NAME not in parts[1]:
        raise UsageError(
            f"a derivative within its raw data must have '{NAME}' in the name of its folder",
            received=repr(parts[1]),
            remedy=remedy,
        )


def read_description(dataset: Path) -> dict[str, Any]:
    """Return the description of a data set; empty without one."""
    path = dataset / DESCRIPTION
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise DataError(
            "a data set's description must be JSON",
            received=error,
            where=path,
            remedy='fix it, for example {"Name": "…", "BIDSVersion": "1.10.0"}',
        ) from error
    if not isinstance(found, dict):
        raise DataError(
            "a data set's description must be a JSON object",
            where=path,
            remedy='fix it, for example {"Name": "…", "BIDSVersion": "1.10.0"}',
        )
    return found


def _check_owner(output: Path) -> None:
    if not (output / DESCRIPTION).exists():
        return
    if not _holds_results(output):
        maker = _maker(output)
        raise CannotWriteError(
            "results need their own folder",
            received=f"a data set by {maker}" if maker else "another data set",
            where=output,
            remedy="choose another",
        )


def _holds_results(dataset: Path) -> bool:
    """Return whether a data set is one of results, and no cohort or set of prepared scans, which are made here, too."""
    return _maker(dataset) == NAME and read_description(dataset).get("Name") not in (COHORT, PREPARED)


def _maker(dataset: Path) -> object:
    """Return the name of the program that made a data set; `None` where its description does not say it."""
    makers = read_description(dataset).get("GeneratedBy") or [{}]
    return makers[0].get("Name") if isinstance(makers, list) and isinstance(makers[0], dict) else None


def describe(title: str, about: str, **more: object) -> dict[str, object]:
    """Return the description of a data set that is made here: its name, what made it, and `more` of BIDS's keys."""
    maker = {"Name": NAME, "Version": halebrain.__version__, "Description": about}
    return {"Name": title, "BIDSVersion": BIDS_VERSION, "DatasetType": "derivative", "GeneratedBy": [maker], **more}


def _description(output: Path, raw: Path) -> dict[str, object]:
    doi = read_description(raw).get("DatasetDOI")
    # Relative, so that raw data and derivative may be moved together.
    link = Path(os.path.relpath(raw.resolve(), output.resolve())).as_posix()
    about = "Pseudo-healthy reconstruction and segmentation of anomalies. Research use only."
    made = describe(RESULTS, about, DatasetLinks={"raw": link})
    return made | ({"SourceDatasets": [{"DOI": doi}]} if isinstance(doi, str) and doi else {})


def write_participants(derivative: Path, dataset: Path) -> Path | None:
    """Write the participants of a derivative, with age, sex, handedness and group where the raw table has them.

    The validator wants a row for each folder of a participant and no other, so those whose scans all failed are left
    out. Nothing is written where there is no folder yet. Returns the path of the table.
    """
    there = sorted(path.name for path in derivative.glob("sub-*") if path.is_dir())
    if not there:
        return None
    columns, rows = _read(dataset / PARTICIPANTS)
    chosen = [rows.get(name, {_ID: name}) for name in there]
    # Not by csv: tables of BIDS know no quotes, and one in a field is part of it.
    lines = [columns, *([row.get(column, MISSING) for column in columns] for row in chosen)]
    path = derivative / PARTICIPANTS
    write_text(path, "".join("\t".join(line) + "\n" for line in lines))
    said = {name: about for name, about in _dictionary(dataset / "participants.json").items() if name in columns}
    if said:
        write_text(path.with_suffix(".json"), json.dumps(said, indent=2, ensure_ascii=False) + "\n")
    return path


def _read(table: Path) -> tuple[list[str], dict[str, dict[str, str]]]:
    """Return the columns that are kept of a raw table and participant → row; the identifier alone where it is none."""
    if not table.is_file():
        return [_ID], {}
    try:
        read = read_table(table, what="a table of participants", quotes=False)
    except DataError as error:
        # The results are there already; they must not be lost for it.
        _log.warning("%s (%s)", error, _NOT_TAKEN)
        return [_ID], {}
    kept = read.named(*_KEPT)
    if _ID not in kept:
        _log.warning("no column '%s' in '%s' (%s)", _ID, table, _NOT_TAKEN)
        return [_ID], {}
    rows = [{ours: row[theirs].strip() or MISSING for ours, theirs in kept.items()} for row in read.rows]
    # "01" stands for "sub-01" in tables that BIDS would refuse.
    return list(kept), {(name := f"sub-{row[_ID].removeprefix('sub-')}"): row | {_ID: name} for row in rows}


def _dictionary(path: Path) -> dict[str, Any]:
    """Return what a dictionary of columns says; nothing where there is none that can be read."""
    try:
        said = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}
