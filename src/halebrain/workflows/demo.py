"""The demo of the bundled model: a virtual patient, every contrast through `detect`, and a page beside the truth."""

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from halebrain.core.errors import CannotWriteError
from halebrain.core.progress import ProgressBar
from halebrain.core.provenance import read_provenance
from halebrain.core.types import SLICE_AXIS, MaskArray
from halebrain.evaluation.baselines import DEFAULT, baseline_map
from halebrain.evaluation.case import Case
from halebrain.evaluation.evaluate import score_case
from halebrain.inference.outputs import OutputNames
from halebrain.inference.predictor import Predictor
from halebrain.inference.scans import ScanInput
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.io.volume import read_map, read_mask, read_volume
from halebrain.report.figures import MosaicRow, Panel, mosaic_of_rows, save_figure
from halebrain.report.page import Page, Section, write_page
from halebrain.simulation.config import CohortConfig
from halebrain.simulation.generate import clear_cohort, generate_cohort, is_cohort
from halebrain.workflows.detect import detect_scan
from halebrain.workflows.detector import load_detector
from halebrain.workflows.scan_steps import begin_scan
from halebrain.workflows.settings import DemoSettings, DetectSettings

MODALITIES = ("FLAIR", "T2w", "T1w")
_PREFIX = "demo"
_METRICS = ("auprc", "dice", "lesion_sensitivity", "false_lesions", "false_positive_volume")


@dataclass(frozen=True)
class JudgedScan:
    """One contrast of the patient: its files, and what they say beside the truth.

    Metrics are those on the scan's own grid; `baseline_auprc` is that of the intensity rank, which needs no training.
    Lesions are connected components of the truth, findings those of the mask.
    """

    record: ScanRecord
    names: OutputNames
    metrics: dict[str, float]
    baseline_auprc: float
    n_lesions: int
    lesion_ml: float
    n_findings: int
    found_ml: float
    threshold: tuple[float, str]
    seconds: float

    def document(self) -> dict[str, Any]:
        """Return the figures as `--json` gives them."""
        return {
            "scan": self.record.scan_id,
            "modality": self.record.modality,
            "report": self.names.page,
            "lesion_volume_ml": round(self.lesion_ml, 3),
            "found_volume_ml": round(self.found_ml, 3),
            "n_lesions": self.n_lesions,
            "n_findings": self.n_findings,
            "intensity_rank_auprc": self.baseline_auprc,
            "seconds": self.seconds,
            **self.metrics,
        }


@dataclass(frozen=True)
class JudgedPatient:
    """What the demo made: the page to open, each contrast with its figures, and the time that it took."""

    page: Path
    scans: list[JudgedScan]
    seconds: float


def run_patient_demo(output: Path, settings: DemoSettings) -> JudgedPatient:
    """Make the patient, detect in every contrast with the bundled model, and write the page.

    What is in the folder from the same command is kept; a demo of another patient there is refused.
    """
    start = time.monotonic()
    if settings.overwrite:
        clear_demo(output, "patient", "detection")
    patient = _patient(output / "patient", settings)
    detector = load_detector(
        DetectSettings(
            threshold=settings.threshold,
            brain=None,
            seed=settings.seed,
            device=settings.device,
            overwrite=settings.overwrite,
            notify=settings.notify,
        )
    )
    # As a stranger's scans: without the brain mask and the placement that the manifest knows.
    scans = [ScanInput(record.image, record.scan_id, modality=record.modality) for record in patient]
    with ProgressBar("Detecting", len(scans)) as bar:
        for count, scan in enumerate(scans, start=1):
            steps = begin_scan(bar, scan, detector.predictor, named=True)
            detect_scan(detector, scan, output / "detection", steps=steps)
            bar.reach(count)
    judged = [_judge(record, output / "detection") for record in patient]
    page = _write_page(output, settings.pathology, judged, detector.predictor)
    return JudgedPatient(page, judged, time.monotonic() - start)


def clear_demo(output: Path, cohort: str, *folders: str) -> None:
    """Remove an earlier demo, which its cohort marks: what it made, and nothing else."""
    if not is_cohort(output / cohort):
        return
    clear_cohort(output / cohort)
    for name in folders:
        shutil.rmtree(output / name, ignore_errors=True)
    for name in ("index.html", "mosaic.png"):
        (output / name).unlink(missing_ok=True)


def _patient(folder: Path, settings: DemoSettings) -> Manifest:
    config = CohortConfig(
        healthy=0,
        patients=1,
        spacing_mm=settings.spacing_mm,
        modalities=MODALITIES,
        pathologies=(settings.pathology,),
        seed=settings.seed,
        # Labels of subjects follow from disease and number: with a prefix this one is nobody of any training.
        prefix=_PREFIX,
    )
    try:
        return generate_cohort(folder, config)
    except CannotWriteError as error:
        raise CannotWriteError(
            "a demo is resumed with the settings that it began with",
            received=error.received,
            where=folder,
            remedy="choose another --output, or --overwrite",
        ) from error


def _judge(record: ScanRecord, folder: Path) -> JudgedScan:
    """Read back what `detect` wrote of a scan, and compare it with the truth on the scan's own grid."""
    names = OutputNames(folder, record.scan_id)
    scan = read_volume(record.image)
    brain, mask, lesion = (
        read_mask(path, scan)
        for path in (names.file("brain", "mask"), names.file("anomaly", "mask"), _lesion_path(record))
    )
    score = read_map(names.file("anomaly", "probseg")).data
    case = Case.of(record, reference=lesion, brain_mask=brain, affine=scan.affine, score=score, mask=mask)
    rank = baseline_map(DEFAULT, scan.data, case.region, record.contrast)
    (baseline,) = score_case(replace(case, score=rank, mask=None), only=("auprc",))
    made = read_provenance(names.provenance)
    assert made.threshold is not None, "detect writes it"
    assert made.seconds is not None
    return JudgedScan(
        record=record,
        names=names,
        metrics={row.metric: row.value for row in score_case(case, only=_METRICS)},
        baseline_auprc=baseline.value,
        n_lesions=case.reference_lesions[1],
        lesion_ml=float(lesion.sum()) * case.voxel_ml,
        n_findings=case.predicted_lesions[1],
        found_ml=float(mask.sum()) * case.voxel_ml,
        threshold=(made.threshold.value, made.threshold.name),
        seconds=made.seconds,
    )


def _lesion_path(record: ScanRecord) -> Path:
    assert record.lesion is not None, "a virtual patient has a mask"
    return record.lesion


def _write_page(output: Path, pathology: str, judged: list[JudgedScan], predictor: Predictor) -> Path:
    picture = _picture(judged)
    save_figure(picture, output / "mosaic.png")
    page = Page(
        title=f"HaleBrain demo: a virtual patient with {_spoken(pathology)}",
        lead=(
            f"One virtual person with {_spoken(pathology)}, scanned in {len(judged)} contrasts, made for this page: no "
            "training saw this person, and the truth is known exactly. The bundled model processed each contrast "
            "alone. One patient shows what the tool does; how good it is, docs/explanation/results.md says."
        ),
        numbers=_numbers(judged),
        sections=_sections(judged, picture),
        provenance={
            "model": predictor.bundle.name,
            "model_sha256": predictor.bundle.sha256,
            "seed": predictor.seed,
            "scans": [scan.document() | {"report": scan.names.page.name} for scan in judged],
        },
    )
    write_page(page, output / "index.html")
    return output / "index.html"


def _spoken(pathology: str) -> str:
    names = {"ms": "multiple sclerosis", "wmh": "white-matter hyperintensities", "tumour": "a brain tumour"}
    return names.get(pathology, f"a {pathology}")


def _picture(judged: list[JudgedScan]) -> Figure:
    """Return the slice with most lesion of each contrast: input, what was made of it, findings, truth."""
    rows: list[MosaicRow] = []
    for scan in judged:
        volume = read_volume(scan.record.image)
        brain = read_mask(scan.names.file("brain", "mask"), volume)
        truth = read_mask(_lesion_path(scan.record), volume)
        panels = _panels(scan, brain, truth)
        largest = int(truth.sum(axis=tuple(axis for axis in range(3) if axis != SLICE_AXIS)).argmax())
        rows.append(MosaicRow(panels, largest, label=scan.record.modality))
    note = "Outlined: where the score reaches the threshold of its contrast, and the truth."
    return mosaic_of_rows(rows, note=note)


def _panels(scan: JudgedScan, brain: MaskArray, truth: MaskArray) -> list[Panel]:
    volume = read_volume(scan.record.image)
    image = np.where(brain, volume.data, 0)
    top = float(np.percentile(image[brain], 99.5))
    healthy = np.where(brain, read_map(scan.names.file("pseudohealthy", "")).data, 0)
    residual = np.where(brain, read_map(scan.names.file("residual", "")).data, 0)
    score = read_map(scan.names.file("anomaly", "probseg")).data
    found = read_mask(scan.names.file("anomaly", "mask"), volume)
    return [
        Panel("input", image, vmax=top),
        Panel("pseudo-healthy", healthy, vmax=top),
        Panel("input − pseudo-healthy", residual, "residual"),
        Panel("anomaly score", score, "score", vmax=max(2 * scan.threshold[0], 0.2)),
        Panel("found", image, outline=found, vmax=top),
        Panel("truth", image, outline=truth, vmax=top),
    ]


def _numbers(judged: list[JudgedScan]) -> list[tuple[str, str]]:
    numbers = [(f"{judged[0].lesion_ml:.1f} ml", "true volume of the disease")]
    numbers += [
        (f"{scan.metrics['dice']:.2f}", f"Dice of the findings with the truth, {scan.record.modality}")
        for scan in judged
    ]
    return [*numbers, (f"{sum(scan.seconds for scan in judged):.0f} s", "for all contrasts on this machine")]


def _sections(judged: list[JudgedScan], picture: Figure) -> list[Section]:
    first = judged[0]
    return [
        Section(
            "What was seen, and what was found",
            figure=picture,
            caption="Front is up; the patient's left is on the right. The slice with the largest part of the lesion.",
        ),
        Section(
            "Findings and the truth",
            header=(
                "contrast",
                "Dice",
                "AUPRC",
                "AUPRC of intensity",
                "lesions found",
                "findings",
                "of these false",
                "found, ml",
                "false-positive volume, ml",
                "threshold",
            ),
            rows=[_row(scan) for scan in judged],
            caption=(
                "AUPRC: area under the precision–recall curve of voxels; of intensity: the rank of each voxel's "
                "brightness (darkness on T1w) in its brain, a baseline without any training. A finding is false where "
                "it shares no voxel with the truth."
            ),
        ),
        Section(
            f"Look around: {first.record.modality}",
            viewer=first.names.page.read_text(encoding="utf-8"),
            caption="halebrain detect writes such a page for every scan.",
            links=[
                (f"{scan.record.modality}: the page of this scan", f"{scan.names.folder.name}/{scan.names.page.name}")
                for scan in judged
            ],
        ),
        Section(
            "On your own scan",
            text=[
                "halebrain detect -i SCAN -o OUT",
                "SCAN: NIfTI, DICOM (folder or archive) or MGH, with its skull or without; a folder of scans or a BIDS "
                "data set works too. Nothing leaves this machine.",
            ],
        ),
    ]


def _row(scan: JudgedScan) -> list[str]:
    metrics = scan.metrics
    found = round(metrics["lesion_sensitivity"] * scan.n_lesions)
    return [
        scan.record.modality,
        f"{metrics['dice']:.2f}",
        f"{metrics['auprc']:.2f}",
        f"{scan.baseline_auprc:.2f}",
        f"{found} of {scan.n_lesions}",
        str(scan.n_findings),
        f"{metrics['false_lesions']:.0f}",
        f"{scan.found_ml:.1f}",
        f"{metrics['false_positive_volume']:.1f}",
        f"{scan.threshold[0]:.3f} ({scan.threshold[1]})",
    ]
