"""The n-gram model: distributions that sum to 1, values worked by hand, the definition done the slow way."""

import itertools
import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from seqvae.metrics import ngram
from seqvae.metrics.ngram import SMOOTHINGS, NGram, fit

END = 3
# A song of a, b and c with END; few enough for a pencil.
TOY = [[0, 1, END], [0, 1, END], [0, 2, END]]


def drawn(count: int, size: int = 5, seed: int = 0) -> list[np.ndarray]:
    """Sequences that repeat themselves, END (size - 1) last."""
    rng = np.random.default_rng(seed)
    table = rng.dirichlet(np.full(size - 1, 0.4), size - 1)
    found = []
    for length in rng.integers(0, 12, count):
        symbols = [0]
        for _ in range(length):
            symbols.append(int(rng.choice(size - 1, p=table[symbols[-1]])))
        found.append(np.array([*symbols[1:], size - 1]))
    return found


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("order", [1, 2, 4])
def test_every_context_deals_out_all_of_its_probability(smoothing: str, order: int):
    model = fit(drawn(200), 6, order, smoothing)  # symbol 5 was never seen
    seen = [[], [0], [1, 2], [2, 2, 2, 2], drawn(1)[0].tolist()]
    for history in [*seen, [5], [4, 4, 4], [5, 0, 5, 1]]:
        following = model.following(history)
        assert following.shape == (6,) and following.sum() == pytest.approx(1, abs=1e-12), history
        assert (following > 0).all()


def test_a_bigram_by_hand():
    """Witten-Bell: after `a` came b twice and c once: (count + 2 kinds x p1) / (3 + 2)."""
    model = fit(TOY, 4, 2, "witten-bell")
    # p1: nine symbols of four kinds: (count + 4 x 1/4) / (9 + 4).
    unigram = np.array([4, 3, 2, 4]) / 13
    np.testing.assert_allclose(model.following([0]), (np.array([0, 2, 1, 0]) + 2 * unigram) / 5, atol=1e-15)
    np.testing.assert_allclose(model.following([]), (np.array([3, 0, 0, 0]) + unigram) / 4, atol=1e-15)
    np.testing.assert_allclose(model.following([3]), unigram, atol=1e-15)  # nothing comes after END


def test_kneser_ney_by_hand():
    """Of so few counts the discounts fall back to 1/2, 1 and 3/2."""
    model = fit(TOY, 4, 2)
    # What stands before: BEGIN before a, a before b and c, b and c before END.
    before = np.array([1, 1, 1, 2])
    unigram = (before - [0.5, 0.5, 0.5, 1]) / 5 + 2.5 / 5 / 4
    np.testing.assert_allclose(model.following([3]), unigram, atol=1e-15)
    np.testing.assert_allclose(
        model.following([0]), (np.array([0, 2 - 1, 1 - 0.5, 0]) + 1.5 * unigram) / 3, atol=1e-15
    )
    np.testing.assert_allclose(
        model.following([]), (np.array([1.5, 0, 0, 0]) + 1.5 * unigram) / 3, atol=1e-15
    )
    assert model.nll([[0, 1, END]])[0] == pytest.approx(
        -math.log(model.following([])[0] * model.following([0])[1] * model.following([0, 1])[END])
    )


def test_discounts_are_those_of_the_paper():
    """n1 .. n4 of 10, 4, 2, 1: Y = 10 / 18, D1 = 1 - 2 Y 4/10, D2 = 2 - 3 Y 2/4, D3+ = 3 - 4 Y 1/2."""
    counts = np.repeat([1, 2, 3, 4, 9], [10, 4, 2, 1, 3])
    kept, given = ngram.modified(counts)
    y = 10 / 18
    for count, discount in (
        (1, 1 - 0.8 * y),
        (2, 2 - 1.5 * y),
        (3, 3 - 2 * y),
        (4, 3 - 2 * y),
        (9, 3 - 2 * y),
    ):
        assert given[counts == count] == pytest.approx(discount, abs=1e-15)
    np.testing.assert_allclose(kept + given, counts)
    assert ngram.absolute(counts)[1] == pytest.approx(10 / 18)


def slow(sequences: list[np.ndarray], size: int, order: int, history: tuple[int, ...], symbol: int) -> float:
    """Modified Kneser-Ney straight from its definition, with dictionaries."""
    counts: list[Counter[tuple[int, ...]]] = [Counter() for _ in range(order + 2)]
    for one in sequences:
        line = [size, *one.tolist()]
        for n in range(1, order + 1):
            for at in range(max(n - 1, 1), len(line)):
                counts[n][tuple(line[at - n + 1 : at + 1])] += 1
    for n in range(1, order):
        kinds: dict[tuple[int, ...], set[int]] = defaultdict(set)
        for gram in counts[n + 1]:
            kinds[gram[1:]].add(gram[0])
        for gram in counts[n]:
            if gram[0] != size:
                counts[n][gram] = len(kinds[gram])

    def chance(context: tuple[int, ...]) -> float:
        n = len(context) + 1
        lower = chance(context[1:]) if context else 1 / size
        own = {gram[-1]: count for gram, count in counts[n].items() if gram[:-1] == context}
        if not own:
            return lower
        each = Counter(counts[n].values())
        discounts = {0: 0.0, 1: 0.5, 2: 1.0, 3: 1.5}
        if all(each[k] for k in (1, 2, 3, 4)):
            y = each[1] / (each[1] + 2 * each[2])
            discounts = {k: max(k - (k + 1) * y * each[k + 1] / each[k], 0.01) for k in (1, 2, 3)} | {0: 0.0}
        total = sum(own.values())
        rest = sum(discounts[min(count, 3)] for count in own.values())
        count = own.get(symbol, 0)
        return (count - discounts[min(count, 3)] + rest * lower) / total

    return chance(((size, *history))[-(order - 1) :] if order > 1 else ())


def test_it_is_the_definition_done_fast():
    sequences = drawn(120)
    for order in (1, 2, 3, 5):
        model = fit(sequences, 5, order)
        for history in [(), (0,), (1, 1), (0, 2, 1), (3, 3, 3, 3, 3), tuple(sequences[3][:-1].tolist())]:
            expected = [slow(sequences, 5, order, history, symbol) for symbol in range(5)]
            np.testing.assert_allclose(model.following(history), expected, atol=1e-12)


def test_sequences_are_summed_each_by_itself():
    model, some = fit(drawn(100), 5, 3), drawn(9, seed=1)
    together = model.nll([*some, []])
    assert together.shape == (10,) and together[-1] == 0
    np.testing.assert_allclose(together[:-1], [model.nll([one])[0] for one in some], atol=1e-12)
    assert model.nats(some).shape == (sum(map(len, some)),)
    assert model.nats(some).sum() == pytest.approx(together.sum())
    assert model.nll([]).shape == (0,)


def test_longer_contexts_help_where_there_is_something_to_know():
    """Symbols that repeat with period 3 are foretold by three symbols before, and hardly by one."""
    rng = np.random.default_rng(0)
    lines = [np.tile(rng.integers(0, 8, 3), 5) for _ in range(400)]
    unseen = [np.tile(rng.integers(0, 8, 3), 5) for _ in range(100)]
    short, long = (fit(lines, 8, order).nll(unseen).mean() for order in (2, 4))
    # Three symbols of 8 are to be guessed, log 8 = 2.08 nats each; the other twelve follow.
    assert short > 20 and 3 * math.log(8) < long < 12


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_renamed_is_learnt_so_many_times(smoothing: str):
    turns = np.array([np.roll(np.arange(4), -shift).tolist() + [4] for shift in range(4)])
    sequences, order = drawn(60), 3
    written = [turn[one] for turn in turns for one in sequences]
    ours, theirs = fit(sequences, 5, order, smoothing, turns), fit(written, 5, order, smoothing)
    unseen = drawn(20, seed=2)
    np.testing.assert_allclose(ours.nll(unseen), theirs.nll(unseen), atol=1e-12)
    for turn in turns:  # and so no renaming is better than another
        np.testing.assert_allclose(ours.nll([turn[one] for one in unseen]), ours.nll(unseen), atol=1e-9)


def test_nothing_learnt_is_uniform():
    for model in (fit([], 7, 3), fit([[]], 7, 3)):
        assert model.nll([[0, 3, 6]])[0] == pytest.approx(3 * math.log(7))
        np.testing.assert_allclose(model.following([1]), 1 / 7)


def test_what_no_model_is_made_of():
    with pytest.raises(ValueError, match="a smoothing is kneser-ney, absolute, witten-bell, not laplace"):
        fit(TOY, 4, 2, "laplace")
    for symbols in ([4], [-1]):
        with pytest.raises(ValueError, match="symbols lie in 0 to 3"):
            fit([symbols], 4)
    with pytest.raises(ValueError, match="grams of 10 among 91 symbols do not fit"):
        fit(TOY, 91, 10)
    with pytest.raises(ValueError, match="do not fit"):
        fit(TOY, 91, 0)
    model: NGram = fit(TOY, 91, 9)
    assert np.isfinite(model.nll(list(itertools.permutations(range(91), 1)))).all()


def test_nothing_is_impossible_where_a_discount_would_be_none():
    """Of counts 1, 2, 3 and 4 with n1..n4 = 1, 1, 4, 6 the paper's discount of 2 is below none."""
    counts = np.array([1, 2, *[3] * 4, *[4] * 6])
    kept, given = ngram.modified(counts)
    assert given[1] == ngram.LEAST and (given > 0).all() and (kept + given == counts).all()
