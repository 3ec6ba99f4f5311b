"""Settings of a virtual cohort, and their checks."""

import math
from typing import ClassVar

from pydantic import Field, field_validator

from halebrain.core.config import GrowingConfig
from halebrain.core.errors import UsageError
from halebrain.core.registry import suggestion
from halebrain.simulation.contrast_params import MODALITIES, Variety
from halebrain.simulation.pathology import PATHOLOGIES

USUAL_PATHOLOGIES = ("ms", "stroke", "tumour", "wmh")
"""Default pathologies of a cohort."""
_FIELD_MM = (192, 192, 160)


class CohortConfig(GrowingConfig):
    """What cohort to make; the same settings give the same files on one kind of processor.

    Args:
        healthy: Number of healthy subjects.
        patients: Number of patients of each pathology.
        modalities: What each subject is scanned with.
        pathologies: Which diseases.
        seed: Random seed.
        spacing_mm: Voxel size; 2 is the working grid of the networks.
        split_fractions: Shares of train, val and test among healthy subjects and among each pathology; together 1.
        anatomies: Names of the anatomies in the cohort's folder that brains are made of, beside the template's.
        template_share: Share of brains that are made of the template where there are other anatomies.
        variety: How much scans differ: "usual", or "wide" as those of many scanners, with artefacts and imperfect brain
            masks.
        prefix: What the labels of all subjects begin with, letters and digits. Labels do not depend on the seed, so a
            cohort beside another one needs a prefix, and has other people.
        ages: Youngest and oldest in years; `None` = 20 to 85 among the healthy, and those of each disease.
    """

    ADDED_FIELDS: ClassVar[frozenset[str]] = frozenset({"anatomies", "template_share", "variety", "prefix", "ages"})

    healthy: int = Field(default=20, ge=0)
    patients: int = Field(default=5, ge=0)
    modalities: tuple[str, ...] = ("T1w", "T2w", "FLAIR")
    pathologies: tuple[str, ...] = USUAL_PATHOLOGIES
    seed: int = 0
    spacing_mm: float = Field(default=2.0, ge=1, le=4)
    split_fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    anatomies: tuple[str, ...] = ()
    template_share: float = Field(default=0.2, ge=0, le=1)
    variety: Variety = "usual"
    prefix: str = ""
    ages: tuple[float, float] | None = None

    @field_validator("split_fractions")
    @classmethod
    def _are_shares(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(value) < 0 or not math.isclose(sum(value), 1, abs_tol=1e-6):
            raise ValueError("shares must be 0 or more and add up to 1")
        return value


def grid_shape(spacing_mm: float) -> tuple[int, int, int]:
    """Return the voxels of a cohort's grid."""
    i, j, k = (round(n / spacing_mm) for n in _FIELD_MM)
    return i, j, k


def check_cohort(config: CohortConfig) -> None:
    """Stop where a modality or pathology is unknown, the prefix is no label, or nobody is asked for."""
    for kind, names, known in (
        ("modality", config.modalities, list(MODALITIES)),
        ("pathology", config.pathologies, PATHOLOGIES.names()),
    ):
        for name in names:
            if name not in known:
                raise UsageError(f"a {kind} must be a known one", received=repr(name), remedy=suggestion(name, known))
    if config.prefix and not (config.prefix.isascii() and config.prefix.isalnum()):
        raise UsageError(
            "a prefix of subject labels takes letters and digits",
            received=repr(config.prefix),
            remedy="for example --prefix second",
        )
    if config.ages is not None and not 18 <= config.ages[0] <= config.ages[1] <= 100:
        raise UsageError(
            "ages are two numbers of years between 18 and 100, the smaller first",
            received=",".join(f"{age:g}" for age in config.ages),
            remedy="for example --ages 65,90",
        )
    if config.healthy + config.patients * len(config.pathologies) == 0 or not config.modalities:
        raise UsageError(
            "a cohort needs at least one subject and one modality", remedy="raise --subjects or --patients"
        )
