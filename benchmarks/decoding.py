"""Decoding speed as a ratio: the hand-written step against its own products and a naive nn.LSTM.

    python benchmarks/decoding.py

One thread; random weights of the sizes of the `melody` recipe and of `ptb` with 10,000 words (speed does not
depend on them); 32 steps, no early END. The limit is the time of the step's matrix products alone (recurrent,
heads' hidden, each head's
scores) at the same sizes, interleaved with the measured runs; each figure is the median of 9 rounds.
"""

import statistics
import time

import torch

from seqvae.codecs import NotesCodec, Stream
from seqvae.decoding import FEWEST_ROWS, Sampling, Slots, Stepper, prepared
from seqvae.model import SequenceVAE
from seqvae.networks import START
from seqvae.recipes import RECIPES

STEPS, ROUNDS = 32, 9


def products(stepper: Stepper, rows: int) -> None:
    """The matrix products of STEPS steps, and nothing else."""
    h = torch.randn(rows, stepper.recurrent.shape[0])
    layer = torch.randn(rows, stepper.scores[0][0].shape[0])
    gates = torch.empty(rows, stepper.recurrent.shape[1])
    heads = torch.empty(rows, stepper.project.shape[1])
    scores = [torch.empty(rows, weight.shape[1]) for weight, _ in stepper.scores]
    for _ in range(STEPS):
        torch.mm(h, stepper.recurrent, out=gates)
        torch.mm(h, stepper.project, out=heads)
        for (weight, _), out in zip(stepper.scores, scores, strict=True):
            torch.mm(layer, weight, out=out)


def ours(stepper: Stepper, z: torch.Tensor, conditions: torch.Tensor) -> None:
    """As `decode` does it, in slots; `endless` keeps every row in them to the last step."""
    slots: Slots[int] = Slots(stepper, len(z), STEPS)
    seeds = [(0, row) for row in range(len(z))]
    slots.enter(range(len(z)), prepared(stepper, z, conditions, Sampling(), seeds, STEPS))
    while len(slots):
        slots.step()


def endless(stepper: Stepper) -> Stepper:
    """It never draws END."""
    weight, bias = stepper.scores[0]
    stepper.scores[0] = weight, torch.cat((bias[:-1], torch.tensor([-1e9])))
    return stepper


def naive(model: SequenceVAE, z: torch.Tensor, conditions: torch.Tensor) -> None:
    """The network as trained, called for one step at a time, symbols drawn with torch.multinomial."""
    decoder = model.decoder
    known = torch.cat((z, model.conditions(conditions)), -1)
    h, c = (part[None].contiguous() for part in decoder.first(known).tanh().chunk(2, -1))
    previous = torch.tensor([s.size + START for s in model.streams]).expand(len(z), 1, -1)
    for _ in range(STEPS):
        out, (h, c) = decoder.lstm(torch.cat((decoder.steps(previous), known[:, None]), -1), (h, c))
        heads = decoder.heads
        hidden = (heads.project(out[:, 0]) + heads.known(known)).split(heads.width, -1)
        chosen: list[torch.Tensor] = []
        for k, (weight, bias) in enumerate(heads.weights(decoder.steps)):
            layer = hidden[k]
            for symbols, rows in zip(chosen, heads.earlier[k], strict=True):
                layer = layer + rows(symbols)
            layer = layer if model.streams[k].kind == "word" else layer.relu()
            scores = torch.nn.functional.linear(layer, weight, bias)
            chosen.append(torch.multinomial(scores.softmax(-1), 1)[:, 0])
        previous = torch.stack(chosen, -1)[:, None]


def measure(name: str, model: SequenceVAE, told: list[int]) -> None:
    stepper = endless(Stepper(model))
    print(f"{name}\nbatch  rows  ours tok/s  of the limit  times naive")
    for batch in (1, 100, 512):
        rows = batch + -batch % FEWEST_ROWS  # as decode() pads
        z = torch.randn(rows, model.size.latent)
        conditions = torch.tensor([told], dtype=torch.int64).expand(rows, -1)
        jobs = {
            "limit": lambda rows=rows: products(stepper, rows),
            "ours": lambda z=z, c=conditions: ours(stepper, z, c),
            "naive": lambda z=z, c=conditions, n=batch: naive(model, z[:n], c[:n]),
        }
        took: dict[str, list[float]] = {name: [] for name in jobs}
        for _ in range(ROUNDS + 1):
            for job_name, job in jobs.items():
                start = time.perf_counter()
                job()
                took[job_name].append(time.perf_counter() - start)
        limit, own, slow = (statistics.median(times[1:]) for times in took.values())
        print(f"{batch:5}  {rows:4}  {batch * STEPS / own:10.0f}  {limit / own:12.2f}  {slow / own:11.2f}")


def main() -> None:
    torch.set_num_threads(1)
    codec = NotesCodec()
    words = (Stream("symbol", "word", 10_000),)
    with torch.inference_mode():
        melodies = SequenceVAE(codec.streams, codec.conditions, RECIPES["melody"].size)
        measure("melodies", melodies.eval(), [4, 2])
        measure("words", SequenceVAE(words, (), RECIPES["ptb"].size).eval(), [])


if __name__ == "__main__":
    main()
