"""Image VAEs on statically binarised MNIST: one objective against its bar, or all of them at one budget.

    python benchmarks/mnist.py CORPUS OUT [NAME ...] [-- KEY=VALUE ...]

CORPUS: `seqvae prepare binarized_mnist.npz --size 28 -o CORPUS`, its own splits of 50,000 / 10,000 / 10,000.
Every run is the `mnist` recipe (784-400-z40, Adam at 2e-3 falling to 0, batches of 128, 20 epochs, seed 0)
with its own objective; all without a name. It goes on where it was when it is started again, and
OUT/figures.json keeps what is printed: nats an image of the test split, nll + KL of all 10,000 images, the
importance-weighted nll (SAMPLES) of the first 1,000, KL, MI, active units, and minutes of one thread with all
evaluations. Settings after -- are of every run, another seed or fewer steps.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

from seqvae.checkpoint import load_model
from seqvae.corpus import Corpus
from seqvae.evaluation import bounds, chosen, posteriors, tightened
from seqvae.train import train

FIRST, SAMPLES = 1000, 100
DEEP = {"widths": "200,200", "latent": "50"}
OBJECTIVES = {
    "ELBO": {},
    "beta 4": {"beta": "4"},
    "linear annealing, 4 epochs": {"warmup": "1564"},
    "cyclical annealing, every 4 epochs": {"anneal": "cyclical", "warmup": "782", "cycle": "1564"},
    "free bits 8, of each dimension": {"free_bits": "8", "free_over": "dimension"},
    "capacity 25": {"capacity": "25", "beta": "10", "warmup": "3910"},
    "beta-TCVAE, 4": {"penalty": "tc", "strength": "3"},
    "FactorVAE, 10": {"penalty": "factor", "strength": "10"},
    "InfoVAE, MMD 100": {"penalty": "mmd", "strength": "100"},
    "WAE, MMD 100": {"penalty": "mmd", "strength": "100", "beta": "0"},
    "DIP-VAE-I, 10": {"penalty": "dip-i", "strength": "10"},
    "DIP-VAE-II, 10": {"penalty": "dip-ii", "strength": "10"},
    "mixture prior, 100": {"prior": "mixture"},
    "VampPrior, 100": {"prior": "vamp"},
    "IWAE, 5": {"samples": "5"},
    "IWAE, 5, STL": {"samples": "5", "gradient": "stl"},
    "IWAE, 5, DReG": {"samples": "5", "gradient": "dreg"},
    "200-200-z50, ELBO": DEEP,
    "200-200-z50, IWAE, 5": DEEP | {"samples": "5"},
}


def measure(folder: Path, corpus: Corpus) -> dict[str, float]:
    saved, everything = load_model(folder), chosen(corpus, "test", None)
    found = posteriors(saved.model, corpus, "test", everything)
    figures = bounds(saved.model, corpus, "test", everything, found)
    return figures | tightened(saved.model, corpus, "test", np.arange(FIRST), SAMPLES)


def main() -> None:
    source, out, *rest = sys.argv[1:]
    cut = rest.index("--") if "--" in rest else len(rest)
    names, common = rest[:cut] or list(OBJECTIVES), dict(one.split("=") for one in rest[cut + 1 :])
    torch.set_num_threads(1)
    corpus, kept = Corpus.open(source), Path(out) / "figures.json"
    table: dict[str, dict[str, float]] = json.loads(kept.read_text()) if kept.exists() else {}
    for name in names:
        if name not in table:
            start, folder = time.perf_counter(), Path(out) / str(list(OBJECTIVES).index(name))
            best = train(source, "mnist", folder, OBJECTIVES[name] | common, resume=True)
            table[name] = {"minutes": (time.perf_counter() - start) / 60} | measure(best, corpus)
            kept.write_text(json.dumps(table, indent=1))
        row = table[name]
        cells = [row["nll"] + row["kl"], row["iw_nll"], row["kl"], row["mi"]]
        shown = [f"{value:.2f}" for value in cells] + [f"{row['active_units']:.0f}", f"{row['minutes']:.1f}"]
        print(f"| {name} | {' | '.join(shown)} |", flush=True)


if __name__ == "__main__":
    main()
