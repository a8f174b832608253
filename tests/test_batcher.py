"""The micro-batcher: what threads decode together is what each decodes alone; who leaves frees its slots."""

import multiprocessing
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from seqvae.codecs import NotesCodec
from seqvae.decoding import GREEDY, Sampling, Slots, Stepper, decode, prepared
from seqvae.model import HierarchicalVAE, SequenceVAE, Size
from seqvae.service.batcher import Asked, Batcher, Loop, Lost, Ticket, Unwanted, holding
from tests.conftest import LONGER

CODEC = NotesCodec(bars=1, bar_ticks=48)
HOWS = (GREEDY, Sampling(), Sampling(0.7, 5), Sampling(1.4, 0, 0.9))


@pytest.fixture(scope="module")
def stepper() -> Stepper:
    """Of the size of real models, where a matrix product's last bits may depend on its rows."""
    torch.manual_seed(0)
    return Stepper(SequenceVAE(CODEC.streams, CODEC.conditions, Size()))


@pytest.fixture
def batcher(stepper: Stepper) -> Iterator[Batcher]:
    batcher = Batcher(CODEC, stepper, slots=32)
    yield batcher
    batcher.close()


def given(rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(rows, 128, generator=torch.Generator().manual_seed(seed)), torch.tensor(
        [[4, 2]] * rows
    )


def endless(rows: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    return given(rows, 1)


@contextmanager
def busy(batcher: Batcher) -> Iterator[Future[None]]:
    """A long request of another thread, of which the first step was made."""
    ticket, begun = Ticket(), threading.Event()
    ticket.watch = lambda row, symbols: begun.set()

    def ask() -> None:
        with holding(ticket):
            batcher.decode(*endless(2000), Sampling())

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        assert begun.wait(60)
        yield asking


def test_among_others_as_alone(stepper: Stepper, batcher: Batcher) -> None:
    """Requests of 1 to 40 rows from 12 threads in 32 slots; equal bytes."""

    def ask(number: int) -> list[np.ndarray]:
        return batcher.decode(*given(number * 7 % 40 + 1, number), HOWS[number % 4], seed=number)

    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(ask, range(36)))
    for number, rows in enumerate(found):
        z, conditions = given(number * 7 % 40 + 1, number)
        alone = decode(stepper, z, conditions, HOWS[number % 4], seed=number, most_steps=CODEC.longest)
        assert len(rows) == len(alone) and all(map(np.array_equal, rows, alone))
    assert batcher.decode(*given(0, 0), GREEDY) == []
    assert batcher.gauge() == (0, 0)


def test_things_in_sections_among_others_as_alone(whole: HierarchicalVAE) -> None:
    stepper, (z, conditions) = Stepper(whole), (torch.randn(20, 6), given(20, 0)[1])
    batcher = Batcher(LONGER, stepper, slots=16)
    try:
        found = batcher.decode(z, conditions, Sampling(), seed=2, most_steps=LONGER.longest)
    finally:
        batcher.close()
    alone = decode(stepper, z, conditions, Sampling(), seed=2, most_steps=LONGER.longest)
    assert len(found) == 20 and all(map(np.array_equal, found, alone))


def test_who_leaves_frees_the_slots_and_others_go_on(stepper: Stepper) -> None:
    """A request is given up at its third step; another, behind it in the queue, is answered."""
    batcher, ticket, steps = Batcher(CODEC, stepper, slots=8), Ticket(), []

    def watch(row: int, symbols: np.ndarray) -> None:
        steps.append(row)
        if len(steps) >= 3 * 8:
            ticket.leave()

    ticket.watch = watch
    with ThreadPoolExecutor(2) as pool:

        def leave() -> None:
            with holding(ticket):
                batcher.decode(*endless(800), Sampling(), seed=3)

        leaving = pool.submit(leave)
        while not steps:
            time.sleep(0.001)
        staying = pool.submit(batcher.decode, *given(3, 5), GREEDY)
        with pytest.raises(Unwanted):
            leaving.result()
        assert all(
            map(
                np.array_equal,
                staying.result(),
                decode(stepper, *given(3, 5), GREEDY, most_steps=CODEC.longest),
            )
        )
    assert 24 <= len(steps) <= 40  # not 800 rows
    batcher.close()


def test_a_deadline_passes_before_and_during(stepper: Stepper, batcher: Batcher) -> None:
    with holding(Ticket(deadline=time.monotonic() - 1)), pytest.raises(Unwanted):
        batcher.decode(*given(1, 0), GREEDY)
    ticket, steps = Ticket(deadline=time.monotonic() + 2), []

    def watch(row: int, symbols: np.ndarray) -> None:
        steps.append(row)
        time.sleep(max(ticket.deadline - time.monotonic(), 0))

    ticket.watch = watch
    with holding(ticket), pytest.raises(Unwanted):
        batcher.decode(*endless(2000), Sampling())
    assert steps
    batcher.decode(*given(1, 0), GREEDY)
    assert batcher.gauge() == (0, 0)


def test_a_hand_is_free_while_its_thread_waits(batcher: Batcher) -> None:
    hands, free = threading.Semaphore(1), []

    def watch(row: int, symbols: np.ndarray) -> None:
        free.append(hands.acquire(blocking=False))
        hands.release()

    with holding(Ticket(watch=watch, hands=hands)):
        assert not hands.acquire(blocking=False)
        batcher.decode(*given(1, 0), GREEDY)
        assert not hands.acquire(blocking=False)
    assert free and all(free) and hands.acquire(blocking=False)


def test_a_fault_in_a_step_ends_its_orders_and_not_the_loop(stepper: Stepper, batcher: Batcher) -> None:
    def fail(row: int, symbols: np.ndarray) -> None:
        raise RuntimeError("of the watcher")

    with holding(Ticket(watch=fail)), pytest.raises(RuntimeError, match="of the watcher"):
        batcher.decode(*given(2, 0), GREEDY)
    with pytest.raises(ValueError, match="49 steps at most"):
        batcher.decode(*given(2, 0), GREEDY, most_steps=3)
    with pytest.raises(RuntimeError):  # rows of another size
        batcher.decode(torch.zeros(2, 5), torch.tensor([[4, 2]] * 2), GREEDY)
    assert len(batcher.decode(*given(2, 0), GREEDY)) == 2


def test_closed_it_decodes_no_more(stepper: Stepper) -> None:
    batcher = Batcher(CODEC, stepper, slots=8)
    with busy(batcher) as asking:
        batcher.close()
        with pytest.raises(Unwanted):
            asking.result()
    with pytest.raises(Unwanted):
        batcher.decode(*given(1, 0), GREEDY)


def test_where_its_process_dies_another_begins(stepper: Stepper, batcher: Batcher) -> None:
    first = batcher.process
    with busy(batcher) as asking:
        first.kill()
        with pytest.raises(Lost):
            asking.result()
    alone = decode(stepper, *given(3, 5), Sampling(), seed=2, most_steps=CODEC.longest)
    assert all(map(np.array_equal, batcher.decode(*given(3, 5), Sampling(), seed=2), alone))
    assert batcher.process.pid != first.pid


def test_the_loop_outlives_a_fault_of_a_step(stepper: Stepper, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = multiprocessing.Pipe()
    loop = Loop(Slots(stepper, 8, CODEC.longest), theirs)

    def send(number: int, watched: bool) -> None:
        rows = prepared(stepper, *given(1, number), GREEDY, [(0, 0)], CODEC.longest)
        ours.send(Asked.of(number, rows, watched))

    def fail(look: object) -> None:
        raise MemoryError("none left")

    send(0, True)
    assert loop.listen()
    with monkeypatch.context() as patch:
        patch.setattr(loop.slots, "step", fail)
        loop.step()
    assert ours.recv().lost == {0: "MemoryError: none left"} and not loop.slots and not loop.watched
    send(1, True)
    while True:
        assert loop.listen()
        loop.step()
        told = ours.recv()
        assert [order for order, _, _ in told.seen] == [1]  # nobody else's
        if told.over:
            break
    ((order, row, steps),) = told.over
    alone = decode(stepper, *given(1, 1), GREEDY, most_steps=CODEC.longest)
    assert (order, row) == (1, 0) and np.array_equal(steps, alone[0]) and not loop.watched
    ours.send(None)
    assert not loop.listen()
