"""Closed forms of each kind of synthetic anomaly."""

import numpy as np
import pytest
import torch

from halebrain.core.errors import ConfigError
from halebrain.core.random import draw_seeds, make_generator
from halebrain.data.anomalies import AnomalySpec, build_anomaly
from halebrain.data.anomalies.cohort import lesion_library
from halebrain.data.anomalies.poisson import blend
from halebrain.data.anomalies.shapes import blob, centres, ellipse, foreign, rectangle, shifted, smooth_noise


@pytest.fixture
def healthy():
    image = 0.2 + 0.6 * torch.rand(12, 1, 64, 56, generator=make_generator(3))
    brain_mask = torch.zeros_like(image, dtype=torch.bool)
    brain_mask[..., 8:56, 8:48] = True
    return image * brain_mask, brain_mask


def build(name, **settings):
    return build_anomaly(AnomalySpec(name=name, settings={"probability": 1, **settings}))


def draw(anomaly, count, seed=0):
    return anomaly.sample_params(count, generator=make_generator(seed))


def test_centres_lie_in_the_brain_and_reach_all_of_it(healthy):
    _, brain_mask = healthy
    places = torch.linspace(0, 0.9999, 12)
    found = centres(brain_mask, places).long()
    assert all(brain_mask[n, 0, r, c] for n, (r, c) in enumerate(found.tolist()))
    assert found[0].tolist() == [8, 8]
    assert found[-1].tolist() == [55, 47]
    assert centres(torch.zeros(1, 1, 10, 8, dtype=torch.bool), torch.rand(1)).tolist() == [[5, 4]]


def test_rectangles_and_ellipses_have_their_sizes():
    centre, size = torch.tensor([[20.0, 15.0]]), torch.tensor([[10.0, 4.0]])
    box = rectangle((1, 1, 40, 30), centre, size, torch.zeros(1))
    assert box.sum() == 11 * 5
    turned = rectangle((1, 1, 40, 30), centre, size, torch.full((1,), torch.pi / 2))
    assert torch.equal(turned[0, 0].nonzero().amax(0) - turned[0, 0].nonzero().amin(0), torch.tensor([4, 10]))
    inside = ellipse((1, 1, 40, 30), centre, torch.tensor([[20.0, 20.0]]), torch.zeros(1)) <= 1
    assert float(inside.sum()) == pytest.approx(np.pi * 100, rel=0.03)
    assert float(blob((1, 1, 40, 30), centre, size, torch.zeros(1), [4])[0, 0, 20, 15]) == 1


def test_noise_is_each_seeds_own():
    both = smooth_noise([1, 2], (2, 1, 30, 20), cells=4)
    assert torch.equal(both[1:], smooth_noise([2], (1, 1, 30, 20), cells=4))
    many = smooth_noise(draw_seeds(100, make_generator(0)).tolist(), (100, 1, 30, 20), cells=4)
    assert abs(float(many.mean())) < 0.05
    assert 0.6 < float(many.std()) < 1.1


def test_a_slice_never_borrows_from_itself():
    image = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 1, 4, 4)
    for offset in range(9):
        other = foreign(image, torch.full((5,), offset))
        assert not (other == image).any()
    lone = torch.rand(1, 1, 4, 4)
    assert torch.equal(foreign(lone, torch.tensor([3])), lone.flip(2))


def test_shifting_moves_whole_pixels():
    image = torch.rand(2, 1, 6, 5)
    moved = shifted(image, torch.tensor([[2.0, -1.0], [0.0, 0.0]]))
    assert torch.equal(moved[0, 0, 2:, :4], image[0, 0, :4, 1:])
    assert not moved[0, 0, :2].any()
    assert torch.equal(moved[1], image[1])


def test_interpolation_with_factor_one_is_the_foreign_slice(healthy):
    image, brain_mask = healthy
    anomaly = build("fpi", factor=(1.0, 1.0))
    params = draw(anomaly, 12)
    altered, mask = anomaly.apply(image, brain_mask, params)
    other = foreign(image, torch.tensor([p["offset"] for p in params]))
    assert torch.equal(altered[mask], other[mask])
    assert int(mask.sum()) > 500
    half, _ = build("fpi", factor=(0.5, 0.5)).apply(image, brain_mask, [{**p, "factor": 0.5} for p in params])
    torch.testing.assert_close((half - image)[mask], ((altered - image) / 2)[mask], atol=0.011, rtol=0)


def test_poisson_agrees_with_the_dense_system():
    ours, theirs = torch.rand(2, 7, 9, dtype=torch.float64, generator=make_generator(0))
    for factor, strongest in ((0.0, False), (0.4, False), (1.0, False), (0.0, True)):
        blended = blend(ours, theirs, factor=factor, strongest=strongest)
        assert torch.equal(blended[0], ours[0])
        assert torch.equal(blended[:, -1], ours[:, -1])
        for i in range(1, 6):
            for j in range(1, 8):
                left, right = 0.0, 0.0
                for a, b in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                    left += float(blended[i, j] - blended[a, b])
                    mine, other = float(ours[i, j] - ours[a, b]), float(theirs[i, j] - theirs[a, b])
                    mixed = other if abs(other) > abs(mine) else mine
                    right += mixed if strongest else (1 - factor) * mine + factor * other
                assert left == pytest.approx(right, abs=1e-5)


def test_poisson_of_the_same_content_changes_nothing():
    ours = torch.rand(12, 10)
    torch.testing.assert_close(blend(ours, ours + 0.3, factor=1, strongest=False), ours, atol=1e-5, rtol=0)


def test_cutpaste_pastes_what_was_there(healthy):
    image, brain_mask = healthy
    anomaly = build("cutpaste", jitter=0, scar=0)
    params = draw(anomaly, 12)
    altered, mask = anomaly.apply(image, brain_mask, params)
    source, target = (centres(brain_mask, torch.tensor([p[key] for p in params])) for key in ("source", "target"))
    assert torch.equal(altered[mask], shifted(image, target - source)[mask])
    assert int(mask.flatten(1).any(dim=1).sum()) >= 10


def test_deforming_a_constant_changes_nothing_and_a_line_moves_outwards(healthy):
    image, brain_mask = healthy
    anomaly = build("deformation")
    params = draw(anomaly, 12)
    flat = torch.full_like(image, 0.4)
    assert not anomaly.apply(flat, brain_mask, params)[1].any()
    ramp = torch.linspace(0, 1, 64)[None, None, :, None].expand(1, 1, 64, 56).contiguous()
    one = [{"present": True, "place": 0.51, "radius": 20.0, "strength": 0.4}]
    altered, mask = anomaly.apply(ramp, brain_mask[:1], one)
    row, column = centres(brain_mask[:1], torch.tensor([0.51]))[0].long().tolist()
    # Tissue comes out of the centre: what lies below it is read from nearer to it.
    assert altered[0, 0, row + 8, column] < ramp[0, 0, row + 8, column]
    assert altered[0, 0, row - 8, column] > ramp[0, 0, row - 8, column]
    assert column > 21
    assert not mask[0, 0, :, : column - 21].any()
    assert (altered[0, 0].diff(dim=0) > -1e-6).all()  # nothing folds


@pytest.mark.parametrize("strength", [0.45, -0.45, 0.99])
def test_the_largest_displacement_is_that_of_the_documentation_and_nothing_folds(strength):
    ramp = torch.linspace(0, 1, 96)[None, None, :, None].expand(1, 1, 96, 96).contiguous()
    brain_mask, radius = torch.ones_like(ramp, dtype=torch.bool), 24.0
    params = [{"present": True, "place": 0.505, "radius": radius, "strength": strength}]
    altered = build("deformation")._altered(ramp, brain_mask, params)
    found = float((altered - ramp).abs().max()) * 95
    assert found == pytest.approx(4 / 27 * abs(strength) * radius, rel=0.01)
    assert (altered[0, 0].diff(dim=0) > -1e-6).all()


def test_blobs_go_the_way_that_is_asked(healthy):
    image, brain_mask = healthy
    for share, sign in ((1.0, 1), (0.0, -1)):
        altered, mask = build("blobs", bright=share).apply(image, brain_mask, draw(build("blobs", bright=share), 12))
        assert ((altered - image)[mask] * sign > 0).all()
        assert mask.any()


def test_degree_zero_is_healthy_and_more_is_more(healthy):
    image, brain_mask = healthy
    anomaly = build("dag")
    params = draw(anomaly, 12)
    changes, sizes = [], []
    for degree in (0.0, 0.25, 0.5, 1.0):
        altered, mask = anomaly.apply(image, brain_mask, [{**one, "degree": degree} for one in params])
        changes.append(float((altered - image).abs().sum()))
        sizes.append(int(mask.sum()))
    assert changes[0] == 0
    assert changes == sorted(changes)
    assert sizes == sorted(sizes)
    assert changes[1] < 0.5 * changes[3]


def test_shape_texture_and_bias_are_drawn_apart():
    params = draw(build("dag"), 400)
    textures = [p["texture"] for p in params]
    assert set(textures) == {"own", "foreign", "noise"}
    assert all(p["bias"] != 0 for p in params if p["texture"] == "own")
    assert any(p["bias"] == 0 for p in params)
    size = np.array([p["size"][0] for p in params])
    bias = np.array([abs(p["bias"]) for p in params])
    assert abs(np.corrcoef(size, bias)[0, 1]) < 0.15


@pytest.mark.slow
def test_simulated_lesions_go_the_way_that_is_asked():
    image = torch.full((24, 1, 96, 96), 0.5)
    brain_mask = torch.ones_like(image, dtype=torch.bool)
    settings = {"patients": 1, "diseases": ("ms",)}
    for name, sign in (("bright", 1), ("dark", -1)):
        anomaly = build("cohort", sign=name, **settings)
        altered, mask = anomaly.apply(image, brain_mask, draw(anomaly, 24))
        assert ((altered - image)[mask] * sign > 0).all()
        assert int(mask.flatten(1).any(dim=1).sum()) > 12
    library = lesion_library(("ms",), 1, 0)
    assert library.shape[1:] == (2, 96, 96)
    assert not library[:, 1].any()  # multiple sclerosis leaves no fluid here
    assert library[:, 0].max() > 0.3


def test_the_faint_border_of_a_simulated_lesion_is_left_out_and_the_rest_stays():
    image = torch.full((16, 1, 96, 96), 0.5)
    brain_mask = torch.ones_like(image, dtype=torch.bool)
    settings = {"patients": 1, "diseases": ("ms",), "change": (0.3, 0.3)}
    whole, cut = build("cohort", **settings), build("cohort", border=0.2, **settings)
    params = draw(whole, 16)
    with_border, everything = whole.apply(image, brain_mask, params)
    without, lesion = cut.apply(image, brain_mask, params)
    assert (lesion & ~everything).sum() == 0
    assert 0 < int(lesion.sum()) < 0.9 * int(everything.sum())
    assert ((without - image)[lesion] > 0.2 * 0.3).all()
    assert torch.equal(without[lesion], with_border[lesion])


def test_a_mixture_draws_by_weight_and_passes_settings_on(healthy):
    kinds = [{"name": "blobs", "settings": {"probability": 1, "bright": 1}}, {"name": "fpi"}]
    spec = {"of": kinds, "weights": [1, 0]}
    anomaly = build_anomaly(AnomalySpec(name="mixture", settings=spec))
    params = draw(anomaly, 12)
    assert {p["kind"] for p in params} == {0}
    altered, mask = anomaly.apply(*healthy, params)
    assert ((altered - healthy[0])[mask] > 0).all()
    assert int(mask.flatten(1).any(dim=1).sum()) == 12
    both = build_anomaly(AnomalySpec(name="mixture", settings={"of": kinds, "weights": [3, 1]}))
    share = np.mean([p["kind"] for p in draw(both, 2000)])
    assert share == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("mixture", {"of": []}),
        ("mixture", {"weights": [1]}),
        ("mixture", {"of": [{"name": "fip"}]}),
        ("cohort", {"diseases": ["flu"]}),
        ("dag", {"sise": [1, 2]}),
    ],
)
def test_wrong_settings_are_refused(name, settings):
    with pytest.raises(ConfigError):
        build_anomaly(AnomalySpec(name=name, settings=settings))


def fluid(**settings):
    steady = {"probability": 1.0, "steps": (8, 8), "flow": (0.0, 0.0), "mass_effect": (0.0, 0.0), "texture": 0.0}
    return build_anomaly(AnomalySpec(name="fluid", settings=steady | settings))


def spread_of(anomaly, image, density):
    params = anomaly.sample_params(len(image), generator=make_generator(0))
    return anomaly._spread(density, image, torch.ones_like(image, dtype=torch.bool), params)


def test_what_seeps_is_kept_and_flattens():
    image, density = torch.full((2, 1, 48, 48), 0.5), torch.zeros(2, 1, 48, 48)
    density[:, :, 20:28, 20:28] = 1
    after = spread_of(fluid(seep=(0.2, 0.2)), image, density)
    assert after.sum(dim=(1, 2, 3)).tolist() == pytest.approx([64.0, 64.0], rel=1e-5)
    assert (after.amax(dim=(1, 2, 3)) < 1).all()
    assert (after > 1e-3).sum() > (density > 0).sum()


def test_an_edge_of_intensity_holds_it_back():
    image, density = torch.full((1, 1, 48, 48), 0.2), torch.zeros(1, 1, 48, 48)
    image[..., 28:] = 0.9
    density[:, :, 20:28, 20:28] = 1
    after = spread_of(fluid(seep=(0.2, 0.2)), image, density)
    assert after[..., 28:].sum() < 0.01 * after[..., :20].sum()


def test_a_flow_carries_it_away_and_no_step_leaves_it():
    image, density = torch.full((1, 1, 48, 48), 0.5), torch.zeros(1, 1, 48, 48)
    density[:, :, 20:28, 20:28] = 1
    still = spread_of(fluid(steps=(0, 0), flow=(1.5, 1.5)), image, density)
    assert torch.equal(still, density)
    moved = spread_of(fluid(seep=(0.0, 0.0), flow=(1.5, 1.5)), image, density)
    assert (moved - density).abs().sum() > 10


def test_a_mass_pushes_tissue_outwards_which_is_no_lesion():
    """Rings around the focus widen: the brightness of a ramp moves away from the middle."""
    rows = torch.arange(64.0)[None, None, :, None].expand(1, 1, 64, 64) / 64
    anomaly = fluid(size=(24.0, 24.0), mass_effect=(3.0, 3.0), at_border=0.0, steps=(0, 0), change=(0.3, 0.3))
    inside = torch.ones_like(rows, dtype=torch.bool)
    for number in range(8):
        params = anomaly.sample_params(1, generator=make_generator(number))
        params[0]["place"] = 0.508  # row 32, column 32
        altered, lesion = anomaly.apply(rows, inside, params)
        moved = (altered != rows) & ~lesion
        if params[0]["mass"] == 0:
            assert not (moved & ((altered - rows).abs() > 0.02)).any()
            continue
        assert moved.sum() > 50
        middle = float(lesion[0, 0].nonzero()[:, 0].float().mean())
        above, below = torch.arange(64) < middle, torch.arange(64) > middle
        change = torch.where(moved, altered - rows, 0)[0, 0].sum(dim=1)
        # Above the focus, what lay further down (brighter) has come up; below it the reverse.
        assert change[above].sum() > 0 > change[below].sum()
