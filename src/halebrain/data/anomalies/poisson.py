"""Poisson-blended foreign patches: PII (Tan et al., MICCAI 2021) and NSA (Schlüter et al., ECCV 2022).

Not the patch's intensities but its gradients are put in; its border fits the slice without a seam.
"""

import math
from functools import lru_cache

import torch
from pydantic import Field

from halebrain.data.anomalies.base import ANOMALIES, AnomalyGenerator, AnomalySettings, Params
from halebrain.data.anomalies.shapes import between, centres, drawn, foreign, shifted


class PoissonSettings(AnomalySettings):
    """Settings of Poisson blending.

    Args:
        size: Range of the sides in pixels.
        factor: Range of α, the share of the foreign gradients (PII).
        stronger_gradient_fraction: Share of patches that take the stronger gradient of both instead (NSA).
        moved_fraction: Share of patches that come from another place of the foreign slice (NSA); the rest from the
            same (PII).
    """

    size: tuple[float, float] = (10.0, 40.0)
    factor: tuple[float, float] = (0.2, 1.0)
    stronger_gradient_fraction: float = Field(default=0.3, ge=0, le=1)
    moved_fraction: float = Field(default=0.5, ge=0, le=1)


@ANOMALIES.register("poisson")
class PoissonAnomaly(AnomalyGenerator):
    r"""Solves $\Delta u = \mathrm{div}\,v$ in a rectangle with the slice on its border, v a mixture of gradients.

    Differs from paper: the target is the mask where something changed, not α or a difference, so that every anomaly has
    one kind of label.
    """

    Settings = PoissonSettings
    settings: PoissonSettings

    def sample_params(self, count: int, *, generator: torch.Generator) -> list[Params]:
        """Draw place, sides, the foreign slice and place, and how gradients are mixed."""
        s = self.settings
        return [
            {
                "present": u[0] < s.probability,
                "place": u[1],
                "size": [between(s.size, u[2]), between(s.size, u[3])],
                "offset": int(u[4] * 10_000),
                "factor": between(s.factor, u[5]),
                "strongest": u[6] < s.stronger_gradient_fraction,
                "source": u[7] if u[8] < s.moved_fraction else None,
            }
            for u in torch.rand(count, 9, generator=generator).tolist()
        ]

    def _altered(self, image: torch.Tensor, brain_mask: torch.Tensor, params: list[Params]) -> torch.Tensor:
        target = centres(brain_mask, drawn(params, "place"))
        offset = drawn(params, "offset")
        other_mask = foreign(brain_mask, offset)
        source = centres(other_mask, torch.tensor([p["source"] or 0.0 for p in params]))
        moved = torch.tensor([p["source"] is not None for p in params], device=image.device)[:, None]
        other = shifted(foreign(image, offset), torch.where(moved, target - source, torch.zeros_like(target)))
        altered = image.clone()
        for n, p in enumerate(params):
            box = _box(target[n], p["size"], image.shape[-2], image.shape[-1])
            if p["present"] and box is not None:
                ours, theirs = (x[n, 0][box] for x in (image, other))
                blended = blend(ours, theirs, factor=p["factor"], strongest=p["strongest"])
                altered[n, 0][box] = blended
        return altered


def blend(ours: torch.Tensor, theirs: torch.Tensor, *, factor: float, strongest: bool) -> torch.Tensor:
    """Return `ours` with the gradients of `theirs` mixed in; its outermost pixels stay, both `(h, w)`, at least 3 × 3.

    `factor` is the share of the foreign gradients; `strongest` takes the stronger gradient of both instead.
    """
    divergence = torch.zeros_like(ours[1:-1, 1:-1])
    for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
        mine, other = (x[1:-1, 1:-1] - x.roll(step, axis)[1:-1, 1:-1] for x in (ours, theirs))
        mixed = torch.where(other.abs() > mine.abs(), other, mine) if strongest else torch.lerp(mine, other, factor)
        divergence += mixed
    # What the border adds to the equations of its neighbours.
    divergence[0] += ours[0, 1:-1]
    divergence[-1] += ours[-1, 1:-1]
    divergence[:, 0] += ours[1:-1, 0]
    divergence[:, -1] += ours[1:-1, -1]
    (rows, row_values), (columns, column_values) = (_sines(size, ours.device, ours.dtype) for size in divergence.shape)
    # The sines are the eigenvectors of the second difference with fixed ends, so the solution is exact.
    inner = rows @ ((rows @ divergence @ columns) / (row_values[:, None] + column_values)) @ columns
    blended = ours.clone()
    blended[1:-1, 1:-1] = inner
    return blended


@lru_cache(maxsize=256)
def _sines(size: int, device: torch.device, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the orthonormal sine matrix `(n, n)`, its own inverse, and the eigenvalues of −∂² `(n,)`."""
    place = torch.arange(1, size + 1, device=device, dtype=dtype)
    sines = math.sqrt(2 / (size + 1)) * torch.sin(math.pi * place[:, None] * place / (size + 1))
    return sines, 2 - 2 * torch.cos(math.pi * place / (size + 1))


def _box(centre: torch.Tensor, size: list[float], height: int, width: int) -> tuple[slice, slice] | None:
    """Return the patch with its border, inside the slice; `None` where less than 3 pixels are left."""
    slices = []
    for middle, side, most in zip(centre.tolist(), size, (height, width), strict=True):
        start, stop = max(0, int(middle - side / 2) - 1), min(most, int(middle + side / 2) + 2)
        if stop - start < 3:
            return None
        slices.append(slice(start, stop))
    return slices[0], slices[1]
