import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from halebrain.core.errors import DataError, MissingInputError
from halebrain.core.types import TEMPLATE_SPACE
from halebrain.data import slices
from halebrain.data.samplers import SliceSampler
from halebrain.data.slices import DataConfig, SliceStore, build_store, weigh
from halebrain.io.checksum import scan_sha256
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.io.nifti import write_volume
from halebrain.io.volume import read_volume
from halebrain.preprocessing.geometry import working_grid
from halebrain.preprocessing.pipeline import PreprocessingConfig
from halebrain.preprocessing.template import load_template

SHAPE = (32, 32, 24)
CONFIG = PreprocessingConfig(shape=SHAPE, spacing_mm=6, bias_correction="none", registration="none")


def write_scan(folder, name, *, lesion):
    rng = np.random.default_rng(list(name.encode()))
    affine = working_grid(SHAPE, 6).affine
    brain = np.zeros(SHAPE, dtype=np.uint8)
    brain[6:26, 5:27, 4:20] = 1
    image = (0.3 + 0.4 * rng.random(SHAPE)) * brain
    spot = np.zeros(SHAPE, dtype=np.uint8)
    spot[10:16, 12:18, 8:11] = 1
    paths = {kind: folder / f"{name}_{kind}.nii.gz" for kind in ("image", "brain", "lesion")}
    write_volume(paths["image"], image.astype(np.float32), affine)
    write_volume(paths["brain"], brain, affine, dtype=np.uint8)
    write_volume(paths["lesion"], spot, affine, dtype=np.uint8)
    return ScanRecord(
        subject=name,
        image=paths["image"],
        modality="FLAIR",
        brain_mask=paths["brain"],
        lesion=paths["lesion"] if lesion else None,
        space=TEMPLATE_SPACE,
        split="train",
    )


@pytest.fixture
def manifest(tmp_path):
    return Manifest((write_scan(tmp_path, "sick", lesion=True), write_scan(tmp_path, "well", lesion=False)))


@pytest.fixture
def store(manifest, tmp_path):
    return build_store(manifest, CONFIG, tmp_path / "cache", description="scans")


def test_a_store_holds_the_slices_with_brain_and_their_labels(store):
    assert len(store) == 2
    assert store.images[0].shape == store.labels[0].shape == (16, 32, 32)
    assert store.images[0].dtype == np.float16
    assert (store.labels[0] > 0).sum() == 16 * 20 * 22
    assert store.lesion_slices[0].tolist() == [4, 5, 6]
    assert store.lesion_slices[1].tolist() == []
    batch = store.read([0, 1], [5, 0])
    assert batch.image.shape == batch.brain_mask.shape == batch.lesion.shape == (2, 1, 32, 32)
    assert batch.image.dtype == torch.float32
    assert batch.image.min() >= 0
    assert batch.image.max() <= 1
    assert batch.lesion[0, 0, 10:16, 12:18].all()
    assert int(batch.lesion.sum()) == 36
    assert not batch.image[~batch.brain_mask].any()


def test_a_store_shows_each_slice_with_its_neighbours_and_nothing_beyond_the_last(store):
    seeing = replace(store, neighbours=(-2, 1))
    batch, plain = seeing.read([0, 0, 1], [5, 15, 1]), store.read([0, 0, 1], [5, 15, 1])
    assert batch.image.shape == batch.brain_mask.shape == (3, 3, 32, 32)
    assert torch.equal(batch.image[:, :1], plain.image)
    assert torch.equal(batch.lesion, plain.lesion)
    for row, (scan, below, above) in enumerate([(0, 3, 6), (0, 13, None), (1, None, 2)]):
        for channel, place in ((1, below), (2, above)):
            if place is None:
                assert not batch.image[row, channel].any()
                assert not batch.brain_mask[row, channel].any()
            else:
                assert torch.equal(batch.image[row, channel], store.read([scan], [place]).image[0, 0])
                assert torch.equal(batch.brain_mask[row, channel], store.read([scan], [place]).brain_mask[0, 0])


def test_scans_of_further_tables_count_as_often_as_asked(store, manifest, tmp_path):
    further = tmp_path / "further.tsv"
    manifest.select(lambda record: record.subject == "well").write(further)
    data = DataConfig(more_manifests=(further,), oversample_factor=3)
    weighed = weigh(replace(store, levels=tuple(np.arange(16) for _ in range(2))), data)
    assert [record.subject for record in weighed.records] == ["sick", "well", "well", "well"]
    assert len(weighed.images) == len(weighed.labels) == len(weighed.levels) == 4
    np.testing.assert_array_equal(weighed.images[3], store.images[1])
    assert weigh(store, data.model_copy(update={"oversample_factor": 1})) is store
    assert weigh(store, DataConfig(oversample_factor=3)) is store
    assert "oversample_factor" not in DataConfig().model_dump()
    other = tmp_path / "other.tsv"
    manifest.select(lambda record: record.subject == "sick").write(other)
    each = weigh(store, DataConfig(more_manifests=(other, further), oversample_factor=(2, 3)))
    assert [record.subject for record in each.records] == ["sick", "sick", "well", "well", "well"]
    with pytest.raises(ValidationError, match="oversample_factor has 1 for 2 more_manifests"):
        DataConfig(more_manifests=(other, further), oversample_factor=(2,))
    drawn = SliceSampler(weighed, 400, seed=0, stream="train").batch(0)
    share = float(drawn.lesion.flatten(1).any(dim=1).float().mean())
    assert 0.01 < share < 0.075, "a quarter of the draws, of whose 16 slices three have lesion"


def test_a_cached_scan_is_not_preprocessed_again(store, manifest, tmp_path):
    cache = tmp_path / "cache"
    stamps = {p.name: p.stat().st_mtime_ns for p in cache.iterdir()}
    assert len(stamps) == 6
    again = build_store(manifest, CONFIG, cache, description="scans")
    assert {p.name: p.stat().st_mtime_ns for p in cache.iterdir()} == stamps
    np.testing.assert_array_equal(again.images[0], store.images[0])
    build_store(manifest, CONFIG.model_copy(update={"high_percentile": 98.0}), cache, description="scans")
    assert len(list(cache.iterdir())) == 12
    write_scan(tmp_path, "sick", lesion=True)  # same bytes, later time
    build_store(manifest, CONFIG, cache, description="scans")
    assert len(list(cache.iterdir())) == 12


def test_a_scan_is_preprocessed_again_for_another_atlas_in_the_same_file(manifest, tmp_path):
    template, mask = load_template(2)
    atlas, cache = tmp_path / "atlas.nii.gz", tmp_path / "cache"
    one = Manifest((replace(manifest.records[0], space="native"),))
    config = CONFIG.model_copy(update={"template": atlas})
    for brightness, files in ((500, 3), (500, 3), (700, 6)):
        write_volume(atlas, np.where(mask, brightness * template.data, 0), template.affine)
        build_store(one, config, cache, description="scans")
        assert len(list(cache.iterdir())) == files


def test_levels_are_the_heights_of_the_slices_kept(store, manifest, tmp_path):
    cache = tmp_path / "cache"
    assert store.levels == ()
    opened = build_store(manifest, CONFIG, cache, description="scans", with_levels=True)
    assert [levels.tolist() for levels in opened.levels] == [list(range(4, 20))] * 2


def test_another_atlas_under_the_same_name_makes_other_slices(manifest, tmp_path):
    cache, atlas = tmp_path / "cache", tmp_path / "atlas.nii.gz"
    config = CONFIG.model_copy(update={"template": atlas, "template_mask": manifest.records[0].brain_mask})
    affine = working_grid(SHAPE, 6).affine
    opened = []
    for shift_mm in (0, 12):
        affine[0, 3] += shift_mm
        write_volume(atlas, read_volume(manifest.records[0].image).data, affine)
        write_volume(config.template_mask, read_volume(config.template_mask).data, affine, dtype=np.uint8)
        well = manifest.select(lambda record: record.subject == "well")
        opened.append(build_store(well, config, cache, description="scans").images[0])
    assert len(list(cache.iterdir())) == 6
    assert not np.array_equal(*opened)


def test_an_atlas_is_read_once_for_all_scans(manifest, tmp_path, monkeypatch):
    atlas = tmp_path / "atlas.nii.gz"
    write_volume(atlas, read_volume(manifest.records[0].image).data, working_grid(SHAPE, 6).affine)
    asked = []
    monkeypatch.setattr(slices, "scan_sha256", lambda path: asked.append(path) or scan_sha256(path))
    config = CONFIG.model_copy(update={"template": atlas, "template_mask": manifest.records[0].brain_mask})
    build_store(manifest, config, tmp_path / "cache", description="scans")
    assert asked.count(atlas) == 1 < len(manifest)


def test_levels_of_an_older_cache_are_added(store, manifest, tmp_path):
    cache = tmp_path / "cache"
    names = {path.name for path in cache.iterdir()}
    for path in cache.glob("*_levels.npy"):
        path.unlink()
    stamps = {p.name: p.stat().st_mtime_ns for p in cache.iterdir()}
    build_store(manifest, CONFIG, cache, description="scans")
    assert {p.name: p.stat().st_mtime_ns for p in cache.iterdir()} == stamps
    again = build_store(manifest, CONFIG, cache, description="scans", with_levels=True)
    assert {path.name for path in cache.iterdir()} == names
    assert len(again.levels) == 2
    np.testing.assert_array_equal(again.images[0], store.images[0])


def test_a_step_always_sees_the_same_slices(store):
    sampler = SliceSampler(store, 8, seed=0, stream="train")
    late = sampler.batch(7)
    for step in range(3):
        sampler.batch(step)
    again = SliceSampler(store, 8, seed=0, stream="train").batch(7)
    assert torch.equal(late.image, again.image)
    assert torch.equal(late.lesion, again.lesion)
    others = [
        sampler.batch(8),
        SliceSampler(store, 8, seed=1, stream="train").batch(7),
        SliceSampler(store, 8, seed=0, stream="val").batch(7),
    ]
    assert not any(torch.equal(late.image, other.image) for other in others)


def digest(sampler, step):
    batch = sampler.batch(step)
    return [tensor.numpy().tobytes() for tensor in (batch.image, batch.brain_mask, batch.lesion)]


def open_and_digest(manifest, cache, steps):
    store = build_store(manifest, CONFIG, cache, description="scans")
    return [digest(SliceSampler(store, 8, seed=0, stream="train"), step) for step in steps]


@pytest.mark.slow
def test_processes_that_make_and_open_one_cache_at_once_read_the_same_batches(manifest, tmp_path):
    cache = tmp_path / "shared"
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        fresh = [pool.submit(open_and_digest, manifest, cache, range(4)) for _ in range(2)]
        found = [future.result() for future in fresh]
        sampler = SliceSampler(build_store(manifest, CONFIG, cache, description="scans"), 8, seed=0, stream="train")
        here = [digest(sampler, step) for step in range(4)]
        sent = list(pool.map(digest, [sampler] * 4, range(4)))
    assert found[0] == found[1] == here
    assert sent == here
    assert len(list(cache.iterdir())) == 6  # and nothing half written


def test_a_store_that_is_sent_takes_no_slices_along(store):
    raw = pickle.dumps(store)
    assert len(raw) < store.images[0].nbytes / 4
    arrived = pickle.loads(raw)
    assert isinstance(arrived.images[0], np.memmap)
    for name in ("images", "labels"):
        for ours, theirs in zip(getattr(store, name), getattr(arrived, name), strict=True):
            np.testing.assert_array_equal(theirs, ours)
    part = SliceStore((store.images[0][3:5],), (np.array(store.labels[0][3:5]),), store.records[:1])
    again = pickle.loads(pickle.dumps(part))
    np.testing.assert_array_equal(again.images[0], store.images[0][3:5])
    np.testing.assert_array_equal(again.labels[0], store.labels[0][3:5])


def test_a_lesion_fraction_of_one_draws_lesion_where_there_is_any(store):
    sampler = SliceSampler(store, 64, seed=0, stream="train", lesion_fraction=1.0)
    batch = sampler.batch(0)
    sick = torch.tensor([any(torch.equal(image[0], known) for known in tensors(store, 0)) for image in batch.image])
    assert 15 < int(sick.sum()) < 49
    assert torch.equal(batch.lesion.flatten(1).any(dim=1), sick)
    free = SliceSampler(store, 64, seed=0, stream="train").batch(0)
    assert 0 < int(free.lesion.flatten(1).any(dim=1).sum()) < int(sick.sum())


def tensors(store, scan):
    return [torch.from_numpy(s.astype(np.float32)) for s in store.images[scan]]


def test_a_healthy_scan_with_lesion_is_refused(manifest, tmp_path):
    sick, _ = manifest
    with pytest.raises(DataError, match="lesion mask of a healthy scan must be empty, got 108 voxels"):
        build_store(Manifest((replace(sick, pathology="healthy"),)), CONFIG, tmp_path / "cache", description="scans")
    build_store(Manifest((sick,)), CONFIG, tmp_path / "cache", description="scans")
    with pytest.raises(DataError, match="lesion mask of a healthy scan must be empty"):  # its slices are there
        build_store(Manifest((replace(sick, pathology="healthy"),)), CONFIG, tmp_path / "cache", description="scans")


def test_no_scan_and_no_brain_are_refused(manifest, tmp_path):
    with pytest.raises(MissingInputError, match="at least one scan"):
        build_store(Manifest(()), CONFIG, tmp_path / "cache", description="scans")
    tiny = np.zeros(SHAPE, dtype=np.uint8)
    tiny[14:18, 14:18, 10:14] = 1
    write_volume(manifest.records[0].brain_mask, tiny, working_grid(SHAPE, 6).affine, dtype=np.uint8)
    with pytest.raises(DataError):
        build_store(manifest, CONFIG, tmp_path / "cache", description="scans")
