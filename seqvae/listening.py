"""How melodies sound beside a corpus's own: to an n-gram model of its training windows, and in their style.

Conventions: the n-gram model reads a window as a step a sixteenth, hold, note-off or pitch, with END (the
``melody`` codec), in nats a window; finer onsets are rounded to that grid, for whoever made them. Of an
ensemble its `lead` alone is heard.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from statistics import fmean

import numpy as np

from seqvae.codecs import GridCodec
from seqvae.codecs.bars import SHIFTS
from seqvae.codecs.grid import END, FIRST
from seqvae.corpus import Corpus
from seqvae.metrics import ngram, styles, text
from seqvae.metrics.music import share
from seqvae.song import Phrase, lead

ORDER = 6  # symbols of the longest gram
READ = 120_000  # bars of training windows at most that the n-gram model learns
PITCHES = range(FIRST, END)
# The events' symbols in twelve keys, (12, END + 1); what leaves the piano above comes in below.
KEYS = np.array([[*range(FIRST), *np.roll(PITCHES, -by), END] for by in range(SHIFTS[0], SHIFTS[1] + 1)])


def events(corpus: Corpus, phrases: Sequence[Phrase]) -> list[np.ndarray]:
    """Each phrase in sixteenths: (T,), END last. Raises `SeqvaeError` for one of another number of bars."""
    config = corpus.codec.config()
    grid = GridCodec(int(config["bars"]), int(config["bar_ticks"]))
    return [grid.encode(lead(phrase)).steps[:, 0] for phrase in phrases]


def learnt(corpus: Corpus, split: str = "train", most: int = READ) -> list[np.ndarray]:
    """A split's windows as `events`, or so many bars of them, evenly chosen."""
    whole = len(corpus.split(split))
    count = min(whole, -(-most // int(corpus.codec.config()["bars"])))
    chosen = np.arange(count) * whole // max(count, 1)
    return events(corpus, [corpus.codec.decode(*corpus.window(split, int(i))) for i in chosen])


@lru_cache(maxsize=1)
def reader(corpus: Corpus) -> ngram.NGram:
    """The n-gram model, modified Kneser-Ney, of a corpus's training windows in all twelve keys."""
    return ngram.fit(learnt(corpus), END + 1, ORDER, renamings=KEYS)


def nll(corpus: Corpus, phrases: Sequence[Phrase]) -> float:
    """Mean nats a phrase under the `reader`; 0 of none."""
    return float(reader(corpus).nll(events(corpus, phrases)).mean()) if phrases else 0.0


def travel(corpus: Corpus, path: Sequence[Sequence[Phrase]]) -> dict[str, float]:
    """What lies between: ``path`` holds the steps in order, each of all paths; nothing of none.

    Each step's `nll`; how many times the mean of both ends' the midpoint's is; and how steadily paths leave
    where they begin, the mean over paths of Spearman's correlation of a step's number with its distance, the
    least number of events to insert, delete or replace from the path's first step.
    """
    if not path or not path[0]:
        return {}
    each = [nll(corpus, step) for step in path]
    spelt = [[one.tolist() for one in events(corpus, step)] for step in path]
    steady = [
        text.spearman([*range(len(steps))], [text.levenshtein(one, steps[0]) for one in steps])
        for steps in zip(*spelt, strict=True)
    ]
    return {f"ngram_nll_{at}": nats for at, nats in enumerate(each)} | {
        "midpoint_of_ends": 2 * each[len(each) // 2] / (each[0] + each[-1]),
        "spearman": fmean(steady),
    }


def halves(corpus: Corpus, split: str, indices: np.ndarray, seed: int = 0) -> np.ndarray:
    """Which of the chosen windows are in the first of two halves: (N,) bool; a tune's are all in one.

    The first holds tunes drawn by the seed, as many as it takes to have half of the windows.
    """
    _, of = np.unique(corpus.split(split).tunes[indices], return_inverse=True)
    sizes = np.bincount(of)
    order = np.random.default_rng(seed).permutation(len(sizes))
    return np.isin(of, order[: np.searchsorted(sizes[order].cumsum(), len(of) / 2) + 1])


class Style:
    """What piles of melodies are compared with: real ones in two halves of different tunes, (N,) bool.

    The first half is the reference; how like it the second is, ``real``, is how like it anything can be.
    Where the halves are too small to compare, all is empty.
    """

    def __init__(self, phrases: Sequence[Phrase], first: np.ndarray) -> None:
        halves = (np.flatnonzero(half).tolist() for half in (first, ~first))
        reference, control = ([lead(phrases[i]) for i in half] for half in halves)
        self.reference, self.real = styles.features(reference), {}
        if len(reference) > 1 and control:
            self.real = styles.likeness(styles.features(control), self.reference)

    def of_real(self) -> dict[str, dict[str, float]]:
        """By feature, the overlapping area and KL of the second half."""
        return {name: one._asdict() for name, one in self.real.items()}

    def of(self, phrases: Sequence[Phrase]) -> dict[str, dict[str, float]]:
        """By feature, those of other phrases, and their area as a share of the second half's, 0 of none."""
        if not self.real or not phrases:
            return {}
        found = styles.likeness(styles.features([lead(phrase) for phrase in phrases]), self.reference)
        return {
            name: one._asdict() | {"area_of_real": share(one.area, self.real[name].area)}
            for name, one in found.items()
        }
