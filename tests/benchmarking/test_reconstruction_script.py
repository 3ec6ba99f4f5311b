"""The figures of the reconstruction script: that of another person's reconstruction needs another person."""

from types import SimpleNamespace

import numpy as np
import pytest
from benchmarks import reconstruction


@pytest.fixture
def judged(monkeypatch):
    """Return what `judge` finds in a patient with a given reconstruction of somebody else, without any network."""
    lesion = np.zeros((6, 6, 6), bool)
    lesion[2:4, 2:4, 2:4] = True
    healthy = np.full(lesion.shape, 0.5, np.float32)
    image = np.where(lesion, np.float32(0.9), healthy)
    scan = SimpleNamespace(brain_mask=np.ones(lesion.shape, bool), image=image)
    record = SimpleNamespace(contrast="FLAIR", is_healthy=False)
    twin = SimpleNamespace(annotated=SimpleNamespace(scan=scan, record=record, lesion=lesion), healthy=healthy)
    predictor = SimpleNamespace(
        across_slices=lambda probability, *_: probability, postprocessing=SimpleNamespace(median_size=1)
    )

    def networks(_predictor, _twin, given, other=None):
        """Return half of the lesion healed, and what differs from the reconstruction in the pair."""
        own = (given + healthy) / 2
        return [own, np.abs(given - (own if other is None else other))]

    monkeypatch.setattr(reconstruction, "networks", networks)
    monkeypatch.setattr(reconstruction, "identity", lambda *_: {})
    return lambda other: reconstruction.judge(predictor, twin, None, other)


def test_the_figures_of_a_lesion_that_is_half_removed_by_hand(judged):
    found = judged(None)
    assert found["removal"] == pytest.approx(0.5)
    assert found["residual"] == found["residual signed"] == found["segmenter"] == found["ceiling"] == 1


def test_without_another_person_there_is_no_shuffled_figure(judged):
    assert "shuffled" not in judged(None), "the person's own healthy twin is nobody else's reconstruction"
    assert judged(np.full((6, 6, 6), 0.9, np.float32))["shuffled"] == pytest.approx(8 / 216)
