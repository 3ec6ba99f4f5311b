"""Adaptation: a model fine-tuned on a few annotated scans, with its scores before and after."""

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from halebrain.adaptation.config import AdaptConfig, inherit_settings
from halebrain.adaptation.run import Adaptation, Adapter, adaptation_identity
from halebrain.adaptation.scans import AdaptScans, choose_scans, prepared_row, unprepared, with_exam_masks
from halebrain.adaptation.table import changes, changes_json, report
from halebrain.core.config import load_config, parse_config
from halebrain.core.device import find_device
from halebrain.core.errors import CannotWriteError, DataError, UsageError
from halebrain.core.failures import Failures
from halebrain.core.files import write_text
from halebrain.core.parallel import HERE, Schedule
from halebrain.evaluation.tables import write_evaluation
from halebrain.io.failed_table import write_failed
from halebrain.io.manifest import Manifest
from halebrain.models.bundle import Bundle, load_bundle, save_bundle
from halebrain.models.card import model_card
from halebrain.models.store import find_model
from halebrain.preprocessing.pipeline import PreprocessingConfig
from halebrain.report.evaluation_page import write_evaluation_page
from halebrain.workflows.selection import check_words
from halebrain.workflows.settings import AdaptSettings, PartSettings

_MADE = ("model", "work", "left_out", "held_out", "adaptation.md", "adaptation.json")


@dataclass(frozen=True)
class PreparedPart:
    """What became of the raw scans of one part of an adaptation.

    Args:
        n_scans: Scans of the part.
        n_kept: Those that were prepared before.
        left: Scans of other parts that are not prepared yet.
        failures: Scans of the part that failed, with the reason.
    """

    n_scans: int
    n_kept: int
    left: list[str]
    failures: Failures


def adapt_model(manifest: Path, output: Path, settings: AdaptSettings, *, schedule: Schedule = HERE) -> list[Path]:
    """Fine-tune a model on the annotated scans of a manifest; return the files, the model last.

    `schedule` says where raw scans are prepared.

    The same adaptation in the output folder is resumed, or kept if it is finished; another one is refused.
    """
    config, source, bundle, scans = _read(manifest, settings)
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


def prepare_adaptation(
    manifest: Path, output: Path, settings: AdaptSettings, part: PartSettings, *, schedule: Schedule = HERE
) -> PreparedPart:
    """Prepare a part of the raw scans of an adaptation, which `adapt_model` with the same settings finds prepared.

    `output/work` has them, and a list of those that failed.
    """
    if settings.overwrite:
        raise UsageError(
            "--overwrite and --num-parts exclude each other",
            received="both",
            remedy="remove the folder before the parts begin",
        )
    config, _, bundle, scans = _read(manifest, settings)
    if (output / "model").exists():
        _refuse_another(output, adaptation_identity(bundle, scans, inherit_settings(config, bundle)))
    work = output / "work"
    preprocessing = parse_config(PreprocessingConfig, bundle.config.preprocessing, where=bundle.where)
    failures, folder = Failures(work, settings.notify), work / "scans"
    records = [*scans.annotated, *scans.healthy, *scans.held_out]
    own = part.own(records)
    todo = unprepared(own, preprocessing, folder)
    failures.each(
        partial(prepared_row, preprocessing, folder),
        own,
        name=lambda record: record.scan_id,
        description="Preparing scans",
        schedule=schedule,
        raise_if_none=False,
    )
    failed = work / f"failed{part.suffix}.tsv"
    if failures.reasons:
        write_failed(failed, failures.reasons)
    else:
        failed.unlink(missing_ok=True)
    names = {record.scan_id for record in own}
    left = [name for name in unprepared(records, preprocessing, folder) if name not in names]
    return PreparedPart(len(own), len(own) - len(todo), left, failures)


def _read(manifest: Path, settings: AdaptSettings) -> tuple[AdaptConfig, Path, Bundle, AdaptScans]:
    """Return settings, place of the model, model and scans of an adaptation; what a user should know is said."""
    seed = [] if settings.seed is None else [f"seed={settings.seed}"]
    config = load_config(AdaptConfig, settings.config, [*settings.overrides, *seed])
    source = find_model(settings.model)
    bundle = load_bundle(source)
    every, of_exams = with_exam_masks(Manifest.read(manifest))
    check_words(every, settings.modalities, settings.pathologies)
    rows = every.of_contrasts(settings.modalities)
    scans = choose_scans(
        rows, bundle, pathologies=settings.pathologies, max_healthy=config.max_healthy, seed=config.seed
    )
    for note in (*of_exams, *scans.notes):
        settings.notify(f"warning: {note}")
    return config, source, bundle, scans


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
