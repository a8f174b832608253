"""ABC tune books as text: cutting a book into tunes, and each tune into bars that abc2midi plays as written.

abc2midi (symusic's ABC reader) performs: it steals time for grace notes, plays trills, rolls and fermatas,
arpeggiates chords, accompanies chord names, swings hornpipes, and does not say where the bar lines fell. A
training set wants the written notes and every bar line, so this module keeps notes, lengths, ties and keys,
plays the repeats itself and leaves only the pitches to abc2midi. Lengths are exact fractions of a beat. ABC
standard 2.1 (abcnotation.com/wiki/abc:standard:v2.1) is followed. `order` and `metre_map` serve other scores
too. A fault is a SeqvaeError whose message is a clause about "it"; the caller, who knows the
file, puts its name before.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from seqvae.song import Key, Metre, SeqvaeError

MOST_NOTES = 200_000  # of a song; more is a broken file
MOST_LETTERS = 1_000_000  # of a tune's text; likewise
MOST_PLAYED = 20_000  # bars of a tune once its repeats are played; likewise
LONGEST = 4000  # beats of one note or rest
LONGEST_KEY = 80  # characters
COMMON = Metre(4, 4)

FIELD = re.compile(r"([A-Za-z+]):\s*(.*)")
# In the body a line such as "B:| ..." or "d:: ..." is music, so no bar line follows a field's letter.
BODY_FIELD = re.compile(r"[B-DF-IK-XZmrsw+]:(?![|:])")
NOTE = r"(?:[_^=]{0,3}[A-Ga-g][',]*|[zxZX])"
LENGTH = r"(?:\d+/+\d+|\d+/*|/+\d*)?"
ENDING = r"[1-9](?:[,-][1-9])*"
# Every repetition that may fail far from its beginning is bounded, so that no line takes quadratic time.
TOKEN = re.compile(
    rf"""(?P<field>\[[A-Za-z]:(?![|:])[^\]]{{0,200}}\])
    |(?P<grace>\{{[^}}]{{0,200}}\}})
    |(?P<tuplet>\([2-9](?::\d{{0,2}}){{0,2}})
    |(?P<bar>(?:\[\|\]|\[?:*\|[\]|:]*|::+)(?:\s*\[?(?P<ending>{ENDING}))?|\[(?P<open>{ENDING}))
    |(?P<chord>\[(?:\s|"[^"]{{0,40}}"|![^!]{{0,40}}!|[.~HLMOPSTuvk()-]|{NOTE}{LENGTH}){{1,60}}\]{LENGTH})
    |(?P<note>{NOTE}{LENGTH})
    |(?P<tie>-)
    |(?P<broken>[<>]+)
    |(?P<overlay>&+)
    |(?P<ignored>"[^"]{{0,200}}"|![^!]{{0,40}}!|\+[^+]{{1,40}}\+|[.~HLMOPSTuvky`$*()\\!\s])
    |(?P<junk>.)""",
    re.VERBOSE,
)
CHORD = re.compile(rf"\[(.*)\]({LENGTH})")  # what is in it, and the length after it
INNER = re.compile(rf"({NOTE})({LENGTH})")
TEXTS = re.compile(r'"[^"]*"|![^!]*!')  # chord names, annotations and decorations within a chord
PITCH = re.compile(r"([_^=]*)([A-Ga-g][',]*)")  # accidental and name


@dataclass
class Sound:
    """A note ("^c'"), chord ("[CEG]") or rest ("z") and how many beats it sounds."""

    pitch: str
    length: Fraction
    tie: bool = False


@dataclass
class Bar:
    """What lies between two bar lines, and what those lines say; `metre` is None where none is named."""

    metre: Metre | None
    tempo: float = 120.0  # quarter notes a minute
    key: str = ""
    length: Fraction = Fraction(0)  # beats
    opens: bool = False  # "|:" before it
    closes: bool = False  # ":|" after it
    double: bool = False  # "||" after it
    endings: tuple[int, ...] = ()  # "|1", "[1,3": the turns that play it
    sounds: list[Sound | str] = field(default_factory=list)  # of ABC; a str is a new key within the bar

    @property
    def ends(self) -> bool:
        return self.closes or self.double


class Tune(NamedTuple):
    """A tune ready to be played: `voices` are (name, ABC text for abc2midi); times are in beats."""

    title: str
    voices: list[tuple[str, str]]
    metres: tuple[tuple[float, Metre], ...]
    tempi: tuple[tuple[float, float], ...]
    key: Key | None
    pickup: float
    notices: tuple[str, ...]


def split(book: str) -> Iterator[list[str]]:
    """Lines of each tune, from its X: to the next, comments gone; M: L: Q: before the first X: head each."""
    lines = [line.rstrip() for line in book.splitlines() if not line.startswith("%")]
    lines = [re.sub(r"\s*(?<!\\)%.*", "", line) for line in lines]
    starts = [i for i, line in enumerate(lines) if line.startswith("X:")]
    common = [line for line in lines[: starts[0] if starts else 0] if re.match(r"[MLQ]:", line)]
    for start, stop in zip(starts, starts[1:] + [len(lines)], strict=True):
        yield lines[start : start + 1] + common + lines[start + 1 : stop]


def parse(lines: Sequence[str]) -> Tune:
    """The tune in `lines` (as split gives them), its repeats played; raises SeqvaeError when it is none."""
    if sum(map(len, lines)) > MOST_LETTERS:
        raise SeqvaeError(f"it is longer than {MOST_LETTERS} letters, which no tune is")
    fields: dict[str, str] = {}
    names: dict[str, str] = {}
    last = 0
    while last < len(lines) and "K" not in fields:
        found = FIELD.match(lines[last])
        if found and found[1] == "V":
            names.setdefault(*_named(found[2]))
        elif found and not (found[1] == "T" and "T" in fields):
            fields[found[1]] = found[2]
        last += 1
    if "K" not in fields:
        raise SeqvaeError("it has no K: field, which must end the header of an ABC tune")
    fields["K"] = fields["K"][:LONGEST_KEY]
    reader = _Reader(fields, names)
    for line in _body(lines[last:]):
        reader.add(line)
    return reader.tune()


def order(bars: Sequence[Bar]) -> list[int]:
    """Indices of the bars as played: ":|" goes back to "|:", or else to the last "||", ":|" or the start."""
    played: list[int] = []
    i = start = 0
    turn, opened = 1, False  # `opened`: a "|:" began this section, and its last ending has not begun
    turns: dict[int, int] = {}  # of each section, by its start
    while i < len(bars):
        bar = bars[i]
        if bar.opens and i != start:
            start, turn = i, 1
        opened |= bar.opens
        if bar.endings and turn not in bar.endings:  # on to the next ending, or past this one
            i += 1
            while i < len(bars) and not (bars[i].endings or bars[i].opens or bars[i - 1].ends):
                i += 1
            continue
        played.append(i)
        if len(played) > MOST_PLAYED:
            raise SeqvaeError(f"it lasts more than {MOST_PLAYED} bars once its repeats are played")
        i += 1
        if start not in turns:
            turns[start] = _turns(bars, start)
        last = turn == turns[start]
        opened &= not (bar.endings and last)
        if bar.closes and not last:
            turn, i = turn + 1, start
        elif bar.closes or (bar.double and not opened):
            start, turn, opened = i, 1, False
    return played or list(range(len(bars)))  # nothing but second endings


def _turns(bars: Sequence[Bar], start: int) -> int:
    """How often the section that begins at `start` is played: twice, or as often as its endings say."""
    most, groups = 2, 0
    for i in range(start, len(bars)):
        if bars[i].opens and i != start:
            break
        most = max(most, *bars[i].endings, 0)
        if bars[i].closes or (bars[i].double and not bars[start].opens):
            groups += 1  # at most nine endings, so that a damaged tune does not take quadratic time
            if groups == 9 or i + 1 == len(bars) or not bars[i + 1].endings:
                break
    return most


def metre_map(bars: Sequence[Bar]) -> tuple[tuple[tuple[float, Metre], ...], float, int]:
    """Song.metres and Song.pickup that put every bar line where it is written; and how many bars are uneven.

    A first bar that is short is the pickup. Two later short bars that fill one (a repeat sign or the end of a
    line within a bar) are one bar; any other bar that does not fill its metre ends where it is written.
    """
    metres = [(0.0, bars[0].metre or COMMON)]
    line = at = Fraction(0)  # `line`: a bar line of the metre map so far
    pickup, uneven, i = 0.0, 0, 0
    while i < len(bars):
        metre, length = bars[i].metre or COMMON, bars[i].length
        full = Fraction(4 * metre.numerator, metre.denominator)
        if i == 0 and length < full:
            pickup, line = float(length), length
        else:
            after = bars[i + 1] if i + 1 < len(bars) and bars[i + 1].metre == bars[i].metre else None
            if after is not None and length < full == length + after.length:
                length, i = full, i + 1
            if metre != metres[-1][1] or (at - line) % full:
                metres.append((float(at), metre))
            uneven += bool(length % full) and i + 1 < len(bars)
            line = at
        at, i = at + length, i + 1
    return tuple(metres), pickup, uneven


def tempo_map(bars: Sequence[Bar]) -> tuple[tuple[float, float], ...]:
    """Song.tempi from the tempo of each bar."""
    tempi, at = [(0.0, bars[0].tempo)], Fraction(0)
    for bar in bars:
        if bar.tempo != tempi[-1][1]:
            tempi.append((float(at), bar.tempo))
        at += bar.length
    return tuple(tempi)


def _body(lines: Sequence[str]) -> Iterator[str]:
    """The lines of music, continued lines joined; below a blank line only what is all music is."""
    held, blank = "", False
    for line in lines:
        blank |= not line.strip()
        if blank and any(token.lastgroup == "junk" for token in TOKEN.finditer(line)):
            continue
        if line.endswith("\\"):
            held += line[:-1]
        else:
            yield held + line
            held = ""
    yield held


class _Reader:
    """One tune being read: its voices so far, and what was left out."""

    def __init__(self, fields: dict[str, str], names: dict[str, str]) -> None:
        self.fields, self.names = fields, names
        self.voices: dict[str, _Voice] = {}
        self.voice = self.named(next(iter(names), "1"))
        self.lines = self.notes = self.junk = self.graces = self.overlays = 0

    def named(self, name: str) -> "_Voice":
        return self.voices.setdefault(name, _Voice(self.fields))

    def add(self, line: str) -> None:
        """A line of the body, a field or music."""
        if BODY_FIELD.match(line):
            self.change(line[0], line[2:].strip())
            return
        hidden = False  # within an overlay, up to the next bar line
        for token in TOKEN.finditer(line):
            kind, text = token.lastgroup, token[0]
            if self.notes + self.junk > MOST_NOTES:
                raise SeqvaeError(f"it holds more than the {MOST_NOTES} notes of any song")
            if kind in ("bar", "ending", "open"):
                self.lines, hidden = self.lines + 1, False
                self.voice.line(text, token["ending"] or token["open"] or "")
            elif kind == "field":
                self.change(text[1], text[3:-1].strip())
            elif kind == "junk":
                self.junk += 1
            elif kind == "grace":
                self.graces += 1
            elif kind == "overlay":
                self.overlays, hidden = self.overlays + 1, True
            elif not hidden:
                self.notes += kind in ("note", "chord")
                self.voice.take(kind, text)

    def change(self, name: str, value: str) -> None:
        if name == "V":
            voice, title = _named(value)
            self.names.setdefault(voice, title)
            self.voice = self.named(voice)
        elif name in "KLMQ":
            self.voice.change(name, value)

    def tune(self) -> Tune:
        """What was read, repeats played; SeqvaeError when it is no music."""
        voices = {name: voice.bars for name, voice in self.voices.items() if voice.close()}
        if not voices or not self.lines:
            raise SeqvaeError("it has no bar lines" if voices else "it has no notes")
        if self.junk > max(2, self.notes // 10):
            raise SeqvaeError(f"{self.junk} characters in it are no ABC music, beside {self.notes} notes")
        played = {name: [bars[i] for i in order(bars)] for name, bars in voices.items()}
        first = next(iter(played.values()))
        if sum(len(bar.sounds) for bars in played.values() for bar in bars) > MOST_NOTES:
            raise SeqvaeError(f"it holds more than the {MOST_NOTES} notes of any song")
        free = all(bar.metre is None for bar in first)
        metres, pickup, uneven = metre_map(first)
        said = (
            (self.graces, "Grace notes were dropped"),
            (self.overlays, "Voice overlays (&) were dropped"),
            (self.junk, "Characters that are no ABC music were skipped"),
            (0 if free else uneven, "Bars that do not fill their metre end where their bar line is written"),
        )
        notices = [f"{what} ({count})." for count, what in said if count]
        if free:
            metres, pickup = ((0.0, COMMON),), 0.0
            notices.append("It names no metre, so 4/4 was assumed.")
        if "P" in self.fields:
            notices.append("The order of parts that P: asks for was not followed.")
        texts = [(self.names.get(name, ""), _text(bars)) for name, bars in played.items()]
        key = _key(first[0].key)
        return Tune(self.fields.get("T", ""), texts, metres, tempo_map(first), key, pickup, tuple(notices))


class _Voice:
    """One voice: its bars, and the state that reading its next token needs."""

    def __init__(self, fields: dict[str, str]) -> None:
        metre = _metre(fields.get("M", ""))
        self.unit = Fraction(1, 4) if metre is not None and metre.beats < 3 else Fraction(1, 2)  # beats
        self.bars: list[Bar] = []
        self.bar = Bar(metre, key=fields["K"])
        for name in "LQ":
            self.change(name, fields.get(name, ""))
        self.last: Sound | None = None
        self.left, self.scale = 0, Fraction(1)  # notes left in the tuplet, and its factor
        self.pending: Fraction | None = None  # what a broken rhythm does to the next note

    def change(self, name: str, value: str) -> None:
        """A field K, L, M or Q; a metre or tempo named within a bar holds from that bar's beginning."""
        if name == "L":
            found = re.match(r"([1-9]\d?)(?:/([1-9]\d{0,2}))?(?!\d)", value)
            self.unit = Fraction(4 * int(found[1]), int(found[2] or 1)) if found else self.unit
        elif name == "M":
            self.bar.metre = _metre(value)
        elif name == "Q":
            self.bar.tempo = _tempo(value, self.unit) or self.bar.tempo
        elif self.bar.sounds:
            self.bar.sounds.append(value[:LONGEST_KEY])
        else:
            self.bar.key = value[:LONGEST_KEY]

    def line(self, text: str, ending: str) -> None:
        """A bar line: it ends the bar when there is a sound in it, else adds to the line before."""
        self.close()
        if self.bars:
            self.bars[-1].closes |= ":|" in text or "::" in text
            self.bars[-1].double |= "||" in text or "|]" in text
        self.bar.opens |= "|:" in text or "::" in text
        self.bar.endings = _endings(ending) or self.bar.endings

    def close(self) -> bool:
        """Ends the bar when there is a sound in it; whether the voice has any bar at all."""
        old = self.bar
        sounds = [sound for sound in old.sounds if isinstance(sound, Sound)]
        if sounds:
            old.length = sum((sound.length for sound in sounds), Fraction(0))
            self.bars.append(old)
            key = next((sound for sound in reversed(old.sounds) if isinstance(sound, str)), old.key)
            self.bar, self.left = Bar(old.metre, old.tempo, key), 0
        return bool(self.bars)

    def take(self, kind: str | None, text: str) -> None:
        """Music: a note, chord or rest, or a sign that changes those around it."""
        if kind in ("note", "chord"):
            self.sound(text)
        elif kind == "tuplet":
            self.open_tuplet(text)
        elif kind == "broken" and self.last and self.bar.sounds and len(text) <= 3:
            # A > B: A longer by half its length and B shorter by half; >> by three quarters; < the other way.
            short = Fraction(1, 2 ** len(text))
            first, self.pending = (2 - short, short) if text[0] == ">" else (short, 2 - short)
            self.last.length *= first
        elif kind == "tie" and self.last:
            self.last.tie = True

    def sound(self, text: str) -> None:
        chord = CHORD.fullmatch(text)
        inner = INNER.findall(TEXTS.sub("", chord[1]) if chord else text)
        if not inner:
            return
        unit = Fraction((self.bar.metre or COMMON).beats) if inner[0][0] in "ZX" else self.unit
        length = _length(inner[0][1], unit)
        if chord and chord[2]:
            length = _length(chord[2], length)
        if self.left:
            length, self.left = length * self.scale, self.left - 1
        if self.pending is not None:
            length, self.pending = length * self.pending, None
        if not 0 < length <= LONGEST:
            raise SeqvaeError(f'the length of "{text[:20]}" is impossible')
        pitches = list(dict.fromkeys(pitch for pitch, _ in inner if pitch not in "zxZX"))[:12]
        pitch = f"[{''.join(pitches)}]" if len(pitches) > 1 else "".join(pitches) or "z"
        self.last = Sound(pitch, length, bool(chord) and "-" in text)
        self.bar.sounds.append(self.last)

    def open_tuplet(self, text: str) -> None:
        """(p:q:r puts p notes into the time of q for the next r; defaults from section 4.13."""
        p, q, r = ([int(n or 0) for n in text[1:].split(":")] + [0, 0])[:3]
        metre = self.bar.metre
        compound = metre is not None and metre.denominator == 8 and metre.numerator % 3 == 0
        q = q or {2: 3, 3: 2, 4: 3, 6: 2, 8: 3}.get(p, 3 if compound else 2)
        self.left, self.scale = r or p, Fraction(q, p)


def _text(bars: Sequence[Bar]) -> str:
    """ABC for abc2midi: every length spelled out, and ties only where the same pitch follows."""
    sounds = [sound for bar in bars for sound in bar.sounds if isinstance(sound, Sound)]
    pitches = [PITCH.findall(sound.pitch) for sound in sounds] + [[]]
    ties = iter([s.tie and _same(a, b) for s, a, b in zip(sounds, pitches, pitches[1:], strict=False)])
    out, key = [], bars[0].key
    for bar in bars:
        if bar.key != key:
            out.append(f"[K:{bar.key}]\n")
        key = bar.key
        for sound in bar.sounds:
            if isinstance(sound, str):
                out.append(f"[K:{sound}]\n")
                key = sound
            else:
                time, length = _spelt(sound.length)
                out.append(f"{time}{sound.pitch}{length}{'-' if next(ties) else ''}\n")
        out.append("|\n")
    head = "X:1\nM:none\nL:1/8\n%%MIDI chordattack 0\n%%MIDI nobeataccents\n"
    return f"{head}K:{bars[0].key or 'none'}\n{''.join(out)}"


def _same(first: Sequence[tuple[str, str]], second: Sequence[tuple[str, str]]) -> bool:
    """Whether a tie may join two chords of (accidental, name): the second may leave its accidentals out."""
    pairs = list(zip(first, second, strict=False))
    return 0 < len(first) == len(second) and all(a == b or ("", a[1]) == b for a, b in pairs)


@lru_cache(4096)
def _spelt(beats: Fraction) -> tuple[str, str]:
    """A length in eighths, and the one-note tuplet before it: abc2midi divides by powers of two only."""
    length = beats * 2
    odd = length.denominator
    while odd % 2 == 0:
        odd //= 2
    into = 2 ** (odd.bit_length() - 1)  # the power of two below `odd`
    return f"({odd}:{into}:1" if odd > 1 else "", str(length * Fraction(odd, into))


def _named(value: str) -> tuple[str, str]:
    """A V: field's value as (identifier, name)."""
    name = re.search(r'(?:name|nm)\s*=\s*"([^"]*)"', value)
    return (value.split() or ["1"])[0], name[1] if name else ""


def _metre(text: str) -> Metre | None:
    """A M: field's value; None for "none" and for what cannot be read."""
    try:
        return Metre.parse({"C": "4/4", "C|": "2/2"}.get(text.strip(), text))
    except SeqvaeError:
        return None


def _tempo(text: str, unit: Fraction) -> float | None:
    """A Q: field's value in quarter notes a minute: 1/4=120, "Lively" 3/8=84, 120 (of the unit length)."""
    found = re.search(r"(\d{1,2})\s*/\s*([1-9]\d?)\s*=\s*(\d{1,4})", text)
    bare = re.match(r"(?:C\s*=\s*)?(\d{1,4})\s*$", text)
    if found:
        pace = Fraction(4 * int(found[1]), int(found[2])) * int(found[3])
    else:
        pace = unit * int(bare[1]) if bare else Fraction(0)
    return float(pace) if 4 <= pace <= 1000 else None


def _key(text: str) -> Key | None:
    """A K: field's value as major or minor: the modes with a minor third count as minor."""
    found = re.match(r"([A-G])([#b]?)\s*([A-Za-z]{0,3})", text)
    if not found:
        return None
    minor = found[3].lower() in ("m", "min", "aeo", "dor", "phr", "loc")
    return Key.parse(found[1] + found[2] + ("m" if minor else ""))


@lru_cache(4096)
def _length(text: str, unit: Fraction) -> Fraction:
    """3/2, 3, /, //, 3/ times the unit length."""
    number, _, divisor = text.partition("/")
    divisor = divisor.lstrip("/")
    below = int(divisor or 1) if divisor else 2 ** text.count("/")
    if not below or len(text) > 9:
        raise SeqvaeError(f'"{text[:20]}" is no length of a note')
    return Fraction(int(number or 1), below) * unit


def _endings(text: str) -> tuple[int, ...]:
    """1; 1,3; 1-3 as the turns they name."""
    turns: list[int] = []
    for part in filter(None, text.split(",")):
        turns += range(int(part[0]), int(part[-1]) + 1)
    return tuple(turns)
