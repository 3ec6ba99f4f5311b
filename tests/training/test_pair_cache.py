"""Stage 2 from cached pairs: what they are made of, when they are made anew, and that one learns from them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from halebrain.data.anomalies import AnomalySpec
from halebrain.data.augment import PairAugmentationConfig
from halebrain.data.slices import SliceStore
from halebrain.io.manifest import ScanRecord
from halebrain.io.nifti import write_volume
from halebrain.models.bundle import Bundle, ModelConfig
from halebrain.models.reconstruction import ReconstructorSpec, build_reconstructor
from halebrain.models.segmentation import Segmenter, SegmenterConfig
from halebrain.preprocessing.geometry import working_grid
from halebrain.training.loop import train
from halebrain.training.loop_config import LoopConfig
from halebrain.training.pairs import PairStage, cached_stage, split_pairs
from halebrain.training.segmenter_config import PairCacheConfig, SegmenterTraining

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning.*")

SIZE = SegmenterConfig(channels=(8, 16), patch=2)
ALL = {f"{source}-{split}" for source in ("synthetic", "annotated") for split in ("train", "val")}
FABRIC = Fabric(accelerator="cpu", devices=1, precision="32-true")
CONFIG = SegmenterTraining(
    regime="both",
    annotated_fraction=0.5,
    lesion_fraction=0.8,
    segmenter=SIZE,
    augmentation=PairAugmentationConfig(gamma=0.5, bias_field=0, blur=0, ghosting=0, flip=0.5, affine=0.5),
    pairs=PairCacheConfig(annotated=20, synthetic=6, validation=3),
    loop=LoopConfig(steps=60, batch_size=8, lr=1e-2, precision="32-true", validate_every=60, keep="last"),
)


def stage1() -> Bundle:
    unet = {"channels": [8, 8], "blocks_per_level": 1, "patch": 4, "norm_groups": 4, "attention_head_channels": 0}
    settings = {"unet": unet, "noise": "gaussian", "test_levels": [200, 700]}
    torch.manual_seed(1)
    built = build_reconstructor("ddpm", settings).eval().requires_grad_(False)
    model = ModelConfig(kind="reconstructor", reconstructor=ReconstructorSpec(name="ddpm", settings=settings))
    return Bundle(model, built, None, {}, {}, sha256="one")


def store(name: str, value: float, *, lesion: bool) -> SliceStore:
    labels = np.zeros((10, 32, 32), dtype=np.uint8)
    labels[:, 4:28, 4:28] = 1
    if lesion:
        labels[:5, 10:16, 10:16] = 3
    images = (value * (labels > 0) + 0.25 * (labels > 1)).astype(np.float16)
    record = ScanRecord(subject=name, image=Path(f"{name}.nii"), modality="T1w")
    return SliceStore((images,), (labels,), (record,))


def stores(value: float = 0.5) -> dict[str, dict[str, SliceStore]]:
    return {
        "synthetic": {s: store(f"h{s}", 0.4, lesion=False) for s in ("train", "val")},
        "annotated": {s: store(f"a{s}", value, lesion=True) for s in ("train", "val")},
    }


def make(cache: Path, config: SegmenterTraining = CONFIG, value: float = 0.5, first: Bundle | None = None) -> PairStage:
    torch.manual_seed(0)
    return cached_stage(Segmenter(config.segmenter), first or stage1(), stores(value), config, cache, fabric=FABRIC)


def test_a_batch_has_pairs_of_both_kinds_as_many_as_configured(tmp_path: Path) -> None:
    stage = make(tmp_path)
    counts = {split: [(len(d.store.pairs[0]), d.count) for d in stage.draws[split]] for split in ("train", "val")}
    assert counts == {"train": [(6, 4), (20, 4)], "val": [(3, 4), (3, 4)]}
    annotated = stage.draws["train"][1].store
    assert 12 <= len(annotated.with_lesion[0]) < 20, "four fifths were drawn among slices with lesion"
    assert torch.equal(stage("train", 3), stage("train", 3))
    assert not torch.equal(stage("train", 3), stage("train", 4))


def test_validation_pairs_are_not_augmented(tmp_path: Path) -> None:
    pairs = make(tmp_path).draws["val"][1].store.pairs[0]
    brain = pairs[:, 2] == 1
    np.testing.assert_allclose(pairs[:, 0][brain], 0.5, atol=1e-3)


def files(cache: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in cache.rglob("*.npy")}


def changed(**settings: Any) -> SegmenterTraining:
    return CONFIG.model_copy(update=settings)


def test_pairs_are_made_once_for_all_runs_that_need_the_same(tmp_path: Path) -> None:
    make(tmp_path)
    before = files(tmp_path)
    assert len(before) == 4
    bent = CONFIG.augmentation.model_copy(update={"warp": 0.5, "flip": 0.0})  # of shapes: anew at each step
    longer = CONFIG.loop.model_copy(update={"steps": 90})
    for other in (
        changed(loop=longer, annotated_fraction=0.25, augmentation=bent),
        changed(regime="weak"),
        changed(regime="synthetic"),
    ):
        make(tmp_path, other)
        assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("settings", "new"),
    [
        ({"seed": 1}, {"synthetic-train", "annotated-train"}),
        ({"lesion_fraction": 0.3}, {"annotated-train", "annotated-val"}),
        ({"anomaly": AnomalySpec(name="blobs")}, {"synthetic-train", "synthetic-val"}),
        ({"pairs": PairCacheConfig(annotated=20, synthetic=6, validation=2)}, {"synthetic-val", "annotated-val"}),
        ({"augmentation": PairAugmentationConfig(gamma=0)}, {"synthetic-train", "annotated-train"}),
        ({"segmenter": SegmenterConfig(channels=(8, 16), streams=("image",))}, ALL),
        ({"segmenter": SegmenterConfig(channels=(8, 16), encoder="early", neighbours=(-1, 1))}, ALL),
    ],
)
def test_pairs_are_made_anew_where_anything_that_matters_differs(
    tmp_path: Path, settings: dict[str, Any], new: set[str]
) -> None:
    make(tmp_path)
    before = set(files(tmp_path))
    make(tmp_path, changed(**settings))
    assert {path.name.split("_")[-2] for path in set(files(tmp_path)) - before} == new


@pytest.mark.slow
def test_pairs_are_made_again_where_other_lesion_masks_lie_in_the_same_folder(tmp_path: Path) -> None:
    def write_mask(start: int) -> None:
        mask = np.zeros((96, 96, 80), np.uint8)
        mask[start : start + 9, 40:52, 40:44] = 1
        write_volume(tmp_path / "masks" / "a.nii.gz", mask, working_grid().affine, dtype=np.uint8)

    kind = {"name": "cohort", "settings": {"masks": tmp_path / "masks", "diseases": ["wmh"], "patients": 1}}
    config = changed(anomaly=AnomalySpec(name="mixture", settings={"of": [kind]}))
    (tmp_path / "masks").mkdir()
    write_mask(30)
    make(tmp_path / "cache", config)
    before = files(tmp_path / "cache")
    make(tmp_path / "cache", config)
    assert files(tmp_path / "cache") == before
    write_mask(50)
    make(tmp_path / "cache", config)
    made = set(files(tmp_path / "cache")) - set(before)
    assert {path.name.split("_")[-2] for path in made} == {"synthetic-train", "synthetic-val"}
    # Of the new masks, though the first run of this process has read the former ones.
    assert not {path.read_bytes() for path in made} & {path.read_bytes() for path in before}


def test_a_scan_that_counts_several_times_has_other_pairs_each_time(tmp_path: Path) -> None:
    def thrice(one: SliceStore) -> SliceStore:
        return replace(one, images=one.images * 3, labels=one.labels * 3, records=one.records * 3)

    given = stores()
    more = {source: {**parts, "train": thrice(parts["train"])} for source, parts in given.items()}
    torch.manual_seed(0)
    stage = cached_stage(Segmenter(SIZE), stage1(), more, CONFIG, tmp_path, fabric=FABRIC)
    for draw in stage.draws["train"]:
        assert len({pairs.tobytes() for pairs in draw.store.pairs}) == 3
    before = files(tmp_path)
    assert len(before) == 8
    # The first of them are those of a run in which each scan counts once.
    make(tmp_path)
    assert files(tmp_path) == before


def test_pairs_with_neighbours_are_learned_from_and_every_tensor_has_its_place(tmp_path: Path) -> None:
    seeing = SegmenterConfig(channels=(8, 16), patch=2, encoder="early", neighbours=(-1, 2))
    config = changed(segmenter=seeing)
    ramp = (1 + np.arange(10, dtype=np.float16)[:, None, None] / 100).astype(np.float16)
    given = {
        source: {
            split: replace(one, images=(one.images[0] * ramp,), neighbours=seeing.neighbours)
            for split, one in parts.items()
        }
        for source, parts in stores().items()
    }
    torch.manual_seed(0)
    stage = cached_stage(Segmenter(seeing), stage1(), given, config, tmp_path, fabric=FABRIC)
    assert torch.isfinite(stage("train", 0))
    pairs = stage.draws["val"][1].store.pairs[0]
    assert pairs.shape[1:] == (5, 32, 32)
    image, reconstruction, lesion = split_pairs(torch.from_numpy(pairs.astype(np.float32)))
    assert (image.shape[1], reconstruction.shape[1], lesion.shape[1]) == (3, 1, 1)
    source = given["annotated"]["val"].images[0]
    for shown in image.numpy():
        (place,) = (n for n in range(10) if np.array_equal(shown[0], source[n]))
        beside = [source[place + k] if 0 <= place + k < 10 else np.zeros_like(source[0]) for k in (-1, 2)]
        np.testing.assert_array_equal(shown[1:], np.stack(beside))


def test_another_reconstructor_makes_all_anew_another_scan_of_the_same_name_its_own(tmp_path: Path) -> None:
    make(tmp_path)
    before = set(files(tmp_path))
    make(tmp_path, value=0.6)
    assert len(set(files(tmp_path)) - before) == 2, "the annotated scan of each split is another one"
    make(tmp_path, first=replace(stage1(), sha256="another"))
    assert len(set(files(tmp_path)) - before) == 6


@pytest.mark.slow
def test_the_segmenter_learns_from_them(tmp_path: Path) -> None:
    stage = make(tmp_path)
    first = float(stage("val", 0).detach())
    result = train(stage, CONFIG.loop, tmp_path, fabric=FABRIC, name="t")
    assert result.validation_loss < 0.5 * first


def test_a_configuration_without_pairs_is_told_as_before() -> None:
    assert "pairs" not in SegmenterTraining().model_dump()
    assert SegmenterTraining(regime="both").counts() == {"synthetic": 16, "annotated": 16}
    assert SegmenterTraining(regime="weak").counts() == {"annotated": 32}
