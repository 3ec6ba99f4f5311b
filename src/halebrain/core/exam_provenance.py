"""What the result of an exam says of itself: its scans, how they were fused, and its threshold."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from halebrain.core.document import Document, read_object
from halebrain.core.provenance import ChosenThreshold, Provenance, QualityReport

ENDING = "_desc-exam_provenance.json"
"""How the name of the provenance of an exam ends."""
_AGAIN = "run halebrain detect --exam --overwrite, or remove it"
_Row = tuple[float, float, float, float]
Rows = tuple[_Row, _Row, _Row, _Row]


@dataclass(frozen=True, kw_only=True)
class ExamScanProvenance(Document):
    """One scan of an exam.

    Args:
        scan: Its name.
        provenance: What was done to it; its score is that of the contrast alone.
        contrast: Its contrast, a BIDS suffix; `None` = not known.
        contrast_known_from: "option", "manifest", "file name", "image" or "nothing".
        threshold: Threshold of the contrast alone.
        healthy_score: Score of the contrast that became the common zero of the evidence.
        spacing_mm: Voxel size.
        to_reference: World-to-world matrix from the scan to the reference scan, mm, RAS.
        apart_mm: Mean distance between the registration of the scan itself to the template and that through the
            reference; `None` = there is one only.
    """

    scan: str
    provenance: Provenance
    contrast: str | None = None
    contrast_known_from: str | None = None
    threshold: float | None = None
    healthy_score: float | None = None
    spacing_mm: tuple[float, float, float] | None = None
    to_reference: Rows | None = None
    apart_mm: float | None = None


@dataclass(frozen=True, kw_only=True)
class ExamProvenance(Document):
    """How the result of an exam was made.

    Args:
        exam: Its name.
        reason: Why its scans belong together.
        subject: Label of the person, where the input states one.
        session: Label of the session, where the input states one.
        reference: The scan on whose grid findings are given.
        reference_reason: Why it is that one.
        fusion: How the contrasts were fused.
        scans: The scans that were used, the reference first.
        not_used: The others: name → reason.
        not_used_sha256: Hashes of their files, of those that could be read; `None` = in memory.
        threshold: The threshold of the exam.
        exam_score: Mean fused score of the highest millilitre.
        exam_score_percentile: Percentage of healthy exams of the same contrasts that score lower; `None` = not known.
        exam_score_n_healthy: Number of those exams.
        exam_score_note: Why there is no percentile.
        n_findings: Connected components of the mask on the grid of the reference.
        findings_ml: Their volume.
        flags: What a user should check, one line each.
        model: Name of the model.
        model_sha256: Its hash.
        notice: Research use only.
        seconds: Duration.
    """

    exam: str
    reason: str
    subject: str | None = None
    session: str | None = None
    reference: str
    reference_reason: str
    fusion: str
    scans: tuple[ExamScanProvenance, ...]
    not_used: Mapping[str, str]
    not_used_sha256: Mapping[str, str] | None = None
    threshold: ChosenThreshold
    exam_score: float | None = None
    exam_score_percentile: float | None = None
    exam_score_n_healthy: int | None = None
    exam_score_note: str | None = None
    n_findings: int | None = None
    findings_ml: float | None = None
    flags: tuple[str, ...] = ()
    model: str | None = None
    model_sha256: str | None = None
    notice: str | None = None
    seconds: float | None = None

    @property
    def contrasts(self) -> tuple[str | None, ...]:
        """The contrasts that were fused, in the order of the scans."""
        return tuple(scan.contrast for scan in self.scans)

    @property
    def as_of_scan(self) -> Provenance:
        """The provenance of the reference with the figures of the exam, as the head of a page shows them."""
        return replace(
            self.scans[0].provenance,
            scan=self.exam,
            qc=self.quality,
            threshold=self.threshold,
            scan_score=self.exam_score,
            scan_score_percentile=self.exam_score_percentile,
            scan_score_n_healthy=self.exam_score_n_healthy,
            scan_score_note=self.exam_score_note,
            scan_score_healthy=(),
            n_lesions=self.n_findings,
            lesion_volume_ml=self.findings_ml,
            volume_estimate=None,
        )

    @property
    def quality(self) -> QualityReport:
        """The quality of the reference, with the flags of the exam."""
        return replace(self.scans[0].provenance.qc, flags=self.flags)


def read_exam_provenance(path: Path) -> ExamProvenance:
    """Return the provenance of an exam in a file."""
    rule = "the provenance of an exam must be as halebrain detect --exam wrote it"
    found = read_object(path, "the provenance of an exam", _AGAIN)
    return ExamProvenance.from_json(found, rule=rule, where=path, remedy=_AGAIN)
