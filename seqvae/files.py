"""Songs from disk and back: MIDI and ABC through symusic, MusicXML and kern through music21.

Conventions: times become quarter-note beats from the song's first sound or pickup; pitches are kept as written;
what reading drops or assumes is one sentence in Song.notices; every fault of a file is a SeqvaeError of one sentence
that names the file.
"""

import importlib.util
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import symusic

from seqvae import tunes
from seqvae.song import Key, Metre, Note, Part, SeqvaeError, Song


def folk(essen: bool = False) -> Iterator[tuple[str, Song | SeqvaeError]]:
    spec = importlib.util.find_spec("music21")
    if spec is None or spec.origin is None:
        raise SeqvaeError("the folk corpus ships with music21, which is not installed: pip install music21.")
    corpus = Path(spec.origin).parent / "corpus"
    for name in ("oneills1850", "airdsAirs", "ryansMammoth") + (("essenFolksong",) if essen else ()):
        for path in sorted((corpus / name).glob("*.abc")):
            for label, song in read_all(path):
                yield f"{name}/{label}", song


def read_all(path: Path) -> Iterator[tuple[str, Song | SeqvaeError]]:
    text = decode(Path(path).read_bytes())
    with tempfile.TemporaryDirectory() as folder:
        for lines in tunes.split(text):
            label = f"{path.name}#{lines[0].replace(' ', '')}"
            try:
                tune = tunes.parse(lines)
                label += f" {tune.title}"
                yield label, _abc(tune, folder)
            except SeqvaeError as fault:
                yield label, SeqvaeError(f"{label}: {fault}")


def decode(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _abc(tune: tunes.Tune, folder: str) -> Song:
    parts = []
    for name, text in tune.voices:
        out = os.path.join(folder, "tune.mid")
        done = subprocess.run([os.environ["SYMUSIC_ABC2MIDI"], "stdin", "-quiet", "-o", out], input=text.encode("utf-8", "replace"),
                   capture_output=True, timeout=10)
        messages = (done.stdout + done.stderr).decode("utf-8", "replace").splitlines()
        errors = [m for m in messages if m.startswith("Error") or m.startswith("Warn")]
        if errors:
            raise SeqvaeError("abc2midi: " + errors[0])
        if not os.path.exists(out):
            raise SeqvaeError("abc2midi: no output; " + " ".join(messages))
        data = Path(out).read_bytes()
        os.unlink(out)
        song = _midi(data, late=1)
        parts.extend(replace(part, name=name) for part in song.parts)
    return Song(tuple(parts), tune.metres, tune.tempi, tune.key, tune.title, tune.pickup, tune.notices)


def _midi(data: bytes, late: int = 0) -> Song:
    score = symusic.Score.from_midi(data)
    beat = score.tpq
    parts = []
    for track in score.tracks:
        soa = track.notes.numpy()
        onset = (soa["time"] - late) / beat
        duration = (soa["duration"] + late) / beat
        order = np.lexsort((soa["pitch"], onset))
        columns = (onset[order].tolist(), duration[order].tolist(), soa["pitch"][order].tolist(), soa["velocity"][order].tolist())
        parts.append(Part(tuple(map(Note._make, zip(*columns, strict=True))), track.name, track.program, track.is_drum))
    metres = tuple((t.time / beat, Metre(t.numerator, t.denominator)) for t in score.time_signatures)
    tempi = tuple((t.time / beat, t.qpm) for t in score.tempos)
    keys = score.key_signatures
    key = None
    if keys:
        k = keys[0]
        key = Key((k.key * 7 + (9 if k.tonality else 0)) % 12, "minor" if k.tonality else "major")
    return Song(tuple(p for p in parts if p.notes), metres or ((0.0, Metre(4, 4)),), tempi or ((0.0, 120.0),), key)


def read(path: Path) -> Song:
    path = Path(path)
    data = path.read_bytes()
    if data[:4] == b"MThd":
        return _midi(data)
    for _, song in read_all(path):
        if isinstance(song, Song):
            return song
        raise song
    raise SeqvaeError(f"{path}: no tune found")
