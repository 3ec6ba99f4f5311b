"""Steps of `halebrain prepare`: read settings and raw scans, assign splits, process every scan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from halebrain.cli import options
from halebrain.core.errors import CannotWriteError, HalebrainError, MissingInputError, UsageError
from halebrain.core.failures import Failures
from halebrain.core.wording import counted

if TYPE_CHECKING:
    from halebrain.data.prepare import PrepareOutcome, PrepareTask
    from halebrain.io.manifest import Manifest
    from halebrain.io.manifest_sidecar import Origin
    from halebrain.io.tree import LeftOut
    from halebrain.preprocessing.pipeline import PreprocessingConfig

_SAID = 5
"""Problems of a data set that are printed; all of them are written."""


@dataclass(frozen=True)
class RawScans:
    """The raw scans that an input means.

    Args:
        manifest: Those that can be prepared.
        origin: Where they came from.
        problems: A line for each thing that is wrong with the input.
        left_out: The images of the input that are no such scans.
        failed: Scan → reason of those that must not or cannot be read.
    """

    manifest: "Manifest"
    origin: "Origin"
    problems: Sequence[str] = ()
    left_out: "Sequence[LeftOut]" = ()
    failed: Mapping[str, str] = field(default_factory=dict)


def with_pathology(manifest: "Manifest", pathology: str | None) -> "Manifest":
    """Return the scans with what they show, where the input does not say it.

    Raises:
        UsageError: Every scan in the input has another pathology, so the option would have no effect.
    """
    if pathology is None:
        return manifest
    said = {record.pathology for record in manifest}
    if said and None not in said and said != {pathology}:
        raise UsageError(
            "--pathology is only for scans without a pathology in the input",
            received=f"{pathology!r}, while every scan has {', '.join(sorted(map(str, said)))} already",
            remedy="remove the option, or change the table",
        )
    rows = (r if r.pathology is not None else replace(r, pathology=pathology) for r in manifest)
    return replace(manifest, records=tuple(rows))


def read_preprocessing(
    config: Path | None, overrides: Sequence[str], model: Path | None, brain: str | None
) -> "PreprocessingConfig":
    """Return the settings: those of a file, a training or a model, or the defaults, with `auto` brain extraction.

    Raises:
        MissingInputError: `config` is neither a file nor a shipped training.
        UsageError: Both a file and a model are given.
        ConfigError: A key or value is wrong.
    """
    from halebrain.core.config import load_config, parse_config, read_yaml
    from halebrain.models.bundle import load_bundle
    from halebrain.models.store import find_model
    from halebrain.preprocessing.pipeline import PreprocessingConfig

    if model is None:
        file = options.find_config(config, "reconstructor")
        if file is None or file == config:
            settings = load_config(PreprocessingConfig, file, overrides)
        else:  # a training, whose data say how they must have been prepared
            asked = read_yaml(file).get("data", {}).get("preprocessing", {})
            settings = load_config(PreprocessingConfig, None, overrides, base=asked)
    elif config is not None or overrides:
        raise UsageError(
            "--model sets the preprocessing; -c and --set cannot be used with it",
            remedy="remove --model, or -c and --set",
        )
    else:
        settings = parse_config(PreprocessingConfig, load_bundle(find_model(model)).config.preprocessing, where=model)
    said = brain is not None or any(pair.startswith("brain=") for pair in overrides)
    return settings.model_copy(update={"brain": brain or (settings.brain if said else "auto")})


def read_raw(source: Path, kind: str | None, settings: Sequence[str], modality: str | None) -> RawScans:
    """Return the raw scans of an input; with a contrast, without those of a declared other contrast.

    Raises:
        HalebrainError: The input holds no scan, or cannot be read.
    """
    from halebrain.core.config import merged, parse_pair
    from halebrain.data.datasets import SOURCES, read_source
    from halebrain.io.manifest import Manifest
    from halebrain.io.manifest_sidecar import Origin
    from halebrain.io.tables import is_table

    if kind is None and (source / "dataset_description.json").is_file():
        kind = "bids"
    if kind is not None:
        values: dict[str, Any] = merged(*(parse_pair(text) for text in settings))
        if modality is not None:
            values = SOURCES.get(kind).with_modality(values, modality)
        found = read_source(kind, source, values)
        origin = Origin(source=kind, settings=values, problems=len(found.problems))
        failed = {name: str(error) for name, error in found.failed.items()}
        return _of_contrast(RawScans(found.manifest, origin, found.problems, found.left_out, failed), modality, source)
    if settings:
        raise UsageError(
            "--source-set needs --source", received=settings[0], remedy="give the layout, for example --source folder"
        )
    if is_table(source):
        return _of_contrast(RawScans(Manifest.read(source), Origin()), modality, source)
    return _of_contrast(_from_names(source, modality), modality, source)


def _from_names(source: Path, modality: str | None) -> RawScans:
    """Return the scans of a file, a folder or a list, described by their names only."""
    from halebrain.data.naming import records_of
    from halebrain.inference.cohort import find_scans
    from halebrain.io.manifest import Manifest
    from halebrain.io.manifest_sidecar import Origin

    scans, failed = find_scans(source), {}
    whole = []
    for scan in scans:
        try:
            scan.check()
            whole.append((scan.image, scan.name))
        except HalebrainError as error:
            failed[scan.name] = str(error)
    manifest = Manifest(records_of(whole, modality=modality), source=source)
    return RawScans(manifest, Origin(), (), scans.left_out, failed)


def _of_contrast(raw: RawScans, modality: str | None, source: Path) -> RawScans:
    """Return the scans of one contrast; the others are left out, with their count.

    Raises:
        MissingInputError: There is none.
    """
    from halebrain.core.modality import standard_modality
    from halebrain.data.naming import modality_of_scan
    from halebrain.io.tree import LeftOut

    if modality is None:
        return raw
    kept = raw.manifest.select(lambda record: standard_modality(record.modality) == modality)
    others = raw.manifest.select(lambda record: standard_modality(record.modality) != modality)
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
    failed = {name: why for name, why in raw.failed.items() if modality_of_scan(name) in (None, modality)}
    return replace(raw, manifest=kept, left_out=(*raw.left_out, *left_out), failed=failed)


def report_problems(problems: Sequence[str], path: Path) -> None:
    """Write what is wrong with the raw data set, a line each, and print the first of them."""
    from halebrain.core.files import write_text

    if not problems:
        path.unlink(missing_ok=True)
        return
    write_text(path, "\n".join(problems) + "\n")
    for problem in problems[:_SAID]:
        typer.echo(f"halebrain: warning: {problem}", err=True)
    if len(problems) > _SAID:
        typer.echo(f"halebrain: warning: {counted(len(problems) - _SAID, 'more problem')} in {path}", err=True)


def run_tasks(
    tasks: "Sequence[PrepareTask]", *, workers: int, threads: int, executor: Any = None
) -> tuple["list[PrepareOutcome]", Failures]:
    """Prepare every scan and return what became of them, and those that failed.

    Raises:
        CannotWriteError: The data set cannot be written, a full disk for one: no further scan would fare better.
    """
    from halebrain.core.parallel import map_items
    from halebrain.core.progress import track
    from halebrain.data.prepare import prepare_scan

    outcomes = []
    failures = Failures(tasks[0].dataset if tasks else None)
    results = map_items(prepare_scan, tasks, workers=workers, threads=threads, executor=executor)
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
            typer.echo(f"halebrain: warning: {name}: {flag}", err=True)
    return outcomes, failures


def split_subjects(manifest: "Manifest", origin: "Origin", text: str, seed: int) -> tuple["Manifest", "Origin"]:
    """Return the scans with subjects assigned to train, val and test, and the origin of this split.

    Raises:
        UsageError: `text` is not three fractions.
    """
    from halebrain.data.splits import assign_splits
    from halebrain.io.manifest import SPLITS

    try:
        shares = [float(share) for share in text.split(",")]
    except ValueError as error:
        raise UsageError("--split takes numbers", received=repr(text), remedy="for example 0.7,0.1,0.2") from error
    if len(shares) != len(SPLITS):
        raise UsageError(
            "--split takes three fractions: train,val,test", received=repr(text), remedy="for example 0.7,0.1,0.2"
        )
    fractions = dict(zip(SPLITS, shares, strict=True))
    if any(record.split is not None for record in manifest):
        typer.echo("halebrain: warning: --split replaces the splits of the input", err=True)
    return assign_splits(manifest, fractions, seed), origin.model_copy(
        update={"split_seed": seed, "split_fractions": fractions}
    )
