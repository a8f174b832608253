"""What commands say: tables, and progress past two seconds; rich on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID
    from rich.status import Status

PATIENCE = 2.0  # seconds of silence
PLACES = (-1.0, -0.5, 0.0, 0.5, 1.0)  # to which a shift goes, unless told
EVERY = 10.0  # seconds between two plain lines


def opened(name: str) -> Any:
    """A pipeline of the model's kind."""
    import torch

    from seqvae.pipeline import Pipeline

    torch.set_num_threads(1)  # a few rows gain nothing from a second, and every machine gives the same bytes
    return Pipeline.from_pretrained(name)


def given(context: click.Context) -> list[click.Parameter]:
    """The parameters that stand on the command line."""
    return [
        parameter
        for parameter in context.command.params
        if context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
    ]


def goals(scales: Sequence[float], steps: Sequence[float]) -> tuple[str, Sequence[float]]:
    """What is asked of an attribute: "at" its places, or "by" how much from where a thing is."""
    if scales and steps:
        raise click.UsageError("--scale brings to places, --by moves from where a thing is: give one of them")
    return ("by", steps) if steps else ("at", scales or PLACES)


def origin(pipeline: Any, prior: str, seed: int, things: str) -> str:
    """Where samples come from; things are what the model was trained on."""
    fitted = prior == "fitted" and pipeline.saved.mixture is not None
    learns = pipeline.saved.model.size.learns_prior
    other = "the prior learnt with the model" if learns else "the standard normal prior"
    source = f"the widened posteriors of training {things}" if fitted else other
    return f"drawn from {source} with seed {seed}"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Rows under their columns on stdout; columns of numbers stand to the right."""
    rows = list(rows)
    cells = [[str(cell) for cell in row] for row in rows]
    right = [all(isinstance(row[i], int | float) for row in rows) for i in range(len(columns))]
    if not sys.stdout.isatty():
        widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
        for line in (columns, *cells):
            padded = zip(line, widths, right, strict=True)
            click.echo("  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in padded).rstrip())
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=SIMPLE_HEAD)
    for name, number in zip(columns, right, strict=True):
        grid.add_column(name, justify="right" if number else "left", overflow="fold")
    for line in cells:
        grid.add_row(*map(Text, line))
    Console().print(grid)


class Progress:
    """Told (stage, done, of how many, a remark), says so on stderr once a stage has taken PATIENCE seconds.

    Of how many is 0 where nobody knows. On a terminal that is a bar, before it a spinner while nothing is
    told; elsewhere a line now and then.
    """

    def __init__(self) -> None:
        self.begun: dict[str, float] = {}  # stage -> seconds
        self.said = 0.0  # seconds
        self.tasks: dict[str, TaskID] = {}
        self.bar: Bar | None = None
        self.spinner: Status | None = None
        self.timer = threading.Timer(PATIENCE, self._spin)
        self.timer.daemon = True

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            self.timer.start()
        return self

    def __exit__(self, *fault: object) -> None:
        self._still()
        if self.bar is not None:
            self.bar.stop()

    def __call__(self, stage: str, done: int, total: int, remark: str = "") -> None:
        now = time.monotonic()
        if now - self.begun.setdefault(stage, now) < PATIENCE:
            return
        if sys.stderr.isatty():
            self._draw(stage, done, total, remark)
        elif now - self.said >= EVERY or done == total:
            self.said = now
            of = f" of {total}" if total else ""
            click.echo(f"{stage} {done}{of}{'  ' * bool(remark)}{remark}", err=True)

    def say(self, line: str) -> None:
        """A line that stays."""
        self._still()
        if self.bar is not None:
            self.bar.console.print(line, markup=False, highlight=False)
        else:
            click.echo(line, err=True)

    def _spin(self) -> None:
        from rich.console import Console
        from rich.status import Status

        self.spinner = Status("working", console=Console(stderr=True))
        self.spinner.start()

    def _still(self) -> None:
        """No spinner from here on."""
        self.timer.cancel()
        if self.timer.is_alive():
            self.timer.join()
        if self.spinner is not None:
            self.spinner.stop()

    def _draw(self, stage: str, done: int, total: int, remark: str) -> None:
        if self.bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._still()
            about, note = TextColumn("{task.description}"), TextColumn("{task.fields[remark]}")
            columns = (about, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), note)
            self.bar = Bar(*columns, console=Console(stderr=True))
            self.bar.start()
        if stage not in self.tasks:
            self.tasks[stage] = self.bar.add_task(stage, total=total or None, remark=remark)
        self.bar.update(self.tasks[stage], completed=done, total=total or None, remark=remark)
