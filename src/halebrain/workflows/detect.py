"""Detection with files: one scan, and many scans in a folder."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from halebrain.core.errors import DataError, UsageError
from halebrain.core.exam_provenance import ENDING as EXAM_ENDING
from halebrain.core.failures import Failures
from halebrain.core.leftovers import sweep
from halebrain.core.modality import ScanContrast, find_contrast
from halebrain.core.parallel import HERE, Schedule
from halebrain.core.provenance import FILLING, IN_MEMORY, ChosenThreshold, Provenance, read_provenance
from halebrain.inference.outputs import OutputNames, filled_files, write_detection
from halebrain.inference.scans import ScanInput, find_scans
from halebrain.io.checksum import scan_sha256
from halebrain.io.dicom.segmentation import check_source
from halebrain.io.discovery import Found
from halebrain.report.embedding import scan_file
from halebrain.report.figures import figure_png
from halebrain.workflows.detections import Detections, Place, Run, refuse_other_kind, run_items
from halebrain.workflows.detector import Detector, FoundAnomalies, find_anomalies
from halebrain.workflows.dicom_seg import check_dicom, mask_as_dicom
from halebrain.workflows.earlier import THRESHOLD, differences, refuse_different
from halebrain.workflows.pages import render, scan_mosaic, show_scan
from halebrain.workflows.scan_steps import PAGE, ScanSteps, begin_scan
from halebrain.workflows.settings import WHOLE, DetectSettings, PartSettings

if TYPE_CHECKING:
    from nibabel.spatialimages import SpatialImage

_MOSAIC_DPI = 110


@dataclass(frozen=True)
class DetectedScan:
    """What one detection says, and where its files are; thousands of them stay in memory, so paths are made on demand.

    Args:
        names: Names of its files.
        n_lesions: Connected components of the mask.
        lesion_volume_ml: Their volume.
        scan_score: Score of the whole scan.
        scan_score_percentile: Its place among healthy scans.
        threshold: The threshold.
        out_of_distribution: Whether quality control calls the result unreliable.
        flags: Quality flags.
        model: Name of the model.
        model_sha256: Its hash.
        filled_ml: Volume that was filled in the lesion-filled scan, where it was asked for.
        is_filled: Whether it was.
    """

    names: OutputNames
    n_lesions: int | None
    lesion_volume_ml: float | None
    scan_score: float | None
    scan_score_percentile: float | None
    threshold: ChosenThreshold | None
    out_of_distribution: bool | None
    flags: tuple[str, ...]
    model: str | None
    model_sha256: str | None
    filled_ml: float | None = None
    is_filled: bool = False

    @classmethod
    def of(cls, names: OutputNames, made: Provenance) -> "DetectedScan":
        """Return what a provenance says; what an older version did not write is `None`."""
        return cls(
            names,
            n_lesions=made.n_lesions,
            lesion_volume_ml=made.lesion_volume_ml,
            scan_score=made.scan_score,
            scan_score_percentile=made.scan_score_percentile,
            threshold=made.threshold,
            out_of_distribution=None if "out_of_distribution" in made.qc.unstated else made.qc.out_of_distribution,
            flags=made.qc.flags,
            model=made.model,
            model_sha256=made.model_sha256,
            filled_ml=made.filled_ml,
            is_filled=made.fill_margin_mm is not None,
        )

    @property
    def scan(self) -> str:
        """Name of the scan."""
        return self.names.stem

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self.names.folder

    @property
    def report(self) -> Path:
        """The page."""
        return self.names.page

    @property
    def score(self) -> Path:
        """The anomaly map."""
        return self.names.file("anomaly", "probseg")

    @property
    def mask(self) -> Path:
        """The anomaly mask."""
        return self.names.file("anomaly", "mask")

    @property
    def lesions(self) -> Path:
        """The lesion table."""
        return self.names.file("anomaly", "lesions", ".tsv")

    @property
    def provenance(self) -> Path:
        """The provenance."""
        return self.names.provenance

    @property
    def filled(self) -> Path | None:
        """The lesion-filled scan, where it was asked for."""
        return self.names.filled if self.is_filled else None

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object; paths stay paths."""
        paths = ("scan", "folder", "report", "score", "mask", "lesions", "provenance")
        figures = ("n_lesions", "lesion_volume_ml", "scan_score", "scan_score_percentile")
        return {
            **{name: getattr(self, name) for name in (*paths, *figures)},
            "threshold": None if self.threshold is None else self.threshold.to_json(),
            "out_of_distribution": self.out_of_distribution,
            "flags": list(self.flags),
            **{name: getattr(self, name) for name in ("model", "model_sha256", "filled", "filled_ml")},
        }


def detect_scan(detector: Detector, scan: ScanInput, folder: Path, *, steps: ScanSteps | None = None) -> DetectedScan:
    """Run one scan and write its files; finished results with the same settings are kept, others refused."""
    scan.check()
    names, steps = OutputNames(folder, scan.name), steps or ScanSteps()
    sweep(folder)
    refuse_exams(folder)
    requested = describe_scan(detector, scan)
    # Nothing is decoded before: a resumed run hashes what is finished, and no more.
    if (done := _finished(names, requested, detector, scan)) is not None:
        return DetectedScan.of(names, done)
    if requested.dicom_seg:
        check_source(scan.image)  # fail now, before the networks run
    found = find_anomalies(detector, scan, requested, steps=steps)
    steps.begin(PAGE)
    written = write_found(found, names, image=scan.image)
    for flag in written.flags:
        detector.settings.notify(f"warning: {names.stem}: {flag}")
    return written


def refuse_exams(folder: Path) -> None:
    """Refuse a folder with results of exams, some of whose files have the names of those of a scan alone."""
    refuse_other_kind("exams", folder.glob(f"*{EXAM_ENDING}"))


def describe_scan(detector: Detector, scan: ScanInput) -> Provenance:
    """Return what a provenance states of model, settings and the file of a scan before it is opened."""
    base, settings = detector.predictor.provenance(), detector.settings
    if scan.memory is not None:
        return replace(base, unstated=IN_MEMORY, input=scan.image.name, scan=scan.name)
    if settings.fills:
        sha256, unstated = _sha256(scan.fill_mask), base.unstated - FILLING
        base = replace(base, fill_margin_mm=settings.fill_margin_mm, fill_mask_sha256=sha256, unstated=unstated)
    return replace(
        base,
        input=scan.image.name or scan.name,
        input_sha256=scan_sha256(scan.image),
        brain_mask_sha256=_sha256(scan.brain_mask),
        dicom_seg=settings.dicom_seg,
        scan=scan.name,
        input_in_dataset=None if scan.in_dataset is None else scan.in_dataset.as_posix(),
        input_space=scan.space,
        unstated=base.unstated - {"input_space"},
    )


def _sha256(mask: "Path | SpatialImage | None") -> str | None:
    """Return the hash of the file of a mask, or of voxels and affine of one in memory; `None` = there is none."""
    if mask is None or isinstance(mask, Path):
        return None if mask is None else scan_sha256(mask)
    return hashlib.sha256(np.asarray(mask.dataobj).tobytes() + np.asarray(mask.affine).tobytes()).hexdigest()


def _finished(names: OutputNames, requested: Provenance, detector: Detector, scan: ScanInput) -> Provenance | None:
    """Return the provenance of an earlier run with these settings if all its files are there, else `None`."""
    settings = detector.settings
    if settings.overwrite or not names.provenance.exists():
        return None
    try:
        done = read_provenance(names.provenance)
    except DataError as error:
        settings.notify(f"{names.stem}: processed again: {error.rule}, got {error.received}")
        return None
    # The inferred contrast of the same scan does not change, so it is read from the earlier result.
    contrast = find_contrast(detector.settings.modality, scan.modality, scan.named, done.qc.inferred_contrast)
    refuse_different("results", _differences(done, requested, detector, contrast), names.folder)
    filled = requested.fill_margin_mm is not None
    promised = names.promised(dicom_seg=requested.dicom_seg, filled=filled)
    lost = [path.name for path in promised if not path.exists()]
    if lost:
        settings.notify(f"{names.stem}: processed again, as {', '.join(lost)} is missing")
    return None if lost else done


def _differences(done: Provenance, requested: Provenance, detector: Detector, contrast: ScanContrast) -> list[str]:
    """Return what results were made with otherwise, in words; older ones say less of it, and that counts."""
    found = differences(done, requested)
    if requested.dicom_seg and not done.dicom_seg:
        found.append("kind of mask (--dicom-seg)")
    stated, threshold = done.threshold, detector.threshold(contrast)
    if stated is None:
        return [*found, THRESHOLD]
    # What an older version did not state cannot differ.
    # An older mask did not grow.
    unsaid = {name: getattr(stated, name) for name in (*(stated.unstated - {"grow_to"}), "unstated", "more")}
    if replace(threshold, **unsaid) != stated:
        found.append(THRESHOLD)
    elif done.scan_score is not None:
        # A new calibration may change the percentile.
        placed = detector.placed(done, contrast, done.scan_score)
        unsaid = {name: getattr(done, name) for name in done.unstated - {"volume_estimate"}}
        if replace(placed, **unsaid) != done:
            found.append("calibration")
    return found


def write_found(found: FoundAnomalies, names: OutputNames, *, image: Path | None = None) -> DetectedScan:
    """Draw mosaic and page, and write all files of a scan or none.

    `image` is the DICOM file or folder, where the mask is also written as DICOM-SEG.
    """
    threshold, result, mask, lesions, made = found.threshold, found.result, found.mask, found.lesions, found.made

    def draw() -> dict[Path, bytes]:
        cut, name = threshold.cut, threshold.name
        figure = scan_mosaic(found.scan, found.maps, cut=cut, title=names.stem, threshold_name=name)
        picture, shown = figure_png(figure, dpi=_MOSAIC_DPI), show_scan(found.volume, result)
        files = render(names, result, mask, shown, lesions, made, picture=picture) | {names.display: scan_file(shown)}
        if made.dicom_seg and image is not None:
            files[names.segmentation] = mask_as_dicom(mask, result.affine, image, made, threshold, seed=str(made.seed))
        if found.filling is not None:
            files |= filled_files(names, made, found.filling)
        return files

    write_detection(names, result, mask, lesions, made, draw, threads=torch.get_num_threads())
    return DetectedScan.of(names, made)


def detect_scans(
    source: Path,
    output: Path,
    settings: DetectSettings,
    *,
    brain_mask: Path | None = None,
    fill_mask: Path | None = None,
    schedule: Schedule = HERE,
    part: PartSettings = WHOLE,
    done: Callable[[DetectedScan], None] = lambda _: None,
) -> Detections[DetectedScan]:
    """Process every scan of an input, or a part of them; one that fails is reported and does not stop the others.

    The input is a scan, a folder, a BIDS data set, a list, or a manifest; a mask goes with a single scan.
    `fill_mask` is filled instead of what is found. `done` is called after each scan. The error of an only scan is
    raised.
    """
    _check_filling(settings, fill_mask)
    scans = find_scans(source, brain_mask=brain_mask, fill_mask=fill_mask)
    if settings.dicom_seg:
        check_dicom(scan.image for scan in scans)
    single = len(scans) == 1 and (scans[0].image == source or not source.is_dir())
    dataset = None if scans[0].in_dataset is None else source
    failures = Failures(output, settings.notify)
    run = Run(output, settings, failures, dataset=dataset, single=single, schedule=schedule)
    return run_scans(Found(part.own(scans), scans.left_out), run, done=done)


def run_scans(
    scans: Found[ScanInput], run: Run, *, done: Callable[[DetectedScan], None] = lambda _: None
) -> Detections[DetectedScan]:
    """Process scans, one after the other or by several workers, and write the page of all of them (`run_items`)."""
    return run_items(scans, _detect_one, run, done=done)


def _detect_one(place: Place, scan: ScanInput) -> DetectedScan:
    """Process one scan in its folder below that of the run."""
    steps = begin_scan(place.bar, scan, place.detector.predictor, named=place.named)
    folder = place.folder(scan.folder, OutputNames(place.output, scan.name).provenance)
    return detect_scan(place.detector, scan, folder, steps=steps)


def _check_filling(settings: DetectSettings, fill_mask: Path | None) -> None:
    """Refuse a mask to fill where no filled scan is asked for."""
    if fill_mask is not None and not settings.fills:
        raise UsageError(
            "--fill-mask needs --fill or --also-fill", received="neither", remedy="add --fill, or remove --fill-mask"
        )
