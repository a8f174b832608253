"""Whether melodies that are told chords keep to them.

    python benchmarks/chords.py RUN CORPUS

On the test split, seed 0, temperature 1: the share of notes whose pitch class is in the chord (a triad, of
the half bar in which they begin) that the window has in its tune. Notes over no chord do not count, all
others weigh alike; +- is a standard error, windows being drawn. Samples are COPIES of each window's metre,
chords and key, which is all they have of it. The controls are told less or something else and held against
the same chords.
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
    strange, ruling = [real[i] for i in other], corpus.codec.ruling
    show("real tunes", real, real)
    show("real tunes, chords of others", real, strange)

    stepper, frames = free_running(saved.model), real * COPIES
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(len(frames), generator=generator, dtype=torch.float64)
    noise = torch.randn(len(frames), saved.model.size.latent, generator=generator)
    untold = told.clone()
    untold[:, ruling:] = 0
    ways = {"told the chords": told, "told no chords": untold, "told chords of others": told[other]}
    for prior in ["fitted"] * (saved.mixture is not None) + ["standard"]:
        for way, rows in ways.items():
            rows = rows.repeat(COPIES, 1)
            if prior == "fitted":
                z = saved.mixture.sample(uniform, noise, rows)
            else:
                z = saved.model.from_prior(uniform, noise)
            made = evaluation.decoded(stepper, corpus.codec, z, rows, Sampling(), 0)
            show(f"samples, {prior} prior, {way}", made, frames)
            if way == "told chords of others":
                show(f"samples, {prior} prior, {way}, in those", made, strange * COPIES)


if __name__ == "__main__":
    main()
