"""Synthetic anomalies in the neighbours of the slice that they were drawn in."""

import pytest
import torch

from halebrain.data.anomalies import AnomalySpec, build_anomaly
from halebrain.data.through_plane import apply_with_neighbours

SIDE, NEIGHBOURS = 64, (-3, -1, 1, 3)
ALONE = AnomalySpec(name="blobs", settings={"probability": 1.0})


def slices(count=12):
    torch.manual_seed(2)
    brain_mask = torch.zeros(count, 1 + len(NEIGHBOURS), SIDE, SIDE, dtype=torch.bool)
    brain_mask[..., 4:60, 4:60] = True
    return (0.4 + 0.1 * torch.rand(brain_mask.shape)) * brain_mask, brain_mask


def seeded():
    return torch.Generator().manual_seed(5)


def test_without_neighbours_it_is_the_anomaly_itself_and_draws_as_it_did():
    image, brain_mask = (tensor[:, :1] for tensor in slices())
    anomaly = build_anomaly(ALONE)
    params = anomaly.sample_params(len(image), generator=seeded())
    expected = anomaly.apply(image, brain_mask, params)
    found = apply_with_neighbours(anomaly, image, brain_mask, (), generator=seeded())
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


def test_neighbours_carry_the_same_change_inside_the_anomaly_and_less_of_it_further_away():
    image, brain_mask = slices(30)
    anomaly = build_anomaly(ALONE)
    altered, lesion = apply_with_neighbours(anomaly, image, brain_mask, NEIGHBOURS, generator=seeded())
    # The anomalies that are widest in the slice itself: there it is as it was drawn.
    params = anomaly.sample_params(len(image), generator=seeded())
    drawn, _ = anomaly.apply(image[:, :1], brain_mask[:, :1], params)
    widest = (altered[:, :1] == drawn).flatten(1).all(dim=1)
    assert 10 < int(widest.sum()) < 30
    image, altered, lesion = image[widest], altered[widest], lesion[widest]
    changed = altered != image
    assert lesion.shape[1] == 1
    assert not (changed[:, 1:] & ~lesion).any()
    area = changed.flatten(2).sum(dim=2)
    near, far = area[:, [2, 3]], area[:, [1, 4]]
    assert (far <= near).all()
    assert (near > 0).float().mean() > 0.8
    assert far.sum() < 0.9 * near.sum()
    # Deep inside, where nothing tapers off yet, the neighbour has changed by as much as the slice.
    change = (altered - image)[:, [0, 2]]
    same = (change[:, 0] - change[:, 1]).abs() < 1e-6
    assert (same & changed[:, 0]).any(dim=(1, 2)).float().mean() > 0.8


def test_half_of_the_anomalies_are_wider_in_a_neighbour_than_in_the_slice_and_some_do_not_reach_it():
    image, brain_mask = slices(60)
    altered, lesion = apply_with_neighbours(build_anomaly(ALONE), image, brain_mask, NEIGHBOURS, generator=seeded())
    area = (altered != image).flatten(2).sum(dim=2)
    below = area[:, [1, 2]].max(dim=1).values > 1.1 * area[:, 0]
    above = area[:, [3, 4]].max(dim=1).values > 1.1 * area[:, 0]
    assert not (below & above).any()
    assert 0.08 < below.float().mean() < 0.35
    assert 0.08 < above.float().mean() < 0.35
    # What is called lesion is what the slice itself shows, whatever the neighbours do.
    shown = (altered != image)[:, :1]
    assert not (lesion & ~shown).any()
    unreached = ~lesion.flatten(1).any(dim=1) & (area[:, 1:].max(dim=1).values > 0)
    assert 0 < unreached.float().mean() < 0.3
    # A slice that is the widest one is as it was drawn.
    plain = build_anomaly(ALONE)
    drawn, whole = plain.apply(image[:, :1], brain_mask[:, :1], plain.sample_params(60, generator=seeded()))
    as_drawn = (altered[:, :1] == drawn).flatten(1).all(dim=1)
    assert 0.4 < as_drawn.float().mean() < 0.75
    assert torch.equal(lesion[as_drawn], whole[as_drawn])


def test_the_same_seed_gives_the_same_and_nothing_is_left_of_range_or_outside_the_brain():
    image, brain_mask = slices()
    first, second = (
        apply_with_neighbours(build_anomaly(ALONE), image, brain_mask, NEIGHBOURS, generator=seeded())[0]
        for _ in range(2)
    )
    assert torch.equal(first, second)
    assert float(first.min()) >= 0
    assert float(first.max()) <= 1
    assert not first[~brain_mask].any()


@pytest.mark.parametrize("place", NEIGHBOURS)
def test_a_slice_without_anomaly_has_neighbours_as_they_were(place):
    image, brain_mask = (tensor[:, :2] for tensor in slices())
    never = build_anomaly(AnomalySpec(name="blobs", settings={"probability": 0.0}))
    altered, lesion = apply_with_neighbours(never, image, brain_mask, (place,), generator=seeded())
    assert not lesion.any()
    torch.testing.assert_close(altered, image)
