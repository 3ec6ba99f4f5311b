"""Plan of a benchmark: from the configuration to trainings and table rows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Literal

from halebrain.benchmarking.config import EXAM, MatrixConfig, SegmenterEntry, Settings, row_of
from halebrain.core.config import merged, parse_config
from halebrain.core.errors import ConfigError, UsageError
from halebrain.core.registry import suggestion
from halebrain.evaluation.baselines import ATLAS, BASELINES
from halebrain.evaluation.contrasts import Planned, why_untestable
from halebrain.training.joint import JointTraining
from halebrain.training.reconstructor import ReconstructorTraining
from halebrain.training.segmenter_config import SegmenterTraining

Kind = Literal["reconstructor", "segmenter", "joint", "baseline", "exam"]


@dataclass(frozen=True)
class RowLabel:
    """A row of the table: a method and what it learned from.

    Args:
        name: Of the method ("SADM_res").
        block: Heading under which it stands.
        trained_on: "–", the kind of synthetic anomalies, or the pathology of the annotated scans.
        n_annotated: Annotated subjects that it learned from; `None` = all, or none needed.
    """

    name: str
    block: str
    trained_on: str = "–"
    n_annotated: int | None = None

    @property
    def title(self) -> str:
        """The row in one line, unique in the table."""
        count = "" if self.n_annotated is None else f", {self.n_annotated}"
        return self.name if self.trained_on == "–" else f"{self.name} ({self.trained_on}{count})"


@dataclass(frozen=True)
class Cell:
    """One training, one baseline, or what these find in exams, with one seed on one fold, and the rows that it gives.

    Args:
        key: Its name and its folder, unique.
        kind: What is trained.
        seed: Seed of the training.
        fold: Index of the fold.
        settings: Of the training.
        rows: Way to score ("residual", "fused", "segmenter", or the baseline's name) → row.
        needs: Key of the cell whose reconstructor it stands on.
        modality: The contrast of its scans; "exam" = all of the benchmark.
        parts: Of exams the key of the cell of each contrast, whose scores are fused.
    """

    key: str
    kind: Kind
    seed: int
    fold: int
    settings: Settings = field(default_factory=dict)
    rows: dict[str, RowLabel] = field(default_factory=dict)
    needs: str | None = None
    modality: str = ""
    parts: tuple[str, ...] = ()

    @property
    def run(self) -> str:
        """Name of its fold and seed."""
        return f"fold{self.fold} seed{self.seed}"

    @property
    def required(self) -> tuple[str, ...]:
        """Keys of the cells that must be finished before."""
        return self.parts if self.needs is None else (self.needs, *self.parts)


def plan(config: MatrixConfig) -> list[Cell]:
    """Return every cell, those that others need before them.

    A wrong setting or name is an error before any training.
    """
    cells: list[Cell] = []
    for fold in range(max(1, len(config.folds))):
        cells += _of_fold(config, fold)
    _check_unique(cells)
    names = {name for cell in cells for row in cell.rows.values() for name in (row.name, row.title)}
    if config.reference not in names:
        raise ConfigError(
            "the reference must be a row of the table",
            received=config.reference,
            remedy=suggestion(config.reference, sorted(names)),
        )
    methods = sorted({row.name for cell in cells for row in cell.rows.values()})
    for entry in config.contrasts:
        for name in (entry.contrast.first, *entry.contrast.second):
            if name not in methods:
                raise ConfigError(
                    "a contrast must name rows of the table, without what they learned from",
                    received=name,
                    where=f"contrasts, {entry.name}",
                    remedy=suggestion(name, methods),
                )
        if reason := why_untestable(entry.contrast, config.pathologies, planned_runs(cells)):
            raise ConfigError(
                "a contrast needs rows that learned from the same, and a disease to compare them on",
                received=reason,
                where=f"contrasts, {entry.name}",
                remedy="name rows that learn from pathologies of the benchmark, or other columns",
            )
    return cells


def _check_unique(cells: Iterable[Cell]) -> None:
    """Refuse two cells of one key, and two methods of one row: the table would show them as runs of one method."""
    keys, sources = set[str](), dict[str, set[tuple[str, str]]]()
    for cell in cells:
        if cell.key in keys:
            raise ConfigError(
                "every training needs a unique name",
                received=f"{cell.key} twice",
                remedy="rename one under reconstructors or segmenters; of each_pathology the name ends in the disease",
            )
        keys.add(cell.key)
        # What is trained once, and a baseline, have fewer runs than the others, so runs cannot be counted.
        name = cell.key.removeprefix(f"fold{cell.fold}/").replace(f"seed{cell.seed}/", "", 1)
        for way, row in cell.rows.items():
            sources.setdefault(row.title, set()).add((name, way))
    if twice := sorted(title for title, own in sources.items() if len(own) > 1):
        raise ConfigError(
            "every row needs a unique title",
            received=twice[0],
            remedy="rename it under row, or under rows of the segmenters",
        )


def planned_runs(cells: Iterable[Cell]) -> set[Planned]:
    """Return every run of the rows that contrasts compare: those with all annotated subjects."""
    return {
        (row.name, row.trained_on, cell.run) for cell in cells for row in cell.rows.values() if row.n_annotated is None
    }


def chosen_cells(cells: list[Cell], only: Sequence[str]) -> list[Cell]:
    """Return the cells whose key matches one of the patterns `only` ("fold*/seed0/*"), and those that they need.

    All of them if `only` is empty. A pattern that no key matches is an error.
    """
    if not only:
        return cells
    for pattern in only:
        if not any(fnmatchcase(cell.key, pattern) for cell in cells):
            raise UsageError(
                "--only must match the key of a cell",
                received=pattern,
                remedy=suggestion(pattern, [cell.key for cell in cells]),
            )
    chosen = {cell.key for cell in cells if any(fnmatchcase(cell.key, pattern) for pattern in only)}
    for cell in reversed(cells):  # what a cell needs stands before it
        if cell.key in chosen:
            chosen.update(cell.required)
    return [cell for cell in cells if cell.key in chosen]


def reference_title(config: MatrixConfig, cells: list[Cell]) -> str:
    """Return the title of the reference row; its name is enough where only one row has it."""
    titles = [row.title for cell in cells for row in cell.rows.values()]
    if config.reference in titles:
        return config.reference
    return next(row.title for cell in cells for row in cell.rows.values() if row.name == config.reference)


def _of_fold(config: MatrixConfig, fold: int) -> list[Cell]:
    """Return the cells of a fold: those of its contrast, or of each contrast and then of all together."""
    if not config.modalities:
        return _of_modality(config, fold, f"fold{fold}")
    each = {name: _of_modality(config.of_modality(name), fold, f"fold{fold}/{name}") for name in config.modalities}
    exams = [
        Cell(
            same[0].key.replace(f"/{config.modalities[0]}/", f"/{EXAM}/", 1),
            "exam",
            same[0].seed,
            fold,
            {"fusion": config.fusion},
            _renamed(same[0], EXAM),
            modality=EXAM,
            parts=tuple(cell.key for cell in same),
        )
        for same in zip(*each.values(), strict=True)
        if same[0].rows
    ]
    alone = [replace(cell, rows=_renamed(cell, name)) for name, cells in each.items() for cell in cells]
    return alone + exams


def _renamed(cell: Cell, modality: str) -> dict[str, RowLabel]:
    return {way: replace(label, name=row_of(label.name, modality)) for way, label in cell.rows.items()}


def _of_modality(config: MatrixConfig, fold: int, place: str) -> list[Cell]:
    for name in set(config.baselines) - set(ATLAS):
        BASELINES.get(name)
    rows = {name: RowLabel(name, "Training-free") for name in config.baselines}
    cells = [Cell(f"{place}/baselines", "baseline", 0, fold, rows=rows)]
    for seed in config.seeds:
        cells += _of_seed(config, fold, seed, f"{place}/seed{seed}")
    return [replace(cell, modality=config.modality) for cell in cells]


def _of_seed(config: MatrixConfig, fold: int, seed: int, place: str) -> list[Cell]:
    cells: list[Cell] = []
    data = {"modalities": [config.modality], "preprocessing": config.preprocessing.model_dump(mode="json")}
    first = fold == 0 and seed == config.seeds[0]
    for name, entry in config.reconstructors.items():
        if entry.once and not first:
            continue
        settings = merged(config.reconstructor_defaults, entry.settings, {"seed": seed, "data": data})
        parse_config(ReconstructorTraining, settings, where=f"reconstructors.{name}")
        rows = {} if entry.row is None else {"residual": RowLabel(entry.row, "I unsupervised")}
        cells.append(Cell(f"{place}/{name}", "reconstructor", seed, fold, settings, rows))
        for segmenter, other in config.segmenters.items():
            if other.reconstructor == name and (first or not other.once):
                cells += _segmenters(config, place, segmenter, other, data, fold, seed)
    for name, other in config.segmenters.items():
        if other.reconstructor is None and (first or not other.once):
            settings = merged(config.joint_defaults, other.settings, {"seed": seed, "data": data})
            parse_config(JointTraining, settings, where=f"segmenters.{name}")
            labels = {
                str(score): RowLabel(row, other.block, other.trained_on or "–") for score, row in other.rows.items()
            }
            cells.append(Cell(f"{place}/{name}", "joint", seed, fold, settings, labels))
    return cells


def _segmenters(
    config: MatrixConfig, place: str, name: str, entry: SegmenterEntry, data: Settings, fold: int, seed: int
) -> list[Cell]:
    cells = []
    for pathology in entry.each_pathology or (None,):
        for count in entry.each_count:
            own: Settings = {"seed": seed, "subset_seed": seed, "n_annotated": count, "data": dict(data)}
            if pathology is not None:
                own["data"]["pathologies"] = [pathology]
            of_set = entry.settings_by_pathology.get(pathology or "", {})
            settings = merged(config.segmenter_defaults, entry.settings, of_set, own)
            training = parse_config(SegmenterTraining, settings, where=f"segmenters.{name}")
            if pathology is None:
                _check_stated(name, entry, training)
            trained_on = " + ".join(part for part in (entry.trained_on, pathology) if part) or "–"
            tag = "".join(f"-{part}" for part in (pathology, count and f"n{count}") if part)
            rows: dict[str, RowLabel] = {
                score: RowLabel(row, entry.block, trained_on, count) for score, row in entry.rows.items()
            }
            needs = f"{place}/{entry.reconstructor}"
            cells.append(Cell(f"{place}/{name}{tag}", "segmenter", seed, fold, settings, rows, needs))
    return cells


def _check_stated(name: str, entry: SegmenterEntry, training: SegmenterTraining) -> None:
    """Refuse a segmenter that learns from diseases which its rows do not state: they would count as unseen."""
    if training.regime == "synthetic":
        return
    stated = set(entry.trained_on.split(" + ")) - {""}
    learned = training.data.pathologies
    lost = sorted(set(learned) - stated) if learned is not None else ["every annotated disease"] * (not stated)
    if lost:
        raise ConfigError(
            "a segmenter that learns from annotated scans must state their diseases",
            received=f"trained_on: {entry.trained_on or '–'}, without {', '.join(lost)}",
            where=f"segmenters.{name}",
            remedy="write them under each_pathology, or all in one training as trained_on: tumour + stroke",
        )
