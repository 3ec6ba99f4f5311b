"""Results of a detection, read from its files, for JSON output."""

import json
from pathlib import Path
from typing import Any


def found_scan(folder: Path, name: str) -> dict[str, Any]:
    """Return what was found in one scan, and where its files are; JSON-able.

    Args:
        folder: Where `detect` wrote.
        name: Name of the scan.
    """
    from halebrain.inference.outputs import OutputNames

    names = OutputNames(folder, name)
    said = json.loads(names.provenance.read_text(encoding="utf-8"))
    quality = said.get("qc", {})
    return {
        "scan": name,
        "folder": folder,
        "report": names.page,
        "score": names.file("anomaly", "probseg"),
        "mask": names.file("anomaly", "mask"),
        "lesions": names.file("anomaly", "lesions", ".tsv"),
        "provenance": names.provenance,
        "n_lesions": said.get("n_lesions"),
        "lesion_volume_ml": said.get("lesion_volume_ml"),
        "scan_score": said.get("scan_score"),
        "scan_score_percentile": said.get("scan_score_percentile"),
        "threshold": said.get("threshold"),
        "out_of_distribution": quality.get("out_of_distribution"),
        "flags": quality.get("flags", []),
        "model": said.get("model"),
        "model_sha256": said.get("model_sha256"),
    }


def summed_up(scans: list[dict[str, Any]]) -> str:
    """Return one line for people: number of scans, findings, and unreliable scans."""
    from halebrain.core.wording import counted

    findings = sum(scan["n_lesions"] or 0 for scan in scans)
    volume_ml = sum(scan["lesion_volume_ml"] or 0.0 for scan in scans)
    line = f"{counted(len(scans), 'scan')} processed, {counted(findings, 'finding')}, {volume_ml:.2f} ml"
    unlike = sum(bool(scan["out_of_distribution"]) for scan in scans)
    return f"{line}; {unlike} unreliable (see the flags)" if unlike else line
