"""Stage 0, optional: pretraining of the condition encoder by masked-image modelling (SparK)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning_fabric import Fabric
from pydantic import Field

from halebrain.core.config import Config, GrowingConfig
from halebrain.core.random import make_generator
from halebrain.data.augment import AugmentationConfig
from halebrain.data.slices import DataConfig, SliceStore
from halebrain.io.checksum import json_sha256
from halebrain.models.conditioning import EncoderConfig
from halebrain.models.encoder_file import save_encoder
from halebrain.models.masked_encoder import MaskedAutoencoder, MaskedEncoderConfig
from halebrain.training.batch_sampling import HealthySlices, open_slices
from halebrain.training.devices import launch
from halebrain.training.loop import Stage
from halebrain.training.loop_config import LoopConfig
from halebrain.training.loop_state import CHECKPOINT
from halebrain.training.prefetch import Drawn
from halebrain.training.processes import in_turn
from halebrain.training.runs import content_of, read_training_manifest, run_identity, run_stage


class EncoderTraining(Config):
    """Configuration of a pretraining run.

    Args:
        data: Which scans; healthy ones only.
        masked: Size of the encoder, and how much is hidden.
        augmentation: Intensity augmentation of training slices.
        loop: Settings of the optimisation.
        seed: Seed of weights, batches, augmentation and hidden cells.
    """

    data: DataConfig = DataConfig()
    masked: MaskedEncoderConfig = MaskedEncoderConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    loop: LoopConfig = LoopConfig()
    seed: int = 0


class PretrainingConfig(GrowingConfig):
    """Pretraining of the condition encoder as the first part of a stage-1 run; its size is the reconstructor's.

    Args:
        mask_ratio: Share of the cells that are hidden.
        cell: Side of a cell in pixels.
        decoder_width: Channels of the decoder, which is thrown away.
        normalise_cells: Whether each cell to predict is scaled to zero mean and unit variance.
        augmentation: Intensity augmentation of training slices.
        loop: Settings of the optimisation.
    """

    ADDED_FIELDS: ClassVar[frozenset[str]] = frozenset({"normalise_cells"})

    mask_ratio: float = Field(default=0.65, gt=0, lt=1)
    cell: int = Field(default=16, ge=1)
    decoder_width: int = Field(default=64, ge=8)
    normalise_cells: bool = True
    augmentation: AugmentationConfig = AugmentationConfig()
    loop: LoopConfig = LoopConfig()

    def training(self, encoder: EncoderConfig, data: DataConfig, seed: int) -> EncoderTraining:
        """Return the whole configuration of the pretraining of an encoder."""
        own = self.model_dump(include={"mask_ratio", "cell", "decoder_width", "normalise_cells"})
        masked = MaskedEncoderConfig(encoder=encoder, **own)
        return EncoderTraining(data=data, masked=masked, augmentation=self.augmentation, loop=self.loop, seed=seed)


class EncoderStage(Stage):
    """Healthy slices with hidden cells in, error of the predicted cells out."""

    def __init__(self, network: MaskedAutoencoder, stores: dict[str, SliceStore], config: EncoderTraining) -> None:
        super().__init__()
        self.trained = network
        self.slices = HealthySlices(stores, config, purpose="stage 0")

    def forward(self, split: str, step: int, drawn: Drawn | None = None) -> torch.Tensor:
        """Return the loss of batch `step`."""
        network: Any = self.trained
        image, brain_mask, generator = self.slices.draw(split, step, next(network.parameters()).device)
        loss: torch.Tensor = network.loss(image, brain_mask, generator=generator)
        return loss


@dataclass(frozen=True)
class EncoderRun:
    """What a pretraining ends with.

    `example` is original validation slices, these with hidden cells, and as predicted, `(3, b, h, w)` in [0, 1].
    """

    network: MaskedAutoencoder
    summary: dict[str, Any]
    example: torch.Tensor


def train_encoder(config: EncoderTraining, folder: Path, *, fabric: Fabric) -> EncoderRun:
    """Run the pretraining in `folder` (resuming what is there)."""
    manifest = read_training_manifest(config.data).select(lambda record: record.is_healthy)
    with in_turn(fabric):
        stores = open_slices(manifest, "healthy", config.data, folder)
    torch.manual_seed(config.seed)  # the initial weights, drawn by torch's layers from the global generator
    network = MaskedAutoencoder(config.masked).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    stage = EncoderStage(network, stores, config)
    summary = run_stage(stage, config, manifest, folder, fabric=fabric, name="Encoder")
    return EncoderRun(network, summary, _example(network, stage))


@torch.no_grad()
def _example(network: MaskedAutoencoder, stage: EncoderStage, count: int = 4) -> torch.Tensor:
    batch = stage.slices.samplers["val"].batch(0)
    device = next(network.parameters()).device
    image = batch.image[:count].to(device)
    network.eval()
    visible = network.draw_visible(image, make_generator(0, "example"))
    painted = torch.where(visible, image, network.in_contrast_of(image, network.paint(image, visible).float()))
    return torch.stack([image, image * visible, painted])[:, :, 0].clamp(0, 1).cpu()


def pretrain(
    config: PretrainingConfig,
    encoder: EncoderConfig,
    data: DataConfig,
    folder: Path,
    *,
    seed: int,
    device: torch.device,
) -> tuple[Path, str]:
    """Return the file of an encoder pretrained as configured, and the hash of all that it depends on.

    It lies in the cache of the data, so that runs with the same encoder, data and seed pretrain it once; without a
    cache in `folder`. What is there of an earlier attempt is resumed.
    """
    own = config.training(encoder, data, seed)
    manifest = read_training_manifest(data).select(lambda record: record.is_healthy)
    identity = run_identity(own, manifest)
    content = content_of(manifest, data)
    place = (data.cache or folder / "cache") / f"encoder-{json_sha256([identity, content])[:16]}"
    path = place / "encoder.safetensors"
    if not path.exists():
        place.mkdir(parents=True, exist_ok=True)
        run = train_encoder(own, place, fabric=launch(own.loop, device))
        save_encoder(run.network.encoder, own.masked.encoder, run.summary, path)
        (place / CHECKPOINT).unlink(missing_ok=True)
    return path, identity
