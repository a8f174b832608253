"""Evaluation: figures that are what they say, repeatable, and plain numbers."""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_train import TINY, make_corpus

from seqvae import evaluation, files, listening
from seqvae.checkpoint import Saved, load_model, save_model
from seqvae.codecs import Encoded, NotesCodec
from seqvae.codecs.grid import END
from seqvae.codecs.text import Spelling
from seqvae.corpus import Corpus, collate, prepare
from seqvae.decoding import GREEDY, Sampling, Stepper
from seqvae.importance import importance_nll
from seqvae.latent import Mixture
from seqvae.metrics import styles
from seqvae.model import SequenceVAE, Size
from seqvae.objective import Elbo, Posterior
from seqvae.prior import fit_mixture
from seqvae.song import Metre, Note, Phrase, SeqvaeError
from seqvae.train import Run, train

BOUNDS = {"nll", "kl", "mi", "kl_minus_mi", "active_units", "nll_of_another_z"}
NOTES = {"onset_pitch_f1", "onset_f1", "exact_windows"}
NOVELTY = {"in_train", "in_test", "new"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("tunes"))


@pytest.fixture(scope="module")
def corpus(folder: Path) -> Corpus:
    return Corpus.open(folder)


@pytest.fixture(scope="module")
def saved(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """A model that has learnt its training windows by heart, somewhat."""
    run = Run(corpus, replace(TINY, steps=250), tmp_path_factory.mktemp("run"), None)
    for batch, _ in zip(run.batches(), range(250), strict=False):
        run.update(batch)
    save_model(run.out, Saved(run.model, corpus.codec))
    return load_model(run.out)


def test_every_figure_is_there_and_plain(corpus: Corpus, saved: Saved):
    figures = evaluation.assess(saved, corpus, "test", samples=50)
    piles = {"corpus", "reconstructions", "interpolations", "samples_standard"}
    assert set(figures) == {"split", "windows", "seed", "temperature"} | piles | BOUNDS | NOTES
    assert figures["windows"] == len(corpus.split("test")) and figures["split"] == "test"
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert NOVELTY < set(figures["samples_standard"])
    assert set(figures["corpus"]) == set(figures["samples_standard"]) - NOVELTY
    assert figures["corpus"]["phrases"] == figures["windows"] and figures["samples_standard"]["phrases"] == 50
    assert figures["corpus"]["leap_share"] < 0.1 and 2 <= figures["corpus"]["notes_per_bar"] <= 8


def test_figures_repeat_for_a_seed(corpus: Corpus, saved: Saved):
    first, again, other = (evaluation.assess(saved, corpus, "test", samples=20, seed=s) for s in (0, 0, 1))
    assert first == again
    assert first["nll"] != other["nll"] and first["samples_standard"] != other["samples_standard"]
    assert first["kl"] == other["kl"] and first["onset_pitch_f1"] == other["onset_pitch_f1"]


def test_a_limit_takes_a_part(corpus: Corpus, saved: Saved):
    figures = evaluation.assess(saved, corpus, "train", limit=10, samples=8)
    assert figures["windows"] == 10 == figures["corpus"]["phrases"]
    count = len(corpus.split("train"))
    some = evaluation.chosen(corpus, "train", 10, seed=3)
    assert len(some) == 10 and np.all(np.diff(some) > 0) and some[0] >= 0 and some[-1] < count
    assert not np.array_equal(some, evaluation.chosen(corpus, "train", 10, seed=4))
    for limit in (None, count, count + 1):
        np.testing.assert_array_equal(evaluation.chosen(corpus, "train", limit), np.arange(count))


def test_a_fitted_prior_is_sampled_too(corpus: Corpus, saved: Saved):
    posterior = evaluation.posteriors(saved.model, corpus, "train", np.arange(len(corpus.split("train"))))
    both = Saved(saved.model, saved.codec, {}, fit_mixture(posterior, torch.zeros(len(posterior.mean), 2)))
    figures = evaluation.assess(both, corpus, "test", limit=8, samples=20)
    assert [name for name in figures if name.startswith("samples")] == ["samples_fitted", "samples_standard"]
    assert figures["samples_fitted"] != figures["samples_standard"]
    assert evaluation.assess(saved, corpus, "test", limit=8, samples=20).items() <= figures.items()


def test_a_split_without_windows_or_name_is_told(folder: Path, saved: Saved, tmp_path: Path):
    with pytest.raises(SeqvaeError, match="a corpus has the splits train, valid, test, not 'dev'"):
        evaluation.assess(saved, Corpus.open(folder), "dev")
    bare = Corpus.open(make_corpus(tmp_path, valid=0))
    with pytest.raises(SeqvaeError, match="the corpus has no windows in its valid split"):
        evaluation.assess(saved, bare, "valid")


def test_samples_are_of_the_temperature(folder: Path, saved: Saved):
    corpus = Corpus.open(folder)
    warm, cold = (evaluation.assess(saved, corpus, "valid", samples=30, temperature=t) for t in (1.0, 0.0))
    assert cold["temperature"] == 0 and warm["temperature"] == 1
    assert warm["samples_standard"] != cold["samples_standard"] and warm["nll"] == cold["nll"]
    with pytest.raises(ValueError, match="temperature"):
        evaluation.assess(saved, corpus, "valid", temperature=-1)


def test_evaluate_opens_folders_of_one_spelling(folder: Path, saved: Saved, tmp_path: Path):
    save_model(tmp_path / "model", saved)
    figures = evaluation.evaluate(tmp_path / "model", folder, "valid", 8, seed=5)
    assert (figures["split"], figures["windows"], figures["seed"]) == ("valid", 8, 5)
    prepare(
        folder.parent / "music", tmp_path / "longer", codec=NotesCodec(bars=3), workers=0, valid=0, test=0.2
    )
    with pytest.raises(SeqvaeError, match="the model spells .* and the corpus .*prepare the corpus to match"):
        evaluation.evaluate(tmp_path / "model", tmp_path / "longer")
    with pytest.raises(SeqvaeError, match="is no model"):
        evaluation.evaluate(tmp_path / "nothing", folder)


# ---------------------------------------------------------------- bounds


def test_divergences_lie_within_their_bounds(corpus: Corpus, saved: Saved):
    """MI <= KL but for the noise of one sample a window, here below half a nat, and MI <= log N exactly."""
    for split, limit in (("train", None), ("test", None), ("test", 5), ("test", 1)):
        indices = evaluation.chosen(corpus, split, limit)
        posterior = evaluation.posteriors(saved.model, corpus, split, indices)
        figures = evaluation.bounds(saved.model, corpus, split, indices, posterior)
        assert set(figures) == BOUNDS
        assert figures["mi"] <= math.log(len(indices)) + 1e-4
        assert figures["mi"] <= figures["kl"] + 0.5
        assert figures["kl_minus_mi"] == figures["kl"] - figures["mi"]
        assert figures["kl"] == pytest.approx(posterior.kl().sum(1).mean().item())


def test_another_z_explains_learnt_windows_worse(corpus: Corpus, saved: Saved):
    indices = np.arange(len(corpus.split("train")))
    posterior = evaluation.posteriors(saved.model, corpus, "train", indices)
    figures = evaluation.bounds(saved.model, corpus, "train", indices, posterior)
    assert figures["nll_of_another_z"] > figures["nll"] + 5
    assert figures["active_units"] == 8


def test_the_loss_is_the_objective_at_full_weight(corpus: Corpus, saved: Saved):
    indices = evaluation.chosen(corpus, "test", 8)
    posterior = evaluation.posteriors(saved.model, corpus, "test", indices)

    def figures(objective: Elbo) -> dict[str, float]:
        return evaluation.bounds(saved.model, corpus, "test", indices, posterior, 0, objective)

    plain = figures(Elbo(beta=0.3, anneal="cyclical", warmup=900, cycle=1000))
    assert plain["loss"] == pytest.approx(plain["nll"] + 0.3 * plain["kl"], rel=1e-5)
    assert figures(Elbo(beta=0.3, free_bits=1e6))["loss"] == pytest.approx(plain["nll"], rel=1e-5)
    aimed = figures(Elbo(beta=0.3, capacity=50.0))["loss"]
    assert aimed == pytest.approx(plain["nll"] + 0.3 * abs(plain["kl"] - 50), rel=1e-5)


def test_windows_keep_their_order_in_buckets(corpus: Corpus, saved: Saved, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(evaluation, "BATCH", 16)
    indices = evaluation.chosen(corpus, "train", 50)[::-1]
    posterior = evaluation.posteriors(saved.model, corpus, "train", indices)
    nll = evaluation.likelihoods(saved.model, corpus, "train", indices, posterior.mean)
    for row in range(0, 50, 7):
        alone = collate([corpus.window("train", int(indices[row]))])
        steps, lengths, conditions = (torch.from_numpy(part) for part in alone)
        with torch.inference_mode():
            single = saved.model.encode(steps, lengths, conditions)
            own = saved.model.nll(single.mean, steps, lengths, conditions)
        for a, b in ((posterior.mean[row], single.mean[0]), (posterior.logvar[row], single.logvar[0])):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(nll[row], own[0], atol=1e-3, rtol=1e-5)


# ---------------------------------------------------------------- notes and samples


def decoding(monkeypatch: pytest.MonkeyPatch, rows: list[np.ndarray]) -> None:
    """A decoder that answers with these rows whatever z is."""
    monkeypatch.setattr(evaluation, "decode", lambda stepper, z, conditions, how, **_: rows)


def test_an_oracle_reconstructs_every_note(corpus: Corpus, saved: Saved, monkeypatch: pytest.MonkeyPatch):
    indices = evaluation.chosen(corpus, "test", None)
    posterior = evaluation.posteriors(saved.model, corpus, "test", indices)
    rows = [corpus.window("test", int(i)).steps.astype(np.int64) for i in indices]
    originals = evaluation.held(corpus, "test", indices)

    def figures() -> dict[str, float]:
        return evaluation.reconstruction(saved.model, corpus, "test", indices, posterior, originals)

    assert all(0 <= value < 1 for value in figures().values())
    decoding(monkeypatch, rows)
    assert figures() == {"onset_pitch_f1": 1.0, "onset_f1": 1.0, "exact_windows": 1.0}
    higher = [row + np.array([0, 1, 0, 0]) for row in rows]
    decoding(monkeypatch, higher)
    assert figures() == {"onset_pitch_f1": 0.0, "onset_f1": 1.0, "exact_windows": 0.0}
    decoding(monkeypatch, rows[:-1] + higher[-1:])
    assert figures()["exact_windows"] == pytest.approx(1 - 1 / len(rows))


def test_novelty_tells_train_test_and_new_apart(corpus: Corpus):
    train, test = corpus.window("train", 3), corpus.window("test", 2)
    moved = train.steps + np.array([0, 2, 0, 0], np.int16) * (train.steps[:, :1] < 144)
    odd = Encoded(np.array([[1, 0, 0, 0], [144, 0, 0, 0]]), np.array([4, 2]))
    windows = [train, Encoded(moved, train.condition), test, odd]
    found = evaluation.novelty(corpus, [corpus.codec.decode(*window) for window in windows])
    assert found == {"in_train": 0.5, "in_test": 0.25, "new": 0.25}


def test_samples_come_from_their_prior(corpus: Corpus, saved: Saved, monkeypatch: pytest.MonkeyPatch):
    asked: list[torch.Tensor] = []

    def decode(stepper: Stepper, z: torch.Tensor, told: torch.Tensor, how: Sampling, **_: Any) -> Any:
        asked.append(z)
        return [np.array([[144, 0, 0, 0]])] * len(z)

    monkeypatch.setattr(evaluation, "decode", decode)
    far = Mixture(torch.full((1, 8), 9.0), torch.full((1, 8), 0.1), torch.zeros(1, 2))
    for mixture, mean, std in ((None, 0.0, 1.0), (far, 9.0, 0.1)):
        _, told = evaluation.sample_windows(saved.model, corpus, mixture, 2000, 0, Sampling())
        # 16,000 draws: five standard errors are 0.04 of the deviation.
        assert asked[-1].mean().item() == pytest.approx(mean, abs=0.04 * std)
        assert asked[-1].std().item() == pytest.approx(std, rel=0.04)
    real = corpus.split("train").conditions
    for metre in np.unique(real, axis=0):
        share = (told.numpy() == metre).all(1).mean()
        # Five standard errors of 2,000 draws are 0.056 at most.
        assert share == pytest.approx((real == metre).all(1).mean(), abs=0.056)


def test_files_are_written_where_no_folder_is(corpus: Corpus, saved: Saved, tmp_path: Path):
    indices = evaluation.chosen(corpus, "test", 3)
    means = evaluation.posteriors(saved.model, corpus, "test", indices).mean
    folder = tmp_path / "a" / "b"
    evaluation.write_paths(saved.model, corpus, "test", indices, means, folder)
    found = evaluation.write_samples(saved.model, corpus, None, folder, 0, count=10)
    assert set(found) == NOVELTY and sum(found.values()) == pytest.approx(1)
    assert len(list(folder.glob("original-then-reconstruction-*.mid"))) == 3
    assert len(list(folder.glob("sample-*.mid"))) == 8
    travelled = files.read(folder / "interpolation.mid").parts[0].notes
    window = corpus.window("test", int(indices[0]))
    told = torch.from_numpy(window.condition)[None].long()
    (rebuilt,) = evaluation.decode(Stepper(saved.model), means[:1], told, GREEDY)
    pitches = [note.pitch for note in corpus.codec.decode(rebuilt, window.condition).notes]
    beats = corpus.codec.decode(*window).beats
    assert [note.pitch for note in travelled if note.onset < beats] == pitches
    (tmp_path / "file").write_text("")
    with pytest.raises(SeqvaeError, match="cannot be made"):
        evaluation.write_samples(saved.model, corpus, None, tmp_path / "file", 0, count=8)


def test_windows_of_one_note_are_evaluated(saved: Saved, corpus: Corpus, monkeypatch: pytest.MonkeyPatch):
    """The least there is: one window, one note."""
    window = corpus.codec.encode(Phrase((Note(0.0, 1.0, 60),), Metre(4, 4), 2))
    monkeypatch.setattr(Corpus, "window", lambda corpus, split, index: window)
    figures = evaluation.assess(saved, corpus, "test", limit=1, samples=8)
    assert figures["corpus"]["range_semitones"] == 0 and math.isfinite(figures["nll"])
    assert json.dumps(figures, allow_nan=False)


def test_melodies_are_read_by_an_ngram_model_and_in_their_style(corpus: Corpus, saved: Saved):
    figures = evaluation.assess(saved, corpus, "test", samples=60)
    real, made = figures["corpus"], figures["samples_standard"]
    model, windows = listening.reader(corpus), evaluation.held(corpus, "test", np.arange(figures["windows"]))
    spelt = listening.events(corpus, windows)
    assert real["ngram_nll"] == pytest.approx(model.nll(spelt).mean())
    assert 0 < real["ngram_nll"] < np.mean([len(one) for one in spelt]) * math.log(END + 1)
    assert figures["reconstructions"]["ngram_nll"] > 0 and made["ngram_nll"] > 0
    path = figures["interpolations"]
    ends = (path["ngram_nll_0"] + path["ngram_nll_8"]) / 2
    assert path["midpoint_of_ends"] == pytest.approx(path["ngram_nll_4"] / ends)
    assert len([name for name in path if name.startswith("ngram_nll_")]) == 9 and -1 <= path["spearman"] <= 1
    assert set(real["style"]) == set(made["style"]) == set(styles.FEATURES)
    for name, found in made["style"].items():
        assert 0 <= found["area"] <= 1 and found["kl"] >= 0
        assert found["area_of_real"] == pytest.approx(found["area"] / real["style"][name]["area"])
    # Samples of another prior leave the corpus behind where real windows of other tunes do not.
    far = Mixture(torch.full((1, 8), 9.0), torch.full((1, 8), 0.1), torch.zeros(1, 2))
    lost = evaluation.assess(Saved(saved.model, saved.codec, {}, far), corpus, "test", samples=60)
    assert lost["corpus"] == real
    assert lost["samples_fitted"]["style"]["pitch_range"]["area"] < made["style"]["pitch_range"]["area"]


def test_paths_join_windows_told_the_same():
    told = torch.tensor([[6, 3], [4, 2], [6, 3], [2, 2], [4, 2], [6, 3], [6, 3], [4, 2]])
    for count, expected in ((9, 3), (2, 2), (1, 1)):
        first, last = evaluation.pairs(told, count)
        assert len(first) == len(last) == expected
        assert torch.equal(told[first], told[last]) and len({*first, *last}) == 2 * len(first)
    assert evaluation.pairs(told, 9) == evaluation.pairs(told, 9) != evaluation.pairs(told, 9, seed=1)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(0)).tolist()
    assert evaluation.pairs(torch.zeros(5, 0), 64) == (order[:2], order[2:4])


def test_posteriors_hold_no_graph(corpus: Corpus, model: SequenceVAE):
    posterior: Posterior = evaluation.posteriors(model, corpus, "test", np.arange(4))
    assert not posterior.mean.requires_grad and posterior.mean.dtype == torch.float32
    assert posterior.mean.shape == posterior.logvar.shape == (4, 8)


# -------------------------------------------------------------------------------------------- text

WORDS = (
    ("the cat", "a dog", "my friend", "some child", "that old man"),
    ("likes", "hates", "sees", "remembers", "paints"),
    ("cold milk", "the rain", "old songs", "a red house", "every river", "nothing"),
    ("today", "at night", "in spring"),
)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """450 sentences, spelt in words and split."""
    folder = tmp_path_factory.mktemp("texts")
    lines = [" ".join(parts) for parts in itertools.product(*WORDS)]
    (folder / "lines.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    prepare(folder / "lines.txt", folder / "corpus", codec=Spelling("words"), workers=0, valid=0.1, test=0.1)
    return Corpus.open(folder / "corpus")


@pytest.fixture(scope="module")
def speaker(texts: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a model trained on them."""
    size = Size(embedding=(16,), encoder=24, decoder=32, head=16, latent=8)
    recipe = replace(TINY, size=size, steps=150, evaluate_every=150, objective=Elbo(beta=0.1), rise=20)
    out = tmp_path_factory.mktemp("speaker") / "run"
    train(texts.folder, recipe, out)
    return out


def test_text_has_its_own_figures(texts: Corpus, speaker: Path):
    saved = load_model(speaker / "best")
    figures = evaluation.assess(saved, texts, "test", samples=40, importance=20)
    expected = {"bleu", "exact_texts", "content_word_recall", "perplexity", "mi_of_minibatches"}
    assert set(figures) >= BOUNDS | expected | {"iw_nll", "iw_samples", "iw_perplexity"}
    assert not set(figures) & NOTES and json.loads(json.dumps(figures, allow_nan=False)) == figures
    symbols = np.diff(texts.split("test").offsets).mean()  # with END
    assert figures["perplexity"] == pytest.approx(math.exp((figures["nll"] + figures["kl"]) / symbols))
    assert figures["iw_perplexity"] == pytest.approx(math.exp(figures["iw_nll"] / symbols))
    assert 0 < figures["iw_nll"] < figures["nll"] + figures["kl"]  # a tighter bound, by nats here
    assert figures["mi_of_minibatches"] <= math.log(32) + 0.1 and figures["mi"] > 1
    assert figures["bleu"] > 20 and figures["content_word_recall"] == 0  # of so few words all are common
    told = figures["samples_fitted" if saved.mixture else "samples_standard"]
    assert NOVELTY < set(told) and 0 < told["distinct_1"] <= 1


def test_the_importance_weighted_nll_is_of_each_window_by_its_place(texts: Corpus, speaker: Path):
    model = load_model(speaker / "best").model
    indices = np.array([3, 0, 5])
    found = evaluation.tightened(model, texts, "test", indices, 5, seed=1)
    steps, lengths, told = (
        torch.from_numpy(part) for part in collate([texts.window("test", int(i)) for i in indices])
    )
    plain = importance_nll(model, steps, lengths, told, samples=5, seed=1)
    assert found["iw_nll"] == pytest.approx(plain.mean().item(), rel=1e-5)


def test_the_importance_weighted_nll_is_under_a_fitted_prior_too(corpus: Corpus, saved: Saved):
    """A mixture that is N(0, I) gives the same; one that is far away costs its distance."""
    indices, size = np.arange(5), saved.model.size.latent
    same = Mixture(torch.zeros(1, size), torch.ones(1, size), torch.zeros(1, 0))
    plain = evaluation.tightened(saved.model, corpus, "test", indices, 20)
    found = evaluation.tightened(saved.model, corpus, "test", indices, 20, mixture=same)
    assert found == plain | {"iw_nll_fitted": pytest.approx(plain["iw_nll"], abs=1e-4)}
    far = same._replace(means=torch.full((1, size), 9.0))
    figures = evaluation.assess(
        replace(saved, mixture=far), corpus, "test", limit=5, samples=8, importance=20
    )
    assert figures["iw_nll_fitted"] > figures["iw_nll"] + 100  # of 8 dimensions 9 away some 40 nats each


def test_evaluations_of_text_can_be_read(texts: Corpus, speaker: Path):
    folder = speaker / "samples" / "step-000150"
    assert {path.name for path in folder.iterdir()} == {
        "original-then-reconstruction.txt",
        "interpolation.txt",
        "sample.txt",
    }
    pairs = (folder / "original-then-reconstruction.txt").read_text(encoding="utf-8").split("\n\n")
    known = {texts.codec.decode(*texts.window("valid", i)) for i in range(len(texts.split("valid")))}
    assert len(pairs) == 8 and {pair.splitlines()[0] for pair in pairs} <= known
    assert len((folder / "interpolation.txt").read_text(encoding="utf-8").splitlines()) == 7
    assert len((folder / "sample.txt").read_text(encoding="utf-8").splitlines()) == 8


@pytest.fixture(scope="module")
def language(texts: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a language model trained on them."""
    size = Size(embedding=(16,), encoder=24, decoder=32, head=16, latent=0)
    recipe = replace(TINY, size=size, steps=150, evaluate_every=150, rise=20)
    return train(texts.folder, recipe, tmp_path_factory.mktemp("language") / "run")


def test_a_language_model_is_evaluated_alike(texts: Corpus, language: Path):
    figures = evaluation.assess(load_model(language), texts, "test", samples=10, importance=9)
    assert figures["kl"] == figures["mi"] == 0
    assert figures["iw_nll"] == pytest.approx(figures["nll"], rel=1e-4)
    # Untrained 60; all there is to know log 450 = 6.1
    assert figures["nll"] == figures["nll_of_another_z"] < 15


def test_a_language_model_reads_windows_samples_and_paths(texts: Corpus, speaker: Path, language: Path):
    judge = load_model(language)
    known = evaluation.held(texts, "test", np.arange(len(texts.split("test"))))
    mixed = [" ".join(reversed(text.split())) for text in known]
    plain, odd = (evaluation.language_nll(judge, some) for some in (known, mixed))
    assert odd > 2 * plain > 0
    each = [
        evaluation.language_nll(judge, [text]) * len(texts.codec.encode(text).steps) for text in known[:5]
    ]
    symbols = sum(len(texts.codec.encode(text).steps) for text in known[:5])
    assert evaluation.language_nll(judge, known[:5]) == pytest.approx(sum(each) / symbols, rel=1e-5)

    figures = evaluation.evaluate(speaker / "best", texts.folder, language_folder=language)
    own = evaluation.evaluate(language, texts.folder)
    assert figures["corpus"]["forward_perplexity"] == pytest.approx(own["perplexity"], rel=1e-4)
    assert figures["corpus"]["forward_perplexity"] == pytest.approx(math.exp(plain), rel=1e-5)
    assert figures["samples_standard"]["forward_perplexity"] > 1
    path = list(figures["interpolations"].values())
    assert len(path) == 9 and len(set(path)) > 5 and all(0 < nats < math.log(40) for nats in path)


def test_the_ends_of_a_path_are_the_reconstructions(texts: Corpus, speaker: Path, language: Path):
    saved, judge = load_model(speaker / "best"), load_model(language)
    indices = np.arange(6)
    means = evaluation.posteriors(saved.model, texts, "test", indices).mean
    steps = evaluation.between(saved.model, texts, "test", indices, means)
    path = [evaluation.language_nll(judge, step) for step in steps]
    rebuilt = evaluation.decoded(
        Stepper(saved.model), texts.codec, means, evaluation.conditions_of(texts, "test", indices)
    )
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0)).tolist()
    for end, places in ((path[0], order[:3]), (path[-1], order[3:])):
        assert end == pytest.approx(evaluation.language_nll(judge, [rebuilt[i] for i in places]), rel=1e-5)


def test_what_has_a_latent_is_no_language_model(texts: Corpus, speaker: Path):
    with pytest.raises(SeqvaeError, match="is no language model; train one with --set latent=0"):
        evaluation.evaluate(speaker / "best", texts.folder, language_folder=speaker / "best")
