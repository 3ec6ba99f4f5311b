"""DAE: a U-Net that removes coarse noise, and with it what looks like noise (Kascenas et al., MIDL 2022)."""

import torch
from pydantic import Field
from torch.nn import functional as F

from halebrain.core.config import Config
from halebrain.core.random import draw_seeds
from halebrain.models.reconstruction.base import RECONSTRUCTORS, Corruption, Level, OneLevelReconstructor
from halebrain.models.unet import DiffusionUNet, UNetConfig


class DAESettings(Config):
    """Settings of the denoising autoencoder.

    Args:
        unet: Size of the network: the diffusion U-Net without a noise level, so that methods differ in what they learn
            and not in what they could hold.
        noise_size: Side of the noise before it is enlarged to the slice: coarser than anatomy.
        noise_std: Its standard deviation, in units of the intensity range.
    """

    unet: UNetConfig = UNetConfig()
    noise_size: int = Field(default=16, ge=1)
    noise_std: float = Field(default=0.2, gt=0)


@RECONSTRUCTORS.register("dae")
class DAE(OneLevelReconstructor):
    """Loss: L2 to the clean slice. At test time the input is the unchanged slice."""

    reference = (
        "Kascenas A, Pugeault N, O'Neil AQ. Denoising autoencoders for unsupervised anomaly detection in brain "
        "MRI. MIDL 2022, PMLR 172:653–664."
    )
    Settings = DAESettings

    def __init__(self, settings: DAESettings) -> None:
        super().__init__()
        self.settings = settings
        self.unet = DiffusionUNet(settings.unet)

    def loss(
        self, image: torch.Tensor, *, generator: torch.Generator, corrupt: Corruption | None = None
    ) -> torch.Tensor:
        """Return the mean squared difference of the denoised slices to the healthy ones."""
        seeds = draw_seeds(len(image), generator)
        noise = coarse_noise(seeds, *image.shape[-2:], size=self.settings.noise_size).to(image.device)
        # Noise where there is brain, as published; the background is never anomalous.
        noisy = image + self.settings.noise_std * noise * (image > 0)
        return (self._denoise(noisy) - image).square().mean()

    def reconstruct(self, image: torch.Tensor, *, level: Level, seeds: torch.Tensor) -> torch.Tensor:
        """Return the denoised slice in [0, 1]; nothing is random."""
        return self._denoise(image).clamp(0, 1)

    def _denoise(self, image: torch.Tensor) -> torch.Tensor:
        level = torch.zeros(len(image), dtype=torch.long, device=image.device)
        predicted: torch.Tensor = self.unet(image * 2 - 1, level, None)
        return (predicted.float() + 1) / 2


def coarse_noise(seeds: torch.Tensor, height: int, width: int, *, size: int) -> torch.Tensor:
    """Return Gaussian noise of `size` × `size` enlarged to the slice and shifted round, `(b, 1, height, width)`."""
    generator = torch.Generator()
    fields = []
    for seed in seeds.tolist():
        coarse = torch.randn(1, 1, size, size, generator=generator.manual_seed(seed))
        field = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)[0]
        shifts = [int(torch.randint(n, (), generator=generator)) for n in (height, width)]
        fields.append(field.roll(shifts, dims=(1, 2)))
    return torch.stack(fields)
