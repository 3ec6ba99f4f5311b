"""Adaptation: a model fine-tuned on a few annotated scans, with its scores before and after."""

import shutil
from pathlib import Path

from halebrain.adaptation.config import AdaptConfig
from halebrain.adaptation.run import Adaptation, Adapter
from halebrain.adaptation.scans import choose_scans, with_exam_masks
from halebrain.adaptation.table import changes, changes_json, report
from halebrain.core.config import load_config
from halebrain.core.device import find_device
from halebrain.core.errors import CannotWriteError, DataError
from halebrain.core.files import write_text
from halebrain.core.parallel import HERE, Schedule
from halebrain.evaluation.tables import write_evaluation
from halebrain.io.manifest import Manifest
from halebrain.models.bundle import load_bundle, save_bundle
from halebrain.models.card import model_card
from halebrain.models.store import find_model
from halebrain.report.evaluation_page import write_evaluation_page
from halebrain.workflows.settings import AdaptSettings

_MADE = ("model", "work", "left_out", "held_out", "adaptation.md", "adaptation.json")


def adapt_model(manifest: Path, output: Path, settings: AdaptSettings, *, schedule: Schedule = HERE) -> list[Path]:
    """Fine-tune a model on the annotated scans of a manifest; return the files, the model last.

    `schedule` says where raw scans are prepared.

    The same adaptation in the output folder is resumed, or kept if it is finished; another one is refused.
    """
    seed = [] if settings.seed is None else [f"seed={settings.seed}"]
    config = load_config(AdaptConfig, settings.config, [*settings.overrides, *seed])
    source = find_model(settings.model)
    bundle = load_bundle(source)
    every, of_exams = with_exam_masks(Manifest.read(manifest))
    rows = every.of_contrasts(settings.modalities)
    scans = choose_scans(
        rows, bundle, pathologies=settings.pathologies, max_healthy=config.max_healthy, seed=config.seed
    )
    for note in (*of_exams, *scans.notes):
        settings.notify(f"warning: {note}")
    device = find_device(settings.device)
    adapter = Adapter(bundle, scans, config, output / "work", device, schedule=schedule, notify=settings.notify)
    if settings.overwrite:
        _clear(output, source)
    elif _refuse_another(output, adapter.identity):
        shutil.rmtree(output / "work", ignore_errors=True)
        return [output / "model"]
    result = adapter.run()
    for note in result.notes[len(scans.notes) :]:
        settings.notify(f"warning: {note}")
    paths = _write(result, output, config.seed)
    shutil.rmtree(output / "work")
    return paths


def _clear(output: Path, source: Path) -> None:
    """Remove an earlier adaptation: what it made, and nothing else."""
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
    """Return whether the same adaptation exists already."""
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


def _write(result: Adaptation, output: Path, seed: int) -> list[Path]:
    """Write tables, pages and, last, the model; return their paths."""
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
