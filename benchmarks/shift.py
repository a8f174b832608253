"""What a shift by one standard deviation does to melodies that a model has not seen.

    python benchmarks/shift.py MODEL CORPUS [SPLIT [METHOD]]

By the model's own attributes, or by those learnt of the train split by METHOD: regression or difference,
"+orthogonal" after it. Things are windows of SPLIT (test), 1,000 drawn, each beside its reconstruction. A
measure is tried by +1 on those whose reconstruction lies below the 75th percentile of the train split. Moves
are in standard deviations of the train split: `own` of the measure itself, `others` the absolute moves of the
other measures, averaged over windows and measures, and `most` those of the one that moves most. Contour is
the share of equal signs, up, down or level, in the contour adjacency series (Friedmann 1985) of the shifted
and the reconstructed window over the onsets they share, all windows together. A mode flips where
`song.find_key` calls the reconstruction minor and the shifted window major, or the reverse.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from seqvae.attributes import MEASURES
from seqvae.checkpoint import load_attribute
from seqvae.corpus import Corpus
from seqvae.decoding import GREEDY
from seqvae.engine import Place, attributes_of, find_model
from seqvae.evaluation import chosen, posteriors
from seqvae.latent import Attribute
from seqvae.melodies import Melodies
from seqvae.pipeline import Pipeline
from seqvae.song import TICKS, Phrase

MOST = 1_000  # windows
NAMES = list(MEASURES["melody"])
MODE = NAMES.index("mode")


def numbers(phrases: list[Phrase]) -> np.ndarray:
    """(N, M) every measure."""
    return np.array([[measure(phrase) for measure in MEASURES["melody"].values()] for phrase in phrases])


def contour(pairs: list[tuple[Phrase, Phrase]]) -> float:
    """Share of equal signs of the steps between onsets that both of a pair have."""
    equal = total = 0
    for pair in pairs:
        one, other = ({round(note.onset * TICKS): note.pitch for note in phrase.notes} for phrase in pair)
        shared = sorted(one.keys() & other.keys())
        signs = [np.sign(np.diff([line[at] for at in shared])) for line in (one, other)]
        equal, total = equal + int((signs[0] == signs[1]).sum()), total + len(signs[0])
    return equal / max(total, 1)


def learnt(model: Melodies, name: str, corpus: str, method: str) -> dict[str, Attribute]:
    if not method:
        return {
            one: load_attribute(path, model.saved) for one, path in attributes_of(find_model(name)).items()
        }
    kind, _, orthogonal = method.partition("+")
    with tempfile.TemporaryDirectory() as folder:
        files = {one: Path(folder) / one for one in NAMES}
        model.learn_measures(Path(corpus), files, kind, bool(orthogonal))
        return {one: load_attribute(path, model.saved) for one, path in files.items()}


def main(name: str, corpus: str, split: str = "test", method: str = "") -> None:
    torch.set_num_threads(1)
    model, data = Pipeline.from_pretrained(name), Corpus.open(corpus)
    attributes, windows = learnt(model, name, corpus, method), chosen(data, split, MOST)
    z = posteriors(model.saved.model, data, split, windows).mean
    told = np.stack([data.window(split, i).condition for i in windows])
    same = model.decoded(z, told, GREEDY, 0)
    train = numbers([model.codec.decode(*data.window("train", i)) for i in range(len(data.split("train")))])
    high, deviation, before = np.quantile(train, 0.75, axis=0), train.std(0), numbers(same)

    def moved(measure: str, by: float, rows: np.ndarray) -> tuple[list[Phrase], np.ndarray]:
        there = model.shifted(z[rows], told[rows], [[Place(attributes[measure], by, True)]])[0]
        phrases = model.decoded(there, told[rows], GREEDY, 0)
        return phrases, (numbers(phrases) - before[rows]) / deviation

    print(f"| {split}, {method or 'stored'} | windows | rises | own | others | most | contour |")
    print("|---|---|---|---|---|---|---|")
    for k, measure in enumerate(NAMES):
        rows = np.flatnonzero(before[:, k] < high[k] - 1e-9)
        phrases, moves = moved(measure, 1.0, rows)
        others, which = np.abs(np.delete(moves, k, 1)).mean(0), [one for one in NAMES if one != measure]
        agree = contour([(same[row], phrase) for row, phrase in zip(rows, phrases, strict=True)])
        print(
            f"| {measure} | {len(rows):,} | {(moves[:, k] > 1e-9).mean():.3f} | {moves[:, k].mean():.2f} | "
            f"{others.mean():.2f} | {others.max():.2f} {which[others.argmax()]} | {agree:.3f} |",
            flush=True,
        )
    order = np.random.default_rng(0).permutation(len(windows))
    print(
        f"contour of two windows by chance: {contour([(same[i], same[j]) for i, j in enumerate(order)]):.3f}"
    )
    for sign, kinds in ((1, "minor to major"), (-1, "major to minor")):
        rows = np.flatnonzero(before[:, MODE] < 0 if sign > 0 else before[:, MODE] >= 0)
        for by in (1.0, 2.0):
            after = before[rows, MODE] + moved("mode", sign * by, rows)[1][:, MODE] * deviation[MODE]
            flipped = (after >= -1e-9 if sign > 0 else after < -1e-9).mean()
            print(f"mode by {sign * by:+g}, {kinds}: {flipped:.3f} of {len(rows):,} windows", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
