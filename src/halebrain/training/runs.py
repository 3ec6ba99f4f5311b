"""What every training has: its scans, the hash of all that it depends on, the run itself, and its entry in the card."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from halebrain.core.config import Config, portable_dump, with_former_keys
from halebrain.core.errors import MissingInputError
from halebrain.core.modality import contrast_alike, standard_modality
from halebrain.core.progress import track
from halebrain.core.wording import counted, first_of
from halebrain.data.anomalies import AnomalyGenerator
from halebrain.data.slices import DataConfig, atlas_sha256, scan_weights
from halebrain.io.checksum import json_sha256, scan_sha256
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.models.bundle import Bundle
from halebrain.training.loop import Stage, train

_log = logging.getLogger(__name__)
_PLACES = ("manifest", "more_manifests", "cache", "workers")
"""Data settings that concern places and reading only, and do not affect the result."""


def run_stage(
    stage: Stage,
    config: Any,
    manifest: Manifest,
    folder: Path,
    *,
    fabric: Fabric,
    name: str,
    known: Config | None = None,
    others: Sequence[str] = (),
) -> dict[str, Any]:
    """Train a stage, resuming what is in `folder`, and return its entry in the model card.

    `known` is the configuration as the hash of the run has it (`None` = unchanged); `others` are hashes of whatever
    else goes in, such as a frozen model.
    """
    # On a CPU no process draws ahead, which would take from the training what it uses.
    workers = 0 if fabric.device.type == "cpu" else config.data.workers
    identity = run_identity(known or config, manifest, *others)
    content = content_of(manifest, config.data)
    result = train(
        stage, config.loop, folder, fabric=fabric, name=name, identity=identity, content=content, workers=workers
    )
    stage.trained.load_state_dict(result.weights)
    learned = manifest.split("train")
    return {
        "config": portable_dump(config),
        "manifest_sha256": manifest.fingerprint(),
        "train_subjects": learned.subjects(),
        "val_subjects": manifest.split("val").subjects(),
        "modalities": sorted({record.contrast for record in learned}),
        "step": result.step,
        "validation_loss": result.validation_loss,
        "seconds": round(result.seconds, 1),
        "device": str(fabric.device) if fabric.world_size == 1 else f"{fabric.world_size} × {fabric.device.type}",
        "precision": fabric.strategy.precision.precision,
    }


def read_training_manifest(data: DataConfig) -> Manifest:
    """Read the manifests of `data` as one, restricted to its modalities."""
    if data.manifest is None:
        raise MissingInputError("training needs a manifest", remedy="give --manifest or data.manifest")
    tables = [Manifest.read(path) for path in (data.manifest, *data.more_manifests)]
    whole = Manifest(tuple(record for table in tables for record in table), source=data.manifest)
    rows = whole.of_contrasts(data.modalities or ())
    _tell_what_is_left_out(data, rows)
    return rows


def _tell_what_is_left_out(data: DataConfig, rows: Manifest) -> None:
    contrasts = {standard_modality(name) for name in data.modalities or ()} - {row.contrast for row in rows}
    diseases: set[str] = set(getattr(data, "pathologies", None) or ()) - {str(row.pathology) for row in rows}
    for what, lost in (("modalities", contrasts), ("pathologies", diseases)):
        if lost:
            _log.warning("no scan has %s of data.%s; check the spelling", ", ".join(sorted(lost)), what)
    if count := sum(row.split is None for row in rows):
        _log.warning("%s in no split and left out", counted(count, "scan is", "scans are"))


def tell_of_people_learned_from(manifest: Manifest, models: Iterable[Bundle | None]) -> None:
    """Warn of validation people from whom a model that a training begins with has learned."""
    seen = {subject for model in models if model for subject in model.seen_subjects("train_subjects")}
    if known := sorted(seen & set(manifest.split("val").subjects())):
        _log.warning(
            "%s of the split val trained a model that this training begins with: its validation loss is too low (%s)",
            counted(len(known), "subject"),
            first_of(known),
        )


def tell_of_other_contrasts(manifest: Manifest, learned: Iterable[str]) -> None:
    """Warn where a reconstructor that learned from some contrasts is to reconstruct others."""
    known = {standard_modality(name) for name in learned}
    found = {record.contrast for record in manifest.split("train")}
    other = sorted(name for name in found - known if contrast_alike(name) not in known)
    if known and other and "random" not in known:
        _log.warning("the reconstructor learned from %s and not from %s", ", ".join(sorted(known)), ", ".join(other))


def files_of(anomaly: AnomalyGenerator | None) -> list[str]:
    """Return the hash of the files that the anomalies of a run are made from, one of its `others`; [] without any."""
    files = "" if anomaly is None else anomaly.files_sha256()
    return [files] if files else []


def content_of(manifest: Manifest, data: DataConfig) -> str:
    """Return a hash of what the files of all scans and of the atlas hold, and of what has to be done to the scans."""
    rows = sorted(manifest, key=lambda row: row.scan_id)
    files = [
        [row.scan_id, *(path and scan_sha256(path) for path in (row.image, row.brain_mask, row.lesion)), *_to_do(row)]
        for row in track(rows, description="Checking scans", total=len(rows))
    ]
    return json_sha256([*files, *atlas_sha256(data.preprocessing)])


def _to_do(row: ScanRecord) -> list[str]:
    # A scan in template space is not registered. Only the other case is stated: those of cohorts stay as they were.
    return [row.space] if row.space == "native" else []


def run_identity(config: Config, manifest: Manifest, *others: str) -> str:
    """Return a hash of all that a run depends on, `others` too, whatever the place of its files on disk."""
    settings = config.model_dump(mode="json")
    settings["data"] = {k: v for k, v in settings["data"].items() if k not in _PLACES}
    if weights := scan_weights(config.data):  # type: ignore[attr-defined]
        # Names alone where one weight, which stands in the settings, holds for all.
        same = isinstance(config.data.oversample_factor, int)  # type: ignore[attr-defined]
        settings["data"]["weighty"] = sorted(weights) if same else sorted(weights.items())
    return json_sha256([with_former_keys(settings), manifest.fingerprint(), *others])
