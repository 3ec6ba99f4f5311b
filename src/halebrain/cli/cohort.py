"""`halebrain cohort`: make the virtual cohort."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from halebrain.cli import completion, options
from halebrain.cli.results import Results, command_line
from halebrain.core.wording import counted


class Variety(StrEnum):
    """How much scans vary."""

    usual = "usual"
    wide = "wide"


def cohort(
    output: options.Output,
    subjects: Annotated[int, typer.Option("--subjects", min=0, help="Healthy subjects.")] = 20,
    patients: Annotated[int, typer.Option("--patients", min=0, help="Patients per pathology.")] = 5,
    modality: Annotated[
        list[str] | None,
        typer.Option(
            "--modality",
            autocompletion=completion.among(*completion.MODALITIES, "random"),
            help="T1w, T2w, FLAIR, random (synthetic contrast).",
        ),
    ] = None,
    pathology: Annotated[
        list[str] | None,
        typer.Option(
            "--pathology",
            autocompletion=completion.among(*completion.PATHOLOGIES),
            help="ms, stroke, tumour, wmh (the default), cavity, haemorrhage, mass.",
        ),
    ] = None,
    seed: options.Seed = 0,
    spacing_mm: Annotated[float, typer.Option("--spacing-mm", min=1.0, max=4.0, help="Voxel size in mm.")] = 2.0,
    labels: Annotated[
        Path | None, typer.Option("--labels", help="Folder of label maps (FreeSurfer, SynthSeg) as anatomies.")
    ] = None,
    t1: Annotated[
        Path | None, typer.Option("--t1", help="Healthy T1 scans as anatomies: a folder or a manifest.")
    ] = None,
    variety: Annotated[
        Variety,
        typer.Option("--variety", help="wide: many scanners, artefacts, imperfect stripping."),
    ] = Variety.usual,
    prefix: Annotated[
        str, typer.Option("--prefix", help="Prefix of subject labels, for other subjects than those of another cohort.")
    ] = "",
    workers: Annotated[
        int, typer.Option("--workers", min=0, help="Number of processes, one thread each; 0 = the main process.")
    ] = 0,
    threads: options.Threads = None,
    overwrite: options.Overwrite = False,
    no_progress: options.NoProgress = False,
    as_json: options.Json = False,
) -> None:
    """Make a virtual cohort: healthy brains and patients with exact ground truth. Prints the manifest's path."""
    options.set_up(threads=threads, no_progress=no_progress)
    from halebrain.data.datasets import bids_manifest
    from halebrain.io.discovery import is_bids
    from halebrain.report.figures import cohort_montage, save_figure
    from halebrain.simulation.anatomy_source import gather_anatomies
    from halebrain.simulation.config import CohortConfig, grid_shape
    from halebrain.simulation.generate import ANATOMIES, clear_cohort, generate_cohort

    default = CohortConfig()
    if overwrite:
        clear_cohort(output)
    anatomies: tuple[str, ...] = ()
    for kind, place in (("labels", labels), ("t1", t1)):
        if place is not None:
            shape = grid_shape(spacing_mm)
            scans = bids_manifest(place) if kind == "t1" and is_bids(place) else place
            anatomies += gather_anatomies(kind, scans, output / ANATOMIES, shape=shape, spacing_mm=spacing_mm)
    config = CohortConfig(
        healthy=subjects,
        patients=patients,
        modalities=tuple(modality or default.modalities),
        pathologies=tuple(pathology or default.pathologies),
        seed=seed,
        spacing_mm=spacing_mm,
        anatomies=anatomies,
        variety=variety.value,
        prefix=prefix,
    )
    manifest = generate_cohort(output, config, workers=workers)
    save_figure(cohort_montage(manifest), output / "montage.png")
    results = Results("cohort", as_json=as_json)
    path, montage = output / "manifest.tsv", output / "montage.png"
    results.line(path)
    people = counted(len(manifest.subjects()), "virtual subject")
    results.finish(
        f"{people}, {counted(len(manifest), 'scan')}; overview: {montage}",
        wrote=[output],
        then=[command_line("train", "reconstructor", "-c", "demo", "--manifest", path, "-o", "runs/stage1")],
        document={
            "output": output,
            "manifest": path,
            "montage": montage,
            "subjects": manifest.subjects(),
            "scans": len(manifest),
        },
    )
