"""The service as an ASGI app: settings, routes, admission; everything else is in the modules beside it.

Conventions: every answer is JSON of `schemas` unless it is a file; every refusal is {"error": one sentence}.
Verbs run in threads, as many as the queue is long, whose rows meet in the models' batchers; a request past
that is refused at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import anyio
import numpy as np
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from seqvae import __version__
from seqvae.service import schemas
from seqvae.service.batcher import Gauge, Lost, Ticket, Unwanted, holding
from seqvae.service.guard import Guard
from seqvae.service.jobs import Jobs
from seqvae.service.reading import Reader
from seqvae.service.schemas import CorpusInfo, Job, JobInfo, Made, MadeThing, Refusal, Thing
from seqvae.service.telemetry import MEDIA_TYPE, Telemetry, Watched
from seqvae.service.verbs import Offered, Shelf, rendered
from seqvae.song import SeqvaeError

STUDIO = Path(__file__).parent / "studio"
Result = TypeVar("Result")
EVENTS, FRESH = "text/event-stream", {"Cache-Control": "no-store"}
MEDIA = {
    "mid": "audio/midi",
    "musicxml": "application/vnd.recordare.musicxml+xml",
    "wav": "audio/wav",
    "png": "image/png",
}
HANDS = 2  # threads of requests in Python at a time; with more, refusals wait for the interpreter too
BUSY = "the server is busy; try again in a moment"
SHORT = Annotated[str, Query(max_length=100)]


@dataclass(frozen=True)
class Settings:
    models: tuple[str, ...] = ()  # names or folders; none: all embedded
    data: Path | None = None  # folder of jobs, uploads and attributes; None: a temporary one
    queue: int = 128  # requests at work or waiting, past which one is refused
    slots: int = 256  # rows decoded together
    batching: bool = True  # False: every request decodes its own rows
    deadline: float = 30.0  # seconds a request may take
    rate: float = 50.0  # requests a second and client; 0: any
    largest: int = 16_000_000  # bytes of a body
    retention: float = 7 * 86400.0  # seconds that uploads and results are kept
    keys: tuple[str, ...] = ()  # SHA-256 of those that are accepted, hex; none: nobody needs one
    origins: tuple[str, ...] = ()  # whose pages may ask, beside our own
    hosts: tuple[str, ...] = ()  # names we are called by, beside localhost and addresses
    parsers: int = 1  # processes that read uploads
    jobs: bool = True  # False: a replica, which keeps nothing
    log: bool = True


class Busy(Exception):
    """The queue is full."""


class Desk:
    """What the routes share: the shelf, the reader, the jobs, and who may come in."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.telemetry = Telemetry(settings.log)
        self.ready, self.leaving, self.fault = False, False, ""
        self.closing = contextlib.ExitStack()
        self.inside = 0  # requests at work
        self.limiter: anyio.CapacityLimiter | None = None
        self.hands = threading.Semaphore(HANDS)

    def start(self) -> None:
        """`open`; what goes wrong is logged, and told to whoever asks whether the service is ready."""
        try:
            self.open()
        except Exception as fault:
            self.fault = str(fault) or type(fault).__name__
            self.telemetry.log("fault", {"fault": repr(fault), "trace": traceback.format_exc()}, "error")

    def open(self) -> None:
        """Everything that takes time: processes, folders, models, and a first request to each."""
        settings, closing = self.settings, self.closing
        if settings.data is None:
            room = tempfile.TemporaryDirectory(prefix="seqvae-serve-", ignore_cleanup_errors=True)
            data = Path(closing.enter_context(room))
        else:
            data = settings.data
        self.reader = closing.enter_context(Reader(settings.parsers))
        self.jobs = Jobs(data, settings.retention) if settings.jobs else None
        if self.jobs is not None:
            closing.callback(self.jobs.close)
        trained = self.jobs.trained if self.jobs else lambda name: None
        slots = settings.slots if settings.batching else 0
        self.shelf = Shelf(
            settings.models, self.reader, data / "attributes", slots, trained, self.telemetry.stepped
        )
        closing.callback(self.shelf.close)
        if self.jobs is not None:
            self.jobs.models = self.shelf.folders
        for name in self.shelf.folders:
            offered = self.shelf.get(name)
            offered.generate(schemas.Generate())
            offered.info()
        self.telemetry.queue.set_function(lambda: sum(waiting for waiting, _ in self.loops()))
        self.telemetry.slots.set_function(lambda: sum(decoding for _, decoding in self.loops()))
        self.ready = True

    def loops(self) -> list[Gauge]:
        """What the models' decoding loops are doing."""
        return [offered.batcher.gauge() for offered in self.shelf.offered() if offered.batcher]

    def close(self) -> None:
        self.ready = False
        self.closing.close()

    async def work(self, request: Request, do: Callable[[], Result], ticket: Ticket | None = None) -> Result:
        """Runs `do` in a thread, unless the queue is full; gives it up with its client or its deadline."""
        if self.inside >= self.settings.queue:
            raise Busy
        ticket = ticket or Ticket()
        ticket.deadline, ticket.hands = time.monotonic() + self.settings.deadline, self.hands
        self.inside += 1

        def run() -> Result:
            with holding(ticket):
                return do()

        async def follow() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            ticket.leave()

        following = asyncio.ensure_future(follow())
        try:
            return await anyio.to_thread.run_sync(run, limiter=self.limiter)
        finally:
            following.cancel()
            self.inside -= 1


def create_app(settings: Settings | None = None) -> FastAPI:
    """The app; models are loaded while it starts up, and /readyz says when they are there."""
    settings = settings or Settings()
    desk = Desk(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        desk.limiter = anyio.CapacityLimiter(settings.queue)
        opening = asyncio.ensure_future(anyio.to_thread.run_sync(desk.start))
        try:
            yield
        finally:
            await opening
            await anyio.to_thread.run_sync(desk.close)

    app = FastAPI(
        title="seqvae",
        version=__version__,
        description="Sequence VAEs over HTTP: melodies, sentences and pictures.",
        lifespan=lifespan,
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        responses={
            status: {"model": Refusal} for status in (400, 401, 403, 404, 408, 413, 422, 429, 500, 503)
        },
    )
    app.state.desk = desk
    add_faults(app, desk)
    add_health(app, desk)
    add_verbs(app, desk)
    add_jobs(app, desk)
    app.mount("/studio", StaticFiles(directory=STUDIO), name="studio")

    @app.get("/", include_in_schema=False)
    async def studio() -> FileResponse:
        return FileResponse(STUDIO / "index.html")

    app.add_middleware(
        Guard,
        keys=settings.keys,
        origins=settings.origins,
        hosts=settings.hosts,
        rate=settings.rate,
        largest=settings.largest,
        refused=desk.telemetry.refused,
    )
    app.add_middleware(Watched, telemetry=desk.telemetry)
    return app


# ------------------------------------------------------------------------------------------ faults


def refusal(status: int, sentence: str, wait: int = 0) -> JSONResponse:
    return JSONResponse({"error": sentence}, status, {"Retry-After": str(wait)} if wait else None)


def add_faults(app: FastAPI, desk: Desk) -> None:
    def busy(reason: str, sentence: str) -> JSONResponse:
        desk.telemetry.refused(reason)
        return refusal(503, sentence, 1)

    @app.exception_handler(Busy)
    async def full(request: Request, fault: Exception) -> JSONResponse:
        return busy("queue", BUSY)

    @app.exception_handler(Unwanted)
    async def late(request: Request, fault: Exception) -> JSONResponse:
        return busy("deadline", "the server was too busy to answer in time; try again in a moment")

    @app.exception_handler(Lost)
    async def lost(request: Request, fault: Exception) -> JSONResponse:
        return busy("lost", "what decodes for this model was ended from without; try again in a moment")

    @app.exception_handler(TimeoutError)
    async def unread(request: Request, fault: Exception) -> JSONResponse:
        return busy("readers", "too many files wait to be read; try again in a moment")

    @app.exception_handler(SeqvaeError)
    async def mistaken(request: Request, fault: Exception) -> JSONResponse:
        return refusal(422, " ".join(str(fault).split()))

    @app.exception_handler(RequestValidationError)
    async def misspelt(request: Request, fault: RequestValidationError) -> JSONResponse:
        return refusal(422, schemas.sentence(list(fault.errors())))

    @app.exception_handler(HTTPException)
    async def named(request: Request, fault: HTTPException) -> JSONResponse:
        plain = {"Not Found": "there is nothing at this address"}
        plain |= {"Method Not Allowed": "this address takes other methods"}
        told = plain.get(str(fault.detail), str(fault.detail))
        return JSONResponse({"error": told}, fault.status_code, fault.headers)


def add_health(app: FastAPI, desk: Desk) -> None:
    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> dict[str, str]:
        require_ready(desk)
        return {"status": "ready"}

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        return Response(desk.telemetry.text(), media_type=MEDIA_TYPE)


def absent(what: str) -> HTTPException:
    return HTTPException(404, f"there is no such {what}")


def require_ready(desk: Desk) -> None:
    if desk.fault:
        raise HTTPException(503, f"the service could not start: {desk.fault}")
    if not desk.ready:
        raise HTTPException(503, "the models are being loaded; try again in a moment", {"Retry-After": "1"})


def require_keeping(desk: Desk) -> Jobs:
    if desk.jobs is None:
        raise HTTPException(501, "jobs and attributes are kept by one process alone, and this is a replica")
    return desk.jobs


# ------------------------------------------------------------------------------------------ verbs


def add_verbs(app: FastAPI, desk: Desk) -> None:
    def offered(name: str) -> Offered:
        require_ready(desk)
        try:
            return desk.shelf.get(name)
        except KeyError:
            raise absent("model") from None

    async def answer(request: Request, do: Callable[[], BaseModel]) -> Response:
        """Checked once, as it was made; serialised by pydantic alone, in the thread that made it."""
        data = await desk.work(request, lambda: do().model_dump_json(exclude_none=True))
        return Response(data, media_type="application/json")

    async def verb(request: Request, name: str, do: str, body: BaseModel, stream: bool) -> Response:
        if not stream:
            return await answer(request, lambda: getattr(offered(name), do)(body))
        model = await anyio.to_thread.run_sync(offered, name)
        return await streamed(desk, request, model, lambda: getattr(model, do)(body))

    @app.get("/v1/models", response_model=list[schemas.ModelInfo])
    async def list_models(request: Request) -> Any:
        require_ready(desk)
        return await desk.work(request, lambda: [desk.shelf.get(name).info() for name in known_models(desk)])

    @app.get("/v1/models/{model}", response_model=schemas.ModelInfo)
    async def show_model(request: Request, model: str) -> Any:
        return await answer(request, lambda: offered(model).info())

    def add(do: str, takes: Any, gives: Any, about: str) -> None:
        async def endpoint(request: Request, model: str, body: Any, stream: bool = False) -> Response:
            return await verb(request, model, do, body, stream)

        endpoint.__annotations__["body"] = takes
        endpoint.__name__, endpoint.__doc__ = do, about
        app.post(f"/v1/models/{{model}}/{do}", response_model=gives)(endpoint)

    add("generate", schemas.Generate, Made, "New melodies, sentences or pictures.")
    add("encode", schemas.Encode, schemas.Latent, "Where a thing lies in the latent space.")
    add("decode", schemas.Decode, Made, "What lies at z: one song of all rows, or one thing a row.")
    add("reconstruct", schemas.OfThing, Made, "A thing as the model remembers it.")
    add("interpolate", schemas.Interpolate, Made, "The way from a to b, or places between four corners.")
    add("vary", schemas.Vary, Made, "Variations of a thing.")
    add("shift", schemas.Shift, Made, "A thing brought to places of attributes.")

    @app.get("/v1/models/{model}/attributes", response_model=list[schemas.AttributeInfo])
    async def list_attributes(request: Request, model: str) -> Any:
        return await desk.work(request, lambda: offered(model).attributes())

    @app.post("/v1/models/{model}/attributes", response_model=schemas.AttributeInfo, status_code=201)
    async def learn_attribute(request: Request, model: str, body: schemas.LearnAttribute) -> Any:
        """What leads from the first things to the second."""
        require_ready(desk)
        require_keeping(desk)
        return await desk.work(request, lambda: offered(model).learn(body))

    @app.get("/v1/models/{model}/map", response_model=schemas.LatentMap)
    async def show_map(request: Request, model: str) -> Any:
        return await answer(request, lambda: offered(model).map())

    @app.post("/v1/models/{model}/map", response_model=schemas.FoundOnMap)
    async def look_on_map(request: Request, model: str, body: schemas.OnMap) -> Any:
        return await answer(request, lambda: offered(model).on_map(body))

    @app.post("/v1/read", response_model=MadeThing, openapi_extra=RAW)
    async def read(request: Request, model: SHORT = "melody", name: SHORT = "") -> Any:
        """What is in a file, as a model reads it; the name is of no consequence."""
        data = await request.body()
        thing = Thing.model_construct(song=None, text=None, file=data, z=None, track=None, metre="4/4")
        return await answer(request, lambda: offered(model).desk.read(thing))

    @app.post("/v1/render", response_class=Response)
    async def render(request: Request, body: schemas.Render) -> Response:
        """A song as a file."""
        require_ready(desk)
        data = await desk.work(request, lambda: rendered(body, desk.reader))
        return Response(data, media_type=MEDIA[body.format])


BYTES = {"schema": {"type": "string", "format": "binary"}}
RAW: dict[str, Any] = {"requestBody": {"content": {"application/octet-stream": BYTES}}}


def known_models(desk: Desk) -> list[str]:
    trained = [info.model for info in desk.jobs.all() if info.model] if desk.jobs else []
    return [*desk.shelf.folders, *trained]


async def streamed(desk: Desk, request: Request, model: Offered, do: Callable[[], BaseModel]) -> Response:
    """The steps of every row as they are decoded, then the answer, as server-sent events."""
    loop, events = asyncio.get_running_loop(), asyncio.Queue[tuple[str, Any] | None]()
    written: dict[int, list[np.ndarray]] = {}

    def watch(row: int, symbols: np.ndarray) -> None:
        steps = written.setdefault(row, [])
        steps.append(symbols)
        told: dict[str, Any] = {"row": row, "step": len(steps) - 1, "symbols": symbols.tolist()}
        if model.model.codec.kind == "text":
            told["text"] = model.model.codec.decode(np.stack(steps), np.empty(0, np.int16))
        loop.call_soon_threadsafe(events.put_nowait, ("step", json.dumps(told)))

    async def run() -> None:
        try:
            made = await desk.work(
                request, lambda: do().model_dump_json(exclude_none=True), Ticket(watch=watch)
            )
            await events.put(("done", made))
        except SeqvaeError as fault:
            await events.put(("error", json.dumps({"error": " ".join(str(fault).split())})))
        except (Busy, Unwanted, Lost, TimeoutError):
            await events.put(("error", json.dumps({"error": BUSY})))
        except Exception as fault:
            desk.telemetry.log("fault", {"fault": repr(fault), "trace": traceback.format_exc()}, "error")
            await events.put(("error", json.dumps({"error": "the server failed"})))
        await events.put(None)

    if desk.inside >= desk.settings.queue:
        raise Busy
    task = asyncio.ensure_future(run())

    async def lines() -> AsyncIterator[str]:
        try:
            while (event := await events.get()) is not None:
                yield sse(*event)
        finally:
            task.cancel()

    return StreamingResponse(lines(), media_type=EVENTS, headers=FRESH)


def sse(event: str, data: str) -> str:
    return f"event: {event}\ndata: {data}\n\n"


# ------------------------------------------------------------------------------------------ jobs


def add_jobs(app: FastAPI, desk: Desk) -> None:
    def jobs() -> Jobs:
        require_ready(desk)
        return require_keeping(desk)

    async def call(do: Callable[[], Result], what: str = "job") -> Result:
        try:
            return await anyio.to_thread.run_sync(do)
        except KeyError:
            raise absent(what) from None

    @app.post("/v1/corpora", response_model=CorpusInfo, status_code=201)
    async def create_corpus() -> Any:
        """An empty corpus, to which files are added."""
        return await call(jobs().create_corpus)

    @app.get("/v1/corpora/{corpus}", response_model=CorpusInfo)
    async def show_corpus(corpus: str) -> Any:
        return await call(lambda: jobs().corpus(corpus), "corpus")

    @app.delete("/v1/corpora/{corpus}", status_code=204)
    async def drop_corpus(corpus: str) -> None:
        await call(lambda: jobs().drop_corpus(corpus), "corpus")

    @app.post("/v1/corpora/{corpus}/files", response_model=CorpusInfo, openapi_extra=RAW)
    async def add_file(request: Request, corpus: str, name: Annotated[str, Query(max_length=1000)]) -> Any:
        """One more file; of its name the ending is used."""
        held = jobs()
        data = await request.body()
        return await call(lambda: held.add_file(corpus, name, data), "corpus")

    @app.post("/v1/jobs", response_model=JobInfo, status_code=202)
    async def submit_job(body: Job) -> Any:
        """A training, or a whole-song interpolation."""
        return await call(lambda: jobs().submit(body))

    @app.get("/v1/jobs", response_model=list[JobInfo])
    async def list_jobs() -> Any:
        return await call(lambda: jobs().all())

    @app.get("/v1/jobs/{job}", response_model=JobInfo)
    async def show_job(job: str) -> Any:
        return await call(lambda: jobs().get(job))

    @app.post("/v1/jobs/{job}/cancel", response_model=JobInfo)
    async def cancel_job(job: str) -> Any:
        return await call(lambda: jobs().cancel(job))

    @app.delete("/v1/jobs/{job}", status_code=204)
    async def drop_job(job: str) -> None:
        await call(lambda: jobs().drop(job))

    @app.get("/v1/jobs/{job}/files/{name}", response_class=FileResponse)
    async def job_file(job: str, name: str) -> FileResponse:
        return FileResponse(await call(lambda: jobs().file(job, name), "file"), filename=name)

    @app.get("/v1/jobs/{job}/events", response_class=StreamingResponse)
    async def job_events(job: str) -> StreamingResponse:
        """The job at once and whenever it changes, until it is over, as server-sent events."""
        held = jobs()
        await call(lambda: held.get(job))

        async def lines() -> AsyncIterator[str]:
            async for info in held.changes(job, lambda: desk.leaving):
                yield sse("job", info.model_dump_json())

        return StreamingResponse(lines(), media_type=EVENTS, headers=FRESH)
