"""What `halebrain prepare` does before it writes: read settings and raw scans, deal out splits, run every scan."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from halebrain.cli import options
from halebrain.core.errors import CannotWriteError, HalebrainError, UsageError
from halebrain.core.wording import counted

if TYPE_CHECKING:
    from halebrain.data.prepare import PrepareOutcome, PrepareTask
    from halebrain.io.manifest import Manifest
    from halebrain.io.manifest_sidecar import Origin
    from halebrain.preprocessing.pipeline import PreprocessingConfig

_SAID = 5
"""Problems of a data set that are printed; all of them are written."""


def with_pathology(manifest: "Manifest", pathology: str | None) -> "Manifest":
    """Return the scans with what they show, where the input does not say it."""
    if pathology is None:
        return manifest
    rows = (r if r.pathology is not None else replace(r, pathology=pathology) for r in manifest)
    return replace(manifest, records=tuple(rows))


def read_preprocessing(
    config: Path | None, overrides: Sequence[str], model: Path | None, brain: str | None
) -> "PreprocessingConfig":
    """Return the settings: those of a file, a training or a model, or the defaults, with `auto` for brains unless said.

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
            "--model says how to preprocess; -c and --set do not go with it",
            remedy="leave out --model, or -c and --set",
        )
    else:
        settings = parse_config(PreprocessingConfig, load_bundle(find_model(model)).config.preprocessing, where=model)
    said = brain is not None or any(pair.startswith("brain=") for pair in overrides)
    return settings.model_copy(update={"brain": brain or (settings.brain if said else "auto")})


def read_raw(
    source: Path, kind: str | None, settings: Sequence[str], modality: str | None
) -> tuple["Manifest", "Origin", Sequence[str]]:
    """Return the raw scans that an input means, where they came from, and a line for each thing wrong with it.

    Raises:
        HalebrainError: The input holds no scan, or cannot be read.
    """
    from halebrain.core.config import merged, parse_pair
    from halebrain.data.datasets import read_source
    from halebrain.data.naming import records_of
    from halebrain.inference.cohort import find_scans
    from halebrain.io.manifest import Manifest
    from halebrain.io.manifest_sidecar import Origin
    from halebrain.io.tables import is_table

    if kind is None and (source / "dataset_description.json").is_file():
        kind = "bids"
    if kind is not None:
        values: dict[str, Any] = merged(*(parse_pair(text) for text in settings))
        found = read_source(kind, source, values)
        origin = Origin(source=kind, settings=values, problems=len(found.problems))
        return found.manifest, origin, found.problems
    if settings:
        raise UsageError(
            "--source-set goes with --source", received=settings[0], remedy="say which layout: --source folder"
        )
    if is_table(source):
        return Manifest.read(source), Origin(), ()
    scans = [(scan.image, scan.name) for scan in find_scans(source)]
    return Manifest(records_of(scans, modality=modality), source=source), Origin(), ()


def report_problems(problems: Sequence[str], path: Path) -> None:
    """Write what is wrong with the raw data set, a line each, and print the first of them."""
    from halebrain.core.atomic import write_text

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
) -> tuple["list[PrepareOutcome]", dict[str, str]]:
    """Prepare every scan and return what became of them, and scan → reason of those that failed.

    Raises:
        CannotWriteError: The data set cannot be written, a full disk for one: no further scan would fare better.
    """
    from halebrain.core.parallel import map_items
    from halebrain.core.progress import track
    from halebrain.data.prepare import prepare_scan

    outcomes, failures = [], {}
    results = map_items(prepare_scan, tasks, workers=workers, threads=threads, executor=executor)
    for place, result in track(results, description="Preparing", total=len(tasks)):
        name = tasks[place].record.scan_id
        if isinstance(result, CannotWriteError):
            raise result
        if isinstance(result, Exception):
            known = isinstance(result, HalebrainError)
            failures[name] = " ".join(str(result).split()) if known else f"{type(result).__name__}: {result}"
            typer.echo(f"halebrain: {name}: {failures[name]}", err=True)
            continue
        outcomes.append(result)
        for flag in result.flags if not result.kept else ():
            typer.echo(f"halebrain: warning: {name}: {flag}", err=True)
    return outcomes, failures


def split_subjects(manifest: "Manifest", origin: "Origin", text: str, seed: int) -> tuple["Manifest", "Origin"]:
    """Return the scans with subjects dealt to train, val and test, and their origin, which says how.

    Raises:
        UsageError: `text` is not three shares.
    """
    from halebrain.data.splits import assign_splits
    from halebrain.io.manifest import SPLITS

    try:
        shares = [float(share) for share in text.split(",")]
    except ValueError as error:
        raise UsageError("--split takes numbers", received=repr(text), remedy="for example 0.7,0.1,0.2") from error
    if len(shares) != len(SPLITS):
        raise UsageError(
            "--split takes three shares: train,val,test", received=repr(text), remedy="for example 0.7,0.1,0.2"
        )
    fractions = dict(zip(SPLITS, shares, strict=True))
    return assign_splits(manifest, fractions, seed), origin.model_copy(
        update={"split_seed": seed, "split_fractions": fractions}
    )
