"""What the trainings of a benchmark cost before they run: operations and memory, counted in the training code itself.

One batch of made-up slices goes through the stage of a cell, forwards and backwards. Convolutions and products of
matrices, which are nearly all of the work, are counted and not done: their results are zeros of the right shape.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import flop_registry

from halebrain.benchmarking.config import EXAM, MatrixConfig
from halebrain.benchmarking.plan import Cell
from halebrain.core.config import parse_config
from halebrain.core.errors import HalebrainError, unexpected_as_error
from halebrain.data.slices import SliceStore
from halebrain.inference.predictor import Predictor
from halebrain.io.manifest import SPLITS, Manifest, ScanRecord
from halebrain.models.bundle import Bundle, ModelConfig
from halebrain.models.masked_encoder import MaskedAutoencoder
from halebrain.models.reconstruction import Reconstructor, ReconstructorSpec, build_reconstructor
from halebrain.models.segmentation import Segmenter, SegmenterConfig
from halebrain.training.encoder import EncoderStage
from halebrain.training.joint import JointNetwork, JointStage, JointTraining
from halebrain.training.loop import Stage
from halebrain.training.loop_config import LoopConfig
from halebrain.training.reconstructor import ReconstructorStage, ReconstructorTraining
from halebrain.training.segmenter import SegmenterStage
from halebrain.training.segmenter_config import PairCacheConfig, SegmenterTraining

_SLICES = 2
"""Slices of the batch that is counted; norms over the batch need two."""
_PER_WEIGHT = 5
"""Copies of each trained weight in memory: the weight, its gradient, two moments of Adam, and the average."""


class _CountOnly(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts convolutions and products of matrices, and gives zeros for their results."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flop = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        formula = flop_registry.get(func._overloadpacket)
        if formula is None:
            # Without gradients an operation such as conv2d comes whole, and is counted by what it consists of.
            with self:
                parts = func.decompose(*args, **kwargs)
            return func(*args, **kwargs) if parts is NotImplemented else parts
        shapes = func(*tree_map(_as_meta, args), **tree_map(_as_meta, kwargs))
        self.flop += formula(*args, **kwargs, out_val=shapes)
        return tree_map(_as_zeros, shapes)


def _as_meta(value: Any) -> Any:
    return value.to("meta") if isinstance(value, torch.Tensor) else value


def _as_zeros(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype).zero_()


def flop_of(run: Callable[[], object]) -> int:
    """Return the floating-point operations of the convolutions and products of matrices in `run`."""
    with _CountOnly() as counter:
        run()
    return int(counter.flop)


@dataclass(frozen=True)
class NetworkCost:
    """What one cell's networks cost; operations are those of one slice.

    Args:
        step: Of a training step, forwards and backwards.
        check: Of a validation.
        frozen: Of what a step takes from the frozen reconstructor.
        reconstruct: Of the reconstructions of evaluation, at all levels.
        segment: Of the segmenter on them.
        n_levels: Reconstructions of each slice in evaluation.
        memory_bytes: Of a training step at the batch size of the cell: weights, optimiser, and what is kept for the
            gradients. The workspace of the device's library comes on top.
    """

    step: int
    check: int
    frozen: int
    reconstruct: int
    segment: int
    n_levels: int
    memory_bytes: int


@dataclass(frozen=True)
class CellCost:
    """What a cell costs.

    Args:
        key: Of the cell.
        kind: What is trained.
        done: Whether its result is there already.
        train: Operations of its training.
        evaluate: Operations of its evaluation.
        memory_bytes: Most memory of its training.
        n_levels: Reconstructions of each slice in its evaluation.
        unknown: Why the cost is not known; "" where it is.
    """

    key: str
    kind: str
    done: bool
    train: float = 0.0
    evaluate: float = 0.0
    memory_bytes: int = 0
    n_levels: int = 0
    unknown: str = ""

    @property
    def flop(self) -> float:
        """Operations of training and evaluation."""
        return self.train + self.evaluate

    @property
    def name(self) -> str:
        """The cell without fold and seed."""
        return self.key.rpartition("/")[2]


@dataclass(frozen=True)
class ScanCounts:
    """How many scans of a fold there are.

    Args:
        evaluated: Scored by each cell: of validation and test, with those of the column of synthetic anomalies.
        learned: (split, condition) → healthy or annotated scans, for cells whose pairs are made once.
    """

    evaluated: int
    learned: Mapping[tuple[str, str], int] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Manifest, config: MatrixConfig) -> "ScanCounts":
        """Return the counts of a fold's scans; of several contrasts those of the first."""
        usable = rows.of_contrasts(config.modalities[:1]).select(lambda r: r.is_healthy or r.is_annotated)
        learned = Counter((record.split or "", record.condition) for record in usable)
        return cls._from(learned, config)

    @classmethod
    def of_cohort(cls, config: MatrixConfig) -> "ScanCounts":
        """Return the counts of the virtual cohort that the benchmark will make, to within a scan or two."""
        cohort, learned = config.cohort, Counter[tuple[str, str]]()
        for split, share in zip(SPLITS, cohort.split_fractions, strict=True):
            learned[split, "healthy"] = round(cohort.healthy * share)
            for condition in cohort.pathologies:
                learned[split, condition] = round(cohort.patients * share)
        return cls._from(learned, config)

    @classmethod
    def _from(cls, learned: Mapping[tuple[str, str], int], config: MatrixConfig) -> "ScanCounts":
        judged = {"healthy": 1 if config.synthetic is None else 2, **dict.fromkeys(config.pathologies, 1)}
        evaluated = sum(learned.get((split, c), 0) * n for split in ("val", "test") for c, n in judged.items())
        return cls(evaluated, learned)

    def annotated(self, split: str, conditions: Iterable[str] | None) -> int:
        """Return the annotated scans of a split with one of the conditions, or with any."""
        wanted = None if conditions is None else set(conditions)
        return sum(
            number
            for (own, condition), number in self.learned.items()
            if own == split and condition != "healthy" and (wanted is None or condition in wanted)
        )


def cell_costs(
    config: MatrixConfig, cells: list[Cell], scans: Mapping[int, ScanCounts], done: frozenset[str] = frozenset()
) -> Iterator[CellCost]:
    """Yield the cost of each cell; `scans` are those of a contrast by fold, `done` the keys of cells with a result."""
    by_key, known = {cell.key: cell for cell in cells}, dict[str, NetworkCost | str]()
    alone: dict[str, NetworkCost] = {}
    reconstructed, pretrained = set[str](), set[str]()
    slices = config.preprocessing.shape[2]
    for cell in cells:
        if cell.kind == "baseline":
            yield CellCost(cell.key, cell.kind, cell.key in done)
            continue
        if cell.kind == EXAM:
            looks = [alone[key].segment + alone[key].reconstruct for key in cell.parts if key in alone]
            evaluate = float(scans[cell.fold].evaluated * slices * sum(looks))
            yield CellCost(cell.key, cell.kind, cell.key in done, evaluate=evaluate)
            continue
        below = None if cell.needs is None else by_key[cell.needs]
        identity = json.dumps([cell.kind, _without_draws(cell), below and _without_draws(below)], sort_keys=True)
        if identity not in known:
            try:
                with unexpected_as_error():
                    known[identity] = network_cost(cell, below, config)
            except HalebrainError as error:
                known[identity] = str(error)
        cost, is_done = known[identity], cell.key in done
        if isinstance(cost, str):
            yield CellCost(cell.key, cell.kind, is_done, unknown=cost)
            continue
        alone[cell.key] = cost
        own = scans[cell.fold]
        evaluate = 0.0
        if cell.rows:
            evaluate = float(own.evaluated * slices * cost.segment)
            # Segmenters of one reconstructor share its reconstructions.
            if (cell.needs or cell.key) not in reconstructed:
                evaluate += own.evaluated * slices * cost.reconstruct
                reconstructed |= set() if is_done else {cell.needs or cell.key}
        train = _training_flop(cell, cost, own)
        if cell.settings.get("pretraining") is not None and cell.settings.get("encoder_weights") is None:
            # Reconstructors of one fold and seed share the pretrained encoder.
            shared = json.dumps([cell.fold, cell.seed, cell.settings["pretraining"], _encoder(cell)], sort_keys=True)
            train += 0 if shared in pretrained else _pretraining_flop(cell, config)
            pretrained |= set() if is_done else {shared}
        levels = cost.n_levels if cell.rows else 0
        yield CellCost(cell.key, cell.kind, is_done, train, evaluate, cost.memory_bytes, levels)


def _without_draws(cell: Cell) -> dict[str, Any]:
    """Return the settings that the cost of a slice depends on."""
    dropped = {"seed", "subset_seed", "n_annotated", "data", "postprocessing", "pretraining"}
    settings = {key: value for key, value in cell.settings.items() if key not in dropped}
    loop = {key: value for key, value in settings.get("loop", {}).items() if key in ("batch_size", "precision")}
    return {**settings, "loop": loop}


def _encoder(cell: Cell) -> Any:
    return cell.settings.get("reconstructor", {}).get("settings", {}).get("encoder")


def _pretraining_flop(cell: Cell, config: MatrixConfig) -> float:
    """Return the operations of the pretraining of a cell's condition encoder."""
    own = parse_config(ReconstructorTraining, cell.settings, where=cell.key)
    assert own.pretraining is not None
    built: Any = _reconstructor(own.reconstructor).settings
    training, loop = own.pretraining.training(built.encoder, own.data, own.seed), own.pretraining.loop
    small = training.model_copy(update={"loop": loop.model_copy(update={"batch_size": _SLICES})})
    slices = _made_up(config.preprocessing.shape[:2])
    stage = EncoderStage(MaskedAutoencoder(training.masked), {"train": slices, "val": slices}, small)
    step = flop_of(lambda: stage("train", 0).backward()) / _SLICES
    with torch.no_grad():
        check = flop_of(lambda: stage("val", 0)) / _SLICES
    checks = -(-loop.steps // loop.validate_every) * loop.validation_batches
    return loop.batch_size * (loop.steps * step + checks * check)


def _training_flop(cell: Cell, cost: NetworkCost, scans: ScanCounts) -> float:
    loop = parse_config(LoopConfig, cell.settings.get("loop", {}), where=cell.key)
    checks = -(-loop.steps // loop.validate_every) * loop.validation_batches
    steps, pairs = loop.steps * loop.batch_size, 0.0
    step, check = cost.step, cost.check
    if cell.kind == "segmenter" and cell.settings.get("pairs") is not None:
        # Pairs are made once, so a step has no reconstruction.
        numbers = parse_config(PairCacheConfig, cell.settings["pairs"], where=cell.key)
        regime = cell.settings.get("regime", "synthetic")
        ill, limit = cell.settings.get("data", {}).get("pathologies"), cell.settings.get("n_annotated")
        healthy = {split: scans.learned.get((split, "healthy"), 0) * (regime != "weak") for split in ("train", "val")}
        annotated = {split: scans.annotated(split, ill) * (regime != "synthetic") for split in ("train", "val")}
        if limit is not None:
            annotated["train"] = min(annotated["train"], limit)
        made = numbers.synthetic * healthy["train"] + numbers.annotated * annotated["train"]
        pairs = float((made + numbers.validation * (healthy["val"] + annotated["val"])) * cost.frozen)
        step, check = step - cost.frozen, check - cost.frozen
    return float(steps * step + checks * loop.batch_size * check) + pairs


def network_cost(cell: Cell, below: Cell | None, config: MatrixConfig) -> NetworkCost:
    """Return what the networks of a cell cost; `below` is the cell whose reconstructor it stands on.

    Raises:
        HalebrainError: The networks cannot be built from the settings alone.
    """
    loop = parse_config(LoopConfig, cell.settings.get("loop", {}), where=cell.key)
    stage, bundle = _stage(cell, below, config)
    weights = sum(p.numel() * p.element_size() for p in stage.trained.parameters())
    held = sum(p.numel() * p.element_size() for p in bundle.reconstructor.parameters())
    kept = _Kept(stage.trained, bundle.reconstructor)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=loop.precision.endswith("mixed")), kept.counting():
            loss = stage("train", 0)
        loss.backward()

    @torch.no_grad()
    def check() -> None:
        stage("val", 0)

    forwards_and_back, validation = flop_of(step), flop_of(check)
    predictor = Predictor(bundle, device="cpu")
    h, w = config.preprocessing.shape[:2]
    image, mask = torch.full((_SLICES, 1, h, w), 0.5), torch.ones(_SLICES, 1, h, w, dtype=torch.bool)
    seeds = torch.arange(_SLICES)
    one = flop_of(lambda: predictor.reconstruct_slices(image, mask, predictor.levels[0], seeds))
    reconstruct = sum(flop_of(lambda lv=level: _look(predictor, image, mask, lv, seeds)) for level in predictor.levels)  # type: ignore[misc]
    segment = flop_of(lambda: predictor.segment_slices(image, mask, image, None)) * len(predictor.levels)
    uses = isinstance(stage, SegmenterStage) and stage.config.segmenter.needs_reconstruction
    return NetworkCost(
        step=forwards_and_back // _SLICES,
        check=validation // _SLICES,
        frozen=one // _SLICES if uses else 0,
        reconstruct=reconstruct // _SLICES,
        segment=segment // _SLICES,
        n_levels=len(predictor.levels),
        memory_bytes=_PER_WEIGHT * weights
        + (held if cell.kind == "segmenter" else 0)
        + kept.n_bytes * loop.batch_size // _SLICES,
    )


def _look(predictor: Predictor, image: torch.Tensor, mask: torch.Tensor, level: Any, seeds: torch.Tensor) -> None:
    """Do what evaluation asks of the reconstructor."""
    reconstructor = predictor.bundle.reconstructor
    predictor.reconstruct_slices(image, mask, level, seeds)
    if not reconstructor.gives_image:
        with torch.no_grad():
            reconstructor.anomaly_map(image, level=level, seeds=seeds)


class _Kept:
    """Counts the bytes that are kept for the gradients, each storage once, without the weights themselves."""

    def __init__(self, *networks: nn.Module) -> None:
        self._weights = {p.untyped_storage().data_ptr() for network in networks for p in network.parameters()}
        self._seen: dict[int, torch.UntypedStorage] = {}

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what is kept within the block."""
        with torch.autograd.graph.saved_tensors_hooks(self._note, lambda tensor: tensor):
            yield

    def _note(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._weights:
            self._seen[storage.data_ptr()] = storage  # kept, so that its address is not used again
        return tensor

    @property
    def n_bytes(self) -> int:
        """Bytes so far."""
        return sum(storage.nbytes() for storage in self._seen.values())


def _stage(cell: Cell, below: Cell | None, config: MatrixConfig) -> tuple[Stage, Bundle]:
    """Return what trains a cell on made-up slices, and the model that is evaluated, with random weights."""
    settings = {**cell.settings, "loop": {**cell.settings.get("loop", {}), "batch_size": _SLICES}}
    slices = _made_up(config.preprocessing.shape[:2])
    stores = {"train": slices, "val": slices}
    if cell.kind == "reconstructor":
        first = parse_config(ReconstructorTraining, settings, where=cell.key)
        reconstructor = _reconstructor(first.reconstructor)
        return ReconstructorStage(reconstructor, stores, first), _bundle(first.reconstructor, reconstructor, config)
    if cell.kind == "joint":
        both = parse_config(JointTraining, settings, where=cell.key)
        network = JointNetwork(_reconstructor(both.reconstructor), Segmenter(both.segmenter))
        bundle = _bundle(both.reconstructor, network.reconstructor, config, both.segmenter, network.segmenter)
        return JointStage(network, stores, both), bundle
    assert below is not None, "a segmenter stands on a reconstructor"
    second = parse_config(SegmenterTraining, settings, where=cell.key)
    spec = parse_config(ReconstructorTraining, below.settings, where=below.key).reconstructor
    reconstructor, segmenter = _reconstructor(spec).requires_grad_(False), Segmenter(second.segmenter)
    stage = SegmenterStage(segmenter, reconstructor, dict.fromkeys(second.counts(), stores), second)
    return stage, _bundle(spec, reconstructor, config, second.segmenter, segmenter)


def _reconstructor(spec: ReconstructorSpec) -> Reconstructor:
    reconstructor = build_reconstructor(spec.name, {**spec.settings, **_without_weights(spec)})
    reconstructor.load_state_dict(
        reconstructor.state_dict()
    )  # a backbone takes part only with weights that were loaded
    return reconstructor


def _without_weights(spec: ReconstructorSpec) -> dict[str, Any]:
    return {"weights": None} if "weights" in spec.settings else {}


def _bundle(
    spec: ReconstructorSpec,
    reconstructor: Reconstructor,
    config: MatrixConfig,
    segmenter_config: SegmenterConfig | None = None,
    segmenter: Segmenter | None = None,
) -> Bundle:
    model = ModelConfig(
        kind="reconstructor" if segmenter is None else "detector",
        reconstructor=spec,
        segmenter=segmenter_config,
        preprocessing=config.preprocessing.model_dump(mode="json"),
        postprocessing=config.postprocessing,
    )
    return Bundle(model, reconstructor, segmenter, {}, {})


def _made_up(shape: tuple[int, int]) -> SliceStore:
    """Return two scans of three slices of an even brain with a square lesion."""
    image, labels = np.full((3, *shape), 0.5, np.float16), np.ones((3, *shape), np.uint8)
    image[:, ::2] = 0.25  # flat slices have no range to augment
    labels[:, shape[0] // 3 : shape[0] // 2, shape[1] // 3 : shape[1] // 2] = 3
    records = tuple(ScanRecord(subject=name, image=Path(name), modality="T1w") for name in ("a", "b"))
    return SliceStore((image, image), (labels, labels), records, (np.arange(3), np.arange(3)))
