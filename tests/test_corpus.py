"""The corpus: what is kept and where it goes, that only files and arguments decide it, and the batches."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqvae import corpus as module
from seqvae import files, harvest
from seqvae.codecs import Encoded, NotesCodec, Stream
from seqvae.corpus import SPLITS, Corpus, Report, collate, prepare
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
        assert [unit.name for unit in module._folk(essen)] == [name for name, _ in files.folk(essen)]


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
    rename, left = os.replace, [0]

    def replace(old: Path, new: Path) -> None:
        left[0] -= 1
        if not left[0]:
            raise Cut
        rename(old, new)

    make(tmp_path / "whole")
    monkeypatch.setattr(os, "replace", replace)
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


def test_no_batches_and_bad_sizes(large: Corpus) -> None:
    assert list(large.batches("test", 8, 0, 0)) == [] and large.epoch_steps("test", 8) == 0
    assert large.successors("test").shape == (0, 2) and not large.contains("test", [bytes(16)]).any()
    with pytest.raises(SeqvaeError, match="at least one window"):
        large.epoch_steps("train", 0)


# ---------------------------------------------------------------- other codecs


class Letters:
    """A codec of lines of text, which knows one stream, no condition and no metre."""

    name = "letters"
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
        monkeypatch.setattr(place, "build_codec", lambda config: Letters())
    codec: Any = Letters()  # it does no more than a corpus needs
    report = prepare(tmp_path, tmp_path / "out", codec=codec, workers=0, valid=0.2, test=0)
    corpus = Corpus.open(tmp_path / "out")
    assert report.tunes == 8 and len(report.rejected) == 1 and report.metres == {"none": 24}
    assert sum(report.kept.values()) == 17 and report.moved == 0
    windows = [corpus.window("train", i).steps[:-1, 0] for i in range(report.kept["train"])]
    assert b"all the same" in {letters.astype(np.uint8).tobytes() for letters in windows}
    batch = next(corpus.batches("train", 4, 0, 0, augment=False))
    assert batch.steps.shape[0::2] == (4, 1) and batch.conditions.shape == (4, 0)
