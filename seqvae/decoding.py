"""Free running: the decoder one step at a time, and the strategies that choose its symbols.

The step is written by hand: token tables, z and conditions are multiplied by the input weights beforehand, so
a step costs the recurrent product and the heads. Randomness is one uniform a (seed, row, step, stream),
turned into a symbol by the inverse of the cumulative distribution; batches are padded to a multiple of 8
rows. So a row's result depends on its own z, condition, seed and number alone, never on its batch-mates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from seqvae.model import SequenceVAE
from seqvae.networks import START

# Below 4 rows a matrix product's last bits depend on their number, and those of a vectorised sigmoid on where
# a tensor ends: batches are padded to a multiple of
FEWEST_ROWS = 8
MOST_ROWS = 512


@dataclass(frozen=True)
class Sampling:
    """How symbols are chosen; top_k (Fan et al. 2018) and top_p (Holtzman et al. 2020) cut the tail.

    Raises ValueError outside the bounds; past 100 a temperature would let masked symbols through.
    """

    temperature: float = 1.0  # 0: greedy, else 0.01 .. 100
    top_k: int = 0  # 0: off
    top_p: float = 1.0  # 1: off

    def __post_init__(self) -> None:
        warm = self.temperature == 0 or 0.01 <= self.temperature <= 100
        if not warm or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ValueError("temperature is 0 or in 0.01 .. 100, top-k at least 0, top-p in (0, 1]")


GREEDY = Sampling(temperature=0.0)


def choose(logits: Tensor, uniform: Tensor, how: Sampling) -> Tensor:
    """A symbol a row: logits (B, V) float32, overwritten; uniform (B,) in [0, 1) -> (B,) int64."""
    if how.temperature == 0:
        return logits.argmax(-1)
    if 0 < how.top_k < logits.shape[1]:
        least = logits.topk(how.top_k).values[:, -1:]
        logits.masked_fill_(logits < least, -torch.inf)
    if how.temperature != 1:
        logits.mul_(1 / how.temperature)
    if how.top_p < 1:
        ordered, place = logits.softmax(-1).sort(descending=True, stable=True)
        drop = ordered.cumsum(-1) - ordered >= how.top_p  # keeps the first symbol that reaches top_p
        logits.masked_fill_(torch.zeros_like(drop).scatter_(1, place, drop), -torch.inf)
    mass = logits.softmax(-1).cumsum(-1)
    point = uniform[:, None] * mass[:, -1:]  # the last may fall short of 1, and past it is no symbol
    return torch.searchsorted(mass, point, right=True)[:, 0].clamp_(max=logits.shape[1] - 1)


class Stepper:
    """A model's decoder, all that the state does not change multiplied out. Float32, no gradients."""

    @torch.inference_mode()
    def __init__(self, model: SequenceVAE) -> None:
        decoder, lstm = model.decoder, model.decoder.lstm
        self.model, self.streams = model, model.streams
        order = torch.cat([torch.arange(lstm.hidden_size) + gate * lstm.hidden_size for gate in (0, 1, 3, 2)])
        # tanh(x) = 2 sigmoid(2x) - 1, and sigmoid is by far the faster: gate g is scaled for it here
        twice = torch.ones(4 * lstm.hidden_size, 1)
        twice[3 * lstm.hidden_size :] = 2
        # (4H, E + Z + C), gates in the order i f o g
        weight = lstm.get_parameter("weight_ih_l0").detach().float()[order] * twice
        embedded, self.known = weight.split([decoder.steps.width, weight.shape[1] - decoder.steps.width], 1)
        tables, start = [], 0
        for rows in decoder.steps.tables.parameters():
            tables.append(rows.float() @ embedded[:, start : start + rows.shape[1]].T)
            start += rows.shape[1]
        self.table = torch.cat(tables)  # (sum of sizes + 2, 4H)
        sizes = torch.tensor([len(rows) for rows in tables])
        self.offsets = sizes.cumsum(0) - sizes
        biases = lstm.get_parameter("bias_ih_l0") + lstm.get_parameter("bias_hh_l0")
        self.bias = biases.detach().float()[order] * twice[:, 0]
        # (H, 4H), a view: a product with few rows is faster so
        self.recurrent = (lstm.get_parameter("weight_hh_l0").detach().float()[order] * twice).T
        heads = decoder.heads
        self.project = heads.project.weight.detach().float().T  # (H, K * width)
        layers = [[weight.detach().float() for weight in layer.parameters()] for layer in heads.scores]
        self.scores = [(weight.T, bias) for weight, bias in layers]
        before = torch.tensor([stream.size for stream in self.streams])
        self.places = before.cumsum(0) - before  # where each stream's rows begin in the tables of `earlier`
        self.earlier = [
            torch.cat([rows.detach().float() for rows in tables.parameters()])
            for tables in list(heads.earlier)[1:]  # nothing is earlier than stream 0
        ]
        self.symbols = torch.arange(self.streams[0].size)

    @torch.inference_mode()
    def start(self, z: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """h, c (B, H) and the constant shares of gates (B, 4H) and heads (B, K * width); z (B, Z)."""
        known = torch.cat((z, self.model.conditions(conditions)), -1)
        h, c = self.model.decoder.first(known).tanh().chunk(2, -1)
        heads = self.model.decoder.heads
        told = torch.addmm(heads.project.bias, known, heads.known.weight.T)
        return h.contiguous(), c.contiguous(), torch.addmm(self.bias, known, self.known.T), told

    @torch.inference_mode()
    def advance(self, state: tuple[Tensor, Tensor, Tensor, Tensor], previous: Tensor) -> Tensor:
        """One LSTM step from the symbols (B, K), h and c in place; the heads' hidden layer (B, K * width)."""
        h, c, constant, told = state
        width = h.shape[1]
        gates = embedding_bag(previous + self.offsets, self.table, mode="sum")
        gates.add_(constant).addmm_(h, self.recurrent)
        inward, keep, out, new = gates.sigmoid_().split(width, 1)  # new: (tanh + 1) / 2
        c.mul_(keep).addcmul_(inward, new, value=2).sub_(inward)
        torch.mul(c, 2, out=h)
        h.sigmoid_().mul_(2).sub_(1).mul_(out)
        return torch.addmm(told, h, self.project)

    @torch.inference_mode()
    def select(self, hidden: Tensor, last: Tensor, uniforms: Tensor, how: Sampling) -> Tensor:
        """The step's symbols (B, K), stream by stream; last (B,) stream 0 before it; uniforms (K, B)."""
        chosen = torch.empty(len(hidden), len(self.streams), dtype=torch.int64)
        layers = hidden.chunk(len(self.streams), 1)
        for k, (layer, (weight, bias)) in enumerate(zip(layers, self.scores, strict=True)):
            if k:
                rows = chosen[:, :k] + self.places[:k]
                layer = layer.add_(embedding_bag(rows, self.earlier[k - 1], mode="sum"))
            logits = torch.addmm(bias, layer.relu_(), weight)
            if k == 0 and self.streams[0].kind == "increasing":
                logits.masked_fill_(self.symbols <= last[:, None], -1e4)
            chosen[:, k] = choose(logits, uniforms[k], how)
        return chosen

    @torch.inference_mode()
    def run(self, z: Tensor, conditions: Tensor, uniforms: Tensor, how: Sampling) -> Tensor:
        """Decode a batch of one size: z (B, Z), conditions (B, C), uniforms (B, T, K) -> symbols (B, <= T,
        K)."""
        rows, most, _ = uniforms.shape
        end = self.streams[0].size - 1
        state = self.start(z, conditions)
        previous = torch.tensor([s.size + START for s in self.streams]).expand(rows, -1)
        last, done = torch.full((rows,), -1), torch.zeros(rows, dtype=torch.bool)
        drawn = uniforms.permute(1, 2, 0).contiguous()  # (T, K, B)
        steps = []
        for t in range(most):
            previous = self.select(self.advance(state, previous), last, drawn[t], how)
            steps.append(previous)
            done |= previous[:, 0] == end
            if bool(done.all()):
                break
            last = previous[:, 0].masked_fill(done, -1)  # after END anything goes: the row is over
        return torch.stack(steps, 1)


def uniforms(seeds: Sequence[tuple[int, int]], steps: int, streams: int) -> Tensor:
    """(B, steps, streams) in [0, 1), each row a counter's own stream (seed, row) (Salmon et al. 2011)."""
    draws = [np.random.Generator(np.random.Philox(key=seed)) for seed in seeds]
    return torch.from_numpy(np.stack([draw.random((steps, streams), np.float32) for draw in draws]))


@torch.inference_mode()
def decode(
    stepper: Stepper,
    z: Tensor,
    conditions: Tensor,
    how: Sampling,
    *,
    seed: int = 0,
    most_steps: int | None = None,
) -> list[np.ndarray]:
    """Free-run every row: z (B, Z), conditions (B, C) -> B arrays (T, K) int64 up to and with END.

    A row without END stops at most_steps, else after as many as stream 0 has symbols: an increasing one ends.
    """
    end = stepper.streams[0].size - 1
    most_steps = most_steps or end + 1
    out: list[np.ndarray] = []
    for first in range(0, len(z), MOST_ROWS):
        part, told = z[first : first + MOST_ROWS], conditions[first : first + MOST_ROWS]
        count = len(part)
        fill = -count % FEWEST_ROWS
        part = torch.cat((part.float(), part.new_zeros(fill, part.shape[1], dtype=torch.float32)))
        told = torch.cat((told, told[-1:].expand(fill, -1)))
        if how.temperature == 0:
            noise = torch.zeros(len(part), most_steps, len(stepper.streams))
        else:
            seeds = [(seed, first + row) for row in range(len(part))]
            noise = uniforms(seeds, most_steps, len(stepper.streams))
        for row in stepper.run(part, told, noise, how)[:count].numpy():
            stops = np.flatnonzero(row[:, 0] == end)
            out.append(row[: stops[0] + 1] if len(stops) else row)
    return out
