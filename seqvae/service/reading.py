"""Uploads parsed in worker processes that may crash, hang or eat memory without the server.

Conventions: the content of a file says what it is, never a name. A worker lives in a process group and a
temporary folder of its own, so that nothing of it is left when it is killed, and does not outlive its parent.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import shutil
import signal
import tempfile
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from seqvae import files, pictures
from seqvae.pictures import AS_IT_IS, Framing
from seqvae.service.batcher import resting
from seqvae.song import Note, Part, SeqvaeError, Song

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

MEMORY = 4 << 30  # bytes that a worker may address, where that can be limited
PATIENCE = 120.0  # seconds for a worker to start on a busy machine
TINY = Song((Part((Note(0, 1, 60),)),))


class Reader:
    """Workers that read one file each at a time, for callers in any thread; `close` it.

    A file that takes longer than `seconds`, or kills its worker, is lost alone: another worker takes the
    place. A caller who waits longer than that for a free worker gets a TimeoutError.
    """

    def __init__(self, workers: int = 1, seconds: float = 20.0) -> None:
        self.seconds, self.closed = seconds, False
        self.lock = threading.Lock()
        self.workers = [_Worker() for _ in range(workers)]
        self.idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for worker in self.workers:
            self.idle.put(worker)

    def song(self, data: bytes) -> Song:
        """The song in the bytes of a MIDI, ABC, MusicXML or kern file; SeqvaeError where there is none."""
        song: Song = self._read(data, None)
        return song

    def picture(self, data: bytes, framing: Framing = AS_IT_IS) -> np.ndarray:
        """The image (H, W, C) in the bytes of a PNG or JPEG file; SeqvaeError where there is none."""
        image: np.ndarray = self._read(data, framing)
        return image

    def close(self) -> None:
        """Files at work are refused."""
        with self.lock:
            self.closed = True
            for worker in self.workers:
                worker.kill()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *fault: object) -> None:
        self.close()

    @resting()
    def _read(self, data: bytes, framing: Framing | None) -> Any:
        try:
            worker = self.idle.get(timeout=self.seconds)
        except queue.Empty:
            raise TimeoutError("all readers of files are busy; try again later") from None
        alive = False
        try:
            if not worker.process.is_alive():  # killed from without, for which no file need suffer
                worker = self._replaced(worker)
            found = worker.ask(data, framing, self.seconds)
            alive = True
        finally:
            self.idle.put(worker if alive else self._replaced(worker))
        if isinstance(found, str):
            raise SeqvaeError(found)
        return found

    def _replaced(self, worker: _Worker) -> _Worker:
        worker.kill()
        with self.lock:
            if not self.closed:
                self.workers.remove(worker)
                worker = _Worker()
                self.workers.append(worker)
        return worker


class _Worker:
    """A process, the line to it, and its folder."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="seqvae-reader-", ignore_cleanup_errors=True)
        context = multiprocessing.get_context("spawn")
        self.line, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, self.folder.name), daemon=True)
        self.process.start()
        theirs.close()  # so that the line ends where the process does
        self.ready = False

    def ask(self, data: bytes, framing: Framing | None, seconds: float) -> Any:
        """What is in the file, or a sentence that says why not; SeqvaeError when that killed the worker."""
        if not self.ready:
            self._answer(PATIENCE, "the process that reads files does not start; try again later")
            self.ready = True
        try:
            self.line.send((data, framing))
        except OSError:
            raise SeqvaeError("the process that reads files was killed; try again") from None
        return self._answer(seconds, "the file crashed its reader or keeps it too long, so export it again")

    def _answer(self, seconds: float, otherwise: str) -> Any:
        with contextlib.suppress(EOFError, OSError):
            if self.line.poll(seconds):
                return self.line.recv()
        raise SeqvaeError(otherwise)

    def kill(self) -> None:
        """With its children and its files."""
        if self.process.pid is not None and self.process.is_alive():
            _kill_group(self.process.pid)
            self.process.kill()
        self.process.join()
        self.folder.cleanup()


def _kill_group(leader: int) -> None:
    """Its children are programs that files.py starts, and may hang too."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):  # it had no time yet to begin a group
            os.killpg(leader, signal.SIGKILL)


def _work(line: Connection, folder: str) -> None:
    """The life of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setsid"):
        os.setsid()
    threading.Thread(target=_follow, args=(folder,), daemon=True).start()
    tempfile.tempdir = folder
    upload = Path(folder, "upload")
    files.write(TINY, upload.with_suffix(".musicxml"))  # the first time takes half a second
    if resource is not None:
        for what, most in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CORE, 0)):
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(what, (most, most))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):  # where readers say what nobody asked
        os.dup2(nowhere, stream)
    line.send(None)
    while True:
        try:
            data, framing = line.recv()
        except (EOFError, OSError):
            _end(folder)
        upload.write_bytes(data)
        line.send(_found(upload, framing))


def _found(upload: Path, framing: Framing | None) -> Any:
    """Of faults a sentence, but for a lack of memory, of which a worker had better die."""
    try:
        return files.read(upload) if framing is None else pictures.load(upload, framing)
    except SeqvaeError as fault:
        return str(fault).replace(str(upload), "the file")
    except MemoryError:
        raise
    except Exception as fault:  # readers fail in every way there is
        return f"the file made its reader fail with {type(fault).__name__}, so export it again"


def _follow(folder: str) -> None:
    """Ends the worker with its parent, even where that is killed and a file at work."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    _end(folder)


def _end(folder: str) -> NoReturn:
    """With children and files."""
    shutil.rmtree(folder, ignore_errors=True)
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
