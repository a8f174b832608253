"""What tests share: one thread, hypothesis without chance, a tiny model, commands run, a server."""

import multiprocessing
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import httpx  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
import uvicorn  # noqa: E402
from click.testing import CliRunner, Result  # noqa: E402
from hypothesis import settings  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn.utils.rnn import pad_sequence  # noqa: E402

from seqvae import files  # noqa: E402
from seqvae.cli import main  # noqa: E402
from seqvae.codecs import NotesCodec, VoicesCodec  # noqa: E402
from seqvae.corpus import collate  # noqa: E402
from seqvae.latent import Attribute  # noqa: E402
from seqvae.model import HierarchicalVAE, SequenceVAE, Size  # noqa: E402
from seqvae.service.app import Settings, create_app  # noqa: E402
from seqvae.song import Metre, Note, Phrase  # noqa: E402

DATA = Path(__file__).parent.parent / "data"
torch.set_num_threads(1)
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def codec() -> NotesCodec:
    return NotesCodec()


@pytest.fixture(scope="session")
def size() -> Size:
    return Size(embedding=(12, 12, 8, 4), condition=4, encoder=24, decoder=40, head=20, latent=8)


@pytest.fixture
def model(codec: NotesCodec, size: Size) -> SequenceVAE:
    """Untrained, the same for every test."""
    torch.manual_seed(0)
    return SequenceVAE(codec.streams, codec.conditions, size)


def phrase(rng: np.random.Generator, metre: Metre) -> Phrase:
    """Two bars of eighths and quarters walking up and down a scale."""
    notes, at, degree = [], 0.0, int(rng.integers(7, 14))
    while at < 2 * metre.beats:
        duration = float(rng.choice((0.5, 0.5, 1.0)))
        pitch = 48 + 12 * (degree // 7) + (0, 2, 4, 5, 7, 9, 11)[degree % 7]
        notes.append(Note(at, min(duration, 2 * metre.beats - at), pitch, int(rng.integers(60, 110))))
        at, degree = at + duration, degree + int(rng.integers(-2, 3))
    return Phrase(tuple(notes), metre, 2)


@pytest.fixture(scope="session")
def phrases() -> list[Phrase]:
    rng = np.random.default_rng(0)
    return [phrase(rng, Metre(*((4, 4), (3, 4), (6, 8), (2, 4))[i % 4])) for i in range(24)]


@pytest.fixture(scope="session")
def batch(codec: NotesCodec, phrases: list[Phrase]) -> tuple[Tensor, Tensor, Tensor]:
    """The phrases' steps (24, T, 4), lengths (24,) and conditions (24, 2), zero-padded."""
    rows = [codec.encode(phrase) for phrase in phrases]
    steps = pad_sequence([torch.from_numpy(row.steps).long() for row in rows], batch_first=True)
    conditions = torch.from_numpy(np.stack([row.condition for row in rows])).long()
    return steps, torch.tensor([len(row.steps) for row in rows]), conditions


LONGER = NotesCodec(4, section=2)  # two sections


@pytest.fixture
def whole(size: Size) -> HierarchicalVAE:
    """Untrained, of things in two sections, the same for every test."""
    torch.manual_seed(0)
    told = replace(size, latent=6, conductor=16, section=8)
    return HierarchicalVAE(LONGER.streams, LONGER.conditions, told, LONGER.sections)


@pytest.fixture(scope="session")
def longer(phrases: list[Phrase]) -> list[Phrase]:
    """Of 4 bars: two phrases in one metre each, the second section of the last without notes."""
    pairs = [(phrases[i], phrases[(i + 4) % 24]) for i in range(11)]
    found = [
        Phrase((*a.notes, *(n._replace(onset=n.onset + a.beats) for n in b.notes)), a.metre, 4)
        for a, b in pairs
    ]
    return [*found, Phrase(phrases[11].notes, phrases[11].metre, 4)]


@pytest.fixture(scope="session")
def long_batch(longer: list[Phrase]) -> tuple[Tensor, Tensor, Tensor]:
    """Their steps (12, T, 4), lengths (12,) and conditions (12, 2)."""
    found = collate([LONGER.encode(one) for one in longer])
    steps, lengths, conditions = (torch.from_numpy(part) for part in found)
    return steps, lengths, conditions


def nowhere(size: int) -> Attribute:
    """An attribute of that many dimensions that moves nothing."""
    alike = torch.eye(size).repeat(2, 1, 1)
    return Attribute(torch.zeros(2, size), torch.zeros(size), alike, torch.zeros_like(alike))


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def done(*words: object) -> str:
    """What a command says that must work."""
    result = run(*words)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*words: object) -> str:
    """The one sentence of a refusal."""
    result = run(*words)
    assert result.exit_code == 2 and "Traceback" not in result.output and not result.stdout, result.output
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
    return result.stderr


@contextmanager
def served(settings: Settings) -> Iterator[str]:
    """The real server in a process of its own, ready, on a free port: its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(settings, port))
    server.start()
    url = f"http://127.0.0.1:{port}"
    try:
        while not ready(url):
            assert server.is_alive(), "the server does not start"
            time.sleep(0.05)
        yield url
    finally:
        server.terminate()
        server.join()


def serve(settings: Settings, port: int) -> None:
    torch.set_num_threads(1)
    uvicorn.run(create_app(settings), port=port, log_level="warning", access_log=False)


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="session")
def ensemble(size: Size) -> tuple[SequenceVAE, tuple[Tensor, Tensor, Tensor]]:
    """An untrained model of trios, and our windows as a batch: steps (7, T, 5), lengths, conditions."""
    codec = VoicesCodec(ensemble="trio")
    batch = collate(
        [codec.encode(piece) for _, piece in codec.pieces(files.read(DATA / "back_porch_trio.mid"))]
    )
    torch.manual_seed(0)
    model = SequenceVAE(codec.streams, codec.conditions, replace(size, embedding=(12, 4, 12, 8, 4)))
    steps, lengths, conditions = (torch.from_numpy(part) for part in batch)
    return model.requires_grad_(False), (steps, lengths, conditions)
