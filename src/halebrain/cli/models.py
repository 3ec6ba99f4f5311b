"""`halebrain models`: list, inspect, import, export and convert models."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from halebrain.cli import completion, options
from halebrain.cli.results import Results, command_line, to_json
from halebrain.core.errors import DataError, HalebrainError, UnavailableError, UsageError
from halebrain.core.wording import counted

if TYPE_CHECKING:
    from halebrain.models.bundle import Bundle
    from halebrain.models.store import StoredModel
    from halebrain.thresholds.calibration import Threshold

models_app = typer.Typer(
    no_args_is_help=True, help="List, inspect, verify, describe, convert, join, import and export models."
)
Model = Annotated[Path, typer.Argument(autocompletion=completion.model_names, help="Bundle folder, zip, or name.")]
DefaultedModel = Annotated[
    Path | None,
    typer.Argument(
        autocompletion=completion.model_names, help="Bundle folder, zip, or name; default: the bundled one."
    ),
]


@models_app.command("list")
def list_models(as_json: options.Json = False) -> None:
    """List the models that have a name: bundled and imported ones; * marks the default."""
    from halebrain.models.store import stored_models

    found = [_entry(model) for model in stored_models()]
    if as_json:
        typer.echo(to_json(found))
        return
    for entry in found:
        marked = f"{entry['name']}{' *' if entry['default'] else ''}"
        kind, modalities = entry["kind"] or f"damaged: {entry['error']}", ",".join(entry["modalities"]) or "-"
        typer.echo(f"{marked}\t{entry['origin']}\t{entry['bytes'] / 1e6:.1f} MB\t{kind}\t{modalities}\t{entry['path']}")
    if not found:
        typer.echo("no model installed: halebrain models import BUNDLE", err=True)


@models_app.command()
def info(model: DefaultedModel = None, as_json: options.Json = False) -> None:
    """Print a model's card: method, training data, licence and citation, thresholds, size and hash."""
    from halebrain.models.bundle import load_bundle
    from halebrain.models.bundle_files import read_card
    from halebrain.models.store import find_model

    path = find_model(model)
    bundle = load_bundle(path)
    if as_json:
        typer.echo(to_json(_about(bundle, path)))
        return
    typer.echo(read_card(path))
    if bundle.about is None:
        typer.echo("- Licence and citation: not stated (halebrain models describe)")
    for line in _thresholds(bundle):
        typer.echo(line)
    typer.echo(f"- Size: {_bytes(path) / 1e6:.1f} MB")
    typer.echo(f"- Hash: {bundle.sha256}")


@models_app.command()
def verify(
    model: Annotated[
        Path | None,
        typer.Argument(
            autocompletion=completion.model_names, help="Bundle folder, zip, or name; default: all with a name."
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Check every file of a model against its hash, and every weight against its network."""
    from halebrain.models.bundle import load_bundle
    from halebrain.models.store import find_model, stored_models

    if model is not None:
        path = find_model(model)
        sha256 = load_bundle(path).sha256
        typer.echo(to_json([_verified(model.name, path, sha256)]) if as_json else f"{path}: intact, {sha256}")
        return
    named, rows = stored_models(), []
    if not named:
        raise UnavailableError("there must be a model to verify", remedy="halebrain models import BUNDLE")
    for stored in named:
        try:
            rows.append(_verified(stored.name, stored.path, load_bundle(stored.path).sha256))
        except HalebrainError as error:
            typer.echo(f"halebrain: {stored.name}: {error}", err=True)
            rows.append(_verified(stored.name, stored.path, None, str(error)))
    whole = [f"{row['path']}: whole, {row['sha256']}" for row in rows if row["whole"]]
    for text in [to_json(rows)] if as_json else whole:
        typer.echo(text)
    if damaged := [row["name"] for row in rows if not row["whole"]]:
        raise DataError(
            "every model must be intact",
            received=f"damaged ones: {', '.join(damaged)}",
            remedy="import them again: halebrain models import BUNDLE --name NAME --overwrite",
        )


@models_app.command()
def describe(
    model: Annotated[Path, typer.Argument(help="Bundle folder.")],
    licence: Annotated[
        str, typer.Option("--licence", help="Licence of the weights, as an SPDX identifier (CC-BY-4.0).")
    ],
    citation: Annotated[str, typer.Option("--citation", help="Citation, one line.")],
    authors: Annotated[list[str], typer.Option("--author", help="Author; repeatable.")],
    data: Annotated[str, typer.Option("--data", help="Training data: data sets, with their licences.")],
    figures: Annotated[
        list[str] | None,
        typer.Option("--figure", help="Performance figure, with the scans it was measured on; repeatable."),
    ] = None,
    limits: Annotated[
        list[str] | None,
        typer.Option("--limit", help="MODALITY=WORDS: known limit, shown as a flag on such scans; repeatable."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Write licence, citation, authors, data, figures and limits into a model and its card; weights are not changed."""
    from dataclasses import replace

    from halebrain.core.config import parse_config
    from halebrain.models.bundle import load_bundle
    from halebrain.models.bundle_files import About, store_about
    from halebrain.models.card import model_card

    weak = dict(limit.partition("=")[::2] for limit in limits or ())
    if wrong := [name for name, words in weak.items() if not name or not words]:
        raise UsageError(
            "a limit must name a modality and the limit",
            received=", ".join(map(repr, wrong)),
            remedy="--limit T1w=WORDS",
        )
    said: dict[str, Any] = {"licence": licence, "citation": citation, "authors": authors, "data": data}
    said |= {"figures": figures or (), "limits": weak}
    about = parse_config(About, said, where="the options")
    store_about(model, about, card=model_card(replace(load_bundle(model), about=about)))
    written = f"licence, citation and {counted(len(authors), 'author')} are in the model and its card"
    _tell("describe", written, model, as_json=as_json, more={"about": about.model_dump(mode="json")})


@models_app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="Bundle folder or zip.")],
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the imported model; default: its current name.")
    ] = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Check a model and install it in HALEBRAIN_HOME under a name for -m. Prints its path."""
    from halebrain.models.store import import_model

    stored = import_model(source, name, overwrite=overwrite)
    then = command_line("detect", "-i", "SCAN", "-o", "OUT", "-m", stored.name)
    named = {"name": stored.name}
    _tell("import", f"use it with -m {stored.name}", stored.path, as_json=as_json, then=[then], more=named)


@models_app.command()
def export(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="The zip to write.")],
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Check a model and write it as one zip. Prints its path."""
    from halebrain.models.store import export_model, find_model

    export_model(find_model(model), output, overwrite=overwrite)
    _tell("export", "one zip holds the model", output, as_json=as_json)


@models_app.command()
def halve(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle folder to write.")],
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Write a model with 16-bit weights: half the size, a new model to calibrate. Prints its path."""
    from halebrain.models.store import convert_fp16, find_model

    convert_fp16(find_model(model), output, overwrite=overwrite)
    then = command_line("calibrate", output, "--manifest", "M")
    _tell("halve", "half the size; a new model", output, as_json=as_json, then=[then])
    typer.echo(f"halebrain: the model has no thresholds yet: {then}", err=True)


@models_app.command()
def join(
    models: Annotated[
        list[Path],
        typer.Argument(autocompletion=completion.model_names, help="At least two bundle folders, zips, or names."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle folder to write.")],
    by_contrast: Annotated[
        bool,
        typer.Option(
            "--by-contrast", help="Use each for the contrasts of its training data; all of them for other contrasts."
        ),
    ] = False,
    rest: Annotated[
        Path | None,
        typer.Option(
            "--rest",
            help="One of the models, used only for contrasts that no other was trained on (with --by-contrast).",
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Join models on the same reconstructor: average their segmenters, or use each for its contrasts.

    The joined model must be calibrated. Prints its path.
    """
    from halebrain.models.bundle import load_bundle, save_bundle
    from halebrain.models.card import model_card
    from halebrain.models.joining import join_models
    from halebrain.models.store import find_model

    if rest is not None and (rest not in models or not by_contrast):
        raise UsageError(
            "--rest must be one of the models joined with --by-contrast",
            received=str(rest),
            remedy="list it with the other models, too, and add --by-contrast",
        )
    place = None if rest is None else models.index(rest)
    bundle = join_models([load_bundle(find_model(model)) for model in models], by_contrast=by_contrast, rest=place)
    save_bundle(bundle, output, card=model_card(bundle), overwrite=overwrite)
    then = command_line("calibrate", output, "--manifest", "M")
    how = "one for each contrast" if by_contrast else "averaged"
    _tell("join", f"{counted(len(models), 'segmenter')}, {how}", output, as_json=as_json, then=[then])
    typer.echo(f"halebrain: the model has no thresholds yet: {then}", err=True)


def _tell(
    verb: str,
    done: str,
    path: Path,
    *,
    as_json: bool,
    then: Sequence[str] = (),
    more: Mapping[str, Any] | None = None,
) -> None:
    """Report the path and a description of a model that was written."""
    from halebrain.models.bundle import read_summary

    results = Results(f"models {verb}", as_json=as_json)
    results.line(path)
    written = {"path": path, "bytes": _bytes(path), "sha256": read_summary(path).sha256} if as_json else {}
    results.finish(done, wrote=[path], then=then, document=written | dict(more or {}))


def _entry(model: "StoredModel") -> dict[str, Any]:
    """Return a row of the list; a damaged model has a row too, with what is wrong instead of what it is."""
    from halebrain.models.bundle import read_summary
    from halebrain.models.store import DEFAULT_MODEL

    entry: dict[str, Any] = {
        "name": model.name,
        "default": model.name == DEFAULT_MODEL,
        "origin": model.origin,
        "bytes": _bytes(model.path),
        "path": str(model.path),
    }
    try:
        summary = read_summary(model.path)
    except HalebrainError as error:
        return entry | {"kind": None, "modalities": [], "sha256": None, "licence": None, "error": str(error)}
    licence = None if summary.about is None else summary.about.licence
    said = {"kind": summary.kind, "modalities": list(summary.modalities), "sha256": summary.sha256}
    return entry | said | {"licence": licence, "error": None}


def _verified(name: str, path: Path, sha256: str | None, error: str | None = None) -> dict[str, Any]:
    return {"name": name, "path": path, "whole": error is None, "sha256": sha256, "error": error}


def _about(bundle: "Bundle", path: Path) -> dict[str, Any]:
    return {
        "path": str(path),
        "bytes": _bytes(path),
        "sha256": bundle.sha256,
        "about": None if bundle.about is None else bundle.about.model_dump(mode="json"),
        "config": bundle.config.model_dump(mode="json"),
        "training": bundle.training,
        "calibration": bundle.calibration,
    }


def _bytes(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.iterdir() if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _thresholds(bundle: "Bundle") -> list[str]:
    from halebrain.thresholds.calibration import read_calibration

    calibration = read_calibration(bundle)
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
        f"- Threshold {name}: {threshold.value:.4f}, {threshold.method}; "
        f"{counted(threshold.n_scans, 'scan')}{modalities}, split {threshold.split}"
    )
