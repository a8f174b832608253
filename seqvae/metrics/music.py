"""How like its original, and how like music, a melody is: exact matches, leaps, density, range, key.

Conventions: onsets and durations are compared in grid ticks (TICKS a quarter note), to which they are rounded
here, halves upwards; a match is exact, with no tolerance beyond that rounding. The order of a phrase's notes
never matters. Intervals and ranges are in semitones. A share lies in 0..1; a share or median of nothing is 0.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from math import floor, inf
from typing import NamedTuple

import numpy as np

from seqvae.attributes import MAJOR, pitch_range
from seqvae.harmony import HALVES, classes
from seqvae.song import SLACK, TICKS, Key, Note, Phrase, find_key

OCTAVE = 12  # semitones
SCALES = {"major": MAJOR, "minor": (0, 2, 3, 5, 7, 8, 10)}  # semitones above the tonic


class Overlap(NamedTuple):
    """How many notes two melodies, or two piles of melodies, share."""

    hits: int
    reference: int
    estimate: int

    @property
    def precision(self) -> float:
        return share(self.hits, self.estimate)

    @property
    def recall(self) -> float:
        return share(self.hits, self.reference)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, 2 hits / (reference + estimate); 1 if neither has notes."""
        return 2 * self.hits / both if (both := self.reference + self.estimate) else 1.0


def share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def ticks(beats: float) -> int:
    """A time or duration (beats) on the grid."""
    return floor(beats * TICKS + 0.5)


def overlap(reference: Phrase, estimate: Phrase, spell: Callable[[Note], tuple[int, ...]]) -> Overlap:
    """Notes of one voice in common when each is spelled so; of equal notes each can be matched once."""
    ours, theirs = (
        Counter((note.voice, *spell(note)) for note in phrase.notes) for phrase in (reference, estimate)
    )
    return Overlap((ours & theirs).total(), len(reference.notes), len(estimate.notes))


def onset_pitch_overlap(reference: Phrase, estimate: Phrase) -> Overlap:
    """Notes of one onset tick and one pitch in both; durations and velocities are ignored.

    Source: the onset-only note measure of MIREX (Bay, Ehmann and Downie 2009, "Evaluation of multiple-F0
    estimation and tracking systems"; mir_eval.transcription without offsets), exact ticks for its 50 ms.
    """
    return overlap(reference, estimate, lambda note: (ticks(note.onset), note.pitch))


def onset_overlap(reference: Phrase, estimate: Phrase) -> Overlap:
    """Onset ticks in both, whatever the pitch: the rhythm alone.

    Source: mir_eval.transcription.onset_precision_recall_f1, exact ticks for its 50 ms.
    """
    return overlap(reference, estimate, lambda note: (ticks(note.onset),))


def onset_pitch_f1(reference: Phrase, estimate: Phrase) -> float:
    """F1 of onset_pitch_overlap() of one pair, 0..1."""
    return onset_pitch_overlap(reference, estimate).f1


def onset_f1(reference: Phrase, estimate: Phrase) -> float:
    """F1 of onset_overlap() of one pair, 0..1."""
    return onset_overlap(reference, estimate).f1


def micro(overlaps: Iterable[Overlap]) -> Overlap:
    """All pairs of a corpus counted as one, every note alike: micro(...).f1 is the micro-averaged F1."""
    hits, reference, estimate = map(sum, zip((0, 0, 0), *overlaps, strict=True))
    return Overlap(hits, reference, estimate)


def whole_window_exact(reference: Phrase, estimate: Phrase) -> bool:
    """Whether metre, bars and every note's onset, duration (ticks) and pitch agree; velocities aside."""
    both = overlap(reference, estimate, lambda note: (ticks(note.onset), ticks(note.duration), note.pitch))
    frame = (reference.metre, reference.bars) == (estimate.metre, estimate.bars)
    return frame and both.hits == both.reference == both.estimate


def exact_share(pairs: Iterable[tuple[Phrase, Phrase]]) -> float:
    """Share of (reference, estimate) pairs that are whole_window_exact()."""
    exact = [whole_window_exact(reference, estimate) for reference, estimate in pairs]
    return share(sum(exact), len(exact))


def ordered(phrase: Phrase) -> list[Note]:
    return sorted(phrase.notes, key=lambda note: (note.onset, note.pitch))


def intervals(phrase: Phrase) -> np.ndarray:
    """Signed semitones from each note to the next in order of onset, then of pitch: (notes - 1,)."""
    return np.diff([note.pitch for note in ordered(phrase)])


def leap_share(phrases: Iterable[Phrase], semitones: int = OCTAVE) -> float:
    """Share of the intervals within phrases that are wider than so many semitones, over all phrases together.

    From one phrase to the next is no interval. Real melodies move by small intervals and hardly ever beyond
    an octave (pitch proximity: Huron 2006, "Sweet Anticipation"), so a high share betrays noise.
    """
    sizes = np.abs(np.concatenate([np.empty(0), *map(intervals, phrases)]))
    return share(int((sizes > semitones).sum()), len(sizes))


def notes_per_bar(phrase: Phrase) -> float:
    """Onsets a bar of the phrase's own metre, empty bars counted."""
    return share(len(phrase.notes), phrase.bars)


def pitch_classes(phrase: Phrase) -> int:
    """How many of the twelve pitch classes occur (muspy.n_pitch_classes_used)."""
    return len({note.pitch % 12 for note in phrase.notes})


def rest_beats(phrase: Phrase) -> float:
    """Beats of the phrase's bars in which nothing sounds; what sounds past its end does not count."""
    rest = end = 0.0
    for note in sorted(phrase.notes):
        rest += max(0.0, min(note.onset, phrase.beats) - end)
        end = max(end, note.onset + note.duration)
    return rest + max(0.0, phrase.beats - end)


def rest_share(phrases: Iterable[Phrase]) -> float:
    """Share of all the phrases' time, in beats, in which nothing sounds."""
    pairs = [(rest_beats(phrase), phrase.beats) for phrase in phrases]
    return share(sum(rest for rest, _ in pairs), sum(beats for _, beats in pairs))


def in_key(phrase: Phrase, key: Key) -> int:
    """How many notes lie in the scale of a key: the major or the natural minor one."""
    return sum((note.pitch - key.tonic) % 12 in SCALES[key.mode] for note in phrase.notes)


def key_share(phrases: Iterable[Phrase]) -> float:
    """Share of all notes that lie in the scale of find_key() of their own phrase.

    Source: scale consistency (Mogren 2016, "C-RNN-GAN"; muspy.scale_consistency), but in the key whose
    profile fits (Krumhansl 1990) where they take the scale that holds most notes.
    """
    sounding = [phrase for phrase in phrases if phrase.notes]
    hits = sum(in_key(phrase, find_key(phrase.notes)) for phrase in sounding)
    return share(hits, sum(len(phrase.notes) for phrase in sounding))


def in_chord(phrase: Phrase) -> tuple[int, int]:
    """How many notes lie in the triad that sounds where they begin, and how many begin over one at all."""
    half, hits, over = phrase.metre.beats / HALVES, 0, 0
    for note in phrase.notes if phrase.chords else ():
        chord = phrase.chords[min(int((note.onset + SLACK) / half), len(phrase.chords) - 1)]
        over += chord is not None
        hits += chord is not None and note.pitch % OCTAVE in classes(chord)
    return hits, over


def chord_share(phrases: Iterable[Phrase]) -> float:
    """Share of all notes over chords that lie in them.

    Source: the chord tone to non-chord tone ratio (Yeh et al. 2021, "Automatic melody harmonization with
    triad chords"), whose neighbour notes, counted as chord tones there, are none here.
    """
    hits, over = np.sum([(0, 0), *map(in_chord, phrases)], 0)
    return share(int(hits), int(over))


def median(values: Iterable[float]) -> float:
    found = list(values)
    return float(np.median(found)) if found else 0.0


def summary(phrases: Sequence[Phrase]) -> dict[str, float]:
    """What a pile of phrases is like, in plain floats, ready for JSON.

    `leap_share`, `rest_share` and `key_share` are over all phrases together; `notes_per_bar`,
    `range_semitones` and `pitch_classes` are medians over phrases; `empty_share` is of phrases without notes.
    Where phrases are told chords, `chord_share` too.
    """
    told = {"chord_share": chord_share(phrases)} if any(phrase.chords for phrase in phrases) else {}
    return {
        "phrases": float(len(phrases)),
        "empty_share": share(sum(not phrase.notes for phrase in phrases), len(phrases)),
        "leap_share": leap_share(phrases),
        "rest_share": rest_share(phrases),
        "key_share": key_share(phrases),
        "notes_per_bar": median(map(notes_per_bar, phrases)),
        "range_semitones": median(map(pitch_range, phrases)),
        "pitch_classes": median(map(pitch_classes, phrases)),
        **told,
    }


class Gap(NamedTuple):
    """One number of some samples beside the same number of the music they should be like."""

    samples: float
    reference: float

    @property
    def relative(self) -> float:
        """(samples - reference) / reference: 0 when equal, -0.2 for a fifth too little, inf beside a zero."""
        if self.samples == self.reference:
            return 0.0
        return (self.samples - self.reference) / self.reference if self.reference else inf


def compare(samples: Sequence[Phrase], reference: Sequence[Phrase]) -> dict[str, Gap]:
    """What summary() says of samples and of real music, number by number (but for how many phrases)."""
    ours, theirs = summary(samples), summary(reference)
    return {name: Gap(ours[name], theirs[name]) for name in ours if name in theirs and name != "phrases"}
