"""The healthy residual map: values by hand, its file, and the bundle that holds it."""

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from halebrain.core.errors import DataError
from halebrain.core.moments import VoxelSums
from halebrain.models.bundle import Bundle, load_bundle, model_sha256, read_summary, save_bundle
from halebrain.models.bundle_files import HEALTHY_MAP, checked_files, sealed_text, store_scoring
from halebrain.models.healthy_map import HealthyResidual, HealthyResiduals, HealthyScans
from halebrain.models.joining import join_models
from halebrain.models.store import convert_fp16, export_model, import_model
from halebrain.workflows.models import model_text

SHAPE = (6, 5, 7)


def about(n: int, *, sigma: float = 0.0, stride: int = 1) -> HealthyScans:
    people = tuple(f"h{number}" for number in range(n))
    return HealthyScans(n_scans=n, subjects=people, manifest_sha256="0" * 64, sigma_voxels=sigma, stride_voxels=stride)


def map_of(values: list[float], *, contrast: str = "FLAIR") -> HealthyResiduals:
    """Return the map of scans with one residual everywhere, in brains that lack the first column in the last scan."""
    sums = None
    for place, value in enumerate(values):
        mask = np.ones(SHAPE, dtype=bool)
        mask[0] = place < len(values) - 1
        own = VoxelSums.of(np.full(SHAPE, value, dtype=np.float32), mask)
        sums = own if sums is None else sums + own
    assert sums is not None
    return HealthyResiduals(SHAPE, np.diag([2.0, 2, 2, 1]), {contrast: HealthyResidual.of(sums, about(len(values)))})


VALUES = [0.125, 0.25, 0.125, 0.25, 0.5]


def test_z_by_hand() -> None:
    one = map_of(VALUES).of_contrast("FLAIR")
    residual = np.full(SHAPE, 0.5, dtype=np.float32)
    inner = (0.5 - 0.25) / (np.std(VALUES) + 0.02)
    edge = (0.5 - np.mean(VALUES[:4])) / (np.std(VALUES[:4]) + 0.02)
    np.testing.assert_allclose(one.z(residual)[1:], inner, rtol=5e-3)
    np.testing.assert_allclose(one.z(residual)[0], edge, rtol=5e-3)
    np.testing.assert_allclose(one.coverage[0], 0.8)
    np.testing.assert_allclose(one.coverage[1:], 1)


def test_where_one_scan_shows_brain_nothing_deviates() -> None:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[2:] = True
    both = VoxelSums.of(np.full(SHAPE, 0.1, np.float32), mask) + VoxelSums.of(np.zeros(SHAPE, np.float32), mask)
    both = both + VoxelSums.of(np.full(SHAPE, 0.3, np.float32), np.ones(SHAPE, dtype=bool))
    one = HealthyResidual.of(both, about(3, sigma=1.0))
    z = one.z(np.ones(SHAPE, dtype=np.float32))
    assert not z[:2].any()
    assert (z[2:] > 1).all()


def test_what_is_taken_away_was_never_there(rng: np.random.Generator) -> None:
    scans = [(rng.normal(0, 0.1, SHAPE).astype(np.float32), rng.random(SHAPE) < 0.8) for _ in range(6)]
    sums = [VoxelSums.of(*scan) for scan in scans]
    left = sums[0] + sums[1] + sums[2] + sums[3] + sums[4] + sums[5] - sums[2]
    expected = sums[0] + sums[1] + sums[3] + sums[4] + sums[5]
    for sigma in (0.0, 1.0):
        for found, wanted in zip(left.pooled(sigma), expected.pooled(sigma), strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_a_contrast_that_is_not_in_the_map_is_named() -> None:
    with pytest.raises(DataError, match=r"got T2w; the map has FLAIR"):
        map_of(VALUES).of_contrast("T2w")
    with pytest.raises(DataError, match=r"got unknown contrast"):
        map_of(VALUES).of_contrast(None)


def test_the_file_holds_what_was_fitted() -> None:
    both = map_of(VALUES).updated(map_of([0.0, 0.125, 0.25, 0.0, 0.125], contrast="T1w"))
    read = HealthyResiduals.from_bytes(both.to_bytes(), both.about(), where="here")
    assert sorted(read.contrasts) == ["FLAIR", "T1w"]
    for name, one in both.contrasts.items():
        np.testing.assert_array_equal(read.contrasts[name].mean, one.mean)
        np.testing.assert_array_equal(read.contrasts[name].std, one.std)
        np.testing.assert_allclose(read.contrasts[name].coverage, one.coverage)
        assert read.contrasts[name].scans == one.scans
    assert read.to_bytes() == both.to_bytes()


def test_a_map_is_linear_between_its_nodes_and_the_file_holds_it() -> None:
    """Along i the mean is i² / 64: at 1 the middle of its nodes at 0 and 2, past the last node what that has."""
    slope = np.broadcast_to((np.arange(6, dtype=np.float32) ** 2 / 64)[:, None, None], SHAPE)
    mask = np.ones(SHAPE, dtype=bool)
    mask[:, 3:, :] = False  # the node at j = 2 is the last that is known
    sums = VoxelSums.of(slope, mask) + VoxelSums.of(slope + 0.25, mask) + VoxelSums.of(slope, mask)
    one = HealthyResidual.of(sums, about(3, stride=2))
    at_nodes = np.array([0, 4, 16]) / 64 + 0.25 / 3
    wanted = [at_nodes[0], at_nodes[:2].mean(), at_nodes[1], at_nodes[1:].mean(), at_nodes[2], at_nodes[2]]
    np.testing.assert_allclose(one.mean[:, 1, 3], wanted, atol=2.0**-11)
    np.testing.assert_allclose(one.mean[:, 3, 3], wanted, atol=2.0**-11)  # half a node is known, and it alone counts
    assert np.isinf(one.std[:, 4]).all()
    both = HealthyResiduals(SHAPE, np.eye(4), {"FLAIR": one})
    read = HealthyResiduals.from_bytes(both.to_bytes(), both.about(), where="here")
    for name in ("mean", "std", "coverage"):
        np.testing.assert_array_equal(getattr(read.contrasts["FLAIR"], name), getattr(one, name))


def test_a_file_of_other_contrasts_than_stated_is_refused() -> None:
    one, other = map_of(VALUES), map_of(VALUES, contrast="T1w")
    with pytest.raises(DataError, match=r"a healthy map must be as calibrate wrote it.*T1w"):
        HealthyResiduals.from_bytes(one.to_bytes(), other.about(), where="here")
    with pytest.raises(DataError, match="a healthy map must be as calibrate wrote it"):
        HealthyResiduals.from_bytes(one.to_bytes()[:-3], one.about(), where="here")


def test_a_newer_map_replaces_its_contrasts_and_must_lie_on_the_same_grid() -> None:
    old, newer = map_of(VALUES), map_of([0.0] * 5)
    assert not old.updated(newer).of_contrast("FLAIR").mean.any()
    with pytest.raises(DataError, match="must lie on the working grid"):
        old.updated(replace(newer, affine=np.diag([3.0, 3, 3, 1])))


@pytest.fixture
def with_map(small_model: Path) -> Path:
    """The small model with a healthy map."""
    bundle, one = load_bundle(small_model), map_of(VALUES)
    files = checked_files(small_model)[0]
    store_scoring(
        small_model,
        bundle.calibration,
        config=files["config.yaml"],
        healthy_map=one.to_bytes(),
        fitted_on=one.about(),
        about=bundle.about,
        card="small",
    )
    return small_model


def mean_of(bundle: Bundle) -> float:
    assert bundle.healthy_map is not None
    return float(bundle.healthy_map.of_contrast("FLAIR").mean[3, 3, 3])


def test_a_model_is_the_same_to_the_bit_without_a_map_and_another_with_one(small_model: Path, tmp_path: Path) -> None:
    before = load_bundle(small_model)
    save_bundle(before, tmp_path / "again", card="small")
    for name in ("model.safetensors", "config.yaml", "card.md", "manifest.json"):
        assert (tmp_path / "again" / name).read_bytes() == (small_model / name).read_bytes()
    assert not (tmp_path / "again" / HEALTHY_MAP).exists()
    assert model_sha256(replace(before, healthy_map=map_of(VALUES))) != before.sha256


def test_a_map_travels_through_folder_zip_and_home(with_map: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HALEBRAIN_HOME", str(tmp_path / "home"))
    bundle = load_bundle(with_map)
    assert mean_of(bundle) == pytest.approx(0.25)
    save_bundle(bundle, tmp_path / "again", card="small")
    export_model(with_map, tmp_path / "packed.zip")
    stored = import_model(tmp_path / "packed.zip", "kept")
    convert_fp16(with_map, tmp_path / "half")
    for path in (tmp_path / "again", tmp_path / "packed.zip", stored.path, tmp_path / "half"):
        assert mean_of(load_bundle(path)) == mean_of(bundle), path
    assert load_bundle(stored.path).sha256 == bundle.sha256 == read_summary(stored.path).sha256
    assert "Healthy residual map of FLAIR: 5 scans of 5 people" in model_text(with_map, bundle)


def test_the_people_behind_a_map_must_not_be_evaluated(with_map: Path) -> None:
    assert load_bundle(with_map).calibration_subjects() == {f"h{n}": "healthy map" for n in range(5)}


def test_joined_models_keep_their_map_and_must_not_differ_in_it(with_map: Path) -> None:
    one = load_bundle(with_map)
    plain = replace(one, healthy_map=None)
    assert mean_of(join_models([plain, one])) == mean_of(one)
    assert join_models([plain, plain]).healthy_map is None
    with pytest.raises(DataError, match="same healthy map, or none"):
        join_models([one, replace(one, healthy_map=map_of([0.0] * 5))])


def test_a_changed_byte_of_the_map_is_refused_by_its_name(with_map: Path, tmp_path: Path) -> None:
    raw = bytearray((with_map / HEALTHY_MAP).read_bytes())
    raw[-1] ^= 1
    (with_map / HEALTHY_MAP).write_bytes(bytes(raw))
    with pytest.raises(DataError, match=rf"sha256.*{HEALTHY_MAP}"):
        load_bundle(with_map)
    shutil.make_archive(str(tmp_path / "packed"), "zip", with_map)
    with pytest.raises(DataError, match=rf"sha256.*{HEALTHY_MAP}"):
        load_bundle(tmp_path / "packed.zip")


def test_a_map_that_is_missing_or_not_stated_is_refused(with_map: Path, tmp_path: Path) -> None:
    shutil.copytree(with_map, tmp_path / "other")
    manifest = json.loads((tmp_path / "other" / "manifest.json").read_text())
    del manifest["files"][HEALTHY_MAP], manifest["healthy_map"]
    (tmp_path / "other" / "manifest.json").write_text(sealed_text(manifest))
    with pytest.raises(DataError, match=HEALTHY_MAP):
        load_bundle(tmp_path / "other")
    with zipfile.ZipFile(tmp_path / "less.zip", "w") as archive:
        for name in ("model.safetensors", "config.yaml", "card.md", "manifest.json"):
            archive.write(with_map / name, name)
    with pytest.raises(DataError, match=f"no {HEALTHY_MAP}"):
        load_bundle(tmp_path / "less.zip")
