"""Pure functions on z: paths between points, the aggregate posterior, and the priors people sample from.

Tensors: z (N, Z) float32; a mixture's components C.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from seqvae.objective import Posterior

METHODS = ("regression", "difference")  # by which the way of a measure is learnt
HALVED = 0.5**0.5  # a kind lacks a spread of which it has less than this share: half the variance


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Spherical interpolation (..., Z) at t in 0..1 (White 2016): angle and norm move evenly from a to b.

    Equal, opposite or vanishing ends fall back to the straight line. t = 0 and t = 1 give a and b themselves.
    """
    if t <= 0 or t >= 1:
        return a.clone() if t <= 0 else b.clone()
    kind, a, b = a.dtype, a.double(), b.double()  # in float32 the angle of opposite ends misses pi by 5e-4
    norm_a, norm_b = a.norm(dim=-1, keepdim=True), b.norm(dim=-1, keepdim=True)
    unit_a, unit_b = a / norm_a.clamp(min=1e-12), b / norm_b.clamp(min=1e-12)
    angle = torch.acos((unit_a * unit_b).sum(-1, keepdim=True).clamp(-1, 1))
    sine = torch.sin(angle)
    direction = (torch.sin((1 - t) * angle) * unit_a + torch.sin(t * angle) * unit_b) / sine.clamp(min=1e-12)
    straight = (1 - t) * a + t * b
    unfit = (sine < 1e-4) | (norm_a * norm_b == 0)
    return torch.where(unfit, straight, direction * ((1 - t) * norm_a + t * norm_b)).to(kind)


def aggregate_log_density(z: Tensor, posterior: Posterior, chunk: int = 1024) -> Tensor:
    """log q(z) (N,) nats, q the mean of the M posteriors: log 1/M sum_j N(z_i; mean_j, var_j).

    In float64: the square is multiplied out, and its terms cancel where posteriors are narrow and far apart.
    """
    mean, logvar = posterior.mean.double(), posterior.logvar.double()
    precision = torch.exp(-logvar)  # (M, Z)
    constant = -0.5 * (logvar + mean.square() * precision + math.log(2 * math.pi)).sum(1)
    weighted = mean * precision
    parts = [
        torch.logsumexp(rows @ weighted.T - 0.5 * rows.square() @ precision.T + constant, 1)
        for rows in z.double().split(chunk)
    ]
    return (torch.cat(parts) - math.log(len(mean))).to(z.dtype)


class Divergences(NamedTuple):
    """Nats a sequence over a split, and how many dimensions are in use."""

    kl: float  # mean KL(q(z|x) || N(0, I))
    mi: float  # mutual information of x and z under the split's aggregate posterior; at most log N
    active: int  # dimensions whose posterior mean has a variance of 0.01 or more (Burda et al. 2016)


def divergences(posterior: Posterior, noise: Tensor) -> Divergences:
    """KL = MI + KL(aggregate || prior) (Hoffman & Johnson 2016); MI from one sample each, by noise (N, Z)."""
    z = posterior.sample(noise)
    own = -0.5 * (posterior.logvar + noise.square() + math.log(2 * math.pi)).sum(1)
    mi = (own - aggregate_log_density(z, posterior)).mean()
    active = ((posterior.mean - posterior.mean.mean(0)).square().mean(0) >= 0.01).sum()
    return Divergences(posterior.kl().sum(1).mean().item(), mi.item(), int(active))


def minibatch_mi(posterior: Posterior, noise: Tensor, size: int = 32) -> float:
    """The mean MI of batches of ``size`` under their own aggregates (He et al. 2019); at most log size nats.

    What papers on text print; `divergences` has no such ceiling but log N.
    """
    parts = zip(posterior.mean.split(size), posterior.logvar.split(size), noise.split(size), strict=True)
    found = [(len(own), divergences(Posterior(mean, logvar), own).mi) for mean, logvar, own in parts]
    return sum(count * mi for count, mi in found) / max(len(noise), 1)


class Mixture(NamedTuple):
    """Gaussians of equal weight, each for the rows told its conditions; all serve the rows that fit none.

    Where rows are told more than components go by, it is their first conditions that are compared.
    """

    means: Tensor  # (C, Z)
    scales: Tensor  # (C, Z) standard deviations
    conditions: Tensor  # (C, n) the first of what the decoder is told; n may be 0

    def sample(
        self, uniform: Tensor, noise: Tensor, conditions: Tensor, preference: Tensor | None = None
    ) -> Tensor:
        """uniform (N,) in [0, 1), noise (N, Z), conditions (N, n or more) -> z (N, Z), each row by its own.

        preference (N, C) are log weights of the components, even if not given.
        """
        fits = self.serving(conditions)
        weights = fits.double()
        if preference is not None:
            weights = preference.double().masked_fill(~fits, -torch.inf).softmax(1)
        edges = weights.cumsum(1)
        at = (uniform.double() * edges[:, -1])[:, None]
        which = torch.searchsorted(edges, at, right=True)[:, 0]
        return self.means[which] + self.scales[which] * noise

    def log_density(self, z: Tensor, condition: Tensor) -> Tensor:
        """log p(z) (N,) nats of z (N, Z), all told one condition (1, n or more)."""
        own = self.serving(condition)[0]
        return aggregate_log_density(z, Posterior(self.means[own], 2 * self.scales[own].log()))

    def serving(self, conditions: Tensor) -> Tensor:
        """(N, C) bool: the components for rows told conditions (N, n or more)."""
        fits = (conditions[:, None, : self.conditions.shape[1]] == self.conditions).all(-1)
        return fits | ~fits.any(1, keepdim=True)


class Succession(NamedTuple):
    """How a window's z follows the one before it in a tune: z' = matrix @ z + bias + factor @ noise."""

    matrix: Tensor  # (Z, Z)
    bias: Tensor  # (Z,)
    factor: Tensor  # (Z, Z)
    mean: Tensor  # (Z,) of z' whatever z is
    spread: Tensor  # (Z, Z) factor of its covariance

    def sample(self, z: Tensor, noise: Tensor) -> Tensor:
        """z (N, Z), noise (N, Z) -> the next windows' z (N, Z)."""
        return z @ self.matrix.T + self.bias + noise @ self.factor.T

    def preference(self, z: Tensor, points: Tensor) -> Tensor:
        """log p(point | z) / p(point) (N, C) nats of each point (C, Z) as what follows z (N, Z)."""
        ahead = (
            -0.5
            * torch.cdist(
                whitened(z @ self.matrix.T + self.bias, self.factor),
                whitened(points, self.factor),
                compute_mode="donot_use_mm_for_euclid_dist",
            ).square()
        )
        anyway = -0.5 * whitened(points - self.mean, self.spread).square().sum(1)
        return ahead - anyway + (self.spread.diagonal().log().sum() - self.factor.diagonal().log().sum())


def whitened(points: Tensor, factor: Tensor) -> Tensor:
    """points (N, Z) in units of a lower Cholesky factor (Z, Z)."""
    return torch.linalg.solve_triangular(factor, points.T, upper=False).T


def fit_succession(z: Tensor, after: Tensor, ridge: float = 1.0) -> Succession:
    """Least squares from z (M, Z) to the next windows' z, after (M, Z); noise as the residuals vary."""
    mean, mean_after = z.double().mean(0), after.double().mean(0)
    x, y = z.double() - mean, after.double() - mean_after
    eye = torch.eye(x.shape[1], dtype=torch.float64)
    matrix = torch.linalg.solve(x.T @ x + ridge * eye, x.T @ y).T
    residual = y - x @ matrix.T
    factor, spread = (torch.linalg.cholesky(e.T @ e / len(x) + 1e-6 * eye) for e in (residual, y))
    parts = matrix, mean_after - matrix @ mean, factor, mean_after, spread
    return Succession(*(part.float() for part in parts))


class Attribute(NamedTuple):
    """What tells one kind of things from another in the latent space, and the way to the other.

    Of a measure, a number of things, the kinds are those a standard deviation below its mean and above, as z
    tells them; they differ in nothing else, and have neither factors nor maps.
    """

    means: Tensor  # (2, Z) of the first kind and the second
    axis: Tensor  # (Z,) its product with z tells how far along a thing is; from mean to mean it rises by 1
    factors: Tensor | None = None  # (2, Z, Z) lower Cholesky factors of the kinds' covariances
    maps: Tensor | None = None  # (2, Z, Z) added, about its mean, they take from a kind what the other lacks
    measure: str = ""  # its name; "": the kinds are of things, not of numbers
    deviations: Mapping[str, float] = MappingProxyType({})  # of a measure and others: one in the corpus

    @property
    def way(self) -> Tensor:
        """(Z,) half of what leads from the first kind's mean to the second's: the place rises by 1."""
        return (self.means[1] - self.means[0]) / 2

    def place(self, z: Tensor) -> Tensor:
        """Where z (N, Z) stand, (N,): -1 is the first kind's mean, 1 the second's."""
        return 2 * (z - self.means.mean(0)) @ self.axis

    def shift(self, z: Tensor, goal: float) -> Tensor:
        """z (N, Z) brought to the goal; what is there or past it stays, and everything does at 0.

        What the kind it comes from has and the other lacks, the sort of glasses where these come off, goes as
        surely as z is of that kind, all of it from a goal of 1 on; then z moves along the means.
        """
        source, toward = (0, 1.0) if goal > 0 else (1, -1.0)
        if not goal:
            return z
        if self.maps is not None:
            share = min(abs(goal), 1.0) * self.belongs(z, source)[:, None]
            z = z + share * ((z - self.means[source]) @ self.maps[source])
        short = (toward * (goal - self.place(z))).clamp(min=0)[:, None]
        return z + toward * short * self.way

    def belongs(self, z: Tensor, kind: int) -> Tensor:
        """How surely z (N, Z) are of a kind, (N,) in 0 .. 1: the quadratic discriminant (Smith 1947)."""
        assert self.factors is not None
        own, other = (
            0.5 * whitened(z - self.means[k], self.factors[k]).square().sum(1)
            + self.factors[k].diagonal().log().sum()
            for k in (kind, 1 - kind)
        )
        return torch.sigmoid(other - own)


def fit_attribute(first: Posterior, second: Posterior) -> Attribute:
    """The way from one kind's mean to the other's (Larsen et al. 2016), and what tells them apart.

    The axis is Fisher's linear discriminant. Each kind is a Gaussian: the means' covariance and, on
    average, the posteriors' about them, shrunk towards that of both the more the fewer there are. A map is
    what the optimal transport from one to the other (Dowson & Landau 1982) does to the directions whose
    variance it more than halves.
    """
    kinds = [kind.mean.double() for kind in (first, second)]
    means = torch.stack([kind.mean(0) for kind in kinds])
    spreads = [
        torch.cov(kind.T, correction=0) + posterior.logvar.double().exp().mean(0).diag()
        for kind, posterior in zip(kinds, (first, second), strict=True)
    ]
    counts = [len(kind) for kind in kinds]
    both = (counts[0] * spreads[0] + counts[1] * spreads[1]) / sum(counts)
    size = len(both)
    spreads = [
        (count * own + size * both) / (count + size) for count, own in zip(counts, spreads, strict=True)
    ]
    direction = means[1] - means[0]
    axis = torch.linalg.solve(both, direction)
    axis = axis / (axis @ direction).clamp(min=1e-12)
    factors = torch.stack([torch.linalg.cholesky(spread) for spread in spreads])
    maps = torch.stack([contraction(*spreads), contraction(*spreads[::-1])])
    return Attribute(means.float(), axis.float(), factors.float(), maps.float())


def fit_measures(
    z: Tensor,
    values: Mapping[str, Tensor],
    method: str = "regression",
    orthogonal: bool = False,
    shrinkage: float = 0.25,
) -> dict[str, Attribute]:
    """The way along which each number rises, by its name, of values (N,) at z (N, Z).

    A place is what ridge regression on z predicts, in standard deviations from the mean. The way to 1 is how
    z moves with that prediction (the pattern, Haufe et al. 2014, eq. 6), or by `difference` goes from the
    mean z of the quarter with the least values to that of the quarter with the greatest (Larsen et al. 2016;
    Roberts et al. 2018). Orthogonal ways leave the predictions of the other numbers as they are: the
    patterns are then Haufe's of all numbers together, the least such moves in the metric of z's covariance.
    Raises `ValueError` for another method.
    """
    if method not in METHODS:
        raise ValueError(f"a way is learnt by {' or '.join(METHODS)}, not {method}")
    z, every = z.double(), torch.stack([*values.values()], 1).double()
    centre, spread = z.mean(0), torch.cov(z.T, correction=0)
    deviations = every.std(0, correction=0).clamp(min=1e-12)
    numbers = (every - every.mean(0)) / deviations  # (N, M)
    ridge = shrinkage * spread.diagonal().mean() * torch.eye(len(spread), dtype=torch.float64)
    weights = torch.linalg.solve(spread + ridge, (z - centre).T @ numbers / len(z))  # (Z, M)
    if method == "difference":
        order, quarter = numbers.argsort(dim=0, stable=True), -(-len(z) // 4)
        ways = (z[order[-quarter:]].mean(0) - z[order[:quarter]].mean(0)).T
    else:
        ways = spread @ weights
    if orthogonal:
        ways = ways @ torch.linalg.pinv(weights.T @ ways)
    else:
        ways = ways / (weights * ways).sum(0).clamp(min=1e-12)
    told = dict(zip(values, deviations.tolist(), strict=True))
    return {
        name: Attribute(
            torch.stack((centre - way, centre + way)).float(),
            (axis / 2).float(),
            measure=name,
            deviations=told,
        )
        for name, way, axis in zip(values, ways.T, weights.T, strict=True)
    }


class Plane(NamedTuple):
    """The two directions in which points vary most (Pearson 1901)."""

    centre: Tensor  # (Z,)
    axes: Tensor  # (Z, 2), orthonormal; a latent of one dimension has a second axis of zeros
    explained: float  # share of the variance

    def project(self, z: Tensor) -> Tensor:
        """z (N, Z) -> places (N, 2)."""
        return (z - self.centre) @ self.axes


def fit_plane(z: Tensor) -> Plane:
    """Of z (N, Z); an axis points where its largest component is positive, so that no map is mirrored."""
    centre = z.double().mean(0)
    values, axes = torch.linalg.eigh(
        torch.cov((z.double() - centre).T, correction=0).reshape([z.shape[1]] * 2)
    )
    values, axes = values.flip(0), axes.flip(1)[:, :2]
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    axes = torch.cat((axes, axes.new_zeros(len(axes), 2 - axes.shape[1])), 1)
    explained = float(values[:2].sum() / values.sum().clamp(min=1e-12))
    return Plane(centre.float(), axes.float(), explained)


def bilinear(corners: Sequence[Tensor | None], x: float, y: float) -> Tensor | None:
    """z (..., Z) in a square of four, two above and two below, by slerp along x and then down y in 0 .. 1.

    A corner that is None leaves its side to its neighbour.
    """
    above, below = meeting(corners[0], corners[1], x), meeting(corners[2], corners[3], x)
    return meeting(above, below, y)


def meeting(a: Tensor | None, b: Tensor | None, t: float) -> Tensor | None:
    """`slerp`; between the ends, of one alone that one."""
    if t in (0, 1):
        return b if t else a
    if a is None or b is None:
        return b if a is None else a
    return slerp(a, b, t)


def contraction(spread: Tensor, other: Tensor) -> Tensor:
    """The symmetric map (Z, Z) from one Gaussian to another, less the identity, where a variance halves."""
    root, back = power(spread, 0.5), power(spread, -0.5)
    scales, axes = torch.linalg.eigh(back @ power(root @ other @ root, 0.5) @ back)
    return axes * torch.where(scales < HALVED, scales - 1, 0.0) @ axes.T


def power(matrix: Tensor, exponent: float) -> Tensor:
    """Of a positive definite matrix (Z, Z)."""
    values, axes = torch.linalg.eigh(matrix)
    return axes * values.clamp(min=1e-12) ** exponent @ axes.T
