"""harmony.py: chords found in songs built to have them, progressions read, chords to hear."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqvae.harmony import (
    SYMBOLS,
    TRIADS,
    block_chords,
    chord_of,
    classes,
    find_chords,
    harmonised,
    home,
    key_of,
    moved,
    name,
    parse_chords,
    symbol,
    triad,
)
from seqvae.song import Key, Metre, Note, Part, Phrase, SeqvaeError, Song, bars, transpose, windows

C, F, G, AM, E = (Key.parse(text) for text in ("C", "F", "G", "Am", "E"))
LINE = Part(tuple(Note(float(i), 1.0, 72 + i % 5) for i in range(16)), "melody")
EVERY = [chord_of(i) for i in range(SYMBOLS)]


def struck(*chords: tuple[float, float, tuple[int, ...]], name: str = "piano") -> Part:
    """(onset, duration, pitches) each."""
    return Part(tuple(Note(at, length, pitch) for at, length, pitches in chords for pitch in pitches), name)


def found(*parts: Part, **about: object) -> str:
    """The chords of a song of LINE and these parts, in words."""
    song = Song((LINE, *parts), **{"key": C, **about})  # type: ignore[arg-type]
    return " ".join(map(name, find_chords(song, 0)[0]))


def test_symbols_name_every_chord_once() -> None:
    assert [symbol(chord) for chord in EVERY] == list(range(SYMBOLS)) and EVERY[0] is None
    assert (symbol(C), symbol(AM), name(AM), name(None)) == (1, 22, "Am", "N.C.")
    assert chord_of(-1) is chord_of(SYMBOLS) is chord_of(32767) is None
    assert [triad(name(chord)) for chord in EVERY] == EVERY
    assert classes(G) == {7, 11, 2} and classes(AM) == {9, 0, 4} and (TRIADS.sum(1) == 3).all()


@given(st.integers(-30, 30), st.sampled_from(EVERY))
def test_chords_move_as_their_notes_do(semitones: int, chord: Key | None) -> None:
    there = chord_of(int(moved(np.array([symbol(chord)]), np.array([semitones]))[0]))
    if chord is None:
        assert there is None
    else:
        assert there == Key((chord.tonic + semitones) % 12, chord.mode)
        assert classes(there) == {(pitch + semitones) % 12 for pitch in classes(chord)}


def test_every_key_goes_home() -> None:
    assert home(None) == home(C) == home(AM) == 0
    for key in EVERY[1:]:
        assert key is not None and -6 <= home(key) <= 5
        there = key._replace(tonic=(key.tonic + home(key)) % 12)
        assert there == (C if key.mode == "major" else AM)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("C G Am F", "C C G G Am Am F F"),
        ("C | G Am | F", "C C G Am F F"),
        ("| C || G Am |", "C C G Am"),
        ("Dm7 G7 Cmaj7 C6/9", "Dm Dm G G C C C C"),
        ("F#m7b5 Bdim7 B° Bø7", "F#m F#m Bm Bm Bm Bm Bm Bm"),
        ("Csus4/G Caug C+ C5 Cadd9 C7#9(b13)", "C " * 11 + "C"),
        ("C- C-7 CmM7 Cmin C:min7 CM7", "Cm " * 10 + "C C"),
        ("Bb E♭ A♯ Cb Fb", "Bb Bb Eb Eb Bb Bb B B E E"),
        ("N.C. | - C | NC N", "N.C. N.C. N.C. C N.C. N.C."),
    ],
)
def test_progressions_as_lead_sheets_have_them(text: str, expected: str) -> None:
    assert " ".join(map(name, parse_chords(text))) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "there are no chords"),
        (" | ", "there are no chords"),
        ("C | G Am F", 'one chord or two, not 3: "G Am F"'),
        ("C H", '"H" is not a chord'),
        ("c g", '"c" is not a chord'),
        ("Cx", '"Cx" is not a chord'),
        ("C G/H", '"G/H" is not a chord'),
        ("5", '"5" is not a chord'),
    ],
)
def test_what_is_no_progression_is_refused(text: str, why: str) -> None:
    with pytest.raises(SeqvaeError, match=why):
        parse_chords(text)


def test_chords_are_what_sounds_longest_in_each_half_bar() -> None:
    block = struck(
        (0, 4, (48, 52, 55)), (4, 2, (53, 57, 60)), (6, 2, (43, 47, 50, 53)), (12, 4, (45, 48, 52))
    )
    assert found(block) == "C C F G N.C. N.C. Am Am"
    broken = struck(*((i / 2, 0.5, (pitch,)) for i, pitch in enumerate((48, 55, 52, 55, 43, 50, 47, 50))))
    assert found(broken) == "C G " + "N.C. " * 5 + "N.C."
    late = struck((0, 1, (48, 52, 55)), (1, 3, (53, 57, 60)))  # in 3/4 the half begins at a beat and a half
    assert found(late, metres=((0.0, Metre(3, 4)),)).startswith("C F")


def test_of_equals_the_bass_decides_and_then_the_key() -> None:
    assert found(struck((0, 4, (45, 48, 52, 55)))).startswith("Am Am")  # A C E G
    assert found(struck((0, 4, (48, 52, 55, 57)))).startswith("C C")  # C E G A
    assert found(struck((0, 2, (45,)), (2, 2, (43, 50)))).startswith("Am G")  # a root; a root and a fifth
    assert found(struck((0, 2, (45,))), key=Key.parse("A")).startswith("A N.C.")


def test_chords_are_sought_in_other_pitched_parts_those_named_so_first() -> None:
    own, wrong = struck((0, 8, (48, 52, 55)), name="Chords"), struck((0, 16, (42, 46, 49)))
    drums = Part(struck((0, 16, (36, 40, 43))).notes, drums=True)
    assert found(own, wrong, drums).startswith("C C C C N.C.") and found(drums) == "" == found(Part(()))
    assert find_chords(Song((LINE,), key=None), 0)[1] is not None
    assert find_chords(Song((Part(()),)), 0) == ((), None)
    song = Song((LINE, own), key=None)
    assert find_chords(song, 1)[0][0] is not None  # of the other part now


def test_chords_move_with_their_song() -> None:
    block = struck((0, 4, (48, 52, 55)), (4, 4, (53, 57, 60)), (8, 4, (43, 47, 50)), (12, 4, (45, 48, 52)))
    song = Song((LINE, block), key=C)
    chords, key = find_chords(song, 0)
    for semitones in range(-5, 7):
        there, home = find_chords(transpose(song, semitones), 0)
        assert home == key._replace(tonic=semitones % 12)
        assert there == tuple(
            chord._replace(tonic=(chord.tonic + semitones) % 12) for chord in chords if chord
        )


def test_every_bar_has_two_chords_pickups_and_bars_cut_short_too() -> None:
    block = struck((0, 1, (43, 47, 50)), (1, 4, (48, 52, 55)), (5, 1, (53, 57, 60)), (6, 3, (43, 47, 50)))
    metres = ((0.0, Metre(4, 4)), (6.0, Metre(3, 4)))  # the second bar is cut after a beat
    song = Song((Part(LINE.notes[:9]), block), metres, pickup=1.0, key=C)
    assert len(bars(song)) == 4 and [at for at, _ in bars(song)] == [-3, 1, 5, 6]
    assert " ".join(map(name, find_chords(song, 0)[0])) == "N.C. G C C F N.C. G G"


def test_windows_are_told_theirs() -> None:
    block = struck((0, 4, (48, 52, 55)), (4, 4, (53, 57, 60)), (8, 4, (43, 47, 50)))
    song = Song((Part(LINE.notes[:12]), block), key=G)
    plain = windows(song, song.parts[0], 2)
    told = harmonised(song, 0, plain)
    assert [window.phrase.chords for window in told] == [(C, C, F, F), (G, G, G, G)]  # the last bar again
    assert {window.phrase.key for window in told} == {G}
    bare = [replace(window.phrase, chords=(), key=None) for window in told]
    assert bare == [window.phrase for window in plain]
    alone = harmonised(Song((LINE,), key=G), 0, plain)
    assert [window.phrase.chords for window in alone] == [(), ()]


def test_a_progression_has_a_key() -> None:
    assert key_of(parse_chords("C F G C")) == C and key_of(parse_chords("Am Dm E Am")) == AM
    assert key_of((None, None)) is None


def test_block_chords_are_heard_as_they_were_written() -> None:
    metres = (Metre(4, 4), Metre(6, 8))
    chords = parse_chords("C | G Am | - | F"), parse_chords("E | - C")
    phrases = [Phrase((), metre, len(own) // 2, own) for metre, own in zip(metres, chords, strict=True)]
    part = block_chords(phrases)
    assert part.name == "chords" and sorted({note.onset for note in part.notes}) == [0, 4, 6, 12, 16, 20.5]
    assert all(43 <= note.pitch <= 61 for note in part.notes)
    song = Song((LINE, part), ((0.0, metres[0]), (16.0, metres[1])), key=C)
    assert find_chords(song, 0)[0] == chords[0] + chords[1]
