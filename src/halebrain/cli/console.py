"""Where a command prints: results and progress, messages of workflows, and refusals of options without effect."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from halebrain.cli.results import Results
from halebrain.core.errors import UsageError
from halebrain.workflows.settings import Option


@dataclass(frozen=True)
class JsonConsole:
    """How a command gives its results."""

    as_json: Annotated[bool, Option("Print one JSON document on stdout and nothing else.", ("--json",))] = False

    def begin(self, command: str) -> Results:
        """Apply the options that hold for the whole process, and return where the results of a command go."""
        return Results(command, as_json=self.as_json)


@dataclass(frozen=True)
class QuietConsole(JsonConsole):
    """How a command gives its results and shows its progress."""

    no_progress: Annotated[bool, Option("No progress bars.")] = False

    def begin(self, command: str) -> Results:
        """Apply the options that hold for the whole process, and return where the results of a command go."""
        from halebrain.core.progress import SETTINGS

        SETTINGS.enabled = not self.no_progress
        return super().begin(command)


@dataclass(frozen=True)
class Console(QuietConsole):
    """How a command gives its results and shows its progress, and the threads of its process."""

    threads: Annotated[int | None, Option("CPU threads; default: all.", minimum=1)] = None

    def begin(self, command: str) -> Results:
        """Apply the options that hold for the whole process, and return where the results of a command go."""
        if self.threads is not None:
            import torch

            torch.set_num_threads(self.threads)
            os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(self.threads)
        return super().begin(command)


def echo_message(text: str) -> None:
    """Print a message of a workflow on stderr."""
    typer.echo(f"halebrain: {text}", err=True)


def refuse_without_effect(
    context: typer.Context,
    names: Sequence[str],
    rule: str,
    *,
    received: str = "both",
    remedy: str = "remove one of them",
) -> None:
    """Stop where an option was typed that has no effect beside the others.

    `names` are the parameters concerned; `rule` says what they go with, a clause that follows the option.
    """
    for param in context.command.params:
        source = context.get_parameter_source(param.name or "")
        if param.name in names and source is not None and source.name == "COMMANDLINE":
            raise UsageError(f"{param.opts[0]} {rule}", received=received, remedy=remedy)
