"""`halebrain train encoder|reconstructor|segmenter|joint`: the two stages, encoder pretraining, and joint training."""

import json
import shutil
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from halebrain.cli import completion, options
from halebrain.cli.results import Results, command_line
from halebrain.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from halebrain.models.bundle import Bundle
    from halebrain.training.joint import JointTraining
    from halebrain.training.loop_config import LoopConfig
    from halebrain.training.reconstructor import ReconstructorTraining
    from halebrain.training.segmenter_config import SegmenterTraining


class Variant(StrEnum):
    """The four of the paper's Table 1."""

    unet = "unet"
    unet_res = "unet_res"
    sadm = "sadm"
    sadm_res = "sadm_res"


train_app = typer.Typer(help="Train the two stages.", no_args_is_help=True)
DataOption = Annotated[Path | None, typer.Option("--manifest", help="Table of scans; the same as data.manifest.")]


@train_app.command()
def reconstructor(
    output: options.Output,
    config: options.ConfigPath = None,
    manifest: DataOption = None,
    overrides: options.Overrides = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    overwrite: options.Overwrite = False,
    no_progress: options.NoProgress = False,
    as_json: options.Json = False,
) -> None:
    """Stage 1: train the reconstructor on healthy slices. Resumes the run in OUTPUT; the model is OUTPUT/model."""
    options.set_up(threads=threads, no_progress=no_progress)
    from halebrain.core.config import load_config
    from halebrain.training.reconstructor import ReconstructorTraining

    settings = load_config(
        ReconstructorTraining,
        options.find_config(config, "reconstructor"),
        _with_manifest(overrides, manifest),
    )
    model = run_reconstructor(settings, output, device=device, overwrite=overwrite)
    table = ("--manifest", settings.data.manifest or "manifest.tsv")
    then = ("train", "segmenter", "-c", config or "paper", *table, "-o", output.parent / "stage2")
    _tell("reconstructor", "stage 1 is trained", model, command_line(*then, "--reconstructor", model), as_json=as_json)


@train_app.command()
def encoder(
    output: options.Output,
    config: options.ConfigPath = None,
    manifest: DataOption = None,
    overrides: options.Overrides = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    overwrite: options.Overwrite = False,
    no_progress: options.NoProgress = False,
    as_json: options.Json = False,
) -> None:
    """Optional, before stage 1: pretrain the condition encoder by masked-image modelling.

    Writes OUTPUT/encoder.safetensors, from which a reconstructor starts with --set encoder_weights=PATH.
    """
    options.set_up(threads=threads, no_progress=no_progress)
    from halebrain.core.config import load_config
    from halebrain.models.encoder_file import save_encoder
    from halebrain.report.figures import loss_plot, masked_example, save_figure
    from halebrain.training.encoder import EncoderTraining, train_encoder
    from halebrain.training.reconstructor import read_training_manifest

    settings = load_config(EncoderTraining, options.find_config(config, "encoder"), _with_manifest(overrides, manifest))
    read_training_manifest(settings.data)  # a manifest that cannot be used is said before anything is written
    fabric = _start(settings.loop, output, device, overwrite)
    run = train_encoder(settings, output, fabric=fabric)
    path = output / "encoder.safetensors"
    save_encoder(run.network.encoder, settings.masked.encoder, run.summary, path)
    save_figure(loss_plot(output / "log.csv"), output / "loss.png")
    save_figure(masked_example(run.example.numpy()), output / "examples.png")
    table = ("--manifest", settings.data.manifest or "manifest.tsv")
    then = ("train", "reconstructor", "-c", config or "paper", *table, "-o", output.parent / "stage1")
    follow = command_line(*then, "--set", f"encoder_weights={path}")
    _tell("encoder", "the encoder is trained", path, follow, as_json=as_json)


@train_app.command()
def segmenter(
    output: options.Output,
    stage1: Annotated[
        Path,
        typer.Option(
            "--reconstructor",
            autocompletion=completion.model_names,
            help="Model of stage 1: a folder, a zip, or a name.",
        ),
    ],
    variant: Annotated[
        Variant | None, typer.Option("--variant", help="One of the paper's four variants; sets inputs and fusion.")
    ] = None,
    config: options.ConfigPath = None,
    manifest: DataOption = None,
    overrides: options.Overrides = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    overwrite: options.Overwrite = False,
    no_progress: options.NoProgress = False,
    as_json: options.Json = False,
) -> None:
    """Stage 2: train the segmenter on (scan, scan − reconstruction). The model is OUTPUT/model."""
    options.set_up(threads=threads, no_progress=no_progress)
    from halebrain.core.config import load_config
    from halebrain.training.segmenter_config import SegmenterTraining

    settings = load_config(
        SegmenterTraining,
        options.find_config(config, "segmenter"),
        [*_of_variant(variant), *_with_manifest(overrides, manifest)],
    )
    model = run_segmenter(settings, stage1, output, device=device, overwrite=overwrite)
    table = ("--manifest", settings.data.manifest or "manifest.tsv")
    _tell("segmenter", "stage 2 is trained", model, command_line("calibrate", model, *table), as_json=as_json)


@train_app.command()
def joint(
    output: options.Output,
    config: options.ConfigPath = None,
    manifest: DataOption = None,
    overrides: options.Overrides = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    overwrite: options.Overwrite = False,
    no_progress: options.NoProgress = False,
    as_json: options.Json = False,
) -> None:
    """Train both networks at once on synthetic anomalies (DRAEM-Net), for comparison. The model is OUTPUT/model."""
    options.set_up(threads=threads, no_progress=no_progress)
    from halebrain.core.config import load_config
    from halebrain.training.joint import JointTraining

    settings = load_config(JointTraining, options.find_config(config, "joint"), _with_manifest(overrides, manifest))
    model = run_joint(settings, output, device=device, overwrite=overwrite)
    table = ("--manifest", settings.data.manifest or "manifest.tsv")
    _tell("joint", "both networks are trained", model, command_line("calibrate", model, *table), as_json=as_json)


def _tell(verb: str, done: str, path: Path, then: str, *, as_json: bool) -> None:
    """Tell the path of what was trained, and close with what to do with it."""
    results, output = Results(f"train {verb}", as_json=as_json), path.parent
    results.line(path)
    document = {"output": output, "encoder" if verb == "encoder" else "model": path}
    document |= {"log": output / "log.csv", "loss": output / "loss.png"}
    results.finish(f"{done}; its losses: {output / 'loss.png'}", wrote=[path], then=[then], document=document)


def run_joint(settings: "JointTraining", output: Path, *, device: str, overwrite: bool) -> Path:
    """Run or resume a joint training in `output` and return the model folder."""
    from halebrain.core.config import parse_config
    from halebrain.inference.anomaly_map import PostprocessingConfig
    from halebrain.training.joint import train_joint
    from halebrain.training.reconstructor import read_training_manifest

    read_training_manifest(settings.data)  # a manifest that cannot be used is said before anything is written
    parse_config(PostprocessingConfig, settings.postprocessing, where="postprocessing")
    fabric = _start(settings.loop, output, device, overwrite)
    return _finish(train_joint(settings, output, fabric=fabric), output)


def run_reconstructor(settings: "ReconstructorTraining", output: Path, *, device: str, overwrite: bool) -> Path:
    """Run or resume stage 1 in `output` and return the model folder."""
    from halebrain.training.reconstructor import read_training_manifest, train_reconstructor

    read_training_manifest(settings.data)  # a manifest that cannot be used is said before anything is written
    fabric = _start(settings.loop, output, device, overwrite)
    bundle = train_reconstructor(settings, output, fabric=fabric)
    return _finish(bundle, output)


def run_segmenter(settings: "SegmenterTraining", stage1: Path, output: Path, *, device: str, overwrite: bool) -> Path:
    """Run or resume stage 2 in `output` on the model `stage1` and return the model folder."""
    from halebrain.core.config import parse_config
    from halebrain.inference.anomaly_map import PostprocessingConfig
    from halebrain.models.store import load_model
    from halebrain.training.reconstructor import read_training_manifest
    from halebrain.training.segmenter import train_segmenter

    read_training_manifest(settings.data)
    parse_config(PostprocessingConfig, settings.postprocessing, where="postprocessing")
    bundle1 = load_model(stage1)
    settings = _with_preprocessing(settings, bundle1, stage1)
    fabric = _start(settings.loop, output, device, overwrite)
    return _finish(train_segmenter(settings, bundle1, output, fabric=fabric), output)


def _of_variant(variant: Variant | None) -> list[str]:
    """Return the settings of one of the paper's variants; the weight of a fused one is left to the configuration."""
    from halebrain.models.segmentation import VARIANTS

    if variant is None:
        return []
    streams, fused = VARIANTS[variant]
    return [f"segmenter.streams={json.dumps(streams)}", *([] if fused else ["postprocessing.residual_weight=0"])]


def _with_manifest(overrides: list[str] | None, manifest: Path | None) -> list[str]:
    # As JSON, which YAML reads as a string whatever is in it.
    return [*(overrides or []), *([f"data.manifest={json.dumps(str(manifest))}"] if manifest else [])]


def _with_preprocessing(settings: "SegmenterTraining", stage1: "Bundle", path: Path) -> "SegmenterTraining":
    """Return the settings with the reconstructor's preprocessing: both stages must see the same images."""
    from halebrain.core.config import parse_config
    from halebrain.preprocessing.pipeline import PreprocessingConfig

    own = parse_config(PreprocessingConfig, stage1.config.preprocessing, where=path)
    if "preprocessing" in settings.data.model_fields_set and settings.data.preprocessing != own:
        raise ConfigError(
            "stage 2 must use the preprocessing of its reconstructor", where=path, remedy="remove data.preprocessing"
        )
    return settings.model_copy(update={"data": settings.data.model_copy(update={"preprocessing": own})})


def _start(loop: "LoopConfig", output: Path, device: str, overwrite: bool) -> "Fabric":
    from halebrain.training.fabric import launch

    chosen = options.find_device(device)
    if overwrite and output.exists():
        ours = all((output / name).is_file() for name in ("log.csv", "checkpoint.pt"))
        if any(output.iterdir()) and not ours:
            raise DataError(
                "--overwrite only replaces a run",
                received="another folder",
                where=output,
                remedy="choose another --output, or remove the folder yourself",
            )
        shutil.rmtree(output)
    output.mkdir(parents=True, exist_ok=True)
    return launch(loop, chosen)


def _finish(bundle: "Bundle", output: Path) -> Path:
    from halebrain.core.config import dump_yaml
    from halebrain.core.files import write_text
    from halebrain.models.bundle import load_bundle, model_sha256, save_bundle
    from halebrain.models.card import model_card
    from halebrain.report.figures import loss_plot, save_figure

    model, loss = output / "model", output / "loss.png"
    # A finished run asked for again: its model stays, with the thresholds that it was given.
    is_new = not (model.exists() and load_bundle(model).sha256 == model_sha256(bundle))
    if is_new:
        save_bundle(bundle, model, card=model_card(bundle), overwrite=True)
        write_text(output / "model_config.yaml", dump_yaml(bundle.config))
    if is_new or not loss.exists():  # a run that was ended between the two promised a picture
        save_figure(loss_plot(output / "log.csv"), loss)
    return model
