"""The child process of a job: does what job.json in its folder asks for, and tells its parent how it goes.

Conventions: it speaks in lines of JSON on what was its stdout, {step, steps, message, row, error}, and ends
when its stdin does. Begun again in the same folder, it goes on where it was; a training then ends in the
bytes of one that was left in peace.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import re
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from seqvae import corpus, gallery, pictures, sources
from seqvae.checkpoint import load_model, save_model, store
from seqvae.codecs import Codec, NotesCodec, Spelling
from seqvae.engine import find_model
from seqvae.pictures import Framing
from seqvae.pipeline import Pipeline
from seqvae.recipes import DEFAULTS, RECIPES, Recipe
from seqvae.service.jobs import as_words, exclusive
from seqvae.service.reading import Reader
from seqvae.service.schemas import Morph, Train
from seqvae.service.verbs import DESKS, WRITERS
from seqvae.song import SeqvaeError
from seqvae.train import train

PATIENCE = 60.0  # seconds for an earlier child to be gone
NICENESS = 5  # so that requests stay quick
OFTEN = 0.25  # seconds between two lines that say no more than the step
VOCABULARY = 2000  # as of the command line's trainings on files
UNEVEN = Framing(32, 32, 3)  # for pictures that are not all of one size that a model can have
Say = Callable[..., None]


def main(folder: str) -> int:
    """The exit status: 0 when the job is done."""
    say = Speaker()
    threading.Thread(target=_follow, daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    with contextlib.suppress(OSError):  # where there is too little memory, this goes first
        Path("/proc/self/oom_score_adj").write_text("800")
    home = Path(folder)
    try:
        with exclusive(home / "lock", PATIENCE):
            told = json.loads((home / "job.json").read_text(encoding="utf-8"))
            model = None if told["model"] is None else Path(told["model"])
            if told["job"]["kind"] == "train":
                learn(Train.model_validate(told["job"]), home, model, told["names"], say)
            else:
                assert model is not None
                morph(Morph.model_validate(told["job"]), home, model, say)
    except SeqvaeError as fault:
        say(error=str(fault).replace(f"{home}{os.sep}", "").replace(str(home), "the job's folder"))
    except Exception as fault:
        traceback.print_exc()
        say(error=f"the job failed with {type(fault).__name__}; its log says where")
    else:
        return 0
    return 1


class Speaker:
    """Writes lines to the parent alone: whatever else prints goes where errors go."""

    def __init__(self) -> None:
        self.line = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
        os.dup2(2, 1)
        self.last = 0.0

    def __call__(self, **told: Any) -> None:
        plain = told.keys() == {"step", "steps"} and told["step"] < told["steps"]
        if plain and time.monotonic() < self.last + OFTEN:
            return
        self.last = time.monotonic()
        self.line.write(json.dumps(told) + "\n")


def _follow() -> None:
    while os.read(0, 1):  # not sys.stdin, whose lock would trouble the interpreter's end
        pass
    os._exit(1)


# ------------------------------------------------------------------------------------------ training


def learn(job: Train, home: Path, model: Path | None, names: dict[str, str], say: Say) -> None:
    """A corpus of the uploads, then a run; `names` are what the uploads were called."""
    source, made = home / "upload", home / "corpus"
    kind = sources.kind(source)
    codec, recipe = _spelling(kind, source, say), job.recipe or DEFAULTS[kind]
    start: Path | None = None
    begun: Recipe | str = recipe
    if model is not None:
        start = home / "start"
        if not (start / "config.json").exists():  # a copy, as a training's model may change
            save_model(start, load_model(find_model(model)))
        saved = load_model(start)
        codec = saved.codec
        begun = recipe if job.recipe else replace(RECIPES[recipe], size=saved.model.size)
    if not (made / "corpus.json").exists():

        def tell(stage: str, done: int, of: int) -> None:
            say(message=f"{stage}: {done} of {of}" if of else f"{stage}: {done}")

        corpus.prepare(source, made, codec=codec, workers=1, progress=tell)
    remarks = {"left out": _left_out(made / "rejects.csv", home / "files" / "rejects.csv", names)}

    def progress(step: int, total: int, figures: dict[str, float], message: str) -> None:
        told: dict[str, Any] = {"step": step, "steps": total}
        if message:
            remarks["last"] = told["message"] = message
        if "step" in figures:  # an evaluation
            told["row"] = {name: float(value) for name, value in figures.items() if math.isfinite(value)}
        say(**told)

    train(made, begun, home / "run", as_words(job.settings), start=start, resume=True, progress=progress)
    say(message="; ".join(remark for remark in remarks.values() if remark))


def _spelling(kind: str, source: Path, say: Say) -> Codec[Any] | Spelling | Framing:
    if kind != "image":
        return NotesCodec() if kind == "melody" else Spelling("pieces", VOCABULARY)
    found = [(path.name, str(path)) for path in sorted(source.iterdir()) if path.suffix in pictures.SUFFIXES]
    try:
        pictures.survey(found, Framing(), lambda done: None)
        return Framing()
    except SeqvaeError:
        say(message=f"the pictures are of several or other sizes, so each became {UNEVEN.width} pixels wide")
        return UNEVEN


def _left_out(rejects: Path, out: Path, names: dict[str, str]) -> str:
    """Writes down what of the uploads was left out, by their own names, and says how much it is."""
    with open(rejects, newline="", encoding="utf-8", errors="surrogateescape") as file:
        _, *rows = csv.reader(file)
    if not rows:
        return ""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("name", "reason"))
    for name, reason in rows:
        writer.writerow((re.sub(r"^\d{6}\.\w+", lambda own: names.get(own[0], own[0]), name), reason))
    store(out, text.getvalue().encode(errors="surrogateescape"))
    return f"{len(rows)} of the things uploaded could not be used; {out.name} says why"


# ------------------------------------------------------------------------------------------ whole songs


def morph(job: Morph, home: Path, model: Path, say: Say) -> None:
    """Writes the steps, of songs the journey too in every format, and what there is to say, to files."""
    pipeline, out = Pipeline.from_pretrained(model), home / "files"
    kind = pipeline.codec.kind
    say(message="reading and decoding")
    with Reader() as reader:
        desk = DESKS[kind](pipeline, reader)
        ends = [desk.source(end) for end in (job.a, job.b)]
    out.mkdir(exist_ok=True)
    digits = max(2, len(str(job.steps)))
    names = [f"{step:0{digits}}-of-{job.steps:0{digits}}" for step in range(1, job.steps + 1)]
    if kind == "text":
        store(
            out / "path.txt", "".join(f"{text}\n" for text in pipeline.interpolate(*ends, job.steps)).encode()
        )
    elif kind == "image":
        for name, picture in zip(names, pipeline.interpolate(*ends, job.steps), strict=True):
            gallery.write_picture(picture, out / f"{name}.png")
    else:
        found = pipeline.interpolate(*ends, job.steps, fit=job.fit)
        if found.notices:
            store(out / "notices.txt", "".join(f"{notice}\n" for notice in found.notices).encode())
        songs = [*zip(names, found.songs, strict=True), ("journey", found.journey)]
        for done, (name, song) in enumerate(songs, 1):
            for form in dict.fromkeys(job.formats):
                WRITERS[form](song, out / f"{name}.{form}")
            say(step=done, steps=len(songs))
    say(message="; ".join(desk.remarks([job.a, job.b])) or "done")
