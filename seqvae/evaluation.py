"""What a model is worth on held-out windows: bounds and divergences in nats, exact notes, and how its samples look."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqvae.checkpoint import Saved, load_model
from seqvae.codecs import Codec, Encoded
from seqvae.corpus import Batch, Corpus
from seqvae.decoding import GREEDY, Sampling, Stepper, decode
from seqvae.harvest import digest
from seqvae.latent import Mixture, divergences
from seqvae.metrics import music
from seqvae.model import SequenceVAE
from seqvae.objective import Posterior
from seqvae.song import Phrase

BATCH = 256


def collate(windows: Sequence[Encoded]) -> Batch:
    """Windows of any lengths as one zero-padded batch."""
    lengths = np.array([len(window.steps) for window in windows])
    steps = np.zeros((len(windows), lengths.max(), windows[0].steps.shape[1]), np.int64)
    for row, window in zip(steps, windows, strict=True):
        row[: len(window.steps)] = window.steps
    return Batch(steps, lengths, np.stack([window.condition for window in windows]).astype(np.int64))


def chosen(corpus: Corpus, split: str, limit: int | None, seed: int = 0) -> np.ndarray:
    """Indices of all a split's windows, or of ``limit`` of them drawn with the seed, in order."""
    count = len(corpus.split(split))
    if limit is None or limit >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, limit, replace=False))


@torch.inference_mode()
def posteriors(model: SequenceVAE, corpus: Corpus, split: str, indices: np.ndarray) -> Posterior:
    """q(z|x) of the chosen windows, in their order: mean and logvar (N, Z)."""
    found = []
    for start in range(0, len(indices), BATCH):
        batch = collate([corpus.window(split, int(i)) for i in indices[start : start + BATCH]])
        found.append(model.encode(*(torch.from_numpy(part) for part in batch)))
    return Posterior(torch.cat([p.mean for p in found]), torch.cat([p.logvar for p in found]))


@torch.inference_mode()
def likelihoods(
    model: SequenceVAE, corpus: Corpus, split: str, indices: np.ndarray, z: Tensor
) -> Tensor:
    """-log p(x|z) (N,) nats of the chosen windows, each at its row of z (N, Z)."""
    found = []
    for start in range(0, len(indices), BATCH):
        batch = collate([corpus.window(split, int(i)) for i in indices[start : start + BATCH]])
        steps, lengths, conditions = (torch.from_numpy(part) for part in batch)
        found.append(model.nll(z[start : start + BATCH], steps, lengths, conditions))
    return torch.cat(found)


def phrases_of(codec: Codec, rows: Sequence[np.ndarray], conditions: Tensor | np.ndarray) -> list[Phrase]:
    return [codec.decode(steps, np.asarray(condition)) for steps, condition in zip(rows, conditions, strict=True)]


def reconstruction(
    model: SequenceVAE, corpus: Corpus, split: str, indices: np.ndarray, posterior: Posterior
) -> dict[str, float]:
    """Greedy decoding from the posterior mean against the windows: micro F1 of onsets and pitches, exact windows."""
    windows = [corpus.window(split, int(i)) for i in indices]
    conditions = torch.from_numpy(np.stack([window.condition for window in windows]).astype(np.int64))
    rows = decode(Stepper(model), posterior.mean, conditions, GREEDY)
    estimates = phrases_of(corpus.codec, rows, conditions)
    pairs = list(zip((corpus.codec.decode(*window) for window in windows), estimates, strict=True))
    return {
        "onset_pitch_f1": music.micro(music.onset_pitch_overlap(*pair) for pair in pairs).f1,
        "onset_f1": music.micro(music.onset_overlap(*pair) for pair in pairs).f1,
        "exact_windows": music.exact_share(pairs),
    }


def sample_windows(
    model: SequenceVAE, corpus: Corpus, mixture: Mixture | None, count: int, seed: int, how: Sampling
) -> tuple[list[np.ndarray], Tensor]:
    """Steps of ``count`` windows from the prior, and their conditions, drawn as the training split's windows have them."""
    noise = torch.Generator().manual_seed(seed)
    conditions = corpus.split("train").conditions
    picks = torch.randint(len(conditions), (count,), generator=noise).numpy()
    told = torch.from_numpy(conditions[picks].astype(np.int64))
    uniform, normal = torch.rand(count, generator=noise), torch.randn(count, model.size.latent, generator=noise)
    z = normal if mixture is None else mixture.sample(uniform, normal)
    return decode(Stepper(model), z, told, how, seed=seed), told


def novelty(corpus: Corpus, rows: Sequence[np.ndarray], conditions: Tensor) -> dict[str, float]:
    """Shares of samples that equal, in any transposition, a window of train, one of test, or neither."""
    keys = [digest(corpus.codec, Encoded(steps, c.numpy())) for steps, c in zip(rows, conditions, strict=True)]
    train, test = corpus.contains("train", keys), corpus.contains("test", keys)
    return {"in_train": float(train.mean()), "in_test": float(test.mean()), "new": float((~train & ~test).mean())}


def bounds(model: SequenceVAE, corpus: Corpus, split: str, indices: np.ndarray, posterior: Posterior, seed: int = 0) -> dict[str, float]:
    """nll at one posterior sample, KL, MI, KL - MI and active units, and the nll with another window's z."""
    noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(seed))
    z = posterior.sample(noise)
    found = divergences(posterior, noise)
    return {
        "nll": likelihoods(model, corpus, split, indices, z).mean().item(),
        "kl": found.kl,
        "mi": found.mi,
        "kl_minus_mi": found.kl - found.mi,
        "active_units": found.active,
        "nll_of_another_z": likelihoods(model, corpus, split, indices, z.roll(1, 0)).mean().item(),
    }


@torch.inference_mode()
def assess(saved: Saved, corpus: Corpus, split: str, *, limit: int | None = None, samples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Every figure of a model on a split, as plain numbers; samples at temperature 1 from each prior it has."""
    model = saved.model
    indices = chosen(corpus, split, limit, seed)
    posterior = posteriors(model, corpus, split, indices)
    figures: dict[str, Any] = {"split": split, "windows": len(indices), "seed": seed}
    figures |= bounds(model, corpus, split, indices, posterior, seed)
    figures |= reconstruction(model, corpus, split, indices, posterior)
    real = [corpus.codec.decode(*corpus.window(split, int(i))) for i in indices]
    figures["corpus"] = music.summary(real)
    priors: dict[str, Mixture | None] = {"standard": None}
    if saved.mixture is not None:
        priors = {"fitted": saved.mixture, **priors}
    for name, mixture in priors.items():
        rows, conditions = sample_windows(model, corpus, mixture, samples, seed, Sampling())
        summary = music.summary(phrases_of(corpus.codec, rows, conditions))
        figures[f"samples_{name}"] = summary | novelty(corpus, rows, conditions)
    return figures


def evaluate(model_folder: Path, corpus_folder: Path, split: str = "test", limit: int | None = None, seed: int = 0) -> dict[str, Any]:
    """`assess` for a model folder and a corpus folder. Raises `SeqvaeError` where their codecs differ."""
    saved, corpus = load_model(model_folder), Corpus.open(corpus_folder)
    saved.check_codec(corpus.codec)
    return assess(saved, corpus, split, limit=limit, seed=seed)
