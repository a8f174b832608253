"""The ``melody`` codec: a window of melody as events, one a step of time: hold, note-off or a pitch.

MusicVAE's spelling (Roberts et al. 2018, section 4), in any metre and with an END. Loudness is not spelt. The
metre is the condition.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from seqvae.codecs.bars import HIGHEST, LOWEST, BarsCodec
from seqvae.codecs.base import Encoded, Stream
from seqvae.song import TICKS, Note, Phrase, SeqvaeError, fold_pitch

HOLD, OFF, FIRST = 0, 1, 2  # symbols; FIRST is the lowest pitch
END = FIRST + HIGHEST - LOWEST + 1
LOUDNESS = 80  # of every note
STEPS = (1, 3)  # ticks, of which every bar on the grid is a multiple


class GridCodec(BarsCodec):
    """Spells a `Phrase` in steps of ``step`` ticks; 3 is a sixteenth.

    Onsets and ends are rounded to the nearest step, pitches outside the piano are folded by octaves, a note
    lasts a step at least and ends with the window at the latest; of notes on one step the first stays. Raises
    `SeqvaeError` for windows without a bar or a quarter.
    """

    name = "melody"

    def __init__(self, bars: int = 2, bar_ticks: int = 72, step: int = 3) -> None:
        super().__init__(bars, bar_ticks)
        self.step = step  # ticks
        if step not in STEPS:
            raise SeqvaeError(f"a step is 1 or 3 ticks, so that any bar is whole, not {step}")
        self.longest = bars * bar_ticks // step + 1
        self.streams: tuple[Stream, ...] = (Stream("event", "category", END + 1),)

    def config(self) -> dict[str, int | str]:
        return super().config() | {"step": self.step}

    def snapped(self, beats: float) -> int:
        """The tick that a time goes to."""
        return round(beats * TICKS / self.step) * self.step

    def encode(self, raw: Phrase) -> Encoded:
        """Raises `SeqvaeError` when the phrase is of another length in bars or its metre does not fit."""
        condition = self.condition(raw)
        count = self.bars * raw.metre.ticks // self.step
        placed = [(min(max(self.snapped(n.onset) // self.step, 0), count - 1), n) for n in raw.notes]
        starts = {at: note for at, note in reversed(placed)}  # of notes on one step the first
        events = np.full((count + 1, 1), HOLD, np.int16)
        events[count] = END
        order = sorted(starts)
        for at, after in zip(order, [*order[1:], count], strict=False):
            note = starts[at]
            events[at] = FIRST + fold_pitch(note.pitch, LOWEST, HIGHEST) - LOWEST
            over = max(self.snapped(note.onset + note.duration) // self.step, at + 1)
            if over < after:
                events[over] = OFF
        return Encoded(events, condition)

    def decode(self, steps: np.ndarray, condition: np.ndarray) -> Phrase:
        """Any integers become a phrase: reading stops at END or with the window; what never began is rest."""
        frame = self.frame(condition)
        count = self.bars * frame.metre.ticks // self.step
        events = np.asarray(steps).reshape(-1)[:count].tolist()
        notes: list[list[int]] = []  # onset, end (steps), pitch
        sounding = False
        for at, event in enumerate(events):
            if event >= END or event < HOLD:
                break
            if event >= FIRST:
                notes.append([at, at + 1, LOWEST + event - FIRST])
            elif event == HOLD and sounding:
                notes[-1][1] = at + 1
            sounding = event >= FIRST or (event == HOLD and sounding)
        beat = TICKS / self.step
        line = (Note(at / beat, (over - at) / beat, pitch, LOUDNESS) for at, over, pitch in notes)
        return replace(frame, notes=tuple(line))

    def augment(
        self, steps: np.ndarray, lengths: np.ndarray, conditions: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Each row (B, T, 1) transposed by its own number of semitones, -6 .. 5, as the piano allows."""
        pitched = (steps[..., 0] >= FIRST) & (steps[..., 0] < END)
        return self.transposed(steps, 0, FIRST, pitched, rng), conditions

    def fingerprint(self, steps: np.ndarray, condition: np.ndarray) -> bytes:
        """Onsets, ends, intervals and metre: the same in another key."""
        events = np.array(steps[:-1, 0], np.int16)
        pitched = events >= FIRST
        events[pitched] += END - events[pitched][:1]  # relative, and neither HOLD nor OFF: at least END - 87
        return np.asarray(condition, np.int16).tobytes() + events.tobytes()
