"""Both networks at once, on synthetic anomalies alone: DRAEM-Net (Zavrtanik et al., ICCV 2021), for comparison.

The reconstructor learns to undo a synthetic anomaly while the segmenter learns to delineate it from the pair, and the
segmenter's error teaches the reconstructor too. In the two stages of the method the reconstructor is frozen instead.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from pydantic import Field
from torch import nn

from halebrain.core.config import Config
from halebrain.core.errors import ConfigError
from halebrain.core.random import draw_seeds
from halebrain.data.anomalies import AnomalySpec, build_anomaly
from halebrain.data.augment import AugmentationConfig
from halebrain.data.slices import DataConfig, SliceStore
from halebrain.models.bundle import Bundle, ModelConfig
from halebrain.models.reconstruction import RECONSTRUCTORS, Reconstructor, ReconstructorSpec, build_reconstructor
from halebrain.models.segmentation import Segmenter, SegmenterConfig
from halebrain.training.batch_sampling import HealthySlices, open_slices
from halebrain.training.loop import Stage
from halebrain.training.loop_config import LoopConfig
from halebrain.training.losses import LossConfig, segmentation_loss
from halebrain.training.prefetch import Drawn
from halebrain.training.processes import in_turn
from halebrain.training.runs import files_of, read_training_manifest, run_stage


class JointTraining(Config):
    """Configuration of a joint run; the defaults are DRAEM-Net's.

    Args:
        data: Which scans; healthy ones only.
        reconstructor: One that learns to undo synthetic anomalies.
        segmenter: Size and inputs of the segmenter.
        anomaly: The synthetic anomalies.
        loss: Weights of the segmenter's loss.
        reconstruction_weight: Weight of the reconstructor's loss beside it.
        augmentation: Intensity augmentation, before the anomaly.
        postprocessing: Settings of the anomaly map: the segmenter alone, as published.
        loop: Settings of the optimisation.
        seed: Seed of weights, batches and anomalies.
    """

    data: DataConfig = DataConfig()
    reconstructor: ReconstructorSpec = ReconstructorSpec(name="restoration")
    segmenter: SegmenterConfig = SegmenterConfig(streams=("image", "reconstruction"))
    anomaly: AnomalySpec = AnomalySpec()
    loss: LossConfig = LossConfig(cross_entropy=0, focal=1)
    reconstruction_weight: float = Field(default=1.0, gt=0)
    augmentation: AugmentationConfig = AugmentationConfig()
    postprocessing: dict[str, Any] = Field(default_factory=lambda: {"residual_weight": 0.0})
    loop: LoopConfig = LoopConfig()
    seed: int = 0

    def model_post_init(self, _: Any, /) -> None:
        """Check that the reconstructor is of the right kind, and that the segmenter sees single slices."""
        if self.segmenter.neighbours:
            raise ValueError("a joint run supports no neighbouring slices")
        if not RECONSTRUCTORS.get(self.reconstructor.name).needs_corruption:
            raise ValueError(f"reconstructor '{self.reconstructor.name}' does not learn to undo anomalies")


class JointNetwork(nn.Module):
    """Reconstructor and segmenter as one, so that both are trained, averaged and kept together."""

    def __init__(self, reconstructor: Reconstructor, segmenter: Segmenter) -> None:
        super().__init__()
        self.reconstructor, self.segmenter = reconstructor, segmenter


class JointStage(Stage):
    """Healthy slices in, error of restoring and delineating their synthetic anomalies out."""

    def __init__(self, network: JointNetwork, stores: dict[str, SliceStore], config: JointTraining) -> None:
        super().__init__()
        self.trained = network
        self.config = config
        self.anomaly = build_anomaly(config.anomaly)
        self.slices = HealthySlices(stores, config, purpose="joint")

    def forward(self, split: str, step: int, drawn: Drawn | None = None) -> torch.Tensor:
        """Return the sum of both losses of batch `step`."""
        network: Any = self.trained
        healthy, brain_mask, generator = self.slices.draw(split, step, next(network.parameters()).device)
        params = self.anomaly.sample_params(len(healthy), generator=generator)
        altered, lesion = self.anomaly.apply(healthy, brain_mask, params)
        own = network.reconstructor.loss(healthy, generator=generator, corrupt=partial(_given, altered))
        level = network.reconstructor.random_level(generator)
        seeds = draw_seeds(len(altered), generator)
        reconstruction = network.reconstructor.reconstruct(altered, level=level, seeds=seeds) * brain_mask
        logits = network.segmenter.all_logits(altered, reconstruction)
        total: torch.Tensor = self.config.reconstruction_weight * own
        return total + segmentation_loss(logits, lesion.float(), self.config.loss)


def _given(altered: torch.Tensor, _healthy: torch.Tensor, _generator: torch.Generator) -> torch.Tensor:
    # Both networks must see the same anomaly.
    return altered


def train_joint(config: JointTraining, folder: Path, *, fabric: Fabric) -> Bundle:
    """Run the joint training in `folder` (resuming what is there); return the bundle, not yet written."""
    manifest = read_training_manifest(config.data).select(lambda record: record.is_healthy)
    with in_turn(fabric):
        stores = open_slices(manifest, "healthy", config.data, folder)
    torch.manual_seed(config.seed)  # the initial weights, drawn by torch's layers from the global generator
    spec = config.reconstructor
    reconstructor = build_reconstructor(spec.name, spec.settings)
    if not reconstructor.gives_image:
        raise ConfigError(
            "a segmenter needs a reconstruction",
            received=spec.name,
            remedy="use a reconstructor with an image output, such as ae or dae",
        )
    network = JointNetwork(reconstructor, Segmenter(config.segmenter))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    stage = JointStage(network, stores, config)
    others = files_of(stage.anomaly)
    summary = run_stage(stage, config, manifest, folder, fabric=fabric, name="Both networks", others=others)
    settings: Any = reconstructor.settings
    model = ModelConfig(
        kind="detector",
        reconstructor=ReconstructorSpec(name=spec.name, settings=settings.model_dump(mode="json")),
        segmenter=config.segmenter,
        preprocessing=config.data.preprocessing.model_dump(mode="json"),
        postprocessing=config.postprocessing,
    )
    return Bundle(model, network.reconstructor, network.segmenter, {"joint": summary}, {})
