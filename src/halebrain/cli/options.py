"""Options that mean the same in every command."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from halebrain.cli import completion
from halebrain.core.device import find_device as find_device
from halebrain.core.errors import UsageError
from halebrain.core.shipped_configs import find_config as find_config

Output = Annotated[Path, typer.Option("--output", "-o", help="Output folder.")]
ModelPath = Annotated[
    Path | None,
    typer.Option(
        "--model",
        "-m",
        autocompletion=completion.model_names,
        help="Model: a folder, a zip, or a name (halebrain models list); default: the bundled one.",
    ),
]
ManifestPath = Annotated[Path, typer.Option("--manifest", help="Table of scans (TSV).")]
ConfigPath = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", autocompletion=completion.config_names, help="YAML file, or the name of a shipped one."
    ),
]
Modalities = Annotated[
    list[str] | None,
    typer.Option("--modality", autocompletion=completion.among(*completion.MODALITIES), help="Only these modalities."),
]
Pathologies = Annotated[
    list[str] | None,
    typer.Option("--pathology", autocompletion=completion.among(*completion.PATHOLOGIES), help="Only these diseases."),
]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="key=value; dotted keys; repeatable.")]
Seed = Annotated[int, typer.Option("--seed", help="Random seed.")]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        autocompletion=completion.among("auto", "cpu", "cuda", "mps"),
        help="auto, cpu, cuda, cuda:N or mps.",
    ),
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; default: all.")]
BatchSize = Annotated[
    int, typer.Option("--batch-size", min=1, help="Slices per batch; changes no score by more than 0.00001.")
]
MinLesion = Annotated[
    float | None,
    typer.Option("--min-lesion-mm3", min=0, help="Smallest lesion kept, mm³; default: the model's setting."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace earlier results instead of resuming.")]
NoProgress = Annotated[bool, typer.Option("--no-progress", help="No progress bars.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]


class ListCommand(TyperCommand):
    """A command whose options may take several values at once, as BIDS Apps have it: `--participant-label 01 02`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Write `--option a b` as `--option a --option b` for every option that may be repeated, then go on."""
        several = {name for param in self.params if getattr(param, "multiple", False) for name in param.opts}
        current, fresh, spread = None, False, []
        for arg in args:
            if arg.startswith("-"):
                current, fresh = arg if arg in several else None, True
            elif current is not None:
                spread += [] if fresh else [current]
                fresh = False
            spread.append(arg)
        return super().parse_args(ctx, spread)


def echo_message(text: str) -> None:
    """Print a message of a workflow on stderr."""
    typer.echo(f"halebrain: {text}", err=True)


def set_up(*, threads: int | None = None, no_progress: bool = False) -> None:
    """Apply the process-wide options."""
    from halebrain.core.progress import SETTINGS

    SETTINGS.enabled = not no_progress
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
        os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(threads)


def under_either_name(former: float | None, present: float, *, names: tuple[str, str], default: float) -> float:
    """Return the value of an option that may be given under its former name, with a warning, or its present one.

    Args:
        former: What was given under the former name; `None` = nothing.
        present: What holds under the present name.
        names: Former and present name.
        default: Of the option.

    Raises:
        UsageError: Both were given.
    """
    if former is None:
        return present
    if present != default:
        raise UsageError("an option takes one name", received=" and ".join(names), remedy=f"remove {names[0]}")
    echo_message(f"warning: {names[0]} is now {names[1]}; the former name is understood until version 0.4")
    return former


def refuse_without_effect(
    context: typer.Context,
    names: Sequence[str],
    rule: str,
    *,
    received: str = "both",
    remedy: str = "remove one of them",
) -> None:
    """Stop where an option was typed that has no effect beside the others.

    Args:
        context: Of the command.
        names: Names of its parameters that have none here.
        rule: What they go with, a clause that follows the option.
        received: What the command got.
        remedy: What to do.

    Raises:
        UsageError: One was typed.
    """
    for param in context.command.params:
        source = context.get_parameter_source(param.name or "")
        if param.name in names and source is not None and source.name == "COMMANDLINE":
            raise UsageError(f"{param.opts[0]} {rule}", received=received, remedy=remedy)
