"""generate, interpolate, reconstruct, vary, shift for melodies: a call on `Melodies` each, songs written."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from seqvae.cli.console import Progress, goals, opened, origin, table

if TYPE_CHECKING:
    from seqvae.melodies import Melodies
    from seqvae.song import Song


HERE = Path(".")
SHORT, LONG, WHOLE = "melody", "melody-16", 16  # the models of two bars and of so many


class Forms(NamedTuple):
    """What is written of each song besides its .mid."""

    musicxml: bool
    wav: bool
    png: bool


def generate(
    model: str | None, count: int, bars: int, metre: str, key: str | None, chords: str | None, tempo: float,
    program: str | None, temperature: float, top_k: int, top_p: float, seed: int, prior: str,
    out: Path | None, musicxml: bool, wav: bool, png: bool,
) -> None:  # fmt: skip
    out = out or HERE
    with results(out) as folder, Progress() as tell:
        number = None if program is None else gm_program(program)
        name = chosen(model, bars >= WHOLE)
        pipeline = opened(name)
        songs = pipeline.sample(
            count, bars=bars, metre=metre, key=key, chords=chords, tempo=tempo, program=number,
            temperature=temperature, top_k=top_k, top_p=top_p, seed=seed, prior=prior,
        )  # fmt: skip
        stem = pipeline.codec.ensemble or "melody"
        named = dict(zip(numbered(f"{stem}-", count), songs, strict=True))
        write_songs(named, folder, Forms(musicxml, wav, png), tell)
    summarise(named, out, [*taken(model, name), origin(pipeline, prior, seed, "windows")])


def interpolate(
    a: str, b: str, model: str | None, steps: int, fit: str, track_a: str | None, track_b: str | None,
    temperature: float, top_k: int, top_p: float, seed: int,
    out: Path | None, musicxml: bool, wav: bool, png: bool,
) -> None:  # fmt: skip
    from seqvae import files, render

    out, tracks, paths = out or HERE, (track_a, track_b), (Path(a), Path(b))
    with results(out) as folder, Progress() as tell:
        ends = files.read(paths[0]), files.read(paths[1])  # first of all: reading takes no model to fail
        name = suited(model, *ends)
        pipeline = opened(name)
        morph = pipeline.interpolate(
            *ends, steps, fit=fit, tracks=tracks,
            temperature=temperature, top_k=top_k, top_p=top_p, seed=seed,
        )  # fmt: skip
        digits = max(2, len(str(steps)))
        names = [f"{name}-of-{steps:0{digits}}" for name in numbered("", steps)]
        named = dict(zip([*names, "journey"], [*morph.songs, morph.journey], strict=True))
        write_songs(named, folder, Forms(musicxml, wav, False), tell)
        if png:
            lines = list(morph.songs)
            for at, end, track in zip((0, -1), ends, tracks, strict=True):
                lines[at] = alone(pipeline, end, track, lines[at])
            shares = [f"{step / (steps - 1):.0%}" for step in range(1, steps - 1)]
            render.path_grid(lines, folder / "path.png", [paths[0].stem, *shares, paths[1].stem])
    summarise(named, out, [*taken(model, name), *morph.notices])


def reconstruct(
    what: str, model: str | None, track: str | None, out: Path | None, musicxml: bool, wav: bool, png: bool
) -> None:
    from seqvae import files

    out, song = out or HERE, Path(what)
    with results(out) as folder, Progress() as tell:
        read = files.read(song)
        name = suited(model, read)
        named = {f"{song.stem}.reconstruction": opened(name).reconstruct(read, track)}
        write_songs(named, folder, Forms(musicxml, wav, png), tell)
    summarise(named, out, taken(model, name))


def vary(
    what: str, model: str | None, track: str | None, amount: float, count: int, temperature: float,
    top_k: int, top_p: float, seed: int, out: Path | None, musicxml: bool, wav: bool, png: bool,
) -> None:  # fmt: skip
    from seqvae import files

    out, song = out or HERE, Path(what)
    with results(out) as folder, Progress() as tell:
        read = files.read(song)
        name = suited(model, read)
        songs = opened(name).vary(
            read, amount, count, track=track, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed
        )
        named = dict(zip(numbered(f"{song.stem}.variation-", count), songs, strict=True))
        write_songs(named, folder, Forms(musicxml, wav, png), tell)
    summarise(named, out, taken(model, name))


def shift(
    what: str, model: str | None, track: str | None, attribute: Path, scales: Sequence[float],
    steps: Sequence[float], out: Path | None, musicxml: bool, wav: bool, png: bool,
) -> None:  # fmt: skip
    from seqvae import files, render
    from seqvae.engine import Place, find_attribute

    out, song = out or HERE, Path(what)
    word, asked = goals(scales, steps)
    with results(out) as folder, Progress() as tell:
        read = files.read(song)
        name = suited(model, read)
        pipeline = opened(name)
        learnt = find_attribute(attribute, name, pipeline)
        songs = pipeline.shift(read, [[Place(learnt, goal, word == "by")] for goal in asked], track=track)
        named = dict(zip([f"{song.stem}.{word}{goal:+g}" for goal in asked], songs, strict=True))
        write_songs(named, folder, Forms(musicxml, wav, png), tell)
        if png and len(songs) > 1:
            lines = [alone(pipeline, read, track, one) for one in songs]
            render.path_grid(lines, folder / "shift.png", [f"{word} {goal:+g}" for goal in asked])
    summarise(named, out, taken(model, name))


def suited(model: str | None, *songs: Song) -> str:
    """The model asked for; without one that of WHOLE bars where windows of them hold most of every song."""
    from seqvae.song import runs

    def long(song: Song) -> bool:
        counts = [len(lines) - 1 for lines, _, _ in runs(song)]
        return 2 * sum(count // WHOLE * WHOLE for count in counts) >= sum(counts)

    return chosen(model, all(map(long, songs)))


def chosen(model: str | None, long: bool) -> str:
    """The model asked for, else LONG or SHORT."""
    return (LONG if long else SHORT) if model is None else model


def taken(model: str | None, name: str) -> list[str]:
    """What is said of a model that nobody asked for."""
    return [f"{LONG} takes {WHOLE} bars as one; -m {SHORT} takes two"] if name == LONG != model else []


def numbered(stem: str, count: int) -> list[str]:
    digits = max(2, len(str(count)))
    return [f"{stem}{i:0{digits}}" for i in range(1, count + 1)]


def gm_program(text: str) -> int:
    """A General MIDI programme by number, whole name, or the first name that has all the words."""
    if text.strip().isdecimal() and len(text) < 9:
        return int(text)
    from pretty_midi.constants import INSTRUMENT_MAP

    from seqvae.song import SeqvaeError

    names, words = [name.lower() for name in INSTRUMENT_MAP], text.lower().split()
    fits = [i for i, name in enumerate(names) if name.split() == words]
    fits = fits or [i for i, name in enumerate(names) if words and all(word in name for word in words)]
    if not fits:
        known = dict.fromkeys([*names, *" ".join(names).split()])
        near = " or ".join(get_close_matches(text.lower(), known, 3, 0.5)) or "a number from 0 to 127"
        raise SeqvaeError(f'no General MIDI instrument is called "{text}"; try {near}')
    return fits[0]


@contextmanager
def results(out: Path) -> Iterator[Path]:
    """A folder to write in, whose files move to `out` when all is done; after a fault `out` is as before.

    Raises `SeqvaeError` at once where `out` cannot be written.
    """
    from seqvae.song import SeqvaeError

    out = out.absolute()
    new = [folder for folder in (out, *out.parents) if not os.path.exists(folder)]
    staging = None
    try:
        try:
            out.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=".seqvae-", dir=out))
        except (OSError, ValueError) as fault:
            why = getattr(fault, "strerror", None) or fault
            raise SeqvaeError(f"the output folder {out} cannot be written: {why}") from None
        yield staging
        try:
            for path in sorted(staging.iterdir()):
                os.replace(path, out / path.name)
        except OSError as fault:
            raise SeqvaeError(f"{out} cannot be written: {fault.strerror}") from None
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
        for folder in new:
            if os.path.isdir(folder) and not any(folder.iterdir()):
                folder.rmdir()


def write_songs(named: dict[str, Song], folder: Path, forms: Forms, tell: Progress) -> None:
    """Write every song under its name in all forms."""
    from seqvae import files, render

    for i, (name, song) in enumerate(named.items(), 1):
        files.write(song, folder / f"{name}.mid")
        if forms.musicxml:
            files.write(song, folder / f"{name}.musicxml")
        if forms.png:
            render.piano_roll(song, folder / f"{name}.png", title=song.title or name)
        if forms.wav:
            render.sound(song, folder / f"{name}.wav")
        tell("writing", i, len(named))


def alone(pipeline: Melodies, song: Song, track: str | None, made: Song) -> Song:
    """The melody, without the other tracks, of what was made of a song."""
    found = pipeline.codec.voices(song, track).tracks
    return replace(made, parts=tuple(made.parts[i] for own in found for i in own))


def summarise(named: dict[str, Song], out: Path, remarks: Sequence[str] = ()) -> None:
    """A table of the songs written, and every notice once: with its file unless it holds for all."""
    from seqvae.song import bars, find_key

    rows = []
    for name, song in named.items():
        notes = [note for part in song.parts if not part.drums for note in part.notes]
        key = song.key or (find_key(notes) if notes else "")
        rows.append((out / f"{name}.mid", len(bars(song)), sum(len(p.notes) for p in song.parts), key))
    table(("file", "bars", "notes", "key"), rows)
    lines = list(remarks)
    for name, song in named.items():
        for notice in song.notices:
            shared = all(notice in other.notices for other in named.values())
            if not any(line.endswith(notice) for line in remarks):
                lines.append(notice if shared else f"{name}: {notice}")
    for line in dict.fromkeys(lines):
        click.echo(f"note: {line.rstrip('.')}")
