"""The training loop, on Lightning Fabric: one CPU, one GPU, or many processes under torchrun.

A run folder holds last.safetensors (everything a resumed run needs), best/ (a model folder), run.json (the
settings), metrics.csv, TensorBoard's events and samples/; ranks share it. Data order is a function of
(seed, epoch), noise of (seed, step, rank): killed at any moment and resumed, a run on one CPU with the same
number of threads ends in the same bytes. A resumed run keeps its settings and its corpus.
"""

from __future__ import annotations

import copy
import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from seqvae import evaluation
from seqvae.checkpoint import (
    Saved,
    build_model,
    load_model,
    load_state,
    read_config,
    save_model,
    save_state,
    store,
)
from seqvae.corpus import Batch, Corpus
from seqvae.divergence import Critic, critic_loss, permuted, sampled_kl
from seqvae.image import ImageVAE, Model
from seqvae.latent import divergences, fit_succession
from seqvae.model import HierarchicalVAE, SequenceVAE, Size
from seqvae.objective import Posterior, Terms
from seqvae.prior import HOLES, WIDTH, fit_mixture, needs_fit
from seqvae.recipes import PRECISIONS, RECIPES, Recipe, check, default, override
from seqvae.song import SeqvaeError

Progress = Callable[[int, int, dict[str, float], str], None]  # step, of how many, figures, a message or ""
LOG_EVERY = 20  # steps
LOOKED_AT, DECODED = 2048, 256  # windows that an evaluation measures, and of these about so many it decodes
ALIGNED = 8_192  # windows by which a conductor is aligned to the sections it begins from, at most
FITTED = 65_536  # windows and pairs of windows that the prior is fitted to, at most
COLLAPSED = 0.5  # nats of mutual information below which z says nothing
COLLAPSE = "the posterior has collapsed: z says nothing; lower beta or use free_bits"
INNER = 1_000_000  # epochs and steps from which aggressive training draws
DIVERGED = "the loss is no finite number by step {}; begin again with a lower learning_rate"
LEFTOVERS = (  # of writes that a kill cut short
    *(".last.safetensors.*", ".metrics.csv.*", ".run.json.*"),
    *("best/.model.safetensors.*", "best/.config.json.*", "samples/step-*/.*.mid.*"),
)


def learning_rate(recipe: Recipe, step: int) -> float:
    """A linear rise, then half a cosine down to zero."""
    if step < recipe.rise:
        return recipe.learning_rate * (step + 1) / recipe.rise
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * min(step / recipe.steps, 1)))


def seed_for(recipe: Recipe, step: int, rank: int) -> int:
    return (recipe.seed * 1_000_003 + step) * 1009 + rank


def noise_for(recipe: Recipe, seed: int, batch: Batch) -> tuple[Tensor, Tensor | None]:
    """Standard normal noise (K * B, Z) for K samples each, and the steps to hide (B, T)."""
    generator = torch.Generator().manual_seed(seed)
    rows = len(batch.lengths) * recipe.objective.samples
    noise = torch.randn(rows, recipe.size.latent, generator=generator)
    if not recipe.word_dropout:
        return noise, None
    return noise, torch.rand(batch.steps.shape[:2], generator=generator) < recipe.word_dropout


def flat(about: dict[str, Any]) -> dict[str, Any]:
    """The settings in a run.json by their names; what a recipe says about itself is none."""
    recipe = dict(about["recipe"])
    nested = recipe.pop("size") | recipe.pop("objective")
    recipe.pop("about", None)
    return recipe | nested | {name: value for name, value in about.items() if name != "recipe"}


class Run:
    """One training: its network, data, folder and place."""

    def __init__(
        self, corpus: Corpus, recipe: Recipe, out: Path, progress: Progress | None, start: Path | None = None
    ) -> None:
        self.corpus, self.recipe, self.out = corpus, recipe, out
        self.tell = progress or (lambda step, total, figures, message: None)
        world = int(os.environ.get("WORLD_SIZE", 1))  # torchrun says how many processes there are
        local = int(os.environ.get("LOCAL_WORLD_SIZE", world))
        precision: Any = PRECISIONS[recipe.precision]
        self.fabric = Fabric(devices=local, num_nodes=world // local, precision=precision)
        self.fabric.launch()
        torch.set_num_threads(recipe.threads)
        self.rank, self.world = self.fabric.global_rank, self.fabric.world_size
        if recipe.batch_size % self.world:
            raise SeqvaeError(f"batch_size {recipe.batch_size} does not divide among {self.world} processes")
        torch.manual_seed(recipe.seed)
        self.model: Model = build_model(corpus.codec, recipe.size)
        for module in self.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = recipe.dropout
        if isinstance(self.model, ImageVAE):
            self.model.compares = recipe.ssim > 0
        self.start = self.begin_from(start) if start else ""
        self.critic = self.critic_of(recipe)
        self.trained = torch.nn.ModuleDict({"model": self.model})
        fused = self.fabric.device.type == "cpu"  # a third of the time there, and the same state
        groups: list[dict[str, Any]] = [{"params": self.model.parameters(), "betas": (0.9, 0.99)}]
        if self.critic is not None:  # as Kim & Mnih 2018 train it
            self.trained["critic"] = self.critic.to(self.fabric.device)
            groups += [{"params": self.critic.parameters(), "lr": 1e-4, "betas": (0.5, 0.9)}]
        adam = torch.optim.Adam(groups, recipe.learning_rate, fused=fused or None)
        self.network, self.optimizer = self.fabric.setup(self.model, adam)
        self.step, self.best, self.stale = 0, math.inf, 0
        self.aggressive = recipe.aggressive > 0
        self.rows: list[dict[str, float]] = []
        self.norm, self.weight = torch.zeros(()), 0.0  # of the last gradient; of the KL
        self.split = "valid" if len(corpus.split("valid")) else "train"  # what evaluations look at
        self.looked = evaluation.chosen(corpus, self.split, LOOKED_AT)

    def critic_of(self, recipe: Recipe) -> Critic | None:
        if recipe.objective.penalty != "factor":
            return None
        if self.world > 1:
            raise SeqvaeError("the critic of penalty factor is trained by one process alone")
        return Critic(recipe.size.latent)

    def begin_from(self, folder: Path) -> str:
        """Take a model's weights; returns their hash.

        Those of a model of sections alone become the sections', under a conductor that begins `align`ed to
        training windows; those of a language model the decoder's, beside an encoder that begins at random.
        Raises `SeqvaeError` where codec or sizes differ.
        """
        saved = load_model(folder)
        codec, model = self.corpus.codec, self.model
        if isinstance(model, HierarchicalVAE) and not isinstance(saved.model, HierarchicalVAE):
            codec, model = codec.of_section(), model.section  # type: ignore[attr-defined]
        saved.check_codec(codec)
        given, own = saved.model.size, model.size
        take: Callable[[dict[str, Tensor]], object] = model.load_state_dict
        if isinstance(self.model, SequenceVAE) and isinstance(given, Size) and not given.latent:
            given, own, take = given.of_decoder, self.model.size.of_decoder, self.model.adopt
        if given != own:
            raise SeqvaeError(f"{folder} has other sizes than the recipe; choose the recipe it came from")
        take(saved.model.state_dict())
        if isinstance(self.model, HierarchicalVAE) and model is not self.model and not self.state.exists():
            looked = evaluation.chosen(self.corpus, "train", ALIGNED)
            self.model.align(evaluation.section_posteriors(self.model, self.corpus, "train", looked))
        return str(saved.config["sha256"])

    @property
    def over(self) -> bool:
        patience = self.recipe.patience
        return self.step >= self.recipe.steps or 0 < patience <= self.stale

    # -- places on disk

    @property
    def state(self) -> Path:
        return self.out / "last.safetensors"

    def about(self) -> dict[str, Any]:
        """What run.json says and a resumed run must agree with."""
        digest = blake2b(json.dumps(self.corpus.about).encode(), digest_size=6).hexdigest()
        corpus = f"{self.corpus.about.get('source', '')} {digest}".strip()
        about: dict[str, Any] = {"recipe": asdict(self.recipe), "codec": self.corpus.codec.config()}
        about |= {"corpus": corpus, "start": self.start}
        return dict(json.loads(json.dumps(about)))  # lists for tuples, as in the file

    def objection(self, resume: bool) -> str:
        """Why this run cannot have its folder, or nothing."""
        told = self.out / "run.json"
        if not told.exists() and not self.state.exists():
            return ""
        if not resume:
            return f"{self.out} holds a training already; go on with --resume or choose another folder"
        try:
            before = {"start": ""} | flat(json.loads(told.read_text(encoding="utf-8")))
            now = flat(self.about())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return f"{told} cannot be read, so the training cannot be resumed; choose another folder"
        for name, value in before.items():
            if now.get(name) != value:
                return (
                    f"{self.out} was trained with {name} {value!r}, not {now.get(name)!r}, and a resumed run "
                    "keeps its settings; leave that as it was or choose another folder"
                )
        return ""

    def claim(self, resume: bool) -> None:
        """Take the run folder and go where a resumed run stood; rank 0 decides for all.

        Raises `SeqvaeError` where another training ran, or one did and resume was not asked for.
        """
        objection = self.fabric.broadcast(self.objection(resume) if self.rank == 0 else "")
        if objection:
            raise SeqvaeError(objection)
        resumed = self.fabric.broadcast(self.state.exists())
        if self.rank == 0:
            for path in [path for name in LEFTOVERS for path in self.out.glob(name)]:
                path.unlink(missing_ok=True)
            if not (self.out / "run.json").exists():
                store(self.out / "run.json", json.dumps(self.about(), indent=1).encode())
        if resumed:
            place = load_state(self.state, self.trained, self.optimizer)
            self.step, self.best, self.stale = place["step"], place["best"], place["stale"]
            self.rows, self.aggressive = place["rows"], place["aggressive"]
        self.fabric.barrier()

    def save(self) -> None:
        self.require_numbers()
        if self.rank == 0:
            place = {"step": self.step, "best": self.best, "stale": self.stale, "rows": self.rows}
            place["aggressive"] = self.aggressive
            save_state(self.state, self.trained, self.optimizer, place)

    def write_rows(self) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        store(self.out / "metrics.csv", text.getvalue().encode())

    # -- the loop

    def batches(self) -> Iterator[Batch]:
        """From where the run stands, without end."""
        size = self.recipe.batch_size // self.world
        epoch, skip = divmod(self.step, self.corpus.epoch_steps("train", size, self.world))
        while True:
            yield from self.dealt(epoch, skip)
            epoch, skip = epoch + 1, 0

    def dealt(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """This rank's share of an epoch."""
        recipe, size = self.recipe, self.recipe.batch_size // self.world
        return self.corpus.batches(
            "train", size, recipe.seed, epoch, recipe.augment, self.rank, self.world, skip
        )

    def update(self, batch: Batch) -> Terms:
        """One step of the optimiser. Nothing here waits for the device, but for aggressive training."""
        recipe = self.recipe
        if self.step == recipe.autoencoder > 0:
            self.renew_decoder()
        if self.aggressive and self.step >= recipe.autoencoder:
            self.sharpen_encoder()
        terms = self.backward(batch, seed_for(recipe, self.step, self.rank))
        self.optimizer.step()
        self.step, self.weight = self.step + 1, terms.weight
        return terms

    def backward(self, batch: Batch, seed: int) -> Terms:
        """Gradients of the objective at this step, clipped; noise and dropout are functions of the seed."""
        recipe = self.recipe
        self.optimizer.param_groups[0]["lr"] = learning_rate(recipe, self.step)
        noise, dropped = noise_for(recipe, seed, batch)
        torch.manual_seed(seed)  # of dropout
        given = [torch.from_numpy(part).to(self.fabric.device) for part in batch]
        hidden = None if dropped is None else dropped.to(self.fabric.device)
        plain = self.step < recipe.autoencoder
        objective = replace(recipe.objective, beta=0.0) if plain else recipe.objective
        if len(batch.lengths) == 1 or plain:  # of which no penalty can be told
            objective = replace(objective, penalty="")
        noise = torch.zeros_like(noise) if plain else noise
        found = self.network(*given, noise.to(self.fabric.device), hidden)
        step, size = max(self.step - recipe.autoencoder, 0), len(self.corpus.split("train"))
        terms = objective(found.nll, found.posterior, step, found.z, found.prior, self.critic, size)
        loss = terms.loss
        if found.unlike is not None:
            loss = loss + recipe.ssim * found.unlike.mean()
        if self.critic is not None and len(batch.lengths) > 1:
            z = found.z.detach()
            loss = loss + critic_loss(self.critic(z), self.critic(permuted(z)))
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        self.norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
        return terms

    def renew_decoder(self) -> None:
        """Begin the decoder anew, and what the optimiser remembers of it, but for an embedding it shares."""
        with torch.random.fork_rng():
            torch.manual_seed(seed_for(self.recipe, self.step, 0))
            fresh = build_model(self.corpus.codec, self.recipe.size).decoder
        size = self.recipe.size
        kept = ("steps.",) if isinstance(size, Size) and size.shared else ()
        new = {name: value for name, value in fresh.state_dict().items() if not name.startswith(kept)}
        self.model.decoder.load_state_dict(new, strict=False)
        for name in new:
            for moment in self.optimizer.state.get(self.model.decoder.get_parameter(name), {}).values():
                moment.zero_()

    def sharpen_encoder(self) -> None:
        """Steps of the encoder alone, on other batches, while the loss of every ten of them falls."""
        others = self.dealt(INNER + self.step)
        before, total = math.inf, 0.0
        for inner, batch in enumerate(islice(others, self.recipe.aggressive), 1):
            terms = self.backward(batch, seed_for(self.recipe, INNER * inner + self.step, self.rank))
            self.model.decoder.zero_grad()  # to None, and so it stays as it is
            self.optimizer.step()
            total += torch.as_tensor(self.fabric.all_reduce(terms.loss.detach(), reduce_op="mean")).item()
            if inner % 10 == 0:
                if total >= before:
                    return
                before, total = total, 0.0

    def require_numbers(self) -> None:
        """Raises `SeqvaeError` where the last gradient or a weight is no finite number.

        Called before anything reaches the disk. Ranks share both, so that they all raise or none.
        """
        finite = [value.isfinite().all() for value in (self.norm, *self.model.parameters())]
        if not bool(torch.stack(finite).all()):
            raise SeqvaeError(DIVERGED.format(self.step))

    def events(self) -> AbstractContextManager[SummaryWriter | None]:
        """TensorBoard's file, from this step on: what a killed run wrote of later ones is dropped."""
        if self.rank:
            return nullcontext()
        return SummaryWriter(str(self.out / "events"), purge_step=self.step + 1 if self.step else None)

    def loop(self) -> None:
        if self.over:
            return
        recipe = self.recipe
        with self.events() as events:
            for batch in self.batches():
                terms = self.update(batch)
                if self.step % LOG_EVERY == 0:
                    self.log(terms, events)
                if self.step % recipe.evaluate_every == 0 or self.step == recipe.steps:
                    self.evaluate(events)
                if self.step % recipe.save_every == 0 or self.over:
                    if events:
                        events.flush()
                    self.save()
                if self.over:
                    return

    def log(self, terms: Terms, events: SummaryWriter | None) -> None:
        self.require_numbers()
        if self.rank == 0:
            shown = {"nll": terms.nll.item(), "kl": terms.kl.item(), "weight": terms.weight}
            self.tell(self.step, self.recipe.steps, shown, "")
            self.draw("train", shown, events)

    def draw(self, group: str, figures: dict[str, float], events: SummaryWriter | None) -> None:
        if events:
            for name, value in figures.items():
                events.add_scalar(f"{group}/{name}", value, self.step)

    # -- what is looked at on the way

    def evaluate(self, events: SummaryWriter | None) -> None:
        """Figures on the validation split, samples to hear, the best model kept; all wait for rank 0."""
        self.require_numbers()
        if self.rank == 0:
            self.model.eval()
            row = self.measure()
            self.model.train()
            self.aggressive &= not self.rows or row["mi"] > self.rows[-1]["mi"]
            self.rows.append(row)
            self.write_rows()
            if row["loss"] < self.best:
                self.best, self.stale = row["loss"], 0
                about = {"recipe": asdict(self.recipe), "start": self.start, self.split: row}
                if self.corpus.report.metres:
                    about["metres"] = self.corpus.report.metres
                save_model(self.out / "best", Saved(self.model, self.corpus.codec, about), half=True)
            else:
                self.stale += 1
            self.draw("valid", row, events)
            # One window of N cannot say more than log N nats.
            silent = max(row["mi"], 0) < min(COLLAPSED, math.log(len(self.looked)) / 2)
            settled = self.step > self.recipe.autoencoder + max(
                self.recipe.objective.warmup, self.recipe.rise
            )
            collapsed = silent and settled and self.recipe.size.latent > 0
            self.tell(self.step, self.recipe.steps, row, COLLAPSE if collapsed else "")
        self.stale, self.aggressive = self.fabric.broadcast((self.stale, self.aggressive))

    @torch.inference_mode()
    def measure(self) -> dict[str, float]:
        """A row of metrics.csv. Raises `SeqvaeError` where the loss is no number."""
        on_cpu = self.fabric.device.type == "cpu"
        model = self.model if on_cpu else copy.deepcopy(self.model).cpu()
        given = (model, self.corpus, self.split)
        posterior = evaluation.posteriors(*given, self.looked)
        row: dict[str, float] = {"step": self.step, "weight": self.weight}
        row |= evaluation.bounds(*given, self.looked, posterior, self.recipe.seed, self.recipe.objective)
        if not math.isfinite(row["loss"] + row["mi"]):
            raise SeqvaeError(DIVERGED.format(self.step))
        apart = max(len(self.looked) // DECODED, 1)
        few, some = Posterior(posterior.mean[::apart], posterior.logvar[::apart]), self.looked[::apart]
        originals = evaluation.held(self.corpus, self.split, some)
        row |= evaluation.reconstruction(*given, some, few, originals)
        mixture = None
        if row["kl_minus_mi"] > HOLES and not model.size.learns_prior:
            known = evaluation.chosen(self.corpus, "train", LOOKED_AT)
            told = evaluation.conditions_of(self.corpus, "train", known)
            told = told[:, : self.corpus.codec.ruling]
            mixture = fit_mixture(evaluation.posteriors(model, self.corpus, "train", known), told)
        places = np.linspace(0, len(self.looked) - 1, min(len(self.looked), 8)).astype(int)
        folder = self.out / "samples" / f"step-{self.step:06d}"
        evaluation.write_paths(*given, self.looked[places], posterior.mean[places], folder)
        return row | evaluation.write_samples(model, self.corpus, mixture, folder, self.recipe.seed)

    def finish(self) -> None:
        """Fit to the best model, once, what is sampled from; a kill in between leaves it to be done again."""
        best = self.out / "best"
        if self.rank == 0 and "prior" not in read_config(best):
            self.tell(self.step, self.recipe.steps, {}, "fitting the prior to the best model")
            saved = load_model(best)
            finish_model(saved, self.corpus)
            save_model(best, saved, half=True)
            if self.recipe.size.latent:
                self.tell(self.step, self.recipe.steps, {}, verdict(saved))
        self.fabric.barrier()


def verdict(saved: Saved) -> str:
    """What a finished model's latent is worth, in a sentence."""
    found = saved.config["prior"]
    if max(found["mi"], 0) < min(COLLAPSED, math.log(found["windows"]) / 2):
        return COLLAPSE
    learnt = "its learnt prior" if saved.model.size.learns_prior else "N(0, I)"
    source = "the posteriors of training windows" if saved.mixture is not None else learnt
    used = f"the latent is used: z tells {found['mi']:.1f} nats of a window, at a KL of {found['kl']:.1f}"
    return f"{used}; samples come from {source}"


@torch.inference_mode()
def finish_model(saved: Saved, corpus: Corpus, seed: int = 0, width: float = WIDTH) -> None:
    """Fit, in place, how windows follow each other and, where KL - MI passes 5 nats, the prior.

    The first is a `Succession`, the second a `Mixture` of exemplars, so much widened, unless the model has
    learnt a prior. What decided it is told in the config's "prior".
    """
    pairs = corpus.successors("train")
    pairs = pairs[evaluation.pick(len(pairs), FITTED // 2, seed)]
    indices = np.union1d(evaluation.chosen(corpus, "train", FITTED, seed), pairs)
    posterior = evaluation.posteriors(saved.model, corpus, "train", indices)
    noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(seed))
    z = posterior.sample(noise)
    if len(pairs):
        before, after = torch.from_numpy(np.searchsorted(indices, pairs.T))
        saved.succession = fit_succession(z[before], z[after])
    few = torch.from_numpy(evaluation.pick(len(indices), 4096, seed))
    some = Posterior(posterior.mean[few], posterior.logvar[few])
    found = divergences(some, noise[few])
    prior = saved.model.log_prior(z[few])
    if prior is not None:  # learnt, so nothing is to be fitted
        found = found._replace(kl=sampled_kl(z[few], some, prior).mean().item())
    elif needs_fit(found):
        told = evaluation.conditions_of(corpus, "train", indices)
        saved.mixture = fit_mixture(posterior, told[:, : corpus.codec.ruling], width=width, seed=seed)
    gap = {"windows": len(few), "kl": found.kl, "mi": found.mi, "kl_minus_mi": found.kl - found.mi}
    saved.config["prior"] = gap


def train(
    corpus_folder: str | Path,
    recipe: str | Recipe | None,
    out: str | Path,
    overrides: Mapping[str, str] | None = None,
    *,
    start: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Train a recipe on a prepared corpus; returns the folder of the best model.

    Without a recipe it is the `default` of the corpus's codec. start is a model folder to begin from instead
    of random weights, of the same codec and sizes. Without a validation split the figures are of training
    windows, and said to be. A finished run resumed stays as it is. Raises `SeqvaeError` for an unknown recipe
    or setting, an occupied folder, a resumed run of other settings or another corpus, a loss that is no
    finite number.
    """
    corpus = Corpus.open(corpus_folder)
    recipe = default(corpus.codec.kind, corpus.codec.config()) if recipe is None else recipe
    if isinstance(recipe, str):
        if recipe not in RECIPES:
            raise SeqvaeError(f"no recipe is called {recipe!r}; there are {', '.join(RECIPES)}")
        recipe = RECIPES[recipe]
    recipe = check(override(recipe, overrides or {}))
    run = Run(corpus, recipe, Path(out), progress, Path(start) if start else None)
    run.claim(resume)
    if run.rank == 0 and run.split != "valid":
        message = "the corpus has no validation windows, so the figures are of training windows"
        run.tell(run.step, recipe.steps, {}, message)
    run.loop()
    run.finish()
    return run.out / "best"
