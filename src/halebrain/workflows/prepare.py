"""Preparation: raw scans to a data set that is preprocessed, checked and split, with its tables and its page."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from halebrain.core.config import load_config, merged, parse_config, parse_pair, read_yaml
from halebrain.core.errors import CannotWriteError, HalebrainError, MissingInputError, UsageError
from halebrain.core.failures import Failures
from halebrain.core.files import write_bytes, write_text
from halebrain.core.messages import Notify, log_message
from halebrain.core.modality import modality_of_scan, standard_modality
from halebrain.core.parallel import Schedule, map_items
from halebrain.core.progress import track
from halebrain.core.shipped_configs import find_config
from halebrain.core.wording import counted
from halebrain.data.datasets import SOURCES, SourceResult, read_source
from halebrain.data.naming import records_of
from halebrain.data.prepare import PrepareOutcome, PrepareTask, prepare_scan
from halebrain.data.prepared_set import (
    QualityEntry,
    failure_tables,
    lesion_lost,
    quality_entries,
    read_entries,
    read_failures,
    write_description,
    write_manifests,
    write_quality_table,
)
from halebrain.data.splits import assign_splits, read_fractions
from halebrain.inference.scans import find_scans
from halebrain.io.failed_table import write_failed
from halebrain.io.manifest import Manifest, standard_pathology
from halebrain.io.manifest_sidecar import Origin
from halebrain.io.tables import is_table
from halebrain.io.tree import LeftOut, summed_left_out
from halebrain.io.volume import read_map, read_mask, stem_of
from halebrain.models.bundle import load_bundle
from halebrain.models.store import find_model
from halebrain.preprocessing.geometry import Grid
from halebrain.preprocessing.pipeline import PreprocessingConfig
from halebrain.preprocessing.template import template_on
from halebrain.report.quality_page import QualityRow, quality_picture, write_quality_page
from halebrain.workflows.settings import WHOLE, PartSettings, PrepareSettings

ONE_PROCESS = Schedule(workers=1)
"""A crash in a library ends that process, and not the run."""
_CHANNEL = re.compile(r"(?P<case>.+)_\d{4}")
"""Names of nnU-Net's images, which end in the number of their channel."""
_CHANNEL_FOLDERS = ("imagesTr", "imagesTs", "imagesVal")
_SAID = 5
"""Problems of a data set that are printed; all of them are written."""


@dataclass(frozen=True)
class PreparedScans:
    """What became of the scans of one run.

    Args:
        n_scans: Scans that were asked for.
        outcomes: Those that are prepared.
        failures: Those that failed, with the reason.
        problems: What is wrong with the input.
        left_out: Images of the input that are not used.
        files: Manifests, table and page of the whole data set; empty where other parts are not there yet.
        left: Scans of other parts that are not there yet.
        flagged: Scans with quality flags in the whole data set.
        n_entries: Scans of the whole data set that are there.
        lesion_ml: Annotated lesion of all of them.
        lesion_outside_ml: How much of it lies outside the working grid, as where slices are cut, and counts nowhere.
        n_lesion_outside: Scans with lesion outside the working grid.
    """

    n_scans: int
    outcomes: list[PrepareOutcome]
    failures: Failures
    problems: Sequence[str]
    left_out: tuple[LeftOut, ...]
    files: tuple[Path, ...] = ()
    left: int = 0
    flagged: int = 0
    n_entries: int = 0
    lesion_ml: float = 0.0
    lesion_outside_ml: float = 0.0
    n_lesion_outside: int = 0

    @property
    def n_kept(self) -> int:
        """Scans that were prepared before."""
        return sum(outcome.kept for outcome in self.outcomes)


def prepare_dataset(
    source: Path,
    output: Path,
    settings: PrepareSettings,
    *,
    schedule: Schedule = ONE_PROCESS,
    part: PartSettings = WHOLE,
    done: Callable[[Path], None] = lambda _: None,
) -> PreparedScans:
    """Preprocess raw scans, or a part of them, into a data set; one that fails does not stop the others.

    `schedule` says where, each scan in a process that may die. `done` is called with each file of the whole data set.
    """
    if output.resolve().is_relative_to(source.resolve()):
        raise UsageError("a data set must not lie in the folder of its raw scans", where=output, remedy="move --output")
    notify = settings.notify
    preprocessing = read_preprocessing(settings.config, with_template(settings), settings.model, settings.brain)
    raw = read_raw(source, settings.kind, settings.source_settings, settings.modality)
    manifest, origin = with_pathology(raw.manifest, settings.pathology), raw.origin
    if line := summed_left_out(raw.left_out):
        notify(f"warning: {line}")
    if settings.split is not None:
        manifest, origin = split_subjects(manifest, origin, settings.split, settings.seed, notify=notify)
    write_description(output)
    _report_problems(raw.problems, output / "problems.txt", notify)
    tasks = [
        PrepareTask(record, output, preprocessing, settings.overwrite)
        for record in part.own(sorted(manifest.records, key=lambda record: record.scan_id))
    ]
    broken = {name: str(error) for name, error in part.own(sorted(raw.failed.items()))}
    for name, reason in broken.items():
        notify(f"{name}: {reason}")
    outcomes, failures = _run_tasks(tasks, schedule, notify)
    failures.reasons.update(broken)
    failed = output / f"failed{part.suffix}.tsv"
    _remove_other_failures(output, part)
    if failures.reasons:
        write_failed(failed, failures.reasons)
    else:
        failed.unlink(missing_ok=True)
    prepared = PreparedScans(len(tasks) + len(broken), outcomes, failures, raw.problems, raw.left_out)
    return _finish(prepared, output, manifest, origin, done=done)


@dataclass(frozen=True)
class RawScans(SourceResult):
    """The raw scans that an input means, and where they came from."""

    origin: Origin = field(default_factory=Origin)


def with_pathology(manifest: Manifest, pathology: str | None) -> Manifest:
    """Return the scans with what they show, where the input does not say it."""
    if pathology is None:
        return manifest
    said = {record.pathology for record in manifest}
    if said and None not in said and said != {standard_pathology(pathology)}:
        raise UsageError(
            "--pathology is only for scans without a pathology in the input",
            received=f"{pathology!r}, while every scan has {', '.join(sorted(map(str, said)))} already",
            remedy="remove the option, or change the table",
        )
    rows = (r if r.pathology is not None else replace(r, pathology=pathology) for r in manifest)
    return replace(manifest, records=tuple(rows))


def with_template(settings: PrepareSettings) -> tuple[str, ...]:
    """Return the `key=value` settings, with the atlas of --template and --template-mask."""
    given = {"template": settings.template, "template_mask": settings.template_mask}
    # As JSON, which YAML reads as a string whatever is in it.
    own = tuple(f"{key}={json.dumps(str(path.absolute()))}" for key, path in given.items() if path is not None)
    return (*settings.overrides, *own)


def read_preprocessing(
    config: Path | None, overrides: Sequence[str], model: Path | None, brain: str | None
) -> PreprocessingConfig:
    """Return the settings: those of a file, a training or a model, or the defaults, with `auto` brain extraction."""
    if model is None:
        file = find_config(config, "reconstructor")
        if file is None or file == config:
            settings = load_config(PreprocessingConfig, file, overrides)
        else:  # a training, whose data say how they must have been prepared
            stated = read_yaml(file).get("data", {}).get("preprocessing", {})
            settings = load_config(PreprocessingConfig, None, overrides, base=stated)
    elif config is not None or overrides:
        raise UsageError(
            "--model sets the preprocessing; -c, --set and --template cannot be used with it",
            remedy="remove --model, or -c, --set and --template",
        )
    else:
        settings = parse_config(PreprocessingConfig, load_bundle(find_model(model)).config.preprocessing, where=model)
    # A shipped training and a model state "stripped" of the scans that they were given: that is no wish for raw ones.
    said = any(pair.startswith("brain=") for pair in overrides)
    if config is not None and model is None and find_config(config, "reconstructor") == config:
        said = said or "brain" in read_yaml(config)
    return settings.model_copy(update={"brain": brain or (settings.brain if said else "auto")})


def read_raw(source: Path, kind: str | None, settings: Sequence[str], modality: str | None) -> RawScans:
    """Return the raw scans of an input; with a contrast, without those of a declared other contrast."""
    if kind is None and (source / "dataset_description.json").is_file():
        kind = "bids"
    if kind is not None:
        values: dict[str, Any] = merged(*(parse_pair(text) for text in settings))
        if modality is not None:
            values = SOURCES.get(kind).with_modality(values, modality)
        found = read_source(kind, source, values)
        origin = Origin(source=kind, settings=values, problems=len(found.problems))
        return _of_contrast(RawScans(**vars(found), origin=origin), modality, source)
    if settings:
        raise UsageError(
            "--source-set needs --source", received=settings[0], remedy="give the layout, for example --source folder"
        )
    if is_table(source):
        return _of_contrast(RawScans(Manifest.read(source)), modality, source)
    return _of_contrast(_from_names(source, modality), modality, source)


def _from_names(source: Path, modality: str | None) -> RawScans:
    """Return the scans of a file, a folder or a list, described by their names only."""
    scans, failed, whole = find_scans(source), dict[str, HalebrainError](), []
    for scan in scans:
        try:
            scan.check()
            whole.append((scan.image, scan.name))
        except HalebrainError as error:
            failed[scan.name] = error
    _refuse_channels([image for image, _ in whole], source)
    manifest = Manifest(records_of(whole, modality=modality), source=source)
    return RawScans(manifest, left_out=scans.left_out, failed=failed)


def _refuse_channels(images: Sequence[Path], source: Path) -> None:
    """Refuse cases of several numbered channels, as nnU-Net names them: each would count as another person."""
    cases: dict[tuple[Path, str], list[str]] = {}
    for image in images:
        # Elsewhere a number of four digits may be that of the person.
        if image.parent.name in _CHANNEL_FOLDERS and (match := _CHANNEL.fullmatch(stem_of(image))):
            cases.setdefault((image.parent, match["case"]), []).append(image.name)
    several = next((names for names in cases.values() if len(names) > 1), None)
    if several is not None:
        raise UsageError(
            "the contrast of each channel of a case must be declared",
            received=", ".join(several[:3]),
            where=source,
            remedy="use --source folder --source-set 'pattern=\"imagesTr/{subject}_{modality}.nii.gz\"'"
            ' --source-set \'modalities={"0000": T1w, "0001": FLAIR}\', with your names',
        )


def _of_contrast(raw: RawScans, modality: str | None, source: Path) -> RawScans:
    """Return the scans of one contrast; the others are left out, with their count."""
    if modality is None:
        return raw
    kept = raw.manifest.of_contrasts((modality,))
    others = raw.manifest.select(lambda record: record.contrast != standard_modality(modality))
    if not len(kept) and len(others):
        raise MissingInputError(
            "--modality must leave at least one scan",
            received=f"{modality!r}, while there are {', '.join(sorted({record.modality for record in others}))}",
            where=source,
            remedy="use one of those, or remove the option",
        )
    inside = source if source.is_dir() else source.parent
    left_out = [
        LeftOut(
            record.image.relative_to(inside).as_posix() if record.image.is_relative_to(inside) else str(record.image),
            f"of a contrast other than --modality {modality}",
        )
        for record in others
    ]
    wanted = (None, standard_modality(modality))
    failed = {name: error for name, error in raw.failed.items() if modality_of_scan(name) in wanted}
    return replace(raw, manifest=kept, left_out=(*raw.left_out, *left_out), failed=failed)


def _report_problems(problems: Sequence[str], path: Path, notify: Notify) -> None:
    """Write what is wrong with the raw data set, a line each, and print the first of them."""
    if not problems:
        path.unlink(missing_ok=True)
        return
    write_text(path, "\n".join(problems) + "\n")
    for problem in problems[:_SAID]:
        notify(f"warning: {problem}")
    if len(problems) > _SAID:
        notify(f"warning: {counted(len(problems) - _SAID, 'more problem')} in {path}")


def _run_tasks(
    tasks: Sequence[PrepareTask], schedule: Schedule, notify: Notify
) -> tuple[list[PrepareOutcome], Failures]:
    """Prepare every scan; return what became of them, and those that failed.

    A data set that is not writable ends all.
    """
    outcomes = []
    failures = Failures(tasks[0].dataset if tasks else None, notify)
    results = map_items(prepare_scan, tasks, schedule, notify=notify)
    for place, result in track(results, description="Preparing", total=len(tasks)):
        name = tasks[place].record.scan_id
        if isinstance(result, CannotWriteError):
            raise result
        if isinstance(result, HalebrainError):
            failures.add(name, result)
            continue
        failures.went_well(name)
        outcomes.append(result)
        for flag in result.flags if not result.kept else ():
            notify(f"warning: {name}: {flag}")
    return outcomes, failures


def _remove_other_failures(output: Path, part: PartSettings) -> None:
    """Remove the lists of failures of an earlier run with other parts, whose scans are in the parts of this one."""
    for table, parts in failure_tables(output).items():
        if part.num_parts == 1 or parts != part.num_parts:
            table.unlink(missing_ok=True)


def split_subjects(
    manifest: Manifest, origin: Origin, text: str, seed: int, *, notify: Notify = log_message
) -> tuple[Manifest, Origin]:
    """Return the scans with subjects assigned to train, val and test, and the origin of this split.

    Raises:
        UsageError: `text` is not three fractions.
    """
    fractions = read_fractions(text)
    if any(record.split is not None for record in manifest):
        notify("warning: --split replaces the splits of the input")
    return assign_splits(manifest, fractions, seed), origin.model_copy(
        update={"split_seed": seed, "split_fractions": fractions}
    )


def _finish(
    prepared: PreparedScans, output: Path, manifest: Manifest, origin: Origin, *, done: Callable[[Path], None]
) -> PreparedScans:
    """Write the files of the whole data set from the existing scans, and return what became of it.

    Of several parts, only the one that finds all scans there (or failed) writes them.
    """
    entries, failures = read_entries(output), read_failures(output)
    known = {entry.raw.scan_id for entry in entries} | set(failures)
    left = sum(record.scan_id not in known for record in manifest)
    if left or not entries:
        return replace(prepared, left=left, n_entries=len(entries))
    files = [*write_manifests(output, entries, manifest, origin), output / "qc.tsv", output / "index.html"]
    quality = quality_entries(entries)
    write_quality_table(quality, output / "qc.tsv")
    for path in files[:-1]:
        done(path)
    _write_page(output, quality, failures)
    done(files[-1])
    flagged = sum(bool(scan.flags) for scan in quality)
    whole, lost, scans = lesion_lost(quality)
    return replace(
        prepared,
        files=tuple(files),
        flagged=flagged,
        n_entries=len(quality),
        lesion_ml=round(whole, 3),
        lesion_outside_ml=round(lost, 3),
        n_lesion_outside=scans,
    )


def _write_page(output: Path, quality: Sequence[QualityEntry], failures: dict[str, str]) -> None:
    """Write `index.html`, with a picture of every scan; pictures are drawn once and kept in `figures/`."""
    rows = []
    for scan in track(quality, description="Drawing", total=len(quality)):
        raw, files = scan.entry.raw, scan.entry.files
        path = output / "figures" / f"{raw.scan_id}.jpg"
        if not path.is_file() or path.stat().st_mtime < files.sidecar.stat().st_mtime:
            image = read_map(files.image)
            template, _ = template_on(Grid(image.shape, image.affine), scan.entry.atlas)
            write_bytes(path, quality_picture(image.data, read_mask(files.brain_mask, image), template))
        rows.append(QualityRow(raw.scan_id, raw.modality, scan.figures, scan.flags, path.read_bytes()))
    write_quality_page(rows, failures, output / "index.html")
