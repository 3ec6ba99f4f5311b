"""Findings of an exam, and its files: on the grid of the reference and on that of every scan; all of them or none."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from halebrain.core.errors import DataError
from halebrain.core.exam_provenance import ExamProvenance, read_exam_provenance
from halebrain.core.files import write_text, write_together
from halebrain.core.parallel import map_threads
from halebrain.core.provenance import ChosenThreshold, Provenance
from halebrain.core.types import SCORE_STEP, Affine, FloatArray, Lesion, MaskArray, Placement, ScanResult
from halebrain.inference.filling import Filling
from halebrain.inference.lesions import COLUMNS, read_lesions
from halebrain.inference.outputs import (
    RAW,
    OutputNames,
    filled_files,
    model_entries,
    origin_entries,
    replaced_filled,
    sidecars,
    threshold_entries,
)
from halebrain.io.nifti import write_volume
from halebrain.io.tables import MISSING, read_table, tsv_text

_AGAIN = "run halebrain detect --exam --overwrite"


@dataclass(frozen=True)
class Support:
    """What one contrast alone shows of a finding.

    Args:
        scan: Name of the scan.
        contrast: Its contrast; `None` = not known.
        seen: Share of the finding that lies in the brain of the scan; `None` = read from a table, which lacks it.
        share: Share of what is seen where the contrast alone reaches its own threshold; `None` = nothing is seen.
        peak_score: Highest score of the contrast alone in the finding; `None` = nothing is seen.
    """

    scan: str
    contrast: str | None
    seen: float | None
    share: float | None
    peak_score: float | None


@dataclass(frozen=True)
class ExamFinding:
    """A finding of an exam on the grid of the reference, and what each contrast alone shows of it."""

    lesion: Lesion
    support: tuple[Support, ...]


@dataclass(frozen=True)
class OwnScore:
    """The score of one contrast alone on the grid of the reference, with its brain there and its own threshold."""

    scan: str
    contrast: str | None
    score: FloatArray
    inside: MaskArray
    threshold: float


def exam_findings(mask: MaskArray, lesions: Sequence[Lesion], own: Sequence[OwnScore]) -> list[ExamFinding]:
    """Return the findings of an exam with what each contrast alone shows of them.

    Args:
        mask: The mask of the exam on the grid of the reference.
        lesions: Its connected components, largest first (`lesion_table`).
        own: The score of each contrast alone on that grid.
    """
    labels, _ = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    found = []
    for lesion in lesions:
        inside = labels == labels[lesion.peak]
        found.append(ExamFinding(lesion, tuple(_support(inside, one) for one in own)))
    return found


def _support(finding: MaskArray, own: OwnScore) -> Support:
    seen = finding & own.inside
    share, peak = None, None
    if seen.any():
        values = own.score[seen]
        share, peak = round(float((values >= own.threshold).mean()), 3), round(float(values.max()), 4)
    return Support(own.scan, own.contrast, round(float(seen.sum() / finding.sum()), 3), share, peak)


@dataclass(frozen=True)
class ExamNames:
    """Names of the files of an exam; those of its scans are `OutputNames` in the same folder."""

    folder: Path
    stem: str

    def _file(self, what: str, ending: str) -> Path:
        return self.folder / f"{self.stem}_desc-exam_{what}{ending}"

    @property
    def provenance(self) -> Path:
        """The provenance JSON; written last, so its presence marks a complete result."""
        return self._file("provenance", ".json")

    @property
    def findings(self) -> Path:
        """The table of findings."""
        return self._file("findings", ".tsv")

    @property
    def page(self) -> Path:
        """The page with the linked viewers."""
        return self._file("report", ".html")

    @property
    def mosaic(self) -> Path:
        """The picture."""
        return self._file("mosaic", ".png")

    @property
    def thumbnail(self) -> Path:
        """The small picture that the page of many exams shows."""
        return self._file("thumbnail", ".jpg")

    @property
    def display(self) -> Path:
        """The scans as the page shows them, from which `halebrain report` makes the page again."""
        return self._file("display", ".npz")

    @property
    def review(self) -> Path:
        """The table of a reader's decisions on the findings; detection neither writes nor removes it."""
        return self._file("review", ".tsv")

    def scan(self, name: str) -> OutputNames:
        """Return the names of the files of one of its scans."""
        return OutputNames(self.folder, name)

    def score(self, name: str) -> Path:
        """Return the exam's score on the grid of one of its scans."""
        return self.scan(name).file("exam", "probseg")

    def mask(self, name: str) -> Path:
        """Return the exam's mask on the grid of one of its scans."""
        return self.scan(name).file("exam", "mask")

    def segmentation(self, name: str) -> Path:
        """Return the mask as DICOM-SEG, where it is asked for."""
        return self.scan(name).file("exam", "seg", ".dcm")

    def optional(self, name: str) -> list[Path]:
        """Return the files of one of its scans that not every run writes, which another result removes."""
        return [self.segmentation(name), *replaced_filled(self.scan(name))]

    def promised(self, scans: Sequence[str], *, filled: bool = False) -> list[Path]:
        """Return every file of an exam of some scans, without a DICOM-SEG; with the filled scans if asked for."""
        own = [path for name in scans for path in _scan_files(self.scan(name))]
        if filled:
            names = [self.scan(name) for name in scans]
            own += [path for one in names for path in (one.filled, one.filled_sidecar)]
        pages = [self.page, self.mosaic, self.thumbnail, self.display]
        return [self.findings, self.findings.with_suffix(".json"), *pages, *own, self.provenance]


@dataclass(frozen=True)
class DetectedExam:
    """The files of one exam, and what they say.

    Args:
        exam: Name of the exam.
        folder: Where the files are.
        report: The page.
        findings: The table of findings.
        provenance: The provenance.
        reference: Name of the scan on whose grid findings are given.
        scores: Scan → the exam's score on its grid.
        masks: Scan → the exam's mask on its grid.
        contrasts: Scan → its contrast; `None` = not known.
        n_findings: Connected components of the mask.
        findings_ml: Their volume.
        exam_score: Score of the whole exam.
        exam_score_percentile: Its place among healthy exams of the same contrasts.
        threshold: The threshold.
        out_of_distribution: Whether quality control calls the result unreliable.
        flags: Quality flags.
        not_used: Scans that are not used, with the reason.
        model: Name of the model.
        model_sha256: Its hash.
        filled: Scan → it with the exam's mask filled, where it was asked for.
        filled_ml: Scan → volume that was filled in it.
    """

    exam: str
    folder: Path
    report: Path
    findings: Path
    provenance: Path
    reference: str
    scores: Mapping[str, Path]
    masks: Mapping[str, Path]
    contrasts: Mapping[str, str | None]
    n_findings: int | None
    findings_ml: float | None
    exam_score: float | None
    exam_score_percentile: float | None
    threshold: ChosenThreshold
    out_of_distribution: bool
    flags: tuple[str, ...]
    not_used: Mapping[str, str]
    model: str | None
    model_sha256: str | None
    filled: Mapping[str, Path] = field(default_factory=dict)
    filled_ml: Mapping[str, float | None] = field(default_factory=dict)

    @classmethod
    def of(cls, names: ExamNames, made: ExamProvenance) -> "DetectedExam":
        """Return what the provenance of an exam says."""
        scans = [scan.scan for scan in made.scans]
        filled = [scan for scan in made.scans if scan.provenance.fill_margin_mm is not None]
        return cls(
            exam=made.exam,
            folder=names.folder,
            report=names.page,
            findings=names.findings,
            provenance=names.provenance,
            reference=made.reference,
            scores={name: names.score(name) for name in scans},
            masks={name: names.mask(name) for name in scans},
            contrasts={scan.scan: scan.contrast for scan in made.scans},
            n_findings=made.n_findings,
            findings_ml=made.findings_ml,
            exam_score=made.exam_score,
            exam_score_percentile=made.exam_score_percentile,
            threshold=made.threshold,
            out_of_distribution=made.quality.out_of_distribution,
            flags=made.flags,
            not_used=made.not_used,
            model=made.model,
            model_sha256=made.model_sha256,
            filled={scan.scan: names.scan(scan.scan).filled for scan in filled},
            filled_ml={scan.scan: scan.provenance.filled_ml for scan in filled},
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object; paths stay paths."""
        return vars(self) | {"threshold": self.threshold.to_json(), "flags": list(self.flags)}


@dataclass(frozen=True)
class ExamScanFiles:
    """What is written of one scan of an exam, on its own grid.

    Args:
        name: Its name.
        mask: The exam's mask.
        affine: Voxel-to-world of the grid.
        placement: How the scan states it.
        score: The exam's score; `None` = score and maps are there already and stay.
        result: Maps of the contrast alone; `None` as for `score`.
        filling: The scan with the exam's mask filled, where it is asked for.
    """

    name: str
    mask: MaskArray
    affine: Affine
    placement: Placement | None
    score: FloatArray | None = None
    result: ScanResult | None = None
    filling: Filling | None = None


_OWN = (("anomaly", "probseg"), ("brain", "mask"), ("pseudohealthy", ""), ("residual", ""))
"""Maps of each contrast alone that are written."""
_OF_EXAM: dict[tuple[str, str], dict[str, Any]] = {
    ("exam", "probseg"): {
        "Description": "Anomaly score of the exam, all contrasts fused, 0 to 1, higher = more anomalous."
    },
    ("exam", "mask"): {"Description": "Voxels where the score of the exam reaches its threshold.", "Type": "Lesion"},
}


def _scan_files(names: OutputNames) -> list[Path]:
    images = [*_OF_EXAM, *_OWN]
    return [names.file(*image, ending) for image in images for ending in (".nii.gz", ".json")]


def write_exam(
    names: ExamNames,
    scans: Sequence[ExamScanFiles],
    findings: Sequence[ExamFinding],
    made: ExamProvenance,
    draw: Callable[[], Mapping[Path, bytes]],
    *,
    threads: int = 1,
) -> list[Path]:
    """Write every file of an exam into `names.folder`, whole or not at all; return the paths.

    `draw` makes more files (the page), by final path, while maps are compressed in other threads. Files that are there
    and not written again, as maps are for another threshold, stay; those of scans that are not used now are removed.
    """

    def write_all(staging: Path) -> None:
        staged = ExamNames(staging, names.stem)

        def write(scan: ExamScanFiles | None) -> None:
            if scan is not None:
                _write_scan(staged, scan, made)
                return
            for path, raw in draw().items():
                (staging / path.name).write_bytes(raw)

        map_threads(write, [None, *scans], threads=threads)
        write_text(staged.findings, findings_tsv(findings, made))
        columns = findings_columns(made)
        write_text(staged.findings.with_suffix(".json"), json.dumps(columns, indent=2) + "\n")
        write_text(staged.provenance, json.dumps(made.to_json(), indent=2) + "\n")

    earlier = _files_of_unused(names, made) + [path for scan in scans for path in names.optional(scan.name)]
    return write_together(names.provenance, write_all, earlier=earlier)


def _files_of_unused(names: ExamNames, made: ExamProvenance) -> list[Path]:
    """Return the files, which an earlier result may have left, of scans that are not used or not there any more."""
    unused = set(made.not_used)
    with suppress(FileNotFoundError, DataError):
        unused |= {scan.scan for scan in read_exam_provenance(names.provenance).scans}
    unused -= {scan.scan for scan in made.scans}
    return [path for name in unused for path in (*_scan_files(names.scan(name)), *names.optional(name))]


def exam_filled_files(
    names: ExamNames, made: ExamProvenance, scan: str, filling: Filling | None, more: Mapping[str, object] | None = None
) -> dict[Path, bytes]:
    """Return the lesion-filled scan of an exam and its sidecar by final path; nothing where it was not asked for.

    The sidecar states the threshold, contrasts and fusion of the exam; `more` are further keys of it.
    """
    if filling is None:
        return {}
    own = next(one.provenance for one in made.scans if one.scan == scan)
    about = {"Contrasts": list(made.contrasts), "Fusion": made.fusion, **(more or {})}
    return filled_files(names.scan(scan), replace(own, threshold=made.threshold), filling, about)


def _write_scan(staged: ExamNames, scan: ExamScanFiles, made: ExamProvenance) -> None:
    """Write the maps of one scan with their sidecars, and the filled scan where it was asked for."""
    result, names = scan.result, staged.scan(scan.name)

    def write(image: tuple[str, str], data: npt.NDArray[Any], dtype: npt.DTypeLike, scale: float = 1.0) -> None:
        write_volume(names.file(*image), data, scan.affine, dtype=dtype, scale=scale, placement=scan.placement)

    write(("exam", "mask"), scan.mask, np.uint8)
    if scan.score is not None and result is not None:
        write(("exam", "probseg"), scan.score, np.uint16, SCORE_STEP)
        write(("anomaly", "probseg"), result.score, np.uint16, SCORE_STEP)
        write(("brain", "mask"), result.brain_mask, np.uint8)
        write(("pseudohealthy", ""), result.reconstruction, np.float32)
        write(("residual", ""), result.residual, np.float32)
    own = next(one.provenance for one in made.scans if one.scan == scan.name)
    of_scan = sidecars(own)
    jsons = _exam_sidecars(made, own) | {image: of_scan[image] for image in _OWN}
    for image, content in jsons.items():
        write_text(names.file(*image, ".json"), json.dumps(content, indent=2) + "\n")
    for path, raw in exam_filled_files(staged, made, scan.name, scan.filling).items():
        path.write_bytes(raw)


def _exam_sidecars(made: ExamProvenance, own: Provenance) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the sidecars of what belongs to the exam, on the grid of a scan with its `own` provenance."""
    places = [scan.provenance.input_in_dataset for scan in made.scans]
    sources = [f"bids:{RAW}:{place}" for place in places if place is not None]
    about: dict[str, object] = {**origin_entries(own), **model_entries(own)}
    about |= {"Contrasts": [scan.contrast for scan in made.scans], "Fusion": made.fusion}
    if sources:
        about["Sources"] = sources
    found = {image: {**said, **about} for image, said in _OF_EXAM.items()}
    found["exam", "mask"] |= threshold_entries(made.threshold)
    return found


def labels_of(made: ExamProvenance) -> list[str]:
    """Return how the columns of each scan are named: its contrast, or its name where that is not known."""
    return [scan.contrast or scan.scan for scan in made.scans]


def findings_columns(made: ExamProvenance) -> dict[str, dict[str, str]]:
    """Return the description of each column of the table of findings."""
    found = dict(COLUMNS)
    for label in labels_of(made):
        seen = f"n/a where {label} shows nothing of the finding"
        found[f"share_{label}"] = {
            "Description": f"Share of what {label} shows of the finding where {label} alone reaches its own threshold, "
            f"0 to 1; {seen}."
        }
        found[f"peak_{label}"] = {"Description": f"Highest score of {label} alone in the finding, 0 to 1; {seen}."}
    return found


def read_findings(path: Path, made: ExamProvenance) -> list[ExamFinding]:
    """Return the findings of a written table."""
    lesions = read_lesions(path)
    rows = read_table(path, what="a table of findings", remedy=_AGAIN).rows
    found = []
    try:
        for lesion, row in zip(lesions, rows, strict=True):
            support = [
                Support(scan.scan, scan.contrast, None, _number(row[f"share_{label}"]), _number(row[f"peak_{label}"]))
                for label, scan in zip(labels_of(made), made.scans, strict=True)
            ]
            found.append(ExamFinding(lesion, tuple(support)))
    except (KeyError, ValueError) as error:
        raise DataError(
            "a table of findings must have every column", received=repr(error), where=path, remedy=_AGAIN
        ) from error
    return found


def _number(cell: str) -> float | None:
    return None if cell == MISSING else float(cell)


def findings_tsv(findings: Sequence[ExamFinding], made: ExamProvenance) -> str:
    """Return the table of findings as TSV text, with its header even where there is no row."""
    rows: list[list[object]] = [list(findings_columns(made))]
    for finding in findings:
        own = [getattr(finding.lesion, field.name) for field in fields(Lesion)]
        for support in finding.support:
            own += [MISSING if value is None else value for value in (support.share, support.peak_score)]
        rows.append(own)
    return tsv_text(rows)
