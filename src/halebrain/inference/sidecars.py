"""BIDS sidecars of the files of a detection: content, grid and provenance."""

from typing import Any

from halebrain.core.about import NOTICE
from halebrain.inference.lesions import COLUMNS

RAW = "raw"
"""Name of the source data set in the BIDS URIs of a derivative."""
_MAPS: dict[tuple[str, str], dict[str, Any]] = {
    ("anomaly", "probseg"): {"Description": "Anomaly score, 0 to 1, higher = more anomalous, 0 outside the brain."},
    ("segmenter", "probseg"): {"Description": "Probability of the segmenter alone, 0 to 1, mean over noise levels."},
    ("anomaly", "mask"): {"Description": "Voxels where the anomaly score reaches the threshold.", "Type": "Lesion"},
    ("brain", "mask"): {"Description": "Brain mask; the anomaly score is defined in it.", "Type": "Brain"},
    ("pseudohealthy", ""): {
        "Description": "Pseudo-healthy reconstruction, in the intensity units of the scan.",
        "SkullStripped": True,
    },
    ("residual", ""): {
        "Description": "Scan minus pseudo-healthy reconstruction, signed, in units of the scan's normalised intensity.",
        "SkullStripped": True,
    },
    ("uncertainty", ""): {
        "Description": "Standard deviation of the anomaly score over noise levels and draws.",
        "SkullStripped": True,
    },
}
"""Description and suffix of each image; an empty suffix is the scan's own."""
_BRAIN_ONLY = ("brain", "mask")


def sidecars(provenance: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return (description, suffix) → sidecar of every image and of the lesion table.

    What the provenance does not say is left out, as BIDS has it.

    Args:
        provenance: How the detection was made.
    """
    made = {name: {**about, **_origin(provenance)} for name, about in _MAPS.items()}
    for name in made:
        if name != _BRAIN_ONLY:
            made[name] |= _model(provenance)
    made["anomaly", "mask"] |= _threshold(provenance)
    table = {"Description": "One row for each connected component of the anomaly mask."}
    return {**made, ("anomaly", "lesions"): {**COLUMNS, "HaleBrain": table | _origin(provenance)}}


def _origin(provenance: dict[str, Any]) -> dict[str, Any]:
    place = provenance.get("input_in_dataset")
    uri = None if place is None else f"bids:{RAW}:{place}"
    return _said(
        Sources=None if uri is None else [uri],
        SpatialReference=uri or "orig",
        SoftwareName="HaleBrain",
        SoftwareVersion=provenance.get("versions", {}).get("halebrain"),
        BrainExtraction=provenance.get("qc", {}).get("brain_method"),
        Notice=NOTICE,
    )


def _model(provenance: dict[str, Any]) -> dict[str, Any]:
    sha256 = provenance.get("model_sha256")
    return _said(
        ModelName=provenance.get("model"),
        # A model has no number; what it is, its hash says.
        ModelVersion=None if sha256 is None else sha256[:12],
        ModelSHA256=sha256,
        NoiseLevels=provenance.get("levels"),
        Draws=provenance.get("draws"),
        Seed=provenance.get("seed"),
    )


def _threshold(provenance: dict[str, Any]) -> dict[str, Any]:
    threshold = provenance.get("threshold", {})
    return _said(
        Threshold=threshold.get("value"),
        ThresholdMethod=threshold.get("name"),
        MinimumLesionVolumeMm3=threshold.get("min_lesion_mm3"),
    )


def _said(**entries: Any) -> dict[str, Any]:
    return {key: value for key, value in entries.items() if value is not None}
