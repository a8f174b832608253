"""Pictures are measured in pixels and sounds in samples, against numbers worked out by hand."""

import os
import subprocess
import sys
import wave

import numpy as np
import pytest
from PIL import Image
from pretty_midi import Instrument

from seqvae import render
from seqvae.song import Key, Metre, Note, Part, SeqvaeError, Song

BLUE, RED = render.HUES[:2]
LEFT = 28 + 30 + 26  # margin, names, keyboard: where beat 0 of a roll stands


def tune(*notes: tuple[float, float, int], **fields) -> Song:
    """A song of one part of (onset, duration, pitch) in velocity 80."""
    return Song((Part(tuple(Note(*note) for note in notes)),), **fields)


def pixels(path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def patch(picture: np.ndarray, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom (exclusive) of all pixels of exactly this colour."""
    rows, columns = np.nonzero((picture == colour).all(axis=2))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def drawn(song: Song, folder, **options) -> np.ndarray:
    render.piano_roll(song, folder / "roll.png", **options)
    return pixels(folder / "roll.png")


@pytest.mark.parametrize(("onset", "duration"), [(0, 1), (1, 2), (3.5, 0.5)])
def test_a_note_lies_where_it_sounds(tmp_path, onset, duration):
    left, top, right, bottom = patch(drawn(tune((onset, duration, 60)), tmp_path), BLUE)
    assert left == pytest.approx(LEFT + 88 * onset, abs=2)  # one bar of 4/4 is drawn at 88 pixels a beat
    assert right == pytest.approx(LEFT + 88 * (onset + duration), abs=3)
    assert 7 <= bottom - top <= 12  # a row of 12 without its rim


def test_a_semitone_is_a_row(tmp_path):
    pictures = [drawn(tune((0, 1, 60), (1, 1, pitch)), tmp_path) for pitch in (60, 61)]
    same, higher = (patch(picture[:, LEFT + 90 :], BLUE)[1] for picture in pictures)
    assert same - higher == 12
    assert drawn(tune((0, 1, 60), (1, 1, 73)), tmp_path).shape == drawn(tune((0, 1, 60)), tmp_path).shape


def test_the_range_is_the_notes_and_a_margin():
    bars = [render.measures(tune((0, 1, 60)))]
    for pitches, low, high in (((60,), 52, 69), ((60, 73), 58, 75), ((40, 80), 38, 82), ((), 58, 75)):
        part = Part(tuple(Note(0.0, 1.0, pitch) for pitch in pitches))
        frame = render.fit([(part, BLUE)], bars, 300)
        assert (frame.low, frame.high) == (low, high), pitches
        assert frame.top(frame.high) == 0 and frame.height == (high - low + 1) * frame.row <= 300


def test_bars_are_counted_from_the_first_full_one():
    metres = ((0.0, Metre(4, 4)), (9.0, Metre(3, 4)))
    song = tune((0, 1, 60), (1, 8, 62), (9, 6, 64), metres=metres, pickup=1.0)
    found = render.measures(song)
    assert [bar.label for bar in found] == ["", "1", "2", "3 (3/4)", "4"]
    assert [(bar.line, bar.start, bar.end) for bar in found[:2]] == [(-3, 0, 1), (1, 1, 5)]
    assert found[-1].end == 15
    assert render.facts(song, found).startswith("4/4, 3/4 · quarter = 120 · 4 bars and a pickup")


def test_the_pickup_takes_only_its_own_room(tmp_path):
    picture = drawn(tune((0, 1, 60), (1, 4, 62), pickup=1.0), tmp_path)
    strokes = np.nonzero((picture[-60] == render.LINE).all(axis=1))[0]
    assert sorted({round((x - LEFT) / 88) for x in strokes}) == [0, 1, 5]  # bar lines at beats 0, 1 and 5


@pytest.mark.parametrize(
    ("metre", "pickup", "bars", "sizes"),
    [
        ((4, 4), 0, 64, [8] * 8),
        ((4, 4), 1, 17, [9, 8, 1]),
        ((2, 4), 0, 20, [16, 4]),
        ((6, 8), 0.5, 8, [9]),
        ((3, 4), 0, 3, [3]),
        ((64, 1), 0, 2, [1, 1]),
    ],
)
def test_long_songs_wrap_into_rows(metre, pickup, bars, sizes):
    metre = Metre(*metre)
    song = tune((0, pickup + bars * metre.beats, 60), metres=((0.0, metre),), pickup=float(pickup))
    rows = render.systems(render.measures(song))
    assert [len(row) for row in rows] == sizes
    assert all(before[-1].end == after[0].start for before, after in zip(rows, rows[1:], strict=False))


def test_a_note_over_a_line_break_is_drawn_on_both_sides(tmp_path):
    picture = drawn(tune((31, 2, 60), (63, 1, 60)), tmp_path)  # 16 bars in two rows of 8, at 35 pixels a beat
    half = picture.shape[0] // 2 + 20
    assert patch(picture[:half], BLUE)[::2] == pytest.approx((LEFT + 31 * 35, LEFT + 32 * 35), abs=2)
    below = picture[half:, : LEFT + 200]
    assert patch(below, BLUE)[::2] == pytest.approx((LEFT, LEFT + 35), abs=2)


def test_a_note_without_length_is_still_seen(tmp_path):
    for onset in (0, 1.3, 4):
        picture = drawn(tune((onset, 0, 60), (5, 1, 60)), tmp_path)[:, : LEFT + 420]
        assert (picture == BLUE).all(axis=2).sum() >= 5


def test_velocity_goes_from_pale_to_dark():
    light = [sum(render.shade(BLUE, velocity)) for velocity in range(1, 128)]
    assert light == sorted(light, reverse=True) and light[0] > 1.5 * light[-1]
    assert render.shade(BLUE, 80) == BLUE
    assert render.shade(BLUE, 500) == render.shade(BLUE, 127)
    assert render.shade(BLUE, -3) == render.shade(BLUE, 1)


def test_parts_have_colours_and_drums_are_only_mentioned(tmp_path):
    high, low = Part((Note(0.0, 1.0, 72),), "fiddle"), Part((Note(0.0, 4.0, 48),))
    drums = Part((Note(0.0, 4.0, 36),), "kit", drums=True)
    song = Song((drums, high, low), tempi=((0.0, 90.0), (2.0, 100.4)), key=Key(2, "minor"))
    facts = render.facts(song, render.measures(song))
    assert facts == "4/4 · D minor · quarter = 90 to 100 · 1 bar · 0:03 · drums not shown"
    picture = drawn(song, tmp_path)
    blue, red = patch(picture, BLUE), patch(picture, RED)
    assert blue[3] < red[1] and red[2] - red[0] > 3 * (blue[2] - blue[0])
    assert not (picture == render.HUES[2]).all(axis=2).any()


def test_songs_of_nothing_and_of_everything_are_drawn(tmp_path):
    render.piano_roll(Song(()), tmp_path / "nothing.png", title="")
    render.piano_roll(Song((Part((Note(0.0, 1.0, 36),), drums=True),)), tmp_path / "drums.png")
    keys = tune(*((i / 8, 0.01, i % 128) for i in range(512)), metres=((0.0, Metre(7, 16)),))
    render.piano_roll(keys, tmp_path / "everything.png", title="Für Elise – Ελίζα 音楽\n" + "x" * 9999)
    assert all(pixels(path).std() > 3 for path in tmp_path.glob("*.png"))


def test_a_huge_song_is_cut_and_the_picture_says_so(tmp_path, monkeypatch):
    song = tune((0, 1, 60), (2399, 1, 72))
    assert "600 bars · 20:00 · only the first 512 shown" in render.facts(song, render.measures(song))
    monkeypatch.setattr(render, "MOST_BARS", 24)
    assert drawn(song, tmp_path).shape == drawn(tune((0, 1, 60), (95, 1, 72)), tmp_path).shape


def test_a_picture_is_a_function_of_its_song(tmp_path):
    song = tune((0, 1, 60), (1, 3, 67), title="Title")
    for name in "abc":
        render.piano_roll(song, tmp_path / name, title="other" if name == "c" else None)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c


def test_text_is_shortened_to_its_room():
    page = Image.new("RGB", (400, 40))
    for text in ("m" * 100, "a b  c\nd", "Größe " * 20, "."):
        full = render.write(page, (0, 0), text, render.HEADING)
        for room in (300, 50, 3, 0):
            assert render.write(page, (0, 0), text, render.HEADING, room) <= min(room, full)


def test_letters_no_font_has_lose_their_accents(monkeypatch):
    monkeypatch.setattr(render, "FONTS", ("no such font.ttf",))
    render.font.cache_clear()
    written = []
    for text in ("Für Elise", "Fur Elise"):
        page = Image.new("RGB", (200, 40))
        render.write(page, (0, 0), text, render.HEADING)
        written.append(page.tobytes())
    render.font.cache_clear()
    assert written[0] == written[1] and any(written[0])


def test_a_path_shares_its_axes_and_passes_from_hue_to_hue(tmp_path):
    songs = [tune((0, 1, 60)), tune((1, 1, 60)), tune((1, 1, 72), (7, 1, 60))]
    render.path_grid(songs, tmp_path / "path.png", ["A", "half", "B"])
    picture = pixels(tmp_path / "path.png")
    first, last = patch(picture, BLUE), patch(picture, render.GOAL)
    middle = patch(picture, render.mix(BLUE, render.GOAL, 0.5))
    assert middle[0] - first[0] == 88 and last[0] == middle[0]
    assert last[2] - last[0] == pytest.approx(7 * 88, abs=3)
    row, step = 7, 18 * 7 + 14  # 18 pitches in about 130 pixels, and the gap
    assert middle[1] - first[1] == step
    assert last[1] - middle[1] == step - 12 * row  # an octave higher


@pytest.mark.parametrize("count", [0, 1, 3])
def test_every_song_of_a_path_needs_a_title(tmp_path, count):
    with pytest.raises(SeqvaeError, match="title"):
        render.path_grid([tune((0, 1, 60))] * (2 if count else 0), tmp_path / "path.png", ["x"] * count)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    writers = (render.piano_roll, render.sound, lambda song, path: render.path_grid([song], path, ["A"]))
    for name in ("missing/a.png", "file/a.png", "folder"):
        for write in writers:
            with pytest.raises(SeqvaeError, match="cannot be written: [A-Z]") as fault:
                write(tune((0, 1, 60)), tmp_path / name)
            assert str(tmp_path / name) in str(fault.value) and "\n" not in str(fault.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_failed_write_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SeqvaeError, match="No space left on device"):
        render.piano_roll(tune((0, 1, 60)), path)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.png", "old")]


def test_pictures_need_no_heavy_library():
    code = "import sys, seqvae.render; print({'torch', 'matplotlib', 'scipy'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def heard(path) -> tuple[np.ndarray, int]:
    """Samples in -1..1, and how many a second."""
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767, file.getframerate()


@pytest.fixture
def bare(monkeypatch):
    """As if pyfluidsynth were not installed."""

    def missing(instrument, **options):
        raise ImportError("fluidsynth() was called but pyfluidsynth is not installed.")

    monkeypatch.setattr(Instrument, "fluidsynth", missing)


@pytest.mark.parametrize("rate", [22050, 8000])
def test_sound_has_pitch_time_and_level(tmp_path, bare, rate):
    # 2 beats of rest at 120 and then A4 for 2 beats at 60: silence for 1 second, sound for 2, TAIL for 1.
    song = tune((2, 2, 69), tempi=((0.0, 120.0), (2.0, 60.0)))
    assert render.sound(song, tmp_path / "a.wav", rate=rate) == "pretty_midi"
    samples, found = heard(tmp_path / "a.wav")
    assert found == rate and len(samples) == 4 * rate
    assert np.abs(samples).max() == pytest.approx(10 ** (-1 / 20), abs=1e-4)
    assert not samples[: rate - 10].any() and not samples[3 * rate + 10 :].any()
    spectrum = np.abs(np.fft.rfft(samples[rate : 2 * rate]))  # one bin is one hertz
    assert spectrum.argmax() == pytest.approx(440, abs=1)


def test_chords_do_not_clip(tmp_path, bare):
    song = Song(tuple(Part(tuple(Note(0.0, 1.0, p, 127) for p in range(48, 84, 3))) for _ in range(6)))
    render.sound(song, tmp_path / "a.wav")
    samples, _ = heard(tmp_path / "a.wav")
    assert (np.abs(samples) > 0.89).sum() < 5  # a clipped wave would rest at its peak


@pytest.mark.parametrize("song", [Song(()), Song((Part((Note(0.0, 4.0, 36),), drums=True),))])
def test_nothing_to_play_is_silence_of_the_right_length(tmp_path, bare, song):
    assert render.sound(song, tmp_path / "a.wav") == "pretty_midi"
    samples, rate = heard(tmp_path / "a.wav")
    assert len(samples) == rate * (1 + song.beats / 2) and not samples.any()


def test_fluidsynth_plays_where_it_works(tmp_path, monkeypatch):
    def ramp(instrument, fs):
        return np.linspace(0, 7e4, 3 * fs)  # 3 seconds, in the scale of pyfluidsynth

    monkeypatch.setattr(Instrument, "fluidsynth", ramp)
    assert render.sound(tune((0, 1, 60)), tmp_path / "a.wav") == "fluidsynth"
    samples, rate = heard(tmp_path / "a.wav")
    assert len(samples) == 1.5 * rate and samples[rate] == pytest.approx(samples[rate // 2] * 2, abs=1e-3)
    assert samples[-1] == 0  # faded, for fluidsynth may sound on


@pytest.mark.parametrize("fault", [OSError("no library"), AttributeError("too old"), None])
def test_a_broken_fluidsynth_is_passed_over(tmp_path, monkeypatch, fault):
    def broken(instrument, fs):
        if fault:
            raise fault
        return np.zeros(fs)  # what it gives without a sound font

    monkeypatch.setattr(Instrument, "fluidsynth", broken)
    assert render.sound(tune((0, 1, 60)), tmp_path / "a.wav") == "pretty_midi"
    assert heard(tmp_path / "a.wav")[0].any()


def test_absurd_lengths_are_refused(tmp_path):
    with pytest.raises(SeqvaeError, match="lasts 33 minutes.* 30 at most"):
        render.sound(tune((4000, 1, 60)), tmp_path / "a.wav")
    assert not list(tmp_path.iterdir())
