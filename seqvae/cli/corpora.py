"""prepare: files of music, text or images made into a corpus, and the report of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seqvae.cli.console import Progress, given, table

if TYPE_CHECKING:
    from seqvae.codecs import Codec
    from seqvae.corpus import Report

FEW_PIECES = 2000  # for a file of some thousand lines that is trained on as it is
# What --like decides:
SPELLING = {"bars", "section", "chords", "ensemble", "quarters", "name"}
SPELLING |= {"vocabulary", "algorithm", "longest", "size", "mode"}
SHOWN = 20  # reasons and notices; the folder holds them all
FILE = click.Path(path_type=Path)
MUSIC = {"bars", "section", "chords", "ensemble", "quarters", "essen"}
IMAGES = {"size", "mode", "count"}
TEXT = {"vocabulary", "algorithm", "longest", "split", "column", "valid", "test"}
# What means nothing to a kind:
OTHERS = {"melody": TEXT | IMAGES, "text": MUSIC | IMAGES, "image": MUSIC | TEXT | {"name"}}
CHANNELS = {None: 0, "grey": 1, "colour": 3}
# Of 382 chorales that the data set JSB Chorales holds 76 are valid and 77 test:
SHARES = {"chorales": {"valid": 76 / 382, "test": 77 / 382}}


@click.command()
@click.argument("source", metavar="SOURCE")
@click.option("-o", "--out", type=FILE, required=True, help="Folder for the corpus.")
@click.option(
    "--bars", type=click.IntRange(1, 16), default=2, show_default=True, help="Songs: bars a window."
)
@click.option(
    "--section", type=click.IntRange(1), metavar="N",
    help="Songs: bars a section, for a model with a conductor.  [default: all]",
)  # fmt: skip
@click.option(
    "--chords", is_flag=True,
    help="Songs: for a model that is told the chords, found in the parts beside the melody, and the key.",
)  # fmt: skip
@click.option(
    "--ensemble", type=click.Choice(["chorale", "trio"]),
    help="Songs: the voices of soprano, alto, tenor and bass; or melody, bass and drums.  [default: the "
    "melody; of chorales: chorale]",
)  # fmt: skip
@click.option("--quarters", is_flag=True, help="Chorales: what each voice sounds at every quarter.")
@click.option("--essen", is_flag=True, help="With folk: also Essen, whose terms are non-commercial.")
@click.option(
    "--codec", "name", type=click.Choice(["notes", "melody", "pieces", "words"]),
    help="Songs: spelt note by note, or as events on a grid of sixteenths (melody). Text: in pieces of "
    "words, or whole words.  [default: notes; pieces]",
)  # fmt: skip
@click.option(
    "--vocabulary", type=click.IntRange(2), metavar="N",
    help="Text: of so many, or fewer.  [default: 8000 pieces, 20000 words]",
)  # fmt: skip
@click.option(
    "--algorithm", type=click.Choice(["unigram", "bpe"]), default="unigram", show_default=True,
    help="Text: that finds the pieces.",
)  # fmt: skip
@click.option(
    "--longest", type=click.IntRange(2), default=100, show_default=True, metavar="N",
    help="Text: steps, with the end's; longer ones are cut.",
)  # fmt: skip
@click.option(
    "--split", type=click.Choice(["lines", "sentences"]), default="lines", show_default=True,
    help="Text: what a text is, or a paragraph's sentences.",
)  # fmt: skip
@click.option(
    "--like", metavar="NAME|DIR", help="Spelt as a model or a corpus is, to train that model further."
)
@click.option("--column", metavar="NAME", help="Text: of a table or JSON; found by itself otherwise.")
@click.option("--valid", type=FILE, help="Text: a file that is the valid split.")
@click.option("--test", type=FILE, help="Text: a file that is the test split.")
@click.option(
    "--size", type=click.IntRange(8, 64), metavar="N",
    help="Images: their centre, resized to N x N pixels; or rows of so many.  [default: as they are]",
)  # fmt: skip
@click.option(
    "--mode", type=click.Choice(["grey", "colour"]), help="Images: made so.  [default: as they are]"
)
@click.option("--count", type=click.IntRange(1), metavar="N", help="With avatars: faces.  [default: 10000]")
@click.option("--workers", type=click.IntRange(0), help="Processes that read.  [default: one a core]")
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="Of the split into train, valid and test; of avatars.",
)
@click.pass_context
def prepare(
    context: click.Context, source: str, out: Path, bars: int, section: int | None, chords: bool,
    ensemble: str | None, quarters: bool, essen: bool,
    name: str | None, vocabulary: int | None, algorithm: str, longest: int, like: str | None, split: str,
    column: str | None,
    valid: Path | None, test: Path | None, size: int | None, mode: str | None, count: int | None,
    workers: int | None, seed: int,
) -> None:  # fmt: skip
    """Make a corpus to train on of SOURCE.

    SOURCE is a file or a folder: of MIDI, ABC, MusicXML and kern files; or else of text, a text a line
    (.txt), JSON lines (.jsonl) or tables (.csv, .tsv), each also with .gz; or of images (.png, .jpg) in
    folders named after what they show, or a file of arrays of them (.npz). Or it is "folk", the tunes of
    O'Neill, Aird and Ryan that ship with music21; "chorales", Bach's, which ship with it too; "wordnet",
    WordNet's usage examples; "wordnet-glosses", its definitions too; "digits", scikit-learn's; or "avatars",
    drawn faces. Run again after an interruption, it goes on where it was.
    """
    from seqvae import corpus
    from seqvae.codecs import GridCodec, NotesCodec, Spelling, VoicesCodec
    from seqvae.harmony import HALVES
    from seqvae.pictures import Framing
    from seqvae.sources import WORDS, kind

    of = kind(source)
    for option in given(context):
        if option.name in OTHERS[of]:
            raise click.UsageError(f"{source} is {WORDS[of]}, to which {option.opts[0]} means nothing")
        if like and option.name in SPELLING:
            raise click.UsageError(f"{like} decides {option.opts[0]} already; leave out one of the two")
    if count is not None and source != "avatars":
        raise click.UsageError(f"--count is how many avatars are drawn, and {source} is none of them")
    fits = {"melody": ("notes", "melody"), "text": ("pieces", "words")}.get(of, ("",))
    if source == "chorales" and name is None:
        ensemble = ensemble or "chorale"
    if ensemble and (name or section or chords):
        given_too = "--codec" if name else "--section" if section else "--chords"
        raise click.UsageError(f"a {ensemble} has a codec of its own, to which {given_too} means nothing")
    if quarters and ensemble != "chorale":
        raise click.UsageError("quarters are of voices that hold their notes: give --ensemble chorale")
    name = name or fits[0]
    if name not in fits:
        raise click.UsageError(f"{source} is {WORDS[of]}, which is spelt as {' or '.join(fits)}, not {name}")
    if (section or chords) and name != "notes":
        raise click.UsageError(f"{'sections' if section else 'chords'} are of the codec notes")
    codec: Any
    if ensemble:
        codec = VoicesCodec(bars, ensemble=ensemble, quarters=quarters)
    elif name == "melody":
        codec = GridCodec(bars)
    elif of == "melody":
        codec = NotesCodec(bars, section=section or 0, chords=HALVES * chords)
    elif of == "text":
        codec = Spelling(name, vocabulary or 0, longest, algorithm)
    else:
        codec = Framing(size or 0, size or 0, CHANNELS[mode])
    if like:
        codec = spelling_of(like)
        if codec.kind != of:
            raise click.UsageError(f"{source} is {WORDS[of]}, and {like} spells {WORDS[codec.kind]}")
    with Progress() as tell:
        report = corpus.prepare(
            source, out, codec=codec, workers=workers, seed=seed, essen=essen, split=split, column=column,
            valid_file=valid, test_file=test, count=count or corpus.FACES, progress=tell,
            **SHARES.get(source, {}),
        )  # fmt: skip
    show(report, out)


def prepared(source: Path, out: Path, tell: Progress) -> Path:
    """The source itself if it is a corpus; else the corpus made of it, as `prepare` does, in this folder."""
    from seqvae import corpus
    from seqvae.codecs import NotesCodec, Spelling, VoicesCodec
    from seqvae.pictures import Framing
    from seqvae.sources import kind

    if any((source / name).exists() for name in ("corpus.json", ".work")):
        return source
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise click.UsageError(f"several processes train on one corpus: first seqvae prepare {source}")
    codecs: Any = {"melody": NotesCodec, "text": lambda: Spelling("pieces", FEW_PIECES), "image": Framing}
    codec = VoicesCodec if str(source) == "chorales" else codecs[kind(source)]
    shares: Any = SHARES.get(str(source), {})
    report = corpus.prepare(source, out, codec=codec(), progress=tell, **shares)
    show(report, out)
    return out


def spelling_of(like: str) -> Codec[Any]:
    """The codec of a corpus folder or of a model."""
    from seqvae.checkpoint import load_model
    from seqvae.corpus import Corpus
    from seqvae.engine import find_model

    if os.path.isfile(os.path.join(like, "corpus.json")):
        return Corpus.open(like).codec
    return load_model(find_model(like)).codec


def show(report: Report, out: Path) -> None:
    given = report.given
    rows = [
        ("kept", report.kept),
        ("of these repeated" if given else "left out, as repeated", report.repeated),
        ("of these in an earlier split" if given else "left out, as in another split", report.seen),
        *[("left out, as train lacks their metre", report.untaught)] * any(report.untaught.values()),
    ]
    things = {"melody": "tunes", "text": "texts", "image": "images"}[report.kind]
    columns = ("windows" if things == "tunes" else things, "train", "valid", "test")
    table(columns, [(name, *counts.values()) for name, counts in rows])
    lost = sum(report.rejected.values())
    files = f"{report.files} file{'s' * (report.files != 1)}"
    click.echo(f"{report.tunes} {things} of {files} kept, {lost} left out")
    if report.kind == "image":
        click.echo(f"each is {report.frame}")
        if report.moved:
            click.echo(f"{report.moved:.2%} of pixels were rounded to these levels")
    elif report.kind == "text":
        click.echo(f"{report.vocabulary} symbols in the vocabulary, {report.steps:.1f} steps a text")
        if report.moved:
            click.echo(f"{report.moved:.2%} of words are not in the vocabulary")
    else:
        click.echo(f"{report.moved:.2%} of onsets moved to the grid")
        metres = ", ".join(f"{metre} {count}" for metre, count in report.metres.items())
        click.echo(f"metres: {metres}")
    for title, counts in (("left out", report.rejected), ("noticed", report.notices)):
        for reason, count in list(counts.items())[:SHOWN]:
            click.echo(f"{title}: {count} x {reason}")
        if len(counts) > SHOWN:
            click.echo(
                f"{title}: {sum(list(counts.values())[SHOWN:])} more for {len(counts) - SHOWN} other reasons"
            )
    click.echo(f"the corpus is {out}; what was left out stands in {out / 'rejects.csv'}")
