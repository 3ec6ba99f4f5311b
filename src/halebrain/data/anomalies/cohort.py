"""The virtual cohort's diseases, and lesion masks of real patients, as anomalies on any healthy slice."""

import logging
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, field_validator
from scipy import ndimage
from torch.nn import functional as F

from halebrain.core.config import GrowingConfig
from halebrain.core.errors import DataError, MissingInputError, UsageError
from halebrain.core.random import make_generator
from halebrain.data.anomalies.base import ANOMALIES, AnomalyGenerator, Params
from halebrain.data.anomalies.shapes import between, column
from halebrain.io.checksum import json_sha256, scan_sha256
from halebrain.io.discovery import is_bids, scans_in
from halebrain.io.masks import look_at_values, mask_from
from halebrain.io.volume import read_volume
from halebrain.preprocessing.geometry import Grid, resample, working_grid
from halebrain.simulation.anatomy import build_anatomy, sample_anatomy
from halebrain.simulation.fields import smooth_noise
from halebrain.simulation.pathology import PATHOLOGIES, LesionPart, build_lesions, sample_lesions

_SHAPE, _SPACING_MM = (96, 96, 80), 2.0
_LEAST_PIXELS = 12
"""Slices with less lesion are not kept."""
_FLUID_SHARE = 0.25
"""Share of masks that stand for a cavity."""
_log = logging.getLogger(__name__)


class CohortAnomalySettings(GrowingConfig):
    """Settings of the simulated diseases.

    Args:
        probability: Share of slices that get an anomaly.
        diseases: Names of simulators; there are "haemorrhage", "cavity" and "mass", too.
        patients: Patients of each disease whose lesions are drawn once and used again, moved and mirrored.
        sign: "bright" as on FLAIR and T2, "dark" as on T1, or "both".
        change: Range of the strongest change of intensity.
        library_seed: Which patients.
        fluid: Range of the intensity of what is filled with fluid.
        masks: Folder of lesion masks in template space, whose shapes are drawn as often as the simulated ones. Both
            have pixels of 2 mm, so they are larger or smaller on a working grid of another spacing.
        border: Fraction of the full change below which the soft border of a lesion is left out, as raters would.
    """

    ADDED_FIELDS: ClassVar[frozenset[str]] = frozenset({"fluid", "masks", "border"})

    probability: float = Field(default=0.5, ge=0, le=1)
    diseases: tuple[str, ...] = ("ms", "stroke", "tumour", "wmh")
    patients: int = Field(default=8, ge=1)
    sign: Literal["bright", "dark", "both"] = "bright"
    change: tuple[float, float] = (0.15, 0.6)
    library_seed: int = 0
    fluid: tuple[float, float] = (0.0, 0.3)
    masks: Path | None = None
    border: float = Field(default=0.0, ge=0, lt=1)

    @field_validator("diseases")
    @classmethod
    def _are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            PATHOLOGIES.get(name)
        return value


@ANOMALIES.register("cohort")
class CohortAnomaly(AnomalyGenerator):
    """Takes an axial slice of a simulated patient's lesions, moves, mirrors and scales it, and paints it in."""

    Settings = CohortAnomalySettings
    settings: CohortAnomalySettings

    def files_sha256(self) -> str:
        """Return a hash of the lesion masks and of their names, which decide how they are filled."""
        folder = self.settings.masks
        mask_library.cache_clear()  # what is drawn is what was hashed, also where masks changed since the last run
        return "" if folder is None else json_sha256([[path.name, scan_sha256(path)] for path in _masks_in(folder)])

    def sample_params(self, count: int, *, generator: torch.Generator) -> list[Params]:
        """Draw the lesion slice, where it goes, and how strong it is."""
        s = self.settings
        return [
            {
                "present": u[0] < s.probability,
                "slice": u[1],
                "mirrored": u[2] < 0.5,
                "zoom": 0.8 + 0.45 * u[3],
                "shift": [12 * u[4] - 6, 12 * u[5] - 6],
                "sign": {"bright": 1.0, "dark": -1.0, "both": 1.0 if u[6] < 0.5 else -1.0}[s.sign],
                "change": between(s.change, u[7]),
                "fluid": between(s.fluid, u[8]),
            }
            for u in torch.rand(count, 9, generator=generator).tolist()
        ]

    def _altered(self, image: torch.Tensor, brain_mask: torch.Tensor, params: list[Params]) -> torch.Tensor:
        s = self.settings
        simulated = lesion_library(s.diseases, s.patients, s.library_seed)
        libraries = [simulated] if s.masks is None else [simulated, mask_library(s.masks)]

        chosen = torch.stack([_pick(libraries, p["slice"]) for p in params]).to(image.device)
        height, width = image.shape[-2:]
        # A pixel of the library is one of ours; the grid says where in the library's slice each pixel of ours is read.
        rows = (torch.arange(height, device=image.device) - (height - 1) / 2)[None, :, None]
        columns = (torch.arange(width, device=image.device) - (width - 1) / 2)[None, None, :]
        shift = torch.tensor([p["shift"] for p in params], device=image.device)
        mirror = 1 - 2 * column(params, "mirrored", image)[:, 0].float()
        y = mirror * (rows - shift[:, 0, None, None]) / column(params, "zoom", image)[:, 0] / (_SHAPE[0] / 2)
        x = (columns - shift[:, 1, None, None]) / column(params, "zoom", image)[:, 0] / (_SHAPE[1] / 2)
        grid = torch.stack([x + 0 * y, y + 0 * x], dim=-1)
        maps = F.grid_sample(chosen, grid, mode="bilinear", align_corners=False)
        maps = maps * (maps.abs() > s.border)
        wet = image + column(params, "sign", image) * column(params, "change", image) * maps[:, :1]
        altered = torch.lerp(wet, column(params, "fluid", image).expand_as(wet), maps[:, 1:].clamp(0, 1))
        return altered


def _pick(libraries: list[torch.Tensor], place: float) -> torch.Tensor:
    """Return the slice at `place` in [0, 1) of several libraries, each of which has an equal share."""
    number = int(place * len(libraries))
    library = libraries[number]
    return library[int((place * len(libraries) - number) * len(library))]


@lru_cache(maxsize=4)
def lesion_library(diseases: tuple[str, ...], patients: int, seed: int) -> torch.Tensor:
    """Return axial slices of simulated lesions on the 2 mm grid, `(n, 2, 96, 96)`: how wet and how fluid, about [0, 1].

    Made once a process, in seconds.
    """
    found = []
    for disease in diseases:
        # One brain a disease: slices are moved and mirrored anyway, and brains cost more than lesions.
        generator = make_generator(seed, "lesion library", disease)
        anatomy = build_anatomy(sample_anatomy(generator), shape=_SHAPE, spacing_mm=_SPACING_MM)
        for _ in range(patients):
            parts = build_lesions(anatomy, sample_lesions(disease, anatomy, generator))
            maps = _maps(parts)
            shows = (maps.amax(dim=0) > 0.3).sum(dim=(0, 1)) >= _LEAST_PIXELS
            found += [maps[..., k] for k in shows.nonzero().flatten().tolist()[::3]]
    return torch.stack(found)


def _maps(parts: list[LesionPart]) -> torch.Tensor:
    """Return wetness and fluid `(2, i, j, k)`; later parts lie on top of earlier ones, as the cohort paints them."""
    maps = torch.zeros(2, *_SHAPE)
    for part in parts:
        p, box = part.params, (slice(None), *part.box)
        size = part.extent.shape
        grain = p.texture * smooth_noise((size[0], size[1], size[2]), wavelength_mm=7, spacing_mm=2, seed=p.seed + 5)
        wanted = torch.stack([p.water * (1 + grain), torch.full_like(part.extent, p.fluid)])
        maps[box] = torch.lerp(maps[box], wanted, part.extent)
    return maps


@lru_cache(maxsize=2)
def mask_library(folder: Path) -> torch.Tensor:
    """Return axial slices of lesion masks on the 2 mm grid, `(n, 2, 96, 96)`: how wet and how fluid, in about [0, 1].

    How a mask is filled is drawn from its name, so that the same folder gives the same slices. Masks lie in template
    space, in any format; files with more than one value besides 0, or with too little lesion in every slice, are left
    out and named in a warning.
    """
    found: list[torch.Tensor] = []
    for path in _masks_in(folder):
        found += _slices(path)
    if not found:
        raise MissingInputError(
            "the folder must hold a lesion mask to take shapes from",
            where=folder,
            remedy="add masks in template space with 0 and one other value, and a slice of 0.5 cm² or more",
        )
    return torch.stack(found)


def _masks_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise MissingInputError(
            "lesion masks must be in a folder", where=folder, remedy="check the path given as masks"
        )
    if is_bids(folder):  # which holds scans and brain masks too
        raise UsageError(
            "lesion masks must be in their own folder",
            received="a BIDS data set",
            where=folder,
            remedy="copy the masks of lesions to a folder without other images",
        )
    return scans_in(folder, masks=True)


def _slices(path: Path) -> list[torch.Tensor]:
    volume = read_volume(path)
    notes: list[str] = []
    if len(look_at_values(volume.data, path).labels) != 1:
        _log.warning("%s: left out, a lesion mask must hold 0 and one other value", path.name)
        return []
    mask = mask_from(volume.data, path, notes)
    for note in notes:
        _log.warning("%s", note)
    extent = resample(mask.astype(np.float32), Grid(volume.shape, volume.affine), working_grid(_SHAPE, _SPACING_MM))
    if not extent.any():
        raise DataError("a lesion mask must lie in template space", where=path, remedy="register it first")
    generator = make_generator("mask library", path.name)
    soft, water, grain, fluid, seed = torch.rand(5, generator=generator).tolist()
    extent = np.clip(ndimage.gaussian_filter(extent, 0.3 + 0.7 * soft), 0, 1)
    noise = smooth_noise(_SHAPE, wavelength_mm=8, spacing_mm=_SPACING_MM, seed=int(seed * 2**40))
    wet = torch.from_numpy(extent) * (0.6 + 0.6 * water) * (1 + 0.4 * grain * noise).clamp_min(0)
    filled = torch.from_numpy(extent) * (0.5 + 2 * fluid if fluid < _FLUID_SHARE else 0.0)
    maps = torch.stack([wet, filled])
    shows = (torch.from_numpy(extent) > 0.5).sum(dim=(0, 1)) >= _LEAST_PIXELS
    if not shows.any():
        _log.warning("%s: left out, no slice of it has %d pixels of 2 mm", path.name, _LEAST_PIXELS)
    # Every second slice: neighbours are nearly the same.
    return [maps[..., k].contiguous() for k in shows.nonzero().flatten().tolist()[::2]]
