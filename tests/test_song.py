"""song.py: bars and windows, the melody of a song, its key, its clock, and phrases put together again."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqvae.song import (
    DRONE,
    MOST_BARS,
    SLACK,
    TICK,
    Key,
    Metre,
    Note,
    Part,
    Phrase,
    SeqvaeError,
    Song,
    assemble,
    bars,
    beats_at,
    find_key,
    fold_pitch,
    melody,
    nearest_tick,
    seconds,
    skyline,
    transpose,
    windows,
)

FOUR, THREE, SIX = Metre(4, 4), Metre(3, 4), Metre(6, 8)
# Pitches and durations (beats) of three old tunes.
JOY = [
    *[(p, 1.0) for p in (66, 66, 67, 69, 69, 67, 66, 64, 62, 62, 64, 66)],
    *((66, 1.5), (64, 0.5), (64, 2.0)),
    *[(p, 1.0) for p in (66, 66, 67, 69, 69, 67, 66, 64, 62, 62, 64, 66)],
    *((64, 1.5), (62, 0.5), (62, 2.0)),
]
SLEEVES = [
    *(
        (69, 1.0),
        (72, 2.0),
        (74, 1.0),
        (76, 1.5),
        (77, 0.5),
        (76, 1.0),
        (74, 2.0),
        (71, 1.0),
        (67, 1.5),
        (69, 0.5),
    ),
    *((71, 1.0), (72, 2.0), (69, 1.0), (69, 1.5), (68, 0.5), (69, 1.0), (71, 2.0), (68, 1.0), (64, 2.0)),
]
JACQUES = [(p, 1.0) for p in (65, 67, 69, 65, 65, 67, 69, 65, 69, 70)] + [
    (72, 2.0),
    (69, 1.0),
    (70, 1.0),
    (72, 2.0),
]
TUNES = [(JOY, Key(2, "major")), (SLEEVES, Key(9, "minor")), (JACQUES, Key(5, "major"))]


def line(*pitches, step=1.0, start=0.0):
    return tuple(Note(start + i * step, step, p) for i, p in enumerate(pitches))


def tune(pairs):
    notes, at = [], 0.0
    for pitch, duration in pairs:
        notes.append(Note(at, duration, pitch))
        at += duration
    return tuple(notes)


def song(*parts, **fields):
    return Song(tuple(p if isinstance(p, Part) else Part(p) for p in parts), **fields)


def shapes(notes):
    return [n[:3] for n in notes]


times = st.integers(0, 40 * 24).map(lambda i: i / 24) | st.floats(0, 40)
lengths = st.sampled_from([0.0, 0.01, TICK, 0.25, 0.5, 1.0, 3.0, 25.0]) | st.floats(0, 6)
loose = st.lists(st.builds(Note, times, lengths, st.integers(21, 108), st.integers(1, 127)), max_size=40)
metres = st.sampled_from([FOUR, THREE, SIX, Metre(2, 4), Metre(7, 8), Metre(9, 8)])


@st.composite
def lines(draw):
    """A monophonic line on the grid, with rests."""
    at, notes = 0, []
    for gap, length in draw(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 40)), max_size=30)):
        notes.append(Note((at + gap) / 12, length / 12, draw(st.integers(40, 90))))
        at += gap + length
    return tuple(notes)


@st.composite
def songs(draw, part):
    """A song of one part with a pickup and metre changes, many of them off the bar line."""
    first = draw(metres)
    pickup = draw(st.integers(0, int(first.beats * 2) - 1)) / 2
    changes = draw(st.dictionaries(st.integers(1, 120).map(lambda i: i / 2), metres, max_size=4))
    return song(tuple(draw(part)), metres=((0.0, first), *sorted(changes.items())), pickup=pickup)


# --- metre and key


@pytest.mark.parametrize(
    "text, beats, ticks",
    [("4/4", 4, 48), ("6/8", 3, 36), (" 2 / 2", 4, 48), ("7/16", 1.75, 21), ("64/64", 4, 48)],
)
def test_metre(text, beats, ticks):
    metre = Metre.parse(text)
    assert (metre.beats, metre.ticks) == (beats, ticks)
    assert Metre.parse(str(metre)) == metre


NO_METRES = ["", "x", "4", "4/0", "3/5", "0/4", "65/4", "4/128", "4/4/4", "-3/4", "3.5/4", "٤/٤"]


@pytest.mark.parametrize("text", NO_METRES)
def test_a_metre_that_is_none(text):
    with pytest.raises(SeqvaeError, match="is not a metre"):
        Metre.parse(text)


def test_a_bar_off_the_grid_has_no_ticks():
    assert Metre(1, 32).beats == 0.125
    with pytest.raises(SeqvaeError, match="5/32"):
        _ = Metre(5, 32).ticks


@pytest.mark.parametrize(
    "text, tonic, mode",
    [
        *[
            ("D", 2, "major"),
            ("d minor", 2, "minor"),
            ("Dm", 2, "minor"),
            ("F#", 6, "major"),
            ("Bb", 10, "major"),
        ],
        *[("Bbm", 10, "minor"), ("C major", 0, "major"), ("A:min", 9, "minor"), ("bb", 10, "major")],
        *[("b minor", 11, "minor"), ("bm", 11, "minor"), ("Cb", 11, "major"), ("E♭ maj", 3, "major")],
        *[("B#", 0, "major"), ("DM", 2, "major"), (" g ", 7, "major"), ("F# MINOR", 6, "minor")],
    ],
)
def test_key(text, tonic, mode):
    assert Key.parse(text) == Key(tonic, mode)


@pytest.mark.parametrize("text", ["", "H", "m", "major", "C dorian", "C##", "A-minor", "12"])
def test_a_key_that_is_none(text):
    with pytest.raises(SeqvaeError, match="is not a key"):
        Key.parse(text)


def test_a_key_reads_what_it_writes():
    keys = [Key(tonic, mode) for mode in ("major", "minor") for tonic in range(12)]
    assert [Key.parse(str(key)) for key in keys] == keys
    assert (str(Key(10, "major")), str(Key(6, "minor"))) == ("Bb major", "F# minor")


# --- songs and their bars


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"metres": ()}, "metres of a song must"),
        ({"metres": ((1.0, FOUR),)}, "metres of a song must"),
        ({"tempi": ((0.0, 90.0), (8.0, 80.0), (4.0, 70.0))}, "tempi of a song must"),
        ({"tempi": ((0.0, 0.0),)}, "not a tempo"),
        ({"tempi": ((0.0, float("nan")),)}, "not a tempo"),
        ({"metres": ((0.0, Metre(0, 4)),)}, "0/4 is not a metre"),
        ({"pickup": 4.0}, "pickup of 4.0 beats does not fit a bar of 4/4"),
        ({"pickup": -1.0}, "pickup"),
    ],
)
def test_a_song_that_makes_no_sense(fields, message):
    with pytest.raises(SeqvaeError, match=message):
        song(line(60), **fields)


def test_of_entries_at_one_place_the_last_holds():
    twice = song(line(60), metres=((0.0, FOUR), (0.0, SIX)), tempi=((0.0, 90.0), (0.0, 60.0), (2.0, 60.0)))
    assert twice.metres == ((0.0, SIX),)
    assert twice.tempi == ((0.0, 60.0), (2.0, 60.0))


def test_bars_cover_the_song_and_no_more():
    assert bars(song()) == [(0.0, FOUR)]
    assert bars(song(line(60, 62, 64, 65))) == [(0.0, FOUR)]
    assert bars(song(line(60, 62, 64, 65, 67), metres=((0.0, SIX),))) == [(0.0, SIX), (3.0, SIX)]
    sloppy = (Note(0.0, 4.0 + SLACK / 2, 60),)
    assert len(bars(song(sloppy))) == 1
    assert len(bars(song(line(60), Part((Note(9.0, 1.0, 36),), drums=True)))) == 3


def test_a_pickup_makes_a_whole_first_bar_before_beat_0():
    upbeat = song(line(60, 65, 67, 69, 70, 72), pickup=1.0)
    assert bars(upbeat) == [(-3.0, FOUR), (1.0, FOUR), (5.0, FOUR)]


def test_every_metre_entry_begins_a_bar():
    change = song(line(*[60] * 16), metres=((0.0, FOUR), (8.0, THREE)))
    assert bars(change) == [(0.0, FOUR), (4.0, FOUR), (8.0, THREE), (11.0, THREE), (14.0, THREE)]
    inside = song(line(*[60] * 10), metres=((0.0, FOUR), (6.0, THREE)))
    assert bars(inside) == [(0.0, FOUR), (4.0, FOUR), (6.0, THREE), (9.0, THREE)]
    nearly = song(line(*[60] * 10), metres=((0.0, FOUR), (8.0 - SLACK / 2, THREE)))
    assert bars(nearly) == [(0.0, FOUR), (4.0, FOUR), (8.0 - SLACK / 2, THREE)]
    late = song(line(*[60] * 10), metres=((0.0, FOUR), (8.0 + SLACK / 2, THREE)))
    assert bars(late) == [(0.0, FOUR), (4.0, FOUR), (8.0 + SLACK / 2, THREE)]


def test_a_song_of_absurd_length_is_refused():
    assert len(bars(song((Note(0.0, 4.0 * MOST_BARS, 60),)))) == MOST_BARS
    with pytest.raises(SeqvaeError, match="more than 100000 bars"):
        bars(song((Note(0.0, 1e12, 60),)))


@given(songs(lines()))
def test_bars_lie_end_to_end(made):
    found = bars(made)
    assert found[0][0] == (made.pickup - made.metres[0][1].beats if made.pickup else 0.0)
    entries = {at for at, _ in made.metres}
    for (at, metre), (following, _) in zip(found, found[1:], strict=False):
        cut = at < following < at + metre.beats and following in entries
        assert cut or following == pytest.approx(at + metre.beats)
    assert found[-1][0] + found[-1][1].beats >= made.beats - SLACK
    assert {at for at in entries if 0 < at <= found[-1][0]} <= {at for at, _ in found}


# --- windows


def test_windows_tile_a_song_with_its_pickup_and_its_rests():
    notes = (Note(0.0, 1.0, 60), Note(1.0, 4.0, 62), Note(19.0, 6.0, 64, 99))
    upbeat = song(notes, line(*[40] * 60), pickup=1.0)
    found = windows(upbeat, upbeat.parts[0], 2)
    assert [(w.onset, w.bar) for w in found] == [(-3.0, 0), (5.0, 2), (13.0, 4)]
    assert found[0].phrase == Phrase((Note(3.0, 1.0, 60), Note(4.0, 4.0, 62)), FOUR, 2)
    assert found[1].phrase.notes == ()  # silence inside is kept; after the part's last onset there is none
    assert found[2].phrase.notes == (Note(6.0, 6.0, 64, 99),)  # its end crosses the window's end
    assert found[2].phrase.beats == 8.0


def test_a_window_holds_one_metre():
    change = song(line(*range(60, 74)), metres=((0.0, FOUR), (6.0, THREE)))
    found = windows(change, change.parts[0], 4)
    assert [(w.onset, w.phrase.metre, len(w.phrase.notes)) for w in found] == [
        (0.0, FOUR, 6),
        (6.0, THREE, 8),
    ]
    assert [w.phrase.bars for w in found] == [4, 4]
    restated = song(line(*range(60, 76)), metres=((0.0, FOUR), (4.0, FOUR), (12.0, FOUR)))
    assert [len(w.phrase.notes) for w in windows(restated, restated.parts[0], 2)] == [8, 8]
    shifted = song(line(*range(60, 70)), metres=((0.0, FOUR), (2.0, FOUR)))
    assert [w.onset for w in windows(shifted, shifted.parts[0], 1)] == [0.0, 2.0, 6.0]


def test_a_window_of_fewer_bars_is_filled_with_those_it_has():
    three = song(line(*range(60, 72)), line(*[40] * 12))
    first, last = windows(three, three.parts[0], 2)
    assert first.filled() is first and (first.held, first.beats, last.held, last.beats) == (2, 8.0, 1, 4.0)
    filled = last.filled().phrase
    assert [(n.onset, n.pitch) for n in filled.notes] == list(enumerate([68, 69, 70, 71] * 2))
    assert last.kept(filled) == last.phrase and first.kept(filled) == filled
    (whole,) = windows(three, three.parts[0], 8)
    turned = whole.filled().phrase.notes
    assert [n.pitch for n in turned] == [*range(60, 72), *range(60, 72), *range(60, 68)]
    assert [n.onset for n in turned] == list(range(32))
    assert whole.kept(replace(whole.phrase, notes=turned)) == whole.phrase


def test_a_bar_cut_short_is_filled_in_whole_bars():
    """A bar and a half are held as two, and a note that sounds past them ends with them."""
    cut = song((Note(0.0, 1.0, 60), Note(4.0, 9.0, 62)), metres=((0.0, FOUR), (6.0, THREE)))
    window = windows(cut, cut.parts[0], 4)[0]
    assert (window.beats, window.held) == (6.0, 2)
    filled = window.filled().phrase
    assert shapes(filled.notes) == [(0.0, 1.0, 60), (4.0, 4.0, 62), (8.0, 1.0, 60), (12.0, 4.0, 62)]
    late = replace(filled, notes=(*filled.notes[:2], Note(6.0, 1.0, 64)))
    assert shapes(window.kept(late).notes) == [(0.0, 1.0, 60), (4.0, 4.0, 62)]


def test_hopping_windows_are_whole():
    # 4/4 bars at 0, 4, 8 and a cut one at 12; 3/4 bars at 14 and 17.
    change = song(line(*range(40, 60)), metres=((0.0, FOUR), (14.0, THREE)))
    part = change.parts[0]
    assert [(w.onset, w.bar) for w in windows(change, part, 2, hop=1)] == [(0.0, 0), (4.0, 1), (14.0, 4)]
    assert [(w.onset, w.bar) for w in windows(change, part, 1, hop=2)] == [(0.0, 0), (8.0, 2), (14.0, 4)]
    assert [w.phrase.notes[0].pitch for w in windows(change, part, 2, hop=1)] == [40, 44, 54]
    assert windows(change, part, 4, hop=1) == []


def test_a_note_just_before_the_bar_line_belongs_to_the_bar():
    early = song((Note(0.0, 1.0, 60), Note(8.0 - SLACK / 2, 1.0, 62), Note(9.0, 1.0, 64)))
    first, second = windows(early, early.parts[0], 2)
    assert shapes(first.phrase.notes) == [(0.0, 1.0, 60)]
    assert shapes(second.phrase.notes) == [(0.0, 1.0, 62), (1.0, 1.0, 64)]
    last = song((Note(0.0, 1.0, 60), Note(8.0 - SLACK, 0.0, 62)))
    assert [len(w.phrase.notes) for w in windows(last, last.parts[0], 2)] == [1, 1]
    before = song((Note(-0.5, 1.0, 60), Note(0.5, 1.0, 62)))
    assert shapes(windows(before, before.parts[0], 2)[0].phrase.notes) == [(0.0, 1.0, 60), (0.5, 1.0, 62)]


@pytest.mark.parametrize("arguments", [(0,), (-1,), (2, 0), (2, -1)])
def test_windows_of_nothing(arguments):
    with pytest.raises(SeqvaeError, match="at least one"):
        windows(song(line(60)), Part(line(60)), *arguments)


@given(songs(loose), st.integers(1, 4))
def test_every_note_lies_in_exactly_one_window(made, size):
    part = made.parts[0]
    found = windows(made, part, size)
    spread = [(w.onset, note) for w in found for note in w.phrase.notes]
    assert [note[1:] for _, note in spread] == [note[1:] for note in sorted(part.notes)]
    for (start, note), original in zip(spread, sorted(part.notes), strict=True):
        assert note.onset >= 0
        assert abs(start + note.onset - original.onset) <= SLACK + 1e-9
    lines = {at: i for i, (at, _) in enumerate(bars(made))}
    assert [lines[w.onset] for w in found] == [w.bar for w in found]
    for w in found:
        assert all(note.onset < w.phrase.beats + SLACK for note in w.phrase.notes)


@given(songs(loose), st.integers(1, 4))
def test_hopping_windows_hold_what_their_bars_hold(made, size):
    every = bars(made)
    single = {w.bar: w for w in windows(made, made.parts[0], 1)}
    for w in windows(made, made.parts[0], size, hop=1):
        assert {metre for _, metre in every[w.bar : w.bar + size]} == {w.phrase.metre}
        inside = [n[1:] for i in range(w.bar, w.bar + size) if i in single for n in single[i].phrase.notes]
        assert [n[1:] for n in w.phrase.notes] == inside
        whole = every[w.bar][0] + size * w.phrase.metre.beats
        assert w.bar + size == len(every) or every[w.bar + size][0] == pytest.approx(whole)


# --- skyline


def test_skyline_of_chords_takes_the_top():
    chords = [Note(b, 2.0, p) for b in (0.0, 2.0) for p in (60, 64, 67)]
    assert shapes(skyline(chords)) == [(0.0, 2.0, 67), (2.0, 2.0, 67)]
    assert shapes(skyline([Note(0.0, 1.0, 67), Note(0.0, 2.0, 67)])) == [(0.0, 2.0, 67)]


def test_skyline_leaves_inner_voices_out():
    notes = [Note(0.0, 4.0, 72), Note(1.0, 1.0, 60), Note(2.0, 8.0, 64), Note(4.0, 1.0, 71)]
    assert shapes(skyline(notes)) == [(0.0, 4.0, 72), (4.0, 1.0, 71)]


def test_skyline_cuts_and_does_not_resume():
    assert shapes(skyline([Note(0.0, 4.0, 60), Note(1.0, 1.0, 72)])) == [(0.0, 1.0, 60), (1.0, 1.0, 72)]
    assert shapes(skyline([Note(0.0, 4.0, 60), Note(1.0, 2.0, 60)])) == [(0.0, 1.0, 60), (1.0, 2.0, 60)]


@pytest.mark.parametrize(
    "lower, kept",
    [
        (Note(2.0 - TICK / 2, 0.08, 60), True),  # less than a tick left
        (Note(2.0 - TICK, 0.1, 60), False),  # a whole tick left, and it ends with the higher note
        (Note(1.6, 2.0, 60), True),  # legato: less than a quarter left and outlasted by far
        (Note(1.6, 0.7, 60), False),  # outlasts the higher note by less than it waited
        (Note(1.0, 4.0, 60), False),  # half of the higher note is left
        (Note(1.45, 4.0, 60), False),  # a little over a quarter of it
    ],
)
def test_a_higher_note_gives_way_when_nearly_over(lower, kept):
    found = skyline([Note(0.0, 2.0, 72), lower])
    assert [n.pitch for n in found] == ([72, 60] if kept else [72])
    assert found[0].duration == (lower.onset if kept else 2.0)


def test_a_drone_hides_nothing_for_long():
    stuck = [Note(0.0, 1000.0, 100), *line(*[60] * 20)]
    found = skyline(stuck)
    assert shapes(found[:2]) == [(0.0, DRONE, 100), (DRONE, 1.0, 60)]
    bagpipe = skyline([Note(0.0, 1000.0, 40), *line(69, 71, 73)])
    assert shapes(bagpipe) == [(0.0, 1.0, 69), (1.0, 1.0, 71), (2.0, 1.0, 73)]


def test_empty_notes_and_ornaments():
    assert skyline([]) == ()
    assert skyline([Note(1.0, 0.0, 60)]) == (Note(1.0, TICK, 60),)
    crowded = skyline([Note(1.0, 0.0, 60), Note(1.0625, 1.0, 62)])
    assert shapes(crowded) == [(1.0, 0.0625, 60), (1.0625, 1.0, 62)]
    grace = [
        Note(1.0, 0.03, 74),
        Note(1.03, 1.0, 72),
    ]  # one tick: the main note, though the ornament is higher
    assert shapes(skyline(grace)) == [(1.03, 1.0, 72)]
    assert shapes(skyline([Note(1.0, 0.03, 74), Note(1.0, 0.02, 76)])) == [(1.0, 0.02, 76)]


@given(loose)
def test_skyline_is_one_line_of_the_notes(notes):
    found = skyline(notes)
    assert {(n.onset, n.pitch, n.velocity) for n in found} <= {(n.onset, n.pitch, n.velocity) for n in notes}
    assert all(n.duration > 0 for n in found)
    for a, b in zip(found, found[1:], strict=False):
        assert a.onset + a.duration <= b.onset + 1e-9
        assert nearest_tick(a.onset) < nearest_tick(b.onset)
    assert skyline(tuple(reversed(notes))) == found


@given(loose)
def test_skyline_keeps_the_sounding_top(notes):
    heard = {n[:1] + n[2:3] for n in skyline(notes)}
    solid = [n for n in notes if n.duration >= TICK]
    for note in solid:
        tick = nearest_tick(note.onset)
        over = [
            n for n in solid if nearest_tick(n.onset) <= tick and n.onset + n.duration > note.onset - TICK
        ]
        if all(n is note or n.pitch < note.pitch for n in over):  # nothing as high sounds: it is the top
            assert (note.onset, note.pitch) in heard
        elif (
            note.onset,
            note.pitch,
        ) not in heard:  # what is left out has something as high over it that is heard
            assert any(n.pitch >= note.pitch and (n.onset, n.pitch) in heard for n in over)


@given(lines())
def test_skyline_leaves_a_line_alone(notes):
    assert shapes(skyline(notes)) == [pytest.approx(s) for s in shapes(notes)]
    assert skyline(skyline(notes)) == skyline(notes)


# --- melody


CHORDS = tuple(Note(float(b), 2.0, p) for b in range(0, 16, 2) for p in (48, 52, 55))
TUNE = line(67, 69, 71, 72, 74, 72, 71, 69, 67, 65, 64, 62, 60, 62, 64, 60)
DRUMS = Part(line(*[42] * 64, step=0.25), "Melody Toms", drums=True)


def test_a_folk_file_has_its_melody_above_its_chords():
    assert melody(song(TUNE, CHORDS)) == (0, Part(TUNE))
    assert melody(song(CHORDS, TUNE))[0] == 1
    assert melody(song(DRUMS, CHORDS, TUNE))[0] == 2


def test_a_name_goes_before_the_score():
    low, high = Part(transpose(TUNE, -24)), Part(transpose(TUNE, 12))
    for name in ("Melody", "LEAD VOCAL", "Vox", "solo", "Tune 1", "Flute"):
        assert melody(song(high, replace(low, name=name)))[0] == 1
    for name in ("Backing Vocals", "Counter-melody", "Lead Bass", "harmony voice", "Left hand"):
        assert melody(song(low, replace(high, name=name)))[0] == 0
    assert melody(song(replace(high, name="Flute"), replace(low, name="Singer")))[0] == 1
    assert melody(song(replace(low, name="Voice 1"), replace(high, name="Voice 2")))[0] == 1


@pytest.mark.parametrize(
    "other",
    [
        tuple(Note(float(b), 0.1, 82) for b in range(16)),  # bells: hardly ever sounding
        tuple(Note(b, 4.0, 76) for b in (0.0, 4.0, 8.0, 12.0)),  # a pad: hardly ever moving
        tuple(Note(float(b), 1.0, p) for b in range(16) for p in (72, 76, 79)),  # chords
        transpose(TUNE, -12),  # the same an octave below
    ],
)
def test_height_alone_makes_no_melody(other):
    assert melody(song(other, TUNE))[0] == 1
    assert melody(song(TUNE, other))[0] == 0


def test_a_part_of_few_notes_serves_only_alone():
    stray = Part(line(84, 86), "Melody")
    assert melody(song(stray, CHORDS))[0] == 1
    assert melody(song(stray)) == (0, stray)


def test_the_melody_keeps_its_part_and_is_one_line():
    index, part = melody(song(Part(CHORDS, "Organ", 19)))
    assert (index, part.name, part.program) == (0, "Organ", 19)
    assert shapes(part.notes) == [(float(b), 2.0, 55) for b in range(0, 16, 2)]


def test_a_track_is_chosen_by_name_or_number():
    made = song(Part(TUNE, "Violin I"), Part(CHORDS, "Violin II"), Part(CHORDS, "Cello"), Part(CHORDS, "1"))
    for track, index in ((1, 0), (3, 2), ("3", 2), ("violin ii", 1), ("Violin I", 0), ("cel", 2), ("1", 3)):
        assert melody(made, track)[0] == index
    for track in ("oboe", "", 0, 5, "5", -1):
        with pytest.raises(SeqvaeError, match='no track fits .*1 "Violin I", 2 "Violin II", 3 "Cello"'):
            melody(made, track)
    with pytest.raises(SeqvaeError, match='more than one track fits "violin"'):
        melody(made, "violin")


def test_a_song_without_melody():
    with pytest.raises(SeqvaeError, match="only drums"):
        melody(song(DRUMS, ()))
    with pytest.raises(SeqvaeError, match="no notes"):
        melody(song(()))
    with pytest.raises(SeqvaeError, match=r'track 1 holds drums.*1 "Melody Toms" \(drums\)'):
        melody(song(DRUMS, TUNE), 1)
    with pytest.raises(SeqvaeError, match="track 1 holds no notes"):
        melody(song((), TUNE), 1)
    with pytest.raises(SeqvaeError, match="there are no tracks"):
        melody(song(), "x")


@given(st.lists(loose, min_size=1, max_size=3))
def test_any_song_with_notes_has_a_melody(parts):
    made = song(*map(tuple, parts))
    if any(parts):
        index, part = melody(made)
        assert part.notes == skyline(parts[index])
        assert len(part.notes) > 0


# --- pitch and key


@given(st.integers(-60, 200), st.integers(0, 100), st.integers(11, 60))
def test_folding_moves_by_the_fewest_octaves(pitch, low, width):
    high = low + width
    folded = fold_pitch(pitch, low, high)
    assert low <= folded <= high
    assert (folded - pitch) % 12 == 0
    nearest = min((p for p in range(low, high + 1) if (p - pitch) % 12 == 0), key=lambda p: abs(p - pitch))
    assert folded == nearest


def test_less_than_an_octave_folds_nothing():
    with pytest.raises(SeqvaeError, match="60 to 70"):
        fold_pitch(64, 60, 70)


def test_transpose():
    assert [n.pitch for n in transpose(line(60, 127, 0), 2)] == [62, 117, 2]
    assert [n.pitch for n in transpose(line(60, 0), -3)] == [57, 9]
    moved = transpose(song(TUNE, DRUMS, key=Key(10, "minor"), title="x"), 3)
    assert moved == song(transpose(TUNE, 3), DRUMS, key=Key(1, "minor"), title="x")
    assert transpose(song(TUNE), 3).key is None


@pytest.mark.parametrize("pairs, key", TUNES)
def test_the_key_of_old_tunes_wherever_they_stand(pairs, key):
    for up in range(12):
        assert find_key(transpose(tune(pairs), up)) == Key((key.tonic + up) % 12, key.mode)


@pytest.mark.parametrize("pairs, key", TUNES)
def test_music21_hears_the_same_key(pairs, key):
    music21 = pytest.importorskip("music21")
    stream = music21.stream.Stream([music21.note.Note(p, quarterLength=d) for p, d in pairs])
    theirs = music21.analysis.discrete.KrumhanslKessler().getSolution(stream)
    assert (theirs.tonic.pitchClass, theirs.mode) == key


def test_the_key_weighs_time_and_breaks_ties_in_order():
    triad = (Note(0.0, 8.0, 60), Note(8.0, 4.0, 64), Note(12.0, 6.0, 67))
    assert find_key(triad + line(66, 61, 68, 70, step=0.1, start=18.0)) == Key(0, "major")
    assert find_key(line(*range(60, 72))) == Key(0, "major")
    assert find_key([Note(0.0, 0.0, 64)]) == Key(4, "major")
    with pytest.raises(SeqvaeError, match="no notes"):
        find_key([])


# --- the clock


def test_seconds_of_known_tempi():
    made = song(tempi=((0.0, 120.0), (4.0, 60.0), (6.0, 240.0)))
    beats = (-1.0, 0.0, 1.0, 4.0, 5.0, 6.0, 10.0)
    assert [seconds(made, b) for b in beats] == [-0.5, 0.0, 0.5, 2.0, 3.0, 4.0, 5.0]
    assert [beats_at(made, s) for s in (-0.5, 0.0, 0.5, 2.0, 3.0, 4.0, 5.0)] == list(beats)


@given(st.dictionaries(times, st.floats(10, 400), max_size=6), st.floats(-10, 100), st.floats(-10, 100))
def test_seconds_and_beats_are_inverse_and_rise(changes, a, b):
    made = song(tempi=tuple(sorted({**changes, 0.0: 100.0}.items())))
    assert beats_at(made, seconds(made, a)) == pytest.approx(a, abs=1e-9)
    assert seconds(made, beats_at(made, a)) == pytest.approx(a, abs=1e-9)
    assert a + 1e-6 > b or seconds(made, a) < seconds(made, b)


# --- phrases put together


def test_phrases_lie_end_to_end_and_cut_each_other():
    first = Phrase((Note(0.0, 1.0, 60), Note(2.0, 9.0, 62)), THREE, 1)
    second = Phrase((Note(1.0, 1.5, 64), Note(2.0, 7.0, 65)), FOUR, 1)
    third, key = replace(second, notes=()), Key(0, "major")
    made = assemble([first, second, third], tempo=90.0, program=73, key=key, title="t")
    assert shapes(made.parts[0].notes) == [(0.0, 1.0, 60), (2.0, 2.0, 62), (4.0, 1.0, 64), (5.0, 7.0, 65)]
    assert made.metres == ((0.0, THREE), (3.0, FOUR))
    assert (made.tempi, made.parts[0].program, made.key, made.title) == (((0.0, 90.0),), 73, key, "t")
    assert (made.pickup, made.notices) == (0.0, ())


def test_what_has_no_place_is_counted():
    short = Phrase(line(60, 61, 62, 63), FOUR, 1)
    made = assemble([short, short], onsets=[-3.0, 0.0])
    assert shapes(made.parts[0].notes) == [(float(i), 1.0, 60 + i) for i in range(4)]
    assert made.notices == ("4 notes with no place in the line were left out",)
    assert made.metres == ((0.0, FOUR),) and made.pickup == 1.0
    early = assemble([Phrase((Note(3.0 - SLACK / 2, 1.0, 60),), FOUR, 1)], onsets=[-3.0])
    assert (early.parts[0].notes[0].onset, early.notices) == (0.0, ())
    chord = assemble([Phrase((Note(0.0, 1.0, 60), Note(0.0, 1.0, 64)), FOUR, 1)])
    assert (shapes(chord.parts[0].notes), len(chord.notices)) == ([(0.0, 1.0, 64)], 1)


def test_nothing_makes_no_song():
    with pytest.raises(SeqvaeError, match="no phrases"):
        assemble([])


@given(songs(lines()), st.integers(1, 4))
def test_a_song_comes_back_from_its_windows(made, size):
    found = windows(made, made.parts[0], size)
    if not found:
        assert made.parts[0].notes == ()
        return
    back = assemble([w.phrase for w in found], onsets=[w.onset for w in found])
    assert shapes(back.parts[0].notes) == [pytest.approx(s) for s in shapes(made.parts[0].notes)]
    assert (back.pickup, back.notices) == (made.pickup, ())
    count = found[-1].bar + 1  # past the last window's first bar nothing tells of a change of metre
    assert bars(back)[:count] == [(pytest.approx(at), metre) for at, metre in bars(made)[:count]]


@given(lines(), metres, st.integers(1, 4))
def test_a_song_of_one_metre_comes_back_end_to_end(notes, metre, size):
    made = song(notes, metres=((0.0, metre),), pickup=0.5)
    found = windows(made, made.parts[0], size)
    back = assemble([w.phrase for w in found] or [Phrase((), metre, size)])
    assert back.metres == ((0.0, metre),)
    shift = metre.beats - made.pickup
    assert shapes(back.parts[0].notes) == [pytest.approx((n.onset + shift, *n[1:3])) for n in notes]
