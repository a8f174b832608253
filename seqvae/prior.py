"""The prior people sample from: a mixture fitted to the aggregate posterior where N(0, I) is far from it."""

from __future__ import annotations

import warnings

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

from seqvae.latent import ANY, Divergences, Mixture

HOLES = 5.0  # nats of KL(aggregate || N(0, I)) past which samples from N(0, I) are poor
ENOUGH = 4  # points a dimension for a Gaussian of its own


def needs_fit(found: Divergences) -> bool:
    """KL - MI is how far the aggregate posterior lies from N(0, I) (Hoffman & Johnson 2016)."""
    return found.kl - found.mi > HOLES


def fit_mixture(z: Tensor, conditions: Tensor, components: int = 2, seed: int = 0) -> Mixture:
    """Gaussians fitted to posterior samples z (N, Z): for each common condition (N, n), and for all."""
    kinds, which = conditions.unique(dim=0, return_inverse=True)
    groups = [(torch.full_like(kinds[0], ANY), z)]
    if len(kinds) > 1:
        own = ((kind, z[which == i]) for i, kind in enumerate(kinds))
        groups += [(kind, rows) for kind, rows in own if len(rows) >= ENOUGH * z.shape[1]]
    fitted = [gaussians(rows, components, seed) for _, rows in groups]
    told = [kind.expand(len(part[0]), -1) for (kind, _), part in zip(groups, fitted, strict=True)]
    weights, means, factors = (torch.cat(parts) for parts in zip(*fitted, strict=True))
    return Mixture(weights, means, factors, torch.cat(told).float())


def gaussians(z: Tensor, components: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, means and Cholesky factors by expectation-maximisation, fewer components for few points."""
    components = min(components, max(len(z) // (ENOUGH * z.shape[1]), 1))
    with warnings.catch_warnings():  # 50 iterations are enough, converged or not
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = GaussianMixture(components, reg_covar=1e-4, max_iter=50, random_state=seed)
        fitted.fit(z.double().numpy())
    factors = torch.linalg.cholesky(torch.from_numpy(fitted.covariances_))
    weights, means = torch.from_numpy(fitted.weights_), torch.from_numpy(fitted.means_)
    return weights.float(), means.float(), factors.float()
