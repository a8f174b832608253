"""Which spelling of a melody is better: notes, or MusicVAE's events on a grid of sixteenths.

    python benchmarks/spelling.py NOTES GRID OUT [MINUTES] [CAPACITY]

NOTES and GRID are corpora of the same songs (`seqvae prepare folk -o NOTES`, `seqvae prepare folk --codec
melody -o GRID`), whose splits are of the same tunes. Both train networks of one size on windows of two bars,
seed 0, for MINUTES of CPU time (20): a step of each is timed first, and the learning rate falls to zero at
the last. The objective is |KL - CAPACITY| (30 nats) of weight 1, so that both end at one KL. The table is of
the test windows of NOTES, rendered by both to the same ticks (12 a quarter), and of those among them that the
grid holds exactly. A training that was cut off goes on, with the minutes it was given.
"""

import json
import sys
from pathlib import Path
from time import process_time

import numpy as np
import torch

from seqvae.checkpoint import load_model
from seqvae.corpus import Corpus
from seqvae.decoding import GREEDY
from seqvae.evaluation import chosen, compare_melodies, held
from seqvae.melodies import Melodies
from seqvae.metrics import music
from seqvae.recipes import RECIPES, Recipe, override
from seqvae.song import Phrase
from seqvae.train import Run, train

TIMED = 40  # steps
NAMES = {"notes": "melody", "grid": "grid"}  # recipes


def recipe(name: str, steps: int, capacity: float) -> Recipe:
    given = {"beta": "1", "capacity": f"{capacity:g}", "warmup": str(steps // 2), "steps": str(steps)}
    return override(RECIPES[NAMES[name]], given | {"evaluate_every": str(steps // 4)})


def pace(corpus: Corpus, name: str, capacity: float, out: Path) -> float:
    """CPU seconds a step."""
    run = Run(corpus, recipe(name, 10_000, capacity), out, None)
    batches = run.batches()
    for _ in range(TIMED // 4):
        run.update(next(batches))
    start = process_time()
    for _ in range(TIMED):
        run.update(next(batches))
    return (process_time() - start) / TIMED


@torch.inference_mode()
def rebuilt(model: Melodies, phrases: list[Phrase]) -> tuple[list[Phrase], float]:
    """Greedy reconstructions from the posterior means, and the mean KL (nats)."""
    spelt = [model.codec.encode(phrase) for phrase in phrases]
    posterior = model._posterior(spelt)
    told = np.stack([one.condition for one in spelt])
    return model.decoded(posterior.mean, told, GREEDY, 0), posterior.kl().sum(1).mean().item()


def main() -> None:
    notes, grid, out = map(Path, sys.argv[1:4])
    minutes, capacity = (float(text) for text in [*sys.argv[4:], "20", "30"][:2])
    torch.set_num_threads(1)
    corpora = {"notes": Corpus.open(notes), "grid": Corpus.open(grid)}
    plan = out / "steps.json"
    if not plan.exists():
        each = {name: pace(corpus, name, capacity, out / "timed") for name, corpus in corpora.items()}
        steps = {name: round(60 * minutes / seconds) for name, seconds in each.items()}
        out.mkdir(parents=True, exist_ok=True)
        plan.write_text(json.dumps(steps))
    steps = json.loads(plan.read_text())
    phrases = held(corpora["notes"], "test", chosen(corpora["notes"], "test", None))
    exact = np.array([music.whole_window_exact(one, corpora["grid"].codec.snap(one)) for one in phrases])
    print(f"{len(phrases)} windows, {exact.mean():.1%} of them exact on the grid")
    print("| spelling | steps | KL | onset+pitch F1 | onset F1 | whole windows | F1 of what the grid holds |")
    for name, corpus in corpora.items():
        run = recipe(name, steps[name], capacity)
        model = Melodies(load_model(train(corpus.folder, run, out / name, resume=True)))
        estimates, kl = rebuilt(model, phrases)
        pairs = list(zip(phrases, estimates, strict=True))
        found = compare_melodies(corpus, pairs)
        inside = compare_melodies(corpus, [pair for pair, whole in zip(pairs, exact, strict=True) if whole])
        cells = [*found.values(), inside["onset_pitch_f1"]]
        shown = " | ".join(f"{value:.3f}" for value in cells)
        print(f"| {name} | {steps[name]} | {kl:.1f} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
