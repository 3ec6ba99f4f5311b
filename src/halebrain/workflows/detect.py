"""Detection: one scan in memory, one scan to files, and a list of scans to a folder."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from halebrain.core.about import versions
from halebrain.core.device import find_device
from halebrain.core.errors import CannotWriteError, DataError, HalebrainError, UsageError, unexpected_as_error
from halebrain.core.failures import Failures
from halebrain.core.leftovers import sweep
from halebrain.core.types import MaskArray, ScanResult, Volume
from halebrain.inference.cohort import ScanInput, find_scans
from halebrain.inference.detection import (
    Detection,
    detect_anomalies,
    predictor_settings,
    smallest_lesion_mm3,
    template_and_method,
)
from halebrain.inference.outputs import OutputNames, write_detection
from halebrain.inference.predictor import Predictor
from halebrain.io.bids_derivative import begin_derivative, write_participants
from halebrain.io.checksum import scan_sha256
from halebrain.io.dicom.segmentation import SegmentationAbout, check_highdicom, check_source, segmentation_bytes
from halebrain.io.formats import FORMATS
from halebrain.io.tree import LeftOut, summed_left_out
from halebrain.io.volume import format_of, read_volume
from halebrain.models.bundle import Bundle
from halebrain.models.store import load_model
from halebrain.preprocessing.out_of_distribution import check_contrast_label
from halebrain.preprocessing.pipeline import WorkingScan
from halebrain.preprocessing.prepared import open_scan
from halebrain.report.index_page import read_provenance
from halebrain.thresholds.calibration import read_calibration
from halebrain.thresholds.choose import DetectionOptions, ThresholdSelector
from halebrain.thresholds.contrast import (
    ScanContrast,
    check_modality,
    declared_contrast,
    flag_limits,
    inferred_contrast,
)
from halebrain.thresholds.percentile import working_scan_score
from halebrain.workflows.pages import page_files, png, scan_mosaic, write_index
from halebrain.workflows.scan_steps import NETWORKS, PAGE, ScanSteps, each_scan
from halebrain.workflows.settings import DetectSettings

_MOSAIC_DPI = 110


@dataclass(frozen=True)
class Detector:
    """A loaded model with the options that it is applied with.

    Args:
        settings: As the user gave them.
        predictor: The model.
        options: Threshold, smallest lesion and modality.
    """

    settings: DetectSettings
    predictor: Predictor
    options: DetectionOptions

    def about(self, **place: Any) -> dict[str, Any]:
        """Return what else a provenance holds of the model and the software, with `place` in it; JSON-able."""
        return {
            "versions": versions(),
            "device": str(self.predictor.device),
            "model": self.predictor.bundle.name,
            **place,
            **template_and_method(self.predictor),
        }


def load_detector(settings: DetectSettings, bundle: Bundle | None = None) -> Detector:
    """Load the model and check threshold, modality and device.

    Args:
        settings: How scans are processed.
        bundle: The model, if it is loaded already.

    Raises:
        HalebrainError: The model, the device or an option cannot be used.
    """
    bundle = bundle or load_model(settings.model)
    selector = ThresholdSelector(read_calibration(bundle), settings.threshold)
    check_modality(settings.modality, selector.calibration)
    predictor = Predictor(
        bundle,
        device=find_device(settings.device),
        seed=settings.seed,
        draws=settings.draws,
        batch_size=settings.batch_size,
        brain=settings.brain,
    )
    smallest = smallest_lesion_mm3(predictor, settings.min_lesion_mm3)
    return Detector(settings, predictor, DetectionOptions(selector, smallest, settings.modality))


@dataclass(frozen=True)
class FoundAnomalies:
    """What was found in one scan, and with which threshold.

    Args:
        detection: Maps, mask and lesions.
        threshold: The threshold, as it stands in a provenance.
        scan_level: Score of the whole scan and its place among healthy scans, as they stand in a provenance.
    """

    detection: Detection
    threshold: dict[str, Any]
    scan_level: dict[str, Any]


def find_anomalies(
    detector: Detector,
    volume: Volume,
    working: WorkingScan,
    scan: ScanInput,
    *,
    notes: list[str],
    steps: ScanSteps | None = None,
) -> FoundAnomalies:
    """Judge the contrast of a preprocessed scan, run the networks, apply the threshold; writes nothing.

    Args:
        detector: The loaded model.
        volume: The scan on its native grid.
        working: The preprocessed scan; its flags are completed.
        scan: Where it came from.
        notes: What was done to scan and mask on reading; they precede the flags.
        steps: Receives the steps; `None` = no progress bar.
    """
    predictor, options, steps = detector.predictor, detector.options, steps or ScanSteps()
    working.qc["flags"] = [*notes, *working.qc["flags"]]
    declared = declared_contrast(options.modality, scan)
    check_contrast_label(working.qc, None if declared is None else declared.name)
    contrast = declared or inferred_contrast(working.qc)
    flag_limits(working.qc, predictor.bundle.limits, contrast)
    threshold = options.threshold(contrast)
    steps.begin(NETWORKS)
    detection = detect_anomalies(
        predictor,
        volume,
        working,
        threshold=threshold["value"],
        min_lesion_mm3=options.min_lesion_mm3,
        modality=contrast.name,
        progress=steps.one_pass,
    )
    score = working_scan_score(detection.maps.score, detection.scan.brain_mask, detection.scan.grid.spacing_mm)
    return FoundAnomalies(detection, threshold, options.scan_level(contrast, score))


@dataclass(frozen=True)
class DetectedScan:
    """The files of one detection, and what they say.

    Args:
        scan: Name of the scan.
        folder: Where the files are.
        report: The page.
        score: The anomaly map.
        mask: The anomaly mask.
        lesions: The lesion table.
        provenance: The provenance.
        n_lesions: Connected components of the mask.
        lesion_volume_ml: Their volume.
        scan_score: Score of the whole scan.
        scan_score_percentile: Its place among healthy scans.
        threshold: The threshold, as in the provenance.
        out_of_distribution: Whether quality control calls the result unreliable.
        flags: Quality flags.
        model: Name of the model.
        model_sha256: Its hash.
    """

    scan: str
    folder: Path
    report: Path
    score: Path
    mask: Path
    lesions: Path
    provenance: Path
    n_lesions: int | None
    lesion_volume_ml: float | None
    scan_score: float | None
    scan_score_percentile: float | None
    threshold: dict[str, Any] | None
    out_of_distribution: Any
    flags: list[str]
    model: str | None
    model_sha256: str | None

    @classmethod
    def of(cls, names: OutputNames, provenance: dict[str, Any]) -> "DetectedScan":
        """Return what a provenance says; keys that an older version did not write are `None`."""
        quality = provenance.get("qc", {})
        return cls(
            scan=names.stem,
            folder=names.folder,
            report=names.page,
            score=names.file("anomaly", "probseg"),
            mask=names.file("anomaly", "mask"),
            lesions=names.file("anomaly", "lesions", ".tsv"),
            provenance=names.provenance,
            n_lesions=provenance.get("n_lesions"),
            lesion_volume_ml=provenance.get("lesion_volume_ml"),
            scan_score=provenance.get("scan_score"),
            scan_score_percentile=provenance.get("scan_score_percentile"),
            threshold=provenance.get("threshold"),
            out_of_distribution=quality.get("out_of_distribution"),
            flags=quality.get("flags", []),
            model=provenance.get("model"),
            model_sha256=provenance.get("model_sha256"),
        )


def detect_scan(detector: Detector, scan: ScanInput, folder: Path, *, steps: ScanSteps | None = None) -> DetectedScan:
    """Run one scan and write its files; finished results with the same settings are kept.

    Args:
        detector: The loaded model.
        scan: The scan.
        folder: Output folder.
        steps: Receives the steps; `None` = no progress bar.

    Raises:
        CannotWriteError: There are results made with other settings.
    """
    scan.check()
    settings, steps, names = detector.settings, steps or ScanSteps(), OutputNames(folder, scan.name)
    sweep(folder)
    asked = _asked(detector, scan)
    # Nothing is decoded before: a resumed run hashes what is finished, and no more.
    if not settings.overwrite and (done := _finished(names, asked, detector, scan)) is not None:
        return DetectedScan.of(names, done)
    volume = read_volume(scan.image)
    if settings.dicom_seg:
        check_source(scan.image)  # fail now, before the networks run
    start, notes = time.perf_counter(), list(volume.notes)
    working = open_scan(
        detector.predictor.preprocessor,
        volume,
        scan.image,
        brain_mask=scan.brain_mask,
        space=scan.space,
        begin=steps.begin,
        notes=notes,
    )
    found = find_anomalies(detector, volume, working, scan, notes=notes, steps=steps)
    steps.begin(PAGE)
    place = scan.in_dataset and scan.in_dataset.as_posix()
    provenance = {
        **asked,
        "threshold": found.threshold,
        **found.scan_level,
        "scan": names.stem,
        "input_notes": notes,
        **detector.about(input_in_dataset=place),
    }
    _write(names, volume, found.detection, provenance, start, scan.image)
    for flag in found.detection.result.qc["flags"]:
        settings.notify(f"warning: {names.stem}: {flag}")
    return DetectedScan.of(names, provenance)


def _asked(detector: Detector, scan: ScanInput) -> dict[str, Any]:
    """Return the settings, besides the threshold, that must match for results of an earlier run to be kept."""
    asked = {
        "input": scan.image.name or scan.name,
        "input_sha256": scan_sha256(scan.image),
        "brain_mask_sha256": None if scan.brain_mask is None else scan_sha256(scan.brain_mask),
        **predictor_settings(detector.predictor),
    }
    return asked | {"dicom_seg": True} if detector.settings.dicom_seg else asked


def _finished(names: OutputNames, asked: dict[str, Any], detector: Detector, scan: ScanInput) -> dict[str, Any] | None:
    """Return the provenance of an earlier run with these settings if all its files are there, else `None`.

    Raises:
        CannotWriteError: They were made with other settings.
    """
    if not names.provenance.exists():
        return None
    options, notify = detector.options, detector.settings.notify
    declared = declared_contrast(options.modality, scan)
    try:
        done = read_provenance(names.provenance)
    except DataError as error:
        notify(f"{names.stem}: processed again: {error.rule}, got {error.received}")
        return None
    # The inferred contrast of the same scan does not change, so it is read from the earlier result.
    if not _is_same(done, asked, options, declared or inferred_contrast(done.get("qc", {}))):
        raise CannotWriteError(
            "results made with other settings exist", where=names.folder, remedy="choose another or --overwrite"
        )
    promised = [names.page, names.file("anomaly", "lesions", ".tsv")]
    promised += [names.file("anomaly", suffix) for suffix in ("probseg", "mask")]
    promised += [names.segmentation] if asked.get("dicom_seg") else []
    lost = [path.name for path in promised if not path.exists()]
    if lost:
        notify(f"{names.stem}: processed again, as {', '.join(lost)} is missing")
    return None if lost else done


def _is_same(done: dict[str, Any], asked: dict[str, Any], options: DetectionOptions, modality: ScanContrast) -> bool:
    """Return whether results were made with these settings; older ones say less of them, and that counts."""
    threshold, stated = options.threshold(modality), done.get("threshold", {})
    if any(stated.get(key) != threshold[key] for key in ("value", "name", "min_lesion_mm3")):
        return False
    now = asked | {f"threshold.{key}": value for key, value in threshold.items() if key in stated}
    then = done | {f"threshold.{key}": value for key, value in stated.items()}
    if "scan_score" in done:  # a new calibration may change the percentile
        place = options.scan_level(modality, done["scan_score"])
        now |= {key: value for key, value in place.items() if key in done}
    return all(then.get(key) == value for key, value in now.items())


def _write(
    names: OutputNames, volume: Volume, found: Detection, provenance: dict[str, Any], start: float, image: Path
) -> None:
    """Complete the provenance, draw mosaic and page, and write all files of a scan or none."""
    threshold = provenance["threshold"]
    figure = scan_mosaic(
        found.scan,
        found.maps,
        threshold=threshold["value"],
        title=names.stem,
        min_lesion_mm3=threshold["min_lesion_mm3"],
        called=threshold["name"],
    )
    picture = png(figure, dpi=_MOSAIC_DPI)
    provenance |= found.provenance() | {"seconds": round(time.perf_counter() - start, 2)}
    result, mask, lesions = found.result, found.mask, found.lesions
    extra = page_files(names, volume, result, mask, lesions, provenance, picture=picture)
    if provenance.get("dicom_seg"):
        extra[names.segmentation] = _segmentation(mask, result, image, provenance)
    write_detection(names, result, mask, lesions, provenance, extra)


def _segmentation(mask: MaskArray, result: ScanResult, image: Path, provenance: dict[str, Any]) -> bytes:
    threshold = provenance["threshold"]
    said = {"threshold": f"{threshold['value']:.6g}", "method": threshold["name"], "seed": str(provenance["seed"])}
    about = SegmentationAbout(
        provenance["versions"]["halebrain"], provenance["model"], provenance["model_sha256"], said
    )
    return segmentation_bytes(mask, result.affine, image, about)


@dataclass(frozen=True)
class DetectedScans:
    """Results of a list of scans.

    Args:
        scans: Those that were processed, now or before.
        index: The page of all scans; `None` for a single scan.
        left_out: Images of the input that are not used.
        failures: Scans that failed, with the reason.
        n_scans: Scans of the input.
    """

    scans: list[DetectedScan]
    index: Path | None
    left_out: tuple[LeftOut, ...]
    failures: Failures
    n_scans: int


def detect_scans(
    source: Path,
    output: Path,
    settings: DetectSettings,
    *,
    brain_mask: Path | None = None,
    done: Callable[[DetectedScan], None] = lambda _: None,
) -> DetectedScans:
    """Process every scan of an input; one that fails is reported and does not stop the others.

    Args:
        source: A scan, a folder, a BIDS data set, a list, or a manifest.
        output: Output folder.
        settings: How.
        brain_mask: Mask of the scan, where the input is a single one.
        done: Called after each scan.

    Raises:
        HalebrainError: The input or an option cannot be used, or the only scan failed.
    """
    scans = find_scans(source, brain_mask=brain_mask)
    if line := summed_left_out(scans.left_out):
        settings.notify(f"warning: {line}")
    if settings.dicom_seg:
        _check_dicom(scans)
    detector = load_detector(settings)
    in_dataset = scans[0].in_dataset is not None
    if in_dataset:
        begin_derivative(output, source)
    single = len(scans) == 1 and (scans[0].image == source or not source.is_dir())
    failures, found = Failures(output), list[DetectedScan]()
    for scan, steps in each_scan(scans, detector.predictor):
        folder = output if single else output / (scan.name if scan.in_dataset is None else scan.in_dataset.parent)
        try:
            with unexpected_as_error():
                found.append(detect_scan(detector, scan, folder, steps=steps))
            done(found[-1])
            failures.went_well(scan.name)
        except HalebrainError as error:
            if single:
                raise
            failures.add(scan.name, error)
    if in_dataset:
        write_participants(output, source)
    index = None
    if not single:
        index = write_index(output, [scan.name for scan in scans], failures.reasons, notify=settings.notify)
    return DetectedScans(found, index, tuple(scans.left_out), failures, len(scans))


def _check_dicom(scans: list[ScanInput]) -> None:
    """Refuse `--dicom-seg` where it cannot be done, before any scan is processed.

    Raises:
        UsageError: A scan did not come as DICOM.
        UnavailableError: highdicom is not installed.
    """
    check_highdicom()
    for scan in scans:
        if format_of(scan.image) is not FORMATS.get("dicom"):
            raise UsageError("--dicom-seg needs DICOM scans", received=scan.image.name, remedy="remove it")
