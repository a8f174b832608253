"""What a piece of music is: notes in parts, metre, key and tempo map; the bars, melody and windows of a song.

Conventions: time is in beats, and a beat is a quarter note whatever the metre. Beat 0 is where the song
begins; a pickup of p beats lies before the first full bar line, so that line stands at beat p. Pitches are
MIDI numbers (60 = middle C), velocities 1-127. The grid has TICKS ticks a quarter note: nothing here is moved
onto it, but times nearer than half a tick are taken for the same. All functions are pure and deterministic;
none reads or writes.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import zip_longest
from math import ceil, floor, inf
from typing import NamedTuple, Self, overload

import numpy as np

TICKS = 12  # grid ticks a quarter note
TICK = 1 / TICKS  # beats
SLACK = TICK / 2  # beats; times nearer than this are the same time
DRONE = 16.0  # beats after which a held note no longer hides what begins below it (a drone, a stuck key)
FEW = 4  # notes; a part with fewer is no melody unless nothing else is there
MOST_BARS = 100_000  # a longer song is a broken file (or an attack on memory)

SHARPS = {"#": 1, "♯": 1, "b": -1, "♭": -1, "": 0}
TONICS = {
    "major": ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"),
    "minor": ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "G#", "A", "Bb", "B"),
}
# Probe-tone ratings of the twelve pitch classes from the tonic up (Krumhansl and Kessler 1982).
PROFILES = {
    "major": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    "minor": (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
}
# Standardised, for every key: (24, 12), major before minor, by the tonic.
STANDARD = np.stack(
    [
        np.roll((np.array(row) - np.mean(row)) / np.std(row), tonic)
        for row in PROFILES.values()
        for tonic in range(12)
    ]
)
# Names of parts that say "melody", of instruments that often carry it, and those that deny it.
TUNES = re.compile(r"(?i)melod|vocal|vox|\blead|voice|\bsolo|\btune|sing(er|ing)|cant(o|us)\b|gesang")
CARRIERS = re.compile(r"(?i)flute|fiddle|whistle|recorder|soprano|descant|treble|right hand|\brh\b")
OTHERS = re.compile(r"(?i)\bback|counter(?!ten)|harmon(y|ies)|accomp|chord|bass|\bpads?\b|left hand|\blh\b")


class SeqvaeError(ValueError):
    """A fault a user can act on: the message is one sentence."""


class Note(NamedTuple):
    onset: float  # beats
    duration: float  # beats
    pitch: int  # MIDI number
    velocity: int = 80
    voice: int = 0  # in a phrase of an ensemble: the part of ENSEMBLES that plays it


class Metre(NamedTuple):
    numerator: int
    denominator: int

    @property
    def beats(self) -> float:
        """Length of a bar in beats (quarter notes)."""
        return 4 * self.numerator / self.denominator

    @property
    def ticks(self) -> int:
        """Length of a bar in grid ticks; SeqvaeError when it is not whole (from 1/32 on it may not be)."""
        ticks, rest = divmod(4 * TICKS * self.numerator, self.denominator)
        if rest:
            raise SeqvaeError(f"a bar of {self} is not a whole number of ticks at {TICKS} a quarter note")
        return ticks

    @classmethod
    def parse(cls, text: str) -> "Metre":
        """The metre written "6/8": 1-64 over a power of two up to 64, or SeqvaeError."""
        match = re.fullmatch(r"\s*(\d{1,2})\s*/\s*(\d{1,2})\s*", text, re.ASCII)
        metre = cls(int(match[1]), int(match[2])) if match else cls(0, 0)
        if not metre.possible:
            raise SeqvaeError(f'"{text}" is not a metre; write it like 3/4 or 6/8')
        return metre

    @property
    def possible(self) -> bool:
        return 1 <= self.numerator <= 64 and self.denominator in (1, 2, 4, 8, 16, 32, 64)

    def __str__(self) -> str:
        return f"{self.numerator}/{self.denominator}"


class Key(NamedTuple):
    tonic: int  # pitch class, 0 = C
    mode: str  # "major" or "minor"

    @classmethod
    def parse(cls, text: str) -> "Key":
        """The key written "D", "F#", "Bb", "Dm", "d minor", "A:min" or "C major", or SeqvaeError."""
        match = re.fullmatch(r"\s*([A-Ga-g])([#♯b♭]?)[\s:]*(M|(?i:m|min|minor|maj|major))?\s*", text)
        if not match:
            raise SeqvaeError(f'"{text}" is not a key; write it like D, Bb, F#m or "A minor"')
        letter, accidental, mode = match[1].upper(), match[2], match[3] or "M"
        minor = mode == "m" or mode.lower().startswith("min")
        return cls((TONICS["major"].index(letter) + SHARPS[accidental]) % 12, "minor" if minor else "major")

    def __str__(self) -> str:
        return f"{TONICS[self.mode][self.tonic]} {self.mode}"


@dataclass(frozen=True)
class Part:
    notes: tuple[Note, ...]
    name: str = ""
    program: int = 0  # General MIDI, 0-127
    drums: bool = False


# The parts of each ensemble, their notes aside: a note's voice is a place here. "" is a melody.
ENSEMBLES = {
    "": (Part(()),),
    "chorale": tuple(Part((), name, 52) for name in ("Soprano", "Alto", "Tenor", "Bass")),  # a choir
    "trio": (Part((), "Melody"), Part((), "Bass", 32), Part((), "Drums", drums=True)),
}


@dataclass(frozen=True)
class Song:
    """Parts that sound together, under one metre map, tempo map and key.

    `metres` holds (beats, metre) and `tempi` (beats, quarter notes a minute), sorted and beginning at beat 0;
    of entries at one place only the last is kept, and every entry of `metres` begins a bar. `pickup` is how
    many beats lie before the first full bar line, less than a bar. `notices` says in sentences what reading
    the song changed or lost. Raises SeqvaeError for maps that are not so.
    """

    parts: tuple[Part, ...]
    metres: tuple[tuple[float, Metre], ...] = ((0.0, Metre(4, 4)),)
    tempi: tuple[tuple[float, float], ...] = ((0.0, 120.0),)
    key: Key | None = None
    title: str = ""
    pickup: float = 0.0
    notices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("metres", "tempi"):
            entries = tuple(dict(getattr(self, name)).items())
            if (
                not entries
                or entries[0][0] != 0
                or list(entries) != sorted(entries, key=lambda entry: entry[0])
            ):
                raise SeqvaeError(f"the {name} of a song must be sorted by beats and begin at beat 0")
            object.__setattr__(self, name, entries)
        if wrong := [f"{metre}" for _, metre in self.metres if not metre.possible]:
            raise SeqvaeError(f"{wrong[0]} is not a metre")
        if wrong := [f"{tempo}" for _, tempo in self.tempi if not 0 < tempo < inf]:
            raise SeqvaeError(f"{wrong[0]} quarter notes a minute is not a tempo")
        if not 0 <= self.pickup < self.metres[0][1].beats:
            raise SeqvaeError(f"a pickup of {self.pickup} beats does not fit a bar of {self.metres[0][1]}")

    @property
    def beats(self) -> float:
        """Where the last note of any part ends; a note lasts at least a tick."""
        return max((n.onset + max(n.duration, TICK) for part in self.parts for n in part.notes), default=0.0)

    @cached_property
    def clock(self) -> tuple[list[float], list[float], list[float]]:
        """The tempo map in columns: the beats and the seconds where each tempo begins, its seconds a beat."""
        beats, paces = [at for at, _ in self.tempi], [60 / tempo for _, tempo in self.tempi]
        seconds = [0.0]
        for start, end, pace in zip(beats, beats[1:], paces, strict=False):
            seconds.append(seconds[-1] + (end - start) * pace)
        return beats, seconds, paces


@dataclass(frozen=True)
class Phrase:
    """A few bars of one metre, which a codec spells; onsets count from its start and are not negative.

    `chords` are the triads of its half bars, 2 x bars of them, each a `Key` or None where none sounds; () and
    no key where nobody says.
    """

    notes: tuple[Note, ...]
    metre: Metre
    bars: int
    chords: tuple[Key | None, ...] = ()
    key: Key | None = None
    ensemble: str = ""  # of ENSEMBLES

    @property
    def beats(self) -> float:
        return self.bars * self.metre.beats


def lead(phrase: Phrase) -> Phrase:
    """The first voice of an ensemble's phrase as a melody; a melody itself."""
    if not phrase.ensemble:
        return phrase
    return replace(phrase, notes=tuple(note for note in phrase.notes if not note.voice), ensemble="")


class Window(NamedTuple):
    onset: float  # beats in the song; negative where it opens with a pickup
    phrase: Phrase
    bar: int  # index of its first bar in bars(song)
    beats: float  # that the song has there, perhaps fewer than the phrase

    @property
    def held(self) -> int:
        """Bars that the song has there, the last perhaps cut short."""
        return ceil((self.beats - SLACK) / self.phrase.metre.beats)

    def kept(self, phrase: Phrase) -> Phrase:
        """A phrase in this window's place: what begins in the window's own beats."""
        return replace(phrase, notes=tuple(note for note in phrase.notes if note.onset < self.beats - SLACK))

    def filled(self) -> Self:
        """The window with its bars over and over where they are fewer than its phrase counts."""
        phrase, span = self.phrase, self.held * self.phrase.metre.beats
        if self.held >= phrase.bars:
            return self
        own = [note._replace(duration=min(note.duration, span - note.onset)) for note in phrase.notes]
        turns = [time * span for time in range(ceil(phrase.bars / self.held))]
        notes = (note._replace(onset=note.onset + turn) for turn in turns for note in own)
        inside = tuple(note for note in notes if note.onset < phrase.beats - SLACK)
        return self._replace(phrase=replace(phrase, notes=inside))


def bars(song: Song) -> list[tuple[float, Metre]]:
    """Onset (beats) and metre of every bar up to the end of the song, and of one bar at least.

    With a pickup the first bar is a whole one beginning before beat 0, at pickup - metre.beats, and the
    pickup's notes belong to it. Every entry of the metre map begins a bar: one that stands inside a bar cuts
    that bar short, which shows in the next bar's onset. An entry within half a tick of a bar line is on it.
    Raises SeqvaeError past MOST_BARS bars.
    """
    found: list[tuple[float, Metre]] = []
    end, metre = song.beats - 0.9 * SLACK, song.metres[0][1]  # 0.9: a note half a tick early needs its bar
    entries, entry = (*song.metres, (inf, metre)), 1
    onset = song.pickup - metre.beats if song.pickup else 0.0
    while not found or onset < end:
        while entries[entry][0] < onset + SLACK:
            onset, metre = entries[entry]
            entry += 1
        if len(found) == MOST_BARS:
            raise SeqvaeError(f"the song lasts {song.beats:.0f} beats, which is more than {MOST_BARS} bars")
        found.append((onset, metre))
        onset = min(onset + metre.beats, entries[entry][0])
    return found


def runs(song: Song) -> Iterator[tuple[list[float], Metre, int]]:
    """Stretches of bars in one metre, the last bar perhaps cut short: bar lines, metre, first bar's index."""
    every = bars(song)
    every.append((every[-1][0] + every[-1][1].beats, Metre(0, 1)))
    first = 0
    for i in range(1, len(every)):
        onset, metre = every[i - 1]
        if every[i][1] != metre or every[i][0] < onset + metre.beats - SLACK:
            yield [at for at, _ in every[first : i + 1]], metre, first
            first = i


def windows(song: Song, part: Part, bars: int, hop: int | None = None, ensemble: str = "") -> list[Window]:
    """A part cut into windows of `bars` bars in one metre, in order of time, up to the part's last onset.

    Its notes may be of several voices, an ensemble's. Without hop the windows tile the song: every note lies
    in exactly one; those with no note are kept, so that a reconstruction keeps time; the last one of a run (a
    stretch of bars in one metre) may hold fewer bars or a bar cut short, and then its phrase still counts
    `bars` whole bars while its notes end early.
    With hop a window begins every `hop` bars of a run, and only windows of whole bars count. A note belongs
    where it begins, half a tick of earliness forgiven, and keeps its duration even across the window's end.
    Raises SeqvaeError when bars or hop is less than 1.
    """
    if bars < 1 or (hop is not None and hop < 1):
        raise SeqvaeError(f"windows need at least one bar and a hop of at least one, not {bars} and {hop}")
    notes = sorted(part.notes)
    onsets = [n.onset for n in notes]
    found: list[Window] = []
    for lines, metre, first in runs(song):
        count = len(lines) - 1
        if hop is not None and lines[-1] < lines[-2] + metre.beats - SLACK:
            count -= 1  # the cut bar
        for bar in range(0, count, bars) if hop is None else range(0, count - bars + 1, hop):
            start, end = lines[bar], lines[min(bar + bars, count)]
            low = bisect_left(onsets, start - SLACK) if first + bar else 0
            if low == len(notes):
                return found
            high = bisect_left(onsets, end - SLACK)
            held = [Note(max(0.0, n[0] - start), *n[1:]) for n in notes[low:high]]
            phrase = Phrase(tuple(held), metre, bars, ensemble=ensemble)
            found.append(Window(start, phrase, first + bar, end - start))
    return found


def skyline(notes: Sequence[Note]) -> tuple[Note, ...]:
    """The upper line of a part: monophonic, sorted, no overlap, one note a grid tick, none without duration.

    Of notes on one tick the highest stays (the longest of equals); one shorter than a tick, an ornament, only
    when nothing longer is there. A note cuts the one before it at its own onset, unless that one is higher
    and still sounds: then the newcomer is an inner voice and is left out. The higher note gives way all the
    same when it is nearly over (less than a tick is left; or less than a quarter of it, and the newcomer
    outlasts it by more than that: legato), or has been held for DRONE beats. A note once cut does not come
    back. A note without duration lasts a tick, or up to the next.
    """
    top: list[Note] = []
    for note in highest(notes):
        if top and (last := top[-1]).pitch > note.pitch:
            length = min(last.duration, DRONE)
            left = last.onset + length - note.onset
            legato = left < length / 4 and note.duration > 2 * left
            if left >= TICK - 1e-9 and not legato:
                continue
        top.append(note)
    return cut(top)


def highest(notes: Sequence[Note]) -> list[Note]:
    """One note for each grid tick with an onset: the highest of those that last a tick, else the highest."""
    best: dict[int, tuple[bool, int, float, Note]] = {}
    for note in sorted(notes):
        tick, worth = nearest_tick(note.onset), (note.duration >= TICK, note.pitch, note.duration, note)
        if worth > best.setdefault(tick, worth):
            best[tick] = worth
    return [worth[-1] for worth in best.values()]


def cut(notes: Sequence[Note]) -> tuple[Note, ...]:
    """Notes of rising onsets, each ended by the next onset at the latest; an empty one gets a tick."""
    found = []
    for note, after in zip_longest(notes, notes[1:]):
        duration = note.duration if note.duration > 0 else TICK
        if after is not None:
            duration = min(duration, after.onset - note.onset)
        found.append(note if duration == note.duration else note._replace(duration=duration))
    return tuple(found)


def nearest_tick(beats: float) -> int:
    """The grid tick nearest to a time in beats; halves go up."""
    return floor(beats * TICKS + 0.5)


def melody(song: Song, track: str | int | None = None) -> tuple[int, Part]:
    """Index of the part that carries the melody, and that part made monophonic by skyline().

    `track` names the part: a number from 1, or its name or a piece of it in any case. Without it, of the
    pitched parts with at least FEW notes (or of all, when none has), the one whose name ranks highest, then
    the one of the highest score(). Raises SeqvaeError when there is no such track, or nothing but drums or
    silence.
    """
    pitched = [i for i, part in enumerate(song.parts) if part.notes and not part.drums]
    if track is not None:
        chosen = find_track(song, track)
        if chosen not in pitched:
            what = "drums" if song.parts[chosen].drums else "no notes"
            raise SeqvaeError(f"track {chosen + 1} holds {what} and so no melody; {tracks(song)}")
    elif not pitched:
        raise SeqvaeError(f"the song has no melody: it holds {'only drums' if song.beats else 'no notes'}")
    else:
        usable, beats = [i for i in pitched if len(song.parts[i].notes) >= FEW] or pitched, song.beats
        chosen = max(usable, key=lambda i: (rank(song.parts[i].name), score(song.parts[i].notes, beats)))
    return chosen, replace(song.parts[chosen], notes=skyline(song.parts[chosen].notes))


def tracks(song: Song) -> str:
    """The tracks of a song in words, for messages."""
    names = [f'{i} "{p.name}"' + " (drums)" * p.drums for i, p in enumerate(song.parts, 1)]
    return "the tracks are " + ", ".join(names) if names else "there are no tracks"


def find_track(song: Song, track: str | int) -> int:
    """Index of the part with this name, else number from 1, else piece of a name; SeqvaeError if not one."""
    names, wanted = [part.name.strip().lower() for part in song.parts], str(track).strip().lower()
    if isinstance(track, str) and wanted and wanted in names:
        return names.index(wanted)
    if wanted.isdecimal():
        fits = [int(wanted) - 1] if 1 <= int(wanted) <= len(names) else []
    else:
        fits = [i for i, name in enumerate(names) if wanted and wanted in name]
    if len(fits) == 1:
        return fits[0]
    raise SeqvaeError(f'{"more than one" if fits else "no"} track fits "{track}"; {tracks(song)}')


def rank(name: str) -> int:
    """2 for a part named like a melody, 1 like a treble instrument, -1 like an accompaniment, 0 otherwise."""
    if OTHERS.search(name):
        return -1
    return 2 if TUNES.search(name) else 1 if CARRIERS.search(name) else 0


def score(notes: Sequence[Note], beats: float) -> float:
    """How like the melody of a song of so many beats some notes are: high, one at a time, sounding, moving.

    The mean pitch in octaves + 3 x the share of monophonic time (1/3 in triads) + 2 x the share of the song
    in which they sound + 2 x the onsets a beat, 1 at most.
    """
    onsets, durations, pitches, *_ = zip(*sorted(notes), strict=True)
    sounding = end = 0.0
    for onset, duration in zip(onsets, durations, strict=True):
        sounding += max(0.0, min(duration, onset + duration - end))
        end = max(end, onset + duration)
    single = sounding / max(sum(durations), TICK)
    moving = min(1.0, len(set(onsets)) / beats)
    return sum(pitches) / len(pitches) / 12 + 3 * single + 2 * sounding / beats + 2 * moving


def fold_pitch(pitch: int, low: int, high: int) -> int:
    """The pitch moved by whole octaves into low..high (both included, an octave at least)."""
    if high - low < 11:
        raise SeqvaeError(f"pitches cannot be folded into {low} to {high}, which is less than an octave")
    if pitch < low:
        return pitch - (pitch - low) // 12 * 12
    return pitch + min(0, (high - pitch) // 12) * 12


@overload
def transpose(music: Song, semitones: int) -> Song: ...
@overload
def transpose(music: Sequence[Note], semitones: int) -> tuple[Note, ...]: ...
def transpose(music: Song | Sequence[Note], semitones: int) -> Song | tuple[Note, ...]:
    """A song (its key too, its drums not) or notes moved by semitones, folded by octaves into 0..127."""
    if not isinstance(music, Song):
        return tuple(n._replace(pitch=fold_pitch(n.pitch + semitones, 0, 127)) for n in music)
    parts = tuple(p if p.drums else replace(p, notes=transpose(p.notes, semitones)) for p in music.parts)
    key = music.key and music.key._replace(tonic=(music.key.tonic + semitones) % 12)
    return replace(music, parts=parts, key=key)


def seconds(song: Song, beats: float) -> float:
    """When a beat sounds, in seconds from beat 0 (before it the first tempo holds)."""
    ats, times, paces = song.clock
    i = max(0, bisect_right(ats, beats) - 1)
    return times[i] + (beats - ats[i]) * paces[i]


def beats_at(song: Song, seconds: float) -> float:
    """The beat that sounds at a time in seconds: the inverse of seconds()."""
    ats, times, paces = song.clock
    i = max(0, bisect_right(times, seconds) - 1)
    return ats[i] + (seconds - times[i]) / paces[i]


def assemble(
    phrases: Sequence[Phrase],
    *,
    onsets: Sequence[float] | None = None,
    tempo: float = 120.0,
    program: int = 0,
    key: Key | None = None,
    title: str = "",
) -> Song:
    """A song of the parts of the phrases' ensemble.

    Phrases lie end to end from beat 0, or each at its own onset (beats). With the onsets of windows() the
    song keeps the time, metre changes and pickup of the one they were cut from. A voice sounds one note at a
    time, drums one of each key: it lasts to the next onset at most, so the last of a phrase may sound into
    the next phrase, and the last of all keeps its duration. Of notes on one tick the highest stays, and notes
    at or past the next phrase's onset or before beat 0 go; a notice counts what was left out. The programme
    is a melody's. Raises SeqvaeError without phrases.
    """
    if not phrases:
        raise SeqvaeError("there are no phrases to assemble a song from")
    if onsets is None:
        onsets = [0.0]
        for phrase in phrases[:-1]:
            onsets.append(onsets[-1] + phrase.beats)
    metre, anchor = phrases[0].metre, min(0.0, onsets[0])  # anchor: a bar line the next ones are counted from
    pickup = anchor + metre.beats if anchor else 0.0
    metres, notes = [(0.0, metre)], []
    for phrase, onset, end in zip(phrases, onsets, [*onsets[1:], inf], strict=True):
        if phrase.metre != metre or (onset - anchor + SLACK) % metre.beats > 2 * SLACK:
            metre, anchor = phrase.metre, onset
            metres.append((onset, metre))
        for note in phrase.notes:
            if -SLACK < (at := onset + note.onset) < end:
                notes.append(note._replace(onset=max(0.0, at)))
    parts = tuple(
        replace(part, notes=lines([note for note in notes if note.voice == voice], part.drums))
        for voice, part in enumerate(ENSEMBLES[phrases[0].ensemble])
    )
    parts = parts if phrases[0].ensemble else (replace(parts[0], program=program),)
    lost = sum(len(phrase.notes) for phrase in phrases) - sum(len(part.notes) for part in parts)
    notices = (f"{lost} notes with no place in the line were left out",) if lost else ()
    return Song(parts, tuple(metres), ((0.0, tempo),), key, title, pickup, notices)


def lines(notes: Sequence[Note], drums: bool) -> tuple[Note, ...]:
    """The notes of one voice as a part plays them: one at a time, or of drums one at a time of each pitch."""
    pitches = sorted({note.pitch for note in notes}) if drums else [-1]
    each = [[note for note in notes if note.pitch == pitch or not drums] for pitch in pitches]
    return tuple(sorted(note._replace(voice=0) for line in each for note in cut(highest(line))))


def find_key(notes: Sequence[Note]) -> Key:
    """The key whose Krumhansl-Kessler profile correlates best with the time spent on each pitch class.

    Ties go to major, then to the lowest tonic. Raises SeqvaeError without notes. (Krumhansl 1990, chapter 4)
    """
    if not notes:
        raise SeqvaeError("there are no notes to find a key from")
    held = np.zeros(12)
    for note in notes:
        held[note.pitch % 12] += max(note.duration, TICK)
    held /= held.sum()
    mode, tonic = divmod(int(np.argmax((STANDARD @ held).round(9))), 12)
    return Key(tonic, tuple(PROFILES)[mode])
