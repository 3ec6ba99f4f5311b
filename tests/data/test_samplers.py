"""Samplers over stores made by hand, in which a slice's first pixel says which scan and height it is."""

from pathlib import Path

import numpy as np
import pytest
import torch

from halebrain.core.config import dump_yaml
from halebrain.core.errors import DataError
from halebrain.data.samplers import EpochSampler, LevelSampler, SliceSampler, build_sampler
from halebrain.data.slices import DataConfig, SliceStore
from halebrain.io.manifest import ScanRecord

LEVELS = ([3, 4, 5, 6], [4, 5, 6, 7, 8], [5, 6, 9])  # the last scan has a gap
DRAWS = [[(1, 8), (0, 4), (0, 5), (2, 6), (1, 6), (2, 5)], [(2, 5), (2, 5), (2, 6), (1, 5), (2, 5), (2, 5)]]


@pytest.fixture
def store():
    images, labels, records = [], [], []
    for scan, levels in enumerate(LEVELS):
        image = np.zeros((len(levels), 4, 4), np.float16)
        image[:, 0, 0], image[:, 0, 1] = scan, levels
        images.append(image)
        labels.append(np.ones(image.shape, np.uint8))
        records.append(ScanRecord(subject=str(scan), image=Path(f"{scan}.nii.gz"), modality="T1w"))
    return SliceStore(tuple(images), tuple(labels), tuple(records), tuple(np.array(levels) for levels in LEVELS))


def seen(batch):
    return [(int(scan), int(level)) for scan, level in batch.image[:, 0, 0, :2].tolist()]


@pytest.mark.parametrize("size", [1, 4, 5, 12, 30])
def test_every_slice_comes_once_an_epoch(store, size):
    sampler = EpochSampler(store, size, seed=0, stream="train")
    everything = sorted((scan, level) for scan, levels in enumerate(LEVELS) for level in levels)
    stream = [slice_ for step in range(-(-36 // size)) for slice_ in seen(sampler.batch(step))]
    epochs = [stream[n : n + 12] for n in (0, 12, 24)]
    assert all(sorted(epoch) == everything for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_heights_are_alike_within_a_batch_and_scans_differ(store):
    sampler = LevelSampler(store, 3, seed=0, stream="train")
    met = set()
    for step in range(60):
        batch = seen(sampler.batch(step))
        (level,) = {level for _, level in batch}
        have = [scan for scan, levels in enumerate(LEVELS) if level in levels]
        assert {scan for scan, _ in batch} == set(have)  # each once before one comes twice
        met.add(level)
    assert met == {level for levels in LEVELS for level in levels}


@pytest.mark.parametrize("sampling", ["random", "all", "level"])
def test_a_step_does_not_depend_on_those_before_it(store, sampling):
    one, other = (build_sampler(sampling, store, 4, seed=3, stream="train") for _ in range(2))
    for step in range(9):
        one.batch(step)
    assert torch.equal(one.batch(9).image, other.batch(9).image)
    for seed, stream in ((4, "train"), (3, "val")):
        changed = build_sampler(sampling, store, 4, seed=seed, stream=stream)
        assert any(seen(one.batch(n)) != seen(changed.batch(n)) for n in range(5))


def test_random_is_the_sampler_that_it_was(store):
    """Draws of seed 0 at steps 0 and 7, written down: trainings that are resumed go on with these very batches."""
    sampler = build_sampler("random", store, 6, seed=0, stream="train")
    assert isinstance(sampler, SliceSampler)
    assert [seen(sampler.batch(step)) for step in (0, 7)] == DRAWS


def test_a_store_without_levels_is_refused(store):
    bare = SliceStore(store.images, store.labels, store.records)
    with pytest.raises(DataError, match="store with levels"):
        build_sampler("level", bare, 4, seed=0, stream="train")


def test_an_option_at_its_default_is_not_dumped_so_runs_keep_their_identity():
    assert list(DataConfig().model_dump()) == ["manifest", "modalities", "pathologies", "preprocessing", "cache"]
    changed = DataConfig(sampling="level")
    assert changed.model_dump(mode="json")["sampling"] == "level"
    assert "sampling: level" in dump_yaml(changed)
    assert DataConfig.model_validate(changed.model_dump()) == changed
