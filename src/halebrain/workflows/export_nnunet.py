"""Export: a manifest as a data set of nnU-Net v2, for training a supervised upper bound on the same scans.

Layout: `DatasetNNN_NAME/{imagesTr,labelsTr,imagesTs,labelsTs}/CASE_0000.nii.gz`, `dataset.json`, `splits_final.json`.
Source: nnU-Net v2's documentation of its data set format (Isensee et al. 2021, Nature Methods).
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from halebrain.core.config import parse_config
from halebrain.core.errors import CannotWriteError, DataError, MissingInputError, UsageError
from halebrain.core.files import atomic_folder
from halebrain.core.messages import log_message
from halebrain.core.modality import standard_modality
from halebrain.core.progress import track
from halebrain.core.types import Affine, FloatArray, MaskArray, Placement
from halebrain.core.wording import counted
from halebrain.io.annotation import read_lesion
from halebrain.io.grid import match
from halebrain.io.manifest import SPLITS, Manifest, ScanRecord
from halebrain.io.nifti import write_volume
from halebrain.io.volume import read_mask, read_volume
from halebrain.models.store import load_model
from halebrain.preprocessing.pipeline import PreprocessingConfig, Preprocessor
from halebrain.preprocessing.prepared import open_scan
from halebrain.workflows.selection import check_words
from halebrain.workflows.settings import ExportSettings

_SPLITS_FILE = "splits_final.json"
_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class NnunetCase:
    """One case, `sub-01[_ses-1]`: all modalities of a subject in a session, in the order of the channels."""

    name: str
    split: str
    channels: tuple[ScanRecord, ...]


@dataclass(frozen=True)
class Exported:
    """An exported data set with its channels, in order, and its split; `None` = nnU-Net draws its own."""

    folder: Path
    modalities: tuple[str, ...]
    cases: list[NnunetCase]
    splits: Path | None


def export_nnunet(manifest: Path, output: Path, settings: ExportSettings) -> Exported:
    """Write the annotated and healthy scans of a manifest as a data set, whole or not at all.

    Scans of "train" and "val" become Tr, those of "test" Ts; the split is written where there are both "train" and
    "val". On the native grid scans are stripped where they have a brain mask.

    Args:
        manifest: Table of scans.
        output: Parent folder of the data set.
        settings: What it is called, and what it holds.

    Raises:
        UsageError: The number has not three digits, the name has other letters, no scan has a modality, or options
            exclude each other.
        MissingInputError: There is no such scan.
        DataError: A scan cannot be used, is in no split, or lacks a modality, or channels lie on several grids.
        CannotWriteError: The data set exists, or cannot be written.
    """
    folder = output / _dataset_name(settings)
    for wanted in settings.splits:
        if wanted not in SPLITS:
            raise UsageError(
                "--split takes train, val or test",
                received=repr(wanted),
                remedy="for example --split train --split val",
            )
    table = Manifest.read(manifest)
    check_words(table, settings.modalities, ())
    rows = table.select(lambda r: not settings.splits or r.split in settings.splits)
    modalities, cases = find_cases(rows, settings.modalities)
    preprocessor = None
    if settings.grid == "working":
        own = {} if settings.model is None else load_model(settings.model).config.preprocessing
        preprocessor = Preprocessor(parse_config(PreprocessingConfig, own, where=settings.model or "defaults"))
    elif settings.model is not None:
        raise UsageError("--model needs --grid working", remedy="remove one of them")
    write_dataset(cases, modalities, folder, preprocessor=preprocessor)
    splits = folder / _SPLITS_FILE
    return Exported(folder, modalities, cases, splits if splits.is_file() else None)


def write_dataset(
    cases: Sequence[NnunetCase], modalities: Sequence[str], path: Path, *, preprocessor: Preprocessor | None
) -> None:
    """Write the cases in `path`, to the working grid of a preprocessor or, with `None`, on each scan's own grid."""
    if path.exists():
        raise CannotWriteError("the data set must not exist yet", where=path, remedy="choose another --dataset-id")
    learned = {split: sorted(case.name for case in cases if case.split == split) for split in ("train", "val")}
    about = {
        "channel_names": {str(channel): name for channel, name in enumerate(modalities)},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": sum(map(len, learned.values())),
        "file_ending": ".nii.gz",
    }
    with atomic_folder(path) as folder:
        for part in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
            (folder / part).mkdir()
        for case in track(cases, description="Exporting", total=len(cases)):
            _write_case(case, folder, preprocessor)
        (folder / "dataset.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        # Without our own validation split, nnU-Net draws its usual five folds.
        if all(learned.values()):
            (folder / _SPLITS_FILE).write_text(json.dumps([learned], indent=2) + "\n", encoding="utf-8")


def _dataset_name(settings: ExportSettings) -> str:
    number, name = settings.dataset_id, settings.name
    if not 1 <= number <= 999:
        raise UsageError("--dataset-id takes 1 to 999", received=number, remedy="for example --dataset-id 501")
    if not _NAME.fullmatch(name):
        raise UsageError(
            "--name takes letters, digits, '-' and '_'", received=repr(name), remedy="for example --name Brains"
        )
    return f"Dataset{number:03d}_{name}"


def find_cases(manifest: Manifest, modalities: Sequence[str] = ()) -> tuple[tuple[str, ...], list[NnunetCase]]:
    """Return the modalities in the order of the channels, and the cases that have a truth: annotated or healthy.

    `modalities` are the channels wanted, in order; empty = all that are there, sorted.
    """
    rows = manifest.select(lambda r: r.is_annotated or r.is_healthy)
    if unused := [r for r in manifest if not (r.is_annotated or r.is_healthy)]:
        contrasts = ", ".join(sorted({r.contrast for r in unused}))
        log_message(f"warning: {counted(len(unused), 'scan')} without a mask and not healthy left out ({contrasts})")
    named = map(standard_modality, modalities) if modalities else sorted({record.contrast for record in rows})
    wanted = tuple(dict.fromkeys(named))
    rows = rows.of_contrasts(wanted)
    where = manifest.where
    if len(rows) == 0:
        raise MissingInputError(
            "an export needs annotated or healthy scans",
            where=where,
            remedy='write healthy under "pathology" or a mask under "lesion", and check --split',
        )
    grouped: dict[str, dict[str, ScanRecord]] = {}
    for record in rows:
        if record.split is None:
            remedy = "assign train, val or test"
            raise DataError("a scan must be in a split", received=record.scan_id, where=where, remedy=remedy)
        channels = grouped.setdefault(record.scan_id.removesuffix(f"_{record.modality}"), {})
        if (other := channels.setdefault(record.contrast, record)) is not record:
            raise DataError(
                "a case must have one scan of each modality",
                received=f"{other.scan_id} and {record.scan_id}",
                where=where,
                remedy="remove one row, or give it another session",
            )
    lacking = {name: [m for m in wanted if m not in own] for name, own in grouped.items()}
    first = next((f"{name} without {', '.join(missing)}" for name, missing in lacking.items() if missing), None)
    if first is not None:
        raise DataError(
            "every case must have all modalities",
            received=f"{sum(map(bool, lacking.values()))} that lack one, first {first}",
            where=where,
            remedy=f"choose one with --modality ({', '.join(wanted)})",
        )
    cases = [
        NnunetCase(name, str(own[wanted[0]].split), tuple(own[m] for m in wanted)) for name, own in grouped.items()
    ]
    return wanted, cases


@dataclass(frozen=True)
class _Scan:
    image: FloatArray
    lesion: MaskArray
    affine: Affine
    placement: Placement | None = None


def _write_case(case: NnunetCase, folder: Path, preprocessor: Preprocessor | None) -> None:
    scans = [_read(record, preprocessor) for record in case.channels]
    first = scans[0]
    for scan, record in zip(scans, case.channels, strict=True):
        found = match(scan.image.shape, scan.affine, first.image.shape, first.affine)
        if found is None or not found.fits or found.turn is not None:
            apart = f", {found.distance_mm:.3g} mm apart" if found else ""
            raise DataError(
                "the channels of a case must lie on one grid",
                received=f"shapes {first.image.shape} and {scan.image.shape}{apart}",
                where=record.image,
                remedy="use --grid working, or choose one with --modality",
            )
    end = "Ts" if case.split == "test" else "Tr"
    for channel, scan in enumerate(scans):
        write_volume(
            folder / f"images{end}" / f"{case.name}_{channel:04d}.nii.gz",
            scan.image,
            scan.affine,
            placement=first.placement,
        )
    # Where each modality was annotated on its own, what any of them shows is lesion.
    lesion = np.any([scan.lesion for scan in scans], axis=0).astype(np.uint8)
    path = folder / f"labels{end}" / f"{case.name}.nii.gz"
    write_volume(path, lesion, first.affine, dtype=np.uint8, placement=first.placement)


def _read(record: ScanRecord, preprocessor: Preprocessor | None) -> _Scan:
    """Return image and lesion on the grid that is exported; lesion outside the brain mask stays lesion."""
    volume = read_volume(record.image)
    for note in volume.notes if preprocessor is None else ():
        log_message(f"{record.scan_id}: {note}")
    annotated = read_lesion(record, volume)
    lesion = np.zeros(volume.shape, bool) if annotated is None else annotated
    if preprocessor is None:
        mask = None if record.brain_mask is None else read_mask(record.brain_mask, volume)
        image = volume.data if mask is None else np.where(mask, volume.data, 0).astype(np.float32)
        return _Scan(image, lesion, volume.affine, volume.placement)
    scan = open_scan(preprocessor, volume, record.image, brain_mask=record.brain_mask, space=record.space)
    if scan.qc.registration_failed:
        raise DataError("an exported scan must register to the template", where=record.image, remedy="check it")
    return _Scan(scan.image, scan.mask_from_native(lesion), scan.grid.affine)
