"""What is drawn: the same in another process and with another number of threads, for every kind of anomaly."""

from dataclasses import replace

import pytest
import torch
from tests.training.test_stages import flat_store

from halebrain.data.anomalies import ANOMALIES, AnomalySpec, build_anomaly
from halebrain.data.augment import AugmentationConfig, PairAugmentationConfig
from halebrain.data.samplers import SliceSampler
from halebrain.training.batch_sampling import HealthyDraw, HealthySlices, LesionDraw
from halebrain.training.encoder import EncoderTraining
from halebrain.training.loop_config import LoopConfig
from halebrain.training.prefetch import Draw, prefetch

EVERYTHING = dict.fromkeys(AugmentationConfig.model_fields, 0.5)
CHEAP = sorted(set(ANOMALIES.names()) - {"cohort", "mixture"})
"""The cohort's lesions take seconds to make in each process."""


def lesion_draw(anomaly: AnomalySpec) -> LesionDraw:
    healthy, ill = (replace(flat_store(0.5, lesion=lesion), neighbours=(-1, 2)) for lesion in (False, True))
    samplers = {
        split: {
            "synthetic": SliceSampler(healthy, 5, 0, "synthetic"),
            "annotated": SliceSampler(ill, 3, 0, "annotated", 0.5),
        }
        for split in ("train", "val")
    }
    augmentation = PairAugmentationConfig(**EVERYTHING)
    return LesionDraw(samplers, build_anomaly(anomaly), augmentation, (-1, 2), seed=3)


def healthy_draw(anomaly: AnomalySpec | None) -> HealthyDraw:
    store = flat_store(0.5, lesion=False)
    loop, augmentation = LoopConfig(batch_size=4), AugmentationConfig(**EVERYTHING)
    config = EncoderTraining(loop=loop, augmentation=augmentation, seed=3)
    slices = HealthySlices({"train": store, "val": store}, config, purpose="stage 1")
    return HealthyDraw(slices, None if anomaly is None else build_anomaly(anomaly))


def mixture() -> AnomalySpec:
    of = [{"name": name, "settings": {"probability": 1.0}} for name in CHEAP]
    return AnomalySpec(name="mixture", settings={"of": of})


@pytest.mark.slow
@pytest.mark.parametrize("draw", [lesion_draw(mixture()), healthy_draw(mixture()), healthy_draw(None)], ids=type)
def test_another_process_draws_the_same_to_the_bit(draw: Draw) -> None:
    steps = range(2, 4)
    here = [draw("train", step) for step in steps]
    there = list(prefetch(draw, steps, workers=2))
    for expected, found in zip(here, there, strict=True):
        assert found is not None
        assert [torch.equal(a, b) for a, b in zip(expected, found, strict=True)] == [True] * len(expected)
    assert not torch.equal(here[0][0], here[1][0])


def test_slices_come_with_neighbours_masks_and_lesions_of_both_kinds() -> None:
    image, brain_mask, lesion = lesion_draw(AnomalySpec(name="blobs", settings={"probability": 1.0}))("train", 0)
    assert image.shape == brain_mask.shape == (8, 3, 32, 32)
    assert lesion.shape == (8, 1, 32, 32)
    assert lesion[:5].flatten(1).any(dim=1).all()
    assert 0 < int(lesion[5:].flatten(1).any(dim=1).sum()) <= 3


def test_corrupted_slices_differ_from_the_healthy_ones_inside_the_brain_alone() -> None:
    image, corrupted = healthy_draw(AnomalySpec(name="blobs", settings={"probability": 1.0}))("val", 0)
    changed = image != corrupted
    assert changed.flatten(1).any(dim=1).all()
    assert not changed[:, :, :4].any()
