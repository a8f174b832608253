"""Damaged files: whatever the bytes, reading gives a Song or a one-line SeqvaeError, never a crash or a hang.

    python benchmarks/fuzz.py --count 5000                  every format, 5,000 damaged files each
    python benchmarks/fuzz.py --count 500 midi abc          what tests/test_fuzz.py does

Case i of a format is a pure function of (format, i): the fixtures of data/ and generated files, with bits
flipped, pieces cut, repeated, inserted or spliced, numbers changed. Child processes read them in batches;
a child that dies, or ends itself after PATIENCE seconds on one case, has that case reported and the rest go
on. The exit status is 1 when any case failed.
"""

import argparse
import faulthandler
import io
import random
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from seqvae import files
from seqvae.song import Key, Metre, Note, Part, SeqvaeError, Song

DATA = Path(__file__).parent.parent / "data"
BATCH = 250  # cases a child
PATIENCE = 60.0  # seconds for a case
NUMBERS = [b"0", b"-1", b"1", b"7", b"99", b"65536", b"4294967296", b"1e9", b"99999999999999999999", b"0.001"]


def song(rng: random.Random) -> Song:
    """A random song that may be written in any format."""
    metre = Metre(rng.choice((2, 3, 4, 6, 9)), rng.choice((4, 8)))
    parts = tuple(
        Part(
            tuple(Note(i / 2, rng.choice((0.25, 0.5, 1 / 3, 1)), rng.randint(30, 90)) for i in range(12)),
            rng.choice(("", "Lead", 'Ö"<&>')),
            rng.randrange(128),
            rng.random() < 0.2,
        )
        for _ in range(rng.randint(1, 3))
    )
    metres, tempi = ((0.0, metre), (metre.beats * 2, Metre(3, 4))), ((0.0, 90.0), (2.0, 140.0))
    return Song(parts, metres, tempi, Key(2, "minor"))


def generated(kind: str, rng: random.Random) -> bytes:
    """A small valid file of the format."""
    if kind == "mxl":
        return zipped(generated("musicxml", rng))
    if kind in ("midi", "musicxml"):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "song.mid" if kind == "midi" else "song.musicxml")
            files.write(song(rng), path)
            return path.read_bytes()
    if kind == "kern":
        lengths, names = ("4", "8", "2.", "16", "6"), ("c", "dd", "f#", "B-", "r")
        notes = [rng.choice(lengths) + rng.choice(names) for _ in range(30)]
        bars = "".join(note + (f"\n={i}\n" if i % 5 == 4 else "\n") for i, note in enumerate(notes))
        return f"**kern\n*M4/4\n*k[f#]\n{bars}*-\n".encode()
    pieces = 'A b2 ^c/ | |: :| [CEG] z > (3abc {g} - "Am" [K:D] [1 [2 ~d & [V:2]'.split() + ["\n"]
    body = " ".join(rng.choice(pieces) for _ in range(80))
    head = f"X:1\nT:made\nM:{rng.choice(('C|', '6/8', 'none'))}\nL:1/8\nK:{rng.choice(('G', 'Am', 'Hp'))}"
    return f"{head}\n{body}|\n".encode()


def damaged(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """`data` after one to four damages, a fifth of them in its first bytes."""
    for _ in range(rng.randint(1, 4)):
        size = max(len(data), 1)
        at = rng.randrange(size) if rng.random() < 0.8 else rng.randrange(min(size, 64))
        end = min(size, at + rng.randint(1, 40))
        middle = data[at:end]
        numbers = list(re.finditer(rb"\d+", data))
        how = rng.randrange(11)
        if how == 0 and middle:
            data = data[:at] + bytes([middle[0] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        elif how == 1:
            data = data[:at]
        elif how == 2:
            data = data[:at] + rng.randbytes(rng.randint(1, 8)) + data[at:]
        elif how == 3:
            data = data[:at] + data[end:]
        elif how == 4:
            data = data[:end] + middle * rng.randint(1, 20) + data[end:]
        elif how == 5:
            data = data[:at] + other[rng.randrange(len(other)) :]
        elif how == 6 and numbers:
            number = rng.choice(numbers)
            data = data[: number.start()] + rng.choice(NUMBERS) + data[number.end() :]
        elif how == 7 and data.count(b"\n") > 3:
            data = relined(data, rng)
        elif how == 8:
            data = data[:at] + bytes(rng.choice((0, 127, 128, 255)) for _ in middle) + data[end:]
        else:
            data = data[:at] + bytes([rng.randrange(128)]) + data[at + 1 :]
    return data


def relined(data: bytes, rng: random.Random) -> bytes:
    """A text with lines lost, repeated or moved and numbers changed, which leaves much of it well-formed."""
    lines = data.split(b"\n")
    for _ in range(rng.randint(1, 5)):
        at, to = rng.randrange(len(lines)), rng.randrange(len(lines))
        how = rng.randrange(4)
        if how == 0:
            del lines[at]
        elif how == 1:
            lines.insert(to, lines[at])
        elif how == 2:
            lines[at], lines[to] = lines[to], lines[at]
        else:
            lines[at] = re.sub(rb"\d+", lambda _: rng.choice(NUMBERS), lines[at])
        if len(lines) < 2:
            break
    return b"\n".join(lines)


def zipped(score: bytes) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("score.xml", score)
    return held.getvalue()


def unzipped(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read("score.xml")


def mended(data: bytes) -> bytes:
    """A MIDI file whose tracks say how long they are, so that a reader meets the damage within them."""
    head, *tracks = data.split(b"MTrk")
    return b"MTrk".join([head] + [len(track[4:]).to_bytes(4, "big") + track[4:] for track in tracks])


def cases(kind: str) -> Callable[[int], bytes]:
    """case(i) of the format, for which the undamaged files are made once."""
    suffixes = {"midi": "mid", "mxl": "mxl", "musicxml": "musicxml", "kern": "krn", "abc": "abc"}
    whole = [path.read_bytes() for path in sorted(DATA.glob(f"*.{suffixes[kind]}"))]
    whole += [generated(kind, random.Random(f"{kind} whole {i}")) for i in range(6)]

    def case(i: int) -> bytes:
        rng = random.Random(f"{kind} {i}")
        first, other = rng.choice(whole), rng.choice(whole)
        if kind in ("musicxml", "kern", "abc") and rng.random() < 0.4:
            return relined(first, rng)
        if kind == "mxl" and rng.random() < 0.5:
            return zipped(relined(unzipped(first), rng))
        data = damaged(first, other, rng)
        return mended(data) if kind == "midi" and rng.random() < 0.6 else data

    return case


def child(kind: str, start: int, stop: int) -> None:
    """Reads cases start..stop; prints a line before and after each."""
    case = cases(kind)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"case.{kind}")
        for i in range(start, stop):
            print(f"at {i}", flush=True)
            path.write_bytes(case(i))
            faulthandler.dump_traceback_later(PATIENCE, exit=True)
            began = time.monotonic()
            try:
                read = [song for _, song in files.read_all(path)]
                wrong = [str(song) for song in read if isinstance(song, SeqvaeError) and "\n" in str(song)]
                outcome = "song" if Song in map(type, read) else "refused"
                outcome = f"broke a line: {wrong[0]!r}" if wrong else outcome
            except Exception as fault:
                outcome = f"raised {type(fault).__name__}: {' '.join(str(fault).split())[:200]}"
            faulthandler.cancel_dump_traceback_later()
            print(f"took {time.monotonic() - began:.3f} {outcome}", flush=True)


def run(kind: str, count: int) -> tuple[Counter[str], list[str], float]:
    """Outcomes of `count` cases, the failed ones, and how long the slowest took in seconds."""
    outcomes: Counter[str] = Counter()
    failed: list[str] = []
    slowest, at = 0.0, 0
    while at < count:
        stop = min(at + BATCH, count)
        command = [sys.executable, __file__, "--child", kind, str(at), str(stop)]
        done = subprocess.run(command, capture_output=True, text=True)
        for line in done.stdout.splitlines():
            word, rest = line.split(" ", 1)
            if word == "at":
                at = int(rest)
            else:
                seconds, outcome = rest.split(" ", 1)
                slowest = max(slowest, float(seconds))
                outcomes[outcome if outcome in ("song", "refused") else "failed"] += 1
                if outcome not in ("song", "refused"):
                    failed.append(f"{kind} {at} {outcome}")
                at += 1
        if at < stop:
            outcomes["failed"] += 1
            failed.append(
                f"{kind} {at} ended its reader with {done.returncode}: {done.stderr.strip()[-500:]}"
            )
            at += 1
    return outcomes, failed, slowest


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kinds", nargs="*", default=["midi", "abc", "musicxml", "mxl", "kern"])
    parser.add_argument("--count", type=int, default=5000, help="damaged files a format")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        kind, start, stop = options.kinds
        child(kind, int(start), int(stop))
        return 0
    failures: list[str] = []
    for kind in options.kinds:
        began = time.monotonic()
        outcomes, failed, slowest = run(kind, options.count)
        failures += failed
        spent = time.monotonic() - began
        print(
            f"{kind:9} {dict(outcomes)} in {spent:.0f} s, slowest {slowest:.2f} s", *failed[:20], sep="\n  "
        )
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
