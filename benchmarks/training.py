"""Training speed as a ratio: `seqvae train`'s step against a bare nn.LSTM loop and its matrix products.

    python benchmarks/training.py CORPUS [RECIPE]

One thread, float32, the recipe's sizes (`melody`, `ptb` for text, `pictures`), the same batches for all. The
bare loop holds the same layers as nn.LSTM, nn.Linear, nn.Embedding and nn.Conv2d with torch.optim.Adam and
no framework around it. Of sequences the limit is the step's matrix products alone, for each product of the
forward pass the two of the backward pass as well, and fill the share of an epoch's batch cells that hold
real tokens. Medians of 7 rounds of 10 batches.
"""

import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from seqvae.checkpoint import build_model
from seqvae.corpus import Batch, Corpus
from seqvae.image import ImageVAE
from seqvae.likelihood import sequence_nll
from seqvae.model import SequenceVAE
from seqvae.networks import START
from seqvae.recipes import RECIPES, Recipe
from seqvae.train import Run

ROUNDS, BATCHES = 7, 10


def products(model: SequenceVAE, batch: Batch) -> list[tuple[int, int, int]]:
    """(rows, in, out) of every matrix product of the forward pass on this batch."""
    size, (rows, steps, _) = model.size, batch.steps.shape
    embedded, told = sum(size.embedding), model.conditions.width
    known = size.latent + told
    found = []
    for _ in range(2):  # the encoder's directions
        found += [(rows * steps, embedded + told, 4 * size.encoder)] + [
            (rows, size.encoder, 4 * size.encoder)
        ] * steps
    found += [(rows * steps, 2 * size.encoder, size.encoder)] + [(rows, 3 * size.encoder, size.latent)] * 2
    found += [(rows, known, 2 * size.decoder), (rows, known, len(model.streams) * size.head)]
    found += [(rows * steps, embedded + known, 4 * size.decoder)] + [
        (rows, size.decoder, 4 * size.decoder)
    ] * steps
    found += [(rows * steps, size.decoder, len(model.streams) * size.head)]
    return found + [(rows * steps, size.head, stream.size) for stream in model.streams]


def multiply(shapes: list[tuple[int, int, int]], room: list[torch.Tensor]) -> None:
    """Forward, and both backward products, of every shape, in three buffers of room for the largest."""
    for rows, before, after in shapes:
        for at, cells in enumerate((rows * before, after * before, rows * after)):
            if len(room[at]) < cells:
                room[at] = torch.randn(cells)
        x = room[0][: rows * before].view(rows, before)
        weight = room[1][: after * before].view(after, before)
        grad = room[2][: rows * after].view(rows, after)
        torch.mm(x, weight.T)
        torch.mm(grad, weight)
        torch.mm(grad.T, x)


def bare_step(model: SequenceVAE, optimizer: torch.optim.Optimizer, recipe: Recipe, batch: Batch) -> None:
    """The same network as its layers, called by hand: no Fabric, no modules of ours, no schedule."""
    steps, lengths, conditions = (torch.from_numpy(part) for part in batch)
    encoder, decoder, place = model.encoder, model.decoder, torch.arange(steps.shape[1])
    told = sum(
        (rows(conditions[:, i]) for i, rows in enumerate(model.conditions.tables)),
        torch.zeros(len(steps), model.conditions.width),
    )
    embedding = encoder.steps or decoder.steps
    x = torch.cat([rows(steps[..., k]) for k, rows in enumerate(embedding.tables)], -1)
    x = torch.cat((x, told[:, None].expand(-1, x.shape[1], -1)), -1)
    back = (lengths[:, None] - 1 - place).clamp(min=0)[..., None]
    ahead, _ = encoder.forwards(x)
    astern, _ = encoder.backwards(x.gather(1, back.expand(-1, -1, x.shape[2])))
    last = (lengths - 1)[:, None, None].expand(-1, 1, ahead.shape[2])
    both = torch.cat((ahead, astern.gather(1, back.expand(-1, -1, ahead.shape[2]))), -1)
    mean = (encoder.pool(both).relu() * (place < lengths[:, None])[..., None]).sum(1) / lengths[:, None]
    summary = torch.cat((ahead.gather(1, last)[:, 0], astern.gather(1, last)[:, 0], mean), -1)
    mu, logvar = encoder.mean(summary), encoder.logvar(summary)
    z = mu + (0.5 * logvar).exp() * torch.randn_like(mu)
    known = torch.cat((z, told), -1)
    h, c = decoder.first(known).tanh().chunk(2, -1)
    sizes = torch.tensor([stream.size for stream in model.streams])
    shifted = torch.cat(((sizes + START).expand(len(steps), 1, -1), steps[:, :-1]), 1)
    y = torch.cat([rows(shifted[..., k]) for k, rows in enumerate(decoder.steps.tables)], -1)
    y = torch.cat((F.dropout(y, recipe.dropout), known[:, None].expand(-1, y.shape[1], -1)), -1)
    state, _ = decoder.lstm(y, (h[None].contiguous(), c[None].contiguous()))
    heads, state = decoder.heads, F.dropout(state, recipe.dropout)
    hidden = (heads.project(state) + heads.known(known)[:, None]).split(heads.width, -1)
    logits = []
    for k, (weight, bias) in enumerate(heads.weights(decoder.steps)):
        layer = hidden[k]
        for j, rows in enumerate(heads.earlier[k]):
            layer = layer + rows(steps[..., j])
        logits.append(F.linear(layer if model.streams[k].kind == "word" else layer.relu(), weight, bias))
    if model.streams[0].kind == "increasing":
        before = torch.cat((steps.new_full((len(steps), 1), -1), steps[:, :-1, 0]), 1)
        logits[0] = logits[0].masked_fill(torch.arange(sizes[0]) <= before[..., None], -1e4)
    descend(model, optimizer, recipe, sequence_nll(logits, steps, lengths), mu, logvar)


def bare_picture_step(
    model: ImageVAE, optimizer: torch.optim.Optimizer, recipe: Recipe, batch: Batch
) -> None:
    """The same for pictures, each pixel a Bernoulli."""
    x = torch.from_numpy(batch.steps).transpose(1, 2).reshape(-1, *model.shape) / 255
    summary = model.trunk(x)
    mu, logvar = model.mean(summary), model.logvar(summary)
    found = model.decoder(mu + (0.5 * logvar).exp() * torch.randn_like(mu)).view_as(x)
    nll = F.binary_cross_entropy_with_logits(found, x, reduction="none").flatten(1).sum(1)
    descend(model, optimizer, recipe, nll, mu, logvar)


def descend(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    nll: torch.Tensor,
    mu: torch.Tensor,
    logvar: torch.Tensor,
) -> None:
    kl = 0.5 * (mu.square() + logvar.expm1() - logvar).sum(1)
    optimizer.zero_grad()
    (nll + recipe.objective.beta * kl).mean().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
    optimizer.step()


def main() -> None:
    name = sys.argv[2] if len(sys.argv) > 2 else "melody"
    corpus, recipe = Corpus.open(sys.argv[1]), replace(RECIPES[name], precision="32")
    with tempfile.TemporaryDirectory() as folder:
        run = Run(corpus, recipe, Path(folder), None)
    bare = build_model(corpus.codec, recipe.size)
    optimizer = torch.optim.Adam(bare.parameters(), recipe.learning_rate, betas=(0.9, 0.99))
    room, source = [torch.empty(0)] * 3, run.batches()
    jobs = {"ours": run.update}
    if isinstance(bare, ImageVAE):
        jobs["bare"] = lambda batch: bare_picture_step(bare, optimizer, recipe, batch)
    else:
        jobs["bare"] = lambda batch: bare_step(bare, optimizer, recipe, batch)
        jobs["limit"] = lambda batch: multiply(products(bare, batch), room)
    took: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(ROUNDS + 1):
        batches = [next(source) for _ in range(BATCHES)]
        times = dict.fromkeys(jobs, 0.0)
        for batch in batches:  # interleaved batch by batch, so that a drifting clock hits all alike
            for name, job in jobs.items():
                start = time.perf_counter()
                job(batch)
                times[name] += time.perf_counter() - start
        for name, value in times.items():
            took[name].append(value)
    each = {name: statistics.median(values[1:]) / BATCHES * 1e3 for name, values in took.items()}
    ratio = statistics.median(b / a for a, b in zip(took["ours"][1:], took["bare"][1:], strict=True))
    print("ms a step:", ", ".join(f"{name} {value:.0f}" for name, value in each.items()))
    print(f"of the bare loop's speed {ratio:.2f} (median of {ROUNDS} pairs)")
    if "limit" in each:
        print(f"of the limit, its matrix products, {each['limit'] / each['ours']:.2f}")
        print(f"fill {corpus.fill('train', recipe.batch_size):.3f}")


if __name__ == "__main__":
    main()
