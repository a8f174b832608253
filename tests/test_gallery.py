"""Pictures of pictures, measured in pixels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seqvae.gallery import CLASSES, PANEL, Panel, grid, latent_map, write_picture
from seqvae.render import HUES, MARGIN, PAPER, WHITE
from seqvae.song import SeqvaeError

WIDE, HIGH = 56, 28  # what 14 x 7 becomes, four times as large
UNDER = MARGIN + 30  # where maps begin, below their titles


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG" and picture.mode == "RGB"
        return np.asarray(picture).astype(int)


def patch(page: np.ndarray, found: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right and bottom (exclusive) of the pixels found (H, W)."""
    rows, columns = np.nonzero(found)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def of_colour(page: np.ndarray, colour: Sequence[int]) -> tuple[int, int, int, int]:
    return patch(page, (page == colour).all(2))


def plain(hue: int) -> np.ndarray:
    """A picture (7, 14, 3) of one of the HUES."""
    return np.full((7, 14, 3), HUES[hue], np.uint8)


ROWS = [[plain(0), plain(1), plain(2)], [plain(3), plain(4)]]


# ------------------------------------------------------------------------------------------ rows


@pytest.mark.parametrize("gap", [0, 6, 11])
def test_pictures_stand_in_rows_a_gap_apart(tmp_path: Path, gap: int) -> None:
    grid(ROWS, tmp_path / "a.png", gap=gap)
    page = pixels(tmp_path / "a.png")
    assert page.shape == (2 * MARGIN + 2 * HIGH + gap, 2 * MARGIN + 3 * WIDE + 2 * gap, 3)
    for hue in range(5):
        x, y = MARGIN + hue % 3 * (WIDE + gap), MARGIN + hue // 3 * (HIGH + gap)
        assert of_colour(page, HUES[hue]) == (x, y, x + WIDE, y + HIGH)
    assert (page == PAPER).all(2).sum() == page[..., 0].size - 5 * WIDE * HIGH  # and nothing else


@pytest.mark.parametrize(("side", "times"), [(8, 7), (12, 5), (28, 2), (56, 1), (64, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_pixel_becomes_a_square(tmp_path: Path, side: int, times: int, channels: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (side, side, channels), np.uint8)
    grid([[picture]], tmp_path / "a.png")
    page = pixels(tmp_path / "a.png")[MARGIN:-MARGIN, MARGIN:-MARGIN]
    assert page.shape == (side * times, side * times, 3)
    for row in range(times):
        for column in range(times):
            assert (page[row::times, column::times] == picture).all()


def test_titles_stand_before_their_rows(tmp_path: Path) -> None:
    grid(ROWS, tmp_path / "a.png", titles=("i", "a long title"))
    page = pixels(tmp_path / "a.png")
    left = of_colour(page, HUES[0])[0]
    aside = page[:, :left]
    assert left > MARGIN and page.shape[1] == left + 3 * WIDE + 2 * 6 + MARGIN
    widths = []
    for row in range(2):
        top = MARGIN + row * (HIGH + 6)
        assert of_colour(page, HUES[3 * row])[:2] == (left, top)
        x, y, right, bottom = patch(aside, (aside != PAPER).any(2) & in_rows(aside, top - 3, top + HIGH + 3))
        widths.append(right - x)
        assert MARGIN <= x < MARGIN + 4 and right <= left - 10
        assert (y + bottom) / 2 == pytest.approx(top + HIGH / 2, abs=3)
    assert widths[1] > 5 * widths[0] > 0


def in_rows(page: np.ndarray, top: int, bottom: int) -> np.ndarray:
    return ((np.arange(len(page)) >= top) & (np.arange(len(page)) < bottom))[:, None]


def test_heads_stand_over_their_columns(tmp_path: Path) -> None:
    grid(ROWS, tmp_path / "bare.png")
    grid(ROWS, tmp_path / "a.png", heads=("one", "", "m" * 99))
    bare, page = pixels(tmp_path / "bare.png"), pixels(tmp_path / "a.png")
    lower = page.shape[0] - bare.shape[0]
    assert lower > 10 and page.shape[1] == bare.shape[1]
    assert (page[MARGIN + lower :] == bare[MARGIN:]).all()
    above = (page[: MARGIN + lower] != PAPER).any(2)
    middles = [MARGIN + column * (WIDE + 6) + WIDE / 2 for column in range(3)]
    inked = [above[:, round(x - WIDE / 2 - 3) : round(x + WIDE / 2 + 3)] for x in middles]
    assert [part.any() for part in inked] == [True, False, True]
    first, last = (patch(part, part) for part in inked[::2])
    assert (first[0] + first[2]) / 2 == pytest.approx(WIDE / 2 + 3, abs=2)
    assert 30 < last[2] - last[0] <= WIDE + 6  # shortened to its column
    assert above.sum() == sum(part.sum() for part in inked)


@pytest.mark.parametrize(("rows", "titles"), [([], ()), ([[plain(0)], []], ()), (ROWS, ("one",))])
def test_no_picture_and_a_row_without_its_title_are_refused(tmp_path: Path, rows, titles) -> None:
    with pytest.raises(SeqvaeError, match=f"a picture of {len(rows)} rows, with {len(titles)} titles"):
        grid(rows, tmp_path / "a.png", titles)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_is_written_as_it_is(tmp_path: Path, channels: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (9, 12, channels), np.uint8)
    write_picture(picture, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as found:
        assert (found.mode, found.size) == ({1: "L", 3: "RGB"}[channels], (12, 9))
        np.testing.assert_array_equal(np.asarray(found).reshape(9, 12, channels), picture)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    place = tmp_path / "no such folder" / "a.png"
    for write in (
        lambda: grid(ROWS, place),
        lambda: write_picture(plain(0), place),
        lambda: latent_map([Panel("", np.zeros((1, 2)), np.zeros(1))], place, ["a"]),
    ):
        with pytest.raises(SeqvaeError, match="no such folder/a.png cannot be written"):
            write()
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------ maps


def maps(path: Path, *panels: Panel, names: Sequence[str] = ("a", "b", "c")) -> list[np.ndarray]:
    """The map of each panel, (PANEL, PANEL, 3), without its title and the legend."""
    latent_map(panels, path, names)
    page, step = pixels(path), PANEL + MARGIN
    assert page.shape[1] == MARGIN + len(panels) * step
    lefts = [MARGIN + i * step for i in range(len(panels))]
    return [page[UNDER : UNDER + PANEL, left : left + PANEL] for left in lefts]


def place(x: float, y: float, reach: float = 2.4) -> tuple[float, float]:
    """Where a point lies in a map that goes so far: column and row."""
    return (x / reach + 1) / 2 * PANEL, (1 - y / reach) / 2 * PANEL


def test_a_point_lands_where_it_should_in_its_colour(tmp_path: Path) -> None:
    points, classes = np.array([[1.0, 0.5], [-2.0, 2.2], [0.3, -1.7]]), np.array([0, 1, 2])
    panels = Panel("here", points, classes), Panel("there", points[::-1], classes)
    for page, order in zip(maps(tmp_path / "a.png", *panels), ((0, 1, 2), (2, 1, 0)), strict=True):
        for of, at in enumerate(order):
            left, top, right, bottom = of_colour(page, CLASSES[of])
            assert ((left + right) / 2, (top + bottom) / 2) == pytest.approx(place(*points[at]), abs=1)
            assert 2 <= right - left <= 6 and 2 <= bottom - top <= 6


def test_a_circle_of_radius_2_and_the_axes_are_drawn(tmp_path: Path) -> None:
    (page,) = maps(tmp_path / "a.png", Panel("", np.array([[2.2, 2.2]]), np.zeros(1)))
    inked = (page != WHITE).any(2)
    for angle in np.linspace(0.3, 1.2, 7):
        for radius, drawn in ((2.0, True), (1.9, False), (2.1, False)):
            x, y = map(round, place(radius * np.cos(angle), -radius * np.sin(angle)))
            assert inked[y - 1 : y + 2, x - 1 : x + 2].any() == drawn
    assert inked[:, PANEL // 2].all() and inked[PANEL // 2].all()


def test_few_far_points_do_not_set_the_scale(tmp_path: Path) -> None:
    near = np.tile([[1.0, 1.0]], (999, 1))
    points, classes = np.concatenate([near, [[1e6, -1e6]]]), np.array([0] * 999 + [1])
    (page,) = maps(tmp_path / "a.png", Panel("", points, classes))
    left, top, right, bottom = of_colour(page, CLASSES[0])
    assert ((left + right) / 2, (top + bottom) / 2) == pytest.approx(place(1, 1), abs=1)
    assert not (page == CLASSES[1]).all(2).any()


def test_a_wide_cloud_is_drawn_whole(tmp_path: Path) -> None:
    """Its reach is 1.06 times its largest value."""
    corners = np.array([[10.0, 10.0], [-10.0, -10.0]])
    (page,) = maps(tmp_path / "a.png", Panel("", corners, np.zeros(2)))
    left, top, right, bottom = of_colour(page, CLASSES[0])
    assert (left + 2, top + 2) == pytest.approx(place(-10, 10, 10.6), abs=1.5)
    assert (right - 2, bottom - 2) == pytest.approx(place(10, -10, 10.6), abs=1.5)


def test_no_class_covers_another(tmp_path: Path) -> None:
    """Drawn one after the other, the last of two classes in one place would have most of its pixels."""
    points = np.random.default_rng(1).normal(0, 0.3, (4000, 2))
    (page,) = maps(tmp_path / "a.png", Panel("", points, np.repeat([0, 1], 2000)))
    seen = [(page == CLASSES[of]).all(2).sum() for of in (0, 1)]
    assert min(seen) > 0.8 * max(seen) > 500


def test_colours_are_named_below(tmp_path: Path) -> None:
    panel, names = Panel("", np.zeros((1, 2)), np.zeros(1)), [f"class {i}" for i in range(len(CLASSES))]
    latent_map([panel, panel], tmp_path / "a.png", names)
    legend = pixels(tmp_path / "a.png")[UNDER + PANEL :]
    lefts = [of_colour(legend, hue)[0] for hue in CLASSES]
    assert lefts == sorted(lefts) and min(np.diff(lefts)) > 30
    with pytest.raises(SeqvaeError, match="colours for 10 classes, not for 11"):
        latent_map([panel], tmp_path / "b.png", [*names, "one more"])
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
