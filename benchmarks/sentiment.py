"""A sentiment attribute judged by a classifier that never saw the model's texts.

    python benchmarks/sentiment.py split NEGATIVE POSITIVE OUT
    seqvae prepare OUT/model.txt -o OUT/corpus && seqvae train OUT/corpus -o OUT/run ...
    python benchmarks/sentiment.py measure OUT/run OUT

`split` deals the lines of two files of labelled reviews: of every twenty, sixteen to the model (model.txt,
and by label model.0.txt, model.1.txt), three to the judge, one to the test. `measure` learns the attribute of
the model's texts, trains the judge, a logistic regression on words and pairs of words, on its own, and brings
500 test texts of each label to five places towards the other, greedy. Flips are the shares that the judge
calls of the other label, among texts it calls right as they stand. Words kept is the recall of content words
that are no words of sentiment: neither among the 100 commonest, nor seen 10 times by the judge with 70 % or
more of their share in one label.
"""

import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from zlib import crc32

import torch
from torch import Tensor, nn

from seqvae.checkpoint import load_attribute
from seqvae.metrics import text
from seqvae.pipeline import Pipeline

SCALES, TESTED, BUCKETS = (0.0, 1.0, 2.0, 2.8, 3.5), 500, 2**18


def split(negative: str, positive: str, out: str) -> None:
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    both: list[str] = []
    for label, source in enumerate((negative, positive)):
        lines = dict.fromkeys(Path(source).read_text(encoding="utf-8").splitlines())
        parts: dict[str, list[str]] = {"model": [], "judge": [], "test": []}
        for line in filter(str.strip, lines):
            at = crc32(line.encode()) % 20
            parts["model" if at < 16 else "judge" if at < 19 else "test"].append(line)
        for name, texts in parts.items():
            (folder / f"{name}.{label}.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
        both += parts["model"]
    (folder / "model.txt").write_text("\n".join(both) + "\n", encoding="utf-8")


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def features(texts: list[str]) -> tuple[Tensor, Tensor]:
    """Hashed words and pairs of words of all texts end to end, and where each begins."""
    rows = [[*one.split(), *map(" ".join, pairwise(one.split()))] or [""] for one in texts]
    starts = torch.tensor([0, *(len(row) for row in rows)])[:-1].cumsum(0)
    return torch.tensor([crc32(word.encode()) % BUCKETS for row in rows for word in row]), starts


class Judge(nn.Module):
    """The log odds that a text is positive."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.EmbeddingBag(BUCKETS, 1, mode="mean")
        nn.init.zeros_(self.weights.weight)
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, texts: list[str]) -> Tensor:
        return self.weights(*features(texts))[:, 0] + self.bias

    def learn(self, texts: list[str], labels: Tensor, epochs: int = 3) -> None:
        adam = torch.optim.Adam(self.parameters(), 0.1)
        generator = torch.Generator().manual_seed(0)
        for _ in range(epochs):
            for batch in torch.randperm(len(texts), generator=generator).split(1024):
                loss = nn.functional.binary_cross_entropy_with_logits(
                    self([texts[i] for i in batch]), labels[batch]
                )
                adam.zero_grad()
                loss.backward()
                adam.step()


def measure(run: str, out: str) -> None:
    torch.set_num_threads(1)
    folder, pipeline = Path(out), Pipeline.from_pretrained(run)
    learnt = folder / "sentiment.safetensors"
    pipeline.learn_attribute([folder / "model.0.txt", folder / "model.1.txt"], learnt)
    attribute = load_attribute(learnt, pipeline.saved)
    known = [lines(folder / f"judge.{label}.txt") for label in (0, 1)]
    judge, labels = Judge(), torch.cat([torch.full((len(part),), float(i)) for i, part in enumerate(known)])
    judge.learn(known[0] + known[1], labels)
    counts = [Counter(word for one in part for word in one.split()) for part in known]
    common = set(text.common_words(known[0] + known[1]))
    share = [{word: counts[i][word] / len(known[i]) for word in counts[i]} for i in (0, 1)]
    for word in {*counts[0], *counts[1]}:
        low, high = share[0].get(word, 0.0), share[1].get(word, 0.0)
        if counts[0][word] + counts[1][word] >= 10 and max(low, high) >= 0.7 * (low + high):
            common.add(word)
    tested = [lines(folder / f"test.{label}.txt")[:TESTED] for label in (0, 1)]
    with torch.inference_mode():
        right = [[bool((logit > 0) == label) for logit in judge(tested[label])] for label in (0, 1)]
        hits = sum(map(sum, right)) / sum(map(len, right))
        print(f"the judge is right of {hits:.3f} of the test texts as they stand")
        print("scale  flipped  kept its label  non-sentiment content words kept  BLEU")
        for scale in SCALES:
            flipped, pairs = [], []
            for label in (0, 1):
                moved = pipeline.decode(
                    attribute.shift(pipeline.encode(tested[label]), scale * (1 - 2 * label))
                )
                other = [bool((logit > 0) != label) for logit in judge(moved)]
                flipped += [flip for flip, sure in zip(other, right[label], strict=True) if sure]
                pairs += list(zip(tested[label], moved, strict=True))
            share_flipped, kept = sum(flipped) / len(flipped), text.compared(pairs, frozenset(common))
            words, bleu = kept["content_word_recall"], kept["bleu"]
            print(f"{scale:5}  {share_flipped:7.3f}  {1 - share_flipped:14.3f}  {words:32.3f}  {bleu:4.1f}")


if __name__ == "__main__":
    {"split": split, "measure": measure}[sys.argv[1]](*sys.argv[2:])
