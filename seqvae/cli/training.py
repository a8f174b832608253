"""train, evaluate, models, attributes learn."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from seqvae.cli.console import Progress, given, table

FIGURES = ("nll", "kl", "mi", "active_units", "weight", "perplexity", "onset_pitch_f1", "bleu")
PILES = ("corpus", "samples")  # whose figures stand side by side


@click.command()
@click.argument("corpus", type=click.Path(path_type=Path))
@click.option("--recipe", help="The numbers to train by.  [default: by what the corpus holds]")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Another number, such as beta=0.2."
)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), default="run", show_default=True, help="Run folder."
)
@click.option(
    "--from",
    "start",
    metavar="NAME|DIR",
    help="Begin from a model's weights (its recipe's sizes); of one with latent=0 as the decoder.",
)
@click.option("--resume", is_flag=True, help="Go on where the run was interrupted.")
def train(
    corpus: Path, recipe: str | None, settings: tuple[str, ...], out: Path, start: str | None, resume: bool
) -> None:
    """Train a model on a CORPUS made by prepare, or on a file or folder as prepare takes it.

    Of the latter a corpus is made first, in the run folder.
    """
    overrides = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise click.UsageError(f'a setting is written KEY=VALUE, not "{setting}"')
        overrides[name.strip()] = value.strip()
    from seqvae import train as training
    from seqvae.cli.corpora import prepared
    from seqvae.engine import find_model

    begun = find_model(start) if start else None
    with Progress() as tell:
        corpus = prepared(corpus, out / "corpus", tell)

        def show(step: int, total: int, figures: dict[str, float], message: str) -> None:
            remark = "  ".join(f"{name} {figures[name]:.4g}" for name in FIGURES if name in figures)
            if "active_units" in figures:  # an evaluation
                tell.say(f"step {step}: {remark}")
            if message:
                tell.say(f"note: {message}")
            tell("training step", step, total, remark)

        best = training.train(corpus, recipe, out, overrides, start=begun, resume=resume, progress=show)
    if os.environ.get("RANK", "0") == "0":  # torchrun's first process speaks for all
        click.echo(f"the best model is {best}: try seqvae generate --model {out}")


@click.command()
@click.argument("model")
@click.argument("corpus", type=click.Path(path_type=Path))
@click.option("--split", type=click.Choice(["train", "valid", "test"]), default="test", show_default=True)
@click.option("--limit", type=click.IntRange(1), help="At most so many windows.")
@click.option(
    "--importance",
    type=click.IntRange(0, 100_000),
    default=0,
    help="Also the importance-weighted nll of so many samples; papers take 500.",
)
@click.option(
    "--language-model", "language", metavar="NAME|DIR",
    help="Also its perplexity of samples and paths; a model trained with latent=0.",
)  # fmt: skip
@click.option("--temperature", type=float, default=1.0, show_default=True, help="Of the samples.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evaluate(
    model: str,
    corpus: Path,
    split: str,
    limit: int | None,
    importance: int,
    language: str | None,
    temperature: float,
    as_json: bool,
) -> None:
    """Measure a MODEL (a name or folder) on a CORPUS."""
    from seqvae import evaluation
    from seqvae.engine import find_model, sampling

    sampling(temperature, 0, 1.0)
    judge = find_model(language) if language else None
    figures = evaluation.evaluate(find_model(model), corpus, split, limit, importance, judge, temperature)
    if as_json:
        click.echo(json.dumps(figures, indent=1))
    else:
        piles = {name: dict(flat(figures.pop(name))) for name in list(figures) if name.startswith(PILES)}
        table(("figure", "value"), flat(figures))
        click.echo()
        rows = dict.fromkeys(row for pile in piles.values() for row in pile)
        table(("figure", *piles), [(row, *(pile.get(row, "") for pile in piles.values())) for row in rows])


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def models(as_json: bool) -> None:
    """List the embedded models."""
    from seqvae import engine

    rows = [about(name, folder) for name, folder in engine.models().items()]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    elif rows:
        table(list(rows[0]), [list(row.values()) for row in rows])
    else:
        click.echo("no model is embedded; seqvae train makes one of your own files")


@click.group()
def attributes() -> None:
    """Learn ways through the latent space."""


@attributes.command()
@click.argument("what", metavar="FILE [FILE] | MEASURE...", nargs=-1, required=True)
@click.option("--label", metavar="NAME", help="Files: column of labels; found by itself otherwise.")
@click.option(
    "--corpus",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Measures: made by prepare, like the model's.",
)
@click.option(
    "--method",
    type=click.Choice(["regression", "difference"]),
    default="regression",
    show_default=True,
    help="Measures: by all windows, or by the quarters that have most and least.",
)
@click.option("--orthogonal", is_flag=True, help="Measures: the others of the kind stay as they are.")
@click.option("-m", "--model", default="sentences", show_default=True, metavar="NAME|DIR")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), required=True,
    help="File, .safetensors; of several measures the folder of their files.",
)  # fmt: skip
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=20_000,
    show_default=True,
    help="Things of each kind, or windows.",
)
def learn(
    what: tuple[str, ...], label: str | None, corpus: Path | None, method: str, orthogonal: bool, model: str,
    out: Path, limit: int,
) -> None:  # fmt: skip
    """From two files of texts what leads from the one kind to the other; or from one file with two labels.

    Pictures are read from folders, whose names label what is in them, or .npz files. With --corpus, the ways
    along which measures rise, such as note-density of melodies, from the train split of a prepared corpus.
    """
    from seqvae.cli.console import opened

    asked = {parameter.name for parameter in given(click.get_current_context())}
    if corpus is None:
        if wrong := asked & {"method", "orthogonal"}:
            raise click.UsageError(f"--{min(wrong)} is how measures are learnt: give their --corpus")
        if len(what) > 2 or (label and len(what) > 1):
            raise click.UsageError("an attribute is learnt of two files, or of one with labels")
        counts = opened(model).learn_attribute([Path(name) for name in what], out, label, limit)
        table(("kind", "count"), counts.items())
    else:
        if label:
            raise click.UsageError("--label names what kinds stand in, and measures have no kinds")
        files = {name: out / f"{name}.safetensors" if len(what) > 1 else out for name in what}
        count = opened(model).learn_measures(corpus, files, method, orthogonal, limit)
        table(("measure", "windows"), [(name, count) for name in files])
        out = min(files.values())
    click.echo(f"the attribute is {out}: try seqvae shift WHAT --model {model} --attribute {out}")


def flat(figures: dict[str, Any], above: str = "") -> Iterator[tuple[str, object]]:
    """Nested figures as rows of a dotted name and a value."""
    for name, value in figures.items():
        if isinstance(value, dict):
            yield from flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", f"{value:.4g}" if isinstance(value, float) else value


def about(name: str, folder: Path) -> dict[str, str]:
    """A model's row; a figure its config.json does not hold is blank."""
    from seqvae.checkpoint import read_config
    from seqvae.engine import attributes_of

    config = read_config(folder)
    kl = next((config[at]["kl"] for at in ("figures", "test", "valid") if "kl" in config.get(at, {})), None)
    size = (folder / "model.safetensors").stat().st_size
    return {
        "name": name,
        "kind": str(config.get("codec", {}).get("name", "")),
        "what": str(config.get("what") or config.get("recipe", {}).get("about", "")),
        "size": f"{size / 1e6:.1f} MB",
        "KL": f"{kl:.1f} nats" if kl is not None else "",
        "licence": str(config.get("licence", "")),
        "attributes": ", ".join(attributes_of(folder)),
    }
