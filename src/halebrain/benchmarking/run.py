"""Run a benchmark cell by cell: finished cells are kept, failed ones reported; results for tables and figures."""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from halebrain.benchmarking.config import EXAM, SYNTHETIC, MatrixConfig
from halebrain.benchmarking.contents import check_contents, check_weights
from halebrain.benchmarking.exams import exam_scores, exams_of, healthy_zeros
from halebrain.benchmarking.inputs import named_files, read_fold, whole_exams
from halebrain.benchmarking.judge import (
    CellResult,
    Scorer,
    SharingPredictor,
    baseline_scores,
    judged,
    model_scores,
    prepare,
    score_cell,
    with_anomalies,
)
from halebrain.benchmarking.on_disk import Scratch, StoredReconstructions, on_disk
from halebrain.benchmarking.plan import Cell, chosen_cells, plan
from halebrain.core.config import parse_config, with_former_keys
from halebrain.core.errors import ConfigError, HalebrainError, unexpected_as_error
from halebrain.core.failures import Failures
from halebrain.core.files import atomic_path, file_lock, lock_if_free, write_text
from halebrain.core.messages import Notify, log_message
from halebrain.core.types import SLICE_AXIS, FloatArray
from halebrain.core.wording import first_of
from halebrain.data.anomalies import build_anomaly
from halebrain.data.folds import unused_notes, usable
from halebrain.evaluation.baselines import ATLAS, AtlasModel
from halebrain.evaluation.matrix import MethodRun
from halebrain.inference.anomaly_map import PostprocessingConfig
from halebrain.inference.scans import AnnotatedScan
from halebrain.io.checksum import json_sha256
from halebrain.io.manifest import Manifest, Split
from halebrain.models.bundle import Bundle, load_bundle, save_bundle
from halebrain.models.card import model_card
from halebrain.preprocessing.pipeline import Preprocessor
from halebrain.simulation.generate import generate_cohort
from halebrain.training.devices import launch
from halebrain.training.joint import JointTraining, train_joint
from halebrain.training.loop_state import CHECKPOINT
from halebrain.training.reconstructor import ReconstructorTraining, train_reconstructor
from halebrain.training.segmenter import train_segmenter
from halebrain.training.segmenter_config import SegmenterTraining

PICTURES = "pictures.npz"
_JUDGED: tuple[tuple[Split, str], ...] = (("val", "validation"), ("test", "test"))
_RESULT = "result.json"
_POLL_S = 2.0
_COHORT_S = 24 * 3600.0
"""Maximum wait for another process that makes the virtual cohort."""


@dataclass
class Outcome:
    """Results of a benchmark: finished cells, key of a failed cell → why, and what the tables lack."""

    results: list[tuple[Cell, CellResult]] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)


@dataclass
class _Fold:
    """The scans of one fold, and what is shared between its cells; their arrays are in files of `scratch`."""

    path: Path
    manifest: Manifest
    val: list[AnnotatedScan]
    test: list[AnnotatedScan]
    scratch: Scratch
    examples: dict[str, int]
    """Column → index in `test` of the scan whose pictures are kept."""
    reconstructions: StoredReconstructions
    shared_by: str = ""


def run_benchmark(
    config: MatrixConfig,
    output: Path,
    *,
    device: torch.device,
    only: Sequence[str] = (),
    notify: Notify = log_message,
) -> Outcome:
    """Run every cell that has no result yet, in `output`; with `only`, those that `chosen_cells` gives for it.

    A cell that fails takes those that stand on it along; the rest goes on.

    Raises:
        ConfigError: A setting of any cell is wrong; nothing has been trained by then.
        DataError: A scan, or a file of weights, is no more what it was when the benchmark began.
    """
    cells, outcome, failures = chosen_cells(plan(config), only), Outcome(), Failures(output, notify)
    # What is wrong with the last table is said before the first is learned from.
    tables = [(path, read_fold(path, config)) for path in manifests(config, output)]
    for number, (_, manifest) in enumerate(tables):
        if any(cell.fold == number for cell in cells):
            check_contents(output, number, manifest)
    check_weights(output, (path for cell in cells for _, path in named_files(cell.settings)))
    for number, (path, manifest) in enumerate(tables):
        unused = unused_notes(len(manifest) - len(usable(manifest)))
        outcome.empty += [f"fold {number}: {note}" for note in unused]
        outcome.empty += _without_lesion(manifest, config, number)
        outcome.empty += _without_exam(manifest, config, number)
        run = _FoldRun(config, output, device, path, manifest, outcome, failures)
        run.settle_all([cell for cell in cells if cell.fold == number], notify)
    order = [cell.key for cell in cells]
    outcome.results.sort(key=lambda found: order.index(found[0].key))
    return outcome


@dataclass
class _FoldRun:
    """The cells of one fold as this process sees them; others may run other cells of the folder at the same time."""

    config: MatrixConfig
    output: Path
    device: torch.device
    path: Path
    manifest: Manifest
    outcome: Outcome
    failures: Failures
    done: dict[str, tuple[str, Path]] = field(default_factory=dict)
    cells: dict[str, Cell] = field(default_factory=dict)
    folds: dict[str, _Fold] = field(default_factory=dict)
    """Contrast → its scans, as soon as a cell needs them."""

    def settle_all(self, left: list[Cell], notify: Notify) -> None:
        """Take up the result of every cell, or run it; wait for those that other processes run."""
        waits, self.cells = False, {cell.key: cell for cell in left}
        while left:
            later = [cell for cell in left if not self.settle(cell)]
            if later == left:
                if not waits:
                    notify(f"other processes run {', '.join(cell.key for cell in later)}; waiting for them")
                waits = True
                time.sleep(_POLL_S)
            left = later

    def settle(self, cell: Cell) -> bool:
        """Take up the result of a cell, or run the cell; `False` if another process has it or one that it needs."""
        for key in cell.required:
            if key not in self.done:
                if key not in self.outcome.failures:
                    return False
                self.outcome.failures[cell.key] = f"needs {key}, which failed"
                return True
        below = "+".join(self.done[key][0] for key in cell.required)
        trained = training_identity(cell, _scans_of(cell, self.manifest), below)
        # A model is trained once: with another anomaly map it is only evaluated again.
        folder, judged_as = _folder(self.output, cell, trained), _judged_as(self.config, cell, trained)
        result = _read(self.config, cell, folder, judged_as)
        if result is None:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with lock_if_free(folder) as is_ours:
                if not is_ours:
                    return False
                cache = self.output / "cache"
                folds = self._opened(cell, cache)
                try:
                    with unexpected_as_error():
                        # Another process may have finished it just before.
                        result = _read(self.config, cell, folder, judged_as)
                        if result is None and cell.kind == EXAM:
                            result = self._run_exams(cell, folds, folder, judged_as)
                        result = result or _run_cell(
                            cell, self.config, folds[0], folder, judged_as, cache, self.done, self.device
                        )
                except HalebrainError as error:
                    self.failures.add(cell.key, error)
                    self.outcome.failures[cell.key] = self.failures.reasons[cell.key]
                    return True
        self.done[cell.key] = (trained, folder)
        self.outcome.results.append((cell, result))
        return True

    def _opened(self, cell: Cell, cache: Path) -> list[_Fold]:
        """Return the scans of a cell's contrast; of exams those of each contrast, in order."""
        names = self.config.every_modality if cell.kind == EXAM else (cell.modality,)
        for name in names:
            if name not in self.folds:
                rows = self.manifest.of_contrasts((name,))
                self.folds[name] = _open(self.config, self.path, rows, cache)
        return [self.folds[name] for name in names]

    def _run_exams(self, cell: Cell, folds: list[_Fold], folder: Path, judged_as: str) -> CellResult:
        """Evaluate what the finished cells of each contrast find together, and write the result."""
        titles = {way: label.title for way, label in cell.rows.items()}
        scorers: list[Scorer] = []
        for key, fold in zip(cell.parts, folds, strict=True):
            own = self.cells[key]
            if own.kind == "baseline":
                scorers.append(baseline_scores(titles, _atlas(own, self.config, fold)))
            else:
                bundle = load_bundle(self.done[key][1] / "model", device=self.device)
                scorers.append(_model_scorer(own, self.config, fold, bundle, titles, self.device))
        smallest = _min_lesion_mm3(self.config)
        zeros = [healthy_zeros(score, fold.val, smallest) for score, fold in zip(scorers, folds, strict=True)]
        val, test = (
            exams_of({name: getattr(fold, split) for name, fold in zip(self.config.every_modality, folds, strict=True)})
            for split in ("val", "test")
        )
        score = exam_scores(scorers, zeros, self.config.fusion)
        result, _ = score_cell(score, val, test, name=cell.key, min_lesion_mm3=smallest)
        provenance = {
            "identity": judged_as,
            "folder": folder.name,
            "manifest_sha256": self.manifest.fingerprint(),
            "fusion": self.config.fusion,
            "healthy_scores": dict(zip(self.config.every_modality, zeros, strict=True)),
        }
        return _write_result(replace(result, provenance=provenance), folder)


def finished_cells(config: MatrixConfig, cells: list[Cell], output: Path, tables: Mapping[int, Manifest]) -> set[str]:
    """Return the keys of cells whose result is in `output`; `tables` are the scans of each fold that can be read."""
    found, trained = set[str](), dict[str, str]()
    for cell in cells:
        if cell.fold in tables:
            below = "+".join(trained[key] for key in cell.required)
            trained[cell.key] = training_identity(cell, _scans_of(cell, tables[cell.fold]), below)
            judged_as = _judged_as(config, cell, trained[cell.key])
            if _read(config, cell, _folder(output, cell, trained[cell.key]), judged_as) is not None:
                found.add(cell.key)
    return found


def _folder(output: Path, cell: Cell, trained: str) -> Path:
    return output / "cells" / f"{cell.key}-{trained[:8]}"


def _run_cell(
    cell: Cell,
    config: MatrixConfig,
    fold: _Fold,
    folder: Path,
    judged_as: str,
    cache: Path,
    done: dict[str, tuple[str, Path]],
    device: torch.device,
) -> CellResult:
    """Train the cell's model if it has one, evaluate it, and write its result."""
    sha256 = ""
    if cell.kind == "baseline":
        score: Scorer = baseline_scores(
            {way: label.title for way, label in cell.rows.items()}, _atlas(cell, config, fold)
        )
    else:
        stage1 = None if cell.needs is None else done[cell.needs][1] / "model"
        bundle = train_cell(cell, folder, fold.path, cache, stage1, device=device)
        sha256 = bundle.sha256
        titles = {way: label.title for way, label in cell.rows.items()}
        score = _model_scorer(cell, config, fold, bundle, titles, device)
    result, maps = CellResult([], {}, {}), dict[str, dict[int, FloatArray]]()
    if cell.rows:
        result, maps = score_cell(
            *(score, fold.val, fold.test),
            name=cell.key,
            min_lesion_mm3=_min_lesion_mm3(config),
            shown=set(fold.examples.values()),
        )
    provenance = {
        "identity": judged_as,
        "folder": folder.name,
        "model_sha256": sha256,
        "manifest_sha256": fold.manifest.fingerprint(),
    }
    result = replace(result, provenance=provenance)
    if _has_pictures(config, cell):
        folder.mkdir(parents=True, exist_ok=True)
        _write_pictures(maps, fold, folder / PICTURES)
    return _write_result(result, folder)


def _write_result(result: CellResult, folder: Path) -> CellResult:
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / _RESULT, json.dumps(asdict(result)))
    return result


def _model_scorer(
    cell: Cell, config: MatrixConfig, fold: _Fold, bundle: Bundle, titles: dict[str, str], device: torch.device
) -> Scorer:
    """Return the maps of a cell's model, as `titles` names them; reconstructions are shared with other cells."""
    bundle = replace(bundle, config=bundle.config.model_copy(update={"postprocessing": config.postprocessing}))
    if fold.shared_by != (cell.needs or cell.key):
        fold.reconstructions.clear()
        fold.shared_by = cell.needs or cell.key
    return model_scores(SharingPredictor(fold.reconstructions, bundle=bundle, device=device, seed=0), titles)


def _scans_of(cell: Cell, manifest: Manifest) -> Manifest:
    """Return the scans that a cell depends on: those of its contrast, or all for exams."""
    return manifest if cell.kind == EXAM else manifest.of_contrasts((cell.modality,))


def manifests(config: MatrixConfig, output: Path) -> list[Path]:
    """Return the table of scans of each fold; a virtual cohort is made where none is named."""
    if given := given_tables(config):
        return given
    cohort = config.cohort.model_copy(update={"modalities": config.every_modality})
    output.mkdir(parents=True, exist_ok=True)
    with file_lock(output / "cohort", wait_s=_COHORT_S):  # one process makes it, the others read it
        generate_cohort(output / "cohort", cohort)
    return [output / "cohort" / "manifest.tsv"]


def given_tables(config: MatrixConfig) -> list[Path]:
    """Return the table of each fold that the configuration names; empty = a virtual cohort."""
    return list(config.folds) or ([] if config.manifest is None else [config.manifest])


def _judged_as(config: MatrixConfig, cell: Cell, trained: str) -> str:
    """Return a hash of all that a cell's result depends on: its model and its evaluation."""
    smallest = _min_lesion_mm3(config)
    how = (
        trained,
        {way: label.title for way, label in cell.rows.items()},
        config.columns,
        None if config.synthetic is None else config.synthetic.model_dump(mode="json"),
        config.preprocessing.model_dump(mode="json"),
        config.postprocessing,
        # Results of before the smallest lesion was applied hold where there is none.
        *([smallest] if smallest else []),
    )
    return json_sha256(with_former_keys(how))


def _min_lesion_mm3(config: MatrixConfig) -> float:
    return parse_config(PostprocessingConfig, config.postprocessing, where="postprocessing").min_lesion_mm3


def _open(config: MatrixConfig, path: Path, manifest: Manifest, cache: Path) -> _Fold:
    preprocessor = Preprocessor(config.preprocessing)
    rows = judged(manifest, config.pathologies)
    cache.mkdir(parents=True, exist_ok=True)
    scratch = Scratch(cache)
    val, test = (_read_scans(rows.split(split), what, preprocessor, scratch) for split, what in _JUDGED)
    if not val or not test:
        raise ConfigError(
            'a benchmark needs scans of the splits "val" and "test"',
            where=path,
            remedy='write val and test under "split", and check the modality',
        )
    if config.synthetic is not None:
        anomaly = build_anomaly(config.synthetic)
        for scans in (val, test):
            healthy = [prepared for prepared in scans if prepared.record.is_healthy]
            altered = (with_anomalies(prepared, anomaly, pathology=SYNTHETIC) for prepared in healthy)
            scans += on_disk(altered, len(healthy), scratch.new_folder())
    examples = {name: chosen for name in config.columns if (chosen := example_scan(test, name)) is not None}
    return _Fold(path, manifest, val, test, scratch, examples, StoredReconstructions(cache))


def _read_scans(rows: Manifest, what: str, preprocessor: Preprocessor, scratch: Scratch) -> list[AnnotatedScan]:
    scans = prepare(rows, preprocessor, description=f"Reading {what} scans")
    return on_disk(scans, len(rows), scratch.new_folder())


def _without_lesion(manifest: Manifest, config: MatrixConfig, fold: int) -> list[str]:
    found = {r.pathology for r in judged(manifest, config.pathologies).split("test") if not r.is_healthy}
    return [f"fold {fold}: no annotated test scan of {name}" for name in config.pathologies if name not in found]


def _without_exam(manifest: Manifest, config: MatrixConfig, fold: int) -> list[str]:
    """Return a note on test persons who are not judged on all contrasts together."""
    test = judged(manifest, config.pathologies).split("test")
    whole = whole_exams(test, config.modalities) if config.modalities else {}
    left = {record.exam_id for record in test} - set(whole)
    if not config.modalities or not left:
        return []
    return [f"fold {fold}: {first_of(sorted(left))}: not judged as exams, for they lack a contrast or its mask"]


def _atlas(cell: Cell, config: MatrixConfig, fold: _Fold) -> AtlasModel | None:
    if not set(cell.rows) & set(ATLAS):
        return None
    healthy = fold.manifest.split("train").select(lambda r: r.is_healthy)
    scans = prepare(healthy, Preprocessor(config.preprocessing), description="Atlas of healthy scans")
    return AtlasModel.fit((s.scan.image, s.scan.brain_mask) for s in scans)


def _has_pictures(config: MatrixConfig, cell: Cell) -> bool:
    """Return whether a cell keeps pictures: a figure shows the scan of one contrast, the first."""
    return cell.modality == config.every_modality[0]


def _read(config: MatrixConfig, cell: Cell, folder: Path, judged_as: str) -> CellResult | None:
    """Return the result of a cell; `None` where it must be evaluated, also where its pictures are not there.

    They are not there where another contrast was the first one by then.
    """
    needed = [_RESULT, PICTURES] if _has_pictures(config, cell) else [_RESULT]
    if not all((folder / name).is_file() for name in needed):
        return None
    result = CellResult.from_json(json.loads((folder / _RESULT).read_text(encoding="utf-8")))
    return result if result.provenance.get("identity") == judged_as else None


def _write_pictures(maps: dict[str, dict[int, FloatArray]], fold: _Fold, path: Path) -> None:
    """Keep one slice of one scan per pathology: the scan of median lesion volume, whatever the results."""
    arrays: dict[str, npt.NDArray[np.float16]] = {}
    for pathology, chosen in fold.examples.items():
        image, lesion = fold.test[chosen].scan.image, fold.test[chosen].lesion
        height = int(lesion.sum(axis=(0, 1)).argmax())
        shown = {title: values[chosen] for title, values in maps.items()} | {"image": image, "lesion": lesion}
        for title, volume in shown.items():
            arrays[f"{title}|{pathology}"] = np.take(volume, height, axis=SLICE_AXIS).astype(np.float16)
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        np.savez_compressed(handle, **arrays)  # type: ignore[arg-type]


def example_scan(test: list[AnnotatedScan], pathology: str) -> int | None:
    """Return the index of the test scan with the median lesion volume, or `None` where no scan has a lesion."""
    volumes = [(int(p.lesion.sum()), n) for n, p in enumerate(test) if p.record.pathology == pathology]
    volumes = sorted(v for v in volumes if v[0] > 0)
    return volumes[len(volumes) // 2][1] if volumes else None


def training_identity(cell: Cell, manifest: Manifest, needed: str) -> str:
    """Return a hash of all that a cell's model depends on; `needed`: that of the cell below it, or empty."""
    return json_sha256([cell.kind, cell.seed, with_former_keys(cell.settings), manifest.fingerprint(), needed])


def train_cell(
    cell: Cell, folder: Path, manifest: Path, cache: Path, stage1: Path | None, *, device: torch.device
) -> Bundle:
    """Train, resume or just load the model of a cell, and return it; its bundle is `folder`/model."""
    model = folder / "model"
    if not model.exists():
        folder.mkdir(parents=True, exist_ok=True)
        data = {**cell.settings.get("data", {}), "manifest": str(manifest), "cache": str(cache)}
        bundle = _train({**cell.settings, "data": data}, cell, folder, stage1, device)
        save_bundle(bundle, model, card=model_card(bundle))
        # The run is over, and its optimiser is as large as three models.
        (folder / CHECKPOINT).unlink(missing_ok=True)
        shutil.rmtree(folder / "cache", ignore_errors=True)
    return load_bundle(model, device=device)


def _train(settings: dict[str, object], cell: Cell, folder: Path, stage1: Path | None, device: torch.device) -> Bundle:
    if cell.kind == "reconstructor":
        first = parse_config(ReconstructorTraining, settings, where=cell.key)
        return train_reconstructor(first, folder, fabric=launch(first.loop, device))
    if cell.kind == "joint":
        both = parse_config(JointTraining, settings, where=cell.key)
        return train_joint(both, folder, fabric=launch(both.loop, device))
    assert stage1 is not None
    second = parse_config(SegmenterTraining, settings, where=cell.key)
    return train_segmenter(second, load_bundle(stage1), folder, fabric=launch(second.loop, device))


def method_runs(outcome: Outcome) -> list[MethodRun]:
    """Return one entry a finished cell and row, in the order of the file: by block, then as they come."""
    found: list[MethodRun] = []
    for cell, result in outcome.results:
        for label in cell.rows.values():
            rows = [row for row in result.rows if row.method == label.title]
            pooled = result.pooled.get(label.title, {})
            about = (label.title, label.block, label.trained_on, label.n_annotated, cell.run)
            found.append(MethodRun(*about, rows, pooled))
    return sorted(found, key=lambda run: run.block)


def collect_pictures(config: MatrixConfig, outcome: Outcome, output: Path) -> dict[str, npt.NDArray[np.floating]]:
    """Return the example slices of the first seed and fold."""
    found: dict[str, npt.NDArray[np.floating]] = {}
    for cell, result in outcome.results:
        if cell.fold > 0 or cell.seed not in (config.seeds[0], 0):
            continue
        path = (output / "cells" / cell.key).with_name(result.provenance["folder"]) / PICTURES
        if not _has_pictures(config, cell):
            continue
        with np.load(path) as stored:
            found |= {name: stored[name] for name in stored.files if name not in found}
    return found


def training_subjects(config: MatrixConfig, output: Path) -> dict[str, int]:
    """Return disease → annotated training subjects of the first fold."""
    train = Manifest.read(manifests(config, output)[0]).split("train").of_contrasts(config.every_modality)
    train = train.select(lambda r: r.is_annotated)
    return {name: len(train.select(lambda r, n=name: r.pathology == n).subjects()) for name in config.pathologies}  # type: ignore[misc]
