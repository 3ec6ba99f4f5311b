"""`halebrain detect`: from scans to anomaly maps."""

import io
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from halebrain.cli import options
from halebrain.core.errors import CannotWriteError, HalebrainError, PartialFailureError

if TYPE_CHECKING:
    from halebrain.core.types import ScanResult, Volume
    from halebrain.inference.cohort import ScanInput
    from halebrain.inference.outputs import OutputNames
    from halebrain.inference.predictor import Predictor, WorkingMaps
    from halebrain.preprocessing.pipeline import WorkingScan


def detect(
    source: Annotated[
        Path,
        typer.Option(
            "--input",
            "-i",
            help="A scan (NIfTI, .hdr/.img, MGH, DICOM folder or archive), a folder, BIDS, a .txt list, or a manifest.",
        ),
    ],
    output: options.Output,
    model: options.ModelPath,
    brain_mask: Annotated[
        Path | None,
        typer.Option("--brain-mask", help="Brain mask on the scan's grid; without it the brain is found."),
    ] = None,
    brain: Annotated[
        str,
        typer.Option(
            "--brain",
            help="How: auto (stripped scans as they are, else the best at hand), stripped, synthstrip, hdbet or atlas.",
        ),
    ] = "auto",
    threshold: Annotated[
        str, typer.Option("--threshold", help="auto, a number, or a stored name (fpr:0.01).")
    ] = "auto",
    min_lesion_mm3: options.MinLesion = None,
    seed: options.Seed = 0,
    draws: Annotated[int, typer.Option("--draws", min=1, help="Noise draws at each level.")] = 1,
    batch_size: options.BatchSize = 16,
    device: options.Device = "auto",
    threads: options.Threads = None,
    overwrite: options.Overwrite = False,
    no_progress: options.NoProgress = False,
) -> None:
    """Find what is abnormal in a scan: anomaly map, mask, pseudo-healthy scan, lesion table, a page with a viewer."""
    options.set_up(threads=threads, no_progress=no_progress)
    from halebrain.cli.pages import write_index
    from halebrain.core.progress import track
    from halebrain.evaluation.threshold import select_threshold
    from halebrain.inference.cohort import find_scans
    from halebrain.inference.predictor import Predictor
    from halebrain.models.bundle import load_bundle
    from halebrain.models.store import find_model

    scans = find_scans(source, brain_mask=brain_mask)
    bundle = load_bundle(find_model(model))
    value, name = select_threshold(options.read_calibration(bundle), threshold)
    where = options.find_device(device)
    predictor = Predictor(bundle, device=where, seed=seed, draws=draws, batch_size=batch_size, brain=brain)
    smallest = predictor.postprocessing.min_lesion_mm3 if min_lesion_mm3 is None else min_lesion_mm3
    choice = {"value": value, "name": name, "min_lesion_mm3": smallest}
    single = len(scans) == 1 and (scans[0].image == source or not source.is_dir())
    failed: list[tuple[str, HalebrainError]] = []
    for scan in track(scans, description="Detecting", total=len(scans)):
        folder = output if single else output / scan.name
        try:
            typer.echo(detect_scan(predictor, scan, folder, threshold=choice, overwrite=overwrite))
        except HalebrainError as error:
            if single:
                raise
            typer.echo(f"halebrain: {scan.name}: {error}", err=True)
            failed.append((scan.name, error))
    if not single:
        write_index(output, [scan.name for scan in scans], {name: str(error) for name, error in failed})
    if failed:
        names = ", ".join(name for name, _ in failed)
        raise PartialFailureError(
            "every scan should be looked at", received=f"{len(failed)} of {len(scans)} that failed: {names}"
        )


def detect_scan(
    predictor: "Predictor", scan: "ScanInput", folder: Path, *, threshold: dict[str, Any], overwrite: bool
) -> Path:
    """Run one scan and write its files; a scan that is done already with the same settings is left as it is.

    Args:
        predictor: The model.
        scan: What to look at.
        folder: Where its files go.
        threshold: "value", "name" and "min_lesion_mm3".
        overwrite: Replace results made otherwise.

    Returns:
        The folder.

    Raises:
        CannotWriteError: There are results made with other settings.
    """
    import json

    from halebrain.core.versions import versions
    from halebrain.inference.outputs import OutputNames
    from halebrain.io.checksum import scan_sha256
    from halebrain.io.volume import read_volume
    from halebrain.preprocessing.prepared import open_scan

    names = OutputNames(folder, scan.name)
    volume = read_volume(scan.image)
    asked = {
        "input": scan.image.name or scan.name,
        "input_sha256": scan_sha256(scan.image),
        "brain_mask_sha256": None if scan.brain_mask is None else scan_sha256(scan.brain_mask),
        "brain": predictor.preprocessor.config.brain,
        "model_sha256": predictor.bundle.sha256,
        "threshold": threshold,
        "seed": predictor.seed,
        "draws": predictor.draws,
        "levels": list(predictor.levels),
        "precision": predictor.precision,
    }
    if names.provenance.exists() and not overwrite:
        done = json.loads(names.provenance.read_text(encoding="utf-8"))
        if all(done.get(key) == value for key, value in asked.items()):
            return folder
        raise CannotWriteError("results made otherwise are there", where=folder, remedy="choose another or --overwrite")
    start = time.perf_counter()
    working = open_scan(predictor.preprocessor, volume, scan.image, brain_mask=scan.brain_mask, space=scan.space)
    for note in volume.notes:
        typer.echo(f"halebrain: warning: {scan.name}: {note}", err=True)
    result, working, maps = predictor.predict_scan(volume, working)
    about = {"input_notes": list(volume.notes), "versions": versions(), "device": str(predictor.device)}
    about |= {"scan": names.stem, "space": predictor.preprocessor.config.space, "method": predictor.method()}
    _finish(names, volume, result, working, maps, asked | about, start)
    return folder


def _finish(
    names: "OutputNames",
    volume: "Volume",
    result: "ScanResult",
    working: "WorkingScan",
    maps: "WorkingMaps",
    provenance: dict[str, Any],
    start: float,
) -> None:
    from halebrain.cli.pages import has_regions, page_files
    from halebrain.inference.lesions import lesion_table
    from halebrain.inference.outputs import write_detection
    from halebrain.inference.postprocess import to_mask

    threshold = provenance["threshold"]
    mask = result.brain_mask & to_mask(
        result.score,
        threshold=threshold["value"],
        min_lesion_mm3=threshold["min_lesion_mm3"],
        voxel_mm3=working.native.voxel_mm3,
    )
    provenance |= {"qc": result.qc, "template_to_native": working.template_to_native.tolist()}
    regions = has_regions(provenance)
    lesions = lesion_table(mask, result.score, result.affine, working.template_to_native, regions=regions)
    figure = scan_mosaic(working, maps, threshold=threshold["value"], title=names.stem)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110, facecolor=figure.get_facecolor(), metadata={"Software": None})
    provenance |= {
        "steps": working.steps,
        "n_lesions": len(lesions),
        "lesion_volume_ml": round(sum(lesion.volume_ml for lesion in lesions), 3),
        "seconds": round(time.perf_counter() - start, 2),
        "notice": "Research use only. Not a medical device.",
    }
    pages = page_files(names, volume, result, mask, lesions, provenance, mosaic=picture.getvalue())
    write_detection(names, result, mask, lesions, provenance, pages)
    for flag in result.qc["flags"]:
        typer.echo(f"halebrain: warning: {names.stem}: {flag}", err=True)


def scan_mosaic(working: "WorkingScan", maps: "WorkingMaps", *, threshold: float, title: str, truth: Any = None) -> Any:
    """Return the picture of one scan: input, pseudo-healthy, residual, probability, score, and the truth if known."""
    from halebrain.report.figures import Panel, choose_slices, mosaic

    found = (maps.score >= threshold) & working.brain_mask
    residual = (working.image - maps.reconstruction) * working.brain_mask
    panels = [
        Panel("input", working.image, vmax=1.0),
        Panel("pseudo-healthy", maps.reconstruction, vmax=1.0),
        Panel("input − pseudo-healthy", residual, "residual", vmax=0.5),
        Panel("segmenter probability", maps.probability, "score"),
        Panel("anomaly score", maps.score, "score", vmax=max(2 * threshold, 0.2)),
        Panel("found", working.image, outline=found, vmax=1.0),
    ]
    if truth is not None:
        panels.append(Panel("truth", working.image, outline=truth, vmax=1.0))
    # With the truth at hand its largest slices are shown, so that misses are seen too.
    weight = truth.astype(float) if truth is not None and truth.any() else maps.score * found
    slices = choose_slices(working.brain_mask, weight if weight.any() else None)
    return mosaic(panels, slices=slices, title=title, note=f"Outlined where the score is at least {threshold:.3f}.")
