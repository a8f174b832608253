"""Whether melodies that are told chords keep to them.

    python benchmarks/chords.py RUN CORPUS

On the test split, seed 0, temperature 1: the share of notes whose pitch class is in the chord (a triad, of
the half bar in which they begin) that the window has in its tune. Notes over no chord do not count, all
others weigh alike; +- is a standard error, windows being drawn. Samples are COPIES of each window's metre,
chords and key, which is all they have of it. The controls are told less, or the chords of another window in
that metre, moved to the own key, and held against the same chords; the latter against what they are told too.
"""

import sys
from dataclasses import replace

import numpy as np
import torch

from seqvae import evaluation
from seqvae.checkpoint import load_model
from seqvae.corpus import Corpus
from seqvae.decoding import Sampling, free_running
from seqvae.engine import find_model
from seqvae.metrics.music import in_chord
from seqvae.song import Phrase

COPIES = 4


def show(name: str, phrases: list[Phrase], frames: list[Phrase]) -> None:
    """A row of the table: the phrases' notes in the chords of the frames."""
    counts = [in_chord(replace(one, chords=frame.chords)) for one, frame in zip(phrases, frames, strict=True)]
    hits, notes = np.array(counts, float).T
    share = hits.sum() / notes.sum()
    error = np.sqrt(np.square(hits - share * notes).sum()) / notes.sum()  # of a ratio of sums
    print(f"{name:44} {share:.1%} +- {error:.1%} of {notes.sum():.0f} notes", flush=True)


def main() -> None:
    model, folder = sys.argv[1:]
    torch.set_num_threads(1)
    corpus, saved = Corpus.open(folder), load_model(find_model(model))
    saved.check_codec(corpus.codec)
    indices = np.arange(len(corpus.split("test")))
    real, told = evaluation.held(corpus, "test", indices), evaluation.conditions_of(corpus, "test", indices)
    random = np.random.default_rng(0)
    other = np.arange(len(real))  # another window in the same metre
    for metre in sorted({phrase.metre for phrase in real}):
        same = random.permutation(np.flatnonzero([phrase.metre == metre for phrase in real]))
        other[same] = np.roll(same, 1)
    untold, strange = told.clone(), told.clone()
    untold[:, corpus.codec.ruling : -1] = 0
    strange[:, corpus.codec.ruling : -1] = told[other, corpus.codec.ruling : -1]
    elsewhere = [corpus.codec.frame(row) for row in strange.numpy()]
    show("real tunes", real, real)
    show("real tunes, in chords of others", real, elsewhere)

    stepper = free_running(saved.model)
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(len(real) * COPIES, generator=generator, dtype=torch.float64)
    noise = torch.randn(len(real) * COPIES, saved.model.size.latent, generator=generator)
    ways = {"told the chords": told, "told the key alone": untold, "told chords of others": strange}
    for prior in ["fitted"] * (saved.mixture is not None) + ["standard"]:
        for way, rows in ways.items():
            rows = rows.repeat(COPIES, 1)
            if prior == "fitted":
                z = saved.mixture.sample(uniform, noise, rows)
            else:
                z = saved.model.from_prior(uniform, noise)
            made = evaluation.decoded(stepper, corpus.codec, z, rows, Sampling(), 0)
            show(f"{prior} prior, {way}", made, real * COPIES)
            if way == "told chords of others":
                show(f"{prior} prior, {way}, in those", made, elsewhere * COPIES)


if __name__ == "__main__":
    main()
