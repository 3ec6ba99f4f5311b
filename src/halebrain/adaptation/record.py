"""Record of an adaptation: the hash of all its inputs, and the entry in the model card."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from halebrain.adaptation.config import AdaptConfig
from halebrain.adaptation.folds import StepChoice
from halebrain.adaptation.scans import AdaptScans
from halebrain.core.config import portable_dump, with_former_keys
from halebrain.io.checksum import json_sha256, scan_sha256
from halebrain.io.manifest import ScanRecord
from halebrain.models.bundle import Bundle
from halebrain.models.bundle_files import About


def adaptation_identity(bundle: Bundle, scans: AdaptScans, config: AdaptConfig) -> str:
    """Return a hash of all that the adapted model and its table depend on."""
    rows = [
        [purpose, r.scan_id, r.pathology, *hashes_of(r).values()]
        for purpose, part in (("annotated", scans.annotated), ("healthy", scans.healthy), ("held out", scans.held_out))
        for r in sorted(part, key=lambda r: r.scan_id)
    ]
    settings = with_former_keys([config.model_dump(mode="json"), bundle.calibration])
    return json_sha256([settings[0], bundle.sha256, settings[1], rows])


def hashes_of(record: ScanRecord) -> dict[str, str | None]:
    """Return the sha256 of each file of a scan; `None` where there is none."""
    files = {"image_sha256": record.image, "brain_mask_sha256": record.brain_mask, "lesion_sha256": record.lesion}
    return {name: None if path is None else scan_sha256(path) for name, path in files.items()}


def summarise_adaptation(
    bundle: Bundle, scans: AdaptScans, config: AdaptConfig, choice: StepChoice, *, identity: str
) -> dict[str, Any]:
    """Return what the adapted model's card says: from which model, on which scans, with which settings, how far.

    Args:
        bundle: The model that was adapted.
        scans: Those that were learned from, as the user gave them.
        config: The settings.
        choice: How many steps were taken, and why.
        identity: Hash of all that it depends on.
    """
    learned = replace(scans.annotated, records=(*scans.annotated, *scans.healthy))
    return {
        "adapted_from": bundle.sha256,
        "identity": identity,
        "config": portable_dump(config),
        "manifest_sha256": learned.fingerprint(),
        "train_subjects": learned.subjects(),
        "val_subjects": [],
        "modalities": sorted({record.modality for record in learned}),
        "pathologies": sorted({record.pathology or "unknown" for record in scans.annotated}),
        "scans": {record.scan_id: hashes_of(record) for record in learned},
        "steps": choice.steps,
        "steps_tried": list(choice.tried),
        "auprc_left_out": [round(value, 6) for value in choice.auprc],
    }


def adapted_about(about: About | None, summary: Mapping[str, Any]) -> About | None:
    """Return whose the adapted weights are: figures of the model that they came from are not theirs.

    Args:
        about: What that model says.
        summary: Of the adaptation; limits of its modalities are no longer known. Without a step, all stays.
    """
    if about is None or not summary["steps"]:
        return about
    limits = {name: text for name, text in about.limits.items() if name not in summary["modalities"]}
    return about.model_copy(update={"figures": (), "limits": limits})
