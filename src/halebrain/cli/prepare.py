"""`halebrain prepare`: from raw scans to a data set that is preprocessed, checked and split."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from halebrain.cli import completion, options
from halebrain.cli.results import Results, command_line, failed_scans, look_at
from halebrain.core.errors import CannotWriteError, HalebrainError, PartialFailureError, UsageError
from halebrain.core.wording import counted

if TYPE_CHECKING:
    from halebrain.data.prepare import PrepareOutcome, PrepareTask
    from halebrain.data.prepared_quality import QualityEntry
    from halebrain.io.manifest import Manifest
    from halebrain.io.manifest_sidecar import Origin
    from halebrain.preprocessing.pipeline import PreprocessingConfig

_SAID = 5
"""Problems of a data set that are printed; all of them are written."""


def prepare(
    source: Annotated[
        Path, typer.Option("--input", "-i", help="Raw scans: a folder, BIDS, DICOM, a list, a manifest, or a data set.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The data set: made, or added to.")],
    kind: Annotated[
        str | None,
        typer.Option(
            "--source",
            autocompletion=completion.among(*completion.SOURCES),
            help="Layout: ixi, brats, atlas2, mslub, wmh, mood, bids, folder, table, published.",
        ),
    ] = None,
    source_settings: Annotated[
        list[str] | None, typer.Option("--source-set", help="key=value for the layout; repeatable.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            autocompletion=completion.config_names,
            help="YAML file of preprocessing settings, or the training that the scans are for: paper, demo, general.",
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="key=value of the preprocessing; repeatable.")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", "-m", autocompletion=completion.model_names, help="Preprocess as this model expects it."
        ),
    ] = None,
    brain: Annotated[str | None, typer.Option("--brain", help="How brains are found: auto, stripped, atlas, …")] = None,
    modality: Annotated[
        str | None,
        typer.Option(
            "--modality",
            autocompletion=completion.among(*completion.MODALITIES),
            help="Contrast of all scans, where names do not say it.",
        ),
    ] = None,
    pathology: Annotated[
        str | None,
        typer.Option("--pathology", help="What all scans show that nothing else says it of: healthy, or a disease."),
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Shares of subjects in train,val,test: 0.7,0.1,0.2.")
    ] = None,
    seed: options.Seed = 0,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Scans at once, a process each.")] = 1,
    threads: Annotated[int, typer.Option("--threads", min=1, help="CPU threads of each process.")] = 1,
    part_id: Annotated[int, typer.Option("--part-id", min=0, help="This part, counted from 0.")] = 0,
    num_parts: Annotated[int, typer.Option("--num-parts", min=1, help="Parts that the scans are dealt to.")] = 1,
    overwrite: options.Overwrite = False,
    no_progress: options.NoProgress = False,
    as_json: options.Json = False,
) -> None:
    """Preprocess raw scans into a data set with manifests and quality control; goes on where it stopped."""
    options.set_up(no_progress=no_progress)
    if part_id >= num_parts:
        raise UsageError(
            "--part-id counts from 0 and lies below --num-parts",
            received=f"{part_id} of {num_parts}",
            remedy="for example --num-parts 4 --part-id 0, 1, 2 and 3",
        )
    if output.resolve().is_relative_to(source.resolve()):
        raise UsageError("a data set must not lie in the folder of its raw scans", where=output, remedy="move --output")
    from halebrain.data.prepare import PrepareTask
    from halebrain.data.prepared_set import write_description

    settings = read_preprocessing(config, overrides or [], model, brain)
    manifest, origin, problems = read_raw(source, kind, source_settings or [], modality)
    manifest = _with_pathology(manifest, pathology)
    if split is not None:
        manifest, origin = _split(manifest, origin, split, seed)
    write_description(output)
    _report_problems(problems, output / "problems.txt")
    tasks = [
        PrepareTask(record, output, settings, overwrite)
        for record in sorted(manifest.records, key=lambda record: record.scan_id)[part_id::num_parts]
    ]
    outcomes, failures = run_tasks(tasks, workers=workers, threads=threads)
    part = "" if num_parts == 1 else f"-{part_id}of{num_parts}"
    results = Results("prepare", as_json=as_json)
    finished = finish(output, manifest, origin, failures, part=part, results=results)
    kept = sum(outcome.kept for outcome in outcomes)
    typer.echo(f"{len(outcomes)} of {counted(len(tasks), 'scan')} prepared, {kept} of them before", err=True)
    counts = {"scans": len(tasks), "prepared": len(outcomes), "kept": kept, "problems": list(problems)}
    _tell(results, output, finished, counts, failures, config)
    if failures:
        raise PartialFailureError(
            "every scan should be prepared",
            received=f"{len(failures)} of {len(tasks)} that failed: {', '.join(sorted(failures))}",
            where=output / f"failed{part}.tsv",
            remedy="mend what each line says; the same command then prepares those only",
        )


def _tell(
    results: Results,
    output: Path,
    finished: "Finished",
    counts: dict[str, Any],
    failed: dict[str, str],
    config: Path | None,
) -> None:
    """Close with how many scans were prepared, where they are and what to do with them."""
    done = f"{counts['prepared']} of {counted(counts['scans'], 'scan')} prepared, {counts['kept']} of them before"
    then = ["run the parts that are left; the last one writes the manifests"] if finished.left else []
    if finished.files:
        then = [look_at(output / "index.html"), _next_step(output / "manifest.tsv", config)]
    results.finish(
        f"{done}; {finished.flagged} to look at" if finished.flagged else done,
        wrote=[output],
        then=then,
        document={
            "output": output,
            **counts,
            "failed": failed_scans(failed),
            "left": finished.left,
            "flagged": finished.flagged,
            "files": finished.files,
        },
    )


def _next_step(table: Path, config: Path | None) -> str:
    """Return the command that learns from the data set, or what its manifest lacks for that."""
    from halebrain.io.manifest import Manifest

    if not any(record.is_healthy for record in Manifest.read(table).split("train")):
        return (
            f'say in {table} who is "healthy" (pathology) and in which split, or prepare with --pathology and --split'
        )
    shipped = completion.shipped_configs("reconstructor")
    settings = config if config is not None and str(config) in shipped else "demo"
    return command_line("train", "reconstructor", "-c", settings, "--manifest", table, "-o", "runs/stage1")


def _with_pathology(manifest: "Manifest", pathology: str | None) -> "Manifest":
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
            pairs = [f"{key}={json.dumps(value)}" for key, value in asked.items()]
            settings = load_config(PreprocessingConfig, None, [*pairs, *overrides])
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
    from halebrain.core.config import merged
    from halebrain.data.datasets import read_source
    from halebrain.data.naming import records_of
    from halebrain.inference.cohort import find_scans
    from halebrain.io.manifest import Manifest
    from halebrain.io.manifest_sidecar import Origin

    if kind is None and (source / "dataset_description.json").is_file():
        kind = "bids"
    if kind is not None:
        values: dict[str, Any] = merged(*(_pair(text) for text in settings))
        found = read_source(kind, source, values)
        origin = Origin(source=kind, settings=values, problems=len(found.problems))
        return found.manifest, origin, found.problems
    if settings:
        raise UsageError(
            "--source-set goes with --source", received=settings[0], remedy="say which layout: --source folder"
        )
    if source.suffix in (".tsv", ".csv"):
        return Manifest.read(source), Origin(), ()
    scans = [(scan.image, scan.name) for scan in find_scans(source)]
    return Manifest(records_of(scans, modality=modality), source=source), Origin(), ()


def _report_problems(problems: Sequence[str], path: Path) -> None:
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


@dataclass(frozen=True)
class Finished:
    """What was written of the whole data set.

    Args:
        files: Manifests, table and page; empty where other parts are not there yet.
        left: Scans of other parts that are not there yet.
        flagged: Scans that somebody should look at.
    """

    files: tuple[Path, ...] = ()
    left: int = 0
    flagged: int = 0


def finish(
    output: Path,
    manifest: "Manifest",
    origin: "Origin",
    failures: dict[str, str],
    *,
    part: str,
    results: Results | None = None,
) -> Finished:
    """Write what concerns the whole data set, from the scans that are there, and tell its paths.

    Of several parts, only the one that finds all scans there (or failed) writes it.

    Args:
        output: The data set.
        manifest: All raw scans.
        origin: Where they came from.
        failures: Scan → reason, of this part.
        part: Added to the name of the list of failures.
        results: Where paths are told as they are written; `None` = on stdout.
    """
    from halebrain.core.atomic import write_text
    from halebrain.data.prepared_quality import quality_entries, write_quality_table
    from halebrain.data.prepared_set import read_entries, read_failures, write_manifests

    failed = output / f"failed{part}.tsv"
    if failures:
        rows = [f"{name}\t{failures[name]}" for name in sorted(failures)]
        write_text(failed, "\n".join(["scan\treason", *rows]) + "\n")
    else:
        failed.unlink(missing_ok=True)
    entries = read_entries(output)
    done = {entry.raw.scan_id for entry in entries} | set(read_failures(output))
    missing = [record.scan_id for record in manifest if record.scan_id not in done]
    if not entries:
        return Finished(left=len(missing))
    if missing:
        are = f"{counted(len(missing), 'scan')} {'is' if len(missing) == 1 else 'are'}"
        typer.echo(f"{are} left for other parts; the last one writes the manifests", err=True)
        return Finished(left=len(missing))
    results = results or Results("prepare")
    files = [*write_manifests(output, entries, manifest, origin), output / "qc.tsv", output / "index.html"]
    quality = quality_entries(entries)
    write_quality_table(quality, output / "qc.tsv")
    for path in files[:-1]:
        results.line(path)
    write_page(output, quality, read_failures(output))
    results.line(files[-1])
    flagged = sum(bool(scan.flags) for scan in quality)
    has = "has" if flagged == 1 else "have"
    typer.echo(f"{flagged} of {counted(len(quality), 'scan')} {has} something to look at", err=True)
    return Finished(tuple(files), flagged=flagged)


def write_page(output: Path, quality: "Sequence[QualityEntry]", failures: dict[str, str]) -> None:
    """Write `index.html`, with a picture of every scan; pictures are drawn once and kept in `figures/`."""
    from halebrain.core.atomic import atomic_path
    from halebrain.core.progress import track
    from halebrain.io.volume import read_array
    from halebrain.preprocessing.geometry import Grid
    from halebrain.preprocessing.template import template_on
    from halebrain.report.quality_page import QualityRow, write_quality_page
    from halebrain.report.quality_picture import quality_picture

    rows = []
    for scan in track(quality, description="Drawing", total=len(quality)):
        raw, files = scan.entry.raw, scan.entry.files
        path = output / "figures" / f"{raw.scan_id}.jpg"
        if not path.is_file() or path.stat().st_mtime < files.sidecar.stat().st_mtime:
            data, affine = read_array(files.image)
            template, _ = template_on(Grid((data.shape[0], data.shape[1], data.shape[2]), affine), scan.entry.atlas)
            picture = quality_picture(data, read_array(files.brain_mask)[0] > 0, template)
            with atomic_path(path) as temporary:
                temporary.write_bytes(picture)
        rows.append(QualityRow(raw.scan_id, raw.modality, scan.figures, scan.flags, path.read_bytes()))
    write_quality_page(rows, failures, output / "index.html")


def _split(manifest: "Manifest", origin: "Origin", text: str, seed: int) -> tuple["Manifest", "Origin"]:
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


def _pair(text: str) -> dict[str, Any]:
    from halebrain.core.config import parse_pair

    return parse_pair(text)
