"""`halebrain prepare`: from raw scans to a data set that is preprocessed, checked and split."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from halebrain.cli import completion, options
from halebrain.cli.results import Results, command_line, failed_scans, left_out_groups, look_at
from halebrain.core.shipped_configs import shipped_configs
from halebrain.core.wording import counted

if TYPE_CHECKING:
    from halebrain.workflows.prepare import PreparedScans


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
    from halebrain.workflows.prepare import PrepareSettings, prepare_dataset

    results = Results("prepare", as_json=as_json)
    settings = PrepareSettings(
        kind=kind,
        source_settings=tuple(source_settings or ()),
        config=config,
        overrides=tuple(overrides or ()),
        model=model,
        brain=brain,
        modality=modality,
        pathology=pathology,
        split=split,
        seed=seed,
        workers=workers,
        threads=threads,
        part_id=part_id,
        num_parts=num_parts,
        overwrite=overwrite,
        notify=options.echo_message,
    )
    done = prepare_dataset(source, output, settings, done=results.line)
    _tell(results, output, done, config)
    done.failures.refuse(
        "every scan should be prepared",
        done.n_scans,
        where=output / f"failed{settings.part}.tsv",
        remedy="fix the problem in each line, then run the same command again; it prepares only those scans",
    )


def _tell(results: Results, output: Path, done: "PreparedScans", config: Path | None) -> None:
    """Print the closing summary: number of prepared scans, paths and next step."""
    finished = done.finished
    then: list[str] = []
    if finished.files:
        has = "has" if finished.flagged == 1 else "have"
        typer.echo(f"{finished.flagged} of {counted(finished.n_entries, 'scan')} {has} quality flags", err=True)
        then = [look_at(output / "index.html"), _next_step(output / "manifest.tsv", config)]
    elif finished.left and finished.n_entries:
        are = f"{counted(finished.left, 'scan')} {'is' if finished.left == 1 else 'are'}"
        typer.echo(f"{are} left for other parts; the last part writes the manifests", err=True)
    if finished.left:
        then = ["run the remaining parts; the last one writes the manifests"]
    said = f"{len(done.outcomes)} of {counted(done.n_scans, 'scan')} prepared, {done.n_kept} of them before"
    typer.echo(said, err=True)
    results.finish(
        f"{said}; {finished.flagged} flagged" if finished.flagged else said,
        wrote=[output],
        then=then,
        document={
            "output": output,
            "scans": done.n_scans,
            "left_out": left_out_groups(done.left_out),
            "prepared": len(done.outcomes),
            "kept": done.n_kept,
            "problems": list(done.problems),
            "failed": failed_scans(done.failures.reasons),
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
    shipped = shipped_configs("reconstructor")
    settings = config if config is not None and str(config) in shipped else "demo"
    return command_line("train", "reconstructor", "-c", settings, "--manifest", table, "-o", "runs/stage1")
