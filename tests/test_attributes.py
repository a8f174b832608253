"""Measures on things whose numbers can be counted by hand."""

import numpy as np
import pytest

from seqvae import attributes
from seqvae.attributes import MEASURES
from seqvae.song import Metre, Note, Phrase

WALTZ = Phrase((Note(0, 1, 60), Note(1, 0.5, 64), Note(1.5, 0.5, 67), Note(5.5, 0.5, 57)), Metre(3, 4), 2)
JIG = Phrase((Note(0, 0.5, 60), Note(0.5, 0.5, 60), Note(1.5, 1, 62), Note(4.5, 1, 62)), Metre(6, 8), 2)
SILENCE = Phrase((), Metre(4, 4), 2)


def test_melodies() -> None:
    assert attributes.note_density(WALTZ) == pytest.approx(4 / 6)
    assert attributes.pitch(WALTZ) == pytest.approx((60 + 64 + 67 + 57) / 4)
    assert attributes.pitch_range(WALTZ) == 10
    assert attributes.syncopation(WALTZ) == pytest.approx(2 / 4)
    assert attributes.syncopation(JIG) == pytest.approx(1 / 4)  # its beats are dotted
    assert [measure(SILENCE) for measure in MEASURES["melody"].values()] == [0, 0, 0, 0]


def test_texts_and_pictures() -> None:
    assert attributes.length("we sat  by the fire ") == 5
    assert attributes.brightness(np.array([[[0], [255]], [[51], [0]]], np.uint8)) == pytest.approx(76.5)
