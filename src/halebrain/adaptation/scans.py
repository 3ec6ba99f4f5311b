"""Scans of a manifest for an adaptation: training scans, evaluation scans, and notes for the user."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from halebrain.core.errors import DataError, HalebrainError, MissingInputError
from halebrain.core.failures import Failures
from halebrain.core.modality import standard_modality
from halebrain.core.parallel import HERE, Schedule
from halebrain.core.types import Volume
from halebrain.core.wording import counted, first_of
from halebrain.data.prepare import PrepareTask, prepare_scan
from halebrain.data.prepared_set import working_row
from halebrain.data.slices import SliceStore, build_store
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.io.volume import read_mask, read_volume
from halebrain.models.bundle import Bundle
from halebrain.preprocessing.pipeline import PreprocessingConfig
from halebrain.preprocessing.prepared import prepared_files, read_sidecar

MANY = 20
"""Number of annotated subjects from which training a segmenter is recommended."""


@dataclass(frozen=True)
class AdaptScans:
    """The scans of an adaptation, by what they are for.

    Args:
        annotated: Scans with lesions to learn from.
        healthy: Healthy scans that carry synthetic anomalies; empty = the annotated ones' slices without lesion do.
        held_out: Annotated or healthy scans that are only scored, before and after.
        notes: Notes for the user, one clause each.
    """

    annotated: Manifest
    healthy: Manifest
    held_out: Manifest
    notes: tuple[str, ...] = ()


def with_exam_masks(manifest: Manifest) -> tuple[Manifest, list[str]]:
    """Return a manifest in which the mask of a scan serves the others of its exam that lie on its grid, and notes.

    A rater draws on one contrast. The scans of a person at one time show the same lesions, so a mask that lies on the
    grid of another contrast is one of that contrast too. Masks on other grids are not resampled; a note names the
    scans.
    """
    masks = {record.exam_id: record for record in reversed(manifest.records) if record.is_annotated}
    records, shared, apart, notes = [], list[str](), list[str](), list[str]()
    for record in manifest:
        drawn = masks.get(record.exam_id)
        if drawn is None or drawn.lesion is None or record.lesion is not None or record.is_healthy:
            records.append(record)
            continue
        try:
            volume = read_volume(record.image)
        except HalebrainError as error:
            notes.append(f"{record.scan_id} is not used: {error}")
            continue
        if _lies_on(drawn.lesion, volume):
            shared.append(record.scan_id)
            record = replace(record, lesion=drawn.lesion, pathology=record.pathology or drawn.pathology)
        else:
            apart.append(record.scan_id)
        records.append(record)
    if shared:
        notes.append(f"{first_of(shared)}: the mask of another scan of the exam is used, which lies on the same grid")
    if apart:
        notes.append(
            f"{first_of(apart)}: the mask of another scan of the exam lies on another grid: resample it to use it"
        )
    return replace(manifest, records=tuple(records)), notes


def _lies_on(mask: Path, volume: Volume) -> bool:
    try:
        read_mask(mask, volume, notes=[])
    except DataError:
        return False
    return True


def choose_scans(
    manifest: Manifest, bundle: Bundle, *, pathologies: tuple[str, ...] = (), max_healthy: int, seed: int
) -> AdaptScans:
    """Return the scans by purpose: the split "test" and other pathologies are used for evaluation only.

    Without `pathologies`, everything annotated is learned from; at most `max_healthy` healthy subjects are drawn.
    """
    usable = manifest.select(lambda r: r.is_annotated or r.is_healthy)
    annotated = usable.select(
        lambda r: r.split != "test" and not r.is_healthy and (not pathologies or r.pathology in pathologies)
    )
    if len(annotated) == 0:
        healthy_only = len(usable) > 0 and all(r.is_healthy for r in usable)
        received = "healthy scans only" if healthy_only else "no scan with a lesion mask for training"
        raise MissingInputError(
            "adaptation needs annotated scans",
            received=received,
            where=manifest.where,
            remedy='name masks under "lesion", in rows whose split is not "test"',
        )
    healthy = usable.select(lambda r: r.is_healthy and r.split != "test")
    if len(healthy.subjects()) > max_healthy:
        healthy = healthy.subset(max_healthy, seed=seed) if max_healthy else healthy.select(lambda _: False)
    learned = {*annotated.subjects(), *healthy.subjects()}
    others = usable.select(lambda r: r.subject not in learned and (r.split == "test" or not r.is_healthy))
    seen = bundle.seen_subjects("train_subjects", "val_subjects") | bundle.calibration_subjects()
    held_out = others.select(lambda r: r.subject not in seen)
    notes = [*_remarks(manifest, usable, annotated, bundle)]
    if left := sorted(set(others.subjects()) - set(held_out.subjects())):
        notes.append(f"{first_of(left)}: not scored before and after, as the model was trained or calibrated with them")
    return AdaptScans(annotated, healthy, held_out, tuple(notes))


def _remarks(manifest: Manifest, usable: Manifest, annotated: Manifest, bundle: Bundle) -> list[str]:
    notes = []
    if unused := len(manifest) - len(usable):
        has, are, they = ("has", "is", "it is") if unused == 1 else ("have", "are", "they are")
        notes.append(f"{counted(unused, 'scan')} {has} no lesion mask and {are} not declared healthy: {they} not used")
    learned = set(bundle.seen_subjects("train_subjects"))
    if twice := [s for s in annotated.subjects() if s in learned]:
        notes.append(f"{first_of(twice)}: the model was trained on them, so the figures before adaptation are too good")
    known = {standard_modality(name) for name in bundle.modalities}
    if known and (new := sorted({r.contrast for r in annotated} - known)):
        notes.append(
            f"the model never saw {', '.join(new)}, and its reconstructor is not changed: expect little improvement"
        )
    if (count := len(annotated.subjects())) > MANY:
        notes.append(f"{count} annotated subjects are enough to train a segmenter: use halebrain train segmenter")
    return notes


def unprepared(records: Sequence[ScanRecord], config: PreprocessingConfig, folder: Path) -> list[str]:
    """Return the names of the raw scans that are not prepared in `folder` yet."""
    raw = (record for record in records if read_sidecar(record.image) is None)
    return [r.scan_id for r in raw if read_sidecar(prepared_files(folder, r, config.space).image) is None]


def prepare_scans(
    manifests: Sequence[Manifest],
    config: PreprocessingConfig,
    folder: Path,
    failures: Failures,
    schedule: Schedule = HERE,
) -> list[Manifest]:
    """Return the scans on the working grid: prepared ones unchanged, the others prepared in `folder`.

    `schedule` says where.

    All scans are processed before the run stops, so that all failures are reported at once.
    """
    made: dict[str, ScanRecord] = {}

    def keep(record: ScanRecord, prepared: ScanRecord) -> None:
        made[record.scan_id] = prepared

    records = [record for manifest in manifests for record in manifest]
    failures.each(
        partial(prepared_row, config, folder),
        records,
        name=lambda record: record.scan_id,
        description="Preparing scans",
        schedule=schedule,
        keep=keep,
    )
    failures.refuse(
        "every scan must be prepared before training",
        len(records),
        where=folder,
        remedy="fix the problem in each line, or remove those rows from the manifest; the others stay prepared",
    )
    return [replace(manifest, records=tuple(made[r.scan_id] for r in manifest)) for manifest in manifests]


def prepared_row(config: PreprocessingConfig, folder: Path, record: ScanRecord) -> ScanRecord:
    """Return the row of a scan on the working grid, which is prepared in `folder` unless it is."""
    if read_sidecar(record.image) is not None:
        return record
    prepare_scan(PrepareTask(record, folder, config))
    return working_row(record, prepared_files(folder, record, config.space), config.space)


def without_empty(annotated: Manifest, config: PreprocessingConfig, cache: Path) -> tuple[SliceStore, list[str]]:
    """Return the slices of the scans that show lesion on the working grid, and the names of the others."""
    store = build_store(annotated, config, cache, description="annotated scans")
    kept = [n for n, slices in enumerate(store.lesion_slices) if len(slices)]
    if not kept:
        raise DataError(
            "adaptation needs lesions",
            received="empty masks on the working grid",
            where=annotated.source or annotated.records[0].lesion or "manifest",
            remedy="check that masks and scans belong together",
        )
    empty = [record.scan_id for n, record in enumerate(store.records) if n not in kept]
    return store.of(kept), empty
