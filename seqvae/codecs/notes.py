"""The ``notes`` codec: a window of melody, one step a note, with streams onset, pitch, duration and velocity.

Time is a grid of 12 ticks a quarter note, which holds sixteenths, triplets and sextuplets exactly. The onset
counts from the section's start; the duration may run past its end. A section is the whole window, or so many
bars, and ends with END. The metre, and perhaps the harmony, is the condition.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from seqvae.codecs.bars import HIGHEST, LARGEST, LONGEST, LOWEST, BarsCodec
from seqvae.codecs.base import Encoded, Stream
from seqvae.song import TICKS, Note, Phrase, SeqvaeError, fold_pitch

LEVELS = 8  # velocity steps of 16


class NotesCodec(BarsCodec):
    """Spells a `Phrase` note by note, in sections of ``section`` bars, 0: of all.

    Onsets and ends are rounded to the nearest tick, velocities to 8 levels; pitches outside the piano are
    folded by octaves, durations lie in 1 .. 192 ticks; of notes on one tick the first stays. With ``chords``
    2 the decoder is told the two chords of each bar and the key. Raises `SeqvaeError` for windows without a
    bar or a quarter, sections that do not fill one, that are told chords, or that are too long for int16.
    """

    name = "notes"

    def __init__(self, bars: int = 2, bar_ticks: int = 72, section: int = 0, chords: int = 0) -> None:
        super().__init__(bars, bar_ticks, chords)
        self.section = section or bars  # bars
        self.end = self.section * bar_ticks  # END: greater than every onset
        self.sections, rest = divmod(bars, self.section)
        self.longest = self.sections * (self.end + 1)
        if rest or self.end > LARGEST:
            raise SeqvaeError(f"no notes codec spells {bars} bars of {bar_ticks} ticks by {section}")
        if chords and self.sections > 1:
            raise SeqvaeError("chords are told to windows that are one section")
        self.streams: tuple[Stream, ...] = (
            Stream("onset", "increasing", self.end + 1),
            Stream("pitch", "ordinal", HIGHEST - LOWEST + 1),
            Stream("duration", "ordinal", LONGEST),
            Stream("velocity", "ordinal", LEVELS),
        )

    def config(self) -> dict[str, int | str]:
        return super().config() | ({"section": self.section} if self.sections > 1 else {})

    def of_section(self) -> NotesCodec:
        """What spells a section alone."""
        return NotesCodec(self.section, self.bar_ticks)

    def encode(self, raw: Phrase) -> Encoded:
        """Raises `SeqvaeError` when the phrase is of another length in bars or its metre does not fit."""
        condition = self.condition(raw)
        length = self.section * raw.metre.ticks  # ticks of a section
        last, shift = self.sections * length - 1, self.shift(raw)
        rows: dict[int, tuple[int, int, int, int]] = {}
        for onset, duration, pitch, velocity, _ in raw.notes:
            start = min(max(self.snapped(onset), 0), last)
            ticks = round((onset + duration) * TICKS) - start
            pitch = fold_pitch(pitch + shift, LOWEST, HIGHEST) - LOWEST
            level = min(max(velocity, 0), 127) * LEVELS // 128
            rows.setdefault(start, (start % length, pitch, min(max(ticks, 1), LONGEST) - 1, level))
        ends = {(i + 1) * length - 0.5: (self.end, 0, 0, 0) for i in range(self.sections)}
        return Encoded(np.array([row for _, row in sorted((rows | ends).items())], np.int16), condition)

    def decode(self, steps: np.ndarray, condition: np.ndarray) -> Phrase:
        """Any integers become a phrase: reading stops at the last END; notes out of place or order go.

        Overlaps are cut at the next onset: a melody sounds one note at a time.
        """
        frame = self.frame(condition)
        length, lowest = self.section * frame.metre.ticks, LOWEST - self.shift(frame)
        stop, begin = self.sections * length, 0
        kept: list[tuple[int, int, int, int]] = []
        for onset, pitch, ticks, level in np.asarray(steps).reshape(-1, 4).tolist():
            if onset >= self.end or onset < 0:
                begin += length
                if begin == stop:
                    break
            elif onset < length and (not kept or begin + onset > kept[-1][0]):
                kept.append(
                    (begin + onset, pitch % (HIGHEST - LOWEST + 1), ticks % LONGEST + 1, level % LEVELS)
                )
        ends = [row[0] for row in kept[1:]] + [stop + LONGEST] * bool(kept)  # where each note must end
        notes = tuple(
            Note(onset / TICKS, min(ticks, end - onset) / TICKS, lowest + pitch, level * 16 + 8)
            for (onset, pitch, ticks, level), end in zip(kept, ends, strict=True)
        )
        return replace(frame, notes=notes)

    def augment(
        self, steps: np.ndarray, lengths: np.ndarray, conditions: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Each row (B, T, 4) transposed by its own number of semitones, -6 .. 5, as the piano allows.

        Of windows told a key it is that alone which changes.
        """
        if self.chords:
            return steps, self.retold(conditions, rng)
        real = np.arange(steps.shape[1]) < (lengths - 1)[:, None]  # (B, T) neither the last END nor padding
        real &= steps[..., 0] != self.end
        return self.transposed(steps, 1, 0, real, rng), conditions

    def fingerprint(self, steps: np.ndarray, condition: np.ndarray) -> bytes:
        """Onsets, intervals and metre: the same in another key, articulation, loudness or harmony."""
        notes = np.array(steps[:-1, :2], np.int16)
        sounding = notes[:, 0] != self.end
        notes[sounding, 1] -= notes[sounding, 1][:1]
        return np.asarray(condition[: self.ruling], np.int16).tobytes() + notes.tobytes()
