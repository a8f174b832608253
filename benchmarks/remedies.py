"""All remedies against posterior collapse at one size and one budget, as a table.

    python benchmarks/remedies.py CORPUS OUT [EPOCHS]

CORPUS is PTB in words with its own splits (`seqvae prepare ptb.train.txt --valid ptb.valid.txt --test
ptb.test.txt --codec words --vocabulary 10000 -o CORPUS`). Every run has the sizes, batches, dropout and
learning rate of the `ptb` recipe, seed 0, EPOCHS epochs (5) of steps and no remedy but its own. It goes on
where it was when it is started again; OUT holds the runs, and figures.json what is printed. Figures are of
the test split: -ELBO, KL, MI and active units of all sentences, the importance-weighted nll (500 samples) of
500 fixed ones; nats a sentence. Time is of the training, with all its evaluations.
"""

import json
import sys
import time
from pathlib import Path

import torch

from seqvae.checkpoint import load_model
from seqvae.corpus import Corpus
from seqvae.evaluation import bounds, chosen, posteriors, tightened
from seqvae.train import train

FIXED = 500  # sentences and samples of the importance-weighted nll


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


def measure(folder: Path, corpus: Corpus) -> dict[str, float]:
    saved = load_model(folder)
    everything, some = chosen(corpus, "test", None), chosen(corpus, "test", FIXED)
    found = posteriors(saved.model, corpus, "test", everything)
    figures = bounds(saved.model, corpus, "test", everything, found)
    return figures | tightened(saved.model, corpus, "test", some, FIXED)


def main() -> None:
    source, out = Path(sys.argv[1]), Path(sys.argv[2])
    epochs = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    torch.set_num_threads(1)
    corpus = Corpus.open(source)
    epoch = corpus.epoch_steps("train", 64)
    plain = {"warmup": "0", "free_bits": "0", "steps": str(epochs * epoch), "evaluate_every": str(epoch)}
    kept = out / "figures.json"
    table: dict[str, dict[str, float]] = json.loads(kept.read_text()) if kept.exists() else {}
    for number, (name, settings) in enumerate(remedies(epoch).items(), 1):
        if name not in table:
            start = time.perf_counter()
            best = train(source, "ptb", out / f"{number:02}", plain | settings, resume=True)
            table[name] = {"minutes": (time.perf_counter() - start) / 60} | measure(best, corpus)
            kept.write_text(json.dumps(table, indent=1))
        row = table[name]
        figures = [row["nll"] + row["kl"], row["iw_nll"], row["kl"], row["mi"]]
        cells = [f"{value:.2f}" for value in figures] + [
            f"{row['active_units']:.0f}",
            f"{row['minutes']:.0f}",
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
