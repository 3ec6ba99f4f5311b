"""The predictor: the same maps whatever the batch size, reproducible noise, and scores where the brain is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from halebrain.core.errors import DataError
from halebrain.core.types import TEMPLATE_SPACE, Volume
from halebrain.data.slices import build_store
from halebrain.inference.anomaly_map import smooth_through_plane
from halebrain.inference.predictor import Predictor, WorkingMaps
from halebrain.inference.scan_residuals import SCAN_RESIDUALS
from halebrain.inference.slice_networks import brain_slices
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.io.nifti import write_volume
from halebrain.io.volume import read_volume
from halebrain.models.bundle import Bundle, ModelConfig, build_networks
from halebrain.models.joining import join_models
from halebrain.models.reconstruction.base import HoleFiller
from halebrain.models.reconstruction.inpainting import Inpainter, InpainterSettings
from halebrain.models.reconstruction.second_look import SecondLook
from halebrain.models.segmentation import Segmenter, SegmenterConfig
from halebrain.models.unet import UNetConfig
from halebrain.preprocessing.geometry import working_grid
from halebrain.preprocessing.pipeline import PreprocessingConfig, WorkingScan

SETTINGS = {
    "unet": {"channels": [16, 16], "blocks_per_level": 1, "patch": 4, "norm_groups": 8, "attention_head_channels": 0},
    "encoder": {"blocks": [1, 1], "width": 8, "features": 16, "norm": "group", "patch": 4},
}
MAPS = ("reconstruction", "probability", "residual", "score")


def make_bundle(*, segmenter: bool = True, postprocessing: dict | None = None, levels: tuple = (250, 500)) -> Bundle:
    config = ModelConfig(
        kind="detector" if segmenter else "reconstructor",
        reconstructor={"name": "cddpm", "settings": SETTINGS | {"test_levels": list(levels)}},
        segmenter=SegmenterConfig(channels=(8, 16), patch=2) if segmenter else None,
        preprocessing={
            "shape": [32, 32, 24],
            "spacing_mm": 6.0,
            "registration": "none",
            "bias_correction": "none",
        },
        postprocessing=postprocessing or {},
    )
    torch.manual_seed(0)
    networks = build_networks(config)
    with torch.no_grad():
        for network in networks:
            if network is not None:
                network.eval().requires_grad_(False)
                for parameter in network.parameters():  # fresh blocks are the identity: make them do something
                    parameter.add_(0.05 * torch.randn_like(parameter))
    return Bundle(config, *networks, {}, {})


@pytest.fixture(scope="module")
def volume() -> Volume:
    """An ellipsoid of noise-textured tissue around the middle of template space, stripped, 5 mm voxels."""
    shape, spacing = (36, 44, 34), 5.0
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = np.array([0, -18, 6]) - spacing * (np.array(shape) - 1) / 2
    grid = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in shape], indexing="ij"), axis=-1) * spacing
    inside = ((grid / (65, 80, 60)) ** 2).sum(axis=-1) < 1
    data = np.where(inside, 100 + 30 * np.random.default_rng(0).random(shape), 0).astype(np.float32)
    return Volume(data, affine, name="ellipsoid")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return make_bundle()


@pytest.fixture(scope="module")
def scan(bundle: Bundle, volume: Volume) -> WorkingScan:
    return Predictor(bundle).preprocessor.run(volume)


@pytest.fixture(scope="module")
def maps(bundle: Bundle, scan: WorkingScan) -> WorkingMaps:
    return Predictor(bundle).predict_working(scan, None)


@pytest.mark.parametrize("batch_size", [1, 5])
def test_the_batch_size_changes_nothing(bundle: Bundle, scan: WorkingScan, maps: WorkingMaps, batch_size: int) -> None:
    other = Predictor(bundle, batch_size=batch_size, precision="fp32").predict_working(scan, None)
    for name in MAPS:
        np.testing.assert_allclose(getattr(other, name), getattr(maps, name), atol=1e-5, rtol=0, err_msg=name)
    # The root of a difference of squares that nearly cancel.
    np.testing.assert_allclose(other.uncertainty, maps.uncertainty, atol=1e-3)


def test_the_seed_decides(bundle: Bundle, scan: WorkingScan, maps: WorkingMaps) -> None:
    again = Predictor(bundle).predict_working(scan, None)
    for name in (*MAPS, "uncertainty"):
        np.testing.assert_array_equal(getattr(again, name), getattr(maps, name))
    other = Predictor(bundle, seed=1).predict_working(scan, None)
    assert np.abs(other.reconstruction - maps.reconstruction).max() > 1e-3


def test_what_ran_before_does_not_matter(bundle: Bundle, scan: WorkingScan, maps: WorkingMaps) -> None:
    predictor = Predictor(bundle)
    torch.manual_seed(99)
    predictor.predict_working(scan, None)
    np.testing.assert_array_equal(predictor.predict_working(scan, None).score, maps.score)


def test_scores_lie_in_the_unit_interval_and_in_the_brain(scan: WorkingScan, maps: WorkingMaps) -> None:
    for name in MAPS:
        values = getattr(maps, name)
        assert values.dtype == np.float32
        assert values.shape == scan.image.shape == (32, 32, 24)
        assert np.isfinite(values).all()
        assert values.min() >= 0
        assert values.max() <= 1
        assert not values[~scan.brain_mask].any(), name
        assert values[scan.brain_mask].std() > 1e-4, name


def test_the_score_is_the_mixture_of_its_parts(scan: WorkingScan, maps: WorkingMaps) -> None:
    expected = np.where(scan.brain_mask, 0.5 * maps.residual + 0.5 * maps.probability, 0)
    np.testing.assert_allclose(maps.score, expected, atol=1e-6)
    for weight, part in ((0.0, "probability"), (1.0, "residual")):
        alone = Predictor(make_bundle(postprocessing={"residual_weight": weight})).predict_working(scan, None)
        np.testing.assert_allclose(alone.score, getattr(maps, part) * scan.brain_mask, atol=1e-6)


def test_the_probability_is_smoothed_across_slices_before_it_is_mixed(scan: WorkingScan, maps: WorkingMaps) -> None:
    smooth = Predictor(make_bundle(postprocessing={"through_plane_mm": 9.0})).predict_working(scan, None)
    expected = smooth_through_plane(maps.probability, scan.brain_mask, sigma_voxels=1.5)  # 6 mm a voxel
    np.testing.assert_allclose(smooth.probability, expected, atol=1e-6)
    np.testing.assert_allclose(smooth.score, 0.5 * maps.residual + 0.5 * expected, atol=1e-6)
    np.testing.assert_array_equal(smooth.residual, maps.residual)
    own = {"through_plane_mm": 3.0, "through_plane_by_contrast": {"FLAIR": [9.0, 18.0]}}
    both = Predictor(make_bundle(postprocessing=own)).predict_working(scan, "FLAIR")
    expected = smooth_through_plane(maps.probability, scan.brain_mask, sigma_voxels=1.5, around_voxels=3.0)
    np.testing.assert_allclose(both.probability, expected, atol=1e-6)


def by_contrast() -> tuple[Bundle, Bundle]:
    """Return a model of two segmenters, for T1w and T2w, and one that has the second alone."""
    parts = [make_bundle(), make_bundle()]
    for bundle, modality in zip(parts, ("T1w", "T2w"), strict=True):
        bundle.training["stage2"] = {"modalities": [modality]}
    assert parts[1].segmenter is not None
    for parameter in parts[1].segmenter.parameters():
        parameter.mul_(-1.5)
    return join_models(parts, by_contrast=True), parts[1]


def test_a_scan_is_seen_by_the_segmenter_of_its_contrast(scan: WorkingScan) -> None:
    joined, second = by_contrast()
    expected = Predictor(second).predict_working(scan, None).score
    np.testing.assert_array_equal(Predictor(joined).predict_working(scan, "T2w").score, expected)
    other = Predictor(joined).predict_working(scan, "T1w").score
    assert np.abs(other - expected).max() > 0.01
    assert Predictor(joined).method().contrasts == (("T1w",), ("T2w",))


def test_an_unknown_contrast_is_seen_by_all(scan: WorkingScan) -> None:
    joined, _ = by_contrast()
    each = [Predictor(joined).predict_working(scan, name).probability for name in ("T1w", "T2w")]
    found = Predictor(joined).predict_working(scan, None).probability
    np.testing.assert_allclose(found, np.mean(each, axis=0), atol=1e-6)


def test_mirrored_pairs_are_seen_as_the_mirror_image_of_what_is_seen() -> None:
    bundle = make_bundle(postprocessing={"mirror": True})
    segmenter = bundle.segmenter
    assert segmenter is not None
    image, reconstruction = torch.rand(2, 3, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    inside = image > 0.2
    plain, both = (Predictor(b).segment_with for b in (make_bundle(), bundle))
    seen, mirrored = (
        both(segmenter, image, inside, reconstruction, None),
        [t.flip(2) for t in (image, inside, reconstruction)],
    )
    torch.testing.assert_close(both(segmenter, *mirrored, None).flip(2), seen, atol=1e-6, rtol=0)
    once, again = plain(segmenter, image, inside, reconstruction, None), plain(segmenter, *mirrored, None).flip(2)
    torch.testing.assert_close(seen, (once + again) / 2, atol=1e-6, rtol=0)
    assert (once - again).abs().max() > 1e-3


def test_pairs_moved_by_half_a_block_are_seen_too_and_no_border_of_blocks_is_left() -> None:
    bundle = make_bundle(postprocessing={"overlap": True})
    segmenter = bundle.segmenter
    assert segmenter is not None
    assert segmenter.configs[0].patch == 2
    image, reconstruction = torch.rand(2, 3, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    inside = torch.ones_like(image, dtype=torch.bool)
    plain, both = (Predictor(b).segment_with for b in (make_bundle(), bundle))
    moved = [t.roll((1, 1), dims=(2, 3)) for t in (image, inside, reconstruction)]
    once, again = plain(segmenter, image, inside, reconstruction, None), plain(segmenter, *moved, None)
    seen = both(segmenter, image, inside, reconstruction, None)
    torch.testing.assert_close(seen, (once + again.roll((-1, -1), dims=(2, 3))) / 2, atol=1e-6, rtol=0)
    assert (seen - once).abs().max() > 1e-3


def test_a_segmenter_is_shown_the_neighbours_that_it_asks_for_whatever_the_batch() -> None:
    torch.manual_seed(3)
    segmenter = Segmenter(SegmenterConfig(channels=(8, 16), patch=2, encoder="early", neighbours=(-1, 3))).eval()
    image, reconstruction = torch.rand(2, 7, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    inside = torch.ones_like(image, dtype=torch.bool)
    found = [
        Predictor(make_bundle(), batch_size=size).segment_with(segmenter, image, inside, reconstruction, None)
        for size in (2, 16)
    ]
    torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=0)
    seen = torch.cat([image[4], image[3], torch.zeros(1, 32, 32)])[None]
    with torch.inference_mode():
        expected = segmenter(seen, reconstruction[4:5]).sigmoid()
    torch.testing.assert_close(found[0][4:5], expected, atol=1e-6, rtol=0)


def test_a_slice_has_the_neighbours_that_it_had_in_training(tmp_path: Path) -> None:
    """Small slices at both ends and one in the middle are scored, but shown beside none, as in a store of slices."""
    config = PreprocessingConfig(shape=(32, 32, 24), spacing_mm=6, bias_correction="none", registration="none")
    affine, brain = working_grid(config.shape, 6).affine, np.zeros(config.shape, np.uint8)
    brain[6:26, 5:27, 4:20] = 1
    for small in (4, 5, 11, 19):
        brain[:, :, small] = 0
        brain[10:16, 10:18, small] = 1
    image = ((0.3 + 0.4 * np.random.default_rng(0).random(config.shape)) * brain).astype(np.float32)
    write_volume(tmp_path / "image.nii.gz", image, affine)
    write_volume(tmp_path / "brain.nii.gz", brain, affine, dtype=np.uint8)
    record = ScanRecord(
        "a", tmp_path / "image.nii.gz", "FLAIR", brain_mask=tmp_path / "brain.nii.gz", space=TEMPLATE_SPACE
    )
    segmenter = Segmenter(SegmenterConfig(channels=(8, 16), patch=2, encoder="early", neighbours=(-1, 2))).eval()
    bundle = replace(make_bundle(), segmenter=segmenter)

    seen: list[torch.Tensor] = []
    segmenter.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    volume, mask = read_volume(record.image), brain.astype(bool)
    predictor = Predictor(bundle, levels=(250,))
    scan = predictor.preprocessor.run(volume, brain_mask=mask, space=record.space)
    predictor.predict_scan(volume, scan, "FLAIR")
    shown = torch.cat(seen)
    assert len(shown) == 16  # the small ones too

    store = build_store(Manifest((record,)), config, tmp_path / "cache", description="scans", with_levels=True)
    learned = (store.levels[0] - 4).tolist()
    assert [n for n in range(16) if n not in learned] == [0, 1, 7, 15]
    trained = replace(store, neighbours=(-1, 2)).read([0] * len(learned), list(range(len(learned))))
    torch.testing.assert_close(shown[learned], trained.image, atol=1e-3, rtol=0)  # a store holds float16
    assert not shown[1][1].any()  # below the second small slice is the first, which nobody learned from
    assert shown[1][2].any()


def test_erosion_takes_the_edge_off_the_score(scan: WorkingScan, maps: WorkingMaps) -> None:
    eroded = Predictor(make_bundle(postprocessing={"erosion": 1})).predict_working(scan, None)
    scored = eroded.score > 0
    assert 0 < scored.sum() < (maps.score > 0).sum()
    np.testing.assert_array_equal(eroded.score[scored], maps.score[scored])


def test_nothing_below_the_lowest_height_is_scored_or_reaches_what_lies_above(scan: WorkingScan) -> None:
    height_mm = (scan.grid.affine @ np.array([0, 0, 1, 0]))[2] * np.arange(scan.image.shape[2]) + scan.grid.affine[2, 3]
    brain_mm = height_mm[scan.brain_mask.any(axis=(0, 1))]
    lowest = float(np.median(brain_mm))
    below = height_mm < lowest
    for across_mm in (0.0, 8.0):
        settings = {"through_plane_mm": across_mm}
        whole = Predictor(make_bundle(postprocessing=settings)).predict_working(scan, None)
        predictor = Predictor(make_bundle(postprocessing={**settings, "lowest_z_mm": lowest}))
        cut = predictor.predict_working(scan, None)
        assert whole.score[..., below].any()
        assert not cut.score[..., below].any()
        assert not cut.probability[..., below].any()
        assert not cut.uncertainty[..., below].any()
        np.testing.assert_array_equal(cut.reconstruction, whole.reconstruction)
        # One slice of 2 mm above the border, a Gaussian of 8 mm would see what lies below.
        same = np.array_equal(cut.score[..., ~below], whole.score[..., ~below])
        assert same == (across_mm == 0)
        assert predictor.scored_region(scan).sum() == (scan.brain_mask & ~below).sum()
    assert predictor.method().lowest_z_mm == lowest


def test_without_a_segmenter_there_is_no_probability(scan: WorkingScan) -> None:
    maps = Predictor(make_bundle(segmenter=False)).predict_working(scan, None)
    assert not maps.probability.any()
    np.testing.assert_allclose(maps.score, 0.5 * maps.residual, atol=1e-6)
    assert maps.score.any()


def test_levels_are_averaged(bundle: Bundle, scan: WorkingScan, maps: WorkingMaps) -> None:
    parts = [Predictor(bundle, levels=(level,)).predict_working(scan, None) for level in (250, 500)]
    np.testing.assert_allclose(maps.reconstruction, (parts[0].reconstruction + parts[1].reconstruction) / 2, atol=1e-6)
    np.testing.assert_allclose(maps.probability, (parts[0].probability + parts[1].probability) / 2, atol=1e-6)
    # Of two values, the standard deviation is half their distance.
    spread = [0.5 * np.abs(scan.image - part.reconstruction) + 0.5 * part.probability for part in parts]
    expected = np.abs(spread[0] - spread[1])[scan.brain_mask] / 2
    np.testing.assert_allclose(maps.uncertainty[scan.brain_mask], expected, atol=1e-3)


def test_draws_give_uncertainty(bundle: Bundle, scan: WorkingScan) -> None:
    once = Predictor(bundle, levels=(500,)).predict_working(scan, None)
    twice = Predictor(bundle, levels=(500,), draws=2).predict_working(scan, None)
    assert not once.uncertainty.any()
    assert twice.uncertainty[scan.brain_mask].mean() > 1e-4
    assert not twice.uncertainty[~scan.brain_mask].any()


def test_progress_is_told_once_a_pass(bundle: Bundle, scan: WorkingScan) -> None:
    calls = []
    Predictor(bundle, draws=2).predict_working(scan, None, progress=lambda: calls.append(1))
    assert len(calls) == 4


def test_maps_come_back_on_the_native_grid(bundle: Bundle, volume: Volume) -> None:
    predictor = Predictor(bundle)
    scan = predictor.preprocessor.run(volume)
    result, maps = predictor.predict_scan(volume, scan, None)
    inside = volume.data > 0
    for name in ("score", "probability", "reconstruction", "residual", "uncertainty"):
        values = getattr(result, name)
        assert values.shape == volume.shape, name
        assert not values[~result.brain_mask].any(), name
    np.testing.assert_array_equal(result.affine, volume.affine)
    assert 2 * (result.brain_mask & inside).sum() / (result.brain_mask.sum() + inside.sum()) > 0.95
    assert 0 <= result.score.min() <= result.score.max() <= 1

    # Centres of mass in the world agree, so nothing is flipped or shifted on the way back.
    def centre(values: np.ndarray, affine: np.ndarray) -> np.ndarray:
        index = np.stack(np.nonzero(values > 0), axis=1)
        weight = values[values > 0]
        return affine[:3, :3] @ ((index * weight[:, None]).sum(axis=0) / weight.sum()) + affine[:3, 3]

    np.testing.assert_allclose(centre(result.score, volume.affine), centre(maps.score, scan.grid.affine), atol=3.0)


@pytest.mark.parametrize("shift", [0.0, -500.0])
def test_each_map_comes_back_as_itself_and_the_image_in_the_units_of_the_input(
    bundle: Bundle, volume: Volume, shift: float
) -> None:
    inside = volume.data > 0
    shifted = Volume(np.where(inside, volume.data + shift, 0).astype(np.float32), volume.affine, name="shifted")
    predictor = Predictor(bundle, draws=2)
    scan = predictor.preprocessor.run(shifted, brain_mask=inside)
    result, maps = predictor.predict_scan(shifted, scan, None)
    difference = np.where(scan.brain_mask, scan.image - maps.reconstruction, 0)
    expected = {
        "score": maps.score,
        "probability": maps.probability,
        "uncertainty": maps.uncertainty,
        "residual": difference,  # above 0 where the scan is brighter
    }
    for name, working in expected.items():
        np.testing.assert_allclose(getattr(result, name), scan.to_native(working), atol=1e-6, err_msg=name)
    core = np.zeros_like(inside)
    core[14:22, 18:26, 14:20] = True
    # From 0 to 1 are the 1st and 99th percentile of the brain, here 100 to 130 above the shift, less where smoothed.
    low, high = scan.intensity.low + scan.intensity.offset, scan.intensity.high + scan.intensity.offset
    assert shift + 95 < low < high < shift + 135
    values = scan.to_native(maps.reconstruction)[core] * (high - low)
    np.testing.assert_allclose(result.reconstruction[core], low + values, atol=1e-2)


def test_the_noise_of_a_slice_is_its_own_and_does_not_depend_on_the_others(bundle: Bundle, scan: WorkingScan) -> None:
    predictor, used = Predictor(bundle), torch.tensor([4, 5, 9])
    kinds = [
        predictor.slice_seeds(scan, 250, 0, used),
        predictor.slice_seeds(scan, 500, 0, used),
        predictor.slice_seeds(scan, 250, 1, used),
        Predictor(bundle, seed=1).slice_seeds(scan, 250, 0, used),
        predictor.slice_seeds(replace(scan, content=b"another scan"), 250, 0, used),
    ]
    assert len(set(torch.cat(kinds).tolist())) == 15
    assert torch.equal(predictor.slice_seeds(scan, 250, 0, used[1:]), kinds[0][1:])


def test_a_scan_without_brain_is_refused(bundle: Bundle, scan: WorkingScan) -> None:

    with pytest.raises(DataError, match="show brain"):
        Predictor(bundle).predict_working(replace(scan, brain_mask=np.zeros_like(scan.brain_mask)), None)


def test_the_mahalanobis_map_takes_the_spread_over_levels(scan: WorkingScan) -> None:
    settings = {"residual": "mahalanobis", "median_size": 1}
    found = Predictor(make_bundle(postprocessing=settings)).predict_working(scan, None).residual
    levels = Predictor(make_bundle()).reconstruct_levels(scan)
    stack = np.stack([levels["250"], levels["500"]])
    squares = (scan.image - stack.mean(axis=0)) ** 2
    expected = squares / (squares + stack.var(axis=0) + 0.05**2)
    np.testing.assert_allclose(found[scan.brain_mask], expected[scan.brain_mask], atol=1e-4)


@pytest.mark.parametrize("kind", ["ssim_3d", "mahalanobis_full"])
def test_a_residual_of_the_scan_as_a_whole_sees_every_slice_and_every_reconstruction(
    scan: WorkingScan, kind: str
) -> None:
    predictor = Predictor(make_bundle(postprocessing={"residual": kind, "median_size": 1}), draws=2)
    found = predictor.predict_working(scan, None).residual
    image, mask, used = brain_slices(scan)
    runs = [
        predictor.reconstruct_slices(image[used], mask[used], level, predictor.slice_seeds(scan, level, draw, used))
        for level in predictor.levels
        for draw in range(2)
    ]
    samples = torch.zeros(4, *image.shape)
    samples[:, used] = torch.stack(runs)
    shown = torch.zeros_like(mask)
    shown[used] = mask[used]
    wanted = SCAN_RESIDUALS.get(kind)(image * shown, samples, shown)[:, 0].numpy()
    np.testing.assert_allclose(np.moveaxis(found, 2, 0), wanted, atol=1e-6)
    assert found.max() > 0


def test_a_network_that_fills_holes_changes_the_holes_alone(bundle: Bundle, scan: WorkingScan) -> None:
    assert issubclass(SecondLook, HoleFiller)
    hole = np.zeros_like(scan.brain_mask)
    hole[12:18, 12:18, 8:14] = True
    assert Predictor(bundle).fill_holes(scan, hole) is None
    torch.manual_seed(0)
    filler = Inpainter(InpainterSettings(unet=UNetConfig.model_validate(SETTINGS["unet"]))).eval()
    filled = Predictor(replace(bundle, reconstructor=filler)).fill_holes(scan, hole)
    assert filled is not None
    inside = hole & scan.brain_mask
    np.testing.assert_array_equal(filled[~inside], scan.image[~inside])
    assert (filled[inside] != scan.image[inside]).mean() > 0.9
    assert filled.min() >= 0
    assert filled.max() <= 1
