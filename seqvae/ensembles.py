"""Which parts of a song are the voices of an ensemble, and what sounds at every quarter.

Conventions: an ensemble is a name of ``song.ENSEMBLES`` but for "", a melody; a voice is a place there. A
song that lacks a voice is refused with one sentence that says which.
"""

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from typing import NamedTuple

from seqvae.song import ENSEMBLES, SLACK, Note, Part, SeqvaeError, Song, bars, melody, skyline, tracks

CHOIR = (r"\bsopran|\bdis[ck]ant", r"\balt", r"\bt[eé]n", r"\bbass(?!oon|et)")
SINGERS = "named soprano, alto, tenor and bass"
BASS = re.compile(r"(?i)\bbass(?!oon|et)")
BASSES = range(32, 40)  # General MIDI


class Voices(NamedTuple):
    """The voices found in a song."""

    tracks: tuple[tuple[int, ...], ...]  # of each voice the indices of its parts; one, but for drums
    part: Part  # all their notes, each told its voice, in order


def voices(song: Song, ensemble: str, track: str | int | None = None) -> Voices:
    """The voices of an ensemble, "" for the melody alone, pitched ones made monophonic by skyline().

    A chorale's are the four parts named soprano, alto, tenor and bass, else the only four pitched parts, from
    the highest on average to the lowest. A trio's are the `melody`, of the other pitched parts the bass, by
    its General MIDI programme or name, else the lowest on average, and all drums. `track` names the melody's
    part. Raises SeqvaeError where one is missing, or a track is named for a chorale.
    """
    if ensemble == "chorale":
        if track is not None:
            raise SeqvaeError("a chorale's four voices are found by themselves; leave out the track")
        found: list[tuple[int, ...]] = [(i,) for i in choir(song)]
    elif ensemble == "trio":
        found = trio(song, track)
    else:
        lead, line = melody(song, track)
        return Voices(((lead,),), line)
    notes: list[Note] = []
    for voice, (own, of) in enumerate(zip(found, ENSEMBLES[ensemble], strict=True)):
        played = sorted(note for i in own for note in song.parts[i].notes)
        notes += [note._replace(voice=voice) for note in (played if of.drums else skyline(played))]
    first = song.parts[found[0][0]]
    return Voices(tuple(found), replace(first, notes=tuple(sorted(notes, key=order))))


def order(note: Note) -> tuple[float, int, int]:
    return note.onset, note.voice, note.pitch


def choir(song: Song) -> list[int]:
    """Indices of the parts that sing soprano, alto, tenor and bass."""
    pitched = [i for i, part in enumerate(song.parts) if part.notes and not part.drums]
    named = [[i for i in pitched if re.search(name, song.parts[i].name, re.I)] for name in CHOIR]
    chosen = [own[0] for own in named if len(own) == 1]
    if len(set(chosen)) == len(CHOIR):
        return chosen
    if len(pitched) != len(CHOIR):
        parts = f"{len(pitched)} pitched part{'s' * (len(pitched) != 1)}"
        which = "not one each" if any(named) else "none"
        raise SeqvaeError(f"a chorale has four voices, and the song has {parts}, {which} {SINGERS}")
    return sorted(pitched, key=lambda i: -height(song.parts[i]))


def trio(song: Song, track: str | int | None) -> list[tuple[int, ...]]:
    """Indices of the parts that play the melody, the bass and the drums."""
    drums = tuple(i for i, part in enumerate(song.parts) if part.notes and part.drums)
    others = [i for i, part in enumerate(song.parts) if part.notes and not part.drums]
    if not drums or len(others) < 2:
        lacks = "no drums" if not drums else "only one pitched part" if others else "only drums"
        raise SeqvaeError(f"a trio is melody, bass and drums, and the song has {lacks}; {tracks(song)}")
    basses = [i for i in others if song.parts[i].program in BASSES or BASS.search(song.parts[i].name)]
    if track is None and len(basses) < len(others):  # a bass line is no melody while there is another part
        silent = (replace(part, notes=()) if i in basses else part for i, part in enumerate(song.parts))
        lead = melody(replace(song, parts=tuple(silent)))[0]
    else:
        lead = melody(song, track)[0]
    left = [i for i in basses if i != lead] or [i for i in others if i != lead]
    return [(lead,), (min(left, key=lambda i: height(song.parts[i])),), drums]


def height(part: Part) -> float:
    """The mean pitch."""
    return sum(note.pitch for note in part.notes) / len(part.notes)


def every_quarter(song: Song) -> list[float]:
    """The quarters of every bar, from its bar line on (beats)."""
    lines = [onset for onset, _ in bars(song)]
    onset, metre = bars(song)[-1]
    ends = [*lines[1:], onset + metre.beats]
    return [at + i for at, end in zip(lines, ends, strict=True) for i in range(ceil(end - at - SLACK))]


def sampled(notes: Sequence[Note], times: Sequence[float], end: float) -> tuple[Note, ...]:
    """What each voice sounds at every one of the rising times (beats), up to the next or the end, in `order`.

    Notes before times that are nearer than half a tick begin there; a note sounds until its end or the next
    one of its voice.
    """
    found: list[Note] = []
    for voice in sorted({note.voice for note in notes}):
        own = sorted(note for note in notes if note.voice == voice)
        onsets = [note.onset - SLACK for note in own]
        for at, after in zip(times, [*times[1:], end], strict=True):
            i = bisect_right(onsets, at) - 1
            if i >= 0 and own[i].onset + own[i].duration > at + SLACK:
                found.append(own[i]._replace(onset=at, duration=after - at))
    return tuple(sorted(found, key=order))
