"""Uploaded corpora and long work on disk: SQLite says what there is, child processes do it, oldest first.

Conventions: a folder holds jobs.sqlite, corpora/ID/ and jobs/ID/, and belongs to one `Jobs` at a time. Ids
are drawn here; names that somebody gave stay in the database and never become paths. Unknown ids and names
are a KeyError. What runs when its server dies is queued again by the next, and goes on where it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from seqvae import engine, pictures, texts
from seqvae.recipes import DEFAULTS, RECIPES, override
from seqvae.service.schemas import CorpusInfo, JobInfo, Morph, Train
from seqvae.song import SeqvaeError
from seqvae.sources import MUSIC, kind

READ = MUSIC | texts.PLAIN | pictures.SUFFIXES  # without .gz, which may hold a thousand times its size
MOST_FILES, LARGEST = 10_000, 256 << 20  # files and bytes of a corpus
MOST_CORPORA, MOST_WAITING = 64, 64
LONGEST_NAME = 200  # characters that are kept
TICK = 0.2  # seconds between looks for changes
HOUSEKEEPING = 60.0  # seconds between looks for what has expired
FAREWELL = 10.0  # seconds that a child has to end by itself
FINAL = ("done", "failed", "cancelled")
# Not by -m: processes that the child starts would then import again all that it does.
CHILD = "import sys; from seqvae.service.work import main; sys.exit(main(sys.argv[1]))"
SCHEMA = """
CREATE TABLE IF NOT EXISTS corpora (id TEXT PRIMARY KEY, expires REAL NOT NULL);
CREATE TABLE IF NOT EXISTS uploads (
    corpus TEXT NOT NULL REFERENCES corpora ON DELETE CASCADE, number INTEGER NOT NULL,
    suffix TEXT NOT NULL, name TEXT NOT NULL, bytes INTEGER NOT NULL, PRIMARY KEY (corpus, number)
);
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, state TEXT NOT NULL,
    expires REAL NOT NULL, info TEXT NOT NULL
);
"""


class Jobs:
    """Corpora and jobs of a folder, kept for `retention` seconds; `slots` children work at a time."""

    def __init__(
        self, folder: Path, retention: float, slots: int = 1, models: Mapping[str, Path] | None = None
    ) -> None:
        """models: those that jobs may begin from, by name, beside other jobs' (default: all embedded).

        Raises SeqvaeError where the folder cannot be written or another process works in it.
        """
        self.folder, self.retention = Path(folder).absolute(), retention
        self.models = engine.models() if models is None else models
        self.lock, self.wake, self.closed = threading.RLock(), threading.Event(), threading.Event()
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.versions: Counter[str] = Counter()  # of each job's info
        self.held = contextlib.ExitStack()
        try:
            for name in ("corpora", "jobs"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            self.held.enter_context(exclusive(self.folder / "lock"))
            self.data = sqlite3.connect(
                self.folder / "jobs.sqlite", isolation_level=None, check_same_thread=False
            )
            for line in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
                self.data.execute(f"PRAGMA {line}")
            self.data.executescript(SCHEMA)
        except (OSError, sqlite3.Error) as fault:
            self.held.close()
            raise SeqvaeError(f"the data folder {folder} cannot be used: {fault}") from None
        self._tidy()
        self.threads = [threading.Thread(target=self._run, daemon=True) for _ in range(slots)]
        self.threads.append(threading.Thread(target=self._keep_house, daemon=True))
        for thread in self.threads:
            thread.start()

    def close(self) -> None:
        """What runs is stopped, to go on with the next `Jobs` of the folder."""
        with self.lock:
            self.closed.set()
            self.wake.set()
            children = list(self.children.values())
        for child in children:
            _dismiss(child)
        for thread in self.threads:
            thread.join()
        self.data.close()
        self.held.close()

    # -- corpora

    def create_corpus(self) -> CorpusInfo:
        """An empty one. Raises SeqvaeError where there are too many."""
        with self.lock:
            self._fewer("SELECT count(*) FROM corpora", MOST_CORPORA, "corpora are kept", "delete one")
            id = secrets.token_hex(16)
            (self.folder / "corpora" / id).mkdir()
            self.data.execute("INSERT INTO corpora VALUES (?, ?)", (id, time.time() + self.retention))
            return self.corpus(id)

    def add_file(self, id: str, name: str, data: bytes) -> CorpusInfo:
        """Raises SeqvaeError for a name without an ending that is read, and past the corpus's limits."""
        suffix = texts.suffix(name)
        if suffix not in READ:
            shown = f'"{name[-40:]}"' if name[-40:].isprintable() else "this"
            raise SeqvaeError(f"{shown} does not end like a file to train on: {' '.join(sorted(READ))}")
        self.corpus(id)
        folder = self.folder / "corpora" / id
        held = folder / f".{secrets.token_hex(8)}"
        try:
            held.write_bytes(data)  # while nobody waits
            with self.lock:
                before = self.corpus(id)
                if before.files >= MOST_FILES or before.bytes + len(data) > LARGEST:
                    most = f"{MOST_FILES} files and {LARGEST >> 20} MB"
                    raise SeqvaeError(f"a corpus holds at most {most}, so make another")
                found = self.data.execute(
                    "SELECT max(number) FROM uploads WHERE corpus = ?", (id,)
                ).fetchone()
                number = (found[0] or 0) + 1
                os.replace(held, folder / f"{number:06}{suffix}")
                kept = name[-LONGEST_NAME:].encode(errors="replace").decode()
                row = (id, number, suffix, kept, len(data))
                self.data.execute("INSERT INTO uploads VALUES (?, ?, ?, ?, ?)", row)
                expires = time.time() + self.retention
                self.data.execute("UPDATE corpora SET expires = ? WHERE id = ?", (expires, id))
                return self.corpus(id)
        except FileNotFoundError:  # dropped meanwhile
            raise KeyError(id) from None
        except OSError as fault:
            raise SeqvaeError(f"the file cannot be kept: {fault.strerror}") from None
        finally:
            held.unlink(missing_ok=True)

    def corpus(self, id: str) -> CorpusInfo:
        query = """SELECT c.id, count(u.number), coalesce(sum(u.bytes), 0), c.expires
            FROM corpora c LEFT JOIN uploads u ON u.corpus = c.id WHERE c.id = ? GROUP BY c.id"""
        found, size, count, expires = self._one(query, id)
        return CorpusInfo(id=found, files=size, bytes=count, expires=expires)

    def drop_corpus(self, id: str) -> None:
        """Jobs that were submitted have what they need of it."""
        self.corpus(id)
        with self.lock:
            self.data.execute("DELETE FROM corpora WHERE id = ?", (id,))
        shutil.rmtree(self.folder / "corpora" / id, ignore_errors=True)

    # -- jobs

    def submit(self, job: Train | Morph) -> JobInfo:
        """Queued. Raises SeqvaeError where it is known now that it would fail, and where too many wait."""
        id, now = secrets.token_hex(16), time.time()
        wanted = job.start if isinstance(job, Train) else job.model
        told: dict[str, Any] = {"job": job.model_dump(mode="json")}
        told["model"] = None if wanted is None else str(self._named(wanted))
        folder = self.folder / "jobs" / id
        info = JobInfo(id=id, kind=job.kind, state="queued", created=now, expires=now + self.retention)
        try:
            folder.mkdir()
            if isinstance(job, Train):
                told["names"] = self._bring(job.corpus, folder / "upload")
                recipe = job.recipe or DEFAULTS[kind(folder / "upload")]
                if recipe not in RECIPES:
                    raise SeqvaeError(f"no recipe is called {recipe!r}; there are {', '.join(RECIPES)}")
                override(RECIPES[recipe], as_words(job.settings))
            (folder / "job.json").write_text(json.dumps(told), encoding="utf-8")
            with self.lock:
                waiting = "SELECT count(*) FROM jobs WHERE state = 'queued'"
                self._fewer(waiting, MOST_WAITING, "jobs wait already", "cancel one or try later")
                row = (id, info.state, info.expires, info.model_dump_json())
                self.data.execute("INSERT INTO jobs (id, state, expires, info) VALUES (?, ?, ?, ?)", row)
        except OSError as fault:
            shutil.rmtree(folder, ignore_errors=True)
            raise SeqvaeError(f"the job's files cannot be kept: {fault.strerror}") from None
        except SeqvaeError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self.wake.set()
        return info

    def all(self) -> list[JobInfo]:
        """The newest first."""
        with self.lock:
            rows = self.data.execute("SELECT info FROM jobs ORDER BY number DESC").fetchall()
        return [JobInfo.model_validate_json(row[0]) for row in rows]

    def get(self, id: str) -> JobInfo:
        return JobInfo.model_validate_json(self._one("SELECT info FROM jobs WHERE id = ?", id)[0])

    def cancel(self, id: str) -> JobInfo:
        """What is over stays as it is."""
        with self.lock:
            info = self.get(id)
            if info.state not in FINAL:
                self._finish(info, "cancelled")
                if id in self.children:
                    _kill(self.children[id])
            return info

    def drop(self, id: str) -> None:
        """With its files, and cancelled if it runs."""
        with self.lock:
            self.cancel(id)
            child = self.children.get(id)
            self.data.execute("DELETE FROM jobs WHERE id = ?", (id,))
            self.versions[id] += 1
        if child is not None:
            child.wait()
        shutil.rmtree(self.folder / "jobs" / id, ignore_errors=True)

    def file(self, id: str, name: str) -> Path:
        if name not in self.get(id).files:
            raise KeyError(name)
        return listing(self.folder / "jobs" / id)[name]

    def model(self, id: str) -> Path | None:
        """The run folder of a training that has a best model by now."""
        with contextlib.suppress(KeyError):
            run = self.folder / "jobs" / self.get(id).id / "run"
            if (run / "best" / "config.json").is_file():
                return run
        return None

    def trained(self, name: str) -> Path | None:
        """The run folder of the model that is called job-ID."""
        return self.model(name[4:]) if name.startswith("job-") else None

    async def changes(self, id: str, leaving: Callable[[], bool] = lambda: False) -> AsyncIterator[JobInfo]:
        """The job at once and whenever it has changed, until it is over or dropped, or we are leaving."""
        seen, info = self.versions[id], self.get(id)
        yield info
        while True:
            if self.versions[id] != seen:
                seen, before = self.versions[id], info
                try:
                    info = self.get(id)
                except KeyError:
                    return
                if info != before:
                    yield info
            if info.state in FINAL or self.closed.is_set() or leaving():
                return
            await asyncio.sleep(TICK)

    # -- within

    def _one(self, query: str, id: str) -> Any:
        with self.lock:
            row = self.data.execute(query, (id,)).fetchone() if re.fullmatch("[0-9a-f]{32}", id) else None
        if row is None:
            raise KeyError(id)
        return row

    def _fewer(self, query: str, most: int, what: str, remedy: str) -> None:
        if self.data.execute(query).fetchone()[0] >= most:
            raise SeqvaeError(f"{most} {what}; {remedy}")

    def _named(self, name: str) -> Path:
        """A model's folder; names are looked up, as they may be anything."""
        found = self.models.get(name) or self.trained(name)
        if found is None:
            raise SeqvaeError(f"there is no model {name!r}; there are {', '.join(self.models)}")
        return found

    def _bring(self, corpus: str, out: Path) -> dict[str, str]:
        """The corpus's files in a folder of the job's own; returns what they were called."""
        query = "SELECT number, suffix, name FROM uploads WHERE corpus = ? ORDER BY number"
        with self.lock:
            rows = self.data.execute(query, (corpus,)).fetchall()
        names = {f"{number:06}{suffix}": name for number, suffix, name in rows}
        if not names:
            raise SeqvaeError("there is no such corpus, or it is empty; upload files first")
        out.mkdir()
        for name in names:
            kept = self.folder / "corpora" / corpus / name
            try:
                os.link(kept, out / name)
            except OSError:  # no file system for links
                shutil.copy2(kept, out / name)
        return names

    def _store(self, info: JobInfo) -> None:
        row = (info.state, info.expires, info.model_dump_json(), info.id)
        self.data.execute("UPDATE jobs SET state = ?, expires = ?, info = ? WHERE id = ?", row)
        self.versions[info.id] += 1

    def _finish(self, info: JobInfo, state: Any, error: str = "") -> None:
        info.state, info.error, info.expires = state, error, time.time() + self.retention
        self._look(info)
        self._store(info)

    def _look(self, info: JobInfo) -> None:
        """What its folder holds by now."""
        info.files = list(listing(self.folder / "jobs" / info.id))
        info.model = f"job-{info.id}" if self.model(info.id) else None

    def _tidy(self) -> None:
        """Queues again what a dead server ran, and deletes what it left half made or half deleted."""
        for info in self.all():
            if info.state == "running":
                info.state = "queued"
                self._store(info)
        for name in ("corpora", "jobs"):
            known = {id for (id,) in self.data.execute(f"SELECT id FROM {name}")}
            for path in (self.folder / name).iterdir():
                if path.name not in known:
                    shutil.rmtree(path, ignore_errors=True)

    def _keep_house(self) -> None:
        while not self.closed.wait(min(HOUSEKEEPING, self.retention)):
            with self.lock:
                over = "SELECT id FROM jobs WHERE expires < ? AND state IN ('done', 'failed', 'cancelled')"
                jobs = self.data.execute(over, (time.time(),)).fetchall()
                old = "SELECT id FROM corpora WHERE expires < ?"
                corpora = self.data.execute(old, (time.time(),)).fetchall()
            for (id,) in jobs:
                with contextlib.suppress(KeyError):  # somebody was faster
                    self.drop(id)
            for (id,) in corpora:
                with contextlib.suppress(KeyError):
                    self.drop_corpus(id)

    def _run(self) -> None:
        """The life of a slot."""
        while True:
            self.wake.clear()
            if self.closed.is_set():
                return
            started = self._start()
            if started is None:
                self.wake.wait(HOUSEKEEPING)
            else:
                self._attend(*started)

    def _start(self) -> tuple[str, subprocess.Popen[bytes]] | None:
        """The oldest job that waits, and the child that does it from now on."""
        with self.lock:
            row = self.data.execute("SELECT info FROM jobs WHERE state = 'queued' ORDER BY number").fetchone()
            if row is None or self.closed.is_set():
                return None
            info = JobInfo.model_validate_json(row[0])
            folder = self.folder / "jobs" / info.id
            with open(folder / "log", "ab") as log:
                child = subprocess.Popen(
                    [sys.executable, "-c", CHILD, folder],
                    stdin=subprocess.PIPE,  # which ends with this process
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,
                )
            self.children[info.id] = child
            info.state = "running"
            self._store(info)
            return info.id, child

    def _attend(self, id: str, child: subprocess.Popen[bytes]) -> None:
        """Writes down what the child says until it ends, and how."""
        error, pipe = "", child.stdout
        assert pipe is not None
        for line in pipe:
            with contextlib.suppress(ValueError):  # it was killed within a line
                told = json.loads(line)
                error = told.pop("error", error)
                self._hear(id, told)
        code = child.wait()
        pipe.close()
        if child.stdin is not None:
            child.stdin.close()
        with self.lock:
            del self.children[id]
            with contextlib.suppress(KeyError):
                info = self.get(id)
                if info.state == "running" and self.closed.is_set():
                    info.state = "queued"
                    self._store(info)
                elif info.state == "running":
                    gone = (
                        ""
                        if code == 0
                        else f"its process ended with status {code}, perhaps for lack of memory"
                    )
                    self._finish(info, "failed" if error or code else "done", error or gone)

    def _hear(self, id: str, told: dict[str, Any]) -> None:
        with self.lock, contextlib.suppress(KeyError):
            info = self.get(id)
            if info.state != "running":
                return
            info.step, info.steps = told.get("step", info.step), told.get("steps", info.steps)
            info.message = told.get("message") or info.message
            if row := told.get("row"):  # after a restart one may come again
                info.history = [old for old in info.history if old["step"] < row["step"]] + [row]
                info.figures = row
                self._look(info)
            self._store(info)


def listing(folder: Path) -> dict[str, Path]:
    """What can be had of a job's folder, by names without slashes: results, samples, the best model."""
    run = folder / "run"
    found = {path.name: path for path in sorted(folder.glob("files/[!.]*"))}
    found |= {f"{path.parent.name}-{path.name}": path for path in sorted(run.glob("samples/step-*/[!.]*"))}
    others = (run / "metrics.csv", run / "best" / "model.safetensors", run / "best" / "config.json")
    return found | {path.name: path for path in others if path.is_file()}


def as_words(settings: dict[str, str | int | float | bool]) -> dict[str, str]:
    """Settings as `recipes.override` takes them."""
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in settings.items()
    }


@contextlib.contextmanager
def exclusive(path: Path, patience: float = 0.0) -> Iterator[None]:
    """Holds a lock that dies with its process; SeqvaeError where another has it for so many seconds."""
    # SQLite's, as it is one on every system.
    lock = sqlite3.connect(path, timeout=patience, isolation_level=None, check_same_thread=False)
    try:
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            raise SeqvaeError(f"another process is at work in {path.parent}; end it first") from None
        yield
    finally:
        lock.close()


def _dismiss(child: subprocess.Popen[bytes]) -> None:
    """The end of its input ends it, or else a kill."""
    with contextlib.suppress(OSError):
        if child.stdin is not None:
            child.stdin.close()
    try:
        child.wait(FAREWELL)
    except subprocess.TimeoutExpired:
        _kill(child)


def _kill(child: subprocess.Popen[bytes]) -> None:
    """With the processes that it started."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    else:
        child.kill()
