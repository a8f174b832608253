"""Jobs: uploads kept by numbers, trainings that survive kills to the byte, cancelling, retention, morphs."""

import asyncio
import contextlib
import csv
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import phrase
from PIL import Image
from pydantic import ValidationError

from seqvae import files, gallery, pictures
from seqvae.corpus import Corpus
from seqvae.engine import find_model, models
from seqvae.pipeline import Pipeline
from seqvae.service import jobs as module
from seqvae.service.jobs import Jobs, exclusive
from seqvae.service.schemas import JobInfo, Morph, SongBody, Thing, Train
from seqvae.service.work import learn, morph
from seqvae.song import Metre, SeqvaeError, assemble

ROOT = Path(__file__).parent.parent
TINY: dict[str, str | int | float | bool] = {
    **{"steps": 60, "evaluate_every": 20, "save_every": 5, "batch_size": 8, "rise": 10, "warmup": 10},
    **{"embedding": "12,12,8,4", "condition": 4, "encoder": 24, "decoder": 40, "head": 20, "latent": 8},
}
ENDLESS = TINY | {"steps": 1_000_000}
HOSTILE = [
    "../../x.mid",
    "/etc/passwd.mid",
    "a\0b.mid",
    f"{'x' * 1000}.mid",
    "..\\x.MID",
    "\ud800.mid",
    "é\n.mid",
]


def until(holds: Callable[[], Any], seconds: float = 300.0) -> Any:
    """What it returns once that is true; a failure where it never is."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)
    return found


def over(jobs: Jobs, id: str) -> JobInfo:
    until(lambda: jobs.get(id).state in module.FINAL)
    return jobs.get(id)


def gone(process: int) -> bool:
    """Whether it is no more, or waits for a parent that is none of ours to ask."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def holds_open(process: int, path: Path) -> bool:
    for link in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if os.readlink(link) == str(path):
                return True
    return False


@pytest.fixture(scope="module")
def tunes(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Two dozen MIDI files of four bars."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("tunes")
    for i in range(24):
        metre = Metre(*((4, 4), (3, 4))[i % 2])
        files.write(assemble([phrase(rng, metre), phrase(rng, metre)]), folder / f"{i:02}.mid")
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def uploaded(jobs: Jobs, tunes: list[bytes]) -> str:
    """A corpus of the tunes and two files that cannot be read."""
    corpus = jobs.create_corpus()
    for i, tune in enumerate(tunes):
        jobs.add_file(corpus.id, f"my tunes/{i}.mid", tune)
    jobs.add_file(corpus.id, "../broken.mid", tunes[0][:30])
    return jobs.add_file(corpus.id, "no tune.abc", b"hello").id


@pytest.fixture
def still(tmp_path: Path) -> Iterator[Jobs]:
    """Jobs that only wait."""
    jobs = Jobs(tmp_path / "data", 3600, slots=0)
    yield jobs
    jobs.close()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    """Jobs that work."""
    jobs = Jobs(tmp_path_factory.mktemp("home"), 3600)
    yield jobs
    jobs.close()


@pytest.fixture(scope="module")
def told(home: Jobs, tunes: list[bytes]) -> list[JobInfo]:
    """An undisturbed training, as it went."""

    async def follow(id: str) -> list[JobInfo]:
        return [info async for info in home.changes(id)]

    corpus = uploaded(home, tunes)
    job = home.submit(Train(corpus=corpus, settings=TINY))
    home.drop_corpus(corpus)  # the job has what it needs
    return asyncio.run(follow(job.id))


# ------------------------------------------------------------------------------------------ corpora


def test_a_corpus_grows_and_goes(still: Jobs, tunes: list[bytes]) -> None:
    corpus, other = still.create_corpus(), still.create_corpus()
    assert (corpus.files, corpus.bytes) == (0, 0) and corpus.id != other.id
    first = still.add_file(corpus.id, "a.mid", tunes[0])
    assert (first.files, first.bytes) == (1, len(tunes[0])) and first.expires >= corpus.expires
    again = still.add_file(corpus.id, "a.mid", tunes[1])  # a name may come twice
    assert (
        (again.files, again.bytes)
        == (2, len(tunes[0]) + len(tunes[1]))
        == (
            still.corpus(corpus.id).files,
            still.corpus(corpus.id).bytes,
        )
    )
    assert still.corpus(other.id).files == 0
    still.drop_corpus(corpus.id)
    for gone in (still.corpus, still.drop_corpus, lambda id: still.add_file(id, "a.mid", b"")):
        with pytest.raises(KeyError):
            gone(corpus.id)
    assert [path.name for path in (still.folder / "corpora").iterdir()] == [other.id]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_kept_and_never_a_path(still: Jobs, name: str) -> None:
    before = {path for path in still.folder.parent.rglob("*")}
    corpus = still.create_corpus()
    assert still.add_file(corpus.id, name, b"MThd").files == 1
    new = {path for path in still.folder.parent.rglob("*")} - before
    assert {
        path.relative_to(still.folder / "corpora").as_posix() for path in new if "sqlite" not in path.name
    } == {
        corpus.id,
        f"{corpus.id}/000001.mid",
    }


@pytest.mark.parametrize("name", ["", ".", "..", "x", ".mid", "x.exe", "x.mid\0", "x.txt.gz", "x.npz"])
def test_what_is_not_read_is_not_taken(still: Jobs, name: str) -> None:
    corpus = still.create_corpus()
    with pytest.raises(SeqvaeError, match="does not end like a file to train on: .abc"):
        still.add_file(corpus.id, name, b"MThd")
    assert still.corpus(corpus.id).files == 0
    assert not list((still.folder / "corpora" / corpus.id).iterdir())


@pytest.mark.parametrize(
    "id", ["", "../jobs", "0" * 32, "x" * 32, "0" * 31 + "\n", "\0", "\ud800", "%", "a" * 99999]
)
def test_unknown_ids_are_told_as_such(still: Jobs, id: str) -> None:
    for ask in (still.corpus, still.get, still.cancel, still.drop, still.drop_corpus):
        with pytest.raises(KeyError):
            ask(id)
    with pytest.raises(KeyError):
        still.add_file(id, "a.mid", b"")
    assert still.model(id) is None and still.trained(f"job-{id}") is None and still.trained(id) is None


def test_corpora_have_limits(still: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_FILES", 2)
    monkeypatch.setattr(module, "LARGEST", 10)
    monkeypatch.setattr(module, "MOST_CORPORA", 2)
    corpus, other = still.create_corpus().id, still.create_corpus().id
    still.add_file(corpus, "a.txt", b"12345")
    with pytest.raises(SeqvaeError, match="holds at most"):
        still.add_file(corpus, "b.txt", b"123456")
    still.add_file(corpus, "b.txt", b"12345")
    still.add_file(other, "a.txt", b"")
    still.add_file(other, "a.txt", b"")
    with pytest.raises(SeqvaeError, match="holds at most"):
        still.add_file(other, "c.txt", b"")
    with pytest.raises(SeqvaeError, match="2 corpora are kept; delete one"):
        still.create_corpus()


# ------------------------------------------------------------------------------------------ the queue


def test_jobs_are_refused_that_would_fail(still: Jobs, tunes: list[bytes]) -> None:
    empty = still.create_corpus().id
    corpus = still.create_corpus().id
    still.add_file(corpus, "a.mid", tunes[0])
    thing = Thing(text="hello")
    refused: list[tuple[Train | Morph, str]] = [
        (Train(corpus=empty), "no such corpus, or it is empty"),
        (Train(corpus="0" * 32), "no such corpus, or it is empty"),
        (Train(corpus=corpus, recipe="../x"), "no recipe is called '../x'"),
        (Train(corpus=corpus, settings={"betta": 1}), "no setting is called 'betta'"),
        (Train(corpus=corpus, settings={"beta": "x"}), "beta cannot be 'x'"),
        (Train(corpus=corpus, settings={"steps": 0}), "steps must be greater than 0"),
        (Train(corpus=corpus, start="../../etc"), "there is no model '../../etc'"),
        (Train(corpus=corpus, start=str(find_model("melody"))), "there is no model"),  # no path is taken
        (Morph(model="job-" + "0" * 32, a=thing, b=thing), "there is no model 'job-0"),
    ]
    for job, why in refused:
        with pytest.raises(SeqvaeError, match=why):
            still.submit(job)
    with pytest.raises(ValidationError):
        Train(corpus="../../etc")
    assert still.all() == [] and not list((still.folder / "jobs").iterdir())


def test_only_so_many_wait(still: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 2)
    job = Morph(model="sentences", a=Thing(text="a"), b=Thing(text="b"))
    still.submit(job)
    second = still.submit(job)
    with pytest.raises(SeqvaeError, match="2 jobs wait already"):
        still.submit(job)
    still.cancel(second.id)
    still.submit(job)


def test_what_waits_outlives_a_restart_and_may_be_cancelled(tmp_path: Path) -> None:
    job = Morph(model="sentences", a=Thing(text="a"), b=Thing(text="b"))
    with pytest.raises(SeqvaeError, match="cannot be used"):
        (tmp_path / "file").touch()
        Jobs(tmp_path / "file", 3600)
    jobs = Jobs(tmp_path, 3600, slots=0)
    first, second = jobs.submit(job), jobs.submit(job)
    assert first.state == "queued" and jobs.get(first.id) == first
    with pytest.raises(SeqvaeError, match="another process is at work in"):
        Jobs(tmp_path, 3600)
    jobs.close()
    (tmp_path / "jobs" / "half-made").mkdir()
    (tmp_path / "corpora" / "half-deleted").mkdir()
    jobs = Jobs(tmp_path, 3600, slots=0)
    assert jobs.all() == [second, first]
    assert {path.name for path in (tmp_path / "jobs").iterdir()} == {first.id, second.id}
    assert not list((tmp_path / "corpora").iterdir())
    assert jobs.cancel(first.id).state == "cancelled" == jobs.cancel(first.id).state
    jobs.drop(second.id)
    assert [info.state for info in jobs.all()] == ["cancelled"]
    assert [path.name for path in (tmp_path / "jobs").iterdir()] == [first.id]
    jobs.close()


def test_what_has_expired_is_deleted_unless_it_waits(tmp_path: Path, tunes: list[bytes]) -> None:
    jobs = Jobs(tmp_path, 0.2, slots=0)
    corpus = jobs.create_corpus()
    job = Morph(model="sentences", a=Thing(text="a"), b=Thing(text="b"))
    waits, cancelled = jobs.submit(job), jobs.submit(job)
    jobs.cancel(cancelled.id)
    until(lambda: [path.name for path in (tmp_path / "jobs").iterdir()] == [waits.id])
    until(lambda: not list((tmp_path / "corpora").iterdir()))
    assert jobs.all() == [waits] and waits.expires < time.time()
    with pytest.raises(KeyError):
        jobs.corpus(corpus.id)
    jobs.close()


# ------------------------------------------------------------------------------------------ trainings


def test_a_training_is_told_as_it_goes(told: list[JobInfo]) -> None:
    states = [info.state for info in told]
    assert (
        states[0] in ("queued", "running")
        and states[-1] == "done"
        and set(states[:-1]) <= {"queued", "running"}
    )
    last = told[-1]
    assert (last.step, last.steps, last.error, last.model) == (60, 60, "", f"job-{last.id}")
    assert [row["step"] for row in last.history] == [20, 40, 60] and last.figures == last.history[-1]
    assert {"nll", "kl", "mi", "active_units", "loss"} <= last.figures.keys()
    for one, other in zip(told, told[1:], strict=False):
        assert one != other and one.history == other.history[: len(one.history)]


def test_what_a_training_made_can_be_had(home: Jobs, told: list[JobInfo]) -> None:
    id, names = told[-1].id, told[-1].files
    assert {
        "metrics.csv",
        "model.safetensors",
        "config.json",
        "rejects.csv",
        "step-000020-sample-1.mid",
    } <= set(names)
    assert all("/" not in name and home.file(id, name).is_file() for name in names)
    assert files.read(home.file(id, "step-000060-interpolation.mid")).parts[0].notes
    with open(home.file(id, "metrics.csv")) as file:
        assert [float(row["nll"]) for row in csv.DictReader(file)] == [row["nll"] for row in told[-1].history]
    with open(home.file(id, "rejects.csv")) as file:
        left_out = {row["name"]: row["reason"] for row in csv.DictReader(file)}
    assert left_out.keys() == {"../broken.mid", "no tune.abc"} and "000025" not in str(left_out)
    assert told[-1].message.startswith("2 of the things uploaded could not be used; rejects.csv says why; ")
    for name in (
        "job.json",
        "log",
        "../job.json",
        "../../jobs.sqlite",
        "",
        "upload",
        "run/metrics.csv",
        "\0",
    ):
        with pytest.raises(KeyError):
            home.file(id, name)


def test_the_model_of_a_training_can_be_used_and_trained_on(
    home: Jobs, told: list[JobInfo], tunes: list[bytes]
) -> None:
    run = home.trained(f"job-{told[-1].id}")
    assert run is not None and run == home.model(told[-1].id)
    assert len(Pipeline.from_pretrained(run).sample(2)) == 2
    corpus = uploaded(home, tunes)
    job = home.submit(Train(corpus=corpus, settings={"steps": 20, "rise": 10}, start=f"job-{told[-1].id}"))
    more = over(home, job.id)
    assert (more.state, more.error, more.step) == ("done", "", 20)
    # Eighty steps in all know more than sixty; those of an unlearnt model are tens of nats away.
    assert more.history[0]["loss"] < told[-1].history[0]["loss"]


SERVER = """
import sys, time
from pathlib import Path
from seqvae.service.jobs import Jobs
jobs = Jobs(Path(sys.argv[1]), 3600)
while not jobs.children:
    time.sleep(0.05)
print(*[child.pid for child in jobs.children.values()], flush=True)
sys.stdin.read()
"""


def test_a_server_killed_and_one_stopped_cost_not_a_byte(
    tmp_path: Path, home: Jobs, told: list[JobInfo], tunes: list[bytes]
) -> None:
    jobs = Jobs(tmp_path, 3600, slots=0)
    id = jobs.submit(Train(corpus=uploaded(jobs, tunes), settings=TINY)).id
    jobs.close()
    run = tmp_path / "jobs" / id / "run"
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", SERVER, str(tmp_path)]
    given: Any = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "env": os.environ | {"PYTHONPATH": paths},
    }
    with subprocess.Popen(command, text=True, **given) as server:
        assert server.stdout is not None
        child = int(server.stdout.readline())
        until((run / "metrics.csv").exists)  # the first evaluation: a third of the way
        os.kill(child, signal.SIGSTOP)  # so that it notices late that it is alone
        server.send_signal(signal.SIGKILL)

    jobs = Jobs(tmp_path, 3600)
    lock = tmp_path / "jobs" / id / "lock"
    until(lambda: id in jobs.children and holds_open(jobs.children[id].pid, lock))
    assert not gone(child) and len(jobs.get(id).history) <= 1  # the next one waits for it
    os.kill(child, signal.SIGCONT)
    until(lambda: gone(child))
    until(lambda: len(jobs.get(id).history) == 2)
    stopped = jobs.children[id]
    jobs.close()
    assert stopped.returncode is not None
    jobs = Jobs(tmp_path, 3600, slots=0)
    assert jobs.get(id).state == "queued"
    jobs.close()

    jobs = Jobs(tmp_path, 3600)
    last = over(jobs, id)
    jobs.close()
    assert (last.state, last.error) == ("done", "")
    assert last.history == told[-1].history and last.files == told[-1].files
    undisturbed = home.model(told[-1].id)
    assert undisturbed is not None
    for name in ("best/model.safetensors", "last.safetensors", "metrics.csv"):
        assert (run / name).read_bytes() == (undisturbed / name).read_bytes(), name


def test_what_runs_can_be_cancelled_and_a_killed_child_is_told(tmp_path: Path, tunes: list[bytes]) -> None:
    jobs = Jobs(tmp_path, 3600)
    corpus = uploaded(jobs, tunes)
    first, second = (jobs.submit(Train(corpus=corpus, settings=ENDLESS)).id for _ in range(2))
    until(lambda: jobs.get(first).history)
    running = jobs.get(first)
    assert (running.state, running.model) == ("running", f"job-{first}")
    assert jobs.get(second).state == "queued"
    assert running.history[0]["step"] == 20
    child = jobs.children[first]
    assert jobs.cancel(first).state == "cancelled"
    assert child.wait() == -signal.SIGKILL
    assert jobs.get(first).state == "cancelled" and "metrics.csv" in jobs.get(first).files

    until(lambda: jobs.get(second).state == "running")
    os.kill(jobs.children[second].pid, signal.SIGKILL)
    crashed = over(jobs, second)
    assert (crashed.state, crashed.error) == (
        "failed",
        "its process ended with status -9, perhaps for lack of memory",
    )

    third = jobs.submit(Train(corpus=corpus, settings=ENDLESS)).id
    until(lambda: jobs.get(third).state == "running")
    child = jobs.children[third]
    jobs.drop(third)
    assert child.returncode is not None and not (tmp_path / "jobs" / third).exists()
    with pytest.raises(KeyError):
        jobs.get(third)
    jobs.close()


def test_a_training_that_fails_says_why_in_a_sentence(home: Jobs) -> None:
    corpus = home.create_corpus().id
    home.add_file(corpus, "a.mid", b"MThd")
    home.add_file(corpus, "b.abc", b"hello")
    failed = over(home, home.submit(Train(corpus=corpus)).id)
    assert failed.state == "failed" and failed.model is None
    assert failed.error.startswith("no tune in upload can be used, for instance because: ")
    assert "\n" not in failed.error and str(home.folder) not in failed.error


def drawn(size: int) -> bytes:
    held = io.BytesIO()
    grid = np.random.default_rng(size).integers(0, 256, (size, size, 3), np.uint8)
    Image.fromarray(grid).save(held, "PNG")
    return held.getvalue()


@pytest.mark.parametrize("kind", ["text", "image"])
def test_texts_and_pictures_are_trained_on_too(tmp_path: Path, kind: str) -> None:
    (tmp_path / "upload").mkdir()
    said: list[dict[str, Any]] = []
    settings: dict[str, str | int | float | bool] = {
        "steps": 2,
        "rise": 1,
        "evaluate_every": 2,
        "batch_size": 8,
    }
    if kind == "text":
        shutil.copy(ROOT / "data" / "sentences.txt", tmp_path / "upload" / "000001.txt")
        settings |= {"embedding": 16, "encoder": 16, "decoder": 24, "head": 16, "latent": 4}
    else:
        for i in range(40):
            (tmp_path / "upload" / f"{i:06}.png").write_bytes(drawn(100 + i))
        settings |= {"widths": "4,8", "head": 16, "latent": 4}
    learn(Train(corpus="0" * 32, settings=settings), tmp_path, None, {}, lambda **told: said.append(told))
    assert Pipeline.from_pretrained(tmp_path / "run").codec.kind == kind
    assert [told["row"]["step"] for told in said if "row" in told] == [2]
    if kind == "image":
        assert Corpus.open(tmp_path / "corpus").report.frame == "32 x 32 colour"
        assert "so each became 32 pixels wide" in str(said)


def test_one_at_a_time_works_in_a_folder(tmp_path: Path) -> None:
    with exclusive(tmp_path / "lock"):
        with (
            pytest.raises(SeqvaeError, match="another process is at work"),
            exclusive(tmp_path / "lock", 0.1),
        ):
            pass
    with exclusive(tmp_path / "lock"):
        pass


# ------------------------------------------------------------------------------------------ morphs


def test_a_morph_is_what_python_gives(home: Jobs) -> None:
    paths = [ROOT / "data" / f"{name}.mid" for name in ("heron_weather", "tin_shed_shuffle")]
    a = Thing(file=b64encode(paths[0].read_bytes()))
    b = Thing(song=SongBody.of(files.read(paths[1])))
    job = home.submit(Morph(a=a, b=b, steps=3, formats=["mid", "png", "wav", "musicxml"]))
    info = over(home, job.id)
    assert (info.state, info.error, info.step, info.steps, info.model) == ("done", "", 4, 4, None)
    stems = ["01-of-03", "02-of-03", "03-of-03", "journey"]
    made = {f"{stem}.{form}" for stem in stems for form in ("mid", "png", "wav", "musicxml")}
    assert set(info.files) - {"notices.txt"} == made
    found = Pipeline.from_pretrained("melody").interpolate(*paths, 3)
    for stem, song in zip(stems, [*found.songs, found.journey], strict=True):
        files.write(song, home.folder / "expected.mid")
        assert home.file(job.id, f"{stem}.mid").read_bytes() == (home.folder / "expected.mid").read_bytes()


@pytest.mark.parametrize("name", ["sentences", "avatars"])
def test_texts_and_pictures_are_morphed_too(tmp_path: Path, name: str) -> None:
    model = Pipeline.from_pretrained(name)
    if name == "sentences":
        ends, given = ["the dog ran", "she sang a song"], ["the dog ran", "she sang a song"]
        a, b = (Thing(text=end) for end in given)
    else:
        ends = model.sample(2)
        for i, end in enumerate(ends):
            gallery.write_picture(end, tmp_path / f"{i}.png")
        a, b = (Thing(file=b64encode((tmp_path / f"{i}.png").read_bytes())) for i in range(2))
    morph(Morph(model=name, a=a, b=b, steps=4), tmp_path, models()[name], lambda **told: None)
    expected = model.interpolate(*ends, 4)
    if name == "sentences":
        assert (tmp_path / "files" / "path.txt").read_text().splitlines() == expected
    else:
        made = [pictures.load(path) for path in sorted((tmp_path / "files").iterdir())]
        assert all(map(np.array_equal, made, expected)) and len(made) == 4


def test_a_morph_of_what_is_no_song_fails_in_a_sentence(tmp_path: Path) -> None:
    job = Morph(a=Thing(text="a"), b=Thing(text="b"))
    with pytest.raises(SeqvaeError, match="^a model of melodies takes a song, a file or z, not text$"):
        morph(job, tmp_path, models()["melody"], lambda **told: None)
