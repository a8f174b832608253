"""What the service does for each kind of model: a request's body in, an answer's body out; no HTTP.

Conventions: everything here is called in threads and raises `SeqvaeError` for what a client can mend. The
order of seeds, rows and decoding is the pipeline's own, so that an answer is what Python would give.
"""

from __future__ import annotations

import base64
import hashlib
import io
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from seqvae import files, gallery, render
from seqvae.attributes import MEASURES
from seqvae.checkpoint import (
    attribute_name,
    load_attribute,
    load_model,
    save_attribute,
)
from seqvae.decoding import Beam, Sampling, Stepper
from seqvae.engine import (
    Engine,
    Places,
    attributes_of,
    beam_of,
    find_model,
    models,
    points,
    require,
    sampling,
)
from seqvae.images import Images
from seqvae.latent import Attribute, Plane, fit_attribute, fit_plane
from seqvae.melodies import Encoding, Melodies, Morph
from seqvae.pictures import Framing
from seqvae.pipeline import KINDS
from seqvae.sentences import Sentences
from seqvae.service.batcher import Batcher
from seqvae.service.schemas import (
    MOST_NOTES,
    MOST_WINDOWS,
    AttributeInfo,
    Decode,
    FoundOnMap,
    Generate,
    How,
    Interpolate,
    Latent,
    LatentMap,
    LearnAttribute,
    Made,
    MadeThing,
    ModelInfo,
    OfThing,
    OnMap,
    Render,
    Shift,
    SongBody,
    Thing,
    Vary,
)
from seqvae.song import Phrase, SeqvaeError, Song, assemble, bars, seconds

POINTS = 1024  # of a map
LOADED = 4  # models of trainings that are held in memory, beside the embedded ones
HELD = 32  # encodings of songs
LONGEST_SOUND = 600.0  # seconds
MELODY_ONLY = ("bars", "metre", "key", "chords", "tempo", "program")
Seen = Callable[[int], None]
WRITERS: dict[str, Callable[[Song, Path], object]] = {
    "mid": files.write,
    "musicxml": files.write,
    "wav": render.sound,
    "png": render.piano_roll,
}


class Reads(Protocol):
    """What reads files, see `reading.Reader`."""

    def song(self, data: bytes) -> Song: ...

    def picture(self, data: bytes, framing: Framing) -> np.ndarray: ...


# ------------------------------------------------------------------------------------------ kinds


class KindDesk:
    """What the verbs of all kinds share. A kind says what a thing is to its pipeline, and what is shown."""

    def __init__(self, model: Any, reader: Reads) -> None:
        self.model, self.reader = model, reader

    def source(self, thing: Thing) -> Any:
        """What the pipeline's verbs take."""
        raise NotImplementedError

    def shown(self, made: Any) -> MadeThing:
        raise NotImplementedError

    def read(self, thing: Thing) -> MadeThing:
        """What is in a file, as the model's kind reads it."""
        raise NotImplementedError

    def generate(self, body: Generate) -> Made:
        raise NotImplementedError

    def way(self, how: How, warm: bool = False) -> Sampling | Beam:
        """How symbols are chosen; warm: sampled where no temperature is given."""
        require(not how.beam, "a beam searches texts; leave it out")
        temperature = how.temperature if how.temperature is not None else float(warm)
        return sampling(temperature, how.top_k, how.top_p)

    def options(self, how: How, warm: bool = False) -> dict[str, Any]:
        """`way` as the pipeline's verbs take it."""
        return {}

    def made(self, things: Sequence[Any], given: Sequence[Thing] = ()) -> Made:
        return Made.model_construct(
            things=[self.shown(thing) for thing in things], notices=self.remarks(given), journey=None
        )

    def remarks(self, things: Sequence[Thing]) -> list[str]:
        """Notices of things given that stand with none of what was made."""
        return []

    def decode(self, body: Decode) -> Made:
        return self.made(self.model.decode(fitting(self.model, rows(body.z)), **self.options(body)))

    def reconstruct(self, body: OfThing) -> Made:
        return self.made(
            self.model.reconstruct([self.source(body.thing)], **self.options(body)), [body.thing]
        )

    def vary(self, body: Vary) -> Made:
        found = self.model.vary(self.source(body.thing), body.amount, body.n, **self.options(body))
        return self.made(found, [body.thing])

    def shift(self, body: Shift, places: Sequence[Places]) -> Made:
        return self.made(
            self.model.shift(self.source(body.thing), places, **self.options(body)), [body.thing]
        )

    def interpolate(self, body: Interpolate) -> Made:
        if body.corners is not None:
            corners = [self.source(corner) for corner in body.corners]
            return self.made(self.model.blend(corners, body.places, **self.between(body)), body.corners)
        assert body.a is not None and body.b is not None
        ends = [body.a, body.b]
        found = self.model.interpolate(*map(self.source, ends), body.steps, **self.between(body))
        return self.journeyed(found, ends)

    def between(self, body: Interpolate) -> dict[str, Any]:
        return self.options(body)

    def journeyed(self, found: Any, ends: Sequence[Thing]) -> Made:
        return self.made(found, ends)

    def latent(self, thing: Thing) -> tuple[Tensor, list[bool], tuple[str, ...]]:
        """z (W, Z) of a thing, which of its windows are silent, and notices; where no window can be silent
        there is no list of them."""
        return self.model.encode([self.source(thing)]), [], tuple(self.remarks([thing]))


class MelodyDesk(KindDesk):
    """Things of a model of melodies; what enters a verb is an `Encoding`."""

    model: Melodies

    def __init__(self, model: Melodies, reader: Reads) -> None:
        super().__init__(model, reader)
        self.held: OrderedDict[bytes, Encoding] = OrderedDict()
        self.lock = threading.Lock()

    def source(self, thing: Thing) -> Encoding:
        """The last ones are held, as a hand on a slider or a square asks for the same again and again."""
        key = hashlib.sha256(thing.model_dump_json().encode()).digest()
        with self.lock:
            if key in self.held:
                self.held.move_to_end(key)
                return self.held[key]
        found = self.encoded(thing)
        with self.lock:
            self.held[key] = found
            if len(self.held) > HELD:
                self.held.popitem(last=False)
        return found

    def encoded(self, thing: Thing) -> Encoding:
        if thing.z is not None:
            return self.model.placed(rows(thing.z), thing.metre)
        song = self.song(thing)
        require(
            len(bars(song)) <= MOST_WINDOWS * self.model.codec.bars, "the song is too long for one request"
        )
        return self.model.encode(song, thing.track)

    def song(self, thing: Thing) -> Song:
        if thing.song is not None:
            require(
                sum(len(part.notes) for part in thing.song.parts) <= MOST_NOTES, "the song has too many notes"
            )
            return thing.song.song()
        require(thing.file is not None, "a model of melodies takes a song, a file or z, not text")
        assert thing.file is not None
        return self.reader.song(thing.file)

    def read(self, thing: Thing) -> MadeThing:
        return self.shown(self.song(thing))

    def shown(self, made: Song | Phrase) -> MadeThing:
        song = assemble([made]) if isinstance(made, Phrase) else made
        return MadeThing.model_construct(
            song=SongBody.of(song), text=None, image=None, notices=list(song.notices)
        )

    def options(self, how: How, warm: bool = False) -> dict[str, Any]:
        return {**asdict(self.way(how, warm)), "seed": how.seed}

    def generate(self, body: Generate) -> Made:
        given = {name: getattr(body, name) for name in MELODY_ONLY if getattr(body, name) is not None}
        return self.made(self.model.sample(body.n, prior=body.prior, **given, **self.options(body, True)))

    def decode(self, body: Decode) -> Made:
        z, way = fitting(self.model, rows(body.z)), self.way(body)
        assert isinstance(way, Sampling)
        return self.made([assemble(self.model.decode(z, body.metre, way, body.seed))])

    def reconstruct(self, body: OfThing) -> Made:
        return self.made([self.model.reconstruct(self.source(body.thing))])

    def shift(self, body: Shift, places: Sequence[Places]) -> Made:
        return self.made(self.model.shift(self.source(body.thing), places))

    def between(self, body: Interpolate) -> dict[str, Any]:
        return self.options(body) | {"fit": body.fit}

    def journeyed(self, found: Morph, ends: Sequence[Thing]) -> Made:
        made = self.made(found.songs)
        made.notices, made.journey = list(found.notices), self.shown(found.journey)
        return made

    def latent(self, thing: Thing) -> tuple[Tensor, list[bool], tuple[str, ...]]:
        found = self.source(thing)
        return found.means, [not w.phrase.notes for w in found.windows], (*found.song.notices, *found.notices)


class TextDesk(KindDesk):
    """Things of a model of text."""

    model: Sentences

    def source(self, thing: Thing) -> str | Tensor:
        if thing.z is not None:
            return one_row(thing.z)
        require(thing.text is not None, "a model of text takes a text or z, not a song or a file")
        assert thing.text is not None
        return thing.text

    def read(self, thing: Thing) -> MadeThing:
        if thing.file is not None:
            try:
                return MadeThing(text=thing.file.decode("utf-8").strip()[:2000])
            except UnicodeDecodeError:
                raise SeqvaeError("the file is no text in UTF-8") from None
        return MadeThing(text=str(self.source(thing)))

    def shown(self, made: str) -> MadeThing:
        return MadeThing(text=made)

    def way(self, how: How, warm: bool = False) -> Sampling | Beam:
        return beam_of(how.beam, how.length_penalty) if how.beam else super().way(how, warm)

    def options(self, how: How, warm: bool = False) -> dict[str, Any]:
        return {"how": self.way(how, warm), "seed": how.seed}

    def generate(self, body: Generate) -> Made:
        refuse_melody_options(body)
        return self.made(self.model.sample(body.n, prior=body.prior, **self.options(body, True)))

    def remarks(self, things: Sequence[Thing]) -> list[str]:
        return list(self.model.notices([thing.text for thing in things if thing.text is not None]))


class ImageDesk(KindDesk):
    """Things of a model of pictures, each its likelihood's mean: there is no way to choose."""

    model: Images

    def source(self, thing: Thing) -> np.ndarray | Tensor:
        if thing.z is not None:
            return one_row(thing.z)
        require(thing.file is not None, "a model of pictures takes a file or z, not a song or a text")
        assert thing.file is not None
        return self.reader.picture(thing.file, self.model.codec.framing)

    def read(self, thing: Thing) -> MadeThing:
        found = self.source(thing)
        return self.shown(self.model.decode(found[None])[0] if isinstance(found, Tensor) else found)

    def shown(self, made: np.ndarray) -> MadeThing:
        held = io.BytesIO()
        gallery.as_page(made).save(held, "PNG")
        return MadeThing(image=base64.b64encode(held.getvalue()).decode())

    def generate(self, body: Generate) -> Made:
        refuse_melody_options(body)
        return self.made(self.model.sample(body.n, body.seed, body.prior))

    def vary(self, body: Vary) -> Made:
        return self.made(self.model.vary(self.source(body.thing), body.amount, body.n, body.seed))


DESKS: dict[str, type[KindDesk]] = {"melody": MelodyDesk, "text": TextDesk, "image": ImageDesk}


def rows(z: Sequence[Sequence[float]]) -> Tensor:
    """(W, Z). Raises `SeqvaeError` for rows of several lengths."""
    require(len({len(row) for row in z}) == 1, "the rows of z are of several lengths")
    return torch.tensor(z, dtype=torch.float32)


def one_row(z: Sequence[Sequence[float]]) -> Tensor:
    require(len(z) == 1, f"a thing of this model has one row of z, not {len(z)}")
    return rows(z)[0]


def fitting(model: Engine, z: Tensor) -> Tensor:
    size = model.saved.model.size.latent
    require(z.shape[1] == size, f"this model's z has {size} dimensions, not {z.shape[1]}")
    return z


def refuse_melody_options(body: Generate) -> None:
    given = [name for name in MELODY_ONLY if getattr(body, name) is not None]
    require(not given, f"{' and '.join(given)} mean something to models of melodies alone")


# ------------------------------------------------------------------------------------------ a model


class Offered:
    """A loaded model: its verbs, attributes and map."""

    def __init__(
        self, name: str, folder: Path, reader: Reads, learnt: Path, slots: int, seen: Seen | None
    ) -> None:
        """slots: rows decoded together; 0: every request decodes its own. seen: told the rows of a step."""
        saved = load_model(folder)
        self.name, self.folder, self.learnt = name, folder, learnt / saved.config["sha256"]
        self.model: Any = KINDS[saved.codec.kind](saved)
        desk = self.desk = DESKS[saved.codec.kind](self.model, reader)
        self.generate, self.decode, self.reconstruct = desk.generate, desk.decode, desk.reconstruct
        self.vary, self.interpolate = desk.vary, desk.interpolate
        self.lock = threading.Lock()
        self.batcher: Batcher | None = None
        if slots and isinstance(self.model.stepper, Stepper):
            self.batcher = Batcher(self.model.codec, self.model.stepper, slots, seen)
            self.model.decoder = self.batcher.decode
        self.measured: dict[str, Attribute] | None = None
        self.plane: tuple[Plane, Any, Tensor] | None = None

    def close(self) -> None:
        if self.batcher is not None:
            self.batcher.close()

    def info(self) -> ModelInfo:
        config, codec = self.model.config, self.model.codec
        recipe = config.get("recipe")
        return ModelInfo(
            name=self.name,
            kind=codec.kind,
            what=str(config.get("what") or (recipe.get("about", "") if isinstance(recipe, dict) else "")),
            latent=self.model.saved.model.size.latent,
            bars=getattr(codec, "bars", None),
            metres=list(config.get("metres", ())),
            size=(codec.width, codec.height) if codec.kind == "image" else None,
            licence=str(config.get("licence", "")),
            attributes=[one.name for one in self.attributes()],
        )

    # -- verbs that are not the desk's alone

    def encode(self, body: OfThing) -> Latent:
        z, silent, notices = self.desk.latent(body.thing)
        return Latent(z=z.tolist(), silent=silent, notices=list(notices))

    def shift(self, body: Shift) -> Made:
        known = self._attributes()
        places = [[(self._known(known, name), goal) for name, goal in one.items()] for one in body.places]
        return self.desk.shift(body, places)

    # -- attributes

    def attributes(self) -> list[AttributeInfo]:
        held = {*attributes_of(self.folder), *self._measured()}
        measures = [name for name in MEASURES[self.model.codec.kind] if name in held]
        own = [*measures, *sorted(held.difference(measures))]
        taught = [name for name in self._taught() if name not in own]
        return [AttributeInfo(name=name, own=name in own) for name in [*own, *taught]]

    def learn(self, body: LearnAttribute) -> AttributeInfo:
        """Raises `SeqvaeError` where the name is one of the model's own attributes."""
        own = any(body.name == one.name and one.own for one in self.attributes())
        require(not own, f"{body.name} is an attribute of the model's own; choose another name")
        kinds = [torch.cat([self._places_of(thing) for thing in kind]) for kind in (body.first, body.second)]
        about = {"name": body.name, "counts": [len(body.first), len(body.second)]}
        name = hashlib.sha256(body.name.encode()).hexdigest()[:32]
        attribute = fit_attribute(*map(points, kinds))
        save_attribute(self.learnt / f"{name}.safetensors", attribute, self.model.saved, about)
        return AttributeInfo(name=body.name, own=False)

    def _places_of(self, thing: Thing) -> Tensor:
        """z (W, Z) of a thing's windows that are not silent."""
        z, silent, _ = self.desk.latent(thing)
        return z[[not still for still in silent]] if silent else z

    def _known(self, known: Mapping[str, Attribute], name: str) -> Attribute:
        require(name in known, f"the model {self.name} has no attribute {name!r}; it has {', '.join(known)}")
        return known[name]

    def _attributes(self) -> dict[str, Attribute]:
        learnt = {**self._taught(), **attributes_of(self.folder)}
        return self._measured() | {
            name: load_attribute(path, self.model.saved) for name, path in learnt.items()
        }

    def _measured(self) -> dict[str, Attribute]:
        with self.lock:
            if self.measured is None:
                self.measured = self.model.measured(known=attributes_of(self.folder))
        return self.measured

    def _taught(self) -> dict[str, Path]:
        found = {attribute_name(path): path for path in sorted(self.learnt.glob("*.safetensors"))}
        return {name: path for name, path in found.items() if name}

    # -- map

    def map(self) -> LatentMap:
        plane, _, places = self._plane()
        return LatentMap.model_construct(
            points=[(x, y) for x, y in places.tolist()], explained=plane.explained
        )

    def on_map(self, body: OnMap) -> FoundOnMap:
        plane, atlas, held = self._plane()
        places = [
            [(x, y) for x, y in plane.project(self._places_of(thing)).tolist()] for thing in body.things
        ]
        wanted = torch.tensor(body.places, dtype=torch.float32).reshape(-1, 2)
        at = torch.cdist(wanted, held).argmin(1)
        made = self.model.decoded(
            atlas.posterior.mean[at], atlas.conditions[at.numpy()], self.desk.way(body), body.seed
        )
        return FoundOnMap.model_construct(
            places=places, points=at.tolist(), things=[self.desk.shown(thing) for thing in made]
        )

    def _plane(self) -> tuple[Plane, Any, Tensor]:
        with self.lock:
            if self.plane is None:
                atlas = self.model.atlas(POINTS)
                plane = fit_plane(atlas.posterior.mean)
                self.plane = plane, atlas, plane.project(atlas.posterior.mean)
        return self.plane


class Shelf:
    """The models by their names, loaded when first asked for; those of trainings come and go."""

    def __init__(
        self,
        names: Sequence[str],
        reader: Reads,
        learnt: Path,
        slots: int,
        trained: Callable[[str], Path | None] = lambda name: None,
        seen: Seen | None = None,
    ) -> None:
        """names: embedded or folders; none: all embedded. trained: the folder of a training's model."""
        self.reader, self.learnt, self.slots, self.trained, self.seen = reader, learnt, slots, trained, seen
        chosen = {name: find_model(name) for name in names} or models()
        self.folders = {Path(name).name: folder for name, folder in chosen.items()}
        self.loaded: OrderedDict[str, tuple[int, Offered]] = OrderedDict()
        self.lock = threading.Lock()

    def get(self, name: str) -> Offered:
        """Raises KeyError for a name that is none."""
        folder = self.folders.get(name) or self.trained(name)
        if folder is None:
            raise KeyError(name)
        folder = folder if (folder / "config.json").is_file() else folder / "best"
        with self.lock:
            stamp = (folder / "config.json").stat().st_mtime_ns  # a training's best model changes
            held = self.loaded.get(name)
            if held is None or held[0] != stamp:
                fresh = Offered(name, folder, self.reader, self.learnt, self.slots, self.seen)
                self.loaded[name] = stamp, fresh
                if held is not None:
                    held[1].close()
            self.loaded.move_to_end(name)
            extra = [other for other in self.loaded if other not in self.folders]
            for other in extra[: max(len(extra) - LOADED, 0)]:
                self.loaded.pop(other)[1].close()
            return self.loaded[name][1]

    def kind(self, name: str) -> str:
        return str(self.get(name).model.codec.kind)

    def offered(self) -> list[Offered]:
        """All that are loaded."""
        with self.lock:
            return [offered for _, offered in self.loaded.values()]

    def close(self) -> None:
        for offered in self.offered():
            offered.close()


def rendered(body: Render, reader: Reads) -> bytes:
    """A song as a file. Raises `SeqvaeError` for another thing, or too long a sound."""
    require(body.thing.song is not None or body.thing.file is not None, "a song or its file can be rendered")
    if body.thing.song is not None:
        song = body.thing.song.song()
    else:
        assert body.thing.file is not None
        song = reader.song(body.thing.file)
    if body.format == "wav":
        lasts = seconds(song, song.beats)
        require(lasts <= LONGEST_SOUND, f"a sound lasts {LONGEST_SOUND:g} seconds at most, not {lasts:.0f}")
    with tempfile.TemporaryDirectory(prefix="seqvae-") as room:
        path = Path(room) / f"song.{body.format}"
        WRITERS[body.format](song, path)
        return path.read_bytes()
