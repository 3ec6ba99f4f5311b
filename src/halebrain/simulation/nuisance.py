"""Normal variants that mimic lesions: choroid plexus, septum, flow in CSF and vessels, limbic cortex, iron.

Each is a soft map on the anatomy times a change of intensity. Places are boxes in template space: a virtual brain lies
there up to a few millimetres.
"""

import torch

from halebrain.simulation.anatomy import CSF, DEEP, GM, VENTRICLE, WM, Anatomy
from halebrain.simulation.contrast_params import ContrastParams
from halebrain.simulation.fields import coordinates_mm, smooth_noise

_BORDER_MM = 4.0
"""Width over which a box fades out."""


def add_nuisances(image: torch.Tensor, anatomy: Anatomy, params: ContrastParams) -> torch.Tensor:
    """Return the ideal image with everything in it whose strength is not 0; pure."""
    for strength, paint in (
        (params.choroid, _choroid),
        (params.septum, _septum),
        (params.flow, _flow),
        (params.limbic, _limbic),
        (params.iron, _iron),
        (params.voids, _voids),
    ):
        if strength != 0:
            image = image + paint(anatomy, params)
    return image


def _choroid(anatomy: Anatomy, params: ContrastParams) -> torch.Tensor:
    """Choroid plexus in the lateral ventricles: as grey as tissue, bright with contrast agent and on FLAIR."""
    x, y, z = _positions(anatomy)
    place = _between(x.abs(), 10, 32) * _between(y, -52, -12) * _between(z, -6, 22)
    tufts = ((_field(anatomy, params, 40, 7) + 0.2) * 1.5).clamp(0, 1) * place * anatomy.tissues[VENTRICLE]
    return tufts * (params.choroid * params.means[GM] - params.means[VENTRICLE])


def _septum(anatomy: Anatomy, params: ContrastParams) -> torch.Tensor:
    """The sheet between the lateral ventricles, too thin for the tissue maps, and often the brightest line on FLAIR."""
    x, y, z = _positions(anatomy)
    middle = torch.exp(-((x / 2.0) ** 2))
    place = middle * _between(y, -30, 26) * _between(z, 2, 24) * anatomy.tissues[VENTRICLE]
    return place * (params.septum * params.means[WM] - params.means[VENTRICLE])


def _flow(anatomy: Anatomy, params: ContrastParams) -> torch.Tensor:
    """CSF that moves, in cisterns, third and fourth ventricle: FLAIR fails to null it, T2 loses its signal."""
    x, y, z = _positions(anatomy)
    low = _between(x.abs(), -1, 26) * _between(y, -62, 14) * _between(z, -60, -2)
    middle = _between(x.abs(), -1, 7) * _between(y, -40, 12) * _between(z, -8, 12)
    fluid = anatomy.tissues[CSF] + anatomy.tissues[VENTRICLE]
    streams = (_field(anatomy, params, 41, 14) + 0.4).clamp(0, 1)
    return torch.maximum(low, middle) * fluid * streams * params.flow


def _limbic(anatomy: Anatomy, params: ContrastParams) -> torch.Tensor:
    """Cingulate, insular and mesial temporal cortex, brighter than the rest on FLAIR."""
    x, y, z = _positions(anatomy)
    cingulate = _between(x.abs(), -1, 12) * _between(y, -45, 50) * _between(z, -2, 45)
    insula = _between(x.abs(), 28, 46) * _between(y, -25, 25) * _between(z, -14, 18)
    mesial = _between(x.abs(), 14, 36) * _between(y, -38, 4) * _between(z, -32, -6)
    place = torch.maximum(torch.maximum(cingulate, insula), mesial)
    return place * anatomy.tissues[GM] * params.limbic * params.means[GM]


def _iron(anatomy: Anatomy, params: ContrastParams) -> torch.Tensor:
    """Pallidum, red nucleus and dentate: dark on T2 with age and field strength."""
    x, y, z = _positions(anatomy)
    pallidum = _between(x.abs(), 12, 24) * _between(y, -16, 6) * _between(z, -8, 8)
    midbrain = _between(x.abs(), 2, 14) * _between(y, -26, -12) * _between(z, -16, -6)
    spots = (0.7 + 0.5 * _field(anatomy, params, 42, 9)).clamp(0, 1)
    tissue = anatomy.tissues[DEEP] + anatomy.tissues[WM]
    return -params.iron * params.means[DEEP] * torch.maximum(pallidum, midbrain) * spots * tissue


def _voids(anatomy: Anatomy, params: ContrastParams) -> torch.Tensor:
    """Arteries and veins in the CSF: blood that flows gives no signal; most of them at the base and in the midline."""
    x, y, z = _positions(anatomy)
    base = _between(x.abs(), -1, 45) * _between(y, -45, 25) * _between(z, -45, -4)
    often = 0.3 + torch.maximum(base, _between(x.abs(), -1, 5))
    streams = ((_field(anatomy, params, 43, 5) + 0.7 * often - 1.3) * 3).clamp(0, 1)
    return -params.voids * params.means[CSF] * streams * anatomy.tissues[CSF]


def _positions(anatomy: Anatomy) -> torch.Tensor:
    i, j, k = anatomy.brain_mask.shape
    return coordinates_mm((i, j, k), torch.from_numpy(anatomy.grid.affine).float())


def _field(anatomy: Anatomy, params: ContrastParams, number: int, wavelength_mm: float) -> torch.Tensor:
    i, j, k = anatomy.brain_mask.shape
    return smooth_noise(
        (i, j, k), wavelength_mm=wavelength_mm, spacing_mm=anatomy.spacing_mm, seed=params.seed + number
    )


def _between(value: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Return 1 well inside [low, high], 0 well outside, with soft borders."""
    return torch.sigmoid((value - low) * 4 / _BORDER_MM) * torch.sigmoid((high - value) * 4 / _BORDER_MM)
