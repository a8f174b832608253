"""Every recipe builds and trains a step; settings are read by their type, and impossible ones refused."""

from dataclasses import FrozenInstanceError, asdict, fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seqvae.checkpoint import build_model
from seqvae.codecs import CODECS, Codec, GridCodec, NotesCodec, PixelsCodec, VoicesCodec, WordsCodec
from seqvae.corpus import collate
from seqvae.image import ImageSize
from seqvae.model import Size
from seqvae.objective import Elbo
from seqvae.recipes import DEFAULTS, PRECISIONS, RECIPES, Recipe, check, default, override, settings_of
from seqvae.song import ENSEMBLES, Phrase, SeqvaeError
from tests.conftest import LONGER

Tensors = tuple[Tensor, Tensor, Tensor]


def sentences() -> tuple[WordsCodec, Tensors]:
    """24 made-up sentences of the words a to z, and their codec."""
    texts = [" ".join("abcdefghijklmnopqrstuvwxyz"[i : i + 4 + i % 5]) for i in range(20)]
    codec = WordsCodec.learn(texts, 100)
    steps, lengths, conditions = (torch.from_numpy(p) for p in collate([codec.encode(t) for t in texts]))
    return codec, (steps, lengths, conditions)


def pictures() -> tuple[PixelsCodec, Tensors]:
    """24 squares of black and white, and their codec."""
    codec, images = PixelsCodec(28, 28, 1, 2), np.zeros((24, 28, 28, 1), np.uint8)
    for i, image in enumerate(images):
        image[i : i + 5, 27 - i : 22 - i : -1] = 255
    steps, lengths, conditions = (torch.from_numpy(p) for p in collate([codec.encode(one) for one in images]))
    return codec, (steps, lengths, conditions)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_and_takes_a_step(
    name: str,
    codec: NotesCodec,
    batch: Tensors,
    phrases: list[Phrase],
    long_batch: Tensors,
    ensemble: tuple[object, Tensors],
) -> None:
    recipe = check(RECIPES[name])
    assert recipe.about
    torch.manual_seed(recipe.seed)
    spelt: Codec[Any] = codec
    if isinstance(recipe.size, ImageSize):
        spelt, batch = pictures()
    elif recipe.size.conductor:
        spelt, batch = LONGER, long_batch
    elif name == "grid":
        spelt = GridCodec()
        batch = tuple(map(torch.from_numpy, collate([spelt.encode(one) for one in phrases])))
    elif name in ENSEMBLES:
        spelt, batch = VoicesCodec(ensemble="trio"), ensemble[1]
    elif len(recipe.size.embedding) == 1:
        spelt, batch = sentences()
    model = build_model(spelt, recipe.size)
    optimizer = torch.optim.Adam(model.parameters(), recipe.learning_rate)
    losses = []
    for _ in range(4):
        noise = torch.randn(len(batch[0]), recipe.size.latent, generator=torch.Generator().manual_seed(0))
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16"):
            nll, posterior, *_ = model(*batch, noise)
        terms = recipe.objective(nll, posterior, 0)
        optimizer.zero_grad()
        terms.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        losses.append(terms.loss.item())
    assert losses[-1] < losses[0] - 1  # nats on the very batch, at the peak learning rate


def test_every_kind_has_a_default_recipe() -> None:
    kinds = {codec.kind for codec in CODECS.values()} | {name for name in ENSEMBLES if name}
    assert DEFAULTS.keys() == kinds | {"chords", "section", "step"} and {*DEFAULTS.values()} <= {*RECIPES}
    plain: dict[str, Codec[Any]] = {
        **{"small": NotesCodec(), "chords": NotesCodec(chords=2), "melody-16": NotesCodec(16, section=2)},
        **{"grid": GridCodec(), "trio": VoicesCodec(ensemble="trio"), "pictures": PixelsCodec(8, 8, 1)},
    }
    for name, codec in plain.items():
        assert default(codec.kind, codec.config()) == name
        build_model(codec, RECIPES[name].size)


def test_words_have_heads_as_wide_as_their_embedding() -> None:
    with pytest.raises(SeqvaeError, match="head must be as wide as the embedding of words, 256, not 192"):
        build_model(sentences()[0], override(RECIPES["sentences"], {"head": "192"}).size)


def test_recipes_are_frozen_and_plain() -> None:
    with pytest.raises(FrozenInstanceError):
        RECIPES["melody"].steps = 1  # type: ignore[misc]
    for recipe in RECIPES.values():
        for value in settings_of(recipe).values():
            assert value is None or isinstance(value, (int, float, str, tuple))


def test_settings_are_flat_and_no_name_means_two_things() -> None:
    for size in (Size(), ImageSize()):
        names = [field.name for part in (Recipe(), size, Elbo()) for field in fields(part)]
        assert len(set(names)) == len(names)
        assert settings_of(Recipe(size=size)).keys() == set(names) - {"about", "size", "objective"}
    assert settings_of(RECIPES["small"])["embedding"] == (64, 64, 32, 8)


def test_every_setting_can_be_overridden_by_its_text() -> None:
    values: dict[type, object] = {int: 3, float: 0.5, tuple: (3, 4, 5, 6), bool: True}
    texts = {int: "3", float: "0.5", tuple: "3,4,5,6", bool: "true"}
    words = {"precision": "bf16", "anneal": "sigmoid", "free_over": "batch", "pooling": "max"}
    words |= {"penalty": "tc", "gradient": "dreg", "network": "dense", "activation": "tanh"}
    words |= {"likelihood": "laplace", "prior": "vamp"}
    for plain in (Recipe(), Recipe(size=ImageSize(widths=(1, 2)))):
        for name, now in settings_of(plain).items():
            kind = float if name == "capacity" else type(now)
            found = settings_of(override(plain, {name: words.get(name) or texts[kind]}))
            assert type(found[name]) is kind and found[name] == (words.get(name) or values[kind])
            assert {key for key, value in found.items() if value != settings_of(plain)[key]} <= {name}


def test_overrides_go_where_they_belong() -> None:
    recipe = RECIPES["small"]
    found = override(recipe, {"beta": "0.2", "latent": "32", "steps": "10", "learning_rate": "1e-4"})
    assert (found.objective.beta, found.size.latent, found.steps, found.learning_rate) == (0.2, 32, 10, 1e-4)
    assert found == replace(
        recipe,
        objective=replace(recipe.objective, beta=0.2),
        size=replace(recipe.size, latent=32),
        steps=10,
        learning_rate=1e-4,
    )
    assert override(recipe, {}) == recipe and asdict(recipe) == asdict(RECIPES["small"])
    both = override(recipe, {"anneal": "cyclical", "warmup": "300", "cycle": "1000", "capacity": "25"})
    assert (both.objective.anneal, both.objective.cycle, both.objective.capacity) == ("cyclical", 1000, 25.0)


@pytest.mark.parametrize("name", ["betas", "size", "objective", "about", "", "latent "])
def test_unknown_settings_are_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(
        SeqvaeError, match=f"no setting is called {name!r}; there are batch_size, .*, gradient$"
    ):
        override(Recipe(), {name: "1"})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("steps", "many"),
        ("steps", "1.5"),
        ("steps", "1e3"),
        ("steps", "0"),
        ("steps", "-1"),
        ("learning_rate", "fast"),
        ("learning_rate", "0"),
        ("learning_rate", "nan"),
        ("learning_rate", "inf"),
        ("batch_size", ""),
        ("embedding", "64,x,32,8"),
        ("embedding", "64,0,32,8"),
        ("embedding", ""),
        ("latent", "-8"),
        ("gamma", "-1"),
        ("pooling", "first"),
        ("free_over", "token"),
        ("dropout", "1"),
        ("beta", "-0.1"),
        ("beta", "nan"),
        ("warmup", "-5"),
        ("free_bits", "-1"),
        ("capacity", "-1"),
        ("capacity", "none"),
        ("word_dropout", "1.5"),
        ("word_dropout", "nan"),
        ("patience", "-1"),
        ("seed", "-1"),
        ("seed", str(2**32)),
        ("threads", "0"),
        ("precision", "16"),
        ("anneal", "cosine"),
        ("anneal", "cyclical"),  # without a cycle
    ],
)
def test_impossible_values_are_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(SeqvaeError, match=name):
        override(Recipe(), {name: text})


def test_a_cycle_holds_its_warmup() -> None:
    override(Recipe(), {"anneal": "cyclical", "cycle": "100", "warmup": "100"})
    with pytest.raises(SeqvaeError, match="cycle"):
        override(Recipe(), {"anneal": "cyclical", "cycle": "99", "warmup": "100"})


def test_recipes_made_in_python_are_checked_alike() -> None:
    with pytest.raises(SeqvaeError, match="precision cannot be 'fp8'; known: 32, bf16"):
        check(Recipe(precision="fp8"))
    for precision in PRECISIONS:
        assert check(Recipe(precision=precision)).precision == precision


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"samples": "5", "beta": "0.5"}, "a bound of several samples takes beta 1"),
        ({"samples": "5", "warmup": "10"}, "a bound of several samples takes beta 1"),
        ({"samples": "5", "penalty": "tc"}, "a bound of several samples takes beta 1"),
        ({"samples": "5", "autoencoder": "10"}, "a bound of several samples takes beta 1"),
        ({"penalty": "tc", "spread": "1"}, "a penalty is of the posterior"),
        ({"penalty": "mmd", "batch_size": "1"}, "is told of a batch of at least 2, not of one"),
        ({"penalty": "elbo"}, "penalty cannot be 'elbo'; known: , tc, factor"),
    ],
)
def test_objectives_that_do_not_go_together_are_refused(settings: dict[str, str], why: str) -> None:
    with pytest.raises(SeqvaeError, match=why):
        override(Recipe(), settings)


def test_a_learnt_prior_has_no_free_bits_of_a_dimension() -> None:
    with pytest.raises(SeqvaeError, match="a learnt prior has no KL of each dimension"):
        override(RECIPES["mnist"], {"prior": "vamp", "free_bits": "2", "free_over": "dimension"})
    assert override(RECIPES["mnist"], {"samples": "5", "gradient": "dreg"}).objective.samples == 5
