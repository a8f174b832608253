"""Speed of the importance-weighted nll as a ratio: against its own matrix products and a naive nn.LSTM.

    python benchmarks/importance.py

One thread; random weights of a word model of PTB's size (speed does not depend on them): 10,000 words,
embedding and LSTM 256, z 32; sentences of 22 steps, 500 samples. Ours is all of `importance_nll`: encoder,
noise, tables and log totals. The limit is the time of its matrix products alone at the same sizes, the scores
cut into the same blocks (uncut they are slower). Naive is the network as trained over repeated rows, then
log_softmax. The three are interleaved, and timed in seconds of this process, which what else runs lengthens
through the caches alone. Times are medians of 5 rounds, ratios are medians of each round's own.
"""

import math
import statistics
import time

import torch
from torch import Tensor

from seqvae.codecs.base import Stream
from seqvae.decoding import Stepper
from seqvae.importance import BLOCK, importance_nll
from seqvae.model import SequenceVAE, Size

WORDS, SENTENCES, STEPS, SAMPLES, ROUNDS = 10_000, 4, 22, 500, 5
SIZE = Size((256,), encoder=256, decoder=256, head=256, latent=32)


def products(model: SequenceVAE, stepper: Stepper) -> None:
    """The matrix products of SENTENCES estimates, and nothing else."""
    decoder = model.decoder
    h, layer, z = torch.randn(SAMPLES, 256), torch.randn(SAMPLES, 256), torch.randn(SAMPLES, SIZE.latent)
    gates, scores = torch.empty(SAMPLES, 4 * 256), torch.empty(SAMPLES * BLOCK)
    blocks = [
        (block, scores[: SAMPLES * block.shape[1]].view(SAMPLES, -1))
        for block in stepper.scores[0][0].split(BLOCK, 1)
    ]
    torch.mm(
        decoder.steps.tables[0].weight, decoder.lstm.weight_ih_l0[:, :256].T
    )  # the words' shares of gates
    for _ in range(SENTENCES):
        for weight in (decoder.first.weight, stepper.known, decoder.heads.known.weight):
            torch.mm(z, weight.T)
        for _ in range(STEPS):
            torch.mm(h, stepper.recurrent, out=gates)
            torch.mm(h, stepper.project, out=layer)
            for block, out in blocks:
                torch.mm(layer, block, out=out)


def naive(model: SequenceVAE, steps: Tensor, lengths: Tensor, conditions: Tensor) -> Tensor:
    """Each sentence repeated for its samples, through nn.LSTM and log_softmax over all words at once."""
    found = []
    for x, length, told in zip(steps, lengths, conditions, strict=True):
        posterior = model.encode(x[None], length[None], told[None])
        noise = torch.randn(SAMPLES, SIZE.latent)
        z = posterior.sample(noise)
        repeated = x.expand(SAMPLES, -1, -1)
        scores = model.decode(z, repeated, told.expand(SAMPLES, -1))[0].log_softmax(-1)
        own = scores.gather(-1, repeated)[..., 0].sum(1)
        ratio = 0.5 * (noise.square() + posterior.logvar - z.square()).sum(1)
        found.append(math.log(SAMPLES) - torch.logsumexp(own + ratio, 0))
    return torch.stack(found)


@torch.inference_mode()
def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = SequenceVAE((Stream("symbol", "word", WORDS),), (), SIZE).eval()
    stepper = Stepper(model)
    batch = (
        torch.randint(WORDS, (SENTENCES, STEPS, 1)),
        torch.full((SENTENCES,), STEPS),
        torch.zeros(SENTENCES, 0, dtype=torch.int64),
    )
    jobs = {
        "limit": lambda: products(model, stepper),
        "ours": lambda: importance_nll(model, *batch, samples=SAMPLES),
        "naive": lambda: naive(model, *batch),
    }
    took: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(ROUNDS + 1):
        for name, job in jobs.items():
            start = time.process_time()
            job()
            took[name].append((time.process_time() - start) / SENTENCES)
    print("       s/sentence  times the products")
    for name, times in took.items():
        ratio = statistics.median(
            own / limit for own, limit in zip(times[1:], took["limit"][1:], strict=True)
        )
        print(f"{name:6} {statistics.median(times[1:]):10.2f} {ratio:19.2f}")


if __name__ == "__main__":
    main()
