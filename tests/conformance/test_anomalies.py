import json

import pytest
import torch

from halebrain.core.random import make_generator
from halebrain.data.anomalies import ANOMALIES, AnomalySpec, build_anomaly
from halebrain.data.anomalies.perlin import perlin_noise

SETTINGS = {"mixture of fluid": {"of": [{"name": "fluid"}, {"name": "perlin"}]}}


@pytest.fixture(params=[*ANOMALIES.names(), *SETTINGS])
def anomaly(request):
    name = request.param
    return build_anomaly(AnomalySpec(name=name.partition(" ")[0], settings=SETTINGS.get(name, {})))


@pytest.fixture
def healthy():
    image = 0.2 + 0.6 * torch.rand(24, 1, 48, 40, generator=make_generator(3))
    brain_mask = torch.zeros_like(image, dtype=torch.bool)
    brain_mask[..., 8:40, 8:32] = True
    return image * brain_mask, brain_mask


def test_the_mask_says_exactly_where_the_image_changed(anomaly, healthy):
    image, brain_mask = healthy
    before = image.clone()
    altered, lesion = anomaly.apply(image, brain_mask, anomaly.sample_params(24, generator=make_generator(0)))
    assert lesion.dtype == torch.bool
    assert not (lesion & ~brain_mask).any()
    changed = altered != image
    assert torch.equal(changed & lesion, lesion)
    assert anomaly.displaces_tissue or torch.equal(changed, lesion)
    assert altered.min() >= 0
    assert altered.max() <= 1
    assert 3 < int(lesion.flatten(1).any(dim=1).sum()) < 24  # some slices stay healthy
    assert torch.equal(image, before)


def test_recorded_parameters_give_the_same_anomaly(anomaly, healthy):
    params = anomaly.sample_params(24, generator=make_generator(0))
    assert params == anomaly.sample_params(24, generator=make_generator(0))
    assert params != anomaly.sample_params(24, generator=make_generator(1))
    first = anomaly.apply(*healthy, params)
    second = anomaly.apply(*healthy, json.loads(json.dumps(params)))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_a_slice_without_brain_and_a_lone_slice_are_no_special_case(anomaly, healthy):
    image, brain_mask = healthy
    params = anomaly.sample_params(24, generator=make_generator(0))
    altered, lesion = anomaly.apply(image, torch.zeros_like(brain_mask), params)
    assert not lesion.any()
    assert torch.equal(altered, image)
    found = [anomaly.apply(image[n : n + 1], brain_mask[n : n + 1], params[n : n + 1])[1].any() for n in range(24)]
    assert any(found)
    assert not all(found)


def test_a_cropped_view_gives_what_its_copy_gives(anomaly, healthy):
    image, brain_mask = (x[..., 4:44, 4:36] for x in healthy)
    params = anomaly.sample_params(24, generator=make_generator(0))
    viewed, copied = anomaly.apply(image, brain_mask, params), anomaly.apply(image.clone(), brain_mask.clone(), params)
    turned = (
        anomaly.apply(image.mT, brain_mask.mT, params),
        anomaly.apply(image.mT.contiguous(), brain_mask.mT.contiguous(), params),
    )
    for first, second in ((viewed, copied), turned):
        assert torch.equal(first[0], second[0])
        assert torch.equal(first[1], second[1])


def test_anomalies_differ_from_slice_to_slice(anomaly, healthy):
    _, lesion = anomaly.apply(*healthy, anomaly.sample_params(24, generator=make_generator(0)))
    shapes = {tuple(m.flatten().tolist()) for m in lesion if m.any()}
    assert len(shapes) == int(lesion.flatten(1).any(dim=1).sum())


def test_perlin_noise_reaches_one_and_is_smooth():
    noise = perlin_noise(96, 80, (2, 3), seed=5)
    assert noise.shape == (96, 80)
    assert float(noise.abs().max()) == pytest.approx(1)
    assert float(noise.diff(dim=0).abs().max()) < 0.25


def test_probability_zero_leaves_everything_healthy(healthy):
    anomaly = build_anomaly(AnomalySpec(name="perlin", settings={"probability": 0}))
    altered, lesion = anomaly.apply(*healthy, anomaly.sample_params(24, generator=make_generator(0)))
    assert not lesion.any()
    assert torch.equal(altered, healthy[0])
