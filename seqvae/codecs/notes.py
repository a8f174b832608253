"""The ``notes`` codec: a window of melody, one step a note, with streams onset, pitch, duration and velocity.

Time is a grid of 12 ticks a quarter note, which holds sixteenths, triplets and sextuplets exactly. The onset
counts from the window's start; the duration may run past the window's end. The metre is the condition.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from seqvae.codecs.base import Encoded, Stream
from seqvae.song import TICKS, Metre, Note, Phrase, SeqvaeError, Song, fold_pitch, melody, windows

LOWEST, HIGHEST = 21, 108  # the piano's range
LONGEST = 16 * TICKS  # ticks: four bars of 4/4
LEVELS = 8  # velocity steps of 16
DENOMINATORS = (1, 2, 4, 8, 16, 32, 64)
LARGEST = 32767  # of a symbol, an int16
SHIFTS = (-6, 5)  # semitones: every key once


class NotesCodec:
    """Spells a `Phrase` of ``bars`` bars, each at most ``bar_ticks`` ticks long (72: 12/8 and 3/2 fit).

    Onsets and ends are rounded to the nearest tick, velocities to 8 levels; pitches outside the piano are
    folded by octaves, durations lie in 1 .. 192 ticks; of notes on one tick the first stays. Raises
    `SeqvaeError` for windows without a bar or a quarter, or too long for int16.
    """

    name, kind, state = "notes", "melody", b""

    def __init__(self, bars: int = 2, bar_ticks: int = 72) -> None:
        self.bars, self.bar_ticks = bars, bar_ticks
        self.end = bars * bar_ticks  # END: greater than every onset
        self.longest = self.end + 1
        if bars < 1 or not TICKS <= bar_ticks <= 64 * TICKS or self.end > LARGEST:
            raise SeqvaeError(f"no notes codec spells windows of {bars} bars of {bar_ticks} ticks")
        self.streams: tuple[Stream, ...] = (
            Stream("onset", "increasing", self.end + 1),
            Stream("pitch", "ordinal", HIGHEST - LOWEST + 1),
            Stream("duration", "ordinal", LONGEST),
            Stream("velocity", "ordinal", LEVELS),
        )
        self.conditions: tuple[Stream, ...] = (
            Stream("numerator", "category", 65),
            Stream("denominator", "category", len(DENOMINATORS)),
        )

    def config(self) -> dict[str, int | str]:
        return {"name": self.name, "bars": self.bars, "bar_ticks": self.bar_ticks}

    def pieces(self, source: object) -> Iterator[tuple[int, Phrase]]:
        """Every window of a song's melody, at every bar, that holds a note: (bar, phrase)."""
        if not isinstance(source, Song):
            raise SeqvaeError(f"the notes codec spells songs, not {type(source).__name__}")
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

    def moved(self, phrase: Phrase) -> int:
        """How many onsets snapping moves by more than a hundredth of a tick."""
        return sum(abs(n.onset * TICKS - round(n.onset * TICKS)) > 0.01 for n in phrase.notes)

    def snap(self, raw: Phrase) -> Phrase:
        return self.decode(*self.encode(raw))

    def encode(self, raw: Phrase) -> Encoded:
        """Raises `SeqvaeError` when the phrase is of another length in bars or its metre does not fit."""
        if raw.bars != self.bars:
            raise SeqvaeError(f"this model spells windows of {self.bars} bars, not {raw.bars}")
        condition = self.condition(raw.metre)
        last = raw.bars * raw.metre.ticks - 1
        rows: dict[int, tuple[int, int, int, int]] = {}
        for onset, duration, pitch, velocity in raw.notes:
            start = min(max(round(onset * TICKS), 0), last)
            ticks = round((onset + duration) * TICKS) - start
            pitch = fold_pitch(pitch, LOWEST, HIGHEST) - LOWEST
            level = min(max(velocity, 0), 127) * LEVELS // 128
            rows.setdefault(start, (start, pitch, min(max(ticks, 1), LONGEST) - 1, level))
        steps = [rows[start] for start in sorted(rows)] + [(self.end, 0, 0, 0)]
        return Encoded(np.array(steps, np.int16), condition)

    def decode(self, steps: np.ndarray, condition: np.ndarray) -> Phrase:
        """Any integers become a phrase: reading stops at END, and notes out of the window or of order go.

        Overlaps are cut at the next onset: a melody sounds one note at a time.
        """
        metre = self.metre(condition)
        stop = self.bars * metre.ticks
        kept: list[tuple[int, int, int, int]] = []
        for onset, pitch, ticks, level in np.asarray(steps).reshape(-1, 4).tolist():
            if onset >= self.end or onset < 0:
                break
            if onset < stop and (not kept or onset > kept[-1][0]):
                kept.append((onset, pitch % (HIGHEST - LOWEST + 1), ticks % LONGEST + 1, level % LEVELS))
        ends = [row[0] for row in kept[1:]] + [stop + LONGEST] * bool(kept)  # where each note must end
        notes = tuple(
            Note(onset / TICKS, min(ticks, end - onset) / TICKS, LOWEST + pitch, level * 16 + 8)
            for (onset, pitch, ticks, level), end in zip(kept, ends, strict=True)
        )
        return Phrase(notes, metre, self.bars)

    def augment(self, steps: np.ndarray, lengths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Each row (B, T, 4) transposed by its own number of semitones, -6 .. 5, as the piano allows."""
        real = np.arange(steps.shape[1]) < (lengths - 1)[:, None]  # (B, T) notes: neither END nor padding
        pitch = steps[..., 1]
        low = np.where(real, pitch, HIGHEST).min(1)
        high = np.where(real, pitch, 0).max(1)
        shift = rng.integers(SHIFTS[0], SHIFTS[1], size=len(steps), endpoint=True)
        shift = np.clip(shift, -low, HIGHEST - LOWEST - high)  # (B,)
        out = steps.copy()
        out[..., 1] += np.where(real, shift[:, None], 0).astype(steps.dtype)
        return out

    def fingerprint(self, steps: np.ndarray, condition: np.ndarray) -> bytes:
        """Onsets, intervals and metre: the same in another key, articulation or loudness."""
        notes = np.asarray(steps[:-1, :2], np.int16)
        relative = notes - np.array([0, notes[0, 1] if len(notes) else 0], np.int16)
        return np.asarray(condition, np.int16).tobytes() + relative.tobytes()
