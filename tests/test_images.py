"""Images: what a seed fixes, where the ends of a path lie, what an attribute moves, and every verb."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import done, nowhere, refused
from PIL import Image
from sklearn.datasets import load_digits

from seqvae import gallery
from seqvae.checkpoint import Saved, build_model, load_attribute, save_attribute, save_model
from seqvae.codecs import PixelsCodec
from seqvae.corpus import prepare
from seqvae.image import ImageSize
from seqvae.images import Images
from seqvae.latent import Attribute
from seqvae.pictures import Framing
from seqvae.pipeline import Pipeline
from seqvae.prior import MixturePrior, VampPrior
from seqvae.sentences import Sentences
from seqvae.song import SeqvaeError
from seqvae.train import train

SIDE, SQUARE = 12, np.s_[8:11, 8:11]  # where some pictures have a white square
SMALL = {"network": "dense", "widths": "64", "latent": "6", "beta": "0.1", "warmup": "20", "rise": "20"}
SMALL |= {"likelihood": "gaussian", "learning_rate": "5e-3", "batch_size": "32", "evaluate_every": "200"}
CONV = ImageSize(widths=(6, 8), head=16, latent=6)


def disc(number: int, square: bool) -> np.ndarray:
    """A grey disc (SIDE, SIDE, 1) of any place, size and grey above the square, if there is one."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:SIDE, :SIDE]
    (at_y, at_x), radius = rng.uniform(3, 7, 2), rng.uniform(2, 4)
    picture = np.where((y - at_y) ** 2 + (x - at_x) ** 2 < radius**2, rng.integers(120, 256), 0)
    picture[SQUARE] = 255 if square else picture[SQUARE]
    return picture.astype(np.uint8)[:, :, None]


PLAIN, SQUARED = ([disc(number, square) for number in range(160)] for square in (False, True))
BOTH = [picture for pair in zip(PLAIN[:20], SQUARED[:20], strict=True) for picture in pair]


def saved(path: Path, picture: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture.squeeze()).save(path)
    return path


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return len(one) == len(other) and all(map(np.array_equal, one, other))


def brightness(picture: np.ndarray) -> float:
    """Of the place of the square, 0 .. 255."""
    return float(picture[SQUARE].mean())


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders plain and square, of 160 pictures each."""
    folder = tmp_path_factory.mktemp("album")
    for number, pair in enumerate(zip(PLAIN, SQUARED, strict=True)):
        for name, picture in zip(("plain", "square"), pair, strict=True):
            saved(folder / name / f"{number:03}.png", picture)
    return folder


@pytest.fixture(scope="module")
def corpus(album: Path) -> Path:
    out = album.parent / "corpus of discs"
    assert prepare(album, out, codec=Framing(), workers=0).frame == "12 x 12 grey"
    return out


@pytest.fixture(scope="module")
def folder(corpus: Path) -> Path:
    """The run folder of a small model of them, sampled from the posteriors of training pictures."""
    train(corpus, "pictures", corpus.parent / "run", SMALL | {"steps": "200"})
    return corpus.parent / "run"


@pytest.fixture(scope="module")
def model(folder: Path) -> Images:
    return Pipeline.from_pretrained(folder)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Images:
    """A model with a latent of two dimensions, of pictures (12, 10, 3) in the arrays of an .npz file."""
    root = tmp_path_factory.mktemp("arrays")
    coloured = np.stack(PLAIN + SQUARED)[:, :, 2:] * np.array([1, 0.5, 0.25])
    np.savez(root / "discs.npz", x=coloured.astype(np.uint8), y=["plain"] * 160 + ["square"] * 160)
    report = prepare(root / "discs.npz", root / "corpus", codec=Framing(), workers=0)
    assert report.kept["train"] > 250 and report.frame == "10 x 12 colour"
    train(root / "corpus", None, root / "run", SMALL | {"steps": "60", "latent": "2"})
    return Pipeline.from_pretrained(root / "run")


@pytest.fixture(scope="module")
def square(model: Images, album: Path) -> Path:
    """The attribute that leads from plain pictures to those with a square."""
    model.learn_attribute([album], album.parent / "square.safetensors")
    return album.parent / "square.safetensors"


# ------------------------------------------------------------------------------------------ the pipeline


def test_the_model_knows_its_kind(model: Images) -> None:
    assert isinstance(model, Images) and model.saved.mixture is not None
    with pytest.raises(SeqvaeError, match="of image, not of text"):
        Sentences(model.saved)
    with pytest.raises(SeqvaeError, match="of melody, not of images"):
        Images(Pipeline.from_pretrained("melody").saved)
    with pytest.raises(SeqvaeError, match="the device nowhere cannot be used"):
        Images(model.saved, "nowhere")


def test_pictures_become_z_and_z_pictures(model: Images, plane: Images) -> None:
    z = model.encode(BOTH)
    assert z.shape == (40, 6) and model.encode([]).shape == (0, 6)
    for pipeline, at in ((model, z), (plane, torch.randn(5, 2))):
        found = pipeline.decode(at)
        assert len(found) == len(at) and pipeline.decode(at[:0]) == pipeline.reconstruct([]) == []
        assert all(one.shape == pipeline.codec.frame[:3] and one.dtype == np.uint8 for one in found)


def test_a_reconstruction_is_nearer_its_picture_than_the_mean_is(model: Images) -> None:
    """A third of the mean picture's error, and no white square where there was none."""
    found, mean = np.stack(model.reconstruct(BOTH)).astype(float), np.mean(BOTH, 0)
    assert np.square(found - BOTH).mean() < 0.33 * np.square(mean - BOTH).mean()
    assert all(brightness(one) < 128 for one in found[::2]) and all(
        brightness(one) > 220 for one in found[1::2]
    )


@pytest.mark.parametrize("size", [None, CONV], ids=["dense", "conv"])
def test_a_picture_does_not_depend_on_its_company(model: Images, size: ImageSize | None) -> None:
    if size:
        torch.manual_seed(0)
        model = Images(Saved(build_model(model.codec, size).eval(), model.codec))
    every, found = model.encode(BOTH), model.reconstruct(BOTH)
    assert len(every.unique(dim=0)) == 40
    for row in (0, 7, 39):
        assert torch.equal(model.encode(BOTH[row : row + 1])[0], every[row])
        assert same(model.reconstruct(BOTH[row : row + 1]), found[row : row + 1])
        assert same(model.decode(every[row : row + 3]), found[row : row + 3])


def test_samples_hang_on_seed_and_number_alone(model: Images, plane: Images) -> None:
    for prior in ("fitted", "standard"):
        ten = model.sample(10, seed=5, prior=prior)
        assert (
            same(model.sample(3, seed=5, prior=prior), ten[:3]) and len({one.tobytes() for one in ten}) == 10
        )
        assert not any(map(np.array_equal, model.sample(10, seed=6, prior=prior), ten))
    assert not same(model.sample(10, seed=5), ten)
    assert plane.sample()[0].shape == (12, 10, 3)
    for n, seed, prior, why in (
        (0, 0, "fitted", "at least one picture"),
        (1, -1, "fitted", "a seed is a whole number"),
        (1, 0, "vamp", "fitted or standard, not vamp"),
    ):
        with pytest.raises(SeqvaeError, match=why):
            model.sample(n, seed, prior)


def test_a_path_begins_and_ends_with_the_reconstructions(model: Images) -> None:
    path = model.interpolate(PLAIN[0], SQUARED[1], 7)
    assert len(path) == 7 and same(path[::6], model.reconstruct([PLAIN[0], SQUARED[1]]))
    assert brightness(path[0]) < brightness(path[3]) < brightness(path[6])
    assert same(model.interpolate(PLAIN[2], PLAIN[2], 3), model.reconstruct([PLAIN[2]]) * 3)
    assert same(model.interpolate(PLAIN[0], SQUARED[1], 2), path[::6])
    with pytest.raises(SeqvaeError, match="at least 2 steps, not 1"):
        model.interpolate(PLAIN[0], PLAIN[1], 1)


def test_a_variation_of_nothing_is_the_reconstruction(model: Images) -> None:
    assert same(model.vary(PLAIN[3], 0, 4), model.reconstruct([PLAIN[3]]) * 4)
    assert same(model.vary(PLAIN[3], 1, 6, seed=2), model.sample(6, seed=2))
    some = model.vary(PLAIN[3], 0.3, 6, seed=2)
    assert len({one.tobytes() for one in some}) == 6 and same(model.vary(PLAIN[3], 0.3, 2, seed=2), some[:2])
    for amount, n, why in (
        (1.5, 1, "0 to 1, not 1.5"),
        (float("nan"), 1, "0 to 1"),
        (0.3, 0, "at least one"),
    ):
        with pytest.raises(SeqvaeError, match=why):
            model.vary(PLAIN[3], amount, n)


def test_a_walk_is_over_the_plane_with_its_second_axis_upwards(model: Images, plane: Images) -> None:
    rows = plane.walk(3, 1.5)
    assert len(rows) == 3
    for row, y in zip(rows, (1.5, 0.0, -1.5), strict=True):
        assert same(row, plane.decode(torch.tensor([[x, y] for x in (-1.5, 0.0, 1.5)])))
    assert len({one.tobytes() for row in rows for one in row}) == 9
    with pytest.raises(SeqvaeError, match="2 dimensions, and this model's has 6"):
        model.walk()
    with pytest.raises(SeqvaeError, match="at least one picture wide, not 0"):
        plane.walk(0)


def test_pictures_of_another_size_are_brought_to_the_model_s(model: Images, tmp_path: Path) -> None:
    """By read alone: an array has to fit."""
    large = np.full((50, 30, 3), (255, 0, 0), np.uint8)
    read = model.read(saved(tmp_path / "large.png", large))
    assert read.shape == (SIDE, SIDE, 1) and (read == 76).all()  # the luma of red
    np.testing.assert_array_equal(model.read(saved(tmp_path / "own.png", PLAIN[0])), PLAIN[0])
    for wrong in (large, PLAIN[0][:11], PLAIN[0][:, :, 0], PLAIN[0].astype(float)):
        for use in (model.encode, model.reconstruct):
            with pytest.raises(SeqvaeError, match="this model spells images of 12 x 12 grey, not "):
                use([PLAIN[0], wrong])
    (tmp_path / "text.png").write_text("no picture")
    for name, why in (("text.png", "no whole PNG or JPEG image"), ("gone.png", "cannot be read")):
        with pytest.raises(SeqvaeError, match=f"{name}: it (is )?{why}"):
            model.read(tmp_path / name)


def test_the_embedded_digits_are_digits() -> None:
    """Rebuilt far closer than as the mean digit; a sample is near a real one, but not one."""
    model = Pipeline.from_pretrained("digits")
    real = np.round(load_digits().images * 255 / 16).astype(np.uint8)[..., None]
    found = np.stack(model.reconstruct(list(real[:300]))) / 255
    error = (found - real[:300] / 255) ** 2
    assert error.mean() < 0.01 < 0.06 < ((real / 255 - real.mean(0) / 255) ** 2).mean()
    for made in model.sample(50, seed=1):
        near = ((real / 255 - made / 255) ** 2).mean((1, 2, 3)).min()
        assert 0 < near < 0.05
    assert len({made.tobytes() for made in model.interpolate(real[0], real[1], 5)}) == 5


# ------------------------------------------------------------------------------------------ attributes


def test_an_attribute_puts_the_square_there_and_takes_it_away(model: Images, square: Path) -> None:
    attribute = load_attribute(square, model.saved)
    expected = model.encode(SQUARED).mean(0) - model.encode(PLAIN).mean(0)
    torch.testing.assert_close(attribute.means[1] - attribute.means[0], expected, atol=1e-5, rtol=1e-4)
    for plain, squared in zip(PLAIN[:20], SQUARED[:20], strict=True):
        there = model.shift(plain, [[(attribute, scale)] for scale in (0.0, 0.3, 1.0)])
        back = model.shift(squared, [[(attribute, scale)] for scale in (-1.0, 0.3)])
        assert same(there[:1], model.reconstruct([plain]))
        assert brightness(there[0]) + 30 < brightness(there[1]) < brightness(there[2])
        assert brightness(there[2]) > 128 > brightness(back[0])
        assert same(back[1:], model.reconstruct([squared]))  # it is further already
    with pytest.raises(SeqvaeError, match="has 6 dimensions"):
        model.shift(PLAIN[0], [[(nowhere(5), scale)] for scale in (1.0,)])


def test_folders_and_arrays_teach_the_same_attribute(
    model: Images, square: Path, album: Path, tmp_path: Path
) -> None:
    known, out = load_attribute(square, model.saved), tmp_path / "deep" / "a.safetensors"
    np.savez(tmp_path / "both.npz", x=np.stack(BOTH * 2), y=["plain", "square"] * 40)
    np.savez(tmp_path / "numbers.npz", images=np.stack(PLAIN + SQUARED), labels=[3] * 160 + [7] * 160)
    two = [album / "plain", album / "square"]
    back = Attribute(known.means.flip(0), -known.axis, known.factors.flip(0), known.maps.flip(0))
    for files, counts, expected in (
        ([album], {"plain": 160, "square": 160}, known),
        (two, {str(path): 160 for path in two}, known),
        (two[::-1], {str(path): 160 for path in two}, back),
        ([tmp_path / "numbers.npz"], {"3": 160, "7": 160}, known),
    ):
        assert model.learn_attribute(files, out) == counts
        torch.testing.assert_close(load_attribute(out, model.saved)[:4], expected[:4], atol=1e-5, rtol=1e-4)
    assert model.learn_attribute([tmp_path / "both.npz"], out) == {"plain": 40, "square": 40}
    assert model.learn_attribute([album], out, limit=3) == {"plain": 3, "square": 3}
    first = model.encode(SQUARED[:3]).mean(0) - model.encode(PLAIN[:3]).mean(0)
    few = load_attribute(out, model.saved).means
    torch.testing.assert_close(few[1] - few[0], first, atol=1e-5, rtol=1e-4)


def test_an_attribute_needs_two_kinds(model: Images, plane: Images, album: Path, tmp_path: Path) -> None:
    one, out = saved(tmp_path / "three" / "a" / "0.png", PLAIN[0]), tmp_path / "a.safetensors"
    for name in "bc":
        saved(tmp_path / "three" / name / "0.png", PLAIN[1])
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "readme.txt").write_text("no picture")
    saved(tmp_path / "bad" / "a" / "0.png", PLAIN[0]).with_name("1.png").write_bytes(b"\x89PNG")
    np.savez(tmp_path / "bare.npz", x=np.stack(BOTH))
    for files, label, why in (
        ([album / "plain"], None, "one kind to another, and there is plain$"),
        ([tmp_path / "three"], None, "and there is a, b, c$"),
        ([tmp_path / "none"], None, "and there is nothing that can be read"),
        ([tmp_path / "none", album / "plain"], None, f"there is {album / 'plain'}$"),
        ([album, album], None, f"there is {album}$"),
        ([tmp_path / "bare.npz"], None, "bare.npz has no labels; give it some, or give two files"),
        ([one], None, "0.png has no labels"),
        ([tmp_path / "bad", album], None, "1.png: it is no whole PNG or JPEG image"),
        ([tmp_path / "gone", album], None, "gone: it cannot be read"),
        ([album], "class", "no column class"),
    ):
        with pytest.raises(SeqvaeError, match=why):
            model.learn_attribute(files, out, label)
    assert not out.exists()
    model.learn_attribute([album], out)
    with pytest.raises(SeqvaeError, match="learnt with another model"):
        load_attribute(out, plane.saved)


# ------------------------------------------------------------------------------------------ learnt priors


@pytest.mark.parametrize("prior", ["mixture", "vamp"])
def test_a_learnt_prior_is_trained_kept_and_sampled(
    corpus: Path, prior: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seqvae.train.needs_fit", lambda found: True)  # yet no exemplars take its place
    settings = SMALL | {"prior": prior, "components": "5", "steps": "20", "evaluate_every": "20"}
    train(corpus, "pictures", tmp_path / "run", settings)
    one, other = (Pipeline.from_pretrained(tmp_path / "run") for _ in range(2))
    parts = {name for name in one.saved.model.state_dict() if name.startswith("learnt.")}
    expected = {"mixture": {"learnt.weights", "learnt.means", "learnt.logvars"}, "vamp": {"learnt.logits"}}
    assert parts == expected[prior] and one.saved.mixture is None
    save_model(tmp_path / "again", one.saved)
    for of in ("fitted", "standard"):
        made = one.sample(5, 1, of)
        assert len({picture.tobytes() for picture in made}) == 5
        for pipeline in (other, Pipeline.from_pretrained(tmp_path / "again")):
            assert same(pipeline.sample(5, 1, of), made) and same(pipeline.sample(2, 1, of), made[:2])
    for name in "ab":
        told = done("generate", "-m", tmp_path / "run", "-n", 2, "-o", tmp_path / name)
        assert "drawn from the prior learnt with the model with seed 0" in told
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize("prior", ["mixture", "vamp"])
def test_samples_come_from_the_learnt_prior(prior: str) -> None:
    """All of its weight on one picture's z, with hardly a variance, they are its reconstruction."""
    torch.manual_seed(0)
    size = ImageSize(network="dense", widths=(16,), latent=4, prior=prior, components=3)
    codec = PixelsCodec(SIDE, SIDE, 1)
    built = build_model(codec, size).eval().requires_grad_(False)
    built.logvar.weight.zero_(), built.logvar.bias.fill_(-60.0)
    pipeline, picture = Images(Saved(built, codec)), np.where(disc(0, True) > 99, 255, 0).astype(np.uint8)
    (z,), learnt = pipeline.encode([picture]), built.learnt
    if isinstance(learnt, MixturePrior):
        learnt.weights[1], learnt.means[1], learnt.logvars[1] = 1000.0, z, -60.0
    elif isinstance(learnt, VampPrior):
        learnt.logits[:] = torch.from_numpy(picture[None, :, :, 0]).float() - 127.5
    assert same(pipeline.sample(9), pipeline.reconstruct([picture]) * 9)
    assert same(pipeline.vary(PLAIN[0], 1.0, 2), pipeline.reconstruct([picture]) * 2)


# ------------------------------------------------------------------------------------------ the commands


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def written(folder: Path, *names: str) -> list[np.ndarray]:
    """The pictures under these names, which with all.png are all that is in the folder."""
    assert sorted(contents(folder)) == sorted([*(f"{name}.png" for name in names), "all.png"])
    found = []
    for name in names:
        with Image.open(folder / f"{name}.png") as image:
            found.append(np.asarray(image).reshape(SIDE, SIDE, 1))
    return found


def overview(folder: Path) -> list[list[np.ndarray]]:
    """The rows of pictures of all.png, whose pixels are 5 x 5 there; without blank places."""
    with Image.open(folder / "all.png") as image:
        page = np.asarray(image)[28:-28, 28:-28]
    high, wide = ((size + 6) // 66 for size in page.shape[:2])
    cells = [
        [page[66 * y : 66 * y + 60 : 5, 66 * x : 66 * x + 60 : 5] for x in range(wide)] for y in range(high)
    ]
    return [[cell[:, :, :1] for cell in row if (cell == cell[:, :, :1]).all()] for row in cells]


def test_generate_writes_each_picture_and_all_of_them(folder: Path, model: Images, tmp_path: Path) -> None:
    out = tmp_path / "new" / "pictures"
    said = done("generate", "-m", folder, "-n", 10, "--seed", 4, "-o", out)
    names, made = [f"picture-{i:02}" for i in range(1, 11)], model.sample(10, seed=4)
    assert same(written(out, *names), made)
    rows = overview(out)
    assert [len(row) for row in rows] == [3, 3, 3, 1] and same(sum(rows, []), made)
    lines = [line.split() for line in said.splitlines()]
    assert lines[1] == [str(out / "picture-01.png"), "12", "x", "12"] and len(lines) == 13
    assert f"note: all of them, magnified: {out / 'all.png'}" in said
    assert "drawn from the widened posteriors of training pictures with seed 4" in said
    before = contents(out)
    done("generate", "-m", folder, "-n", 10, "--seed", 4, "-o", out)
    assert contents(out) == before
    said = done("generate", "-m", folder, "-n", 1, "--prior", "standard", "-o", tmp_path / "one")
    assert same(written(tmp_path / "one", "picture-01"), model.sample(1, prior="standard"))
    assert "drawn from the standard normal prior with seed 0" in said


def test_interpolate_reconstruct_vary(folder: Path, model: Images, album: Path, tmp_path: Path) -> None:
    a, b = album / "plain" / "000.png", album / "square" / "001.png"
    done("interpolate", a, b, "-m", folder, "--steps", 5, "-o", tmp_path / "path")
    path = model.interpolate(PLAIN[0], SQUARED[1], 5)
    assert same(written(tmp_path / "path", *(f"step-{i:02}" for i in range(1, 6))), path)
    assert same(overview(tmp_path / "path")[0], [PLAIN[0], *path, SQUARED[1]])
    done("reconstruct", a, "-m", folder, "-o", tmp_path / "again")
    (again,) = model.reconstruct([PLAIN[0]])
    assert same(written(tmp_path / "again", "000.reconstruction"), [again])
    assert same(overview(tmp_path / "again")[0], [PLAIN[0], again])
    done("vary", a, "-m", folder, "--amount", 0.5, "-n", 3, "--seed", 1, "-o", tmp_path / "others")
    others = model.vary(PLAIN[0], 0.5, 3, seed=1)
    assert same(written(tmp_path / "others", *(f"000.variation-0{i}" for i in (1, 2, 3))), others)
    assert same(overview(tmp_path / "others")[0], [PLAIN[0], *others])
    large = saved(tmp_path / "large.png", np.full((50, 30, 3), 200, np.uint8))
    assert "12 x 12" in done("reconstruct", large, "-m", folder, "-o", tmp_path / "of large")
    assert len(written(tmp_path / "of large", "large.reconstruction")) == 1


def test_without_a_folder_pictures_are_written_here(
    folder: Path, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done("reconstruct", album / "plain" / "002.png", "-m", folder)
    assert len(written(tmp_path, "002.reconstruction")) == 1


def test_an_attribute_is_learnt_and_followed(
    folder: Path, model: Images, album: Path, square: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "square.safetensors"
    said = done("attributes", "learn", album, "-m", folder, "-o", kept)
    assert kept.read_bytes() == square.read_bytes() and said.split().count("160") == 2
    picture, out = album / "plain" / "003.png", tmp_path / "shifted"
    done("shift", picture, "-m", folder, "--attribute", kept, "--scale", 0, "--scale", 1.5, "-o", out)
    made = model.shift(PLAIN[3], [[(load_attribute(kept, model.saved), scale)] for scale in (0.0, 1.5)])
    assert same(written(out, "003.at+0", "003.at+1.5"), made)
    assert same(overview(out)[0], [PLAIN[3], *made])
    two = (album / "plain", album / "square")
    assert "two files" in refused("attributes", "learn", *two, album, "-m", folder, "-o", kept)
    assert "no column kind" in refused(
        "attributes", "learn", album, "--label", "kind", "-m", folder, "-o", kept
    )


def test_evaluate_measures_pictures(folder: Path, corpus: Path) -> None:
    figures = json.loads(done("evaluate", folder, corpus, "--split", "train", "--limit", 60, "--json"))
    assert figures["windows"] == figures["corpus"]["pictures"] == 60
    assert figures["nll_of_another_z"] > figures["nll"] + 5 and 0 < figures["active_units"] <= 6
    assert figures["psnr_db"] == pytest.approx(-10 * np.log10(figures["squared_error"]))
    assert figures["squared_error"] < figures["corpus"]["variety"] ** 2  # at most the mean picture's error
    for prior in ("samples_fitted", "samples_standard"):
        assert figures[prior]["pictures"] == 1000 and figures[prior]["variety"] > 0.05
    assert "psnr_db" in done("evaluate", folder, corpus, "--limit", 5, "--importance", 3)


def test_options_of_another_kind_are_refused(folder: Path, album: Path, square: Path, tmp_path: Path) -> None:
    picture, out = album / "plain" / "000.png", tmp_path / "out"
    shifted = ("shift", picture, "--attribute", square)
    for words, option, value in (
        (["generate"], "--bars", [4]),
        (["generate"], "--temperature", [0.5]),
        (["generate"], "--beam", [4]),
        (["generate"], "--no-png", []),
        (["interpolate", picture, picture], "--fit", ["loop"]),
        (["interpolate", picture, picture], "--seed", [1]),
        (["reconstruct", picture], "--track", [1]),
        (["vary", picture], "--top-k", [3]),
        (shifted, "--beam", [3]),
    ):
        said = refused(*words, "-m", folder, "-o", out, option, *value)
        assert f"{option.replace('no-', '')} means nothing to a model of image" in said
    assert "it is no song" in refused(*shifted, "-m", "melody", "-o", out)
    assert not out.exists()


def test_what_goes_wrong_is_one_sentence_and_leaves_nothing(
    folder: Path, plane: Images, album: Path, square: Path, tmp_path: Path
) -> None:
    picture, out = album / "plain" / "000.png", tmp_path / "new" / "out"
    (tmp_path / "broken.png").write_bytes(picture.read_bytes()[:60])
    save_attribute(tmp_path / "foreign.safetensors", nowhere(2), plane.saved, {})
    for words, why in (
        (["generate", "-n", 0], "-n"),
        (["reconstruct", tmp_path / "gone.png"], "gone.png: it cannot be read"),
        (["reconstruct", album], "cannot be read"),
        (["reconstruct", tmp_path / "broken.png"], "no whole PNG or JPEG image"),
        (["interpolate", picture, tmp_path / "broken.png"], "broken.png"),
        (["interpolate", picture, picture, "--steps", 1], "--steps"),
        (["vary", picture, "--amount", 2], "0 to 1, not 2"),
        (["shift", picture], "--attribute"),
        (["shift", picture, "--attribute", tmp_path / "gone"], "the model's own are brightness"),
        (["shift", picture, "--attribute", tmp_path / "foreign.safetensors"], "another model"),
    ):
        assert why in refused(*words, "-m", folder, "-o", out)
    assert "cannot be written" in refused("generate", "-m", folder, "-o", picture / "out")
    assert "cannot be written" in refused(
        "attributes", "learn", album, "-m", folder, "-o", picture / "a.safetensors"
    )
    assert sorted(contents(tmp_path)) == ["broken.png", "foreign.safetensors"]


def test_a_fault_half_way_leaves_the_folder_as_it_was(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "picture-01.png").write_bytes(b"mine")

    def full(rows: object, path: Path) -> None:
        assert (path.parent / "picture-03.png").exists()  # the others are made by now
        raise SeqvaeError("no space is left")

    monkeypatch.setattr(gallery, "grid", full)
    for out in (tmp_path, tmp_path / "new"):
        assert "no space is left" in refused("generate", "-m", folder, "-n", 3, "-o", out)
    assert contents(tmp_path) == {"picture-01.png": b"mine"}
