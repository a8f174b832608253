"""Known numbers of the measures of text, worked out by hand, and against the libraries that define them."""

import json
import math
import random

import pytest
from sacrebleu.metrics import BLEU

from seqvae.metrics import text

FOX = "the quick brown fox jumps"


def babble(count: int, seed: int = 0) -> list[str]:
    """Texts of 1 to 12 words out of 30, with repetitions."""
    draw = random.Random(seed)
    return [
        " ".join(f"w{int(30 * draw.random() ** 2)}" for _ in range(draw.randint(1, 12))) for _ in range(count)
    ]


# ----------------------------------------------------------------------------------- reconstructions


def test_bleu_of_one_wrong_word_by_hand() -> None:
    """Of 5 words 4 agree, of 4 pairs 3, of 3 triples 2, of 2 quadruples 1."""
    pairs = [(FOX, "the quick brown fox sleeps")]
    assert text.corpus_bleu(pairs) == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25, abs=1e-9)


def test_bleu_of_a_text_cut_short_by_hand() -> None:
    """All n-grams agree, and the brevity penalty of 4 words for 5 is exp(1 - 5 / 4)."""
    assert text.corpus_bleu([(FOX, "the quick brown fox")]) == pytest.approx(100 * math.exp(-0.25), abs=1e-9)


def test_bleu_counts_over_the_pile_and_minds_no_white_space() -> None:
    pairs = [(FOX, FOX), ("a b c d", "  a b\tc x\n")]  # 8 of 9, 6 of 7, 4 of 5 and 2 of 3
    expected = 100 * (8 / 9 * 6 / 7 * 4 / 5 * 2 / 3) ** 0.25
    assert text.corpus_bleu(pairs) == pytest.approx(expected, abs=1e-9)


def test_bleu_at_its_ends() -> None:
    assert text.corpus_bleu([(line, line) for line in babble(50)]) == pytest.approx(100)
    for pairs in ([], [("", "")], [(FOX, "")], [("", FOX)], [(FOX, "a b c d e")]):
        assert text.corpus_bleu(pairs) == 0


def test_content_words_are_a_multiset_over_the_pile() -> None:
    common = {"the", "a"}
    pairs = [
        ("the cat saw the cat", "a cat and the dog"),  # one of two cats, not saw: 1 of 3
        ("a dog barks", "dog dog barks the"),  # 2 of 2
        ("the a", "the a"),  # nothing to find
    ]
    assert text.content_word_recall(pairs, common) == 3 / 5
    assert text.content_word_recall(pairs[2:], common) == text.content_word_recall([], common) == 0


def test_common_words_are_the_commonest_then_the_first_in_order() -> None:
    texts = ["d d c c", "b a d", "", "The the"]
    assert text.common_words(texts, 3) == {"d", "c", "The"}  # d 3, c 2, and of the ones The before a
    assert text.common_words(reversed(texts), 3) == text.common_words(texts, 3)
    assert text.common_words(texts) == {"a", "b", "c", "d", "The", "the"}
    assert text.common_words([]) == frozenset()


def test_compared() -> None:
    pairs = [(FOX, FOX), ("an apple fell down", "an  apple fell up "), ("word", " word")]
    found = text.compared(iter(pairs), frozenset({"the", "an"}))
    assert found == {
        "bleu": text.corpus_bleu(pairs),
        "exact_texts": 2 / 3,
        "content_word_recall": (4 + 2 + 1) / (4 + 3 + 1),
    }
    assert text.compared([], frozenset()) == {"bleu": 0, "exact_texts": 0, "content_word_recall": 0}


# ------------------------------------------------------------------------------------------- samples


def test_distinct_counts_over_all_words() -> None:
    texts = ["a b a b", "a b", ""]  # a, b of 6 words; ab, ba of 6 words
    assert text.distinct(texts, 1) == 2 / 6
    assert text.distinct(texts, 2) == 2 / 6
    assert text.distinct(["a b c"], 2) == 2 / 3
    assert text.distinct(["", " "], 1) == text.distinct([], 2) == 0


def test_self_bleu_by_hand() -> None:
    """The first two share 3 of 4 words, 2 of 3 pairs, 1 of 2 triples, and a quadruple counts as 0.1 of a
    match; the third shares nothing."""
    texts = ["a b c d", "a b c e", "x y z w"]
    each = 100 * (3 / 4 * 2 / 3 * 1 / 2 * 0.1 / 1) ** 0.25
    assert text.self_bleu(texts) == pytest.approx(2 * each / 3, abs=1e-9)


def test_self_bleu_at_its_ends() -> None:
    assert text.self_bleu([FOX, FOX, FOX]) == pytest.approx(100)
    assert text.self_bleu(["hi", "hi", "", " "]) == pytest.approx(100)  # short ones to their own length
    assert text.self_bleu(["a b c d", "e f g h"]) == 0
    for few in ([], [""], [FOX], [FOX, ""]):
        assert text.self_bleu(few) == 0


def test_self_bleu_is_the_mean_of_sacrebleu_against_all_others() -> None:
    texts = babble(60)
    score = BLEU(tokenize="none", smooth_method="floor", effective_order=True).sentence_score
    each = [score(line, texts[:i] + texts[i + 1 :]).score for i, line in enumerate(texts)]
    assert text.self_bleu(texts) == pytest.approx(sum(each) / len(each), abs=1e-9)


def test_self_bleu_scores_at_most_200_evenly_chosen_texts_against_all() -> None:
    """Every other text is FOX, the rest share nothing: of 400 only the former are chosen, of 200 all."""
    for half, expected in ((200, 100), (100, 50)):
        texts = [line for i in range(half) for line in (FOX, f"w{i} a{i} b{i} c{i}")]
        assert text.self_bleu(texts) == pytest.approx(expected)


def test_summary() -> None:
    texts = ["a b", "", "a b c d e", "a"]
    found = text.summary(texts)
    assert json.loads(json.dumps(found)) == found
    assert found | {"self_bleu": 0} == {
        "texts": 4,
        "mean_words": 2,
        "median_words": 1.5,
        "empty_share": 0.25,
        "distinct_1": 5 / 8,
        "distinct_2": 4 / 8,
        "self_bleu": 0,
    }
    assert found["self_bleu"] == text.self_bleu(texts)
    assert set(text.summary([]).values()) == {0}


# ------------------------------------------------------------------------------------ interpolations


@pytest.mark.parametrize(
    ("a", "b", "edits"),
    [
        ("", "", 0),
        ("", "a b c", 3),
        ("a b c", "a  b c", 0),
        ("k i t t e n", "s i t t i n g", 3),
        ("s u n d a y", "s a t u r d a y", 3),
        ("a b c d", "b c d a", 2),
        ("the cat", "the cats", 1),
    ],
)
def test_edit_distance(a: str, b: str, edits: int) -> None:
    assert text.edit_distance(a, b) == text.edit_distance(b, a) == edits


def test_edit_distance_is_a_metric() -> None:
    lines = babble(12)
    for a, b, c in zip(lines, lines[1:], lines[2:], strict=False):
        assert text.edit_distance(a, c) <= text.edit_distance(a, b) + text.edit_distance(b, c)
        assert (text.edit_distance(a, b) == 0) == (a == b)


def test_spearman_by_hand() -> None:
    assert text.spearman([1, 2, 3, 4], [10, 20, 90, 91]) == pytest.approx(1)
    assert text.spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    # Squared differences of ranks 0 1 1 0: 1 - 6 * 2 / (4 * 15)
    assert text.spearman([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    # Ranks 1 2 3 against 1.5 1.5 3: 1.5 / sqrt(2 * 1.5)
    assert text.spearman([1, 2, 3], [5, 5, 7]) == pytest.approx(math.sqrt(3) / 2)


def test_spearman_of_what_has_no_order() -> None:
    for x, y in (([], []), ([1], [2]), ([1, 2, 3], [4, 4, 4]), ([0, 0], [1, 2])):
        assert text.spearman(x, y) == 0
    with pytest.raises(ValueError, match="pairs"):
        text.spearman([1, 2], [1])


def test_spearman_is_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    draw = random.Random(0)
    for size in (2, 5, 30):
        x, y = ([draw.randrange(8) for _ in range(size - 1)] + [end] for end in (9, 8))
        assert text.spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
