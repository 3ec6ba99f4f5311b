import math

import pytest
import torch

from halebrain.models.schedule import add_noise, cosine_alpha_bar, ddim_path, predicted_image, predicted_noise


@pytest.mark.parametrize("t", [0, 250, 499, 750])
def test_alpha_bar_has_its_closed_form(t):
    def f(u):
        return math.cos((u / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2

    assert float(cosine_alpha_bar(1000)[t]) == pytest.approx(f(t + 1) / f(0), rel=1e-9)


def test_alpha_bar_falls_from_one_to_nothing():
    alpha_bar = cosine_alpha_bar(1000)
    assert (alpha_bar.diff() < 0).all()
    assert alpha_bar[0] > 0.9999
    assert 0 < alpha_bar[-1] < 1e-4


def test_noise_is_mixed_so_that_variance_is_kept():
    alpha_bar = torch.tensor([0.25, 0.64], dtype=torch.float64)
    image, noise = torch.full((2, 1, 2, 2), 1.0), torch.full((2, 1, 2, 2), -1.0)
    mixed = add_noise(image, noise, torch.tensor([0, 1]), alpha_bar)
    assert mixed[0, 0, 0, 0] == pytest.approx(0.5 - math.sqrt(0.75))
    assert mixed[1, 0, 0, 0] == pytest.approx(0.8 - 0.6)


@pytest.mark.parametrize("t", [0, 400, 999])
def test_image_and_noise_are_told_apart_again(t):
    alpha_bar, level = cosine_alpha_bar(1000), torch.tensor([t])
    image, noise = torch.randn(1, 1, 4, 4, dtype=torch.float64), torch.randn(1, 1, 4, 4, dtype=torch.float64)
    noisy = add_noise(image, noise, level, alpha_bar)
    torch.testing.assert_close(predicted_image(noisy, noise, level, alpha_bar), image, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(predicted_noise(noisy, image, level, alpha_bar), noise, rtol=1e-6, atol=1e-6)


def test_a_chain_goes_down_evenly_and_stops_above_the_image():
    assert ddim_path(500, 1) == [500]
    assert ddim_path(500, 5) == [500, 400, 300, 200, 100]
    assert ddim_path(3, 10) == [3, 2, 1]
    assert ddim_path(0, 4) == [0]


def test_the_table_holds_numbers_even_where_networks_are_only_laid_out():
    with torch.device("meta"):
        table = cosine_alpha_bar(977)
    assert table.device.type == "cpu"
    assert 0 < float(table[976]) < float(table[0]) < 1
