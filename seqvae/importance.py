"""The importance-weighted estimate of -log p(x), in nats a sequence, at the cost of its matrix products.

All samples of a sequence read the same symbols, so one step of the hand-written decoder advances them all.
The scores are made a block of symbols at a time, small enough to stay in the cache, and only their log total
and the target's own are kept. A sequence's noise is a counter's own stream (seed, index), and each is worked
out alone: its estimate never depends on its batch-mates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from seqvae.decoding import MOST_ROWS, Stepper
from seqvae.divergence import normal_log_density
from seqvae.image import Model
from seqvae.latent import Mixture
from seqvae.model import SequenceVAE
from seqvae.networks import START

BLOCK = 512  # symbols scored at a time: 1 MB for 500 samples


class Draws(NamedTuple):
    """S samples of one sequence's posterior, in nats and float64."""

    z: Tensor  # (S, Z)
    condition: Tensor  # (1, C)
    prior: Tensor  # (S,) log p(z), the model's own
    rest: Tensor  # (S,) log p(x|z) - log q(z|x)

    def nll(self, mixture: Mixture | None = None) -> Tensor:
        """The estimate of -log p(x), a scalar, under the model's own prior or a mixture in its place."""
        prior = self.prior
        if mixture is not None:
            prior = mixture.log_density(self.z, self.condition).double()
        return math.log(len(prior)) - (self.rest + prior).logsumexp(0)


@torch.inference_mode()
def importance_nll(
    model: Model,
    steps: Tensor,
    lengths: Tensor,
    conditions: Tensor,
    *,
    samples: int = 500,
    seed: int = 0,
    indices: Sequence[int] | None = None,
) -> Tensor:
    """-log 1/S sum_s p(x|z_s) p(z_s) / q(z_s|x) with z_s from q(z|x): (B,) nats (Burda et al. 2016, eq. 8).

    An upper bound of -log p(x) in expectation, the tighter the more samples S; one sample gives the negative
    ELBO at that z, a model without a latent its nll. Arguments and ValueError are those of `draws`.
    """
    found = [one.nll() for one in draws(model, steps, lengths, conditions, samples, seed, indices)]
    return torch.stack(found).float() if found else torch.zeros(0, device=steps.device)


@torch.inference_mode()
def draws(
    model: Model,
    steps: Tensor,
    lengths: Tensor,
    conditions: Tensor,
    samples: int,
    seed: int,
    indices: Sequence[int] | None,
) -> Iterator[Draws]:
    """Of each sequence what its estimate is made of.

    steps (B, T, K), lengths (B,), conditions (B, C); ``indices`` are the sequences' own numbers, None for
    0 .. B - 1. The network is evaluated without dropout, in float32. Raises ValueError for less than one
    sample.
    """
    if samples < 1:
        raise ValueError(f"an estimate takes at least one sample, not {samples}")
    if not model.size.latent:
        samples = 1  # all would be the same
    with steps.device:
        stepper = Stepper(model) if isinstance(model, SequenceVAE) else None
    for row, index in enumerate(range(len(steps)) if indices is None else indices):
        one = slice(row, row + 1)
        x, told = steps[one, : int(lengths[row])], conditions[one]
        draw = np.random.Generator(np.random.Philox(key=(seed, int(index))))
        noise = torch.from_numpy(draw.standard_normal((samples, model.size.latent), np.float32)).to(x.device)
        posterior = model.encode(x, lengths[one], told)
        z = posterior.sample(noise)
        own = normal_log_density(noise.double()) - 0.5 * posterior.logvar.double().sum()  # log q(z|x)
        learnt = model.log_prior(z)
        prior = normal_log_density(z.double()) if learnt is None else learnt.double()
        if stepper is None:
            rows = (x, lengths[one], told)
            parts = [
                model.nll(part, *(row.expand(len(part), *row.shape[1:]) for row in rows)).double()
                for part in z.split(MOST_ROWS)
            ]
        else:
            parts = [nll_at(stepper, part, x[0], told) for part in z.split(MOST_ROWS)]
        yield Draws(z, told, prior, -torch.cat(parts) - own)


def nll_at(stepper: Stepper, z: Tensor, steps: Tensor, condition: Tensor) -> Tensor:
    """-log p(x|z) (S,) in float64 at every z (S, Z) of one sequence, steps (T, K) and condition (1, C)."""
    first = torch.tensor([[stream.size + START for stream in stepper.streams]], device=steps.device)
    inputs = torch.cat((first, steps[:-1]))[:, None].expand(-1, len(z), -1)  # (T, S, K)
    state = stepper.start(z, condition.expand(len(z), -1))
    total = torch.zeros(len(z), dtype=torch.float64, device=z.device)
    for t, (now, previous) in enumerate(zip(steps, inputs, strict=True)):
        layers = stepper.advance(state, previous).chunk(len(stepper.streams), 1)
        for k, layer in enumerate(layers if t < len(steps) - 1 else layers[:1]):  # of END stream 0 alone
            weight, bias = stepper.scores[k]  # (W, V), (V,)
            if k:
                layer = layer + stepper.earlier[k - 1][now[:k] + stepper.places[:k]].sum(0)
            if stepper.rectified[k]:
                layer = layer.relu()
            if k == 0 and t and (climb := stepper.streams[0].climb) is not None:
                bias = bias.masked_fill(stepper.symbols < steps[t - 1, 0] + climb, -1e4)
            own = torch.addmm(bias[now[k : k + 1]], layer, weight[:, now[k : k + 1]])[:, 0]
            total += log_total(layer, weight, bias) - own
    return total


def log_total(layer: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """log sum exp (S,) of the scores layer (S, W) @ weight (W, V) + bias (V,), a block at a time."""
    parts = []
    for columns, shift in zip(weight.split(BLOCK, 1), bias.split(BLOCK), strict=True):
        scores = torch.addmm(shift, layer, columns)
        # log_softmax is one fused pass where logsumexp makes four; it differs from the scores by their total.
        # Any column tells it, and a mask from the first symbol on spares the last unless it covers them all.
        parts.append(scores[:, -1] - scores.log_softmax(1)[:, -1])
    return torch.stack(parts).logsumexp(0)
