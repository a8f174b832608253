"""What commands say: tables, and progress past two seconds; rich on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

PATIENCE = 2.0  # seconds of silence
EVERY = 10.0  # seconds between two plain lines


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Rows under their columns on stdout; numbers stand to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    right = [all(cell[:1].isdigit() for cell in column) for column in zip(*cells, strict=True)]
    if not sys.stdout.isatty():
        lines = [list(columns), *cells]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            padded = zip(line, widths, right or [False] * len(line), strict=True)
            click.echo("  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in padded).rstrip())
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=SIMPLE_HEAD)
    for name, number in zip(columns, right or [False] * len(columns), strict=True):
        grid.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in cells:
        grid.add_row(*map(Text, row))
    Console().print(grid)


class Progress:
    """Told (stage, done, of how many, a remark), it says so on stderr: by a bar, or lines if no terminal."""

    def __init__(self) -> None:
        self.begun = self.said = time.monotonic()
        self.bar: Bar | None = None
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *fault: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def __call__(self, stage: str, done: int, total: int, remark: str = "") -> None:
        now = time.monotonic()
        if now - self.begun < PATIENCE:
            return
        if sys.stderr.isatty():
            self._draw(stage, done, total, remark)
        elif now - self.said >= EVERY or self.said == self.begun or done == total:
            self.said = now
            click.echo(f"{stage} {done} of {total}{'  ' * bool(remark)}{remark}", err=True)

    def say(self, line: str) -> None:
        """A line that stays, above the bar."""
        if self.bar is not None:
            self.bar.console.print(line, markup=False, highlight=False)
        else:
            click.echo(line, err=True)

    def _draw(self, stage: str, done: int, total: int, remark: str) -> None:
        if self.bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            about, note = TextColumn("{task.description}"), TextColumn("{task.fields[remark]}")
            columns = (about, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), note)
            self.bar = Bar(*columns, console=Console(stderr=True))
            self.bar.start()
        if stage not in self.tasks:
            self.tasks[stage] = self.bar.add_task(stage, total=total, remark=remark)
        self.bar.update(self.tasks[stage], completed=done, total=total, remark=remark)
