"""What every pipeline is made of: a model, the ways from things to z and back, and where z is drawn from.

Conventions: decoding runs on the CPU, in rows whose result hangs on seed, number and z alone; what a user can
get wrong is a `SeqvaeError`.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from seqvae.attributes import MEASURES
from seqvae.checkpoint import Saved, load_attribute, save_attribute
from seqvae.codecs import Codec, Encoded
from seqvae.corpus import Corpus, collate
from seqvae.decoding import FEWEST_ROWS, GREEDY, MOST_ROWS, Beam, Sampling, Stepper, decode, free_running
from seqvae.image import ImageVAE, Model
from seqvae.latent import Attribute, bilinear, fit_attribute, fit_measures, slerp
from seqvae.objective import Posterior
from seqvae.song import SeqvaeError

PRETRAINED = Path(__file__).parent / "pretrained"
PRIORS = ("fitted", "standard")
DRAWN, DECODED = 0, 1  # what a seed's streams of random numbers are for
Decoder = Callable[..., list[np.ndarray]]
NARROW = -14.0  # logvar of a point
NOTHING = np.empty((1, 0), np.int16)  # what a thing without conditions is told
REACHES = tuple(quarter / 4 for quarter in range(17))  # how many times as far as z tells a measure is sought
OVER, BESIDE, FAR = 0.2, 0.3, 0.8  # weights: of a measure's excess, of what moves besides, of the way gone


class Place(NamedTuple):
    """Where an attribute is to bring things; relative, how far from where they are."""

    attribute: Attribute
    goal: float  # a place; relative, standard deviations of the corpus
    relative: bool = False


Places = Sequence[Place | tuple[Attribute, float]]  # to which one thing is brought in turn


class Atlas(NamedTuple):
    """Points of the latent space, each with what it is told."""

    posterior: Posterior  # (N, Z)
    conditions: np.ndarray  # (N, C)


class Engine:
    """A model with its encoder on a device and its decoder's hand-written step."""

    saved: Saved
    codec: Codec[Any]
    config: dict[str, Any]
    device: torch.device
    encoder: Model
    stepper: Stepper | ImageVAE
    decoder: Decoder  # `decode` of the stepper, or what does the same among the rows of others

    def __init__(self, saved: Saved, device: str = "cpu") -> None:
        self.saved, self.codec, self.config = saved, saved.codec, saved.config
        self.stepper = free_running(saved.model)
        self.decoder = partial(decode, self.stepper)
        try:
            self.device = torch.device(device)
            self.encoder = copy.deepcopy(saved.model).to(self.device)
        except (RuntimeError, AssertionError, NotImplementedError) as fault:
            why = str(fault).splitlines()[0].rstrip(".")
            raise SeqvaeError(f"the device {device} cannot be used: {why}") from None

    @torch.inference_mode()
    def _posterior(self, rows: Sequence[Encoded]) -> Posterior:
        """q(z|x) (N, Z) of spelt things, in batches of at least FEWEST_ROWS."""
        found = [torch.empty(2, 0, self.saved.model.size.latent)]
        for first in range(0, len(rows), MOST_ROWS):
            block = list(rows[first : first + MOST_ROWS])
            count = len(block)
            batch = collate(block + block[-1:] * (FEWEST_ROWS - count))
            given = [torch.from_numpy(part).to(self.device) for part in batch]
            posterior = self.encoder.encode(*given)
            found.append(torch.stack((posterior.mean, posterior.logvar))[:, :count].cpu())
        return Posterior(*torch.cat(found, 1))

    def _means(self, things: Sequence[Any]) -> Tensor:
        """Posterior means (N, Z) of raw things; a Tensor (Z,) among them is a mean already."""
        size = self.saved.model.size.latent
        for thing in things:
            if isinstance(thing, Tensor):
                require(thing.shape == (size,), f"this model's z has {size} dimensions, not {thing.numel()}")
        spelt = [self.codec.encode(thing) for thing in things if not isinstance(thing, Tensor)]
        fresh = self._posterior(spelt).mean
        if len(spelt) == len(things):
            return fresh
        own = iter(fresh)
        return torch.stack([thing if isinstance(thing, Tensor) else next(own) for thing in things])

    def labelled(self, path: Path, label: str | None = None) -> Iterator[tuple[Any, str | None]]:
        """The things in a file or folder, with their labels."""
        raise SeqvaeError(f"attributes are not learnt for models of {self.codec.kind}")

    def learn_attribute(
        self, files: Sequence[Path], out: Path, label: str | None = None, limit: int = 20_000
    ) -> dict[str, int]:
        """Writes the attribute that leads from one kind of things to another; returns how many it read.

        The kinds are two files or folders, or the two labels of one, in the order of their names; `label` is
        the column of a table that holds them. Of each kind at most `limit` things are read. Raises
        `SeqvaeError` where there are not two kinds.
        """
        kinds: dict[str, list[Any]] = {}
        for path in files:
            for thing, told in self.labelled(path, label):
                of = str(path) if len(files) > 1 else told
                require(of is not None, f"{path} has no labels; give it some, or give two files")
                kept = kinds.setdefault(str(of), [])
                kept += [thing] * (len(kept) < limit)
        names = list(kinds) if len(files) > 1 else sorted(kinds)
        held = ", ".join(names[:5]) or "nothing that can be read"
        require(len(names) == 2, f"an attribute leads from one kind to another, and there is {held}")
        counts = {name: len(kinds[name]) for name in names}
        save_attribute(out, self.attribute(*(kinds[name] for name in names)), self.saved, {"counts": counts})
        return counts

    def attribute(self, first: Sequence[Any], second: Sequence[Any]) -> Attribute:
        """What leads from the first kind to the second, fitted (`fit_attribute`) to their posteriors."""
        return fit_attribute(
            *(self._posterior([self.codec.encode(one) for one in kind]) for kind in (first, second))
        )

    def shifted(self, z: Tensor, conditions: np.ndarray, places: Sequence[Places]) -> Tensor:
        """z (N, Z), told conditions (N, C), moved to each of the places in turn: (places, N, Z)."""
        size = self.saved.model.size.latent
        moved = []
        for place in places:
            there = z
            for attribute, goal, relative in (Place(*one) for one in place):
                require(math.isfinite(goal), "a scale is a finite number")
                fits = attribute.axis.shape == (size,)
                require(fits, f"the attribute is of another model: this one has {size} dimensions")
                if relative:
                    there = self._moved(there, conditions, attribute, goal)
                else:
                    there = attribute.shift(there, goal)
            moved.append(there)
        return torch.stack(moved)

    def _moved(self, z: Tensor, conditions: np.ndarray, attribute: Attribute, by: float) -> Tensor:
        """z (N, Z), told conditions (N, C), moved along an attribute by so many standard deviations.

        Of a measure they are the corpus's, and counted in what z decodes to, greedily: the regression tells
        too little of it to trust the way's length. So each z stops where three squares are least together:
        of what its measure lacks (or a fifth of what it has too much), of what the others of its kind move,
        on average, and of the share it goes of the longest way. An attribute of kinds has its place as the
        number, 1 in the one and -1 in the other, so that 1 is half the way between their means.
        """
        known = MEASURES[self.codec.kind]
        names = [name for name in attribute.deviations if name in known]
        if attribute.measure not in names or not by or not len(z):
            return z + by * attribute.way
        tries = torch.stack([z + by * reach * attribute.way for reach in REACHES])  # (R, N, Z)
        things = self.decoded(tries.flatten(0, 1), np.tile(conditions, (len(REACHES), 1)), GREEDY, 0)
        values = torch.tensor(
            [[known[name](thing) / attribute.deviations[name] for name in names] for thing in things],
            dtype=torch.float64,
        ).unflatten(0, tries.shape[:2])  # (R, N, M)
        moves = values - values[0]
        own = names.index(attribute.measure)
        short = math.copysign(1, by) * (by - moves[..., own])
        beside = (moves.square().sum(-1) - moves[..., own].square()) / max(len(names) - 1, 1)
        gone = torch.tensor(REACHES, dtype=torch.float64)[:, None] / REACHES[-1]
        cost = torch.where(short > 0, short, OVER * short).square() + BESIDE * beside + FAR * gone.square()
        return tries[cost.round(decimals=9).argmin(0), torch.arange(len(z))]

    def atlas(self, count: int = 1024) -> Atlas:
        """At most `count` points of the latent space that stand for the training data, always the same.

        Raises `SeqvaeError` for a language model, which has no such space.
        """
        require(self.saved.model.size.latent > 0, "this is a language model: it has no latent space")
        mixture = self.saved.mixture
        if mixture is not None:  # the exemplars' posteriors
            at = torch.linspace(0, len(mixture.means) - 1, min(count, len(mixture.means))).long()
            spread = 2 * mixture.scales[at].clamp(min=1e-6).log()
            told = self._untold().repeat(len(at), 0)
            told[:, : mixture.conditions.shape[1]] = mixture.conditions[at]
            return Atlas(Posterior(mixture.means[at], spread), told)
        draw = np.random.Generator(np.random.Philox(key=stream(0, DRAWN)))
        noise = torch.from_numpy(draw.standard_normal((count, self.saved.model.size.latent), np.float32))
        z = self.saved.model.from_prior(torch.from_numpy(draw.random(count)), noise)
        return Atlas(points(z), self._untold().repeat(count, 0))

    def _untold(self) -> np.ndarray:
        """(1, C) what a thing is told when nobody says what."""
        return NOTHING

    def measured(self, count: int = 2048, known: Collection[str] = ()) -> dict[str, Attribute]:
        """An attribute for each measure of the kind (`MEASURES`) but the known: `fit_measures` on the atlas.

        What is measured is what its points decode to; a measure in which these do not differ has none, nor
        has a language model any.
        """
        if not self.saved.model.size.latent or {*MEASURES[self.codec.kind]} <= {*known}:
            return {}
        (z, _), conditions = self.atlas(count)
        values = self._values(self.decoded(z, conditions, GREEDY, 0))
        found = fit_measures(z, values) if values else {}
        return {name: attribute for name, attribute in found.items() if name not in known}

    def _values(self, things: Sequence[Any]) -> dict[str, Tensor]:
        """(N,) of each measure of the kind in which things differ."""
        measures = MEASURES[self.codec.kind].items()
        every = {name: torch.tensor([measure(one) for one in things]) for name, measure in measures}
        return {name: values for name, values in every.items() if values.min() < values.max()}

    def learn_measures(
        self,
        corpus: Path,
        files: Mapping[str, Path],
        method: str = "regression",
        orthogonal: bool = False,
        limit: int = 20_000,
    ) -> int:
        """Writes the attribute of each measure, by its name, into its file; returns how many windows it read.

        They are those of the corpus's train split, at most `limit` evenly spaced, with their own numbers and
        posterior means; `fit_measures` says what method and orthogonal are, of all measures of the kind.
        Raises `SeqvaeError` where there is no such measure, where it is the same in all windows, and where
        the model spells otherwise than the corpus.
        """
        known = MEASURES[self.codec.kind]
        for name in files:
            require(name in known, f"{name} is no measure of {self.codec.kind}: they are {', '.join(known)}")
        require(self.saved.model.size.latent > 0, "this is a language model: it has no latent space")
        data = Corpus.open(corpus)
        self.saved.check_codec(data.codec)
        total = len(data.split("train"))
        chosen = np.unique(np.linspace(0, total - 1, min(limit, total)).round().astype(int))
        rows = sorted((data.window("train", i) for i in chosen), key=lambda row: len(row.steps))
        values = self._values([self.codec.decode(*row) for row in rows])
        for name in files:
            require(name in values, f"the windows of {corpus} do not differ in {name}")
        found = fit_measures(self._posterior(rows).mean, values, method, orthogonal)
        about = {
            "corpus": data.about["source"],
            "windows": len(rows),
            "method": method,
            "orthogonal": orthogonal,
        }
        for name, path in files.items():
            save_attribute(path, found[name], self.saved, about)
        return len(rows)

    @torch.inference_mode()
    def decoded(self, z: Tensor, conditions: np.ndarray, how: Sampling | Beam, seed: int) -> list[Any]:
        """The one way from z (N, Z), each told its row of conditions (N, C), to N things."""
        if not len(z):
            return []
        told, most = torch.from_numpy(conditions).long(), self.codec.longest
        rows = self.decoder(z.cpu(), told, how, seed=stream(seed, DECODED), most_steps=most)
        return [self.codec.decode(*row) for row in zip(rows, conditions, strict=True)]

    def _drawn(self, n: int, conditions: np.ndarray, seed: int, prior: str) -> Tensor:
        """z (n, W, Z) of n things of W windows told conditions (W, C), each by the seed and its row.

        Where the ruling conditions stay as they were, a window's z follows from the one before it: components
        of the mixture are preferred that are likelier after it than anywhere.
        """
        require(prior in PRIORS, f"a prior is {' or '.join(PRIORS)}, not {prior}")
        saved = self.saved if prior == "fitted" else replace(self.saved, mixture=None, succession=None)
        key, size, count, found = stream(seed, DRAWN), saved.model.size.latent, len(conditions), []
        told = torch.from_numpy(conditions)
        ruling = conditions[:, : self.codec.ruling]
        same = (ruling[1:] == ruling[:-1]).all(1)
        for first in range(0, n, MOST_ROWS):
            rows = max(min(MOST_ROWS, n - first), FEWEST_ROWS)
            draws = [np.random.Generator(np.random.Philox(key=(key, first + row))) for row in range(rows)]
            uniform = torch.from_numpy(np.stack([draw.random(count) for draw in draws]))
            normal = [draw.standard_normal((count, size), np.float32) for draw in draws]
            noise = torch.from_numpy(np.stack(normal))
            chain: list[Tensor] = []
            for w in range(count):
                follows = saved.succession if chain and same[w - 1] else None
                if saved.mixture:
                    prefer = follows and follows.preference(chain[-1], saved.mixture.means)
                    fresh = saved.mixture.sample(uniform[:, w], noise[:, w], told[w].expand(rows, -1), prefer)
                    chain.append(fresh)
                elif follows:
                    chain.append(follows.sample(chain[-1], noise[:, w]))
                else:
                    new = saved.model.from_prior(uniform[:, w], noise[:, w])
                    chain.append(slerp(chain[-1], new, 0.5) if chain else new)
            found.append(torch.stack(chain, 1))
        return torch.cat(found)[:n]


class Single(Engine):
    """A model whose things have one z each and are told nothing: where its verbs lead, as z (N, Z)."""

    thing: str  # what it makes, in a word

    def encode(self, things: Sequence[Any]) -> Tensor:
        """Posterior means (N, Z)."""
        return self._means(things)

    def _new(self, n: int, seed: int, prior: str) -> Tensor:
        require(n >= 1, f"at least one {self.thing} can be made, not {n}")
        return self._drawn(n, NOTHING, seed, prior)[:, 0]

    def _path(self, a: Any, b: Any, steps: int) -> Tensor:
        shares = along(steps)
        start, end = self.encode([a, b])
        return torch.stack([slerp(start, end, t) for t in shares])

    def _varied(self, thing: Any, amount: float, n: int, seed: int) -> Tensor:
        require_variation(amount, n)
        goals = self._new(n, seed, "fitted")
        return slerp(self.encode([thing]).expand_as(goals), goals, amount)

    def _brought(self, thing: Any, places: Sequence[Places]) -> Tensor:
        return self.shifted(self.encode([thing]), NOTHING, places)[:, 0]

    def _within(self, corners: Sequence[Any], places: Sequence[tuple[float, float]]) -> Tensor:
        ends = list(self.encode(corners))
        return torch.stack([square(ends, x, y) for x, y in places])


def points(z: Tensor) -> Posterior:
    """z (N, Z) as posteriors that are sure of themselves."""
    return Posterior(z, torch.full_like(z, NARROW))


def models() -> dict[str, Path]:
    """The embedded models' folders by name."""
    return {path.parent.name: path.parent for path in sorted(PRETRAINED.glob("*/config.json"))}


def find_model(name: str | Path) -> Path:
    """The folder of an embedded model, or one that a path names or, as a training's run folder, holds."""
    known = models()
    if str(name) in known:
        return known[str(name)]
    for folder in (Path(name), Path(name) / "best"):
        if os.path.isfile(folder / "config.json"):  # which, unlike Path's, bears any name
            return folder
    there = f"embedded are {', '.join(known)}" if known else "none is embedded"
    what = "no model is in the folder" if os.path.isdir(name) else "there is no model"
    raise SeqvaeError(f"{what} {name}; {there}")


def attributes_of(folder: Path) -> dict[str, Path]:
    """The files of the attributes that came with the model in a folder, by name."""
    places = (folder / "attributes", folder / "best" / "attributes")
    return {path.stem: path for place in places for path in sorted(place.glob("*.safetensors"))}


def find_attribute(named: str | Path, model: str | Path, pipeline: Engine) -> Attribute:
    """The attribute in a file; or one of the model's own, by its name. `SeqvaeError` where there is none."""
    if os.path.isfile(named):
        return load_attribute(Path(named), pipeline.saved)
    own = attributes_of(find_model(model))
    if str(named) in own:
        return load_attribute(own[str(named)], pipeline.saved)
    measures = MEASURES[pipeline.codec.kind]
    known = ", ".join([*own, *measures])
    require(str(named) in measures, f"there is no attribute {named}; the model's own are {known}")
    measured = pipeline.measured(known=own)
    require(str(named) in measured, f"the model's things do not differ in {named}")
    return measured[str(named)]


def require(holds: bool, sentence: str) -> None:
    if not holds:
        raise SeqvaeError(sentence)


def require_variation(amount: float, n: int) -> None:
    require(0 <= amount <= 1, f"the amount of a variation lies in 0 to 1, not {amount:g}")
    require(n >= 1, f"at least one variation can be made, not {n}")


def along(steps: int) -> list[float]:
    """t of each step of a path, 0 .. 1."""
    require(steps >= 2, f"a path has at least 2 steps, not {steps}")
    return [step / (steps - 1) for step in range(steps)]


def square(corners: Sequence[Tensor], x: float, y: float) -> Tensor:
    """`bilinear`, the place checked."""
    require(0 <= x <= 1 and 0 <= y <= 1, f"a place in a square is 0 to 1 wide and high, not {x:g}, {y:g}")
    require(len(corners) == 4, f"a square has four corners, not {len(corners)}")
    found = bilinear(corners, x, y)
    assert found is not None
    return found


def sampling(temperature: float, top_k: int, top_p: float) -> Sampling:
    """The strategy, checked."""
    fine = temperature == 0 or 0.01 <= temperature <= 100
    require(fine, f"a temperature is 0, for the likeliest, or lies in 0.01 to 100, not {temperature:g}")
    require(top_k >= 0, f"top-k is at least 0, not {top_k}")
    require(0 < top_p <= 1, f"top-p is greater than 0 and at most 1, not {top_p:g}")
    return Sampling(temperature, top_k, top_p)


def beam_of(width: int, penalty: float) -> Beam:
    """The strategy, checked."""
    require(1 <= width <= 64, f"a beam is 1 to 64 wide, not {width}")
    require(0 <= penalty <= 10, f"a length penalty lies in 0 to 10, not {penalty:g}")
    return Beam(width, penalty)


def stream(seed: int, purpose: int) -> int:
    """The key of a seed's random numbers for one purpose."""
    require(seed >= 0, f"a seed is a whole number from 0 on, not {seed}")
    return int(np.random.SeedSequence((seed, purpose)).generate_state(1, np.uint64)[0])
