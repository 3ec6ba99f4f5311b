import pytest
import torch

from halebrain.core.random import draw_seeds, make_generator
from halebrain.models.noise import NOISES

CPU = torch.device("cpu")


@pytest.mark.parametrize("kind", NOISES.names())
def test_a_field_depends_on_its_own_seed_alone(kind):
    seeds = draw_seeds(4, make_generator(0))
    together = NOISES.get(kind)(seeds, 40, 24, CPU)
    assert together.shape == (4, 1, 40, 24)
    alone = torch.cat([NOISES.get(kind)(seeds[n : n + 1], 40, 24, CPU) for n in range(4)])
    torch.testing.assert_close(together, alone)
    assert (together[0] - together[1]).abs().mean() > 0.1


@pytest.mark.parametrize("kind", NOISES.names())
def test_every_pixel_has_zero_mean_and_unit_variance(kind):
    fields = NOISES.get(kind)(draw_seeds(4000, make_generator(1)), 24, 24, CPU)
    assert fields.mean(0).abs().max() < 0.09
    assert (fields.std(0) - 1).abs().max() < 0.07


def neighbour_correlation(fields):
    left, right = fields[..., :-1].flatten(), fields[..., 1:].flatten()
    return float(torch.corrcoef(torch.stack([left, right]))[0, 1])


@pytest.mark.slow
def test_simplex_is_smooth_and_gaussian_is_not():
    seeds = draw_seeds(64, make_generator(2))
    assert neighbour_correlation(NOISES.get("simplex")(seeds, 96, 96, CPU)) > 0.85
    assert abs(neighbour_correlation(NOISES.get("gaussian")(seeds, 96, 96, CPU))) < 0.02


def test_simplex_runs_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        assert NOISES.get("simplex")(draw_seeds(2, make_generator(0)), 16, 16, CPU).dtype == torch.float32
