"""Pictures of pictures: rows of them side by side, and maps of a two-dimensional latent space, as PNG.

Conventions: pictures are arrays (H, W, C) of uint8, C 1 or 3, and are magnified by whole factors, so that
every pixel stays a square. Type, colours and files are as in `render`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from PIL.Image import new as sheet
from PIL.ImageDraw import Draw
from PIL.ImageDraw import ImageDraw as Pen

from seqvae.render import FAINT, HUES, INK, MARGIN, PAPER, SMOOTH, WHITE, Colour, font, mix, save, write
from seqvae.song import SeqvaeError

CELL = 56  # size that small pictures are magnified to at least
BETWEEN = 6  # pictures of a row, and rows
PANEL, LEGEND = 420, 26  # size of a map; height of what its colours mean
DOT = 2.2  # radius
CLASSES = (*HUES, (160, 60, 90), (110, 110, 110), (120, 150, 40), (70, 70, 120))
CAPTION, HEAD, KEY = (13, INK, "lm"), (12, FAINT, "mb"), (12, INK, "lm")


def grid(
    rows: Sequence[Sequence[np.ndarray]],
    path: str | Path,
    titles: Sequence[str] = (),
    heads: Sequence[str] = (),
    gap: int = BETWEEN,
) -> None:
    """Write a PNG of rows of pictures, all of one size, with a title before each row and a head over columns.

    Raises `SeqvaeError` where there is no picture, or a row has no title though others have.
    """
    if not rows or not all(len(row) for row in rows) or (titles and len(titles) != len(rows)):
        raise SeqvaeError(f"a picture of {len(rows)} rows, with {len(titles)} titles, cannot be drawn")
    high, wide = rows[0][0].shape[:2]
    times = max(1, ceil(CELL / max(high, wide)))
    aside = 16 + ceil(max(font(13, one.isascii()).getlength(one) for one in titles)) if titles else 0
    left, top = MARGIN + aside, MARGIN + (20 if heads else 0)
    step_x, step_y = wide * times + gap, high * times + gap
    most = max(map(len, rows))
    page = sheet("RGB", (left + most * step_x - gap + MARGIN, top + len(rows) * step_y - gap + MARGIN), PAPER)
    for column, head in enumerate(heads):
        write(page, (left + column * step_x + wide * times / 2, top - 6), head, HEAD, step_x)
    for y, row in enumerate(rows):
        if titles:
            write(page, (MARGIN, top + y * step_y + high * times / 2), titles[y], CAPTION)
        for x, picture in enumerate(row):
            page.paste(magnified(picture, times), (left + x * step_x, top + y * step_y))
    save(path, lambda file: page.save(file, "PNG"))


def write_picture(picture: np.ndarray, path: str | Path) -> None:
    """Write a PNG of one picture, as it is."""
    page = as_page(picture)
    save(path, lambda file: page.save(file, "PNG"))


def magnified(picture: np.ndarray, times: int) -> Image.Image:
    large = np.repeat(np.repeat(picture, times, 0), times, 1)
    return as_page(large).convert("RGB")


def as_page(picture: np.ndarray) -> Image.Image:
    return Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)


class Panel(NamedTuple):
    """One map: points of the plane and the class of each."""

    title: str
    points: np.ndarray  # (N, 2)
    classes: np.ndarray  # (N,) indices of the map's names


def latent_map(panels: Sequence[Panel], path: str | Path, names: Sequence[str]) -> None:
    """Write a PNG of maps side by side, points coloured by class, and a circle of radius 2 for N(0, I).

    Each map has its own scale, that of the middle 99 % of its points, and never less than the circle needs.
    Raises `SeqvaeError` for a map without points, and for more classes than there are colours.
    """
    if not all(len(panel.points) for panel in panels):
        raise SeqvaeError("a map without points cannot be drawn")
    if len(names) > len(CLASSES):
        raise SeqvaeError(f"a map has colours for {len(CLASSES)} classes, not for {len(names)}")
    step = PANEL + MARGIN
    page = sheet("RGB", (MARGIN + len(panels) * step, MARGIN + 30 + PANEL + LEGEND + MARGIN), PAPER)
    for i, panel in enumerate(panels):
        write(page, (MARGIN + i * step, MARGIN + 8), panel.title, (16, INK, "lm"), PANEL)
        page.paste(draw_panel(panel), (MARGIN + i * step, MARGIN + 30))
    x, y = float(MARGIN), MARGIN + 30 + PANEL + LEGEND
    for name, hue in zip(names, CLASSES, strict=False):
        Draw(page).ellipse((x, y - 5, x + 10, y + 5), hue)
        x += 16 + write(page, (x + 16, y), name, KEY) + 16
    save(path, lambda file: page.save(file, "PNG"))


def draw_panel(panel: Panel) -> Image.Image:
    reach = max(2.4, float(np.quantile(np.abs(panel.points), 0.995)) * 1.06)
    side = PANEL * SMOOTH
    page = sheet("RGB", (side, side), WHITE)
    pen = Draw(page)

    def place(value: float) -> float:
        return (value / reach + 1) / 2 * side

    pen.ellipse((place(-2), place(-2), place(2), place(2)), outline=mix(FAINT, WHITE, 0.5), width=SMOOTH)
    for line in ((place(0), 0, place(0), side), (0, place(0), side, place(0))):
        pen.line(line, mix(FAINT, WHITE, 0.7), SMOOTH)
    order = np.random.default_rng(0).permutation(len(panel.points))  # so that no class covers another
    for (x, y), of in zip(panel.points[order], panel.classes[order], strict=True):
        if max(abs(x), abs(y)) <= reach:
            dot(pen, place(x), place(-y), CLASSES[int(of)])
    return page.resize((PANEL, PANEL), Image.Resampling.BOX)


def dot(pen: Pen, x: float, y: float, colour: Colour) -> None:
    radius = DOT * SMOOTH
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), colour)
