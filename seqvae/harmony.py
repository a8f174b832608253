"""Harmony: the chords and the key of a song, chords written as text, and chords as something to hear.

Conventions: a chord is a triad, a `Key` (its root, major or minor), or None where none sounds; sevenths and
all other colours are reduced to it. A bar has two chords, one a half.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from seqvae.song import (
    PROFILES,
    SHARPS,
    SLACK,
    STANDARD,
    TONICS,
    Key,
    Note,
    Part,
    Phrase,
    SeqvaeError,
    Song,
    Window,
    bars,
    find_key,
)

HALVES = 2  # chords a bar
SYMBOLS = 25  # none, 12 major and 12 minor
CHORDS = re.compile(r"(?i)chord")  # parts named so are harmony before any others
# A root; what makes a triad minor, diminished ones too; other colours; a bass, which is not heard.
WRITTEN = re.compile(
    r"([A-G])([#♯b♭]?):?(m(?!aj)|mi|min|-|h?dim|°|o|ø)?"
    r"(?:maj|M|Δ|aug|\+|sus|add|alt|no|[#♯b♭/-]?\d+|[(),])*(?:/[A-G][#♯b♭]?)?"
)
NONE = ("N.C.", "NC", "N", "-")  # a chord that is none
BASS, NEAR = 0.02, 0.001  # shares of what sounds: what a root in the bass, or a chord near the key, is worth
LOWEST = 43  # of the roots of block chords: the G an octave and a half below middle C
TRIADS = np.zeros((24, 12))  # 1 where a chord has a pitch class, in the order of `symbol`
for _mode, _third in enumerate((4, 3)):
    for _root in range(12):
        TRIADS[12 * _mode + _root, [_root, (_root + _third) % 12, (_root + 7) % 12]] = 1


def symbol(chord: Key | None) -> int:
    """0 for none, 1 .. 12 for major chords or keys from C up, 13 .. 24 for minor ones."""
    return 0 if chord is None else 1 + 12 * list(PROFILES).index(chord.mode) + chord.tonic % 12


def chord_of(symbol: int) -> Key | None:
    """The chord or key of a symbol; none of any other integer."""
    if not 1 <= symbol < SYMBOLS:
        return None
    mode, root = divmod(symbol - 1, 12)
    return Key(root, tuple(PROFILES)[mode])


def moved(symbols: np.ndarray, semitones: np.ndarray | int) -> np.ndarray:
    """Symbols (...) of chords transposed by semitones, as many or one for all; none stays none."""
    mode, root = np.divmod(symbols - 1, 12)
    return np.where(symbols > 0, 1 + 12 * mode + (root + semitones) % 12, symbols)


def home(key: Key | None) -> int:
    """The semitones, -6 .. 5, that bring a key to C major or A minor; 0 for none."""
    return 0 if key is None else (6 - key.tonic - 3 * (key.mode == "minor")) % 12 - 6


def name(chord: Key | None) -> str:
    """ "C", "F#m", or "N.C." for none: what `parse_chords` reads."""
    return NONE[0] if chord is None else TONICS[chord.mode][chord.tonic] + "m" * (chord.mode == "minor")


def classes(chord: Key) -> frozenset[int]:
    """The pitch classes of a triad."""
    return frozenset(np.flatnonzero(TRIADS[symbol(chord) - 1]).tolist())


def parse_chords(text: str) -> tuple[Key | None, ...]:
    """The chords of half bars, two a bar, of a progression as lead sheets have it.

    "C G Am F" is four bars; with bar lines a bar has one chord or two: "C | G Am | F". A chord is a capital
    root, "m" or "dim" where its third is minor, and any colours and bass ("G7", "F#m7b5", "Csus4/G"), which
    are left out; "N.C." or "-" is none. Raises `SeqvaeError` for what is no chord, and for more than two in a
    bar.
    """
    cells = [cell.split() for cell in text.split("|")]
    if len(cells) == 1:
        cells = [[chord] for chord in cells[0]]
    halves: list[Key | None] = []
    for cell in cells:
        if len(cell) > HALVES:
            raise SeqvaeError(f'a bar has one chord or two, not {len(cell)}: "{" ".join(cell)}"')
        halves += [triad(chord) for chord in cell for _ in range(HALVES // len(cell))]
    if not halves:
        raise SeqvaeError("there are no chords; write a bar each, like C G Am F, or C | G Am | F")
    return tuple(halves)


def triad(text: str) -> Key | None:
    """The triad of a chord's name. Raises `SeqvaeError` where it is none."""
    if text in NONE:
        return None
    if not (found := WRITTEN.fullmatch(text)):
        raise SeqvaeError(f'"{text}" is not a chord; write it like C, Bb7, F#m or Dm7/G')
    return Key((TONICS["major"].index(found[1]) + SHARPS[found[2]]) % 12, "minor" if found[3] else "major")


def find_chords(song: Song, track: int) -> tuple[tuple[Key | None, ...], Key | None]:
    """The chord of every half bar of `bars`, under the melody that is part `track`, and the song's key.

    Of a half bar it is the triad whose notes sound longest in the other pitched parts, in those named like
    chords if there are any: of equals the one with its root in the bass, then the one nearest to the key;
    none where they are silent. All are () without such parts. The key is the one written in the song, else
    `find_key` of all its pitched notes.
    """
    pitched = [i for i, part in enumerate(song.parts) if part.notes and not part.drums]
    key = song.key or (find_key([n for i in pitched for n in song.parts[i].notes]) if pitched else None)
    others = [song.parts[i] for i in pitched if i != track]
    others = [part for part in others if CHORDS.search(part.name)] or others
    if not others or key is None:
        return (), key
    lines = [onset + half * metre.beats / HALVES for onset, metre in bars(song) for half in range(HALVES)]
    lines.append(max(song.beats, lines[-1]))
    edges = np.minimum.accumulate(lines[::-1])[::-1]  # a bar may be cut short before its half
    held, bass = np.zeros((len(lines) - 1, 12)), np.full(len(lines) - 1, 127)
    for note in (note for part in others for note in part.notes):
        end = note.onset + note.duration
        first, last = np.searchsorted(edges, note.onset, "right") - 1, np.searchsorted(edges, end)
        span = slice(max(first, 0), last)
        sounding = np.minimum(edges[1:][span], end) - np.maximum(edges[:-1][span], note.onset)
        held[span, note.pitch % 12] += sounding.clip(0)
        bass[span] = np.where(sounding > SLACK, np.minimum(bass[span], note.pitch), bass[span])
    total = held.sum(1, keepdims=True)
    worth = held @ TRIADS.T + NEAR * total * (TRIADS @ STANDARD[symbol(key) - 1])
    worth += BASS * total * (np.arange(24) % 12 == bass[:, None] % 12)
    best = np.where(total[:, 0] > SLACK, 1 + worth.argmax(1), 0)
    return tuple(chord_of(int(one)) for one in best), key


def harmonised(song: Song, track: int, found: Sequence[Window]) -> list[Window]:
    """Windows of a song's part with their chords and key, as `find_chords` finds them."""
    chords, key = find_chords(song, track)

    def told(window: Window) -> Phrase:
        own, phrase = chords[HALVES * window.bar : HALVES * (window.bar + window.held)], window.phrase
        return replace(phrase, chords=(own * phrase.bars)[: HALVES * phrase.bars], key=key)

    return [window._replace(phrase=told(window)) for window in found]


def key_of(chords: Sequence[Key | None]) -> Key | None:
    """The key that a progression is in; None where it has no chord."""
    notes = [Note(0.0, 1.0, pitch) for chord in chords if chord for pitch in classes(chord)]
    return find_key(notes) if notes else None


def block_chords(phrases: Sequence[Phrase], velocity: int = 60) -> Part:
    """The chords of phrases laid end to end as a part to hear, each struck where a bar or it begins."""
    notes, at = [], 0.0
    for phrase in phrases:
        half = phrase.metre.beats / HALVES
        for first in range(0, len(phrase.chords), HALVES):
            bar = phrase.chords[first : first + HALVES]
            struck = [(0, HALVES, bar[0])] if bar[0] == bar[1] else [(i, 1, bar[i]) for i in range(HALVES)]
            for place, lasting, chord in struck:
                if chord is not None:
                    root = LOWEST + (chord.tonic - LOWEST) % 12
                    third = 4 if chord.mode == "major" else 3
                    onset = at + (first + place) * half
                    notes += [Note(onset, lasting * half, root + up, velocity) for up in (0, third, 7)]
        at += phrase.beats
    return Part(tuple(notes), name="chords")
