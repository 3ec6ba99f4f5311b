"""Making a virtual cohort: draws people, renders each in every modality, and writes files, manifest and montage."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from halebrain.core.errors import CannotWriteError, DataError
from halebrain.core.failures import Failures
from halebrain.core.parallel import map_items
from halebrain.core.progress import track
from halebrain.core.random import make_generator
from halebrain.io.bids_derivative import DESCRIPTION, read_description
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.simulation.config import CohortConfig, check_cohort
from halebrain.simulation.files import PARAMETERS, subject_records, write_dataset_files, write_subject
from halebrain.simulation.subject import SubjectParams, render_subject, sample_subject

_FORMAT = 1
ANATOMIES = "anatomies"
"""Folder of the cohort in which its anatomies are kept."""


def generate_cohort(output: Path, config: CohortConfig, *, workers: int = 0) -> Manifest:
    """Write the cohort to `output`, skipping subjects that are there already, and return its manifest.

    Args:
        output: Output folder.
        config: What to make.
        workers: Processes, each with one thread; 0 = this one. The files are the same.

    Raises:
        UsageError: A modality or pathology is unknown, or nobody is asked for.
        CannotWriteError: `output` holds a cohort made with other settings, or cannot be written.
        PartialFailureError: Some subjects failed; the others are there.
    """
    check_cohort(config)
    _claim(output, config)
    people = _people(config)
    missing = [
        (output, subject, pathology, config)
        for subject, (pathology, _) in people.items()
        if not (output / f"sub-{subject}" / PARAMETERS).exists()
    ]
    failures = Failures(None)
    made = map_items(_make_subject, missing, workers=workers)
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
    records: list[ScanRecord] = []
    for subject, (_, split) in people.items():
        folder = output / f"sub-{subject}"
        text = (folder / PARAMETERS).read_text(encoding="utf-8")
        records += subject_records(folder, SubjectParams.model_validate_json(text), split)
    manifest = Manifest(tuple(records), source=output / "manifest.tsv")
    manifest.write(output / "manifest.tsv")
    return manifest


def _make_subject(task: tuple[Path, str, str, CohortConfig]) -> None:
    output, subject, pathology, config = task
    bases = output / ANATOMIES
    params = sample_subject(subject, pathology, config, folder=bases)
    images = render_subject(params, spacing_mm=config.spacing_mm, folder=bases)
    write_subject(output / f"sub-{subject}", params, images)


def _claim(output: Path, config: CohortConfig) -> None:
    """Write the description of the data set, or check that the existing one is of the same cohort."""
    cohort = {"Format": _FORMAT, **config.model_dump(mode="json")}
    path = output / DESCRIPTION
    if path.exists() and read_description(output).get("Cohort") != cohort:
        raise CannotWriteError(
            "a cohort must be resumed with its original settings",
            received="other settings",
            where=path,
            remedy="choose another folder, or --overwrite",
        )
    ignored = ("manifest.*", "montage.png", ANATOMIES, f"**/{PARAMETERS}")
    write_dataset_files(output, cohort, modalities=config.modalities, ignored=ignored)


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


def clear_cohort(output: Path) -> None:
    """Remove a cohort that was made here before; anything else is refused.

    Raises:
        CannotWriteError: The folder holds something else.
    """
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
