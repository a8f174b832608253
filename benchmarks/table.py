"""What the tables of many trainings share: one run after another, what each is worth, a line each."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

from seqvae.checkpoint import load_model
from seqvae.corpus import Corpus
from seqvae.evaluation import bounds, chosen, posteriors, tightened
from seqvae.train import train

Settings = dict[str, str]


def fill(
    source: Path,
    out: Path,
    recipe: str,
    runs: dict[str, Settings],
    measure: Callable[[Path, Corpus], dict[str, float]],
) -> None:
    """Trains and measures every run unless its folder holds its figures; it goes on where it was.

    Minutes are of the CPU, all threads together, so that other work beside does not count; of a run that was
    cut off they are those after the last start.
    """
    corpus = Corpus.open(source)
    for name, settings in runs.items():
        folder = out / re.sub(r"\W+", "-", name)
        kept = folder / "figures.json"
        if not kept.exists():
            start = time.process_time()
            best = train(source, recipe, folder, settings, resume=True)
            found = {"minutes": (time.process_time() - start) / 60} | measure(best, corpus)
            kept.write_text(json.dumps(found, indent=1))
        row: dict[str, float] = json.loads(kept.read_text())
        cells = [row["nll"] + row["kl"], row["iw_nll"], row["kl"], row["mi"]]
        shown = [f"{value:.2f}" for value in cells] + [f"{row['active_units']:.0f}", f"{row['minutes']:.1f}"]
        print(f"| {name} | {' | '.join(shown)} |", flush=True)


def worth(folder: Path, corpus: Corpus, some: int, samples: int, drawn: bool) -> dict[str, float]:
    """Bounds of the whole test split, and the importance-weighted nll of some of it, drawn or the first."""
    saved, everything = load_model(folder), chosen(corpus, "test", None)
    found = posteriors(saved.model, corpus, "test", everything)
    figures = bounds(saved.model, corpus, "test", everything, found)
    few = chosen(corpus, "test", some) if drawn else everything[:some]
    return figures | tightened(saved.model, corpus, "test", few, samples)
