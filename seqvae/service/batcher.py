"""The micro-batcher: rows of all requests meet in one decoding loop of fixed slots, in a thread of its own.

Requests run in threads and call `Batcher.decode` as they would `decoding.decode`. Their rows, of whatever
kind, length and temperature, enter and leave between steps; a row's result is the same as alone. A request
that is no longer wanted (its client left, its deadline passed) frees its slots at the next step.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from torch import Tensor

from seqvae.decoding import Beam, Rows, Sampling, Slots, Stepper, decode, prepared

Watch = Callable[[int, np.ndarray], None]  # row, its next symbols (K,)


class Unwanted(Exception):
    """The request was given up; nobody waits for its result."""


@dataclass(eq=False)
class Ticket:
    """One request's right to be decoded: until when, and who watches its steps."""

    deadline: float = float("inf")  # of time.monotonic()
    watch: Watch | None = None
    left: bool = False  # the client went

    @property
    def wanted(self) -> bool:
        return not self.left and time.monotonic() < self.deadline


TICKET: ContextVar[Ticket | None] = ContextVar("ticket", default=None)


@contextmanager
def holding(ticket: Ticket) -> Iterator[None]:
    """What is decoded inside, in this context, is decoded for this ticket."""
    token = TICKET.set(ticket)
    try:
        yield
    finally:
        TICKET.reset(token)


class Work(NamedTuple):
    """A row at work: whose it is, and which."""

    order: Order
    row: int


@dataclass(eq=False)
class Order:
    """One call of decode()."""

    rows: Rows
    count: int
    ticket: Ticket
    entered: int = 0
    found: dict[int, np.ndarray] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)
    fault: BaseException | None = None

    def end(self, fault: BaseException | None = None) -> None:
        self.fault = fault
        self.over.set()


class Gauge(NamedTuple):
    """What a loop is doing."""

    waiting: int  # rows in the queue
    decoding: int  # rows in slots


class Batcher:
    """The loop of one model. `close()` ends it; what waits then is `Unwanted`."""

    def __init__(
        self, stepper: Stepper, most_steps: int, slots: int = 256, seen: Callable[[int], None] | None = None
    ) -> None:
        """`seen` is told the rows of each step."""
        self.stepper, self.most_steps, self.seen = stepper, most_steps, seen
        self.slots: Slots[Work] = Slots(stepper, slots, most_steps)
        self.queue: deque[Order] = deque()
        self.change = threading.Condition()
        self.closed = False
        self.thread = threading.Thread(target=self._run, name="decoding", daemon=True)
        self.thread.start()

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

        Raises `Unwanted` where the ticket of this context is not wanted any more, ValueError for another
        number of steps than the loop's.
        """
        if most_steps not in (None, self.most_steps):
            raise ValueError(f"this loop decodes {self.most_steps} steps at most, not {most_steps}")
        ticket = TICKET.get() or Ticket()
        if not ticket.wanted:
            raise Unwanted
        if isinstance(how, Beam):
            return decode(self.stepper, z, conditions, how, seed=seed, most_steps=most_steps)
        seeds = [(seed, row) for row in range(len(z))]
        order = Order(prepared(self.stepper, z, conditions, how, seeds, self.most_steps), len(z), ticket)
        with self.change:
            if self.closed:
                raise Unwanted
            self.queue.append(order)
            self.change.notify()
        order.over.wait()
        if order.fault is not None:
            raise order.fault
        return [order.found[row] for row in range(len(z))]

    def gauge(self) -> Gauge:
        with self.change:
            waiting = sum(order.count - order.entered for order in self.queue)
        return Gauge(waiting, len(self.slots))

    def close(self) -> None:
        with self.change:
            self.closed = True
            self.change.notify()
        self.thread.join()

    # -- in the loop's thread

    def _run(self) -> None:
        while self._admit():
            try:
                self._step()
            except Exception as fault:  # the loop outlives a fault, its orders do not
                self._abandon(fault)

    def _admit(self) -> bool:
        """Wait for work, and let rows in while there is room; False: closed."""
        slots = self.slots
        with self.change:
            while not self.closed and not self.queue and not len(slots):
                self.change.wait()
            if self.closed:
                self._abandon(Unwanted())
                return False
            self._forget()
            entering = []
            room = slots.room
            while self.queue and room:
                order = self.queue[0]
                rows = range(order.entered, min(order.entered + room, order.count))
                entering.append((order, rows))
                order.entered, room = rows.stop, room - len(rows)
                if order.entered == order.count:
                    self.queue.popleft()
        for order, rows in entering:
            slots.enter([Work(order, row) for row in rows], order.rows.some(rows.start, rows.stop))
        return True

    def _forget(self) -> None:
        """Orders that are over or not wanted any more leave the queue and their slots."""
        live = {work.order for work in self.slots.names} | set(self.queue)
        for order in live:
            if not order.ticket.wanted and not order.over.is_set():
                order.end(Unwanted())
        if any(order.over.is_set() for order in live):
            self.queue = deque(order for order in self.queue if not order.over.is_set())
            self.slots.drop(lambda work: not work.order.over.is_set())

    def _step(self) -> None:
        if not len(self.slots):
            return
        if self.seen:
            self.seen(len(self.slots))
        watched = any(work.order.ticket.watch for work in self.slots.names)
        for (order, row), steps in self.slots.step(self._show if watched else None):
            order.found[row] = steps
            if len(order.found) == order.count:
                order.end()

    def _show(self, names: Sequence[Work], symbols: Tensor) -> None:
        for (order, row), chosen in zip(names, symbols.numpy(), strict=True):
            if order.ticket.watch:
                order.ticket.watch(row, chosen.copy())

    def _abandon(self, fault: BaseException) -> None:
        for order in {work.order for work in self.slots.names} | set(self.queue):
            order.end(fault)
        self.queue.clear()
        self.slots.drop(lambda work: False)
