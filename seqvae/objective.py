"""Objectives: pure functions of (nll, posterior, step) and of z where they ask for it, in nats an example.

The KL is computed in float32 even under autocast.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from seqvae.divergence import (
    Posterior,
    decomposition,
    density_ratio,
    disentangled_prior,
    importance_loss,
    maximum_mean_discrepancy,
    sampled_kl,
)

SCHEDULES = ("constant", "linear", "sigmoid", "cyclical")
FREE = ("sequence", "batch", "dimension")


class Pass(NamedTuple):
    """What a model makes of a batch of B, with K samples of each, every example's first sample first."""

    nll: Tensor  # (K * B,) nats, -log p(x|z)
    posterior: Posterior  # (B, Z)
    z: Tensor  # (K * B, Z)
    prior: Tensor | None = None  # (K * B,) nats, log p(z) of a learnt prior; None: it is N(0, I)
    unlike: Tensor | None = None  # (K * B,) a perceptual distance that a training weighs, no likelihood


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


class Drawn(NamedTuple):
    """What a penalty may be of; it raises ValueError where what it needs was not given."""

    posterior: Posterior
    z: Tensor | None  # (B, Z) drawn from it
    critic: nn.Module | None
    size: int  # examples of the data set

    def points(self) -> Tensor:
        if self.z is None:
            raise ValueError("this objective needs z, drawn from the posterior")
        return self.z


def total_correlation(drawn: Drawn) -> Tensor:
    """Of the minibatch's own estimate (Chen et al. 2018); needs z and size."""
    return decomposition(drawn.points(), drawn.posterior, drawn.size).tc


def told_by_critic(drawn: Drawn) -> Tensor:
    """The total correlation as a critic tells it, whose weights get no gradient; needs z and critic."""
    if drawn.critic is None:
        raise ValueError("this objective needs a critic")
    weights = {name: weight.detach() for name, weight in drawn.critic.named_parameters()}
    return density_ratio(functional_call(drawn.critic, weights, (drawn.points(),)))


def discrepancy(drawn: Drawn) -> Tensor:
    """From N(0, I), by as many samples of it as there are of z; needs z."""
    return maximum_mean_discrepancy(drawn.points(), torch.randn_like(drawn.points()))


PENALTIES: dict[str, Callable[[Drawn], Tensor]] = {
    "tc": total_correlation,
    "factor": told_by_critic,
    "mmd": discrepancy,
    "dip-i": lambda drawn: disentangled_prior(drawn.posterior, "i"),
    "dip-ii": lambda drawn: disentangled_prior(drawn.posterior, "ii"),
}


@dataclass(frozen=True)
class Elbo:
    """nll + weight * KL, the negative ELBO at weight 1 (Kingma & Welling 2014; beta: Higgins et al. 2017).

    free_bits: nats of KL that cost nothing, of every sequence on its own (as MusicVAE does), of the batch's
    mean, or of the batch's mean in each dimension, which has an even share (Kingma et al. 2016, eq. 15; Li et
    al. 2019): free_over is sequence, batch or dimension.
    capacity: with a value, the penalty is beta * |KL - capacity| nats, the capacity growing with the schedule
    (Burgess et al. 2018, eq. 8).
    penalty: one of PENALTIES, added strength times. beta-TCVAE is "tc" at its beta less 1, as the KL holds
    the total correlation once (Chen et al. 2018, eq. 4); FactorVAE "factor" at gamma (Kim & Mnih 2018, eq.
    2); "mmd" an InfoVAE (Zhao et al. 2019), at beta 0 a WAE (Tolstikhin et al. 2018); "dip-i" and "dip-ii"
    DIP-VAE at lambda_od (Kumar et al. 2018). The schedule is of the KL alone.
    samples: with K > 1 the loss is `importance_loss`, which knows no weights and penalties: only beta 1, no
    schedule below 1, no free bits, no capacity, no penalty. gradient is its gradient.
    """

    beta: float = 1.0
    anneal: str = "linear"
    warmup: int = 0  # steps
    cycle: int = 0  # steps
    free_bits: float = 0.0
    free_over: str = "sequence"
    capacity: float | None = None
    penalty: str = ""
    strength: float = 0.0
    samples: int = 1
    gradient: str = "iwae"

    def __call__(
        self,
        nll: Tensor,
        posterior: Posterior,
        step: int,
        z: Tensor | None = None,
        prior: Tensor | None = None,
        critic: nn.Module | None = None,
        size: int = 0,
    ) -> Terms:
        """nll (B,) in nats an example -> scalar terms.

        z (B, Z) as it was decoded; prior: log p(z) (B,) nats of a learned prior, by which the KL is that of
        one sample, log q(z|x) - log p(z); a critic for "factor"; the data set's size for "tc". With K samples
        nll (K * B,), z (K * B, Z) and prior (K * B,), every example's first sample first. Raises ValueError
        for what is missing, unknown or does not go together.
        """
        share = schedule(self.anneal, step, self.warmup, self.cycle)
        drawn = Drawn(posterior, z, critic, size)
        if self.samples > 1:
            return self.importance(nll, drawn, share, prior)
        each = posterior.kl() if prior is None else self.sampled(drawn, prior)  # (B, Z) or (B, 1)
        weight, excess = self.pressure(each, share, prior is None)
        mean = nll.float().mean()
        loss = mean + weight * excess
        if self.penalty:
            loss = loss + self.strength * self.penalised(drawn)
        return Terms(loss, mean.detach(), each.detach().sum(1).mean(), weight)

    def pressure(self, kl: Tensor, share: float, exact: bool) -> tuple[float, Tensor]:
        """The weight, and what it is of, of KL (B, Z) or of one sample of it, which may be below zero."""
        if self.capacity is not None:
            return self.beta, (kl.sum(1).mean() - share * self.capacity).abs()
        return self.beta * share, self.beyond(kl) if exact or self.free_bits else kl.mean()

    def penalised(self, drawn: Drawn) -> Tensor:
        if self.penalty not in PENALTIES:
            raise ValueError(f"unknown penalty {self.penalty!r}; known: {', '.join(PENALTIES)}")
        return PENALTIES[self.penalty](drawn)

    def sampled(self, drawn: Drawn, prior: Tensor) -> Tensor:
        """The KL (B, 1) of one sample of each example."""
        if self.free_bits and self.free_over == "dimension":
            raise ValueError("a learned prior has no KL of each dimension that bits could be free of")
        return sampled_kl(drawn.points(), drawn.posterior, prior).view(-1, 1)

    def importance(self, nll: Tensor, drawn: Drawn, share: float, prior: Tensor | None) -> Terms:
        """Of the bound itself, which has no weights."""
        if self.beta * share != 1 or self.free_bits or self.capacity is not None or self.penalty:
            raise ValueError("a bound of several samples takes beta 1, no schedule, free bits or penalty")
        nll = nll.view(self.samples, -1)  # (K, B)
        loss = importance_loss(nll, drawn.points(), drawn.posterior, self.gradient, prior)
        with torch.no_grad():
            kl = sampled_kl(drawn.points(), drawn.posterior, prior).mean()
        return Terms(loss, nll.detach().float().mean(), kl, 1.0)

    def beyond(self, kl: Tensor) -> Tensor:
        """The scalar share of KL (B, Z) that is not free."""
        if self.free_over == "dimension":
            return (kl.mean(0) - self.free_bits / max(kl.shape[1], 1)).clamp(min=0).sum()
        if self.free_over == "batch":
            return (kl.sum(1).mean() - self.free_bits).clamp(min=0)
        return (kl.sum(1) - self.free_bits).clamp(min=0).mean()
