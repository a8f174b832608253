"""generate, interpolate, reconstruct, vary and shift for pictures: a call on `Images` each, files written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from seqvae.cli.console import goals, opened, origin, table
from seqvae.cli.melodies import HERE, numbered, results

if TYPE_CHECKING:
    import numpy as np


def generate(model: str, count: int, seed: int, prior: str, out: Path | None) -> None:
    pipeline = opened(model)
    made = pipeline.sample(count, seed, prior)
    side = max(1, round(count**0.5))
    rows = [made[at : at + side] for at in range(0, count, side)]
    show(numbered("picture-", count), made, rows, out, [origin(pipeline, prior, seed, "pictures")])


def interpolate(a: str, b: str, model: str, steps: int, out: Path | None) -> None:
    pipeline = opened(model)
    ends = pipeline.read(a), pipeline.read(b)
    path = pipeline.interpolate(*ends, steps)
    show(numbered("step-", steps), path, [[ends[0], *path, ends[1]]], out)


def reconstruct(what: str, model: str, out: Path | None) -> None:
    pipeline = opened(model)
    given = pipeline.read(what)
    again = pipeline.reconstruct([given])
    show([f"{Path(what).stem}.reconstruction"], again, [[given, *again]], out)


def vary(what: str, model: str, amount: float, count: int, seed: int, out: Path | None) -> None:
    pipeline = opened(model)
    given = pipeline.read(what)
    made = pipeline.vary(given, amount, count, seed)
    show(numbered(f"{Path(what).stem}.variation-", count), made, [[given, *made]], out)


def shift(
    what: str, model: str, attribute: Path, scales: Sequence[float], steps: Sequence[float], out: Path | None
) -> None:
    from seqvae.engine import Place, find_attribute

    word, asked = goals(scales, steps)
    pipeline = opened(model)
    given = pipeline.read(what)
    learnt = find_attribute(attribute, model, pipeline)
    made = pipeline.shift(given, [[Place(learnt, goal, word == "by")] for goal in asked])
    names = [f"{Path(what).stem}.{word}{goal:+g}" for goal in asked]
    show(names, made, [[given, *made]], out)


def show(
    names: Sequence[str],
    pictures: Sequence[np.ndarray],
    rows: Sequence[Sequence[np.ndarray]],
    out: Path | None,
    remarks: Sequence[str] = (),
) -> None:
    """Each picture under its name as it is, and the rows as all.png, magnified."""
    from seqvae import gallery

    out = out or HERE
    with results(out) as folder:
        for name, picture in zip(names, pictures, strict=True):
            gallery.write_picture(picture, folder / f"{name}.png")
        gallery.grid(rows, folder / "all.png")
    sizes = [f"{picture.shape[1]} x {picture.shape[0]}" for picture in pictures]
    table(("file", "size"), list(zip([out / f"{name}.png" for name in names], sizes, strict=True)))
    for line in (f"all of them, magnified: {out / 'all.png'}", *remarks):
        click.echo(f"note: {line}")
