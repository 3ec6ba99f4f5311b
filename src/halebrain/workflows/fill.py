"""Lesion filling with files: filled scans, alone or of exams, with their sidecars and nothing else."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from halebrain.core.document import read_object
from halebrain.core.errors import cannot_write_into
from halebrain.core.failures import Failures
from halebrain.core.files import write_bytes
from halebrain.core.leftovers import sweep
from halebrain.core.parallel import HERE, Schedule
from halebrain.core.provenance import Provenance
from halebrain.inference.exam_outputs import ExamNames, exam_filled_files
from halebrain.inference.exams import Exam
from halebrain.inference.outputs import REQUESTED, OutputNames, filled_files
from halebrain.inference.scans import ScanInput, find_scans
from halebrain.io.checksum import json_sha256
from halebrain.io.discovery import Found
from halebrain.thresholds.exam import healthy_score
from halebrain.workflows.detect import describe_scan
from halebrain.workflows.detections import Detections, Place, Run, run_items
from halebrain.workflows.detector import Detector, find_anomalies
from halebrain.workflows.earlier import refuse_different
from halebrain.workflows.exam import begin_exams, report_alone
from halebrain.workflows.exam_detector import find_exam
from halebrain.workflows.exam_scans import read_described
from halebrain.workflows.scan_steps import ExamSteps, ScanSteps, begin_exam, begin_scan
from halebrain.workflows.settings import WHOLE, DetectSettings, PartSettings

_AGAIN = "use --overwrite, or remove it"
_SETTINGS = ("threshold", "grow_to", "modality", "min_lesion_mm3", "brain")
"""Settings that the sidecar states as they were given."""
_MADE_WITH = (
    "input_sha256",
    "input_space",
    "brain_mask_sha256",
    "fill_mask_sha256",
    "fill_margin_mm",
    "model_sha256",
    "seed",
    "draws",
    "precision",
)
"""What it states of the provenance, besides the noise levels."""


@dataclass(frozen=True)
class FilledScan:
    """The files of one filled scan, and what they say.

    Args:
        scan: Name of the scan.
        folder: Where the files are.
        filled: The lesion-filled scan.
        sidecar: What was filled, and how.
        filled_ml: Volume that was filled; 0 = the filled scan is the scan itself.
        flags: Quality flags.
    """

    scan: str
    folder: Path
    filled: Path
    sidecar: Path
    filled_ml: float
    flags: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object; paths stay paths."""
        return vars(self) | {"flags": list(self.flags)}


def fill_scans(
    source: Path,
    output: Path,
    settings: DetectSettings,
    *,
    brain_mask: Path | None = None,
    fill_mask: Path | None = None,
    schedule: Schedule = HERE,
    part: PartSettings = WHOLE,
    done: Callable[[FilledScan], None] = lambda _: None,
) -> Detections[FilledScan]:
    """Write the lesion-filled scan of every scan of an input; one that fails does not stop the others.

    Args:
        source: A scan, a folder, a BIDS data set, a list, or a manifest.
        output: Output folder.
        settings: How, with `fill`.
        brain_mask: Brain mask of a single scan.
        fill_mask: What is filled in a single scan; `None` = what is found.
        schedule: Where scans are filled.
        part: Which of them.
        done: Called after each scan.

    Raises:
        HalebrainError: Input, model or a setting cannot be used, or the only scan failed.
    """
    scans = find_scans(source, brain_mask=brain_mask, fill_mask=fill_mask)
    dataset = None if scans[0].in_dataset is None else source
    single = len(scans) == 1 and (scans[0].image == source or not source.is_dir())
    failures = Failures(output, settings.notify)
    run = Run(output, settings, failures, dataset=dataset, single=single, schedule=schedule)
    scans = Found(part.own(scans), scans.left_out)
    return run_items(scans, _fill_one, run, description="Filling", with_index=False, done=done)


def _fill_one(place: Place, scan: ScanInput) -> FilledScan:
    """Fill one scan in its folder below that of the run."""
    steps = begin_scan(place.bar, scan, place.detector.predictor, named=place.named)
    return fill_scan(place.detector, scan, place.folder(scan.folder), steps=steps)


def fill_scan(detector: Detector, scan: ScanInput, folder: Path, *, steps: ScanSteps | None = None) -> FilledScan:
    """Fill one scan and write it with its sidecar; finished ones with the same settings are kept, others refused."""
    scan.check()
    names = OutputNames(folder, scan.name)
    sweep(folder)
    requested = describe_scan(detector, scan)
    asked = _asked(detector, requested)
    if names.filled_sidecar.exists() and not detector.settings.overwrite:
        stated = read_object(names.filled_sidecar, "the sidecar of a filled scan", _AGAIN)
        refuse_different("filled scans", _differences(stated.get(REQUESTED), asked), folder)
        if names.filled.exists():
            return _stated(names, stated)
    found = find_anomalies(detector, scan, requested, steps=steps)
    if found.filling is None:
        raise ValueError("the detector must fill")
    files = filled_files(names, found.made, found.filling, {REQUESTED: asked})
    _write(folder, files, [names.filled_sidecar])
    for flag in found.made.qc.flags:
        detector.settings.notify(f"warning: {scan.name}: {flag}")
    return _stated(names, json.loads(files[names.filled_sidecar]))


@dataclass(frozen=True)
class FilledExam:
    """The filled scans of one exam.

    Args:
        exam: Name of the exam.
        folder: Where the files are.
        scans: The filled scans, the reference first.
        flags: Quality flags of the exam.
    """

    exam: str
    folder: Path
    scans: tuple[FilledScan, ...]
    flags: tuple[str, ...]

    @property
    def filled_ml(self) -> float:
        """Volume that was filled in all its scans."""
        return sum(scan.filled_ml for scan in self.scans)

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object; paths stay paths."""
        return vars(self) | {"scans": [scan.to_json() for scan in self.scans], "flags": list(self.flags)}


def fill_exams(
    sources: Sequence[Path],
    output: Path,
    settings: DetectSettings,
    *,
    fusion: str,
    schedule: Schedule = HERE,
    part: PartSettings = WHOLE,
    done: Callable[[FilledExam], None] = lambda _: None,
) -> Detections[FilledExam]:
    """Write the lesion-filled scans of every exam of an input; one exam that fails does not stop the others.

    The input is that of `find_exams`; each scan is filled where the mask of its exam is. `fusion` is a name in
    `FUSIONS`. `schedule` says where, and `part` which of them. `done` is called after each exam.
    """
    exams, run = begin_exams(sources, output, settings, fusion=fusion, schedule=schedule, part=part)
    report_alone(exams, settings)
    return run_items(exams, partial(_fill_exam_of, fusion), run, description="Filling", with_index=False, done=done)


def _fill_exam_of(fusion: str, place: Place, exam: Exam) -> FilledExam:
    """Fill one exam in its folder below that of the run."""
    steps = begin_exam(place.bar, exam, place.detector.predictor, named=place.named)
    return fill_exam(place.detector, exam, place.folder(exam.folder), fusion=fusion, steps=steps)


def fill_exam(
    detector: Detector, exam: Exam, folder: Path, *, fusion: str, steps: ExamSteps | None = None
) -> FilledExam:
    """Fill the scans of one exam; finished ones with the same settings are kept, others refused."""
    names, steps = ExamNames(folder, exam.name), steps or ExamSteps()
    sweep(folder)
    read = read_described(detector, exam)
    fused = len(exam.scans) > 1
    scans = {name: _asked(detector, read.requested[name], fused=fused) for name in sorted(read.requested)}
    asked: dict[str, Any] = {"fusion": fusion, "scans": scans}
    about = {"Exam": exam.name, REQUESTED: asked}
    if not detector.settings.overwrite and (kept := _filled_before(names, exam, asked)) is not None:
        return kept
    found = find_exam(detector, exam, fusion=fusion, described=read, tell=steps.tell)
    about |= {"ExamScans": [part.name for part in found.parts], "ExamFlags": list(found.made.flags)}
    files: dict[Path, bytes] = {}
    for part in found.parts:
        files |= exam_filled_files(names, found.made, part.name, part.filling, about)
    every = [names.scan(scan.name) for scan in exam.scans]
    _write(folder, files, [path for one in every for path in (one.filled_sidecar, one.filled)])
    for flag in found.made.flags:
        detector.settings.notify(f"warning: {exam.name}: {flag}")
    filled = [_stated(names.scan(p.name), json.loads(files[names.scan(p.name).filled_sidecar])) for p in found.parts]
    return FilledExam(exam.name, folder, tuple(filled), found.made.flags)


def _filled_before(names: ExamNames, exam: Exam, asked: Mapping[str, Any]) -> FilledExam | None:
    """Return the filled scans of an earlier run with these settings if all are there, else `None`."""
    sidecars = [path for scan in exam.scans if (path := names.scan(scan.name).filled_sidecar).exists()]
    stated = [read_object(path, "the sidecar of a filled scan", _AGAIN) for path in sidecars]
    for one in stated:
        refuse_different("filled scans", _exam_differences(one.get(REQUESTED), asked), names.folder)
    wanted = [names.scan(str(name)) for one in stated[:1] for name in one["ExamScans"]]
    if not wanted or not all(one.filled.exists() and one.filled_sidecar.exists() for one in wanted):
        return None
    scans = [_stated(one, read_object(one.filled_sidecar, "the sidecar of a filled scan", _AGAIN)) for one in wanted]
    return FilledExam(exam.name, names.folder, tuple(scans), tuple(stated[0]["ExamFlags"]))


def _write(folder: Path, files: Mapping[Path, bytes], earlier: Sequence[Path]) -> None:
    """Write files into a folder in the place of earlier ones, sidecars last: with all of them, a result is complete."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in earlier:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write_into(folder, error) from error
    for path in sorted(files, key=lambda path: path.suffix == ".json"):
        write_bytes(path, files[path])


def _asked(detector: Detector, requested: Provenance, *, fused: bool = False) -> dict[str, Any]:
    """Return what a filled scan depends on, as its sidecar states it; `fused` says whether its exam has other scans."""
    given = requested.fill_mask_sha256 is not None
    return {
        **{name: getattr(requested, name) for name in _MADE_WITH},
        "levels": list(requested.levels),
        **{name: getattr(detector.settings, name) for name in _SETTINGS},
        "calibration": None if given else _calibrated(detector, fused=fused),
    }


def _calibrated(detector: Detector, *, fused: bool) -> str:
    """Return a hash of all in a calibration that decides what is found; where scores are fused, of their scale too."""
    selector, calibration = detector.selector, detector.selector.calibration

    def used(contrast: str | None) -> list[float | None]:
        chosen = selector.at(contrast)
        return [chosen.value, chosen.grow_to, healthy_score(calibration, contrast) if fused else None]

    names = () if calibration is None else sorted(calibration.modalities)
    own = {name: used(name) for name in names if fused or "+" not in name}  # "FLAIR+T1w" is an exam
    fusion = calibration.fusion if fused and calibration is not None else None
    return json_sha256([used(None), {name: one for name, one in own.items() if one != used(None)}, fusion])


def _differences(stated: object, asked: Mapping[str, Any]) -> list[str]:
    """Return what a filled scan was made with otherwise than `asked`; what an older sidecar lacks cannot differ."""
    if not isinstance(stated, dict) or "input_sha256" not in stated:  # as those of an exam
        return ["way of filling"]
    return [name.replace("_", " ") for name, value in asked.items() if name in stated and stated[name] != value]


def _exam_differences(stated: object, asked: Mapping[str, Any]) -> list[str]:
    """Return what the filled scans of an exam were made with otherwise."""
    if not isinstance(stated, dict) or stated.get("scans", {}).keys() != asked["scans"].keys():
        return ["set of scans"]
    found = [] if stated.get("fusion") == asked["fusion"] else ["fusion"]
    return found + [word for name, own in asked["scans"].items() for word in _differences(stated["scans"][name], own)]


def _stated(names: OutputNames, sidecar: dict[str, Any]) -> FilledScan:
    return FilledScan(
        scan=names.stem,
        folder=names.folder,
        filled=names.filled,
        sidecar=names.filled_sidecar,
        filled_ml=float(sidecar["FilledVolumeMl"]),
        flags=tuple(sidecar["QualityFlags"]),
    )
