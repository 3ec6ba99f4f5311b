"""Random parameters of one image's contrast: tissue means, inhomogeneity, and normal variants that mimic lesions.

Means are relative to the brightest tissue, close to those measured on public T1, T2 and FLAIR scans; the
randomised contrast follows the spirit of SynthSeg (Billot et al. 2023).
"""

from typing import Literal

import torch

from halebrain.core.config import Config
from halebrain.core.random import branch

Variety = Literal["usual", "wide"]
"""How much scans differ: "usual" = one sequence a modality on tidy scanners; "wide" = sequences, artefacts and
imperfect stripping of many scanners, and normal variants that look like disease."""
Means = tuple[float, float, float, float, float]

MODALITIES = ("T1w", "T2w", "FLAIR", "random")
_MEANS = {
    "T1w": (0.90, 0.56, 0.74, 0.12, 0.10),
    "T2w": (0.21, 0.33, 0.25, 0.95, 1.00),
    "FLAIR": (0.66, 0.80, 0.75, 0.20, 0.08),
}
_SPREAD = 0.06


class ContrastParams(Config):
    """What was drawn for one image's contrast.

    Args:
        modality: "T1w", "T2w", "FLAIR" or "random".
        means: Intensity of each tissue, in the order of `TISSUES`.
        unevenness: Relative spread of intensity inside a tissue.
        gradient: Relative difference of white matter between front and back.
        cap: Brightening beside the ventricles (FLAIR and T2 of healthy people show it too).
        nulling: How unevenly CSF is suppressed (FLAIR).
        vessel: Contrast of vessels and flow voids.
        seed: Seed of the fields.
        choroid: Intensity of the choroid plexus relative to grey matter; 0 = none is shown.
        septum: Intensity of the septum pellucidum relative to white matter; 0 = none is shown.
        flow: What moving CSF adds (FLAIR) or takes (T2).
        limbic: Relative brightness of limbic cortex.
        iron: Relative darkening of pallidum and midbrain nuclei.
        voids: Signal that blood flowing in vessels of cisterns and sulci takes away, relative to CSF.
        rim_brightness: Of what bad stripping leaves outside the brain; 1 = the same in every contrast.
        cap_mm: Width of the brightening beside the ventricles, as the standard deviation of its profile times √2.
        horn: How much brighter it is at the horns than along the walls, as a fraction: the caps of old people.
    """

    modality: str
    means: Means
    unevenness: float
    gradient: float
    cap: float
    nulling: float
    vessel: float
    seed: int
    choroid: float = 0.0
    septum: float = 0.0
    flow: float = 0.0
    limbic: float = 0.0
    iron: float = 0.0
    voids: float = 0.0
    rim_brightness: float = 1.0
    cap_mm: float = 3.0
    horn: float = 0.0


def sample_contrast(modality: str, generator: torch.Generator, *, variety: Variety = "usual") -> ContrastParams:
    """Draw the contrast of one image; "wide" uses its own random stream, so that all other draws stay the same."""
    u = torch.rand(12, generator=generator).tolist()
    n = torch.randn(8, generator=generator).tolist()
    if modality == "random":
        means = _random_means(u[5:10])
    else:
        shift = [m + _SPREAD * m * n[i] for i, m in enumerate(_MEANS[modality])]
        means = (shift[0], shift[1], shift[2], shift[3], shift[4])
    water = modality in ("FLAIR", "T2w")
    params = ContrastParams(
        modality=modality,
        means=means,
        unevenness=0.025 + 0.035 * u[0],
        gradient=0.04 * n[5],
        cap=(0.02 + 0.20 * u[1]) if water else 0.0,
        nulling=0.25 * u[2] if modality == "FLAIR" else 0.0,
        vessel=0.7 * u[3],
        seed=int(torch.randint(2**40, (), generator=generator)),
    )
    return params if variety == "usual" else _widened(params, branch(generator, "wide", modality))


def _widened(params: ContrastParams, generator: torch.Generator) -> ContrastParams:
    """Return the contrast of another scanner, with everything that a healthy brain may show in it."""
    u, show = torch.rand(12, generator=generator).tolist(), torch.rand(6, generator=generator).tolist()
    modality = params.modality
    means = params.means if modality == "random" else _wide_means(modality, u[:5])
    water = modality in ("FLAIR", "T2w")
    # Changes of intensity on a contrast of any order are those of FLAIR, T2 or T1, whichever is drawn.
    like = modality if modality != "random" else ("FLAIR", "T2w", "T1w")[int(3 * u[11])]
    # In T2 vessels, dura and bone are the darkest of all, and set what the first percentile becomes.
    dark = torch.rand(2, generator=branch(generator, "dark")).tolist()
    # Smaller than the change by a lesion, or networks would learn that bright tissue is normal.
    return params.model_copy(
        update={
            "means": means,
            "unevenness": 0.015 + 0.03 * u[5],
            "cap": 0.2 * u[6] ** 1.5 if water else 0.0,
            "nulling": 0.4 * u[7] ** 2 if modality == "FLAIR" else 0.0,
            "choroid": 0.5 + 0.7 * u[8] if show[0] < 0.75 else 0.0,
            "septum": 0.6 + 0.6 * u[9] if show[1] < 0.75 else 0.0,
            "flow": {"FLAIR": 0.4, "T2w": -0.6, "T1w": 0.12}[like] * u[10] if show[2] < 0.5 else 0.0,
            "limbic": {"FLAIR": 0.08, "T2w": 0.08, "T1w": -0.06}[like] * show[3],
            "iron": {"FLAIR": 0.3, "T2w": 0.5, "T1w": -0.2}[like] * show[4],
            "voids": {"FLAIR": 0.5, "T2w": 1.0, "T1w": 0.5}[like] * min(1.0, 1.3 * dark[0]),
            "rim_brightness": dark[1] ** 2 if like == "T2w" else 1.0,
        }
    )


def aged(params: ContrastParams, age: float, generator: torch.Generator) -> ContrastParams:
    """Return the contrast in a healthy person of an age in years; from 60 on walls have caps and bands (FLAIR and T2).

    They stay within the norm of age: smooth, continuous with the wall, up to 5 mm wide, and fainter than a lesion
    (grade 1 of Fazekas et al. 1987).
    """
    if age < 60 or params.cap == 0:
        return params
    u, share = torch.rand(3, generator=generator).tolist(), min(1.0, (age - 60) / 20)
    cap = max(params.cap, min(0.22, params.cap + 0.08 * share * u[0]))
    return params.model_copy(update={"cap": cap, "cap_mm": 3.0 + 2.0 * share * u[1], "horn": 0.3 * share * u[2]})


def _wide_means(modality: str, u: list[float]) -> Means:
    """Return means of a sequence drawn from the range that public data sets of a modality span."""
    if modality == "T1w":
        wm, csf = 0.8 + 0.2 * u[0], 0.02 + 0.28 * u[2]
        gm = wm * (0.52 + 0.32 * u[1])
        deep = gm + (wm - gm) * (0.3 + 0.55 * u[3])
        return wm, gm, deep, csf, csf * (0.5 + 0.5 * u[4])
    if modality == "T2w":
        wm = 0.12 + 0.36 * u[0]
        gm = wm + 0.07 + 0.23 * u[1]
        return wm, gm, wm + (gm - wm) * (-0.1 + 0.8 * u[3]), 0.72 + 0.26 * u[2], 1.0
    gm, csf = 0.6 + 0.35 * u[0], 0.05 + 0.4 * u[2] ** 1.5
    wm = gm * (0.7 + 0.28 * u[1])
    return wm, gm, wm + (gm - wm) * (-0.1 + 1.1 * u[3]), csf, csf * (0.3 + 0.6 * u[4])


def _random_means(u: list[float]) -> tuple[float, float, float, float, float]:
    """Return intensities of any order; deep grey lies between white and grey, as it does in every contrast."""
    wm, gm, csf = (0.05 + 0.95 * v for v in u[:3])
    mix = 0.3 + 0.4 * u[3]
    return wm, gm, mix * wm + (1 - mix) * gm, csf, min(1.0, max(0.02, csf + 0.1 * (u[4] - 0.5)))
