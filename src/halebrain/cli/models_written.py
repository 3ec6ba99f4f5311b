"""`halebrain models`: the commands that write a model: describe, import, export, halve, join and second-look."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from halebrain.cli.console import JsonConsole, echo_message
from halebrain.cli.models import models_app
from halebrain.cli.options import from_settings
from halebrain.cli.results import command_line
from halebrain.core.wording import counted
from halebrain.workflows.settings import DescribeSettings, JoinSettings, Option, Overwrite, SecondLookOptions

Model = Annotated[Path, Option("Bundle folder, zip, or name.", known="models", is_argument=True)]
SeveralModels = Annotated[
    tuple[Path, ...], Option("At least two bundle folders, zips, or names.", known="models", is_argument=True)
]
NewFolder = Annotated[Path, Option("The bundle folder to write.", ("--output", "-o"), is_output=True)]


@models_app.command()
@from_settings()
def describe(
    model: Annotated[Path, Option("Bundle folder.", is_argument=True)],
    settings: DescribeSettings,
    console: JsonConsole,
) -> None:
    """Write licence, citation, authors, data, figures and limits into a model and its card; weights are not changed."""
    from halebrain.workflows.models import describe_model

    about = describe_model(model, settings).model_dump(mode="json")
    authors = counted(len(settings.authors), "author")
    written = f"licence, citation and {authors} are in the model and its card"
    _print_summary(console, "describe", written, model, about=about)


@models_app.command("import")
@from_settings()
def import_(
    source: Annotated[Path, Option("Bundle folder or zip.", is_argument=True)],
    console: JsonConsole,
    name: Annotated[str | None, Option("Name of the imported model; default: its current name.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Check a model and install it in HALEBRAIN_HOME under a name for -m. Prints its path."""
    from halebrain.models.store import import_model

    stored = import_model(source, name, overwrite=overwrite)
    then = command_line("detect", "-i", "SCAN", "-o", "OUT", "-m", stored.name)
    _print_summary(console, "import", f"use it with -m {stored.name}", stored.path, then=[then], name=stored.name)


@models_app.command()
@from_settings()
def export(
    model: Model,
    output: Annotated[Path, Option("The zip to write.", ("--output", "-o"))],
    console: JsonConsole,
    overwrite: Overwrite = False,
) -> None:
    """Check a model and write it as one zip. Prints its path."""
    from halebrain.models.store import export_model, find_model

    export_model(find_model(model), output, overwrite=overwrite)
    _print_summary(console, "export", "one zip holds the model", output)


@models_app.command()
@from_settings()
def halve(model: Model, output: NewFolder, console: JsonConsole, overwrite: Overwrite = False) -> None:
    """Write a model with 16-bit weights: half the size, a new model to calibrate. Prints its path."""
    from halebrain.models.store import convert_fp16, find_model

    convert_fp16(find_model(model), output, overwrite=overwrite)
    _tell_uncalibrated(console, "halve", "half the size; a new model", output)


@models_app.command()
@from_settings()
def join(models: SeveralModels, output: NewFolder, settings: JoinSettings, console: JsonConsole) -> None:
    """Join models on the same reconstructor: average their segmenters, or use each for its contrasts.

    The joined model must be calibrated. Prints its path.
    """
    from halebrain.workflows.models import join as join_all

    join_all(models, output, settings)
    how = "one for each contrast" if settings.by_contrast else "averaged"
    _tell_uncalibrated(console, "join", f"{counted(len(models), 'segmenter')}, {how}", output)


@models_app.command("second-look")
@from_settings()
def second_look(model: Model, output: NewFolder, settings: SecondLookOptions, console: JsonConsole) -> None:
    """Write a detector whose pseudo-healthy scan is the scan itself, with what its segmenter doubts filled.

    Scores and thresholds are those of the detector, but for --half. Prints its path.
    """
    from halebrain.workflows.models import add_second_look

    written = add_second_look(model, output, settings)
    tell = _print_summary if written.calibration else _tell_uncalibrated
    tell(console, "second-look", "what the segmenter doubts is filled; the rest of a scan stays", output)


def _tell_uncalibrated(console: JsonConsole, verb: str, done: str, path: Path) -> None:
    then = command_line("calibrate", path, "--manifest", "M")
    _print_summary(console, verb, done, path, then=[then])
    echo_message(f"the model has no thresholds yet: {then}")


def _print_summary(
    console: JsonConsole, verb: str, done: str, path: Path, *, then: Sequence[str] = (), **more: Any
) -> None:
    """Report the path and a description of a model that was written."""
    from halebrain.models.bundle import read_summary
    from halebrain.models.store import size_bytes

    results = console.begin(f"models {verb}")
    results.line(path)
    document: dict[str, Any] = {}
    if console.as_json:
        document = {"path": path, "bytes": size_bytes(path), "sha256": read_summary(path).sha256, **more}
    results.finish(done, wrote=[path], then=then, document=document)
