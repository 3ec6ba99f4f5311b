"""`halebrain prepare`: from raw scans to a data set that is preprocessed, checked and split."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from halebrain.cli import completion, options
from halebrain.cli.results import Results, command_line, failed_scans, look_at, tell_left_out
from halebrain.core.errors import UsageError
from halebrain.core.wording import counted

if TYPE_CHECKING:
    from halebrain.cli.prepare_finish import Finished


def prepare(
    context: typer.Context,
    source: Annotated[
        Path, typer.Option("--input", "-i", help="Raw scans: a folder, BIDS, DICOM, a list, a manifest, or a data set.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Output data set, new or existing.")],
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
            help="YAML file of preprocessing settings, or the name of a training configuration: paper, demo, general.",
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
    brain: Annotated[str | None, typer.Option("--brain", help="Brain extraction: auto, stripped, atlas, …")] = None,
    modality: Annotated[
        str | None,
        typer.Option(
            "--modality",
            autocompletion=completion.among(*completion.MODALITIES),
            help="Only scans of this contrast; also the contrast of scans whose names do not state it.",
        ),
    ] = None,
    pathology: Annotated[
        str | None,
        typer.Option("--pathology", help="Pathology of scans without one in the input: healthy, or a disease."),
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Fractions of subjects in train,val,test: 0.7,0.1,0.2.")
    ] = None,
    seed: options.Seed = 0,
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Number of scans in parallel, one process each.")
    ] = 1,
    threads: Annotated[int, typer.Option("--threads", min=1, help="CPU threads per process.")] = 1,
    part_id: Annotated[int, typer.Option("--part-id", min=0, help="Index of this part, from 0.")] = 0,
    num_parts: Annotated[
        int, typer.Option("--num-parts", min=1, help="Number of parts that the scans are divided into.")
    ] = 1,
    overwrite: options.Overwrite = False,
    no_progress: options.NoProgress = False,
    as_json: options.Json = False,
) -> None:
    """Preprocess raw scans into a data set with manifests and quality control. Resumes if run again."""
    options.set_up(no_progress=no_progress)
    if split is None:
        rule = "assigns subjects to the splits of --split, and has no effect without it"
        options.refuse_without_effect(
            context, ("seed",), rule, received="--seed alone", remedy="give --split, or remove it"
        )
    if part_id >= num_parts:
        raise UsageError(
            "--part-id must be from 0 to --num-parts − 1",
            received=f"{part_id} of {num_parts}",
            remedy="for example --num-parts 4 --part-id 0, 1, 2 and 3",
        )
    if output.resolve().is_relative_to(source.resolve()):
        raise UsageError("a data set must not lie in the folder of its raw scans", where=output, remedy="move --output")
    from halebrain.cli.prepare_finish import finish
    from halebrain.cli.preparing import (
        read_preprocessing,
        read_raw,
        report_problems,
        run_tasks,
        split_subjects,
        with_pathology,
    )
    from halebrain.data.prepare import PrepareTask
    from halebrain.data.prepared_set import write_description

    settings = read_preprocessing(config, overrides or [], model, brain)
    raw = read_raw(source, kind, source_settings or [], modality)
    manifest, origin = with_pathology(raw.manifest, pathology), raw.origin
    left_out = tell_left_out(raw.left_out)
    if split is not None:
        manifest, origin = split_subjects(manifest, origin, split, seed)
    write_description(output)
    report_problems(raw.problems, output / "problems.txt")
    tasks = [
        PrepareTask(record, output, settings, overwrite)
        for record in sorted(manifest.records, key=lambda record: record.scan_id)[part_id::num_parts]
    ]
    broken = dict(sorted(raw.failed.items())[part_id::num_parts])
    for name, reason in broken.items():
        typer.echo(f"halebrain: {name}: {reason}", err=True)
    outcomes, failures = run_tasks(tasks, workers=workers, threads=threads)
    failures.reasons.update(broken)
    part = "" if num_parts == 1 else f"-{part_id}of{num_parts}"
    results = Results("prepare", as_json=as_json)
    finished = finish(output, manifest, origin, failures.reasons, part=part, results=results)
    kept = sum(outcome.kept for outcome in outcomes)
    asked = len(tasks) + len(broken)
    typer.echo(f"{len(outcomes)} of {counted(asked, 'scan')} prepared, {kept} of them before", err=True)
    counts = {
        "scans": asked,
        "left_out": left_out,
        "prepared": len(outcomes),
        "kept": kept,
        "problems": list(raw.problems),
    }
    _tell(results, output, finished, counts, failures.reasons, config)
    failures.refuse(
        "every scan should be prepared",
        asked,
        where=output / f"failed{part}.tsv",
        remedy="fix the problem in each line, then run the same command again; it prepares only those scans",
    )


def _tell(
    results: Results,
    output: Path,
    finished: "Finished",
    counts: dict[str, Any],
    failed: dict[str, str],
    config: Path | None,
) -> None:
    """Print the closing summary: number of prepared scans, paths and next step."""
    done = f"{counts['prepared']} of {counted(counts['scans'], 'scan')} prepared, {counts['kept']} of them before"
    then = ["run the remaining parts; the last one writes the manifests"] if finished.left else []
    if finished.files:
        then = [look_at(output / "index.html"), _next_step(output / "manifest.tsv", config)]
    results.finish(
        f"{done}; {finished.flagged} flagged" if finished.flagged else done,
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
        return f'state in {table} the split and who is "healthy" (pathology), or prepare with --pathology and --split'
    shipped = completion.shipped_configs("reconstructor")
    settings = config if config is not None and str(config) in shipped else "demo"
    return command_line("train", "reconstructor", "-c", settings, "--manifest", table, "-o", "runs/stage1")
