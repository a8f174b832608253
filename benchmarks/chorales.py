"""Bach's chorales in nats a time step, as the literature counts: a VAE beside the plain LSTM of its size.

    python benchmarks/chorales.py CORPUS VAE LSTM [WINDOWS]

CORPUS: `seqvae prepare chorales -o CORPUS`, or with `--quarters`. VAE: `seqvae train CORPUS --recipe chorale
-o VAE`; LSTM the same with `--set latent=0`. Of both the test windows, all or so many: of the VAE the
importance-weighted nll of SAMPLES and -ELBO at one, of the LSTM its nll, summed and divided by the time
steps. A time step is a quarter of a bar at which a voice sounds; the silent ones of a pickup are not counted.
The difference stands with its standard error over tunes, as a tune's windows overlap.

The VAE has N(0, I), with which it was trained, as its prior, or a mixture of exemplars fitted after that
(`prior.fit_mixture`, with its default number and width), as a training saves it where the two are far apart:
of training windows, which say what keys chorales are in, and of the same transposed, as in training, which
do not. For models of keys as they are, end both trainings by one `--from` the first with `augment=false`.

What is coded: onset, voice, pitch, duration and velocity of every note of four voices on a grid of 12 ticks a
quarter, which is more than the literature's piano roll: what pitches sound at every quarter. With
`--quarters` the content is the roll's and which voice sings what, so that the roll's own nll is this at most.

The literature's figures are of other windows: its test split is a file of 77 whole chorales; here as large a
share of those that music21 ships is drawn by the opening of their melody, a window knows nothing of the bars
before it, and training is in all keys. Theirs, nats a time step of the roll: LSTM 8.45, GRU 8.43, TCN 8.10,
all of which predict the 88 keys of a step independently (Bai, Kolter and Koltun 2018, table 1); deep Markov
model 6.39, a bound (Krishnan, Shalit and Sontag 2017).
"""

import sys
from pathlib import Path

import numpy as np
import torch

from seqvae.checkpoint import load_model
from seqvae.codecs import VoicesCodec
from seqvae.corpus import Corpus
from seqvae.engine import find_model
from seqvae.evaluation import bucketed, chosen, likelihoods, posteriors
from seqvae.image import Model
from seqvae.importance import draws
from seqvae.latent import Mixture
from seqvae.objective import Posterior
from seqvae.prior import fit_mixture
from seqvae.song import SeqvaeError

SAMPLES = 500


def time_steps(corpus: Corpus, indices: np.ndarray) -> np.ndarray:
    """Of each test window the quarters at which a voice sounds."""
    codec = corpus.codec
    assert isinstance(codec, VoicesCodec)
    ear = VoicesCodec(codec.bars, codec.bar_ticks, codec.ensemble, quarters=1)
    windows = (codec.decode(*corpus.window("test", int(i))) for i in indices)
    return np.array([len({note.onset for note in ear.heard(window)}) for window in windows])


@torch.inference_mode()
def exemplars(model: Model, corpus: Corpus, augment: bool) -> Mixture:
    """Of an epoch of training windows, transposed or not."""
    means, logvars, told = [], [], []
    for batch in corpus.batches("train", 64, 0, 0, augment):
        steps, lengths, conditions = (torch.from_numpy(part) for part in batch)
        mean, logvar = model.encode(steps, lengths, conditions)
        means, logvars, told = [*means, mean], [*logvars, logvar], [*told, conditions]
    posterior = Posterior(torch.cat(means), torch.cat(logvars))
    return fit_mixture(posterior, torch.cat(told)[:, : corpus.codec.ruling])


@torch.inference_mode()
def main() -> None:
    folder, *models, limit = [*sys.argv[1:], None][:4]
    torch.set_num_threads(1)
    corpus = Corpus.open(folder)
    indices = chosen(corpus, "test", int(limit) if limit else None)
    steps = time_steps(corpus, indices)
    vae, lstm = (load_model(find_model(Path(name))) for name in models)
    for saved in (vae, lstm):
        saved.check_codec(corpus.codec)
    if lstm.model.size.latent or not vae.model.size.latent:
        raise SeqvaeError("first comes a VAE and then a model with latent=0")
    posterior = posteriors(vae.model, corpus, "test", indices)
    z = posterior.sample(torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(0)))
    nll, kl = likelihoods(vae.model, corpus, "test", indices, z), posterior.kl().sum(1)
    priors = {
        "N(0, I)": None,
        "exemplars": exemplars(vae.model, corpus, False),
        "exemplars in any key": exemplars(vae.model, corpus, True),
    }
    tight = {name: torch.empty(len(indices)) for name in priors}
    for places, (rows, lengths, told) in bucketed(corpus, "test", indices):
        found = draws(vae.model, rows, lengths, told, SAMPLES, 0, places.tolist())
        for place, one in zip(places, found, strict=True):
            for name, prior in priors.items():
                tight[name][place] = one.nll(prior)
    plain = likelihoods(lstm.model, corpus, "test", indices, torch.empty(len(indices), 0))
    total, tunes = steps.sum(), corpus.split("test").tunes[indices]
    print(f"{len(indices)} windows of {total / len(indices):.2f} time steps, {corpus.codec.config()}")
    print(f"LSTM                      {plain.sum() / total:.3f} nats a time step")
    print(f"VAE, -ELBO                {(nll + kl).sum() / total:.3f}, of which KL {kl.sum() / total:.3f}")
    for name, nats in tight.items():
        gap = (nats - plain).sum().item() / total
        apart = np.bincount(tunes, (nats - plain).numpy() - gap * steps)  # of a ratio of sums
        print(
            f"VAE, importance-weighted  {nats.sum() / total:.3f} under {name}: "
            f"{gap:+.3f} +- {np.sqrt(np.square(apart).sum()) / total:.3f} to the LSTM"
        )


if __name__ == "__main__":
    main()
