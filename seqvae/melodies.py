"""Melodies: a trained model that samples, reconstructs, varies and interpolates them, or ensembles of voices.

Conventions: a song's melody is cut into windows of the model's number of bars, from its first bar line on;
each has one z, so W windows are z (W, Z). Windows without notes never reach the model and stay silent. A
model of an ensemble, such as a chorale, takes all its voices together for what is called the melody here.
Wherever a song is asked for, a `Song`, the path of a file or a PrettyMIDI will do. Song i of a seed is the
same whatever n is. Where a model is told chords, those of a song are found in its other parts.
What a method changes or leaves out stands in Song.notices; what a user can get wrong is a `SeqvaeError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, inf, prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from seqvae import files
from seqvae.checkpoint import Saved
from seqvae.codecs.bars import HIGHEST, LONGEST, LOWEST, BarsCodec
from seqvae.decoding import GREEDY, Sampling
from seqvae.engine import Engine, Places, along, require, require_variation, sampling
from seqvae.ensembles import Voices
from seqvae.harmony import HALVES, block_chords, key_of, parse_chords
from seqvae.latent import bilinear, slerp
from seqvae.song import (
    SLACK,
    TICKS,
    Key,
    Metre,
    Note,
    Part,
    Phrase,
    SeqvaeError,
    Song,
    Window,
    assemble,
    find_key,
    seconds,
    transpose,
)

FITS = ("loop", "stretch")
SLOWEST, FASTEST = 4.0, 1000.0  # quarter notes a minute that are offered and that MIDI can hold

Source = Song | str | Path | Any  # a song, the path of a file that holds one, a PrettyMIDI, an Encoding


@dataclass(frozen=True)
class Encoding:
    """A song's melody as windows (their onsets, metres and notes) and their posterior means."""

    song: Song
    tracks: tuple[tuple[int, ...], ...]  # of each voice the indices in song.parts
    windows: tuple[Window, ...]  # W of them
    means: Tensor  # (W, Z); zeros where a window has no notes
    notices: tuple[str, ...] = ()  # what the spelling changes


class Morph(NamedTuple):
    songs: list[Song]  # from the first song's reconstruction to the second's
    journey: Song  # from the first to the second in time
    notices: tuple[str, ...]


class Cell(NamedTuple):
    """A window on the way from one song to another."""

    t: float  # 0..1
    places: tuple[int, ...]  # the windows of the two songs that meet here

    @property
    def leader(self) -> int:
        """The song whose metre, programme and bar lines hold here: 0 in the first half, 1 in the second."""
        return int(self.t >= 0.5)


class Melodies(Engine):
    """A model of melodies with everything it can do; `device` is where its encoder runs."""

    codec: BarsCodec

    def __init__(self, saved: Saved, device: str = "cpu") -> None:
        if not isinstance(saved.codec, BarsCodec):
            raise SeqvaeError(f"this is a model of {saved.codec.kind}, not of melodies")
        super().__init__(saved, device)

    @torch.inference_mode()
    def encode(self, song: Source, track: str | int | None = None) -> Encoding:
        """The melody (of a track by name or by number from 1, or found) in windows and their means.

        An `Encoding` stays as it is.
        """
        if isinstance(song, Encoding):
            return song
        song = load(song)
        voices = self.codec.voices(song, track)
        found = self.codec.windows(song, voices)
        filled = [i for i, window in enumerate(found) if window.phrase.notes]
        means = torch.zeros(len(found), self.saved.model.size.latent)
        means[filled] = self._means([found[i].phrase for i in filled]) if filled else means
        notices = losses(song, voices, self.codec, [found[i].kept(found[i].phrase) for i in filled])
        unheard = self._unheard([found[i].phrase.metre for i in filled])
        return Encoding(song, voices.tracks, tuple(found), means, (*notices, *unheard))

    @torch.inference_mode()
    def decode(
        self, z: Tensor, metre: str | Metre = "4/4", how: Sampling = GREEDY, seed: int = 0
    ) -> list[Phrase]:
        """z (N, Z) -> N phrases in one metre."""
        metre = Metre.parse(metre) if isinstance(metre, str) else metre
        return self._decode(z, [self.codec.silence(metre)] * len(z), how, seed)

    @torch.inference_mode()
    def sample(
        self, n: int = 1, *, bars: int = 4, metre: str | Metre = "4/4", key: str | Key | None = None,
        chords: str | Sequence[Key | None] | None = None, tempo: float = 120.0, program: int | None = None,
        temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, seed: int = 0, prior: str = "fitted",
    ) -> list[Song]:  # fmt: skip
        """n new melodies of so many bars, at a tempo in quarter notes a minute.

        The first window's z comes from the mixture of exemplars, that is the widened posterior of a training
        window in that metre, each later one from the fitted succession; a model without them, or
        prior="standard", draws from N(0, I) and for a later one goes half way (slerp) to a fresh draw. With a
        key, a melody is moved the nearest way to that tonic; major or minor is the model's choice. The
        programme, a piano's unless given, is a melody's; the parts of an ensemble have their own.

        With chords, as `parse_chords` reads them or one a half bar, over and over, the model is told them and
        their key, nothing is moved, and they are a second part, "chords". Such a model is told a key without
        chords too, and without a key it sings in C major or A minor. Raises `SeqvaeError` for chords where
        the model was trained without.
        """
        metre = Metre.parse(metre) if isinstance(metre, str) else metre
        key = Key.parse(key) if isinstance(key, str) else key
        how = sampling(temperature, top_k, top_p)
        require(n >= 1 and bars >= 1, f"at least 1 melody of at least 1 bar can be made, not {n} of {bars}")
        fine = SLOWEST <= tempo <= FASTEST
        require(fine, f"a tempo lies in {SLOWEST:g} to {FASTEST:g} quarters a minute, not {tempo:g}")
        alone = program is None or not self.codec.ensemble
        require(alone, f"the parts of a {self.codec.ensemble} have their own programmes; leave out the one")
        program = program or 0
        require(0 <= program <= 127, f"a General MIDI programme is a number from 0 to 127, not {program}")
        count = ceil(bars / self.codec.bars)
        frames = self._frames(count, metre, key, chords)
        z = self._prior(n, frames, seed, prior)  # (n, count, Z)
        phrases = self._decode(z.flatten(0, 1), frames * n, how, seed)
        notices, beats = self._unheard([metre]), bars * metre.beats
        songs = []
        for start in range(0, n * count, count):
            song = assemble(phrases[start : start + count], tempo=tempo, program=program)
            song = in_key(trimmed(song, beats), key if chords is None else None, notices)
            if chords is not None:
                heard = trimmed(replace(song, parts=(block_chords(frames),)), beats).parts
                song = replace(song, parts=song.parts + heard, key=frames[0].key or song.key)
            songs.append(song)
        return songs

    def _frames(
        self, count: int, metre: Metre, key: Key | None, chords: str | Sequence[Key | None] | None
    ) -> list[Phrase]:
        """So many windows without notes, told the key and the chords over and over where the model is."""
        frame = replace(self.codec.silence(metre), key=key)
        if chords is None:
            return [frame] * count
        require(bool(self.codec.chords), "this model is told no chords; train one on a corpus with --chords")
        told, each = parse_chords(chords) if isinstance(chords, str) else tuple(chords), HALVES * frame.bars
        require(bool(told), "a progression has at least one chord")
        frame, told = replace(frame, key=key or key_of(told)), told * -(-count * each // len(told))
        return [replace(frame, chords=told[i * each : (i + 1) * each]) for i in range(count)]

    @torch.inference_mode()
    def reconstruct(self, song: Source, track: str | int | None = None) -> Song:
        """The song with its melody as the model remembers it: greedy from the posterior means.

        Metres, pickup, tempo map, programme and the other tracks stay.
        """
        encoding = self.encode(song, track)
        return self._rendered(encoding, encoding.means[None], GREEDY, 0)[0]

    @torch.inference_mode()
    def vary(
        self, song: Source, amount: float = 0.3, n: int = 8, *, track: str | int | None = None,
        temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0, seed: int = 0,
    ) -> list[Song]:  # fmt: skip
        """n variations of a song's melody; the rest stays as in reconstruct().

        Each window's z goes the share `amount` of the way (slerp) from its posterior mean to the z of a new
        melody, drawn as in sample(): at temperature 0, amount 0 is the reconstruction and amount 1 a melody
        that has nothing of the song's but its bars.
        """
        require_variation(amount, n)
        how, encoding = sampling(temperature, top_k, top_p), self.encode(song, track)
        goals = self._prior(n, [window.phrase for window in encoding.windows], seed, "fitted")
        return self._rendered(encoding, slerp(encoding.means.expand_as(goals), goals, amount), how, seed)

    @torch.inference_mode()
    def interpolate(
        self, a: Source, b: Source, steps: int = 9, *, fit: str = "loop",
        tracks: tuple[str | int | None, str | int | None] = (None, None),
        temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0, seed: int = 0,
    ) -> Morph:  # fmt: skip
        """`steps` songs from a to b, and one that travels from a to b in time.

        The ends are reconstruct(a) and reconstruct(b). Between them step s stands at t = s / (steps - 1):
        window by window, and so bar by bar, z is slerp(a's, b's, t). The shorter song is looped, or stretched
        so that each of its windows serves several of the longer's. A bar can have one metre: t < 0.5 has a's
        and the rest b's, and likewise the programme and the chords told; the tempo moves geometrically. Where
        one song is silent the other's z holds. The journey has window w of W at t = w / (W - 1), and two
        windows at least.
        """
        shares = along(steps)
        require(fit in FITS, f"songs of two lengths are made to fit by {' or '.join(FITS)}, not {fit}")
        how = sampling(temperature, top_k, top_p)
        ends = self.encode(a, tracks[0]), self.encode(b, tracks[1])
        length = max(len(end.windows) for end in ends)
        paths = [cells(ends, length, fit, [t] * length) for t in shares[1:-1]]
        tour = max(length, 2)
        paths.append(cells(ends, tour, fit, [w / (tour - 1) for w in range(tour)]))
        phrases = self._between(ends, [cell for path in paths for cell in path], how, seed)
        laid = [laid_out(ends, path, phrases[i * length :][: len(path)]) for i, path in enumerate(paths)]
        outer = [self._rendered(end, end.means[None], GREEDY, 0)[0] for end in ends]
        return Morph([outer[0], *laid[:-1], outer[1]], laid[-1], meeting(ends, fit))

    @torch.inference_mode()
    def placed(self, z: Tensor, metre: str | Metre = "4/4") -> Encoding:
        """z (W, Z) as the encoding of the song of W windows in one metre that they decode to."""
        size = self.saved.model.size.latent
        require(z.shape[1:] == (size,), f"this model's z has {size} dimensions, not {z.shape[-1]}")
        phrases = self.decode(z, metre)
        song = assemble(phrases)
        found = [Window(i * one.beats, one, i * one.bars, one.beats) for i, one in enumerate(phrases)]
        return Encoding(song, tuple((i,) for i in range(len(song.parts))), tuple(found), z)

    @torch.inference_mode()
    def shift(self, song: Source, places: Sequence[Places], *, track: str | int | None = None) -> list[Song]:
        """The song with its melody brought to each of the places of attributes, window by window.

        1 is where things of an attribute's second kind are on average, -1 those of its first. What is as far
        already, or further, stays; at 0 everything does. A `Place` that is relative moves every window
        that far, in standard deviations of the corpus, from where it is.
        Raises `SeqvaeError` for an attribute of another size than this model's.
        """
        encoding = self.encode(song, track)
        filled = [i for i, window in enumerate(encoding.windows) if window.phrase.notes]
        told = self._told([encoding.windows[i].phrase for i in filled])
        z = encoding.means.repeat(len(places), 1, 1)
        z[:, filled] = self.shifted(encoding.means[filled], told, places)
        return self._rendered(encoding, z, GREEDY, 0)

    @torch.inference_mode()
    def blend(
        self, corners: Sequence[Source], places: Sequence[tuple[float, float]], fit: str = "loop", *,
        temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0, seed: int = 0,
    ) -> list[Song]:  # fmt: skip
        """The melody at each place (x, y) of a square of four songs, two above and two below.

        Metre, programme and bar lines are those of the nearest corner, the tempo moves geometrically; shorter
        songs are looped or stretched as in `interpolate`.
        """
        require(fit in FITS, f"songs of two lengths are made to fit by {' or '.join(FITS)}, not {fit}")
        require(len(corners) == 4, f"a square has four corners, not {len(corners)}")
        how, ends = sampling(temperature, top_k, top_p), [self.encode(corner) for corner in corners]
        length = max(len(end.windows) for end in ends)
        at = [placing(ends, length, fit, i) for i in range(length)]
        phrases, live, z = [], [], []
        for x, y in places:
            require(0 <= x <= 1 and 0 <= y <= 1, f"a place in a square lies in 0 to 1, not at {x:g}, {y:g}")
            leader = int(x > 0.5) + 2 * int(y > 0.5)
            for where in at:
                there = [(end.windows[i].phrase, end.means[i]) for end, i in zip(ends, where, strict=True)]
                phrases.append(replace(there[leader][0], notes=()))
                if (
                    found := bilinear([mean if phrase.notes else None for phrase, mean in there], x, y)
                ) is not None:
                    live.append(len(phrases) - 1)
                    z.append(found)
        if live:
            decoded = self._decode(torch.stack(z), [phrases[i] for i in live], how, seed)
            for i, phrase in zip(live, decoded, strict=True):
                phrases[i] = phrase
        songs = []
        for number, (x, y) in enumerate(places):
            end = ends[leader := int(x > 0.5) + 2 * int(y > 0.5)]
            path = [Cell(0.0, (where[leader], where[leader])) for where in at]
            laid = laid_out((end, end), path, phrases[number * length : (number + 1) * length])
            shares = ((1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y)
            tempo = prod(pace(one.song) ** share for one, share in zip(ends, shares, strict=True))
            songs.append(replace(laid, tempi=((0.0, tempo),), title=""))
        return songs

    def _untold(self) -> np.ndarray:
        metre = Metre.parse(next(iter(self.config.get("metres", ())), "4/4"))
        return self._told([self.codec.silence(metre)])

    def _unheard(self, metres: Sequence[Metre]) -> tuple[str, ...]:
        """A notice for each metre that the training corpus, where the model says, did not hold."""
        names = dict.fromkeys(map(str, metres))
        heard = self.config.get("metres", names)
        return tuple(f"the model was trained on no music in {name}" for name in names if name not in heard)

    def _decode(self, z: Tensor, frames: Sequence[Phrase], how: Sampling, seed: int) -> list[Phrase]:
        """N phrases, each in its frame's metre and harmony, of z (N, Z)."""
        return self.decoded(z, self._told(frames), how, seed)

    def _prior(self, n: int, frames: Sequence[Phrase], seed: int, prior: str) -> Tensor:
        """z (n, W, Z) of n songs of W windows in these frames."""
        return self._drawn(n, self._told(frames), seed, prior)

    def _told(self, frames: Sequence[Phrase]) -> np.ndarray:
        """(N, C) the frames, phrases whose notes do not matter, as the decoder is told them."""
        none = np.empty((0, len(self.codec.conditions)), np.int16)
        return np.stack([self.codec.condition(frame) for frame in frames]) if frames else none

    def _rendered(self, encoding: Encoding, z: Tensor, how: Sampling, seed: int) -> list[Song]:
        """The encoded song for each row of z (n, W, Z), with the melody that the row means in its place."""
        song, found = encoding.song, encoding.windows
        filled = [i for i, window in enumerate(found) if window.phrase.notes]
        frames = [found[i].phrase for i in filled] * len(z)
        decoded = iter(self._decode(z[:, filled].flatten(0, 1), frames, how, seed))
        songs = []
        for _ in range(len(z)):
            phrases = [w.kept(next(decoded)) if w.phrase.notes else w.phrase for w in found]
            line = assemble(phrases, onsets=[window.onset for window in found])
            own = dict.fromkeys((i for track in encoding.tracks for i in track), tuple[Note, ...]())
            own |= {track[0]: part.notes for track, part in zip(encoding.tracks, line.parts, strict=True)}
            parts = [replace(p, notes=own[i]) if i in own else p for i, p in enumerate(song.parts)]
            notices = tuple(dict.fromkeys((*song.notices, *encoding.notices, *line.notices)))
            songs.append(replace(song, parts=tuple(parts), notices=notices))
        return songs

    def _between(self, ends: Sequence[Encoding], path: list[Cell], how: Sampling, seed: int) -> list[Phrase]:
        """A phrase for each cell in its leader's metre, silent where there is nothing to go by."""
        phrases, live, z = [], [], []
        for i, cell in enumerate(path):
            both = zip(ends, cell.places, strict=True)
            pair = [(end.windows[at].phrase, end.means[at]) for end, at in both]
            phrases.append(replace(pair[cell.leader][0], notes=()))
            own = [pair[int(cell.t)]] if cell.t in (0, 1) else pair
            known = [mean for phrase, mean in own if phrase.notes]
            if known:
                live.append(i)
                z.append(slerp(known[0], known[-1], cell.t) if len(known) == 2 else known[0])
        if live:
            decoded = self._decode(torch.stack(z), [phrases[i] for i in live], how, seed)
            for i, phrase in zip(live, decoded, strict=True):
                phrases[i] = phrase
        return phrases


def load(song: Source) -> Song:
    if isinstance(song, Song):
        return song
    return files.read(Path(song)) if isinstance(song, (str, Path)) else files.from_pretty_midi(song)


def losses(song: Song, voices: Voices, codec: BarsCodec, phrases: Sequence[Phrase]) -> tuple[str, ...]:
    """What taking the upper lines of a song's parts and spelling their phrases change, each in a sentence."""
    notes, whole = voices.part.notes, sum(len(song.parts[i].notes) for own in voices.tracks for i in own)
    lost = whole - len(notes)
    folded = sum(not LOWEST <= note.pitch <= HIGHEST for note in notes)
    moved = sum(map(codec.moved, phrases))
    held = sum(note.duration * TICKS > LONGEST for note in notes)
    below = "have no place in the voices" if codec.ensemble else "lie below the melody"
    sentences = {
        f"{lost} of {whole} notes {below} and were left out": lost,
        f"{folded} pitches outside {LOWEST} to {HIGHEST} were moved into it by octaves": folded,
        f"{moved} of {len(notes)} onsets were moved to the grid of {TICKS} ticks a quarter": moved,
        f"{held} notes were shortened to {LONGEST // TICKS} quarters": held,
    }
    return tuple(sentence for sentence, count in sentences.items() if count)


def trimmed(song: Song, beats: float) -> Song:
    """A song without what lies or sounds past so many beats."""
    parts = []
    for part in song.parts:
        kept = (note for note in part.notes if note.onset < beats - SLACK)
        notes = tuple(note._replace(duration=min(note.duration, beats - note.onset)) for note in kept)
        parts.append(replace(part, notes=notes))
    return replace(song, parts=tuple(parts))


def pitched(song: Song) -> list[Note]:
    return [note for part in song.parts if not part.drums for note in part.notes]


def in_key(song: Song, wanted: Key | None, notices: tuple[str, ...] = ()) -> Song:
    """A song moved the nearest way to a tonic, its key written in; the notices are added."""
    notes = pitched(song)
    if not notes:
        return replace(song, notices=(*song.notices, *notices, "the model chose silence: try another seed"))
    found = find_key(notes)
    if wanted is not None:
        song = transpose(song, (wanted.tonic - found.tonic + 6) % 12 - 6)
        found = found._replace(tonic=wanted.tonic)
        if found.mode != wanted.mode:
            notices = (*notices, f"asked for {wanted}, the model's melody is in {found}")
    return replace(song, key=found, notices=(*song.notices, *notices))


def pace(song: Song) -> float:
    """The mean tempo in quarter notes a minute."""
    if len(song.tempi) == 1:
        return song.tempi[0][1]
    return 60 * song.beats / seconds(song, song.beats)


def cells(ends: Sequence[Encoding], length: int, fit: str, ts: Sequence[float]) -> list[Cell]:
    """Which windows of the two songs meet at each of `length` places, and how far along."""
    return [Cell(t, placing(ends, length, fit, i)) for i, t in enumerate(ts)]


def placing(ends: Sequence[Encoding], length: int, fit: str, i: int) -> tuple[int, ...]:
    """The window of each song that stands at place i of `length`."""
    counts = [len(end.windows) for end in ends]
    return tuple(i % count if fit == "loop" else i * count // length for count in counts)


def laid_out(ends: Sequence[Encoding], path: Sequence[Cell], phrases: Sequence[Phrase]) -> Song:
    """The phrases of a path at their leaders' bar lines, with the tempo and programme of each place."""
    first = ends[path[0].leader].windows[0].onset
    opening = min((note.onset for note in phrases[0].notes), default=inf)
    onsets = [first if opening >= -first - SLACK else 0.0]  # a pickup, unless something sounds before it
    places = [ends[cell.leader].windows[cell.places[cell.leader]] for cell in path]
    for place in places:
        onsets.append(onsets[-1] + place.beats)
    paces = [pace(end.song) for end in ends]
    title = " to ".join(end.song.title for end in ends) if all(end.song.title for end in ends) else ""
    phrases = [place.kept(phrase) for place, phrase in zip(places, phrases, strict=True)]
    song = assemble(phrases, onsets=onsets[:-1], title=title)
    turn = next((at for at, cell in zip(onsets, path, strict=False) if cell.leader), inf)
    parts: list[Part] = []
    for voice, part in enumerate(song.parts):
        programs = [end.song.parts[end.tracks[voice][0]].program for end in ends]
        change = inf if programs[0] == programs[1] or part.drums else turn
        halves = [[n for n in part.notes if (n.onset >= change - SLACK) == late] for late in (False, True)]
        named = zip(halves, programs, strict=True)
        parts += [replace(part, notes=tuple(half), program=program) for half, program in named if half]
    tempi: list[tuple[float, float]] = []
    for at, cell in zip(onsets, path, strict=False):
        tempo = paces[0] * (paces[1] / paces[0]) ** cell.t  # equal where the two are, to the last bit
        if not tempi or tempo != tempi[-1][1]:
            tempi.append((max(0.0, at), tempo))
    song = replace(song, parts=tuple(parts) or song.parts, tempi=tuple(tempi))
    notes = pitched(song)
    return replace(song, key=find_key(notes) if notes else None)


def meeting(ends: Sequence[Encoding], fit: str) -> tuple[str, ...]:
    """What was done to let two unlike songs meet, and what was noticed in each, in sentences."""
    notices = []
    for which, end in zip(("first", "second"), ends, strict=True):
        notices += [f"the {which} song: {said}" for said in dict.fromkeys((*end.song.notices, *end.notices))]
    one, other = (" and ".join(dict.fromkeys(str(w.phrase.metre) for w in end.windows)) for end in ends)
    if one != other:
        notices.append(
            f"{one} meets {other} bar by bar: the first half of the way is in the one, then the other"
        )
    counts = [len(end.windows) for end in ends]
    if counts[0] != counts[1]:
        which, how = "first" if counts[0] < counts[1] else "second", {"loop": "looped"}.get(fit, "stretched")
        notices.append(f"the {which} song was {how} from {min(counts)} windows to the other's {max(counts)}")
    own = [sum(map(len, end.tracks)) for end in ends]
    others = [sum(bool(part.notes) for part in end.song.parts) - n for end, n in zip(ends, own, strict=True)]
    if any(others):
        notices.append(f"the other tracks ({others[0]} and {others[1]}) sound in the ends alone")
    if any(len(end.song.tempi) > 1 for end in ends):
        notices.append("tempo changes sound in the ends alone; between them each song has its mean tempo")
    return tuple(notices)
