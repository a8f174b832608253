"""client.py: every endpoint of the real server, blocking and awaited; what is refused and what goes wrong."""

import asyncio
import json
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_serving import Served, served

from seqvae import client as module
from seqvae import files
from seqvae.client import AsyncClient, Call, Client, Endpoints, Refused, Step, thing_of
from seqvae.pipeline import Pipeline
from seqvae.service.schemas import (
    Generate,
    How,
    JobInfo,
    Made,
    MadeThing,
    Morph,
    SongBody,
    Thing,
    Train,
    Vary,
)
from seqvae.song import Metre, Note, Part, SeqvaeError, Song

TUNE = Song((Part(tuple(Note(float(i), 1.0, 60 + i * 5 % 13) for i in range(16)), "melody", 73),))
OTHER = Song((Part(tuple(Note(float(i), 1.0, 72 - i * 3 % 12) for i in range(8)), "melody"),))
JOB, CORPUS = "1" * 32, "2" * 32


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    models = ("--model", "melody", "--model", "sentences", "--model", "digits")
    with served(folder, *models, "--data", folder / "data", "--rate", 0) as server:
        server.ready()
        yield server


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator[Client]:
    with Client(server.url) as client:
        yield client


# ------------------------------------------------------------------------------------------- things


def test_a_thing_may_be_given_in_any_form(tmp_path: Path) -> None:
    file = tmp_path / "a.mid"
    files.write(TUNE, file)
    body = SongBody.of(TUNE)
    assert thing_of(TUNE, track=1) == thing_of(body, track=1) == Thing(song=body, track=1)
    assert thing_of(MadeThing(song=body)) == Thing(song=body)
    assert thing_of("a man.") == thing_of(MadeThing(text="a man.")) == Thing(text="a man.")
    for source in (file, file.read_bytes()):
        assert thing_of(source, track="melody").file == file.read_bytes()
    assert thing_of(MadeThing(image="aGFsbG8=")).file == b"hallo"
    for rows in ([[0.5, 1]], ((0.5, 1.0),), np.array([[0.5, 1]])):
        assert thing_of(rows, metre="3/4") == Thing(z=[[0.5, 1.0]], metre="3/4")
    thing = Thing(text="")
    assert thing_of(thing) is thing


def test_bytes_survive_the_wire(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5
    again = Thing.model_validate_json(thing_of(data).model_dump_json())
    assert again.file == data


@pytest.mark.parametrize("path", ["missing.mid", ".", "a\0b"])
def test_a_file_that_cannot_be_read_is_named(path: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SeqvaeError, match="cannot be read"):
        thing_of(Path(path))


# ---------------------------------------------------------------------------------------- endpoints

# The arguments of each method, by which both clients are tried.
TRIED: dict[str, tuple[Any, ...]] = {
    "models": (),
    "model": ("melody",),
    "generate": ("melody", Generate(n=2, bars=2, seed=7)),
    "encode": ("melody", TUNE),
    "decode": ("digits", np.zeros((2, 16)), "4/4", How(seed=1)),
    "reconstruct": ("sentences", "the man is in the house.", How(beam=2)),
    "interpolate": ("melody", TUNE, OTHER, 3, "stretch", How(temperature=0.5, seed=2)),
    "square": ("melody", (TUNE, OTHER, OTHER, TUNE), [(0, 0), (0.5, 0.25)]),
    "vary": ("sentences", "a dog runs.", 3, 0.5, How(seed=3)),
    "shift": ("digits", [[0.0] * 16], [{"brightness": 1.0}, {}]),
    "attributes": ("digits",),
    "latent_map": ("digits",),
    "on_map": ("digits", [[[0.0] * 16]], [(0.0, 0.0)]),
    "render": (TUNE, "mid"),
    "jobs": (),
}
# Those with lasting effects have tests of their own; here only where they lead.
OTHERS: dict[str, tuple[Any, ...]] = {
    "learn_attribute": ("digits", "name", [[[0.0] * 16]] * 2, [[[1.0] * 16]] * 2),
    "read": (b"", "melody", "a.mid"),
    "new_corpus": (),
    "corpus": (CORPUS,),
    "drop_corpus": (CORPUS,),
    "add_file": (CORPUS, b"", "a.mid"),
    "submit": (Train(corpus=CORPUS),),
    "job": (JOB,),
    "cancel": (JOB,),
    "drop": (JOB,),
    "download": (JOB, "a.mid"),
}


@pytest.mark.parametrize("name", TRIED)
def test_both_clients_answer_alike(name: str, client: Client, server: Served) -> None:
    async def awaited() -> object:
        async with AsyncClient(server.url) as other:
            return await getattr(other, name)(*TRIED[name])

    found = getattr(client, name)(*TRIED[name])
    assert found == asyncio.run(awaited())
    if isinstance(found, Made):
        assert (
            len(found.things) == {"generate": 2, "interpolate": 3, "vary": 3}.get(name, len(found.things)) > 0
        )


def test_every_address_of_the_server_has_its_method(client: Client, server: Served) -> None:
    calls = [getattr(module, name)(*words) for name, words in (TRIED | OTHERS).items()]
    calls.append(module._changes(JOB))
    assert {name for name in vars(Endpoints) if name[0] != "_"} == {*TRIED, *OTHERS}
    called = {(call.method.lower(), "/".join(("/v1", *call.path))) for call in calls}
    paths = httpx.get(f"{server.url}/v1/openapi.json").json()["paths"]
    for path, methods in paths.items():
        pattern = re.compile(re.sub(r"\{\w+\}", "[^/]+", path))
        for method in methods:
            if path.startswith("/v1/"):
                assert any(how == method and pattern.fullmatch(where) for how, where in called), (
                    method,
                    path,
                )


def test_what_is_made_is_what_the_pipeline_makes(client: Client) -> None:
    pipeline = Pipeline.from_pretrained("melody")
    made = client.generate("melody", Generate(n=2, seed=5, bars=4))
    songs = pipeline.sample(2, seed=5, bars=4)
    for thing, song in zip(made.things, songs, strict=True):
        assert thing.song is not None and thing.song.song().parts[0].notes == song.parts[0].notes


def test_a_file_is_read_and_written(client: Client, tmp_path: Path) -> None:
    song = Song(TUNE.parts, ((0.0, Metre(3, 4)),))
    (tmp_path / "again.mid").write_bytes(client.render(song, "mid"))
    read = client.read(tmp_path / "again.mid").song
    assert read is not None and read.song().parts[0].notes == song.parts[0].notes
    assert read.song().metres == song.metres


def test_steps_come_before_what_they_make(client: Client, server: Served) -> None:
    ask = Vary(thing=thing_of("a dog runs."), n=2, seed=3, temperature=0.5)
    *steps, made = client.stream("vary", "sentences", ask)
    assert made == client.vary("sentences", "a dog runs.", 2, how=How(seed=3, temperature=0.5))
    assert isinstance(made, Made) and all(isinstance(step, Step) for step in steps)
    for row, thing in enumerate(made.things):
        told = [step.text for step in steps if isinstance(step, Step) and step.row == row]
        assert len(told) > 2 and told[-1] == thing.text and len(set(told)) > 2

    async def awaited() -> list[Step | Made]:
        async with AsyncClient(server.url) as other:
            return [event async for event in other.stream("vary", "sentences", ask)]

    assert asyncio.run(awaited())[-1] == made


def test_a_stream_may_be_left(client: Client) -> None:
    for _ in range(3):
        stream = client.stream("generate", "melody", Generate(n=8, bars=8))
        next(stream)
        stream.close()  # type: ignore[attr-defined]
    assert len(client.generate("melody").things) == 1


# --------------------------------------------------------------------------------------------- jobs


def test_a_job_is_followed_to_its_end_and_its_files_had(client: Client, server: Served) -> None:
    job = client.submit(Morph(a=thing_of(TUNE), b=thing_of(OTHER), steps=3, formats=["mid", "png"]))
    assert job.kind == "interpolate" and job.state in ("queued", "running")
    seen = list(client.events(job.id))
    assert seen[-1].state == "done", seen[-1].error
    assert client.wait(job.id) == client.job(job.id) == seen[-1]
    assert seen[-1] in client.jobs()

    async def awaited() -> tuple[JobInfo, list[JobInfo]]:
        async with AsyncClient(server.url) as other:
            return await other.wait(job.id), [info async for info in other.events(job.id)]

    assert asyncio.run(awaited()) == (seen[-1], [seen[-1]])
    names = [name for name in seen[-1].files if name.endswith(".mid")]
    assert len(names) >= 3 and client.read(client.download(job.id, names[0])).song is not None
    client.drop(job.id)
    with pytest.raises(Refused) as fault:
        client.download(job.id, names[0])
    assert fault.value.status == 404


def test_a_corpus_is_filled_and_dropped_and_a_training_cancelled(client: Client, tmp_path: Path) -> None:
    corpus = client.new_corpus()
    files.write(TUNE, tmp_path / "a.mid")
    assert client.add_file(corpus.id, tmp_path / "a.mid").files == 1
    told = client.add_file(corpus.id, (tmp_path / "a.mid").read_bytes(), "../b.mid")
    assert told.files == 2 and told == client.corpus(corpus.id)
    job = client.submit(Train(corpus=corpus.id, settings={"steps": 100_000}))
    assert client.cancel(job.id).state in ("cancelled", "running", "failed")
    assert client.wait(job.id).state in ("cancelled", "failed")  # of two songs no split may come about
    client.drop(job.id)
    client.drop_corpus(corpus.id)
    with pytest.raises(Refused):
        client.corpus(corpus.id)


def test_an_attribute_is_learnt(client: Client) -> None:
    made = [client.generate("digits", Generate(n=8, seed=seed)).things for seed in (1, 2)]
    learnt = client.learn_attribute("digits", "from-one-to-two", *made)
    assert not learnt.own and learnt in client.attributes("digits")
    assert len(client.shift("digits", made[0][0], [{"from-one-to-two": 0.5}]).things) == 1


# --------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("ask", "status", "sentence"),
    [
        (lambda client: client.model("nothing"), 404, "no such model"),
        (lambda client: client.model("../../etc/passwd"), 404, "nothing at this address"),
        (lambda client: client.model("a b?c#d%2Fé"), 404, "no such model"),
        (lambda client: client.encode("melody", b"not a song"), 422, "song"),
        (lambda client: client.encode("digits", "a text"), 422, "picture"),
        (lambda client: list(client.stream("generate", "nothing", Generate())), 404, "no such model"),
        (lambda client: list(client.events(JOB)), 404, "no such job"),
        (lambda client: client.wait(JOB), 404, "no such job"),
    ],
)
def test_the_servers_no_is_one_sentence(
    ask: Callable[[Client], object], status: int, sentence: str, client: Client
) -> None:
    with pytest.raises(Refused, match=sentence) as fault:
        ask(client)
    assert fault.value.status == status and fault.value.retry_after is None
    assert "\n" not in str(fault.value) and str(fault.value)


def test_what_cannot_be_right_is_said_before_it_is_sent() -> None:
    with Client("http://127.0.0.1:1") as nobody:
        with pytest.raises(SeqvaeError, match="n: .*64") as fault:
            nobody.vary("melody", TUNE, n=1000)
        assert not isinstance(fault.value, Refused)
        with pytest.raises(SeqvaeError, match="http://127.0.0.1:1 does not answer"):
            nobody.vary("melody", TUNE, n=10)
        with pytest.raises(SeqvaeError, match="does not answer"):
            next(nobody.events(JOB))


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://a", "http://", "\0"])
def test_an_address_that_is_none(url: str) -> None:
    for make in (Client, AsyncClient):
        with pytest.raises(SeqvaeError, match="not the address of a server"):
            make(url)


def answering(status: int, headers: dict[str, str], body: bytes) -> Iterator[str]:
    """The URL of a server that says this to everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def said(status: int, headers: dict[str, str], body: bytes, ask: Callable[[Client], object]) -> SeqvaeError:
    for url in answering(status, headers, body):
        with Client(url) as client, pytest.raises(SeqvaeError) as fault:
            ask(client)
    return fault.value


def test_when_to_come_again_is_told() -> None:
    fault = said(429, {"Retry-After": "7"}, b'{"error": "too many"}', lambda client: client.models())
    assert isinstance(fault, Refused) and (str(fault), fault.status, fault.retry_after) == (
        "too many",
        429,
        7.0,
    )
    date = {"Retry-After": "Fri, 31 Dec 2027 23:59:59 GMT"}
    fault = said(503, date, b"<html>", lambda client: client.models())
    assert isinstance(fault, Refused) and fault.retry_after is None
    assert str(fault) == "the server answered 503 Service Unavailable"


def test_another_server_is_recognised() -> None:
    assert "no server of this version" in str(said(200, {}, b"<html>", lambda client: client.models()))


def test_a_server_that_goes_away_before_the_job_is_over_is_missed() -> None:
    job = {"id": JOB, "kind": "train", "state": "running", "created": 0, "expires": 0}
    told = f"event: job\ndata: {json.dumps(job)}\n\n".encode()
    assert "went away" in str(said(200, {}, told, lambda client: client.wait(JOB, 0)))
    with ThreadPoolExecutor(1) as pool:
        for url in answering(200, {}, told):
            with Client(url) as client:
                assert next(client.events(JOB)).state == "running"
            waiting = pool.submit(Client(url).wait, JOB, 1.0)
        with pytest.raises(SeqvaeError, match="does not answer"):
            waiting.result(60)


def test_a_stream_that_fails_says_why() -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'event: error\ndata: {"error": "too late"}\n\n')

        def log_message(self, format: str, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        with Client(f"http://127.0.0.1:{other.server_port}") as client:
            with pytest.raises(Refused, match="too late"):
                list(client.stream("generate", "melody", Generate()))
        other.shutdown()


TEXTS = st.text(alphabet="ab\u2028\x85\x0b:é ", max_size=12)
EVENTS = st.lists(st.tuples(st.sampled_from(["step", "done", "job"]), TEXTS), max_size=5)


@given(EVENTS, st.lists(st.integers(1, 9), min_size=1), st.sampled_from(["\n", "\r\n"]))
def test_events_are_the_same_in_whatever_pieces_they_come(
    events: list[tuple[str, str]], sizes: list[int], end: str
) -> None:
    wire = f": hello{end}{end}".encode()
    for kind, text in events:
        wire += f"event: {kind}{end}data: {json.dumps(text, ensure_ascii=False)}{end}{end}".encode()
    parser, found, at = module._Events(), [], 0
    while at < len(wire):
        size = sizes[at % len(sizes)]
        found += list(parser.take(wire[at : at + size]))
        at += size
    assert [(kind, json.loads(data)) for kind, data in found] == events


def test_a_call_is_quoted() -> None:
    with httpx.Client(base_url="http://a/b/") as http:
        request = Call(bytes, "GET", ("models", "a/b c?d", "x")).request(http)
    assert request.url.raw_path == b"/b/v1/models/a%2Fb%20c%3Fd/x"
