"""What the picture of a scan outlines is what its mask holds."""

from types import SimpleNamespace

import numpy as np
import pytest

from halebrain.core.mask import Cut
from halebrain.workflows import pages
from halebrain.workflows.pages import scan_mosaic


def picture(monkeypatch: pytest.MonkeyPatch, **settings: float) -> tuple[np.ndarray, str]:
    """Return the outline and the note of a scan with a piece of 64 mm³, one of 8 mm³, and one outside of the brain."""
    brain_mask = np.zeros((20, 20, 12), dtype=bool)
    brain_mask[2:18, 2:18, 1:11] = True
    score = np.zeros(brain_mask.shape, dtype=np.float32)
    score[4:6, 4:6, 4:6] = 0.9
    score[12, 12, 6] = 0.8
    score[0, 0, 0] = 0.9
    scan = SimpleNamespace(image=brain_mask * 0.5, brain_mask=brain_mask, grid=SimpleNamespace(voxel_mm3=8.0))
    maps = SimpleNamespace(score=score, probability=score, reconstruction=scan.image)
    seen = {}

    def mosaic(panels, *, note, **_):
        seen.update({panel.title: panel for panel in panels}, note=note)

    monkeypatch.setattr(pages, "mosaic", mosaic)
    scan_mosaic(scan, maps, cut=Cut(0.5, **settings), title="one", threshold_name="ml:1")  # type: ignore[arg-type]
    return seen["found"].outline, seen["note"]


def test_pieces_that_the_mask_leaves_out_are_not_outlined(monkeypatch: pytest.MonkeyPatch) -> None:
    outline, note = picture(monkeypatch, min_lesion_mm3=30.0)
    assert outline[4:6, 4:6, 4:6].all()
    assert outline.sum() == 8
    assert "at least 0.500 (ml:1), without components under 30 mm³." in note


def test_without_a_smallest_size_all_that_reaches_the_threshold_in_the_brain_is_outlined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outline, note = picture(monkeypatch)
    assert outline[12, 12, 6]
    assert outline.sum() == 9
    assert "at least 0.500 (ml:1)." in note
