"""prepare: a folder of music made into a corpus, and the report of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from seqvae.cli.console import Progress, table

if TYPE_CHECKING:
    from seqvae.corpus import Report

SHOWN = 20  # reasons and notices; the folder holds them all


@click.command()
@click.argument("source", metavar="SOURCE")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Folder for the corpus.")
@click.option("--bars", type=click.IntRange(1, 16), default=2, show_default=True, help="Bars a window.")
@click.option("--workers", type=click.IntRange(0), help="Processes that read.  [default: one a core]")
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Of the split into train, valid and test."
)
@click.option(
    "--essen", is_flag=True, help="With folk: also the Essen collection, whose terms are non-commercial."
)
def prepare(source: str, out: Path, bars: int, workers: int | None, seed: int, essen: bool) -> None:
    """Make a corpus to train on of SOURCE.

    SOURCE is a file, a folder of MIDI, ABC, MusicXML and kern files, or "folk": the tunes of O'Neill, Aird
    and Ryan that ship with music21. Run again after an interruption, it goes on where it was.
    """
    from seqvae import corpus
    from seqvae.codecs import NotesCodec

    with Progress() as tell:
        codec = NotesCodec(bars)
        report = corpus.prepare(
            source, out, codec=codec, workers=workers, seed=seed, essen=essen, progress=tell
        )
    show(report, out)


def show(report: Report, out: Path) -> None:
    rows = [
        ("kept", report.kept),
        ("left out, as repeated", report.repeated),
        ("left out, as in another split", report.seen),
    ]
    table(("windows", "train", "valid", "test"), [(name, *counts.values()) for name, counts in rows])
    lost = sum(report.rejected.values())
    click.echo(f"{report.tunes} tunes of {report.files} files kept, {lost} left out")
    click.echo(f"{report.moved:.2%} of onsets moved to the grid")
    click.echo("metres: " + ", ".join(f"{metre} {count}" for metre, count in report.metres.items()))
    for title, counts in (("left out", report.rejected), ("noticed", report.notices)):
        for reason, count in list(counts.items())[:SHOWN]:
            click.echo(f"{title}: {count} x {reason}")
        if len(counts) > SHOWN:
            click.echo(
                f"{title}: {sum(list(counts.values())[SHOWN:])} more for {len(counts) - SHOWN} other reasons"
            )
    click.echo(f"the corpus is {out}; what was left out stands in {out / 'rejects.csv'}")
