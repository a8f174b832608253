"""What a model of sentences keeps, and what lies between two of them.

    python benchmarks/sentences.py MODEL CORPUS LANGUAGE_MODEL

On the test split, seed 0. Reconstructions: the recall of content words (not among the 100 commonest of the
training texts) of sentences of at most 10 words, greedy from the posterior mean, and with the z of another
sentence. Paths: between 64 random pairs of such sentences, 9 steps: the share of distinct sentences among
the steps between, the nll a symbol of the midpoint under the language model (`latent=0`, same corpus) over
that of the ends, and Spearman's correlation of t with the edit distance in words to the first end.
"""

import sys
from statistics import mean

import numpy as np
import torch

from seqvae.checkpoint import load_model
from seqvae.corpus import Corpus, collate
from seqvae.engine import find_model
from seqvae.evaluation import common_words, held
from seqvae.metrics import text
from seqvae.pipeline import Pipeline

PAIRS, STEPS, WORDS = 64, 9, 10


def nll_a_symbol(saved, texts: list[str]) -> float:
    """Under a language model, over all symbols of all texts, END included."""
    windows = [saved.codec.encode(one) for one in texts]
    steps, lengths, told = (torch.from_numpy(part) for part in collate(windows))
    with torch.inference_mode():
        nll = saved.model.nll(torch.zeros(len(texts), 0), steps, lengths, told)
    return (nll.sum() / lengths.sum()).item()


def main() -> None:
    model, folder, language = sys.argv[1:]
    torch.set_num_threads(1)
    corpus, pipeline, judge = (
        Corpus.open(folder),
        Pipeline.from_pretrained(model),
        load_model(find_model(language)),
    )
    texts = held(corpus, "test", np.arange(len(corpus.split("test"))))
    texts = [one for one in texts if 2 <= len(one.split()) <= WORDS]
    common = common_words(corpus)
    z = pipeline.encode(texts)
    own, other = (pipeline.decode(part) for part in (z, z.roll(len(z) // 2, 0)))
    kept = [text.compared(list(zip(texts, found, strict=True)), common) for found in (own, other)]
    print(f"{len(texts)} sentences: {kept[0]}; with another's z: {kept[1]}")
    recall, shuffled = (figures["content_word_recall"] for figures in kept)
    print(f"content-word recall {recall:.3f}, {recall / max(shuffled, 1e-9):.1f} times that of shuffled z")

    order = np.random.default_rng(0).permutation(len(texts))[: 2 * PAIRS].reshape(-1, 2)
    pairs = [(texts[i], texts[j]) for i, j in order]
    paths = [pipeline.interpolate(a, b, STEPS) for a, b in pairs]
    ends = [
        [path[0], path[-1]] == pipeline.reconstruct(pair) for path, pair in zip(paths, pairs, strict=True)
    ]
    distinct = mean(len({*path[1:-1]}) / (STEPS - 2) for path in paths)
    smooth = [
        text.spearman([*range(STEPS)], [text.edit_distance(step, path[0]) for step in path]) for path in paths
    ]
    middle = nll_a_symbol(judge, [path[STEPS // 2] for path in paths])
    outer = nll_a_symbol(judge, [path[at] for path in paths for at in (0, -1)])
    print(f"{PAIRS} paths: ends equal the reconstructions in {sum(ends)}")
    print(f"{distinct:.3f} of the steps between are distinct; Spearman {mean(smooth):.3f}")
    print(f"midpoint nll {middle:.3f}, ends {outer:.3f}: {middle / outer:.3f} times")


if __name__ == "__main__":
    main()
