"""Encoders and decoders as plain modules, and what each kind of Stream is embedded as.

Tensors: B batch, T steps, K streams, C conditions, E embedding, H hidden, Z latent.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqvae.codecs.base import Stream
from seqvae.likelihood import categorical, linear_categorical

START, DROPPED = 0, 1  # rows after a table's own symbols: before the first step; hidden by word dropout
# Root mean squares over dimensions of a difference, where what is said has a variance of about 1:
NEAR, EDGE = 0.5, 0.41
POOLINGS = ("last+mean", "last", "mean", "max")


def table(stream: Stream, width: int) -> nn.Embedding:
    """(size + 2, width): symbols, START, DROPPED; ordered kinds begin as sines and cosines of their value."""
    rows = nn.Embedding(stream.size + 2, width)
    nn.init.normal_(rows.weight, std=0.1 if stream.kind == "word" else 0.5)
    if stream.kind in ("increasing", "rising", "ordinal"):
        half = width // 2
        periods = torch.exp(torch.linspace(math.log(3), math.log(2 * stream.size), half))
        angle = 2 * math.pi * torch.arange(stream.size)[:, None] / periods
        with torch.no_grad():
            rows.weight[: stream.size, : 2 * half] = torch.cat((angle.sin(), angle.cos()), 1)
    return rows


class Conditions(nn.Module):
    """A sum of tables, one a condition: (B, C) -> (B, width); the width is 0 where a codec has none."""

    def __init__(self, conditions: tuple[Stream, ...], width: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(stream.size, width) for stream in conditions)
        self.width = width if conditions else 0

    def forward(self, conditions: Tensor) -> Tensor:
        start = torch.zeros(len(conditions), self.width, device=conditions.device)
        return sum((rows(conditions[:, i]) for i, rows in enumerate(self.tables)), start)


class Steps(nn.Module):
    """Embeds steps (B, T, K) as the streams' tables side by side: (B, T, E)."""

    def __init__(self, streams: tuple[Stream, ...], widths: tuple[int, ...]) -> None:
        super().__init__()
        self.tables = nn.ModuleList(table(s, w) for s, w in zip(streams, widths, strict=True))
        self.sizes = tuple(stream.size for stream in streams)
        self.width = sum(widths)

    def forward(self, steps: Tensor) -> Tensor:
        return torch.cat([rows(steps[..., k]) for k, rows in enumerate(self.tables)], -1)


class Encoder(nn.Module):
    """A bidirectional LSTM over the embedded steps, pooled over time, makes the posterior.

    The backward direction is an LSTM over each sequence reversed within its own length, so that padding is
    never read. Pooling: the two last states ("last"), the mean or maximum of a layer over all states
    ("mean", "max"; Long et al. 2019), or the last states beside the mean.

    gamma > 0 is BN-VAE (Zhu et al. 2020): a BatchNorm over each dimension of the mean with its scale fixed
    at gamma, so that the KL is at least gamma^2 / 2 nats a dimension on average. spread > 0 is Scale-VAE
    (Song et al. 2024): before it is decoded, each dimension of the mean is multiplied, for all data alike, by
    what brings its standard deviation over the data up to the spread (`scaled`). Dropout, 0 unless a training
    sets it, is on what the LSTMs read.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        steps: Steps | None,  # tables of its own, if it has any
        width: int,
        hidden: int,
        latent: int,
        pooling: str,
        gamma: float,
        spread: float,
    ) -> None:
        super().__init__()
        self.steps, self.pooling, self.gamma, self.spread = steps, pooling, gamma, spread
        self.dropout = nn.Dropout(0.0)
        self.forwards = nn.LSTM(width, hidden, batch_first=True)
        self.backwards = nn.LSTM(width, hidden, batch_first=True)
        if pooling != "last":
            self.pool = nn.Linear(2 * hidden, hidden)
        summary = {"last+mean": 3, "last": 2}.get(pooling, 1) * hidden
        self.mean = nn.Linear(summary, latent)
        self.logvar = nn.Linear(summary, latent)
        nn.init.normal_(self.logvar.weight, std=1e-3)
        nn.init.constant_(self.logvar.bias, -2.0)
        if gamma or spread:  # statistics of the mean over the data
            self.register_buffer("running_mean", torch.zeros(latent))
            self.register_buffer("running_var", torch.ones(latent))
        if gamma:
            self.shift = nn.Parameter(torch.zeros(latent))

    def forward(self, embedded: Tensor, lengths: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """embedded (B, T, E), lengths (B,) >= 1, condition (B, C) -> mean, logvar (B, Z)."""
        x = self.dropout(embedded)
        x = torch.cat((x, condition[:, None].expand(-1, x.shape[1], -1)), -1)  # (B, T, E + C)
        place = torch.arange(x.shape[1], device=x.device)
        back = (lengths[:, None] - 1 - place).clamp(min=0)  # (B, T) each sequence reversed within its length
        ahead, _ = self.forwards(x)
        astern, _ = self.backwards(x.gather(1, back[..., None].expand(-1, -1, x.shape[2])))
        summary = torch.cat(list(self.pooled(ahead, astern, back, lengths)), -1)
        mean, logvar = self.mean(summary).float(), self.logvar(summary).float()
        return (self.normed(mean) if self.gamma else mean), logvar

    def pooled(self, ahead: Tensor, astern: Tensor, back: Tensor, lengths: Tensor) -> Iterator[Tensor]:
        """Parts (B, H) of the summary of both directions' states (B, T, H), astern still reversed."""
        width = ahead.shape[2]
        if "last" in self.pooling:
            last = (lengths - 1)[:, None, None].expand(-1, 1, width)
            yield ahead.gather(1, last)[:, 0]
            yield astern.gather(1, last)[:, 0]
        if self.pooling != "last":
            both = torch.cat((ahead, astern.gather(1, back[..., None].expand(-1, -1, width))), -1)
            real = (torch.arange(ahead.shape[1], device=ahead.device) < lengths[:, None])[..., None]
            layer = torch.where(real, self.pool(both).relu(), 0.0)  # (B, T, H), nowhere below 0
            found = layer.amax(1) if self.pooling == "max" else layer.sum(1) / lengths[:, None]
            yield found.to(ahead.dtype)

    def normed(self, mean: Tensor) -> Tensor:
        """gamma * BatchNorm(mean) + shift; a batch of one has no variance and is normed as in evaluation."""
        batch = self.training and len(mean) > 1
        return (
            self.gamma * F.batch_norm(mean, self.running_mean, self.running_var, training=batch) + self.shift
        )

    def scaled(self, mean: Tensor) -> Tensor:
        """The mean (B, Z) as it is decoded; nothing is ever scaled down."""
        if not self.spread:
            return mean
        if self.training and len(mean) > 1 and not self.gamma:
            with torch.no_grad():
                self.running_var.lerp_(mean.var(0), 0.1)
        std = self.gamma if self.gamma else self.running_var.sqrt()
        return mean * (self.spread / torch.as_tensor(std).clamp(min=1e-6)).clamp(min=1)


class Heads(nn.Module):
    """Scores for each stream of a step, each told z and the step's earlier streams (teacher forced).

    A stream's hidden layer sums products of the LSTM's state, of z and condition, and a learned row for each
    earlier symbol of the step; so the pitch head can ask z what sounds at the onset just chosen. A stream of
    words is scored by its own embedding (Press & Wolf 2017) without a rectifier before it.
    """

    def __init__(self, streams: tuple[Stream, ...], hidden: int, known: int, width: int) -> None:
        super().__init__()
        self.streams = streams
        self.width = width
        self.project = nn.Linear(hidden, len(streams) * width)
        self.known = nn.Linear(known, len(streams) * width, bias=False)
        self.earlier = nn.ModuleList(
            nn.ModuleList(nn.Embedding(streams[j].size, width) for j in range(k)) for k in range(len(streams))
        )
        self.scores = nn.ModuleList(
            Tied(stream.size) if stream.kind == "word" else nn.Linear(width, stream.size)
            for stream in streams
        )
        for weight in self.earlier.parameters():
            nn.init.normal_(weight, std=0.5)

    def weights(self, steps: Steps) -> list[tuple[Tensor, Tensor]]:
        """Of each stream's last layer the weight (V, width) and bias (V,); steps hold the tied tables."""
        pairs: list[tuple[Tensor, Tensor]] = []
        for score, rows in zip(self.scores, steps.tables, strict=True):
            owner, bias = rows if isinstance(score, Tied) else score, score.get_parameter("bias")
            pairs.append((owner.get_parameter("weight")[: len(bias)], bias))
        return pairs

    def forward(self, state: Tensor, known: Tensor, steps: Tensor) -> list[Tensor]:
        """K hidden layers (B, T, width) from state (B, T, H), known (B, Z + C), the steps (B, T, K) to
        predict."""
        layers = list((self.project(state) + self.known(known)[:, None]).split(self.width, -1))
        for k, stream in enumerate(self.streams):
            for j, rows in enumerate(self.earlier[k].children()):
                layers[k] = layers[k] + rows(steps[..., j])
            layers[k] = layers[k] if stream.kind == "word" else torch.relu(layers[k])
        return layers

    def logits(self, layers: list[Tensor], steps: Tensor, tables: Steps) -> list[Tensor]:
        """K logits (B, T, V) of the layers; of an increasing stream none can be reached but what is past the
        step before, of a rising one nothing below it."""
        found = [F.linear(layer, *pair) for layer, pair in zip(layers, self.weights(tables), strict=True)]
        if (climb := self.streams[0].climb) is not None:
            previous = F.pad(steps[:, :-1, 0], (1, 0), value=-1)  # (B, T)
            symbols = torch.arange(self.streams[0].size, device=steps.device)
            found[0] = found[0].masked_fill(symbols < previous[..., None] + climb, -1e4)
        return found

    def nll(self, layers: list[Tensor], steps: Tensor, tables: Steps) -> list[Tensor]:
        """-log p of each stream of each step: K tensors (B, T) nats."""
        if all(stream.kind == "word" for stream in self.streams):
            pairs = enumerate(zip(layers, self.weights(tables), strict=True))
            return [linear_categorical(layer, *pair, steps[..., k]) for k, (layer, pair) in pairs]
        return [
            categorical(scores, steps[..., k]) for k, scores in enumerate(self.logits(layers, steps, tables))
        ]


class Tied(nn.Module):
    """A last layer whose weight is the embedding it scores; only the bias is its own."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(size))


class Decoder(nn.Module):
    """An autoregressive LSTM with z in its first state and at every step.

    Dropout, 0 unless a training sets it, is on what the LSTM reads and on its states (Zaremba et al. 2014).
    """

    def __init__(
        self, steps: Steps, streams: tuple[Stream, ...], conditions: int, hidden: int, latent: int, head: int
    ) -> None:
        super().__init__()
        self.steps = steps
        with warnings.catch_warnings():  # a language model without conditions has biases alone in `first`
            warnings.filterwarnings("ignore", "Initializing zero-element")
            self.first = nn.Linear(latent + conditions, 2 * hidden)
            self.lstm = nn.LSTM(steps.width + latent + conditions, hidden, batch_first=True)
            self.heads = Heads(streams, hidden, latent + conditions, head)
        self.dropout = nn.Dropout(0.0)

    def forward(self, z: Tensor, condition: Tensor, inputs: Tensor, steps: Tensor) -> list[Tensor]:
        """The heads' K hidden layers (B, T, width) for steps (B, T, K).

        inputs are these shifted right, with START and DROPPED.
        """
        known = torch.cat((z, condition), -1)  # (B, Z + C)
        read = self.dropout(self.steps(inputs))
        x = torch.cat((read, known[:, None].expand(-1, inputs.shape[1], -1)), -1)
        state = begun(self.lstm, x, self.first(known))
        return list(self.heads(self.dropout(state), known, steps))


def begun(lstm: nn.LSTM, x: Tensor, first: Tensor) -> Tensor:
    """The states (B, T, H) of inputs (B, T, E), the first h and c from the tanh of first (B, 2H)."""
    h, c = first.tanh().chunk(2, -1)
    state: Tensor = lstm(x, (h[None].contiguous(), c[None].contiguous()))[0]
    return state


class Conductor(nn.Module):
    """An LSTM that says, section after section, what the section's decoder is told of z.

    Its step reads z, and what it says is linear in its state and, a section by itself, in z: sections may
    have dimensions of z of their own without passing through the LSTM. Each section is then told the mean of
    what is said to it and to all within NEAR of it (a non-local mean, Buades et al. 2005): what the noise of
    z sets apart where a strain returns comes together again. In training the mean is weighted, falling about
    EDGE, so that gradients still tell sections apart that are not the same.
    """

    def __init__(self, known: int, hidden: int, section: int, sections: int) -> None:
        super().__init__()
        self.sections = sections
        self.first = nn.Linear(known, 2 * hidden)
        self.lstm = nn.LSTM(known, hidden, batch_first=True)
        self.say = nn.Linear(hidden, section)
        self.own = nn.Linear(known, sections * section)
        nn.init.normal_(self.own.weight, std=known**-0.5)  # what is said varies as much as z does

    def forward(self, known: Tensor) -> Tensor:
        """known (B, Z + C) -> (B, S, section)."""
        state = begun(self.lstm, known[:, None].expand(-1, self.sections, -1), self.first(known))
        said = (self.say(state) + self.own(known).unflatten(1, (self.sections, -1))).float()
        apart = (said[:, :, None] - said[:, None]).square().mean(-1)  # (B, S, S)
        near = torch.exp(-0.5 * (apart / EDGE**2) ** 4) if self.training else (apart <= NEAR**2)
        return (near[..., None] * said[:, None]).sum(2) / near.sum(2, keepdim=True)
