"""The prior people sample from where N(0, I) is far from the aggregate posterior: a mixture of exemplars."""

from __future__ import annotations

import torch
from torch import Tensor
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
