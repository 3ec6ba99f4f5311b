"""Geometry of an exam: its scans registered rigidly to one of them, one affine to the template, one brain mask."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from halebrain.core.errors import DataError, HalebrainError
from halebrain.core.provenance import ProcessingStep
from halebrain.core.types import Affine, MaskArray, Volume
from halebrain.core.wording import first_of
from halebrain.preprocessing.brain import BrainMask, from_given_mask
from halebrain.preprocessing.brain.base import volume_ml
from halebrain.preprocessing.brain.given import extract_stripped
from halebrain.preprocessing.geometry import Grid, apply_affine, resample
from halebrain.preprocessing.pipeline import Preprocessor, WorkingScan
from halebrain.preprocessing.prepared import as_prepared
from halebrain.preprocessing.registration import Registration, assess_placement, register_rigid
from halebrain.preprocessing.template import template_on

_KEPT_BY_ITSELF = ("auto", "stripped")
"""Brain extractors that use stripped scans unchanged."""
_COVERS_MM = 110.0
"""Shortest side of a field of view that can hold a whole brain."""
_BEST_FIRST = ("T1w", "T1ce", "FLAIR", "T2w")
"""Contrasts in the order of how reliably their brain is found, where voxels are of one size."""
_SURE = 0.5
"""Confidence of a brain mask from which no other scan is tried."""
_APART_MM = 4.0
"""Mean distance of two placements in the brain that is flagged. Affine registrations of one head by its T1, T2 and
FLAIR ended 0.3 to 1.0 mm apart in five real exams."""
_WHOLE = 0.95
"""Overlap from which two masks show the same part of a brain, so that their volumes compare."""
_FLAGGED_SIZE, _REFUSED_SIZE = 1.15, 1.3
"""Ratio of two brain volumes. Masks of one person differ by up to a tenth."""


@dataclass(frozen=True)
class ExamScan:
    """One scan of an exam as it was read.

    Args:
        name: Its name.
        volume: Its voxels.
        image: Where it was read from; `None` = it was in memory.
        brain_mask: The mask that was given with it, bool on its grid.
        space: "native", or the template's name where it lies in template space.
        contrast: Its contrast where that is declared, a BIDS suffix.
    """

    name: str
    volume: Volume
    image: Path | None = None
    brain_mask: MaskArray | None = None
    space: str = "native"
    contrast: str | None = None


@dataclass(frozen=True)
class AlignedScan:
    """One scan of an exam in the geometry of the exam.

    Args:
        name: Its name.
        volume: Its voxels on its own grid.
        scan: It on the working grid, which is shared by all scans of the exam.
        to_reference: World-to-world matrix from this scan to the reference scan, mm, RAS.
        apart_mm: Mean distance in the brain between the registration of the scan itself to the template and that
            through the reference; `None` = one of them does not exist.
    """

    name: str
    volume: Volume
    scan: WorkingScan
    to_reference: Affine
    apart_mm: float | None = None


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


def align_exam(
    preprocessor: Preprocessor, scans: Sequence[ExamScan], *, begin: Callable[[str], None] | None = None
) -> AlignedExam:
    """Bring the scans of an exam into one geometry.

    The reference is the scan with the best quality: it shows the whole brain, its voxels are small, its brain is known.
    The brain is found in one scan, and its mask is fitted to the others. Stripped scans and those with a mask keep
    their own. All are registered rigidly, and the reference affinely to the template. A single scan is preprocessed as
    without an exam.

    Args:
        preprocessor: What prepares each scan.
        scans: The scans, one at least.
        begin: Called with the name of each step when it begins.

    Raises:
        DataError: No scan can be used, or the sizes of two brains show that they are of two people.
    """
    failed: dict[str, str] = {}
    known = {scan.name: brain for scan in scans if (brain := _known_brain(preprocessor, scan, failed)) is not None}
    usable = [scan for scan in scans if scan.name not in failed]
    ranked = sorted(usable, key=lambda scan: _rank(scan, known))
    if len(scans) == 1 or all(_is_placed(preprocessor, scan) for scan in ranked):
        return _each_by_itself(preprocessor, ranked, known, failed, begin=begin)
    holder, brain = _find_holder(preprocessor, ranked, known, failed)
    ranked = [scan for scan in ranked if scan.name not in failed]
    notes = _check_sizes(ranked, known)
    rigid: dict[str, Affine] = {holder.name: np.eye(4)}
    for scan in ranked:
        if scan is holder:
            continue
        own = known.get(scan.name)
        try:
            found = register_rigid(
                holder.volume, brain.mask, scan.volume, other_brain=None if own is None else own.mask
            )
            known.setdefault(scan.name, _fitted(brain, holder, scan, found.matrix))
        except HalebrainError as error:
            failed[scan.name] = str(error)
        else:
            rigid[scan.name] = found.matrix
    known.setdefault(holder.name, brain)
    ranked = [scan for scan in ranked if scan.name in rigid]
    base, registration = _register_one(preprocessor, ranked, known)
    if base is not ranked[0]:
        notes = (*notes, f"exam: the affine of {base.name} is used, as that of {ranked[0].name} failed")
    aligned = []
    for scan in ranked:
        to_scan = rigid[scan.name] @ np.linalg.inv(rigid[base.name]) @ registration.template_to_native
        try:
            aligned.append(_aligned(preprocessor, scan, known[scan.name], to_scan, base, registration, begin=begin))
        except HalebrainError as error:
            failed[scan.name] = str(error)
    return _finished(ranked, aligned, failed, rigid, notes)


def _known_brain(preprocessor: Preprocessor, scan: ExamScan, failed: dict[str, str]) -> BrainMask | None:
    """Return the brain of a scan that comes with its mask, or is stripped; `None` where it must be found."""
    try:
        if scan.brain_mask is not None:
            return from_given_mask(scan.volume, scan.brain_mask)
    except DataError as error:
        failed[scan.name] = str(error)
        return None
    if preprocessor.config.brain not in _KEPT_BY_ITSELF:
        return None
    try:
        return extract_stripped(scan.volume)
    except DataError:
        return None


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
    begin: Callable[[str], None] | None,
) -> AlignedExam:
    """Return scans that are in one geometry already, or a single one."""
    aligned = []
    for scan in ranked:
        try:
            # A brain that was found on the way is the one that the preprocessing would find.
            working = _prepared(preprocessor, scan) or preprocessor.run(
                scan.volume, brain_mask=known.get(scan.name), space=scan.space, begin=begin
            )
            aligned.append(AlignedScan(scan.name, scan.volume, working, np.eye(4)))
        except HalebrainError as error:
            if len(ranked) == 1 and not failed:
                raise
            failed[scan.name] = str(error)
    return _finished(ranked, aligned, failed, {}, ())


def _find_holder(
    preprocessor: Preprocessor, ranked: Sequence[ExamScan], known: dict[str, BrainMask], failed: dict[str, str]
) -> tuple[ExamScan, BrainMask]:
    """Return the scan whose brain mask serves the others: the best with a known brain, else where it is found."""
    for scan in ranked:
        if scan.name in known:
            return scan, known[scan.name]
    best: tuple[ExamScan, BrainMask] | None = None
    for scan in ranked:
        try:
            found = preprocessor.find_brain(scan.volume, None)
        except DataError as error:
            failed.setdefault(scan.name, str(error))
            continue
        if best is None or found.confidence > best[1].confidence:
            best = scan, found
        if found.confidence >= _SURE:
            break
    if best is None:
        raise DataError(
            "the brain must be found in one scan of an exam",
            received=first_of([f"{name}: {reason}" for name, reason in failed.items()], 2),
            remedy="strip one of them, or give its mask in a manifest",
        )
    for scan in ranked:  # the mask of the best one serves those in which none was found
        failed.pop(scan.name, None)
    return best


def _fitted(brain: BrainMask, holder: ExamScan, scan: ExamScan, matrix: Affine) -> BrainMask:
    """Return the brain mask of one scan on the grid of another one; `matrix` is world-to-world, first to other."""
    source = Grid(holder.volume.shape, holder.volume.affine)
    target = Grid(scan.volume.shape, scan.volume.affine)
    back = np.asarray(np.linalg.inv(matrix), dtype=np.float64)
    mask: MaskArray = resample(brain.mask.astype(np.float32), source, target, target_to_source=back) > 0.5
    if not mask.any():
        raise DataError(
            "the scans of an exam must show the same part of the head",
            received="no brain",
            where=scan.name,
            remedy="leave it out of the exam, or check its header",
        )
    method = f"{brain.method}, found in {holder.name}"
    return BrainMask(mask, method, brain.confidence, volume_ml(mask, scan.volume), notes=brain.notes)


def _check_sizes(scans: Sequence[ExamScan], known: dict[str, BrainMask]) -> tuple[str, ...]:
    """Refuse brains of sizes that no person has at one time; a lesser difference is a note."""
    sizes = {}
    for scan in scans:
        if (brain := known.get(scan.name)) is not None and _shows_all(brain.mask):
            sizes[scan.name] = brain.volume_ml
    if len(sizes) < 2:
        return ()
    small, large = min(sizes, key=lambda name: sizes[name]), max(sizes, key=lambda name: sizes[name])
    ratio = sizes[large] / sizes[small]
    said = f"{sizes[small]:.0f} ml of brain in {small} and {sizes[large]:.0f} ml in {large}"
    if ratio > _REFUSED_SIZE:
        raise DataError(
            "the scans of an exam must be of one person",
            received=said,
            remedy="give each person an exam, or each scan a brain mask of the same tissue",
        )
    return (f"exam: {said}: check that they are of one person",) if ratio > _FLAGGED_SIZE else ()


def _shows_all(mask: MaskArray) -> bool:
    """Return whether a brain mask ends before the field of view does, but for a hundredth of its area."""
    for axis in range(3):
        area = np.moveaxis(mask, axis, 0).sum(axis=(1, 2))
        if max(area[0], area[-1]) > (1 - _WHOLE) * area.max():
            return False
    return True


def _register_one(
    preprocessor: Preprocessor, ranked: Sequence[ExamScan], known: dict[str, BrainMask]
) -> tuple[ExamScan, Registration]:
    """Return the first scan, by quality, whose registration to the template is reliable, with its registration."""
    found: list[tuple[ExamScan, Registration]] = []
    for scan in sorted(ranked, key=lambda one: not preprocessor.is_placed(one.space)):
        if preprocessor.is_placed(scan.space):
            return scan, _assessed(preprocessor, scan, known[scan.name], np.eye(4), "none")
        try:
            found.append((scan, preprocessor.register(scan.volume, known[scan.name])))
        except DataError:
            continue
        if not found[-1][1].failed:
            return found[-1]
    if not found:
        raise DataError(
            "one scan of an exam must be registered to the template",
            received=first_of([scan.name for scan in ranked]),
            remedy="check their brain masks",
        )
    return max(found, key=lambda pair: pair[1].nmi)


def _assessed(
    preprocessor: Preprocessor, scan: ExamScan, brain: BrainMask, matrix: Affine, engine: str
) -> Registration:
    return assess_placement(scan.volume, brain.mask, matrix, template=preprocessor.template, engine=engine)


def _aligned(
    preprocessor: Preprocessor,
    scan: ExamScan,
    brain: BrainMask,
    to_scan: Affine,
    base: ExamScan,
    registration: Registration,
    *,
    begin: Callable[[str], None] | None,
) -> AlignedScan:
    """Return a scan that is preprocessed in the geometry of its exam; `to_scan` leads from the template to it."""
    if scan is base:
        working = preprocessor.run(scan.volume, brain_mask=brain, begin=begin, placement=registration)
        return AlignedScan(scan.name, scan.volume, working, np.eye(4))
    engine = f"{registration.engine}, through {base.name}"
    placement = _assessed(preprocessor, scan, brain, to_scan, engine)
    apart_mm = None
    if registration.engine != "none":
        own = preprocessor.register(scan.volume, replace(brain, template_to_native=to_scan))
        apart_mm = None if own.failed else round(_apart_mm(preprocessor, to_scan, own.template_to_native), 2)
    working = preprocessor.run(scan.volume, brain_mask=brain, begin=begin, placement=placement)
    if apart_mm is not None:
        step = ProcessingStep(step="exam", method=f"rigid, {apart_mm:g} mm from its own registration")
        qc = working.qc.flagged(apart_flag(apart_mm, base.name))
        working = replace(working, steps=(*working.steps, step), qc=qc)
    return AlignedScan(scan.name, scan.volume, working, np.eye(4), apart_mm)


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
    lost = tuple(f"exam: {name} is not used: {reason}" for name, reason in failed.items())
    return AlignedExam(tuple(placed), _reason(ranked, aligned), failed, (*lost, *notes))


def _between(rigid: dict[str, Affine], one: str, other: str) -> Affine:
    """Return the matrix from the world of one scan to that of another one."""
    if one not in rigid or other not in rigid:
        return np.eye(4)
    return np.asarray(rigid[other] @ np.linalg.inv(rigid[one]), dtype=np.float64)


def _reason(ranked: Sequence[ExamScan], aligned: Sequence[AlignedScan]) -> str:
    spacing = " × ".join(f"{mm:.2g}" for mm in aligned[0].volume.spacing_mm)
    if len(ranked) == 1:
        return f"it is the only scan ({spacing} mm)"
    others = [max(one.volume.spacing_mm) for one in aligned[1:]]
    if others and round(max(aligned[0].volume.spacing_mm), 1) < round(min(others), 1):
        return f"its voxels are the smallest ({spacing} mm)"
    return f"of the scans with the smallest voxels ({spacing} mm) its brain is found most reliably"
