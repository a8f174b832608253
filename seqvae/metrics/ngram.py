"""An n-gram model of integer sequences: what a model with a latent has to beat, and a judge of what it makes.

Conventions: symbols are 0 .. size - 1, an END among them where sequences have one; before each sequence
stands BEGIN, which is context only and never predicted. A gram is a run of symbols packed into one integer
in base size + 1, its first symbol highest, so grams of one length sort by their contexts. Likelihoods are in
nats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

LARGEST = 2**63  # a packed gram is less
# Where there are too few counts to estimate them: a half of a count for each that may be missed.
FALLBACK = np.array([0.0, 0.5, 1.0, 1.5])
LEAST = 0.01  # of a discount, so that nothing is impossible


class Level(NamedTuple):
    """What follows contexts of one length, both sorted."""

    grams: np.ndarray  # (G,) int64
    own: np.ndarray  # (G,) probability that needs no shorter context
    contexts: np.ndarray  # (C,) int64
    rest: np.ndarray  # (C,) the share that the shorter context deals out


@dataclass(frozen=True, eq=False)
class NGram:
    """p(symbol | the order - 1 before it), interpolated down to the uniform; `fit` makes one."""

    size: int
    levels: tuple[Level, ...]  # by length of context, 0 .. order - 1

    def nats(self, sequences: Sequence[Sequence[int] | np.ndarray]) -> np.ndarray:
        """-log p of every symbol, the sequences end to end: (sum of T,)."""
        symbols, depth = laid(sequences, self.size)
        chance = np.full(len(symbols), 1 / self.size)
        for length, level in enumerate(self.levels, 1):
            places = np.flatnonzero(depth >= max(length - 1, 1))
            gram = packed(symbols, places, length, self.size)
            context, known = located(level.contexts, gram // (self.size + 1))
            places, gram, context = places[known], gram[known], context[known]
            at, seen = located(level.grams, gram)
            chance[places] *= level.rest[context]
            chance[places[seen]] += level.own[at[seen]]
        return -np.log(chance[depth > 0])

    def nll(self, sequences: Sequence[Sequence[int] | np.ndarray]) -> np.ndarray:
        """-log p of each sequence, all its symbols counted: (N,)."""
        owner = np.repeat(np.arange(len(sequences)), [len(one) for one in sequences])
        return np.bincount(owner, self.nats(sequences), len(sequences))

    def following(self, history: Sequence[int]) -> np.ndarray:
        """p(symbol | the history from a sequence's beginning) of every symbol: (size,), which sums to 1."""
        each = self.nats([[*history, symbol] for symbol in range(self.size)])
        return np.exp(-each.reshape(self.size, -1)[:, -1])


def fit(
    sequences: Sequence[Sequence[int] | np.ndarray],
    size: int,
    order: int = 6,
    smoothing: str = "kneser-ney",
    renamings: np.ndarray | None = None,
) -> NGram:
    """The n-gram model of some sequences, its longest context order - 1 symbols.

    ``smoothing`` is "kneser-ney", modified and interpolated (Chen & Goodman 1999), in which shorter
    contexts count what stands before a gram, not the gram; "absolute" discounting (Ney, Essen & Kneser 1994)
    or "witten-bell" (1991, method C), both interpolated and of plain counts. Grams at a sequence's beginning,
    before which nothing can stand, keep plain counts.

    With ``renamings`` (M, size), permutations of the symbols, every sequence is learnt M times, renamed by
    each: melodies in twelve keys, say. Raises ValueError for symbols, sizes or names that are none.
    """
    if smoothing not in SMOOTHINGS:
        raise ValueError(f"a smoothing is {', '.join(SMOOTHINGS)}, not {smoothing}")
    if order < 1 or (size + 1) ** order >= LARGEST:
        raise ValueError(f"grams of {order} among {size} symbols do not fit 63 bits")
    symbols, depth = laid(sequences, size)
    counted = []
    for length in range(1, order + 1):
        places = np.flatnonzero(depth >= max(length - 1, 1))
        grams, counts = np.unique(packed(symbols, places, length, size), return_counts=True)
        counted.append((grams, counts) if renamings is None else renamed(grams, counts, length, renamings))
    deal, by_variety = SMOOTHINGS[smoothing]
    levels = []
    for length, (grams, counts) in enumerate(counted, 1):
        if by_variety and length < order:
            longer = counted[length][0]
            before = np.bincount(np.searchsorted(grams, longer % (size + 1) ** length), minlength=len(grams))
            counts = np.where(grams // (size + 1) ** (length - 1) == size, counts, before)
        levels.append(dealt(grams, *deal(counts), size))
    return NGram(size, tuple(levels))


def laid(sequences: Sequence[Sequence[int] | np.ndarray], size: int) -> tuple[np.ndarray, np.ndarray]:
    """All symbols end to end, each sequence after its BEGIN (size), and how many stand before each."""
    lengths = np.array([len(one) + 1 for one in sequences], np.int64)
    starts = np.cumsum(lengths) - lengths
    depth = np.arange(lengths.sum()) - np.repeat(starts, lengths)
    symbols = np.full(len(depth), size, np.int64)
    if len(symbols) > len(lengths):
        symbols[depth > 0] = np.concatenate([np.asarray(one, np.int64) for one in sequences])
        inner = symbols[depth > 0]
        if inner.min() < 0 or inner.max() >= size:
            raise ValueError(f"symbols lie in 0 to {size - 1}, not {inner.min()} to {inner.max()}")
    return symbols, depth


def packed(symbols: np.ndarray, places: np.ndarray, length: int, size: int) -> np.ndarray:
    """The grams of a length that end at some places."""
    gram = np.zeros(len(places), np.int64)
    for back in range(length - 1, -1, -1):
        gram = gram * (size + 1) + symbols[places - back]
    return gram


def renamed(
    grams: np.ndarray, counts: np.ndarray, length: int, renamings: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Grams and counts of sequences that each stand there once under every renaming."""
    size = renamings.shape[1]
    tables = np.column_stack([renamings, np.full(len(renamings), size)])  # BEGIN stays
    every = np.zeros((len(renamings), len(grams)), np.int64)
    for power in range(length - 1, -1, -1):
        every = every * (size + 1) + tables[:, grams // (size + 1) ** power % (size + 1)]
    found, at = np.unique(every, return_inverse=True)
    return found, np.bincount(at.reshape(-1), np.tile(counts, len(renamings)), len(found)).astype(np.int64)


def located(held: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each wanted value stands in sorted ones, and whether it does."""
    if not len(held):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
    at = np.minimum(np.searchsorted(held, wanted), len(held) - 1)
    return at, held[at] == wanted


def dealt(grams: np.ndarray, kept: np.ndarray, given: np.ndarray, size: int) -> Level:
    """The level at which each gram keeps so much of its context's mass and gives so much to shorter ones."""
    contexts, of = np.unique(grams // (size + 1), return_inverse=True)
    mass = np.bincount(of, kept + given, len(contexts))
    return Level(grams, kept / mass[of], contexts, np.bincount(of, given, len(contexts)) / mass)


def modified(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts less a discount for 1, for 2 and for more, and the discounts (Chen & Goodman 1999)."""
    n = np.bincount(np.minimum(counts, 5), minlength=6)[:5]
    discounts = FALLBACK
    if n[1:].all():
        k = np.arange(1, 4)
        found = k - (k + 1) * n[1] / (n[1] + 2 * n[2]) * n[k + 1] / n[k]
        discounts = np.append(0, np.maximum(found, LEAST))
    given = discounts[np.minimum(counts, 3)]
    return counts - given, given


def absolute(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts less one discount, and that."""
    once, twice = (counts == 1).sum(), (counts == 2).sum()
    given = np.full(len(counts), once / (once + 2 * twice) if once and twice else FALLBACK[1])
    return counts - given, given


def witten_bell(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts, and as much for what is new as there were different symbols."""
    return counts.astype(float), np.ones(len(counts))


# What is kept and given of counts; and whether shorter contexts count what stands before a gram.
Deal = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
SMOOTHINGS: dict[str, tuple[Deal, bool]] = {
    "kneser-ney": (modified, True),
    "absolute": (absolute, False),
    "witten-bell": (witten_bell, False),
}
