"""Stage 1: a reconstructor is trained on healthy slices only."""

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning_fabric import Fabric

from halebrain.core.config import GrowingConfig
from halebrain.core.errors import ConfigError
from halebrain.core.random import branch, make_generator
from halebrain.data.anomalies import AnomalySpec, build_anomaly
from halebrain.data.augment import AugmentationConfig
from halebrain.data.slices import DataConfig, SliceStore
from halebrain.models.bundle import Bundle, ModelConfig
from halebrain.models.conditioning import SliceEncoder
from halebrain.models.encoder_file import PretrainedEncoder, load_encoder, start_from
from halebrain.models.joining import part_for
from halebrain.models.reconstruction import RECONSTRUCTORS, Reconstructor, ReconstructorSpec, build_reconstructor
from halebrain.models.reconstruction.second_look import SecondLook
from halebrain.models.segmentation import Segmenter
from halebrain.models.store import load_model
from halebrain.training.batch_sampling import DRAWS, HealthyDraw, HealthySlices, open_slices
from halebrain.training.encoder import PretrainingConfig, pretrain
from halebrain.training.loop import Stage
from halebrain.training.loop_config import LoopConfig
from halebrain.training.prefetch import Drawn
from halebrain.training.processes import in_turn
from halebrain.training.runs import files_of, read_training_manifest, run_stage, tell_of_people_learned_from


class ReconstructorTraining(GrowingConfig):
    """Configuration of a stage-1 run.

    Args:
        data: Which scans; only healthy ones of the split "train" are learned, of "val" validated.
        reconstructor: What to train.
        encoder_weights: A file of `halebrain train encoder` to start the condition encoder from; `None` = from scratch.
        pretraining: Pretrain the condition encoder first, in the same run, on the same scans; `None` = not. A file of
            `encoder_weights` takes precedence.
        start: A model, by path or name, whose reconstructor is trained further; `None` = from scratch.
        detector: A model, by path or name, whose networks are the first pass of `second_look`; other reconstructors
            have none.
        anomaly: The synthetic anomalies that a restoring reconstructor learns to undo; others do not use it.
        augmentation: Intensity augmentation of training slices.
        loop: Settings of the optimisation.
        seed: Seed of weights, batches, augmentation and noise.
    """

    ADDED_FIELDS: ClassVar[frozenset[str]] = frozenset({"start", "detector", "pretraining"})

    data: DataConfig = DataConfig()
    reconstructor: ReconstructorSpec = ReconstructorSpec(name="cddpm")
    encoder_weights: Path | None = None
    pretraining: PretrainingConfig | None = None
    start: Path | None = None
    detector: Path | None = None
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
        slices = HealthySlices(stores, config, purpose="stage 1")
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
    """Run stage 1 in `folder` (resuming what is there) and return the bundle, not yet written."""
    manifest = read_training_manifest(config.data).select(lambda record: record.is_healthy)
    torch.manual_seed(config.seed)  # the initial weights, drawn by torch's layers from the global generator
    first_pass = _first_pass(config)
    spec = config.reconstructor if first_pass is None else _with_first_pass(config.reconstructor, first_pass)
    reconstructor = build_reconstructor(spec.name, spec.settings)
    reconstructor = reconstructor.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    encoder = _start_encoder(reconstructor, config.encoder_weights)
    others = [reconstructor.prepare(), *([] if encoder is None else [encoder.sha256])]
    if config.pretraining is not None and config.encoder_weights is None:
        with in_turn(fabric):  # the first process alone, so on one device; the others find its file
            others.append(_pretrain_encoder(reconstructor, config, folder, fabric.device))
    before = None if config.start is None else load_model(config.start)
    if before is not None:
        others.append(_take_weights(reconstructor, before, config.start))
    if first_pass is not None:
        others.append(_take_first_pass(reconstructor, first_pass))
    built: Any = reconstructor.settings  # what was brought in is known by its hash, not by its place
    spec = ReconstructorSpec(name=spec.name, settings=built.model_dump(mode="json"))
    with in_turn(fabric):
        stores = open_slices(manifest, "healthy", config.data, folder)
    stage = ReconstructorStage(reconstructor, stores, config)
    known = config.model_copy(
        update={"encoder_weights": None, "pretraining": None, "start": None, "detector": None, "reconstructor": spec}
    )
    others.insert(0, DRAWS)
    tell_of_people_learned_from(manifest, (before, first_pass))
    others += files_of(stage.draw.anomaly)
    name = "Stage 1, reconstructor"
    summary = run_stage(stage, config, manifest, folder, fabric=fabric, name=name, known=known, others=others)
    model = ModelConfig(
        kind="reconstructor",
        reconstructor=spec,
        preprocessing=config.data.preprocessing.model_dump(mode="json"),
    )
    # Whom these saw, the new model has seen.
    if encoder is not None:
        summary["start"] = {"sha256": encoder.sha256, "encoder": encoder.training}
    if before is not None:
        summary["start"] = {"sha256": before.sha256, **before.reconstructor_training}
    if first_pass is not None:
        earlier = {} if before is None else before.reconstructor_training
        stages = first_pass.training | {f"{stage} before": one for stage, one in earlier.items()}
        summary["start"] = {"sha256": first_pass.sha256, **stages}
    return Bundle(model, reconstructor, None, {"stage1": summary}, {})


def _start_encoder(reconstructor: Reconstructor, path: Path | None) -> PretrainedEncoder | None:
    """Start the reconstructor's encoder from a pretrained one, and return that."""
    if path is None:
        return None
    encoder, settings = getattr(reconstructor, "encoder", None), reconstructor.settings
    if not isinstance(encoder, SliceEncoder):
        raise ConfigError("encoder_weights need a reconstructor with an encoder", where=path, remedy="use cddpm")
    pretrained = load_encoder(path)
    start_from(encoder, settings.encoder, pretrained, where=path)  # type: ignore[union-attr,arg-type]
    return pretrained


def _pretrain_encoder(
    reconstructor: Reconstructor, config: ReconstructorTraining, folder: Path, device: torch.device
) -> str:
    """Start the reconstructor's encoder from one that is pretrained here, and return the hash of its training."""
    assert config.pretraining is not None
    settings: Any = reconstructor.settings
    if not isinstance(getattr(reconstructor, "encoder", None), SliceEncoder):
        raise ConfigError(
            "pretraining needs a reconstructor with an encoder",
            received=config.reconstructor.name,
            remedy="use cddpm, or remove pretraining",
        )
    path, identity = pretrain(
        config.pretraining, settings.encoder, config.data, folder, seed=config.seed, device=device
    )
    _start_encoder(reconstructor, path)
    return identity


def _take_weights(reconstructor: Reconstructor, before: Bundle, where: Path | None) -> str:
    """Start from the weights of another model's reconstructor, and return the hash of that model."""
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


def _first_pass(config: ReconstructorTraining) -> Bundle | None:
    """Return the detector of one network that makes the first pass of a second look.

    `None` for other reconstructors.
    """
    takes_one = RECONSTRUCTORS.get(config.reconstructor.name) is SecondLook
    if config.detector is None:
        if takes_one and "doubter" not in config.reconstructor.settings:
            raise ConfigError(
                "second_look needs a detector for its first pass", received="none", remedy="set detector=general"
            )
        return None
    if not takes_one:
        raise ConfigError(
            "detector is the first pass of second_look",
            received=f"reconstructor.name={config.reconstructor.name}",
            remedy="remove detector, or set reconstructor.name=second_look",
        )
    whole = load_model(config.detector)
    bundle = part_for(whole, config.data.modalities or ())
    wrong = ""
    if not isinstance(bundle.segmenter, Segmenter):
        wrong = "a reconstructor without a segmenter"
    elif bundle.segmenter.config.neighbours:
        wrong = "one that sees neighbouring slices"
    elif not bundle.reconstructor.gives_image:
        wrong = f"{bundle.config.reconstructor.name}, which gives no reconstruction"
    if wrong:
        raise ConfigError(
            "the first pass must be a detector that sees one slice at a time",
            received=wrong,
            where=config.detector,
            remedy="name a detector whose segmenter has no neighbours",
        )
    return replace(bundle, sha256=whole.sha256)


def _with_first_pass(spec: ReconstructorSpec, first_pass: Bundle) -> ReconstructorSpec:
    """Return the settings of a second look with the networks of its first pass."""
    config = first_pass.config
    assert config.segmenter is not None
    own = {
        "finder": config.reconstructor.model_dump(mode="json"),
        "doubter": config.segmenter.model_dump(mode="json"),
    }
    return ReconstructorSpec(name=spec.name, settings={**spec.settings, **own})


def _take_first_pass(reconstructor: Reconstructor, first_pass: Bundle) -> str:
    """Give a second look the weights of its first pass, and return their hash."""
    assert isinstance(reconstructor, SecondLook)
    assert first_pass.segmenter is not None
    reconstructor.finder.load_state_dict(first_pass.reconstructor.state_dict())
    assert reconstructor.doubter is not None
    reconstructor.doubter.load_state_dict(first_pass.segmenter.state_dict())
    return first_pass.sha256
