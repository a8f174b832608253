"""Uploads read in a process that may die: what is read, what is refused, and that nothing is left behind."""

import importlib.util
import io
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seqvae import files
from seqvae.pictures import Framing
from seqvae.service.reading import MEMORY, Reader
from seqvae.song import SeqvaeError, Song

ROOT = Path(__file__).parent.parent
SONG = (ROOT / "data" / "heron_weather.mid").read_bytes()


def fuzz() -> Any:
    """benchmarks/fuzz.py, which makes damaged files."""
    spec = importlib.util.spec_from_file_location("fuzz", ROOT / "benchmarks" / "fuzz.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def drawn(form: str, **options: Any) -> bytes:
    grid = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    held = io.BytesIO()
    Image.fromarray(grid).save(held, form, **options)
    return held.getvalue()


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    with Reader() as made:
        yield made


def pid(reader: Reader) -> int:
    found = reader.workers[0].process.pid
    assert found is not None
    return found


def gone(process: int) -> bool:
    """Whether it ends within a minute: it is no more, or waits for a parent that is none of ours to ask."""
    for _ in range(600):
        try:
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("path", sorted((ROOT / "data").glob("*.[!t]*")), ids=lambda path: path.name)
def test_songs_are_those_that_files_reads(reader: Reader, path: Path) -> None:
    if path.suffix == ".md":
        with pytest.raises(SeqvaeError, match="^the file: it is no song"):
            reader.song(path.read_bytes())
    else:
        assert reader.song(path.read_bytes()) == files.read(path)


def test_pictures_come_in_the_size_asked_for(reader: Reader) -> None:
    assert reader.picture(drawn("PNG")).shape == (24, 32, 3)
    assert reader.picture(drawn("JPEG"), Framing(16, 16, 1)).shape == (16, 16, 1)


@pytest.mark.parametrize("data", [b"", b"\0" * 99, b"hello", SONG[:20], b"PK\3\4", drawn("PNG"), b"\xff" * 9])
def test_what_is_no_song_is_refused_in_a_sentence(reader: Reader, data: bytes) -> None:
    with pytest.raises(SeqvaeError, match="^the file: [^\n]*$") as refusal:
        reader.song(data)
    assert "upload" not in str(refusal.value) and "/" not in str(refusal.value)


@pytest.mark.parametrize("data", [b"", SONG, drawn("PNG")[:-60], drawn("GIF"), drawn("BMP")])
def test_what_is_no_picture_is_refused_in_a_sentence(reader: Reader, data: bytes) -> None:
    with pytest.raises(SeqvaeError, match="^the file: it is no whole PNG or JPEG image$"):
        reader.picture(data, Framing(32, 32, 3))


# Of notation fewer, as music21 is slow and test_fuzz.py reads 500 of each.
@pytest.mark.parametrize(
    ("kind", "count"), [("midi", 500), ("abc", 500), ("musicxml", 100), ("mxl", 100), ("kern", 100)]
)
def test_damaged_songs_break_no_worker(reader: Reader, kind: str, count: int) -> None:
    case, outcomes, worker = fuzz().cases(kind), Counter[str](), pid(reader)
    for i in range(count):
        try:
            outcomes[type(reader.song(case(i))).__name__] += 1
        except SeqvaeError as fault:
            outcomes["refused"] += 1
            assert "\n" not in str(fault) and "crashed" not in str(fault), (kind, i, fault)
    assert outcomes.keys() == {"Song", "refused"} and pid(reader) == worker


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_damaged_pictures_break_no_worker(reader: Reader, form: str) -> None:
    damaged, outcomes, worker = fuzz().damaged, Counter[str](), pid(reader)
    whole = [drawn(form, **more) for more in ({}, {"exif": Image.Exif()}, {"optimize": True})]
    for i in range(500):
        rng = random.Random(f"{form} {i}")
        try:
            image = reader.picture(damaged(rng.choice(whole), rng.choice(whole), rng), Framing(16, 16, 3))
            outcomes["image"] += 1
            assert image.shape == (16, 16, 3) and image.dtype == np.uint8
        except SeqvaeError as fault:
            outcomes["refused"] += 1
            assert "\n" not in str(fault) and "crashed" not in str(fault), (form, i, fault)
    assert outcomes.keys() == {"image", "refused"} and pid(reader) == worker


def test_many_threads_get_each_their_own(reader: Reader) -> None:
    paths = [ROOT / "data" / f"{name}.mid" for name in ("heron_weather", "tin_shed_shuffle")] * 20
    paths[7] = ROOT / "data" / "grace.abc"
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda path: reader.song(path.read_bytes()), paths))
    assert found == [files.read(path) for path in paths]


def test_a_file_that_kills_its_worker_is_lost_alone() -> None:
    with Reader(workers=2, seconds=60) as reader:
        for _ in range(2):
            reader.song(SONG)  # both have started
        doomed = reader.workers[0]
        first, second = (worker.process.pid for worker in reader.workers)
        assert first and second
        os.kill(first, signal.SIGSTOP)  # the next file is at work as long as it takes
        with ThreadPoolExecutor() as pool:
            lost = pool.submit(reader.song, SONG)
            while not doomed.line.closed and reader.idle.qsize() == 2:
                time.sleep(0.01)
            others = [pool.submit(reader.song, SONG) for _ in range(20)]
            assert {type(other.result()) for other in others} == {Song}
            assert not lost.done()
            os.kill(first, signal.SIGKILL)
            with pytest.raises(SeqvaeError, match="crashed its reader"):
                lost.result()
        assert not Path(doomed.folder.name).exists()
        assert second in (pids := {worker.process.pid for worker in reader.workers}) and first not in pids
        assert [type(reader.song(SONG)) for _ in range(2)] == [Song, Song]


def test_a_worker_that_was_killed_between_files_costs_none() -> None:
    with Reader() as reader:
        reader.song(SONG)
        os.kill(pid(reader), signal.SIGKILL)
        reader.workers[0].process.join()
        assert isinstance(reader.song(SONG), Song)


def test_a_file_that_takes_too_long_is_given_up_and_one_that_waits_is_told() -> None:
    with Reader(seconds=1) as reader:
        reader.song(SONG)
        hanging = pid(reader)
        os.kill(hanging, signal.SIGSTOP)
        said: list[str] = []

        def ask() -> None:
            with pytest.raises((SeqvaeError, TimeoutError)) as refusal:
                reader.song(SONG)
            said.append(f"{refusal.type.__name__} {refusal.value}")

        with ThreadPoolExecutor() as pool:
            slow = pool.submit(ask)
            while reader.idle.qsize():
                time.sleep(0.01)
            with pytest.raises(TimeoutError, match="are busy"):
                reader.seconds = 0.01
                reader.song(SONG)
            slow.result()
        assert said == ["SeqvaeError the file crashed its reader or keeps it too long, so export it again"]
        assert gone(hanging)
        reader.seconds = 60
        assert isinstance(reader.song(SONG), Song)


def test_memory_is_limited(reader: Reader) -> None:
    reader.song(SONG)
    assert resource.prlimit(pid(reader), resource.RLIMIT_AS) == (MEMORY, MEMORY)


def test_what_was_closed_is_gone_and_refuses() -> None:
    reader = Reader()
    reader.song(SONG)
    worker, folder = pid(reader), reader.workers[0].folder.name
    reader.close()
    reader.close()
    assert gone(worker) and not Path(folder).exists()
    threads = threading.active_count()
    with pytest.raises(SeqvaeError):
        reader.song(SONG)
    assert not reader.workers[0].process.is_alive() and threading.active_count() == threads


PARENT = """
import sys
from seqvae.service.reading import Reader
if __name__ == "__main__":
    reader = Reader()
    reader.song(open(sys.argv[1], "rb").read())
    print(reader.workers[0].process.pid, reader.workers[0].folder.name, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["killed", "ended"])
def test_no_worker_outlives_its_parent(tmp_path: Path, how: str) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(script), str(ROOT / "data" / "heron_weather.mid")]
    given = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": os.environ | {"PYTHONPATH": paths}}
    with subprocess.Popen(command, text=True, **given) as parent:  # type: ignore[call-overload]
        worker, folder = parent.stdout.readline().split()
        assert Path(folder).exists()
        if how == "killed":
            parent.kill()
    assert gone(int(worker)) and not Path(folder).exists()
