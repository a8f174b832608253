"""Files made into a corpus: read, spelt, split, deduplicated, stored, and dealt in batches.

Conventions: a *tune* is what one item of a file holds, a song, a text or an image; a *window* is one piece of
it that the codec spells, a text or image whole, stored as ``steps`` (T, K), with its END row if it has one.
All windows of a tune share a split. Windows that are equal but for what the codec's ``augment`` changes (a
melody in another key) have one digest, and of each digest one window is kept: the first of the first split
that has it. Windows of valid and test whose ruling conditions, a metre, train lacks are left out: no model
has learnt of such, and a few would decide when a training stops. Nothing here knows what a window means:
notes, text and images are stored alike. A vocabulary is learnt from the texts of the train split before any
are spelt. Every byte is a function of the files and the arguments, whatever the number of workers and
interruptions.
"""

import csv
import json
import os
import re
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seqvae import __version__, pictures
from seqvae.codecs import Codec, Encoded, PixelsCodec, Spelling, build_codec
from seqvae.disk import scaffold
from seqvae.harvest import DIGEST, PATIENCE, Job, Shard, harvest, load
from seqvae.pictures import Framing
from seqvae.song import SeqvaeError
from seqvae.sources import find, gather, useless

FORMAT, VERSION = "seqvae corpus", 1
SPLITS = ("train", "valid", "test")
ARRAYS = ("steps", "offsets", "conditions", "tunes", "bars", "fingerprints")
OURS = {".work", "tunes.csv", "rejects.csv", "vocabulary", *(f"{s}.{a}.npy" for s in SPLITS for a in ARRAYS)}
THINGS = {"melody": "tune", "text": "text", "image": "image"}  # by the codec's kind
FACES = 10_000  # of the avatars, where no number is given
CHUNK = 50  # batches among which lengths are sorted: more fill better, fewer mix better

Progress = Callable[[str, int, int], None]  # stage, done, of how many


@dataclass(frozen=True)
class Report:
    """What became of the files; counts by split are of windows. Sentences stand without their names and
    numbers. Where the splits are the files' own nothing is left out, and what is equal is only counted."""

    files: int  # files found
    tunes: int  # that are kept
    windows: int  # before any is left out
    kept: dict[str, int]
    repeated: dict[str, int]  # left out, as an earlier window of the same split is equal
    seen: dict[str, int]  # left out, as an earlier split has an equal one
    # Share of notes, words or pixels in all windows that snapping changes: moved, unknown, rounded.
    moved: float
    metres: dict[str, int]  # metre -> windows
    rejected: dict[str, int]  # reason -> tunes or files
    notices: dict[str, int]  # sentence -> tunes kept
    kind: str = "melody"  # of codec
    given: bool = False  # the splits are the files' own
    vocabulary: int = 0  # symbols, if it was learnt
    steps: float = 0.0  # of a window kept, END included, on average
    frame: str = ""  # what images have in common: "28 x 28 grey"
    untaught: dict[str, int] = field(default_factory=dict)  # left out, as train lacks their metre


class Batch(NamedTuple):
    steps: np.ndarray  # (B, T, K) int64, zeros after each END row
    lengths: np.ndarray  # (B,) int64, END row included
    conditions: np.ndarray  # (B, C) int64


def collate(windows: Sequence[Encoded]) -> Batch:
    """Windows of any lengths as one zero-padded batch."""
    lengths = np.array([len(window.steps) for window in windows])
    steps = np.zeros((len(windows), lengths.max(), windows[0].steps.shape[1]), np.int64)
    for row, window in zip(steps, windows, strict=True):
        row[: len(window.steps)] = window.steps
    return Batch(steps, lengths, np.stack([window.condition for window in windows]).astype(np.int64))


@dataclass(frozen=True, eq=False)
class Split:
    """Memory-mapped arrays over n windows, in the order of files, tunes and bars."""

    steps: np.ndarray  # (sum of T, K) int16
    offsets: np.ndarray  # (n + 1,) int64: window i is steps[offsets[i] : offsets[i + 1]]
    conditions: np.ndarray  # (n, C) int16
    tunes: np.ndarray  # (n,) int32, row of tunes.csv
    bars: np.ndarray  # (n,) int32, the window's place in its tune
    fingerprints: np.ndarray  # (n, 16) uint8, the windows' digests, sorted

    def __len__(self) -> int:
        return len(self.tunes)


def prepare(
    source: str | Path,
    out: str | Path,
    *,
    codec: Codec | Spelling | Framing,
    workers: int | None = None,
    seed: int = 0,
    essen: bool = False,
    valid: float = 0.05,
    test: float = 0.05,
    split: str = "lines",
    column: str | None = None,
    valid_file: str | Path | None = None,
    test_file: str | Path | None = None,
    count: int = FACES,
    progress: Progress | None = None,
) -> Report:
    """Makes the corpus of a file or folder, with "folk" or "chorales" of the folk tunes or Bach's works that
    ship with music21, with "wordnet" of WordNet's examples, "wordnet-glosses" of its definitions too, with
    "digits" of those that ship with scikit-learn, with "avatars" of `count` faces drawn from the seed; the
    codec says of which kind.

    Reads in `workers` processes (default: one a core; 0: in this one, which a crash of a reader then ends).
    Called again after a kill it goes on where it was. `valid` and `test` are shares of the tunes; the split
    of a tune hangs on the seed and its first two bars alone, of a text on the seed and the text, so neither
    more files nor another codec of songs moves it. What is left out stands in out/rejects.csv.

    Texts are read with `split` and `column` as `texts.read` says, and a `Spelling` is learnt from those of
    the train split. With `valid_file` or `test_file` that split is the file's own, and nothing is left out
    for being equal. Images are spelt as the `Framing` makes them; arrays that are named as splits are given
    likewise. Raises SeqvaeError when nothing is usable, and when `out` cannot be written or holds something
    else.
    """
    if not (valid >= 0 and test >= 0 and valid + test < 1):
        raise SeqvaeError(f"valid and test are shares that leave some tunes to train, not {valid} and {test}")
    workers = (os.cpu_count() or 1) if workers is None else workers
    if workers < 0:
        raise SeqvaeError(f"there can be no {workers} workers; 0 reads in this process")
    out, given = Path(os.path.abspath(out)), (valid_file, test_file)
    of_text = codec.kind == "text"
    if not of_text and (split, column, *given) != ("lines", None, None, None):
        things = "images" if codec.kind == "image" else "songs"
        raise SeqvaeError(f"{things} are not read by line or column, and no file is a split of theirs")
    parts = [None if path is None else os.path.basename(path) for path in given]
    if codec.kind == "image" and os.path.isfile(source) and pictures.of_arrays(source):
        parts = list(pictures.splits(source))
    recipe: dict[str, Any] = {"format": FORMAT, "version": VERSION}
    recipe |= {"source": os.path.basename(os.path.abspath(source))}
    recipe |= {"seed": seed, "essen": essen, "split": split if of_text else None, "column": column}
    recipe |= {"valid": 0.0 if parts[0] else float(valid), "test": 0.0 if parts[1] else float(test)}
    recipe |= {"given": parts if any(parts) else None}
    recipe |= {"count": count} if str(source) == "avatars" else {}
    if isinstance(codec, Spelling | Framing):
        recipe |= {"spelling": asdict(codec)}
    else:
        recipe |= {"codec": codec.config()}
    _claim(out, recipe)
    units, rejects = find(source, out, codec.kind, given, essen)
    key = blake2b(json.dumps([__version__, recipe, units]).encode(), digest_size=16).hexdigest()
    stage, tell = "spelling", progress or (lambda stage, done, total: None)
    if codec.kind == "melody":
        stage = "reading"
    with scaffold(out) as work:
        packs, codec = gather(
            units,
            codec,
            work / key,
            recipe,
            lambda text: _draw(text.encode(), recipe),
            os.path.isdir(source),
            tell,
        )
        total = sum(packs.counts)
        each = -(-total // len(packs.units))
        seconds = PATIENCE if workers and hasattr(signal, "alarm") else 0
        job = Job(work, codec.config(), codec.state, seconds)
        shards = harvest(packs.units, job, workers, lambda done: tell(stage, min(done * each, total), total))
        tell("writing", 0, 1)
        report = _write(out, shards, rejects + packs.rejects, recipe, codec, len(units))
    tell("writing", 1, 1)
    return report


def _claim(out: Path, recipe: dict[str, Any]) -> None:
    """Raises SeqvaeError unless `out` is new, empty, an interrupted preparation or of the same recipe."""
    if (out / "corpus.json").exists():
        about = _about(out)
        if any(about.get(name) != value for name, value in recipe.items()):
            raise SeqvaeError(f"{out} holds a corpus prepared otherwise; delete it or choose another folder")
    elif out.is_dir():
        foreign = sorted({path.name for path in out.iterdir()} - OURS)
        if foreign:
            raise SeqvaeError(f"{out} holds something that is no corpus, {foreign[0]}; choose another folder")
    elif out.exists():
        raise SeqvaeError(f"{out} is a file, not a folder for a corpus")


def _join(shards: list[Shard]) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """The shards' arrays end to end, with tunes numbered through, and what each says about itself, unread."""
    tables = [table for shard in shards if (table := load(shard.path)) is not None]
    if len(tables) < len(shards):
        raise SeqvaeError(f"a result in {shards[0].path.parent} was damaged; run the preparation again")
    abouts = [table.pop("about") for table in tables]
    base = 0
    for table in tables:
        table["tunes"] += np.int32(base)
        base += len(table["splits"])
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}, abouts


def _write(
    out: Path,
    shards: list[Shard],
    rejects: list[tuple[str, str]],
    recipe: dict[str, Any],
    codec: Codec,
    files: int,
) -> Report:
    """Makes the corpus of the shards' results."""
    table, told = _join(shards)

    def abouts(name: str) -> Iterator[Any]:  # each read anew, as together they may not fit in memory
        return (json.loads(one.tobytes())[name] for one in told)

    rejects = rejects + [reject for some in abouts("rejects") for reject in some]
    tunes = len(table["splits"])
    if not tunes:
        raise SeqvaeError(useless(THINGS[codec.kind], recipe["source"], rejects))
    of_tune = _assign(table, recipe)
    split = of_tune[table["tunes"]]  # (windows,) index in SPLITS
    winner = _winners(table["digests"], split)
    equal = winner != np.arange(len(winner))  # to an earlier one
    kept = ~equal | (recipe["given"] is not None)
    untaught = kept & ~_taught(table["conditions"][:, : codec.ruling], kept & (split == 0))
    kept &= ~untaught

    final = out / ".work" / "final"
    shutil.rmtree(final, ignore_errors=True)
    final.mkdir()
    for index, name in enumerate(SPLITS):
        _write_split(f"{final / name}", shards, table, kept & (split == index))
    counts = np.bincount(table["tunes"][kept], minlength=tunes)
    labelled = any(label for some in abouts("tunes") for _, _, label in some)
    named = ((name, [label] * labelled) for some in abouts("tunes") for name, _, label in some)
    rows = ((i, name, SPLITS[of_tune[i]], counts[i], *label) for i, (name, label) in enumerate(named))
    _write_csv(final / "tunes.csv", ("tune", "name", "split", "windows", *["label"] * labelled), rows)
    _write_csv(final / "rejects.csv", ("name", "reason"), rejects)

    def by_split(chosen: np.ndarray) -> dict[str, int]:
        return dict(zip(SPLITS, np.bincount(split[chosen], minlength=len(SPLITS)).tolist(), strict=True))

    report = Report(
        files=files,
        tunes=tunes,
        windows=len(split),
        kept=by_split(kept),
        repeated=by_split(equal & (split[winner] == split)),
        seen=by_split(split[winner] != split),
        untaught=by_split(untaught),
        moved=sum(abouts("moved")) / max(sum(abouts("counted")), 1),
        metres=_ranked(sum(map(Counter, abouts("metres")), Counter())),
        rejected=_ranked(Counter(_generic(reason) for _, reason in rejects)),
        notices=_ranked(
            Counter(_generic(text) for some in abouts("tunes") for _, of, _ in some for text in of)
        ),
        kind=codec.kind,
        given=recipe["given"] is not None,
        vocabulary=codec.streams[0].size - 1 if codec.state else 0,
        steps=float(table["lengths"][kept].mean()),
        frame=str(codec.frame) if isinstance(codec, PixelsCodec) else "",
    )
    if not report.kept["train"]:
        things = f"{THINGS[codec.kind]}s"
        raise SeqvaeError(f"all {tunes} {things} fell to valid and test: give more, or valid=0 and test=0")
    if codec.state:
        (final / "vocabulary").write_bytes(codec.state)
    _publish(out, final, recipe | {"codec": codec.config(), "report": asdict(report)})
    return report


def _generic(text: str) -> str:
    """A sentence without what is quoted in it and without its numbers."""
    return re.sub(r"(?<!\w-)\b\d+([.,:]\d+)*\b", "N", re.sub(r"""(?<!\w)(['"]).*?\1(?!\w)""", "…", text))


def _ranked(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _assign(table: dict[str, np.ndarray], recipe: dict[str, Any]) -> np.ndarray:
    """(tunes,) index in SPLITS: the file's, or drawn by the tune's key."""
    of_tune = table["splits"].astype(np.int64)
    drawn = np.flatnonzero(of_tune < 0)
    of_tune[drawn] = [_draw(key.tobytes(), recipe) for key in table["keys"][drawn]]
    return of_tune


def _draw(key: bytes, recipe: dict[str, Any]) -> int:
    """The index in SPLITS of a tune with this key, from the seed: its first window's digest, or its text."""
    drawn = blake2b(f"{recipe['seed']}/".encode() + key, digest_size=8).digest()
    at = int.from_bytes(drawn, "little") / 2**64  # uniform in 0 .. 1
    return 1 if at < recipe["valid"] else 2 if at < recipe["valid"] + recipe["test"] else 0


def _keys(digests: np.ndarray) -> np.ndarray:
    """(n, 16) uint8 as (n,) byte strings, which numpy sorts and compares."""
    return np.ascontiguousarray(digests).reshape(-1).view(f"S{DIGEST}")


def _winners(digests: np.ndarray, split: np.ndarray) -> np.ndarray:
    """(n,) for each window the one that is kept of its digest: the first of the first split."""
    keys = _keys(digests)
    order = np.lexsort((np.arange(len(keys)), split, keys))
    new = np.r_[True, keys[order][1:] != keys[order][:-1]]
    winner = np.empty(len(keys), np.int64)
    winner[order] = order[new][np.cumsum(new) - 1]
    return winner


def _taught(ruling: np.ndarray, train: np.ndarray) -> np.ndarray:
    """(n,) bool: windows whose ruling conditions (n, R) one of train (n,) bool has."""
    _, kind = np.unique(ruling, axis=0, return_inverse=True)
    kind = kind.reshape(-1)  # whatever shape numpy gives it
    return np.isin(kind, kind[train])


def _write_split(stem: str, shards: list[Shard], table: dict[str, np.ndarray], kept: np.ndarray) -> None:
    """Writes the arrays of windows `kept` (n,) bool; steps, which may not fit in memory, shard by shard."""
    lengths = table["lengths"]
    np.save(f"{stem}.offsets.npy", np.r_[0, np.cumsum(lengths[kept])])
    keys = np.sort(_keys(table["digests"][kept]))
    np.save(f"{stem}.fingerprints.npy", keys.view(np.uint8).reshape(-1, DIGEST))
    for name in ("conditions", "tunes", "bars"):
        np.save(f"{stem}.{name}.npy", table[name][kept])
    rows, at = np.repeat(kept, lengths), 0
    with open(f"{stem}.steps.npy", "wb") as file:
        for shard in shards:
            with np.load(shard.path) as stored:
                steps = stored["steps"]
            if not file.tell():
                shape = (int(rows.sum()), steps.shape[1])
                header = {"descr": "<i2", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(steps[rows[at : at + len(steps)]].astype("<i2").tobytes())
            at += len(steps)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file, lineterminator="\n").writerows(chain([header], rows))


def _publish(out: Path, final: Path, about: dict[str, Any]) -> None:
    """Moves finished files to their names; corpus.json, which makes them a corpus, goes first, comes last."""
    about["bytes"] = {path.name: path.stat().st_size for path in sorted(final.iterdir())}
    (final / "corpus.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    (out / "corpus.json").unlink(missing_ok=True)
    for name in (*about["bytes"], "corpus.json"):
        os.replace(final / name, out / name)


def _about(folder: Path) -> dict[str, Any]:
    """What corpus.json says; SeqvaeError when the folder holds no corpus of this version."""
    if not (folder / "corpus.json").exists():
        if (folder / ".work").exists():
            raise SeqvaeError(f"the preparation of {folder} was interrupted: run it again to go on")
        raise SeqvaeError(f"{folder} holds no corpus")
    try:
        about = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
        strange = about["format"] != FORMAT or not {"version", "codec", "bytes", "report"} <= about.keys()
    except (OSError, ValueError, KeyError, TypeError):
        strange = True
    if strange:
        raise SeqvaeError(f"{folder / 'corpus.json'} does not describe a corpus of this program")
    if about["version"] != VERSION:
        version = about["version"]
        raise SeqvaeError(f"{folder} is a corpus of version {version}, not {VERSION}; prepare it again")
    return about


@dataclass(frozen=True, eq=False)
class Corpus:
    """A prepared corpus on disk; `open` it."""

    folder: Path
    codec: Codec
    about: dict[str, Any]  # corpus.json
    splits: dict[str, Split]

    @classmethod
    def open(cls, folder: str | Path) -> "Corpus":
        """Raises SeqvaeError when the folder holds no corpus, one of another version, or a file cut short."""
        folder = Path(folder)
        about = _about(folder)
        for name, size in about["bytes"].items():
            if not (folder / name).exists() or (folder / name).stat().st_size != size:
                raise SeqvaeError(f"{folder / name} is not as it was written; prepare the corpus again")

        def array(split: str, name: str) -> np.ndarray:  # a plain view: its indexing is several times faster
            return np.load(folder / f"{split}.{name}.npy", "r").view(np.ndarray)

        splits = {split: Split(*(array(split, name) for name in ARRAYS)) for split in SPLITS}
        state = (folder / "vocabulary").read_bytes() if "vocabulary" in about["bytes"] else b""
        return cls(folder, build_codec(about["codec"], state), about, splits)

    @property
    def report(self) -> Report:
        return Report(**self.about["report"])

    @cached_property
    def names(self) -> list[str]:
        """Every tune's name; a split's `tunes` are indices here."""
        with open(self.folder / "tunes.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
            return [row["name"] for row in csv.DictReader(file)]

    @cached_property
    def labels(self) -> list[str]:
        """Every tune's label, "" where it has none."""
        with open(self.folder / "tunes.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
            return [row.get("label", "") for row in csv.DictReader(file)]

    def split(self, name: str) -> Split:
        if name not in self.splits:
            raise SeqvaeError(f"a corpus has the splits {', '.join(SPLITS)}, not {name!r}")
        return self.splits[name]

    def window(self, split: str, index: int) -> Encoded:
        data = self.split(split)
        start, stop = data.offsets[index : index + 2]
        return Encoded(data.steps[start:stop].copy(), data.conditions[index].copy())

    def contains(self, split: str, digests: Sequence[bytes]) -> np.ndarray:
        """(m,) bool: whether the split keeps a window of such a `harvest.digest`."""
        held, asked = _keys(self.split(split).fingerprints), np.array(list(digests), f"S{DIGEST}")
        return np.searchsorted(held, asked, "right") > np.searchsorted(held, asked, "left")

    def successors(self, split: str) -> np.ndarray:
        """(m, 2) pairs (i, j): window j begins where window i ends in the same tune, and the split keeps
        both."""
        data = self.split(split)
        place = (data.tunes.astype(np.int64) << 32) + data.bars
        after = place + int(self.codec.config().get("bars", 1))
        j = np.searchsorted(place, after)  # windows stand in order of tune and bar
        i = np.flatnonzero(np.r_[place, -1][j] == after)
        return np.stack([i, j[i]], 1)

    def epoch_steps(self, split: str, batch_size: int, world: int = 1) -> int:
        """How many batches each of `world` ranks takes in an epoch."""
        if batch_size < 1 or world < 1:
            raise SeqvaeError(f"batches need at least one window and one rank, not {batch_size} and {world}")
        return -(-len(self.split(split)) // (batch_size * world))

    def plan(self, split: str, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
        """The windows of every batch of an epoch, in order: random but for like lengths, pure in (seed,
        epoch)."""
        rng = np.random.default_rng([seed, epoch])
        lengths = np.diff(self.split(split).offsets)
        order = rng.permutation(len(lengths))
        for start in range(0, len(order), CHUNK * batch_size):
            chunk = order[start : start + CHUNK * batch_size]
            chunk[:] = chunk[np.argsort(lengths[chunk], kind="stable")]
        count = self.epoch_steps(split, batch_size)
        return [order[at * batch_size : (at + 1) * batch_size] for at in rng.permutation(count)]

    def fill(self, split: str, batch_size: int, seed: int = 0, epoch: int = 0) -> float:
        """Share of an epoch's batch cells that hold rows of windows and no padding."""
        lengths = np.diff(self.split(split).offsets)
        cells = sum(lengths[rows].max() * len(rows) for rows in self.plan(split, batch_size, seed, epoch))
        return float(lengths.sum() / max(cells, 1))

    def batches(
        self,
        split: str,
        batch_size: int,
        seed: int,
        epoch: int,
        augment: bool = True,
        rank: int = 0,
        world: int = 1,
        skip: int = 0,
    ) -> Iterator[Batch]:
        """One epoch of a split in batches of like lengths, the last windows in a smaller one: pure in the
        arguments.

        Each of `world` ranks takes every world-th batch, all the same number: the last round wraps to the
        epoch's first batches. `skip` leaves out the batches a rank took before an interruption. Augmentation
        draws from (seed, epoch, the batch's place in the epoch), whatever the rank and the skip.
        """
        data, plan = self.split(split), self.plan(split, batch_size, seed, epoch)
        for step in range(skip, self.epoch_steps(split, batch_size, world)):
            place = (step * world + rank) % len(plan)
            starts, stops = data.offsets[plan[place]], data.offsets[plan[place] + 1]
            lengths = stops - starts
            cells = np.arange(lengths.max())
            steps = data.steps.take(starts[:, None] + cells, axis=0, mode="clip").astype(np.int64)
            steps[cells >= lengths[:, None]] = 0  # (B, T, K)
            told = data.conditions[plan[place]].astype(np.int64)
            if augment:
                rng = np.random.default_rng([seed, epoch, place])
                steps, told = self.codec.augment(steps, lengths, told, rng)
            yield Batch(steps, lengths, told)
