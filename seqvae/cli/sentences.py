"""generate, interpolate, reconstruct, vary and shift for text: one call on `Sentences` each, and a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from seqvae.cli.console import goals, opened, origin, table

if TYPE_CHECKING:
    from seqvae.decoding import Beam, Sampling


def generate(
    model: str, count: int, temperature: float, top_k: int, top_p: float, beam: int, length_penalty: float,
    seed: int, prior: str, out: Path | None,
) -> None:  # fmt: skip
    how = strategy(temperature, top_k, top_p, beam, length_penalty)
    pipeline = opened(model)
    texts = pipeline.sample(count, how, seed, prior)
    show(("number", "text"), list(enumerate(texts, 1)), out, [origin(pipeline, prior, seed, "texts")])


def interpolate(
    a: str, b: str, model: str, steps: int, temperature: float, top_k: int, top_p: float, beam: int,
    length_penalty: float, seed: int, out: Path | None,
) -> None:  # fmt: skip
    how = strategy(temperature, top_k, top_p, beam, length_penalty)
    pipeline = opened(model)
    path = pipeline.interpolate(a, b, steps, how, seed)
    rows = [(round(step / (steps - 1), 3), text) for step, text in enumerate(path)]
    show(("t", "text"), rows, out, pipeline.notices([a, b]))


def reconstruct(what: str, model: str, beam: int, length_penalty: float, out: Path | None) -> None:
    how = strategy(0.0, 0, 1.0, beam, length_penalty)
    pipeline = opened(model)
    again = pipeline.reconstruct([what], how)
    show(("", "text"), [("given", what), ("kept", again[0])], out, pipeline.notices([what]))


def vary(
    what: str, model: str, amount: float, count: int, temperature: float, top_k: int, top_p: float, beam: int,
    length_penalty: float, seed: int, out: Path | None,
) -> None:  # fmt: skip
    how = strategy(temperature, top_k, top_p, beam, length_penalty)
    pipeline = opened(model)
    texts = pipeline.vary(what, amount, count, how, seed)
    show(("number", "text"), list(enumerate(texts, 1)), out, pipeline.notices([what]))


def shift(
    what: str, model: str, attribute: Path, scales: Sequence[float], steps: Sequence[float], beam: int,
    length_penalty: float, out: Path | None,
) -> None:  # fmt: skip
    from seqvae.engine import Place, find_attribute

    word, asked = goals(scales, steps)
    how = strategy(0.0, 0, 1.0, beam, length_penalty)
    pipeline = opened(model)
    learnt = find_attribute(attribute, model, pipeline)
    texts = pipeline.shift(what, [[Place(learnt, goal, word == "by")] for goal in asked], how)
    columns = ("by" if steps else "scale", "text")
    show(columns, list(zip(asked, texts, strict=True)), out, pipeline.notices([what]))


def strategy(
    temperature: float, top_k: int, top_p: float, beam: int, length_penalty: float
) -> Sampling | Beam:
    """The strategy that the options ask for, checked."""
    from seqvae.engine import beam_of, sampling

    return beam_of(beam, length_penalty) if beam else sampling(temperature, top_k, top_p)


def show(
    columns: Sequence[str], rows: Sequence[Sequence[object]], out: Path | None, remarks: Sequence[str]
) -> None:
    """A table on the terminal; in a file the texts, a line each, or as .jsonl all columns."""
    if out is not None:
        write(columns, rows, out)
    table(columns, rows)
    for line in dict.fromkeys(remarks):
        click.echo(f"note: {line}")


def write(columns: Sequence[str], rows: Sequence[Sequence[object]], out: Path) -> None:
    from seqvae.disk import write_atomic
    from seqvae.song import SeqvaeError

    if out.suffix == ".jsonl":
        named = [{name or "what": value for name, value in zip(columns, row, strict=True)} for row in rows]
        lines = [json.dumps(row, ensure_ascii=False) for row in named]
    else:
        lines = [str(row[-1]) for row in rows]
    try:
        write_atomic(out, ("\n".join(lines) + "\n").encode())
    except OSError as fault:
        raise SeqvaeError(f"{out} cannot be written: {fault.strerror}") from None
