"""Files read and spelt in many processes: the half of making a corpus that may crash, hang or be killed.

Conventions: files are read in shards of SHARD. A shard's result, all windows in its files with the tunes'
names and the rejects, appears at once under a name that hashes everything it depends on, so what is there
need never be read again. A file that kills its reader costs only itself, and no fault of a file is ever an
exception here.
"""

import io
import json
import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np

from seqvae import __version__, files, pictures
from seqvae.codecs import Codec, Encoded, NotesCodec, PixelsCodec, build_codec
from seqvae.codecs.bars import BarsCodec
from seqvae.disk import write_atomic
from seqvae.song import Phrase, SeqvaeError
from seqvae.sources import ALBUM, PACKED, Unit, turn, unpack

SHARD = 16  # files: what a kill can cost, and what is read again one by one when a worker dies
PATIENCE = 300  # seconds for one tune, after which its reader is given up
DIGEST = 16  # bytes
OPENING = NotesCodec()
CUT = "it is longer than the codec spells, and was cut"


class Job(NamedTuple):
    """What every worker is told."""

    folder: Path  # for results
    config: dict[str, int | str]  # codec.config()
    state: bytes  # codec.state
    seconds: int  # of patience for a tune; 0: endless


class Shard(NamedTuple):
    units: tuple[Unit, ...]
    path: Path  # of its result

    @classmethod
    def of(cls, units: tuple[Unit, ...], job: Job) -> "Shard":
        key = json.dumps([__version__, job.config, units]).encode()
        return cls(units, job.folder / f"{blake2b(key, digest_size=16).hexdigest()}.npz")


def digest(codec: Codec, window: Encoded) -> bytes:
    """16 bytes, equal for windows that differ only by what ``codec.augment`` changes."""
    return blake2b(codec.fingerprint(*window), digest_size=DIGEST).digest()


def load(path: Path) -> dict[str, Any] | None:
    """A shard's result without its steps; None when it is missing or damaged.

    Arrays over windows: lengths, conditions, tunes (index in the shard), bars, digests (n, 16) uint8; over
    tunes: splits, those of their units, and keys (n, 16) uint8, by which one is drawn; and "about", as bytes
    of JSON: {tunes: [[name, notices, label]], rejects: [[name, reason]], metres: {metre: windows}, moved:
    notes, words or pixels changed by snapping, counted: of how many}.
    """
    try:
        with np.load(path) as stored:
            found: dict[str, Any] = dict(stored.items())  # all of them, as reading checks
        del found["steps"]
        json.loads(found["about"].tobytes())
        return found
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None


def harvest(units: list[Unit], job: Job, workers: int, progress: Callable[[int], None]) -> list[Shard]:
    """Reads all files in `workers` processes (0: in this one) and returns the shards whose results hold them,
    in order.

    When a worker dies, the files then at work are read again one at a time in shards of their own, so that
    only the culprit is lost. `progress` is told the number of files done.
    """
    shards = [Shard.of(tuple(units[i : i + SHARD]), job) for i in range(0, len(units), SHARD)]
    todo = deque(shard for shard in shards if load(shard.path) is None)
    count = len(units) - sum(len(shard.units) for shard in todo)

    def done(shard: Shard) -> None:
        nonlocal count
        count += len(shard.units)
        progress(count)

    progress(count)
    while todo and not workers:
        _read(todo[0], job)
        done(todo.popleft())
    broken: dict[Shard, list[Shard]] = {}
    while todo:
        for shard in _pool(todo, job, workers, done):
            broken[shard] = [Shard.of((unit,), job) for unit in shard.units]
            _read_singly(broken[shard], job)
            done(shard)
    return [single for shard in shards for single in broken.get(shard, [shard])]


def _pool(todo: deque[Shard], job: Job, workers: int, done: Callable[[Shard], None]) -> list[Shard]:
    """Reads shards off the queue until it is empty or a worker dies; returns those that were then at work."""
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_start)
    flying: dict[Future[None], Shard] = {}
    try:
        pool.submit(os.getpid).result()
    except BrokenProcessPool:
        message = "worker processes cannot start; call under `if __name__ == '__main__':`, or with workers=0"
        raise SeqvaeError(message) from None
    try:
        while todo or flying:
            while todo and len(flying) < 2 * workers - 1:
                flying[pool.submit(_read, todo[0], job)] = todo[0]
                todo.popleft()
            for future in wait(flying, return_when=FIRST_COMPLETED).done:
                future.result()
                done(flying.pop(future))
    except BrokenProcessPool:
        pass
    finally:
        pool.shutdown(cancel_futures=True)
    return list(flying.values())


def _read_singly(singles: list[Shard], job: Job) -> None:
    todo = deque(single for single in singles if load(single.path) is None)
    while todo:
        for culprit in _pool(todo, job, 1, lambda single: None):
            reject = (culprit.units[0].name, f"its reader crashed or took more than {PATIENCE} seconds")
            _save(culprit.path, build_codec(job.config, job.state), [], [], [], {"rejects": [reject]})


def _start() -> None:
    """A worker leaves Ctrl-C to its parent, and does not outlive it even where that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _read(shard: Shard, job: Job) -> None:
    """Writes the shard's result."""
    codec = build_codec(job.config, job.state)
    moves: Callable[[Any], int] | None = getattr(codec, "moved", None)
    cuts: Callable[[Any], bool] | None = getattr(codec, "cut", None)
    tunes: list[tuple[str, tuple[str, ...], str | None]] = []
    rejects: list[tuple[str, str]] = []
    moved = counted = 0
    metres: Counter[str] = Counter()
    splits: list[int] = []
    keys: list[bytes] = []
    found: list[tuple[int, int, Encoded]] = []  # tune, bar, window
    for unit in shard.units:
        for name, thing in _things(unit, job, codec):
            try:
                if isinstance(thing, Exception):
                    raise thing
                pieces = list(codec.pieces(thing))
                windows = [(len(tunes), bar, codec.encode(piece)) for bar, piece in pieces]
                if not windows:
                    raise SeqvaeError("it is too short for a window")
            except Exception as fault:  # readers fail in every way there is, and must stop nothing
                rejects.append((name, _reason(fault, name, unit.path)))
                continue
            cut = (CUT,) if cuts and any(cuts(piece) for _, piece in pieces) else ()
            tunes.append((name, (*getattr(thing, "notices", ()), *cut), getattr(thing, "label", None)))
            splits.append(unit.split)
            keys.append(_key(thing, codec, windows[0][-1]))
            found += windows
            metres.update(str(piece.metre) for _, piece in pieces if hasattr(piece, "metre"))
            moved += sum(moves(piece) for _, piece in pieces) if moves else 0
            counted += sum(
                len(piece.notes) if isinstance(piece, Phrase) else len(window.steps) - (codec.kind != "image")
                for (_, piece), (_, _, window) in zip(pieces, windows, strict=True)
            )
    about = {"tunes": tunes, "rejects": rejects, "metres": metres, "moved": moved, "counted": counted}
    _save(shard.path, codec, found, splits, keys, about)


def _key(thing: object, codec: Codec, first: Encoded) -> bytes:
    """What a tune's split is drawn by: of a song its first two bars, the same in every codec of melodies."""
    if isinstance(codec, BarsCodec) and codec.config() != OPENING.config():
        with suppress(SeqvaeError):
            for _, opening in OPENING.pieces(thing):
                return digest(OPENING, OPENING.encode(opening))
    return digest(codec, first)


def _things(unit: Unit, job: Job, codec: Codec) -> Iterator[tuple[str, object]]:
    """(name, thing or what went wrong) for every tune of a file; raises nothing."""
    folder = unit.name[: unit.name.rfind("/") + 1]
    alarm = signal.alarm if job.seconds else int  # it ends this worker, as a crash does
    try:
        alarm(job.seconds)
        for name, thing in _opened(unit, codec):
            yield folder + name, thing
            alarm(job.seconds)
    except Exception as fault:
        yield unit.name, fault
    finally:
        alarm(0)


def _opened(unit: Unit, codec: Codec) -> Iterator[tuple[str, object]]:
    if unit.path.endswith(PACKED):
        yield from unpack(unit.path)
    elif unit.path.endswith(ALBUM):
        yield from turn(unit.path)
    elif isinstance(codec, PixelsCodec):
        label = Path(unit.name).parent.name or None
        for picture in pictures.read(unit.path, codec.framing):
            yield picture.name, picture._replace(label=label)
    else:
        yield from files.read_all(Path(unit.path))


def _reason(fault: Exception, name: str, path: str) -> str:
    """The fault in a sentence that does not begin with the file's name."""
    if not isinstance(fault, SeqvaeError):
        return f"reading it failed with {type(fault).__name__}: {fault}"
    text = str(fault)
    tails = [name[i:] for i in range(len(name)) if not i or name[i - 1] == "/"]
    return next((text[len(head) + 2 :] for head in [path, *tails] if text.startswith(f"{head}: ")), text)


def _save(
    path: Path,
    codec: Codec,
    found: list[tuple[int, int, Encoded]],
    splits: list[int],
    keys: list[bytes],
    about: dict[str, Any],
) -> None:
    about = {"tunes": [], "rejects": [], "metres": {}, "moved": 0, "counted": 0} | about
    nothing = Encoded(np.zeros((0, len(codec.streams)), np.int16), np.zeros(len(codec.conditions), np.int16))
    digests = b"".join(digest(codec, window) for _, _, window in found)
    columns = {
        "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
        "steps": np.concatenate([nothing.steps, *(window.steps for _, _, window in found)]),
        "lengths": np.array([len(window.steps) for _, _, window in found], np.int64),
        "conditions": np.stack([nothing.condition, *(window.condition for _, _, window in found)])[1:],
        "tunes": np.array([tune for tune, _, _ in found], np.int32),
        "bars": np.array([bar for _, bar, _ in found], np.int32),
        "splits": np.array(splits, np.int8),
        "keys": np.frombuffer(b"".join(keys), np.uint8).reshape(-1, DIGEST),
        "digests": np.frombuffer(digests, np.uint8).reshape(-1, DIGEST),
    }
    held = io.BytesIO()
    np.savez(held, **columns)  # type: ignore[arg-type]
    write_atomic(path, held.getvalue())
