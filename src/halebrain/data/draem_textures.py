"""The ten augmenters of the published DRAEM anomalies, on grey textures in [0, 1].

Source: their names and ranges in the published code of Behrendt et al. 2024, there by the package imgaug on 8 bits and
three channels, of which the first is used; here in floating point and one channel.
"""

from collections.abc import Callable

import torch
from torch.nn import functional as F

Augmenter = Callable[[torch.Tensor, float], torch.Tensor]
"""(texture `(h, w)` in [0, 1], number in [0, 1) that its strength follows from) → texture in [0, 1]."""


def gamma(x: torch.Tensor, u: float) -> torch.Tensor:
    """Return x to the power of 0.5 to 2."""
    return x ** (0.5 + 1.5 * u)


def brightness(x: torch.Tensor, u: float) -> torch.Tensor:
    """Return x times 0.8 to 1.2, and −30 to 30 of 255 added; both numbers come from one."""
    second = (u * 1000) % 1
    return (x * (0.8 + 0.4 * u) + (60 * second - 30) / 255).clamp(0, 1)


def sharpness(x: torch.Tensor, u: float) -> torch.Tensor:
    """Return smooth + f · (x − smooth), f from 0 to 3, with the smoothing kernel of PIL (5 in the middle of 13)."""
    kernel = torch.ones(1, 1, 3, 3)
    kernel[..., 1, 1] = 5
    smooth = F.conv2d(F.pad(x[None, None], (1, 1, 1, 1), mode="replicate"), kernel / 13)[0, 0]
    return (smooth + 3 * u * (x - smooth)).clamp(0, 1)


def colour(x: torch.Tensor, _u: float) -> torch.Tensor:
    """Return x: another hue and saturation leave the first channel of a grey image as it is."""
    return x


def solarise(x: torch.Tensor, u: float) -> torch.Tensor:
    """Return x with what is above a threshold of 32 to 128 of 255 inverted, in half of the cases."""
    if u >= 0.5:
        return x
    threshold = (32 + 96 * 2 * u) / 255
    return torch.where(x >= threshold, 1 - x, x)


def posterise(x: torch.Tensor, u: float) -> torch.Tensor:
    """Return x with 1 to 8 bits."""
    step = float(2 ** (7 - int(8 * u)))
    levels: torch.Tensor = (x * 255 / step).floor()
    return levels * (step / 255)


def invert(x: torch.Tensor, _u: float) -> torch.Tensor:
    """Return 1 − x."""
    return 1 - x


def autocontrast(x: torch.Tensor, u: float) -> torch.Tensor:
    """Return x stretched to [0, 1], 0 to 20 % of the pixels cut at each end."""
    low, high = (torch.quantile(x, q) for q in (0.2 * u, 1 - 0.2 * u))
    return x if high <= low else ((x - low) / (high - low)).clamp(0, 1)


def equalise(x: torch.Tensor, _u: float) -> torch.Tensor:
    """Return the rank of each pixel, in [0, 1]; equal pixels stay equal."""
    flat = x.flatten()
    ranks = torch.searchsorted(flat.sort().values, flat).view_as(x)
    return ranks.to(x.dtype) / max(int(ranks.max()), 1)


def rotate(x: torch.Tensor, u: float) -> torch.Tensor:
    """Return x turned by −45 to 45 degrees, 0 where nothing was."""
    return turned(x, (2 * u - 1) * 45)


def turned(x: torch.Tensor, degrees: float, *, padding: str = "zeros") -> torch.Tensor:
    """Return an image `(h, w)` turned about its middle, bilinear; `padding` as in `grid_sample`."""
    angle = torch.deg2rad(torch.tensor(degrees))
    cos, sin = torch.cos(angle), torch.sin(angle)
    turn = torch.stack([torch.stack([cos, -sin, 0 * cos]), torch.stack([sin, cos, 0 * cos])])
    grid = F.affine_grid(turn[None], [1, 1, *x.shape], align_corners=False)
    return F.grid_sample(x[None, None], grid, padding_mode=padding, align_corners=False).view(x.shape)


AUGMENTERS: dict[str, Augmenter] = {
    "gamma": gamma,
    "brightness": brightness,
    "sharpness": sharpness,
    "colour": colour,
    "solarise": solarise,
    "posterise": posterise,
    "invert": invert,
    "autocontrast": autocontrast,
    "equalise": equalise,
    "rotate": rotate,
}
