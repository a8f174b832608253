"""The service under load and attack: python benchmarks/service.py load|soak [SECONDS] | uploads|drag [COUNT]

load   64 clients, each asking for 8 two-bar melodies again and again, of one process with the micro-batcher
       and of the same app without it, in turns; then tokens a second under that load against offline decoding
       at the number of rows that the loop reached.
soak   a steady load, then twice what the server can do for SECONDS (600), then the steady load again:
       statuses, memory of the server, latency. Clients keep to a clock, whether they are answered or not.

uploads  COUNT (10,000) damaged files of every format, sent to /v1/read: a thing or one sentence each.
drag     CPU time to the studio's first picture, and from COUNT (100) moves on its square to the new roll.

The clients speak HTTP over bare sockets in this process, which costs a tenth of a client library.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from fuzz import cases, damaged
from PIL import Image
from playwright.sync_api import sync_playwright

from seqvae.decoding import Sampling, Slots, prepared
from seqvae.pictures import avatars
from seqvae.pipeline import Pipeline

CLIENTS, MELODIES = 64, 8
SERVER = """
import sys, torch, uvicorn
from seqvae.service.app import Settings, create_app
torch.set_num_threads(1)
port, batching, parsers, *models = sys.argv[1:]
settings = Settings(tuple(models), batching=batching == "True", parsers=int(parsers), rate=0, log=False)
if __name__ == "__main__":
    uvicorn.run(create_app(settings), port=int(port), access_log=False, log_level="warning")
"""


@contextmanager
def serving(
    batching: bool, models: Sequence[str] = ("melody",), parsers: int = 1
) -> Iterator[tuple[int, int]]:
    """A server of its own process: its port and its process id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", SERVER, str(port), str(batching), str(parsers), *models]
    child = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        for _ in range(600):
            time.sleep(0.1)
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz")
                break
            except OSError:
                assert child.poll() is None, "the server does not start"
        yield port, child.pid
    finally:
        child.terminate()
        child.wait()


def asked(seed: int) -> bytes:
    """A request for MELODIES melodies of two bars."""
    body = json.dumps({"n": MELODIES, "bars": 2, "seed": seed}).encode()
    return posted("/v1/models/melody/generate", body, "application/json")


def posted(path: str, body: bytes, kind: str) -> bytes:
    head = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


class Line:
    """A connection that is kept."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.ends: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> int:
        """The status of the answer, which is read whole; a line that was idle for too long is made anew."""
        fresh = self.ends is None
        if self.ends is None:
            self.ends = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self.ends
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            if fresh:
                raise
            self.ends = None
            return await self.ask(request)
        length = re.search(rb"(?i)content-length: (\d+)", head)
        assert length is not None
        await reader.readexactly(int(length[1]))
        return int(head[9:12])


async def closed_loop(port: int, seconds: float) -> list[float]:
    """Latencies of CLIENTS that ask again as soon as they are answered."""
    took: list[float] = []
    stop = time.perf_counter() + seconds

    async def client(number: int) -> None:
        line, seed = Line(port), number
        while time.perf_counter() < stop:
            begun = time.perf_counter()
            assert await line.ask(asked(seed)) == 200
            took.append(time.perf_counter() - begun)
            seed += CLIENTS

    await asyncio.gather(*map(client, range(CLIENTS)))
    return took


def figures(port: int) -> dict[str, float]:
    """What the server counts."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    return {name: float(value) for name, value in re.findall(r"(?m)^(seqvae_\w+) ([\d.e+]+)$", text)}


def offline(rows: int) -> float:
    """Tokens a second of melodies decoded here, `rows` at a time and always so many."""
    torch.set_num_threads(1)
    model = Pipeline.from_pretrained("melody")
    (z, _), conditions = model.atlas(2048)
    seeds, most = [(0, row) for row in range(len(z))], model.codec.longest
    ready = prepared(model.stepper, z, torch.from_numpy(conditions).long(), Sampling(), seeds, most)
    slots: Slots[int] = Slots(model.stepper, -(-rows // 8) * 8, most)
    tokens, begun, entered = 0, 0.0, 0
    for step in range(300):
        if step == 60:
            tokens, begun = 0, time.perf_counter()
        if room := min(rows - len(slots), len(z) - entered % len(z)):
            at = entered % len(z)
            slots.enter(range(entered, entered + room), ready.some(at, at + room))
            entered += room
        tokens += len(slots)
        slots.step()
    return tokens / (time.perf_counter() - begun)


def load(seconds: float = 20.0, rounds: int = 3) -> None:
    found: dict[bool, list[tuple[float, float, float]]] = {True: [], False: []}
    reached, speed = [], []
    with serving(True) as (batched, _), serving(False) as (alone, _):
        for _ in range(rounds):
            for batching, port in ((True, batched), (False, alone)):
                asyncio.run(closed_loop(port, 3))
                before = figures(port)
                took = sorted(asyncio.run(closed_loop(port, seconds)))
                after = figures(port)
                rate, p50, p99 = len(took) / seconds, statistics.median(took), took[int(0.99 * len(took))]
                found[batching].append((rate, p50, p99))
                print(f"batching {batching!s:5}  {rate:6.1f} requests/s  p50 {p50:.3f} s  p99 {p99:.3f} s")
                if batching:
                    gone = {name: after[name] - before[name] for name in before if name in after}
                    tokens = gone["seqvae_tokens_total"]
                    reached.append(tokens / gone["seqvae_step_rows_count"])
                    speed.append(tokens / seconds)
    medians = {
        kind: [statistics.median(column) for column in zip(*rows, strict=True)]
        for kind, rows in found.items()
    }
    rows = round(statistics.median(reached))
    print(
        f"requests a second: {medians[True][0] / medians[False][0]:.2f} times; p99 {medians[True][2]:.3f} s"
    )
    limit = offline(rows)
    print(f"tokens/s under load {statistics.median(speed):.0f} at {rows} rows a step, offline {limit:.0f}: "
          f"{statistics.median(speed) / limit:.2f}")  # fmt: skip


async def open_loop(port: int, rate: float, seconds: float, pid: int = 0) -> list[tuple[float, float, int]]:
    """Requests at a clock's ticks, `rate` a second, answered or not: (when asked, seconds, status)."""
    idle: list[Line] = []
    told: list[tuple[float, float, int]] = []
    begun = time.perf_counter()

    async def one(number: int) -> None:
        line, asking = idle.pop() if idle else Line(port), time.perf_counter()
        status = await line.ask(asked(number))
        told.append((asking - begun, time.perf_counter() - asking, status))
        idle.append(line)

    tasks = []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, begun + number / rate - time.perf_counter()))
        tasks.append(asyncio.ensure_future(one(number)))
        if pid and number % int(30 * rate) == 0:
            print(f"  {number / rate:4.0f} s  {memory(pid):.1f} MB", flush=True)
    await asyncio.gather(*tasks)
    return told


def memory(pid: int) -> float:
    """Megabytes of a process and all its children, what they share counted once."""
    own = re.search(r"Pss: +(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text())
    assert own is not None
    children = " ".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")).split()
    return int(own[1]) / 1024 + sum(memory(int(child)) for child in children)


def soak(seconds: float = 600.0) -> None:
    with serving(True) as (port, pid):
        capacity = len(asyncio.run(closed_loop(port, 15))) / 15
        print(
            f"capacity {capacity:.1f} requests/s, steady load {capacity / 2:.1f}, overload {capacity * 2:.1f}"
        )
        before = [took for _, took, _ in asyncio.run(open_loop(port, capacity / 2, 20))]
        first = asyncio.run(open_loop(port, capacity * 2, 120, pid))
        early = memory(pid)
        rest = asyncio.run(open_loop(port, capacity * 2, seconds - 120, pid))
        late = memory(pid)
        after = asyncio.run(open_loop(port, capacity / 2, 20))
        print("statuses under overload:", dict(Counter(status for _, _, status in first + rest)))
        refused = sorted(took for _, took, status in rest if status != 200)
        print(f"a refusal took {statistics.median(refused):.4f} s, p99 {refused[-len(refused) // 100]:.3f} s")
        print(f"memory after 2 minutes {early:.1f} MB, at the end {late:.1f} MB: {late / early - 1:+.1%}")
        for name, took in (
            ("before", before),
            ("first 5 s after", [t for at, t, _ in after if at < 5]),
            ("later", [t for at, t, _ in after if at >= 5]),
        ):
            print(f"steady load, {name}: median {statistics.median(took):.3f} s, most {max(took):.3f} s")
        print("statuses then:", dict(Counter(status for _, _, status in after)))


def spoilt(kind: str) -> Callable[[int], bytes]:
    """case(i) of a format, as benchmarks/fuzz.py makes them."""
    if kind not in ("png", "jpeg"):
        return cases(kind)
    whole = []
    for image, _ in avatars(6, 9, 32):
        held = io.BytesIO()
        Image.fromarray(image).save(held, kind)
        whole.append(held.getvalue())

    def case(i: int) -> bytes:
        rng = random.Random(f"{kind} {i}")
        return damaged(rng.choice(whole), rng.choice(whole), rng)

    return case


async def damage(
    port: int, model: str, case: Callable[[int], bytes], count: int
) -> tuple[Counter[int], float]:
    """Statuses of `count` files, sent by three clients, and the seconds of the slowest."""
    told: Counter[int] = Counter()
    took = [0.0]

    async def client(first: int) -> None:
        line = Line(port)
        for i in range(first, count, 3):
            asking = time.perf_counter()
            told[await line.ask(posted(f"/v1/read?model={model}", case(i), "application/octet-stream"))] += 1
            took.append(time.perf_counter() - asking)

    await asyncio.gather(*map(client, range(3)))
    return told, max(took)


def uploads(count: float = 10_000) -> None:
    with serving(True, ("melody", "avatars"), 2) as (port, _):
        for kind in ("midi", "abc", "musicxml", "mxl", "kern", "png", "jpeg"):
            model, begun = "avatars" if kind in ("png", "jpeg") else "melody", time.perf_counter()
            told, slowest = asyncio.run(damage(port, model, spoilt(kind), int(count)))
            spent = time.perf_counter() - begun
            print(f"{kind:9} {dict(told)} in {spent:.0f} s, slowest {slowest:.2f} s", flush=True)
        print("the server lives:", asyncio.run(Line(port).ask(asked(1))) == 200)


def drag(moves: float = 100) -> None:
    """In Debian's chromium, headless: CPU seconds to the first picture; drags on the square."""
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    flags += ["--disable-background-networking", "--disable-component-update"]
    found = "performance.getEntriesByName('%s').map((one) => one.duration)"
    with serving(True, ()) as (port, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        before = browser_seconds()
        page.goto(f"http://127.0.0.1:{port}")
        while not page.evaluate("performance.getEntriesByName('first-picture').length"):
            page.wait_for_timeout(20)
        print(f"first picture: {browser_seconds() - before:.2f} s of CPU, all of the browser's processes")
        page.wait_for_timeout(4000)  # the map and the square are drawn
        pad = page.locator("#view-music [data-part=pad]")
        pad.scroll_into_view_if_needed()
        box = pad.bounding_box()
        assert box is not None
        for name, pause in (("single moves", 300), ("a drag", 16)):
            page.evaluate("performance.clearMeasures('morph-pad')")
            page.mouse.move(box["x"] + 5, box["y"] + 5)
            page.mouse.down()
            for move in range(int(moves)):
                across, down = (move * 0.37) % 1, (move * 0.23) % 1
                page.mouse.move(box["x"] + box["width"] * across, box["y"] + box["height"] * down)
                page.wait_for_timeout(pause)
            page.mouse.up()
            page.wait_for_timeout(1000)
            took = sorted(page.evaluate(found % "morph-pad"))
            middle, late = statistics.median(took), took[len(took) * 9 // 10]
            print(f"{name}: {len(took)} rolls, median {middle:.0f} ms, p90 {late:.0f}")
        browser.close()


def browser_seconds() -> float:
    """CPU time of every process called chromium."""
    total = 0.0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            name, rest = (folder / "stat").read_text().rsplit(")", 1)
            if "chrom" in name:
                total += sum(map(int, rest.split()[11:13])) / os.sysconf("SC_CLK_TCK")
    return total


def main() -> None:
    numbers = [float(word) for word in sys.argv[2:3]]
    {"load": load, "soak": soak, "uploads": uploads, "drag": drag}[sys.argv[1]](*numbers)


if __name__ == "__main__":
    main()
