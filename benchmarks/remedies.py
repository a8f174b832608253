"""All remedies against posterior collapse at one size and one budget, as a table.

    python benchmarks/remedies.py CORPUS OUT [NAME ...]

CORPUS is PTB in words with its own splits (`seqvae prepare ptb.train.txt --valid ptb.valid.txt --test
ptb.test.txt --codec words --vocabulary 10000 -o CORPUS`). Every run has the sizes, batches, dropout and
learning rate of the `ptb` recipe, seed 0, five epochs of steps and no remedy but its own; all without a
name. It goes on where it was when it is started again; OUT/NAME holds a run, and figures.json in it what is
printed. Figures are of the test split: -ELBO, the importance-weighted nll (500 samples) of 200 fixed
sentences, KL, MI and active units of all; nats a sentence. Minutes are of the CPU, training with all its
evaluations.
"""

import sys
from pathlib import Path

import torch
from table import fill, worth

from seqvae.corpus import Corpus

EPOCHS = 5
SENTENCES, SAMPLES = 200, 500  # of the importance-weighted nll


def remedies(epoch: int) -> dict[str, dict[str, str]]:
    """Settings over the `ptb` recipe's, by name; epoch in steps."""
    return {
        "none": {},
        "linear annealing, 2 epochs": {"warmup": str(2 * epoch)},
        "sigmoid annealing, 2 epochs": {"warmup": str(2 * epoch), "anneal": "sigmoid"},
        "cyclical annealing, every epoch": {
            "anneal": "cyclical", "warmup": str(epoch // 2), "cycle": str(epoch)
        },
        "beta 0.5": {"beta": "0.5"},
        "word dropout 0.5": {"word_dropout": "0.5"},
        "free bits 6, of a sentence": {"free_bits": "6", "free_over": "sequence"},
        "free bits 6, of the batch": {"free_bits": "6", "free_over": "batch"},
        "free bits 6, of each dimension": {"free_bits": "6", "free_over": "dimension"},
        "BN-VAE, gamma 0.6": {"gamma": "0.6"},
        "max pooling": {"pooling": "max"},
        "aggressive, 20 steps at most": {"aggressive": "20"},
        "autoencoder 1 epoch, new decoder, free bits 6": {
            "autoencoder": str(epoch), "warmup": str(epoch), "free_bits": "6", "free_over": "dimension"
        },
        "Scale-VAE, spread 1": {"spread": "1"},
        "a plain autoencoder": {"autoencoder": "1000000"},
        "a language model, z removed": {"latent": "0"},
    }  # fmt: skip


def main() -> None:
    source, out, *names = sys.argv[1:]
    torch.set_num_threads(1)
    epoch = Corpus.open(Path(source)).epoch_steps("train", 64)
    plain = {"warmup": "0", "free_bits": "0", "steps": str(EPOCHS * epoch), "evaluate_every": str(epoch)}
    every = remedies(epoch)
    runs = {name: plain | every[name] for name in names or every}
    fill(Path(source), Path(out), "ptb", runs, lambda best, data: worth(best, data, SENTENCES, SAMPLES, True))


if __name__ == "__main__":
    main()
