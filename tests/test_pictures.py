"""Images: files of every mode, arrays of every kind, two collections, and every bad input in one sentence."""

import importlib.util
import io
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from seqvae.cli import main
from seqvae.corpus import Corpus
from seqvae.pictures import (
    AS_IT_IS,
    CLEAR,
    DEEP,
    GLASSES,
    INKS,
    PALETTE,
    PARTS,
    Frame,
    Framing,
    arrays,
    avatars,
    digits,
    load,
    read,
    splits,
    survey,
    values,
)
from seqvae.song import SeqvaeError

RNG = np.random.default_rng(0)
GREY, COLOUR = RNG.integers(0, 256, (12, 9), np.uint8), RNG.integers(0, 256, (12, 9, 3), np.uint8)
DRAWN = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("python_avatars", "resvg_py")),
    reason="python-avatars or resvg-py is not installed",
)
COUNTED = pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="no scikit-learn")


def saved(path: Path, grid: np.ndarray | Image.Image, **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (Image.fromarray(grid) if isinstance(grid, np.ndarray) else grid).save(path, **how)
    return path


def deep(colour_type: int, grid: np.ndarray) -> bytes:
    """A PNG file with 16 bits a channel, of (H, W, C) uint16, which Pillow does not write in colour."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", grid.shape[1], grid.shape[0], 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in grid)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


# ---------------------------------------------------------------- files


def test_grey_and_colour_are_read_as_they_are(tmp_path: Path) -> None:
    for grid, name in ((GREY, "grey.png"), (COLOUR, "colour.png")):
        (picture,) = read(saved(tmp_path / name, grid))
        np.testing.assert_array_equal(picture.image, grid.reshape(12, 9, -1))
        assert picture.image.dtype == np.uint8 and picture[2:] == (None, (), -1) and picture.name == name
    bits = GREY > 127
    np.testing.assert_array_equal(load(saved(tmp_path / "bits.png", bits))[..., 0], bits * np.uint8(255))
    photo = load(saved(tmp_path / "photo.JPG", np.full((8, 64, 3), 99, np.uint8)))
    assert photo.shape == (8, 64, 3) and np.abs(photo.astype(int) - 99).max() <= 3


def test_other_modes_are_converted_and_say_so(tmp_path: Path) -> None:
    indexed = Image.fromarray(COLOUR).quantize(16)
    (picture,) = read(saved(tmp_path / "indexed.png", indexed))
    np.testing.assert_array_equal(picture.image, np.asarray(indexed.convert("RGB")))
    assert picture.notices == (PALETTE,)
    clear = np.dstack((COLOUR, np.full((12, 9), 255, np.uint8)))
    (picture,) = read(saved(tmp_path / "opaque.png", clear))
    np.testing.assert_array_equal(picture.image, COLOUR)
    assert picture.notices == ()
    clear[:6, :, 3] = 0
    clear[6:9, :, 3] = 51  # a fifth of it, on four fifths of white
    (picture,) = read(saved(tmp_path / "clear.png", clear))
    assert (picture.image[:6] == 255).all() and picture.notices == (CLEAR,)
    np.testing.assert_array_equal(picture.image[9:], COLOUR[9:])
    np.testing.assert_allclose(picture.image[6:9], COLOUR[6:9] / 5 + 204, atol=1)
    (picture,) = read(saved(tmp_path / "veil.png", Image.fromarray(np.dstack((GREY, clear[..., 3])))))
    assert (picture.image[:6] == 255).all() and picture.image.shape == (12, 9, 1)
    (picture,) = read(saved(tmp_path / "key.png", Image.fromarray(GREY), transparency=int(GREY[0, 0])))
    assert picture.image[0, 0] == 255 and picture.image.shape == (12, 9, 1) and picture.notices == (CLEAR,)
    (picture,) = read(saved(tmp_path / "inks.jpg", Image.new("CMYK", (9, 12), (0, 255, 255, 0))))
    assert picture.notices == (INKS,) and picture.image[6, 4].tolist() == pytest.approx([255, 0, 0], abs=3)


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_lose_their_lower_half_and_say_so(
    tmp_path: Path, colour_type: int, channels: int
) -> None:
    grid = np.random.default_rng(1).integers(0, 1 << 16, (12, 9, channels), np.uint16)
    grid[..., 2 if channels == 3 else 0] |= 0xFF  # not all of which are zero
    if channels % 2 == 0:
        grid[..., -1] = 0xFFFF
    (tmp_path / "deep.png").write_bytes(deep(colour_type, grid))
    (picture,) = read(tmp_path / "deep.png")
    np.testing.assert_array_equal(picture.image, (grid >> 8)[..., : 1 if channels < 3 else 3])
    assert picture.notices == (DEEP,)


def test_photographs_are_turned_the_way_their_camera_was_held(tmp_path: Path) -> None:
    exif, turned = Image.Exif(), {1: GREY, 3: np.rot90(GREY, 2), 6: np.rot90(GREY, -1), 8: np.rot90(GREY)}
    turned |= {2: GREY[:, ::-1], 4: GREY[::-1], 5: GREY.T, 7: np.rot90(GREY, 2).T, 9: GREY}
    for exif[0x0112], expected in turned.items():  # orientation
        picture = load(saved(tmp_path / "turned.png", GREY, exif=exif))
        np.testing.assert_array_equal(picture[..., 0], expected)


def test_a_framing_cuts_about_the_centre_and_resizes(tmp_path: Path) -> None:
    wide = np.zeros((40, 120, 3), np.uint8)
    wide[:, 40:80] = (0, 255, 0)  # the middle third
    path = saved(tmp_path / "wide.png", wide)
    middle = load(path, Framing(10, 10))[:, 1:-1].astype(int)  # but for where it touches the others
    assert np.abs(middle - (0, 255, 0)).max() <= 2
    assert load(path, Framing(10, 30)).shape == (10, 30, 3)
    grey = load(path, Framing(10, 10, 1))
    assert grey.shape == (10, 10, 1) and np.abs(grey[:, 2:-2].astype(int) - 150).max() <= 2  # 0.587 of 255
    assert load(saved(tmp_path / "grey.png", GREY), Framing(channels=3)).shape == (12, 9, 3)
    # Resizing averages: stripes of one pixel become grey, and nothing is left of them but at the sides.
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 64))
    assert (
        np.abs(load(saved(tmp_path / "s.png", stripes), Framing(8, 8))[:, 1:-1].astype(int) - 127).max() <= 2
    )


def test_large_jpeg_files_are_read_in_part_and_look_the_same(tmp_path: Path) -> None:
    across = np.linspace(0, 255, 2000).astype(np.uint8)
    path = saved(tmp_path / "large.jpg", np.tile(across, (1500, 1)))
    with Image.open(path) as image:
        whole = np.asarray(image.crop((250, 0, 1750, 1500)).resize((32, 32), Image.Resampling.LANCZOS))
    assert np.abs(load(path, Framing(32, 32))[..., 0].astype(int) - whole).max() <= 3


def test_bad_image_files_are_one_sentence(tmp_path: Path) -> None:
    def fails(path: Path, match: str, framing: Framing = AS_IT_IS) -> None:
        with pytest.raises(SeqvaeError, match=match) as caught:
            load(path, framing)
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)

    def file(name: str, data: bytes) -> Path:
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    whole = saved(tmp_path / "whole.png", COLOUR).read_bytes()
    fails(tmp_path / "none.png", "it cannot be read: No such file or directory")
    fails(file("empty.png", b""), "it is no whole PNG or JPEG image")
    fails(file("text.png", b"so it is written"), "it is no whole PNG or JPEG image")
    saved(tmp_path / "moving.gif", GREY)
    fails(file("moving.png", (tmp_path / "moving.gif").read_bytes()), "it is no whole PNG or JPEG image")
    for size in (33, 41, 60, len(whole) // 2):
        fails(file("cut.png", whole[:size]), "it is no whole PNG or JPEG image")
    damaged = bytearray(whole)
    damaged[60] ^= 0xFF
    fails(file("damaged.png", bytes(damaged)), "it is no whole PNG or JPEG image")
    photo = saved(tmp_path / "photo.jpg", np.tile(COLOUR, (4, 4, 1))).read_bytes()
    fails(file("cut.jpg", photo[: len(photo) // 2]), "it is no whole PNG or JPEG image")
    for side in (10_000, 20_000):  # a warning of Pillow's, and its fault
        bomb = whole[:16] + struct.pack(">II", side, side) + whole[24:29]
        fails(
            file("bomb.png", bomb + struct.pack(">I", zlib.crc32(bomb[12:])) + whole[33:]), "it has more than"
        )
    for shape, what in (((7, 8), "8 x 7"), ((8, 65), "65 x 8")):
        path = saved(tmp_path / "size.png", np.zeros(shape, np.uint8))
        fails(path, f"it has {what} pixels, not 8 x 8 to 64 x 64: give a size")
        assert load(path, Framing(8, 8)).shape == (8, 8, 1)
    for wrong in ((7, 8), (8, 65), (8, 0), (8, 8, 2)):
        with pytest.raises(SeqvaeError, match="images have"):
            Framing(*wrong)


def test_no_damage_to_a_file_is_anything_but_a_sentence(tmp_path: Path) -> None:
    path, rng, failed = tmp_path / "a.png", np.random.default_rng(2), 0
    files = [saved(tmp_path / f"{i}.{form}", COLOUR).read_bytes() for i, form in enumerate(("png", "jpg"))]
    files.append(saved(tmp_path / "3.png", Image.fromarray(COLOUR).quantize(16)).read_bytes())
    for number in range(300):
        data = bytearray(files[number % 3])
        for at in rng.integers(0, len(data), 3):
            data[at] = rng.integers(0, 256)
        path.write_bytes(data)
        try:
            load(path)
        except SeqvaeError:
            failed += 1
    assert 50 < failed < 300


# ---------------------------------------------------------------- what they have in common


def asked(folder: Path, framing: Framing = AS_IT_IS) -> Frame:
    return survey(((path.name, str(path)) for path in sorted(folder.iterdir())), framing, lambda done: None)


def test_a_survey_finds_size_colour_and_levels(tmp_path: Path) -> None:
    saved(tmp_path / "a.png", GREY)
    saved(tmp_path / "b.png", np.zeros((12, 9), np.uint8))
    (tmp_path / "c.png").write_bytes(b"no image")
    assert asked(tmp_path) == Frame(12, 9, 1, 256) and str(asked(tmp_path)) == "9 x 12 grey"
    assert asked(tmp_path, Framing(16, 16)) == Frame(16, 16, 1, 256)
    assert asked(tmp_path, Framing(16, 16, 3)) == Frame(16, 16, 3, 256)
    assert asked(tmp_path, Framing(channels=3)) == Frame(12, 9, 3, 256)
    for count in (2, 4, 16, 17):
        saved(tmp_path / "a.png", np.resize(values(count), (12, 9)))
        assert asked(tmp_path) == Frame(12, 9, 1, count)
        assert asked(tmp_path, Framing(16, 16)).levels == 256  # as resizing may make any value
    assert str(Frame(8, 8, 1, 17)) == "8 x 8 grey in 17 levels" and str(Frame(8, 8, 3)) == "8 x 8 colour"
    assert (
        str(Frame(8, 8, 1, 2)) == "8 x 8 black and white"
        and str(Frame(8, 8, 3, 2)) == "8 x 8 colour in 2 levels"
    )


def test_mixed_images_are_one_sentence_that_names_two(tmp_path: Path) -> None:
    saved(tmp_path / "a.png", GREY)
    saved(tmp_path / "b.png", GREY)
    saved(tmp_path / "c.png", GREY.T)
    with pytest.raises(SeqvaeError, match="^a.png is 9 x 12 grey and c.png is 12 x 9 grey: give a size"):
        asked(tmp_path)
    assert asked(tmp_path, Framing(8, 8)) == Frame(8, 8, 1)
    saved(tmp_path / "c.png", COLOUR)
    with pytest.raises(SeqvaeError, match="^a.png is 9 x 12 grey and c.png is 9 x 12 colour: give a mode"):
        asked(tmp_path)
    with pytest.raises(SeqvaeError, match="^a.png is 8 x 8 grey and c.png is 8 x 8 colour: give a mode"):
        asked(tmp_path, Framing(8, 8))
    assert asked(tmp_path, Framing(channels=1)) == Frame(12, 9, 1)
    saved(tmp_path / "c.png", COLOUR[:8])
    with pytest.raises(SeqvaeError, match="and c.png is 9 x 8 colour: give a size .* and a mode"):
        asked(tmp_path)
    saved(tmp_path / "c.png", np.zeros((640, 480), np.uint8))
    with pytest.raises(SeqvaeError, match="^c.png has 480 x 640 pixels, not 8 x 8 to 64 x 64: give a size"):
        asked(tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(SeqvaeError, match="none of its images can be read, for instance because: .*a.png"):
        asked(tmp_path)


# ---------------------------------------------------------------- arrays


def archive(path: Path, **held: Any) -> Path:
    np.savez(path, **held)
    return path


def images(path: Path, framing: Framing = AS_IT_IS) -> np.ndarray:
    return np.stack([picture.image for picture in arrays(path, framing)])


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_every_kind_hold_the_same_images(tmp_path: Path, order: Any) -> None:
    grids = np.random.default_rng(0).integers(0, 256, (30, 12, 9), np.uint8)
    colours = np.random.default_rng(0).integers(0, 256, (30, 12, 9, 3), np.uint8)
    for held, expected in (
        (grids, grids[..., None]),
        (grids[..., None], grids[..., None]),
        (colours, colours),
        (grids.astype(">i4"), grids[..., None]),
        (grids / 255, grids[..., None]),
        ((colours / 255).astype(np.float16), colours),
        (grids > 127, (grids > 127)[..., None] * np.uint8(255)),
    ):
        path = archive(tmp_path / "a.npz", x=np.asarray(held, order=order))
        np.testing.assert_array_equal(images(path), expected)
    for held in (grids.reshape(30, -1), grids.reshape(30, -1) / 255):
        path = archive(tmp_path / "a.npz", x=np.asarray(held, order=order))
        np.testing.assert_array_equal(images(path, Framing(12, 9)), grids[..., None])
    bits = np.packbits((grids > 127).reshape(30, -1), axis=1)
    path = archive(tmp_path / "a.npz", x=np.asarray(bits, order=order))
    np.testing.assert_array_equal(images(path, Framing(12, 9)), (grids > 127)[..., None] * np.uint8(255))
    assert images(path, Framing(12, 9, 3)).shape == (30, 12, 9, 3)
    path = archive(tmp_path / "a.npz", x=np.asarray(grids, order=order))
    assert images(path, Framing(16, 16)).shape == (30, 16, 16, 1)


def test_arrays_are_read_in_parts_and_numbered_through(tmp_path: Path) -> None:
    grids = np.random.default_rng(0).integers(0, 256, (3000, 32, 32), np.uint8)  # three megabytes
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=grids)
    found = list(read(path))
    assert [picture.name for picture in found] == [f"x:{i}" for i in range(3000)]
    np.testing.assert_array_equal(np.stack([picture.image for picture in found]), grids[..., None])


@pytest.mark.parametrize(
    ("keys", "expected", "parts"),
    [
        (["x_train", "y_train", "x_test", "y_test"],
         [("x_train", "y_train", -1), ("x_test", "y_test", 2)], (None, "x_test")),
        (["train", "valid", "test"],
         [("train", None, -1), ("valid", None, 1), ("test", None, 2)], ("valid", "test")),
        (["test_images", "val_images", "train_images", "train_labels"],
         [("train_images", "train_labels", -1), ("val_images", None, 1), ("test_images", None, 2)],
         ("val_images", "test_images")),
        (["images", "label", "names"], [("images", "label", -1)], (None, None)),
        (["X", "y"], [("X", "y", -1)], (None, None)),
        (["arr_0"], [("arr_0", None, -1)], (None, None)),
        (["faces"], [("faces", None, -1)], (None, None)),
        (["x_train", "y_train"], [("x_train", "y_train", -1)], (None, None)),
    ],
)  # fmt: skip
def test_keys_say_what_is_what(
    tmp_path: Path,
    keys: list[str],
    expected: list[tuple[str, str | None, int]],
    parts: tuple[str | None, ...],
) -> None:
    held = {key: np.full((5, 8, 8), place + 2, np.uint8) for place, key in enumerate(keys)}
    labelled = [label for _, label, _ in expected if label]
    held |= {label: np.arange(5) + 10 * place for place, label in enumerate(labelled)}
    path = archive(tmp_path / "a.npz", **held)
    found = list(arrays(path))
    told = [(key, label, split) for key, label, split in expected for _ in range(5)]
    assert [picture.name for picture in found] == [f"{key}:{i}" for key, _, _ in expected for i in range(5)]
    for place, (picture, (key, label, split)) in enumerate(zip(found, told, strict=True)):
        assert picture.split == split and (picture.image == keys.index(key) + 2).all()
        assert picture.label == (None if label is None else str(held[label][place % 5]))
    assert splits(path) == parts


def test_bad_arrays_are_one_sentence(tmp_path: Path) -> None:
    path, good = tmp_path / "a.npz", np.random.default_rng(0).random((300, 64, 64))
    seen = []

    def fails(match: str, framing: Framing = AS_IT_IS, **held: Any) -> None:
        if held:
            archive(path, **held)
        with pytest.raises(SeqvaeError, match=match) as caught:
            seen[:] = []
            seen.extend(arrays(path, framing))
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)

    wrong = good.copy()
    wrong[[250, 270], 3, 4], wrong[299, 0, 0] = np.nan, 1.5
    fails("x holds NaN or values outside 0 to 1 in 3 of 300 images, first in number 250", x=wrong)
    assert 0 < len(seen) <= 250
    fails("x holds NaN or values outside 0 to 1 in 300 of 300 images, first in number 0", x=good - 2)
    fails("values outside 0 to 1 in 300", x=good * 255)
    fails(
        "x holds values outside 0 to 255 in 1 of 3",
        x=np.array([0, 256, 9])[:, None, None].repeat(8, 1).repeat(8, 2),
    )
    fails("x holds values outside 0 to 255 in 2", x=np.full((2, 8, 8), -1))
    fails("x holds nothing above 1 of 255: if 1 is white, save it as bool", x=np.ones((9, 8, 8), np.uint8))
    fails("an image of x has 65 x 8 pixels, not 8 x 8", x=np.full((9, 8, 65), 9))
    fails(r"x has the shape \(9, 3, 8, 8\), where images are \(N, H, W\)", x=np.full((9, 3, 8, 8), 9))
    fails(r"x has the shape \(9, 98\), .*of the size you give \(--size 28\)", x=np.full((9, 98), 9))
    fails(r"x has the shape \(9, 98\)", Framing(27, 27), x=np.full((9, 98), 9, np.uint8))
    fails("x holds no images", x=np.array(3))
    fails("x holds no images", x=np.zeros((0, 8, 8)))
    fails("x holds <U5, where images are bool", x=np.full((9, 8, 8), "black"))
    fails("x holds complex128", x=np.zeros((9, 8, 8), complex))
    fails("x holds Python objects, which are never unpickled", x=np.full((9, 8, 8), None))
    fails("y holds Python objects", x=good, y=np.array([None] * 300))
    fails("x holds 300 images and y 299 labels", x=good, y=np.zeros(299))
    fails(r"y has the shape \(300, 10\), where labels are \(N,\)", x=good, y=np.zeros((300, 10)))
    fails("it has the arrays x, images; name one x and its labels y", x=good, images=good)
    fails("it has the arrays x_test, y_test; name one", x_test=good, y_test=np.zeros(300))
    fails("it has the arrays x_train, train; name one", x_train=good, train=good)
    fails("it has the arrays y; name one", y=np.zeros(300))
    archive(path, x=good)
    data = path.read_bytes()
    for damaged in (b"", b"no archive", data[: len(data) // 2], io.BytesIO().getvalue()):
        path.write_bytes(damaged)
        fails("it is no .npz file; save or fetch it again")
        with pytest.raises(SeqvaeError, match="it is no .npz file"):
            splits(path)
    hurt = bytearray(data)
    hurt[len(hurt) // 2] ^= 0xFF
    path.write_bytes(hurt)
    fails("it is no whole .npz file of arrays; save or fetch it again")  # its checksum tells
    path.unlink()
    fails("it cannot be read: No such file or directory")


# ---------------------------------------------------------------- collections


@COUNTED
def test_the_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    theirs, ours = load_digits(), list(digits())
    np.testing.assert_array_equal([int(picture.label or "") for picture in ours], theirs.target)
    levels = np.rint(np.stack([picture.image for picture in ours]) * (16 / 255))[..., 0]
    np.testing.assert_array_equal(levels, theirs.images)
    assert [picture.name for picture in ours[:2]] == ["0", "1"]
    assert next(digits(Framing(16, 16, 3))).image.shape == (16, 16, 3)


@DRAWN
def test_avatars_hang_on_the_seed_and_their_number_alone() -> None:
    random.seed(0)
    faces = list(avatars(6, 5, 32))
    before = random.getstate()
    few = list(avatars(3, 5, 32))
    assert random.getstate() == before
    for (image, parts), (other, others) in zip(faces, few, strict=False):
        np.testing.assert_array_equal(image, other)
        assert parts == others and image.shape == (32, 32, 3) and image.dtype == np.uint8
    assert len({image.tobytes() for image, _ in faces}) == 6
    assert not {image.tobytes() for image, _ in avatars(3, 6, 32)} & {image.tobytes() for image, _ in faces}


@DRAWN
def test_a_face_with_glasses_is_the_same_without() -> None:
    count = 12
    some, worn, bare = (list(avatars(count, 7, 64, glasses)) for glasses in (None, True, False))
    for (image, parts), (with_image, with_parts), (bare_image, bare_parts) in zip(
        some, worn, bare, strict=True
    ):
        assert with_parts["glasses"].upper() in GLASSES and bare_parts["glasses"] == "none"
        assert {**with_parts, "glasses": ""} == {**bare_parts, "glasses": ""}
        changed = (with_image != bare_image).any(2)
        assert 20 < changed.sum() < 64 * 64 / 4  # pixels, about the eyes
        rows = np.flatnonzero(changed.any(1))
        assert rows.min() > 10 and rows.max() < 40
        expected = bare_image if parts["glasses"] == "none" else with_image
        np.testing.assert_array_equal(image, expected)
    # All or none of 12 at odds of 2 ^ -11; the seed is fixed, so never again.
    assert len({parts["glasses"] == "none" for _, parts in some}) == 2


@DRAWN
def test_every_part_of_a_face_shows() -> None:
    """No two hairs, colours or glasses are drawn alike, so that a label says what is to be seen."""
    from seqvae.pictures import _drawn

    plain = {name: of.split()[0] for name, of in PARTS.items()} | {"hair": "BOB", "glasses": "NONE"}
    for name, of in {**{name: of.split() for name, of in PARTS.items()}, "glasses": GLASSES}.items():
        drawn = {part: _drawn(plain | {name: part}, 32).tobytes() for part in of}
        assert len(set(drawn.values())) == len(drawn), name


@pytest.mark.parametrize("source", ["digits", "avatars"])
def test_collections_that_are_not_installed_are_one_sentence(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SeqvaeError, match="not installed: run pip install (scikit-learn|python-avatars)"):
        next(digits() if source == "digits" else avatars(1, 0))


# ---------------------------------------------------------------- the command


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(
        main, ["prepare", *map(str, arguments), "--workers", "0"], catch_exceptions=False
    )
    assert "Traceback" not in result.output
    return result


def test_prepare_of_a_folder(tmp_path: Path) -> None:
    for number in range(60):
        grid = np.random.default_rng(number).integers(0, 256, (30, 40, 3), np.uint8)
        saved(tmp_path / "in" / ("cats", "dogs")[number % 2] / f"{number}.png", grid)
    result = run(tmp_path / "in", "-o", tmp_path / "out", "--size", 16, "--mode", "grey")
    said = result.output
    assert result.exit_code == 0 and "60 images of 60 files kept, 0 left out" in said
    assert "each is 16 x 16 grey" in said and said.startswith("images ")
    assert not any(word in said for word in ("tune", "window", "onset", "metre", "vocabulary"))
    corpus = Corpus.open(tmp_path / "out")
    assert set(corpus.labels) == {"cats", "dogs"} and corpus.splits["train"].steps.shape[1] == 1
    again = run(tmp_path / "in", "-o", tmp_path / "like", "--like", tmp_path / "out")
    assert again.exit_code == 0 and "each is 16 x 16 grey" in again.output
    (tmp_path / "in" / "dogs" / "1.png").unlink()
    saved(tmp_path / "in" / "dogs" / "1.png", GREY)
    result = run(tmp_path / "in", "-o", tmp_path / "mixed")
    assert result.exit_code and result.stderr.count("\n") == 1
    assert "cats/0.png is 40 x 30 colour and dogs/1.png is 9 x 12 grey: give a size" in result.stderr


@DRAWN
def test_prepare_of_avatars(tmp_path: Path) -> None:
    result = run("avatars", "-o", tmp_path / "out", "--count", 20, "--size", 16, "--seed", 3)
    assert result.exit_code == 0 and "20 images of 1 file kept" in result.output
    assert "each is 16 x 16 colour" in result.output
    faces = list(avatars(20, 3, 16))
    corpus = Corpus.open(tmp_path / "out")
    assert corpus.names == [f"avatars:{number}" for number in range(20)]
    for label, (_, parts) in zip(corpus.labels, faces, strict=True):
        assert dict(pair.split("=") for pair in label.split()) == parts
    grids = {image.tobytes() for image, _ in faces}
    for split in corpus.splits:
        for number in range(len(corpus.split(split))):
            assert corpus.codec.decode(*corpus.window(split, number)).tobytes() in grids
    assert run("avatars", "-o", tmp_path / "out", "--count", 21, "--size", 16, "--seed", 3).exit_code


def test_options_that_mean_nothing_to_images_are_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.npz", x=np.full((99, 8, 8), 9))
    (tmp_path / "a.txt").write_text("a line\n" * 9)
    for option in (["--bars", 2], ["--longest", 9], ["--split", "lines"], ["--valid", path], ["--essen"]):
        result = run(path, "-o", tmp_path / "out", *option)
        assert result.exit_code and f"is image data, to which {option[0]} means nothing" in result.output
    for option in (["--size", 8], ["--mode", "grey"], ["--count", 9]):
        result = run(tmp_path / "a.txt", "-o", tmp_path / "out", *option)
        assert result.exit_code and f"is text, to which {option[0]} means nothing" in result.output
    result = run(path, "-o", tmp_path / "out", "--count", 9)
    assert result.exit_code and "--count is how many avatars are drawn" in result.output
    for option in (["--size", 7], ["--size", 65], ["--mode", "blue"], ["--count", 0]):
        assert run("avatars", "-o", tmp_path / "out", *option).exit_code == 2
    (tmp_path / "none").mkdir()
    result = run(tmp_path / "none", "-o", tmp_path / "out")
    assert result.exit_code and "holds no files of music" in result.stderr and result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
