"""The ``voices`` codec: a window of several parts, one step a note, in order of onset and voice.

Streams are onset, which rises or stays, voice, pitch, duration and velocity. The grid, END and the metre as
condition are those of ``notes``. Which parts the voices are, `song.ENSEMBLES` says. The pitch of a drum is
its key of General MIDI.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import numpy as np

from seqvae.codecs.bars import HIGHEST, LARGEST, LONGEST, LOWEST, BarsCodec
from seqvae.codecs.base import Encoded, Stream
from seqvae.codecs.notes import LEVELS
from seqvae.ensembles import Voices, every_quarter, sampled, voices
from seqvae.song import ENSEMBLES, TICKS, Note, Phrase, SeqvaeError, Song, fold_pitch

HITS = 6  # of drums on a tick, at most: the lowest keys

Rows = dict[tuple[int, int, int], tuple[int, int, int, int, int]]  # by onset, voice and, of drums, key


class VoicesCodec(BarsCodec):
    """Spells a `Phrase` of an ensemble, "chorale" or "trio".

    A voice sounds one note at a time, drums one at a time of each key. Onsets, ends, velocities and pitches
    are rounded and folded as by ``notes``; drums whose key the piano lacks go. With ``quarters`` a voice is
    what it sounds at every quarter of a bar, a note of a beat each: what the data set JSB Chorales
    (Boulanger-Lewandowski et al. 2012) holds as a piano roll, with its voices told. Raises `SeqvaeError` for
    an unknown ensemble, drums by quarters, windows without a bar or a quarter, or too long for int16.
    """

    name = "voices"

    def __init__(
        self, bars: int = 2, bar_ticks: int = 72, ensemble: str = "chorale", quarters: int = 0
    ) -> None:
        super().__init__(bars, bar_ticks)
        known = [name for name in ENSEMBLES if name]
        if ensemble not in known:
            raise SeqvaeError(f"there is no ensemble {ensemble!r}; known: {', '.join(known)}")
        self.ensemble, self.parts, self.quarters = ensemble, ENSEMBLES[ensemble], bool(quarters)
        drums = sum(part.drums for part in self.parts)
        if drums and quarters:
            raise SeqvaeError("quarters are of voices that hold their notes, and drums do not")
        self.end = bars * bar_ticks  # END: greater than every onset
        if self.end > LARGEST:
            raise SeqvaeError(f"no voices codec spells {bars} bars of {bar_ticks} ticks")
        moments = bars * ceil(bar_ticks / TICKS) if quarters else self.end
        self.longest = moments * (len(self.parts) - drums + HITS * drums) + 1
        self.streams: tuple[Stream, ...] = (
            Stream("onset", "rising", self.end + 1),
            Stream("voice", "category", len(self.parts)),
            Stream("pitch", "ordinal", HIGHEST - LOWEST + 1),
            Stream("duration", "ordinal", LONGEST),
            Stream("velocity", "ordinal", LEVELS),
        )

    def config(self) -> dict[str, int | str]:
        return super().config() | {"ensemble": self.ensemble} | ({"quarters": 1} if self.quarters else {})

    def voices(self, song: Song, track: str | int | None = None) -> Voices:
        """Raises `SeqvaeError` where the song lacks a voice."""
        found = voices(song, self.ensemble, track)
        if not self.quarters:
            return found
        notes = sampled(found.part.notes, every_quarter(song), song.beats)
        return found._replace(part=replace(found.part, notes=notes))

    def encode(self, raw: Phrase) -> Encoded:
        """Raises `SeqvaeError` when the phrase is another ensemble's, or its length or metre does not fit."""
        condition = self.condition(raw)
        last = self.bars * raw.metre.ticks - 1
        rows: Rows = {}
        for onset, duration, pitch, velocity, voice in self.heard(raw):
            if 0 <= voice < len(self.parts):
                drums = self.parts[voice].drums
                start = min(max(self.snapped(onset), 0), last)
                ticks = min(max(round((onset + duration) * TICKS) - start, 1), LONGEST)
                level = min(max(velocity, 0), 127) * LEVELS // 128
                key = (pitch if drums else fold_pitch(pitch, LOWEST, HIGHEST)) - LOWEST
                if 0 <= key <= HIGHEST - LOWEST:
                    row = start, voice, key, ticks - 1, level
                    rows.setdefault((start, voice, key if drums else -1), row)
        found = [*self.ordered(rows), (self.end, 0, 0, 0, 0)]
        return Encoded(np.array(found, np.int16), condition)

    def heard(self, phrase: Phrase) -> tuple[Note, ...]:
        """The notes that are spelt of a phrase."""
        if not self.quarters:
            return phrase.notes
        beats = phrase.metre.beats
        times = [bar * beats + i for bar in range(self.bars) for i in range(ceil(beats))]
        return sampled(phrase.notes, times, phrase.beats)

    def ordered(self, rows: Rows) -> list[tuple[int, int, int, int, int]]:
        """The rows in order but for those past a tick's HITS."""
        found, hits = [], dict.fromkeys((onset for onset, _, _ in rows), 0)
        for (onset, voice, _), row in sorted(rows.items()):
            hits[onset] += self.parts[voice].drums
            if hits[onset] <= HITS or not self.parts[voice].drums:
                found.append(row)
        return found

    def decode(self, steps: np.ndarray, condition: np.ndarray) -> Phrase:
        """Any integers become a phrase: reading stops at END; notes with no place go.

        A note is cut at the next onset of its voice, of drums of its key.
        """
        frame = self.frame(condition)
        length = self.bars * frame.metre.ticks
        rows: Rows = {}
        for onset, voice, pitch, ticks, level in np.asarray(steps).reshape(-1, 5).tolist():
            if onset >= self.end or onset < 0:
                break
            if onset < length:
                voice, pitch = voice % len(self.parts), pitch % (HIGHEST - LOWEST + 1)
                line = pitch if self.parts[voice].drums else -1
                row = onset, voice, pitch, ticks % LONGEST, level % LEVELS
                rows.setdefault((onset, voice, line), row)
        notes: list[Note] = []
        ends: dict[tuple[int, int], int] = {}
        for onset, voice, pitch, ticks, level in reversed(self.ordered(rows)):
            line = voice, pitch if self.parts[voice].drums else -1
            ticks = min(ticks + 1, ends.get(line, length + LONGEST) - onset)
            ends[line] = onset
            notes.append(Note(onset / TICKS, ticks / TICKS, LOWEST + pitch, level * 16 + 8, voice))
        phrase = replace(frame, notes=tuple(reversed(notes)))
        return replace(phrase, notes=self.heard(phrase))

    def augment(
        self, steps: np.ndarray, lengths: np.ndarray, conditions: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Each row (B, T, 5) but for its drums transposed by its own number of semitones, -6 .. 5, as the
        piano allows."""
        pitched = np.array([not part.drums for part in self.parts])[steps[..., 1]]
        pitched &= np.arange(steps.shape[1]) < (lengths - 1)[:, None]  # (B, T) neither END nor padding
        return self.transposed(steps, 2, 0, pitched, rng), conditions

    def fingerprint(self, steps: np.ndarray, condition: np.ndarray) -> bytes:
        """Onsets, voices, intervals, drums and metre: the same in another key, articulation or loudness."""
        notes = np.array(steps[:-1, :3], np.int16)
        pitched = np.array([not part.drums for part in self.parts])[notes[:, 1]]
        notes[pitched, 2] -= notes[pitched, 2][:1]
        return np.asarray(condition, np.int16).tobytes() + notes.tobytes()
