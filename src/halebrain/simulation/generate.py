"""Making a virtual cohort: draws people, renders each in every modality, and writes files, manifest and montage."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from halebrain.core.errors import CannotWriteError, DataError
from halebrain.core.failures import Failures
from halebrain.core.files import atomic_folder, write_text
from halebrain.core.messages import Notify, log_message
from halebrain.core.parallel import HERE, Schedule, map_items
from halebrain.core.progress import track
from halebrain.core.random import make_generator
from halebrain.core.types import TEMPLATE_SPACE
from halebrain.core.wording import counted
from halebrain.io.bids import SUFFIXES
from halebrain.io.bids_derivative import COHORT, DESCRIPTION, describe, read_description
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.io.nifti import write_volume
from halebrain.simulation.config import CohortConfig, check_cohort
from halebrain.simulation.subject import SubjectImages, SubjectParams, render_subject, sample_subject

_FORMAT = 1
ANATOMIES = "anatomies"
"""Folder of the cohort in which its anatomies are kept."""
PARAMETERS = "parameters.json"
"""What was drawn of a subject, in its folder."""
_MANIFEST = "manifest.tsv"
_IGNORED = ("manifest.*", "montage.png", ANATOMIES, f"**/{PARAMETERS}")
"""Files that are ours and none of BIDS's."""


@dataclass(frozen=True)
class MadeCohort:
    """The scans of a cohort that are there, and how many people are left to other parts."""

    manifest: Manifest
    left: int = 0


def generate_cohort(
    output: Path, config: CohortConfig, schedule: Schedule = HERE, *, notify: Notify = log_message
) -> Manifest:
    """Write the whole cohort as `generate_part` does, and return its manifest."""
    return generate_part(output, config, schedule, notify=notify).manifest


def generate_part(
    output: Path,
    config: CohortConfig,
    schedule: Schedule = HERE,
    *,
    part: tuple[int, int] = (0, 1),
    notify: Notify = log_message,
) -> MadeCohort:
    """Write the cohort to `output`, skipping subjects that are there already, and return its scans.

    Args:
        output: Output folder.
        config: What to make.
        schedule: Where; the files are the same.
        part: Index and number of parts; the one that finds all people there writes the manifest.
        notify: Receives a line for each subject that fails.

    Raises:
        UsageError: A modality or pathology is unknown, or nobody is asked for.
        CannotWriteError: `output` holds another data set or a cohort made with other settings, or cannot be written.
        PartialFailureError: Some subjects failed; the others are there.
    """
    check_cohort(config)
    _claim(output, config)
    people = _people(config)
    index, count = part
    missing = [
        (output, subject, pathology, config)
        for subject, (pathology, _) in list(people.items())[index::count]
        if not (output / f"sub-{subject}" / PARAMETERS).exists()
    ]
    failures = Failures(None, notify)
    made = map_items(_make_subject, missing, schedule, notify=notify)
    for place, error in track(made, description="Virtual cohort", total=len(missing)):
        if isinstance(error, CannotWriteError) or (error is not None and len(missing) == 1):
            raise error
        if error is not None:
            failures.add(missing[place][1], error)
    failures.refuse(
        "every subject of a cohort should be made",
        len(people),
        where=output,
        remedy="the others were made, without a manifest; run the same command again to make the missing ones",
    )
    records, left = list[ScanRecord](), 0
    for subject, (_, split) in people.items():
        folder = output / f"sub-{subject}"
        if not (folder / PARAMETERS).exists():
            left += 1
            continue
        text = (folder / PARAMETERS).read_text(encoding="utf-8")
        records += _subject_records(folder, SubjectParams.model_validate_json(text), split)
    manifest = Manifest(tuple(records), source=output / _MANIFEST)
    if not left:
        manifest.write(output / _MANIFEST)
    return MadeCohort(manifest, left)


def _make_subject(task: tuple[Path, str, str, CohortConfig]) -> None:
    output, subject, pathology, config = task
    bases = output / ANATOMIES
    params = sample_subject(subject, pathology, config, folder=bases)
    images = render_subject(params, spacing_mm=config.spacing_mm, folder=bases)
    _write_subject(output / f"sub-{subject}", params, images)


def _claim(output: Path, config: CohortConfig) -> None:
    """Write the description of the data set, or check that the existing one is of the same cohort."""
    check_place(output)
    cohort = {"Format": _FORMAT, **config.model_dump(mode="json")}
    path = output / DESCRIPTION
    if path.exists() and read_description(output).get("Cohort") != cohort:
        raise CannotWriteError(
            "a cohort must be resumed with its original settings",
            received="other settings",
            where=path,
            remedy="choose another folder, or --overwrite",
        )
    _write_dataset_files(output, config, cohort)


def _people(config: CohortConfig) -> dict[str, tuple[str, str]]:
    """Return subject → (pathology, split); splits are drawn within each group."""
    people: dict[str, tuple[str, str]] = {}
    groups = {"healthy": config.healthy} | dict.fromkeys(config.pathologies, config.patients)
    for pathology, count in groups.items():
        splits = _splits(count, config.split_fractions)
        order = torch.randperm(count, generator=make_generator(config.seed, "splits", pathology)).tolist()
        for number in range(count):
            people[f"{config.prefix}{pathology}{number + 1:03d}"] = (pathology, splits[order[number]])
    return people


def _splits(count: int, fractions: Sequence[float]) -> list[str]:
    n_val, n_test = (max(1, round(count * f)) if f > 0 and count >= 3 else 0 for f in fractions[1:])
    return ["val"] * n_val + ["test"] * n_test + ["train"] * (count - n_val - n_test)


def check_place(output: Path) -> None:
    """Stop where `output` holds another data set, whose files a cohort would replace."""
    there = [name for name in (DESCRIPTION, _MANIFEST) if (output / name).exists()]
    if there and not is_cohort(output):
        raise CannotWriteError(
            "a cohort needs its own folder",
            received=f"{there[0]} of another data set",
            where=output,
            remedy="choose another --output",
        )


def clear_cohort(output: Path) -> None:
    """Remove a cohort that was made here before; anything else is refused."""
    if not output.exists():
        return
    if any(output.iterdir()) and not is_cohort(output):
        raise CannotWriteError(
            "--overwrite replaces a cohort only",
            received="another folder",
            where=output,
            remedy="choose another --output",
        )
    shutil.rmtree(output)


def is_cohort(folder: Path) -> bool:
    """Return whether the folder is a virtual cohort made here, and not somebody's own BIDS data set."""
    try:
        return "Cohort" in read_description(folder)
    except DataError:
        return False


def _write_subject(folder: Path, params: SubjectParams, images: SubjectImages) -> None:
    """Write images, masks and parameters of a subject, all or nothing."""
    subject, affine = params.subject, images.anatomy.grid.affine
    with atomic_folder(folder, overwrite=True) as temporary:
        stem = temporary / "anat" / f"sub-{subject}_space-{TEMPLATE_SPACE}"
        for modality, image in images.scans.items():
            _write(stem, modality, image, affine)
        for modality, image in images.healthy.items():
            _write(stem, f"desc-healthy_{modality}", image, affine)
        _write(stem, "desc-brain_mask", images.brain_mask, affine)
        if images.lesion is not None:
            _write(stem, "label-lesion_mask", images.lesion, affine)
        write_text(temporary / PARAMETERS, params.model_dump_json(indent=1) + "\n")


def _write(stem: Path, suffix: str, image: torch.Tensor, affine: np.ndarray[Any, np.dtype[np.float64]]) -> None:
    path = stem.with_name(f"{stem.name}_{suffix}.nii.gz")
    if image.dtype == torch.bool:
        write_volume(path, image.numpy().astype(np.uint8), affine, dtype=np.uint8, space=TEMPLATE_SPACE)
    else:
        # Intensities of arbitrary units, as scanners give them.
        write_volume(path, (image * 1000).round().numpy(), affine, dtype=np.int16, space=TEMPLATE_SPACE)


def _subject_records(folder: Path, params: SubjectParams, split: str) -> list[ScanRecord]:
    """Return a row for each scan of a subject whose files lie in `folder`."""
    stem = folder / "anat" / f"sub-{params.subject}_space-{TEMPLATE_SPACE}"

    def file(suffix: str) -> Path:
        return stem.with_name(f"{stem.name}_{suffix}.nii.gz")

    is_patient = params.lesions is not None
    return [
        ScanRecord(
            subject=params.subject,
            image=file(contrast.modality),
            modality=contrast.modality,
            brain_mask=file("desc-brain_mask"),
            lesion=file("label-lesion_mask") if is_patient else None,
            healthy=file(f"desc-healthy_{contrast.modality}") if is_patient else None,
            space=TEMPLATE_SPACE,
            split=split,
            pathology=params.pathology,
            site=acquisition.site,
            age=params.anatomy.age,
            sex=params.sex,
        )
        for contrast, acquisition in zip(params.contrasts, params.acquisitions, strict=True)
    ]


def _write_dataset_files(output: Path, config: CohortConfig, cohort: dict[str, Any]) -> None:
    """Write the description of a cohort, a sidecar for each of its contrasts, and `.bidsignore`."""
    licence, origin = {"License": "CC0"}, "the MNI152NLin2009aSym template; no person was scanned"
    if config.anatomies:
        others = counted(len(config.anatomies), "other brain")
        licence, origin = {}, f"the MNI152NLin2009aSym template and {others}, whose tissue maps are in the folder"
        origin += f" {ANATOMIES}; the terms of those data apply"
    template = "Fonov V. et al., NeuroImage 2011, doi:10.1016/j.neuroimage.2010.07.033"
    about: dict[str, object] = {
        "Cohort": cohort,
        "Description": f"Synthetic images made from {origin}.",
        "ReferencesAndLinks": [template],
    }
    description = describe(COHORT, "Draws and renders virtual brains. Research use only.", **licence, **about)
    named = [modality for modality in config.modalities if modality in SUFFIXES]
    for modality in named:
        # At the top, where it holds for every subject's image of that contrast.
        about = {"Description": f"Virtual {modality}, inside the brain only.", "SkullStripped": True}
        write_text(output / f"{modality}.json", json.dumps(about, indent=2) + "\n")
    # Contrasts that no scanner has ("random") are none of BIDS's suffixes.
    unnamed = [f"**/*_{modality}.nii.gz" for modality in config.modalities if modality not in named]
    write_text(output / ".bidsignore", "\n".join([*_IGNORED, *unnamed]) + "\n")
    write_text(output / DESCRIPTION, json.dumps(description, indent=2) + "\n")
