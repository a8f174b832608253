"""Objectives: pure functions of (nll, posterior, step), all in nats a sequence.

The KL is computed in float32 even under autocast.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

SCHEDULES = ("constant", "linear", "sigmoid", "cyclical")
FREE = ("sequence", "batch", "dimension")


class Posterior(NamedTuple):
    """A diagonal Gaussian q(z|x): mean and log variance, each (B, Z)."""

    mean: Tensor
    logvar: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """Reparameterised z (B, Z) from standard normal noise (B, Z) (Kingma & Welling 2014, eq. 10)."""
        return self.mean + torch.exp(0.5 * self.logvar) * noise

    def kl(self) -> Tensor:
        """KL(q || N(0, I)) of each dimension, (B, Z) nats, in float32 (Kingma & Welling 2014, appendix B)."""
        mean, logvar = self.mean.float(), self.logvar.float()
        return 0.5 * (mean.square() + torch.expm1(logvar) - logvar)


class Terms(NamedTuple):
    loss: Tensor  # scalar, what is minimised
    nll: Tensor  # scalar, mean nats a sequence
    kl: Tensor  # scalar, mean nats a sequence
    weight: float  # of the KL at this step


def schedule(kind: str, step: int, warmup: int, cycle: int = 0) -> float:
    """The share 0..1 of the final KL weight at ``step``.

    linear and sigmoid rise over ``warmup`` steps (Bowman et al. 2016); cyclical repeats every ``cycle``
    steps, rising over the first ``warmup`` of them (Fu et al. 2019, eq. 6). ValueError for other kinds.
    """
    if kind not in SCHEDULES:
        raise ValueError(f"unknown schedule {kind!r}; known: {', '.join(SCHEDULES)}")
    if kind == "cyclical" and cycle:
        step %= cycle
    if kind == "constant" or step >= warmup:
        return 1.0
    if kind == "sigmoid":
        return 1 / (1 + math.exp(-12 * (step / warmup - 0.5)))
    return step / warmup


@dataclass(frozen=True)
class Elbo:
    """nll + weight * KL, the negative ELBO at weight 1 (Kingma & Welling 2014; beta: Higgins et al. 2017).

    free_bits: nats of KL that cost nothing, of every sequence on its own (as MusicVAE does), of the batch's
    mean, or of the batch's mean in each dimension, which has an even share (Kingma et al. 2016, eq. 15; Li et
    al. 2019): free_over is sequence, batch or dimension.
    capacity: with a value, the penalty is beta * |KL - capacity| nats, the capacity growing with the schedule
    (Burgess et al. 2018, eq. 8).
    """

    beta: float = 1.0
    anneal: str = "linear"
    warmup: int = 0  # steps
    cycle: int = 0  # steps
    free_bits: float = 0.0
    free_over: str = "sequence"
    capacity: float | None = None

    def __call__(self, nll: Tensor, posterior: Posterior, step: int) -> Terms:
        """nll (B,) in nats a sequence -> scalar terms."""
        share = schedule(self.anneal, step, self.warmup, self.cycle)
        each = posterior.kl()  # (B, Z)
        kl = each.sum(1)
        if self.capacity is not None:
            weight, penalty = self.beta, (kl.mean() - share * self.capacity).abs()
        else:
            weight, penalty = self.beta * share, self.beyond(each)
        mean = nll.float().mean()
        return Terms(mean + weight * penalty, mean.detach(), kl.mean().detach(), weight)

    def beyond(self, kl: Tensor) -> Tensor:
        """The scalar share of KL (B, Z) that is not free."""
        if self.free_over == "dimension":
            return (kl.mean(0) - self.free_bits / max(kl.shape[1], 1)).clamp(min=0).sum()
        if self.free_over == "batch":
            return (kl.sum(1).mean() - self.free_bits).clamp(min=0)
        return (kl.sum(1) - self.free_bits).clamp(min=0).mean()
