"""Stage 2: the segmenter learns from pairs of a slice and its frozen reconstruction."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from halebrain.core.errors import ConfigError
from halebrain.core.random import branch, draw_seeds, make_generator
from halebrain.data import through_plane
from halebrain.data.anomalies import build_anomaly
from halebrain.data.augment import warp
from halebrain.data.samplers import Sampler, SliceSampler, build_sampler
from halebrain.data.slices import SliceStore
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.models.bundle import Bundle, ModelConfig
from halebrain.models.bundle_files import About
from halebrain.models.ensemble import Ensemble
from halebrain.models.joining import SHARED, part_for
from halebrain.models.reconstruction import Reconstructor
from halebrain.models.segmentation import Segmenter, weights_for
from halebrain.models.store import load_model
from halebrain.training.batch_sampling import DRAWS, LesionDraw, open_slices
from halebrain.training.loop import Stage
from halebrain.training.losses import segmentation_loss
from halebrain.training.pairs import cached_stage
from halebrain.training.prefetch import Drawn
from halebrain.training.processes import in_turn
from halebrain.training.runs import (
    files_of,
    read_training_manifest,
    run_stage,
    tell_of_other_contrasts,
    tell_of_people_learned_from,
)
from halebrain.training.segmenter_config import SegmenterTraining

LEVELS = "a level for each slice"
"""How the levels of stage 2 are drawn, part of a run's identity: runs with one level for each batch are not resumed."""
_KINDS = {"synthetic": "healthy", "annotated": "annotated"}


class SegmenterStage(Stage):
    """Slices with known lesions in, segmentation loss out; the reconstructor is frozen."""

    draw: LesionDraw

    def __init__(
        self,
        segmenter: Segmenter,
        reconstructor: Reconstructor,
        stores: dict[str, dict[str, SliceStore]],
        config: SegmenterTraining,
    ) -> None:
        super().__init__()
        self.trained = segmenter
        # In a list, so that fabric, train() and the optimiser leave the frozen network alone.
        self._frozen = [reconstructor]
        self.config = config
        samplers = {
            split: {
                source: _sampler(stores[source][split], count, split, source, config)
                for source, count in config.counts().items()
            }
            for split in ("train", "val")
        }
        anomaly, neighbours = build_anomaly(config.anomaly), config.segmenter.neighbours
        self.draw = LesionDraw(samplers, anomaly, config.augmentation, neighbours, config.seed)

    def forward(self, split: str, step: int, drawn: Drawn | None = None) -> torch.Tensor:
        """Return the segmentation loss of batch `step`."""
        segmenter: Any = self.trained
        device = next(segmenter.parameters()).device
        drawn = drawn or self.draw(split, step)
        image, brain_mask, lesion = (tensor.to(device, non_blocking=device.type == "cuda") for tensor in drawn)
        generator = branch(make_generator(self.config.seed, split, "stage 2", step), "pairs")
        reconstruction = self._reconstruct(image, brain_mask, generator)
        if split == "train":
            image, reconstruction, lesion = warp(
                image, reconstruction, lesion, config=self.config.augmentation, generator=generator
            )
        return segmentation_loss(segmenter.all_logits(image, reconstruction), lesion.float(), self.config.loss)

    def _reconstruct(self, image: torch.Tensor, brain_mask: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return reconstructions, each at a random level, from the anomalous input, as it will be at test time."""
        reconstructor = self._frozen[0]
        if not self.config.segmenter.needs_reconstruction:
            return image[:, :1]
        levels = [reconstructor.random_level(generator) for _ in range(len(image))]
        with torch.no_grad():
            seeds = draw_seeds(len(image), generator)
            return reconstructor.reconstruct_each(image[:, :1], levels=levels, seeds=seeds) * brain_mask[:, :1]


def train_segmenter(config: SegmenterTraining, stage1: Bundle, folder: Path, *, fabric: Fabric) -> Bundle:
    """Run stage 2 in `folder` (resuming what is there) on a trained reconstructor.

    Return the bundle, not yet written.
    """
    if config.segmenter.needs_reconstruction and not stage1.reconstructor.gives_image:
        raise ConfigError(
            "a segmenter of pairs needs a reconstruction",
            received=f"{stage1.config.reconstructor.name}, which gives no reconstruction",
            remedy="choose another reconstructor, or segmenter.streams=[image]",
        )
    manifest = read_training_manifest(config.data)
    sources = _sources(config, manifest)
    with in_turn(fabric):
        stores = _open(sources, config, folder)
    before = None if config.start is None else load_model(config.start)
    part = None if before is None else part_for(before, config.data.modalities or ())
    segmenter = _begin(config, part)
    stage1.reconstructor.to(fabric.device)
    stage = _stage(segmenter, stage1, stores, config, config.data.cache or folder / "cache", fabric)
    used = Manifest(tuple(record for rows in sources.values() for record in rows), source=manifest.source)
    training, about = _of_reconstructor(stage1)
    reconstructor = replace(stage1, training=training) if config.segmenter.needs_reconstruction else None
    tell_of_people_learned_from(used, (reconstructor, before))
    tell_of_other_contrasts(used, () if reconstructor is None else reconstructor.modalities)
    known = config.model_copy(update={"start": None})  # what it began with is known by its hash, not by its place
    others = [stage1.sha256, *([DRAWS, LEVELS] if config.pairs is None else [])]
    others += [] if before is None else [before.sha256]
    others += [through_plane.DRAWS] if config.segmenter.neighbours else []
    others += files_of(build_anomaly(config.anomaly) if "synthetic" in sources else None)
    name = "Stage 2, segmenter"
    summary = run_stage(stage, config, used, folder, fabric=fabric, name=name, known=known, others=others)
    model = ModelConfig(
        kind="detector",
        reconstructor=stage1.config.reconstructor,
        segmenter=config.segmenter,
        preprocessing=stage1.config.preprocessing,
        postprocessing=config.postprocessing,
    )
    annotated = sources.get("annotated", Manifest(()))
    summary["pathologies"] = sorted({record.condition for record in annotated.split("train")})
    if before is not None and part is not None:
        learned = {stage: summary for stage, summary in part.training.items() if stage != SHARED}
        summary["start"] = {"sha256": before.sha256} | learned
    stages = training | {"stage2": summary}
    return Bundle(model, stage1.reconstructor, segmenter, stages, {}, about=about, healthy_map=stage1.healthy_map)


def _of_reconstructor(stage1: Bundle) -> tuple[dict[str, Any], About | None]:
    """Return training summary and description of a reconstructor, without the segmenters of its detector."""
    training = dict(stage1.reconstructor_training)
    if stage1.segmenter is None or stage1.about is None:
        return training, stage1.about
    data = f"Model of the reconstructor: {stage1.about.data}"
    return training, stage1.about.model_copy(update={"data": data, "figures": (), "limits": {}})


def _begin(config: SegmenterTraining, before: Bundle | None) -> Segmenter:
    """Return the segmenter to train: with fresh weights, or with those of another model's."""
    torch.manual_seed(config.seed)  # the initial weights, drawn by torch's layers from the global generator
    segmenter = Segmenter(config.segmenter)
    if before is not None:
        known = before.segmenter
        assert not isinstance(known, Ensemble)  # `part_for` returns one network
        try:
            fits = known is not None and known.config.inputs_fit(config.segmenter)
            segmenter.load_state_dict(weights_for(segmenter, known) if known is not None and fits else {})
        except RuntimeError as error:
            raise ConfigError(
                "a model to start from must have a segmenter of the same size and inputs",
                received="no segmenter"
                if known is None
                else f"one of {known.config.model_dump(exclude_defaults=True)}",
                where=config.start or "",
                remedy="use its settings of the section segmenter, or remove start",
            ) from error
    return segmenter.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _stage(
    segmenter: Segmenter,
    stage1: Bundle,
    stores: dict[str, dict[str, SliceStore]],
    config: SegmenterTraining,
    cache: Path,
    fabric: Fabric,
) -> Stage:
    """Return what trains the segmenter: on pairs that are drawn at each step, or made once."""
    if config.pairs is None:
        return SegmenterStage(segmenter, stage1.reconstructor, stores, config)
    return cached_stage(segmenter, stage1, stores, config, cache, fabric=fabric)


def _sources(config: SegmenterTraining, manifest: Manifest) -> dict[str, Manifest]:
    """Return the scans of each kind that the regime learns from."""
    sources = {}
    if config.regime != "weak":
        sources["synthetic"] = manifest.select(lambda record: record.is_healthy)
    if config.regime != "synthetic":
        annotated = manifest.select(lambda record: _is_annotated(record, config.data.pathologies))
        if config.n_annotated is not None:
            few = set(annotated.split("train").subset(config.n_annotated, seed=config.subset_seed).subjects())
            annotated = annotated.select(lambda record: record.split != "train" or record.subject in few)
        sources["annotated"] = annotated
    return sources


def _is_annotated(record: ScanRecord, wanted: tuple[str, ...] | None) -> bool:
    # A healthy scan may carry an empty mask; it has no lesion to learn from.
    return record.is_annotated and (wanted is None or record.pathology in wanted)


def _sampler(store: SliceStore, count: int, split: str, source: str, config: SegmenterTraining) -> Sampler:
    """Return what draws `count` slices a batch: healthy training ones as configured, the others at random."""
    seed, stream = (config.seed if split == "train" else 0), f"{split} {source}"
    if source == "synthetic" and split == "train":
        return build_sampler(config.data.sampling, store, count, seed, stream)
    return SliceSampler(store, count, seed, stream, config.lesion_fraction if source == "annotated" else 0.0)


def _open(sources: dict[str, Manifest], config: SegmenterTraining, folder: Path) -> dict[str, dict[str, SliceStore]]:
    """Return the slices of each source and split, with the neighbours that the segmenter sees."""
    return {
        source: {
            split: replace(store, neighbours=config.segmenter.neighbours)
            for split, store in open_slices(rows, _KINDS[source], config.data, folder).items()
        }
        for source, rows in sources.items()
    }
