"""Making a virtual cohort: draws people, renders each in every modality, and writes files, manifest and montage."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field

from halebrain.core.atomic import atomic_folder, write_text
from halebrain.core.config import Config, GrowingConfig
from halebrain.core.errors import CannotWriteError, UsageError
from halebrain.core.parallel import map_items
from halebrain.core.progress import track
from halebrain.core.random import branch, make_generator
from halebrain.core.registry import suggestion
from halebrain.core.types import TEMPLATE_SPACE
from halebrain.data.cohort.acquisition import SITES, AcquisitionParams, acquire, sample_acquisition
from halebrain.data.cohort.anatomy import Anatomy, AnatomyParams, build_anatomy, move_anatomy, sample_anatomy
from halebrain.data.cohort.anatomy_source import load_base
from halebrain.data.cohort.contrast import render
from halebrain.data.cohort.contrast_params import MODALITIES, ContrastParams, Variety, sample_contrast
from halebrain.data.cohort.dataset_files import write_dataset_files
from halebrain.data.cohort.pathology import (
    PATHOLOGIES,
    LesionParams,
    build_lesions,
    lesion_mask,
    paint,
    push_field,
    sample_lesions,
)
from halebrain.data.cohort.stripping import StrippingParams, add_rim, sample_stripping, stripped_mask
from halebrain.io.bids_derivative import DESCRIPTION
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.io.nifti import write_volume

_AGES = {"ms": (20.0, 60.0), "wmh": (55.0, 88.0), "stroke": (40.0, 88.0), "tumour": (25.0, 80.0)}
USUAL_PATHOLOGIES = ("ms", "stroke", "tumour", "wmh")
"""What a cohort has where nothing is said."""
_FIELD_MM = (192, 192, 160)
_PARAMETERS = "parameters.json"
_FORMAT = 1
ANATOMIES = "anatomies"
"""Folder of the cohort in which its anatomies are kept."""


class CohortConfig(GrowingConfig):
    """What cohort to make; the same settings give the same files.

    Args:
        healthy: Number of healthy subjects.
        patients: Number of patients of each pathology.
        modalities: What each subject is scanned with.
        pathologies: Which diseases.
        seed: Seed of everything that is drawn.
        spacing_mm: Voxel size; 2 is the working grid of the networks.
        split_fractions: Shares of train, val and test among healthy subjects and among each pathology.
        anatomies: Names of the anatomies in the cohort's folder that brains are made of, beside the template's.
        template_share: Share of brains that are made of the template where there are other anatomies.
        variety: How much scans differ: "usual", or "wide" as those of many scanners, with artefacts and imperfect brain
            masks.
        prefix: What the labels of all subjects begin with, letters and digits. Labels do not hang on the seed, so a
            cohort beside another one needs a prefix, and has other people.
    """

    LATER: ClassVar[frozenset[str]] = frozenset({"anatomies", "template_share", "variety", "prefix"})

    healthy: int = 20
    patients: int = 5
    modalities: tuple[str, ...] = ("T1w", "T2w", "FLAIR")
    pathologies: tuple[str, ...] = USUAL_PATHOLOGIES
    seed: int = 0
    spacing_mm: float = 2.0
    split_fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    anatomies: tuple[str, ...] = ()
    template_share: float = Field(default=0.2, ge=0, le=1)
    variety: Variety = "usual"
    prefix: str = ""


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
    """Draw one subject; depends on the seed and the subject's label alone.

    Args:
        subject: Its label.
        pathology: "healthy", or its disease.
        config: The cohort.
        folder: Where the cohort's anatomies lie; needed where it has some.
    """
    generator = make_generator(config.seed, "cohort", subject)
    anatomy_params = sample_anatomy(generator, age_range=_AGES.get(pathology, (20.0, 85.0)))
    anatomy_params = anatomy_params.model_copy(update={"base": _draw_base(subject, config)})
    anatomy = _build(anatomy_params, config.spacing_mm, folder)
    lesions = None if pathology == "healthy" else sample_lesions(pathology, anatomy, generator)
    site = int(torch.randint(len(SITES), (), generator=generator))
    return SubjectParams(
        subject=subject,
        pathology=pathology,
        sex="F" if float(torch.rand((), generator=generator)) < 0.5 else "M",
        anatomy=anatomy_params,
        lesions=lesions,
        contrasts=tuple(sample_contrast(m, generator, variety=config.variety) for m in config.modalities),
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


def generate_cohort(output: Path, config: CohortConfig, *, workers: int = 0) -> Manifest:
    """Write the cohort to `output`, skipping subjects that are there already, and return its manifest.

    Args:
        output: Where it goes.
        config: What to make.
        workers: Processes, each with one thread; 0 = this one. The files are the same.

    Raises:
        UsageError: A modality or pathology is unknown, or nobody is asked for.
        CannotWriteError: `output` holds a cohort made with other settings.
    """
    _check(config)
    _claim(output, config)
    people = _people(config)
    missing = [
        (output, subject, pathology, config)
        for subject, (pathology, _) in people.items()
        if not (output / f"sub-{subject}" / _PARAMETERS).exists()
    ]
    made = map_items(_make_subject, missing, workers=workers)
    for _, error in track(made, description="Virtual cohort", total=len(missing)):
        if error is not None:
            raise error
    records: list[ScanRecord] = []
    for subject, (_, split) in people.items():
        folder = output / f"sub-{subject}"
        text = (folder / _PARAMETERS).read_text(encoding="utf-8")
        records += _records(folder, SubjectParams.model_validate_json(text), split)
    manifest = Manifest(tuple(records), source=output / "manifest.tsv")
    manifest.write(output / "manifest.tsv")
    return manifest


def _make_subject(task: tuple[Path, str, str, CohortConfig]) -> None:
    output, subject, pathology, config = task
    bases = output / ANATOMIES
    params = sample_subject(subject, pathology, config, folder=bases)
    images = render_subject(params, spacing_mm=config.spacing_mm, folder=bases)
    _write_subject(output / f"sub-{subject}", params, images)


def _draw_base(subject: str, config: CohortConfig) -> str | None:
    """Return the anatomy that a subject is made of, by a stream of its own: other draws stay as they are without."""
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
            "a brain made of a real anatomy needs the folder of anatomies",
            received=params.base,
            remedy="make the cohort again where its anatomies are",
        )
    base = load_base(folder, params.base).tissues
    return build_anatomy(params, shape=shape, spacing_mm=spacing_mm, base=base)


def _check(config: CohortConfig) -> None:
    for kind, names, known in (
        ("modality", config.modalities, list(MODALITIES)),
        ("pathology", config.pathologies, PATHOLOGIES.names()),
    ):
        for name in names:
            if name not in known:
                raise UsageError(f"a {kind} must be a known one", received=repr(name), remedy=suggestion(name, known))
    if config.prefix and not (config.prefix.isascii() and config.prefix.isalnum()):
        raise UsageError(
            "a prefix of labels is made of letters and digits",
            received=repr(config.prefix),
            remedy="for example --prefix second",
        )
    if config.healthy + config.patients * len(config.pathologies) == 0 or not config.modalities:
        raise UsageError(
            "a cohort needs at least one subject and one modality", remedy="raise --subjects or --patients"
        )


def _claim(output: Path, config: CohortConfig) -> None:
    """Write what the data set says of itself, or make sure that the description there is of the same cohort."""
    cohort = {"Format": _FORMAT, **config.model_dump(mode="json")}
    path = output / DESCRIPTION
    if path.exists() and json.loads(path.read_text(encoding="utf-8")).get("Cohort") != cohort:
        raise CannotWriteError(
            "a cohort is resumed with the settings that it began with",
            received="other settings",
            where=path,
            remedy="choose another folder, or --overwrite",
        )
    ignored = ("manifest.*", "montage.png", ANATOMIES, f"**/{_PARAMETERS}")
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


def _write_subject(folder: Path, params: SubjectParams, images: SubjectImages) -> None:
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
        write_text(temporary / _PARAMETERS, params.model_dump_json(indent=1) + "\n")


def _write(stem: Path, suffix: str, image: torch.Tensor, affine: np.ndarray[Any, np.dtype[np.float64]]) -> None:
    path = stem.with_name(f"{stem.name}_{suffix}.nii.gz")
    if image.dtype == torch.bool:
        write_volume(path, image.numpy().astype(np.uint8), affine, dtype=np.uint8, space=TEMPLATE_SPACE)
    else:
        # Intensities of arbitrary units, as scanners give them.
        write_volume(path, (image * 1000).round().numpy(), affine, dtype=np.int16, space=TEMPLATE_SPACE)


def _records(folder: Path, params: SubjectParams, split: str) -> list[ScanRecord]:
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


def grid_shape(spacing_mm: float) -> tuple[int, int, int]:
    """Return the voxels of a cohort's grid."""
    i, j, k = (round(n / spacing_mm) for n in _FIELD_MM)
    return i, j, k


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
    path = folder / DESCRIPTION
    if not path.is_file():
        return False
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(description, dict) and "Cohort" in description
