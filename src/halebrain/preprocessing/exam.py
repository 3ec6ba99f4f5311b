"""Geometry of an exam: its scans registered rigidly to one of them, one affine to the template, one brain mask."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar, cast

import numpy as np

from halebrain.core.errors import DataError, HalebrainError
from halebrain.core.parallel import map_threads
from halebrain.core.provenance import ProcessingStep
from halebrain.core.types import Affine, Volume
from halebrain.core.wording import first_of
from halebrain.preprocessing.brain import BrainMask
from halebrain.preprocessing.exam_brains import ExamScan, check_sizes, find_doubts, find_holder, fit_brain, known_brains
from halebrain.preprocessing.geometry import apply_affine
from halebrain.preprocessing.pipeline import Preprocessor, WorkingScan
from halebrain.preprocessing.prepared import as_prepared
from halebrain.preprocessing.registration import Brain, Registration, assess_placement, prepare_brain, register_rigid
from halebrain.preprocessing.template import template_on

R = TypeVar("R")
_COVERS_MM = 110.0
"""Shortest side of a field of view that can hold a whole brain."""
_BEST_FIRST = ("T1w", "T1ce", "FLAIR", "T2w")
"""Contrasts in the order of how reliably their brain is found, where voxels are of one size."""
_APART_MM = 4.0
"""Mean distance of two placements in the brain that is flagged. Affine registrations of one head by its T1, T2 and
FLAIR ended 0.3 to 1.0 mm apart in five real exams."""


@dataclass(frozen=True)
class _Through:
    """The scan through which another one was registered to the template, and the brain of that other one."""

    base: str
    brain: BrainMask
    prepared: Brain


@dataclass(frozen=True)
class AlignedScan:
    """One scan of an exam in the geometry of the exam.

    Args:
        name: Its name.
        volume: Its voxels on its own grid.
        scan: It on the working grid, which is shared by all scans of the exam.
        to_reference: World-to-world matrix from this scan to the reference scan, mm, RAS.
        apart_mm: Mean distance in the brain between the registration of the scan itself to the template and that
            through the reference; `None` = one of them does not exist, or they were not compared.
        through: Through which scan it was registered; `None` = by itself, or not.
    """

    name: str
    volume: Volume
    scan: WorkingScan
    to_reference: Affine
    apart_mm: float | None = None
    through: _Through | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class AlignedExam:
    """The scans of an exam in one geometry.

    Args:
        scans: Those that can be used, the reference first, then by quality.
        reason: Why the first is the reference, a clause.
        failed: Those that cannot be used: name → reason.
        notes: What a user should check, one line each.
    """

    scans: tuple[AlignedScan, ...]
    reason: str
    failed: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


READING, REGISTRATION, PREPROCESSING, COMPARISON = "reading", "registration", "preprocessing", "comparison"
"""Steps of a scan of an exam, in their order."""
Tell = Callable[[str, str], None]
"""Called with a step and the name of the scan that it is done for; from several threads."""


def align_exam(
    preprocessor: Preprocessor,
    scans: Sequence[ExamScan],
    *,
    threads: int = 1,
    tell: Tell = lambda _, __: None,
) -> AlignedExam:
    """Bring the scans of an exam into one geometry.

    The reference is the scan with the best quality: it shows the whole brain, its voxels are small, its brain is known.
    The brain is found in one scan, and its mask is fitted to the others. Stripped scans and those with a mask keep
    their own. All are registered rigidly, and the reference affinely to the template. A single scan is preprocessed as
    without an exam.

    Args:
        preprocessor: What prepares each scan.
        scans: The scans, one at least.
        threads: Scans that are processed at once; the result does not depend on it.
        tell: Called after each step of a scan.

    Raises:
        DataError: No scan can be used, or the sizes of two brains show that they are of two people.
    """
    failed: dict[str, str] = {}
    known = known_brains(preprocessor, scans, failed, threads)
    usable = [scan for scan in scans if scan.name not in failed]
    ranked = sorted(usable, key=lambda scan: _rank(scan, known))
    if len(scans) == 1 or all(_is_placed(preprocessor, scan) for scan in ranked):
        return _each_by_itself(preprocessor, ranked, known, failed, threads=threads, tell=tell)
    holder, brain = find_holder(preprocessor, ranked, known, failed)
    ranked = [scan for scan in ranked if scan.name not in failed]
    notes = check_sizes(ranked, known)
    known.setdefault(holder.name, brain)
    near = _register_all(preprocessor, ranked, holder, known, threads=threads, tell=tell)
    failed |= near.failed
    ranked = [scan for scan in ranked if scan.name in near.rigid]
    notes = (*notes, *(doubt for scan in ranked for doubt in near.doubts.get(scan.name, ())))
    base, registration = _register_one(preprocessor, ranked, known, near.tried)
    if base is not ranked[0]:
        notes = (*notes, f"the affine of {base.name} is used, as that of {ranked[0].name} failed")

    def align(scan: ExamScan) -> AlignedScan | HalebrainError:
        to_scan = near.rigid[scan.name] @ np.linalg.inv(near.rigid[base.name]) @ registration.template_to_native
        try:
            return _aligned(preprocessor, scan, known[scan.name], to_scan, base, registration)
        except HalebrainError as error:
            return error
        finally:
            tell(PREPROCESSING, scan.name)

    results = map_threads(align, ranked, threads=threads)
    return _finished(ranked, _successes(ranked, results, failed), failed, near.rigid, notes)


def _successes(scans: Sequence[ExamScan], results: Sequence[R | HalebrainError], failed: dict[str, str]) -> list[R]:
    """Return the results of scans that are none but errors, which go into `failed`."""
    found = []
    for scan, result in zip(scans, results, strict=True):
        if isinstance(result, HalebrainError):
            failed[scan.name] = str(result)
        else:
            found.append(result)
    return found


@dataclass(frozen=True)
class _Registered:
    """Registrations of the scans of an exam.

    Args:
        rigid: Scan → world-to-world matrix from the holder of the brain mask to it.
        failed: Scan → why it could not be registered.
        tried: Scan → its registration to the template, where that was tried already.
        doubts: Scan → why it may be of another person, or may lie elsewhere than its header says.
    """

    rigid: dict[str, Affine]
    failed: dict[str, str]
    tried: dict[str, Registration | HalebrainError]
    doubts: dict[str, tuple[str, ...]]


def _register_all(
    preprocessor: Preprocessor,
    ranked: Sequence[ExamScan],
    holder: ExamScan,
    known: dict[str, BrainMask],
    *,
    threads: int,
    tell: Tell,
) -> _Registered:
    """Register the scans to the holder of the brain mask, whose mask is fitted to those that have none in `known`.

    At the same time the best scan is registered to the template, where its brain is known.
    """
    brain, best = known[holder.name], ranked[0]
    doubts: dict[str, tuple[str, ...]] = {}
    prepared = prepare_brain(holder.volume, brain.mask)
    both = holder is best and not any(preprocessor.is_placed(scan.space) for scan in ranked)

    def register(scan: ExamScan) -> Registration | Affine | HalebrainError:
        try:
            if scan is holder:
                return preprocessor.register(scan.volume, brain, prepared=prepared)
            own = known.get(scan.name)
            visible = None if own is None else own.mask
            matrix = register_rigid(holder.volume, brain.mask, scan.volume, other_brain=visible, brain=prepared).matrix
            fitted = fit_brain(brain, holder, scan, matrix)
            doubts[scan.name] = find_doubts(brain, holder, scan, own, fitted)
            known.setdefault(scan.name, fitted)
        except HalebrainError as error:
            return error
        else:
            return matrix
        finally:
            tell(REGISTRATION, scan.name)

    todo = [scan for scan in ranked if both or scan is not holder]
    found = _Registered({holder.name: np.eye(4)}, {}, {}, doubts)
    for scan, result in zip(todo, map_threads(register, todo, threads=threads), strict=True):
        if scan is holder:
            found.tried[scan.name] = cast(Registration | HalebrainError, result)
        elif isinstance(result, HalebrainError):
            found.failed[scan.name] = str(result)
        else:
            found.rigid[scan.name] = cast(Affine, result)
    return found


def _is_placed(preprocessor: Preprocessor, scan: ExamScan) -> bool:
    return preprocessor.is_placed(scan.space) or _prepared(preprocessor, scan) is not None


def _prepared(preprocessor: Preprocessor, scan: ExamScan) -> WorkingScan | None:
    """Return a prepared scan unchanged; `None` where it is not a prepared one."""
    if scan.image is None:
        return None
    return as_prepared(scan.volume, scan.image, None, preprocessor.config, mask=scan.brain_mask)


def _rank(scan: ExamScan, known: dict[str, BrainMask]) -> tuple[bool, float, bool, int, float, str]:
    """Return the sort key of quality, best first."""
    covers = min(n * mm for n, mm in zip(scan.volume.shape, scan.volume.spacing_mm, strict=True)) >= _COVERS_MM
    order = _BEST_FIRST.index(scan.contrast) if scan.contrast in _BEST_FIRST else len(_BEST_FIRST)
    spacing = scan.volume.spacing_mm
    return not covers, round(max(spacing), 1), scan.name not in known, order, float(np.prod(spacing)), scan.name


def _each_by_itself(
    preprocessor: Preprocessor,
    ranked: Sequence[ExamScan],
    known: dict[str, BrainMask],
    failed: dict[str, str],
    *,
    threads: int,
    tell: Tell,
) -> AlignedExam:
    """Return scans that are in one geometry already, or a single one."""
    is_only = len(ranked) == 1 and not failed

    def prepare(scan: ExamScan) -> AlignedScan | HalebrainError:
        try:
            # A brain that was found on the way is the one that the preprocessing would find.
            working = _prepared(preprocessor, scan) or preprocessor.run(
                scan.volume, brain_mask=known.get(scan.name), space=scan.space
            )
            return AlignedScan(scan.name, scan.volume, working, np.eye(4))
        except HalebrainError as error:
            if is_only:
                raise
            return error
        finally:
            tell(PREPROCESSING, scan.name)

    results = map_threads(prepare, ranked, threads=threads)
    return _finished(ranked, _successes(ranked, results, failed), failed, {}, ())


def _register_one(
    preprocessor: Preprocessor,
    ranked: Sequence[ExamScan],
    known: dict[str, BrainMask],
    tried: Mapping[str, Registration | HalebrainError],
) -> tuple[ExamScan, Registration]:
    """Return the first scan, by quality, whose registration to the template is reliable, with its registration.

    `tried` are registrations that exist already.
    """
    found: list[tuple[ExamScan, Registration]] = []
    for scan in sorted(ranked, key=lambda one: not preprocessor.is_placed(one.space)):
        if preprocessor.is_placed(scan.space):
            return scan, _assessed(preprocessor, prepare_brain(scan.volume, known[scan.name].mask), np.eye(4), "none")
        try:
            registration = tried.get(scan.name) or preprocessor.register(scan.volume, known[scan.name])
        except DataError:
            continue
        if isinstance(registration, DataError):
            continue
        if isinstance(registration, HalebrainError):
            raise registration
        found.append((scan, registration))
        if not found[-1][1].failed:
            return found[-1]
    if not found:
        raise DataError(
            "one scan of an exam must be registered to the template",
            received=first_of([scan.name for scan in ranked]),
            remedy="check their brain masks",
        )
    return max(found, key=lambda pair: pair[1].nmi)


def _assessed(preprocessor: Preprocessor, brain: Brain, matrix: Affine, engine: str) -> Registration:
    return assess_placement(brain, matrix, template=preprocessor.template, engine=engine)


def _aligned(
    preprocessor: Preprocessor,
    scan: ExamScan,
    brain: BrainMask,
    to_scan: Affine,
    base: ExamScan,
    registration: Registration,
) -> AlignedScan:
    """Return a scan that is preprocessed in the geometry of its exam; `to_scan` leads from the template to it."""
    if scan is base:
        working = preprocessor.run(scan.volume, brain_mask=brain, placement=registration)
        return AlignedScan(scan.name, scan.volume, working, np.eye(4))
    engine = f"{registration.engine}, through {base.name}"
    prepared = prepare_brain(scan.volume, brain.mask)
    placement = _assessed(preprocessor, prepared, to_scan, engine)
    working = preprocessor.run(scan.volume, brain_mask=brain, placement=placement)
    through = None if registration.engine == "none" else _Through(base.name, brain, prepared)
    return AlignedScan(scan.name, scan.volume, working, np.eye(4), through=through)


def compare_registrations(preprocessor: Preprocessor, scan: AlignedScan) -> AlignedScan:
    """Return a scan with how far its own registration to the template and that through another scan are apart.

    A distance of 4 mm or more becomes a flag. The reference, and scans that were not registered, are unchanged.
    """
    through, to_scan = scan.through, scan.scan.template_to_native
    if through is None:
        return scan
    brain = replace(through.brain, template_to_native=to_scan)
    try:
        own = preprocessor.register(scan.volume, brain, prepared=through.prepared)
    except DataError:
        return scan
    if own.failed:
        return scan
    apart_mm = round(_apart_mm(preprocessor, to_scan, own.template_to_native), 2)
    step = ProcessingStep(step="exam", method=f"rigid, {apart_mm:g} mm from its own registration")
    qc = scan.scan.qc.flagged(apart_flag(apart_mm, through.base))
    return replace(scan, scan=replace(scan.scan, steps=(*scan.scan.steps, step), qc=qc), apart_mm=apart_mm)


def apart_flag(apart_mm: float, base: str) -> str | None:
    """Return the flag for two registrations that disagree; `None` where they agree."""
    if apart_mm < _APART_MM:
        return None
    said = f"the scan's own registration to the template and that through {base} are {apart_mm:.1f} mm apart"
    return f"{said}: check that the contrasts overlap in the viewer"


def _apart_mm(preprocessor: Preprocessor, one: Affine, other: Affine) -> float:
    """Return the mean distance of two placements of the template's brain."""
    _, mask = template_on(preprocessor.grid, preprocessor.template)
    points = apply_affine(preprocessor.grid.affine, np.argwhere(mask)[::50].astype(np.float64))
    return float(np.linalg.norm(apply_affine(one, points) - apply_affine(other, points), axis=1).mean())


def _finished(
    ranked: Sequence[ExamScan],
    aligned: Sequence[AlignedScan],
    failed: dict[str, str],
    rigid: dict[str, Affine],
    notes: tuple[str, ...],
) -> AlignedExam:
    if not aligned:
        raise DataError(
            "one scan of an exam at least must be usable",
            received=first_of([f"{name}: {reason}" for name, reason in failed.items()], 3),
            remedy="fix the reason of each",
        )
    first = aligned[0]
    placed = [replace(one, to_reference=_between(rigid, one.name, first.name)) for one in aligned]
    lost = tuple(f"{name} is not used: {reason}" for name, reason in failed.items())
    return AlignedExam(tuple(placed), _reason(ranked, aligned), failed, (*lost, *notes))


def _between(rigid: dict[str, Affine], one: str, other: str) -> Affine:
    """Return the matrix from the world of one scan to that of another one."""
    if one not in rigid or other not in rigid:
        return np.eye(4)
    return np.asarray(rigid[other] @ np.linalg.inv(rigid[one]), dtype=np.float64)


def _reason(ranked: Sequence[ExamScan], aligned: Sequence[AlignedScan]) -> str:
    spacing = " × ".join(f"{mm:.3g}" for mm in aligned[0].volume.spacing_mm)
    if len(ranked) == 1:
        return f"it is the only scan ({spacing} mm)"
    others = [max(one.volume.spacing_mm) for one in aligned[1:]]
    if others and round(max(aligned[0].volume.spacing_mm), 1) < round(min(others), 1):
        return f"its voxels are the smallest ({spacing} mm)"
    return f"of the scans with the smallest voxels ({spacing} mm) its brain is found most reliably"
