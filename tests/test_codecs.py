"""The laws of every codec, over real files, our phrases and generated ones; then the codecs' own."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from seqvae import files, pictures, sources
from seqvae.codecs import (
    CODECS,
    GridCodec,
    NotesCodec,
    PiecesCodec,
    PixelsCodec,
    Spelling,
    TextCodec,
    VoicesCodec,
    WordsCodec,
    build_codec,
)
from seqvae.codecs.bars import DENOMINATORS, HIGHEST, LONGEST, LOWEST, UNTOLD, BarsCodec
from seqvae.codecs.voices import HITS
from seqvae.harmony import SYMBOLS, chord_of, parse_chords
from seqvae.song import (
    ENSEMBLES,
    TICKS,
    Key,
    Metre,
    Note,
    Part,
    Phrase,
    SeqvaeError,
    Song,
    assemble,
    transpose,
)

DATA = Path(__file__).parent.parent / "data"
METRES = [Metre(n, d) for n in range(1, 65) for d in DENOMINATORS]


# ------------------------------------------------------------------------------------------ the cases


def fits(codec: BarsCodec, metre: Metre) -> bool:
    ticks = metre.beats * TICKS
    return ticks <= codec.bar_ticks and ticks == int(ticks)


@st.composite
def phrases_of(draw: st.DrawFn, codec: BarsCodec) -> Phrase:
    """Any notes of any voice in any metre: on the grid, between ticks, past the window, overlapping, outside
    the piano."""
    metre = draw(st.sampled_from([metre for metre in METRES if fits(codec, metre)]))
    beats = codec.bars * metre.beats
    halves = st.integers(0, int(beats * 2 * TICKS)).map(lambda tick: tick / (2 * TICKS))
    onset = halves | st.floats(0, beats * 1.1)
    duration = st.integers(0, 500).map(lambda tick: tick / TICKS) | st.floats(0, 40)
    voice = st.integers(0, len(ENSEMBLES[codec.ensemble]) - 1)
    note = st.builds(Note, onset, duration, st.integers(0, 127), st.integers(0, 127), voice)
    notes = tuple(draw(st.lists(note, max_size=24)))
    chord, count = st.integers(0, SYMBOLS - 1).map(chord_of), codec.bars * codec.chords
    chords = st.just(()) | st.lists(chord, min_size=count, max_size=count).map(tuple)
    return Phrase(notes, metre, codec.bars, draw(chords), draw(chord), codec.ensemble)


def songs() -> Iterator[Song]:
    """Every song of data/ and the first folk tunes."""
    paths = sorted(path for path in DATA.iterdir() if path.suffix in (".mid", ".abc"))
    found = [song for path in paths for _, song in files.read_all(path)]
    assert len(found) >= 5
    yield from (song for song in found if isinstance(song, Song))
    yield from (song for _, song in islice(files.folk(), 40) if isinstance(song, Song))


def chorales() -> Iterator[Song]:
    """Ours and some of Bach's."""
    yield files.read(DATA / "harbour_evening.mid")
    yield from (files.read(unit.path) for unit in sources.chorales()[:60:12])


def hear(phrase: Phrase, path: Path) -> None:
    """Writes a phrase to listen to, pitches that MIDI cannot hold folded."""
    files.write(assemble([replace(phrase, notes=transpose(phrase.notes, 0))]), path)


SENTENCES = (DATA / "sentences.txt").read_text(encoding="utf-8").splitlines()
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def texts_of(codec: TextCodec) -> st.SearchStrategy[str]:
    """Any characters at all; the codec's own symbols, up to many times what it spells; sentences, cut and
    joined."""
    symbols = st.lists(st.integers(0, codec.end - 1), max_size=3 * codec.longest).map(codec.text)
    some = st.builds(
        lambda text, a, b: text[min(a, b) : max(a, b)], st.sampled_from(SENTENCES), NUMBER, NUMBER
    )
    return ANY_TEXT | symbols | st.lists(some | ANY_TEXT, max_size=5).map(" ".join)


NUMBER = st.integers(0, 60)


def write(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8", newline="")


def images_of(codec: PixelsCodec) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.uint8, (codec.height, codec.width, codec.channels))


def photographs() -> Iterator[np.ndarray]:
    """The pictures in samples/, which are large, cut to what the first codecs spell."""
    paths = sorted((DATA.parent / "samples").rglob("*.png"))
    for path in paths:
        for width in (9, 18, 36):  # of which the first is spelt whole
            yield pictures.load(path, pictures.Framing(12 * width // 9, width, 3))[:12, :9]


def paint(image: np.ndarray, path: Path) -> None:
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(path)


class Case(NamedTuple):
    """What the laws need to know of a kind of thing."""

    codecs: list[Any]
    generated: Callable[[Any], st.SearchStrategy[Any]]
    real: Callable[[], Iterator[object]]  # what files.read gives
    keep: Callable[[Any, Path], None]
    least: int  # real things
    snapped: bool  # is what is decoded of any grid
    ends: bool = True  # with an END row
    suffix: str = ".txt"  # of what is kept


CASES = {
    "notes": Case(
        [
            *(NotesCodec(), NotesCodec(chords=2), NotesCodec(4, section=2)),
            *(NotesCodec(1, 48), NotesCodec(3, TICKS), NotesCodec(4)),
        ],
        phrases_of, songs, hear, 500, True, suffix=".mid",
    ),
    "melody": Case(
        [GridCodec(), GridCodec(3, step=1)], phrases_of, songs, hear, 500, True, suffix=".mid",
    ),
    "voices": Case(
        [VoicesCodec(), VoicesCodec(4, quarters=1), VoicesCodec(ensemble="trio"), VoicesCodec(1, TICKS)],
        phrases_of, chorales, hear, 100, True, suffix=".mid",
    ),
    "words": Case(
        [WordsCodec.learn(SENTENCES, size, longest) for size, longest in ((200, 100), (20_000, 6), (2, 2))],
        texts_of, lambda: iter(SENTENCES), write, 140, False,
    ),
    "pieces": Case(
        [
            PiecesCodec.learn(SENTENCES, size, longest, algorithm)
            for size, longest, algorithm in ((800, 100, "unigram"), (700, 12, "bpe"), (8000, 2, "unigram"))
        ],
        texts_of, lambda: iter(SENTENCES), write, 140, False,
    ),
    "pixels": Case(
        [
            PixelsCodec(*frame)
            for frame in ((12, 9, 3), (12, 9, 3, 5), (8, 8, 1, 17), (8, 64, 1, 2), (8, 8, 3, 255))
        ],
        images_of, photographs, paint, 20, True, ends=False, suffix=".png",
    ),
}  # fmt: skip
EVERY = [
    pytest.param(CASES[name], codec, id=f"{name}-{i}")
    for name in CASES
    for i, codec in enumerate(CASES[name].codecs)
]


def test_every_codec_has_cases():
    assert CASES.keys() == CODECS.keys()


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("failures")


@contextmanager
def kept(raw: Any, case: Case, folder: Path) -> Iterator[None]:
    """Writes what breaks a law to a file to be played; of hypothesis's cases the last, smallest one stays."""
    try:
        yield
    except Exception as fault:
        path = folder / f"broken{case.suffix}"
        case.keep(raw, path)
        fault.add_note(f"what broke the law: {path}")
        raise


def same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return one == other


def obeys(raw: Any, case: Case, codec: Any, folder: Path) -> None:
    """The laws for one thing."""
    with kept(raw, case, folder):
        steps, condition = codec.encode(raw)
        snapped = codec.snap(raw)
        assert same(codec.decode(steps, condition), snapped)
        assert same(codec.snap(snapped), snapped)
        sizes = [stream.size for stream in codec.streams]
        assert steps.dtype == condition.dtype == np.int16 and steps.shape[1] == len(sizes)
        assert (steps >= 0).all() and (steps < sizes).all()
        assert (condition >= 0).all() and (condition < [stream.size for stream in codec.conditions]).all()
        if case.ends:
            over = steps[:, 0] == sizes[0] - 1  # the END rows, one a section
            assert over[-1] and over.sum() == getattr(codec, "sections", 1) and not steps[over, 1:].any()
        else:
            assert len(steps) == codec.longest
        if (climb := codec.streams[0].climb) is not None:
            assert (np.diff(steps[:, 0])[~over[:-1]] >= climb).all()
            assert len(steps) <= codec.longest


# ------------------------------------------------------------------------------------------- the laws


@pytest.mark.parametrize(("case", "codec"), EVERY)
def test_laws_hold_for_generated_things(case: Case, codec: Any, failures: Path) -> None:
    @given(case.generated(codec))
    def check(raw: Any) -> None:
        obeys(raw, case, codec, failures)

    check()


@pytest.mark.parametrize("name", CASES)
def test_laws_hold_for_real_files(name: str, failures: Path) -> None:
    case, count = CASES[name], 0
    for source in case.real():
        for codec in case.codecs[:2]:
            for _, raw in codec.pieces(source):
                obeys(raw, case, codec, failures)
                count += 1
    assert count >= case.least


def test_laws_hold_for_our_phrases(phrases: list[Phrase], codec: NotesCodec, failures: Path) -> None:
    for phrase in phrases:
        obeys(phrase, CASES["notes"], codec, failures)


@pytest.mark.parametrize(("case", "codec"), EVERY)
def test_any_grid_decodes_to_a_thing_that_is_spelt(case: Case, codec: Any, failures: Path) -> None:
    """A decoder may emit anything: symbols of the streams, or integers that are none."""

    def grids(streams: tuple[Any, ...], rows: st.SearchStrategy[int] | None) -> st.SearchStrategy[np.ndarray]:
        wild = hnp.from_dtype(np.dtype(np.int16))
        tame = st.tuples(*(st.integers(0, stream.size - 1) for stream in streams))
        if rows is None:
            return hnp.arrays(np.int16, len(streams), elements=wild) | tame.map(
                lambda row: np.array(row, np.int16)
            )
        wilds = rows.flatmap(lambda count: hnp.arrays(np.int16, (count, len(streams)), elements=wild))
        tames = st.lists(tame, max_size=40).map(
            lambda rows: np.array(rows, np.int16).reshape(-1, len(streams))
        )
        return wilds | tames | tames.map(lambda grid: grid[np.argsort(grid[:, 0])])

    @given(grids(codec.streams, st.integers(0, 12)), grids(codec.conditions, None))
    def check(steps: np.ndarray, condition: np.ndarray) -> None:
        raw = codec.decode(steps, condition)
        with kept(raw, case, failures):
            assert not case.snapped or same(codec.decode(*codec.encode(raw)), raw)
        obeys(raw, case, codec, failures)

    check()


@pytest.mark.parametrize(("case", "codec"), EVERY)
def test_what_a_codec_says_of_itself_rebuilds_it(case: Case, codec: Any) -> None:
    again = build_codec(codec.config(), codec.state)
    assert type(again) is type(codec) and again.config() == codec.config() and again.kind == codec.kind
    assert (again.streams, again.conditions) == (codec.streams, codec.conditions)


def test_a_broken_law_leaves_a_file_to_hear(tmp_path: Path, phrases: list[Phrase]) -> None:
    class Deaf(NotesCodec):
        def decode(self, steps: np.ndarray, condition: np.ndarray) -> Phrase:
            phrase = super().decode(steps, condition)
            return replace(phrase, notes=transpose(phrase.notes, 1))

    with pytest.raises(AssertionError) as caught:
        obeys(phrases[0], CASES["notes"], Deaf(), tmp_path)
    assert str(tmp_path / "broken.mid") in caught.value.__notes__[-1]
    heard = files.read(tmp_path / "broken.mid").parts[0].notes
    assert [(n.onset, n.pitch) for n in heard] == [(n.onset, n.pitch) for n in phrases[0].notes]


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"name": "songs"},
        {"name": ["notes"]},
        {"name": "notes", "bars": "two"},
        {"name": "notes", "rows": 2},
        {"name": "words", "longest": 100},
        {"name": "words", "vocabulary": "0" * 64},
        {"name": "pieces", "vocabulary": hashlib.sha256(b"").hexdigest()},
        {"name": "words", "vocabulary": hashlib.sha256(b"").hexdigest(), "rows": 2},
        {"name": "pixels"},
        {"name": "pixels", "height": 8, "width": 8, "channels": "grey"},
    ],
)
def test_a_codec_that_is_none_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(SeqvaeError, match="codec|vocabulary"):
        build_codec(config)


# -------------------------------------------------------------------------------------- notes: spelling


def test_a_phrase_worked_out_by_hand(codec: NotesCodec) -> None:
    notes = (
        Note(0.0, 1.5, 60, 80),
        Note(1.49, 0.51, 20, 0),  # an octave below the piano's bottom; 17.88 ticks
        Note(1.5, 9.0, 61, 50),  # on one tick with the note before it: left out
        Note(2 + 1 / 3, 0.01, 109, 127),  # less than a tick, above the piano's top
        Note(5.0, 99.0, 64, 64),  # longer than the longest
    )
    steps, condition = codec.encode(Phrase(notes, Metre(6, 8), 2))
    assert condition.tolist() == [6, 3]
    assert steps.tolist() == [
        [0, 39, 17, 5],
        [18, 11, 5, 0],
        [28, 76, 0, 7],
        [60, 43, 191, 4],
        [144, 0, 0, 0],
    ]
    heard = codec.decode(steps, condition)
    assert [(n.pitch, n.velocity) for n in heard.notes] == [(60, 88), (32, 8), (97, 120), (64, 72)]
    assert [n.onset * TICKS for n in heard.notes] == pytest.approx([0, 18, 28, 60])
    assert [n.duration * TICKS for n in heard.notes] == pytest.approx([18, 6, 1, 192])


def test_sections_each_have_their_end() -> None:
    codec = NotesCodec(4, section=2)
    notes = (Note(0.0, 1.0, 60, 80), Note(5.0, 4.0, 62, 80), Note(6.0, 0.5, 64, 80))
    steps, condition = codec.encode(Phrase(notes, Metre(3, 4), 4))
    assert steps.tolist() == [
        [0, 39, 11, 5], [60, 41, 47, 5], [144, 0, 0, 0], [0, 43, 5, 5], [144, 0, 0, 0]
    ]  # fmt: skip
    phrase = codec.decode(steps, condition)
    assert [(n.onset, n.duration, n.pitch) for n in phrase.notes] == [(0, 1, 60), (5, 1, 62), (6, 0.5, 64)]
    assert codec.of_section().config() == NotesCodec().config() and codec.sections == 2
    assert codec.config() == {"name": "notes", "bars": 4, "bar_ticks": 72, "section": 2}
    late = codec.decode(np.array([[144, 0, 0, 0], [12, 39, 11, 5]]), condition)  # the last END is not needed
    assert [n.onset for n in late.notes] == [7]
    with pytest.raises(SeqvaeError, match="no notes codec spells 4 bars of 72 ticks by 3"):
        NotesCodec(4, section=3)


def test_a_grid_worked_out_by_hand() -> None:
    codec = GridCodec()
    notes = (
        Note(0.25, 0.5, 60, 20),
        Note(0.74, 0.3, 62),  # to 0.75, and so to 1.0; the next note cuts nothing
        Note(1.5, 9.0, 110),  # folded to 98; to the window's end
        Note(1.6, 0.1, 64),  # on the same sixteenth as the last: the first stays
    )
    steps, condition = codec.encode(Phrase(notes, Metre(2, 4), 2))
    assert steps[:, 0].tolist() == [0, 41, 0, 43, 1, 0, 79, *[0] * 9, 90] and condition.tolist() == [2, 2]
    phrase = codec.decode(steps, condition)
    assert [(n.onset, n.duration, n.pitch) for n in phrase.notes] == [
        (0.25, 0.5, 60), (0.75, 0.25, 62), (1.5, 2.5, 98)
    ]  # fmt: skip
    rest = codec.decode(np.array([[0], [1], [1], [41], [1], [0], [90], [43]]), condition)
    assert [(n.onset, n.duration) for n in rest.notes] == [(0.75, 0.25)]
    assert codec.moved(Phrase(notes, Metre(2, 4), 2)) == 2
    assert GridCodec(step=1).moved(Phrase((Note(1 / 3, 1, 60),), Metre(2, 4), 2)) == 0
    with pytest.raises(SeqvaeError, match="a step is 1 or 3 ticks"):
        GridCodec(step=2)


def test_decoding_cuts_overlaps_and_stops_at_the_end(codec: NotesCodec) -> None:
    steps = np.array(
        [[0, 39, 30, 4], [12, 40, 11, 4], [12, 41, 11, 4], [6, 42, 0, 0], [144, 9, 9, 9], [20, 1, 1, 1]]
    )
    heard = codec.decode(steps, np.array([4, 2]))
    assert [(n.onset, n.duration, n.pitch) for n in heard.notes] == [(0, 1, 60), (1, 1, 61)]


def test_a_condition_that_is_no_metre_is_read_as_the_longest_bar_of_quarters(codec: NotesCodec) -> None:
    for symbols in ([0, 2], [-3, 2], [7, 2], [65, 6], [1, 6], [3, 5], [32767, 0], [2, 0]):
        # no bar, less than none, 84 ticks, over 64, 3/4 of a tick, 4 1/2 ticks, far too long, 96 ticks
        assert codec.decode(np.zeros((0, 4)), np.array(symbols)).metre == Metre(6, 4), symbols
    for symbols, metre in (
        ([4, 5], Metre(4, 32)),
        ([4, 6], Metre(4, 64)),
        ([4, -5], Metre(4, 4)),
        ([1, 7], Metre(1, 1)),
    ):
        assert codec.decode(np.zeros((0, 4)), np.array(symbols)).metre == metre


@pytest.mark.parametrize("metre", [(0, 4), (3, 5), (68, 64), (1, 64), (7, 4), (-4, 4)])
def test_metres_that_cannot_be_spelt_are_refused(codec: NotesCodec, metre: tuple[int, int]) -> None:
    with pytest.raises(SeqvaeError):
        codec.encode(Phrase((), Metre(*metre), 2))


def test_windows_of_other_lengths_and_odd_codecs_are_refused(codec: NotesCodec) -> None:
    with pytest.raises(SeqvaeError, match="2 bars, not 4"):
        codec.encode(Phrase((), Metre(4, 4), 4))
    for bars, bar_ticks in ((0, 72), (-1, 72), (2, 0), (2, 11), (2, 769), (500, 72)):
        with pytest.raises(SeqvaeError, match="no notes codec"):
            NotesCodec(bars, bar_ticks)
    with pytest.raises(SeqvaeError, match="spells songs, not str"):
        list(codec.pieces("X:1"))


def test_harmony_is_told_where_the_codec_spells_it(codec: NotesCodec) -> None:
    told = NotesCodec(chords=2)
    phrase = Phrase((Note(0.0, 1.0, 64, 72),), Metre(4, 4), 2, parse_chords("C | G Am"), Key.parse("C"))
    assert told.encode(phrase).condition.tolist() == [4, 2, 1, 1, 8, 22, 1]
    assert [stream.name for stream in told.conditions[2:]] == [*(f"chord-{i}" for i in (1, 2, 3, 4)), "key"]
    assert told.snap(phrase) == phrase and codec.snap(phrase) == replace(phrase, chords=(), key=None)
    bare = replace(phrase, chords=(None,) * 4)
    assert told.snap(bare) == replace(bare, chords=())  # no chord anywhere is none told
    assert told.decode(np.zeros((0, 4)), np.array([4, 2, 0, 25, -1, 24, 13])) == Phrase(
        (), Metre(4, 4), 2, (None, None, None, Key.parse("Dm")), Key.parse("Cm")
    )
    assert "chords" not in codec.config() and told.config()["chords"] == 2
    for few in (1, 3, 8):
        with pytest.raises(SeqvaeError, match=f"2 bars have 4 chords, not {few}"):
            told.encode(replace(phrase, chords=phrase.chords[:1] * few))
    for wrong in ({"chords": 1}, {"chords": 3}, {"bars": 4, "section": 2, "chords": 2}):
        with pytest.raises(SeqvaeError, match="chords"):
            NotesCodec(**wrong)


def test_pieces_of_a_song_have_its_chords(codec: NotesCodec) -> None:
    line, chord = tuple(Note(float(i), 1.0, 72 + i % 5) for i in range(12)), parse_chords("C | G Am | F")
    under = tuple(Note(2.0 * i, 2.0, 43 + (c.tonic - 43) % 12 + up) for i, c in enumerate(chord) if c
                  for up in (0, 4 - (c.mode == "minor"), 7))  # fmt: skip
    song = Song((Part(under, "chords"), Part(line, "melody")), key=Key.parse("C"))
    (_, one), (_, other) = NotesCodec(chords=2).pieces(song)
    assert (one.chords, other.chords) == (chord[:4], chord[2:]) and one.key == song.key
    assert [replace(piece, chords=(), key=None) for piece in (one, other)] == [
        p for _, p in codec.pieces(song)
    ]


def test_moved_counts_the_onsets_off_the_grid(codec: NotesCodec) -> None:
    def moved(*ticks: float) -> int:
        return codec.moved(Phrase(tuple(Note(tick / TICKS, 1, 60) for tick in ticks), Metre(4, 4), 2))

    assert moved() == moved(0, 7, 40, 95) == moved(5.009, 95.991) == 0
    assert moved(0, 5.02, 7.5, 9, 94.9) == 3
    assert moved(*(i * 12 / 5 for i in range(10))) == 8  # fifths of a quarter: every fifth is on the grid


# --------------------------------------------------------------------------- notes: augment, fingerprint


def grid(codec: NotesCodec, phrases: list[Phrase], low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    """The phrases' steps, zero-padded, with pitches squeezed into symbols low .. high, and their lengths."""
    rows = [codec.encode(phrase).steps.copy() for phrase in phrases]
    lengths = np.array([len(row) for row in rows])
    steps = np.zeros((len(rows), max(lengths) + 3, 4), np.int64)
    for out, row in zip(steps, rows, strict=True):
        row[:-1, 1] = low + row[:-1, 1] % (high - low + 1)
        out[: len(row)] = row
    return steps, lengths


@pytest.mark.parametrize(("low", "high"), [(30, 60), (0, 40), (40, 87), (0, 87)])
def test_augmenting_only_transposes_within_the_piano(
    codec: NotesCodec, phrases: list[Phrase], low: int, high: int
) -> None:
    phrases = [*phrases, Phrase((), Metre(4, 4), 2)]
    steps, lengths = grid(codec, phrases, low, high)
    before, shifts, conditions = steps.copy(), set(), np.zeros((len(steps), 2), np.int64)
    for seed in range(20):
        found, told = codec.augment(steps, lengths, conditions, np.random.default_rng(seed))
        assert (steps == before).all() and told is conditions  # not in place
        assert (found[..., [0, 2, 3]] == steps[..., [0, 2, 3]]).all()
        assert (found[..., 1] >= 0).all() and (found[..., 1] <= HIGHEST - LOWEST).all()
        for row, old, length in zip(found, steps, lengths, strict=True):
            assert (row[length - 1 :] == old[length - 1 :]).all()  # END and padding
            shifts.update(moves := {int(shift) for shift in (row - old)[: length - 1, 1]})
            assert len(moves) == (1 if length > 1 else 0)
        assert (codec.augment(steps, lengths, conditions, np.random.default_rng(seed))[0] == found).all()
    # 480 draws of 12 shifts, unless the piano ends: one is missing at odds of 12 x (11/12)^480, 1e-17.
    assert shifts == set(range(-6, 6)) if (low, high) == (30, 60) else shifts <= set(range(-6, 6))


def test_what_is_told_a_key_is_spelt_in_c(phrases: list[Phrase]) -> None:
    """A song in any key has the same steps and chords; its key brings it back."""
    told, plain = NotesCodec(chords=2), NotesCodec()
    chords, key = parse_chords("G | D Em"), Key.parse("G")
    for phrase in phrases:
        phrase = replace(plain.snap(phrase), chords=chords, key=key)
        steps, condition = told.encode(phrase)
        assert condition[2:].tolist() == [1, 1, 8, 22, 8] and told.decode(steps, condition) == phrase
        for semitones in (-9, -1, 6):
            notes = transpose(phrase.notes, semitones)
            up = [c and c._replace(tonic=(c.tonic + semitones) % 12) for c in (*chords, key)]
            moved = told.encode(replace(phrase, notes=notes, chords=tuple(up[:-1]), key=up[-1]))
            apart = (moved.steps - steps)[:-1, 1]
            assert (apart % 12 == 0).all() and len({*apart.tolist()}) == 1  # whole octaves
            assert (moved.condition[:-1] == condition[:-1]).all()
    minor = replace(phrases[0], chords=(), key=Key.parse("Em"))
    apart = (told.encode(minor).steps - told.encode(replace(minor, key=None)).steps)[:-1, 1]
    assert {*(apart % 12).tolist()} == {5}  # from E up to A


def test_augmenting_what_is_told_a_key_changes_that_alone(phrases: list[Phrase]) -> None:
    told, song = NotesCodec(chords=2), parse_chords("C | G Am")
    rows = [told.encode(replace(phrase, chords=song, key=Key(2, "major"))) for phrase in phrases]
    steps, lengths = grid(told, phrases, 30, 60)
    steps, lengths = np.tile(steps, (60, 1, 1)), np.tile(lengths, 60)
    conditions = np.tile(np.stack([row.condition for row in rows]), (60, 1))
    before = conditions.copy()
    same_steps, heard = told.augment(steps, lengths, conditions, np.random.default_rng(0))
    assert same_steps is steps and (conditions == before).all()
    chordless, keyless = (heard[:, 2:6] == 0).all(1), heard[:, 6] == 0
    assert (heard[:, :2] == before[:, :2]).all() and (heard[~chordless, 2:6] == before[~chordless, 2:6]).all()
    assert not (keyless & ~chordless).any()
    for share, expected in ((chordless.mean(), UNTOLD), (keyless.mean(), UNTOLD / 2)):
        assert abs(share - expected) < 0.05  # of 1440 rows: six standard errors
    assert {*heard[~keyless, 6].tolist()} == {*range(1, 13)}  # a key is missing at odds of 12 x (11/12)^1300
    own = [told.fingerprint(rows[0].steps, row) for row in (before[0], heard[0], heard[0] + 1)]
    assert own[0] == own[1] != own[2]  # whatever the harmony, not the metre


def test_fingerprints_forget_key_articulation_and_loudness_alone(
    codec: NotesCodec, phrases: list[Phrase]
) -> None:
    rng = np.random.default_rng(0)
    for phrase in phrases:
        steps, condition = codec.encode(phrase)
        own = codec.fingerprint(steps, condition)
        for shift in (-7, 1, 12):
            moved = codec.encode(replace(phrase, notes=transpose(phrase.notes, shift)))
            assert codec.fingerprint(*moved) == own
        other = steps.copy()
        other[:-1, 2], other[:-1, 3] = (
            rng.integers(0, LONGEST, len(steps) - 1),
            rng.integers(0, 8, len(steps) - 1),
        )
        assert codec.fingerprint(other, condition) == own
        assert codec.fingerprint(steps.astype(np.int64), condition.astype(np.int64)) == own
        for row in range(len(steps) - 1):
            for column in (0, 1):
                other = steps.copy()
                other[row, column] += 1
                assert codec.fingerprint(other, condition) != own
        assert codec.fingerprint(steps[1:], condition) != own != codec.fingerprint(steps, condition + 1)
    empty = codec.encode(Phrase((), Metre(4, 4), 2))
    assert codec.fingerprint(*empty) == codec.encode(Phrase((), Metre(4, 4), 2)).condition.tobytes()


# -------------------------------------------------------------------------------------------- text


def test_words_worked_out_by_hand() -> None:
    codec = WordsCodec.learn(["b a b", "c b  a\td", "<unk> <unk> <unk>"], size=4, longest=5)
    assert codec.words == ["<unk>", "b", "a", "c"] and codec.end == 4  # d is as common as c, and after it
    assert codec.encode(" a\u3000d\nb ").steps.tolist() == [[2], [0], [1], [4]]
    assert codec.snap(" a\u3000d\nb ") == "a <unk> b" and codec.moved(" a d b ") == 1
    assert codec.encode("").steps.tolist() == [[4]] and codec.snap(" ") == ""
    assert codec.encode("a b c a b").steps.tolist() == [[2], [1], [3], [2], [4]]
    assert codec.decode(np.array([[1], [-7], [99], [2], [4], [1]]), np.zeros(0)) == "b a"


@pytest.mark.parametrize("codec", [*CASES["words"].codecs, *CASES["pieces"].codecs])
def test_texts_are_cut_at_the_longest_and_not_before(codec: TextCodec) -> None:
    for text in SENTENCES:
        symbols = codec.symbols(text)
        for count in range(len(symbols)):
            part = codec.text(symbols[:count])
            spelt, steps = codec.symbols(part), codec.encode(part).steps[:, 0].tolist()
            assert codec.cut(part) == (len(spelt) >= codec.longest)
            assert steps[-1] == codec.end and len(steps) <= codec.longest
            if codec.cut(part):
                assert codec.text(spelt).startswith(codec.snap(part)[:-1])  # but for a letter cut in two
            else:
                assert steps[:-1] == spelt


def test_pieces_know_every_character_and_normalise() -> None:
    codec = CASES["pieces"].codecs[0]
    assert codec.snap("\U00013080 ꙮ\u0489 ⵣ") == "\U00013080 ꙮ\u0489 ⵣ"  # hieroglyphs: none was ever seen
    assert codec.snap("  ＦＵＬＬ\u3000 ﬁne\n") == "FULL fine"
    kept = [text for text in SENTENCES if codec.snap(text) == text]
    assert len(kept) >= len(SENTENCES) - 6  # full-width marks and ligatures are all that changes
    steps = np.array([codec.processor.piece_to_id(f"<0x{byte:02X}>") for byte in b"a\xff\xc3z"])
    assert codec.decode(steps, np.zeros(0)) == "a\ufffd\ufffdz"  # bytes that are no character


def test_what_holds_no_symbol_is_refused() -> None:
    for codec in (CASES["words"].codecs[0], CASES["pieces"].codecs[0]):
        assert list(codec.pieces("a word")) == [(0, "a word")]
        for nothing in ("", " \t\n"):
            with pytest.raises(SeqvaeError, match="nothing in it to spell"):
                list(codec.pieces(nothing))
        with pytest.raises(SeqvaeError, match="spells text, not Song"):
            list(codec.pieces(Song(())))


def test_very_long_texts_are_only_looked_at_so_far() -> None:
    for codec in (CASES["words"].codecs[0], CASES["pieces"].codecs[0]):
        for text in ("so " * 40_000, "x" * 120_000):
            assert codec.cut(text) and len(codec.encode(text).steps) <= codec.longest


def test_vocabularies_that_are_none_are_refused() -> None:
    for state in (b"", b"a\nb", b"<unk>\na\na", b"<unk>\n\nb", b"<unk>\na b", b"<unk>\n\xff\xff\n\xfe\xfe"):
        with pytest.raises(SeqvaeError, match="list of different words"):
            WordsCodec(state)
    with pytest.raises(SeqvaeError, match="no sentencepiece model"):
        PiecesCodec(b"noise")
    for longest in (1, 1001):
        with pytest.raises(SeqvaeError, match="at most 2 to 1000 steps"):
            WordsCodec(b"<unk>\na", longest)
    with pytest.raises(SeqvaeError, match="1 to 31999 symbols"):
        WordsCodec("\n".join(["<unk>", *map(str, range(32_000))]).encode())
    for texts in ([], [""], ["\u200b"]):
        with pytest.raises(SeqvaeError, match="nothing to learn|these texts need"):
            PiecesCodec.learn(texts, 300)
    with pytest.raises(SeqvaeError, match="no word to learn"):
        WordsCodec.learn(["", " "], 300)
    with pytest.raises(SeqvaeError, match="need 6.. pieces or more, not 300"):
        PiecesCodec.learn(SENTENCES, 300)


def test_learning_is_repeatable() -> None:
    for algorithm in ("unigram", "bpe"):
        one, other = (PiecesCodec.learn(iter(SENTENCES), 700, 100, algorithm) for _ in range(2))
        assert one.state == other.state and one.end == 700
    assert Spelling("pieces", 700).learn(SENTENCES).state == PiecesCodec.learn(SENTENCES, 700).state
    spelling = Spelling("words", 50, 9)
    codec = spelling.learn(SENTENCES)
    assert spelling.codec(codec.state).config() == codec.config() and (codec.end, codec.longest) == (50, 9)
    assert (Spelling().size, Spelling("words").size) == (8000, 20000)


# -------------------------------------------------------------------------------------------- pixels


def test_pixels_are_spelt_row_by_row() -> None:
    codec = PixelsCodec(8, 9, 3)
    image = np.arange(8 * 9 * 3, dtype=np.uint8).reshape(8, 9, 3)
    steps, condition = codec.encode(image)
    assert steps.shape == (codec.longest, 3) == (72, 3) and condition.shape == (0,)
    assert steps[:2].tolist() == [[0, 1, 2], [3, 4, 5]] and steps[9].tolist() == image[1, 0].tolist()
    assert [stream.name for stream in codec.streams] == ["red", "green", "blue"]
    assert codec.moved(image) == 0
    batch = steps[None], np.array([72]), condition[None]
    found = codec.augment(*batch, np.random.default_rng(0))
    assert same(found[0], batch[0]) and same(found[1], batch[2])
    turned = codec.encode(image.transpose(1, 0, 2)[:8].repeat(2, 1)[:, :9])
    assert codec.fingerprint(*turned) != codec.fingerprint(steps, condition) == image.tobytes()


@pytest.mark.parametrize(
    ("levels", "seen"),
    [
        (2, {0: 0, 127: 0, 128: 1, 255: 1}),
        (3, {0: 0, 63: 0, 64: 1, 128: 1, 191: 1, 192: 2}),
        (17, {0: 0, 8: 1, 16: 1, 239: 15, 255: 16}),
        (256, {0: 0, 1: 1, 254: 254}),
    ],
)
def test_levels_are_evenly_spread(levels: int, seen: dict[int, int]) -> None:
    codec = PixelsCodec(8, 8, 1, levels)
    image = np.zeros((8, 8, 1), np.uint8)
    for value, symbol in seen.items():
        image[3, 4] = value
        assert codec.encode(image).steps[3 * 8 + 4] == [symbol]
        assert codec.snap(image)[3, 4] == round(symbol * 255 / (levels - 1))
    assert codec.streams == (("grey", "ordinal", levels),)
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    wide = PixelsCodec(16, 16, 1, levels)
    assert np.abs(wide.snap(ramp).astype(int) - ramp).max() <= -(-128 // (levels - 1)) * (levels < 256)
    assert wide.moved(ramp) == 256 - levels  # all but the levels' own values
    assert len(np.unique(wide.snap(ramp))) == levels


def test_grids_of_other_lengths_are_cut_or_black() -> None:
    codec = PixelsCodec(8, 8, 1, 17)
    image = codec.decode(np.array([[16], [99], [-3], [8]]), np.zeros(0))
    assert image.ravel()[:5].tolist() == [255, 255, 0, 128, 0] and not image.ravel()[4:].any()
    assert same(codec.decode(np.full((99, 1), 16), np.zeros(0)), np.full((8, 8, 1), 255, np.uint8))


def test_what_is_no_image_of_the_codec_is_refused() -> None:
    codec, image = PixelsCodec(8, 9, 1), np.zeros((8, 9, 1), np.uint8)
    assert [place for place, _ in codec.pieces(image)] == [0]
    assert [place for place, _ in codec.pieces(pictures.Picture("a", image))] == [0]
    with pytest.raises(SeqvaeError, match="spells images, not str"):
        list(codec.pieces("a word"))
    for other in (image[:, :8], image[..., 0], image.repeat(3, 2), image.astype(float)):
        with pytest.raises(SeqvaeError, match="spells images of 9 x 8 grey, not"):
            list(codec.pieces(other))
        with pytest.raises(SeqvaeError, match="spells images of 9 x 8 grey, not"):
            codec.encode(other)
    for frame in ((7, 8, 1), (8, 65, 1), (8, 8, 2), (8, 8, 1, 1), (8, 8, 1, 257)):
        with pytest.raises(SeqvaeError, match="no pixels codec"):
            PixelsCodec(*frame)


# ---------------------------------------------------------------------------------- the voices' own


def trio(*hits: tuple[float, int, int]) -> Phrase:
    """Two bars of 4/4 with notes of a beat: onset, pitch, voice."""
    notes = tuple(Note(onset, 1.0, pitch, 80, voice) for onset, pitch, voice in hits)
    return Phrase(notes, Metre(4, 4), 2, ensemble="trio")


def test_voices_stand_in_order_of_onset_and_voice():
    codec = VoicesCodec(ensemble="trio")
    steps, _ = codec.encode(trio((1, 36, 2), (1, 40, 1), (1, 60, 0), (1, 42, 2), (0, 62, 0)))
    assert steps[:-1, :3].tolist() == [[0, 0, 41], [12, 0, 39], [12, 1, 19], [12, 2, 15], [12, 2, 21]]


def test_a_voice_sounds_one_note_at_a_time_and_a_drum_one_hit():
    codec = VoicesCodec(ensemble="trio")
    snapped = codec.snap(trio((0, 60, 0), (0, 64, 0), (0.5, 67, 0), (0, 36, 2), (0, 42, 2), (0.5, 36, 2)))
    kept = [(note.onset, note.duration, note.pitch) for note in snapped.notes]
    assert kept == [(0, 0.5, 60), (0, 0.5, 36), (0, 1, 42), (0.5, 1, 67), (0.5, 1, 36)]


def test_drums_keep_their_keys_and_go_where_the_piano_has_none():
    codec = VoicesCodec(ensemble="trio")
    snapped = codec.snap(trio((0, 12, 0), (0, 12, 2), (0, 35, 2), (1, 120, 2), (1, 120, 1)))
    assert [(note.pitch, note.voice) for note in snapped.notes] == [(24, 0), (35, 2), (108, 1)]
    crowd = codec.snap(trio(*((0, key, 2) for key in range(50, 30, -1)), (0, 60, 0)))
    assert [note.pitch for note in crowd.notes] == [60, *range(31, 31 + HITS)]


def test_augmentation_transposes_voices_together_and_drums_not():
    codec = VoicesCodec(ensemble="trio")
    steps, condition = codec.encode(trio((0, 60, 0), (0, 40, 1), (0, 36, 2), (1, 62, 0), (1, 38, 2)))
    rows, told, seen = (
        np.repeat(steps[None], 64, 0).astype(np.int64),
        np.repeat(condition[None], 64, 0),
        set(),
    )
    moved_rows, again = codec.augment(rows, np.full(64, len(steps)), told, np.random.default_rng(0))
    assert again is told
    for row in moved_rows:
        moved = [int(by) for by in (row - steps)[:, 2]]
        assert moved[:2] == [moved[0]] * 2 and moved[2] == moved[4] == moved[5] == 0 and moved[3] == moved[0]
        assert (row[:, [0, 1, 3, 4]] == steps[:, [0, 1, 3, 4]]).all()
        assert codec.fingerprint(row, condition) == codec.fingerprint(steps, condition)
        seen.add(moved[0])
    assert seen == set(range(-6, 6))  # each missed once in 64 rows at odds of 1 in 22


def test_quarters_are_what_each_voice_sounds():
    notes = (
        Note(0, 2.5, 60),
        Note(2.5, 0.5, 62),
        Note(3, 5, 64),
        Note(0.5, 1, 48, 80, 3),
        Note(7.5, 1, 50, 80, 3),
    )
    snapped = VoicesCodec(quarters=1).snap(Phrase(notes, Metre(4, 4), 2, ensemble="chorale"))
    soprano = [note.pitch for note in snapped.notes if note.voice == 0]
    assert soprano == [60, 60, 60, 64, 64, 64, 64, 64] and {note.duration for note in snapped.notes} == {1.0}
    assert [(note.onset, note.pitch) for note in snapped.notes if note.voice == 3] == [(1, 48)]


def test_quarters_of_a_song_hold_what_a_window_only_hears_end():
    song = files.read(DATA / "harbour_evening.mid")
    windows = dict(VoicesCodec(1, quarters=1).pieces(song))
    assert [sum(note.onset == at for note in windows[4].notes) for at in range(4)] == [4, 4, 0, 4]
    assert len(windows[0].notes) == 4 and {note.onset for note in windows[0].notes} == {3.0}  # the pickup


def test_codecs_refuse_what_other_voices_sing():
    sung = Phrase((), Metre(4, 4), 2, ensemble="chorale")
    for codec in (NotesCodec(), GridCodec(), VoicesCodec(ensemble="trio")):
        with pytest.raises(SeqvaeError, match="this model spells a (melody|trio), not a chorale"):
            codec.encode(sung)
    with pytest.raises(SeqvaeError, match="not a melody"):
        VoicesCodec().encode(Phrase((), Metre(4, 4), 2))


@pytest.mark.parametrize(
    "config", [{"ensemble": "quartet"}, {"ensemble": ""}, {"ensemble": "trio", "quarters": 1}]
)
def test_there_is_no_codec_of_unknown_voices(config: dict[str, Any]):
    with pytest.raises(SeqvaeError):
        VoicesCodec(**config)
    with pytest.raises(SeqvaeError):
        VoicesCodec(600, 64 * TICKS)
