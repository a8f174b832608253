"""Makes a trained run an embedded model: its best weights, in float16, with the figures on the test split.

    python benchmarks/embed.py RUN CORPUS NAME "what it is" "licence" [WIDTH]

Fits the succession and the mixture of exemplars, widened by WIDTH (0.3), anew to the training windows, then
writes model.safetensors and config.json in seqvae/pretrained/NAME; the card beside them, README.md, is
written by hand.
"""

import sys
from pathlib import Path

import torch

from seqvae.checkpoint import load_model, save_model
from seqvae.corpus import Corpus
from seqvae.engine import PRETRAINED
from seqvae.evaluation import assess
from seqvae.prior import WIDTH
from seqvae.train import finish_model


def main() -> None:
    run, corpus, name, what, licence, width = [*sys.argv[1:], WIDTH][:6]
    torch.set_num_threads(1)
    data, saved = Corpus.open(corpus), load_model(Path(run) / "best")
    finish_model(saved, data, width=float(width))
    saved.config |= {"what": what, "licence": licence}
    save_model(PRETRAINED / name, saved, half=True)
    saved = load_model(PRETRAINED / name)  # as users will have it
    saved.config["test"] = assess(saved, data, "test")
    save_model(PRETRAINED / name, saved, half=True)
    for key, value in saved.config["test"].items():
        print(key, value)


if __name__ == "__main__":
    main()
