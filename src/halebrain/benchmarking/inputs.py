"""What a benchmark needs of its scans and files, looked up before anything is trained."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from halebrain.benchmarking.config import MatrixConfig
from halebrain.benchmarking.plan import Cell
from halebrain.core.errors import DataError, HalebrainError, MissingInputError
from halebrain.core.modality import standard_modality
from halebrain.core.wording import counted, first_of
from halebrain.inference.exams import records_by_exam
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.models.reconstruction import RECONSTRUCTORS
from halebrain.models.reconstruction.features import FeatureReconstructor
from halebrain.preprocessing.pipeline import PreprocessingConfig, Preprocessor
from halebrain.preprocessing.prepared import is_prepared

_FILES = ("encoder_weights", "start", "detector", "weights")
"""Settings of a training that name a file, at any depth."""


def read_fold(path: Path, config: MatrixConfig) -> Manifest:
    """Return the scans of one fold in the contrasts of the benchmark.

    Raises:
        DataError: The table is no manifest, a subject is in two splits, or scans have not been prepared.
        MissingInputError: The table or a scan does not exist, no scan has a contrast, or nobody has all of them.
    """
    whole = Manifest.read(path)
    for name in config.every_modality:
        if not len(whole.of_contrasts((name,))):
            raise MissingInputError(
                f"a benchmark in {name} needs scans of it",
                received=", ".join(sorted({record.contrast for record in whole})),
                where=path,
                remedy="set modality to one of those, or use another table",
            )
    rows = whole.of_contrasts(config.every_modality)
    if config.modalities:
        _check_exams(rows, config)
    refuse_raw(rows, config.preprocessing)
    return rows


def whole_exams(rows: Manifest, modalities: Sequence[str]) -> dict[str, list[ScanRecord]]:
    """Return the exams that have every contrast: name → its first scan of each, in the order of the contrasts."""
    found: dict[str, list[ScanRecord]] = {}
    for name, own in records_by_exam(rows):
        first = {record.contrast: record for record in reversed(own)}
        if all(standard_modality(one) in first for one in modalities):
            found[name] = [first[standard_modality(one)] for one in modalities]
    return found


def _check_exams(rows: Manifest, config: MatrixConfig) -> None:
    """Refuse a table in which nobody can be judged on all contrasts, or nobody sets the scale of each."""
    for what, own in (
        ("a test person", rows.split("test")),
        ("a healthy validation person", rows.split("val").select(lambda record: record.is_healthy)),
    ):
        if not whole_exams(own, config.modalities):
            raise MissingInputError(
                f"a benchmark of exams needs {what} with all contrasts in one session",
                received="none",
                where=rows.where,
                remedy=f"the contrasts are {', '.join(config.modalities)}: add scans, or set fewer modalities",
            )


def refuse_raw(rows: Manifest, config: PreprocessingConfig) -> None:
    """Refuse scans whose brain must be found or that must be registered.

    Every cell would do this again, for hours, with nobody to look at the quality. Scans that lie in template space
    with a brain mask, as those of a virtual cohort, are used as they are.

    Raises:
        DataError: There is such a scan, or one that was prepared with other settings.
    """
    preprocessor = Preprocessor(config)
    raw = [r for r in rows if not is_prepared(r.image, config) and not _is_in_place(r, preprocessor)]
    if raw:
        raise DataError(
            "the scans of a benchmark must be prepared first",
            received=f"{len(raw)} raw of {counted(len(rows), 'scan')}, {first_of([r.scan_id for r in raw], most=1)}",
            where=rows.where,
            remedy="run halebrain prepare on it, and use the manifest.tsv of its output",
        )


def _is_in_place(record: ScanRecord, preprocessor: Preprocessor) -> bool:
    if preprocessor.config.registration == "none":
        return True
    return preprocessor.is_placed(record.space) and record.brain_mask is not None


def missing_inputs(config: MatrixConfig, cells: list[Cell], tables: dict[int, Path]) -> list[str]:
    """Return what the cells need and is not there, one line each: tables, sets of scans, files of weights.

    `tables` are the manifests by fold; a fold without one has a virtual cohort, which has everything.
    """
    found: list[str] = []
    for fold, path in tables.items():
        try:
            rows = read_fold(path, config)
        except HalebrainError as error:
            found.append(str(error))
            continue
        needed = _sets_needed(config, [cell for cell in cells if cell.fold == fold])
        for name in config.every_modality:
            own, of = rows.of_contrasts((name,)), f"{name}: " if config.modalities else ""
            found += [f"{path}: {of}no {text}" for text, there in needed.items() if not _has(own, there)]
    for cell in cells:
        found += _files_missing(cell)
    return list(dict.fromkeys(found))


_Set = tuple[str, str]
"""Split and condition."""


def _sets_needed(config: MatrixConfig, cells: list[Cell]) -> dict[str, _Set]:
    """Return what each set of scans is, in words → split and condition."""
    needed: dict[str, _Set] = {}

    def add(what: str, split: str, condition: str) -> None:
        word = "healthy" if condition == "healthy" else f"annotated {condition}"
        needed[f"{word} scan of the split {split!r}, for {what}"] = (split, condition)

    for split, what in (("train", "the reconstructors"), ("val", "their validation")):
        if any(cell.kind in ("reconstructor", "joint") for cell in cells):
            add(what, split, "healthy")
    for cell in cells:
        if cell.kind == "segmenter" and cell.settings.get("regime") in ("weak", "both"):
            for condition in cell.settings.get("data", {}).get("pathologies") or ():
                add("segmenters that learn from it", "train", condition)
                add("the validation of segmenters that learn from it", "val", condition)
    for condition in config.pathologies:
        add("its column", "test", condition)
    if config.synthetic is not None:
        add("the column synthetic", "test", "healthy")
    return needed


def _has(rows: Manifest, wanted: _Set) -> bool:
    split, condition = wanted
    return any(
        record.split == split
        and record.condition == condition
        and (record.is_healthy if condition == "healthy" else record.is_annotated)
        for record in rows
    )


def _files_missing(cell: Cell) -> Iterator[str]:
    name = cell.key.rpartition("/")[2]
    for key, path in named_files(cell.settings):
        if not path.exists() and (key in ("encoder_weights", "weights") or path.suffix or len(path.parts) > 1):
            yield f"{name}: the file of {key} does not exist: {path}"
    spec = cell.settings.get("reconstructor", {})
    kind = RECONSTRUCTORS.get(spec["name"]) if cell.kind == "reconstructor" and "name" in spec else None
    if kind is not None and issubclass(kind, FeatureReconstructor) and not spec.get("settings", {}).get("weights"):
        backbone = kind.Settings.model_validate(spec.get("settings", {})).backbone
        key = f"reconstructors.{name}.settings.reconstructor.settings.weights"
        yield f"{name}: pretrained weights of {backbone}, give --set {key}=FILE"


def named_files(settings: Any) -> Iterator[tuple[str, Path]]:
    """Yield every file that the settings of a training name, with its key."""
    if isinstance(settings, dict):
        for key, value in settings.items():
            if key in _FILES and isinstance(value, str | Path):
                yield key, Path(value)
            else:
                yield from named_files(value)
