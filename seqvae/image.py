"""ImageVAE: a small convolutional or fully connected encoder and decoder around the same Gaussian latent.

Kingma & Welling 2014. It owns no loss: what its outputs mean is one of `LIKELIHOODS`. Pictures come as a
corpus holds them, steps (B, H * W, C) of levels 0 .. L - 1 in raster order, and are (B, C, H, W) in [0, 1]
within. Its methods are those of `SequenceVAE`; lengths and conditions, which pictures have none of, are not
looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TypeAlias

import torch
from pytorch_msssim import ssim
from torch import Tensor, nn

from seqvae.likelihood import LIKELIHOODS, logistic_mixture
from seqvae.model import HierarchicalVAE, SequenceVAE, repeated
from seqvae.objective import Pass, Posterior
from seqvae.prior import MixturePrior, VampPrior

NETWORKS = ("conv", "dense")
PRIORS = ("standard", "mixture", "vamp")
# What can be trained: encode(steps, lengths, conditions), nll(z, ...), a pass of both
Model: TypeAlias = "SequenceVAE | HierarchicalVAE | ImageVAE"
ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}


@dataclass(frozen=True)
class ImageSize:
    """The network's widths, and what its outputs mean."""

    network: str = "conv"  # each of the widths is a convolution that halves the picture; or "dense", a layer
    widths: tuple[int, ...] = (32, 64)  # of the encoder; the decoder's are the same backwards
    head: int = 256  # of the dense layer between the convolutions and z
    latent: int = 32
    activation: str = "relu"
    likelihood: str = "bernoulli"
    prior: str = "standard"  # or learnt: "mixture", or "vamp", of
    components: int = 100

    @property
    def learns_prior(self) -> bool:
        return self.prior != "standard"

    @property
    def widest(self) -> int:
        """The largest side that some weight has at least."""
        head = self.head if self.network == "conv" else 0
        return max(*self.widths, self.latent, head, self.components if self.learns_prior else 0)


class ImageVAE(nn.Module):
    """Pictures of C channels, H x W, with L levels each."""

    def __init__(self, shape: tuple[int, int, int], levels: int, size: ImageSize) -> None:
        super().__init__()
        self.shape, self.levels, self.size = shape, levels, size  # (C, H, W)
        self.likelihood = LIKELIHOODS[size.likelihood]
        if size.likelihood == "logistic_mixture":
            self.likelihood = self.likelihood._replace(nll=partial(logistic_mixture, levels=levels))
        self.compares = False  # set by a training that weighs `unlike`
        build = convolutional if size.network == "conv" else dense
        self.trunk, self.decoder, width = build(shape, self.likelihood.width(shape[0]), size)
        self.mean, self.logvar = nn.Linear(width, size.latent), nn.Linear(width, size.latent)
        nn.init.normal_(self.logvar.weight, std=1e-3)
        nn.init.constant_(self.logvar.bias, -2.0)
        if size.prior == "mixture":
            self.learnt: MixturePrior | VampPrior = MixturePrior(size.components, size.latent)
        elif size.prior == "vamp":
            self.learnt = VampPrior(size.components, shape)

    def forward(
        self, steps: Tensor, lengths: Tensor, conditions: Tensor, noise: Tensor, dropped: Tensor | None = None
    ) -> Pass:
        """One training pass: -log p(x|z), the posterior, z, log p(z), and `unlike`.

        z = mean + std * noise, noise (K * B, Z) with K samples a picture, sample by sample.
        """
        posterior, times = self.encode(steps, lengths, conditions), len(noise) // len(steps)
        z = Posterior(*(repeated(part, times) for part in posterior)).sample(noise)
        parameters, pictures = self.parameters_of(z), self.pictures(repeated(steps, times))
        nll = self.likelihood.nll(parameters, pictures)
        return Pass(nll, posterior, z, self.log_prior(z), self.unlike(parameters, pictures))

    def unlike(self, parameters: Tensor, pictures: Tensor) -> Tensor | None:
        """1 - SSIM (B,) of the likelihood's mean (Wang et al. 2004), times the picture's values.

        It is perceptual, and no likelihood. None unless `compares`.
        """
        if not self.compares:
            return None
        window = min(11, (min(self.shape[1:]) - 1) // 2 * 2 + 1)
        mean = self.likelihood.mean(parameters, self.shape[0]).float()
        found = ssim(mean, pictures.float(), data_range=1.0, size_average=False, win_size=window)
        return (1 - found) * pictures[0].numel()

    def nll(
        self, z: Tensor, steps: Tensor, lengths: Tensor, conditions: Tensor, dropped: Tensor | None = None
    ) -> Tensor:
        """-log p(x|z) in nats (B,)."""
        return self.likelihood.nll(self.parameters_of(z), self.pictures(steps))

    def encode(self, steps: Tensor, lengths: Tensor, conditions: Tensor) -> Posterior:
        """q(z|x): mean and logvar (B, Z)."""
        return self.infer(self.pictures(steps))

    def infer(self, pictures: Tensor) -> Posterior:
        """q(z|x) of pictures (B, C, H, W)."""
        summary = self.trunk(pictures)
        return Posterior(self.mean(summary).float(), self.logvar(summary).float())

    def log_prior(self, z: Tensor) -> Tensor | None:
        """log p(z) (N,) nats of z (N, Z) under a learnt prior; None: it is N(0, I)."""
        return self.learnt.log_density(z, *self.told()) if self.size.learns_prior else None

    def from_prior(self, uniform: Tensor, noise: Tensor) -> Tensor:
        """z (N, Z) of uniform (N,) in [0, 1) and standard normal noise (N, Z)."""
        return self.learnt.sample(uniform, noise, *self.told()) if self.size.learns_prior else noise

    def told(self) -> list[Callable[[Tensor], Posterior]]:
        """What the learnt prior is given besides."""
        return [self.infer] if isinstance(self.learnt, VampPrior) else []

    def pictures(self, steps: Tensor) -> Tensor:
        """steps (B, H * W, C) as (B, C, H, W) in [0, 1]."""
        return steps.transpose(1, 2).reshape(-1, *self.shape) / (self.levels - 1)

    def parameters_of(self, z: Tensor) -> Tensor:
        """The network's raw outputs (B, P, H, W) of z (B, Z)."""
        found: Tensor = self.decoder(z)
        return found.view(len(z), -1, *self.shape[1:])

    @torch.inference_mode()
    def draw(self, z: Tensor) -> Tensor:
        """The likelihood's mean at z (B, Z), as steps (B, H * W, C)."""
        mean = self.likelihood.mean(self.parameters_of(z), self.shape[0])
        return (mean * (self.levels - 1)).round().long().flatten(2).transpose(1, 2)


def dense(shape: tuple[int, int, int], outputs: int, size: ImageSize) -> tuple[nn.Module, nn.Module, int]:
    """Encoder up to its last layer, decoder, and the width between; `outputs` numbers a pixel."""
    channels, height, width = shape
    ways = []
    for sizes in ([channels * height * width, *size.widths], [size.latent, *size.widths[::-1]]):
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), ACTIVATIONS[size.activation]()]
        ways.append(layers)
    there, back = ways
    last = nn.Linear(size.widths[0], outputs * height * width)
    return nn.Sequential(nn.Flatten(), *there), nn.Sequential(*back, last), size.widths[-1]


def convolutional(
    shape: tuple[int, int, int], outputs: int, size: ImageSize
) -> tuple[nn.Module, nn.Module, int]:
    """The same of strided convolutions of 4 x 4; raises ValueError where they leave no pixel."""
    channels, *sides = shape
    places, act = [sides], ACTIVATIONS[size.activation]
    for _ in size.widths:
        places.append([side // 2 for side in places[-1]])
    if min(places[-1]) < 1:
        raise ValueError(f"{len(size.widths)} widths halve a picture of {sides[0]} x {sides[1]} to nothing")
    there: list[nn.Module] = []
    for before, after in pairwise([channels, *size.widths]):
        there += [nn.Conv2d(before, after, 4, 2, 1), act()]
    cells = size.widths[-1] * places[-1][0] * places[-1][1]
    there += [nn.Flatten(), nn.Linear(cells, size.head), act()]
    back: list[nn.Module] = [nn.Linear(size.latent, size.head), act(), nn.Linear(size.head, cells), act()]
    back += [nn.Unflatten(1, (size.widths[-1], *places[-1]))]
    for (before, after), small, large in zip(
        pairwise([*size.widths[::-1], outputs]), places[:0:-1], places[-2::-1], strict=True
    ):
        odd = large[0] - 2 * small[0], large[1] - 2 * small[1]
        back += [nn.ConvTranspose2d(before, after, 4, 2, 1, output_padding=odd), act()]
    return nn.Sequential(*there), nn.Sequential(*back[:-1]), size.head
