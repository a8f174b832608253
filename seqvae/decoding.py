"""Free running: the decoder one step at a time, and the strategies that choose its symbols.

The step is written by hand: token tables, z and conditions are multiplied by the input weights beforehand, so
a step costs the recurrent product and the heads. Randomness is one uniform a (seed, thing, step, stream),
turned into a symbol by the inverse of the cumulative distribution; rows are decoded in slots, which they
enter and leave between steps, padded to a multiple of 8. So a row's result depends on its own z, condition,
seed and number alone, never on its batch-mates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, Self, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from seqvae.image import ImageVAE, Model
from seqvae.model import HierarchicalVAE, SequenceVAE
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


class Columns(NamedTuple):
    """A strategy a row."""

    greedy: Tensor  # (B,) bool
    heat: Tensor  # (B, 1) 1 / temperature, 1 where greedy
    top_k: Tensor  # (B, 1) int64, 0: off
    top_p: Tensor  # (B, 1), infinite: off

    @classmethod
    def of(cls, how: Sampling, rows: int) -> Self:
        return cls(
            torch.full((rows,), not how.temperature),
            torch.full((rows, 1), 1 / (how.temperature or 1)),
            torch.full((rows, 1), how.top_k),
            torch.full((rows, 1), how.top_p if how.top_p < 1 else torch.inf),
        )


class Ways(NamedTuple):
    """The strategies of a batch."""

    rows: Columns
    kinds: Collection[Sampling]  # that occur

    @classmethod
    def of(cls, how: Sampling, rows: int) -> Self:
        return cls(Columns.of(how, rows), (how,))


def choose(logits: Tensor, uniform: Tensor, how: Ways) -> Tensor:
    """A symbol a row: logits (B, V) float32, overwritten; uniform (B,) in [0, 1) -> (B,) int64."""
    drawing = [way for way in how.kinds if way.temperature]
    likeliest = logits.argmax(-1) if len(drawing) < len(how.kinds) else None
    if likeliest is not None and not drawing:
        return likeliest
    size = logits.shape[1]
    most = max((way.top_k for way in drawing if way.top_k < size), default=0)
    if most:
        least = logits.topk(most).values.gather(1, (how.rows.top_k - 1).clamp(0, most - 1))
        off = (how.rows.top_k == 0) | (how.rows.top_k >= size)
        logits.masked_fill_(logits < least.masked_fill(off, -torch.inf), -torch.inf)
    if any(way.temperature != 1 for way in drawing):
        logits.mul_(how.rows.heat)
    if any(way.top_p < 1 for way in drawing):
        ordered, place = logits.softmax(-1).sort(descending=True, stable=True)
        drop = ordered.cumsum(-1) - ordered >= how.rows.top_p  # keeps the first symbol that reaches top_p
        logits.masked_fill_(torch.zeros_like(drop).scatter_(1, place, drop), -torch.inf)
    mass = logits.softmax(-1).cumsum(-1)
    point = uniform[:, None] * mass[:, -1:]  # the last may fall short of 1, and past it is no symbol
    drawn = torch.searchsorted(mass, point, right=True)[:, 0].clamp_(max=size - 1)
    return drawn if likeliest is None else torch.where(how.rows.greedy, likeliest, drawn)


class Stepper:
    """A model's decoder, all that the state does not change multiplied out. Float32, no gradients.

    Of a thing in sections each is a row.
    """

    @torch.inference_mode()
    def __init__(self, whole: SequenceVAE | HierarchicalVAE) -> None:
        self.whole = whole if isinstance(whole, HierarchicalVAE) else None
        self.each = whole.sections if isinstance(whole, HierarchicalVAE) else 1  # rows a thing
        model = whole.section if isinstance(whole, HierarchicalVAE) else whole
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
    def rows(self, z: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """What is decoded of z (B, Z) told conditions (B, C): z and conditions of B * each rows."""
        if self.whole is None:
            return z, conditions
        found = [z.new_empty(0, self.model.size.latent)]
        for first in range(0, len(z), MOST_ROWS):
            part, told = z[first : first + MOST_ROWS].float(), conditions[first : first + MOST_ROWS]
            found.append(self.whole.conducted(padded(part), padded(told))[: len(part) * self.each])
        return torch.cat(found), conditions.repeat_interleave(self.each, 0)

    def seeds(self, seed: int, rows: range) -> list[tuple[int, int]]:
        """Of each of some rows the seed and the number of its thing.

        The sections of a thing draw alike: each as it would by itself, and what z says twice is played twice.
        """
        return [(seed, row // self.each) for row in rows]

    def joined(self, rows: list[np.ndarray]) -> list[np.ndarray]:
        """Each thing's rows (T, K), one after the other."""
        if self.whole is None:
            return rows
        return [np.concatenate(rows[at : at + self.each]) for at in range(0, len(rows), self.each)]

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
        if k == 0 and (climb := self.streams[0].climb) is not None:
            logits.masked_fill_(self.symbols < last[:, None] + climb, -1e4)
        return logits

    @torch.inference_mode()
    def select(self, hidden: Tensor, last: Tensor, uniforms: Tensor, how: Ways) -> Tensor:
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


class Rows(NamedTuple):
    """N rows ready to be decoded."""

    state: tuple[Tensor, Tensor, Tensor, Tensor]  # of `Stepper.start`
    noise: Tensor | None  # (N, T, K), for draws
    how: Sampling

    def some(self, first: int, stop: int) -> Rows:
        part = slice(first, stop)
        h, c, constant, told = (own[part] for own in self.state)
        return Rows((h, c, constant, told), None if self.noise is None else self.noise[part], self.how)


@torch.inference_mode()
def prepared(
    stepper: Stepper,
    z: Tensor,
    conditions: Tensor,
    how: Sampling,
    seeds: Sequence[tuple[int, int]],
    steps: int,
) -> Rows:
    """Rows z (N, Z) told conditions (N, C), each with a seed for at most so many steps."""
    state = stepper.start(padded(z.float()), padded(conditions))
    noise = uniforms(seeds, steps, len(stepper.streams)) if how.temperature else None
    return Rows(state, noise, how).some(0, len(z))


def padded(rows: Tensor) -> Tensor:
    """(B, ...), a multiple of FEWEST_ROWS: the last row again and again."""
    return torch.cat((rows, rows[-1:].expand(-len(rows) % FEWEST_ROWS, *rows.shape[1:])))


Name = TypeVar("Name", bound=Hashable)


class Slots(Generic[Name]):
    """Rows that are decoded together, one step after another, and enter and leave between steps.

    The rows at work are the first `len(self)` slots; when some leave, the last ones take their places.
    """

    @torch.inference_mode()
    def __init__(self, stepper: Stepper, most: int, most_steps: int) -> None:
        """`most` rows at a time, a multiple of FEWEST_ROWS, of at most `most_steps` steps."""
        self.stepper, self.most, self.most_steps = stepper, most, most_steps
        self.names: list[Name] = []
        self.hows: list[Sampling] = []
        self.ways, self.kinds = Columns.of(GREEDY, most), Counter[Sampling]()
        wide, streams = stepper.recurrent.shape[0], len(stepper.streams)
        self.begin = torch.tensor([stream.size + START for stream in stepper.streams])
        self.state = tuple(torch.zeros(most, n) for n in (wide, wide, 4 * wide, stepper.project.shape[1]))
        self.previous = self.begin.repeat(most, 1)
        self.last = torch.full((most,), -1)  # stream 0 of the step before
        self.times = torch.zeros(most, dtype=torch.int64)  # steps a row has made
        self.noise = torch.zeros(most, most_steps, streams)
        self.written = torch.zeros(most, most_steps, streams, dtype=torch.int64)
        self.numbers = torch.arange(most)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def room(self) -> int:
        return self.most - len(self.names)

    @torch.inference_mode()
    def enter(self, names: Sequence[Name], rows: Rows) -> None:
        """Rows with a name each; no more than there is room for."""
        count, how = len(names), rows.how
        at = slice(len(self), len(self) + count)
        for own, new in zip(self.state, rows.state, strict=True):
            own[at] = new
        self.previous[at], self.last[at], self.times[at] = self.begin, -1, 0
        if rows.noise is not None:
            self.noise[at] = rows.noise
        for column, value in zip(self.ways, Columns.of(how, 1), strict=True):
            column[at] = value
        self.names += names
        self.hows += [how] * count
        self.kinds[how] += count

    @torch.inference_mode()
    def step(
        self, look: Callable[[Sequence[Name], Tensor], None] | None = None
    ) -> list[tuple[Name, np.ndarray]]:
        """One step of every row; those that are over leave, as (T, K) up to and with END.

        `look` is shown the names (B) and their symbols (B, K).
        """
        count, stepper = len(self), self.stepper
        rows = count + -count % FEWEST_ROWS
        numbers, times, last = self.numbers[:rows], self.times[:rows], self.last[:rows]
        times[count:] = 0  # what fills up the last eight rows begins again and again
        h, c, constant, told = (part[:rows] for part in self.state)
        hidden = stepper.advance((h, c, constant, told), self.previous[:rows])
        ways = Ways(Columns(*(column[:rows] for column in self.ways)), self.kinds)
        symbols = stepper.select(hidden, last, self.noise[numbers, times].T, ways)
        self.written[numbers, times] = symbols
        if look:
            look(self.names, symbols[:count])
        self.previous[:rows] = symbols
        torch.add(times, 1, out=times)
        last.copy_(symbols[:, 0])
        over = (last == len(stepper.symbols) - 1) | (times == self.most_steps)
        if not bool(over[:count].any()):
            return []
        gone = over[:count].nonzero()[:, 0].tolist()
        lengths = times[gone].tolist()
        found = [
            (self.names[row], self.written[row, :length].numpy().copy())
            for row, length in zip(gone, lengths, strict=True)
        ]
        self._leave(gone)
        return found

    def drop(self, wanted: Callable[[Name], bool]) -> None:
        """Rows whose names are not wanted leave."""
        if gone := [row for row, name in enumerate(self.names) if not wanted(name)]:
            self._leave(gone)

    @torch.inference_mode()
    def _leave(self, gone: list[int]) -> None:
        left, lost = len(self) - len(gone), set(gone)
        self.kinds -= Counter(self.hows[row] for row in gone)
        holes = [row for row in gone if row < left]
        movers = [row for row in range(left, len(self)) if row not in lost]
        if holes:
            at, of = torch.tensor(holes), torch.tensor(movers)
            columns = self.previous, self.last, self.times, self.noise, self.written
            for part in (*self.state, *columns, *self.ways):
                part[at] = part[of]
            for hole, mover in zip(holes, movers, strict=True):
                self.names[hole], self.hows[hole] = self.names[mover], self.hows[mover]
        del self.names[left:], self.hows[left:]


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
    A thing without END, in sections each without its own, stops at most_steps, else after as many as stream 0
    has symbols: an increasing one ends.
    Raises ValueError for a beam where a step has several streams.
    """
    if isinstance(stepper, ImageVAE):
        return drawn(stepper, z)
    if isinstance(how, Beam) and len(stepper.streams) > 1:
        raise ValueError("a beam is for codecs of one stream")
    z, conditions = stepper.rows(z, conditions)
    most_steps = most_steps // stepper.each if most_steps else stepper.streams[0].size
    if isinstance(how, Beam):
        return searched(stepper, z, conditions, how, most_steps)
    slots: Slots[int] = Slots(stepper, min(MOST_ROWS, len(z) + -len(z) % FEWEST_ROWS), most_steps)
    found: dict[int, np.ndarray] = {}
    ready, first, entered = None, 0, 0  # a block of rows that begins at `first`, and the next row to enter
    while len(found) < len(z):
        if entered < len(z) and slots.room:
            if ready is None or entered == first + len(ready.state[0]):
                first, block = entered, slice(entered, entered + MOST_ROWS)
                seeds = stepper.seeds(seed, range(len(z))[block])
                ready = prepared(stepper, z[block], conditions[block], how, seeds, most_steps)
            part = ready.some(entered - first, entered - first + slots.room)
            names = range(entered, entered + len(part.state[0]))
            slots.enter(names, part)
            entered = names.stop
        found.update(slots.step())
    return stepper.joined([found[row] for row in range(len(z))])


def searched(stepper: Stepper, z: Tensor, conditions: Tensor, how: Beam, most_steps: int) -> list[np.ndarray]:
    """The best sequences by beam search, a block of rows at a time."""
    out: list[np.ndarray] = []
    block = MOST_ROWS // how.width // FEWEST_ROWS * FEWEST_ROWS
    for first in range(0, len(z), block):
        part, told = z[first : first + block], conditions[first : first + block]
        out += stepper.search(padded(part.float()), padded(told), how, most_steps)[: len(part)]
    return out


def drawn(model: ImageVAE, z: Tensor) -> list[np.ndarray]:
    """z (B, Z) -> B arrays (H * W, C) int64, in batches as `decode` pads them."""
    out: list[np.ndarray] = []
    for part in z.float().split(MOST_ROWS):
        out += list(model.draw(padded(part))[: len(part)].numpy())
    return out
