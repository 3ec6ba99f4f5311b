"""Acquisition: what a scanner and a pipeline do to an ideal image (slices, blur, coil, noise, imperfect stripping)."""

import torch
from torch.nn import functional as F

from halebrain.core.config import Config
from halebrain.core.random import branch, make_generator
from halebrain.simulation.contrast_params import Variety
from halebrain.simulation.fields import blur, smooth_noise

SITES = ("site-a", "site-b", "site-c", "site-d")
_NOISE = (0.01, 0.018, 0.028, 0.014)
_THICK_SHARE = (0.15, 0.5, 0.3, 0.7)


class AcquisitionParams(Config):
    """What was drawn for one image's acquisition.

    Args:
        site: Virtual scanner; sets the usual noise and how often slices are thick.
        thickness_mm: Slice thickness.
        axis: Axis along which slices lie.
        blur_mm: In-plane standard deviation of the point spread.
        bias: Amplitude of the logarithm of the bias field.
        noise: Standard deviation of the noise relative to the brightest tissue.
        ghost: Strength of the motion ghost.
        rim: Strength of what imperfect stripping leaves at the surface.
        seed: Seed of the fields.
        ringing: Share of spatial frequencies along both in-plane axes that is cut off (Gibbs ringing).
        motion: Share of k-space lines that were taken of a head that had moved.
    """

    site: str
    thickness_mm: float
    axis: int
    blur_mm: float
    bias: float
    noise: float
    ghost: float
    rim: float
    seed: int
    ringing: float = 0.0
    motion: float = 0.0


def sample_acquisition(
    modality: str, site: int, generator: torch.Generator, *, variety: Variety = "usual"
) -> AcquisitionParams:
    """Draw the acquisition of one image; T1 is mostly near isotropic, T2 and FLAIR are often thick."""
    u = torch.rand(9, generator=generator).tolist()
    thick = u[0] < _THICK_SHARE[site] * (0.4 if modality == "T1w" else 1.0)
    params = AcquisitionParams(
        site=SITES[site],
        thickness_mm=2.5 + 3.5 * u[1] if thick else 1.0 + u[1],
        axis=2 if u[2] < 0.85 else int(u[2] * 1000) % 2,
        blur_mm=0.6 + 0.7 * u[3],
        bias=0.02 + 0.16 * u[4],
        noise=_NOISE[site] * (0.6 + 0.8 * u[5]),
        ghost=0.12 * u[6] if u[7] < 0.2 else 0.0,
        rim=0.5 * u[8],
        seed=int(torch.randint(2**40, (), generator=generator)),
    )
    return params if variety == "usual" else _widened(params, modality, branch(generator, "wide scan", modality))


def _widened(params: AcquisitionParams, modality: str, generator: torch.Generator) -> AcquisitionParams:
    """Return the acquisition of a less tidy scanner: thicker, coarser, noisier, with ringing and motion."""
    u, happens = torch.rand(6, generator=generator).tolist(), torch.rand(4, generator=generator).tolist()
    thick = happens[0] < (0.2 if modality == "T1w" else 0.5)
    return params.model_copy(
        update={
            "thickness_mm": 3.0 + 3.0 * u[0] if thick else params.thickness_mm,
            "axis": params.axis if happens[0] > 0.45 else 2,
            "blur_mm": 0.4 + 0.8 * u[1],
            "bias": 0.02 + 0.1 * u[2],
            "noise": 0.005 + 0.025 * u[3] ** 2,
            "rim": 0.5 * params.rim,
            "ringing": 0.15 + 0.35 * u[4] if happens[1] < 0.3 else 0.0,
            "motion": 0.03 + 0.12 * u[5] if happens[2] < 0.2 else 0.0,
        }
    )


def acquire(
    image: torch.Tensor, brain_mask: torch.Tensor, params: AcquisitionParams, spacing_mm: float
) -> torch.Tensor:
    """Return the image as acquired, `(i, j, k)`, ≥ 0, 0 outside the brain; pure: same params, same noise."""
    shape = (image.shape[0], image.shape[1], image.shape[2])
    edge = blur(brain_mask.float(), 1.0)
    rough = smooth_noise(shape, wavelength_mm=8, spacing_mm=spacing_mm, seed=params.seed + 1)
    image = image * (1 + params.rim * rough * ((edge < 0.75) & brain_mask)).clamp(0.2, 1.6)
    sigma = [params.blur_mm / spacing_mm] * 3
    image = blur(image, (sigma[0], sigma[1], sigma[2]))
    image = _thick_slices(image, params, spacing_mm)
    image = _incomplete_k_space(image, params)
    field = smooth_noise(shape, wavelength_mm=70, spacing_mm=spacing_mm, seed=params.seed + 2)
    image = image * torch.exp(params.bias * field)
    if params.ghost > 0:
        image = image + params.ghost * image.roll(shape[1] // 2, dims=1)
    generator = make_generator(params.seed, "noise")
    real, imaginary = params.noise * torch.randn(2, *shape, generator=generator)
    return torch.sqrt((image + real) ** 2 + imaginary**2) * brain_mask


def _thick_slices(image: torch.Tensor, params: AcquisitionParams, spacing_mm: float) -> torch.Tensor:
    """Return the image averaged over slices of the given thickness and interpolated back."""
    ratio = params.thickness_mm / spacing_mm
    if ratio <= 1.05:
        return image
    size = list(image.shape)
    size[params.axis] = max(2, round(size[params.axis] / ratio))
    thick = F.interpolate(image[None, None], size=size, mode="area")
    return F.interpolate(thick, size=image.shape, mode="trilinear", align_corners=False)[0, 0]


def _incomplete_k_space(image: torch.Tensor, params: AcquisitionParams) -> torch.Tensor:
    """Return the image without its highest frequencies, and with lines along j of a head that had moved."""
    if params.ringing == 0 and params.motion == 0:
        return image
    spectrum = torch.fft.fftn(image, dim=(0, 1))
    frequency = [torch.fft.fftfreq(n).abs() * 2 for n in image.shape[:2]]
    if params.motion > 0:
        generator = make_generator(params.seed, "motion")
        shift = 2 * torch.randn(image.shape[1], generator=generator) * (frequency[1] > 0.06)
        moved = torch.rand(image.shape[1], generator=generator) < params.motion
        phase = torch.outer(torch.fft.fftfreq(image.shape[0]), shift * moved) * (-2 * torch.pi)
        spectrum = spectrum * torch.polar(torch.ones_like(phase), phase)[..., None]
    if params.ringing > 0:
        kept = torch.outer(*[(f <= 1 - params.ringing).float() for f in frequency])
        spectrum = spectrum * kept[..., None]
    acquired: torch.Tensor = torch.fft.ifftn(spectrum, dim=(0, 1)).real.clamp_min(0)
    return acquired
