"""The scans of an exam: what is known before they are opened, how each is read, and which of them are fused."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from halebrain.core.errors import HalebrainError
from halebrain.core.modality import ScanContrast, find_contrast
from halebrain.core.provenance import Provenance
from halebrain.inference.exams import Exam, contrast_by_name, is_known_contrast
from halebrain.inference.scans import ScanInput
from halebrain.io.volume import read_mask
from halebrain.preprocessing.exam import AlignedExam, AlignedScan
from halebrain.preprocessing.exam_brains import ExamScan
from halebrain.workflows.detect import describe_scan
from halebrain.workflows.detector import Detector, judge_quality


@dataclass(frozen=True)
class DescribedScans:
    """What is known of scans before they are opened: the provenance of each, and those that cannot be read."""

    requested: Mapping[str, Provenance]
    failed: Mapping[str, str]

    def sha256_of(self, names: Iterable[str]) -> dict[str, str] | None:
        """Return the hashes of the files of scans, of those that could be read; `None` where scans are in memory."""
        if any(made.input_sha256 is None for made in self.requested.values()):
            return None
        return {name: str(self.requested[name].input_sha256) for name in names if name in self.requested}


def read_described(detector: Detector, exam: Exam) -> DescribedScans:
    """Return what is known of the scans of an exam before they are opened; their files are hashed.

    The error of the only scan is raised.
    """
    requested, failed = {}, {}
    for scan in exam.scans:
        try:
            scan.check()
            requested[scan.name] = describe_scan(detector, scan)
        except HalebrainError as error:
            if exam.is_alone:
                raise
            failed[scan.name] = str(error)
    return DescribedScans(requested, failed)


def open_scan(scan: ScanInput) -> tuple[ExamScan, tuple[str, ...]]:
    """Return one scan as it was read, with what was assumed on reading."""
    volume = scan.read()
    notes = list(volume.notes)
    mask = None if scan.brain_mask is None else read_mask(scan.brain_mask, volume, notes)
    return ExamScan(scan.name, volume, scan.file, mask, scan.space, contrast_by_name(scan)), tuple(notes)


@dataclass(frozen=True)
class ChosenScan:
    """A scan that takes part in the fusion."""

    aligned: AlignedScan
    contrast: ScanContrast


def choose_scans(
    detector: Detector, exam: Exam, aligned: AlignedExam, notes: Mapping[str, tuple[str, ...]]
) -> tuple[list[ChosenScan], dict[str, str]]:
    """Return the scans that are fused, the best of each contrast that is like the training data, and the others."""
    inputs = {scan.name: scan for scan in exam.scans}
    not_used, chosen = dict[str, str](), list[ChosenScan]()
    several = len(aligned.scans) > 1
    for one in aligned.scans:
        given = inputs[one.name]
        contrast, line = _contrast(detector, given, one.scan.qc.inferred_contrast)
        qc = judge_quality(detector.predictor, one.scan.qc, notes.get(one.name, ()), contrast).flagged(line)
        chosen.append(ChosenScan(replace(one, scan=replace(one.scan, qc=qc)), contrast))
    usable = [one for one in chosen if not one.aligned.scan.qc.out_of_distribution]
    if several and usable:
        for other in chosen:
            reasons = other.aligned.scan.qc.out_of_distribution_reasons
            if other not in usable:
                not_used[other.aligned.name] = reasons[0] if reasons else "out of distribution"
        chosen = usable
    kept: dict[str, str] = {}
    fused = []
    for each in chosen:
        name = each.contrast.name
        if name is not None and name in kept:
            spacing = f"{max(each.aligned.volume.spacing_mm):.3g} mm"
            not_used[each.aligned.name] = (
                f"a second {name} ({spacing}); {kept[name]}, which is as good or better, is used"
            )
            continue
        if name is not None:
            kept[name] = each.aligned.name
        fused.append(each)
    return fused, not_used


def scan_flags(aligned: AlignedExam, fused: Sequence[ChosenScan], not_used: Mapping[str, str]) -> list[str]:
    """Return the flags of the scans, each after the contrast where there are several."""
    flags = [f"{name} is not used: {reason}" for name, reason in not_used.items()]
    for each in fused:
        label = each.contrast.name or each.aligned.name
        own = each.aligned.scan.qc.flags
        flags += [f"{label}: {flag}" if len(aligned.scans) > 1 else flag for flag in own]
    return flags


def _contrast(detector: Detector, scan: ScanInput, inferred: str | None) -> tuple[ScanContrast, str | None]:
    """Return the contrast of a scan, and a flag where the declared word is not known and the image is used instead."""
    found = find_contrast(detector.settings.modality, scan.modality, scan.named, inferred)
    if found.declared is None or found.known_from == "option" or is_known_contrast(found.declared):
        return found, None
    other = find_contrast("auto", None, "", inferred)
    said = f"the contrast '{found.declared}' of the {found.known_from} is not known"
    return other, f"{said}; {other.name or 'no contrast'} is inferred from the image"
