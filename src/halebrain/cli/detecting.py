"""Detection of one scan: skip finished results, run the networks, write all files or none."""

import io
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from halebrain.core.errors import CannotWriteError, DataError

if TYPE_CHECKING:
    from halebrain.cli.scan_steps import ScanSteps
    from halebrain.core.types import MaskArray, ScanResult, Volume
    from halebrain.inference.cohort import ScanInput
    from halebrain.inference.detection import Detection
    from halebrain.inference.outputs import OutputNames
    from halebrain.inference.predictor import Predictor
    from halebrain.thresholds.choose import DetectionOptions
    from halebrain.thresholds.contrast import ScanContrast


def detect_scan(
    predictor: "Predictor",
    scan: "ScanInput",
    folder: Path,
    *,
    choice: "DetectionOptions",
    overwrite: bool,
    dicom_seg: bool = False,
    steps: "ScanSteps | None" = None,
) -> Path:
    """Run one scan and write its files; finished results with the same settings are kept.

    Args:
        predictor: The model.
        scan: The scan.
        folder: Output folder.
        choice: Threshold, smallest lesion and modality.
        overwrite: Replace results made with other settings.
        dicom_seg: Write the mask as DICOM-SEG too.
        steps: Receives the steps; `None` = no progress bar.

    Returns:
        The folder.

    Raises:
        CannotWriteError: There are results made with other settings.
    """
    from halebrain.cli.scan_steps import NETWORKS, PAGE, ScanSteps
    from halebrain.core.leftovers import sweep
    from halebrain.inference.detection import detect_anomalies
    from halebrain.inference.outputs import OutputNames
    from halebrain.io.dicom.segmentation import check_source
    from halebrain.io.volume import read_volume
    from halebrain.preprocessing.out_of_distribution import check_contrast_label
    from halebrain.preprocessing.prepared import open_scan
    from halebrain.thresholds.contrast import declared_contrast, flag_limits, inferred_contrast
    from halebrain.thresholds.percentile import working_scan_score

    scan.check()
    names = OutputNames(folder, scan.name)
    steps = steps or ScanSteps()
    sweep(folder)
    asked = _asked(predictor, scan, dicom_seg=dicom_seg)
    modality = declared_contrast(choice.modality, scan)
    # Nothing is decoded before: a resumed run hashes what is finished, and no more.
    if names.provenance.exists() and not overwrite and _is_done(names, asked, choice, modality):
        return folder
    volume = read_volume(scan.image)
    if dicom_seg:
        check_source(scan.image)  # fail now, before the networks run
    start = time.perf_counter()
    notes = list(volume.notes)
    given: dict[str, Any] = {"brain_mask": scan.brain_mask, "space": scan.space, "notes": notes}
    working = open_scan(predictor.preprocessor, volume, scan.image, **given, begin=steps.begin)
    working.qc["flags"] = [*notes, *working.qc["flags"]]
    check_contrast_label(working.qc, None if modality is None else modality.name)
    modality = modality or inferred_contrast(working.qc)
    flag_limits(working.qc, predictor.bundle.limits, modality)
    threshold = choice.threshold(modality)
    called = {"threshold": threshold["value"], "min_lesion_mm3": choice.min_lesion_mm3}
    steps.begin(NETWORKS)
    found = detect_anomalies(predictor, volume, working, **called, modality=modality.name, progress=steps.one_pass)
    steps.begin(PAGE)
    score = working_scan_score(found.maps.score, found.scan.brain_mask, found.scan.grid.spacing_mm)
    asked |= {"threshold": threshold} | choice.scan_level(modality, score)
    about = {"scan": names.stem, "input_notes": notes} | _about(predictor, scan)
    _finish(names, volume, found, asked | about, start, scan.image)
    return folder


def _asked(predictor: "Predictor", scan: "ScanInput", *, dicom_seg: bool) -> dict[str, Any]:
    """Return the settings, besides the threshold, that must match for results of an earlier run to be kept."""
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
    """Return the other settings stored in a provenance."""
    from halebrain.core.about import versions
    from halebrain.inference.detection import template_and_method

    return {
        "versions": versions(),
        "device": str(predictor.device),
        "model": predictor.bundle.name,
        "input_in_dataset": scan.in_dataset and scan.in_dataset.as_posix(),
        **template_and_method(predictor),
    }


def _is_done(
    names: "OutputNames", asked: dict[str, Any], choice: "DetectionOptions", modality: "ScanContrast | None"
) -> bool:
    """Return whether the files of an earlier run with these settings are all there.

    Raises:
        CannotWriteError: They were made with other settings.
    """
    from halebrain.report.cohort_page import read_provenance
    from halebrain.thresholds.contrast import inferred_contrast

    try:
        done = read_provenance(names.provenance)
    except DataError as error:
        typer.echo(f"halebrain: {names.stem}: processed again: {error.rule}, got {error.received}", err=True)
        return False
    # The inferred contrast of the same scan does not change, so it is read from the earlier result.
    if not _is_same(done, asked, choice, modality or inferred_contrast(done.get("qc", {}))):
        raise CannotWriteError(
            "results made with other settings exist", where=names.folder, remedy="choose another or --overwrite"
        )
    promised = [names.page, names.file("anomaly", "lesions", ".tsv")]
    promised += [names.file("anomaly", suffix) for suffix in ("probseg", "mask")]
    promised += [names.segmentation] if asked.get("dicom_seg") else []
    lost = [path.name for path in promised if not path.exists()]
    if lost:
        typer.echo(f"halebrain: {names.stem}: processed again, as {', '.join(lost)} is missing", err=True)
    return not lost


def _is_same(done: dict[str, Any], asked: dict[str, Any], choice: "DetectionOptions", modality: "ScanContrast") -> bool:
    """Return whether results were made with these settings; older ones say less of them, and that counts."""
    threshold, stated = choice.threshold(modality), done.get("threshold", {})
    if any(stated.get(key) != threshold[key] for key in ("value", "name", "min_lesion_mm3")):
        return False
    now = asked | {f"threshold.{key}": value for key, value in threshold.items() if key in stated}
    then = done | {f"threshold.{key}": value for key, value in stated.items()}
    if "scan_score" in done:  # a new calibration may change the percentile
        place = choice.scan_level(modality, done["scan_score"])
        now |= {key: value for key, value in place.items() if key in done}
    return all(then.get(key) == value for key, value in now.items())


def _finish(
    names: "OutputNames", volume: "Volume", found: "Detection", provenance: dict[str, Any], start: float, image: Path
) -> None:
    from halebrain.cli.pages import page_files
    from halebrain.cli.scan_mosaic import scan_mosaic
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
