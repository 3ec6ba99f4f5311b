"""The diffusion family: one class, of which DDPM, AnoDDPM and cDDPM are settings, and pDDPM with noise in patches."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field

from halebrain.core.config import GrowingConfig
from halebrain.core.random import draw_seeds
from halebrain.models.conditioning import Conditioning, EncoderConfig, SliceEncoder
from halebrain.models.noise import NOISES
from halebrain.models.reconstruction.base import RECONSTRUCTORS, Corruption, Level, Reconstructor
from halebrain.models.schedule import add_noise, cosine_alpha_bar, ddim_path, predicted_image, predicted_noise
from halebrain.models.unet import DiffusionUNet, UNetConfig


class DiffusionSettings(GrowingConfig):
    """Settings of a diffusion reconstructor.

    Args:
        unet: Size of the denoising network.
        conditioning: How the network is conditioned on the noise-free slice; "none" = not at all.
        encoder: What describes that slice; needed by every conditioning but "none".
        predicts: "image" = $x_0$ with an L1 loss (the paper), "noise" = ε with an L2 loss (Ho et al. 2020).
        noise: "simplex" or "gaussian".
        n_levels: Number T of noise levels.
        train_levels: Range [low, high) from which both stages draw their levels; `None` = [0, T) as in the paper.
            A small network spends its steps better on the levels at which it is used.
        test_levels: Levels over which reconstructions are averaged.
        sampling_steps: Network passes of a reconstruction: 1 = one step (the paper), more = a deterministic chain
            from the level down to the image (DDIM).
        train_with_anomalies: Train on slices with synthetic anomalies to reconstruct the healthy ones. Neither the
            noisy slice nor its conditioning can then reproduce a lesion. Differs from paper: there both are healthy in
            training.
        clip: Clip reconstructions to the range of intensities. The published code clips the images between the steps of
            a chain, but not the result of one step: false is as published. Residuals other than those by similarity can
            then exceed 1.
    """

    ADDED_FIELDS: ClassVar[frozenset[str]] = frozenset({"train_with_anomalies", "clip"})

    unet: UNetConfig = UNetConfig()
    conditioning: Conditioning = "none"
    encoder: EncoderConfig | None = None
    predicts: Literal["image", "noise"] = "image"
    noise: str = "simplex"
    n_levels: int = Field(default=1000, ge=2)
    train_levels: tuple[int, int] | None = None
    test_levels: tuple[int, ...] = (250, 500, 750)
    sampling_steps: int = Field(default=1, ge=1)
    train_with_anomalies: bool = False
    clip: bool = True

    def model_post_init(self, _: Any, /) -> None:
        """Check what the fields cannot say alone."""
        NOISES.get(self.noise)
        if (self.conditioning == "none") != (self.encoder is None):
            raise ValueError(f"conditioning '{self.conditioning}' and encoder must be given together, or neither")
        if self.train_with_anomalies and self.predicts != "image":
            raise ValueError("train_with_anomalies needs predicts 'image': the noise does not define the healthy image")
        if not self.test_levels or not all(0 <= level < self.n_levels for level in self.test_levels):
            raise ValueError(f"test_levels must lie in [0, {self.n_levels})")
        low, high = self.level_range
        if not 0 <= low < high <= self.n_levels:
            raise ValueError(f"train_levels must be a range within [0, {self.n_levels}]")

    @property
    def level_range(self) -> tuple[int, int]:
        """The range [low, high) of the levels drawn in training."""
        return self.train_levels or (0, self.n_levels)


class DiffusionReconstructor(Reconstructor):
    r"""Noises the input to level t and predicts $x_0$, optionally conditioned on the input.

    Loss: $|x_0 - \hat x_0(x_t, t, c)|$ (Behrendt et al. 2024, equation 1), or $(\epsilon - \hat\epsilon)^2$ where
    the noise is predicted; t uniform in [0, T) unless `train_levels` narrows it. With `train_with_anomalies`, $x_t$
    and c come from a slice with a synthetic anomaly, $x_0$ from the same slice without.
    """

    Settings = DiffusionSettings
    settings: DiffusionSettings

    def __init__(self, settings: DiffusionSettings) -> None:
        super().__init__()
        self.settings, self.needs_corruption = settings, settings.train_with_anomalies
        features = 0
        self.encoder: SliceEncoder | None = None
        if settings.encoder is not None:
            features = settings.encoder.features or 4 * settings.unet.channels[0]
            spatial = settings.conditioning == "cross_attention"
            self.encoder = SliceEncoder(settings.encoder, features=features, spatial=spatial)
        self.unet = DiffusionUNet(settings.unet, condition_features=features, conditioning=settings.conditioning)
        self.alpha_bar = cosine_alpha_bar(settings.n_levels)

    @property
    def levels(self) -> tuple[Level, ...]:
        """The noise levels of the ensemble."""
        return self.settings.test_levels

    def random_level(self, generator: torch.Generator) -> Level:
        """Draw a noise level uniformly from the range of training."""
        return int(torch.randint(*self.settings.level_range, (), generator=generator))

    def loss(
        self, image: torch.Tensor, *, generator: torch.Generator, corrupt: Corruption | None = None
    ) -> torch.Tensor:
        """Return the distance of the prediction to the healthy slices in [−1, 1], or to the noise."""
        level = torch.randint(*self.settings.level_range, (len(image),), generator=generator)
        seeds = draw_seeds(len(image), generator)
        return self._error(image, self._given(image, generator, corrupt), level, seeds).mean()

    def reconstruct(self, image: torch.Tensor, *, level: Level, seeds: torch.Tensor) -> torch.Tensor:
        """Return the reconstruction from one noise level, in [0, 1] unless `clip` is false."""
        return self._at_levels(image, torch.full((len(image),), self._checked(level), device=image.device), seeds)

    def reconstruct_each(self, image: torch.Tensor, *, levels: Sequence[Level], seeds: torch.Tensor) -> torch.Tensor:
        """Return the reconstruction of each slice from its own noise level; one pass for all with one step."""
        if self.settings.sampling_steps > 1:
            return super().reconstruct_each(image, levels=levels, seeds=seeds)
        start = torch.tensor([self._checked(level) for level in levels], device=image.device)
        return self._at_levels(image, start, seeds)

    def _at_levels(self, image: torch.Tensor, start: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        """Return reconstructions from the noise levels `(b,)`, which are all the same for a chain of several steps."""
        return self._in_range((self._restore(image * 2 - 1, start, seeds).float() + 1) / 2)

    def _in_range(self, image: torch.Tensor) -> torch.Tensor:
        return image.clamp(0, 1) if self.settings.clip else image

    def _error(
        self,
        image: torch.Tensor,
        given: torch.Tensor,
        level: torch.Tensor,
        seeds: torch.Tensor,
        inside: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the error of each pixel `(b, 1, h, w)`; with `inside`, only there is noise.

        The network sees `given` under noise and predicts `image`, or the noise; both in [0, 1].
        """
        scaled, healthy = given * 2 - 1, image * 2 - 1
        noise = self._noise(scaled, seeds)
        noisy = _only(add_noise(scaled, noise, level, self.alpha_bar), scaled, inside)
        output: torch.Tensor = self.unet(noisy, level.to(scaled.device), self._condition(scaled)).float()
        return (output - noise).square() if self.settings.predicts == "noise" else (output - healthy).abs()

    def _restore(
        self, scaled: torch.Tensor, start: torch.Tensor, seeds: torch.Tensor, inside: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return $x_0$ in [−1, 1] after `sampling_steps` passes (Song et al. 2021, equation 12 with η = 0).

        `start` is the level of each slice `(b,)`; with several passes all start from the same. Without `clip` the
        result of the last pass may leave [−1, 1].
        """
        condition = self._condition(scaled)
        path = ddim_path(int(start[0]), self.settings.sampling_steps) if self.settings.sampling_steps > 1 else []
        at = [start, *(torch.full((len(scaled),), value, device=scaled.device) for value in path[1:])]
        x = _only(add_noise(scaled, self._noise(scaled, seeds), at[0], self.alpha_bar), scaled, inside)
        for current, following in zip(at, [*at[1:], None], strict=True):
            output: torch.Tensor = self.unet(x, current, condition)
            image = predicted_image(x, output, current, self.alpha_bar) if self.settings.predicts == "noise" else output
            if self.settings.clip or following is not None:
                image = image.clamp(-1, 1)
            if following is not None:
                noise = predicted_noise(x, image, current, self.alpha_bar)
                x = _only(add_noise(image, noise, following, self.alpha_bar), scaled, inside)
        return image

    def _noise(self, scaled: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        height, width = scaled.shape[-2:]
        return NOISES.get(self.settings.noise)(seeds, height, width, scaled.device)

    def _condition(self, scaled: torch.Tensor) -> torch.Tensor | None:
        if self.encoder is None:
            return None
        condition: torch.Tensor = self.encoder(scaled)
        return condition

    def _checked(self, level: Level) -> int:
        if level is None or not 0 <= level < self.settings.n_levels:
            raise ValueError(f"a noise level must lie in [0, {self.settings.n_levels}), got {level}")
        return level


def _only(altered: torch.Tensor, image: torch.Tensor, inside: torch.Tensor | None) -> torch.Tensor:
    """Return `altered` inside and `image` outside; all of `altered` where there is no `inside`."""
    return altered if inside is None else torch.where(inside, altered, image)


class DDPMSettings(DiffusionSettings):
    """Diffusion settings with Gaussian noise."""

    noise: str = "gaussian"


@RECONSTRUCTORS.register("ddpm")
class DDPM(DiffusionReconstructor):
    """DDPM: Gaussian noise, no condition (Ho et al. 2020; as a baseline in Behrendt et al. 2024, Table 1)."""

    reference = "Ho J, Jain A, Abbeel P. Denoising diffusion probabilistic models. NeurIPS 2020;33:6840–6851."

    Settings = DDPMSettings


@RECONSTRUCTORS.register("anoddpm")
class AnoDDPM(DiffusionReconstructor):
    """AnoDDPM: simplex noise, no condition (Wyatt et al., CVPRW 2022).

    Noise of many scales covers large lesions too.
    """

    reference = (
        "Wyatt J, Leach A, Schmon SM, Willcocks CG. AnoDDPM: anomaly detection with denoising diffusion "
        "probabilistic models using simplex noise. CVPRW 2022:650–656."
    )


class CDDPMSettings(DiffusionSettings):
    """Diffusion settings with an encoder, ResNet-50 by default, whose vector joins the time embedding."""

    conditioning: Conditioning = "vector"
    encoder: EncoderConfig | None = EncoderConfig()


@RECONSTRUCTORS.register("cddpm")
class CDDPM(DiffusionReconstructor):
    """cDDPM: simplex noise, conditioned on an encoder's vector of the input (Behrendt et al., arXiv 2312.04215).

    The paper's reconstructor: the vector encodes contrast and anatomy hidden by the noise.
    """

    reference = (
        "Behrendt F, Bhattacharya D, Mieling R, Maack L, Krüger J, Opfer R, Schlaefer A. Guided reconstruction "
        "with conditioned diffusion models for unsupervised anomaly detection in brain MRIs. arXiv:2312.04215, "
        "2023."
    )
    Settings = CDDPMSettings


class PDDPMSettings(DiffusionSettings):
    """Diffusion settings with a patch.

    Args:
        patch_size: Side of the noised patch in pixels.
        stride: Distance of neighbouring patches at test time; where patches overlap they are averaged.
        train_patches: Where the patch of a training slice lies: "anywhere", or at a place of the test's "grid" as
            published.
    """

    ADDED_FIELDS: ClassVar[frozenset[str]] = DiffusionSettings.ADDED_FIELDS | {"train_patches"}

    patch_size: int = Field(default=48, ge=1)
    stride: int = Field(default=24, ge=1)
    train_patches: Literal["anywhere", "grid"] = "anywhere"

    def model_post_init(self, context: Any, /) -> None:
        """Refuse patches that leave pixels between them, which nothing would restore."""
        super().model_post_init(context)
        if self.stride > self.patch_size:
            raise ValueError(f"stride {self.stride} must not exceed patch_size {self.patch_size}")


@RECONSTRUCTORS.register("pddpm")
class PDDPM(DiffusionReconstructor):
    """pDDPM: noise in one patch at a time, the rest of the slice provides the anatomy (Behrendt et al., MIDL 2023).

    Learns to restore one noised patch; a reconstruction is stitched from patches that cover the slice.

    Loss: on the pixels of the patch alone.
    """

    reference = (
        "Behrendt F, Bhattacharya D, Krüger J, Opfer R, Schlaefer A. Patched diffusion models for unsupervised "
        "anomaly detection in brain MRI. MIDL 2023, PMLR 227:1019–1032."
    )
    Settings = PDDPMSettings
    settings: PDDPMSettings

    def loss(
        self, image: torch.Tensor, *, generator: torch.Generator, corrupt: Corruption | None = None
    ) -> torch.Tensor:
        """Return the error within a patch drawn for each slice."""
        count, (height, width) = len(image), image.shape[-2:]
        level = torch.randint(*self.settings.level_range, (count,), generator=generator)
        place = torch.rand(count, 2, generator=generator)
        inside = torch.zeros_like(image, dtype=torch.bool)
        for n, (down, right) in enumerate(place.tolist()):
            rows, columns = self._extent(height, down), self._extent(width, right)
            inside[n, :, rows, columns] = True
        seeds = draw_seeds(count, generator)
        error = self._error(image, self._given(image, generator, corrupt), level, seeds, inside)
        return (error * inside).sum() / inside.sum()

    def _at_levels(self, image: torch.Tensor, start: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        """Return the mean of overlapping patches, each restored with the rest of the slice unchanged."""
        scaled, (height, width) = image * 2 - 1, image.shape[-2:]
        total, weight = torch.zeros_like(image, dtype=torch.float32), torch.zeros(1, 1, height, width).to(image.device)
        for rows in self._cover(height):
            for columns in self._cover(width):
                inside = torch.zeros(1, 1, height, width, dtype=torch.bool, device=image.device)
                inside[..., rows, columns] = True
                total += self._restore(scaled, start, seeds, inside).float() * inside
                weight += inside
        return self._in_range((total / weight + 1) / 2)

    def _extent(self, size: int, place: float) -> slice:
        """Return the patch at `place` in [0, 1) along an axis of `size` pixels."""
        if self.settings.train_patches == "grid":
            patches = self._cover(size)
            return patches[int(place * len(patches))]
        start = int(place * max(size - self.settings.patch_size + 1, 1))
        return slice(start, start + self.settings.patch_size)

    def _cover(self, size: int) -> list[slice]:
        """Return patches that cover an axis of `size` pixels, at most `stride` apart and evenly spread."""
        room = max(size - self.settings.patch_size, 0)
        count = math.ceil(room / self.settings.stride) + 1
        starts = [round(n * room / max(count - 1, 1)) for n in range(count)]
        return [slice(start, start + self.settings.patch_size) for start in starts]
