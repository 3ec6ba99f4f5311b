"""A benchmark holds one scan and its maps at a time, and its results are the same to the bit."""

import tracemalloc
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch

from halebrain.benchmarking.judge import SharingPredictor, model_scores, prepare, score_cell
from halebrain.benchmarking.on_disk import Scratch, StoredReconstructions, on_disk
from halebrain.inference.predictor import Predictor
from halebrain.io.manifest import Manifest
from halebrain.models.bundle import load_bundle

VOXELS = 32 * 32 * 24


@pytest.fixture
def scans(small_cohort, small_model):
    rows = [("h", "FLAIR", "val", "healthy"), ("p", "FLAIR", "test", "ms"), ("q", "FLAIR", "test", "ms")]
    preprocessor = Predictor(load_bundle(small_model)).preprocessor
    return list(prepare(Manifest.read(small_cohort(rows)), preprocessor, description="Reading"))


def many(scans, count):
    """Yield copies of scans, each with arrays and a name of its own, made when they are asked for."""
    for number in range(count):
        prepared = scans[number % len(scans)]
        record = replace(prepared.record, subject=f"{prepared.record.subject}{number}")
        scan = replace(prepared.scan, image=prepared.scan.image.copy(), brain_mask=prepared.scan.brain_mask.copy())
        yield replace(prepared, record=record, scan=scan, lesion=prepared.lesion.copy())


def test_scans_in_files_are_the_same_to_the_bit(scans, tmp_path):
    stored = on_disk(scans, len(scans), tmp_path)
    assert [p.record for p in stored] == [p.record for p in scans]
    for ours, theirs in zip(stored, scans, strict=True):
        for one, other in zip(arrays(ours), arrays(theirs), strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
        assert ours.scan.content == theirs.scan.content
        with pytest.raises(ValueError, match="read-only"):
            ours.scan.image[0] = 1
    assert on_disk([], 0, tmp_path) == []


def arrays(prepared):
    return prepared.scan.image, prepared.scan.brain_mask, prepared.lesion, prepared.region


def test_reading_scans_takes_the_memory_of_one(scans, tmp_path):
    def peak(count):
        (folder := tmp_path / str(count)).mkdir()
        tracemalloc.start()
        stored = on_disk(many(scans, count), count, folder)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(stored) == count
        return used

    few, more = peak(4), peak(40)
    one = VOXELS * (4 + 1 + 1)
    assert few > one, "the measure sees no array, and the test shows nothing"
    assert more - few < 6 * one, "36 more scans stay in memory"


def test_maps_of_one_scan_at_a_time_are_alive(scans):
    alive, most = set(), 0

    def score(prepared):
        nonlocal most
        maps = {title: prepared.scan.image * weight for title, weight in (("a", 0.5), ("b", 0.25))}
        for values in maps.values():
            alive.add(id(values))
            weakref.finalize(values, alive.discard, id(values))
        most = max(most, len(alive))
        return maps

    test = list(many(scans, 30))
    _, shown = score_cell(score, scans, test, name="cell", shown={4})
    # Those of the scan before are let go when those of the next are there.
    assert most <= 2 * 2 + 2
    assert {title: list(maps) for title, maps in shown.items()} == {"a": [4], "b": [4]}
    np.testing.assert_array_equal(shown["a"][4], test[4].scan.image * 0.5)


def test_results_from_files_are_those_from_memory(scans, small_model, tmp_path):
    bundle = load_bundle(small_model)
    titles = {"fused": "SADM_res", "segmenter": "Unet_res"}
    plain = model_scores(Predictor(bundle), titles)
    store = StoredReconstructions(tmp_path)
    sharing = model_scores(SharingPredictor(store, bundle=bundle), titles)
    (folder := tmp_path / "scans").mkdir()
    stored = on_disk(scans, len(scans), folder)
    expected = score_cell(plain, scans, scans, name="cell", shown={1})
    for _ in range(2):  # the second time from the files
        found = score_cell(sharing, stored, stored, name="cell", shown={1})
        assert found[0] == expected[0]
        for title in titles.values():
            np.testing.assert_array_equal(found[1][title][1], expected[1][title][1])


def test_reconstructions_are_read_back_as_they_were_and_go_with_their_folder(tmp_path):
    store = StoredReconstructions(tmp_path)
    slices = torch.rand(3, 1, 4, 5)
    store["t", (1, 2)] = slices
    assert ("t", (1, 2)) in store
    assert ("t", (1, 3)) not in store
    assert torch.equal(store["t", (1, 2)], slices)
    store.clear()
    assert ("t", (1, 2)) not in store
    assert not list(tmp_path.rglob("*.npy"))
    scratch = Scratch(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    del store, scratch
    assert not list(tmp_path.iterdir())
