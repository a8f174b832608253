"""What goes over the wire: requests and answers of the service, shared by its client.

Conventions: times are in quarter-note beats, files and pictures in base64, z is a list of rows, one a window
of a melody, one alone for a text or a picture. A refusal is a `Refusal` with one sentence.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Base64Bytes, BaseModel, ConfigDict, Field, model_validator

from seqvae.harmony import parse_chords
from seqvae.song import Key, Metre, Note, Part, Song

MOST_THINGS = 64  # that one request makes
MOST_WINDOWS = 256  # of a song
MOST_NOTES = 20_000  # of a song
LONGEST_TEXT = 2_000  # characters
LARGEST_FILE = 4_000_000  # bytes of base64


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


# ------------------------------------------------------------------------------------------ things


def _metre(text: str) -> str:
    return str(Metre.parse(text))


def _key(text: str) -> str:
    return str(Key.parse(text))


def _chords(text: str) -> str:
    parse_chords(text)
    return text


MetreName = Annotated[str, Field(max_length=20), AfterValidator(_metre)]
KeyName = Annotated[str, Field(max_length=20), AfterValidator(_key)]
Progression = Annotated[str, Field(max_length=1000), AfterValidator(_chords)]
Beats = Annotated[float, Field(ge=-1e6, le=1e6)]
Coordinate = Annotated[float, Field(ge=-1e4, le=1e4)]
Row = Annotated[list[Coordinate], Field(min_length=1, max_length=4096)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Place = tuple[Coordinate, Coordinate]


class NoteBody(Body):
    onset: Beats
    duration: Annotated[float, Field(ge=0, le=1e6)]
    pitch: Annotated[int, Field(ge=0, le=127)]
    velocity: Annotated[int, Field(ge=1, le=127)] = 80


class PartBody(Body):
    notes: Annotated[list[NoteBody], Field(max_length=MOST_NOTES)]
    name: Annotated[str, Field(max_length=200)] = ""
    program: Annotated[int, Field(ge=0, le=127)] = 0
    drums: bool = False


class SongBody(Body):
    """A `seqvae.song.Song`."""

    parts: Annotated[list[PartBody], Field(min_length=1, max_length=64)]
    metres: Annotated[list[tuple[Beats, MetreName]], Field(min_length=1, max_length=4096)] = [(0.0, "4/4")]
    tempi: Annotated[
        list[tuple[Beats, Annotated[float, Field(ge=4, le=1000)]]], Field(min_length=1, max_length=4096)
    ] = [(0.0, 120.0)]
    key: KeyName | None = None
    title: Annotated[str, Field(max_length=200)] = ""
    pickup: Annotated[float, Field(ge=0, le=64)] = 0.0
    notices: list[str] = []

    @classmethod
    def of(cls, song: Song) -> SongBody:
        """What is known to be right already is not checked again."""
        make = NoteBody.model_construct
        parts = [
            PartBody.model_construct(
                notes=[
                    make(onset=n.onset, duration=n.duration, pitch=n.pitch, velocity=n.velocity)
                    for n in part.notes
                ],
                name=part.name,
                program=part.program,
                drums=part.drums,
            )
            for part in song.parts
        ]
        return cls.model_construct(
            parts=parts,
            metres=[(at, str(metre)) for at, metre in song.metres],
            tempi=list(song.tempi),
            key=None if song.key is None else str(song.key),
            title=song.title,
            pickup=song.pickup,
            notices=list(song.notices),
        )

    def song(self) -> Song:
        """Raises `SeqvaeError` where the maps do not fit a song."""
        return Song(
            tuple(
                Part(
                    tuple(sorted(Note(n.onset, n.duration, n.pitch, n.velocity) for n in part.notes)),
                    part.name,
                    part.program,
                    part.drums,
                )
                for part in self.parts
            ),
            tuple((at, Metre.parse(metre)) for at, metre in self.metres),
            tuple(self.tempi),
            None if self.key is None else Key.parse(self.key),
            self.title,
            self.pickup,
        )


class Thing(Body):
    """Exactly one of: a song, a text, a file (MIDI, ABC, MusicXML, kern, PNG, JPEG), latent rows."""

    song: SongBody | None = None
    text: Annotated[str, Field(max_length=LONGEST_TEXT)] | None = None
    file: Annotated[Base64Bytes, Field(max_length=LARGEST_FILE)] | None = None
    z: Annotated[list[Row], Field(min_length=1, max_length=MOST_WINDOWS)] | None = None
    track: Annotated[str, Field(max_length=200)] | Annotated[int, Field(ge=1, le=64)] | None = None
    metre: MetreName = "4/4"  # of latent rows that are windows of a melody

    @model_validator(mode="after")
    def one(self) -> Self:
        if sum(part is not None for part in (self.song, self.text, self.file, self.z)) != 1:
            raise ValueError("a thing is exactly one of song, text, file and z")
        return self


class MadeThing(Body):
    """A song, a text, or a picture as PNG in base64; and what there is to say about it."""

    song: SongBody | None = None
    text: str | None = None
    image: str | None = None
    notices: list[str] = []


# ------------------------------------------------------------------------------------------ verbs


class How(Body):
    """How symbols are chosen; a beam, of text alone, searches instead."""

    temperature: Annotated[float, Field(ge=0, le=100)] | None = None  # None: 1 for new things, else 0
    top_k: Annotated[int, Field(ge=0, le=100_000)] = 0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    beam: Annotated[int, Field(ge=0, le=16)] = 0
    length_penalty: Annotated[float, Field(ge=0, le=10)] = 0.6
    seed: Seed = 0


Count = Annotated[int, Field(ge=1, le=MOST_THINGS)]


class Generate(How):
    n: Count = 1
    prior: Literal["fitted", "standard"] = "fitted"
    # of melodies alone:
    bars: Annotated[int, Field(ge=1, le=64)] | None = None  # 4
    metre: MetreName | None = None  # 4/4
    key: KeyName | None = None
    chords: Progression | None = None  # "C G Am F" or "C | G Am | F", of models that are told chords
    tempo: Annotated[float, Field(ge=4, le=1000)] | None = None  # 120
    program: Annotated[int, Field(ge=0, le=127)] | None = None  # 0


class OfThing(How):
    thing: Thing


class Encode(Body):
    thing: Thing


class Decode(How):
    z: Annotated[list[Row], Field(min_length=1, max_length=MOST_WINDOWS)]
    metre: MetreName = "4/4"  # of melodies


class Vary(OfThing):
    n: Count = 8
    amount: Annotated[float, Field(ge=0, le=1)] = 0.3


class Interpolate(How):
    """From a to b in steps; or, of four corners (a b above, c d below), what lies at places of the square."""

    a: Thing | None = None
    b: Thing | None = None
    steps: Annotated[int, Field(ge=2, le=MOST_THINGS)] = 9
    fit: Literal["loop", "stretch"] = "loop"
    corners: tuple[Thing, Thing, Thing, Thing] | None = None
    places: Annotated[
        list[tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]]],
        Field(min_length=1, max_length=MOST_THINGS),
    ] = [(0.5, 0.5)]

    @model_validator(mode="after")
    def ends(self) -> Self:
        if (self.corners is None) != (self.a is not None and self.b is not None):
            raise ValueError("an interpolation has a and b, or else four corners")
        return self


class Shift(OfThing):
    """The thing brought to each of these sets of places of attributes, by their names."""

    places: Annotated[
        list[dict[str, Annotated[float, Field(ge=-10, le=10)]]], Field(min_length=1, max_length=MOST_THINGS)
    ]


class Made(Body):
    things: list[MadeThing]
    notices: list[str] = []
    journey: MadeThing | None = None  # of an interpolation of two songs: from the one to the other in time


class Latent(Body):
    z: list[list[float]]
    silent: list[bool] = []  # of each window of a melody
    notices: list[str] = []


class LearnAttribute(Body):
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
    first: Annotated[list[Thing], Field(min_length=2, max_length=10_000)]
    second: Annotated[list[Thing], Field(min_length=2, max_length=10_000)]


class AttributeInfo(Body):
    name: str
    own: bool  # it came with the model


class ModelInfo(Body):
    name: str
    kind: Literal["melody", "text", "image"]
    what: str
    latent: int  # dimensions
    bars: int | None = None  # of a window, of melodies
    metres: list[str] = []  # of melodies: that it was trained on, the most frequent first
    size: tuple[int, int] | None = None  # (width, height) of pictures
    licence: str = ""
    attributes: list[str] = []


class LatentMap(Body):
    """Points of the prior on the plane of their two main axes; N of them stand for the training data."""

    points: list[Place]
    explained: float  # share of the variance that the plane shows


class OnMap(How):
    """Where things are on the map, and what is at places of it: at the nearest of its points."""

    things: Annotated[list[Thing], Field(max_length=MOST_THINGS)] = []
    places: Annotated[list[Place], Field(max_length=MOST_THINGS)] = []


class FoundOnMap(Body):
    places: list[list[Place]]  # of each thing, one a window
    points: list[int]  # nearest to each place
    things: list[MadeThing]  # at each place


class Render(Body):
    thing: Thing  # a song
    format: Literal["mid", "musicxml", "wav", "png"]


class Refusal(Body):
    error: str


# ------------------------------------------------------------------------------------------ jobs


class CorpusInfo(Body):
    id: str
    files: int
    bytes: int
    expires: float  # seconds since 1970


class Train(Body):
    """A training on an uploaded corpus; recipe and settings as `seqvae train` takes them."""

    kind: Literal["train"] = "train"
    corpus: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    recipe: Annotated[str, Field(max_length=40)] | None = None
    settings: Annotated[dict[str, str | int | float | bool], Field(max_length=60)] = {}
    start: Annotated[str, Field(max_length=100)] | None = None  # a model whose weights it begins from


class Morph(Body):
    """A whole-song interpolation, its steps and journey written as files."""

    kind: Literal["interpolate"] = "interpolate"
    model: Annotated[str, Field(max_length=100)] = "melody"
    a: Thing
    b: Thing
    steps: Annotated[int, Field(ge=2, le=100)] = 9
    fit: Literal["loop", "stretch"] = "loop"
    formats: Annotated[list[Literal["mid", "musicxml", "wav", "png"]], Field(min_length=1, max_length=4)] = [
        "mid"
    ]


Job = Annotated[Train | Morph, Field(discriminator="kind")]


class JobInfo(Body):
    id: str
    kind: Literal["train", "interpolate"]
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    step: int = 0
    steps: int = 0
    figures: dict[str, float] = {}  # of the last evaluation
    history: list[dict[str, float]] = []  # of all evaluations
    message: str = ""
    error: str = ""
    model: str | None = None  # what a training's result is called, once there is one
    files: list[str] = []  # that can be downloaded
    created: float  # seconds since 1970
    expires: float


def sentence(errors: list[dict[str, Any]]) -> str:
    """What is wrong with a request, in one sentence, of pydantic's list of errors."""
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
    what = str(first["msg"]).removeprefix("Value error, ").rstrip(".")
    return f"{where}: {what}" if where else what
