"""`halebrain train encoder|reconstructor|segmenter|joint`: the two stages, encoder pretraining, and joint training."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from halebrain.cli.console import Console
from halebrain.cli.options import from_settings
from halebrain.cli.results import Results, command_line
from halebrain.cli.usage_errors import OneLineGroup
from halebrain.core.shipped_configs import shipped_configs
from halebrain.workflows.settings import Option, Output, TrainSettings

if TYPE_CHECKING:
    from halebrain.workflows.train import TrainedModel

train_app = typer.Typer(cls=OneLineGroup, help="Train the two stages.", no_args_is_help=True)
_MODEL = "Model of stage 1: a folder, a zip, or a name."


@train_app.command()
@from_settings()
def reconstructor(output: Output, settings: TrainSettings, console: Console) -> None:
    """Stage 1: train the reconstructor on healthy slices. Resumes the run in OUTPUT; the model is OUTPUT/model."""
    results = console.begin("train reconstructor")
    from halebrain.workflows.train import run_reconstructor

    trained = run_reconstructor(output, settings)
    then = ("train", "segmenter", *_same_size(settings, "segmenter"), "--manifest", trained.manifest)
    follow = command_line(*then, "-o", output.parent / "stage2", "--reconstructor", trained.path)
    _print_summary(results, "stage 1 is trained", trained, follow)


@train_app.command()
@from_settings()
def encoder(output: Output, settings: TrainSettings, console: Console) -> None:
    """Optional, before stage 1: pretrain the condition encoder by masked-image modelling.

    Writes OUTPUT/encoder.safetensors, from which a reconstructor starts with --set encoder_weights=PATH.
    """
    results = console.begin("train encoder")
    from halebrain.workflows.train import run_encoder

    trained = run_encoder(output, settings)
    then = ("train", "reconstructor", *_same_size(settings, "reconstructor"), "--manifest", trained.manifest)
    follow = command_line(*then, "-o", output.parent / "stage1", "--set", f"encoder_weights={trained.path}")
    _print_summary(results, "the encoder is trained", trained, follow)


@train_app.command()
@from_settings()
def segmenter(
    output: Output,
    stage1: Annotated[Path, Option(_MODEL, ("--reconstructor",), known="models")],
    settings: TrainSettings,
    console: Console,
    variant: Annotated[
        Literal["unet", "unet_res", "sadm", "sadm_res"] | None,
        Option("One of the paper's four variants; sets inputs and fusion."),
    ] = None,
) -> None:
    """Stage 2: train the segmenter on (scan, scan − reconstruction). The model is OUTPUT/model."""
    results = console.begin("train segmenter")
    from halebrain.workflows.train import run_segmenter

    trained = run_segmenter(output, stage1, settings, variant=variant)
    _print_summary(results, "stage 2 is trained", trained, _calibrate(trained))


@train_app.command()
@from_settings()
def joint(output: Output, settings: TrainSettings, console: Console) -> None:
    """Train both networks at once on synthetic anomalies (DRAEM-Net), for comparison. The model is OUTPUT/model."""
    results = console.begin("train joint")
    from halebrain.workflows.train import run_joint

    trained = run_joint(output, settings)
    _print_summary(results, "both networks are trained", trained, _calibrate(trained))


def _same_size(settings: TrainSettings, kind: str) -> tuple[str, ...]:
    """Return the option for the shipped configuration of the same name; a file of another stage would not fit."""
    name = str(settings.config)
    return ("-c", name) if name in shipped_configs(kind) else ()


def _calibrate(trained: "TrainedModel") -> str:
    return command_line("calibrate", trained.path, "--manifest", trained.manifest)


def _print_summary(results: Results, done: str, trained: "TrainedModel", then: str) -> None:
    """Tell the path of what was trained, and close with what to do with it."""
    results.line(trained.path)
    what = "model" if trained.path.is_dir() else "encoder"
    results.finish(
        f"{done}; its losses: {trained.loss}",
        wrote=[trained.path],
        then=[then],
        document={"output": trained.path.parent, what: trained.path, "log": trained.log, "loss": trained.loss},
    )
