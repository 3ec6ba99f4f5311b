"""Cached pairs: what they hold, that they are the same however they are made, and how they are drawn."""

from pathlib import Path

import numpy as np
import pytest
import torch

from halebrain.data.anomalies import AnomalySpec, build_anomaly
from halebrain.data.augment import PairAugmentationConfig
from halebrain.data.slices import SliceStore
from halebrain.io.manifest import ScanRecord
from halebrain.models.reconstruction import build_reconstructor
from halebrain.training.pairs import PairMaker, PairStore, split_pairs

SIDE, COUNT = 32, 6


def make_store(names: tuple[str, ...]) -> SliceStore:
    images, labels, records = [], [], []
    for name in names:
        rng = np.random.default_rng(len(name) + ord(name[0]))
        label = np.zeros((COUNT, SIDE, SIDE), np.uint8)
        label[:, 4:28, 4:28] = 1
        label[:2, 10:14, 10:14] = 3
        images.append(((0.2 + 0.3 * rng.random(label.shape)) * (label > 0)).astype(np.float16))
        labels.append(label)
        records.append(ScanRecord(subject=name, image=Path(f"{name}.nii"), modality="FLAIR"))
    return SliceStore(tuple(images), tuple(labels), tuple(records))


@pytest.fixture(scope="module")
def maker() -> PairMaker:
    unet = {"channels": [8, 8], "blocks_per_level": 1, "patch": 4, "norm_groups": 4, "attention_head_channels": 0}
    torch.manual_seed(1)
    settings = {"unet": unet, "noise": "gaussian", "test_levels": [200, 700]}
    built = build_reconstructor("ddpm", settings).eval().requires_grad_(False)
    for parameter in built.parameters():  # the last layer begins at 0, and would give the same for every noise
        parameter += 0.05 * torch.randn(parameter.shape)
    return PairMaker(built, PairAugmentationConfig(gamma=1, bias_field=0, blur=0, ghosting=0), seed=3)


def test_the_first_draw_is_the_slice_and_the_others_are_altered(maker: PairMaker) -> None:
    store = make_store(("a",))
    pairs = maker.annotated(store, 0, draws=3)
    assert pairs.shape == (3 * COUNT, 3, SIDE, SIDE)
    np.testing.assert_array_equal(pairs[:COUNT, 0], store.images[0])
    for draw in range(3):
        np.testing.assert_array_equal(pairs[draw * COUNT : (draw + 1) * COUNT, 2], store.labels[0])
    assert np.abs(pairs[COUNT : 2 * COUNT, 0] - store.images[0]).max() > 0.005
    # Other noise, other level: no reconstruction comes twice.
    assert len({pairs[n * COUNT, 1].tobytes() for n in range(3)}) == 3
    assert not pairs[:, 1][store.labels[0][None].repeat(3, 0).reshape(-1, SIDE, SIDE) == 0].any()


@pytest.mark.parametrize("name", ["synthetic", "sub-synthetic1_annotated"])
def test_whether_a_slice_is_augmented_does_not_depend_on_its_name(maker: PairMaker, name: str) -> None:
    store = make_store((name,))
    pairs = maker.annotated(store, 0, draws=2)
    np.testing.assert_array_equal(pairs[:COUNT, 0], store.images[0])
    assert np.abs(pairs[COUNT:, 0] - store.images[0]).max() > 0.005
    # Synthetic pairs are augmented at every draw, the first one too, whatever the anomaly does.
    plain = maker.synthetic(store, 0, build_anomaly(AnomalySpec(settings={"probability": 0.0})), count=4)
    for pair in plain:
        assert min(np.abs(pair[0] - image)[pair[2] > 0].mean() for image in store.images[0]) > 0.001


def test_a_pair_does_not_depend_on_which_other_scans_there_are(maker: PairMaker) -> None:
    anomaly = build_anomaly(AnomalySpec())
    alone, among = make_store(("b",)), make_store(("a", "b"))
    np.testing.assert_array_equal(maker.annotated(alone, 0, draws=2), maker.annotated(among, 1, draws=2))
    np.testing.assert_array_equal(
        maker.synthetic(alone, 0, anomaly, count=5), maker.synthetic(among, 1, anomaly, count=5)
    )


def test_synthetic_anomalies_go_into_slices_without_lesion(maker: PairMaker) -> None:
    store = make_store(("a",))
    altered = build_anomaly(AnomalySpec(settings={"probability": 1.0}))
    pairs = maker.synthetic(store, 0, altered, count=24)
    image, reconstruction, lesion = split_pairs(torch.from_numpy(pairs.astype(np.float32)))
    assert image.shape == reconstruction.shape == lesion.shape == (24, 1, SIDE, SIDE)
    assert lesion.any()
    assert not (lesion & (torch.from_numpy(store.labels[0][:1]) == 0)).any()
    # The lesion of the annotated slices is a square that no such slice can have by itself.
    square = torch.from_numpy(store.labels[0][0] > 1)
    assert (lesion[:, 0] == square).all(dim=(1, 2)).sum() == 0
    full = SliceStore((store.images[0][:2],), (store.labels[0][:2],), store.records)
    joined = split_pairs(torch.from_numpy(maker.synthetic(full, 0, altered, count=4).astype(np.float32)))[2]
    assert joined[:, 0, 10:14, 10:14].all()


def test_without_need_of_a_reconstruction_none_is_made(maker: PairMaker) -> None:
    plain = PairMaker(maker.reconstructor, maker.augmentation, maker.seed, needs_reconstruction=False)
    pairs = plain.annotated(make_store(("a",)), 0, draws=2)
    np.testing.assert_array_equal(pairs[:, 0], pairs[:, 1])


def test_drawing_follows_subjects_and_lesions() -> None:
    pairs = np.zeros((5, 3, 4, 4), np.float16)
    pairs[:, 2] = 1
    pairs[3, 2, 1, 1] = 3
    second = pairs.copy()
    second[:, 0] = 0.5
    store = PairStore((pairs, second), ("a", "b"))
    generator = torch.Generator().manual_seed(0)
    drawn, contrasts = store.draw(40, generator, lesion_fraction=1.0)
    assert contrasts == [None] * 40
    assert split_pairs(drawn)[2].flatten(1).any(dim=1).all()
    assert 5 < int((drawn[:, 0] == 0.5).all(dim=(1, 2)).sum()) < 35
    assert not (store.of(["a"]).draw(20, generator)[0][:, 0] == 0.5).any()
    assert 0 < int(split_pairs(store.draw(60, generator)[0])[2].flatten(1).any(dim=1).sum()) < 40
