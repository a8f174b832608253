"""What the codecs of melodies share: windows of bars on the grid, whose metre the decoder is told, and
perhaps the chords and the key.

Where they are told, a window is spelt, notes and chords, as if it were in C major or A minor, so that neither
z nor the decoder has to know twelve keys; the key says where it belongs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from seqvae import harmony
from seqvae.codecs.base import Codec, Stream
from seqvae.ensembles import Voices, voices
from seqvae.song import TICKS, Metre, Phrase, SeqvaeError, Song, Window, windows

LOWEST, HIGHEST = 21, 108  # the piano's range
LONGEST = 16 * TICKS  # ticks: four bars of 4/4
DENOMINATORS = (1, 2, 4, 8, 16, 32, 64)
LARGEST = 32767  # of a symbol, an int16
SHIFTS = (-6, 5)  # semitones: every key once
UNTOLD = 0.1  # of rows to train on: told no chords, and half of these no key, so that it can do without


class BarsCodec(Codec[Phrase]):
    """Base of codecs of a `Phrase` of ``bars`` bars, each at most ``bar_ticks`` ticks long (72: 12/8, 3/2).

    With ``chords`` 2 the decoder is told two a bar, and the key; with 0 none. A window of no key is taken for
    one in C. Raises `SeqvaeError` for windows without a bar or a quarter, and for other numbers of chords.
    """

    kind, state, ruling = "melody", b"", 2
    ensemble = ""  # whose voices it spells; "": a melody

    def __init__(self, bars: int, bar_ticks: int, chords: int = 0) -> None:
        self.bars, self.bar_ticks, self.chords = bars, bar_ticks, chords
        if bars < 1 or not TICKS <= bar_ticks <= 64 * TICKS:
            raise SeqvaeError(f"no {self.name} codec spells windows of {bars} bars of {bar_ticks} ticks")
        if chords not in (0, harmony.HALVES):
            raise SeqvaeError(f"a {self.name} codec is told 0 or {harmony.HALVES} chords a bar, not {chords}")
        told = [f"chord-{i}" for i in range(1, bars * chords + 1)] + ["key"] * bool(chords)
        self.conditions: tuple[Stream, ...] = (
            Stream("numerator", "category", 65),
            Stream("denominator", "category", len(DENOMINATORS)),
            *(Stream(name, "category", harmony.SYMBOLS) for name in told),
        )

    def config(self) -> dict[str, int | str]:
        chords = {"chords": self.chords} if self.chords else {}
        return {"name": self.name, "bars": self.bars, "bar_ticks": self.bar_ticks, **chords}

    def pieces(self, source: object) -> Iterator[tuple[int, Phrase]]:
        """Every window of a song's voices, at every bar, that holds a note: (bar, phrase)."""
        if not isinstance(source, Song):
            raise SeqvaeError(f"the {self.name} codec spells songs, not {type(source).__name__}")
        for window in self.windows(source, self.voices(source), hop=1):
            if window.phrase.notes:
                yield window.bar, window.phrase

    def voices(self, song: Song, track: str | int | None = None) -> Voices:
        """What this codec spells of a song: `ensembles.voices`."""
        return voices(song, self.ensemble, track)

    def windows(self, song: Song, found: Voices, hop: int | None = None) -> list[Window]:
        """`song.windows` of the voices found in it, with its harmony where the codec spells that.

        One that has fewer bars than the codec has them over and over: models are trained on whole windows.
        """
        cut = [one.filled() for one in windows(song, found.part, self.bars, hop, self.ensemble)]
        return harmony.harmonised(song, found.tracks[0][0], cut) if self.chords else cut

    def silence(self, metre: Metre) -> Phrase:
        """A window without notes."""
        return Phrase((), metre, self.bars, ensemble=self.ensemble)

    def condition(self, phrase: Phrase) -> np.ndarray:
        """(C,) what the decoder is told of a phrase: its metre, and its chords and key.

        Raises `SeqvaeError` for another number of bars or chords, other voices, for no metre, or a bar off
        the grid or too long.
        """
        if phrase.ensemble != self.ensemble:
            ours, theirs = (name or "melody" for name in (self.ensemble, phrase.ensemble))
            raise SeqvaeError(f"this model spells a {ours}, not a {theirs}")
        metre, chords = phrase.metre, phrase.chords or (None,) * (self.bars * self.chords)
        if phrase.bars != self.bars:
            raise SeqvaeError(f"this model spells windows of {self.bars} bars, not {phrase.bars}")
        if self.chords and len(chords) != self.bars * self.chords:
            raise SeqvaeError(f"{self.bars} bars have {self.bars * self.chords} chords, not {len(chords)}")
        if not metre.possible:
            raise SeqvaeError(f"{metre} is not a metre")
        if metre.ticks > self.bar_ticks:
            longest = f"{self.bar_ticks / TICKS:g} quarter notes"
            raise SeqvaeError(f"a bar of {metre} is longer than this model's longest bar, {longest}")
        told = np.array([metre.numerator, DENOMINATORS.index(metre.denominator)])
        if self.chords:
            symbols = np.array([harmony.symbol(chord) for chord in chords])
            told = np.r_[told, harmony.moved(symbols, self.shift(phrase)), harmony.symbol(phrase.key)]
        return told.astype(np.int16)

    def shift(self, phrase: Phrase) -> int:
        """The semitones by which a phrase is spelt higher than it is."""
        return harmony.home(phrase.key) if self.chords else 0

    def frame(self, condition: np.ndarray) -> Phrase:
        """The phrase without notes that symbols (C,) tell of; symbols that are no chord tell of none.

        Where the codec spells no such metre it is the longest bar of quarters.
        """
        metre = Metre(int(condition[0]), DENOMINATORS[int(condition[1]) % len(DENOMINATORS)])
        ticks = metre.beats * TICKS
        fits = metre.possible and ticks <= self.bar_ticks and ticks == int(ticks)
        metre = metre if fits else Metre(self.bar_ticks // TICKS, 4)
        frame = self.silence(metre)
        if self.chords:
            frame = replace(frame, key=harmony.chord_of(int(condition[-1])))
            symbols = harmony.moved(np.asarray(condition[2:-1], np.int64), -self.shift(frame))
            chords = tuple(harmony.chord_of(int(one)) for one in symbols)
            frame = replace(frame, chords=chords if any(chords) else ())
        return frame

    def moved(self, phrase: Phrase) -> int:
        """How many onsets snapping moves by more than a hundredth of a tick."""
        return sum(abs(n.onset * TICKS - self.snapped(n.onset)) > 0.01 for n in phrase.notes)

    def snapped(self, beats: float) -> int:
        """The tick that a time goes to."""
        return round(beats * TICKS)

    def snap(self, raw: Phrase) -> Phrase:
        return self.decode(*self.encode(raw))

    def transposed(
        self, steps: np.ndarray, column: int, lowest: int, sounding: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Each row (B, T, K) transposed by its own -6 .. 5 semitones, as the piano allows.

        Pitches stand in a column where sounding (B, T) is true, the piano's lowest as the symbol `lowest`.
        """
        pitch, highest = steps[..., column] - lowest, HIGHEST - LOWEST
        low = np.where(sounding, pitch, highest).min(1)
        high = np.where(sounding, pitch, 0).max(1)
        shift = rng.integers(SHIFTS[0], SHIFTS[1], size=len(pitch), endpoint=True)
        shift = np.clip(shift, -low, highest - high)  # (B,)
        out = steps.copy()
        out[..., column] += np.where(sounding, shift[:, None], 0).astype(steps.dtype)
        return out

    def retold(self, conditions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Conditions (B, C) of windows moved to any keys; a few are told no chords, or no key either.

        As the labels of classifier-free guidance (Ho & Salimans 2022) are left out.
        """
        told = conditions.copy()
        told[:, -1] = harmony.moved(told[:, -1], rng.integers(12, size=len(told)))
        chance = rng.random(len(told))
        told[chance < UNTOLD, 2:-1] = 0
        told[chance < UNTOLD / 2, -1] = 0
        return told
