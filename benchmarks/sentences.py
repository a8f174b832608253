"""What a model of sentences keeps, and what lies between two of them.

    python benchmarks/sentences.py MODEL CORPUS LANGUAGE_MODEL [OUT]

On the test split, seed 0. Reconstructions: the recall of content words (not among the 100 commonest of the
training texts) of sentences of at most 10 words, greedy from the posterior mean, and with the z of another
sentence. Paths: between 64 random pairs of such sentences, 9 steps: the share of distinct sentences among
the steps between, the nll a symbol of the midpoint under the language model (`latent=0`, same corpus) over
that of the ends, and Spearman's correlation of t with the edit distance in words to the first end. Of the
paths between sentences of any length the same.

With OUT also the reverse perplexity (Zhao et al. 2018, section 5): of the test split under a language model
trained as LANGUAGE_MODEL was, but on as many samples as it had sentences; OUT keeps both. It goes on where
it was when it is started again.
"""

import sys
from pathlib import Path
from statistics import mean

import numpy as np
import torch

from seqvae.checkpoint import load_model
from seqvae.corpus import Corpus, prepare
from seqvae.engine import find_model
from seqvae.evaluation import common_words, evaluate, held, language_nll
from seqvae.metrics import text
from seqvae.pipeline import Pipeline
from seqvae.recipes import RECIPES, override
from seqvae.train import flat, train

PAIRS, STEPS, WORDS = 64, 9, 10


def paths(pipeline, judge, texts: list[str]) -> None:
    """Prints what lies between random pairs of the texts."""
    order = np.random.default_rng(0).permutation(len(texts))[: 2 * PAIRS].reshape(-1, 2)
    pairs = [(texts[i], texts[j]) for i, j in order]
    found = [pipeline.interpolate(a, b, STEPS) for a, b in pairs]
    ends = [
        [path[0], path[-1]] == pipeline.reconstruct(pair) for path, pair in zip(found, pairs, strict=True)
    ]
    distinct = mean(len({*path[1:-1]}) / (STEPS - 2) for path in found)
    smooth = [
        text.spearman([*range(STEPS)], [text.edit_distance(step, path[0]) for step in path]) for path in found
    ]
    middle = language_nll(judge, [path[STEPS // 2] for path in found])
    outer = language_nll(judge, [path[at] for path in found for at in (0, -1)])
    print(f"{PAIRS} paths: ends equal the reconstructions in {sum(ends)}")
    print(f"{distinct:.3f} of the steps between are distinct; Spearman {mean(smooth):.3f}")
    print(f"midpoint nll {middle:.3f}, ends {outer:.3f}: {middle / outer:.3f} times")


def reverse(pipeline, corpus: Corpus, language: Path, out: Path) -> None:
    samples = out / "samples.txt"
    if not samples.exists():
        out.mkdir(parents=True, exist_ok=True)
        drawn = pipeline.sample(len(corpus.split("train")))
        samples.write_text("".join(f"{one}\n" for one in drawn if one), encoding="utf-8")
    prepare(samples, out / "corpus", codec=corpus.codec)
    told = load_model(language).config["recipe"]
    settings = flat({"recipe": told})
    settings["embedding"] = ",".join(map(str, settings["embedding"]))
    known = {name: str(value) for name, value in settings.items() if value is not None}
    best = train(out / "corpus", override(RECIPES["text"], known), out / "run", resume=True)
    found = [evaluate(folder, corpus.folder)["perplexity"] for folder in (best, language)]
    print(f"reverse perplexity {found[0]:.1f}; of a language model of the real sentences {found[1]:.1f}")


def main() -> None:
    model, folder, language, *out = sys.argv[1:]
    torch.set_num_threads(1)
    corpus, pipeline = Corpus.open(folder), Pipeline.from_pretrained(model)
    judge = load_model(find_model(language))
    everything = held(corpus, "test", np.arange(len(corpus.split("test"))))
    texts = [one for one in everything if 2 <= len(one.split()) <= WORDS]
    common = common_words(corpus)
    z = pipeline.encode(texts)
    own, other = (pipeline.decode(part) for part in (z, z.roll(len(z) // 2, 0)))
    kept = [text.compared(list(zip(texts, found, strict=True)), common) for found in (own, other)]
    print(f"{len(texts)} sentences: {kept[0]}; with another's z: {kept[1]}")
    recall, shuffled = (figures["content_word_recall"] for figures in kept)
    print(f"content-word recall {recall:.3f}, {recall / max(shuffled, 1e-9):.1f} times that of shuffled z")
    paths(pipeline, judge, texts)
    print("of any length:")
    paths(pipeline, judge, everything)
    if out:
        reverse(pipeline, corpus, find_model(language), Path(out[0]))


if __name__ == "__main__":
    main()
