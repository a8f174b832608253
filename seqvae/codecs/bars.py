"""What the codecs of melodies share: windows of bars on the grid, whose metre the decoder is told."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from seqvae.codecs.base import Codec, Stream
from seqvae.song import TICKS, Metre, Phrase, SeqvaeError, Song, melody, windows

LOWEST, HIGHEST = 21, 108  # the piano's range
LONGEST = 16 * TICKS  # ticks: four bars of 4/4
DENOMINATORS = (1, 2, 4, 8, 16, 32, 64)
LARGEST = 32767  # of a symbol, an int16
SHIFTS = (-6, 5)  # semitones: every key once


class BarsCodec(Codec[Phrase]):
    """Base of codecs of a `Phrase` of ``bars`` bars, each at most ``bar_ticks`` ticks long (72: 12/8, 3/2).

    Raises `SeqvaeError` for windows without a bar or a quarter.
    """

    kind, state = "melody", b""

    def __init__(self, bars: int, bar_ticks: int) -> None:
        self.bars, self.bar_ticks = bars, bar_ticks
        if bars < 1 or not TICKS <= bar_ticks <= 64 * TICKS:
            raise SeqvaeError(f"no {self.name} codec spells windows of {bars} bars of {bar_ticks} ticks")
        self.conditions: tuple[Stream, ...] = (
            Stream("numerator", "category", 65),
            Stream("denominator", "category", len(DENOMINATORS)),
        )

    def config(self) -> dict[str, int | str]:
        return {"name": self.name, "bars": self.bars, "bar_ticks": self.bar_ticks}

    def pieces(self, source: object) -> Iterator[tuple[int, Phrase]]:
        """Every window of a song's melody, at every bar, that holds a note: (bar, phrase)."""
        if not isinstance(source, Song):
            raise SeqvaeError(f"the {self.name} codec spells songs, not {type(source).__name__}")
        _, part = melody(source)
        for window in windows(source, part, self.bars, hop=1):
            if window.phrase.notes:
                yield window.bar, window.phrase

    def condition(self, metre: Metre) -> np.ndarray:
        """(2,) the metre as symbols. Raises `SeqvaeError` for no metre, or a bar off the grid or too long."""
        if not metre.possible:
            raise SeqvaeError(f"{metre} is not a metre")
        if metre.ticks > self.bar_ticks:
            longest = f"{self.bar_ticks / TICKS:g} quarter notes"
            raise SeqvaeError(f"a bar of {metre} is longer than this model's longest bar, {longest}")
        return np.array([metre.numerator, DENOMINATORS.index(metre.denominator)], np.int16)

    def metre(self, condition: np.ndarray) -> Metre:
        """The metre of symbols (2,); where the codec spells none such, its longest bar of quarters."""
        metre = Metre(int(condition[0]), DENOMINATORS[int(condition[1]) % len(DENOMINATORS)])
        ticks = metre.beats * TICKS
        fits = metre.possible and ticks <= self.bar_ticks and ticks == int(ticks)
        return metre if fits else Metre(self.bar_ticks // TICKS, 4)

    def check(self, phrase: Phrase) -> np.ndarray:
        """What the decoder is told of a phrase. Raises `SeqvaeError` for one of another number of bars."""
        if phrase.bars != self.bars:
            raise SeqvaeError(f"this model spells windows of {self.bars} bars, not {phrase.bars}")
        return self.condition(phrase.metre)

    def moved(self, phrase: Phrase) -> int:
        """How many onsets snapping moves by more than a hundredth of a tick."""
        return sum(abs(n.onset * TICKS - self.snapped(n.onset)) > 0.01 for n in phrase.notes)

    def snapped(self, beats: float) -> int:
        """The tick that a time goes to."""
        return round(beats * TICKS)

    def snap(self, raw: Phrase) -> Phrase:
        return self.decode(*self.encode(raw))

    def shifts(
        self, pitch: np.ndarray, sounding: np.ndarray, highest: int, rng: np.random.Generator
    ) -> np.ndarray:
        """A transposition (B,) of its own for each row, -6 .. 5 semitones as 0 .. highest allow.

        pitch (B, T) counts where sounding (B, T) is true.
        """
        low = np.where(sounding, pitch, highest).min(1)
        high = np.where(sounding, pitch, 0).max(1)
        shift = rng.integers(SHIFTS[0], SHIFTS[1], size=len(pitch), endpoint=True)
        return np.asarray(np.clip(shift, -low, highest - high))
