"""Encoders and decoders as plain modules, and what each kind of Stream is embedded as.

Tensors: B batch, T steps, K streams, C conditions, E embedding, H hidden, Z latent.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from seqvae.codecs.base import Stream

START, DROPPED = 0, 1  # rows after a table's own symbols: before the first step; hidden by word dropout


def table(stream: Stream, width: int) -> nn.Embedding:
    """(size + 2, width): symbols, START, DROPPED; ordered kinds begin as sines and cosines of their value."""
    rows = nn.Embedding(stream.size + 2, width)
    nn.init.normal_(rows.weight, std=0.5)
    if stream.kind in ("increasing", "ordinal"):
        half = width // 2
        periods = torch.exp(torch.linspace(math.log(3), math.log(2 * stream.size), half))
        angle = 2 * math.pi * torch.arange(stream.size)[:, None] / periods
        with torch.no_grad():
            rows.weight[: stream.size, : 2 * half] = torch.cat((angle.sin(), angle.cos()), 1)
    return rows


class Conditions(nn.Module):
    """A sum of tables, one a condition: (B, C) -> (B, width); zeros where a codec has no conditions."""

    def __init__(self, conditions: tuple[Stream, ...], width: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(stream.size, width) for stream in conditions)
        self.width = width

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
    """A bidirectional LSTM over the steps; its two last states and the mean over time make the posterior.

    The backward direction is an LSTM over each sequence reversed within its own length, so that padding is
    never read.
    """

    def __init__(self, steps: Steps, conditions: int, hidden: int, latent: int) -> None:
        super().__init__()
        self.steps = steps
        self.forwards = nn.LSTM(steps.width + conditions, hidden, batch_first=True)
        self.backwards = nn.LSTM(steps.width + conditions, hidden, batch_first=True)
        self.pool = nn.Linear(2 * hidden, hidden)
        self.mean = nn.Linear(3 * hidden, latent)
        self.logvar = nn.Linear(3 * hidden, latent)
        nn.init.normal_(self.logvar.weight, std=1e-3)
        nn.init.constant_(self.logvar.bias, -2.0)

    def forward(self, steps: Tensor, lengths: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """steps (B, T, K), lengths (B,) >= 1, condition (B, width) -> mean, logvar (B, Z)."""
        x = self.steps(steps)
        x = torch.cat((x, condition[:, None].expand(-1, x.shape[1], -1)), -1)  # (B, T, E)
        place = torch.arange(x.shape[1], device=x.device)
        back = (lengths[:, None] - 1 - place).clamp(min=0)  # (B, T) each sequence reversed within its length
        ahead, _ = self.forwards(x)
        astern, _ = self.backwards(x.gather(1, back[..., None].expand(-1, -1, x.shape[2])))
        width = ahead.shape[2]
        last = (lengths - 1)[:, None, None].expand(-1, 1, width)
        ends = ahead.gather(1, last)[:, 0], astern.gather(1, last)[:, 0]  # (B, H) each
        both = torch.cat((ahead, astern.gather(1, back[..., None].expand(-1, -1, width))), -1)  # (B, T, 2H)
        real = (place < lengths[:, None])[..., None]
        mean = torch.where(real, self.pool(both).relu(), 0.0).sum(1) / lengths[:, None]
        summary = torch.cat((*ends, mean.to(ends[0].dtype)), -1)
        return self.mean(summary).float(), self.logvar(summary).float()


class Heads(nn.Module):
    """Scores for each stream of a step, each told z and the step's earlier streams (teacher forced).

    A stream's hidden layer sums products of the LSTM's state, of z and condition, and a learned row for each
    earlier symbol of the step; so the pitch head can ask z what sounds at the onset just chosen.
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
        self.scores = nn.ModuleList(nn.Linear(width, stream.size) for stream in streams)
        for weight in self.earlier.parameters():
            nn.init.normal_(weight, std=0.5)

    def forward(self, state: Tensor, known: Tensor, steps: Tensor, previous: Tensor) -> list[Tensor]:
        """K logits (B, T, V) from state (B, T, H), known (B, Z + C) and the steps (B, T, K) to predict.

        previous (B, T) is stream 0 of the step before, -1 at the start.
        """
        hidden = (self.project(state) + self.known(known)[:, None]).split(self.width, -1)
        logits = []
        for k, score in enumerate(self.scores):
            x = hidden[k]
            for j, rows in enumerate(self.earlier[k].children()):
                x = x + rows(steps[..., j])
            logits.append(score(torch.relu(x)))
        if self.streams[0].kind == "increasing":
            symbols = torch.arange(self.streams[0].size, device=state.device)
            logits[0] = logits[0].masked_fill(symbols <= previous[..., None], -1e4)
        return logits


class Decoder(nn.Module):
    """An autoregressive LSTM with z in its first state and at every step."""

    def __init__(
        self, steps: Steps, streams: tuple[Stream, ...], conditions: int, hidden: int, latent: int, head: int
    ) -> None:
        super().__init__()
        self.steps = steps
        self.first = nn.Linear(latent + conditions, 2 * hidden)
        self.lstm = nn.LSTM(steps.width + latent + conditions, hidden, batch_first=True)
        self.heads = Heads(streams, hidden, latent + conditions, head)

    def forward(self, z: Tensor, condition: Tensor, inputs: Tensor, steps: Tensor) -> list[Tensor]:
        """K logits (B, T, V) of steps (B, T, K); inputs are these shifted right, with START and DROPPED."""
        known = torch.cat((z, condition), -1)  # (B, Z + C)
        h, c = self.first(known).tanh().chunk(2, -1)
        x = torch.cat((self.steps(inputs), known[:, None].expand(-1, inputs.shape[1], -1)), -1)
        state, _ = self.lstm(x, (h[None].contiguous(), c[None].contiguous()))
        before = torch.cat((steps.new_full((len(steps), 1), -1), steps[:, :-1, 0]), 1)
        return self.heads(state, known, steps, before)
