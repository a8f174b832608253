"""Known numbers of the musical metrics: every expected value was worked out by hand."""

import json
from dataclasses import replace

import pytest

from seqvae.harmony import parse_chords
from seqvae.metrics import music
from seqvae.song import TICKS, Key, Metre, Note, Phrase

COMMON, JIG = Metre(4, 4), Metre(6, 8)


def phrase(*notes: tuple[float, float, int], metre: Metre = COMMON, bars: int = 1) -> Phrase:
    """A phrase of (onset, duration, pitch)."""
    return Phrase(tuple(Note(*note) for note in notes), metre, bars)


def line(*pitches: int, bars: int = 1) -> Phrase:
    """Quarter notes one after the other."""
    return phrase(*((float(i), 1.0, pitch) for i, pitch in enumerate(pitches)), bars=bars)


REFERENCE = line(60, 62, 64, 65)
# One hit, one pitch wrong at a right onset, one a tick late, and two notes that nobody played.
ESTIMATE = phrase((0, 1, 60), (1, 1, 63), (2 + 1 / TICKS, 1, 64), (3.5, 0.25, 65), (3.75, 0.25, 65))


def test_onset_and_pitch_hits_are_exact_to_the_tick():
    found = music.onset_pitch_overlap(REFERENCE, ESTIMATE)
    assert found == (1, 4, 5)
    assert (found.precision, found.recall) == (1 / 5, 1 / 4)
    assert music.onset_pitch_f1(REFERENCE, ESTIMATE) == pytest.approx(2 / 9, abs=1e-15)


def test_onsets_alone_forgive_the_pitch():
    assert music.onset_overlap(REFERENCE, ESTIMATE) == (2, 4, 5)
    assert music.onset_f1(REFERENCE, ESTIMATE) == pytest.approx(4 / 9, abs=1e-15)


def test_times_round_to_the_nearest_tick_halves_upwards():
    for offset, hits in ((0.49, 1), (-0.5, 1), (0.5, 0), (-0.51, 0)):
        moved = phrase((1 + offset / TICKS, 1, 60))
        assert music.onset_pitch_overlap(phrase((1, 1, 60)), moved).hits == hits, offset


def test_a_repeated_note_is_matched_once_only():
    once, twice = phrase((0, 1, 60)), phrase((0, 1, 60), (0, 2, 60))
    assert music.onset_pitch_overlap(once, twice) == (1, 1, 2)
    assert music.onset_pitch_overlap(twice, twice) == (2, 2, 2)


def test_f1_of_silence():
    assert music.onset_pitch_f1(phrase(), phrase()) == 1
    assert music.onset_pitch_f1(REFERENCE, phrase()) == music.onset_pitch_f1(phrase(), REFERENCE) == 0
    assert music.onset_pitch_overlap(phrase(), phrase()).precision == 0


def test_chord_tones_are_those_of_the_chord_that_sounds():
    chords = parse_chords("C | - Am")
    notes = ((0, 1, 64), (1, 1, 65), (2, 1, 79), (3.99, 1, 60), (6, 1, 60), (7, 9, 62))  # C C C - Am Am
    told = replace(phrase(*notes, bars=2), chords=chords)
    assert music.in_chord(told) == (3, 5)
    assert music.chord_share([told, replace(told, chords=()), replace(told, notes=())]) == 3 / 5
    assert music.in_chord(replace(told, metre=Metre(6, 4))) == (3, 4)  # whose half bar lasts three beats
    assert music.chord_share([]) == 0
    assert music.summary([told])["chord_share"] == 3 / 5
    assert "chord_share" not in music.compare([told], [replace(told, chords=())])


def test_micro_f1_weighs_notes_not_windows():
    pairs = [(REFERENCE, ESTIMATE), (line(70), line(70))]  # 1 of 4 and 5, 1 of 1 and 1
    whole = music.micro(music.onset_pitch_overlap(*pair) for pair in pairs)
    assert whole == (2, 5, 6)
    assert whole.f1 == pytest.approx(4 / 11, abs=1e-15)  # the mean of both F1 would be 11 / 18
    assert music.micro([]) == (0, 0, 0)


def test_whole_windows_are_exact_in_onset_duration_pitch_and_metre():
    notes = REFERENCE.notes
    quiet = tuple(note._replace(velocity=1) for note in notes)
    assert music.whole_window_exact(REFERENCE, Phrase(notes[::-1], COMMON, 1))
    assert music.whole_window_exact(REFERENCE, Phrase(quiet, COMMON, 1))
    longer = notes[:3] + (notes[3]._replace(duration=1 + 1 / TICKS),)
    others = [(longer, COMMON, 1), (notes[:3], COMMON, 1), (notes, JIG, 1), (notes, COMMON, 2)]
    for other in (Phrase(*fields) for fields in others):
        assert not music.whole_window_exact(REFERENCE, other)
        assert not music.whole_window_exact(other, REFERENCE)
    assert music.exact_share([(REFERENCE, REFERENCE), (REFERENCE, ESTIMATE), (phrase(), phrase())]) == 2 / 3
    assert music.exact_share([]) == 0


def test_leaps_are_intervals_beyond_the_octave_in_order_of_onset():
    leaping = line(60, 72, 73, 60, 40)  # +12, +1, -13, -20
    assert music.intervals(leaping).tolist() == [12, 1, -13, -20]
    assert music.leap_share([leaping]) == 2 / 4
    assert music.leap_share([leaping], semitones=11) == 3 / 4
    assert music.leap_share([Phrase(leaping.notes[::-1], COMMON, 1)]) == 2 / 4
    # Nothing leaps from one phrase to the next, and intervals are counted over all phrases.
    assert music.leap_share([leaping, line(100), line(20, 21)]) == 2 / 5
    assert music.leap_share([line(60), phrase()]) == music.leap_share([]) == 0


def test_density_range_and_pitch_classes():
    scale = line(60, 62, 64, 65, 67, 69, 71, 72, bars=2)
    assert music.notes_per_bar(scale) == 4
    assert music.notes_per_bar(phrase((0, 0.5, 60), metre=JIG, bars=2)) == 0.5
    assert music.pitch_range(scale) == 12 and music.pitch_classes(scale) == 7  # C twice
    assert music.pitch_range(line(60)) == music.pitch_range(phrase()) == music.pitch_classes(phrase()) == 0


def test_rests_are_time_in_the_bars_without_sound():
    # Rests at 0-0.5, 1.5-2 and 3-4; the notes at 2 overlap, and the first of them ends last.
    gapped = phrase((0.5, 1, 60), (2, 1, 62), (2, 0.5, 70))
    assert music.rest_beats(gapped) == 2
    assert music.rest_beats(phrase((3, 5, 60))) == 3  # sounds on past the bar
    assert music.rest_beats(phrase((0, 1, 60), (5, 1, 60))) == 3  # begins after the bar
    assert music.rest_share([gapped, phrase(bars=1, metre=JIG)]) == 5 / 7  # (2 + 3) of (4 + 3) beats
    assert music.rest_share([]) == 0


def test_notes_in_the_scale_of_the_best_key():
    major = line(60, 64, 67, 72, 60, 66, bars=2)  # a C major chord and F sharp
    minor = line(57, 60, 64, 69, 57, 56, bars=2)  # an A minor chord and G sharp, which natural minor lacks
    assert music.in_key(major, Key(0, "major")) == 5
    assert music.in_key(minor, Key(9, "minor")) == 5
    assert music.in_key(minor, Key(9, "major")) == 5  # A, E and G sharp, but not C
    assert music.key_share([major, minor, phrase()]) == 10 / 12
    assert music.key_share([phrase()]) == 0


def test_summary_and_comparison():
    bar, empty = line(60, 64, 67, 80), phrase()  # A flat 5 is 13 above G 4 and outside C major
    found = music.summary([bar, bar, empty])
    assert json.loads(json.dumps(found)) == found
    assert found == {
        "phrases": 3,
        "empty_share": 1 / 3,
        "leap_share": 1 / 3,
        "rest_share": 1 / 3,
        "key_share": 3 / 4,
        "notes_per_bar": 4,
        "range_semitones": 20,
        "pitch_classes": 4,
    }
    gaps = music.compare([line(60, 64, 67, 80), line(60, 64)], [line(60, 62)])
    assert gaps["range_semitones"] == (12, 2) and gaps["range_semitones"].relative == 5
    assert gaps["notes_per_bar"] == (3, 2) and gaps["notes_per_bar"].relative == 0.5
    assert gaps["leap_share"] == (1 / 4, 0) and gaps["leap_share"].relative == float("inf")
    assert gaps["empty_share"].relative == 0 and "phrases" not in gaps


def test_summary_of_nothing_is_zeros():
    assert set(music.summary([]).values()) == {0.0}


def test_notes_of_two_voices_are_not_the_same():
    low = phrase((0, 1, 60), (1, 1, 62))
    sung = Phrase(tuple(note._replace(voice=1) for note in low.notes), COMMON, 1, ensemble="chorale")
    mixed = Phrase((low.notes[0], sung.notes[1]), COMMON, 1, ensemble="chorale")
    assert music.onset_pitch_overlap(sung, mixed).hits == music.onset_overlap(sung, mixed).hits == 1
    assert music.whole_window_exact(sung, sung) and not music.whole_window_exact(sung, low)
