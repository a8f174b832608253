"""Past one machine: replicas of the app on Ray Serve, each of which builds its own.

Conventions: a replica keeps nothing, so that any may answer any request; jobs, uploads and attributes stay
with one process (`server`). Where RAY_ADDRESS names a cluster the replicas run there, else all here.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before ray is imported: nothing is told to its makers

import ray  # noqa: E402
import torch  # noqa: E402
from fastapi import FastAPI  # noqa: E402
from ray import serve  # noqa: E402

from seqvae.service.app import Settings, create_app  # noqa: E402
from seqvae.service.server import GRACE, address, listen  # noqa: E402

STORE = 100_000_000  # bytes of memory that Ray shares between processes; requests need next to none
OPENING = 600.0  # seconds that a replica may take to load its models


def ray_app(settings: Settings, replicas: int) -> serve.Application:
    """What `serve.run` takes: so many replicas, each of which loads the models before it is asked."""
    alone = replace(settings, jobs=False, data=None)

    def build() -> FastAPI:
        torch.set_num_threads(1)
        app = create_app(alone)
        opening = app.router.lifespan_context

        @asynccontextmanager
        async def opened(app: FastAPI) -> AsyncIterator[None]:
            async with opening(app), asyncio.timeout(OPENING) as patience:
                while not app.state.desk.ready:
                    if app.state.desk.fault:
                        raise RuntimeError(app.state.desk.fault)
                    await asyncio.sleep(0.1)
                patience.reschedule(None)
                yield

        app.router.lifespan_context = opened
        return app

    replica = serve.deployment(
        name="seqvae",
        num_replicas=replicas,
        max_ongoing_requests=settings.queue,
        graceful_shutdown_timeout_s=GRACE,
    )
    return replica(serve.ingress(build)()).bind()


def run(settings: Settings, host: str, port: int, replicas: int, say: Callable[[str], None]) -> None:
    """Serves until a signal comes; `say` is told the URL. Raises `SeqvaeError` as `server.listen` does."""
    over = threading.Event()
    with listen(host, port, settings.keys) as listening:  # Ray takes it over at once
        url, port = address(listening), listening.getsockname()[1]
    if "RAY_ADDRESS" in os.environ:
        ray.init(log_to_driver=settings.log)
    else:
        ray.init(
            num_cpus=replicas, include_dashboard=False, object_store_memory=STORE, log_to_driver=settings.log
        )
    try:
        serve.start(http_options={"host": host, "port": port})
        serve.run(ray_app(settings, replicas), name="seqvae", route_prefix="/")
        for number in (signal.SIGTERM, signal.SIGINT):  # of which Ray had its own idea until here
            signal.signal(number, lambda number, frame: over.set())
        say(url)
        over.wait()
    finally:
        serve.shutdown()
        ray.shutdown()
