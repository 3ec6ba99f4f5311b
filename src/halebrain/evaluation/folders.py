"""Results of any method from disk: a folder of anomaly maps or masks against a folder of references."""

import re
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from halebrain.core.errors import DataError, MissingInputError, UsageError
from halebrain.core.mask import Cut
from halebrain.core.wording import first_of
from halebrain.evaluation.case import Case
from halebrain.evaluation.contribution import Contribution
from halebrain.evaluation.evaluate import Evaluation, Evaluator, ScanScores
from halebrain.evaluation.parts import Scans, ScansLeft, Scoring
from halebrain.evaluation.provenance import REFERENCE_GRID, EvaluationProvenance
from halebrain.io.bids import BidsName, read_name
from halebrain.io.checksum import file_sha256
from halebrain.io.manifest import ScanRecord
from halebrain.io.masks import Labels, look_at_values, mask_from
from halebrain.io.tree import FileTree, LeftOut
from halebrain.io.volume import MAP_SUFFIXES, read_map, read_mask, read_on_grid, stem_of

_ENTITY = re.compile(r"(?:^|_)(sub|ses)-([^_]+)")
_MADE = ("rec", "desc", "label", "space", "res", "den", "mod", "seg", "atlas")
"""Entities that describe a map or a mask instead of its scan."""
_NEEDED = ("prediction", "reference", "brain mask")


@dataclass(frozen=True)
class ScanFiles:
    """Two files about one scan; without `brain_mask` voxels count everywhere."""

    scan_id: str
    subject: str
    prediction: Path
    reference: Path
    brain_mask: Path | None = None


@dataclass(frozen=True)
class FolderOptions:
    """How scans are read.

    Args:
        labels: Labels that are lesion, in references and in predictions with several labels; "all" = every one;
            `None` = the same, but refused where there are several.
        graded: Whether the predictions are anomaly maps; `False` = masks.
        one_label: Whether the predictions hold one label in all, so that `labels` speaks of the references alone.
        threshold: Frozen threshold for maps; `None` = metrics on masks are left out.
        modality: Name of the contrast in the table.
    """

    labels: Labels = None
    graded: bool = True
    one_label: bool = False
    threshold: float | None = None
    modality: str = "unknown"


def parse_labels(text: str | None) -> Labels:
    """Return the labels that a user names: "all", or numbers with commas."""
    if text is None or text == "all":
        return "all" if text else None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(
            "--labels takes all, or numbers with commas", received=repr(text), remedy="for example --labels 1,4"
        ) from error


def match_files(predictions: Path, references: Path, brain_masks: Path | None = None) -> list[ScanFiles]:
    """Match the images of two folders: by their `sub-` and `ses-` or else their name, whatever folder they lie in.

    Where several of one folder share that (`run-1` and `run-2`), those are matched by all that their names have in
    common, or by their paths.
    """
    folders = [predictions, references] + ([] if brain_masks is None else [brain_masks])
    sides = [_by_key(folder) for folder in folders]
    scans: list[ScanFiles] = []
    keys = sorted(sides[0].keys() | sides[1].keys())
    for needed, side, folder in zip(_NEEDED, sides, folders, strict=False):
        if missing := [key for key in keys if key not in side]:
            raise MissingInputError(
                f"every scan needs a {needed}",
                received=f"{len(missing)} without: {first_of(missing)}",
                where=folder,
                remedy="give the files of a scan the same name, or the same sub- and ses-",
            )
    for key in keys:
        matched = _match([side[key] for side in sides], folders, key)
        scans += [ScanFiles(name, _subject(name), *paths) for name, paths in matched.items()]
    return scans


def unused_images(scans: list[ScanFiles], *folders: Path | None) -> list[LeftOut]:
    """Return the images below the folders that belong to no scan."""
    used = {path for scan in scans for path in (scan.prediction, scan.reference, scan.brain_mask)}
    found: list[LeftOut] = []
    for folder in filter(None, folders):
        tree = FileTree(folder)
        found += tree.left_out
        for name in tree.images():
            if folder / name not in used:
                found.append(LeftOut(name, "brain masks of other scans" if _is_map(name) else "DICOM or archives"))
    return found


def look_at_files(scans: list[ScanFiles], options: FolderOptions) -> tuple[FolderOptions, list[str]]:
    """Return the options completed from the values of all predictions, and a note about it.

    Predictions are anomaly maps if any of them holds fractions, or as many different integers as a scan.
    """
    if isinstance(options.labels, tuple):
        _check_named(options.labels, [scan.reference for scan in scans])
    labels: set[float] = set()
    unreadable: list[DataError] = []
    for scan in scans:
        try:
            found = look_at_values(read_map(scan.prediction).data, scan.prediction)
        except DataError as error:  # it fails alone, when it is scored
            unreadable.append(error)
            continue
        if found.is_graded:
            return replace(options, graded=True), [f"predictions are read as anomaly maps ({scan.prediction.name})"]
        labels |= set(found.labels)
    if len(unreadable) == len(scans):
        raise unreadable[0]
    if options.threshold is not None:
        raise UsageError(
            "--threshold needs anomaly maps",
            received="predictions that are masks: integers only",
            where=scans[0].prediction.parent,
            remedy="remove the option, or give the anomaly maps",
        )
    said = ", ".join(f"{label:g}" for label in sorted(labels)[:8]) or "nothing"
    notes = [f"predictions are read as masks (values beside 0: {said})"]
    return replace(options, graded=False, one_label=len(labels) < 2), notes


def _check_named(labels: tuple[int, ...], references: list[Path]) -> None:
    """Raise where a label that was named is in no reference."""
    present: set[float] = set()
    for path in references:
        with suppress(DataError):  # it fails alone, when it is scored
            present |= set(look_at_values(read_map(path).data, path).labels)
        if present >= set(labels):
            return
    missing = ", ".join(str(label) for label in labels if label not in present)
    raise DataError(
        "every label of --labels must be in a reference",
        received=f"{missing}, in no reference; they hold {', '.join(f'{v:g}' for v in sorted(present)[:8]) or 'none'}",
        where=references[0].parent,
        remedy="name labels that exist",
    )


def read_case(scan: ScanFiles, options: FolderOptions) -> tuple[Case, list[str]]:
    """Return the case of a scan on the grid of its reference, and what was done to bring the prediction there."""
    reference = read_map(scan.reference)
    notes = [f"{scan.reference.name}: {note}" for note in reference.notes]
    truth = mask_from(reference.data, scan.reference, notes, options.labels)
    prediction = read_on_grid(scan.prediction, reference, "a prediction must lie on the grid of its reference", notes)
    brain = np.ones(truth.shape, dtype=bool)
    if scan.brain_mask is not None:
        brain = read_mask(scan.brain_mask, reference, notes)
        if not brain.any():
            raise DataError(
                "a brain mask must mark a voxel",
                received="an empty mask",
                where=scan.brain_mask,
                remedy="make it again, or remove the scan from all folders",
            )
    if not np.isfinite(prediction).all():
        raise DataError(
            "a prediction must be finite",
            received="NaN or infinite voxels",
            where=scan.prediction,
            remedy="set them to 0, or compute the map again",
        )
    region = brain | truth
    if options.graded and (prediction[region].min() < 0 or prediction[region].max() > 1):
        notes.append(f"{scan.prediction.name}: scores outside [0, 1] are not probabilities; calibration error left out")
    mask = None
    if not options.graded:
        mask = mask_from(prediction, scan.prediction, notes, "all" if options.one_label else options.labels)
    pathology = "unknown" if truth.any() else "healthy"
    case = Case.of(
        ScanRecord(subject=scan.subject, image=scan.reference, modality=options.modality, pathology=pathology),
        reference=truth,
        brain_mask=brain,
        affine=reference.affine,
        score=prediction if options.graded else None,
        mask=mask,
        cut=None if options.threshold is None else Cut(options.threshold),
    )
    return replace(case, scan_id=scan.scan_id), notes


def evaluate_files(
    scans: list[ScanFiles],
    options: FolderOptions,
    *,
    method: str,
    seed: int,
    scoring: Scoring,
) -> tuple[Evaluation, list[str]] | ScansLeft:
    """Score every scan, where and in which part `scoring` says; return the evaluation and notes on files.

    The first error is raised where no scan can be compared.
    """
    options, notes = look_at_files(scans, options)
    evaluator = Evaluator(seed=seed)

    def keep(_: ScanFiles, found: Contribution) -> None:
        evaluator.take(found.scores)
        notes.extend(found.notes)

    done = scoring.each(
        partial(_score, options, method),
        Scans(
            scans, name=lambda scan: scan.scan_id, files=lambda scan: (scan.prediction, scan.reference, scan.brain_mask)
        ),
        depends=["folders", method, seed, asdict(options)],
        keep=keep,
    )
    if isinstance(done, ScansLeft):
        return done
    scans = done
    provenance = EvaluationProvenance(
        predictions=[_about(scan.prediction) for scan in scans],
        references=[_about(scan.reference) for scan in scans],
        options=asdict(options),
        region="whole image" if scans[0].brain_mask is None else "brain masks",
        grid=REFERENCE_GRID,
        seed=seed,
        notes=notes,
        failed=dict(scoring.failures.reasons),
    )
    return evaluator.finish(provenance), notes


def _score(options: FolderOptions, method: str, scan: ScanFiles) -> Contribution:
    """Return what a scan adds to the evaluation, with notes on what was done to its files."""
    case, notes = read_case(scan, options)
    return Contribution(ScanScores.of([(method, case)], shown=method), notes=tuple(notes))


def _by_key(folder: Path) -> dict[str, list[Path]]:
    """Return key → the images of a folder that share it."""
    if not folder.is_dir():
        raise MissingInputError("a folder must exist", where=folder, remedy="check the path given")
    found: dict[str, list[Path]] = {}
    for name in FileTree(folder).images():
        if _is_map(name):
            entities = dict(_ENTITY.findall(stem_of(folder / name)))
            key = "_".join(f"{k}-{entities[k]}" for k in ("sub", "ses") if k in entities)
            found.setdefault(key or stem_of(folder / name), []).append(folder / name)
    if not found:
        raise MissingInputError("a folder must hold NIfTI files", where=folder, remedy="check the path given")
    return found


def _is_map(name: str) -> bool:
    return name.lower().endswith(MAP_SUFFIXES)


def _match(sides: list[list[Path]], folders: list[Path], key: str) -> dict[str, list[Path]]:
    """Return scan → its file on each side for the files that share a key."""
    if all(len(side) == 1 for side in sides):
        return {key: [side[0] for side in sides]}
    for way in range(3):
        named = [
            {_names(path, folder, key)[way]: path for path in side} for side, folder in zip(sides, folders, strict=True)
        ]
        distinct = all(len(names) == len(side) for names, side in zip(named, sides, strict=True))
        if distinct and all(names.keys() == named[0].keys() for names in named):
            return {name: [names[name] for names in named] for name in sorted(named[0])}
    side, folder = next((side, folder) for side, folder in zip(sides, folders, strict=True) if len(side) > 1)
    raise DataError(
        "a folder must hold one file per scan, or several named as in the other folder",
        received=f"'{side[0].relative_to(folder)}' and '{side[1].relative_to(folder)}'",
        where=folder,
        remedy="keep one, or give a folder with maps of one kind",
    )


def _names(path: Path, folder: Path, key: str) -> tuple[str, str, str]:
    """Return what may identify a scan: the entities of its name without those of derivatives, its name, its path."""
    stem = stem_of(path)
    name = read_name(stem)
    if name is None:
        scan = key
    else:
        kept = {entity: label for entity, label in name.entities.items() if entity not in _MADE}
        scan = BidsName(kept, "").stem.rstrip("_")
    return scan, stem, (path.relative_to(folder).parent / stem).as_posix()


def _subject(key: str) -> str:
    entities: dict[str, str] = dict(_ENTITY.findall(key))
    return entities.get("sub", key)


def _about(path: Path) -> dict[str, str]:
    return {"name": path.name, "sha256": file_sha256(path)}
