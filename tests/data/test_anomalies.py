import pytest
import torch

from halebrain.core.errors import ConfigError
from halebrain.core.random import make_generator
from halebrain.data.anomalies import AnomalySpec, build_anomaly
from halebrain.data.anomalies.perlin import perlin_noise, published_noise
from halebrain.data.draem_textures import AUGMENTERS


@pytest.mark.parametrize("powers", [(0, 0), (2, 5), (5, 1), (6, 6)])
@pytest.mark.parametrize("size", [(96, 80), (33, 47)])
def test_perlin_noise_lies_between_minus_one_and_one(powers, size):
    noise = perlin_noise(*size, powers, seed=4)
    assert noise.shape == size
    assert torch.isfinite(noise).all()
    assert float(noise.abs().max()) == pytest.approx(1, abs=1e-6)
    assert torch.equal(noise, perlin_noise(*size, powers, seed=4))
    assert not torch.equal(noise, perlin_noise(*size, powers, seed=5))


def test_more_cells_vary_faster():
    def roughness(power):
        return sum(float(perlin_noise(64, 64, (power, power), seed=s).diff(dim=1).abs().mean()) for s in range(8))

    assert roughness(1) < roughness(3) < roughness(5)


def test_a_slice_gets_its_anomaly_whatever_its_batch():
    anomaly = build_anomaly(AnomalySpec(settings={"probability": 1}))
    image, brain = torch.full((5, 1, 48, 40), 0.5), torch.ones(5, 1, 48, 40, dtype=torch.bool)
    params = anomaly.sample_params(5, generator=make_generator(2))
    altered, lesion = anomaly.apply(image, brain, params)
    assert lesion.flatten(1).any(dim=1).sum() >= 2
    for n in range(5):
        alone, mask = anomaly.apply(image[n : n + 1], brain[n : n + 1], params[n : n + 1])
        assert torch.equal(alone[0], altered[n])
        assert torch.equal(mask[0], lesion[n])


def test_opacity_mixes_image_and_texture():
    anomaly = build_anomaly(AnomalySpec(settings={"probability": 1}))
    image, brain = torch.full((4, 1, 48, 40), 0.5), torch.ones(4, 1, 48, 40, dtype=torch.bool)
    params = anomaly.sample_params(4, generator=make_generator(2))
    full, mask = anomaly.apply(image, brain, [{**p, "opacity": 1.0} for p in params])
    half, half_mask = anomaly.apply(image, brain, [{**p, "opacity": 0.5} for p in params])
    both = mask & half_mask
    assert both.any()
    torch.testing.assert_close(half[both] - 0.5, 0.5 * (full[both] - 0.5))


@pytest.mark.parametrize("spec", [{"name": "perlim"}, {"settings": {"probability": 1.5}}, {"settings": {"opacty": 1}}])
def test_wrong_specifications_are_refused(spec):
    with pytest.raises(ConfigError):
        build_anomaly(AnomalySpec(**spec))


@pytest.mark.parametrize(("grain", "flat"), [(0.0, True), (0.4, False)])
def test_perlin_fillings_are_flat_unless_a_grain_is_asked_for(grain, flat):
    settings = {"probability": 1.0, "opacity": (1.0, 1.0), "grain": grain, "threshold": (0.45, 0.45)}
    perlin = build_anomaly(AnomalySpec(name="perlin", settings=settings))
    image = torch.rand(6, 1, 48, 48, generator=make_generator(1))
    params = perlin.sample_params(6, generator=make_generator(2))
    altered, mask = perlin.apply(image, torch.ones_like(image, dtype=torch.bool), params)
    spreads = [float(a[m].std()) for a, m in zip(altered, mask, strict=True) if int(m.sum()) > 20]
    assert spreads
    assert all(spread < 1e-6 for spread in spreads) is flat


PUBLISHED = {"source": "code", "probability": 1.0, "threshold": (0.5, 0.5), "max_scale_power": 6}


def test_published_anomalies_are_filled_with_the_noise_that_made_them():
    anomaly = build_anomaly(AnomalySpec(settings=PUBLISHED))
    image = torch.rand(6, 1, 48, 40, generator=make_generator(1))
    brain = torch.ones_like(image, dtype=torch.bool)
    params = anomaly.sample_params(6, generator=make_generator(2))
    assert all(p["present"] and set(p["alterations"]) <= set(AUGMENTERS) for p in params)
    assert all(len(set(p["alterations"])) == 3 for p in params)
    plain = [{**p, "alterations": ["colour"] * 3} for p in params]  # which changes nothing on grey images
    altered, mask = anomaly.apply(image, brain, plain)
    assert mask.flatten(1).any(dim=1).sum() >= 4
    for n, p in enumerate(plain):
        noise = published_noise(48, 40, p)
        assert not (mask[n, 0] & (noise <= 0.5)).any()
        wanted = (1 - p["opacity"]) * image[n, 0] + p["opacity"] * noise.clamp(max=1)
        torch.testing.assert_close(altered[n, 0][mask[n, 0]], wanted[mask[n, 0]])
        torch.testing.assert_close(altered[n][~mask[n]], image[n][~mask[n]])
    assert not torch.equal(anomaly.apply(image, brain, params)[0], altered)
    with pytest.raises(ConfigError, match="grain belongs to source 'text'"):
        build_anomaly(AnomalySpec(settings=PUBLISHED | {"grain": 0.4}))


def test_published_augmenters_by_hand():
    x = torch.tensor([[0.0, 0.25, 0.5, 0.75]])

    def found(name, strength):
        return AUGMENTERS[name](x, strength)[0].tolist()

    assert len(AUGMENTERS) == 10
    assert found("gamma", 0.0) == pytest.approx([0, 0.5, 0.5**0.5, 0.75**0.5])
    assert found("gamma", 1 / 3) == pytest.approx(x[0].tolist())
    assert found("brightness", 0.5) == pytest.approx([0, *(v - 30 / 255 for v in (0.25, 0.5, 0.75))], abs=1e-6)
    assert found("sharpness", 1 / 3) == pytest.approx(x[0].tolist(), abs=1e-6)
    # In one row of replicated rows: (7 v + 3 (left + right)) / 13 for the smooth image; strength 0 returns it.
    assert found("sharpness", 0.0) == pytest.approx(
        [0.75 / 13, 3.25 / 13, 6.5 / 13, (7 + 3) / 13 * 0.75 + 3 / 13 * 0.5]
    )
    assert found("colour", 0.9) == x[0].tolist()
    assert found("solarise", 0.0) == pytest.approx([0, 0.75, 0.5, 0.25])
    assert found("solarise", 0.5) == x[0].tolist()
    assert found("posterise", 0.0) == pytest.approx([0, 0, 0, 128 / 255])
    assert found("posterise", 0.99) == pytest.approx([0, 63 / 255, 127 / 255, 191 / 255])
    assert found("invert", 0.1) == pytest.approx([1, 0.75, 0.5, 0.25])
    assert found("autocontrast", 0.0) == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert found("equalise", 0.0) == pytest.approx([0, 1 / 3, 2 / 3, 1])
    square = torch.rand(9, 9, generator=make_generator(3))
    torch.testing.assert_close(AUGMENTERS["rotate"](square, 0.5), square, atol=1e-5, rtol=0)
    # A quarter of a turn would map columns on rows; 45 degrees leave the middle alone and empty the corners.
    turned = AUGMENTERS["rotate"](torch.ones(9, 9), 0.0)
    assert (float(turned[4, 4]), float(turned[0, 0])) == (pytest.approx(1), 0)
