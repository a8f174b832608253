"""The training loop, on Lightning Fabric: one CPU, one GPU, or many processes under torchrun.

A run folder holds last.safetensors (everything a resumed run needs), best/ (a model folder), metrics.csv, TensorBoard's
events and samples/. Data order is a function of (seed, epoch), noise of (seed, step, rank): killed at any moment and
resumed, a run on one CPU with the same number of threads ends in the same bytes.
"""

from __future__ import annotations

import copy
import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from seqvae import evaluation, files
from seqvae.checkpoint import Saved, build_model, load_model, load_state, save_model, save_state, write_atomic
from seqvae.corpus import Batch, Corpus
from seqvae.decoding import GREEDY, Sampling, Stepper, decode
from seqvae.latent import fit_succession, slerp
from seqvae.model import SequenceVAE
from seqvae.objective import Terms
from seqvae.prior import fit_mixture, needs_fit
from seqvae.recipes import PRECISIONS, RECIPES, Recipe, check, override
from seqvae.song import SeqvaeError, assemble

Progress = Callable[[int, int, dict[str, float], str], None]  # step, of how many, figures, a message or ""
COLLAPSED = 0.5  # nats of mutual information below which z says nothing


def learning_rate(recipe: Recipe, step: int) -> float:
    """A linear rise, then half a cosine down to zero."""
    if step < recipe.rise:
        return recipe.learning_rate * (step + 1) / recipe.rise
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * min(step / recipe.steps, 1)))


def noise_for(recipe: Recipe, step: int, rank: int, batch: Batch) -> tuple[Tensor, Tensor | None]:
    """Standard normal noise (B, Z) and the steps to hide (B, T), a function of (seed, step, rank)."""
    generator = torch.Generator().manual_seed((recipe.seed * 1_000_003 + step) * 1009 + rank)
    noise = torch.randn(len(batch.lengths), recipe.size.latent, generator=generator)
    if not recipe.word_dropout:
        return noise, None
    return noise, torch.rand(batch.steps.shape[:2], generator=generator) < recipe.word_dropout


class Run:
    """One training: its network, data, folder and place."""

    def __init__(self, corpus: Corpus, recipe: Recipe, out: Path, progress: Progress | None) -> None:
        self.corpus, self.recipe, self.out = corpus, recipe, out
        self.tell = progress or (lambda step, total, figures, message: None)
        torch.set_num_threads(recipe.threads)
        world = int(os.environ.get("WORLD_SIZE", 1))  # torchrun says how many processes there are
        self.fabric = Fabric(accelerator="auto", devices=max(world, 1), precision=PRECISIONS[recipe.precision])  # type: ignore[arg-type]
        self.fabric.launch()
        self.rank, self.world = self.fabric.global_rank, self.fabric.world_size
        if recipe.batch_size % self.world:
            raise SeqvaeError(f"batch_size {recipe.batch_size} does not divide among {self.world} processes")
        torch.manual_seed(recipe.seed)
        self.model: SequenceVAE = build_model(corpus.codec, recipe.size)
        self.network, self.optimizer = self.fabric.setup(
            self.model, torch.optim.Adam(self.model.parameters(), recipe.learning_rate, betas=(0.9, 0.99))
        )
        self.step, self.best, self.stale = 0, math.inf, 0
        self.rows: list[dict[str, float]] = []

    # -- places on disk

    @property
    def state(self) -> Path:
        return self.out / "last.safetensors"

    def claim(self, resume: bool) -> None:
        """Take the run folder. Raises `SeqvaeError` where another recipe ran in it, or one did and resume was not asked."""
        about = json.dumps({"recipe": asdict(self.recipe), "codec": self.corpus.codec.config()}, indent=1)
        told = self.out / "run.json"
        if self.state.exists() and not resume:
            raise SeqvaeError(f"{self.out} holds a training already; go on with --resume or choose another folder")
        if resume and told.exists() and told.read_text() != about:
            raise SeqvaeError(f"{self.out} was trained with another recipe; resume with that one or choose another folder")
        if self.rank == 0:
            write_atomic(told, about.encode())
        if resume and self.state.exists():
            progress = load_state(self.state, self.model, self.optimizer)
            self.step, self.best, self.stale = progress["step"], progress["best"], progress["stale"]
            self.rows = progress["rows"]
        self.fabric.barrier()

    def save(self) -> None:
        if self.rank == 0:
            progress = {"step": self.step, "best": self.best, "stale": self.stale, "rows": self.rows}
            save_state(self.state, self.model, self.optimizer, progress)

    def write_rows(self) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomic(self.out / "metrics.csv", text.getvalue().encode())

    # -- the loop

    def batches(self) -> Iterator[Batch]:
        """From where the run stands to the end of its steps."""
        size = self.recipe.batch_size // self.world
        an_epoch = self.corpus.epoch_steps("train", size, self.world)
        epoch, skip = divmod(self.step, an_epoch)
        while True:
            yield from self.corpus.batches(
                "train", size, self.recipe.seed, epoch, rank=self.rank, world=self.world, skip=skip
            )
            epoch, skip = epoch + 1, 0

    def update(self, batch: Batch) -> Terms:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, self.step)
        noise, dropped = noise_for(self.recipe, self.step, self.rank, batch)
        given = [torch.from_numpy(part).to(self.fabric.device) for part in batch]
        nll, posterior = self.network(
            *given, noise.to(self.fabric.device), None if dropped is None else dropped.to(self.fabric.device)
        )
        terms = self.recipe.objective(nll, posterior, self.step)
        self.optimizer.zero_grad()
        self.fabric.backward(terms.loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimizer.step()
        self.step += 1
        return terms

    def loop(self) -> None:
        recipe = self.recipe
        events = SummaryWriter(str(self.out / "events")) if self.rank == 0 else None
        for batch in self.batches():
            if self.step >= recipe.steps or (recipe.patience and self.stale >= recipe.patience):
                break
            terms = self.update(batch)
            if self.step % 20 == 0 and self.rank == 0:
                shown = {"nll": terms.nll.item(), "kl": terms.kl.item(), "weight": terms.weight}
                if not math.isfinite(sum(shown.values())):
                    raise SeqvaeError(f"the loss at step {self.step} is not a number; lower learning_rate and resume")
                self.tell(self.step, recipe.steps, shown, "")
                if events:
                    for name, value in shown.items():
                        events.add_scalar(f"train/{name}", value, self.step)
            if self.step % recipe.evaluate_every == 0 or self.step == recipe.steps:
                self.evaluate(events)
            if self.step % recipe.save_every == 0 or self.step == recipe.steps:
                self.save()
        if events:
            events.close()

    # -- what is looked at on the way

    def evaluate(self, events: SummaryWriter | None) -> None:
        """Figures on the validation split, samples to listen to, and the best model kept. Rank 0 works, the rest wait."""
        if self.rank == 0:
            self.model.eval()
            row = self.measure()
            self.model.train()
            self.rows.append(row)
            self.write_rows()
            if row["loss"] < self.best:
                self.best, self.stale = row["loss"], 0
                save_model(self.out / "best", Saved(self.model, self.corpus.codec, self.about(row)), half=True)
            else:
                self.stale += 1
            if events:
                for name, value in row.items():
                    events.add_scalar(f"valid/{name}", value, self.step)
            collapsed = row["mi"] < COLLAPSED and self.step > self.recipe.objective.warmup
            message = "the posterior has collapsed: z says nothing; lower beta or use free_bits" if collapsed else ""
            self.tell(self.step, self.recipe.steps, row, message)
        self.stale = int(self.fabric.broadcast(self.stale))

    def about(self, row: dict[str, float]) -> dict[str, Any]:
        metres = self.corpus.report.metres
        return {"recipe": asdict(self.recipe), "metres": metres, "valid": row}

    @torch.inference_mode()
    def measure(self) -> dict[str, float]:
        corpus, split = self.corpus, "valid"
        on_cpu = self.fabric.device.type == "cpu"
        model = self.model if on_cpu else copy.deepcopy(self.model).cpu()
        if not len(corpus.split(split)):
            split = "train"  # a corpus too small for a validation split
        indices = evaluation.chosen(corpus, split, 2048)
        posterior = evaluation.posteriors(model, corpus, split, indices)
        row: dict[str, float] = {"step": self.step, "weight": self.recipe.objective.beta}
        row |= evaluation.bounds(model, corpus, split, indices, posterior, self.recipe.seed)
        row["loss"] = row["nll"] + self.recipe.objective.beta * row["kl"]
        few = indices[:: max(len(indices) // 256, 1)]
        exact = evaluation.posteriors(model, corpus, split, few)
        row |= evaluation.reconstruction(model, corpus, split, few, exact)
        return row | self.listen(model, split, few, exact.mean, posterior.mean)

    def listen(self, model: SequenceVAE, split: str, few: np.ndarray, means: Tensor, spread: Tensor) -> dict[str, float]:
        """Writes reconstructions, samples and an interpolation as MIDI; counts samples in train, in test and new."""
        corpus, codec, stepper = self.corpus, self.corpus.codec, Stepper(model)
        folder = self.out / "samples" / f"step-{self.step:06d}"
        originals = [corpus.window(split, int(i)) for i in few[:8]]
        told = torch.from_numpy(np.stack([w.condition for w in originals]).astype(np.int64))
        rebuilt = evaluation.phrases_of(codec, decode(stepper, means[:8], told, GREEDY), told)
        for i, (original, phrase) in enumerate(zip(originals, rebuilt, strict=True), 1):
            files.write(assemble([codec.decode(*original), phrase]), folder / f"original-then-reconstruction-{i}.mid")
        mixture = fit_mixture(spread, components=1) if len(spread) > 4 * spread.shape[1] else None
        rows, conditions = evaluation.sample_windows(model, corpus, mixture, 128, self.recipe.seed, Sampling())
        for i, phrase in enumerate(evaluation.phrases_of(codec, rows[:8], conditions[:8]), 1):
            files.write(assemble([phrase]), folder / f"sample-{i}.mid")
        path = torch.stack([slerp(means[0], means[-1], t / 6) for t in range(7)])
        metre = told[:1].expand(7, -1)
        steps = decode(stepper, path, metre, GREEDY)
        files.write(assemble(evaluation.phrases_of(codec, steps, metre)), folder / "interpolation.mid")
        return evaluation.novelty(corpus, rows, conditions)

    def finish(self) -> None:
        """Fit to the best model what is sampled from: how windows follow each other and, where needed, the prior."""
        if self.rank == 0 and (self.out / "best" / "config.json").exists():
            saved = load_model(self.out / "best")
            finish_model(saved, self.corpus)
            save_model(self.out / "best", saved, half=True)
        self.fabric.barrier()


@torch.inference_mode()
def finish_model(saved: Saved, corpus: Corpus, seed: int = 0) -> None:
    """Fit, in place, the succession of windows and, where KL - MI passes 5 nats, a mixture to the aggregate posterior."""
    posterior = evaluation.posteriors(saved.model, corpus, "train", np.arange(len(corpus.split("train"))))
    noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(seed))
    z = posterior.sample(noise)
    pairs = torch.from_numpy(corpus.successors("train"))
    if len(pairs):
        saved.succession = fit_succession(z[pairs[:, 0]], z[pairs[:, 1]])
    few = torch.from_numpy(evaluation.chosen(corpus, "train", 4096, seed))
    if needs_fit(evaluation.divergences(type(posterior)(posterior.mean[few], posterior.logvar[few]), noise[few])):
        saved.mixture = fit_mixture(z, seed=seed)


def train(
    corpus_folder: str | Path,
    recipe: str | Recipe,
    out: str | Path,
    overrides: Mapping[str, str] | None = None,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Train a recipe on a prepared corpus; returns the folder of the best model.

    Raises `SeqvaeError` for an unknown recipe or setting, an occupied folder, a loss that is not a number.
    """
    if isinstance(recipe, str):
        if recipe not in RECIPES:
            raise SeqvaeError(f"no recipe is called {recipe!r}; there are {', '.join(RECIPES)}")
        recipe = RECIPES[recipe]
    run = Run(Corpus.open(corpus_folder), check(override(recipe, overrides or {})), Path(out), progress)
    run.claim(resume)
    run.loop()
    run.finish()
    return run.out / "best"
