"""The micro-batcher: rows of all requests meet in one decoding loop of fixed slots, in a process of its own.

Requests run in threads and call `Batcher.decode` as they would `decoding.decode`. Their rows, of whatever
kind, length and temperature, enter and leave between steps; a row's result is the same as alone. A request
that is no longer wanted (its client left, its deadline passed) frees its slots at the next step. The loop has
the interpreter of its process to itself, and where that process dies, another begins.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from seqvae.codecs import Codec, Stream
from seqvae.decoding import Beam, Rows, Sampling, Slots, Stepper, decode, prepared
from seqvae.model import SequenceVAE, Size

# Where there is a server of forks, a loop begins in no time, as what it imports is there
FORKS = "forkserver" in multiprocessing.get_all_start_methods()
CONTEXT: Any = multiprocessing.get_context("forkserver" if FORKS else "spawn")
if FORKS:
    CONTEXT.set_forkserver_preload([__name__])
GRACE = 5.0  # seconds for a loop to end by itself
Watch = Callable[[int, np.ndarray], None]  # row, its next symbols (K,)


class Unwanted(Exception):
    """The request was given up; nobody waits for its result."""


class Lost(Exception):
    """The process of the loop died with this request."""


@dataclass(eq=False)
class Ticket:
    """One request's right to be decoded: until when, and who watches its steps."""

    deadline: float = float("inf")  # of time.monotonic()
    watch: Watch | None = None
    left: bool = False  # the client went
    order: Order | None = None  # what is being decoded for it
    hands: threading.Semaphore | None = None  # which a thread at work for it needs one of

    @property
    def wanted(self) -> bool:
        return not self.left and time.monotonic() < self.deadline

    def leave(self) -> None:
        """The client went: what is being decoded for it is given up."""
        self.left = True
        if self.order is not None:
            self.order.end(Unwanted())


TICKET: ContextVar[Ticket | None] = ContextVar("ticket", default=None)


@contextmanager
def holding(ticket: Ticket) -> Iterator[None]:
    """What is decoded inside, in this context, is decoded for this ticket, with one of its hands."""
    token = TICKET.set(ticket)
    try:
        with ticket.hands or nullcontext():
            yield
    finally:
        TICKET.reset(token)


@contextmanager
def resting() -> Iterator[None]:
    """While this thread waits for another process, its hand is free."""
    hands = ticket.hands if (ticket := TICKET.get()) else None
    if hands is not None:
        hands.release()
    try:
        yield
    finally:
        if hands is not None:
            hands.acquire()


@dataclass(eq=False)
class Order:
    """One call of decode(), as its thread sees it."""

    count: int  # rows
    watch: Watch | None
    found: dict[int, np.ndarray] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)
    fault: BaseException | None = None

    def end(self, fault: BaseException | None = None) -> None:
        if not self.over.is_set():
            self.fault = fault
            self.over.set()


class Gauge(NamedTuple):
    """What a loop is doing."""

    waiting: int  # rows in the queue
    decoding: int  # rows in slots


class Asked(NamedTuple):
    """Rows for the loop."""

    number: int  # of the order
    state: Sequence[np.ndarray]  # these three are its `Rows`
    noise: np.ndarray | None
    how: Sampling
    watched: bool

    @classmethod
    def of(cls, number: int, rows: Rows, watched: bool) -> Self:
        noise = None if rows.noise is None else rows.noise.numpy()
        return cls(number, [part.numpy() for part in rows.state], noise, rows.how, watched)

    @property
    def rows(self) -> Rows:
        h, c, constant, told = map(torch.from_numpy, self.state)
        noise = None if self.noise is None else torch.from_numpy(self.noise)
        return Rows((h, c, constant, told), noise, self.how)


class Told(NamedTuple):
    """What the loop tells: steps since it last did, and what came of them."""

    steps: list[int]  # the rows of each
    seen: list[tuple[int, int, np.ndarray]]  # order, row, its next symbols (K,), where they are watched
    over: list[tuple[int, int, np.ndarray]]  # order, row, all its symbols (T, K)
    lost: Mapping[int, str]  # orders and the fault that ended them


class Batcher:
    """The loop of one model. `close()` ends it; what waits then is `Unwanted`."""

    def __init__(
        self,
        codec: Codec[Any],
        stepper: Stepper,
        slots: int = 256,
        seen: Callable[[int], None] | None = None,
    ) -> None:
        """`seen` is told the rows of each step."""
        self.codec, self.stepper, self.most, self.seen = codec, stepper, slots, seen
        self.most_steps = codec.longest // stepper.each
        self.numbers = itertools.count()
        self.orders: dict[int, Order] = {}
        self.lock = threading.Lock()  # of what is below; never held while a line is full
        self.sending = threading.Lock()
        self.closed = False
        self.line: Connection | None = None
        with self.lock:
            self._begin()

    def decode(
        self,
        z: Tensor,
        conditions: Tensor,
        how: Sampling | Beam,
        *,
        seed: int = 0,
        most_steps: int | None = None,
    ) -> list[np.ndarray]:
        """`decoding.decode` of this model, among the rows of other threads. A beam stays outside the loop.

        Raises `Unwanted` where the ticket of this context is not wanted any more, `Lost` where the loop's
        process died, ValueError for another number of steps than the loop's.
        """
        if most_steps not in (None, self.codec.longest):
            raise ValueError(f"this loop decodes {self.codec.longest} steps at most, not {most_steps}")
        ticket = TICKET.get() or Ticket()
        if not ticket.wanted:
            raise Unwanted
        if not len(z):
            return []
        if isinstance(how, Beam):
            return decode(self.stepper, z, conditions, how, seed=seed, most_steps=most_steps)
        z, conditions = self.stepper.rows(z, conditions)
        seeds = self.stepper.seeds(seed, range(len(z)))
        rows = prepared(self.stepper, z, conditions, how, seeds, self.most_steps)
        order = ticket.order = Order(len(z), ticket.watch)
        number, line = self._enlist(order)
        try:
            self._send(line, Asked.of(number, rows, ticket.watch is not None))
            if ticket.left:  # perhaps before it had this order
                order.end(Unwanted())
            patience = ticket.deadline - time.monotonic()
            with resting():
                over = order.over.wait(min(max(patience, 0), threading.TIMEOUT_MAX))
            if not over:
                order.end(Unwanted())
        finally:
            ticket.order = None
            with self.lock:
                self.orders.pop(number, None)
            if len(order.found) < order.count:
                self._send(line, number)
        if order.fault is not None:
            raise order.fault
        return self.stepper.joined([order.found[row] for row in range(len(z))])

    def gauge(self) -> Gauge:
        with self.lock:
            rows = sum(order.count - len(order.found) for order in self.orders.values())
        return Gauge(max(rows - self.most, 0), min(rows, self.most))

    def close(self) -> None:
        with self.lock:
            self.closed = True
            process, line = self.process, self.line
        if line is not None:
            self._send(line, None)
        process.join(GRACE)
        process.kill()
        process.join()
        self.listener.join()

    # -- the line to the loop

    def _begin(self) -> None:
        """Another process, with what the loop needs of the model; the lock is held."""
        model = self.stepper.model
        weights = {name: value.numpy() for name, value in model.state_dict().items()}
        plan = self.codec.streams, self.codec.conditions, model.size, weights
        self.line, theirs = CONTEXT.Pipe()
        loop = theirs, *plan, self.most, self.most_steps, torch.get_num_threads()
        self.process = CONTEXT.Process(target=_work, args=loop, daemon=True)
        self.process.start()
        theirs.close()  # so that the line ends where the process does
        self.listener = threading.Thread(target=self._listen, args=(self.line,), daemon=True)
        self.listener.start()

    def _enlist(self, order: Order) -> tuple[int, Connection]:
        with self.lock:
            if self.closed:
                raise Unwanted
            if self.line is None:
                self._begin()
            assert self.line is not None
            number = next(self.numbers)
            self.orders[number] = order
            return number, self.line

    def _send(self, line: Connection, what: Asked | int | None) -> None:
        with self.sending, contextlib.suppress(OSError):  # then `_listen` ends every order
            line.send(what)

    def _listen(self, line: Connection) -> None:
        """The thread that takes what the loop tells, until its process is gone."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                self._take(line.recv())
        with self.lock:
            fault = Unwanted if self.closed else Lost
            lost, self.orders, self.line = list(self.orders.values()), {}, None
        for order in lost:
            order.end(fault())

    def _take(self, told: Told) -> None:
        if self.seen:
            for rows in told.steps:
                self.seen(rows)
        with self.lock:
            orders = dict(self.orders)
        for number, row, symbols in told.seen:
            if (order := orders.get(number)) and order.watch and not order.over.is_set():
                try:
                    order.watch(row, symbols)
                except Exception as fault:  # the watcher's own
                    order.end(fault)
        for number, row, steps in told.over:
            if order := orders.get(number):
                order.found[row] = steps
                if len(order.found) == order.count:
                    order.end()
        for number, why in told.lost.items():
            if order := orders.get(number):
                order.end(RuntimeError(why))


# ------------------------------------------------------------------------------- the process of the loop


def _work(
    line: Connection,
    streams: tuple[Stream, ...],
    conditions: tuple[Stream, ...],
    size: Size,
    weights: Mapping[str, np.ndarray],
    slots: int,
    most_steps: int,
    threads: int,
) -> None:
    """The life of the process: it ends with its parent, or when it is told to."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    model = SequenceVAE(streams, conditions, size)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    loop = Loop(Slots(Stepper(model), slots, most_steps), line)
    with contextlib.suppress(EOFError, OSError):  # the parent is gone
        while loop.listen():
            loop.step()


class Place(NamedTuple):
    """A row at work: of which order, and which."""

    order: int
    row: int


class Loop:
    """Orders wait in a queue until there is room for their rows."""

    def __init__(self, slots: Slots[Place], line: Connection) -> None:
        self.slots, self.line = slots, line
        self.queue: deque[tuple[int, int, Rows]] = deque()  # order, its next row, that and what follows
        self.watched: set[int] = set()
        self.steps: list[int] = []  # not yet told

    def listen(self) -> bool:
        """Wait for work, and let rows in while there is room; False: it is over."""
        while not (self.queue or len(self.slots)) or self.line.poll():
            what = self.line.recv()
            if what is None:
                return False
            if isinstance(what, int):
                self._forget(what)
            else:
                self.queue.append((what.number, 0, what.rows))
                self.watched |= {what.number} if what.watched else set()
        while self.queue and self.slots.room:
            number, first, rows = self.queue.popleft()
            count, room = len(rows.state[0]), self.slots.room
            entering = rows.some(0, min(count, room))
            names = [Place(number, first + row) for row in range(len(entering.state[0]))]
            self.slots.enter(names, entering)
            if count > room:
                self.queue.appendleft((number, first + room, rows.some(room, count)))
        return True

    def step(self) -> None:
        if not len(self.slots):
            return
        seen: list[tuple[int, int, np.ndarray]] = []

        def look(names: Sequence[Place], symbols: Tensor) -> None:
            chosen = symbols.numpy()
            seen.extend(
                (*name, chosen[k].copy()) for k, name in enumerate(names) if name.order in self.watched
            )

        self.steps.append(len(self.slots))
        try:
            over = [(*name, steps) for name, steps in self.slots.step(look if self.watched else None)]
        except Exception as fault:  # the loop outlives it, its orders do not
            lost = {name.order for name in self.slots.names}
            for number in lost:
                self._forget(number)
            return self._tell([], [], dict.fromkeys(lost, f"{type(fault).__name__}: {fault}"))
        if self.watched:
            self.watched &= {name.order for name in self.slots.names} | {waiting[0] for waiting in self.queue}
        if over or seen:
            self._tell(seen, over, {})

    def _tell(
        self,
        seen: list[tuple[int, int, np.ndarray]],
        over: list[tuple[int, int, np.ndarray]],
        lost: Mapping[int, str],
    ) -> None:
        self.line.send(Told(self.steps, seen, over, lost))
        self.steps = []

    def _forget(self, number: int) -> None:
        """The order's rows leave the queue and their slots."""
        self.watched.discard(number)
        self.queue = deque(waiting for waiting in self.queue if waiting[0] != number)
        self.slots.drop(lambda name: name.order != number)
