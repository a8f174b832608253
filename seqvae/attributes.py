"""What a raw thing is like, as numbers: the measures of each kind that its models offer to steer by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from seqvae.song import TICK, Phrase


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


def length(text: str) -> float:
    """Words."""
    return float(len(text.split()))


def brightness(picture: np.ndarray) -> float:
    """The mean of the pixels (H, W, C), of 0 to 255."""
    return float(picture.mean())


MEASURES: dict[str, dict[str, Callable[[Any], float]]] = {  # by the kind of codec
    "melody": {
        "note-density": note_density,
        "pitch": pitch,
        "pitch-range": pitch_range,
        "syncopation": syncopation,
    },
    "text": {"length": length},
    "image": {"brightness": brightness},
}
