"""`halebrain models`: list, inspect and verify models."""

from pathlib import Path
from typing import Annotated

import typer

from halebrain.cli.console import JsonConsole, echo_message
from halebrain.cli.options import from_settings
from halebrain.cli.results import to_json
from halebrain.cli.usage_errors import OneLineGroup
from halebrain.core.errors import DataError
from halebrain.workflows.settings import Option

models_app = typer.Typer(
    cls=OneLineGroup,
    no_args_is_help=True,
    help="List, inspect, verify, describe, convert, join, import and export models.",
)
DefaultedModel = Annotated[
    Path | None,
    Option("Bundle folder, zip, or name; default: the bundled one.", known="models", is_argument=True),
]
AnyModel = Annotated[
    Path | None,
    Option("Bundle folder, zip, or name; default: all with a name.", known="models", is_argument=True),
]


@models_app.command("list")
@from_settings()
def list_models(console: JsonConsole) -> None:
    """List the models that have a name: bundled and imported ones; * marks the default."""
    from halebrain.workflows.models import list_models as find

    found = find()
    if console.as_json:
        typer.echo(to_json([vars(model) for model in found]))
        return
    for model in found:
        kind, modalities = model.kind or f"damaged: {model.error}", ",".join(model.modalities) or "-"
        marked, size = f"{model.name}{' *' if model.default else ''}", f"{model.bytes / 1e6:.1f} MB"
        typer.echo(f"{marked}\t{model.origin}\t{size}\t{kind}\t{modalities}\t{model.path}")
    if not found:
        typer.echo("no model installed: halebrain models import BUNDLE", err=True)


@models_app.command()
@from_settings()
def info(console: JsonConsole, model: DefaultedModel = None) -> None:
    """Print a model's card: method, training data, licence and citation, thresholds, size and hash."""
    from halebrain.models.store import find_model, load_model, size_bytes
    from halebrain.workflows.models import model_text

    path = find_model(model)
    bundle = load_model(path)
    about = None if bundle.about is None else bundle.about.model_dump(mode="json")
    document = {"path": path, "bytes": size_bytes(path), "sha256": bundle.sha256, "about": about}
    document |= {"config": bundle.config.model_dump(mode="json")}
    document |= {"training": bundle.training, "calibration": bundle.calibration}
    document |= {"healthy_map": None if bundle.healthy_map is None else bundle.healthy_map.about()}
    typer.echo(to_json(document) if console.as_json else model_text(path, bundle))


@models_app.command()
@from_settings()
def verify(console: JsonConsole, model: AnyModel = None) -> None:
    """Check every file of a model against its hash, and every weight against its network."""
    from halebrain.workflows.models import verify_models

    rows = verify_models(model, notify=echo_message)
    intact = "whole" if model is None else "intact"
    lines = [f"{row.path}: {intact}, {row.sha256}" for row in rows if row.whole]
    for text in [to_json([vars(row) for row in rows])] if console.as_json else lines:
        typer.echo(text)
    if damaged := [row.name for row in rows if not row.whole]:
        raise DataError(
            "every model must be intact",
            received=f"damaged ones: {', '.join(damaged)}",
            remedy="import them again: halebrain models import BUNDLE --name NAME --overwrite",
        )
