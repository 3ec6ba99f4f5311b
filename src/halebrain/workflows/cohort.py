"""The virtual cohort: healthy people and patients with exact ground truth."""

from dataclasses import dataclass
from pathlib import Path

from halebrain.core.errors import UsageError
from halebrain.data.datasets import bids_manifest
from halebrain.io.discovery import is_bids
from halebrain.io.manifest import Manifest
from halebrain.report.figures import cohort_montage, save_figure
from halebrain.simulation import ANATOMY_SOURCES
from halebrain.simulation.anatomy_source import gather_anatomies
from halebrain.simulation.config import CohortConfig, grid_shape
from halebrain.simulation.generate import ANATOMIES, clear_cohort, generate_cohort
from halebrain.workflows.settings import CohortSettings


@dataclass(frozen=True)
class VirtualCohort:
    """A virtual cohort in a folder.

    Args:
        manifest: Its scans.
        path: The manifest as a table.
        montage: A picture of it.
    """

    manifest: Manifest
    path: Path
    montage: Path


def make_cohort(output: Path, settings: CohortSettings) -> VirtualCohort:
    """Make a virtual cohort, or the remaining part of one that was begun with the same settings."""
    if settings.overwrite:
        clear_cohort(output)
    spacing_mm, anatomies = settings.spacing_mm, tuple[str, ...]()
    for kind in ANATOMY_SOURCES:
        place: Path | None = getattr(settings, kind)
        if place is not None:
            scans = bids_manifest(place) if kind == "t1" and is_bids(place) else place
            folder, shape = output / ANATOMIES, grid_shape(spacing_mm)
            anatomies += gather_anatomies(
                kind, scans, folder, shape=shape, spacing_mm=spacing_mm, notify=settings.notify
            )
    default = CohortConfig()
    config = CohortConfig(
        healthy=settings.subjects,
        patients=settings.patients,
        modalities=settings.modalities or default.modalities,
        pathologies=settings.pathologies or default.pathologies,
        seed=settings.seed,
        spacing_mm=spacing_mm,
        anatomies=anatomies,
        variety=settings.variety,
        prefix=settings.prefix,
        ages=None if settings.ages is None else _read_ages(settings.ages),
    )
    manifest, montage = (
        generate_cohort(output, config, workers=settings.workers, notify=settings.notify),
        output / "montage.png",
    )
    save_figure(cohort_montage(manifest), montage)
    return VirtualCohort(manifest, output / "manifest.tsv", montage)


def _read_ages(text: str) -> tuple[float, float]:
    """Return the youngest and the oldest age of "65,90", in years; `check_cohort` judges them."""
    try:
        youngest, oldest = (float(word) for word in text.split(","))
    except ValueError as error:
        raise UsageError("--ages takes two numbers", received=repr(text), remedy="for example 65,90") from error
    return youngest, oldest
