"""Notation through music21: MusicXML (.musicxml, .mxl) and kern read, MusicXML written.

files.py imports this module when it meets notation, because music21 takes half a second to import. Repeats
are played and bar lines kept as in tunes.py; faults are clauses about "it", without the file's name, too.
"""

import contextlib
import io
import re
import warnings
import zipfile
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, NamedTuple

from music21 import chord, harmony, humdrum, instrument, metadata, meter, note, spanner, stream, tempo
from music21 import key as keys
from music21 import tie as ties
from music21.musicxml import m21ToXml, xmlToM21

from seqvae.song import TICKS, Key, Metre, Note, Part, SeqvaeError, Song, bars
from seqvae.tunes import MOST_NOTES, Bar, metre_map, order, tempo_map

MOST_TEXT = 32 << 20  # bytes of notation once unpacked
GENERAL_MIDI = [str(instrument.instrumentFromMidiProgram(i).instrumentName) for i in range(128)]
METRES = re.compile(r"\*M(\d+)/(\d+)|<beats>([^<]*)")  # in kern, and in MusicXML, where 3+2 may stand
SMALL = re.compile(r"<(fifths|octave|alter|octave-change|diatonic|chromatic|staves)>\s*([+-]?\d+)")
MINOR = ("minor", "dorian", "phrygian", "aeolian", "locrian")


def read(data: bytes, kind: str) -> Song:
    """The song in a MusicXML ("musicxml"), compressed MusicXML ("mxl") or kern ("kern") file's bytes."""
    text = _text(_unpacked(data) if kind == "mxl" else data)
    name = "kern" if kind == "kern" else "MusicXML"
    _check(text)
    if max(text.count("<note"), text.count("\n") if name == "kern" else 0) > MOST_NOTES:
        raise SeqvaeError(f"it holds more than the {MOST_NOTES} notes of any song")
    said = io.StringIO()  # music21 names the events of a kern file that it skips on stderr, and nowhere else
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(said):
            warnings.simplefilter("ignore")
            if name == "kern":
                found: Any = humdrum.spineParser.HumdrumDataCollection(text).parse()
            else:
                importer = xmlToM21.MusicXMLImporter()
                importer.xmlText = text
                importer.parseXMLText()
                found = importer.stream
            song = _song(found, _midi(text))
    except SeqvaeError:
        raise
    except Exception as fault:  # music21 raises anything at all on damaged files
        reason = " ".join(f"{type(fault).__name__} {fault}".split())[:100]
        raise SeqvaeError(f"music21 cannot read it as {name} ({reason}), so export it again") from None
    skipped = said.getvalue().count("Error in parsing event")
    if skipped > max(2, sum(len(part.notes) for part in song.parts) // 10):
        raise SeqvaeError(f"{skipped} of its events are no {name}, so export it again")
    notices = (f"Events that are no {name} were skipped ({skipped}).",) if skipped else ()
    return replace(song, notices=song.notices + notices)


def _check(text: str) -> None:
    """Raises SeqvaeError for entities, and for numbers on which music21 would count for hours."""
    if "<!ENTITY" in text:
        raise SeqvaeError("its XML defines entities, which music never needs, so export it again")
    for kern, unit, beats in METRES.findall(text):
        numbers = re.findall(r"\d+", f"{kern} {beats}")
        if unit not in ("", "1", "2", "4", "8", "16", "32", "64") or any(
            len(number) > 2 for number in numbers
        ):
            raise SeqvaeError(f'its metre "{(kern or beats)[:9]}" is impossible, so correct it')
    for name, number in SMALL.findall(text):
        if len(number) > 4 or abs(int(number)) > 24:
            raise SeqvaeError(f"its {name} of {number[:9]} is impossible, so correct it")


def _unpacked(data: bytes) -> bytes:
    """The score within a .mxl archive: the file that its container names, or else its first .xml."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
            if "META-INF/container.xml" in names:
                with archive.open("META-INF/container.xml") as file:
                    named = re.search(rb"""full-path\s*=\s*["']([^"']+)""", file.read(100_000))
                root = named[1].decode("utf-8", "replace") if named else ""
                names = [root] if root in names else names
            scores = [n for n in names if n.endswith((".xml", ".musicxml")) and not n.startswith("META-INF")]
            if not scores:
                raise SeqvaeError("it is an archive without a score in it, so export it again as .mxl")
            with archive.open(scores[0]) as file:
                return file.read(MOST_TEXT + 1)
    except SeqvaeError:
        raise
    except Exception as fault:  # BadZipFile, zlib.error, NotImplementedError, RuntimeError and more
        reason = " ".join(str(fault).split())[:100]
        raise SeqvaeError(f"it is a damaged archive ({reason}), so export it again") from None


def _text(data: bytes) -> str:
    if len(data) > MOST_TEXT:
        raise SeqvaeError(f"its notation is longer than {MOST_TEXT >> 20} MB, which no song's is")
    try:
        return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _midi(text: str) -> dict[str, tuple[int, bool]]:
    """MIDI program, and whether it is the drum channel, by part ids of MusicXML: music21 may change both."""
    found = {}
    for name, part in re.findall(r'(?s)<score-part\b[^>]*\bid="([^"]*)"[^>]*>(.*?)</score-part>', text):
        program = re.search(r"<midi-program>\s*(\d{1,3})\s*<", part)
        channel = re.search(r"<midi-channel>\s*(\d{1,2})\s*<", part)
        if program or channel:
            found[name] = max(int(program[1]) - 1, 0) if program else 0, bool(channel and channel[1] == "10")
    return found


def _song(score: Any, midi: Mapping[str, tuple[int, bool]]) -> Song:
    """A music21 score as a Song, repeats played; `midi` as _midi gives it."""
    score.toSoundingPitch(inPlace=True)
    whole = list(score.parts) or [score]
    staves = [_measures(part) for part in whole]
    # Measures without content at the end are left out: kern opens one after its last bar line.
    length = max((i for staff in staves for i, m in enumerate(staff, 1) if m.highestTime), default=0)
    if not length:
        raise SeqvaeError("it holds no notes")
    written = _bars(score, [staff[:length] for staff in staves])
    played = order(written)
    line = [written[i] for i in played]
    metres, pickup, uneven = metre_map(line)
    graces = [0]
    parts = tuple(
        _part(part, [staff[i] if i < len(staff) else None for i in played], line, midi, graces)
        for part, staff in zip(whole, staves, strict=True)
    )
    notices = []
    if graces[0]:
        notices.append(f"Grace notes were dropped ({graces[0]}).")
    if all(bar.metre is None for bar in line):
        metres, pickup, uneven = metres[:1], 0.0, 0
        notices.append("It names no metre, so 4/4 was assumed.")
    if uneven:
        notices.append(f"Bars that do not fill their metre end where their bar line is written ({uneven}).")
    if score.recurse().getElementsByClass("RepeatExpression"):
        notices.append("Da capo and segno marks were not followed.")
    parts = tuple(part for part in parts if part.notes)
    if not parts:
        raise SeqvaeError("it holds no notes")
    title = (score.metadata.title or score.metadata.movementName or "") if score.metadata else ""
    return Song(parts, metres, tempo_map(line), _key(score), str(title), pickup, tuple(notices))


def _measures(part: Any) -> list[Any]:
    found = list(part.getElementsByClass(stream.Measure))
    return found or list(part.makeMeasures().getElementsByClass(stream.Measure))


def _bars(score: Any, staves: Sequence[Sequence[Any]]) -> list[Bar]:
    """What each measure of the longest staff says; it lasts as long as its longest staff."""
    found: list[Bar] = []
    metre, pace = None, 120.0
    longest = max(staves, key=lambda staff: len(staff))
    for i, measure in enumerate(longest):
        beside = [staff[i] for staff in staves if i < len(staff)]
        for other in beside:
            for mark in other.getElementsByClass(meter.TimeSignature):
                said = Metre(mark.numerator, mark.denominator)
                metre = said if said.possible else metre
            for mark in other.getElementsByClass(tempo.MetronomeMark):
                bpm = mark.getQuarterBPM()
                pace = float(bpm) if bpm and 4 <= bpm <= 1000 else pace
        length = max(Fraction(other.highestTime).limit_denominator(5040) for other in beside)
        bar = Bar(metre, pace, length=length or Fraction((metre or Metre(4, 4)).beats))
        bar.opens = getattr(measure.leftBarline, "direction", "") == "start"
        bar.closes = getattr(measure.rightBarline, "direction", "") == "end"
        found.append(bar)
    index = {id(measure): i for i, measure in enumerate(longest)}
    for bracket in score.recurse().getElementsByClass(spanner.RepeatBracket):
        spanned = [index[id(measure)] for measure in bracket.getSpannedElements() if id(measure) in index]
        if spanned:
            found[min(spanned)].endings = tuple(n for n in bracket.numberRange if 0 < n < 10)
            found[max(spanned)].double = True
    return found


def _part(
    part: Any,
    measures: Sequence[Any],
    line: Sequence[Bar],
    midi: Mapping[str, tuple[int, bool]],
    graces: list[int],
) -> Part:
    """One staff as a Part; `measures` and `line` are in playing order; counts grace notes in `graces`."""
    played = part.getInstrument(returnDefault=True)
    own = (played.midiProgram or 0, isinstance(played, instrument.UnpitchedPercussion))
    program, drums = midi.get(played.partId, own)
    found: list[Note] = []
    sounding: dict[int, int] = {}  # pitch -> index of the note that a tie may lengthen
    at = Fraction(0)
    for measure, bar in zip(measures, line, strict=True):
        for event in measure.flatten().notes if measure is not None else ():
            if isinstance(event, harmony.Harmony):
                continue
            if event.duration.isGrace:
                graces[0] += 1
                continue
            for one in event.notes if isinstance(event, chord.ChordBase) else (event,):
                onset = float(at + Fraction(event.offset))
                pitch = one.pitch.midi if hasattr(one, "pitch") else _struck(one)
                drums |= not hasattr(one, "pitch")
                tie = one.tie.type if one.tie else ""
                held = sounding.pop(pitch, None)
                length = float(event.quarterLength)
                if held is not None and tie in ("continue", "stop"):
                    found[held] = found[held]._replace(duration=onset + length - found[held].onset)
                else:
                    held = len(found)
                    found.append(Note(onset, length, pitch, event.volume.velocity or 80))
                if tie in ("start", "continue"):
                    sounding[pitch] = held
        at += bar.length
    name = "" if part.partName in (None, "None") else part.partName  # "None": an empty part-name
    return Part(tuple(sorted(found)), name, program & 127, drums)


def _struck(one: Any) -> int:
    """The General MIDI drum of an unpitched note; a snare where none is named."""
    return int(getattr(one.storedInstrument, "percMapPitch", None) or 38)


def _key(score: Any) -> Key | None:
    """The first key signature as major or minor."""
    for signature in score.recurse().getElementsByClass(keys.KeySignature):
        named = signature if isinstance(signature, keys.Key) else signature.asKey()
        return Key(named.tonic.pitchClass, "minor" if named.mode in MINOR else "major")
    return None


def musicxml(song: Song) -> bytes:
    """The song as MusicXML, times rounded to the grid, chords and voices where notes overlap."""
    score = stream.Score()
    score.insert(0, metadata.Metadata(title=song.title, composer=""))
    for i, part in enumerate(song.parts):
        score.insert(0, _staff(song, part, i))
    exporter = m21ToXml.ScoreExporter(score, makeNotation=False)  # which would fill short bars with rests
    text = exporter.asBytes(exporter.parse())

    def channel(found: re.Match[bytes]) -> bytes:
        i = int(found[2])
        return found[1] + str(10 if song.parts[i].drums else 1 + i % 9).encode()

    # music21 gives every part a channel of its own, drums too, and fails when it runs out of them.
    return re.sub(rb'(<midi-instrument id="P(\d+)-I1">\s*<midi-channel>)\d+', channel, text)


def _staff(song: Song, part: Part, index: int) -> stream.Part:
    staff = stream.Part(id=f"P{index}")
    staff.partName = part.name
    # A plain Instrument of that name, as music21's own clarinets and horns transpose.
    played = instrument.Instrument("Drums" if part.drums else GENERAL_MIDI[part.program])
    played.partId, played.instrumentId = f"P{index}", f"P{index}-I1"
    played.midiProgram, played.midiChannel = part.program, index
    staff.insert(0, played)
    every = bars(song)
    lines = [max(round(onset * TICKS), 0) for onset, _ in every]
    end = max(round(song.beats * TICKS), round((every[-1][0] + every[-1][1].beats) * TICKS))
    pieces = _pieces(part.notes, [*lines, end])
    for i, (start, stop) in enumerate(zip(lines, [*lines[1:], end], strict=True)):
        measure = stream.Measure(number=i if song.pickup else i + 1)
        metre = every[i][1]
        if i == 0 or metre != every[i - 1][1]:
            measure.timeSignature = meter.TimeSignature(str(metre))
        if i == 0 and song.key is not None:
            letter = str(song.key).split()[0].replace("b", "-")
            measure.keySignature = keys.Key(letter, song.key.mode)
        for at, pace in song.tempi:
            if start <= round(at * TICKS) < stop:
                measure.insert(round(at * TICKS - start) / TICKS, tempo.MetronomeMark(number=pace))
        if i == 0 and song.pickup:
            measure.paddingLeft = metre.beats - song.pickup
        _fill(measure, pieces[i], start, stop)
        staff.append(measure)
    return staff.splitAtDurations(recurse=True)[0].makeAccidentals(inPlace=False)


class _Piece(NamedTuple):
    """What one bar shows of a note: from where to where (ticks in the song), and its tie, "" for none."""

    start: int
    stop: int
    pitch: int
    velocity: int
    tie: str


def _pieces(notes: Sequence[Note], lines: Sequence[int]) -> list[list[_Piece]]:
    """The notes cut at the bar lines (ticks), bar by bar."""
    found: list[list[_Piece]] = [[] for _ in lines[1:]]
    for n in sorted(notes):
        start = min(max(round(n.onset * TICKS), 0), lines[-1] - 1)
        stop = min(max(round((n.onset + n.duration) * TICKS), start + 1), lines[-1])
        bar = first = bisect_right(lines, start) - 1
        while bar < len(found) and lines[bar] < stop:
            left, right = max(start, lines[bar]), min(stop, lines[bar + 1])
            tie = {(0, 0): "", (0, 1): "start", (1, 1): "continue", (1, 0): "stop"}[bar > first, right < stop]
            found[bar].append(_Piece(left, right, n.pitch, n.velocity, tie))
            bar += 1
    return found


def _fill(measure: stream.Measure, pieces: Sequence[_Piece], start: int, stop: int) -> None:
    """Puts the pieces of one bar into it: equal times as chords, overlaps as voices, rests between."""
    times: dict[tuple[int, int], list[_Piece]] = {}
    for piece in pieces:
        times.setdefault((piece.start, piece.stop), []).append(piece)
    voices: list[Any] = []
    ends: list[int] = []  # where each voice ends so far
    for (left, right), together in sorted(times.items()):
        i = next((i for i, end in enumerate(ends) if end <= left), len(ends))
        if i == len(ends):
            voices.append(stream.Voice(id=str(i + 1)))
            ends.append(start)
        sounds = []
        for piece in together:
            sound = note.Note(piece.pitch, quarterLength=Fraction(right - left, TICKS))
            sound.tie = ties.Tie(piece.tie) if piece.tie else None
            sounds.append(sound)
        whole: Any = sounds[0] if len(sounds) == 1 else chord.Chord(sounds)
        whole.volume.velocity = max(piece.velocity for piece in together)
        _rest(voices[i], start, ends[i], left)
        voices[i].insert(Fraction(left - start, TICKS), whole)
        ends[i] = right
    for end, voice in zip(ends or [start], voices or [stream.Voice()], strict=True):
        _rest(voice, start, end, stop)
        if len(voices) > 1:
            measure.insert(0, voice)
        else:
            for element in voice:
                measure.insert(element.offset, element)


def _rest(voice: stream.Voice, origin: int, start: int, stop: int) -> None:
    if stop > start:
        voice.insert(Fraction(start - origin, TICKS), note.Rest(quarterLength=Fraction(stop - start, TICKS)))
