"""Image VAEs on statically binarised MNIST: one objective against its bar, or all of them at one budget.

    python benchmarks/mnist.py CORPUS OUT [NAME ...] [-- KEY=VALUE ...]

CORPUS: `seqvae prepare binarized_mnist.npz --size 28 -o CORPUS`, its own splits of 50,000 / 10,000 / 10,000.
Every run is the `mnist` recipe (784-400-z40, Adam at 2e-3 falling to 0, batches of 128, 20 epochs, seed 0)
with its own objective; all without a name. It goes on where it was when it is started again, and
OUT/NAME/figures.json keeps what is printed: nats an image of the test split, nll + KL of all 10,000 images,
the importance-weighted nll (SAMPLES) of the first 1,000, KL, MI, active units, and minutes of the CPU with
all evaluations. Settings after -- are of every run, another seed or fewer steps.
"""

import sys
from pathlib import Path

import torch
from table import fill, worth

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
    "200-200-z50, ELBO, 60 epochs": DEEP | {"steps": "23460"},  # about as long as the next
    "200-200-z50, IWAE, 5": DEEP | {"samples": "5"},
}


def main() -> None:
    source, out, *rest = sys.argv[1:]
    cut = rest.index("--") if "--" in rest else len(rest)
    names, common = rest[:cut] or list(OBJECTIVES), dict(one.split("=") for one in rest[cut + 1 :])
    torch.set_num_threads(1)
    runs = {name: OBJECTIVES[name] | common for name in names}
    fill(Path(source), Path(out), "mnist", runs, lambda best, data: worth(best, data, FIRST, SAMPLES, False))


if __name__ == "__main__":
    main()
