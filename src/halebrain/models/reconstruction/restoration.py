"""U-Nets that undo coarse noise (DAE), or a synthetic anomaly: at once, or step by step (DISYRE)."""

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch.nn import functional as F

from halebrain.core.config import Config, GrowingConfig
from halebrain.core.random import draw_seeds
from halebrain.core.similarity import ssim_map
from halebrain.models.noise import NOISES
from halebrain.models.reconstruction.base import RECONSTRUCTORS, Corruption, Level, OneLevelReconstructor, Reconstructor
from halebrain.models.schedule import add_noise, cosine_alpha_bar, ddim_path
from halebrain.models.segmentation import Segmenter, SegmenterConfig
from halebrain.models.unet import DiffusionUNet, UNetConfig

VISIBLE_CHANGE = 0.005
"""Change of intensity above which a pixel counts as anomalous."""
_N_LEVELS = 1000
"""Noise levels of the restorer's schedule."""


class _OneUNet(Reconstructor):
    """A reconstructor that is one U-Net."""

    def __init__(self, settings: Any, *, outputs: int = 1, skips: bool = True) -> None:
        super().__init__()
        self.settings = settings
        self.unet = DiffusionUNet(settings.unet, outputs=outputs, skips=skips)

    def _output(self, image: torch.Tensor, level: torch.Tensor | None = None) -> torch.Tensor:
        """Return what the network makes of slices in [−1, 1]; without a level, of level 0."""
        if level is None:
            level = torch.zeros(len(image), dtype=torch.long, device=image.device)
        predicted: torch.Tensor = self.unet(image, level, None)
        return predicted.float()


class DAESettings(GrowingConfig):
    """Settings of the denoising autoencoder.

    Args:
        unet: Size of the network: the diffusion U-Net without a noise level, so that methods differ in what they learn
            and not in what they could hold.
        noise_size: Side of the noise before it is enlarged to the slice: coarser than anatomy.
        noise_std: Its standard deviation, in units of the intensity range.
        network: "diffusion" = that of `unet`; "kascenas" = the published one, of the widths `channels`, and its loss,
            which counts the brain alone.
        channels: Widths of the published network, from fine to coarse.
    """

    ADDED_FIELDS: ClassVar[frozenset[str]] = frozenset({"network", "channels"})

    unet: UNetConfig = UNetConfig()
    noise_size: int = Field(default=16, ge=1)
    noise_std: float = Field(default=0.2, gt=0)
    network: Literal["diffusion", "kascenas"] = "diffusion"
    channels: tuple[int, ...] = (64, 128, 256, 512)


@RECONSTRUCTORS.register("dae")
class DAE(_OneUNet, OneLevelReconstructor):
    """DAE: a U-Net that removes coarse noise, and with it what looks like noise (Kascenas et al., MIDL 2022).

    Loss: L2 to the clean slice. At test time the input is the unchanged slice.
    """

    reference = (
        "Kascenas A, Pugeault N, O'Neil AQ. Denoising autoencoders for unsupervised anomaly detection in brain "
        "MRI. MIDL 2022, PMLR 172:653–664."
    )
    Settings = DAESettings
    settings: DAESettings

    def __init__(self, settings: DAESettings) -> None:
        if settings.network == "diffusion":
            super().__init__(settings)
            return
        Reconstructor.__init__(self)
        self.settings = settings
        # With the image alone as its stream the segmenter is that U-Net: an image in, an image out.
        self.published = Segmenter(
            SegmenterConfig(channels=settings.channels, norm_groups=1, streams=("image",), block="kascenas")
        )

    def loss(
        self, image: torch.Tensor, *, generator: torch.Generator, corrupt: Corruption | None = None
    ) -> torch.Tensor:
        """Return the mean squared difference of the denoised slices to the healthy ones."""
        seeds = draw_seeds(len(image), generator)
        noise = coarse_noise(seeds, *image.shape[-2:], size=self.settings.noise_size).to(image.device)
        # Noise where there is brain, as published; the background is never anomalous.
        noisy = image + self.settings.noise_std * noise * (image > 0)
        error = (self._denoise(noisy) - image).square()
        return error.mean() if self.settings.network == "diffusion" else (error * (image > 0.01)).mean()

    def reconstruct(self, image: torch.Tensor, *, level: Level, seeds: torch.Tensor) -> torch.Tensor:
        """Return the denoised slice in [0, 1]; nothing is random."""
        return self._denoise(image).clamp(0, 1)

    def _denoise(self, image: torch.Tensor) -> torch.Tensor:
        if self.settings.network == "kascenas":
            found: torch.Tensor = self.published(image, image)
            return found.float()
        return (self._output(image * 2 - 1) + 1) / 2


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


class RestorationSettings(GrowingConfig):
    """Settings of one-step restoration.

    Args:
        unet: Size of the network.
        ssim_weight: Weight of 1 − SSIM beside the squared error.
        skips: Whether the network has skip connections, and predicts the change. False is as in DRAEM: all of the slice
            passes through the coarsest level.
    """

    ADDED_FIELDS: ClassVar[frozenset[str]] = frozenset({"skips"})

    unet: UNetConfig = UNetConfig()
    ssim_weight: float = Field(default=1.0, ge=0)
    skips: bool = True


@RECONSTRUCTORS.register("restoration")
class Restoration(_OneUNet, OneLevelReconstructor):
    """Restoration in one step: a U-Net that undoes synthetic anomalies (DRAEM's first network, Zavrtanik et al. 2021).

    Loss: L2 + 1 − SSIM to the healthy slice, from the slice with a synthetic anomaly.
    """

    reference = (
        "Zavrtanik V, Kristan M, Skočaj D. DRAEM – a discriminatively trained reconstruction embedding for "
        "surface anomaly detection. ICCV 2021:8330–8339."
    )
    Settings = RestorationSettings
    settings: RestorationSettings
    needs_corruption = True

    def __init__(self, settings: RestorationSettings) -> None:
        super().__init__(settings, skips=settings.skips)

    def loss(
        self, image: torch.Tensor, *, generator: torch.Generator, corrupt: Corruption | None = None
    ) -> torch.Tensor:
        """Return how far the restored slices are from the healthy ones."""
        restored = self._restore(self._given(image, generator, corrupt))
        loss = (restored - image).square().mean()
        return loss + self.settings.ssim_weight * (1 - ssim_map(restored, image)).mean()

    def reconstruct(self, image: torch.Tensor, *, level: Level, seeds: torch.Tensor) -> torch.Tensor:
        """Return the restored slice in [0, 1]; nothing is random."""
        return self._restore(image).clamp(0, 1)

    def _restore(self, image: torch.Tensor) -> torch.Tensor:
        if not self.settings.skips:
            return (self._output(image * 2 - 1) + 1) / 2
        # The change is predicted, so that a fresh network gives the slice back.
        return image + self._output(image * 2 - 1) / 2


class DisyreSettings(Config):
    """Settings of stepwise restoration.

    Args:
        unet: Size of the network.
        n_levels: Number T of degrees of corruption; T itself is the whole anomaly.
        test_levels: Degrees that a slice is taken for at test time; restorations are averaged.
        sampling_steps: Network passes from a degree down to the healthy slice.
    """

    unet: UNetConfig = UNetConfig()
    n_levels: int = Field(default=100, ge=1)
    test_levels: tuple[int, ...] = (50, 100)
    sampling_steps: int = Field(default=3, ge=1)

    def model_post_init(self, _: object, /) -> None:
        """Check the degrees."""
        if not self.test_levels or not all(1 <= level <= self.n_levels for level in self.test_levels):
            raise ValueError(f"test_levels must lie in [1, {self.n_levels}]")


@RECONSTRUCTORS.register("disyre")
class Disyre(_OneUNet):
    r"""Restoration step by step, in the manner of DISYRE: cold diffusion over synthetic anomalies.

    Predicts the healthy $x_0$ from $x_t = (1 - t/T)\,x_0 + (t/T)\,x_T$, where $x_T$ carries a synthetic anomaly.

    Loss: $|x_0 - \hat x_0(x_t, t)|$ with t uniform in 1 … T. At test time the slice stands for $x_t$, and the restored
    part grows step by step: $x_s = \hat x_0 + (s/t)(x_t - \hat x_0)$.

    Sources: Naval Marimont et al., ISBI 2024 and MICCAI 2024; cold diffusion: Bansal et al. 2023.
    """

    reference = (
        "Naval Marimont S, Baugh M, Siomos V, Tzelepis C, Kainz B, Tarroni G. DISYRE: diffusion-inspired "
        "synthetic restoration for unsupervised anomaly detection. ISBI 2024."
    )
    Settings = DisyreSettings
    settings: DisyreSettings
    needs_corruption = True

    @property
    def levels(self) -> tuple[Level, ...]:
        """The degrees of corruption that a slice is taken for."""
        return self.settings.test_levels

    def random_level(self, generator: torch.Generator) -> Level:
        """Draw a degree uniformly."""
        return int(torch.randint(1, self.settings.n_levels + 1, (), generator=generator))

    def loss(
        self, image: torch.Tensor, *, generator: torch.Generator, corrupt: Corruption | None = None
    ) -> torch.Tensor:
        """Return the distance of the restored slices to the healthy ones, both in [−1, 1]."""
        level = torch.randint(1, self.settings.n_levels + 1, (len(image),), generator=generator).to(image.device)
        share = (level / self.settings.n_levels)[:, None, None, None]
        partly = torch.lerp(image, self._given(image, generator, corrupt), share)
        return (self._healthy(partly * 2 - 1, level) - (image * 2 - 1)).abs().mean()

    def reconstruct(self, image: torch.Tensor, *, level: Level, seeds: torch.Tensor) -> torch.Tensor:
        """Return the slice restored from one degree of corruption, in [0, 1]; nothing is random."""
        if level is None or not 1 <= level <= self.settings.n_levels:
            raise ValueError(f"a noise level must lie in [1, {self.settings.n_levels}], got {level}")
        x = image * 2 - 1
        path = ddim_path(level, self.settings.sampling_steps)
        for current, following in zip(path, [*path[1:], 0], strict=True):
            healthy = self._healthy(x, torch.full((len(x),), current, device=x.device)).clamp(-1, 1)
            x = healthy + (following / current) * (x - healthy)
        return ((x + 1) / 2).clamp(0, 1)

    def _healthy(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        return x + self._output(x, level)  # the change, so that a fresh network gives the slice back


class RestorerSettings(GrowingConfig):
    """Settings of the restorer.

    Args:
        unet: Size of the network.
        balanced: Weigh the anomaly as much as all the rest; otherwise each pixel counts once, and as few pixels are
            anomalous, the identity is nearly optimal.
        gate: Predict where to change, beside what to change to.
        gate_weight: Weight of the gate's cross-entropy.
        noise_levels: Levels of simplex noise under which the network sees a slice, one of them drawn for each slice of
            a training; restorations from all are averaged. Empty = it sees the slice itself. With a gate the noise
            never reaches the restored slice; without one the network must remove it as well.
    """

    ADDED_FIELDS: ClassVar[frozenset[str]] = frozenset({"noise_levels"})

    unet: UNetConfig = UNetConfig()
    balanced: bool = True
    gate: bool = True
    gate_weight: float = Field(default=0.05, ge=0)
    noise_levels: tuple[int, ...] = ()

    def model_post_init(self, _: object, /) -> None:
        """Check the levels."""
        if not all(0 <= level < _N_LEVELS for level in self.noise_levels):
            raise ValueError(f"noise_levels must lie in [0, {_N_LEVELS})")


@RECONSTRUCTORS.register("restorer")
class Restorer(_OneUNet):
    r"""$\hat x = x + g \odot c$ with the change c and the gate $g \in (0, 1)$ predicted from x alone.

    Loss: mean $|x_0 - \hat x|$ over the anomaly plus the mean over the rest of the brain, plus the cross-entropy of
    the gate with the anomaly, both classes weighted equally; $x_0$ is healthy, x has a synthetic anomaly. With
    `noise_levels` c and g are predicted from x under noise, and without a gate c is added to that noisy slice.
    """

    reference = (
        "Naval Marimont S, Baugh M, Siomos V, Tzelepis C, Kainz B, Tarroni G. DISYRE: diffusion-inspired synthetic "
        "restoration for unsupervised anomaly detection. ISBI 2024."
    )
    Settings = RestorerSettings
    settings: RestorerSettings
    needs_corruption = True

    def __init__(self, settings: RestorerSettings) -> None:
        super().__init__(settings, outputs=2 if settings.gate else 1)
        self.alpha_bar = cosine_alpha_bar(_N_LEVELS)

    @property
    def levels(self) -> tuple[Level, ...]:
        """The noise levels, or none."""
        return self.settings.noise_levels or (None,)

    def random_level(self, generator: torch.Generator) -> Level:
        """Draw one of the noise levels uniformly, if there are any."""
        count = len(self.settings.noise_levels)
        return self.settings.noise_levels[int(torch.randint(count, (), generator=generator))] if count else None

    def loss(
        self, image: torch.Tensor, *, generator: torch.Generator, corrupt: Corruption | None = None
    ) -> torch.Tensor:
        """Return the error of the restored slices, intensities in [−1, 1]."""
        given, level, seeds = self._given(image, generator, corrupt), None, None
        if self.settings.noise_levels:
            level = torch.tensor([self.random_level(generator) for _ in image])
            seeds = draw_seeds(len(image), generator)
        restored, gate = self._restored(given, level, seeds)
        error = 2 * (restored - image).abs()
        anomaly, brain = (given - image).abs() > VISIBLE_CHANGE, image > 0
        if not self.settings.balanced:
            loss = _mean(error, brain)
        else:
            loss = _mean(error, anomaly) + _mean(error, brain & ~anomaly)
        if gate is not None:
            entropy = F.binary_cross_entropy_with_logits(gate, anomaly.float(), reduction="none")
            loss = loss + self.settings.gate_weight * (_mean(entropy, anomaly) + _mean(entropy, brain & ~anomaly))
        return loss

    def reconstruct(self, image: torch.Tensor, *, level: Level, seeds: torch.Tensor) -> torch.Tensor:
        """Return the restored slice in [0, 1]; random only where there is noise."""
        levels = None
        if self.settings.noise_levels:
            if level is None or not 0 <= level < _N_LEVELS:
                raise ValueError(f"a noise level must lie in [0, {_N_LEVELS}), got {level}")
            levels = torch.full((len(image),), level)
        return self._restored(image, levels, seeds)[0].clamp(0, 1)

    def _restored(
        self, image: torch.Tensor, level: torch.Tensor | None, seeds: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the restored slices, and the logits of the gate if there is one."""
        seen = image * 2 - 1
        if level is not None and seeds is not None:
            height, width = image.shape[-2:]
            noise = NOISES.get("simplex")(seeds, height, width, image.device)
            seen, level = add_noise(seen, noise, level, self.alpha_bar), level.to(image.device)
        output = self._output(seen, level)
        change = output[:, :1] / 2
        if not self.settings.gate:
            return (image if level is None else (seen + 1) / 2) + change, None
        gate = output[:, 1:]
        return image + gate.sigmoid() * change, gate


def _mean(values: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """Return the mean over some pixels; 0 where there are none."""
    return (values * where).sum() / where.sum().clamp_min(1)
