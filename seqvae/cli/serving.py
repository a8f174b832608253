"""serve and key."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

SERVE = {"fastapi", "starlette", "pydantic", "uvicorn", "prometheus_client", "anyio"}


@click.command()
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Another than this machine needs --keys."
)
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: a free one.")
@click.option(
    "--model", "models", multiple=True, metavar="NAME|DIR", help="Again for several.  [default: all]"
)
@click.option(
    "--data", type=click.Path(path_type=Path), help="Folder of jobs and uploads.  [default: for now]"
)
@click.option("--keys", type=click.Path(path_type=Path), help="File of keys' lines, as seqvae key prints.")
@click.option(
    "--origin", "origins", multiple=True, metavar="URL", help="Whose pages may ask, beside the own."
)
@click.option(
    "--host-name", "hosts", multiple=True, metavar="NAME", help="What the server is called as well."
)
@click.option("--queue", type=click.IntRange(1), help="Requests at work or waiting; more are refused.")
@click.option("--slots", type=click.IntRange(1), help="Rows decoded together.")
@click.option("--rate", type=click.FloatRange(0), help="Requests a second from one client; 0 for any number.")
@click.option("--deadline", type=click.FloatRange(0, min_open=True), help="Seconds a request may take.")
@click.option("--no-batching", is_flag=True, help="Decode each request by itself.")
@click.option("--engine", type=click.Choice(["uvicorn", "ray"]), default="uvicorn", show_default=True)
@click.option("--replicas", type=click.IntRange(1), help="Processes of --engine ray.")
def serve(
    host: str,
    port: int,
    models: tuple[str, ...],
    data: Path | None,
    keys: Path | None,
    origins: tuple[str, ...],
    hosts: tuple[str, ...],
    queue: int | None,
    slots: int | None,
    rate: float | None,
    deadline: float | None,
    no_batching: bool,
    engine: str,
    replicas: int | None,
) -> None:
    """Serve the models over HTTP, and the studio, a page to hear and steer them, in the browser.

    The address is printed once it answers. Without --data, jobs and uploads are gone with the server.
    """
    if replicas and engine != "ray":
        raise click.UsageError("replicas are of --engine ray; without it, run several servers")
    given = {"queue": queue, "slots": slots, "rate": rate, "deadline": deadline}
    changed: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    changed |= {
        "models": models,
        "data": data,
        "origins": origins,
        "hosts": hosts,
        "batching": not no_batching,
    }
    changed |= {"keys": held(keys) if keys else ()}
    with extra("serve", SERVE):
        import torch

        from seqvae.engine import find_model
        from seqvae.service import server
        from seqvae.service.app import Settings

    for name in models:
        find_model(name)  # so that a wrong one is said before anything listens
    if data:
        room(data)
    torch.set_num_threads(1)  # rows decoded together gain little from a second, and bytes stay the same
    if engine == "uvicorn":
        return server.run(Settings(**changed), host, port, click.echo)
    with extra("ray", {"ray"}):
        from seqvae.service import cluster
    cluster.run(Settings(**changed), host, port, replicas or 1, click.echo)


@click.command()
def key() -> None:
    """Print a new random key, and the line that says so in the file of serve --keys.

    The file holds no key itself: who reads it can do nothing with it.
    """
    with extra("serve", SERVE):
        from seqvae.service.guard import hashed

    new = secrets.token_urlsafe(32)
    click.echo(f"key: {new}\nline: {hashed(new)}")


def held(file: Path) -> tuple[str, ...]:
    """The hashes in a file of keys, one a line; what stands after a # is a note."""
    from seqvae.song import SeqvaeError

    try:
        lines = [line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as fault:
        raise SeqvaeError(f"{file} cannot be read: {getattr(fault, 'strerror', fault)}") from None
    for number, line in enumerate(lines, 1):
        if line and not re.fullmatch("[0-9a-fA-F]{64}", line):
            raise SeqvaeError(f"line {number} of {file} is no line that seqvae key prints")
    found = tuple(line.lower() for line in lines if line)
    if not found:
        raise SeqvaeError(f"{file} holds no key; seqvae key makes one")
    return found


def room(folder: Path) -> None:
    from seqvae.song import SeqvaeError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise SeqvaeError(f"{folder} cannot be a folder of data: {fault.strerror}") from None


@contextmanager
def extra(name: str, libraries: set[str]) -> Iterator[None]:
    """What is imported inside needs an optional extra, which may not be there."""
    try:
        yield
    except ModuleNotFoundError as fault:
        if str(fault.name).partition(".")[0] not in libraries:
            raise
        raise click.UsageError(f"{fault.name} is not installed; pip install 'seqvae[{name}]'") from None
