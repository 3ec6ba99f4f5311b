"""`halebrain models`: what models there are, what is in one, and how it comes and goes."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from halebrain.cli import options

if TYPE_CHECKING:
    from halebrain.evaluation.threshold import Threshold
    from halebrain.models.bundle import Bundle

models_app = typer.Typer(no_args_is_help=True, help="List, inspect, verify, import and export models.")
Model = Annotated[Path, typer.Argument(help="Bundle folder, zip, or name.")]
Json = Annotated[bool, typer.Option("--json", help="As JSON.")]


@models_app.command("list")
def list_models(as_json: Json = False) -> None:
    """Name the models that can be given by name: those of the package, and those imported."""
    from halebrain.models.store import stored_models

    found = stored_models()
    if as_json:
        typer.echo(json.dumps([{"name": m.name, "origin": m.origin, "path": str(m.path)} for m in found], indent=2))
        return
    for model in found:
        typer.echo(f"{model.name}\t{model.origin}\t{model.path.stat().st_size / 1e6:.1f} MB\t{model.path}")
    if not found:
        typer.echo("no model yet: halebrain models import BUNDLE", err=True)


@models_app.command()
def info(model: Model, as_json: Json = False) -> None:
    """Print a model's card: what it is, what it learned from, on what, and its thresholds."""
    from halebrain.models.bundle import load_bundle, read_card
    from halebrain.models.store import find_model

    path = find_model(model)
    bundle = load_bundle(path)
    if as_json:
        typer.echo(json.dumps(_about(bundle, path), indent=2))
        return
    typer.echo(read_card(path))
    for line in _thresholds(bundle):
        typer.echo(line)
    typer.echo(f"- Hash: {bundle.sha256}")


@models_app.command()
def verify(model: Model) -> None:
    """Check every file of a model against its hash, and every weight against its place."""
    from halebrain.models.bundle import load_bundle
    from halebrain.models.store import find_model

    path = find_model(model)
    typer.echo(f"{path}: whole, {load_bundle(path).sha256}")


@models_app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="Bundle folder or zip.")],
    name: Annotated[str | None, typer.Option("--name", help="What it will be called; default: as it is.")] = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Check a model and keep it in HALEBRAIN_HOME under a name that -m takes. Prints its path."""
    from halebrain.models.store import import_model

    typer.echo(import_model(source, name, overwrite=overwrite).path)


@models_app.command()
def export(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="The zip to write.")],
    overwrite: options.Overwrite = False,
) -> None:
    """Check a model and write it as one zip. Prints its path."""
    from halebrain.models.store import export_model, find_model

    export_model(find_model(model), output, overwrite=overwrite)
    typer.echo(output)


def _about(bundle: "Bundle", path: Path) -> dict[str, Any]:
    return {
        "path": str(path),
        "sha256": bundle.sha256,
        "config": bundle.config.model_dump(mode="json"),
        "training": bundle.training,
        "calibration": bundle.calibration,
    }


def _thresholds(bundle: "Bundle") -> list[str]:
    calibration = options.read_calibration(bundle)
    if calibration is None:
        return ["- Thresholds: none yet (halebrain calibrate)"]
    lines = [f"- Default threshold: {calibration.default}"]
    lines += [_line(name, threshold) for name, threshold in calibration.thresholds.items()]
    for modality, table in calibration.modalities.items():
        lines += [_line(f"{name} for {modality}", threshold) for name, threshold in table.items()]
    for modality, scores in calibration.healthy_scores.items():
        lines.append(f"- Healthy scans behind a percentile, {modality}: {len(scores)}")
    return lines


def _line(name: str, threshold: "Threshold") -> str:
    modalities = f" of {', '.join(threshold.modalities)}" if threshold.modalities else ""
    return (
        f"- Threshold {name}: {threshold.value:.4f}, {threshold.method}; {threshold.n_scans} scans{modalities}, "
        f"split {threshold.split}"
    )
