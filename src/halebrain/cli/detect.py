"""`halebrain detect`: from scans to anomaly maps."""

import io
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from halebrain.cli import completion, options
from halebrain.cli.results import Results, command_line, failed_scans, look_at
from halebrain.core.errors import CannotWriteError, HalebrainError, PartialFailureError
from halebrain.core.wording import counted

if TYPE_CHECKING:
    from halebrain.cli.scan_steps import ScanSteps
    from halebrain.core.types import MaskArray, ScanResult, Volume
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
            autocompletion=completion.among(*completion.BRAINS),
            help="How: auto (stripped scans as they are, else the best at hand), stripped, synthstrip, hdbet or atlas.",
        ),
    ] = "auto",
    threshold: Annotated[
        str, typer.Option("--threshold", help="auto, a number, or a stored name (ml:1, fpr:0.01).")
    ] = "auto",
    modality: Annotated[
        str,
        typer.Option(
            "--modality",
            autocompletion=completion.among("auto", *completion.MODALITIES),
            help="auto (manifest, file name, else the image's own contrast), T1w, T2w or FLAIR.",
        ),
    ] = "auto",
    min_lesion_mm3: options.MinLesion = None,
    seed: options.Seed = 0,
    draws: Annotated[int, typer.Option("--draws", min=1, help="Noise draws at each level.")] = 1,
    batch_size: options.BatchSize = 16,
    device: options.Device = "auto",
    dicom_seg: Annotated[
        bool,
        typer.Option("--dicom-seg", help="Write the mask of DICOM scans as DICOM-SEG too (needs the extra dicom)."),
    ] = False,
    threads: options.Threads = None,
    overwrite: options.Overwrite = False,
    no_progress: options.NoProgress = False,
    as_json: options.Json = False,
) -> None:
    """Find what is abnormal in a scan: anomaly map, mask, pseudo-healthy scan, lesion table, a page with a viewer."""
    options.set_up(threads=threads, no_progress=no_progress)
    from halebrain.cli.found import found_scan
    from halebrain.cli.pages import write_index
    from halebrain.cli.scan_steps import each_scan
    from halebrain.inference.cohort import find_scans
    from halebrain.io.bids_derivative import begin_derivative
    from halebrain.io.bids_participants import write_participants

    results = Results("detect", as_json=as_json)
    scans = find_scans(source, brain_mask=brain_mask)
    if dicom_seg:
        options.check_dicom_out([scan.image for scan in scans])
    predictor, choice = load_predictor(
        *(model, threshold, modality, min_lesion_mm3, device),
        seed=seed,
        draws=draws,
        batch_size=batch_size,
        brain=brain,
    )
    if scans[0].in_dataset is not None:
        begin_derivative(output, source)
    single = len(scans) == 1 and (scans[0].image == source or not source.is_dir())
    failed: list[tuple[str, HalebrainError]] = []
    found: list[dict[str, Any]] = []
    how: dict[str, Any] = {"choice": choice, "overwrite": overwrite, "dicom_seg": dicom_seg}
    for scan, steps in each_scan(scans, predictor):
        folder = output if single else output / (scan.name if scan.in_dataset is None else scan.in_dataset.parent)
        try:
            done = detect_scan(predictor, scan, folder, **how, steps=steps)
            results.line(done)
            found.append(found_scan(done, scan.name))
        except HalebrainError as error:
            if single:
                raise
            typer.echo(f"halebrain: {scan.name}: {error}", err=True)
            failed.append((scan.name, error))
    reasons = {name: str(error) for name, error in failed}
    if scans[0].in_dataset is not None:
        write_participants(output, source)
    index = None if single else write_index(output, [scan.name for scan in scans], reasons)
    _tell(results, output, found, reasons, index)
    if failed:
        raise PartialFailureError(
            "every scan should be looked at",
            received=f"{len(failed)} of {len(scans)} that failed: {', '.join(reasons)}",
            where=output / "failed.tsv",
            remedy="mend what each line says; the same command then looks at those only",
        )


def _tell(
    results: Results, output: Path, found: list[dict[str, Any]], failed: dict[str, str], index: Path | None
) -> None:
    """Close with what was found, where it is and what to do with it."""
    from halebrain.cli.found import summed_up

    pages = [look_at(index if index is not None else scan["report"]) for scan in found[:1]]
    if pages and index is not None:
        pages.append(f"{command_line('view', output)}   (the same pages, to accept or reject findings)")
    again = command_line("report", output, "--threshold", "VALUE")
    results.finish(
        summed_up(found) + (f"; {counted(len(failed), 'scan')} failed" if failed else ""),
        wrote=[output],
        then=[*pages, f"{again}   (another threshold, without a network)"] if found else (),
        document={"output": output, "index": index, "scans": found, "failed": failed_scans(failed)},
    )


def load_predictor(
    model: Path | None, threshold: str, modality: str, min_lesion_mm3: float | None, device: str, **settings: Any
) -> tuple["Predictor", "MaskChoice"]:
    """Return a model that is ready to look at scans, and the choice of its mask.

    Args:
        model: Path or name; `None` = the default model.
        threshold: "auto", a number, or a stored name.
        modality: "auto", or that of every scan.
        min_lesion_mm3: Smallest lesion kept; `None` = the model's own.
        device: Name of the device.
        settings: More of `Predictor`: seed, draws, batch_size, brain.
    """
    from halebrain.decision.choice import MaskChoice
    from halebrain.decision.modality import check_modality
    from halebrain.evaluation.threshold import OperatingPoint
    from halebrain.inference.detection import smallest_lesion_mm3
    from halebrain.inference.predictor import Predictor
    from halebrain.models.store import load_model

    bundle = load_model(model)
    point = OperatingPoint(options.read_calibration(bundle), threshold)
    check_modality(modality, point.calibration)
    predictor = Predictor(bundle, device=options.find_device(device), **settings)
    return predictor, MaskChoice(point, smallest_lesion_mm3(predictor, min_lesion_mm3), modality)


def detect_scan(
    predictor: "Predictor",
    scan: "ScanInput",
    folder: Path,
    *,
    choice: "MaskChoice",
    overwrite: bool,
    dicom_seg: bool = False,
    steps: "ScanSteps | None" = None,
) -> Path:
    """Run one scan and write its files; a scan that is done already with the same settings is left as it is.

    Args:
        predictor: The model.
        scan: What to look at.
        folder: Where its files go.
        choice: Threshold, smallest lesion and modality.
        overwrite: Replace results made otherwise.
        dicom_seg: Write the mask as DICOM-SEG too.
        steps: Told what begins; `None` = nobody waits for it.

    Returns:
        The folder.

    Raises:
        CannotWriteError: There are results made with other settings.
    """
    from halebrain.cli.scan_steps import NETWORKS, PAGE, ScanSteps
    from halebrain.decision.modality import flag_limits, said_modality, seen_modality
    from halebrain.evaluation.scan_level import working_scan_score
    from halebrain.inference.detection import detect_anomalies
    from halebrain.inference.outputs import OutputNames
    from halebrain.io.dicom.segmentation import check_source
    from halebrain.io.volume import read_volume
    from halebrain.preprocessing.out_of_distribution import judge_name
    from halebrain.preprocessing.prepared import open_scan

    names = OutputNames(folder, scan.name)
    steps = steps or ScanSteps()
    volume = read_volume(scan.image)
    asked = _asked(predictor, scan, dicom_seg=dicom_seg)
    modality = said_modality(choice.modality, scan)
    if names.provenance.exists() and not overwrite and _is_done(names, asked, choice, modality):
        return folder
    if dicom_seg:
        check_source(scan.image)  # refused now, not after the networks have run
    start = time.perf_counter()
    given: dict[str, Any] = {"brain_mask": scan.brain_mask, "space": scan.space}
    working = open_scan(predictor.preprocessor, volume, scan.image, **given, begin=steps.begin)
    judge_name(working.qc, None if modality is None else modality.name)
    for note in volume.notes:
        typer.echo(f"halebrain: warning: {scan.name}: {note}", err=True)
    modality = modality or seen_modality(working.qc)
    flag_limits(working.qc, predictor.bundle.limits, modality)
    threshold = choice.threshold(modality)
    called = {"threshold": threshold["value"], "min_lesion_mm3": choice.min_lesion_mm3}
    steps.begin(NETWORKS)
    found = detect_anomalies(predictor, volume, working, **called, modality=modality.name, progress=steps.one_pass)
    steps.begin(PAGE)
    score = working_scan_score(found.maps.score, found.scan.brain_mask, found.scan.grid.spacing_mm)
    asked |= {"threshold": threshold} | choice.scan_level(modality, score)
    about = {"scan": names.stem, "input_notes": list(volume.notes)} | _about(predictor, scan)
    _finish(names, volume, found, asked | about, start, scan.image)
    return folder


def _asked(predictor: "Predictor", scan: "ScanInput", *, dicom_seg: bool) -> dict[str, Any]:
    """Return what must be the same for results to be those of an earlier run, beside the threshold."""
    from halebrain.inference.detection import predictor_settings
    from halebrain.io.checksum import scan_sha256

    asked = {
        "input": scan.image.name or scan.name,
        "input_sha256": scan_sha256(scan.image),
        "brain_mask_sha256": None if scan.brain_mask is None else scan_sha256(scan.brain_mask),
        **predictor_settings(predictor),
    }
    return asked | {"dicom_seg": True} if dicom_seg else asked


def _about(predictor: "Predictor", scan: "ScanInput") -> dict[str, Any]:
    """Return what else a provenance says of how results were made."""
    from halebrain.core.versions import versions
    from halebrain.inference.detection import template_and_method

    return {
        "versions": versions(),
        "device": str(predictor.device),
        "model": predictor.bundle.name,
        "input_in_dataset": scan.in_dataset and scan.in_dataset.as_posix(),
        **template_and_method(predictor),
    }


def _is_done(
    names: "OutputNames", asked: dict[str, Any], choice: "MaskChoice", modality: "ScanModality | None"
) -> bool:
    """Return whether the files of an earlier run with these settings are all there.

    Raises:
        CannotWriteError: They were made with other settings.
    """
    import json

    from halebrain.decision.modality import seen_modality

    done = json.loads(names.provenance.read_text(encoding="utf-8"))
    # The same scan shows the same contrast, so there is no need to look at it again.
    if not _is_same(done, asked, choice, modality or seen_modality(done.get("qc", {}))):
        raise CannotWriteError(
            "results made otherwise are there", where=names.folder, remedy="choose another or --overwrite"
        )
    promised = [names.page, names.file("anomaly", "lesions", ".tsv")]
    promised += [names.file("anomaly", suffix) for suffix in ("probseg", "mask")]
    promised += [names.segmentation] if asked.get("dicom_seg") else []
    lost = [path.name for path in promised if not path.exists()]
    if lost:
        typer.echo(f"halebrain: {names.stem}: made again, as {', '.join(lost)} is gone", err=True)
    return not lost


def _is_same(done: dict[str, Any], asked: dict[str, Any], choice: "MaskChoice", modality: "ScanModality") -> bool:
    """Return whether results were made with these settings; older ones say less of them, and that counts."""
    threshold, stated = choice.threshold(modality), done.get("threshold", {})
    if any(stated.get(key) != threshold[key] for key in ("value", "name", "min_lesion_mm3")):
        return False
    now = asked | {f"threshold.{key}": value for key, value in threshold.items() if key in stated}
    then = done | {f"threshold.{key}": value for key, value in stated.items()}
    if "scan_score" in done:  # a model calibrated anew may place it otherwise
        place = choice.scan_level(modality, done["scan_score"])
        now |= {key: value for key, value in place.items() if key in done}
    return all(then.get(key) == value for key, value in now.items())


def _finish(
    names: "OutputNames", volume: "Volume", found: "Detection", provenance: dict[str, Any], start: float, image: Path
) -> None:
    from halebrain.cli.pages import page_files
    from halebrain.inference.outputs import write_detection

    threshold = provenance["threshold"]
    figure = scan_mosaic(
        found.scan,
        found.maps,
        threshold=threshold["value"],
        title=names.stem,
        min_lesion_mm3=threshold["min_lesion_mm3"],
        called=threshold["name"],
    )
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110, facecolor=figure.get_facecolor(), metadata={"Software": None})
    provenance |= found.provenance() | {"seconds": round(time.perf_counter() - start, 2)}
    result, mask, lesions = found.result, found.mask, found.lesions
    pages = page_files(names, volume, result, mask, lesions, provenance, mosaic=picture.getvalue())
    if provenance.get("dicom_seg"):
        pages[names.segmentation] = _segmentation(mask, result, image, provenance)
    write_detection(names, result, mask, lesions, provenance, pages)
    for flag in result.qc["flags"]:
        typer.echo(f"halebrain: warning: {names.stem}: {flag}", err=True)


def _segmentation(mask: "MaskArray", result: "ScanResult", image: Path, provenance: dict[str, Any]) -> bytes:
    from halebrain.io.dicom.segmentation import SegmentationAbout, segmentation_bytes

    threshold = provenance["threshold"]
    said = {"threshold": f"{threshold['value']:.6g}", "method": threshold["name"], "seed": str(provenance["seed"])}
    about = SegmentationAbout(
        provenance["versions"]["halebrain"], provenance["model"], provenance["model_sha256"], said
    )
    return segmentation_bytes(mask, result.affine, image, about)


def scan_mosaic(
    working: "WorkingScan",
    maps: "WorkingMaps",
    *,
    threshold: float,
    title: str,
    min_lesion_mm3: float = 0.0,
    truth: Any = None,
    called: str | None = None,
) -> Any:
    """Return the picture of one scan: input, pseudo-healthy, residual, probability, score, and the truth if known.

    Args:
        working: The scan.
        maps: What the model says of it.
        threshold: Outlined is what reaches it.
        title: Above the picture.
        min_lesion_mm3: Smaller pieces are not outlined, as the mask and the table have none.
        truth: Annotated lesion on the working grid.
        called: Name of the threshold, for the note below.
    """
    import numpy as np

    from halebrain.inference.postprocess import to_mask
    from halebrain.report.figures import Panel, choose_slices, mosaic

    size = {"min_lesion_mm3": min_lesion_mm3, "voxel_mm3": working.grid.voxel_mm3}
    found = to_mask(np.where(working.brain_mask, maps.score, -1.0), threshold=threshold, **size)
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
    smaller = f", but pieces under {min_lesion_mm3:g} mm³" if min_lesion_mm3 > 0 else ""
    note = f"Outlined where the score is at least {threshold:.3f}{name}{smaller}."
    return mosaic(panels, slices=slices, title=title, note=note)
