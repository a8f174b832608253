"""What the service tells of itself: figures for Prometheus, and a line of JSON for each request on stderr.

Conventions: times are in seconds; a route is its template, never a path that a client chose, so that
no client makes labels; what a request says (songs, sentences, keys) is in no line.
"""

from __future__ import annotations

import json
import re
import secrets
import sys
import time
import traceback
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST: ContextVar[str] = ContextVar("request", default="")  # the id of the request at work
GIVEN = re.compile(r"[A-Za-z0-9._-]{1,64}")  # an id that a client may give
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
QUIET = ("/healthz", "/readyz", "/metrics")  # asked every few seconds: counted, and logged when they fail
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4  # of Telemetry.text


class Telemetry:
    """The figures of one app, in a registry of their own."""

    def __init__(self, log: bool = True) -> None:
        own = self.registry = CollectorRegistry()
        ProcessCollector(registry=own)
        labels = ("method", "route", "status")
        self.latency = Histogram(
            "seqvae_request_seconds", "Until an answer's end.", labels, buckets=SECONDS, registry=own
        )
        self.queue = Gauge("seqvae_queue_rows", "Rows that wait to be decoded.", registry=own)
        self.slots = Gauge("seqvae_slots_in_use", "Rows being decoded.", registry=own)
        self.rows = Histogram("seqvae_step_rows", "Rows decoded in a step.", buckets=ROWS, registry=own)
        self.tokens = Counter("seqvae_tokens", "Symbols decoded.", registry=own)
        self.refusals = Counter("seqvae_refusals", "Requests refused.", ("reason",), registry=own)
        self.speaks = log

    def text(self) -> bytes:
        """Everything, as Prometheus reads it (MEDIA_TYPE)."""
        return generate_latest(self.registry)

    def stepped(self, rows: int) -> None:
        """Counts a step of so many rows."""
        self.rows.observe(rows)
        self.tokens.inc(rows)

    def refused(self, reason: str) -> None:
        """Counts a refusal; reasons are few and the program's own words."""
        self.refusals.labels(reason).inc()

    def log(self, event: str, fields: Mapping[str, object] | None = None, level: str = "info") -> None:
        if not self.speaks:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {"time": now, "level": level, "event": event, "request_id": REQUEST.get(), **(fields or {})}
        sys.stderr.write(json.dumps(line, default=str) + "\n")
        sys.stderr.flush()


class Watched:
    """An app whose requests have an id (X-Request-ID), are timed and logged.

    It stands outside of everything: what nobody caught ends here, as a 500 of one sentence.
    """

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self.app, self.telemetry = app, telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        given = Headers(scope=scope).get("x-request-id", "")
        name = given if GIVEN.fullmatch(given) else secrets.token_hex(8)
        status, sent = 499, 0  # nginx's number for a client that left before its answer

        async def tagged(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = name
            sent += len(message.get("body", b""))
            await send(message)

        begun, token = time.perf_counter(), REQUEST.set(name)
        try:
            await self.app(scope, receive, tagged)
        except Exception as fault:  # a client must get an answer, and the log all of it
            what = {"fault": repr(fault), "trace": traceback.format_exc()}
            self.telemetry.log("fault", what, "error")
            if status == 499:
                await JSONResponse({"error": f"the server failed, request {name}"}, 500)(
                    scope, receive, tagged
                )
        finally:
            self._told(scope, status, sent, time.perf_counter() - begun)
            REQUEST.reset(token)

    def _told(self, scope: Scope, status: int, sent: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in METHODS else "other"
        route = getattr(scope.get("route"), "path", "none")
        self.telemetry.latency.labels(method, route, f"{status // 100}xx").observe(seconds)
        if route in QUIET and status < 400:
            return
        fields = {
            "client": (scope.get("client") or ("",))[0],
            "method": method,
            "route": route,
            "status": status,
            "seconds": round(seconds, 4),
            "bytes": sent,
        }
        self.telemetry.log("request", fields, "error" if status >= 500 and status != 503 else "info")
