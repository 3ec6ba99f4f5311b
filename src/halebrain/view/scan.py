"""One detection under review: its files, its decisions, and possible changes."""

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

from halebrain.core.errors import DataError, HalebrainError
from halebrain.core.exam_provenance import ExamProvenance, read_exam_provenance
from halebrain.core.provenance import Provenance, read_provenance
from halebrain.core.types import Lesion
from halebrain.inference.exam_outputs import ExamNames
from halebrain.inference.lesions import read_lesions
from halebrain.inference.outputs import OutputNames
from halebrain.io.checksum import file_sha256
from halebrain.report.index_page import is_of_exam
from halebrain.view.access import RefusalError
from halebrain.view.messages import Decide
from halebrain.view.review import (
    OPEN,
    Decision,
    KnownMask,
    decisions_on,
    earlier_decisions,
    read_review,
    with_decision,
    write_review,
)


@dataclass(frozen=True)
class ViewedFiles:
    """The files of a scan or an exam that a review reads and writes."""

    provenance: Path
    mask: Path
    findings: Path
    review: Path
    segmentation: Path

    @classmethod
    def of_scan(cls, folder: Path, about: Provenance) -> "ViewedFiles":
        """Return the files of a scan."""
        names = OutputNames(folder, str(about.scan))
        mask, table = names.file("anomaly", "mask"), names.file("anomaly", "lesions", ".tsv")
        return cls(names.provenance, mask, table, names.review, names.segmentation)

    @classmethod
    def of_exam(cls, folder: Path, about: ExamProvenance) -> "ViewedFiles":
        """Return the files of an exam; its mask is that on the grid of its reference."""
        names = ExamNames(folder, about.exam)
        reference = about.reference
        return cls(names.provenance, names.mask(reference), names.findings, names.review, names.segmentation(reference))


@dataclass(frozen=True)
class ViewedScan:
    """A scan or an exam under review: its files, the mask that lies there now, and its table.

    `is_filled` says whether that mask was filled in a scan, which another mask removes.
    """

    files: ViewedFiles
    mask: KnownMask
    findings: Sequence[Lesion]
    is_filled: bool

    @classmethod
    def at(cls, page: Path) -> Self:
        """Return the detection that a page shows."""
        provenance = page.with_name(page.name.removesuffix("report.html") + "provenance.json")
        if not provenance.is_file():
            raise DataError(
                "a page must be in the folder of its detection",
                where=page,
                remedy="run halebrain detect on this folder",
            )
        if is_of_exam(provenance):
            exam = read_exam_provenance(provenance)
            files, threshold, name = ViewedFiles.of_exam(page.parent, exam), exam.threshold, exam.exam
            scans = [scan.provenance for scan in exam.scans]
        else:
            about = read_provenance(provenance)
            if about.threshold is None:
                raise DataError(
                    "a provenance file must hold the threshold",
                    where=provenance,
                    remedy="run halebrain detect --overwrite",
                )
            files, threshold, name = ViewedFiles.of_scan(page.parent, about), about.threshold, str(about.scan)
            scans = [about]
        if files.provenance != provenance:
            raise DataError(
                "a provenance file must name its own scan",
                received=name,
                where=provenance,
                remedy="restore the original file names",
            )
        mask = KnownMask(file_sha256(files.mask), threshold.value, threshold.min_lesion_mm3)
        is_filled = any(one.fill_margin_mm is not None and one.fill_mask_sha256 is None for one in scans)
        return cls(files, mask, read_lesions(files.findings), is_filled)

    def check_mask(self, sha256: str) -> None:
        """Refuse what was asked for on the page of another mask."""
        if sha256 != self.mask.sha256:
            raise RefusalError(HTTPStatus.CONFLICT, "the mask has changed: reload the page")

    def decide(self, message: Decide) -> None:
        """Write a decision into the table beside the detection."""
        self.check_mask(message.mask_sha256)
        finding = next((f for f in self.findings if f.lesion == message.lesion), None)
        if finding is None:
            raise RefusalError(HTTPStatus.UNPROCESSABLE_ENTITY, f"this mask has no finding {message.lesion}")
        new = Decision.on(finding, self.mask, message.decision, message.note)
        write_review(self.files.review, with_decision(read_review(self.files.review), new))

    def review(self) -> dict[str, Any]:
        """Return what a page must know to show decisions; JSON-able."""
        known = read_review(self.files.review)
        return {
            "mask_sha256": self.mask.sha256,
            "decisions": _decisions_json(decisions_on(known, self.findings, self.mask.sha256)),
            "earlier": _decisions_json(earlier_decisions(known, self.findings, self.mask.sha256)),
            "segmentation": self.files.segmentation.is_file(),
            "filled": self.is_filled,
        }


def review_count(page: Path) -> str:
    """Return how many findings of a page were decided on ("2 of 5 reviewed"); empty where there is no such table."""
    try:
        if not any(page.parent.glob("*_review.tsv")):
            return ""
        scan = ViewedScan.at(page)
        if not scan.files.review.is_file():
            return ""
        own = decisions_on(read_review(scan.files.review), scan.findings, scan.mask.sha256)
    except HalebrainError as error:
        return f"review: {error}"
    return f"{sum(d.decision != OPEN for d in own.values())} of {len(scan.findings)} reviewed"


def _decisions_json(decisions: dict[int, Decision]) -> dict[str, dict[str, Any]]:
    return {
        str(number): {
            "decision": d.decision,
            "note": d.note,
            "decided_at": d.decided_at,
            "threshold": d.threshold,
            "min_lesion_mm3": d.min_lesion_mm3,
        }
        for number, d in sorted(decisions.items())
    }
