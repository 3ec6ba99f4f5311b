"""Contrast: from tissues to the intensities of one modality, with inhomogeneity of healthy tissue.

Normal variants that mimic lesions (choroid plexus, septum, flow in CSF and vessels, limbic cortex, iron) are soft maps
on the anatomy times a change of intensity. Places are boxes in template space: a virtual brain lies there up to a few
millimetres.
"""

from functools import reduce

import torch

from halebrain.simulation.anatomy import CSF, DEEP, GM, TISSUES, VENTRICLE, WM, Anatomy
from halebrain.simulation.contrast_params import ContrastParams


def render(anatomy: Anatomy, params: ContrastParams) -> torch.Tensor:
    """Return the ideal image `(i, j, k)`, about [0, 1.2], 0 outside the brain; pure."""

    def field(number: int, wavelength_mm: float) -> torch.Tensor:
        return anatomy.noise(wavelength_mm, params.seed + number)

    y = torch.linspace(-1, 1, anatomy.shape[1])[None, :, None]
    image = torch.zeros(anatomy.shape)
    for tissue in range(len(TISSUES)):
        grain = params.unevenness * (0.5 * field(tissue, 30) + 0.8 * field(10 + tissue, 5))
        value = params.means[tissue] * (1 + grain)
        if tissue in (WM, DEEP):
            value = value * (1 + params.gradient * y)
        if tissue in (CSF, VENTRICLE) and params.nulling > 0:
            value = value + params.nulling * params.means[GM] * (field(30, 30) - 0.8).clamp(0, 1.5)
        image = image + anatomy.tissues[tissue] * value
    image = image + _caps(anatomy, params, field(31, 12))
    image = image + _vessels(anatomy, params, field(32, 4), field(33, 3.5))
    image = add_nuisances(image, anatomy, params)
    return image.clamp_min(0) * anatomy.brain_mask


def _caps(anatomy: Anatomy, params: ContrastParams, field: torch.Tensor) -> torch.Tensor:
    """Return the healthy brightening of white matter along the ventricle walls."""
    if params.cap == 0:
        return torch.zeros_like(field)
    near = torch.exp(-((anatomy.ventricle_distance_mm / params.cap_mm) ** 2))
    if params.horn > 0:
        y = anatomy.positions_mm()[1]
        near = near * (1 + params.horn * torch.maximum(_between(y, 12, 60), _between(y, -90, -42)))
    return params.cap * params.means[GM] * near * anatomy.tissues[WM] * (1 + 0.6 * field).clamp(0, 2)


def _vessels(anatomy: Anatomy, params: ContrastParams, field: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return small dark or bright spots: vessels in the sulci, perivascular spaces and flow voids in the depth."""
    brightest = max(params.means)
    in_csf = ((field - 1.8) * 2).clamp(0, 1) * anatomy.tissues[CSF]
    csf_contrast = params.means[GM] - params.means[CSF]
    in_depth = ((other - 2.2) * 2).clamp(0, 1) * (anatomy.tissues[DEEP] + 0.3 * anatomy.tissues[WM])
    return params.vessel * (0.8 * csf_contrast * in_csf + 0.35 * (params.means[CSF] - 0.5 * brightest) * in_depth)


Range = tuple[float, float]
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
    place = _within(anatomy, ((10, 32), (-52, -12), (-6, 22)))
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
    low, middle = ((-1, 26), (-62, 14), (-60, -2)), ((-1, 7), (-40, 12), (-8, 12))
    fluid = anatomy.tissues[CSF] + anatomy.tissues[VENTRICLE]
    streams = (anatomy.noise(14, params.seed + 41) + 0.4).clamp(0, 1)
    return _within(anatomy, low, middle) * fluid * streams * params.flow


def _limbic(anatomy: Anatomy, params: ContrastParams) -> torch.Tensor:
    """Cingulate, insular and mesial temporal cortex, brighter than the rest on FLAIR."""
    cingulate, insula = ((-1, 12), (-45, 50), (-2, 45)), ((28, 46), (-25, 25), (-14, 18))
    mesial = ((14, 36), (-38, 4), (-32, -6))
    return _within(anatomy, cingulate, insula, mesial) * anatomy.tissues[GM] * params.limbic * params.means[GM]


def _iron(anatomy: Anatomy, params: ContrastParams) -> torch.Tensor:
    """Pallidum, red nucleus and dentate: dark on T2 with age and field strength."""
    pallidum, midbrain = ((12, 24), (-16, 6), (-8, 8)), ((2, 14), (-26, -12), (-16, -6))
    spots = (0.7 + 0.5 * anatomy.noise(9, params.seed + 42)).clamp(0, 1)
    tissue = anatomy.tissues[DEEP] + anatomy.tissues[WM]
    return -params.iron * params.means[DEEP] * _within(anatomy, pallidum, midbrain) * spots * tissue


def _voids(anatomy: Anatomy, params: ContrastParams) -> torch.Tensor:
    """Arteries and veins in the CSF: blood that flows gives no signal; most of them at the base and in the midline."""
    base = _within(anatomy, ((-1, 45), (-45, 25), (-45, -4)))
    often = 0.3 + torch.maximum(base, _between(anatomy.positions_mm()[0].abs(), -1, 5))
    streams = ((anatomy.noise(5, params.seed + 43) + 0.7 * often - 1.3) * 3).clamp(0, 1)
    return -params.voids * params.means[CSF] * streams * anatomy.tissues[CSF]


def _within(anatomy: Anatomy, *boxes: tuple[Range, Range, Range]) -> torch.Tensor:
    """Return 1 well inside any of some boxes, 0 well outside: ranges of |x|, y and z in template space, mm."""
    x, y, z = anatomy.positions_mm()
    return reduce(torch.maximum, (_between(x.abs(), *i) * _between(y, *j) * _between(z, *k) for i, j, k in boxes))


def _between(value: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Return 1 well inside [low, high], 0 well outside, with soft borders."""
    return torch.sigmoid((value - low) * 4 / _BORDER_MM) * torch.sigmoid((high - value) * 4 / _BORDER_MM)
