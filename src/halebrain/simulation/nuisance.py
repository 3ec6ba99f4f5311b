"""Normal variants that mimic lesions: choroid plexus, septum, flow in CSF and vessels, limbic cortex, iron.

Each is a soft map on the anatomy times a change of intensity. Places are boxes in template space: a virtual brain lies
there up to a few millimetres.
"""

import torch

from halebrain.simulation.anatomy import CSF, DEEP, GM, VENTRICLE, WM, Anatomy
from halebrain.simulation.contrast_params import ContrastParams

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
    x, y, z = anatomy.positions_mm()
    place = _between(x.abs(), 10, 32) * _between(y, -52, -12) * _between(z, -6, 22)
    tufts = ((anatomy.noise(7, params.seed + 40) + 0.2) * 1.5).clamp(0, 1) * place * anatomy.tissues[VENTRICLE]
    return tufts * (params.choroid * params.means[GM] - params.means[VENTRICLE])


def _septum(anatomy: Anatomy, params: ContrastParams) -> torch.Tensor:
    """The sheet between the lateral ventricles, too thin for the tissue maps, and often the brightest line on FLAIR."""
    x, y, z = anatomy.positions_mm()
    middle = torch.exp(-((x / 2.0) ** 2))
    place = middle * _between(y, -30, 26) * _between(z, 2, 24) * anatomy.tissues[VENTRICLE]
    return place * (params.septum * params.means[WM] - params.means[VENTRICLE])


def _flow(anatomy: Anatomy, params: ContrastParams) -> torch.Tensor:
    """CSF that moves, in cisterns, third and fourth ventricle: FLAIR fails to null it, T2 loses its signal."""
    x, y, z = anatomy.positions_mm()
    low = _between(x.abs(), -1, 26) * _between(y, -62, 14) * _between(z, -60, -2)
    middle = _between(x.abs(), -1, 7) * _between(y, -40, 12) * _between(z, -8, 12)
    fluid = anatomy.tissues[CSF] + anatomy.tissues[VENTRICLE]
    streams = (anatomy.noise(14, params.seed + 41) + 0.4).clamp(0, 1)
    return torch.maximum(low, middle) * fluid * streams * params.flow


def _limbic(anatomy: Anatomy, params: ContrastParams) -> torch.Tensor:
    """Cingulate, insular and mesial temporal cortex, brighter than the rest on FLAIR."""
    x, y, z = anatomy.positions_mm()
    cingulate = _between(x.abs(), -1, 12) * _between(y, -45, 50) * _between(z, -2, 45)
    insula = _between(x.abs(), 28, 46) * _between(y, -25, 25) * _between(z, -14, 18)
    mesial = _between(x.abs(), 14, 36) * _between(y, -38, 4) * _between(z, -32, -6)
    place = torch.maximum(torch.maximum(cingulate, insula), mesial)
    return place * anatomy.tissues[GM] * params.limbic * params.means[GM]


def _iron(anatomy: Anatomy, params: ContrastParams) -> torch.Tensor:
    """Pallidum, red nucleus and dentate: dark on T2 with age and field strength."""
    x, y, z = anatomy.positions_mm()
    pallidum = _between(x.abs(), 12, 24) * _between(y, -16, 6) * _between(z, -8, 8)
    midbrain = _between(x.abs(), 2, 14) * _between(y, -26, -12) * _between(z, -16, -6)
    spots = (0.7 + 0.5 * anatomy.noise(9, params.seed + 42)).clamp(0, 1)
    tissue = anatomy.tissues[DEEP] + anatomy.tissues[WM]
    return -params.iron * params.means[DEEP] * torch.maximum(pallidum, midbrain) * spots * tissue


def _voids(anatomy: Anatomy, params: ContrastParams) -> torch.Tensor:
    """Arteries and veins in the CSF: blood that flows gives no signal; most of them at the base and in the midline."""
    x, y, z = anatomy.positions_mm()
    base = _between(x.abs(), -1, 45) * _between(y, -45, 25) * _between(z, -45, -4)
    often = 0.3 + torch.maximum(base, _between(x.abs(), -1, 5))
    streams = ((anatomy.noise(5, params.seed + 43) + 0.7 * often - 1.3) * 3).clamp(0, 1)
    return -params.voids * params.means[CSF] * streams * anatomy.tissues[CSF]


def _between(value: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Return 1 well inside [low, high], 0 well outside, with soft borders."""
    return torch.sigmoid((value - low) * 4 / _BORDER_MM) * torch.sigmoid((high - value) * 4 / _BORDER_MM)
