"""What a model is worth on held-out windows: bounds, divergences, reconstructions, and how its samples look.

Conventions: a window is what a corpus holds, a piece of a melody or a text. Likelihoods and divergences are
in nats a window; shares lie in 0..1. What a kind of thing is judged by, its `Judge` knows. Everything runs on
the CPU, in float32.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from seqvae import files, gallery, listening
from seqvae.checkpoint import Saved, load_model, store
from seqvae.codecs import Codec
from seqvae.corpus import Corpus, collate
from seqvae.decoding import GREEDY, Sampling, Stepper, decode, free_running
from seqvae.divergence import sampled_kl
from seqvae.harvest import digest
from seqvae.image import ImageVAE, Model
from seqvae.importance import draws
from seqvae.latent import Mixture, divergences, minibatch_mi, slerp
from seqvae.metrics import music, pictures, styles, text
from seqvae.model import HierarchicalVAE
from seqvae.objective import Elbo, Posterior
from seqvae.song import Phrase, SeqvaeError, assemble, lead

BATCH = 256
COUNTED = 10_000  # training texts that tell which words are common
PATHS, STEPS = 64, 9  # interpolations that are read, and their steps


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
def posteriors(model: Model, corpus: Corpus, split: str, indices: np.ndarray) -> Posterior:
    """q(z|x) of the chosen windows, in their order: mean and logvar (N, Z)."""
    mean, logvar = torch.empty(2, len(indices), model.size.latent)
    for places, (steps, lengths, conditions) in bucketed(corpus, split, indices):
        mean[places], logvar[places] = model.encode(steps, lengths, conditions)
    return Posterior(mean, logvar)


@torch.inference_mode()
def section_posteriors(model: HierarchicalVAE, corpus: Corpus, split: str, indices: np.ndarray) -> Posterior:
    """q(z|x) of the sections of the chosen windows, side by side: mean and logvar (N, S * section)."""
    found = torch.empty(2, len(indices), model.sections * model.size.section)
    for places, batch in bucketed(corpus, split, indices):
        each = model.section.infer(*model.cut(*batch)[:3])
        found[:, places] = torch.stack(each).view(2, len(places), -1)
    return Posterior(*found)


@torch.inference_mode()
def likelihoods(model: Model, corpus: Corpus, split: str, indices: np.ndarray, z: Tensor) -> Tensor:
    """-log p(x|z) (N,) nats of the chosen windows, each at its row of z (N, Z)."""
    nll = torch.empty(len(indices))
    for places, (steps, lengths, conditions) in bucketed(corpus, split, indices):
        nll[places] = model.nll(z[places], steps, lengths, conditions)
    return nll


def decoded(
    stepper: Stepper | ImageVAE,
    codec: Codec[Any],
    z: Tensor,
    told: Tensor,
    how: Sampling = GREEDY,
    seed: int = 0,
) -> list[Any]:
    """N things of z (N, Z), each told its row (N, C)."""
    rows = decode(stepper, z, told, how, seed=seed, most_steps=codec.longest)
    return [codec.decode(steps, condition) for steps, condition in zip(rows, told.numpy(), strict=True)]


def held(corpus: Corpus, split: str, indices: np.ndarray) -> list[Any]:
    """The chosen windows as things."""
    return [corpus.codec.decode(*corpus.window(split, int(i))) for i in indices]


class Judge(NamedTuple):
    """What a kind of thing is judged by, and how it is written down."""

    compare: Callable[[Corpus, list[tuple[Any, Any]]], dict[str, float]]  # originals with their estimates
    summary: Callable[[Sequence[Any]], dict[str, float]]  # of samples
    write: Callable[[str, Sequence[Sequence[Any]], Path], None]  # groups of things under a name in a folder


def compare_melodies(corpus: Corpus, pairs: list[tuple[Phrase, Phrase]]) -> dict[str, float]:
    """Micro F1 of onsets and pitches, and of onsets alone; the share of exact windows."""
    return {
        "onset_pitch_f1": music.micro(music.onset_pitch_overlap(*pair) for pair in pairs).f1,
        "onset_f1": music.micro(music.onset_overlap(*pair) for pair in pairs).f1,
        "exact_windows": music.exact_share(pairs),
    }


def describe_melodies(phrases: Sequence[Phrase]) -> dict[str, float]:
    """Leaps, rests, key, density and range; consistency of scale and groove, and the numbers of the style.

    Of an ensemble those of its `lead`.
    """
    lines = [lead(phrase) for phrase in phrases]
    return music.summary(lines) | styles.summary(lines)


def compare_texts(corpus: Corpus, pairs: list[tuple[str, str]]) -> dict[str, float]:
    """BLEU, exact texts and the recall of words that are not among the commonest of the training texts."""
    return text.compared(pairs, common_words(corpus))


@lru_cache(maxsize=1)  # a training asks at every evaluation
def common_words(corpus: Corpus) -> frozenset[str]:
    """The commonest words of the training texts, or of so many of them."""
    return text.common_words(held(corpus, "train", chosen(corpus, "train", COUNTED)))


def write_melodies(name: str, groups: Sequence[Sequence[Phrase]], folder: Path) -> None:
    """Each group end to end in a MIDI file of its own. Raises `SeqvaeError` where that cannot be."""
    make(folder)
    for i, phrases in enumerate(groups, 1):
        files.write(assemble(phrases), folder / (f"{name}-{i}.mid" if len(groups) > 1 else f"{name}.mid"))


def write_texts(name: str, groups: Sequence[Sequence[str]], folder: Path) -> None:
    """All in one file, a text a line, with blank lines between groups of several."""
    apart = "\n\n" if any(len(group) > 1 for group in groups) else "\n"
    store(folder / f"{name}.txt", (apart.join("\n".join(group) for group in groups) + "\n").encode())


def compare_pictures(corpus: Corpus, pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Squared error, signal to noise, exact pictures."""
    return pictures.compared(pairs)


def write_pictures(name: str, groups: Sequence[Sequence[np.ndarray]], folder: Path) -> None:
    """All in one picture, a group a column, or the only group in a row."""
    make(folder)
    gallery.grid(list(zip(*groups, strict=True)) if len(groups) > 1 else groups, folder / f"{name}.png")


JUDGES = {
    "melody": Judge(compare_melodies, describe_melodies, write_melodies),
    "text": Judge(compare_texts, text.summary, write_texts),
    "image": Judge(compare_pictures, pictures.summary, write_pictures),
}


def reconstruction(
    model: Model,
    corpus: Corpus,
    split: str,
    indices: np.ndarray,
    posterior: Posterior,
    originals: Sequence[Any],
) -> dict[str, float]:
    """The `rebuilt` from the posterior mean, compared with the originals, the chosen windows as things."""
    estimates = rebuilt(model, corpus, split, indices, posterior.mean)
    return JUDGES[corpus.codec.kind].compare(corpus, list(zip(originals, estimates, strict=True)))


def rebuilt(model: Model, corpus: Corpus, split: str, indices: np.ndarray, means: Tensor) -> list[Any]:
    """The chosen windows, greedily decoded from their posterior means (N, Z)."""
    return decoded(free_running(model), corpus.codec, means, conditions_of(corpus, split, indices))


def sample_windows(
    model: Model, corpus: Corpus, mixture: Mixture | None, count: int, seed: int, how: Sampling
) -> tuple[list[Any], Tensor]:
    """``count`` windows from the prior, as things, and their conditions.

    Conditions are drawn as training windows have them. The prior is N(0, I) without a mixture.
    """
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(corpus.split("train")), (count,), generator=generator).numpy()
    told = conditions_of(corpus, "train", picks)
    uniform = torch.rand(count, generator=generator)
    noise = torch.randn(count, model.size.latent, generator=generator)
    z = model.from_prior(uniform, noise) if mixture is None else mixture.sample(uniform, noise, told)
    return decoded(free_running(model), corpus.codec, z, told, how, seed), told


def novelty(corpus: Corpus, things: Sequence[Any]) -> dict[str, float]:
    """Shares of samples that equal a window of train, one of test, or neither; melodies in any key."""
    codec = corpus.codec  # samples are spelt anew: rows may hold what decoding leaves out
    keys = [digest(codec, codec.encode(thing)) for thing in things]
    train, test = corpus.contains("train", keys), corpus.contains("test", keys)
    shares = {"in_train": train, "in_test": test, "new": ~train & ~test}
    return {name: float(found.mean()) for name, found in shares.items()}


def write_paths(
    model: Model, corpus: Corpus, split: str, indices: np.ndarray, means: Tensor, folder: Path
) -> None:
    """Each chosen window before its reconstruction, and an interpolation from the first to the last.

    means (N, Z) are the windows' posterior means. Raises `SeqvaeError` where the folder cannot be written.
    """
    codec, stepper, judge = corpus.codec, free_running(model), JUDGES[corpus.codec.kind]
    told = conditions_of(corpus, split, indices)
    rebuilt = decoded(stepper, codec, means, told)
    pairs = list(zip(held(corpus, split, indices), rebuilt, strict=True))
    judge.write("original-then-reconstruction", pairs, folder)
    path = torch.stack([slerp(means[0], means[-1], t / 6) for t in range(7)])
    judge.write("interpolation", [decoded(stepper, codec, path, told[:1].expand(7, -1))], folder)


def write_samples(
    model: Model, corpus: Corpus, mixture: Mixture | None, folder: Path, seed: int, count: int = 128
) -> dict[str, float]:
    """Samples at temperature 1, the first 8 written down; the `novelty` of all."""
    things, _ = sample_windows(model, corpus, mixture, count, seed, Sampling())
    JUDGES[corpus.codec.kind].write("sample", [[thing] for thing in things[:8]], folder)
    return novelty(corpus, things)


def make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise SeqvaeError(f"{folder} cannot be made: {fault.strerror}") from None


@torch.inference_mode()
def bounds(
    model: Model,
    corpus: Corpus,
    split: str,
    indices: np.ndarray,
    posterior: Posterior,
    seed: int = 0,
    objective: Elbo | None = None,
) -> dict[str, float]:
    """nll at one posterior sample, KL, MI, KL - MI, active units, and the nll with another window's z.

    The KL is that of the same sample where the prior is learnt, else exact.
    Of text also the perplexity that nll + KL bounds, END counted as a word and START not, and the MI of
    minibatches. With an objective also its loss at the full weight, whatever the schedule, of one
    sample and without a penalty.
    """
    noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(seed))
    z = posterior.sample(noise)
    found = divergences(posterior, noise)
    nll = likelihoods(model, corpus, split, indices, z)
    another = z.roll(max(len(z) // 2, 1), 0)  # neighbours come from one tune, so one from far off
    kl, prior = found.kl, model.log_prior(z)
    if prior is not None:
        kl = sampled_kl(z, posterior, prior).mean().item()
    figures = {
        "nll": nll.mean().item(),
        "kl": kl,
        "mi": found.mi,
        "kl_minus_mi": kl - found.mi,
        "active_units": found.active,
        "nll_of_another_z": likelihoods(model, corpus, split, indices, another).mean().item(),
    }
    if corpus.codec.kind == "text":
        figures["mi_of_minibatches"] = minibatch_mi(posterior, noise)
        symbols = np.diff(corpus.split(split).offsets)[indices].mean()
        figures["perplexity"] = math.exp((figures["nll"] + figures["kl"]) / symbols)
    if objective is not None:
        bare = replace(objective, anneal="constant", penalty="", samples=1)
        figures["loss"] = bare(nll, posterior, 0, z, prior).loss.item()
    return figures


@torch.inference_mode()
def tightened(
    model: Model,
    corpus: Corpus,
    split: str,
    indices: np.ndarray,
    samples: int,
    seed: int = 0,
    mixture: Mixture | None = None,
) -> dict[str, float]:
    """The importance-weighted nll of the chosen windows, and of text its perplexity.

    Of a mixture that serves as the prior, too, by the same draws.
    """
    priors = {"": None} | ({"_fitted": mixture} if mixture is not None else {})
    totals, symbols = dict.fromkeys(priors, 0.0), 0
    for places, (steps, lengths, conditions) in bucketed(corpus, split, indices):
        for one in draws(model, steps, lengths, conditions, samples, seed, places.tolist()):
            for name, prior in priors.items():
                totals[name] += one.nll(prior).item()
        symbols += int(lengths.sum())
    figures: dict[str, float] = {"iw_samples": samples}
    for name, total in totals.items():
        figures[f"iw_nll{name}"] = total / len(indices)
        if corpus.codec.kind == "text":
            figures[f"iw_perplexity{name}"] = math.exp(total / symbols)
    return figures


@torch.inference_mode()
def language_nll(language: Saved, things: Sequence[Any]) -> float:
    """Nats a symbol, END counted, of all things as one pile under a language model, one without a latent."""
    total, symbols = 0.0, 0
    for start in range(0, len(things), BATCH):
        batch = collate([language.codec.encode(thing) for thing in things[start : start + BATCH]])
        steps, lengths, conditions = (torch.from_numpy(part) for part in batch)
        nll = language.model.nll(torch.zeros(len(lengths), 0), steps, lengths, conditions)
        total, symbols = total + nll.double().sum().item(), symbols + int(lengths.sum())
    return total / max(symbols, 1)


def pairs(told: Tensor, count: int, seed: int = 0) -> tuple[list[int], list[int]]:
    """The first and the second places of at most ``count`` random pairs of rows that are told the same."""
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    found = 0
    for place in torch.randperm(len(told), generator=torch.Generator().manual_seed(seed)).tolist():
        group = groups[tuple(told[place].tolist())]
        group.append(place)
        found += len(group) % 2 == 0
        if found == count:
            break
    first = [place for group in groups.values() for place in group[: len(group) // 2]]
    last = [place for group in groups.values() for place in group[len(group) // 2 : len(group) // 2 * 2]]
    return first, last


def between(
    model: Model, corpus: Corpus, split: str, indices: np.ndarray, means: Tensor, seed: int = 0
) -> list[list[Any]]:
    """The STEPS steps of interpolations (slerp, greedy), each of all paths, between chosen windows in pairs.

    Paths join windows told the same, melodies in one metre; their ends are the windows' reconstructions. Of
    what may differ, chords, the first half of the way is told the one's, then the other's. means (N, Z) are
    the posterior means.
    """
    told, stepper = conditions_of(corpus, split, indices), free_running(model)
    first, last = pairs(told[:, : corpus.codec.ruling], PATHS, seed)
    path = (slerp(means[first], means[last], step / (STEPS - 1)) for step in range(STEPS))
    leads = (told[first if 2 * step < STEPS - 1 else last] for step in range(STEPS))
    return [decoded(stepper, corpus.codec, z, lead) for z, lead in zip(path, leads, strict=True)]


def readings(corpus: Corpus, things: Sequence[Any], language: Saved | None) -> dict[str, float]:
    """How likely a pile is to a language model, if there is one, and melodies to their n-gram model."""
    figures = {}
    if language is not None:
        figures["forward_perplexity"] = math.exp(language_nll(language, things))
    if corpus.codec.kind == "melody":
        figures["ngram_nll"] = listening.nll(corpus, things)
    return figures


@torch.inference_mode()
def assess(
    saved: Saved,
    corpus: Corpus,
    split: str,
    *,
    limit: int | None = None,
    samples: int = 1000,
    importance: int = 0,
    language: Saved | None = None,
    temperature: float = 1.0,
    seed: int = 0,
) -> dict[str, Any]:
    """Every figure of a model on a split, as plain numbers; samples at a temperature from each prior it has.

    With importance samples also the importance-weighted nll, which takes that many passes of the decoder;
    under a fitted prior too, if the model has one.
    With a language model of the same codec also its perplexity of the windows and of samples (forward: Zhao
    et al. 2018, section 5) and its nats a symbol at the steps of interpolations. Of melodies the nats of an
    n-gram model of the training windows likewise, and how like one half of the split's tunes in style the
    other and the samples are. Raises `SeqvaeError` for a split without windows, or one that is none, and
    ValueError for a temperature that is none.
    """
    model, how = saved.model, Sampling(temperature)
    indices = chosen(corpus, split, limit, seed)
    if not len(indices):
        raise SeqvaeError(f"the corpus has no windows in its {split} split; evaluate on another")
    posterior = posteriors(model, corpus, split, indices)
    figures: dict[str, Any] = {"split": split, "windows": len(indices), "seed": seed}
    figures["temperature"] = temperature  # of samples
    figures |= bounds(model, corpus, split, indices, posterior, seed)
    if importance:
        figures |= tightened(model, corpus, split, indices, importance, seed, saved.mixture)
    originals, judge, style = held(corpus, split, indices), JUDGES[corpus.codec.kind], None
    estimates = rebuilt(model, corpus, split, indices, posterior.mean)
    figures |= judge.compare(corpus, list(zip(originals, estimates, strict=True)))
    figures["corpus"] = judge.summary(originals) | readings(corpus, originals, language)
    if corpus.codec.kind == "melody":
        style = listening.Style(originals, listening.halves(corpus, split, indices, seed))
        figures["corpus"]["style"] = style.of_real()
        figures["reconstructions"] = {"ngram_nll": listening.nll(corpus, estimates)}
    if style or language:
        path = between(model, corpus, split, indices, posterior.mean)
        figures["interpolations"] = listening.travel(corpus, path) if style else {}
        if language:
            nats = (language_nll(language, things) for things in path)
            figures["interpolations"] |= {f"language_nll_{step}": each for step, each in enumerate(nats)}
    priors: dict[str, Mixture | None] = {"standard": None}
    if saved.mixture is not None:
        priors = {"fitted": saved.mixture, **priors}
    for name, mixture in priors.items():
        things, _ = sample_windows(model, corpus, mixture, samples, seed, how)
        figures[f"samples_{name}"] = judge.summary(things) | novelty(corpus, things)
        figures[f"samples_{name}"] |= readings(corpus, things, language)
        if style:
            figures[f"samples_{name}"]["style"] = style.of(things)
    return figures


def evaluate(
    model_folder: Path,
    corpus_folder: Path,
    split: str = "test",
    limit: int | None = None,
    importance: int = 0,
    language_folder: Path | None = None,
    temperature: float = 1.0,
    seed: int = 0,
) -> dict[str, Any]:
    """`assess` for a model, a corpus and perhaps a language model, each a folder.

    Raises `SeqvaeError` where their codecs differ, or the last has a latent.
    """
    saved, corpus = load_model(model_folder), Corpus.open(corpus_folder)
    saved.check_codec(corpus.codec)
    language = None if language_folder is None else load_model(language_folder)
    if language is not None:
        language.check_codec(corpus.codec)
        if language.model.size.latent:
            raise SeqvaeError(f"{language_folder} is no language model; train one with --set latent=0")
    return assess(
        saved, corpus, split, limit=limit, importance=importance, language=language,
        temperature=temperature, seed=seed,
    )  # fmt: skip
