"""Training runs: start or resume one in its folder, and leave a model there with its card and its losses."""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from lightning_fabric import Fabric

from halebrain.core.config import dump_yaml, load_config, parse_config
from halebrain.core.device import find_device
from halebrain.core.errors import ConfigError, DataError
from halebrain.core.files import write_text
from halebrain.core.shipped_configs import find_config
from halebrain.inference.anomaly_map import PostprocessingConfig
from halebrain.models.bundle import Bundle, load_bundle, model_sha256, save_bundle
from halebrain.models.card import model_card
from halebrain.models.encoder_file import save_encoder
from halebrain.models.segmentation import VARIANTS
from halebrain.models.store import load_model
from halebrain.preprocessing.pipeline import PreprocessingConfig
from halebrain.report.figures import loss_plot, masked_example, save_figure
from halebrain.training.devices import check_one_process, launch
from halebrain.training.encoder import EncoderTraining, train_encoder
from halebrain.training.joint import JointTraining, train_joint
from halebrain.training.loop_config import LoopConfig
from halebrain.training.loop_state import CHECKPOINT, LOG
from halebrain.training.processes import taking_part, together
from halebrain.training.reconstructor import ReconstructorTraining, train_reconstructor
from halebrain.training.runs import read_training_manifest
from halebrain.training.segmenter import train_segmenter
from halebrain.training.segmenter_config import SegmenterTraining
from halebrain.workflows.settings import TrainSettings

_CACHE = "cache"
_MADE = (CHECKPOINT, LOG, "loss.png", "model", "model_config.yaml", "encoder.safetensors", "examples.png", _CACHE)
"""What a training writes into its folder."""
Training = TypeVar("Training", EncoderTraining, ReconstructorTraining, SegmenterTraining, JointTraining)


@dataclass(frozen=True)
class TrainedModel:
    """A finished training.

    Args:
        path: The model folder; of an encoder, its file.
        manifest: The table of scans that it learned from.
        log: Losses by step, a table.
        loss: The same as a picture.
    """

    path: Path
    manifest: Path
    log: Path
    loss: Path


def run_encoder(output: Path, settings: TrainSettings) -> TrainedModel:
    """Run or resume the pretraining of a condition encoder in `output`."""
    config = _read(EncoderTraining, "encoder", settings)
    with _processes(config.loop, output, settings, "encoder") as fabric:
        run = train_encoder(config, output, fabric=fabric)
    path = output / "encoder.safetensors"
    save_encoder(run.network.encoder, config.masked.encoder, run.summary, path)
    save_figure(loss_plot(output / "log.csv"), output / "loss.png")
    save_figure(masked_example(run.example.numpy()), output / "examples.png")
    return _trained(path, config)


def run_reconstructor(output: Path, settings: TrainSettings) -> TrainedModel:
    """Run or resume stage 1 in `output`."""
    config = _read(ReconstructorTraining, "reconstructor", settings)
    with _processes(config.loop, output, settings, "reconstructor") as fabric:
        bundle = train_reconstructor(config, output, fabric=fabric)
    return _finish(bundle, output, config)


def run_segmenter(output: Path, stage1: Path, settings: TrainSettings, *, variant: str | None = None) -> TrainedModel:
    """Run or resume stage 2 in `output` on the model `stage1`; a variant of the paper sets inputs and fusion."""
    config = _read(SegmenterTraining, "segmenter", settings, _of_variant(variant))
    post = parse_config(PostprocessingConfig, config.postprocessing, where="postprocessing")
    bundle = load_model(stage1)
    _check_residual(post, bundle)
    config = _with_preprocessing(config, bundle, stage1)
    more = ("--reconstructor", str(stage1), *(() if variant is None else ("--variant", variant)))
    with _processes(config.loop, output, settings, "segmenter", more) as fabric:
        detector = train_segmenter(config, bundle, output, fabric=fabric)
    return _finish(detector, output, config)


def run_joint(output: Path, settings: TrainSettings) -> TrainedModel:
    """Run or resume a joint training in `output`."""
    config = _read(JointTraining, "joint", settings)
    _check_residual(parse_config(PostprocessingConfig, config.postprocessing, where="postprocessing"), None)
    with _processes(config.loop, output, settings, "joint") as fabric:
        bundle = train_joint(config, output, fabric=fabric)
    return _finish(bundle, output, config)


def _read(kind: type[Training], name: str, settings: TrainSettings, overrides: Sequence[str] = ()) -> Training:
    """Return the configuration; a manifest that cannot be used is an error before anything is written."""
    pairs = [*overrides, *settings.overrides]
    if settings.manifest is not None:  # as JSON, which YAML reads as a string whatever is in it
        pairs.append(f"data.manifest={json.dumps(str(settings.manifest))}")
    config = load_config(kind, find_config(settings.config, name), pairs)
    read_training_manifest(config.data)
    return config


def _of_variant(variant: str | None) -> list[str]:
    """Return the settings of one of the paper's variants; the weight of a fused one is left to the configuration."""
    if variant is None:
        return []
    streams, fused = VARIANTS[variant]
    return [f"segmenter.streams={json.dumps(streams)}", *([] if fused else ["postprocessing.residual_weight=0"])]


def _with_preprocessing(settings: SegmenterTraining, stage1: Bundle, path: Path) -> SegmenterTraining:
    """Return the settings with the reconstructor's preprocessing: both stages must see the same images."""
    own = parse_config(PreprocessingConfig, stage1.config.preprocessing, where=path)
    if "preprocessing" in settings.data.model_fields_set and settings.data.preprocessing != own:
        raise ConfigError(
            "stage 2 must use the preprocessing of its reconstructor", where=path, remedy="remove data.preprocessing"
        )
    return settings.model_copy(update={"data": settings.data.model_copy(update={"preprocessing": own})})


def _check_residual(post: PostprocessingConfig, stage1: Bundle | None) -> None:
    """Stop before the training where the model could not make its residual map."""
    if post.needs_healthy_map and (stage1 is None or stage1.healthy_map is None):
        raise ConfigError(
            f"the residual {post.residual} needs a healthy map",
            received="a training of both stages" if stage1 is None else "a reconstructor without one",
            where="postprocessing.residual" if stage1 is None else stage1.path or "model",
            remedy="train with another residual, and then halebrain calibrate --healthy-map --residual KIND",
        )


@contextmanager
def _processes(
    loop: LoopConfig, output: Path, settings: TrainSettings, what: str, more: Sequence[str] = ()
) -> Iterator[Fabric]:
    """Give what runs the training in each of its processes; only the first leaves the block, and writes the model."""
    device = find_device(settings.device)
    if settings.devices * settings.nodes == 1:
        check_one_process()
    others = ["train", what, "--output", str(output), *more, *_typed(settings)]
    fabric = launch(loop, device, devices=settings.devices, nodes=settings.nodes, others=others)
    with taking_part(fabric):
        with together(fabric):
            if fabric.is_global_zero:
                _prepare_folder(output, overwrites=settings.overwrite)
        yield fabric


def _typed(settings: TrainSettings) -> list[str]:
    """Return the settings of a training as they are typed; the first process alone replaces an earlier run."""
    named: dict[str, object] = {"config": settings.config, "manifest": settings.manifest, "device": settings.device}
    named |= {"devices": settings.devices, "nodes": settings.nodes}
    pairs = [(f"--{name}", str(value)) for name, value in named.items() if value is not None]
    pairs += [("--set", pair) for pair in settings.overrides]
    return [word for pair in pairs for word in pair]


def _prepare_folder(output: Path, *, overwrites: bool) -> None:
    """Make the folder of a run; of an earlier run remove what that made, and nothing else."""
    if overwrites and output.exists():
        # A run that was ended before its first checkpoint has a log, or nothing but slices.
        if not (output / LOG).is_file() and any(path.name != _CACHE for path in output.iterdir()):
            raise DataError(
                "--overwrite only replaces a run",
                received="another folder",
                where=output,
                remedy="choose another --output, or remove the folder yourself",
            )
        for name in _MADE:
            path = output / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    output.mkdir(parents=True, exist_ok=True)


def _finish(bundle: Bundle, output: Path, config: Training) -> TrainedModel:
    model, loss = output / "model", output / "loss.png"
    # A finished run asked for again: its model stays, with the thresholds, map and score that it was given.
    is_new = not (model.exists() and _networks_sha256(load_bundle(model)) == _networks_sha256(bundle))
    if is_new:
        save_bundle(bundle, model, card=model_card(bundle), overwrite=True)
        write_text(output / "model_config.yaml", dump_yaml(bundle.config))
    if is_new or not loss.exists():  # a run that was ended between the two promised a picture
        save_figure(loss_plot(output / "log.csv"), loss)
    return _trained(model, config)


def _networks_sha256(bundle: Bundle) -> str:
    """Return the hash of a model without what is chosen after the training: its healthy map and its score."""
    config = bundle.config.model_copy(update={"postprocessing": {}})
    return model_sha256(replace(bundle, config=config, healthy_map=None))


def _trained(path: Path, config: Training) -> TrainedModel:
    manifest = Path(config.data.manifest or "manifest.tsv")
    return TrainedModel(path, manifest, path.parent / "log.csv", path.parent / "loss.png")
