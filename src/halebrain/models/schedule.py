"""The forward process of a diffusion model: how much of the image is left at each noise level."""

import math
from functools import lru_cache

import torch


@lru_cache(maxsize=8)
def cosine_alpha_bar(n_levels: int, offset: float = 0.008, max_beta: float = 0.999) -> torch.Tensor:
    r"""Return $\bar\alpha_t$ for t = 0 … n_levels − 1, float64, strictly decreasing in (0, 1).

    $\bar\alpha_t = f(t)/f(0)$ with $f(t) = \cos^2\!\big(\tfrac{t/T + s}{1 + s}\tfrac{\pi}{2}\big)$, each
    $\beta_t$ capped at `max_beta`. Source: Nichol & Dhariwal 2021, equation 17.
    """

    def f(t: int) -> float:
        return math.cos((t / n_levels + offset) / (1 + offset) * math.pi / 2) ** 2

    betas = [min(1 - f(t + 1) / f(t), max_beta) for t in range(n_levels)]
    # On the CPU wherever networks are being built: the table is kept for all that come after.
    return torch.cumprod(1 - torch.tensor(betas, dtype=torch.float64, device="cpu"), dim=0)


def add_noise(image: torch.Tensor, noise: torch.Tensor, level: torch.Tensor, alpha_bar: torch.Tensor) -> torch.Tensor:
    r"""Return $x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\epsilon$ (Ho et al. 2020, equation 4).

    Args:
        image: $x_0$ in [−1, 1], shape `(b, 1, h, w)`.
        noise: $\epsilon$, unit variance, same shape.
        level: t of each sample, shape `(b,)`, int64, in [0, T).
        alpha_bar: $\bar\alpha$, shape `(T,)`.
    """
    kept = _kept(alpha_bar, level, image)
    return kept.sqrt() * image + (1 - kept).sqrt() * noise


def predicted_image(
    noisy: torch.Tensor, noise: torch.Tensor, level: torch.Tensor, alpha_bar: torch.Tensor
) -> torch.Tensor:
    r"""Return $x_0 = (x_t - \sqrt{1-\bar\alpha_t}\,\epsilon) / \sqrt{\bar\alpha_t}$; the inverse of `add_noise`."""
    kept = _kept(alpha_bar, level, noisy)
    return (noisy - (1 - kept).sqrt() * noise) / kept.sqrt()


def predicted_noise(
    noisy: torch.Tensor, image: torch.Tensor, level: torch.Tensor, alpha_bar: torch.Tensor
) -> torch.Tensor:
    r"""Return $\epsilon = (x_t - \sqrt{\bar\alpha_t}\,x_0) / \sqrt{1-\bar\alpha_t}$; the inverse of `add_noise`."""
    kept = _kept(alpha_bar, level, noisy)
    return (noisy - kept.sqrt() * image) / (1 - kept).sqrt()


def ddim_path(level: int, steps: int) -> list[int]:
    """Return the levels that a chain of `steps` network passes visits: from `level` down, evenly, without the image.

    A level below `steps` is visited once each.
    """
    steps = max(1, min(steps, level))
    return [round(level * (steps - n) / steps) for n in range(steps)]


def _kept(alpha_bar: torch.Tensor, level: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return alpha_bar[level.cpu()].to(like.dtype).to(like.device)[:, None, None, None]
