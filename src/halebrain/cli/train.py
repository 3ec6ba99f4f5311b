"""`halebrain train encoder|reconstructor|segmenter|joint`: the two stages, encoder pretraining, and joint training."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from halebrain.cli import completion, options
from halebrain.cli.results import Results, command_line


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
    from halebrain.workflows.train import run_reconstructor

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
    from halebrain.training.encoder import EncoderTraining
    from halebrain.workflows.train import run_encoder

    settings = load_config(EncoderTraining, options.find_config(config, "encoder"), _with_manifest(overrides, manifest))
    path = run_encoder(settings, output, device=device, overwrite=overwrite)
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
    from halebrain.workflows.train import run_segmenter

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
    from halebrain.workflows.train import run_joint

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
