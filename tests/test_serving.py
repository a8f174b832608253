"""cli/serving.py and service/server.py: what `seqvae serve` refuses, says, and how it ends; `seqvae key`."""

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import done, refused, run

from seqvae.client import AsyncClient, Client, Refused, Step, thing_of
from seqvae.service.guard import hashed
from seqvae.service.schemas import Generate, JobInfo, Made, Morph
from seqvae.song import SeqvaeError

PATIENCE = 120.0  # seconds for a server to be ready, on a busy machine


class Served:
    """A running `seqvae serve`."""

    def __init__(self, process: subprocess.Popen[str], said: Path) -> None:
        self.process, self.said = process, said
        assert process.stdout is not None
        self.url = process.stdout.readline().strip()
        assert self.url, said.read_text()

    def ready(self, key: str | None = None) -> None:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and self.process.poll() is None:
            with Client(self.url, key) as client:
                with contextlib.suppress(SeqvaeError):
                    client.models()
                    return
            time.sleep(0.1)
        raise AssertionError(self.said.read_text())

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def log(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.said.read_text().splitlines()]


@contextlib.contextmanager
def served(folder: Path, *words: object) -> Iterator[Served]:
    """`seqvae serve` with these words, on a free port unless they name one, gone afterwards."""
    command = [sys.executable, "-m", "seqvae", "serve", "--port", "0", *map(str, words)]
    said = folder / "stderr.txt"
    with said.open("w") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        yield Served(process, said)
    finally:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
        process.kill()
        process.communicate()


def test_requests_at_work_finish_when_the_server_is_told_to_end(tmp_path: Path) -> None:
    with served(tmp_path, "--model", "melody", "--data", tmp_path / "new" / "data", "--slots", 8) as server:
        assert server.url.startswith("http://127.0.0.1:")
        server.ready()
        with Client(server.url) as client:
            stream = client.stream("generate", "melody", Generate(n=32, bars=8))
            assert isinstance(next(stream), Step)
            server.process.send_signal(signal.SIGTERM)
            *steps, made = stream
            assert isinstance(made, Made) and len(made.things) == 32 and len(steps) > 32
        assert server.process.wait(PATIENCE) == 0
        with pytest.raises(SeqvaeError, match="does not answer"), Client(server.url) as client:
            client.models()
        assert server.process.stdout is not None and server.process.stdout.read() == ""  # the address alone
        routes = [line["route"] for line in server.log() if line["event"] == "request"]
        assert "/v1/models/{model}/generate" in routes
        assert (tmp_path / "new" / "data").is_dir()


def test_a_job_is_waited_for_over_a_kill_and_a_restart(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ("--model", "digits", "--data", tmp_path / "data", "--port", port)

    async def awaited(url: str, job: str) -> JobInfo:
        async with AsyncClient(url) as client:
            return await client.wait(job, PATIENCE)

    with ThreadPoolExecutor(2) as pool:
        with served(tmp_path, *words) as server, Client(server.url) as client:
            server.ready()
            ends = client.generate("digits", Generate(n=2)).things
            morph = Morph(model="digits", a=thing_of(ends[0]), b=thing_of(ends[1]), steps=64)
            job = client.submit(morph).id
            waiting = pool.submit(Client(server.url).wait, job, PATIENCE)
            awaiting = pool.submit(lambda: asyncio.run(awaited(server.url, job)))
            assert server.stop(signal.SIGKILL) == -signal.SIGKILL
        with served(tmp_path, *words):
            info = waiting.result(PATIENCE)
            assert info == awaiting.result(PATIENCE)
            assert info.state == "done" and len(info.files) == 64, info.error


def test_keys_open_a_server_to_the_outside_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    key, line = (part.partition(": ")[2] for part in done("key").splitlines())
    file = tmp_path / "keys"
    file.write_text(f"# of the house\n\n{line.upper()}  # the studio's\n")
    options = ("--host", "0.0.0.0", "--keys", file, "--rate", 1, "--origin", "https://studio.example")
    with served(tmp_path, "--model", "digits", "--no-batching", *options) as server:
        here = Client(server.url.replace("0.0.0.0", "127.0.0.1"))
        for wrong in (None, "another"):
            with Client(str(here._http.base_url), wrong) as stranger, pytest.raises(Refused) as fault:
                stranger.models()
            assert fault.value.status == 401
        with Client(str(here._http.base_url), key) as client:
            answers = []
            until = time.monotonic() + PATIENCE
            while "429" not in answers and time.monotonic() < until:
                try:
                    answers.append(client.models()[0].name)
                except Refused as refusal:
                    assert refusal.retry_after == 1
                    answers.append(str(refusal.status))
            assert set(answers) <= {"503", "digits", "429"} and "429" in answers
        assert server.stop(signal.SIGINT) == 0
        assert key not in server.said.read_text()


def test_a_model_that_cannot_be_loaded_ends_the_server(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{}")
    with served(tmp_path, "--model", tmp_path / "broken") as server:
        assert server.process.wait(PATIENCE) == 2
        *_, last = server.said.read_text().splitlines()
        assert last.startswith("Error: the service cannot start: ") and "broken" in last


def test_key_prints_a_key_nobody_had_before_and_its_hash() -> None:
    first, second = (done("key").splitlines() for _ in range(2))
    assert first != second
    key, line = (part.partition(": ")[2] for part in first)
    assert len(key) >= 43 and line == hashed(key)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_without_keys_nobody_outside_is_served(host: str) -> None:
    assert "--keys" in refused("serve", "--host", host)


def test_a_taken_port_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert f"port {port} of 127.0.0.1 is taken" in refused("serve", "--port", port)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--host", "no.such.name.invalid"), "nobody can listen at no.such.name.invalid"),
        (("--host", "a" * 300), "nobody can listen at"),
        (("--port", "65536"), "65536"),
        (("--model", "nothing"), "there is no model nothing"),
        (("--rate", "-1"), "rate"),
        (("--deadline", "0"), "deadline"),
        (("--replicas", "2"), "--engine ray"),
        (("--keys", "missing"), "missing cannot be read: No such file"),
        (("--keys", "empty"), "empty holds no key"),
        (("--keys", "plain"), "line 2 of plain is no line that seqvae key prints"),
        (("--keys", "binary"), "binary cannot be read"),
        (("--data", "plain"), "plain cannot be a folder of data: File exists"),
    ],
)
def test_what_cannot_be_served_costs_one_sentence(
    words: tuple[str, ...], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").write_text("# nothing yet\n")
    Path("plain").write_text("# a key as it is, not its hash:\nwzmKSd5b1YIlFgYM_AVsAJCiEBWHOLbASU9UaAi2FnM\n")
    Path("binary").write_bytes(b"\xff\xfe\x00")
    assert sentence in refused("serve", *words)


@pytest.mark.parametrize("words", [("serve",), ("key",)])
def test_a_missing_extra_is_named(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("seqvae.service", "fastapi", "starlette"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.setitem(sys.modules, "starlette", None)
    assert "pip install 'seqvae[serve]'" in refused(*words)


def test_a_fault_of_our_own_is_no_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "seqvae.service.server", raising=False)
    monkeypatch.setitem(sys.modules, "seqvae.service.app", None)
    assert isinstance(run("serve").exception, ModuleNotFoundError)


def test_ray_is_an_extra_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "seqvae.service.cluster", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "pip install 'seqvae[ray]'" in refused("serve", "--engine", "ray")


def test_help_needs_no_extra() -> None:
    without = "import sys; sys.modules['torch'] = sys.modules['fastapi'] = None"
    words = [sys.executable, "-c", f"{without}; from seqvae.cli import main; main()", "serve", "--help"]
    assert "studio" in subprocess.run(words, check=True, text=True, capture_output=True).stdout
