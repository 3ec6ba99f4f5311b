"""Figures: the right side on the left, the slices that matter, and the same bytes each time."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from halebrain.evaluation.thumbnails import Thumbnail
from halebrain.report.evaluation_figures import gallery_figure
from halebrain.report.figures import MosaicRow, Panel, choose_slices, loss_plot, mosaic, mosaic_of_rows, save_figure

SHAPE = (20, 24, 10)


def block(where: tuple[slice, slice]) -> np.ndarray:
    data = np.full(SHAPE, 0.1, dtype=np.float32)
    data[where] = 1.0
    return data


def drawn(figure: Any) -> np.ndarray:
    """Return what a figure shows, `(rows, columns, 3)` in [0, 1]."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255


@pytest.mark.parametrize("kind", ["scan", "residual", "score"])
def test_the_patients_right_is_on_the_left_and_front_is_up(kind: str) -> None:
    right_front = block((slice(15, 19), slice(18, 23)))  # high i = right, high j = front
    figure = mosaic([Panel("", right_front, kind)], slices=[5])  # type: ignore[arg-type]
    shown = np.asarray(figure.axes[0].images[0].get_array())
    assert shown.shape == (24, 20)
    rows, columns = np.nonzero(shown > 0.9)
    assert (columns.min(), columns.max()) == (1, 4)
    assert (rows.min(), rows.max()) == (1, 5)
    picture = drawn(figure)
    height, width = picture.shape[:2]
    # Away from the words above and below: the block is bright, in the upper left.
    middle = picture[int(0.15 * height) : int(0.9 * height)].max(axis=-1)
    bright = np.argwhere(middle > 0.85 * middle.max())
    assert (bright.mean(axis=0) < (0.35 * height, 0.4 * width)).all()
    labels = {text.get_text(): text.get_position()[0] for text in figure.axes[0].texts}
    assert labels["R"] < 0.5 < labels["L"]


def test_a_mosaic_has_a_row_a_slice_and_a_column_a_map() -> None:
    data = np.random.default_rng(0).random(SHAPE).astype(np.float32)
    panels = [Panel("a", data), Panel("b", data - 0.5, "residual"), Panel("c", data, "score", outline=data > 0.8)]
    figure = mosaic(panels, slices=[2, 5], title="name", note="Note.")
    (axes,) = figure.axes
    assert len(axes.images) == 6
    titles = {text.get_text(): text.get_position()[0] for text in axes.texts}
    assert [titles[name] for name in "abc"] == [0.5, 1.5, 2.5]
    for row, index in enumerate([2, 5]):
        first = axes.images[3 * row]
        np.testing.assert_array_equal(first.get_array(), data[::-1, ::-1, index].T)
        left, right, bottom, top = first.get_extent()
        assert 0 <= left < right <= 1
        assert row <= top < bottom <= row + 1
    assert axes.images[1].get_clim()[0] == -axes.images[1].get_clim()[1]
    texts = " ".join(text.get_text() for text in figure.texts)
    assert "Note." in texts
    assert "Not a medical device" in texts


def test_an_outline_lies_around_what_it_outlines() -> None:
    inside = np.zeros(SHAPE, dtype=bool)
    inside[15:19, 18:23] = True
    shown = np.full(SHAPE, 0.1, dtype=np.float32)
    plain, outlined = (drawn(mosaic([Panel("", shown, outline=o, vmax=1.0)], slices=[5])) for o in (None, inside))
    rows, columns = np.nonzero(np.abs(plain - outlined).max(axis=-1) > 0.2)
    figure = mosaic([Panel("", np.where(inside, 1, shown).astype(np.float32), vmax=1.0)], slices=[5])
    marked = np.nonzero(np.abs(drawn(figure) - plain).max(axis=-1) > 0.2)
    for line, block_of in zip((rows, columns), marked, strict=True):
        assert abs(int(line.min()) - int(block_of.min())) <= 3
        assert abs(int(line.max()) - int(block_of.max())) <= 3


def test_rows_of_several_scans_share_a_crop_and_are_labelled() -> None:
    first, second = np.zeros((2, *SHAPE), dtype=np.float32)
    first[5:15, 6:18] = 1.0
    second[:] = np.random.default_rng(0).random(SHAPE)
    rows = [MosaicRow([Panel("a", first)], 2, "FLAIR"), MosaicRow([Panel("b", second)], 4)]
    (axes,) = mosaic_of_rows(rows).axes
    assert [image.get_array().shape for image in axes.images] == [(16, 14)] * 2
    np.testing.assert_array_equal(axes.images[1].get_array(), second[3:17, 4:20, 4][::-1, ::-1].T)
    words = {text.get_text(): text.get_position()[1] for text in axes.texts}
    assert words["FLAIR"] == 0.5
    assert "a" in words
    assert "b" not in words


def test_slices_are_spread_or_follow_the_score() -> None:
    brain = np.zeros((10, 10, 40), dtype=bool)
    brain[2:8, 2:8, 5:36] = True
    spread = choose_slices(brain, count=5)
    assert len(spread) == 5
    assert spread == sorted(spread)
    assert spread[0] > 5
    assert spread[-1] < 35
    score = np.zeros(brain.shape, dtype=np.float32)
    score[4, 4, 20], score[4, 4, 30] = 1.0, 0.8
    chosen = choose_slices(brain, score, count=2)
    assert chosen == [20, 30]


def test_slices_without_brain_are_never_chosen_first() -> None:
    brain = np.zeros((10, 10, 20), dtype=bool)
    brain[2:8, 2:8, 8:16] = True
    score = np.zeros(brain.shape, dtype=np.float32)
    score[..., 1], score[4, 4, 12] = 1.0, 0.5
    assert choose_slices(brain, score, count=1) == [12]


@pytest.mark.slow
@pytest.mark.parametrize(("first", "scale"), [(0.5, "log"), (-0.5, "linear")])
def test_loss_plot(tmp_path: Path, first: float, scale: str) -> None:
    log = tmp_path / "log.csv"
    log.write_text(f"step,loss,val_loss,lr\n1,{first},,1\n2,0.4,0.45,1\n3,0.3,,1\n", encoding="utf-8")
    axes = loss_plot(log).axes[0]
    training, validation = axes.lines
    np.testing.assert_allclose(training.get_xydata(), [[1, first], [2, 0.4], [3, 0.3]])
    np.testing.assert_allclose(validation.get_xydata(), [[2, 0.45]])
    assert axes.get_yscale() == scale


def test_the_same_figure_gives_the_same_bytes(tmp_path: Path) -> None:
    data = block((slice(3, 9), slice(3, 9)))
    for name in ("a.png", "b.png"):
        save_figure(mosaic([Panel("x", data, outline=data > 0.5)], slices=[4]), tmp_path / name)
    raw = (tmp_path / "a.png").read_bytes()
    assert raw.startswith(b"\x89PNG")
    assert raw == (tmp_path / "b.png").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([0.3], ["the only one"]),
        ([0.2, 0.1], ["worst", "best"]),
        ([0.3, 0.1, 0.2], ["worst", "median", "best"]),
        ([0.1, 0.2, 0.3, 0.4, 0.5], ["worst", "worst", "median", "best", "best"]),
        ([n / 10 for n in range(9)], ["worst"] * 3 + ["median"] * 3 + ["best"] * 3),
        ([n / 20 for n in range(15)], ["worst"] * 3 + ["median"] * 3 + ["best"] * 3),
    ],
)
def test_scans_are_called_by_their_place_in_the_ranking(values: list[float], names: list[str]) -> None:
    pixels, mask = np.zeros((4, 4), np.uint8), np.zeros((4, 4), bool)
    thumbnails = [Thumbnail(f"s{n}", value, pixels, pixels, mask, mask) for n, value in enumerate(values)]
    figure = gallery_figure(thumbnails)
    assert figure is not None
    titles = [axis.get_title().split("\n") for axis in figure.axes if axis.get_title()]
    assert [title[0] for title in titles] == names
    shown = [float(title[2]) for title in titles]
    assert shown == sorted(shown)
    assert len({title[1] for title in titles}) == len(titles)
