"""Songs to look at and to listen to: piano rolls as PNG, sound as WAV.

Conventions: lengths are pixels of the finished picture. Shapes are drawn SMOOTH times as large and scaled
down, which smooths their edges; text is drawn at its own size in the font that Pillow carries, so that a
picture is the same on every machine. A file appears whole or not at all; a place that cannot be written is a
SeqvaeError.
"""

import io
import wave
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import cycle
from math import ceil, inf
from pathlib import Path
from typing import BinaryIO, NamedTuple
from unicodedata import normalize

import numpy as np
from PIL import ImageFont
from PIL.Image import Image as Page
from PIL.Image import new as sheet
from PIL.ImageDraw import Draw
from PIL.ImageDraw import ImageDraw as Pen

from seqvae.disk import write_atomic
from seqvae.files import to_pretty_midi
from seqvae.song import TICK, Metre, Part, SeqvaeError, Song, bars, seconds

SMOOTH = 2
FULL, BROAD, NARROW = 1120, 88, 620  # widths: of a full row of bars, of a beat at most, of a page at least
MARGIN, NAMES, KEYS = 28, 30, 26  # widths: round the page, of the pitch names, of the keyboard
BAND, GAP = 18, 14  # heights: of the bar numbers, between rows
TALL, SHORT = 300, 130  # heights aimed at: of a row of bars, of a song in a path
LONG, MOST_BARS = 32.0, 512  # beats that a row of bars holds; bars that are drawn
MOST_SECONDS, TAIL = 1800.0, 1.0  # of a song that is made to sound; of sound after its end
PEAK = 10 ** (-1 / 20)  # of sound, -1 dB of full scale

PAPER, WHITE, SHADE, SEAM = (252, 251, 248), (255, 255, 255), (243, 242, 238), (232, 230, 224)
BEAT, LINE, INK, FAINT, EBONY = (228, 225, 218), (164, 159, 149), (45, 42, 38), (128, 123, 114), (64, 61, 57)
HUES = ((52, 104, 176), (202, 92, 56), (66, 138, 90), (134, 86, 168), (192, 144, 36), (52, 146, 158))
GOAL = (194, 56, 104)  # of the last song of a path, which begins in HUES[0]
FONTS = ("DejaVuSans.ttf", "Arial Unicode.ttf", "arial.ttf")  # asked for letters that Pillow's font lacks
TONES = "C.D.EF.G.A.B"  # dots are black keys

Colour = tuple[int, int, int]
Voice = tuple[Part, Colour]  # the colour of its notes of velocity 80
Style = tuple[int, Colour, str]  # size, colour and Pillow's anchor of a text
Edges = tuple[float, float, float, float]  # left, top, right, bottom
Corners = tuple[bool, bool, bool, bool]  # which ones are round, from the upper left clockwise
ROUND: Corners = (True, True, True, True)
HEADING, FACTS, NUMBER = (22, INK, "la"), (13, FAINT, "la"), (11, FAINT, "ls")


class Bar(NamedTuple):
    line: float  # beats in the song, before 0 for a pickup
    start: float  # beats, 0 for a pickup
    end: float  # beats
    metre: Metre
    label: str  # its number, the first full bar being 1, and the metre where it changes


class Frame(NamedTuple):
    """What the rows of one picture share."""

    low: int  # pitches drawn, both included
    high: int
    row: int  # height of a semitone
    beat: float  # width of a beat
    width: int  # of the longest row, with names and keyboard
    height: int

    def top(self, pitch: int) -> int:
        return (self.high - pitch) * self.row


def piano_roll(song: Song, path: str | Path, *, title: str | None = None) -> None:
    """Write a PNG of a song: rows of bars, pitch names, notes shaded by velocity, one colour a part.

    The title defaults to the song's. Drums are not drawn, nor bars past MOST_BARS, and the picture says so.
    """
    every, parts = measures(song), voices(song)
    rows = systems(every[:MOST_BARS])
    frame = fit(parts, rows, TALL)
    heading = (song.title if title is None else title).strip()
    under = MARGIN + (32 if heading else 0)
    top, step = under + (50 if len(parts) > 1 else 24), BAND + frame.height + GAP
    width, height = max(NARROW, frame.width + 2 * MARGIN), top + len(rows) * step - GAP + MARGIN
    page = sheet("RGB", (width, height), PAPER)
    write(page, (MARGIN, MARGIN), heading, HEADING, width - 2 * MARGIN)
    write(page, (MARGIN, under), facts(song, every), FACTS, width - 2 * MARGIN)
    x: float = MARGIN
    for i, (part, hue) in enumerate(parts if len(parts) > 1 else ()):
        name, style = part.name.strip() or f"part {i + 1}", (13, mix(hue, INK, 0.2), "la")
        x += 20 + write(page, (x, under + 24), name, style, max(0, width - MARGIN - x))
    for i, row in enumerate(rows):
        draw_row(page, (MARGIN, top + i * step + BAND), frame, row, parts, True)
    save(path, lambda file: page.save(file, "PNG"))


def path_grid(songs: Sequence[Song], path: str | Path, titles: Sequence[str]) -> None:
    """Write a PNG of songs one above the other on one pitch axis and one time axis, each beside its title.

    Their colour passes from the first song's to the last's. Raises SeqvaeError unless each song has a title.
    """
    if not songs or len(songs) != len(titles):
        raise SeqvaeError(f"each song of a picture needs a title, and {len(songs)} have {len(titles)}")
    hues = [mix(HUES[0], GOAL, i / max(1, len(songs) - 1)) for i in range(len(songs))]
    parts = [[(part, hue) for part, _ in voices(song)] for song, hue in zip(songs, hues, strict=True)]
    rows = [measures(song)[:MOST_BARS] for song in songs]
    frame = fit(sum(parts, []), rows, SHORT)
    aside = 16 + min(220, ceil(max(font(13, title.isascii()).getlength(title) for title in titles)))
    x, top, step = MARGIN + aside, MARGIN + BAND, frame.height + GAP
    page = sheet("RGB", (x + frame.width + MARGIN, top + len(songs) * step - GAP + MARGIN), PAPER)
    for i, row in enumerate(rows):
        y = top + i * step
        write(page, (MARGIN, y + frame.height / 2), titles[i], (13, mix(hues[i], INK, 0.3), "lm"), aside - 16)
        draw_row(page, (x, y), frame, row, parts[i], i == 0)
    save(path, lambda file: page.save(file, "PNG"))


def measures(song: Song) -> list[Bar]:
    """The bars of a song, labelled as musicians count them: a pickup is no bar."""
    found, before, number, labelled = bars(song), song.metres[0][1], 0, []
    ends = [line for line, _ in found[1:]] + [found[-1][0] + found[-1][1].beats]
    for (line, metre), end in zip(found, ends, strict=True):
        number += line >= 0
        label = f"{number}" + f" ({metre})" * (metre != before)
        labelled.append(Bar(line, max(0.0, line), end, before := metre, label if number else ""))
    return labelled


def systems(every: Sequence[Bar]) -> list[Sequence[Bar]]:
    """Bars in rows of 16, 8, 4, 2 or 1, as many as LONG beats hold; a pickup is extra in the first row."""
    longest = max(bar.metre.beats for bar in every)
    count = next((n for n in (16, 8, 4, 2) if n * longest <= LONG), 1)
    first = count + (every[0].line < 0)
    return [every[:first], *(every[i : i + count] for i in range(first, len(every), count))]


def voices(song: Song) -> list[Voice]:
    """The pitched parts that have notes, each with its colour."""
    return list(zip((part for part in song.parts if part.notes and not part.drums), cycle(HUES)))


def fit(parts: Iterable[Voice], rows: Iterable[Sequence[Bar]], tall: int) -> Frame:
    """The used range and two semitones of margin, an octave and a half at least, about `tall` high."""
    pitches = [note.pitch for part, _ in parts for note in part.notes] or [60, 72]
    spare = max(0, 13 - max(pitches) + min(pitches))
    low, high = min(pitches) - 2 - spare // 2, max(pitches) + 2 + (spare + 1) // 2
    row = min(12, max(3, tall // (high - low + 1)))
    longest = max(bars[-1].end - bars[0].start for bars in rows)
    beat = min(BROAD, max(3.0, FULL / longest))
    return Frame(low, high, row, beat, NAMES + KEYS + ceil(longest * beat) + 2, (high - low + 1) * row)


def facts(song: Song, every: Sequence[Bar]) -> str:
    """Metre, key, tempo and length of a song in a line, and what its picture leaves out."""
    metres = list(dict.fromkeys(str(bar.metre) for bar in every))
    slow, fast = (f"{pick(tempo for _, tempo in song.tempi):.0f}" for pick in (min, max))
    pickup, length = every[0].line < 0, round(seconds(song, song.beats))
    count = len(every) - pickup
    found = (
        ", ".join(metres) if len(metres) < 4 else "changing metre",
        str(song.key or ""),
        f"quarter = {slow}" + f" to {fast}" * (slow != fast),
        f"{count} bar" + "s" * (count != 1) + " and a pickup" * pickup,
        f"{length // 60}:{length % 60:02}",
        f"only the first {MOST_BARS} shown" * (len(every) > MOST_BARS),
        "drums not shown" * any(part.drums and part.notes for part in song.parts),
    )
    return " · ".join(fact for fact in found if fact)


def draw_row(
    page: Page, at: tuple[int, int], frame: Frame, row: Sequence[Bar], parts: Sequence[Voice], numbered: bool
) -> None:
    """One row of bars with pitch names and keyboard, its upper left corner at `at`, the numbers above it."""
    right = KEYS + (row[-1].end - row[0].start) * frame.beat
    roll = sheet("RGB", (SMOOTH * (ceil(right) + 2), SMOOTH * frame.height), PAPER)
    pen = Draw(roll)
    draw_pitches(pen, frame, right)
    draw_lines(pen, frame, row)
    for voice in reversed(parts):  # the first part on top
        draw_notes(pen, frame, row[0].start, row[-1].end, voice)
    page.paste(roll.reduce(SMOOTH), (at[0] + NAMES, at[1]))
    named = "CDEFGAB" if frame.row >= 9 else "CEG" if frame.row >= 4 else "C"
    for pitch in range(frame.low, frame.high + 1):
        if (tone := TONES[pitch % 12]) in named:
            middle = (at[0] + NAMES - 5, at[1] + frame.top(pitch) + frame.row / 2)
            write(page, middle, f"{tone}{pitch // 12 - 1}", (10, INK if tone == "C" else FAINT, "rm"))
    free = -inf
    for bar in row if numbered else ():
        x = at[0] + NAMES + KEYS + (bar.start - row[0].start) * frame.beat
        if x >= free and bar.label:  # labels do not run into each other
            free = x + 10 + write(page, (x, at[1] - 5), bar.label, NUMBER)


def draw_pitches(pen: Pen, frame: Frame, right: float) -> None:
    """The keyboard and, as far as `right`, the rows of its keys."""
    box(pen, (0, 0, right, frame.height), WHITE)
    for pitch in range(frame.low, frame.high + 1):
        top, bottom = frame.top(pitch), frame.top(pitch - 1)
        middle = (top + bottom) / 2
        if TONES[pitch % 12] == ".":
            box(pen, (KEYS, top, right, bottom), SHADE)
            box(pen, (0, middle - 0.5, KEYS, middle + 0.5), SEAM)
            box(pen, (0, top + 0.5, 0.6 * KEYS, bottom - 0.5), EBONY, 1.5)
        elif TONES[pitch % 12] in "EB":  # no black key above
            box(pen, (0, top - 0.5, right, top + 0.5), SEAM)


def draw_lines(pen: Pen, frame: Frame, row: Sequence[Bar]) -> None:
    """Bar lines and, where there is room, lines for the beats that musicians count: three eighths in 6/8."""
    uprights = []
    for bar in row:
        count, unit = bar.metre
        step = 4 / unit * (3 if unit >= 8 and count > 3 and count % 3 == 0 else 1)
        if step * frame.beat >= 6:
            beats = (bar.line + i * step for i in range(1, ceil((bar.end - bar.line) / step)))
            uprights += [(at, 1.0, BEAT) for at in beats if at > bar.start]
    uprights += [(at, 1.5, LINE) for at in [*(bar.start for bar in row), row[-1].end]]
    for at, width, colour in uprights:
        x = KEYS + (at - row[0].start) * frame.beat
        box(pen, (x - width / 2, 0, x + width / 2, frame.height), colour)


def draw_notes(pen: Pen, frame: Frame, start: float, end: float, voice: Voice) -> None:
    """Notes between two beats; one that goes on beyond them has no edge there."""
    part, hue = voice
    rim = 1 if frame.row >= 6 else 0
    for note in part.notes:
        stop = note.onset + max(note.duration, TICK)
        if note.onset >= end or stop <= start:
            continue
        opens, closes, colour = note.onset >= start, stop <= end, shade(hue, note.velocity)
        left = KEYS + (max(note.onset, start) - start) * frame.beat
        right = max(left + 3, KEYS + (min(stop, end) - start) * frame.beat - closes)
        top, bottom = frame.top(note.pitch) + rim / 2, frame.top(note.pitch - 1) - rim / 2
        corners = (opens, closes, closes, opens)
        box(pen, (left, top, right, bottom), mix(colour, INK, 0.35 * rim), 2.5, corners)
        box(pen, (left + opens, top + rim, right - closes, bottom - rim), colour, 1.5, corners)


def box(pen: Pen, edges: Edges, colour: Colour, radius: float = 0, corners: Corners = ROUND) -> None:
    """A filled rectangle."""
    left, top, right, bottom = (round(SMOOTH * edge) for edge in edges)
    right, bottom = max(left, right - 1), max(top, bottom - 1)
    most = max(0, min(right - left, bottom - top) // 2 - 1)  # Pillow fails beyond it
    pen.rounded_rectangle((left, top, right, bottom), min(SMOOTH * radius, most), colour, corners=corners)


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """A colour that is so much (0..1) of the other."""
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(one, other, strict=True))
    return red, green, blue


def shade(hue: Colour, velocity: int) -> Colour:
    """Pale for the softest note, the hue itself at velocity 80, dark for the loudest."""
    if velocity > 80:
        return mix(hue, INK, 0.7 * (min(127, velocity) - 80) / 47)
    return mix(hue, WHITE, 0.75 * (80 - max(1, velocity)) / 79)


@cache
def font(size: int, plain: bool) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font or, for more than plain ASCII, the first of FONTS that this machine has."""
    for name in () if plain else FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size) if plain else font(size, True)


def write(page: Page, at: tuple[float, float], text: str, style: Style, room: float = inf) -> float:
    """Write a line of text, shortened to `room`, and return its width."""
    (size, colour, anchor), text = style, " ".join(text.split())[:300]
    plain = text.replace("·", "").isascii()
    if (face := font(size, plain)) is font(size, True) and not plain:
        text = normalize("NFKD", text).encode("ascii", "ignore").decode()
    while text and face.getlength(text) > room:
        text = text.rstrip(".")[:-1] + ("..." if len(text) > 4 else "")
    Draw(page).text(at, text, colour, face, anchor)
    return face.getlength(text)


def sound(song: Song, path: str | Path, *, rate: int = 22050) -> str:
    """Write a song as a 16-bit mono WAV of its length and TAIL seconds; return what played it.

    "fluidsynth" plays pretty_midi's sound font where pyfluidsynth and its library work; else "pretty_midi"
    makes plain tones, and no drums. `rate` is in samples a second. Raises SeqvaeError past MOST_SECONDS.
    """
    length = seconds(song, song.beats)
    if not length <= MOST_SECONDS:
        limit = f"sound is made of {MOST_SECONDS / 60:.0f} at most"
        raise SeqvaeError(f"the song lasts {length / 60:.0f} minutes, and {limit}")
    count = ceil((length + TAIL) * rate)
    instruments = [instrument for instrument in to_pretty_midi(song).instruments if instrument.notes]
    try:
        player, samples = "fluidsynth", add((one.fluidsynth(fs=rate) for one in instruments), count)
    except Exception:  # not installed, its library missing or too old: each fails in its own way
        samples = np.zeros(count)
    if not samples.any():
        player, samples = "pretty_midi", add((one.synthesize(rate, tone) for one in instruments), count)
    fade = round(TAIL / 4 * rate)
    samples[-fade:] *= np.linspace(1, 0, fade)
    samples *= PEAK / max(np.abs(samples).max(), 1e-9)

    def fill(file: BinaryIO) -> None:
        with wave.open(file, "wb") as out:
            out.setparams((1, 2, rate, count, "NONE", ""))
            out.writeframes(np.round(32767 * samples).astype("<i2").tobytes())

    save(path, fill)
    return player


def add(waves: Iterable[np.ndarray], count: int) -> np.ndarray:
    """The sum of waves, so many samples long."""
    whole = np.zeros(count)
    for one in waves:
        whole[: len(one)] += one[:count]
    return whole


def tone(phase: np.ndarray) -> np.ndarray:
    """A wave with a few overtones, of a phase in radians."""
    return np.sin(phase) + 0.4 * np.sin(2 * phase) + 0.2 * np.sin(3 * phase)


def save(path: str | Path, fill: Callable[[BinaryIO], None]) -> None:
    """A file of what fill writes. Raises `SeqvaeError` where it cannot be written."""
    held = io.BytesIO()
    fill(held)
    try:
        write_atomic(Path(path), held.getvalue())
    except OSError as fault:
        raise SeqvaeError(f"{path} cannot be written: {fault.strerror}") from fault
