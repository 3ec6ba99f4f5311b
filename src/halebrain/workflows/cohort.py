"""The virtual cohort: healthy people and patients with exact ground truth."""

from dataclasses import dataclass
from pathlib import Path

from halebrain.core.errors import UsageError
from halebrain.core.parallel import HERE, Schedule
from halebrain.data.datasets import bids_manifest
from halebrain.data.splits import read_fractions
from halebrain.io.discovery import is_bids
from halebrain.io.manifest import Manifest
from halebrain.report.figures import cohort_montage, save_figure
from halebrain.simulation import ANATOMY_SOURCES
from halebrain.simulation.anatomy_source import gather_anatomies
from halebrain.simulation.config import CohortConfig, grid_shape
from halebrain.simulation.generate import ANATOMIES, check_place, clear_cohort, generate_part
from halebrain.workflows.settings import WHOLE, CohortSettings, PartSettings


@dataclass(frozen=True)
class VirtualCohort:
    """A virtual cohort in a folder.

    Args:
        manifest: Its scans; those that are there, while parts are left.
        path: The manifest as a table, which the last part writes.
        montage: A picture of it, too.
        left: People of other parts that are not there yet.
    """

    manifest: Manifest
    path: Path
    montage: Path
    left: int = 0


def make_cohort(
    output: Path, settings: CohortSettings, *, schedule: Schedule = HERE, part: PartSettings = WHOLE
) -> VirtualCohort:
    """Make a virtual cohort, or the remaining part of one that was begun with the same settings.

    Of several parts, the one that finds all people there writes manifest and picture.
    """
    if settings.overwrite:
        if part.num_parts > 1:
            raise UsageError(
                "--overwrite and --num-parts exclude each other",
                received="both",
                remedy="remove the folder before the parts begin",
            )
        clear_cohort(output)
    check_place(output)
    default = CohortConfig()
    split = default.split_fractions if settings.split is None else _read_split(settings.split)
    ages = None if settings.ages is None else _read_ages(settings.ages)
    spacing_mm, anatomies = settings.spacing_mm, tuple[str, ...]()
    for kind in ANATOMY_SOURCES:
        place: Path | None = getattr(settings, kind)
        if place is not None:
            scans = bids_manifest(place) if kind == "t1" and is_bids(place) else place
            folder, shape = output / ANATOMIES, grid_shape(spacing_mm)
            anatomies += gather_anatomies(
                kind, scans, folder, shape=shape, spacing_mm=spacing_mm, notify=settings.notify
            )
    config = CohortConfig(
        healthy=settings.subjects,
        patients=settings.patients,
        modalities=tuple(dict.fromkeys(settings.modalities)) or default.modalities,
        pathologies=settings.pathologies or default.pathologies,
        seed=settings.seed,
        spacing_mm=spacing_mm,
        split_fractions=split,
        anatomies=anatomies,
        variety=settings.variety,
        prefix=settings.prefix,
        ages=ages,
    )
    made = generate_part(output, config, schedule, part=(part.part_id, part.num_parts), notify=settings.notify)
    montage = output / "montage.png"
    if not made.left:
        save_figure(cohort_montage(made.manifest), montage)
    return VirtualCohort(made.manifest, output / "manifest.tsv", montage, made.left)


def _read_split(text: str) -> tuple[float, float, float]:
    """Return the shares of train, val and test of "0.7,0.15,0.15"."""
    train, val, test = read_fractions(text).values()
    return train, val, test


def _read_ages(text: str) -> tuple[float, float]:
    """Return the youngest and the oldest age of "65,90", in years; `check_cohort` judges them."""
    try:
        youngest, oldest = (float(word) for word in text.split(","))
    except ValueError as error:
        raise UsageError("--ages takes two numbers", received=repr(text), remedy="for example 65,90") from error
    return youngest, oldest
