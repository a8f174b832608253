"""The command `seqvae`: a thin skin over Pipeline, prepare, train and evaluate.

Conventions: a command imports what it needs when it runs, so that help is instant; results go to stdout,
progress and faults to stderr; a fault of the user's is one sentence, exit code 2, and nothing half-written.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from seqvae import __version__
from seqvae.cli.corpora import prepare
from seqvae.cli.serving import key, serve
from seqvae.cli.training import attributes, evaluate, models, train
from seqvae.cli.verbs import generate, interpolate, reconstruct, shift, vary


@contextmanager
def plainly() -> Iterator[None]:
    """Faults of usage and input as one sentence each, without click's lines of usage above it."""
    try:
        yield
    except click.UsageError as fault:
        fault.ctx = None
        raise
    except ValueError as fault:
        from seqvae.song import SeqvaeError

        if not isinstance(fault, SeqvaeError):
            raise
        raise click.UsageError(" ".join(str(fault).split())) from None


class Commands(click.Group):
    """A group that speaks plainly(); click offers no other place to do so for parsing and running alike."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with plainly():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with plainly():
            return super().invoke(ctx)


@click.group(
    cls=Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="seqvae")
@click.pass_context
def main(context: click.Context) -> None:
    """Make new melodies and sentences, vary yours, turn one into another, train a model of your own."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for command in (
    generate,
    interpolate,
    reconstruct,
    vary,
    shift,
    prepare,
    train,
    evaluate,
    attributes,
    models,
    serve,
    key,
):
    main.add_command(command)
