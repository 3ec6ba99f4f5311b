"""`halebrain detect`: from scans to anomaly maps."""

import io
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from halebrain.cli import options
from halebrain.core.errors import CannotWriteError, HalebrainError, PartialFailureError

if TYPE_CHECKING:
    from halebrain.core.types import Volume
    from halebrain.decision.choice import MaskChoice
    from halebrain.decision.modality import ScanModality
    from halebrain.inference.cohort import ScanInput
    from halebrain.inference.detection import Detection
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
    model: options.ModelPath = None,
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
        str, typer.Option("--threshold", help="auto, a number, or a stored name (ml:1, fpr:0.01).")
    ] = "auto",
    modality: Annotated[
        str,
        typer.Option(
            "--modality", help="auto (manifest, file name, else the image's own contrast), T1w, T2w or FLAIR."
        ),
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
    from halebrain.decision.choice import MaskChoice
    from halebrain.decision.modality import check_modality
    from halebrain.evaluation.threshold import OperatingPoint
    from halebrain.inference.cohort import find_scans
    from halebrain.inference.detection import smallest_lesion_mm3
    from halebrain.inference.predictor import Predictor
    from halebrain.models.store import load_model

    scans = find_scans(source, brain_mask=brain_mask)
    bundle = load_model(model)
    point = OperatingPoint(options.read_calibration(bundle), threshold)
    check_modality(modality, point.calibration)
    where = options.find_device(device)
    predictor = Predictor(bundle, device=where, seed=seed, draws=draws, batch_size=batch_size, brain=brain)
    choice = MaskChoice(point, smallest_lesion_mm3(predictor, min_lesion_mm3), modality)
    single = len(scans) == 1 and (scans[0].image == source or not source.is_dir())
    failed: list[tuple[str, HalebrainError]] = []
    for scan in track(scans, description="Detecting", total=len(scans)):
        folder = output if single else output / scan.name
        try:
            typer.echo(detect_scan(predictor, scan, folder, choice=choice, overwrite=overwrite))
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
    predictor: "Predictor", scan: "ScanInput", folder: Path, *, choice: "MaskChoice", overwrite: bool
) -> Path:
    """Run one scan and write its files; a scan that is done already with the same settings is left as it is.

    Args:
        predictor: The model.
        scan: What to look at.
        folder: Where its files go.
        choice: Threshold, smallest lesion and modality.
        overwrite: Replace results made otherwise.

    Returns:
        The folder.

    Raises:
        CannotWriteError: There are results made with other settings.
    """
    import json

    from halebrain.core.versions import versions
    from halebrain.decision.modality import said_modality, seen_modality
    from halebrain.evaluation.scan_level import working_scan_score
    from halebrain.inference.detection import detect_anomalies, predictor_settings, template_and_method
    from halebrain.inference.outputs import OutputNames
    from halebrain.io.checksum import scan_sha256
    from halebrain.io.volume import read_volume
    from halebrain.preprocessing.out_of_distribution import judge_name
    from halebrain.preprocessing.prepared import open_scan

    names = OutputNames(folder, scan.name)
    volume = read_volume(scan.image)
    asked: dict[str, Any] = {
        "input": scan.image.name or scan.name,
        "input_sha256": scan_sha256(scan.image),
        "brain_mask_sha256": None if scan.brain_mask is None else scan_sha256(scan.brain_mask),
        **predictor_settings(predictor),
    }
    modality = said_modality(choice.modality, scan)
    if names.provenance.exists() and not overwrite:
        done = json.loads(names.provenance.read_text(encoding="utf-8"))
        # The same scan shows the same contrast, so there is no need to look at it again.
        if _is_same(done, asked, choice, modality or seen_modality(done.get("qc", {}))):
            return folder
        raise CannotWriteError("results made otherwise are there", where=folder, remedy="choose another or --overwrite")
    start = time.perf_counter()
    working = open_scan(predictor.preprocessor, volume, scan.image, brain_mask=scan.brain_mask, space=scan.space)
    judge_name(working.qc, None if modality is None else modality.name)
    for note in volume.notes:
        typer.echo(f"halebrain: warning: {scan.name}: {note}", err=True)
    modality = modality or seen_modality(working.qc)
    threshold = choice.threshold(modality)
    found = detect_anomalies(
        predictor, volume, working, threshold=threshold["value"], min_lesion_mm3=choice.min_lesion_mm3
    )
    score = working_scan_score(found.maps.score, found.scan.brain_mask, found.scan.grid.spacing_mm)
    asked |= {"threshold": threshold} | choice.scan_level(modality, score)
    about = {"input_notes": list(volume.notes), "versions": versions(), "device": str(predictor.device)}
    about |= {"scan": names.stem} | template_and_method(predictor)
    _finish(names, volume, found, asked | about, start)
    return folder


def _is_same(done: dict[str, Any], asked: dict[str, Any], choice: "MaskChoice", modality: "ScanModality") -> bool:
    """Return whether results were made with these settings; older ones say less of them, and that counts."""
    threshold, stated = choice.threshold(modality), done.get("threshold", {})
    if any(stated.get(key) != threshold[key] for key in ("value", "name", "min_lesion_mm3")):
        return False
    now = asked | {f"threshold.{key}": value for key, value in threshold.items() if key in stated}
    then = done | {f"threshold.{key}": value for key, value in stated.items()}
    if "scan_score" in done:  # a model calibrated anew may place it otherwise
        now |= choice.scan_level(modality, done["scan_score"])
    return all(then.get(key) == value for key, value in now.items())


def _finish(
    names: "OutputNames", volume: "Volume", found: "Detection", provenance: dict[str, Any], start: float
) -> None:
    from halebrain.cli.pages import page_files
    from halebrain.inference.outputs import write_detection

    threshold = provenance["threshold"]
    figure = scan_mosaic(
        found.scan, found.maps, threshold=threshold["value"], title=names.stem, called=threshold["name"]
    )
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110, facecolor=figure.get_facecolor(), metadata={"Software": None})
    provenance |= found.provenance() | {"seconds": round(time.perf_counter() - start, 2)}
    result, mask, lesions = found.result, found.mask, found.lesions
    pages = page_files(names, volume, result, mask, lesions, provenance, mosaic=picture.getvalue())
    write_detection(names, result, mask, lesions, provenance, pages)
    for flag in result.qc["flags"]:
        typer.echo(f"halebrain: warning: {names.stem}: {flag}", err=True)


def scan_mosaic(
    working: "WorkingScan",
    maps: "WorkingMaps",
    *,
    threshold: float,
    title: str,
    truth: Any = None,
    called: str | None = None,
) -> Any:
    """Return the picture of one scan: input, pseudo-healthy, residual, probability, score, and the truth if known.

    Args:
        working: The scan.
        maps: What the model says of it.
        threshold: Outlined is what reaches it.
        title: Above the picture.
        truth: Annotated lesion on the working grid.
        called: Name of the threshold, for the note below.
    """
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
    name = f" ({called})" if called else ""
    note = f"Outlined where the score is at least {threshold:.3f}{name}."
    return mosaic(panels, slices=slices, title=title, note=note)
