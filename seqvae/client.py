"""A client of the service, for scripts and other programs: `Client` waits, `AsyncClient` awaits.

Conventions: methods are the service's endpoints, and take and return its schemas; where a thing is asked for,
`Given` says what will do. What the server refuses is a `Refused`; that it does not answer, or that a request
is wrong before it is sent, a `SeqvaeError`.
The file is long as every endpoint stands in it, once for both clients.

    with Client("http://127.0.0.1:8000") as client:
        made = client.interpolate("melody", Path("a.mid"), Path("b.abc"), steps=5)
        songs = [thing.song.song() for thing in made.things]
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, Generic, Literal, ParamSpec, Self, TypeVar, overload
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter, ValidationError

from seqvae.service.schemas import (
    AttributeInfo,
    Body,
    CorpusInfo,
    Decode,
    Encode,
    FoundOnMap,
    Generate,
    How,
    Interpolate,
    JobInfo,
    Latent,
    LatentMap,
    LearnAttribute,
    Made,
    MadeThing,
    ModelInfo,
    Morph,
    OfThing,
    OnMap,
    Refusal,
    Render,
    Shift,
    SongBody,
    Thing,
    Train,
    Vary,
    sentence,
)
from seqvae.song import SeqvaeError, Song

P = ParamSpec("P")
T = TypeVar("T")
Rows = Sequence[Sequence[float]]
# A song; a text; a file by its path or its bytes; rows of z; or what the server made.
Given = Song | SongBody | str | Path | bytes | Rows | Thing | MadeThing
Place = tuple[float, float]
Verb = Literal["generate", "decode", "reconstruct", "interpolate", "vary", "shift"]
Format = Literal["mid", "musicxml", "wav", "png"]

HOW = How()
OVER = ("done", "failed", "cancelled")  # states that a job stays in
AWAY = (429, 502, 503, 504)  # statuses of a server that is busy, or of a proxy that misses it
PAUSE = 0.5  # seconds until a server that is away is asked again
SHORTEST = 10.0  # seconds to find the server in, where the whole answer may take longer


class Refused(SeqvaeError):
    """The server's no: its HTTP status, and the seconds after which it may say yes, where it told them."""

    def __init__(self, sentence: str, status: int, retry_after: float | None = None) -> None:
        super().__init__(sentence)
        self.status, self.retry_after = status, retry_after


class Step(Body):
    """A symbol decoded on the way: of which row of the request, and a text so far or what stands there."""

    row: int
    step: int
    text: str | None = None
    symbols: list[int] | None = None


def thing_of(given: Given, track: str | int | None = None, metre: str = "4/4") -> Thing:
    """What a request holds; track is of a song with several, metre of rows that are a melody's windows.

    Raises `SeqvaeError` where a file cannot be read.
    """
    if isinstance(given, Thing):
        return given
    if isinstance(given, MadeThing):
        image = given.image.encode() if given.image is not None else None
        return Thing(song=given.song, text=given.text, file=image, track=track)
    if isinstance(given, Song):
        given = SongBody.of(given)
    if isinstance(given, SongBody):
        return Thing(song=given, track=track)
    if isinstance(given, str):
        return Thing(text=given)
    if isinstance(given, Path | bytes):
        return Thing(file=base64.b64encode(_bytes(given)), track=track)
    return Thing(z=[[float(x) for x in row] for row in given], metre=metre)


def _bytes(file: Path | bytes) -> bytes:
    try:
        return file if isinstance(file, bytes) else file.read_bytes()
    except (OSError, ValueError) as fault:
        raise SeqvaeError(f"{file!s} cannot be read: {getattr(fault, 'strerror', fault)}") from None


# --------------------------------------------------------------------------------------- endpoints


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request, and how its answer is read."""

    read: Callable[[bytes], T]
    method: Literal["GET", "POST", "DELETE"]
    path: tuple[str, ...]  # parts of it below /v1
    body: Body | bytes | None = None
    params: dict[str, str] = field(default_factory=dict)

    def request(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        held, headers = self.body, {}
        if isinstance(held, Body):
            held = held.model_dump_json(exclude_none=True).encode()
            headers["Content-Type"] = "application/json"
        url = "/".join(quote(part, safe="") for part in ("v1", *self.path))
        return http.build_request(self.method, url, content=held, params=self.params, headers=headers)


class Endpoint(Generic[P, T]):
    """A method of both clients, made of the function that makes its `Call`."""

    def __init__(self, make: Callable[P, Call[T]]) -> None:
        self.make = make

    @overload
    def __get__(self, client: Client, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: type) -> Callable[P, Awaitable[T]]: ...
    def __get__(self, client: Client | AsyncClient, owner: type) -> Callable[P, Any]:
        @wraps(self.make)
        def send(*args: P.args, **kwargs: P.kwargs) -> Any:
            try:
                call = self.make(*args, **kwargs)
            except ValidationError as fault:
                raise SeqvaeError(sentence([{**one} for one in fault.errors()])) from None
            return client._send(call)

        return send


def _nothing(data: bytes) -> None:
    return None


_models = TypeAdapter(list[ModelInfo]).validate_json
_attributes = TypeAdapter(list[AttributeInfo]).validate_json
_jobs = TypeAdapter(list[JobInfo]).validate_json
_made = Made.model_validate_json
_corpus = CorpusInfo.model_validate_json
_job = JobInfo.model_validate_json


def _verb(name: Verb, model: str, body: Body) -> Call[Made]:
    return Call(_made, "POST", ("models", model, name), body)


def models() -> Call[list[ModelInfo]]:
    return Call(_models, "GET", ("models",))


def model(name: str) -> Call[ModelInfo]:
    return Call(ModelInfo.model_validate_json, "GET", ("models", name))


def generate(model: str, ask: Generate | None = None) -> Call[Made]:
    return _verb("generate", model, ask or Generate())


def encode(model: str, thing: Given) -> Call[Latent]:
    return Call(
        Latent.model_validate_json, "POST", ("models", model, "encode"), Encode(thing=thing_of(thing))
    )


def decode(model: str, z: Rows, metre: str = "4/4", how: How = HOW) -> Call[Made]:
    rows = [[float(x) for x in row] for row in z]
    return _verb("decode", model, Decode(z=rows, metre=metre, **dict(how)))


def reconstruct(model: str, thing: Given, how: How = HOW) -> Call[Made]:
    return _verb("reconstruct", model, OfThing(thing=thing_of(thing), **dict(how)))


def interpolate(
    model: str,
    a: Given,
    b: Given,
    steps: int = 9,
    fit: Literal["loop", "stretch"] = "loop",
    how: How = HOW,
) -> Call[Made]:
    ask = Interpolate(a=thing_of(a), b=thing_of(b), steps=steps, fit=fit, **dict(how))
    return _verb("interpolate", model, ask)


def square(
    model: str, corners: tuple[Given, Given, Given, Given], places: Sequence[Place], how: How = HOW
) -> Call[Made]:
    """What lies at places (0..1, 0..1) of the square between four corners: two above, two below."""
    of = tuple(thing_of(corner) for corner in corners)
    return _verb("interpolate", model, Interpolate(corners=of, places=list(places), **dict(how)))  # type: ignore[arg-type]


def vary(model: str, thing: Given, n: int = 8, amount: float = 0.3, how: How = HOW) -> Call[Made]:
    return _verb("vary", model, Vary(thing=thing_of(thing), n=n, amount=amount, **dict(how)))


def shift(model: str, thing: Given, places: Sequence[dict[str, float]], how: How = HOW) -> Call[Made]:
    return _verb("shift", model, Shift(thing=thing_of(thing), places=list(places), **dict(how)))


def attributes(model: str) -> Call[list[AttributeInfo]]:
    return Call(_attributes, "GET", ("models", model, "attributes"))


def learn_attribute(
    model: str, name: str, first: Sequence[Given], second: Sequence[Given]
) -> Call[AttributeInfo]:
    """The attribute that leads from the first kind of things to the second."""
    kinds = {"first": [thing_of(one) for one in first], "second": [thing_of(one) for one in second]}
    body = LearnAttribute(name=name, **kinds)
    return Call(AttributeInfo.model_validate_json, "POST", ("models", model, "attributes"), body)


def latent_map(model: str) -> Call[LatentMap]:
    return Call(LatentMap.model_validate_json, "GET", ("models", model, "map"))


def on_map(
    model: str, things: Sequence[Given] = (), places: Sequence[Place] = (), how: How = HOW
) -> Call[FoundOnMap]:
    """Where things are on the map, and what is at places of it."""
    body = OnMap(things=[thing_of(one) for one in things], places=list(places), **dict(how))
    return Call(FoundOnMap.model_validate_json, "POST", ("models", model, "map"), body)


def read(file: Path | bytes, model: str = "melody", name: str = "") -> Call[MadeThing]:
    """A file as that model reads it."""
    params = {"model": model, "name": name or (file.name if isinstance(file, Path) else "")}
    return Call(MadeThing.model_validate_json, "POST", ("read",), _bytes(file), params)


def render(song: Given, format: Format) -> Call[bytes]:
    return Call(bytes, "POST", ("render",), Render(thing=thing_of(song), format=format))


def new_corpus() -> Call[CorpusInfo]:
    return Call(_corpus, "POST", ("corpora",))


def corpus(id: str) -> Call[CorpusInfo]:
    return Call(_corpus, "GET", ("corpora", id))


def drop_corpus(id: str) -> Call[None]:
    return Call(_nothing, "DELETE", ("corpora", id))


def add_file(corpus: str, file: Path | bytes, name: str = "") -> Call[CorpusInfo]:
    name = name or (file.name if isinstance(file, Path) else "")
    return Call(_corpus, "POST", ("corpora", corpus, "files"), _bytes(file), {"name": name})


def submit(job: Train | Morph) -> Call[JobInfo]:
    return Call(_job, "POST", ("jobs",), job)


def jobs() -> Call[list[JobInfo]]:
    return Call(_jobs, "GET", ("jobs",))


def job(id: str) -> Call[JobInfo]:
    return Call(_job, "GET", ("jobs", id))


def cancel(id: str) -> Call[JobInfo]:
    return Call(_job, "POST", ("jobs", id, "cancel"))


def drop(id: str) -> Call[None]:
    """Forgets a job and its files."""
    return Call(_nothing, "DELETE", ("jobs", id))


def download(id: str, name: str) -> Call[bytes]:
    """A file of a job, by its name in `JobInfo.files`."""
    return Call(bytes, "GET", ("jobs", id, "files", name))


class Endpoints:
    models = Endpoint(models)
    model = Endpoint(model)
    generate = Endpoint(generate)
    encode = Endpoint(encode)
    decode = Endpoint(decode)
    reconstruct = Endpoint(reconstruct)
    interpolate = Endpoint(interpolate)
    square = Endpoint(square)
    vary = Endpoint(vary)
    shift = Endpoint(shift)
    attributes = Endpoint(attributes)
    learn_attribute = Endpoint(learn_attribute)
    latent_map = Endpoint(latent_map)
    on_map = Endpoint(on_map)
    read = Endpoint(read)
    render = Endpoint(render)
    new_corpus = Endpoint(new_corpus)
    corpus = Endpoint(corpus)
    drop_corpus = Endpoint(drop_corpus)
    add_file = Endpoint(add_file)
    submit = Endpoint(submit)
    jobs = Endpoint(jobs)
    job = Endpoint(job)
    cancel = Endpoint(cancel)
    drop = Endpoint(drop)
    download = Endpoint(download)


# ----------------------------------------------------------------------------------------- clients


class Client(Endpoints):
    """Blocks until the server has answered; timeout in seconds, of which streams and events have none."""

    def __init__(self, url: str, key: str | None = None, timeout: float = 60.0) -> None:
        self._http = httpx.Client(base_url=_checked(url), headers=_headers(key), timeout=_timeout(timeout))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *fault: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def stream(self, verb: Verb, model: str, ask: Body) -> Iterator[Step | Made]:
        """The steps of decoding as they come, and what was made at the end."""
        for kind, data in self._events(_streamed(verb, model, ask)):
            yield _told(kind, data)

    def events(self, job: str) -> Iterator[JobInfo]:
        """The job as it is and at every change, until it is over."""
        for _, data in self._events(_changes(job)):
            yield _job(data)

    def wait(self, job: str, patience: float = 60.0) -> JobInfo:
        """The job once it is over; a server that goes away has `patience` seconds to come back."""
        missing = _Missing(patience)
        while True:
            try:
                for info in self.events(job):
                    if missing.answered(info):
                        return info
                raise SeqvaeError(LEFT)
            except SeqvaeError as fault:
                missing.bear(fault)
            time.sleep(PAUSE)

    def _send(self, call: Call[T]) -> T:
        try:
            answer = self._http.send(call.request(self._http))
        except httpx.HTTPError as fault:
            raise _silent(self._http, fault) from None
        return _answered(call, answer)

    def _events(self, call: Call[Any]) -> Iterator[tuple[str, bytes]]:
        request, events = call.request(self._http), _Events()
        try:
            answer = self._http.send(_patient(request), stream=True)
            try:
                if not answer.is_success:
                    answer.read()
                    raise _refusal(answer)
                for piece in answer.iter_bytes():
                    yield from events.take(piece)
            finally:
                answer.close()
        except httpx.HTTPError as fault:
            raise _silent(self._http, fault) from None


class AsyncClient(Endpoints):
    """`Client`, awaited."""

    def __init__(self, url: str, key: str | None = None, timeout: float = 60.0) -> None:
        headers = _headers(key)
        self._http = httpx.AsyncClient(base_url=_checked(url), headers=headers, timeout=_timeout(timeout))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *fault: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def stream(self, verb: Verb, model: str, ask: Body) -> AsyncIterator[Step | Made]:
        async for kind, data in self._events(_streamed(verb, model, ask)):
            yield _told(kind, data)

    async def events(self, job: str) -> AsyncIterator[JobInfo]:
        async for _, data in self._events(_changes(job)):
            yield _job(data)

    async def wait(self, job: str, patience: float = 60.0) -> JobInfo:
        missing = _Missing(patience)
        while True:
            try:
                async for info in self.events(job):
                    if missing.answered(info):
                        return info
                raise SeqvaeError(LEFT)
            except SeqvaeError as fault:
                missing.bear(fault)
            await asyncio.sleep(PAUSE)

    async def _send(self, call: Call[T]) -> T:
        try:
            answer = await self._http.send(call.request(self._http))
        except httpx.HTTPError as fault:
            raise _silent(self._http, fault) from None
        return _answered(call, answer)

    async def _events(self, call: Call[Any]) -> AsyncIterator[tuple[str, bytes]]:
        request, events = call.request(self._http), _Events()
        try:
            answer = await self._http.send(_patient(request), stream=True)
            try:
                if not answer.is_success:
                    await answer.aread()
                    raise _refusal(answer)
                async for piece in answer.aiter_bytes():
                    for event in events.take(piece):
                        yield event
            finally:
                await answer.aclose()
        except httpx.HTTPError as fault:
            raise _silent(self._http, fault) from None


# --------------------------------------------------------------------------- what they have in common

LEFT = "the server went away before the job was over; ask for it again"


def _checked(url: str) -> httpx.URL:
    try:
        found = httpx.URL(url)
    except httpx.InvalidURL:
        found = httpx.URL("")
    if found.scheme not in ("http", "https") or not found.host:
        raise SeqvaeError(f'"{url}" is not the address of a server; write it like http://127.0.0.1:8000')
    return found


def _headers(key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def _timeout(seconds: float) -> httpx.Timeout:
    return httpx.Timeout(seconds, connect=min(seconds, SHORTEST))


def _patient(request: httpx.Request) -> httpx.Request:
    """Between two events any time may pass."""
    request.extensions["timeout"] |= {"read": None}
    return request


def _silent(http: httpx.Client | httpx.AsyncClient, fault: httpx.HTTPError) -> SeqvaeError:
    why = "it takes too long" if isinstance(fault, httpx.TimeoutException) else str(fault) or repr(fault)
    return SeqvaeError(f"the server at {http.base_url} does not answer: {why.rstrip('.')}")


def _refusal(answer: httpx.Response) -> Refused:
    try:
        what = Refusal.model_validate_json(answer.content).error
    except ValidationError:  # a proxy's page
        what = f"the server answered {answer.status_code} {answer.reason_phrase}"
    after = answer.headers.get("Retry-After", "")
    return Refused(what, answer.status_code, float(after) if after.isdigit() else None)


def _answered(call: Call[T], answer: httpx.Response) -> T:
    if not answer.is_success:
        raise _refusal(answer)
    try:
        return call.read(answer.content)
    except ValidationError:
        raise SeqvaeError(f"what answers at {answer.url} is no server of this version") from None


def _streamed(verb: Verb, model: str, ask: Body) -> Call[bytes]:
    return Call(bytes, "POST", ("models", model, verb), ask, {"stream": "true"})


def _changes(job: str) -> Call[bytes]:
    return Call(bytes, "GET", ("jobs", job, "events"))


def _told(kind: str, data: bytes) -> Step | Made:
    if kind == "error":
        raise Refused(Refusal.model_validate_json(data).error, 200)  # it had been answered by then
    return Step.model_validate_json(data) if kind == "step" else _made(data)


@dataclass
class _Missing:
    """A server that is away, or busy, since a moment of time.monotonic()."""

    patience: float  # seconds
    since: float | None = None

    def answered(self, info: JobInfo) -> bool:
        """It is there; whether the job is over."""
        self.since = None
        return info.state in OVER

    def bear(self, fault: SeqvaeError) -> None:
        """Raises it where the server answered with a lasting no, or has been missing for too long."""
        self.since = self.since or time.monotonic()
        lasting = isinstance(fault, Refused) and fault.status not in AWAY
        if lasting or time.monotonic() >= self.since + self.patience:
            raise fault


class _Events:
    """Server-sent events out of the bytes they come in.

    Lines end at line feeds alone: httpx's own lines also end at U+2028 and others, which JSON may hold.
    """

    def __init__(self) -> None:
        self.rest = b""

    def take(self, piece: bytes) -> Iterator[tuple[str, bytes]]:
        """The events (kind, data) that this piece completes."""
        *whole, self.rest = (self.rest + piece).replace(b"\r\n", b"\n").split(b"\n\n")
        for event in whole:
            lines = [line.partition(b":") for line in event.split(b"\n")]
            data = [value.removeprefix(b" ") for name, _, value in lines if name == b"data"]
            kinds = [value.strip().decode() for name, _, value in lines if name == b"event"]
            if data:  # else it says that the server is still there
                yield (kinds or ["message"])[-1], b"\n".join(data)
