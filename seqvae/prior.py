"""The prior people sample from: a mixture fitted to the aggregate posterior where N(0, I) is far from it."""

from __future__ import annotations

import warnings

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

from seqvae.latent import Divergences, Mixture

HOLES = 5.0  # nats of KL(aggregate || N(0, I)) past which samples from N(0, I) are poor


def needs_fit(found: Divergences) -> bool:
    """KL - MI is how far the aggregate posterior lies from N(0, I) (Hoffman & Johnson 2016)."""
    return found.kl - found.mi > HOLES


def fit_mixture(z: Tensor, components: int = 8, seed: int = 0) -> Mixture:
    """Gaussians with full covariances fitted by expectation-maximisation to posterior samples z (N, Z)."""
    components = min(components, max(len(z) // (4 * z.shape[1]), 1))
    with warnings.catch_warnings():  # 50 iterations are enough, converged or not
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = GaussianMixture(components, reg_covar=1e-4, max_iter=50, random_state=seed)
        fitted.fit(z.double().numpy())
    factors = torch.linalg.cholesky(torch.from_numpy(fitted.covariances_))
    weights, means = torch.from_numpy(fitted.weights_), torch.from_numpy(fitted.means_)
    return Mixture(weights.float(), means.float(), factors.float())
