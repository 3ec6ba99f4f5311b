"""One raw scan to one prepared scan: read, preprocess, check and write it, unless this is done already."""

import resource
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from halebrain.core.about import versions
from halebrain.core.errors import CannotWriteError
from halebrain.core.leftovers import sweep
from halebrain.core.progress import Stopwatch
from halebrain.io.annotation import read_lesion
from halebrain.io.checksum import scan_sha256
from halebrain.io.manifest import PATHS, ScanRecord
from halebrain.io.volume import read_healthy, read_mask, read_volume
from halebrain.preprocessing.pipeline import PreprocessingConfig, Preprocessor
from halebrain.preprocessing.prepared import PreparedFiles, prepared_files, read_sidecar, update_sidecar, write_prepared
from halebrain.preprocessing.quality.assess import assess
from halebrain.preprocessing.quality.rules import check_contrast_label

_KEPT_FIELDS = ("subject", "session", "entities", "modality", "split", "pathology", "site", "age", "sex", "space")


@dataclass(frozen=True)
class PrepareTask:
    """One scan to prepare; travels to worker processes."""

    record: ScanRecord
    dataset: Path
    config: PreprocessingConfig
    overwrite: bool = False


@dataclass(frozen=True)
class PrepareOutcome:
    """Outcome of one scan; `kept` = it existed already, made from the same input with the same settings."""

    scan_id: str
    kept: bool
    flags: tuple[str, ...]


def prepare_scan(task: PrepareTask) -> PrepareOutcome:
    """Preprocess one scan and write it with its masks, unless it is there already."""
    record, files = task.record, prepared_files(task.dataset, task.record, task.config.space)
    watch = Stopwatch()
    sweep(files.image.parent)
    with watch.step("reading"):
        identity = _identity(task)
    found = read_sidecar(files.image)
    if found is not None and not task.overwrite and _is_done(found, identity, files, record):
        if found["record"] != describe(record):
            update_sidecar(files, {**found, "record": describe(record)})  # an age or a split that was corrected
        return PrepareOutcome(record.scan_id, kept=True, flags=tuple(found["quality"]["flags"]))
    if found is not None and not task.overwrite:
        _refuse_another(found, identity, record)
    # If this fails, what was made of another input must not pass for this scan.
    files.sidecar.unlink(missing_ok=True)
    with watch.step("reading"):
        volume = read_volume(record.image)
        notes = list(volume.notes)
        mask = None if record.brain_mask is None else read_mask(record.brain_mask, volume, notes)
        lesion = read_lesion(record, volume, notes)
        healthy = None if record.healthy is None else read_healthy(record.healthy, volume, notes)
    preprocessor = Preprocessor(task.config)
    scan = preprocessor.run(volume, brain_mask=mask, space=record.space)
    scan = replace(scan, qc=check_contrast_label(scan.qc.noting(notes), record.contrast))
    with watch.step("quality"):
        quality = assess(volume, scan, lesion, atlas=preprocessor.template)
    about = {
        "record": describe(record),
        "identity": identity,
        "notes": notes,
        "quality": asdict(quality),
        "versions": versions(),
    }
    with watch.step("writing"):
        write_prepared(
            files,
            scan,
            config=task.config,
            lesion=None if lesion is None else scan.mask_from_native(lesion),
            placement=volume.placement,
            healthy=None if healthy is None else scan.image_from_native(healthy),
            about=about,
        )
    _add_costs(files, watch.seconds | scan.seconds)
    return PrepareOutcome(record.scan_id, kept=False, flags=quality.flags)


def describe(record: ScanRecord) -> dict[str, Any]:
    """Return what is known of a scan beside its files: who, what and in which split; JSON-able."""
    return {name: getattr(record, name) for name in _KEPT_FIELDS} | {
        name: None if getattr(record, name) is None else str(getattr(record, name).absolute()) for name in PATHS
    }


def _refuse_another(found: dict[str, Any], identity: dict[str, Any], record: ScanRecord) -> None:
    """Raise if the name is used by another scan, with another path and content."""
    before = found["record"]["image"]
    if before != str(record.image.absolute()) and found["identity"]["image_sha256"] != identity["image_sha256"]:
        raise CannotWriteError(
            "the scans of a data set need different names",
            received=f"{record.scan_id}, which exists already, made from '{before}'",
            where=record.image,
            remedy="use another --output, rename the subject, or add --overwrite",
        )


def _identity(task: PrepareTask) -> dict[str, Any]:
    """Return what a prepared scan depends on: the content of its inputs and the settings."""
    hashes = {
        f"{name}_sha256": None if getattr(task.record, name) is None else scan_sha256(getattr(task.record, name))
        for name in PATHS
    }
    for name in ("template", "template_mask"):
        path = getattr(task.config, name)
        if path is not None:
            hashes[f"{name}_sha256"] = scan_sha256(path)
    return {**hashes, "space": task.record.space, "preprocessing": task.config.model_dump(mode="json")}


def _is_done(found: dict[str, Any], identity: dict[str, Any], files: PreparedFiles, record: ScanRecord) -> bool:
    needed = [files.image, files.brain_mask, files.native_brain_mask]
    needed += [files.lesion] * (record.lesion is not None) + [files.healthy] * (record.healthy is not None)
    return found.get("identity") == identity and all(path.is_file() for path in needed)


def _add_costs(files: PreparedFiles, seconds: dict[str, float]) -> None:
    """Note how long the steps took and the most memory that this process ever held, which may be an earlier scan's."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)
    found = read_sidecar(files.image)
    assert found is not None  # written a moment ago
    costs = {"seconds": {name: round(value, 2) for name, value in seconds.items()}, "peak_memory_mib": round(peak)}
    update_sidecar(files, {**found, "costs": costs})
