"""Stage 1: a reconstructor is trained on healthy slices only."""

from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning_fabric import Fabric

from halebrain.core.config import Config, GrowingConfig, portable_dump, with_former_keys
from halebrain.core.errors import ConfigError, MissingInputError
from halebrain.core.random import branch, make_generator
from halebrain.data.anomalies import AnomalySpec, build_anomaly
from halebrain.data.augment import AugmentationConfig
from halebrain.data.slices import DataConfig, SliceStore, scan_weights
from halebrain.io.checksum import json_sha256
from halebrain.io.manifest import Manifest
from halebrain.models.bundle import Bundle, ModelConfig, ReconstructorSpec
from halebrain.models.conditioning import SliceEncoder
from halebrain.models.encoder_file import load_encoder, start_from
from halebrain.models.reconstruction import Reconstructor, build_reconstructor
from halebrain.models.store import load_model
from halebrain.training.batch_sampling import DRAWS, HealthyDraw, HealthySlices, open_healthy
from halebrain.training.loop import Stage, train
from halebrain.training.loop_config import LoopConfig
from halebrain.training.loop_state import TrainingResult
from halebrain.training.prefetch import Drawn

_PLACES = ("manifest", "more_manifests", "cache", "workers")
"""Data settings that concern places and reading only, and do not affect the result."""


class ReconstructorTraining(GrowingConfig):
    """Configuration of a stage-1 run.

    Args:
        data: Which scans; only healthy ones of the split "train" are learned, of "val" validated.
        reconstructor: What to train.
        encoder_weights: A file of `halebrain train encoder` to start the condition encoder from; `None` = from scratch.
        start: A model, by path or name, whose reconstructor is trained further; `None` = from scratch.
        anomaly: The synthetic anomalies that a restoring reconstructor learns to undo; others do not use it.
        augmentation: Intensity augmentation of training slices.
        loop: Settings of the optimisation.
        seed: Seed of weights, batches, augmentation and noise.
    """

    ADDED_FIELDS: ClassVar[frozenset[str]] = frozenset({"start"})

    data: DataConfig = DataConfig()
    reconstructor: ReconstructorSpec = ReconstructorSpec(name="cddpm")
    encoder_weights: Path | None = None
    start: Path | None = None
    anomaly: AnomalySpec = AnomalySpec()
    augmentation: AugmentationConfig = AugmentationConfig()
    loop: LoopConfig = LoopConfig()
    seed: int = 0


class ReconstructorStage(Stage):
    """Healthy slices in, reconstruction loss out."""

    draw: HealthyDraw

    def __init__(
        self, reconstructor: Reconstructor, stores: dict[str, SliceStore], config: ReconstructorTraining
    ) -> None:
        super().__init__()
        self.trained, self.seed = reconstructor, config.seed
        slices = HealthySlices(
            stores,
            config.loop.batch_size,
            config.augmentation,
            seed=config.seed,
            purpose="stage 1",
            sampling=config.data.sampling,
        )
        self.draw = HealthyDraw(slices, build_anomaly(config.anomaly) if reconstructor.needs_corruption else None)

    def forward(self, split: str, step: int, drawn: Drawn | None = None) -> torch.Tensor:
        """Return the reconstruction loss of batch `step`."""
        device, reconstructor = next(self.trained.parameters()).device, self.trained
        drawn = drawn or self.draw(split, step)
        image, *corrupted = (tensor.to(device, non_blocking=device.type == "cuda") for tensor in drawn)
        corrupt = (lambda *_: corrupted[0]) if corrupted else None
        generator = branch(make_generator(self.seed, split, "stage 1", step), "loss")
        loss: torch.Tensor = reconstructor.loss(image, generator=generator, corrupt=corrupt)  # type: ignore[operator]
        return loss


def train_reconstructor(config: ReconstructorTraining, folder: Path, *, fabric: Fabric) -> Bundle:
    """Run stage 1 in `folder` (resuming what is there) and return the bundle, not yet written.

    Raises:
        MissingInputError: The manifest has no healthy training or validation scan.
    """
    manifest = read_training_manifest(config.data).select(lambda record: record.is_healthy)
    torch.manual_seed(config.seed)  # the initial weights, drawn by torch's layers from the global generator
    spec = config.reconstructor
    reconstructor = build_reconstructor(spec.name, spec.settings)
    reconstructor = reconstructor.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    others = [reconstructor.prepare(), *_start_encoder(reconstructor, config.encoder_weights)]
    before = None if config.start is None else load_model(config.start)
    if before is not None:
        others.append(_take_weights(reconstructor, before, config.start))
    built: Any = reconstructor.settings  # what was brought in is known by its hash, not by its place
    spec = ReconstructorSpec(name=spec.name, settings=built.model_dump(mode="json"))
    stores = open_healthy(manifest, config.data, folder)
    stage = ReconstructorStage(reconstructor, stores, config)
    known = config.model_copy(update={"encoder_weights": None, "start": None, "reconstructor": spec})
    identity = run_identity(known, manifest, DRAWS, *others)
    result = train(
        stage,
        config.loop,
        folder,
        fabric=fabric,
        name="Stage 1, reconstructor",
        identity=identity,
        workers=drawing_workers(config.data, fabric),
    )
    reconstructor.load_state_dict(result.weights)
    model = ModelConfig(
        kind="reconstructor",
        reconstructor=spec,
        preprocessing=config.data.preprocessing.model_dump(mode="json"),
    )
    summary = {"stage1": summarise(config, result, manifest, fabric)}
    if before is not None:
        summary["stage1"]["start"] = {"sha256": before.sha256, "stage1": before.training.get("stage1", {})}
    return Bundle(model, reconstructor, None, summary, {})


def _start_encoder(reconstructor: Reconstructor, path: Path | None) -> list[str]:
    """Start the reconstructor's encoder from a pretrained one, and return the hash of its file.

    Raises:
        ConfigError: The reconstructor has no encoder, or one of another size.
    """
    if path is None:
        return []
    encoder, settings = getattr(reconstructor, "encoder", None), reconstructor.settings
    if not isinstance(encoder, SliceEncoder):
        raise ConfigError("encoder_weights need a reconstructor with an encoder", where=path, remedy="use cddpm")
    pretrained = load_encoder(path)
    start_from(encoder, settings.encoder, pretrained, where=path)  # type: ignore[union-attr,arg-type]
    return [pretrained.sha256]


def _take_weights(reconstructor: Reconstructor, before: Bundle, where: Path | None) -> str:
    """Start from the weights of another model's reconstructor, and return the hash of that model.

    Raises:
        ConfigError: It is of another method or size.
    """
    try:
        reconstructor.load_state_dict(before.reconstructor.state_dict())
    except RuntimeError as error:
        raise ConfigError(
            "a model to start from must have the same method and size",
            received=f"{before.config.reconstructor.name} of another size",
            where=where or "",
            remedy="use its settings of the section reconstructor, or remove start",
        ) from error
    return before.sha256


def read_training_manifest(data: DataConfig) -> Manifest:
    """Read the manifests of `data` as one, restricted to its modalities.

    Raises:
        MissingInputError: No manifest is named.
        DataError: Two of them name the same scan, or split a subject.
    """
    if data.manifest is None:
        raise MissingInputError("training needs a manifest", remedy="give --manifest or data.manifest")
    wanted = data.modalities
    tables = [Manifest.read(path) for path in (data.manifest, *data.more_manifests)]
    whole = Manifest(tuple(record for table in tables for record in table), source=data.manifest)
    return whole.select(lambda record: wanted is None or record.modality in wanted)


def run_identity(config: Config, manifest: Manifest, *others: str) -> str:
    """Return a hash of all that a run depends on, whatever the place of its files on disk.

    Args:
        config: The resolved configuration.
        manifest: The scans that the run sees.
        others: Hashes of whatever else goes in, such as a frozen model.
    """
    settings = config.model_dump(mode="json")
    settings["data"] = {k: v for k, v in settings["data"].items() if k not in _PLACES}
    if weights := scan_weights(config.data):  # type: ignore[attr-defined]
        # Names alone where one weight, which stands in the settings, holds for all.
        same = isinstance(config.data.oversample_factor, int)  # type: ignore[attr-defined]
        settings["data"]["weighty"] = sorted(weights) if same else sorted(weights.items())
    return json_sha256([with_former_keys(settings), manifest.fingerprint(), *others])


def drawing_workers(data: DataConfig, fabric: Fabric) -> int:
    """Return how many processes draw batches ahead: on a CPU none, which would take from the training what they use."""
    return 0 if fabric.device.type == "cpu" else data.workers


def summarise(config: Config, result: TrainingResult, manifest: Manifest, fabric: Fabric) -> dict[str, Any]:
    """Return the entry of a run in the model card: data, steps, loss, time, device, and the resolved configuration.

    Models are shared, so the configuration holds no path of this machine.
    """
    return {
        "config": portable_dump(config),
        "manifest_sha256": manifest.fingerprint(),
        "train_subjects": manifest.split("train").subjects(),
        "val_subjects": manifest.split("val").subjects(),
        "modalities": sorted({record.modality for record in manifest}),
        "step": result.step,
        "validation_loss": result.validation_loss,
        "seconds": round(result.seconds, 1),
        "device": str(fabric.device),
        "precision": fabric.strategy.precision.precision,
    }
