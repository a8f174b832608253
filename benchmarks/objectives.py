"""The total correlation of minibatches under four weightings, and the memory of the mean discrepancy.

    python benchmarks/objectives.py

(a) 1,024 posteriors N(m, v I), their means m ~ N(0, S) with variance 1 and one correlation of all dimensions,
in minibatches of 64 without replacement, 50 epochs with new noise: a setting that all weightings find easy,
and a harder one. Exact is the aggregate of all 1,024 at 16 samples of each; "Gaussian" is that of covariance
S + v I, which the posteriors are a finite sample of. Every estimate is of the same minibatches; +- is its
standard error over them. MI is the first part of the same decomposition.
(b) The peak of resident memory of `maximum_mean_discrepancy`, forward and backward, of two sets of 4,096
points in 64 dimensions, over what the process held with them before, in a process of its own; and that of
a plain kernel of torch.cdist. Linux alone.
"""

import math
import subprocess
import sys

import torch
from torch import Tensor

from seqvae.divergence import SCALES, Posterior, decomposition, maximum_mean_discrepancy
from seqvae.latent import aggregate_log_density

SIZE, BATCH, EPOCHS = 1024, 64, 50
SETTINGS = ((2, 0.8, 0.1), (10, 0.3, 0.5))  # dimensions, correlation of the means, variance of the posteriors
POINTS, LATENT = 4096, 64


def exact(posterior: Posterior, generator: torch.Generator, samples: int = 16) -> Tensor:
    """MI and total correlation (2,) of the aggregate, every density of all posteriors."""
    mean, logvar = posterior
    z = posterior.sample(torch.randn(samples, *mean.shape, generator=generator))  # (samples, N, Z)
    told, z = posterior.log_density(z).flatten(), z.flatten(0, 1)
    joint = aggregate_log_density(z, posterior)
    marginals = torch.zeros(len(z))
    for d in range(mean.shape[1]):
        column = slice(d, d + 1)
        marginals += aggregate_log_density(z[:, column], Posterior(mean[:, column], logvar[:, column]))
    return torch.stack(((told - joint).mean(), (joint - marginals).mean()))


def weighed(z: Tensor, posterior: Posterior, weights: Tensor) -> Tensor:
    """MI and total correlation (2,) by any weights (B, B) of z_i under the posterior of x_j."""
    each = posterior.log_densities(z[:, None])  # (B, B, Z)
    joint = (weights.log() + each.sum(2)).logsumexp(1)
    marginals = (weights.log()[..., None] + each).logsumexp(1).sum(1)
    return torch.stack(((posterior.log_density(z) - joint).mean(), (joint - marginals).mean()))


def misplaced() -> Tensor:
    """Stratified sampling as often written: a sample's own weight in column 0, not on the diagonal."""
    rest = BATCH - 1
    weights = torch.full((BATCH, BATCH), 1 / rest)
    weights[:, 0], weights[:, 1] = 1 / SIZE, (SIZE - rest) / (SIZE * rest)
    return weights


def estimates(posterior: Posterior, generator: torch.Generator) -> dict[str, Tensor]:
    """(minibatches, 2) of each weighting."""
    wrong, even = misplaced(), torch.full((BATCH, BATCH), 1 / BATCH)
    found: dict[str, list[Tensor]] = {}
    for rows in (
        rows for _ in range(EPOCHS) for rows in torch.randperm(SIZE, generator=generator).split(BATCH)
    ):
        part = Posterior(posterior.mean[rows], posterior.logvar[rows])
        z = part.sample(torch.randn(part.mean.shape, generator=generator))
        for name, both in {
            "stratified": torch.stack(decomposition(z, part, SIZE)[:2]),
            "weighted": torch.stack(decomposition(z, part, SIZE, "weighted")[:2]),
            "own weight in column 0": weighed(z, part, wrong),
            "batch as the data set": weighed(z, part, even),
        }.items():
            found.setdefault(name, []).append(both)
    return {name: torch.stack(values) for name, values in found.items()}


def correlations(latent: int, rho: float, variance: float) -> None:
    generator = torch.Generator().manual_seed(0)
    covariance = torch.full((latent, latent), rho).fill_diagonal_(1)
    mean = torch.randn(SIZE, latent, generator=generator) @ torch.linalg.cholesky(covariance).T
    posterior = Posterior(mean, torch.full_like(mean, math.log(variance)))
    mi, tc = exact(posterior, generator).tolist()
    whole = covariance + variance * torch.eye(latent)
    gaussian = 0.5 * (whole.diagonal().log().sum() - whole.logdet()).item()
    print(f"{latent} dimensions, correlation {rho}, variance {variance}: TC of the Gaussian {gaussian:.3f}")
    print(f"{'':24}   TC nats            of exact   MI nats")
    print(f"{'exact':24} {tc:9.3f} {'':20} {mi:9.3f}")
    for name, values in estimates(posterior, generator).items():
        mean, error = values.mean(0), values.std(0) / len(values) ** 0.5
        print(f"{name:24} {mean[1]:9.3f} +- {error[1]:.3f} {mean[1] / tc:11.3f} {mean[0]:9.3f}")


def plain(z: Tensor, reference: Tensor) -> Tensor:
    """The same discrepancy, all of its kernel at once."""
    total = torch.zeros(())
    for x, y in ((z, z), (reference, reference), (z, reference)):
        square = torch.cdist(x, y).square()
        for scale in SCALES:
            kernel = 2 * LATENT * scale / (2 * LATENT * scale + square)
            total = total + (
                (kernel.sum() - len(x)) / (len(x) - 1) / len(x) if x is y else -2 * kernel.mean()
            )
    return total


def resident(field: str) -> float:
    """Megabytes in Linux's account of this process, now (VmRSS) or at most so far (VmHWM)."""
    with open("/proc/self/status") as lines:
        return next(float(line.split()[1]) * 1.024e-3 for line in lines if line.startswith(field))


def peak(name: str) -> None:
    """Prints the megabytes at the peak over those before."""
    function = {"ours": maximum_mean_discrepancy, "plain": plain}[name]
    torch.set_num_threads(1)
    z = torch.randn(POINTS, LATENT, requires_grad=True)
    reference = torch.randn(POINTS, LATENT)
    function(z[:4], reference[:4]).backward()  # what libraries set up once
    before = resident("VmRSS")
    function(z, reference).backward()
    print(resident("VmHWM") - before)


def main() -> None:
    torch.set_num_threads(1)
    for setting in SETTINGS:
        correlations(*setting)
    print(f"\npeak memory of the discrepancy of 2 x {POINTS} points in {LATENT} dimensions, over the inputs")
    for name in ("ours", "plain"):
        done = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, check=True)
        print(f"{name:6} {float(done.stdout):6.0f} MB")


if __name__ == "__main__":
    main() if len(sys.argv) == 1 else peak(sys.argv[1])
