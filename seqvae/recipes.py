"""RECIPES: every number a training needs, by name; frozen numbers and names, no live objects."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from seqvae.divergence import GRADIENTS
from seqvae.image import ACTIVATIONS, NETWORKS, PRIORS, ImageSize
from seqvae.likelihood import LIKELIHOODS
from seqvae.model import Size
from seqvae.networks import POOLINGS
from seqvae.objective import FREE, PENALTIES, SCHEDULES, Elbo
from seqvae.song import SeqvaeError

PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed"}
# Settings that may be 0:
ZERO = {
    *("dropout", "word_dropout", "ssim", "patience", "seed"),
    *("beta", "warmup", "cycle", "free_bits", "capacity", "strength"),
    *("latent", "gamma", "spread", "autoencoder", "aggressive", "conductor"),
}
CHOICES: dict[str, tuple[str, ...]] = {
    **{"precision": tuple(PRECISIONS), "anneal": SCHEDULES, "free_over": FREE, "pooling": POOLINGS},
    **{"network": NETWORKS, "activation": tuple(ACTIVATIONS), "likelihood": tuple(LIKELIHOODS)},
    **{"prior": PRIORS, "penalty": ("", *PENALTIES), "gradient": GRADIENTS},
}


@dataclass(frozen=True)
class Recipe:
    about: str = ""
    size: Size | ImageSize = field(default_factory=Size)
    objective: Elbo = field(default_factory=Elbo)
    batch_size: int = 128  # windows a step, over all ranks together
    steps: int = 10_000  # optimiser steps in all
    learning_rate: float = 1e-3  # Adam's peak; falls to zero along a half cosine (Loshchilov & Hutter 2017)
    rise: int = 300  # steps up to the peak
    clip: float = 5.0  # norm of the gradient
    dropout: float = 0.0  # of what the LSTMs read and of the decoder's states (Zaremba et al. 2014)
    word_dropout: float = 0.0  # share of the decoder's input steps that are hidden (Bowman et al. 2016)
    # First steps without noise and KL, a plain autoencoder; then the decoder begins anew (Li et al. 2019)
    autoencoder: int = 0
    # Steps of the encoder alone before each step, at most, until MI stops rising (He et al. 2019)
    aggressive: int = 0
    augment: bool = True  # windows are changed in ways that keep their kind: melodies transposed to any key
    ssim: float = 0.0  # of pictures: weight of a perceptual term, 1 - SSIM, that is no likelihood
    precision: str = "32"  # or bf16: products in bfloat16, weights, likelihoods and KL in float32
    evaluate_every: int = 1_000  # steps
    save_every: int = 200  # steps
    patience: int = 0  # evaluations without a better validation loss before stopping; 0: never
    seed: int = 0
    threads: int = 1  # CPU threads; the same number gives the same bytes


RECIPES = {
    "melody": Recipe(
        about="2-bar melodies; beta rises all the way, so that the code is learnt first and pressed after",
        objective=Elbo(beta=0.2, warmup=8000),
        steps=8_000,
        learning_rate=1.5e-3,
        precision="bf16",
    ),
    "melody-16": Recipe(
        about="16-bar melodies in sections of 2 bars under a conductor; begin from melody",
        size=Size(latent=256, conductor=128),
        objective=Elbo(beta=0.07, warmup=500),
        batch_size=32,
        steps=2_000,
        learning_rate=7e-4,
        precision="bf16",
        evaluate_every=500,
        save_every=100,
    ),
    "grid": Recipe(
        about="2-bar melodies as events on a grid, the networks those of melody",
        size=Size(embedding=(128,)),
        objective=Elbo(beta=0.2, warmup=8000),
        steps=8_000,
        learning_rate=1.5e-3,
        precision="bf16",
    ),
    "chorale": Recipe(
        about="2 bars of four voices; latent=0 is the plain LSTM to compare with",
        size=Size(embedding=(64, 16, 64, 32, 8), encoder=192, decoder=256, head=128, latent=64),
        objective=Elbo(beta=0.2, warmup=6000),
        batch_size=64,
        steps=6_000,
        learning_rate=2e-3,
        dropout=0.2,
        precision="bf16",
        evaluate_every=500,
    ),
    "trio": Recipe(
        about="2 bars of melody, bass and drums",
        size=Size(embedding=(96, 16, 96, 48, 8), encoder=256, decoder=384, head=160, latent=128),
        objective=Elbo(beta=0.2, warmup=8000),
        batch_size=64,
        steps=8_000,
        learning_rate=1.5e-3,
        precision="bf16",
    ),
    "small": Recipe(
        about="a first model of your own files in minutes of one CPU core",
        size=Size(embedding=(64, 64, 32, 8), encoder=160, decoder=256, head=128, latent=64),
        objective=Elbo(beta=0.2, warmup=3000),
        batch_size=64,
        steps=3_000,
        learning_rate=2e-3,
        evaluate_every=500,
    ),
    "chords": Recipe(
        about="2-bar melodies that are told chords; a z that says little leaves more to them",
        size=Size(embedding=(64, 64, 32, 8), condition=96, encoder=160, decoder=256, head=128, latent=64),
        objective=Elbo(beta=0.5, warmup=3000),
        batch_size=64,
        steps=6_000,
        learning_rate=2e-3,
    ),
    "sentences": Recipe(
        about="short sentences in pieces of words; beta rises all the way",
        size=Size(embedding=(256,), encoder=256, decoder=448, head=256, latent=64, shared=True),
        objective=Elbo(beta=0.35, warmup=10_000),
        steps=10_000,
        learning_rate=2e-3,
        dropout=0.1,
        word_dropout=0.25,
        precision="bf16",
    ),
    "text": Recipe(
        about="a first model of your own sentences in minutes of one CPU core",
        size=Size(embedding=(128,), encoder=128, decoder=256, head=128, latent=32),
        objective=Elbo(beta=0.25, warmup=3000),
        batch_size=64,
        steps=3_000,
        learning_rate=2e-3,
        word_dropout=0.3,
        evaluate_every=500,
    ),
    "ptb": Recipe(
        about="the benchmark of text VAEs: words of the Penn Treebank, embedding and LSTMs of 256, z of 32",
        size=Size(embedding=(256,), encoder=256, decoder=256, head=256, latent=32),
        objective=Elbo(beta=1.0, warmup=1_300, free_bits=5.5, free_over="dimension"),
        batch_size=64,
        steps=16_500,
        learning_rate=1.5e-3,
        dropout=0.4,
        precision="bf16",
        evaluate_every=1_314,
        save_every=100,
    ),
    "pictures": Recipe(
        about="a first model of your own pictures in minutes of one CPU core",
        size=ImageSize(widths=(32, 64), head=256, latent=32),
        steps=3_000,
        evaluate_every=500,
    ),
    "mnist": Recipe(
        about="the benchmark of image VAEs: binary digits of 28 x 28, a dense layer of 400, z of 40",
        size=ImageSize(network="dense", widths=(400,), latent=40),
        steps=7_820,
        learning_rate=2e-3,  # 1e-3 on average
        evaluate_every=782,
    ),
}
# By the kind of codec, or by what its config says of it before that:
DEFAULTS = {
    **{"melody": "small", "text": "text", "image": "pictures"},
    **{"chorale": "chorale", "trio": "trio"},
    **{"chords": "chords", "section": "melody-16", "step": "grid"},
}


def default(kind: str, config: Mapping[str, int | str]) -> str:
    """The name of the recipe for a codec of a kind and config: of its ensemble, chords, sections, or grid."""
    told = (it for it in ("chords", "section", "step") if it in config)
    return DEFAULTS[str(config.get("ensemble", "")) or next(told, kind)]


def override(recipe: Recipe, settings: Mapping[str, str]) -> Recipe:
    """The recipe with settings such as {"beta": "0.2", "latent": "64"} put in their places.

    Raises `SeqvaeError` for an unknown name or a value of the wrong kind.
    """
    for name, text in settings.items():
        if name in {f.name for f in fields(Recipe)} - {"size", "objective", "about"}:
            recipe = replace(recipe, **{name: parse(name, text, getattr(recipe, name))})
        elif name in {f.name for f in fields(recipe.size)}:
            value = parse(name, text, getattr(recipe.size, name))
            recipe = replace(recipe, size=replace(recipe.size, **{name: value}))
        elif name in {f.name for f in fields(Elbo)}:
            value = parse(name, text, getattr(recipe.objective, name))
            recipe = replace(recipe, objective=replace(recipe.objective, **{name: value}))
        else:
            raise SeqvaeError(f"no setting is called {name!r}; there are {', '.join(settings_of(recipe))}")
    return check(recipe)


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """Every setting by its name, flat."""
    flat = asdict(recipe)
    size, objective = flat.pop("size"), flat.pop("objective")
    del flat["about"]
    return flat | size | objective


def parse(name: str, text: str, now: object) -> Any:
    """Text as a value of the same kind as the one it replaces."""
    try:
        if isinstance(now, tuple):
            return tuple(int(part) for part in text.split(","))
        if isinstance(now, str):
            return text
        if isinstance(now, bool):
            return {"true": True, "false": False}[text.lower()]
        return int(text) if isinstance(now, int) else float(text)
    except (KeyError, ValueError):
        raise SeqvaeError(f"{name} cannot be {text!r}; it is now {now}") from None


def check(recipe: Recipe) -> Recipe:
    """The recipe itself. Raises `SeqvaeError` for numbers no training can use."""
    for name, value in settings_of(recipe).items():
        known = CHOICES.get(name)
        if known and value not in known:
            raise SeqvaeError(f"{name} cannot be {value!r}; known: {', '.join(known)}")
        if isinstance(value, str | bool) or value is None:
            continue
        for number in value if isinstance(value, tuple) else (value,):
            if not (0 <= number < math.inf) or (number == 0 and name not in ZERO):
                least = "at least" if name in ZERO else "greater than"
                raise SeqvaeError(f"{name} must be {least} 0 and finite, not {number}")
    if recipe.word_dropout > 1 or recipe.dropout >= 1 or recipe.seed >= 2**32:
        raise SeqvaeError("word_dropout is 1 at most, dropout less than 1, and a seed less than 2**32")
    objective = recipe.objective
    if objective.penalty and recipe.batch_size < 2:
        raise SeqvaeError(f"penalty {objective.penalty} is told of a batch of at least 2, not of one")
    if objective.samples > 1:
        plain = Elbo(samples=objective.samples, gradient=objective.gradient)
        same = replace(objective, free_over=plain.free_over, anneal=plain.anneal, strength=0.0) == plain
        spread = isinstance(recipe.size, Size) and recipe.size.spread
        if not same or spread or recipe.autoencoder:
            raise SeqvaeError("a bound of several samples takes beta 1 and no other remedy")
    if objective.penalty and isinstance(recipe.size, Size) and recipe.size.spread:
        raise SeqvaeError("a penalty is of the posterior, which spread scales; leave out one of the two")
    if isinstance(recipe.size, Size) and recipe.size.conductor:
        if not recipe.size.latent:
            raise SeqvaeError("a conductor needs a latent to read")
        if recipe.size.gamma:
            raise SeqvaeError("gamma is of networks without a conductor")
    if recipe.size.learns_prior and objective.free_bits and objective.free_over == "dimension":
        raise SeqvaeError("a learnt prior has no KL of each dimension that bits could be free of")
    if recipe.objective.anneal == "cyclical" and not recipe.objective.warmup <= recipe.objective.cycle > 0:
        raise SeqvaeError("anneal cyclical needs a cycle, of warmup steps or more")
    return recipe
