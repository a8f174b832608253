"""How like real music a pile of melodies is: the features of Yang & Lerch, scale, groove, bars that return.

Conventions: features, distances and estimates are those of Yang & Lerch 2020, "On the evaluation of
generative models in music". Times are in beats, pitches in semitones; histograms and transitions are shares
of a phrase's notes or of their pairs, so that phrases of any length compare, and zeros where there are none.
Pitch classes are absolute: the same tunes in other keys are another style.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np

from seqvae.attributes import average_interval, pitch_range, scale_consistency
from seqvae.metrics.music import ordered, share, ticks
from seqvae.song import Phrase

MOST = 1000  # phrases of a pile that are compared: half a million distances within it
POINTS = 4096  # at which densities are estimated
REACH = 5  # standard deviations of a Gaussian kernel, beyond which it is cut
LEAST = 1e-12  # of a density's mass at a point, so that a KL of what never meets is finite, about 20 nats
# Beats: whole to sixteenth; the same dotted; triplets of half, quarter and eighth (the paper's twelve).
LENGTHS = np.array([4, 2, 1, 1 / 2, 1 / 4, 3, 3 / 2, 3 / 4, 3 / 8, 4 / 3, 2 / 3, 1 / 3])


def classes(phrase: Phrase) -> np.ndarray:
    """The pitch class of each note in order: (notes,)."""
    return np.array([note.pitch % 12 for note in ordered(phrase)], int)


def length_classes(phrase: Phrase) -> np.ndarray:
    """The nearest of LENGTHS to each note in order: (notes,) 0 .. 11."""
    lengths = np.array([note.duration for note in ordered(phrase)])
    return np.abs(lengths[:, None] - LENGTHS).argmin(1)


def histogram(symbols: np.ndarray) -> np.ndarray:
    """Shares of the symbols 0 .. 11: (12,)."""
    return np.bincount(symbols, minlength=12) / max(len(symbols), 1)


def transitions(symbols: np.ndarray) -> np.ndarray:
    """Shares of the pairs of one symbol and the next: (144,)."""
    return np.bincount(symbols[:-1] * 12 + symbols[1:], minlength=144) / max(len(symbols) - 1, 1)


def onset_interval(phrase: Phrase) -> float:
    """Mean beats from one onset to the next; 0 of fewer than two notes."""
    onsets = [note.onset for note in phrase.notes]
    return share(max(onsets, default=0) - min(onsets, default=0), len(onsets) - 1)


FEATURES: dict[str, Callable[[Phrase], float | np.ndarray]] = {
    "pitch_count": lambda phrase: len({note.pitch for note in phrase.notes}),
    "pitch_classes": lambda phrase: histogram(classes(phrase)),
    "pitch_class_transitions": lambda phrase: transitions(classes(phrase)),
    "pitch_range": pitch_range,
    "pitch_interval": average_interval,
    "note_count": lambda phrase: len(phrase.notes),
    "onset_interval": onset_interval,
    "note_lengths": lambda phrase: histogram(length_classes(phrase)),
    "note_length_transitions": lambda phrase: transitions(length_classes(phrase)),
}
NUMBERS = ("pitch_count", "pitch_range", "pitch_interval", "note_count", "onset_interval")
Features = Mapping[str, np.ndarray]  # (N, D) each, a row a phrase


def features(phrases: Sequence[Phrase]) -> Features:
    """Every one of FEATURES of the phrases, or of MOST of them, evenly chosen."""
    count = min(len(phrases), MOST)
    chosen = [phrases[i * len(phrases) // count] for i in range(count)]
    return {
        name: np.array([measure(phrase) for phrase in chosen], float).reshape(count, -1)
        for name, measure in FEATURES.items()
    }


class Likeness(NamedTuple):
    """How the distances between two piles compare with those within one of them."""

    area: float  # overlapping area of the two densities: 1 where the piles are of one kind
    kl: float  # D(within || between), nats: 0 there


def likeness(pile: Features, reference: Features) -> dict[str, Likeness]:
    """By feature, how like the reference a pile is (Yang & Lerch, relative measurement).

    Euclidean distances between the phrases of the reference, each pair once, and from each of them to each of
    the pile; a Gaussian kernel density estimate of either, the kernel of both by Scott's rule for the
    reference's; what the two have in common. Finite piles of one kind do not reach 1: divide by what another
    pile of real phrases has. Raises ValueError where the reference has fewer than two phrases or the pile
    none.
    """
    found = {}
    for name, own in reference.items():
        if len(own) < 2 or not len(pile[name]):
            raise ValueError("distances take two phrases of the reference and one of the pile at least")
        within = distances(own, own)[np.triu_indices(len(own), 1)]
        between = distances(own, pile[name]).ravel()
        found[name] = compared(within, between)
    return found


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Euclidean distances from each row of a (N, D) to each of b (M, D): (N, M)."""
    if a.shape[1] == 1:
        return np.abs(a - b.T)
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.sqrt(np.maximum(squares, 0).round(12))  # rounded: equal rows are at 0 exactly


def compared(within: np.ndarray, between: np.ndarray) -> Likeness:
    """What the densities of two samples of numbers have in common, each over their whole range."""
    low, high = (pick(pick(within), pick(between)) for pick in (min, max))
    scott = within.std() * len(within) ** -0.2
    # A kernel is as wide as a few points at least: numbers that are all equal have no deviation.
    width = max(scott, 4 * ((high - low) or 1.0) / POINTS)
    grid = np.linspace(low - REACH * width, high + REACH * width, POINTS)
    p, q = density(within, grid, width), density(between, grid, width)
    kl = (p * np.log(np.maximum(p, LEAST) / np.maximum(q, LEAST))).sum()
    return Likeness(float(np.minimum(p, q).sum()), float(max(kl, 0)))


def density(values: np.ndarray, grid: np.ndarray, width: float) -> np.ndarray:
    """The Gaussian kernel density estimate of some values at even points, as shares that sum to 1.

    Each value counts at its two nearest points, by nearness, and these are blurred: for any number of values
    what their sum costs at thousands.
    """
    step = grid[1] - grid[0]
    at, part = np.divmod((values - grid[0]) / step, 1)
    at = at.astype(int)
    weights = np.bincount(at, 1 - part, len(grid)) + np.bincount(at + 1, part, len(grid))
    half = int(np.ceil(REACH * width / step))
    kernel = np.exp(-0.5 * (np.arange(-half, half + 1) * step / width) ** 2)
    blurred = np.convolve(weights, kernel)[half : half + len(grid)]
    return blurred / blurred.sum()


def onsets_by_bar(phrase: Phrase) -> np.ndarray:
    """Whether a note begins at each tick of each bar: (bars, ticks of a bar) bool."""
    found = np.zeros(phrase.bars * phrase.metre.ticks, bool)
    at = np.array([ticks(note.onset) for note in phrase.notes], int)
    found[at[at < len(found)]] = True
    return found.reshape(phrase.bars, -1)


def groove_consistency(phrase: Phrase) -> float:
    """1 - the mean share of a bar's ticks at which only it or only the next bar has an onset; 1 of one bar.

    Source: Wu & Yang 2020, "The Jazz Transformer on the front line", of neighbouring bars as
    muspy.groove_consistency has it. It hangs on the grid, 12 ticks a quarter: compare figures of one grid.
    """
    bars = onsets_by_bar(phrase)
    return float(1 - (bars[1:] != bars[:-1]).mean()) if phrase.bars > 1 else 1.0


def bar_similarity(phrase: Phrase) -> np.ndarray:
    """How like each bar is to each: (bars, bars), symmetric, 1 on the diagonal and of two empty bars.

    The notes that two bars share over those that either has, a note being its tick in the bar and its pitch.
    After the similarity of bars of Yu et al. 2022, "Museformer", but without durations, which articulation
    changes.
    """
    bars: list[set[tuple[int, int]]] = [set() for _ in range(phrase.bars)]
    for note in phrase.notes:
        bar, tick = divmod(ticks(note.onset), phrase.metre.ticks)
        if bar < phrase.bars:
            bars[bar].add((tick, note.pitch))
    return np.array([[share(len(a & b), len(a | b)) if a | b else 1.0 for b in bars] for a in bars])


def similarity_by_lag(phrases: Sequence[Phrase]) -> np.ndarray:
    """Mean bar_similarity() of bars that lie 1, 2 .. apart, each phrase counting alike: (bars - 1,).

    Museformer's curve of repetition: tunes of eight-bar strains peak at lags 2, 4 and 8. Raises ValueError
    for phrases of different numbers of bars.
    """
    tables = [bar_similarity(phrase) for phrase in phrases]
    if not tables:
        return np.empty(0)
    mean = np.mean(np.stack(tables), 0)
    return np.array([np.diagonal(mean, lag).mean() for lag in range(1, len(mean))])


def self_similarity(phrase: Phrase) -> float:
    """Mean bar_similarity() over all pairs of two bars: how much returns; 1 of one bar."""
    table = bar_similarity(phrase)
    return float(table[np.triu_indices(len(table), 1)].mean()) if len(table) > 1 else 1.0


CONSISTENCIES = (scale_consistency, groove_consistency, self_similarity)


def summary(phrases: Sequence[Phrase]) -> dict[str, float]:
    """Means over phrases, in plain floats, ready for JSON; 0 of none.

    The consistencies, `self_similarity`, and those of FEATURES that are one number.
    """
    found = {one.__name__: [one(phrase) for phrase in phrases] for one in CONSISTENCIES}
    found |= {name: [float(FEATURES[name](phrase)) for phrase in phrases] for name in NUMBERS}
    return {name: fmean(values) if values else 0.0 for name, values in found.items()}
