"""DDPM: Gaussian noise, no condition (Ho et al. 2020; as a baseline in Behrendt et al. 2024, Table 1)."""

from halebrain.models.reconstruction.base import RECONSTRUCTORS
from halebrain.models.reconstruction.diffusion import DiffusionReconstructor, DiffusionSettings


class DDPMSettings(DiffusionSettings):
    """Diffusion settings with Gaussian noise."""

    noise: str = "gaussian"


@RECONSTRUCTORS.register("ddpm")
class DDPM(DiffusionReconstructor):
    """The plain diffusion reconstructor."""

    reference = "Ho J, Jain A, Abbeel P. Denoising diffusion probabilistic models. NeurIPS 2020;33:6840–6851."

    Settings = DDPMSettings
