"""BIDS derivatives written by HaleBrain: allowed locations and description files."""

import json
import os
from pathlib import Path
from typing import Any

import halebrain
from halebrain.core.about import NOTICE
from halebrain.core.errors import CannotWriteError, DataError, UsageError
from halebrain.core.files import write_text

NAME = "halebrain"
"""Our name in `GeneratedBy`; the folder of a derivative within its raw data must hold it."""
BIDS_VERSION = "1.10.0"
DESCRIPTION = "dataset_description.json"
_DERIVATIVES = "derivatives"
_IGNORED = (
    *("logs/", "*.html", "figures", "failed.tsv", "group_anomaly.*"),
    *(
        "**/*_lesions.*",
        "**/*_review.tsv",
        "**/*_provenance.json",
        "**/*_mosaic.png",
        "**/*_thumbnail.jpg",
        "**/*_seg.dcm",
    ),
)
"""Files that BIDS has no name for."""
_README = f"""# Anomalies in brain MRI, by HaleBrain

Each scan of the raw data has, in the same folder and on the same grid, an anomaly score (`desc-anomaly_probseg`), an
anomaly mask (`desc-anomaly_mask`), a brain mask, a pseudo-healthy reconstruction, a signed residual, the uncertainty,
a table of findings (`desc-anomaly_lesions.tsv`), a page with a viewer, pictures, and a JSON with the provenance
(`desc-anomaly_provenance.json`). `rec` names the contrast that a mask or a score belongs to.

`index.html` is the page of all scans. `participants.tsv` holds age, sex, handedness and group from the raw data.
`group_anomaly.tsv`, if present, has one row for each scan; `logs` holds the errors of scans that failed.

{NOTICE}
"""


def begin_derivative(output: Path, raw: Path) -> None:
    """Make a folder a BIDS derivative: its description, its README and its `.bidsignore`.

    Args:
        output: The derivative; made where it is not there.
        raw: The data set that it is made of.

    Raises:
        UsageError: It would lie where raw data are.
        CannotWriteError: There is another data set, or the folder cannot be written.
    """
    check_place(output, raw)
    _check_owner(output)
    files = {
        DESCRIPTION: json.dumps(_description(output, raw), indent=2) + "\n",
        ".bidsignore": "\n".join(_IGNORED) + "\n",
        "README.md": _README,
    }
    for name, text in files.items():
        path = output / name
        # Jobs of several participants share a folder; what is there already need not be written again.
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)


def check_place(output: Path, raw: Path) -> None:
    """Refuse an output folder among raw data; only `derivatives/NAME` is free for others there.

    Raises:
        UsageError: It lies elsewhere in the raw data, or its name does not say whose it is.
    """
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
    """Return the description of a data set; empty without one.

    Raises:
        DataError: Its description is no JSON object.
    """
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
    makers = read_description(output).get("GeneratedBy") or [{}]
    maker = makers[0].get("Name") if isinstance(makers, list) and isinstance(makers[0], dict) else None
    if maker != NAME:
        raise CannotWriteError(
            "results need their own folder",
            received=f"a data set by {maker}" if maker else "another data set",
            where=output,
            remedy="choose another",
        )


def _description(output: Path, raw: Path) -> dict[str, Any]:
    doi = read_description(raw).get("DatasetDOI")
    link = Path(os.path.relpath(raw.resolve(), output.resolve())).as_posix()
    made: dict[str, Any] = {
        "Name": "Anomalies in brain MRI, by HaleBrain",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [
            {
                "Name": NAME,
                "Version": halebrain.__version__,
                "Description": "Pseudo-healthy reconstruction and segmentation of anomalies. Research use only.",
            }
        ],
        # Relative, so that raw data and derivative may be moved together.
        "DatasetLinks": {"raw": link},
    }
    return made | ({"SourceDatasets": [{"DOI": doi}]} if isinstance(doi, str) and doi else {})
