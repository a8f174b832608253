"""Divergences of posteriors from the prior and from independence: pure estimators of one minibatch, in nats.

B examples of the minibatch, N of the data set, K samples of an example, Z dimensions of the latent. All is
computed in float32 even under autocast, without a look at any value, so that every function compiles whole.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

WEIGHTS = ("stratified", "weighted")
GRADIENTS = ("iwae", "stl", "dreg")
SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # of the kernel, in mean squared distances of two prior samples
ROWS = 256  # of the kernel at a time: 4 MB against 4,096 points, which a core's cache nearly holds
LOG_2PI = math.log(2 * math.pi)


class Posterior(NamedTuple):
    """A diagonal Gaussian q(z|x): mean and log variance, each (B, Z)."""

    mean: Tensor
    logvar: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """Reparameterised z (B, Z) from standard normal noise (B, Z) (Kingma & Welling 2014, eq. 10).

        Noise (K, B, Z) makes K samples of each.
        """
        return self.mean + torch.exp(0.5 * self.logvar) * noise

    def kl(self) -> Tensor:
        """KL(q || N(0, I)) of each dimension, (B, Z) nats, in float32 (Kingma & Welling 2014, appendix B)."""
        mean, logvar = self.mean.float(), self.logvar.float()
        return 0.5 * (mean.square() + torch.expm1(logvar) - logvar)

    def log_density(self, z: Tensor) -> Tensor:
        """log q(z|x) (..., B) nats of z (..., B, Z), summed over the latent, in float32."""
        return self.log_densities(z).sum(-1)

    def log_densities(self, z: Tensor) -> Tensor:
        """log q(z_d|x) (..., B, Z) nats of each dimension of z (..., B, Z), in float32."""
        mean, logvar = self.mean.float(), self.logvar.float()
        return -0.5 * ((z.float() - mean).square() * torch.exp(-logvar) + logvar + LOG_2PI)


def normal_log_density(z: Tensor) -> Tensor:
    """log N(z; 0, I) (...) nats of z (..., Z), in float32, of float64 in float64."""
    return -0.5 * (z.to(torch.promote_types(z.dtype, torch.float32)).square() + LOG_2PI).sum(-1)


def sampled_kl(z: Tensor, posterior: Posterior, prior: Tensor | None = None) -> Tensor:
    """log q(z|x) - log p(z) (K, B) nats of K samples each of the posterior (B, Z): KL(q || p) on average.

    z (K * B, Z) or (K, B, Z); prior: log p(z) (K * B,) or (K, B), of N(0, I) if None.
    """
    samples = z.reshape(-1, *posterior.mean.shape)  # (K, B, Z)
    told = posterior.log_density(samples)
    return told - (normal_log_density(samples) if prior is None else prior.float().reshape(told.shape))


# -------------------------------------------------------------------------------- the KL and its parts


class Decomposition(NamedTuple):
    """Mean KL(q(z|x) || N(0, I)) = mi + tc + dimensions; scalars, nats (Chen et al. 2018, eq. 2)."""

    mi: Tensor  # mutual information of x and z
    tc: Tensor  # total correlation KL(q(z) || prod_d q(z_d))
    dimensions: Tensor  # sum_d KL(q(z_d) || N(0, 1))


def decomposition(z: Tensor, posterior: Posterior, size: int, weights: str = "stratified") -> Decomposition:
    """The parts of the KL from one minibatch: z (B, Z) drawn from its posteriors, a data set of ``size`` N.

    The aggregate q(z) is a weighted sum of the minibatch's posteriors at each z_i. "stratified": the example
    that z_i was drawn from is one of N, and the B - 1 others, drawn without replacement, stand for the N - 1
    rest: 1/N for its own posterior, (N - 1) / (N (B - 1)) for each other. This makes q(z_i) unbiased, and
    exact at B = N. It is minibatch stratified sampling (Chen et al. 2018, appendix C.2) averaged over which
    of the others takes the odd weight (N - M) / (N M), M = B - 1. "weighted" is minibatch weighted sampling,
    1 / (N B) for all (eq. S3), about log N too low for q(z) and for each q(z_d): mi is some log N too high,
    tc (Z - 1) log N. The logarithm of an unbiased estimate is too low on average, most for narrow posteriors.

    The three always add up to the mean of log q(z_i|x_i) - log p(z_i). Raises ValueError for a batch of one
    or one larger than the data set, and for other weights.
    """
    batch = len(z)
    if weights not in WEIGHTS:
        raise ValueError(f"unknown weights {weights!r}; known: {', '.join(WEIGHTS)}")
    if not 2 <= batch <= size:
        raise ValueError(f"a batch of {batch} from a data set of {size}: it takes two at least, N at most")
    each = posterior.log_densities(z[:, None])  # (B, B, Z): z_i under the posterior of x_j
    if weights == "stratified":
        own = torch.eye(batch, dtype=torch.bool, device=z.device)
        share = torch.where(own, -math.log(size), math.log((size - 1) / size / (batch - 1)))
    else:
        share = each.new_full((batch, batch), -math.log(size * batch))
    joint = (share + each.sum(2)).logsumexp(1)  # (B,) log q(z)
    marginals = (share[..., None] + each).logsumexp(1).sum(1)  # (B,) log prod_d q(z_d)
    told = posterior.log_density(z)
    return Decomposition(
        (told - joint).mean(), (joint - marginals).mean(), (marginals - normal_log_density(z)).mean()
    )


# ------------------------------------------------------------------ of samples: MMD, moments, a critic


def maximum_mean_discrepancy(z: Tensor, reference: Tensor) -> Tensor:
    """The squared MMD of z (N, Z) and samples of the prior, reference (M, Z): a scalar, no nats.

    The U-statistic, unbiased and so at times below zero (Gretton et al. 2012, eq. 3), of the kernel
    k(x, y) = sum_s C_s / (C_s + |x - y|^2) with C_s = 2 Z s for s in SCALES; 2 Z is the mean squared distance
    of two samples of N(0, I) (Tolstikhin et al. 2018, algorithm 2 and section 4). The kernel is made some
    rows at a time and only its slopes by the points are kept. Raises ValueError for fewer than two points.
    """
    if len(z) < 2 or len(reference) < 2:
        raise ValueError(f"a discrepancy takes two points of each, not {len(z)} and {len(reference)}")
    with torch.autocast(z.device.type, enabled=False):
        found: Tensor = MeanDiscrepancy.apply(z.float(), reference.float())
    return found


class MeanDiscrepancy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, reference: Tensor) -> Tensor:
        n, m = len(z), len(reference)
        within, among, between = (
            kernel_sum(z, z, True), kernel_sum(reference, reference, True), kernel_sum(z, reference, False)
        )  # fmt: skip
        of_n, of_m, of_both = 1 / (n * (n - 1)), 1 / (m * (m - 1)), -2 / (n * m)
        ctx.save_for_backward(
            of_n * (within[1] + within[2]) + of_both * between[1],
            of_m * (among[1] + among[2]) + of_both * between[2],
        )
        return of_n * within[0] + of_m * among[0] + of_both * between[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        by_z, by_reference = ctx.saved_tensors
        return grad * by_z, grad * by_reference


def kernel_sum(x: Tensor, y: Tensor, same: bool) -> tuple[Tensor, Tensor, Tensor]:
    """sum_ij k(x_i, y_j) of points (N, Z) and (M, Z), without i = j where they are the same; its slopes by
    x and by y."""
    centre = y.mean(0)  # far from the origin the squares would cancel
    x, y = x - centre, y - centre
    total, by_x, by_y = x.new_zeros(()), [], torch.zeros_like(y)
    for start in range(0, len(x), ROWS):
        rows = x[start : start + ROWS]
        square = rows.square().sum(1, keepdim=True) + y.square().sum(1) - 2 * rows @ y.T  # (ROWS, M)
        square.clamp_(min=0)
        if same:
            square.diagonal(start).fill_(math.inf)
        slope = torch.zeros_like(square)  # of the kernel by the square
        for scale in SCALES:
            width = 2 * y.shape[1] * scale
            part = width / (square + width)
            total = total + part.sum()
            slope.addcmul_(part, part, value=-1 / width)
        by_x.append(2 * (slope.sum(1, keepdim=True) * rows - slope @ y))
        by_y += 2 * (slope.sum(0)[:, None] * y - slope.T @ rows)
    return total, torch.cat(by_x), by_y


def disentangled_prior(posterior: Posterior, which: str = "ii") -> Tensor:
    """The penalty of DIP-VAE-I or -II at lambda_od = 1, a scalar (Kumar et al. 2018, eqs. 6 and 7).

    The sum of the squared covariances of different dimensions, and lambda_d times that of (variance - 1)^2;
    of the posterior means for "i", with lambda_d = 10, and of z ~ q(z) for "ii", with lambda_d = 1, as the
    paper sets them. Covariances of means divide by B - 1. Raises ValueError for a batch of one and others.
    """
    if which not in ("i", "ii"):
        raise ValueError(f"DIP-VAE is of kind i or ii, not {which!r}")
    mean = posterior.mean.float()
    if len(mean) < 2:
        raise ValueError("a batch of one has no covariance")
    centred = mean - mean.mean(0)
    with torch.autocast(mean.device.type, enabled=False):
        covariance = centred.T @ centred / (len(mean) - 1)  # (Z, Z)
    variance = covariance.diagonal()
    between = (covariance - variance.diag()).square().sum()
    if which == "i":
        return between + 10 * (variance - 1).square().sum()
    return between + (variance + posterior.logvar.float().exp().mean(0) - 1).square().sum()


def permuted(z: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """z (B, Z) with each dimension shuffled over the batch on its own: samples of prod_d q(z_d), about.

    Kim & Mnih 2018, algorithm 1. The generator is of z's device.
    """
    return z.gather(0, torch.rand(z.shape, generator=generator, device=z.device).argsort(0))


class Critic(nn.Module):
    """Tells samples of q(z) from permuted ones: z (B, Z) -> log-odds (B,) of "joint" (Kim & Mnih 2018).

    Six hidden layers; 1,000 wide in the paper, whose two scores differ by these log-odds.
    """

    def __init__(self, latent: int, width: int = 1000) -> None:
        super().__init__()
        sizes = [latent, *[width] * 6]
        layers: list[nn.Module] = []
        for wide, narrow in zip(sizes, sizes[1:], strict=False):
            layers += [nn.Linear(wide, narrow), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, z: Tensor) -> Tensor:
        logits: Tensor = self.layers(z)[:, 0].float()
        return logits


def critic_loss(real_logits: Tensor, permuted_logits: Tensor) -> Tensor:
    """The critic's own loss, scalar nats, log 2 where it knows nothing (Kim & Mnih 2018, algorithm 2).

    real_logits (B,) are of z, permuted_logits (B,) of `permuted` z of another minibatch; both z detached.
    """
    return 0.5 * (F.softplus(-real_logits.float()).mean() + F.softplus(permuted_logits.float()).mean())


def density_ratio(logits: Tensor) -> Tensor:
    """The critic's estimate of the total correlation, scalar nats, of its logits (B,) of z (eq. 3)."""
    return logits.float().mean()


# ------------------------------------------------------------------------ bounds and weights


def importance_loss(
    nll: Tensor, z: Tensor, posterior: Posterior, gradient: str = "iwae", prior: Tensor | None = None
) -> Tensor:
    """Minus the importance-weighted bound of K samples, mean over B, scalar nats (Burda et al. 2016, eq. 8).

    nll (K, B) at z (K, B, Z) or (K * B, Z), drawn from the posterior (B, Z); prior: log p(z) (K, B), of
    N(0, I) if None. The value is the same for all gradients, and the decoder's gradient, IWAE's:
    "iwae" is plain; "stl" stops the posterior's parameters in log q(z|x) (Roeder et al. 2017), which is
    unbiased at K = 1 alone; "dreg" also multiplies what reaches z by each sample's share of the weights, the
    second time, and is unbiased at any K (Tucker et al. 2019, eq. 8). For that it hooks onto z, which must
    be the tensor that was decoded, or what that was made from, and serve no other loss. Raises ValueError
    for other gradients.
    """
    if gradient not in GRADIENTS:
        raise ValueError(f"unknown gradient {gradient!r}; known: {', '.join(GRADIENTS)}")
    stopped = Posterior(posterior.mean.detach(), posterior.logvar.detach())
    told = sampled_kl(z, posterior if gradient == "iwae" else stopped, prior).view(nll.shape)
    weight = -told - nll.float()  # (K, B) logarithms
    if gradient == "dreg" and z.requires_grad:
        share = weight.detach().softmax(0).reshape(*z.shape[:-1], 1)
        z.register_hook(lambda slope: slope * share.to(slope.dtype))
    return (math.log(len(nll)) - weight.logsumexp(0)).mean()


def honest_beta(weight: float, cells: int, variance: float = 1.0) -> float:
    """The beta, in nats, of code that averages squared errors and adds weight * KL.

    An honest -log p(x|z) of a Gaussian sums over the cells of x: sum (x - mean)^2 / (2 variance), but for a
    constant. Code that takes the mean over ``cells`` (channels * height * width) has that sum divided by
    cells / (2 variance), and its KL, summed over the latent in nats, is not divided. Multiplied by the same,
    its loss is nll + beta * KL with beta = weight * cells / (2 variance). So 0.00025 at 3 x 64 x 64 cells is
    not a KL next to nothing but beta = 1.536. The optimum is the same at every variance; the beta that names
    it, and the nats of the nll, are not.
    """
    return weight * cells / (2 * variance)
