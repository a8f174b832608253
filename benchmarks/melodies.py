"""How like real tunes a model's samples are, what lies between two of them, and the n-gram model to beat.

    python benchmarks/melodies.py MODEL CORPUS [--split test] [--seed 0] [--samples 1000] [--temperature 1]

The n-gram model: nats a window of the split, in sixteenths with END, of the best smoothing and spelling of
keys for 6 symbols, and of the best order too; chosen on the valid split, learnt of all training windows. A
model's -log p of the same windows (`seqvae evaluate --importance 500`, one of the `melody` codec at beta 1)
is to be below.

Samples: the overlapping area of Yang & Lerch's features with one half of the split's tunes, as a share of
what the other half has: 0.9 at least is the aim for pitch classes, note lengths, intervals and range. Pitch
classes tell keys too, so what real windows in random keys have stands beside. And how much of earlier bars
returns, for models of many bars: to be within a tenth of the corpus's.

Paths: between 64 pairs of the split's windows in one metre, 9 steps, slerp, greedy: the n-gram nats of the
midpoint over those of the ends, at most 1.1; Spearman's correlation of t with the edit distance in events
from the first end, 0.9 at least. Of further draws of 64 pairs the mean and the deviation.
"""

import argparse
import itertools
from dataclasses import replace

import numpy as np
import torch

from seqvae.checkpoint import load_model
from seqvae.codecs.bars import SHIFTS
from seqvae.codecs.grid import END
from seqvae.corpus import Corpus
from seqvae.decoding import Sampling
from seqvae.engine import find_model
from seqvae.evaluation import between, chosen, held, posteriors, sample_windows
from seqvae.listening import KEYS, Style, halves, learnt, nll, travel
from seqvae.metrics import ngram, styles
from seqvae.song import Phrase, transpose

WANTED = ("pitch_classes", "note_lengths", "pitch_interval", "pitch_range")
ORDERS = range(3, 10)
DRAWS = 8  # of pairs, as 64 leave the midpoint's figure uncertain by some hundredths
SPELLINGS = {"keys as they are": None, "in twelve keys": KEYS}


def to_beat(corpus: Corpus, split: str) -> None:
    train, valid, final = (learnt(corpus, name, 2**62) for name in ("train", "valid", split))

    def fit(order: int, smoothing: str, spelling: str) -> ngram.NGram:
        return ngram.fit(train, END + 1, order, smoothing, SPELLINGS[spelling])

    tried = {}
    for kind in itertools.product((6,), ngram.SMOOTHINGS, SPELLINGS):
        tried[kind] = fit(*kind).nll(valid).mean()
        print(f"order {', '.join(map(str, kind))}: valid {tried[kind]:.2f}")
    best = min(tried, key=tried.__getitem__)
    for order in ORDERS:
        tried[order, *best[1:]] = fit(order, *best[1:]).nll(valid).mean()
        print(f"order {order}, {', '.join(best[1:])}: valid {tried[order, *best[1:]]:.2f}")
    last = np.cumsum([len(one) for one in final]) - 1
    for kind in dict.fromkeys((best, (6, best[1], "in twelve keys"), min(tried, key=tried.__getitem__))):
        nats = fit(*kind).nats(final)
        each, end = nats.sum() / len(final), nats[last].mean()
        print(f"{split}: order {', '.join(map(str, kind))}: {each:.2f} nats a window, {end:.2f} of them END")


def about(name: str, corpus: Corpus, phrases: list[Phrase]) -> None:
    found = ", ".join(f"{key} {value:.3f}" for key, value in styles.summary(phrases).items())
    print(f"{name}: {found}, n-gram nll {nll(corpus, phrases):.2f}")
    if phrases[0].bars > 2:
        lags = " ".join(f"{value:.3f}" for value in styles.similarity_by_lag(phrases))
        print(f"  bars 1, 2 .. apart are alike by {lags}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("corpus")
    parser.add_argument("--split", default="test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--temperature", type=float, default=1.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    saved, corpus = load_model(find_model(given.model)), Corpus.open(given.corpus)
    saved.check_codec(corpus.codec)
    to_beat(corpus, given.split)

    indices = chosen(corpus, given.split, None)
    real = held(corpus, given.split, indices)
    first = halves(corpus, given.split, indices, given.seed)
    style = Style(real, first)
    about("real", corpus, real)
    shifts = np.random.default_rng(given.seed).integers(*SHIFTS, len(real), endpoint=True).tolist()
    moved = [replace(one, notes=transpose(one.notes, by)) for one, by in zip(real, shifts, strict=True)]
    apart = style.of([one for one, in_first in zip(moved, first, strict=True) if not in_first])
    print(f"real in random keys: pitch_classes {apart['pitch_classes']['area_of_real']:.3f}")
    how = Sampling(temperature=given.temperature)
    for name, mixture in {"fitted": saved.mixture, "standard": None}.items():
        if name == "standard" or mixture is not None:
            things, _ = sample_windows(saved.model, corpus, mixture, given.samples, given.seed, how)
            about(f"{name} prior", corpus, things)
            for feature, found in style.of(things).items():
                areas = f"area {found['area']:.3f}, of real {style.real[feature].area:.3f}"
                aim = " (0.9)" if feature in WANTED else ""
                print(f"  {feature}: {areas}: {found['area_of_real']:.3f}{aim}; KL {found['kl']:.4f}")

    means = posteriors(saved.model, corpus, given.split, indices).mean
    drawn = range(given.seed, given.seed + DRAWS)
    found = [
        travel(corpus, between(saved.model, corpus, given.split, indices, means, seed)) for seed in drawn
    ]
    print("64 paths: " + ", ".join(f"{name} {value:.3f}" for name, value in found[0].items()))
    for name in ("midpoint_of_ends", "spearman"):
        each = [one[name] for one in found]
        print(f"{DRAWS} draws of 64: {name} {np.mean(each):.3f} +- {np.std(each, ddof=1):.3f}")


if __name__ == "__main__":
    main()
