"""Songs from disk and back: MIDI and ABC through symusic, MusicXML and kern through music21 (scores.py).

Conventions: the content of a file says what it is, not its name. Times become quarter-note beats; repeats
are played; pitches stay as they are written. What reading drops or assumes is a sentence in Song.notices.
Every fault of a file is a SeqvaeError of one sentence that names it; no bytes make anything else be raised.
"""

import contextlib
import importlib
import importlib.util
import io
import os
import re
import subprocess
import tempfile
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import symusic

from seqvae import tunes
from seqvae.disk import write_atomic
from seqvae.song import SLACK, Key, Metre, Note, Part, SeqvaeError, Song

if TYPE_CHECKING:
    from pretty_midi import PrettyMIDI

MOST_BYTES = 64 << 20  # of a file; a larger one is no song
MOST_BEATS = 200_000
MOST_HOURS = 24
BATCH = 64  # tunes that abc2midi plays at a time
PATIENCE = 20.0  # seconds for them; it needs milliseconds
FULL = "full first bar"  # a marker in the MIDI files written here
RESOLUTION = 480  # ticks a quarter note in the MIDI files written here
COLLECTIONS = ("oneills1850", "airdsAirs", "ryansMammoth")  # O'Neill 1850 (1903), Aird 1778-1801, Ryan 1883


def read(path: str | os.PathLike[str]) -> Song:
    """The song in a .mid, .abc, .musicxml, .mxl or .krn file; of an ABC book its first tune, with a notice.

    Raises SeqvaeError naming the file when it is missing, unreadable, damaged, no music or beyond limits.
    """
    path = Path(path)
    data = _bytes(path)
    with _naming(path):
        kind = _kind(data)
        if kind != "abc":
            return _whole(data, kind)
        book = list(tunes.split(_text(data)))
        more = (f"The first of {len(book)} tunes in the file was read.",) if len(book) > 1 else ()
        song = _abc(book[:1], more)[0]
        if isinstance(song, SeqvaeError):
            raise song
        return song


def read_all(path: str | os.PathLike[str]) -> Iterator[tuple[str, Song | SeqvaeError]]:
    """Every song of a file as (name, Song or the SeqvaeError that says why not); raises nothing.

    An ABC book gives one item a tune, named "book.abc#X:12 Title"; any other file one, named like the file.
    """
    path = Path(path)
    try:
        data = _bytes(path)
        with _naming(path):
            kind = _kind(data)
            song = None if kind == "abc" else _whole(data, kind)
    except SeqvaeError as fault:
        yield path.name, fault
        return
    if song is not None:
        yield path.name, song
        return
    book = list(tunes.split(_text(data)))
    for start in range(0, len(book), BATCH):
        batch = book[start : start + BATCH]
        for lines, tune in zip(batch, _abc(batch), strict=True):
            title = next((line[2:].strip() for line in lines if line.startswith("T:")), "")
            name = f"{path.name}#X:{lines[0][2:].strip()} {title}".rstrip()
            yield name, SeqvaeError(f"{name}: {tune}") if isinstance(tune, SeqvaeError) else tune


def folk(essen: bool = False) -> Iterator[tuple[str, Song | SeqvaeError]]:
    """The tune books that music21 ships: O'Neill, Aird and Ryan, and with `essen` the Essen collection.

    Names are "collection/book.abc#X:12 Title". The Essen collection's terms forbid commercial use. Raises
    SeqvaeError when music21 is not installed.
    """
    root = shipped("folk tunes")
    for name in COLLECTIONS + (("essenFolksong",) if essen else ()):
        for path in sorted((root / name).glob("*.abc")):
            for label, song in read_all(path):
                yield f"{name}/{label}", song


def shipped(what: str) -> Path:
    """The folder of the music that music21 ships. Raises SeqvaeError when it is not installed."""
    spec = importlib.util.find_spec("music21")
    if spec is None or spec.origin is None:
        raise SeqvaeError(f"the {what} ship with music21, which is not installed: run pip install music21")
    return Path(spec.origin).parent / "corpus"


def write(song: Song, path: str | os.PathLike[str]) -> None:
    """Writes .mid or .musicxml, by the suffix; the file appears whole or not at all.

    A .mid read again gives the same bars, notes to 1/960 beat, tempi to a microsecond a quarter; its title
    is lost. A .musicxml has its times rounded to the grid. Raises SeqvaeError for another suffix, and when
    the file cannot be written there.
    """
    path = Path(path)
    if path.suffix.lower() in (".mid", ".midi"):
        data = _score(song).dumps_midi()
    elif path.suffix.lower() in (".musicxml", ".xml"):
        data = _scores().musicxml(song)
    else:
        raise SeqvaeError(f"{path}: songs are written as .mid or .musicxml, so name the file that way")
    try:
        write_atomic(path, data)
    except OSError as fault:
        raise SeqvaeError(
            f"{path}: it cannot be written there ({fault.strerror}), so name another folder"
        ) from None


def from_pretty_midi(midi: "PrettyMIDI") -> Song:
    """A PrettyMIDI as a Song, times to its resolution; bends, controls and lyrics dropped with a notice.

    Raises SeqvaeError when it holds no notes.
    """
    held = io.BytesIO()
    midi.write(held)
    song = _midi(held.getvalue())
    lost = {
        "Pitch bends": sum(len(part.pitch_bends) for part in midi.instruments),
        "Control changes": sum(len(part.control_changes) for part in midi.instruments),
        "Lyrics and texts": len(midi.lyrics) + len(midi.text_events),
    }
    notices = tuple(f"{what} were dropped ({number})." for what, number in lost.items() if number)
    return replace(song, notices=song.notices + notices)


def to_pretty_midi(song: Song) -> "PrettyMIDI":
    """The song with its tempo map, metres, key, programs, drums and names as a PrettyMIDI."""
    # pretty_midi takes a fifth of a second to import, and reading and writing files does not need it.
    return importlib.import_module("pretty_midi").PrettyMIDI(io.BytesIO(_score(song).dumps_midi()))


def _whole(data: bytes, kind: str) -> Song:
    """The song in the bytes of any format but ABC."""
    song: Song = _midi(data) if kind == "midi" else _scores().read(data, kind)
    return song


def _scores() -> Any:
    # music21 takes half a second to import, which every command of the CLI would pay.
    return importlib.import_module("seqvae.scores")


@contextlib.contextmanager
def _naming(name: object) -> Iterator[None]:
    """Puts the name of the file before the faults of what is in it."""
    try:
        yield
    except SeqvaeError as fault:
        raise SeqvaeError(f"{name}: {fault}") from None


def _bytes(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise SeqvaeError(f"{path}: it is a folder, so name a file in it")
        if path.exists() and not path.is_file():
            raise SeqvaeError(f"{path}: it is no regular file, so copy the song to one first")
        if path.stat().st_size > MOST_BYTES:
            raise SeqvaeError(f"{path}: it is larger than {MOST_BYTES >> 20} MB, which no song is")
        data = path.read_bytes()
    except FileNotFoundError:
        raise SeqvaeError(f"{path}: there is no such file, so check the name") from None
    except PermissionError:
        raise SeqvaeError(f"{path}: you may not read it, so change its permissions") from None
    except (OSError, ValueError) as fault:  # ValueError: a null character in the name
        raise SeqvaeError(f"{path}: it cannot be read ({getattr(fault, 'strerror', fault)})") from None
    if not data.strip(b"\0\t\n\r "):
        raise SeqvaeError(f"{path}: it is empty, so export it again")
    return data


def _text(data: bytes) -> str:
    data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _kind(data: bytes) -> str:
    """midi, mxl, musicxml, kern or abc, from the content; SeqvaeError when it is none of them."""
    if data[:4] == b"MThd" or (data[:4] == b"RIFF" and data[8:12] == b"RMID"):
        return "midi"
    if data[:2] == b"PK":
        return "mxl"
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "musicxml"
    text = data[:100_000].removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:5] in (b"<?xml", b"<!DOC", b"<scor"):
        return "musicxml"
    if re.search(rb"(?:^|[\r\n])\*\*kern\b", text) or text[:3] == b"!!!":
        return "kern"
    if re.search(rb"(?:^|[\r\n])X:", data.removeprefix(b"\xef\xbb\xbf")):
        return "abc"
    raise SeqvaeError("it is no song that can be read, so give MIDI, ABC, MusicXML (.musicxml, .mxl) or kern")


def _abc(book: Sequence[Sequence[str]], notices: tuple[str, ...] = ()) -> list[Song | SeqvaeError]:
    """The tunes of a book, given as their lines: each a Song, or the fault that makes it none."""
    found: list[tunes.Tune | SeqvaeError] = []
    for lines in book:
        try:
            found.append(tunes.parse(lines))
        except SeqvaeError as fault:
            found.append(fault)
    texts = [text for tune in found if isinstance(tune, tunes.Tune) for _, text in tune.voices]
    played = iter(_played(texts))
    songs: list[Song | SeqvaeError] = []
    for tune in found:
        if isinstance(tune, tunes.Tune):
            voices = [(name, next(played)) for name, _ in tune.voices]
            try:
                songs.append(_tune(tune, voices, notices))
            except SeqvaeError as fault:
                songs.append(fault)
        else:
            songs.append(tune)
    return songs


def _tune(tune: tunes.Tune, voices: Sequence[tuple[str, list[Note] | str]], notices: tuple[str, ...]) -> Song:
    """A tune and its (name, notes) as a Song; SeqvaeError when a voice is a message instead of notes."""
    wrong = [notes for _, notes in voices if isinstance(notes, str)]
    if wrong:
        raise SeqvaeError(f"abc2midi says {wrong[0]!r}, so correct it")
    parts = tuple(Part(tuple(notes), name) for name, notes in voices if notes and not isinstance(notes, str))
    notices = tune.notices + notices
    return _sane(Song(parts, tune.metres, tune.tempi, tune.key, tune.title, tune.pickup, notices))


def _played(texts: Sequence[str]) -> list[list[Note] | str]:
    """The notes of ABC texts as abc2midi plays them, or its first error message."""
    # symusic.Score.from_abc runs the same program, but once a tune (starting it takes longer than the tune),
    # with its errors on the terminal and no end to its hangs.
    if not texts:
        return []
    lines = [0, *accumulate(text.count("\n") + 1 for text in texts)]  # where each text begins in the book
    with tempfile.TemporaryDirectory() as folder:
        book = [re.sub(r"^X:1\n", f"X:{i}\n", text) for i, text in enumerate(texts, 1)]
        Path(folder, "book.abc").write_text("\n".join(book), encoding="utf-8", newline="\n")
        command = [os.environ["SYMUSIC_ABC2MIDI"], "book.abc", "-quiet"]  # the path is set by symusic
        with contextlib.suppress(subprocess.TimeoutExpired):
            done = subprocess.run(command, cwd=folder, capture_output=True, timeout=PATIENCE)
            if done.returncode == 0:
                said = done.stdout.decode("utf-8", "replace")
                faults = re.findall(r"(?m)^Error in line-char (\d+)-\d+ : (.*)", said)
                wrong = {bisect_left(lines, int(line)): fault for line, fault in reversed(faults)}
                numbers = range(1, len(texts) + 1)
                return [wrong.get(i) or _made(Path(folder, f"book{i}.mid")) for i in numbers]
    if len(texts) == 1:
        return [f"nothing within {PATIENCE:.0f} s, or crashed"]
    return [notes for text in texts for notes in _played([text])]


def _made(path: Path) -> list[Note] | str:
    """The notes of a MIDI file that abc2midi made, if it did."""
    if not path.exists():
        return "nothing"
    score: Any = symusic.Score.from_midi(path.read_bytes())
    # abc2midi begins every note a tick late and ends it in time; it also makes up velocities.
    notes = sorted(note for track in score.tracks for note in _notes(track, score.tpq, late=1))
    return [note._replace(velocity=80) for note in notes]


def _notes(track: Any, tpq: int, late: int = 0) -> list[Note]:
    """The notes of a symusic track in order; `late` ticks go from each onset to its duration."""
    columns = track.notes.numpy()
    ticks, pitches = columns["time"], columns["pitch"]
    if len(ticks) and (ticks.min() < 0 or columns["duration"].min() < 0 or ticks.max() > MOST_BEATS * tpq):
        raise SeqvaeError("it holds notes at impossible times, so export it again")
    ranks = np.lexsort((pitches, columns["duration"], ticks))
    onsets = ((ticks[ranks] - late) / tpq).tolist()
    durations = ((columns["duration"][ranks] + late) / tpq).tolist()
    columns = (onsets, durations, pitches[ranks].tolist(), columns["velocity"][ranks].tolist())
    return list(map(Note, *columns))


def _midi(data: bytes) -> Song:
    """A MIDI file's bytes as a Song."""
    if data[:4] == b"RIFF":
        data = data[max(data.find(b"MThd"), 0) :]
    try:
        score: Any = symusic.Score.from_midi(data)
    except (RuntimeError, ValueError, IndexError, MemoryError) as fault:
        reason = " ".join(str(fault).split()).removesuffix(": iostream error")[:100]
        raise SeqvaeError(f"as MIDI it is damaged or cut short ({reason}), so export it again") from None
    tpq = score.tpq
    if tpq <= 0:
        raise SeqvaeError("it says a quarter note lasts no time at all, so export it again")
    if score.note_num() > tunes.MOST_NOTES:
        raise SeqvaeError(f"it holds {score.note_num()} notes, more than the {tunes.MOST_NOTES} of any song")
    parts = tuple(
        Part(tuple(_notes(track, tpq)), track.name.strip("\0 "), track.program & 127, track.is_drum)
        for track in score.tracks
        if len(track.notes)
    )
    notices: list[str] = []
    entries = [(mark.time / tpq, Metre(mark.numerator, mark.denominator)) for mark in score.time_signatures]
    full = any(mark.text == FULL for mark in score.markers)
    metres, pickup = _metres(entries, full, notices)
    key = next((_signature(mark.key, mark.tonality) for mark in score.key_signatures), None)
    return _sane(Song(parts, metres, _tempi(score, notices), key, "", pickup, tuple(notices)))


def _signature(fifths: int, minor: int) -> Key:
    """A MIDI key signature: sharps (flats negative), and 1 for minor."""
    return Key((fifths * 7 + (9 if minor else 0)) % 12, "minor" if minor else "major")


def _metres(
    entries: Sequence[tuple[float, Metre]], full: bool, notices: list[str]
) -> tuple[tuple[tuple[float, Metre], ...], float]:
    """Song.metres and Song.pickup from a MIDI file's time signatures, what was assumed added to `notices`.

    A first metre that lasts a bar at most and less than a bar of the next is how MIDI writes a pickup, unless
    the bar is said to be `full`. A signature repeated on a bar line says nothing; within a bar it begins one.
    """
    found: list[tuple[float, Metre]] = []
    for at, metre in sorted(entries, key=lambda entry: entry[0]):
        if not metre.possible:
            notices.append("A time signature that is no metre was left out.")
        elif found and at < found[-1][0] + SLACK:
            found[-1] = (found[-1][0], metre)
        else:
            found.append((at, metre))
    if not found or found[0][0] >= SLACK:
        notices.append("It names no metre for its beginning, so 4/4 was assumed.")
        found.insert(0, (0.0, Metre(4, 4)))
    found[0] = (0.0, found[0][1])
    pickup = 0.0
    at, metre = found[min(1, len(found) - 1)]
    if 0 < at <= found[0][1].beats + SLACK and at < metre.beats - SLACK and not full:
        pickup = at
        found[:2] = [(0.0, metre)]
    kept, line = found[:1], pickup
    for at, metre in found[1:]:
        past = (at - line) % kept[-1][1].beats
        if metre != kept[-1][1] or SLACK <= past <= metre.beats - SLACK:
            kept.append((at, metre))
            line = at
    return tuple(kept), pickup


def _tempi(score: Any, notices: list[str]) -> tuple[tuple[float, float], ...]:
    """Song.tempi of a symusic score: the last of several at one time; 120 where none is named."""
    marks = score.tempos.numpy()
    times, micros = marks["time"], marks["mspq"]
    if len(micros) and micros.min() <= 0:
        notices.append("Tempi of zero were left out.")
        times, micros = times[micros > 0], micros[micros > 0]
    tempi: dict[float, float] = {0.0: 120.0}
    for at, tempo in zip((times / score.tpq).tolist(), (60e6 / micros).tolist(), strict=True):
        tempi[max(at, 0.0)] = tempo
    return tuple(sorted(tempi.items()))


def _sane(song: Song) -> Song:
    """The song, if it has notes and stays within the limits above."""
    if not any(part.notes for part in song.parts):
        raise SeqvaeError("it holds no notes")
    times, beats = song.clock[0], song.beats
    hours = (np.diff([*times, max(beats, times[-1])]) * song.clock[2]).sum() / 3600
    if beats > MOST_BEATS or hours > MOST_HOURS:
        raise SeqvaeError(f"it lasts {beats:.0f} beats or {hours:.1f} hours, so cut a piece out first")
    return song


def _score(song: Song) -> Any:
    """The song as a symusic score, ready to be written as MIDI."""

    def ticks(beats: float) -> int:
        return round(beats * RESOLUTION)

    score: Any = symusic.Score(RESOLUTION)
    for part in song.parts:
        track: Any = symusic.Track(part.name, part.program, part.drums)
        for note in part.notes:
            start, end = ticks(note.onset), ticks(note.onset + note.duration)
            velocity = min(max(note.velocity, 1), 127)
            track.notes.append(symusic.Note(start, max(end - start, 1), note.pitch, velocity))
        score.tracks.append(track)
    metres = list(song.metres)
    if song.pickup:
        short = _short(song.pickup)
        metres = [(0.0, short or metres[0][1]), (song.pickup, metres[0][1]), *metres[1:]]
    elif len(metres) > 1 and metres[1][0] < metres[1][1].beats:  # a first bar that would look like a pickup
        score.markers.append(symusic.TextMeta(0, FULL))
    for at, metre in metres:
        score.time_signatures.append(symusic.TimeSignature(ticks(at), metre.numerator, metre.denominator))
    for at, tempo in song.tempi:
        score.tempos.append(symusic.Tempo(ticks(at), tempo))
    if song.key is not None:
        minor = song.key.mode == "minor"
        fifths = ((song.key.tonic + 3 * minor) * 7 + 5) % 12 - 5  # -5 (D flat) to 6 (F sharp)
        score.key_signatures.append(symusic.KeySignature(0, fifths, int(minor)))
    return score


def _short(beats: float) -> Metre | None:
    """The metre whose bar is this long, if there is one: how MIDI writes a pickup."""
    found = [(beats * denominator / 4, denominator) for denominator in (4, 8, 16, 32, 64)]
    return next((Metre(int(n), d) for n, d in found if n == int(n) and n <= 64), None)
