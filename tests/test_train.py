"""Training: killed anywhere and resumed it ends in the same bytes, alone and with two ranks; what it writes
can be read; what goes wrong is one sentence.

Run as a script this file trains `TINY`: ``test_train.py CORPUS OUT``; under torchrun it is `ranks`.
"""

import copy
import csv
import hashlib
import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import phrase
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils._python_dispatch import TorchDispatchMode

from seqvae import evaluation, files, train
from seqvae.checkpoint import Saved, build_model, load_model, load_state, save_state
from seqvae.codecs import NotesCodec
from seqvae.corpus import Batch, Corpus, prepare
from seqvae.harvest import digest
from seqvae.image import ImageSize
from seqvae.latent import Mixture
from seqvae.model import HierarchicalVAE, Size
from seqvae.objective import Elbo, Posterior
from seqvae.pictures import Framing
from seqvae.prior import fit_mixture
from seqvae.recipes import Recipe
from seqvae.song import Metre, SeqvaeError, assemble
from tests.conftest import LONGER

SIZE = Size(embedding=(12, 12, 8, 4), condition=4, encoder=24, decoder=40, head=20, latent=8)
TINY = Recipe(
    size=SIZE,
    objective=Elbo(beta=0.02),
    batch_size=32,
    steps=40,
    learning_rate=2e-2,
    rise=5,
    word_dropout=0.1,
    evaluate_every=10,
    save_every=7,
)
COLUMNS = (
    *("step", "weight", "nll", "kl", "mi", "kl_minus_mi", "active_units", "nll_of_another_z", "loss"),
    *("onset_pitch_f1", "onset_f1", "exact_windows", "in_train", "in_test", "new"),
)
HUNG = 500  # seconds, of a busy machine
forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(["seqvae.train", "hypothesis", "pytest", EventAccumulator.__module__])


def make_corpus(folder: Path, valid: float = 0.15, test: float = 0.15) -> Path:
    """A corpus of 40 melodies of 6 bars in three metres: 200 windows."""
    rng = np.random.default_rng(1)
    (folder / "music").mkdir()
    for i in range(40):
        metre = Metre(*((4, 4), (3, 4), (6, 8))[i % 3])
        files.write(assemble([phrase(rng, metre) for _ in range(3)]), folder / "music" / f"{i:02}.mid")
    prepare(folder / "music", folder / "corpus", codec=NotesCodec(), workers=0, valid=valid, test=test)
    return folder / "corpus"


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("tunes"))


@pytest.fixture(scope="session")
def run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of TINY that nothing disturbed."""
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    assert died(attempt, corpus, out) == 0
    return out


def kept(run: Path) -> dict[str, str]:
    """The hash of every file of a run but TensorBoard's, which tell the time."""
    paths = [path for path in run.rglob("*") if path.is_file() and path.parent.name != "events"]
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@contextmanager
def script(*command: object) -> Iterator[subprocess.Popen[str]]:
    """A process of a command, able to import what is tested; it and what it started end with the block."""
    env = os.environ | {"PYTHONPATH": str(Path(train.__file__).parents[1])}
    words = [sys.executable, *map(str, command)]
    process = subprocess.Popen(words, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True)
    with process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def rows(run: Path) -> list[dict[str, float]]:
    with open(run / "metrics.csv", newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def steps_of(run: Path, name: str) -> list[int]:
    """The steps at which TensorBoard shows a figure."""
    events = EventAccumulator(str(run / "events")).Reload()
    return sorted({event.step for event in events.Scalars(name)})


def died(function: Callable[..., None], *args: object) -> int:
    """The exit code of a process of its own that calls function; -9 when it was killed."""
    process = forks.Process(target=function, args=args)
    process.start()
    process.join(HUNG)
    code = process.exitcode
    process.kill()
    assert code is not None, "the process hung"
    return code


def attempt(corpus: Path, out: Path, since: str = "__init__", fatal: int = 0) -> None:
    """Trains or goes on; is killed before the fatal-th update, fsync or rename since Run.<since> began."""
    count = -math.inf

    def fateful(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    def opening(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count = max(count, 0)
            return function(*args, **kwargs)

        return call

    if fatal:
        setattr(train.Run, since, opening(getattr(train.Run, since)))
        os.replace, os.fsync = fateful(os.replace), fateful(os.fsync)
        train.Run.update = fateful(train.Run.update)  # type: ignore[method-assign]
    train.train(corpus, TINY, out, resume=True)


# ---------------------------------------------------------------- killed and resumed


def test_killed_at_random_moments_a_run_ends_in_the_same_bytes(corpus: Path, run: Path, tmp_path: Path):
    dice, deaths = random.Random(0), 0
    while (code := died(attempt, corpus, tmp_path / "run", "__init__", dice.randint(1, 60))) == -9:
        deaths += 1
    assert code == 0 and deaths >= 4
    assert kept(tmp_path / "run") == kept(run)
    assert steps_of(tmp_path / "run", "valid/loss") == [10, 20, 30, 40]
    assert steps_of(tmp_path / "run", "train/nll") == [20, 40]


def test_killed_in_any_part_of_a_save_a_run_ends_in_the_same_bytes(corpus: Path, run: Path, tmp_path: Path):
    """In turn: amid the state's file, the samples, metrics.csv, the best model's files, and finishing it."""
    out = tmp_path / "run"
    saves = [("save", 1), ("save", 2), ("measure", 6), *(("write_rows", n) for n in range(1, 8))]
    for since, fatal in saves + [("finish", n) for n in range(1, 6)]:
        assert died(attempt, corpus, out, since, fatal) == -9, (since, fatal)
        if (out / "best" / "config.json").exists():
            load_model(out / "best")  # whole at every moment
    assert rows(out)[-1]["step"] == 40  # only the finish is missing
    assert died(attempt, corpus, out) == 0
    assert kept(out) == kept(run)


def test_killed_by_the_clock_a_script_ends_in_the_same_bytes(corpus: Path, run: Path, tmp_path: Path):
    dice, out = random.Random(1), tmp_path / "run"
    with script(__file__, corpus, out) as process:
        while process.poll() is None and not (out / "last.safetensors").exists():
            time.sleep(0.02)
        time.sleep(dice.random() / 2)
    assert process.returncode in (0, -9)
    with script(__file__, corpus, out) as process:
        process.communicate(timeout=HUNG)
        assert process.returncode == 0
    assert kept(out) == kept(run)


def test_a_finished_run_resumed_stays_as_it_is(corpus: Path, run: Path, monkeypatch: pytest.MonkeyPatch):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert train.train(corpus, TINY, run, resume=True) == run / "best"
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_one_process_or_another_makes_the_same_bytes(corpus: Path, run: Path, tmp_path: Path):
    train.train(corpus, TINY, tmp_path / "run")
    assert kept(tmp_path / "run") == kept(run)


def test_the_adam_that_is_fused_goes_on_from_a_state_of_the_one_that_is_not(
    codec: NotesCodec, tmp_path: Path
):
    model = build_model(codec, SIZE)
    states: list[dict[str, torch.Tensor]] = []
    for fused in (False, True, False):
        adam = torch.optim.Adam(model.parameters(), fused=fused or None)
        if states:
            load_state(tmp_path / "state", model, adam)
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        adam.step()
        save_state(tmp_path / "state", model, adam, {})
        states.append(load_file(tmp_path / "state"))
    assert all(state.keys() == states[0].keys() for state in states)
    assert [state["optimizer.encoder.mean.bias.step"].item() for state in states] == [1, 2, 3]


# ---------------------------------------------------------------- the folder and its settings


@pytest.mark.parametrize("changed", [{"steps": "50"}, {"beta": "0.1"}, {"latent": "9"}, {"seed": "1"}])
def test_a_resumed_run_keeps_its_settings(corpus: Path, run: Path, changed: dict[str, str]):
    before = kept(run)
    ((name, value),) = changed.items()
    with pytest.raises(
        SeqvaeError, match=f"was trained with {name} .*, not {value}, and a resumed run keeps"
    ):
        train.train(corpus, TINY, run, changed, resume=True)
    assert kept(run) == before


def test_a_resumed_run_keeps_its_corpus_but_not_its_words(corpus: Path, run: Path, tmp_path: Path):
    (tmp_path / "other").mkdir()
    with pytest.raises(SeqvaeError, match="was trained with corpus 'music .*', not 'music "):
        train.train(make_corpus(tmp_path / "other", valid=0.2), TINY, run, resume=True)
    train.train(corpus, replace(TINY, about="the same in other words"), run, resume=True)


def test_a_run_of_before_there_were_more_settings_resumes(corpus: Path, run: Path, tmp_path: Path):
    shutil.copytree(run, tmp_path / "run")
    about = json.loads((run / "run.json").read_text())
    del about["corpus"], about["start"], about["recipe"]["patience"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(about))
    train.train(corpus, TINY, tmp_path / "run", resume=True)


def test_a_run_can_begin_from_a_model(corpus: Path, run: Path, tmp_path: Path):
    recipe, begun = replace(TINY, steps=3, learning_rate=1e-9), load_model(run / "best")
    best = load_model(train.train(corpus, recipe, tmp_path / "run", start=run / "best"))
    for old, new in zip(begun.model.parameters(), best.model.parameters(), strict=True):
        torch.testing.assert_close(old, new, atol=1e-6, rtol=1e-3)
    assert best.config["start"] == begun.config["sha256"]
    assert train.train(corpus, recipe, tmp_path / "run", start=run / "best", resume=True)
    with pytest.raises(SeqvaeError, match="was trained with start '[0-9a-f]*', not ''"):
        train.train(corpus, recipe, tmp_path / "run", resume=True)
    with pytest.raises(SeqvaeError, match="was trained with start '', not '[0-9a-f]"):
        train.train(corpus, TINY, run, start=run / "best", resume=True)
    with pytest.raises(SeqvaeError, match="has other sizes than the recipe"):
        train.train(corpus, TINY, tmp_path / "wider", {"latent": "9"}, start=run / "best")
    with pytest.raises(SeqvaeError, match="is no model"):
        train.train(corpus, TINY, tmp_path / "none", start=tmp_path)


def test_a_decoder_begins_from_a_language_model(corpus: Path, tmp_path: Path):
    """Whatever the encoder's sizes; the decoder's are to be the same."""
    language, slow = tmp_path / "language" / "best", {"learning_rate": "1e-9", "steps": "2"}
    alone = replace(TINY, size=replace(SIZE, latent=0, encoder=1), word_dropout=0.0)
    train.train(corpus, alone, language.parent, {"steps": "10"})
    begun = load_model(language).model
    best = load_model(train.train(corpus, TINY, tmp_path / "run", slow, start=language)).model
    found = best.decoder.state_dict()
    for name, value in begun.decoder.state_dict().items():
        if found[name].shape == value.shape:
            torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-3)
    assert found["lstm.weight_ih_l0"].shape[1] == begun.decoder.lstm.weight_ih_l0.shape[1] + SIZE.latent
    with pytest.raises(SeqvaeError, match="has other sizes than the recipe"):
        train.train(corpus, TINY, tmp_path / "wider", {"decoder": "41"}, start=language)


@pytest.mark.parametrize("augment", [True, False])
def test_windows_are_transposed_unless_they_are_not_to_be(corpus: Path, tmp_path: Path, augment: bool):
    opened = Corpus.open(corpus)
    run = train.Run(opened, replace(TINY, augment=augment), tmp_path / "run", None)
    plain = next(opened.batches("train", TINY.batch_size, TINY.seed, 0, augment=False)).steps
    same = (next(run.batches()).steps == plain).all((1, 2))
    assert same.mean() < 0.4 if augment else same.all()  # a twelfth of 32, and seldom more


def test_sections_begin_from_a_model_of_theirs_alone(corpus: Path, run: Path, tmp_path: Path):
    """What spells and decodes one section goes into the model of two under a conductor."""
    prepare(corpus.parent / "music", tmp_path / "longer", codec=LONGER, workers=0, valid=0.15, test=0.15)
    told = replace(SIZE, latent=12, conductor=16, section=SIZE.latent)
    recipe = replace(TINY, size=told, learning_rate=1e-9, steps=2)
    begun = load_model(run / "best").model.state_dict()
    best = load_model(train.train(tmp_path / "longer", recipe, tmp_path / "run", start=run / "best")).model
    assert isinstance(best, HierarchicalVAE)
    found = best.section.state_dict()
    for name, value in begun.items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-3)
    with pytest.raises(SeqvaeError, match="in sections, and no other, takes a recipe with a conductor"):
        train.train(tmp_path / "longer", TINY, tmp_path / "none")


def test_an_occupied_folder_is_left_alone(corpus: Path, run: Path, tmp_path: Path):
    before = kept(run)
    with pytest.raises(SeqvaeError, match="holds a training already; go on with --resume or choose another"):
        train.train(corpus, TINY, run)
    assert kept(run) == before
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(SeqvaeError, match="cannot be read, so the training cannot be resumed"):
        train.train(corpus, TINY, tmp_path, resume=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(SeqvaeError, match="cannot be written"):
        train.train(corpus, TINY, tmp_path / "file")


def test_a_damaged_state_is_told(corpus: Path, run: Path, tmp_path: Path):
    shutil.copytree(run, tmp_path / "run")
    state = tmp_path / "run" / "last.safetensors"
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(SeqvaeError, match="last.safetensors is damaged"):
        train.train(corpus, TINY, tmp_path / "run", resume=True)


def test_what_is_asked_wrongly_is_told(corpus: Path, tmp_path: Path):
    for recipe, changed, message in (
        ("nonsense", {}, "no recipe is called 'nonsense'"),
        ("small", {"nonsense": "1"}, "no setting is called 'nonsense'"),
        ("small", {"embedding": "8,8"}, "embedding needs 4 widths"),
    ):
        with pytest.raises(SeqvaeError, match=message):
            train.train(corpus, recipe, tmp_path / "run", changed)
    with pytest.raises(SeqvaeError, match="holds no corpus"):
        train.train(tmp_path, TINY, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------- what a run writes


def test_metrics_best_and_last(run: Path, corpus: Path):
    table = rows(run)
    assert [row["step"] for row in table] == [10, 20, 30, 40] and tuple(table[0]) == COLUMNS
    assert all(math.isfinite(value) for row in table for value in row.values())
    assert all(row["weight"] == 0.02 and 0 <= row["onset_pitch_f1"] <= 1 for row in table)
    for row in table:  # train and test share no window
        assert row["in_train"] + row["in_test"] + row["new"] == pytest.approx(1)
        assert row["loss"] == pytest.approx(row["nll"] + 0.02 * row["kl"])
        assert row["kl_minus_mi"] == pytest.approx(row["kl"] - row["mi"])
    best = load_model(run / "best")
    assert best.config["valid"] == min(table, key=lambda row: row["loss"])
    assert best.config["recipe"]["steps"] == 40 and set(best.config["metres"]) == {"4/4", "3/4", "6/8"}
    last = load_file(run / "last.safetensors")
    assert last["optimizer.model.encoder.mean.bias.step"] == 40
    if best.config["valid"]["step"] == 40:
        torch.testing.assert_close(
            last["weights.model.encoder.mean.bias"].half().float(), best.model.encoder.mean.bias
        )


def test_samples_can_be_read(run: Path, corpus: Path):
    opened = Corpus.open(corpus)
    folders = sorted((run / "samples").iterdir())
    assert [folder.name for folder in folders] == [f"step-{step:06d}" for step in (10, 20, 30, 40)]
    for folder in (folders[0], folders[-1]):
        names = {f"original-then-reconstruction-{i}.mid" for i in range(1, 9)}
        names |= {f"sample-{i}.mid" for i in range(1, 9)} | {"interpolation.mid"}
        assert {path.name for path in folder.iterdir()} == names
        songs = {name: files.read(folder / name) for name in sorted(names)}
        assert all(len(song.parts) <= 1 for song in songs.values())
        looked = evaluation.chosen(opened, "valid", 2048)
        original = opened.codec.decode(*opened.window("valid", int(looked[0])))
        heard = songs["original-then-reconstruction-1.mid"]
        for note, said in zip(original.notes, heard.parts[0].notes, strict=False):
            assert (note.onset, note.pitch, note.velocity) == (said.onset, said.pitch, said.velocity)
        assert heard.metres[0][1] == original.metre


def test_tensorboard_shows_the_figures(run: Path):
    (events,) = (run / "events").iterdir()
    assert events.stat().st_size > 0
    tags = set(EventAccumulator(str(run / "events")).Reload().Tags()["scalars"])
    assert {"train/nll", "train/kl", "train/weight"} | {f"valid/{name}" for name in COLUMNS} == tags
    assert steps_of(run, "train/kl") == [20, 40] and steps_of(run, "valid/kl") == [10, 20, 30, 40]


def test_progress_is_told(corpus: Path, tmp_path: Path):
    said: list[tuple[int, int, dict[str, float], str]] = []
    recipe = replace(TINY, steps=20, objective=Elbo(beta=0.5, warmup=40))
    train.train(corpus, recipe, tmp_path / "run", progress=lambda *what: said.append(what))
    assert [(step, total) for step, total, _, _ in said] == [(10, 20), *[(20, 20)] * (len(said) - 1)]
    logged, evaluated = said[1][2], said[2][2]
    assert set(logged) == {"nll", "kl", "weight"} and set(evaluated) == set(COLUMNS)
    assert logged["weight"] == evaluated["weight"] == 0.5 * 19 / 40  # the share at the last update
    assert [message for *_, message in said if message][0] == "fitting the prior to the best model"


def test_a_corpus_without_a_validation_split_is_looked_at_as_it_is(tmp_path: Path):
    folder, said = make_corpus(tmp_path, valid=0, test=0), list[str]()
    recipe = replace(TINY, steps=10)
    best = train.train(folder, recipe, tmp_path / "run", progress=lambda *what: said.append(what[3]))
    assert said[0] == "the corpus has no validation windows, so the figures are of training windows"
    config = load_model(best).config
    assert "valid" not in config and config["train"] == rows(tmp_path / "run")[-1]
    with pytest.raises(SeqvaeError, match="has no windows in its test split"):
        evaluation.evaluate(best, folder)


# ---------------------------------------------------------------- stopping, diverging, collapsing


def test_patience_ends_a_run_whose_loss_does_not_fall(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    losses = iter([3.0, 2.0, 2.5, 1.0, 1.0, 1.5, 0.1])

    def measure(run: train.Run) -> dict[str, float]:
        return {"step": run.step, "mi": 5.0, "loss": next(losses)}

    monkeypatch.setattr(train.Run, "measure", measure)
    recipe = replace(TINY, steps=100, evaluate_every=4, save_every=100, patience=2)
    out = tmp_path / "run"
    best = train.train(corpus, recipe, out)
    assert [row["step"] for row in rows(out)] == [4, 8, 12, 16, 20, 24]
    assert load_model(best).config["valid"]["step"] == 16
    assert load_file(out / "last.safetensors")["optimizer.model.encoder.mean.bias.step"] == 24
    before = kept(out)
    train.train(corpus, recipe, out, resume=True)  # next(losses) would be the best
    assert kept(out) == before


@pytest.mark.parametrize("every", [1, 3])
def test_a_training_that_diverges_says_so_and_saves_nothing_of_it(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int
):
    recipe = replace(TINY, steps=20, save_every=every, evaluate_every=5)
    out, healthy = tmp_path / "run", train.learning_rate
    with monkeypatch.context() as patch:
        patch.setattr(train, "learning_rate", lambda r, step: healthy(r, step) if step < 7 else 1e30)
        with pytest.raises(
            SeqvaeError, match="the loss is no finite number by step .*; begin again with a l"
        ):
            train.train(corpus, recipe, out)
    state = load_file(out / "last.safetensors")
    assert all(bool(value.isfinite().all()) for value in state.values())
    assert state["optimizer.model.encoder.mean.bias.step"] in (6, 7, 8)
    load_model(out / "best")
    if every == 3:  # the last save was before the numbers left: as good as new
        train.train(corpus, recipe, out, resume=True)
        train.train(corpus, recipe, tmp_path / "healthy")
        assert kept(out) == kept(tmp_path / "healthy")


def test_an_absurd_learning_rate_is_told(corpus: Path, tmp_path: Path):
    for value in ("1e8", "1e20", "1e38", "1e300"):
        with pytest.raises(SeqvaeError, match="begin again with a lower learning_rate"):
            train.train(corpus, TINY, tmp_path / value, {"learning_rate": value, "rise": "1"})
        for path in (tmp_path / value).glob("*.safetensors"):
            assert all(bool(tensor.isfinite().all()) for tensor in load_file(path).values())


def test_a_collapse_is_announced(corpus: Path, tmp_path: Path):
    said: list[tuple[int, str]] = []
    recipe = replace(TINY, objective=Elbo(beta=20.0))
    train.train(corpus, recipe, tmp_path / "run", progress=lambda *what: said.append((what[0], what[3])))
    assert (40, train.COLLAPSE) in said
    last = rows(tmp_path / "run")[-1]
    assert last["mi"] < 0.5 and abs(last["nll_of_another_z"] - last["nll"]) < 0.5


def test_no_collapse_is_announced_of_a_healthy_run(corpus: Path, tmp_path: Path):
    said: list[str] = []
    recipe = replace(TINY, objective=Elbo(beta=0.02, warmup=100), steps=240, evaluate_every=120, rise=20)
    train.train(corpus, recipe, tmp_path / "run", progress=lambda *what: said.append(what[3]))
    assert train.COLLAPSE not in said
    last = rows(tmp_path / "run")[-1]
    assert last["active_units"] == 8 and last["mi"] > 1


def test_one_window_is_no_proof_of_collapse(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(train, "LOOKED_AT", 1)
    said: list[str] = []
    train.train(corpus, TINY, tmp_path / "run", progress=lambda *what: said.append(what[3]))
    on_the_way = said[:-1]  # the last word is of the training windows, which are many
    assert train.COLLAPSE not in on_the_way
    assert rows(tmp_path / "run")[-1]["mi"] == pytest.approx(0, abs=1e-4)


# ---------------------------------------------------------------- one step


def test_bfloat16_trains_with_a_float32_divergence(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen: set[tuple[str, torch.dtype]] = set()
    kl = Posterior.kl

    def watched(posterior: Posterior) -> torch.Tensor:
        result = kl(posterior)
        seen.update({("mean", posterior.mean.dtype), ("kl", result.dtype)})
        return result

    class Watched(train.Run):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.model.decoder.lstm.register_forward_hook(
                lambda module, given, out: seen.add(("lstm" + "?" * torch.is_inference(out[0]), out[0].dtype))
            )

    monkeypatch.setattr(Posterior, "kl", watched)
    monkeypatch.setattr(train, "Run", Watched)
    best = train.train(corpus, TINY, tmp_path / "run", {"precision": "bf16"})
    whole, half = torch.float32, torch.bfloat16
    assert seen == {("mean", whole), ("kl", whole), ("lstm", half), ("lstm?", whole)}  # ?: in evaluations
    with torch.autocast("cpu", half):
        posterior = Posterior(torch.full((2, 3), 1e-3, dtype=half), torch.full((2, 3), -12.0, dtype=half))
        exact = 0.5 * (posterior.mean.double() ** 2 + torch.expm1(posterior.logvar.double()) + 12)
        torch.testing.assert_close(kl(posterior).double(), exact, rtol=1e-6, atol=0)
    assert {tensor.dtype for tensor in load_file(tmp_path / "run" / "last.safetensors").values()} == {whole}
    table = rows(tmp_path / "run")
    assert table[-1]["loss"] < table[0]["loss"] - 3
    assert {parameter.dtype for parameter in load_model(best).model.parameters()} == {whole}


class NoWaiting(TorchDispatchMode):
    """Raises where a number is asked of the device."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert function is not torch.ops.aten._local_scalar_dense.default, "a step waits for the device"
        return function(*args, **(kwargs or {}))


def test_a_step_never_waits_for_the_device(corpus: Path, tmp_path: Path):
    run = train.Run(Corpus.open(corpus), TINY, tmp_path / "run", None)
    batches = run.batches()
    with NoWaiting():
        for _ in range(3):
            run.update(next(batches))
        with pytest.raises(AssertionError, match="waits"):
            run.require_numbers()


def test_the_rate_rises_and_falls():
    recipe = Recipe(steps=1000, rise=100, learning_rate=2.0)
    rates = [train.learning_rate(recipe, step) for step in range(1000)]
    assert rates[0] == 0.02 and rates[99] == 2.0 == max(rates) and rates[-1] < 1e-5
    assert rates[500] == pytest.approx(1.0)
    assert all(a > b for a, b in zip(rates[100:], rates[101:], strict=False))


def test_noise_is_of_its_step_and_rank(corpus: Path):
    batch = next(Corpus.open(corpus).batches("train", 32, 0, 0))
    seeds = [train.seed_for(TINY, step, rank) for step in (0, 1) for rank in (0, 1)]
    draws = [train.noise_for(TINY, seed, batch) for seed in seeds]
    for i, (noise, hidden) in enumerate(draws):
        assert noise.shape == (len(batch.steps), 8)
        assert hidden is not None and hidden.shape == batch.steps.shape[:2]
        assert all(not torch.equal(noise, other) for other, _ in draws[:i])
    again, _ = train.noise_for(TINY, train.seed_for(TINY, 1, 1), batch)
    assert torch.equal(again, draws[-1][0])
    assert train.noise_for(replace(TINY, word_dropout=0.0), 0, batch)[1] is None


def test_resumed_batches_are_those_that_would_have_come(corpus: Path, tmp_path: Path):
    run = train.Run(Corpus.open(corpus), TINY, tmp_path / "run", None)
    whole = [next(batches).steps for batches in [run.batches()] for _ in range(12)]
    for step in (1, 4, 5, 6, 11):  # 5 steps an epoch
        run.step = step
        np.testing.assert_array_equal(next(run.batches()).steps, whole[step])


# -------------------------------------------------------------------------- remedies against collapse


REMEDIES = {
    "autoencoder": {"autoencoder": "12"},
    "aggressive": {"aggressive": "20"},
    "batch norm": {"gamma": "0.6"},
    "scale": {"spread": "1.0"},
    "dropout": {"dropout": "0.3"},
    "pooling": {"pooling": "max", "free_bits": "3", "free_over": "dimension"},
    "shared": {"shared": "true", "autoencoder": "12"},
    "critic": {"penalty": "factor", "strength": "5"},
    "importance": {"beta": "1", "samples": "3", "gradient": "dreg"},
}
OF_PICTURES = {
    "total correlation": {"penalty": "tc", "strength": "3"},
    "discrepancy": {"penalty": "mmd", "strength": "10"},
    "vamp": {"prior": "vamp", "components": "5"},
    "mixture": {"prior": "mixture", "components": "5", "likelihood": "laplace"},
    "similarity": {"ssim": "0.5"},
}


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of 129 bars of light: the last batch of 32 is of one alone."""
    folder = tmp_path_factory.mktemp("pictures")
    images = np.zeros((129, 12, 12), np.uint8)
    for i, image in enumerate(images):
        image[i % 10 : i % 10 + 2, i // 13 :] = 100 + i
    np.savez(folder / "images.npz", x_train=images, x_valid=images[:20], x_test=images[20:30])
    prepare(folder / "images.npz", folder / "corpus", codec=Framing(), workers=0)
    return folder / "corpus"


@pytest.mark.parametrize("settings", REMEDIES.values(), ids=REMEDIES.keys())
def test_every_remedy_resumes_to_the_same_bytes(
    corpus: Path, tmp_path: Path, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    resumed_to_the_same_bytes(corpus, TINY, tmp_path, settings, monkeypatch)


@pytest.mark.parametrize("settings", OF_PICTURES.values(), ids=OF_PICTURES.keys())
def test_every_objective_of_pictures_resumes_to_the_same_bytes(
    pictures: Path, tmp_path: Path, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    recipe = replace(TINY, size=ImageSize(widths=(4, 6), head=16, latent=5), word_dropout=0.0)
    resumed_to_the_same_bytes(pictures, recipe, tmp_path, settings, monkeypatch)
    row = list(csv.DictReader(open(tmp_path / "whole" / "metrics.csv")))[-1]
    assert {"squared_error", "psnr_db"} <= row.keys() and math.isfinite(float(row["loss"]))
    samples = tmp_path / "whole" / "samples" / "step-000020"
    assert {path.name for path in samples.iterdir()} == {
        "original-then-reconstruction.png",
        "interpolation.png",
        "sample.png",
    }


def resumed_to_the_same_bytes(
    corpus: Path, plain: Recipe, tmp_path: Path, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(plain, steps=20, evaluate_every=5, save_every=4)
    train.train(corpus, recipe, tmp_path / "whole", settings)

    class Killed(Exception):
        pass

    def stop(self: train.Run) -> None:
        save(self)
        if self.step == 8:
            raise Killed

    save = train.Run.save
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(train.Run, "save", stop)
        train.train(corpus, recipe, tmp_path / "half", settings)
    train.train(corpus, recipe, tmp_path / "half", settings, resume=True)
    assert kept(tmp_path / "half") == kept(tmp_path / "whole")


def test_a_plain_autoencoder_has_neither_noise_nor_kl(corpus: Path, tmp_path: Path):
    recipe = replace(TINY, autoencoder=40, word_dropout=0.0)
    run = train.Run(Corpus.open(corpus), recipe, tmp_path / "run", None)
    before = copy.deepcopy(run.model)
    terms = run.update(batch := next(run.batches()))
    steps, lengths, told = (torch.from_numpy(part) for part in batch)
    nll = before.nll(before.encode(steps, lengths, told).mean, steps, lengths, told).mean()
    assert terms.loss.item() == pytest.approx(nll.item(), rel=1e-6)
    train.train(corpus, recipe, tmp_path / "plain")
    figures = rows(tmp_path / "plain")[-1]
    assert figures["weight"] == 0 and figures["kl"] > 30  # nothing holds it back


def test_after_the_autoencoder_the_decoder_begins_anew(corpus: Path, tmp_path: Path):
    """The encoder and its moments stay; the schedule of the KL begins here."""
    recipe = replace(TINY, autoencoder=3, objective=Elbo(beta=0.5, warmup=10))
    run = train.Run(Corpus.open(corpus), recipe, tmp_path / "run", None)
    batches = run.batches()
    for _ in range(3):
        run.update(next(batches))
    before = copy.deepcopy(run.model)
    run.renew_decoder()
    for name, value in run.model.encoder.named_parameters():
        assert torch.equal(value, before.encoder.get_parameter(name))
    assert run.optimizer.state[run.model.encoder.mean.weight]["exp_avg"].any()
    old, new = before.decoder.lstm.weight_hh_l0, run.model.decoder.lstm.weight_hh_l0
    assert not torch.allclose(old, new) and not run.optimizer.state[new]["exp_avg"].any()
    assert run.update(next(batches)).weight == 0 and run.update(next(batches)).weight == pytest.approx(0.05)


def test_an_embedding_that_the_encoder_reads_too_outlives_the_decoder(corpus: Path, tmp_path: Path):
    recipe = replace(TINY, autoencoder=1, size=replace(SIZE, shared=True))
    run = train.Run(Corpus.open(corpus), recipe, tmp_path / "run", None)
    run.update(next(run.batches()))
    before = copy.deepcopy(run.model.decoder)
    run.renew_decoder()
    tables = [name for name, _ in before.named_parameters() if name.startswith("steps.")]
    assert tables
    for name, old in before.named_parameters():
        new = run.model.decoder.get_parameter(name)
        moments = run.optimizer.state[new]["exp_avg"]
        assert (torch.equal(old, new), bool(moments.any())) == (name in tables,) * 2 or not old.any()


def test_aggressive_steps_move_the_encoder_alone(corpus: Path, tmp_path: Path):
    run = train.Run(Corpus.open(corpus), replace(TINY, aggressive=10), tmp_path / "run", None)
    run.update(next(run.batches()))  # Adam's moments of the decoder would move it without a gradient
    before = copy.deepcopy(run.model)
    run.sharpen_encoder()
    moved = {n for n, v in run.model.named_parameters() if not torch.equal(v, before.get_parameter(n))}
    assert moved and all(name.startswith(("encoder.", "conditions.")) for name in moved)


def test_aggressive_training_ends_when_the_information_stops_rising(corpus: Path, tmp_path: Path):
    run = train.Run(Corpus.open(corpus), replace(TINY, aggressive=10), tmp_path / "run", None)
    assert run.aggressive
    for mi, goes_on in ((1.0, True), (1.5, True), (1.2, False), (2.0, False)):
        run.measure = lambda mi=mi: {"mi": mi, "loss": 1.0}  # type: ignore[method-assign]
        run.evaluate(None)
        assert run.aggressive is goes_on


# ---------------------------------------------------------------- what is fitted to the best model


def planted(monkeypatch: pytest.MonkeyPatch, corpus: Corpus, posterior: Posterior) -> Saved:
    """A model whose posteriors of the training windows are these."""

    def posteriors(model: object, corpus: Corpus, split: str, indices: np.ndarray) -> Posterior:
        assert split == "train"
        return Posterior(posterior.mean[indices], posterior.logvar[indices])

    monkeypatch.setattr(evaluation, "posteriors", posteriors)
    return Saved(build_model(corpus.codec, SIZE), corpus.codec)


def test_a_mixture_is_fitted_only_where_the_prior_has_holes(corpus: Path, monkeypatch: pytest.MonkeyPatch):
    opened = Corpus.open(corpus)
    generator, count = torch.Generator().manual_seed(1), len(opened.split("train"))
    mean = torch.randn(count, 8, generator=generator) * 0.5**0.5
    for shift in (0.0, 4.0):  # the aggregate posterior is N(shift, I)
        posterior = Posterior(mean + shift, torch.full((count, 8), math.log(0.5)))
        saved = planted(monkeypatch, opened, posterior)
        train.finish_model(saved, opened)
        gap = saved.config["prior"]["kl_minus_mi"]
        assert saved.config["prior"]["windows"] == count
        assert gap == pytest.approx(saved.config["prior"]["kl"] - saved.config["prior"]["mi"])
        if shift:
            assert gap == pytest.approx(8 * 4**2 / 2, abs=6) and saved.mixture is not None
            uniform, noise = torch.rand(4000, generator=generator), torch.randn(4000, 8, generator=generator)
            drawn = saved.mixture.sample(uniform, noise, torch.zeros(4000, 2))  # of no metre in particular
            # All windows are exemplars. Five standard errors of 4,000 draws of variance 1 are 0.08.
            torch.testing.assert_close(drawn.mean(0), posterior.mean.mean(0), atol=0.08, rtol=0)
            told = torch.from_numpy(opened.split("train").conditions.astype(np.float32))
            assert sorted(saved.mixture.conditions.tolist()) == sorted(told.tolist())
        else:
            assert -1 < gap < 5 and saved.mixture is None


@pytest.mark.parametrize("holes", [-math.inf, math.inf])
def test_samples_on_the_way_come_from_training_windows_where_the_prior_has_holes(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holes: float
):
    mixtures, written = [], evaluation.write_samples

    def watched(model: Any, corpus: Corpus, mixture: Mixture | None, *others: Any) -> dict[str, float]:
        mixtures.append(mixture)
        return written(model, corpus, mixture, *others)

    monkeypatch.setattr(evaluation, "write_samples", watched)
    monkeypatch.setattr(train, "HOLES", holes)
    opened = Corpus.open(corpus)
    run = train.Run(opened, TINY, tmp_path / "run", None)
    assert set(run.measure()) == set(COLUMNS)
    (mixture,) = mixtures
    if holes == math.inf:
        assert mixture is None
    else:
        known = evaluation.posteriors(run.model, opened, "train", np.arange(len(opened.split("train"))))
        expected = fit_mixture(known, evaluation.conditions_of(opened, "train", np.arange(len(known.mean))))
        assert all(torch.equal(a, b) for a, b in zip(mixture, expected, strict=True))


def test_the_succession_is_that_of_real_neighbours(corpus: Path, monkeypatch: pytest.MonkeyPatch):
    """Planted: each tune has a place in z, and moves by 3 along the first dimension from window to window."""
    opened = Corpus.open(corpus)
    data = opened.split("train")
    places = torch.randn(len(opened.names), 8, generator=torch.Generator().manual_seed(0))
    mean = places[data.tunes.astype(int)]
    mean[:, 0] += 1.5 * torch.tensor(data.bars)  # windows of two bars
    saved = planted(monkeypatch, opened, Posterior(mean, torch.full_like(mean, -20.0)))
    train.finish_model(saved, opened)
    pairs = torch.from_numpy(opened.successors("train"))
    assert len(pairs) > 50 and saved.succession is not None
    told = saved.succession.sample(mean[pairs[:, 0]], torch.zeros(len(pairs), 8))
    torch.testing.assert_close(told, mean[pairs[:, 1]], atol=0.5, rtol=0)
    assert (told - mean[pairs[:, 0]])[:, 0].mean() == pytest.approx(3, abs=0.05)


def test_a_large_corpus_is_fitted_from_a_part(corpus: Path, run: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[np.ndarray] = []
    posteriors = evaluation.posteriors

    def watched(model: Any, corpus: Corpus, split: str, indices: np.ndarray) -> Posterior:
        asked.append(indices)
        return posteriors(model, corpus, split, indices)

    monkeypatch.setattr(evaluation, "posteriors", watched)
    monkeypatch.setattr(train, "FITTED", 20)
    saved = load_model(run / "best")
    train.finish_model(saved, Corpus.open(corpus))
    (indices,) = asked
    assert 20 <= len(indices) <= 40 and len(set(indices)) == len(indices)
    assert saved.succession is not None and saved.config["prior"]["windows"] == len(indices)


def test_finishing_again_changes_nothing(corpus: Path, run: Path):
    once, twice = load_model(run / "best"), load_model(run / "best")
    for _ in range(2):
        train.finish_model(twice, Corpus.open(corpus))
    train.finish_model(once, Corpus.open(corpus))
    assert once.config == twice.config == load_model(run / "best").config
    assert once.succession is not None and twice.succession is not None
    for a, b in zip(once.succession, twice.succession, strict=True):
        assert torch.equal(a, b)


# ---------------------------------------------------------------- two ranks


class Stopped(Exception):
    pass


class Observed(train.Run):
    """Tells what its rank saw and ended with; stops before step `ends`, as if it were killed."""

    ends = 0
    seen: list[list[str]]
    weights: str

    def update(self, batch: Batch) -> Any:
        if self.step == self.ends and self.ends:
            raise Stopped
        if self.step < 2:
            pairs = zip(batch.steps, batch.lengths, batch.conditions, strict=True)
            keys = [digest(self.corpus.codec, (row[:n], told)) for row, n, told in pairs]  # type: ignore[arg-type]
            Observed.seen.append([key.hex() for key in keys])
        return super().update(batch)

    def finish(self) -> None:
        whole = b"".join(value.detach().numpy().tobytes() for value in self.model.state_dict().values())
        Observed.weights = hashlib.sha256(whole).hexdigest()
        assert all(bool(value.isfinite().all()) for value in self.model.parameters())
        super().finish()

    def measure(self) -> dict[str, float]:
        assert self.rank == 0
        return super().measure() | ({"loss": float(self.step)} if self.recipe.patience else {})


def ranks(corpus: Path, out: Path) -> None:
    """What each of two ranks does: a whole run, one stopped and resumed, one out of patience, one refused."""
    train.Run = Observed  # type: ignore[misc]
    recipe, told = replace(TINY, steps=16, evaluate_every=8, save_every=5), {}
    for name, ends, changed in (("whole", 0, {}), ("cut", 13, {}), ("patient", 0, {"patience": "1"})):
        Observed.ends, Observed.seen = ends, []
        if ends:
            try:
                train.train(corpus, recipe, out / name, changed)
            except Stopped:
                pass
            Observed.ends = 0
        train.train(corpus, recipe, out / name, changed, resume=bool(ends))
        told[name] = {"seen": Observed.seen, "weights": Observed.weights}
    try:
        train.train(corpus, recipe, out / "whole")
    except SeqvaeError as fault:
        told["refused"] = str(fault)  # type: ignore[assignment]
    (out / f"rank{os.environ['RANK']}.json").write_text(json.dumps(told))
    torch.distributed.barrier()  # neither leaves while the other still listens to it
    torch.distributed.destroy_process_group()


def test_two_ranks_train_one_model(corpus: Path, tmp_path: Path):
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", 2)
    with script(*launch, __file__, corpus, tmp_path) as process:
        with suppress(subprocess.TimeoutExpired):
            process.wait(HUNG)
        process.terminate()  # and so its ranks, should they hang
        _, said = process.communicate()
        assert process.returncode == 0, said[-3000:]
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    for name in ("whole", "cut", "patient"):
        assert first[name]["weights"] == second[name]["weights"]
    for ours, theirs in zip(first["whole"]["seen"], second["whole"]["seen"], strict=True):
        assert 0 < len(ours) <= 16 and 0 < len(theirs) <= 16 and not set(ours) & set(theirs)
    assert kept(tmp_path / "whole") == kept(tmp_path / "cut")
    assert len(list((tmp_path / "whole" / "events").iterdir())) == 1
    assert [row["step"] for row in rows(tmp_path / "patient")] == [8, 16]
    assert "holds a training already" in first["refused"] and first["refused"] == second["refused"]


def test_a_batch_that_does_not_divide_among_ranks_is_told(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(train.Fabric, "world_size", property(lambda fabric: 3))
    with pytest.raises(SeqvaeError, match="batch_size 32 does not divide among 3 processes"):
        train.train(corpus, TINY, tmp_path / "run")


if __name__ == "__main__":
    given = Path(sys.argv[1]), Path(sys.argv[2])
    if "RANK" in os.environ:
        ranks(*given)
    else:
        train.train(given[0], TINY, given[1], resume=True)
