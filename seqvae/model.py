"""SequenceVAE: a bidirectional LSTM encoder, a Gaussian latent, an autoregressive LSTM decoder; any codec.

Bowman et al. 2016 (text) and Roberts et al. 2018 (music); here every step has several streams, each
conditioned on the step's earlier ones. HierarchicalVAE is of sequences in sections: a conductor tells each
section's decoder what to play.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from seqvae.codecs.base import Stream
from seqvae.likelihood import summed
from seqvae.networks import DROPPED, START, Conditions, Conductor, Decoder, Encoder, Steps
from seqvae.objective import Pass, Posterior


@dataclass(frozen=True)
class Size:
    """The network's widths, and how its encoder sums up."""

    embedding: tuple[int, ...] = (96, 96, 48, 8)  # one a stream
    condition: int = 32
    encoder: int = 320
    decoder: int = 512
    head: int = 192
    latent: int = 128  # 0: no encoder, a language model
    shared: bool = False  # one embedding for encoder and decoder
    pooling: str = "last+mean"  # of the encoder's states over time
    gamma: float = 0.0  # scale of a BatchNorm on the posterior's mean (BN-VAE); 0: none
    spread: float = 0.0  # least deviation over the data of the means that are decoded (Scale-VAE); 0: any
    conductor: int = 0  # of a thing in sections, and of what reads them all; those above are each section's
    section: int = 128  # what a conductor tells a section, in place of z

    @property
    def learns_prior(self) -> bool:
        return False  # it is N(0, I)

    @property
    def widest(self) -> int:
        """The largest side that some weight has at least."""
        own = (self.conductor, self.section) if self.conductor else ()
        return max(
            *self.embedding, self.encoder if self.latent else 0, self.decoder, self.head, self.latent, *own
        )

    @property
    def of_decoder(self) -> Size:
        """Of the decoder alone, a language model; the encoder's are as they are by default."""
        return Size(self.embedding, self.condition, decoder=self.decoder, head=self.head, latent=0)

    @property
    def of_section(self) -> Size:
        """Of a section's own encoder and decoder."""
        return replace(
            self, latent=self.section, conductor=0, section=type(self).section, gamma=0.0, spread=0.0
        )


class StandardPrior(nn.Module):
    """Base of models whose prior is N(0, I)."""

    def log_prior(self, z: Tensor) -> Tensor | None:
        """log p(z) (N,) nats; None: it is N(0, I)."""
        return None

    def from_prior(self, uniform: Tensor, noise: Tensor) -> Tensor:
        """z (N, Z) of uniform (N,) in [0, 1) and standard normal noise (N, Z)."""
        return noise


class SequenceVAE(StandardPrior):
    """Sequences of steps (B, T, K) with lengths (B,), END row counted, and conditions (B, C)."""

    def __init__(self, streams: tuple[Stream, ...], conditions: tuple[Stream, ...], size: Size) -> None:
        super().__init__()
        self.streams, self.size = streams, size
        self.conditions = Conditions(conditions, size.condition)
        told = self.conditions.width
        if size.latent:
            own = None if size.shared else Steps(streams, size.embedding)
            kind = size.pooling, size.gamma, size.spread
            self.encoder = Encoder(own, sum(size.embedding) + told, size.encoder, size.latent, *kind)
        steps = Steps(streams, size.embedding)
        self.decoder = Decoder(steps, streams, told, size.decoder, size.latent, size.head)

    @torch.no_grad()
    def adopt(self, language: Mapping[str, Tensor]) -> None:
        """Begin with the decoder of a language model's state; what that makes of z stays as it was drawn."""
        own = self.state_dict()
        for name, given in language.items():
            z = own[name].shape[-1] - given.shape[-1]  # columns of z, which stand before the conditions'
            at = given.shape[-1] - self.conditions.width if z else given.shape[-1]
            own[name][..., :at] = given[..., :at]
            own[name][..., at + z :] = given[..., at:]

    def forward(
        self, steps: Tensor, lengths: Tensor, conditions: Tensor, noise: Tensor, dropped: Tensor | None = None
    ) -> Pass:
        """One training pass: -log p(x|z) (K * B,) nats, the posterior (B, Z), and z (K * B, Z).

        z = mean + std * noise, noise (K * B, Z) with K samples a sequence, sample by sample. With a spread
        the posterior is the one before scaling, whose KL Scale-VAE charges.
        """
        unscaled, times = self.infer(steps, lengths, conditions), len(noise) // len(steps)
        z = Posterior(*(repeated(part, times) for part in self.scaled(unscaled))).sample(noise)
        steps, lengths, conditions = (repeated(part, times) for part in (steps, lengths, conditions))
        hidden = None if dropped is None else repeated(dropped, times)
        return Pass(self.nll(z, steps, lengths, conditions, hidden), unscaled, z)

    def nll(
        self, z: Tensor, steps: Tensor, lengths: Tensor, conditions: Tensor, dropped: Tensor | None = None
    ) -> Tensor:
        """-log p(x|z) in nats (B,)."""
        layers = self.layers(z, steps, conditions, dropped)
        return summed(self.decoder.heads.nll(layers, steps, self.decoder.steps), lengths)

    def encode(self, steps: Tensor, lengths: Tensor, conditions: Tensor) -> Posterior:
        """q(z|x), what z is drawn from: mean and logvar (B, Z)."""
        return self.scaled(self.infer(steps, lengths, conditions))

    def scaled(self, posterior: Posterior) -> Posterior:
        return (
            Posterior(self.encoder.scaled(posterior.mean), posterior.logvar)
            if self.size.spread
            else posterior
        )

    def infer(self, steps: Tensor, lengths: Tensor, conditions: Tensor) -> Posterior:
        """q(z|x) before its mean is scaled."""
        if not self.size.latent:
            return Posterior(*torch.zeros(2, len(steps), 0, device=steps.device))
        tables = self.decoder.steps if self.encoder.steps is None else self.encoder.steps
        return Posterior(*self.encoder(tables(steps), lengths, self.conditions(conditions)))

    def decode(
        self, z: Tensor, steps: Tensor, conditions: Tensor, dropped: Tensor | None = None
    ) -> list[Tensor]:
        """Teacher forced scores, K tensors (B, T, V_k)."""
        layers = self.layers(z, steps, conditions, dropped)
        return self.decoder.heads.logits(layers, steps, self.decoder.steps)

    def layers(
        self, z: Tensor, steps: Tensor, conditions: Tensor, dropped: Tensor | None = None
    ) -> list[Tensor]:
        """What the scores are made of, K tensors (B, T, width); steps are shifted right here.

        dropped (B, T) bool hides those input steps (word dropout, Bowman et al. 2016), but never the first,
        which is START.
        """
        sizes = torch.tensor([stream.size for stream in self.streams], device=steps.device)
        inputs = torch.cat(((sizes + START).expand(len(steps), 1, -1), steps[:, :-1]), 1)
        if dropped is not None:
            hidden = dropped.clone()
            hidden[:, 0] = False
            inputs = torch.where(hidden[..., None], sizes + DROPPED, inputs)
        return list(self.decoder(z, self.conditions(conditions), inputs, steps))


class Sections(NamedTuple):
    """Sequences cut into their S sections, one after the other, as a batch of B * S."""

    steps: Tensor  # (B * S, t, K)
    lengths: Tensor  # (B * S,) END counted
    conditions: Tensor  # (B * S, C)
    dropped: Tensor | None  # (B * S, t)


class HierarchicalVAE(StandardPrior):
    """Sequences of S sections, each with its END: steps (B, T, K), lengths (B,), conditions (B, C).

    Each section is read by an encoder of its own, what these say by another, whose posterior is the
    sequence's; its mean is linear, too, in the sections' means. A conductor turns z into a vector a section,
    which its decoder is told in z's place; so sections know of each other through z alone (Roberts et al.
    2018, section 3.2). Methods are those of `SequenceVAE`.
    """

    def __init__(
        self, streams: tuple[Stream, ...], conditions: tuple[Stream, ...], size: Size, sections: int
    ) -> None:
        super().__init__()
        self.streams, self.size, self.sections = streams, size, sections
        self.section = SequenceVAE(streams, conditions, size.of_section)
        told = self.section.conditions.width
        kind = size.pooling, size.gamma, size.spread
        self.encoder = Encoder(None, 2 * size.section + told, size.conductor, size.latent, *kind)
        self.own = nn.Linear(sections * size.section, size.latent, bias=False)
        self.conductor = Conductor(size.latent + told, size.conductor, size.section, sections)

    @property
    def conditions(self) -> Conditions:
        return self.section.conditions

    @property
    def decoder(self) -> nn.ModuleList:
        """All that decodes."""
        return nn.ModuleList((self.conductor, self.section.decoder))

    @torch.no_grad()
    def align(self, sections: Posterior) -> None:
        """Begin where z holds the principal components of what a trained section's encoder says.

        sections (N, S * section) are the posteriors of N sequences' sections. Each component has unit
        variance in z, and as much noise there as the sections' own on average; the LSTMs add nothing yet.
        """
        size, mean = self.size.latent, sections.mean.double()
        centre = mean.mean(0)
        _, scales, axes = torch.linalg.svd(mean - centre, full_matrices=False)
        scales, axes = (scales[:size] / len(mean) ** 0.5).clamp(min=1e-6), axes[:size]
        noise = sections.logvar.double().exp().mean()
        for layer in (self.encoder.mean, self.encoder.logvar, self.conductor.say, self.conductor.own):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.own.weight)
        count = len(scales)
        self.own.weight[:count] = (axes / scales[:, None]).float()
        self.encoder.mean.bias[:count] = -(axes / scales[:, None] @ centre).float()
        self.encoder.logvar.bias[:count] = (noise / scales.square()).log().clamp(-8, 0).float()
        self.conductor.own.weight[:, :count] = (axes.T * scales).float()
        self.conductor.own.bias.copy_(centre)

    def forward(
        self, steps: Tensor, lengths: Tensor, conditions: Tensor, noise: Tensor, dropped: Tensor | None = None
    ) -> Pass:
        """One training pass, as `SequenceVAE`'s."""
        cut, times = self.cut(steps, lengths, conditions, dropped), len(noise) // len(steps)
        unscaled = self.infer(cut, conditions)
        z = Posterior(*(repeated(part, times) for part in self.scaled(unscaled))).sample(noise)
        hidden = None if cut.dropped is None else repeated(cut.dropped, times)
        rows, sizes, told = (repeated(part, times) for part in cut[:3])
        many = Sections(rows, sizes, told, hidden)
        return Pass(self.sung(z, many, repeated(conditions, times)), unscaled, z)

    def cut(
        self, steps: Tensor, lengths: Tensor, conditions: Tensor, dropped: Tensor | None = None
    ) -> Sections:
        place = torch.arange(steps.shape[1], device=steps.device)
        real = place < lengths[:, None]  # (B, T)
        over = (steps[..., 0] == self.streams[0].size - 1) & real
        index = (over.cumsum(1) - over.long()).clamp(max=self.sections - 1)  # of each step's section
        sizes = torch.zeros(len(steps), self.sections, dtype=torch.int64, device=steps.device)
        sizes.scatter_add_(1, index, real.long())
        within = torch.arange(int(sizes.max()), device=steps.device)
        at = ((sizes.cumsum(1) - sizes)[..., None] + within).clamp(max=steps.shape[1] - 1)  # (B, S, t)
        rows = steps.gather(1, at.flatten(1)[..., None].expand(-1, -1, steps.shape[2]))
        rows = rows.view(-1, len(within), steps.shape[2]) * (within < sizes.view(-1, 1))[..., None]
        hidden = None if dropped is None else dropped.gather(1, at.flatten(1)).view(-1, len(within))
        told = conditions.repeat_interleave(self.sections, 0)
        return Sections(rows, sizes.flatten().clamp(min=1), told, hidden)

    def infer(self, cut: Sections, conditions: Tensor) -> Posterior:
        """q(z|x) before its mean is scaled, of what each section's encoder says."""
        each = self.section.infer(*cut[:3])  # (B * S, section)
        heard = torch.cat(each, 1).unflatten(0, (-1, self.sections))
        lengths = torch.full((len(conditions),), self.sections, device=heard.device)
        mean, logvar = self.encoder(heard, lengths, self.conditions(conditions))
        return Posterior(mean + self.own(each.mean.view(len(conditions), -1)).float(), logvar)

    def scaled(self, posterior: Posterior) -> Posterior:
        return Posterior(self.encoder.scaled(posterior.mean), posterior.logvar)

    def encode(self, steps: Tensor, lengths: Tensor, conditions: Tensor) -> Posterior:
        """q(z|x), what z is drawn from: mean and logvar (B, Z)."""
        return self.scaled(self.infer(self.cut(steps, lengths, conditions), conditions))

    def conducted(self, z: Tensor, conditions: Tensor) -> Tensor:
        """What the sections of z (B, Z) are told: (B * S, section)."""
        known = torch.cat((z, self.conditions(conditions)), -1)
        found: Tensor = self.conductor(known)
        return found.flatten(0, 1)

    def sung(self, z: Tensor, cut: Sections, conditions: Tensor) -> Tensor:
        """-log p(x|z) in nats (B,) of sequences in sections."""
        nll = self.section.nll(self.conducted(z, conditions), *cut)
        return nll.view(-1, self.sections).sum(1)

    def nll(
        self, z: Tensor, steps: Tensor, lengths: Tensor, conditions: Tensor, dropped: Tensor | None = None
    ) -> Tensor:
        """-log p(x|z) in nats (B,)."""
        return self.sung(z, self.cut(steps, lengths, conditions, dropped), conditions)


def repeated(part: Tensor, times: int) -> Tensor:
    """(B, ...) as (times * B, ...), all of it again and again."""
    return part if times == 1 else part.repeat(times, *(1,) * (part.dim() - 1))
