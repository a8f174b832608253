"""What a raw thing is like, as numbers: the measures of each kind that its models offer to steer by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from seqvae.song import STANDARD, TICK, Phrase, lead

MAJOR = (0, 2, 4, 5, 7, 9, 11)  # semitones above the tonic
DIATONIC = np.stack([np.roll(np.isin(np.arange(12), MAJOR), tonic) for tonic in range(12)])  # (12, 12)


def note_density(phrase: Phrase) -> float:
    """Notes a beat."""
    return len(phrase.notes) / phrase.beats


def pitch(phrase: Phrase) -> float:
    """The mean pitch, as a MIDI number."""
    return float(np.mean([note.pitch for note in phrase.notes] or [0]))


def pitch_range(phrase: Phrase) -> float:
    """Semitones from the lowest note to the highest."""
    return float(np.ptp([note.pitch for note in phrase.notes] or [0]))


def syncopation(phrase: Phrase) -> float:
    """The share of notes that begin off the beat."""
    beat = 1.5 if phrase.metre.denominator == 8 and phrase.metre.numerator % 3 == 0 else 1.0
    off = [TICK / 2 < note.onset % beat < beat - TICK / 2 for note in phrase.notes]
    return sum(off) / max(len(off), 1)


def average_interval(phrase: Phrase) -> float:
    """Semitones from a note to the next, up or down, on average; 0 of fewer than two notes."""
    line = [note.pitch for note in sorted(phrase.notes)]
    return float(np.abs(np.diff(line)).mean()) if len(line) > 1 else 0.0


def scale_consistency(phrase: Phrase) -> float:
    """The share of notes in the diatonic scale that holds most of them (Mogren 2016, "C-RNN-GAN").

    A natural minor scale is that of its relative major, so there are twelve; without notes it is 0.
    """
    counts = np.bincount([note.pitch % 12 for note in phrase.notes], minlength=12)
    return float((DIATONIC @ counts).max() / max(counts.sum(), 1))


def mode(phrase: Phrase) -> float:
    """How major: the correlation with the best major key's profile less that with the best minor key's.

    Profiles and time spent on each pitch class are those of `song.find_key` (Krumhansl 1990, chapter 4),
    whose key is minor where this is below 0. Where no pitch class is held longer than others it is 0.
    """
    held = np.zeros(12)
    for note in phrase.notes:
        held[note.pitch % 12] += max(note.duration, TICK)
    scale = 12 * held.std()
    fit = (STANDARD @ held).reshape(2, 12).max(1) / scale if scale else np.zeros(2)
    return float(fit[0] - fit[1])


def length(text: str) -> float:
    """Words."""
    return float(len(text.split()))


def brightness(picture: np.ndarray) -> float:
    """The mean of the pixels (H, W, C), of 0 to 255."""
    return float(picture.mean())


def of_lead(measure: Callable[[Phrase], float]) -> Callable[[Phrase], float]:
    """The measure of an ensemble's `lead`."""
    return lambda phrase: measure(lead(phrase))


MEASURES: dict[str, dict[str, Callable[[Any], float]]] = {  # by the kind of codec
    "melody": {
        "note-density": of_lead(note_density),
        "pitch": of_lead(pitch),
        "pitch-range": of_lead(pitch_range),
        "average-interval": of_lead(average_interval),
        "syncopation": of_lead(syncopation),
        "scale-consistency": of_lead(scale_consistency),
        "mode": of_lead(mode),
    },
    "text": {"length": length},
    "image": {"brightness": brightness},
}
