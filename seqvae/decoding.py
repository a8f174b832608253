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

from seqvae.image import ImageVAE, Model
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


@dataclass(frozen=True)
class Beam:
    """Beam search for the likeliest sequence, for codecs of one stream.

    Log likelihoods are compared after division by ((5 + T) / 6) ** penalty, T steps with END (Wu et al. 2016,
    eq. 14). Raises ValueError outside the bounds.
    """

    width: int = 5  # 1 .. 64
    penalty: float = 0.6  # 0: none

    def __post_init__(self) -> None:
        if not 1 <= self.width <= 64 or not 0 <= self.penalty <= 10:
            raise ValueError("a beam is 1 to 64 wide and its length penalty lies in 0 to 10")

    def discount(self, steps: int) -> float:
        return float(((5 + steps) / 6) ** self.penalty)


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
        self.scores = [(w.detach().float().T, b.detach().float()) for w, b in heads.weights(decoder.steps)]
        self.rectified = [stream.kind != "word" for stream in self.streams]
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

    def scored(self, k: int, layer: Tensor, last: Tensor) -> Tensor:
        """Logits (B, V) of stream k from its hidden layer (B, width), overwritten; last as in `select`."""
        weight, bias = self.scores[k]
        logits = torch.addmm(bias, layer.relu_() if self.rectified[k] else layer, weight)
        if k == 0 and self.streams[0].kind == "increasing":
            logits.masked_fill_(self.symbols <= last[:, None], -1e4)
        return logits

    @torch.inference_mode()
    def select(self, hidden: Tensor, last: Tensor, uniforms: Tensor, how: Sampling) -> Tensor:
        """The step's symbols (B, K), stream by stream; last (B,) stream 0 before it; uniforms (K, B)."""
        chosen = torch.empty(len(hidden), len(self.streams), dtype=torch.int64)
        layers = hidden.chunk(len(self.streams), 1)
        for k, layer in enumerate(layers):
            if k:
                rows = chosen[:, :k] + self.places[:k]
                layer = layer.add_(embedding_bag(rows, self.earlier[k - 1], mode="sum"))
            chosen[:, k] = choose(self.scored(k, layer, last), uniforms[k], how)
        return chosen

    @torch.inference_mode()
    def search(self, z: Tensor, conditions: Tensor, how: Beam, most: int) -> list[np.ndarray]:
        """The best sequence a row by beam search: z (R, Z), conditions (R, C) -> R arrays (<= most, 1).

        A sequence that is not over after ``most`` steps counts as it stands.
        """
        rows, wide, end = len(z), how.width, self.streams[0].size - 1
        first = torch.arange(rows)[:, None] * wide  # (R, 1) where each row's hypotheses begin
        state = self.start(*(part.repeat_interleave(wide, 0) for part in (z, conditions)))
        score = torch.full((rows, wide), -torch.inf)
        score[:, 0] = 0  # all hypotheses are one at first
        previous = torch.full((rows * wide, 1), self.streams[0].size + START)
        written = torch.empty(rows, wide, 0, dtype=torch.int64)
        best, ended = torch.full((rows,), -torch.inf), [np.zeros((0, 1), np.int64)] * rows
        for t in range(1, most + 1):
            last = previous[:, 0].where(previous[:, 0] <= end, -1)
            logits = self.scored(0, self.advance(state, previous), last)
            total = score[..., None] + logits.log_softmax(-1).view(rows, wide, -1)
            # Twice as many as are kept: at most every other one is an END
            value, place = total.flatten(1).topk(2 * wide)
            source, symbol = place // (end + 1), place % (end + 1)
            over = symbol[:, :wide] == end if t < most else torch.ones(rows, wide, dtype=torch.bool)
            top, which = torch.where(over, value[:, :wide] / how.discount(t), -torch.inf).max(1)
            for row in (top > best).nonzero()[:, 0].tolist():
                at = which[row]
                ended[row] = torch.cat((written[row, source[row, at]], symbol[row, at, None]))[
                    :, None
                ].numpy()
            best = torch.maximum(best, top)
            score, keep = value.masked_fill(symbol == end, -torch.inf).topk(wide)
            source, symbol = source.gather(1, keep), symbol.gather(1, keep)
            # No longer sequence can do better: its likelihood only falls, and no discount is greater
            if bool((best >= score[:, 0] / how.discount(most)).all()):
                break
            written = torch.cat(
                (written.gather(1, source[..., None].expand(-1, -1, t - 1)), symbol[..., None]), 2
            )
            rows_of = (first + source).flatten()
            state = tuple(part[rows_of] for part in state)  # type: ignore[assignment]
            previous = symbol.view(-1, 1)
        return ended

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


def free_running(model: Model) -> Stepper | ImageVAE:
    """What `decode` takes: a sequence's decoder is made ready, a picture is decoded at once."""
    return model if isinstance(model, ImageVAE) else Stepper(model)


@torch.inference_mode()
def decode(
    stepper: Stepper | ImageVAE,
    z: Tensor,
    conditions: Tensor,
    how: Sampling | Beam,
    *,
    seed: int = 0,
    most_steps: int | None = None,
) -> list[np.ndarray]:
    """Free-run every row: z (B, Z), conditions (B, C) -> B arrays (T, K) int64 up to and with END.

    A picture has no END, and is its likelihood's mean whatever the strategy.
    A row without END stops at most_steps, else after as many as stream 0 has symbols: an increasing one ends.
    Raises ValueError for a beam where a step has several streams.
    """
    if isinstance(stepper, ImageVAE):
        return drawn(stepper, z)
    wide = how.width if isinstance(how, Beam) else 1
    if isinstance(how, Beam) and len(stepper.streams) > 1:
        raise ValueError("a beam is for codecs of one stream")
    end = stepper.streams[0].size - 1
    most_steps = most_steps or end + 1
    out: list[np.ndarray] = []
    block = MOST_ROWS // wide // FEWEST_ROWS * FEWEST_ROWS
    for first in range(0, len(z), block):
        part, told = z[first : first + block], conditions[first : first + block]
        count = len(part)
        fill = -count % FEWEST_ROWS
        part = torch.cat((part.float(), part.new_zeros(fill, part.shape[1], dtype=torch.float32)))
        told = torch.cat((told, told[-1:].expand(fill, -1)))
        if isinstance(how, Beam):
            out += stepper.search(part, told, how, most_steps)[:count]
            continue
        if how.temperature == 0:
            noise = torch.zeros(len(part), most_steps, len(stepper.streams))
        else:
            seeds = [(seed, first + row) for row in range(len(part))]
            noise = uniforms(seeds, most_steps, len(stepper.streams))
        for row in stepper.run(part, told, noise, how)[:count].numpy():
            stops = np.flatnonzero(row[:, 0] == end)
            out.append(row[: stops[0] + 1] if len(stops) else row)
    return out


def drawn(model: ImageVAE, z: Tensor) -> list[np.ndarray]:
    """z (B, Z) -> B arrays (H * W, C) int64, in batches as `decode` pads them."""
    out: list[np.ndarray] = []
    for part in z.float().split(MOST_ROWS):
        fill = part.new_zeros(-len(part) % FEWEST_ROWS, part.shape[1])
        out += list(model.draw(torch.cat((part, fill)))[: len(part)].numpy())
    return out
