"""Sentences: what a seed fixes, where the ends of a path lie, and what an attribute moves."""

import json
from itertools import product
from pathlib import Path

import pytest
import torch
from conftest import nowhere, refused, run

from seqvae.checkpoint import Saved, build_model, load_attribute, load_model, save_model
from seqvae.codecs import PiecesCodec, TextCodec, WordsCodec
from seqvae.corpus import collate
from seqvae.decoding import GREEDY, Beam, Sampling
from seqvae.engine import PRETRAINED
from seqvae.latent import Mixture
from seqvae.melodies import Melodies
from seqvae.model import Size
from seqvae.pipeline import Pipeline
from seqvae.sentences import Sentences
from seqvae.song import SeqvaeError

SMALL = Size(embedding=(24,), encoder=32, decoder=48, head=24, latent=8)
WHO, DOES, WHAT = (
    ("the cat", "a dog", "my friend"),
    ("likes", "hates"),
    ("cold milk", "the rain", "old songs"),
)
TEXTS = [" ".join(parts) for parts in product(WHO, DOES, WHAT)]
LIKES, HATES = [t for t in TEXTS if "likes" in t], [t for t in TEXTS if "hates" in t]


def learned(codec: TextCodec, folder: Path) -> Path:
    """The folder of a small model that knows TEXTS by heart, with a made-up prior."""
    torch.manual_seed(0)
    model = build_model(codec, SMALL)
    steps, lengths, told = (torch.from_numpy(part) for part in collate([codec.encode(t) for t in TEXTS]))
    adam = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(300):
        z = model.encode(steps, lengths, told).mean
        loss = model.nll(z, steps, lengths, told).mean() + 0.01 * z.square().sum(1).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        means = model.encode(steps, lengths, told).mean
    mixture = Mixture(means, torch.full_like(means, 0.1), torch.zeros(len(means), 0))
    save_model(folder, Saved(model, codec, {}, mixture))
    return folder


@pytest.fixture(scope="module", params=["words", "pieces"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kinds = {"words": lambda: WordsCodec.learn(TEXTS, 50), "pieces": lambda: PiecesCodec.learn(TEXTS, 300)}
    return learned(kinds[request.param](), tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def model(folder: Path) -> Sentences:
    return Pipeline.from_pretrained(folder)


def test_the_model_knows_its_kind(model: Sentences) -> None:
    assert isinstance(model, Sentences)
    with pytest.raises(SeqvaeError, match="of text, not of melodies"):
        Melodies(model.saved)
    assert isinstance(Pipeline.from_pretrained("melody"), Melodies)
    with pytest.raises(SeqvaeError, match="of melody, not of text"):
        Sentences(Pipeline.from_pretrained("melody").saved)


def test_what_is_known_by_heart_comes_back_whatever_the_company(model: Sentences) -> None:
    assert model.reconstruct(TEXTS) == TEXTS
    assert [model.reconstruct([text])[0] for text in TEXTS[:4]] == TEXTS[:4]
    assert model.reconstruct(TEXTS[:5], Beam(4, 0.6)) == TEXTS[:5]


def test_a_path_begins_and_ends_with_the_reconstructions(model: Sentences) -> None:
    path = model.interpolate(TEXTS[0], TEXTS[-1], 7)
    assert len(path) == 7 and [path[0], path[-1]] == model.reconstruct([TEXTS[0], TEXTS[-1]])
    assert model.interpolate(TEXTS[0], TEXTS[0], 4) == [TEXTS[0]] * 4
    with pytest.raises(SeqvaeError, match="at least 2 steps"):
        model.interpolate(TEXTS[0], TEXTS[1], 1)


def test_samples_hang_on_seed_and_number_alone(model: Sentences) -> None:
    ten = model.sample(10, seed=5)
    assert model.sample(3, seed=5) == ten[:3] and model.sample(10, seed=6) != ten
    assert len({*model.sample(30, GREEDY)} & {*TEXTS}) > 5  # the prior lies where the texts are
    assert {*model.sample(30, GREEDY, prior="standard")} != {*model.sample(30, GREEDY)}
    with pytest.raises(SeqvaeError, match="at least one sentence"):
        model.sample(0)


def test_a_variation_of_nothing_is_the_reconstruction(model: Sentences) -> None:
    assert model.vary(TEXTS[3], 0, 4) == [TEXTS[3]] * 4
    assert model.vary(TEXTS[3], 1, 6, seed=2) == model.sample(6, GREEDY, seed=2)
    assert {*model.vary(TEXTS[3], 1, 6, Sampling(), seed=2)} != {TEXTS[3]}
    with pytest.raises(SeqvaeError, match="0 to 1"):
        model.vary(TEXTS[3], 1.5)


def test_an_attribute_turns_one_kind_into_the_other(model: Sentences, tmp_path: Path) -> None:
    """Learnt of two files, kept in a third; at scale 0 nothing moves."""
    (tmp_path / "hates.txt").write_text("\n".join(HATES) + "\n\n", encoding="utf-8")
    (tmp_path / "likes.csv").write_text("text\n" + "\n".join(LIKES) + "\n", encoding="utf-8")
    out = tmp_path / "likes.safetensors"
    files = tmp_path / "hates.txt", tmp_path / "likes.csv"
    assert model.learn_attribute(files, out) == {str(files[0]): 9, str(files[1]): 9}
    attribute = load_attribute(out, model.saved)
    expected = model.encode(LIKES).mean(0) - model.encode(HATES).mean(0)
    torch.testing.assert_close(attribute.means[1] - attribute.means[0], expected, atol=1e-5, rtol=1e-4)
    shifted = [model.shift(text, [[(attribute, scale)] for scale in (-0.5, 0.0, 1.5)]) for text in HATES]
    assert sum(three[0] == text for three, text in zip(shifted, HATES, strict=True)) >= 7
    assert [three[1] for three in shifted] == HATES
    assert sum("likes" in three[2] for three in shifted) >= 7
    with pytest.raises(SeqvaeError, match="has 8 dimensions"):
        model.shift(HATES[0], [[(nowhere(5), scale)] for scale in (1.0,)])
    labelled = "".join(f"{'x' if text in HATES else 'y'}\t{text}\n" for text in TEXTS)
    (tmp_path / "both.tsv").write_text("class\ttext\n" + labelled, encoding="utf-8")
    assert model.learn_attribute([tmp_path / "both.tsv"], out) == {"x": 9, "y": 9}
    torch.testing.assert_close(load_attribute(out, model.saved)[:4], attribute[:4], atol=1e-5, rtol=1e-4)
    assert model.learn_attribute([tmp_path / "both.tsv"], out, "class", limit=4) == {"x": 4, "y": 4}


def test_an_attribute_belongs_to_its_model_and_needs_two_kinds(model: Sentences, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("the cat likes cold milk\n", encoding="utf-8")
    (tmp_path / "none.txt").write_text("  \n", encoding="utf-8")
    out = tmp_path / "a.safetensors"
    (tmp_path / "same.csv").write_text(
        "text,label\n" + "the cat likes cold milk,good\n" * 2, encoding="utf-8"
    )
    (tmp_path / "bare.csv").write_text("text\nthe cat likes cold milk\n", encoding="utf-8")
    for names, label, why in (
        (("one.txt", "none.txt"), None, "none.txt"),
        (("one.txt",), None, "one.txt has no labels"),
        (("bare.csv",), "label", "label"),
        (("same.csv",), None, "one kind to another, and there is good"),
    ):
        with pytest.raises(SeqvaeError, match=why):
            model.learn_attribute([tmp_path / name for name in names], out, label)
    assert not out.exists()
    model.learn_attribute([tmp_path / "one.txt", tmp_path / "bare.csv"], out)
    with pytest.raises(SeqvaeError, match="learnt with another model"):
        load_attribute(out, Pipeline.from_pretrained("melody").saved)
    for strange, why in ((tmp_path / "one.txt", "damaged"), (tmp_path / "gone", "cannot be read")):
        with pytest.raises(SeqvaeError, match=why):
            load_attribute(strange, model.saved)
    weights = PRETRAINED / "melody" / "model.safetensors"
    with pytest.raises(SeqvaeError, match="is no attribute"):
        load_attribute(weights, model.saved)


def test_what_cannot_be_read_is_said(model: Sentences) -> None:
    for nothing in ("", " \t "):
        with pytest.raises(SeqvaeError, match="nothing to read"):
            model.encode([TEXTS[0], nothing])
    long = " ".join(TEXTS * 20)
    assert any("cut" in said for said in model.notices([long, TEXTS[0]]))
    assert model.notices(TEXTS) == ()
    assert model.encode([long]).isfinite().all()
    unknown = model.notices(["the zebra likes cold milk"])
    assert unknown == (("the model does not know zebra",) if isinstance(model.codec, WordsCodec) else ())


def test_the_vocabulary_travels_with_the_weights(folder: Path, model: Sentences, tmp_path: Path) -> None:
    again = load_model(folder)
    assert again.codec.state == model.codec.state and again.codec.config() == model.codec.config()
    save_model(tmp_path, again, half=True)
    assert load_model(tmp_path).codec.state == model.codec.state
    other = WordsCodec.learn(["another vocabulary"], 50)
    save_model(tmp_path / "other", Saved(build_model(other, SMALL), other))
    config = (tmp_path / "other" / "config.json").read_text(encoding="utf-8")
    digest = other.config()["vocabulary"]
    broken = config.replace(str(digest), str(model.codec.config()["vocabulary"]))
    (tmp_path / "other" / "config.json").write_text(broken, encoding="utf-8")
    with pytest.raises(SeqvaeError, match="vocabulary is not the one"):
        load_model(tmp_path / "other")


# ------------------------------------------------------------------------------------------ the commands


def test_the_verbs_speak_sentences(folder: Path, model: Sentences, tmp_path: Path) -> None:
    made = run("generate", "-m", folder, "-n", 3, "--seed", 4, "-o", tmp_path / "new.txt")
    assert made.exit_code == 0 and "the widened posteriors of training texts with seed 4" in made.output
    assert (tmp_path / "new.txt").read_text(encoding="utf-8").splitlines() == model.sample(3, seed=4)
    path = run("interpolate", TEXTS[0], TEXTS[-1], "-m", folder, "--steps", 5, "-o", tmp_path / "path.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "path.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["t"] for row in rows] == [0, 0.25, 0.5, 0.75, 1]
    assert [row["text"] for row in rows] == model.interpolate(TEXTS[0], TEXTS[-1], 5)
    assert all(row["text"] in path.output for row in rows)
    again = run("reconstruct", TEXTS[2], "-m", folder, "--beam", 3)
    assert again.exit_code == 0 and again.output.count(TEXTS[2]) == 2
    assert run("vary", TEXTS[2], "-m", folder, "--amount", 0, "-n", 2).output.count(TEXTS[2]) == 2


def test_an_attribute_is_learnt_and_followed(folder: Path, tmp_path: Path) -> None:
    for name, texts in (("hates", HATES), ("likes", LIKES)):
        (tmp_path / f"{name}.txt").write_text("\n".join(texts), encoding="utf-8")
    kept = tmp_path / "kept.safetensors"
    names = (tmp_path / "hates.txt", tmp_path / "likes.txt")
    result = run("attributes", "learn", *names, "-m", folder, "-o", kept)
    assert result.exit_code == 0 and result.output.split().count("9") == 2
    moved = run("shift", HATES[0], "-m", folder, "--attribute", kept, "--scale", 0, "--scale", 1.5)
    assert moved.exit_code == 0 and HATES[0] in moved.output
    assert "two files, or of one" in refused(
        "attributes", "learn", *names, names[0], "-m", folder, "-o", kept
    )
    assert "for models of melody" in refused("attributes", "learn", *names, "-m", "melody", "-o", kept)
    assert "--attribute" in refused("shift", HATES[0], "-m", folder)
    tune = Path(__file__).parent.parent / "data" / "heron_weather.mid"
    assert "another model" in refused("shift", tune, "-m", "melody", "--attribute", kept)
    assert "do not differ in length" in refused("shift", HATES[0], "-m", folder, "--attribute", "length")
    assert "the model's own are length" in refused("shift", HATES[0], "-m", folder, "--attribute", "colour")


def test_options_of_another_kind_are_refused(folder: Path) -> None:
    assert "--bars means nothing to a model of text" in refused("generate", "-m", folder, "--bars", 4)
    assert "--track means nothing" in refused("reconstruct", TEXTS[0], "-m", folder, "--track", 1)
    assert "--beam means nothing to a model of melody" in refused("generate", "--beam", 4)
    assert "nothing to read" in refused("reconstruct", "  ", "-m", folder)
    assert "length penalty" in refused(
        "reconstruct", TEXTS[0], "-m", folder, "--beam", 2, "--length-penalty", -1
    )
    assert "cannot be written" in refused("generate", "-m", folder, "-o", folder / "config.json" / "x.txt")


def test_a_language_model_has_no_places() -> None:
    codec = WordsCodec(b"<unk>\nthe\ncat\nsat")
    size = Size(embedding=(8,), condition=4, encoder=8, decoder=8, head=8, latent=0)
    model = Sentences(Saved(build_model(codec, size).eval(), codec, {}, None, None))
    assert model.measured() == {} and len(model.sample(2)) == 2
    with pytest.raises(SeqvaeError, match="no latent space"):
        model.atlas()
