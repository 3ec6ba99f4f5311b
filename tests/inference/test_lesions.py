"""The lesion table: volumes, places and order."""

from pathlib import Path

import numpy as np
import pytest

from halebrain.core.errors import DataError
from halebrain.core.types import Lesion
from halebrain.inference.lesions import lesion_table, lesions_tsv, read_lesions
from halebrain.inference.regions import CEREBRUM_BOTTOM_MM, region_codes
from halebrain.preprocessing.geometry import apply_affine

HEADER = (
    "lesion\tvolume_ml\tpeak_score\tmean_score\tx_mni_mm\ty_mni_mm\tz_mni_mm\ti\tj\tk\tregion\t"
    "edge_share\tbelow_share\n"
)


def test_two_boxes() -> None:
    mask = np.zeros((30, 30, 30), dtype=bool)
    mask[2:5, 2:5, 2:5] = True  # 27 voxels around (3, 3, 3)
    mask[10:15, 20:25, 11:16] = True  # 125 voxels around (12, 22, 13)
    score = np.where(mask, 0.5, 0).astype(np.float32)
    score[4, 2, 3], score[11, 24, 12] = 0.9, 0.8
    affine = np.diag([-2.0, 2.0, 3.0, 1.0])  # 12 mm³, first axis to the left
    affine[:3, 3] = (50, -60, -20)
    template_to_native = np.eye(4)
    template_to_native[:3, 3] = (7, -4, 2)  # native = template + shift

    large, small = lesion_table(mask, score, affine, template_to_native)
    assert (large.lesion, small.lesion) == (1, 2)
    assert large.volume_ml == pytest.approx(125 * 0.012)
    assert small.volume_ml == pytest.approx(27 * 0.012)
    assert (large.x_mni_mm, large.y_mni_mm, large.z_mni_mm) == (50 - 24 - 7, -60 + 44 + 4, -20 + 39 - 2)
    assert (small.x_mni_mm, small.y_mni_mm, small.z_mni_mm) == (50 - 6 - 7, -60 + 6 + 4, -20 + 9 - 2)
    assert (large.i, large.j, large.k) == (11, 24, 12)
    assert (small.i, small.j, small.k) == (4, 2, 3)
    assert large.peak_score == pytest.approx(0.8)
    assert small.mean_score == pytest.approx((26 * 0.5 + 0.9) / 27, abs=1e-4)

    table = lesions_tsv([large, small])
    assert table.startswith(HEADER)
    assert table.splitlines()[1] == "1\t1.5\t0.8\t0.5024\t19.0\t-12.0\t17.0\t11\t24\t12\t\tn/a\tn/a"
    assert len(table.splitlines()) == 3


def test_corners_join() -> None:
    mask = np.zeros((5, 5, 5), dtype=bool)
    mask[1, 1, 1] = mask[2, 2, 2] = True
    mask[4, 4, 0] = True
    assert len(lesion_table(mask, mask.astype(np.float32), np.eye(4), np.eye(4))) == 2


def test_a_piece_has_the_name_of_where_it_lies() -> None:
    mask = np.zeros((40, 40, 40), dtype=bool)
    mask[19:22, 19:22, 19:22] = True
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (-51, -59, -32)  # the middle of the piece at (−11, −19, 8)
    lesion = lesion_table(mask, mask.astype(np.float32), affine, np.eye(4), regions=True)[0]
    assert (lesion.x_mni_mm, lesion.y_mni_mm, lesion.z_mni_mm) == (-11, -19, 8)
    assert lesion.region == "thalamus, left"


def test_an_empty_mask_is_a_table_with_its_header() -> None:
    mask = np.zeros((5, 5, 5), dtype=bool)
    lesions = lesion_table(mask, mask.astype(np.float32), np.eye(4), np.eye(4))
    assert lesions == []
    assert lesions_tsv(lesions) == HEADER


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("spacing_mm", "at_edge"),
    # Of 20 voxels, the outermost have their centre half a voxel from the surface: 4 mm hold 4 of 1 mm, 1 of 5 mm.
    [(1.0, 4), (2.0, 2), (5.0, 1), (9.0, 0)],
)
def test_the_share_at_the_edge_of_the_brain_mask_by_hand(spacing_mm: float, at_edge: int, turned: bool) -> None:
    brain = np.zeros((24, 60, 60), dtype=bool)
    brain[2:22] = True  # across the other axes it fills the field of view, whose end is its surface, too
    mask = np.zeros(brain.shape, dtype=bool)
    mask[2:22, 30, 30] = True
    affine = np.diag([spacing_mm, 1.0, 1.0, 1.0])
    if turned:
        brain, mask, affine = brain.transpose(1, 2, 0), mask.transpose(1, 2, 0), affine[:, [1, 2, 0, 3]]
    lesion = lesion_table(mask, mask.astype(np.float32), affine, np.eye(4), brain_mask=brain)[0]
    assert lesion.edge_share == pytest.approx(2 * at_edge / 20)
    assert lesion.below_share is None


def test_a_finding_at_the_end_of_the_field_of_view_is_at_the_edge() -> None:
    brain = np.ones((20, 20, 20), dtype=bool)
    mask = np.zeros(brain.shape, dtype=bool)
    mask[0:4, 8:12, 8:12], mask[8:12, 8:12, 8:12] = True, True
    first, second = lesion_table(mask, mask.astype(np.float32), np.eye(4), np.eye(4), brain_mask=brain)
    assert (first.edge_share, second.edge_share) == (1.0, 0.0)


def test_findings_ordered_by_size_keep_what_was_measured_of_each() -> None:
    mask = np.zeros((50, 30, 40), dtype=bool)
    mask[0:2, 14:16, 34:36], mask[36:40, 8:12, 18:22] = (
        True,
        True,
    )  # the small one, at the edge, comes first on the grid
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (-64, -38, -31)  # the middle of the large one at (11, −19, 8)
    brain = np.ones(mask.shape, dtype=bool)
    large, small = lesion_table(mask, mask.astype(np.float32), affine, np.eye(4), regions=True, brain_mask=brain)
    assert (large.x_mni_mm, large.y_mni_mm, large.z_mni_mm) == (11, -19, 8)
    assert (large.volume_ml, large.region, large.edge_share, large.below_share) == (0.512, "thalamus, right", 0.0, 0.0)
    assert (small.volume_ml, small.edge_share) == (0.064, 1.0)
    assert small.region.endswith(", left")


@pytest.mark.parametrize(("z", "below"), [(0, 0.0), (-45, 0.0), (-60, 1.0)])
def test_what_lies_below_the_cerebrum_of_the_template_is_told(z: int, below: float) -> None:
    mask = np.zeros((8, 8, 8), dtype=bool)
    mask[2:5, 2:5, 2:5] = True
    affine = np.eye(4)
    affine[:3, 3] = (-3, -33, z - 3)  # the middle of the piece at (0, −30, z)
    lesion = lesion_table(mask, mask.astype(np.float32), affine, np.eye(4), regions=True)[0]
    assert (lesion.edge_share, lesion.below_share) == (None, below)


def test_the_bottom_of_the_cerebrum_is_that_of_the_template() -> None:
    from nilearn.datasets import load_mni152_brain_mask, load_mni152_gm_template

    brain, grey = load_mni152_brain_mask(resolution=1), load_mni152_gm_template(resolution=1)
    inside = (np.asarray(brain.dataobj) > 0) & (np.asarray(grey.dataobj) > 0.5)
    places = apply_affine(np.asarray(brain.affine), np.argwhere(inside)[:, :3])
    codes, names = region_codes(places)
    temporal = np.isin(codes, [code for code, name in enumerate(names) if name.startswith("temporal cortex")])
    assert abs(places[temporal, 2].min() - CEREBRUM_BOTTOM_MM) <= 1


def test_shares_are_read_as_they_were_written(tmp_path: Path) -> None:
    known = [Lesion(1, 2.5, 0.9, 0.7, 1.5, -2.0, 3.0, 1, 2, 3, "thalamus", 0.25, None)]
    (tmp_path / "lesions.tsv").write_text(lesions_tsv(known))
    assert read_lesions(tmp_path / "lesions.tsv") == known


ROW = {"lesion": "1", "volume_ml": "2.5", "peak_score": "0.9", "mean_score": "0.7", "i": "1", "j": "2", "k": "3"}
PLACE = {"x_mni_mm": "1.5", "y_mni_mm": "-2", "z_mni_mm": "3"}


def written(folder: Path, row: dict[str, str]) -> Path:
    path = folder / "lesions.tsv"
    path.write_text("\t".join(row) + "\n" + "\t".join(row.values()) + "\n")
    return path


def test_a_table_without_regions_is_read(tmp_path: Path) -> None:
    (lesion,) = read_lesions(written(tmp_path, ROW | PLACE))
    assert lesion == Lesion(1, 2.5, 0.9, 0.7, 1.5, -2.0, 3.0, 1, 2, 3, "")
    assert lesion.peak == (1, 2, 3)
    path = written(tmp_path, ROW)
    path.write_text(lesions_tsv([lesion]))
    assert read_lesions(path) == [lesion]


@pytest.mark.parametrize("row", [ROW, ROW | PLACE | {"volume_ml": "much"}, ROW | PLACE | {"i": ""}])
def test_a_broken_table_is_said(tmp_path: Path, row: dict[str, str]) -> None:
    with pytest.raises(DataError, match="every column"):
        read_lesions(written(tmp_path, row))
