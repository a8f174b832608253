"""Priors other than N(0, I): a mixture of exemplars fitted after training, mixtures learnt with the model.

A learnt prior's densities are in nats, in float32 even under autocast, and its gradient reaches its own
parameters and z. Samples are functions of uniform and normal noise, as all of `latent`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from seqvae.latent import Divergences, Mixture
from seqvae.objective import Posterior

HOLES = 5.0  # nats of KL(aggregate || N(0, I)) past which samples from N(0, I) are poor
WIDTH = 0.3  # how far an exemplar is widened: 0 is the window's own posterior, 1 one Gaussian for all
FEWEST = 64  # exemplars of a condition, if there are so many


def needs_fit(found: Divergences) -> bool:
    """KL - MI is how far the aggregate posterior lies from N(0, I) (Hoffman & Johnson 2016)."""
    return found.kl - found.mi > HOLES


def fit_mixture(
    posterior: Posterior, conditions: Tensor, components: int = 2048, width: float = WIDTH, seed: int = 0
) -> Mixture:
    """A kernel density estimate of the aggregate posterior: widened posteriors of some training windows.

    posterior (N, Z) and conditions (N, n) are the windows'. Components are posteriors of inputs as in the
    VampPrior (Tomczak & Welling 2018), of training examples as in the Exemplar VAE (Norouzi et al. 2020), and
    chosen after training (Ghosh et al. 2020: ex-post estimation). With c and v the mean and variance of the
    aggregate posterior of all N windows and w the width,

        mean_i' = c + sqrt(1 - w^2) (mean_i - c),  var_i' = (1 - w^2) var_i + w^2 v,

    so that the mixture of all of them has mean c and variance v too. A sample may come close to the window
    whose posterior it was drawn from: the share of samples found in train belongs beside their other figures.
    """
    chosen = exemplars(conditions, components, seed)
    mean, var = posterior.mean, posterior.logvar.exp()
    centre, spread = mean.mean(0), mean.var(0, unbiased=False) + var.mean(0)  # law of total variance
    means = centre + (1 - width**2) ** 0.5 * (mean[chosen] - centre)
    scales = ((1 - width**2) * var[chosen] + width**2 * spread).sqrt()
    return Mixture(means, scales, conditions[chosen].float())


def exemplars(conditions: Tensor, count: int, seed: int) -> Tensor:
    """Indices of `count` of the N windows, drawn by the seed: FEWEST of each condition, then any others.

    All where there are fewer, and more than `count` where so many conditions take them; none twice.
    """
    order = torch.randperm(len(conditions), generator=torch.Generator().manual_seed(seed))
    told = pad(conditions[order], (1, 0))  # a column more, as unique() needs one
    kinds = told.unique(dim=0, return_inverse=True)[1]
    first = torch.cat([order[kinds == kind][:FEWEST] for kind in kinds.unique()])
    others = order[~torch.isin(order, first)]
    return torch.cat([first, others[: max(count - len(first), 0)]])


# ------------------------------------------------------------------------------ learnt with the model


class MixturePrior(nn.Module):
    """C Gaussians with learnt weights, means and scales: `latent.Mixture` as a part of the model."""

    def __init__(self, components: int, latent: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(components))  # logits
        self.means = nn.Parameter(torch.randn(components, latent))
        self.logvars = nn.Parameter(torch.zeros(components, latent))

    def log_density(self, z: Tensor) -> Tensor:
        """log p(z) (N,) nats of z (N, Z)."""
        return mixed(z, Posterior(self.means, self.logvars), self.weights.float().log_softmax(0))

    def sample(self, uniform: Tensor, noise: Tensor) -> Tensor:
        """uniform (N,) in [0, 1), noise (N, Z) -> z (N, Z)."""
        return drawn(uniform, noise, Posterior(self.means, self.logvars), self.weights)


class VampPrior(nn.Module):
    """The mean of the posteriors of C learnt pseudo-inputs (Tomczak & Welling 2018, eq. 9).

    A pseudo-input has the shape of an input and values in [0, 1], by a sigmoid. ``encode`` is the model's
    own encoder, given at each call so that its weights belong to the model alone; the prior's gradient
    reaches them too.
    """

    def __init__(self, components: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.randn(components, *shape))

    def pseudo_inputs(self) -> Tensor:
        """(C, *shape), to look at and to encode."""
        return self.logits.sigmoid()

    def log_density(self, z: Tensor, encode: Callable[[Tensor], Posterior]) -> Tensor:
        """log p(z) (N,) nats of z (N, Z)."""
        found = encode(self.pseudo_inputs())
        return mixed(z, found, -math.log(len(found.mean)))

    def sample(self, uniform: Tensor, noise: Tensor, encode: Callable[[Tensor], Posterior]) -> Tensor:
        """uniform (N,) in [0, 1), noise (N, Z) -> z (N, Z)."""
        return drawn(uniform, noise, encode(self.pseudo_inputs()), self.logits.new_zeros(len(self.logits)))


def mixed(z: Tensor, components: Posterior, weights: Tensor | float) -> Tensor:
    """log sum_c exp(weights_c) N(z; mean_c, var_c) (N,) nats of z (N, Z): components (C, Z), log weights."""
    return (weights + components.log_density(z[:, None])).logsumexp(1)


def drawn(uniform: Tensor, noise: Tensor, components: Posterior, weights: Tensor) -> Tensor:
    """z (N, Z) of a mixture of components (C, Z) with logits weights (C,)."""
    means, scales = components.mean.float(), (0.5 * components.logvar.float()).exp()
    untold = Mixture(means, scales, means.new_zeros(len(means), 0))
    preference = weights.expand(len(noise), -1)
    return untold.sample(uniform, noise, noise.new_zeros(len(noise), 0), preference)
