"""The healthy residual map: what a model's residual x − R(x) is like in healthy brains, at each voxel of its grid.

A reconstruction is never exact: gyri, ventricles and the rim of the brain leave a residual in healthy people, too. Mean
and spread of it over healthy scans turn the residual of a patient into a number of standard deviations.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.numpy
from pydantic import Field
from safetensors import SafetensorError

from halebrain.core.config import Config, parse_config
from halebrain.core.errors import DataError
from halebrain.core.moments import VoxelSums
from halebrain.core.types import Affine, FloatArray

MIN_SUBJECTS = 5
"""Fewest healthy people of a contrast for a map of it."""
SIGMA_VOXELS = 1.0
"""Standard deviation of the Gaussian neighbourhood over which mean and spread are pooled, in voxels."""
STRIDE_VOXELS = 2
"""A new map has one node in so many voxels along each axis: the pooled moments change slowly, and the file is an eighth
as large."""
_FLOOR = 0.02
"""Added to the spread, which few scans can underestimate (2 % of the intensity range)."""
_STEP = 2.0**-11
"""Values are multiples of this, a fortieth of the floor, so that the file packs well."""
_REMEDY = "copy the bundle again"


class HealthyScans(Config):
    """The scans behind the map of one contrast.

    Args:
        n_scans: How many there are.
        subjects: Whose they are; evaluating on one of these people is an error.
        manifest_sha256: Fingerprint of the scans.
        sigma_voxels: Standard deviation of the Gaussian neighbourhood over which the moments are pooled, in voxels.
        stride_voxels: Voxels from one node of the map to the next, along each axis; between them it is linear.
    """

    n_scans: int = Field(ge=1)
    subjects: tuple[str, ...]
    manifest_sha256: str
    sigma_voxels: float = Field(ge=0)
    stride_voxels: int = Field(default=1, ge=1)


@dataclass(frozen=True)
class HealthyResidual:
    """Mean and spread of the residual in healthy scans of one contrast; arrays `(i, j, k)` on the working grid.

    Args:
        mean: Of x − R(x), intensities in [0, 1].
        std: Standard deviation over scans and neighbourhood; infinite where fewer than two scans show brain.
        coverage: Share of the scans that show brain, in [0, 1].
        scans: Those scans.
    """

    mean: FloatArray
    std: FloatArray
    coverage: FloatArray
    scans: HealthyScans

    @classmethod
    def of(cls, sums: VoxelSums, scans: HealthyScans) -> "HealthyResidual":
        """Return the map of residuals that were summed over healthy scans."""
        mean, std = sums.pooled(scans.sigma_voxels)
        coverage = (sums.count / scans.n_scans).astype(np.float32)
        at = _nodes(scans.stride_voxels)
        nodes = (_rounded(np.where(np.isinf(std), 0, mean))[at], _rounded(std)[at], coverage[at])
        return cls.between(*nodes, scans, mean.shape)

    @classmethod
    def between(
        cls, mean: FloatArray, std: FloatArray, coverage: FloatArray, scans: HealthyScans, shape: tuple[int, ...]
    ) -> "HealthyResidual":
        """Return the map on a grid of `shape` from its nodes: linear between those where the spread is known."""
        known = np.isfinite(std)
        weight = _linear(known.astype(np.float32), shape, scans.stride_voxels)

        def volume(values: FloatArray, elsewhere: float) -> FloatArray:
            total = _linear(np.where(known, values, 0).astype(np.float32), shape, scans.stride_voxels)
            return np.where(weight > 0, total / np.maximum(weight, 1e-6), elsewhere).astype(np.float32)

        return cls(volume(mean, 0), volume(std, np.inf), volume(coverage, 0), scans)

    def z(self, residual: FloatArray) -> FloatArray:
        """Return (r − mean) / (std + 0.02) of a residual x − R(x), `(i, j, k)`; 0 where the spread is not known."""
        return np.asarray((residual - self.mean) / (self.std + _FLOOR), dtype=np.float32)


@dataclass(frozen=True)
class HealthyResiduals:
    """The healthy residual map of a model: contrast (BIDS suffix) → map, all on one grid of template space.

    Args:
        shape: Voxels of the working grid.
        affine: From voxel to template space in mm, `(4, 4)`.
        contrasts: The map of each contrast.
    """

    shape: tuple[int, int, int]
    affine: Affine
    contrasts: Mapping[str, HealthyResidual]

    def of_contrast(self, contrast: str | None) -> HealthyResidual:
        """Return the map of a contrast, a BIDS suffix.

        Raises:
            DataError: The contrast is not known (`None`), or the map has none of it.
        """
        if contrast is not None and contrast in self.contrasts:
            return self.contrasts[contrast]
        raise DataError(
            "a normalised residual needs a scan of a contrast that is in the model's healthy map",
            received=f"{contrast or 'unknown contrast'}; the map has {', '.join(sorted(self.contrasts))}",
            remedy="state the contrast (--modality), or add it: halebrain calibrate --healthy-map",
        )

    def check_grid(self, shape: tuple[int, ...], affine: Affine, *, where: object = "") -> None:
        """Raise a `DataError` unless the map lies on this grid."""
        if shape != self.shape or not np.allclose(affine, self.affine, atol=1e-3):
            raise DataError(
                "a healthy map must lie on the working grid of the scan",
                received=f"{self.shape} at {_corner(self.affine)} mm for a grid of {shape} at {_corner(affine)} mm",
                where=where,
                remedy="fit the map again: halebrain calibrate --healthy-map",
            )

    def subjects(self) -> tuple[str, ...]:
        """Return the healthy people behind the map, sorted."""
        return tuple(sorted({subject for one in self.contrasts.values() for subject in one.scans.subjects}))

    def updated(self, newer: "HealthyResiduals") -> "HealthyResiduals":
        """Return this map with the contrasts of a newer one, which replace those that it has."""
        newer.check_grid(self.shape, self.affine)
        return HealthyResiduals(self.shape, self.affine, {**self.contrasts, **newer.contrasts})

    def to_bytes(self) -> bytes:
        """Return the file: safetensors, float16, only nodes where the spread is known."""
        tensors: dict[str, Any] = {"shape": np.array(self.shape, dtype=np.int64), "affine": np.array(self.affine)}
        for contrast, one in sorted(self.contrasts.items()):
            at = _nodes(one.scans.stride_voxels)
            mean, std, coverage = one.mean[at], one.std[at], one.coverage[at]
            known = np.isfinite(std)
            tensors[f"{contrast}.known"] = np.packbits(known)
            tensors[f"{contrast}.mean"] = mean[known].astype(np.float16)
            tensors[f"{contrast}.std"] = std[known].astype(np.float16)
            counted = np.uint8 if one.scans.n_scans < 256 else np.uint32
            tensors[f"{contrast}.count"] = np.rint(coverage[known] * one.scans.n_scans).astype(counted)
        return safetensors.numpy.save(tensors)

    def about(self) -> dict[str, Any]:
        """Return what the manifest of a bundle states of the map: contrast → its scans."""
        return {name: one.scans.model_dump(mode="json") for name, one in sorted(self.contrasts.items())}

    @classmethod
    def from_bytes(cls, raw: bytes, about: object, *, where: object) -> "HealthyResiduals":
        """Return the map of a file and of what the manifest states of it.

        Raises:
            DataError: They are not as `to_bytes` and `about` write them.
        """
        stated = about if isinstance(about, dict) else {}
        scans = {str(name): parse_config(HealthyScans, value, where=where) for name, value in stated.items()}
        try:
            tensors = safetensors.numpy.load(raw)
            i, j, k = (int(n) for n in tensors["shape"])
            affine: Affine = tensors["affine"].astype(np.float64).reshape(4, 4)
            read = {name.rpartition(".")[0] for name in tensors if "." in name}
            if not scans or read != set(scans):
                raise ValueError(f"contrasts {sorted(read)}, where the manifest states {sorted(scans)}")
            contrasts = {name: _read(tensors, name, (i, j, k), own) for name, own in scans.items()}
        except (SafetensorError, ValueError, KeyError, IndexError, TypeError) as error:
            raise DataError(
                "a healthy map must be as calibrate wrote it", received=repr(error), where=where, remedy=_REMEDY
            ) from error
        return cls((i, j, k), affine, contrasts)


def _read(
    tensors: Mapping[str, Any], contrast: str, shape: tuple[int, int, int], scans: HealthyScans
) -> HealthyResidual:
    nodes = tuple(-(-length // scans.stride_voxels) for length in shape)
    size = int(np.prod(nodes))
    bits = tensors[f"{contrast}.known"]
    if bits.dtype != np.uint8 or len(bits) != (size + 7) // 8:
        raise ValueError(f"{contrast}: {len(bits)} bytes of known nodes for a grid of {nodes}")
    known = np.unpackbits(bits, count=size).astype(bool).reshape(nodes)

    def filled(name: str, elsewhere: float) -> FloatArray:
        values = np.full(nodes, elsewhere, dtype=np.float32)
        values[known] = tensors[f"{contrast}.{name}"]
        if not np.isfinite(values[known]).all():
            raise ValueError(f"{contrast}: {name} must be finite")
        return values

    coverage: FloatArray = filled("count", 0) / np.float32(scans.n_scans)
    return HealthyResidual.between(filled("mean", 0), filled("std", np.inf), coverage, scans, shape)


def _nodes(stride: int) -> tuple[slice, ...]:
    return (slice(None, None, stride),) * 3


def _linear(nodes: FloatArray, shape: tuple[int, ...], stride: int) -> FloatArray:
    """Return a volume of `shape` with nodes at each `stride`-th voxel, linear between, constant after the last."""
    for axis, length in enumerate(shape):
        lower, step = np.divmod(np.arange(length), stride)
        upper = np.minimum(lower + 1, nodes.shape[axis] - 1)
        ahead = (step / stride).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        nodes = (1 - ahead) * nodes.take(lower, axis) + ahead * nodes.take(upper, axis)
    return nodes


def _rounded(values: FloatArray) -> FloatArray:
    return (np.round(values / _STEP) * _STEP).astype(np.float16).astype(np.float32)


def _corner(affine: Affine) -> str:
    return " × ".join(f"{float(value):g}" for value in affine[:3, 3])
