"""The `halebrain` command: registers the subcommands and turns errors into one line and a documented exit code.

Exit codes: 0 all promised files written, 2 usage, 3 some scans failed (listed), 65 bad data, 66 missing input,
69 weights or tool unavailable, 70 a worker process died, 71 an unexpected fault,
73 cannot write, 78 bad configuration, 130 interrupted (state saved).
"""

import logging
import sys
from itertools import pairwise
from typing import Annotated

import typer

import halebrain
from halebrain.cli import models_written as models_written
from halebrain.cli.adapt import adapt
from halebrain.cli.benchmark import benchmark
from halebrain.cli.bids import ListCommand, bids
from halebrain.cli.calibrate import calibrate
from halebrain.cli.cohort import cohort
from halebrain.cli.demo import demo
from halebrain.cli.detect import detect
from halebrain.cli.doctor import doctor
from halebrain.cli.evaluate import evaluate
from halebrain.cli.export_nnunet import export_nnunet
from halebrain.cli.folds import folds
from halebrain.cli.models import models_app
from halebrain.cli.options import PATH_FLAGS, VALUE_FLAGS
from halebrain.cli.prepare import prepare
from halebrain.cli.report import report
from halebrain.cli.train import train_app
from halebrain.cli.tune import tune
from halebrain.cli.usage_errors import OneLineGroup
from halebrain.cli.view import view
from halebrain.core.errors import HalebrainError, QuietExitError, UnexpectedError, UsageError

_INTERRUPTED = 130
app = typer.Typer(
    name="halebrain",
    cls=OneLineGroup,
    help="Detect anomalies in brain MRI scans. Research use only; not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    detect,
    report,
    view,
    prepare,
    folds,
    cohort,
    adapt,
    calibrate,
    tune,
    evaluate,
    benchmark,
    demo,
    export_nnunet,
    doctor,
):
    app.command()(command)
app.command(cls=ListCommand)(bids)
app.add_typer(train_app, name="train")
app.add_typer(models_app, name="models")


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"halebrain {halebrain.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Detect anomalies in brain MRI scans. Research use only; not a medical device."""


def _refuse_empty_paths(words: list[str]) -> None:
    """Refuse an empty word in the place of a path: it would be taken for the working directory."""
    for before, word in pairwise(["", *words]):
        flag = word[:-1] if word.endswith("=") else before if not word else None
        if flag in PATH_FLAGS:
            rule = f"{flag} takes a path"
        elif not word and before not in VALUE_FLAGS:
            rule = "an argument must not be empty"
        else:
            continue
        raise UsageError(rule, received="an empty word", remedy="a shell variable may have no value")


def main() -> None:
    """Run the command line and exit with the documented code."""
    if logging.lastResort is not None:  # notes that lower layers log
        logging.lastResort.setFormatter(logging.Formatter("halebrain: %(message)s"))
    try:
        _refuse_empty_paths(sys.argv[1:])
        app(prog_name="halebrain", standalone_mode=True)
    except UnexpectedError as error:
        # The traceback comes first, so that the line with the remedy is the last one.
        typer.echo(error.traceback, err=True, nl=False)
        typer.echo(f"halebrain: {error}; report it with the traceback above", err=True)
        sys.exit(error.exit_code)
    except QuietExitError as stop:
        sys.exit(stop.code)
    except HalebrainError as error:
        typer.echo(f"halebrain: {error}", err=True)
        sys.exit(error.exit_code)
    except SystemExit as stop:
        # The command-line library returns this code silently on an interrupt.
        if stop.code == _INTERRUPTED:
            typer.echo("halebrain: interrupted; finished work is kept, run the same command again to resume", err=True)
        raise
