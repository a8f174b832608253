"""Who may come in, and with how much: keys, hosts, origins, sizes and rates, before any request is read.

Conventions: a refusal is JSON {"error": one sentence}; keys are held as SHA-256 and compared in constant
time. Where there are keys, all but `OPEN` and the studio's files needs one.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN = (
    "/",
    "/healthz",
    "/readyz",
    "/favicon.ico",
)  # to everybody, as often as wanted
STUDIO = "/studio/"
MOST_CLIENTS = 10_000  # whose rates are remembered
PATIENCE = 30.0  # seconds without a byte of a body that was announced
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def hashed(key: str) -> str:
    """SHA-256 of a key, in hex; no slow hash is needed, as keys are random and not thought up."""
    return hashlib.sha256(key.encode()).hexdigest()


class Buckets:
    """A token bucket for each client: `rate` requests a second, twice that at once; the last seen stay."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.clock, self.most = rate, clock, max(1.0, 2 * rate)
        self.held: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client -> (tokens, seconds)

    def wait(self, client: str) -> float:
        """Takes a token; or else the seconds until there is one."""
        now = self.clock()
        tokens, seen = self.held.pop(client, (self.most, now))
        tokens = min(self.most, tokens + (now - seen) * self.rate)
        wait = 0.0 if tokens >= 1 else (1 - tokens) / self.rate
        self.held[client] = (tokens - (wait == 0), now)
        if len(self.held) > MOST_CLIENTS:
            self.held.popitem(last=False)
        return wait


class Guard:
    """An app behind all checks; `refused` is told the reason of each refusal."""

    def __init__(
        self,
        app: ASGIApp,
        keys: Collection[str] = (),  # SHA-256, hex
        origins: Collection[str] = (),  # that pages may come from, beside our own
        hosts: Collection[str] = (),  # names we are called by, beside localhost and addresses
        rate: float = 50.0,  # requests a second and client; 0: any
        largest: int = 16_000_000,  # bytes of a body
        refused: Callable[[str], None] = lambda reason: None,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.app, self.refused, self.largest, self.patience = app, refused, largest, patience
        self.keys = [key.lower() for key in keys]
        self.origins = {origin.rstrip("/").lower() for origin in origins}
        self.hosts = {"localhost", *(host.lower() for host in hosts)}
        self.buckets = Buckets(rate, clock) if rate > 0 else None
        self.shared = CORSMiddleware(
            self._checked,
            allow_origins=self.origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=("Authorization", "X-Request-ID"),
            expose_headers=("Retry-After", "X-Request-ID"),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # there are none, and none of these checks would be made
            return await send({"type": "websocket.close", "code": 1008})
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def hardened(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        headers = Headers(scope=scope)
        if not self.keys and not self._known(headers.get("host", "")):
            sentence = "this name is not one of the server's; name it with --host-name, or give it keys"
            return await self._refuse(403, "host", sentence)(scope, receive, hardened)
        if not self._welcome(headers):
            sentence = "pages of this origin may not ask this server; allow it with --origin"
            return await self._refuse(403, "origin", sentence)(scope, receive, hardened)
        await self.shared(scope, receive, hardened)

    async def _checked(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Key, rate and size: inside CORS, as its preflights have no key and its pages may read refusals."""
        path, headers = scope["path"].removeprefix(scope.get("root_path", "")), Headers(scope=scope)
        if path not in OPEN and not path.startswith(STUDIO):
            key = self._key(headers.get("authorization", ""))
            wait = self.buckets.wait(key or _address(scope)) if self.buckets else 0.0
            if wait:
                answer = self._refuse(429, "rate", "too many requests; wait a moment", math.ceil(wait))
                return await answer(scope, receive, send)
            if self.keys and not key:
                sentence = "this needs a key, as Authorization: Bearer KEY"
                return await self._refuse(401, "key", sentence)(scope, receive, send)
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit() and len(length) < 16 and int(length) <= self.largest):
            return await self._refuse(413, "size", self._limit)(scope, receive, send)
        try:
            await self.app(scope, self._counted(receive), send)
        except HTTPException as fault:  # from _counted, where the app has no handler for it
            await JSONResponse({"error": fault.detail}, fault.status_code)(scope, receive, send)

    @property
    def _limit(self) -> str:
        return f"a body has at most {self.largest / 1e6:g} MB"

    def _counted(self, receive: Receive) -> Receive:
        """The body's pieces, until they are too many or stay away; the length it told may be wrong."""
        seen, more = 0, True

        async def piece() -> Message:
            nonlocal seen, more
            try:
                async with asyncio.timeout(self.patience if more else None):
                    message = await receive()
            except TimeoutError:
                self.refused("slow")
                raise HTTPException(408, "the rest of the body did not come") from None
            more = message.get("more_body", False)
            seen += len(message.get("body", b""))
            if seen > self.largest:
                self.refused("size")
                raise HTTPException(413, self._limit)
            return message

        return piece

    def _refuse(self, status: int, reason: str, sentence: str, wait: int = 0) -> JSONResponse:
        self.refused(reason)
        headers = {"Retry-After": str(max(1, wait))} if wait else {}
        if status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse({"error": sentence}, status, headers)

    def _key(self, authorization: str) -> str:
        """The hash of the key given, "" where it is none of ours."""
        scheme, _, key = authorization.partition(" ")
        given = hashed(key.strip())
        fits = [hmac.compare_digest(given, held) for held in self.keys]  # all: time tells nothing
        return given if any(fits) and scheme.lower() == "bearer" else ""

    def _known(self, host: str) -> bool:
        """Addresses, and names that are ours: any other may be a foreign page's, led here by its DNS."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
            return name in self.hosts or bool(ipaddress.ip_address(name))
        except ValueError:
            return False

    def _welcome(self, headers: Headers) -> bool:
        """No page at all, or one of ours, or of an origin that may; a proxy may have taken TLS off."""
        origin, host = headers.get("origin"), headers.get("host", "-").lower()
        return origin is None or origin.lower() in self.origins or origin.lower().partition("://")[2] == host


def _address(scope: Scope) -> str:
    """The client's address; of IPv6 the network, as everybody there has 2^64."""
    address = (scope.get("client") or ("",))[0]
    if ":" not in address or "." in address:
        return address
    return str(ipaddress.ip_network((address.partition("%")[0], 64), strict=False))
