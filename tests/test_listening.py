"""Melodies beside a corpus's own: what the n-gram model reads, paths, halves of tunes, piles compared."""

import numpy as np
import pytest
from test_metrics_music import line, phrase
from test_train import make_corpus

from seqvae import listening
from seqvae.codecs.grid import END, FIRST, HOLD, OFF
from seqvae.corpus import Corpus
from seqvae.metrics import ngram, styles
from seqvae.song import Note, Phrase, SeqvaeError, lead


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus.open(make_corpus(tmp_path_factory.mktemp("tunes")))


@pytest.fixture(scope="module")
def windows(corpus: Corpus) -> list[Phrase]:
    return [corpus.codec.decode(*corpus.window("test", i)) for i in range(len(corpus.split("test")))]


def moved(one: Phrase, semitones: int) -> Phrase:
    return Phrase(tuple(n._replace(pitch=n.pitch + semitones) for n in one.notes), one.metre, one.bars)


def test_events_are_sixteenths(corpus: Corpus):
    (found,) = listening.events(corpus, [phrase((0, 0.5, 60), (1, 0.25, 64), bars=2)])
    middle = FIRST + 60 - 21
    assert found.tolist() == [middle, HOLD, OFF, HOLD, middle + 4, OFF] + [HOLD] * 26 + [END]
    with pytest.raises(SeqvaeError, match="2 bars, not 3"):
        listening.events(corpus, [line(60, bars=3)])


def test_keys_are_renamings():
    assert listening.KEYS.shape == (12, END + 1)
    assert (np.sort(listening.KEYS, 1) == np.arange(END + 1)).all()
    assert (listening.KEYS[:, [HOLD, OFF, END]] == [HOLD, OFF, END]).all()
    assert sorted(listening.KEYS[:, FIRST + 40] - FIRST) == list(range(34, 46))


def test_a_window_in_another_key_is_little_less_likely(corpus: Corpus, windows: list[Phrase]):
    own, higher = (listening.nll(corpus, [moved(one, by) for one in windows]) for by in (0, 3))
    assert higher < own + 3
    in_own_keys = ngram.fit(listening.learnt(corpus), END + 1)
    there = in_own_keys.nll(listening.events(corpus, [moved(one, 3) for one in windows])).mean()
    assert there > in_own_keys.nll(listening.events(corpus, windows)).mean() + 5
    rng = np.random.default_rng(0)
    odd = [
        Phrase(tuple(n._replace(pitch=int(rng.integers(30, 90))) for n in one.notes), one.metre, one.bars)
        for one in windows
    ]
    assert listening.nll(corpus, odd) > own + 5
    assert listening.nll(corpus, []) == 0
    assert listening.reader(corpus) is listening.reader(corpus)  # learnt once


def test_training_windows_are_chosen_evenly(corpus: Corpus):
    whole = listening.learnt(corpus)
    assert len(whole) == len(corpus.split("train"))
    some = listening.learnt(corpus, most=20)
    assert len(some) == 10 and np.array_equal(some[0], whole[0])
    assert np.array_equal(some[5], whole[len(whole) // 2])


def test_a_path_that_leaves_steadily(corpus: Corpus):
    """One note more of the second tune at each step."""
    ends = [[60 + at for at in range(8)], [80 + at for at in range(8)]]
    path = [[line(*ends[1][:step], *ends[0][step:], bars=2)] * 2 for step in range(9)]
    found = listening.travel(corpus, path)
    assert found["spearman"] == pytest.approx(1)
    assert found["ngram_nll_0"] == pytest.approx(listening.nll(corpus, path[0]))
    assert found["midpoint_of_ends"] > 1  # a leap of two octaves in the middle
    back = listening.travel(corpus, path[:5] + path[:4][::-1])
    assert back["spearman"] == pytest.approx(0, abs=1e-12) and back["ngram_nll_0"] == back["ngram_nll_8"]
    assert listening.travel(corpus, []) == listening.travel(corpus, [[], []]) == {}


def test_halves_are_of_different_tunes(corpus: Corpus):
    count = len(corpus.split("train"))
    for indices in (np.arange(count), np.arange(0, count, 3)):
        first = listening.halves(corpus, "train", indices)
        tunes = corpus.split("train").tunes[indices]
        assert not {*tunes[first]} & {*tunes[~first]}
        assert len(indices) / 2 <= first.sum() < len(indices) / 2 + np.bincount(tunes).max()
    assert not np.array_equal(first, listening.halves(corpus, "train", indices, seed=1))
    assert listening.halves(corpus, "train", indices[:1]).tolist() == [True]


def test_piles_are_compared_with_one_half(windows: list[Phrase]):
    first = np.arange(len(windows)) % 2 == 0
    style = listening.Style(windows, first)
    control = [windows[i] for i in np.flatnonzero(~first)]
    assert set(style.of_real()) == set(styles.FEATURES)
    for name, found in style.of(control).items():
        assert found == style.of_real()[name] | {"area_of_real": 1}
    drone = [Phrase((Note(0.0, 8.0, 60),), one.metre, one.bars) for one in windows]
    assert style.of(drone)["note_count"]["area_of_real"] < 0.3
    assert style.of([]) == {}
    strange = listening.Style([windows[0], windows[0], drone[0]], np.arange(3) < 2)  # halves that never meet
    assert strange.of(drone)["note_count"]["area_of_real"] == 0
    for few in (windows[:1], windows[:2]):
        small = listening.Style(few, np.arange(len(few)) == 0)
        assert small.of_real() == small.of(windows) == {}


def test_of_an_ensemble_the_first_voice_is_heard(corpus: Corpus):
    high = line(67, 69, bars=2)
    low = tuple(note._replace(pitch=note.pitch - 12, voice=1) for note in high.notes)
    both = Phrase((*high.notes, *low), high.metre, 2, ensemble="chorale")
    assert lead(both) == high and lead(high) is high
    assert listening.nll(corpus, [both]) == listening.nll(corpus, [high])
