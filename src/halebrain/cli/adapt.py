"""`halebrain adapt`: fine-tune a model's segmenter on a few annotated scans."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from halebrain.cli import completion, options
from halebrain.cli.results import Results, command_line, look_at
from halebrain.core.wording import counted

if TYPE_CHECKING:
    from halebrain.adaptation.run import Adaptation

_MADE = ("model", "work", "left_out", "held_out", "adaptation.md", "adaptation.json")


def adapt(
    output: options.Output,
    manifest: options.ManifestPath,
    model: options.ModelPath = None,
    pathology: Annotated[
        list[str] | None,
        typer.Option(
            "--pathology",
            autocompletion=completion.among(*completion.PATHOLOGIES),
            help="Adapt to these diseases only; other annotated scans are scored before and after.",
        ),
    ] = None,
    modality: options.Modalities = None,
    config: options.ConfigPath = None,
    overrides: options.Overrides = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Random seed; the same as seed=.")] = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    overwrite: options.Overwrite = False,
    no_progress: options.NoProgress = False,
    as_json: options.Json = False,
) -> None:
    """Fine-tune a model on a few annotated scans (1 to 20), raw or prepared. The new model is OUTPUT/model.

    Rows of the split "test" take no part; they are scored before and after. Run the same command again to resume.
    """
    options.set_up(threads=threads, no_progress=no_progress)
    from halebrain.adaptation.config import AdaptConfig
    from halebrain.adaptation.run import Adapter
    from halebrain.adaptation.scans import choose_scans
    from halebrain.core.config import load_config
    from halebrain.io.manifest import Manifest
    from halebrain.models.bundle import load_bundle
    from halebrain.models.store import find_model

    results = Results("adapt", as_json=as_json)
    given = [*(overrides or []), *([] if seed is None else [f"seed={seed}"])]
    settings = load_config(AdaptConfig, config, given)
    source = find_model(model)
    bundle = load_bundle(source)
    rows = Manifest.read(manifest).select(lambda r: not modality or r.modality in modality)
    scans = choose_scans(
        rows, bundle, pathologies=tuple(pathology or ()), max_healthy=settings.max_healthy, seed=settings.seed
    )
    for note in scans.notes:
        typer.echo(f"halebrain: warning: {note}", err=True)
    adapter = Adapter(bundle, scans, settings, output / "work", options.find_device(device))
    if overwrite:
        _clear(output, source)
    elif _refuse_another(output, adapter.identity):
        shutil.rmtree(output / "work", ignore_errors=True)
        _tell(results, output, [output / "model"])
        return
    result = adapter.run()
    for note in result.notes[len(scans.notes) :]:
        typer.echo(f"halebrain: warning: {note}", err=True)
    paths = _write(result, output, settings.seed)
    shutil.rmtree(output / "work")
    _tell(results, output, paths)


def _tell(results: Results, output: Path, paths: list[Path]) -> None:
    """Print the closing summary: results, paths and next step."""
    for path in paths:
        results.line(path)
    said = json.loads((output / "adaptation.json").read_text(encoding="utf-8"))
    pages = [look_at(path) for path in paths if path.suffix == ".html"]
    results.finish(
        f"adapted in {counted(said['choice']['steps'], 'step')}; before and after: {output / 'adaptation.md'}",
        wrote=[output / "model"],
        then=[*pages, command_line("detect", "-i", "SCAN", "-o", "OUT", "-m", output / "model")],
        document={"output": output, "model": output / "model", "files": paths, **said},
    )


def _clear(output: Path, source: Path) -> None:
    """Remove an earlier adaptation: what it made, and nothing else.

    Raises:
        DataError: The model there is no adapted one, or the one to adapt.
    """
    from halebrain.core.errors import DataError
    from halebrain.models.bundle import load_bundle

    model = output / "model"
    if model.exists() and (
        model.resolve() == source.resolve()
        or not any("adapted_from" in stage for stage in load_bundle(model).training.values())
    ):
        raise DataError(
            "--overwrite only replaces an adaptation",
            received="the model to adapt" if model.resolve() == source.resolve() else "another model",
            where=model,
            remedy="choose another --output",
        )
    for name in _MADE:
        path = output / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _refuse_another(output: Path, identity: str) -> bool:
    """Return whether the same adaptation exists already.

    Raises:
        CannotWriteError: Another one is.
    """
    from halebrain.core.errors import CannotWriteError
    from halebrain.models.bundle import load_bundle

    if not (output / "model").exists():
        return False
    stages = load_bundle(output / "model").training.values()
    if any(stage.get("identity") == identity for stage in stages):
        return True
    raise CannotWriteError(
        "the output must not hold another adaptation",
        received="another model, other scans or other settings",
        where=output,
        remedy="choose another folder, or --overwrite",
    )


def _write(result: "Adaptation", output: Path, seed: int) -> list[Path]:
    """Write tables, pages and, last, the model; return their paths."""
    from halebrain.adaptation.table import changes, changes_json, report
    from halebrain.core.files import write_text
    from halebrain.evaluation.tables import write_evaluation
    from halebrain.models.bundle import save_bundle
    from halebrain.models.card import model_card
    from halebrain.report.evaluation_page import write_evaluation_page

    paths, table = [], []
    for name, evaluation in (("left_out", result.left_out), ("held_out", result.held_out)):
        if evaluation is not None:
            spoken = name.replace("_", " ")
            write_evaluation(evaluation, output / name)
            paths.append(output / name / "index.html")
            write_evaluation_page(evaluation, paths[-1], title=f"Before and after adaptation: scans {spoken}")
            table += changes(spoken, evaluation, seed=seed)
    write_text(output / "adaptation.md", report(table, result.choice, result.notes))
    write_text(output / "adaptation.json", changes_json(table, result.choice, result.notes))
    save_bundle(result.bundle, output / "model", card=model_card(result.bundle), overwrite=True)
    return [output / "adaptation.md", *paths, output / "model"]
