"""One virtual subject: its random parameters, and its images."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from halebrain.core.config import Config
from halebrain.core.errors import UsageError
from halebrain.core.random import branch, make_generator
from halebrain.simulation.acquisition import SITES, AcquisitionParams, acquire, sample_acquisition
from halebrain.simulation.anatomy import Anatomy, AnatomyParams, build_anatomy, move_anatomy, sample_anatomy
from halebrain.simulation.anatomy_source import load_base
from halebrain.simulation.config import CohortConfig, grid_shape
from halebrain.simulation.contrast import render
from halebrain.simulation.contrast_params import ContrastParams, aged, sample_contrast
from halebrain.simulation.pathology import LesionParams, build_lesions, lesion_mask, paint, push_field, sample_lesions
from halebrain.simulation.stripping import StrippingParams, add_rim, sample_stripping, stripped_mask

_AGES = {"ms": (20.0, 60.0), "wmh": (55.0, 88.0), "stroke": (40.0, 88.0), "tumour": (25.0, 80.0)}


class SubjectParams(Config):
    """Everything that was drawn for one subject; enough to make its images again."""

    subject: str
    pathology: str
    sex: str
    anatomy: AnatomyParams
    lesions: LesionParams | None
    contrasts: tuple[ContrastParams, ...]
    acquisitions: tuple[AcquisitionParams, ...]
    stripping: StrippingParams | None = None


@dataclass(frozen=True)
class SubjectImages:
    """The images of one subject.

    Args:
        scans: Modality → image `(i, j, k)`.
        healthy: Modality → the same acquisition of the same brain before the disease (without its mass effect).
        lesion: Bool, or `None`.
        brain_mask: Bool.
        anatomy: The tissues behind them.
    """

    scans: dict[str, torch.Tensor]
    healthy: dict[str, torch.Tensor]
    lesion: torch.Tensor | None
    brain_mask: torch.Tensor
    anatomy: Anatomy


def sample_subject(subject: str, pathology: str, config: CohortConfig, *, folder: Path | None = None) -> SubjectParams:
    """Draw one subject; depends on seed and label alone. `folder` is needed where the cohort has anatomies."""
    generator = make_generator(config.seed, "cohort", subject)
    ages = config.ages or _AGES.get(pathology, (20.0, 85.0))
    anatomy_params = sample_anatomy(generator, age_range=ages)
    anatomy_params = anatomy_params.model_copy(update={"base": _draw_base(subject, config)})
    anatomy = _build(anatomy_params, config.spacing_mm, folder)
    lesions = None if pathology == "healthy" else sample_lesions(pathology, anatomy, generator)
    site = int(torch.randint(len(SITES), (), generator=generator))
    sex = "F" if float(torch.rand((), generator=generator)) < 0.5 else "M"
    contrasts = [sample_contrast(m, generator, variety=config.variety) for m in config.modalities]
    return SubjectParams(
        subject=subject,
        pathology=pathology,
        sex=sex,
        anatomy=anatomy_params,
        lesions=lesions,
        contrasts=tuple(aged(c, anatomy_params.age, branch(generator, "age", c.modality)) for c in contrasts),
        acquisitions=tuple(sample_acquisition(m, site, generator, variety=config.variety) for m in config.modalities),
        stripping=None if config.variety == "usual" else sample_stripping(branch(generator, "stripping")),
    )


def render_subject(params: SubjectParams, *, spacing_mm: float, folder: Path | None = None) -> SubjectImages:
    """Return the images that `params` describe; pure. Anatomies other than the template's are read from `folder`."""
    anatomy = _build(params.anatomy, spacing_mm, folder)
    visible = anatomy.brain_mask if params.stripping is None else stripped_mask(anatomy, params.stripping)
    diseased, parts, mask = anatomy, [], None
    if params.lesions is not None:
        push = push_field(params.lesions, anatomy)
        diseased = anatomy if push is None else move_anatomy(anatomy, push)
        parts = build_lesions(diseased, params.lesions)
        mask = lesion_mask(parts, grid_shape(spacing_mm)) & anatomy.brain_mask & visible
    scans, healthy = {}, {}
    for contrast, acquisition in zip(params.contrasts, params.acquisitions, strict=True):
        normal = render(anatomy, contrast)
        rim = None if params.stripping is None else (params.stripping, max(contrast.means) * contrast.rim_brightness)
        healthy[contrast.modality] = _scan(normal, anatomy, visible, rim, acquisition)
        if params.lesions is None:
            continue
        ideal = normal if diseased is anatomy else render(diseased, contrast)
        ideal = paint(ideal, parts, contrast, diseased, sign=params.lesions.sign)
        scans[contrast.modality] = _scan(ideal, anatomy, visible, rim, acquisition)
    return SubjectImages(scans or healthy, healthy if scans else {}, mask, visible, anatomy)


def _scan(
    ideal: torch.Tensor,
    anatomy: Anatomy,
    visible: torch.Tensor,
    rim: tuple[StrippingParams, float] | None,
    acquisition: AcquisitionParams,
) -> torch.Tensor:
    """Return an ideal image as acquired, inside `visible`; `rim` is what lies around it, and how bright at most."""
    if rim is not None:
        ideal = add_rim(ideal, anatomy, *rim)
    return acquire(ideal, visible, acquisition, anatomy.spacing_mm)


def _draw_base(subject: str, config: CohortConfig) -> str | None:
    """Draw the anatomy of a subject from its own random stream, so that all other draws stay the same."""
    if not config.anatomies:
        return None
    generator = make_generator(config.seed, "anatomy", subject)
    if float(torch.rand((), generator=generator)) < config.template_share:
        return None
    return config.anatomies[int(torch.randint(len(config.anatomies), (), generator=generator))]


@lru_cache(maxsize=1)
def _build(params: AnatomyParams, spacing_mm: float, folder: Path | None) -> Anatomy:
    shape = grid_shape(spacing_mm)
    if params.base is None:
        return build_anatomy(params, shape=shape, spacing_mm=spacing_mm)
    if folder is None:
        raise UsageError(
            "a brain from a real anatomy needs the folder of anatomies",
            received=params.base,
            remedy="make the cohort again in the folder that holds its anatomies",
        )
    base = load_base(folder, params.base)
    return build_anatomy(params, shape=shape, spacing_mm=spacing_mm, base=base)
