"""How like its original, and how like language, a text is: BLEU, words kept, words in use, variety.

Conventions: a text's words are what stands between white space, compared as they are, in any language. BLEU
goes to four words (Papineni et al. 2002; sacrebleu: Post 2018) and is in points, 0 .. 100, as papers have it.
Shares lie in 0 .. 1; a share, mean or median of nothing is 0.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from statistics import fmean, median

import numpy as np
from sacrebleu.metrics import BLEU

from seqvae.metrics.music import share

ORDER = 4  # words of BLEU's longest n-grams
MOST_SCORED = 200  # texts of a self-BLEU


def exact_share(pairs: Collection[tuple[str, str]]) -> float:
    """Share of (original, estimate) pairs that are the same words in the same order."""
    return share(sum(a.split() == b.split() for a, b in pairs), len(pairs))


def corpus_bleu(pairs: Collection[tuple[str, str]]) -> float:
    """BLEU-4 of the estimates, each against its original, n-grams counted over the whole pile.

    sacrebleu's defaults without its tokenisation. It is 0 where no estimate has four words.
    """
    if not pairs:
        return 0.0
    originals, estimates = zip(*pairs, strict=True)
    return BLEU(tokenize="none", force=True).corpus_score(estimates, [originals]).score


def common_words(texts: Iterable[str], count: int = 100) -> frozenset[str]:
    """The ``count`` commonest words of a training split; of equally common ones the first in order.

    One rule for every language: they are its articles, pronouns, punctuation, <unk>, and what the corpus says
    everywhere. What is not among them counts as a content word.
    """
    counts = Counter(word for text in texts for word in text.split())
    return frozenset(sorted(counts, key=lambda word: (-counts[word], word))[:count])


def content_word_recall(pairs: Iterable[tuple[str, str]], common: Collection[str]) -> float:
    """Share of the originals' content words, those not in ``common``, that their estimates have.

    Each of equal words is matched once, order aside; all pairs are counted as one pile, every word alike.
    """
    found = total = 0
    for original, estimate in pairs:
        content = Counter(word for word in original.split() if word not in common)
        found += (content & Counter(estimate.split())).total()
        total += content.total()
    return share(found, total)


def compared(pairs: Iterable[tuple[str, str]], common: Collection[str]) -> dict[str, float]:
    """How near estimates come to their originals, (original, estimate) pairs, in plain floats.

    `bleu` in points (corpus_bleu), `exact_texts` a share, and `content_word_recall` given `common_words` of a
    training split.
    """
    pairs = list(pairs)
    return {
        "bleu": corpus_bleu(pairs),
        "exact_texts": exact_share(pairs),
        "content_word_recall": content_word_recall(pairs, common),
    }


def ngrams(words: Sequence[str], n: int) -> Iterator[tuple[str, ...]]:
    """All runs of n words."""
    return zip(*(words[i:] for i in range(n)), strict=False)


def distinct(texts: Iterable[str], n: int) -> float:
    """Distinct-n: different n-grams a word over all texts together (Li et al. 2016, section 5.1).

    Falls as texts are added: compare piles of like size only.
    """
    lines = [text.split() for text in texts]
    return share(len({gram for words in lines for gram in ngrams(words, n)}), sum(map(len, lines)))


def self_bleu(texts: Iterable[str]) -> float:
    """Mean BLEU-4 of each text against all others: 100 when all are alike (Zhu et al. 2018, "Texygen").

    At most 200 texts are scored, evenly chosen; texts without words are neither scored nor compared with. As
    Texygen does, an order of n-grams without a match counts as 0.1 of a match (Chen & Cherry 2014, method 1);
    a text of fewer than four words is scored up to its own length. Rises as texts are added.
    """
    lines = [words for text in texts if (words := text.split())]
    if len(lines) < 2:
        return 0.0
    grams = [Counter(gram for n in range(1, ORDER + 1) for gram in ngrams(words, n)) for words in lines]
    top: dict[tuple[str, ...], tuple[int, int]] = defaultdict(lambda: (0, 0))  # of one n-gram in any one text
    for counts in grams:
        for gram, count in counts.items():
            most, second = top[gram]
            top[gram] = (count, most) if count > most else (most, max(count, second))
    scored = min(len(lines), MOST_SCORED)
    chosen = [i * len(lines) // scored for i in range(scored)]
    lengths = Counter(map(len, lines))
    return fmean(against_others(grams[i], len(lines[i]), top, lengths) for i in chosen)


def against_others(
    own: Counter[tuple[str, ...]],
    length: int,
    top: dict[tuple[str, ...], tuple[int, int]],
    lengths: Counter[int],
) -> float:
    """BLEU of one text among many, given each n-gram's two largest counts in a text and all lengths."""
    correct, total = [0] * ORDER, [0] * ORDER
    for gram, count in own.items():
        most, second = top[gram]
        correct[len(gram) - 1] += min(count, second if count == most else most)  # the most of any other text
        total[len(gram) - 1] += count
    others = lengths - Counter([length])
    nearest = min(others, key=lambda other: (abs(other - length), other))
    return BLEU.compute_bleu(correct, total, length, nearest, "floor", 0.1, effective_order=True).score


def summary(texts: Sequence[str]) -> dict[str, float]:
    """What a pile of texts is like, in plain floats, ready for JSON.

    `mean_words` and `median_words` are of all texts; `empty_share` is of texts without words; `distinct_1`,
    `distinct_2` and `self_bleu` are the functions of those names.
    """
    sizes = [len(text.split()) for text in texts]
    return {
        "texts": float(len(texts)),
        "mean_words": fmean(sizes) if sizes else 0.0,
        "median_words": float(median(sizes)) if sizes else 0.0,
        "empty_share": share(sizes.count(0), len(sizes)),
        "distinct_1": distinct(texts, 1),
        "distinct_2": distinct(texts, 2),
        "self_bleu": self_bleu(texts),
    }


def levenshtein(a: Sequence[object], b: Sequence[object]) -> int:
    """The fewest members to insert, delete or replace that turn a into b (Levenshtein 1966)."""
    row = list(range(len(b) + 1))  # from none of a to each beginning of b
    for i, one in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (one != other))
    return row[-1]


def edit_distance(a: str, b: str) -> int:
    """The fewest words to insert, delete or replace that turn a into b."""
    return levenshtein(a.split(), b.split())


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's (1904) rank correlation, -1 .. 1; equal values share their mean rank.

    0 where one of the two is constant or has fewer than two values. Raises ValueError for unlike lengths.
    """
    if len(x) != len(y):
        raise ValueError(f"a rank correlation takes pairs, not {len(x)} values and {len(y)}")
    if len(x) < 2:
        return 0.0
    first, second = (ranks - ranks.mean() for ranks in (average_ranks(x), average_ranks(y)))
    size = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / size) if size else 0.0


def average_ranks(values: Sequence[float]) -> np.ndarray:
    """Ranks from 1, equal values at the mean of theirs: (N,)."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[place]
