"""What a model is worth on held-out windows: bounds, divergences, exact notes, and how its samples look.

Likelihoods and divergences are in nats a window; shares lie in 0..1. Everything runs on the CPU, in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqvae import files
from seqvae.checkpoint import Saved, load_model
from seqvae.codecs import Codec, Encoded
from seqvae.corpus import Batch, Corpus
from seqvae.decoding import GREEDY, Sampling, Stepper, decode
from seqvae.harvest import digest
from seqvae.latent import Mixture, divergences, slerp
from seqvae.metrics import music
from seqvae.model import SequenceVAE
from seqvae.objective import Elbo, Posterior
from seqvae.song import Phrase, SeqvaeError, Song, assemble

BATCH = 256


def collate(windows: Sequence[Encoded]) -> Batch:
    """Windows of any lengths as one zero-padded batch."""
    lengths = np.array([len(window.steps) for window in windows])
    steps = np.zeros((len(windows), lengths.max(), windows[0].steps.shape[1]), np.int64)
    for row, window in zip(steps, windows, strict=True):
        row[: len(window.steps)] = window.steps
    return Batch(steps, lengths, np.stack([window.condition for window in windows]).astype(np.int64))


def pick(count: int, limit: int | None, seed: int = 0) -> np.ndarray:
    """0 .. count - 1, or ``limit`` of them drawn with the seed, in order."""
    if limit is None or limit >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, limit, replace=False))


def chosen(corpus: Corpus, split: str, limit: int | None, seed: int = 0) -> np.ndarray:
    """Indices of all a split's windows, or of ``limit`` of them drawn with the seed, in order."""
    return pick(len(corpus.split(split)), limit, seed)


def conditions_of(corpus: Corpus, split: str, indices: np.ndarray) -> Tensor:
    """What the decoder is told of the chosen windows: (N, C) int64."""
    return torch.from_numpy(corpus.split(split).conditions[indices].astype(np.int64))


def bucketed(corpus: Corpus, split: str, indices: np.ndarray) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """The chosen windows in batches of like lengths: their places in ``indices``, and the batch's tensors."""
    order = np.argsort(np.diff(corpus.split(split).offsets)[indices], kind="stable")
    for start in range(0, len(order), BATCH):
        places = order[start : start + BATCH]
        batch = collate([corpus.window(split, int(i)) for i in indices[places]])
        yield torch.from_numpy(places), [torch.from_numpy(part) for part in batch]


@torch.inference_mode()
def posteriors(model: SequenceVAE, corpus: Corpus, split: str, indices: np.ndarray) -> Posterior:
    """q(z|x) of the chosen windows, in their order: mean and logvar (N, Z)."""
    mean, logvar = torch.empty(2, len(indices), model.size.latent)
    for places, (steps, lengths, conditions) in bucketed(corpus, split, indices):
        mean[places], logvar[places] = model.encode(steps, lengths, conditions)
    return Posterior(mean, logvar)


@torch.inference_mode()
def likelihoods(model: SequenceVAE, corpus: Corpus, split: str, indices: np.ndarray, z: Tensor) -> Tensor:
    """-log p(x|z) (N,) nats of the chosen windows, each at its row of z (N, Z)."""
    nll = torch.empty(len(indices))
    for places, (steps, lengths, conditions) in bucketed(corpus, split, indices):
        nll[places] = model.nll(z[places], steps, lengths, conditions)
    return nll


def phrases_of(codec: Codec, rows: Sequence[np.ndarray], conditions: Tensor | np.ndarray) -> list[Phrase]:
    return [codec.decode(steps, np.asarray(told)) for steps, told in zip(rows, conditions, strict=True)]


def reconstruction(
    model: SequenceVAE, corpus: Corpus, split: str, indices: np.ndarray, posterior: Posterior
) -> dict[str, float]:
    """Greedy decoding from the posterior mean: micro F1 of onsets and pitches, share of exact windows."""
    windows = [corpus.window(split, int(i)) for i in indices]
    conditions = conditions_of(corpus, split, indices)
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
    """Steps of ``count`` windows from the prior, and their conditions, drawn as training windows have them.

    The prior is N(0, I) without a mixture.
    """
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(corpus.split("train")), (count,), generator=generator).numpy()
    told = conditions_of(corpus, "train", picks)
    uniform = torch.rand(count, generator=generator)
    noise = torch.randn(count, model.size.latent, generator=generator)
    z = noise if mixture is None else mixture.sample(uniform, noise, told)
    return decode(Stepper(model), z, told, how, seed=seed), told


def novelty(corpus: Corpus, rows: Sequence[np.ndarray], conditions: Tensor) -> dict[str, float]:
    """Shares of samples that equal, in any transposition, a window of train, one of test, or neither."""
    codec = corpus.codec  # samples are spelt anew: rows may hold what decoding leaves out
    keys = [digest(codec, codec.encode(phrase)) for phrase in phrases_of(codec, rows, conditions)]
    train, test = corpus.contains("train", keys), corpus.contains("test", keys)
    shares = {"in_train": train, "in_test": test, "new": ~train & ~test}
    return {name: float(found.mean()) for name, found in shares.items()}


def write_paths(
    model: SequenceVAE, corpus: Corpus, split: str, indices: np.ndarray, means: Tensor, folder: Path
) -> None:
    """As MIDI each chosen window before its reconstruction, and an interpolation from the first to the last.

    means (N, Z) are the windows' posterior means. Raises `SeqvaeError` where the folder cannot be written.
    """
    codec, stepper = corpus.codec, Stepper(model)
    windows = [corpus.window(split, int(i)) for i in indices]
    told = conditions_of(corpus, split, indices)
    rebuilt = phrases_of(codec, decode(stepper, means, told, GREEDY), told)
    for i, (window, phrase) in enumerate(zip(windows, rebuilt, strict=True), 1):
        save(assemble([codec.decode(*window), phrase]), folder / f"original-then-reconstruction-{i}.mid")
    path = torch.stack([slerp(means[0], means[-1], t / 6) for t in range(7)])
    metre = told[:1].expand(7, -1)
    save(
        assemble(phrases_of(codec, decode(stepper, path, metre, GREEDY), metre)), folder / "interpolation.mid"
    )


def write_samples(
    model: SequenceVAE, corpus: Corpus, mixture: Mixture | None, folder: Path, seed: int, count: int = 128
) -> dict[str, float]:
    """Samples at temperature 1, the first 8 as MIDI; the `novelty` of all."""
    rows, conditions = sample_windows(model, corpus, mixture, count, seed, Sampling())
    for i, phrase in enumerate(phrases_of(corpus.codec, rows[:8], conditions[:8]), 1):
        save(assemble([phrase]), folder / f"sample-{i}.mid")
    return novelty(corpus, rows, conditions)


def save(song: Song, path: Path) -> None:
    """`files.write` into a folder that may have to be made."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise SeqvaeError(f"{path.parent} cannot be made: {fault.strerror}") from None
    files.write(song, path)


@torch.inference_mode()
def bounds(
    model: SequenceVAE,
    corpus: Corpus,
    split: str,
    indices: np.ndarray,
    posterior: Posterior,
    seed: int = 0,
    objective: Elbo | None = None,
) -> dict[str, float]:
    """nll at one posterior sample, KL, MI, KL - MI, active units, and the nll with another window's z.

    With an objective also its loss at the full weight, whatever the schedule.
    """
    noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(seed))
    z = posterior.sample(noise)
    found = divergences(posterior, noise)
    nll = likelihoods(model, corpus, split, indices, z)
    another = z.roll(max(len(z) // 2, 1), 0)  # neighbours come from one tune, so one from far off
    figures = {
        "nll": nll.mean().item(),
        "kl": found.kl,
        "mi": found.mi,
        "kl_minus_mi": found.kl - found.mi,
        "active_units": found.active,
        "nll_of_another_z": likelihoods(model, corpus, split, indices, another).mean().item(),
    }
    if objective is not None:
        figures["loss"] = replace(objective, anneal="constant")(nll, posterior, 0).loss.item()
    return figures


@torch.inference_mode()
def assess(
    saved: Saved,
    corpus: Corpus,
    split: str,
    *,
    limit: int | None = None,
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Every figure of a model on a split, as plain numbers; samples at temperature 1 from each prior it has.

    Raises `SeqvaeError` for a split without windows, or one that is none.
    """
    model = saved.model
    indices = chosen(corpus, split, limit, seed)
    if not len(indices):
        raise SeqvaeError(f"the corpus has no windows in its {split} split; evaluate on another")
    posterior = posteriors(model, corpus, split, indices)
    figures: dict[str, Any] = {"split": split, "windows": len(indices), "seed": seed}
    figures |= bounds(model, corpus, split, indices, posterior, seed)
    figures |= reconstruction(model, corpus, split, indices, posterior)
    figures["corpus"] = music.summary([corpus.codec.decode(*corpus.window(split, int(i))) for i in indices])
    priors: dict[str, Mixture | None] = {"standard": None}
    if saved.mixture is not None:
        priors = {"fitted": saved.mixture, **priors}
    for name, mixture in priors.items():
        rows, conditions = sample_windows(model, corpus, mixture, samples, seed, Sampling())
        summary = music.summary(phrases_of(corpus.codec, rows, conditions))
        figures[f"samples_{name}"] = summary | novelty(corpus, rows, conditions)
    return figures


def evaluate(
    model_folder: Path, corpus_folder: Path, split: str = "test", limit: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """`assess` for a model folder and a corpus folder. Raises `SeqvaeError` where their codecs differ."""
    saved, corpus = load_model(model_folder), Corpus.open(corpus_folder)
    saved.check_codec(corpus.codec)
    return assess(saved, corpus, split, limit=limit, seed=seed)
