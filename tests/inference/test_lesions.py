"""The lesion table: volumes, places and order."""

from pathlib import Path

import numpy as np
import pytest

from halebrain.core.errors import DataError
from halebrain.core.types import Lesion
from halebrain.inference.lesions import lesion_table, lesions_tsv, read_lesions

HEADER = "lesion\tvolume_ml\tpeak_score\tmean_score\tx_mni_mm\ty_mni_mm\tz_mni_mm\ti\tj\tk\tregion\n"


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
    assert table.splitlines()[1] == "1\t1.5\t0.8\t0.5024\t19.0\t-12.0\t17.0\t11\t24\t12\t"
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
