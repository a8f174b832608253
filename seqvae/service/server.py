"""One process of the service, by uvicorn: from a port of its own to an end that lets requests finish.

Conventions: without keys it listens to this machine alone; SIGTERM and SIGINT end it in peace.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import signal
import socket
import sys
from collections.abc import Callable

import uvicorn

from seqvae.service.app import Desk, Settings, create_app
from seqvae.song import SeqvaeError

GRACE = 10  # seconds that requests at work have at the end
MOST_WAITING = 2048  # connections that are not yet accepted


def listen(host: str, port: int, keys: tuple[str, ...]) -> socket.socket:
    """A socket that listens there; port 0 is any free one.

    Raises `SeqvaeError` where the port is taken or not to be had, and where others than this machine could
    come in without a key.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        inside = ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback
        if not (inside or keys):
            raise SeqvaeError(
                f"{host} can be reached from outside; give keys with --keys (seqvae key makes one)"
            )
        return socket.create_server(address[:2], family=family, backlog=MOST_WAITING)
    except (OSError, OverflowError, UnicodeError) as fault:
        if getattr(fault, "errno", None) == errno.EADDRINUSE:
            raise SeqvaeError(f"port {port} of {host} is taken; choose another with --port") from None
        why = getattr(fault, "strerror", None) or fault
        raise SeqvaeError(f"nobody can listen at {host}, port {port}: {why}") from None


def address(listening: socket.socket) -> str:
    """The URL of what listens there."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Announced(uvicorn.Server):
    """Says that it answers, once it does; ends where the models cannot be loaded."""

    def __init__(self, config: uvicorn.Config, desk: Desk, say: Callable[[], None]) -> None:
        super().__init__(config)
        self.desk, self.say = desk, say

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.say()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.desk.leaving = True  # streams of jobs' events end, which else would last as long as a job
        await super().shutdown(sockets)

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or bool(self.desk.fault)


def run(settings: Settings, host: str, port: int, say: Callable[[str], None]) -> None:
    """Serves until a signal comes; `say` is told the URL.

    Raises `SeqvaeError` as `listen` does, and where the models or the folder of data are of no use.
    """
    with listen(host, port, settings.keys) as listening:
        url, app = address(listening), create_app(settings)
        desk: Desk = app.state.desk
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,  # telemetry has one
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=GRACE,
        )
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))  # which uvicorn sends on at its end
        with contextlib.suppress(KeyboardInterrupt):  # likewise
            Announced(config, desk, lambda: say(url)).run(sockets=[listening])
        if desk.fault:
            raise SeqvaeError(f"the service cannot start: {desk.fault}")
