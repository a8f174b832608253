"""Measures on things whose numbers can be counted by hand."""

import numpy as np
import pytest
from music21 import note, stream

from seqvae import attributes
from seqvae.attributes import MEASURES
from seqvae.song import Metre, Note, Phrase, find_key, transpose

WALTZ = Phrase((Note(0, 1, 60), Note(1, 0.5, 64), Note(1.5, 0.5, 67), Note(5.5, 0.5, 57)), Metre(3, 4), 2)
JIG = Phrase((Note(0, 0.5, 60), Note(0.5, 0.5, 60), Note(1.5, 1, 62), Note(4.5, 1, 62)), Metre(6, 8), 2)
SILENCE = Phrase((), Metre(4, 4), 2)


def test_melodies() -> None:
    assert attributes.note_density(WALTZ) == pytest.approx(4 / 6)
    assert attributes.pitch(WALTZ) == pytest.approx((60 + 64 + 67 + 57) / 4)
    assert attributes.pitch_range(WALTZ) == 10
    assert attributes.syncopation(WALTZ) == pytest.approx(2 / 4)
    assert attributes.syncopation(JIG) == pytest.approx(1 / 4)  # its beats are dotted
    assert attributes.average_interval(WALTZ) == pytest.approx((4 + 3 + 10) / 3)
    assert attributes.average_interval(Phrase(WALTZ.notes[:1], Metre(3, 4), 2)) == 0
    assert [measure(SILENCE) for measure in MEASURES["melody"].values()] == [0] * 7


def line(*pitches: int) -> Phrase:
    return Phrase(tuple(Note(i / 2, 0.5, pitch) for i, pitch in enumerate(pitches)), Metre(4, 4), 2)


def test_scale_consistency_is_of_the_scale_that_holds_most() -> None:
    assert attributes.scale_consistency(line(60, 62, 64, 65, 67, 69, 71, 72)) == 1
    assert attributes.scale_consistency(line(57, 59, 60, 62, 64, 65, 67, 69)) == 1  # a minor
    assert attributes.scale_consistency(line(61, 63, 66, 68, 70)) == 1  # black keys: D flat, G flat, B
    assert attributes.scale_consistency(line(60, 62, 64, 65, 67, 69, 71, 66)) == pytest.approx(7 / 8)
    chromatic = line(*range(60, 72))
    assert attributes.scale_consistency(chromatic) == pytest.approx(7 / 12)
    assert attributes.mode(chromatic) == 0


def test_mode_is_what_music21_finds_with_the_same_profiles() -> None:
    """The best major key's correlation less the best minor one's; its sign is find_key's mode."""
    rng = np.random.default_rng(0)
    for _ in range(12):
        notes = [
            Note(i, float(rng.choice((0.5, 1.0))), int(p)) for i, p in enumerate(rng.integers(55, 80, 9))
        ]
        phrase = Phrase(tuple(notes), Metre(9, 4), 1)
        theirs = stream.Stream([note.Note(n.pitch, quarterLength=n.duration) for n in notes])
        best = theirs.analyze("key.krumhanslkessler")
        fits = {"major": -1.0, "minor": -1.0}
        for key in (best, *best.alternateInterpretations):
            fits[key.mode] = max(fits[key.mode], key.correlationCoefficient)
        assert attributes.mode(phrase) == pytest.approx(fits["major"] - fits["minor"], abs=1e-9)
        assert (attributes.mode(phrase) > 0) == (find_key(notes).mode == "major") == (best.mode == "major")
        moved = Phrase(transpose(notes, 5), Metre(9, 4), 1)
        assert attributes.mode(moved) == pytest.approx(attributes.mode(phrase))


def test_texts_and_pictures() -> None:
    assert attributes.length("we sat  by the fire ") == 5
    assert attributes.brightness(np.array([[[0], [255]], [[51], [0]]], np.uint8)) == pytest.approx(76.5)


def test_an_ensemble_is_measured_by_its_first_voice() -> None:
    drums = tuple(Note(i / 4, 0.25, 36, 80, 2) for i in range(16))
    whole = Phrase((*WALTZ.notes, *drums), WALTZ.metre, WALTZ.bars, ensemble="trio")
    for measure in MEASURES["melody"].values():
        assert measure(whole) == measure(WALTZ)
