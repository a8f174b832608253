"""The verbs, for every kind of model: a verb's options, and whom it calls for a model's kind.

A model knows its kind. An option belongs to the kinds whose function takes it; given with a model of another
kind it is refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from seqvae.cli import images, melodies, sentences
from seqvae.cli.console import given
from seqvae.cli.melodies import SHORT

MOST = 10_000  # things a command makes
FILE = click.Path(path_type=Path)

WHAT = click.Argument(["what"], metavar="SONG|TEXT|PICTURE")
MODEL = click.Option(
    ["-m", "--model"],
    metavar="NAME|DIR",
    help="Embedded or trained.  [default: melody, or melody-16 for songs of 16 bars or more]",
)
COUNT = click.Option(
    ["-n", "count"], type=click.IntRange(1, MOST), default=8, show_default=True, help="How many."
)
TRACK = click.Option(
    ["--track"], metavar="NAME|N", help="Songs: the melody's track; found by itself otherwise."
)
SEARCHED = (
    click.Option(
        ["--beam"], type=click.IntRange(0, 64), default=0, help="Text: search for the likeliest, so wide."
    ),
    click.Option(
        ["--length-penalty"], type=float, default=0.6, show_default=True, help="Of a beam; 0: none."
    ),
)
PRIOR = click.Option(
    ["--prior"], type=click.Choice(["fitted", "standard"]), default="fitted", show_default=True
)


def drawn(temperature: float) -> tuple[click.Option, ...]:
    """How symbols are chosen."""
    return (
        click.Option(
            ["--temperature"], type=float, default=temperature, show_default=True, help="0: the likeliest."
        ),
        click.Option(
            ["--top-k"],
            type=int,
            default=0,
            show_default=True,
            help="Draw from the k likeliest; 0: from all.",
        ),
        click.Option(
            ["--top-p"], type=float, default=1.0, show_default=True, help="Draw from the likeliest share."
        ),
        *SEARCHED,
        click.Option(["--seed"], type=click.IntRange(0), default=0, show_default=True),
    )


def written(png: bool, what: str = "a piano roll of each") -> tuple[click.Option, ...]:
    """Where results go, and in which forms."""
    return (
        click.Option(
            ["-o", "--out"],
            type=FILE,
            help="Songs and pictures: folder, by default the current one. Text: .txt or .jsonl.",
        ),
        click.Option(["--musicxml"], is_flag=True, help="Songs: also write scores (.musicxml)."),
        click.Option(["--wav"], is_flag=True, help="Songs: also write sound (.wav)."),
        click.Option(
            ["--png/--no-png"], default=png, show_default=True, help=f"Songs: also draw {what} (.png)."
        ),
    )


def verb(
    name: str, about: str, parameters: Sequence[click.Parameter], kinds: dict[str, Callable[..., None]]
) -> click.Command:
    """A command that calls the function of the model's kind with the parameters it names."""

    def call(**_: object) -> None:
        context = click.get_current_context()
        model = context.params["model"]
        kind = kind_of(SHORT if model is None else model)
        if kind not in kinds:
            raise click.UsageError(f"{name} is for models of {' or '.join(kinds)}, and this one is of {kind}")
        wanted = inspect.signature(kinds[kind]).parameters
        for parameter in given(context):
            if parameter.name not in wanted:
                raise click.UsageError(f"{parameter.opts[0]} means nothing to a model of {kind}")
        kinds[kind](**{key: context.params[key] for key in wanted})

    return click.Command(name, callback=call, params=list(parameters), help=about)


def kind_of(model: str) -> str:
    """melody, text or image. Raises `SeqvaeError` where there is no such model."""
    from seqvae.checkpoint import read_config
    from seqvae.codecs import CODECS
    from seqvae.engine import find_model

    codec = CODECS.get(str(read_config(find_model(model)).get("codec", {}).get("name")))
    return codec.kind if codec else "melody"  # whose function says what is wrong with the model


generate = verb(
    "generate",
    "Make new melodies, sentences or pictures.",
    [
        MODEL,
        COUNT,
        click.Option(["--bars"], type=click.IntRange(1, 1000), default=4, show_default=True, help="Songs."),
        click.Option(["--metre"], default="4/4", show_default=True, help="Songs: such as 6/8."),
        click.Option(["--key"], help="Songs: such as D, Bb or F#m.  [default: the model's choice]"),
        click.Option(
            ["--chords"],
            help='Songs, by a model that is told chords: one a bar, "C G Am F", or one or two between bar '
            'lines, "C | G Am | F"; over and over. They sound too.',
        ),
        click.Option(
            ["--tempo"], type=float, default=120.0, show_default=True, help="Songs: quarter notes a minute."
        ),
        click.Option(
            ["--program"],
            metavar="NAME|N",
            help="Melodies, General MIDI: flute, or 73.  [default: 0, a piano]",
        ),
        *drawn(1.0),
        PRIOR,
        *written(png=True),
    ],
    {"melody": melodies.generate, "text": sentences.generate, "image": images.generate},
)
interpolate = verb(
    "interpolate",
    """Turn song A into song B, sentence A into sentence B, or a picture, in steps.

    The ends are A's and B's own reconstructions. Songs meet bar by bar; where their metres differ, the first
    half of the way is in A's metre and the second in B's; a journey from A to B in time is written too.
    """,
    [
        click.Argument(["a"]),
        click.Argument(["b"]),
        MODEL,
        click.Option(
            ["--steps"], type=click.IntRange(2, 100), default=9, show_default=True, help="A and B included."
        ),
        click.Option(
            ["--fit"],
            type=click.Choice(["loop", "stretch"]),
            default="loop",
            show_default=True,
            help="What becomes of the shorter song.",
        ),
        click.Option(
            ["--track-a"], metavar="NAME|N", help="The melody's track in song A; found by itself otherwise."
        ),
        click.Option(["--track-b"], metavar="NAME|N", help="The melody's track in song B."),
        *drawn(0.0),
        *written(png=True, what="the whole path"),
    ],
    {"melody": melodies.interpolate, "text": sentences.interpolate, "image": images.interpolate},
)
reconstruct = verb(
    "reconstruct",
    "Write a song's melody, a sentence or a picture as the model remembers it; a song's other tracks stay.",
    [WHAT, MODEL, TRACK, *SEARCHED, *written(png=False)],
    {"melody": melodies.reconstruct, "text": sentences.reconstruct, "image": images.reconstruct},
)
vary = verb(
    "vary",
    "Write variations of a song's melody, a sentence or a picture; a song's other tracks stay.",
    [
        WHAT,
        MODEL,
        TRACK,
        click.Option(
            ["--amount"], type=float, default=0.3, show_default=True, help="0: the reconstruction; 1: new."
        ),
        COUNT,
        *drawn(0.0),
        *written(png=False),
    ],
    {"melody": melodies.vary, "text": sentences.vary, "image": images.vary},
)
shift = verb(
    "shift",
    """Bring a song's melody, a sentence or a picture to places of an attribute, or move it from where it is.

    The attribute is a file that `seqvae attributes learn` made, or one of the model's own by its name:
    note-density, pitch, pitch-range, average-interval, syncopation, scale-consistency and mode (how major) of
    melodies, length of texts, brightness of pictures, glasses of the embedded avatars.
    """,
    [
        WHAT,
        MODEL,
        TRACK,
        click.Option(
            ["--attribute"], type=FILE, required=True, metavar="FILE|NAME", help="What to shift by."
        ),
        click.Option(
            ["--scale", "scales"],
            type=float,
            multiple=True,
            show_default="-1, -0.5, 0, 0.5, 1",
            help="A place; again for several.  1 is where the second kind is on average, -1 the first; of a "
            "measure, one standard deviation from the mean.",
        ),
        click.Option(
            ["--by", "steps"],
            type=float,
            multiple=True,
            help="Instead: how far from where it is, each window by itself; again for several.  1 is one "
            "standard deviation of the corpus.",
        ),
        *SEARCHED,
        *written(png=False, what="a piano roll of each and, of several, all in one"),
    ],
    {"melody": melodies.shift, "text": sentences.shift, "image": images.shift},
)
