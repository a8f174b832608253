"""Sources of a corpus: of what kind a file or folder is, what is found in it, and packs."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqvae import pictures, sources
from seqvae.codecs import Spelling, WordsCodec
from seqvae.pictures import Framing, Picture
from seqvae.song import SeqvaeError
from seqvae.sources import Packs, Unit, album, find, kind, learn, pack, turn, unpack
from seqvae.texts import Line


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.mid"], "melody"),
        (["deep/er/a.ABC", "README.txt", "b.csv"], "melody"),
        (["a.txt", "cover.jpg"], "text"),
        (["deep/a.jsonl.gz"], "text"),
        (["a.TSV.GZ"], "text"),
        (["cats/a.PNG", "dogs/b.jpg", "LICENSE.txt"], "image"),
        (["a.png", "b.jpeg", "c.abc"], "melody"),
        (["a.txt", "b.txt", "cover.png"], "text"),
    ],
)
def test_a_folder_is_of_music_where_there_is_some_or_else_of_what_there_is_more(
    tmp_path: Path, names: list[str], expected: str
) -> None:
    assert kind(touched(tmp_path, *names)) == expected


def test_a_file_is_of_music_by_its_ending_alone(tmp_path: Path) -> None:
    touched(tmp_path, "a.mid", "a.xml", "a.txt", "a.csv.gz", "a", "a.0", "b.gz", "a.NPZ", "b.png", "b.Jpeg")
    kinds = {name: kind(tmp_path / name) for name in os.listdir(tmp_path)}
    assert {name for name in kinds if kinds[name] == "melody"} == {"a.mid", "a.xml"}
    assert {name for name in kinds if kinds[name] == "image"} == {"a.NPZ", "b.png", "b.Jpeg"}
    assert kind("folk") == "melody" and kind("wordnet") == "text"
    assert kind("digits") == kind("avatars") == "image"


def test_neither_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        SeqvaeError, match=r"music \(.abc .krn .* text \(.csv .jsonl .* or images \(.jpeg .jpg"
    ):
        kind(touched(tmp_path, "a.gif", "b.gz", "c.npz"))  # which is to be named itself
    with pytest.raises(SeqvaeError, match="there is no file or folder .*missing"):
        kind(tmp_path / "missing")


def test_what_is_found(tmp_path: Path) -> None:
    touched(tmp_path / "in", "b.txt", "a.csv.gz", "c/d.txt", "e.mid", "f.text", "out/g.txt")
    units, rejects = find(tmp_path / "in", tmp_path / "in" / "out", "text")
    assert [unit.name for unit in units] == ["a.csv.gz", "b.txt", "c/d.txt"]
    assert {unit.split for unit in units} == {-1}
    assert rejects == [("e.mid", "not text"), ("f.text", "not text")]
    units, _ = find(tmp_path / "in" / "f.text", "", "text")  # named, and so taken for what it is
    assert [unit.name for unit in units] == ["f.text"]
    units, _ = find(tmp_path / "in", "", "text", [tmp_path / "in" / "b.txt", tmp_path / "in" / "c"])
    assert [(unit.name, unit.split) for unit in units] == [
        ("a.csv.gz", -1), ("out/g.txt", -1), ("b.txt", 1), ("d.txt", 2)
    ]  # fmt: skip
    with pytest.raises(SeqvaeError, match="nothing besides the files"):
        find(tmp_path / "in" / "b.txt", "", "text", [None, tmp_path / "in"])


# ---------------------------------------------------------------- packs


class Shelf:
    """Files of numbered lines, some of which are faults, and how often they were read."""

    def __init__(self, folder: Path, faulty: str = "") -> None:
        self.units = [
            Unit(f"{name}.txt", f"/{name}.txt", 1, 1, split) for name, split in (("a", -1), ("b", 1))
        ]
        self.folder, self.faulty, self.read = folder, faulty, 0

    def lines(self, unit: Unit) -> Iterator[Line]:
        self.read += 1
        for number in range(1, 26):
            fault = SeqvaeError(f"line {number} is bad") if number % 10 == 0 else None
            yield Line(number, fault or f"text {number} of {unit.name}")
        if unit.name == self.faulty:
            raise SeqvaeError(f"{unit.path}: it ends too early")

    def pack(self, spare: bool = False, **others: Any) -> Packs:
        found = ((unit, self.lines(unit)) for unit in self.units)
        draw = others.get("draw", lambda text: 2 if "2" in text else 0)
        return pack(found, self.folder, draw, lambda unit: spare, lambda count: None)


def contents(packs: Packs) -> list[tuple[int, str, str]]:
    return [(unit.split, *one) for unit in packs.units for one in unpack(unit.path)]


def test_packs_hold_every_text_by_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PACK", 4)
    shelf = Shelf(tmp_path / "packs")
    packs = shelf.pack()
    numbers = [number for number in range(1, 26) if number % 10]
    told = [(2 if "2" in str(n) else 0, f"a.txt:{n}", f"text {n} of a.txt") for n in numbers]
    told += [(1, f"b.txt:{n}", f"text {n} of b.txt") for n in numbers]
    assert contents(packs) == sorted(told, key=lambda one: one[0]) and packs.counts == [16, 23, 7]
    assert packs.rejects == [(f"{name}.txt:{n}", f"line {n} is bad") for name in "ab" for n in (10, 20)]
    assert [len(list(unpack(unit.path))) for unit in packs.units] == [4, 4, 4, 4, 4, 4, 4, 4, 4, 3, 4, 3]
    assert shelf.pack() == packs and shelf.read == 2  # they are there already
    os.utime(packs.units[3].path, ns=(1, 1))
    again = shelf.pack()
    assert contents(again) == contents(packs) and shelf.read == 4
    (tmp_path / "packs" / "packs.json").write_text("[")
    assert contents(shelf.pack()) == contents(packs) and shelf.read == 6


def test_a_bad_file_is_raised_or_spared(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "packs", faulty="a.txt")
    with pytest.raises(SeqvaeError, match="^/a.txt: it ends too early"):
        shelf.pack()
    packs = shelf.pack(spare=True)
    assert packs.rejects[2] == ("a.txt", "it ends too early") and sum(packs.counts) == 46


@pytest.mark.skipif(sys.platform != "linux", reason="file names that are no text")
def test_packs_know_strange_names_and_texts(tmp_path: Path) -> None:
    name, texts = (
        os.fsdecode(b'b\xff, "q"\n\r\tz.txt'),
        ["\u2028 \x85 \x0b", 'a "quoted" \\ one', "😀 \ufeff", ""],
    )
    lines = [Line(i, text) for i, text in enumerate(texts)]
    packs = pack(
        [(Unit(name, "", 0, 0), lines)],
        tmp_path / "packs",
        lambda text: 0,
        lambda unit: False,
        lambda n: None,
    )
    assert list(unpack(packs.units[0].path)) == [(f"{name}:{i}", text) for i, text in enumerate(texts)]


def test_learning_is_done_once_and_on_texts_spread_evenly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "LEARNT_FROM", 8)
    packs = Shelf(tmp_path / "packs").pack(draw=lambda text: 0)
    told: list[int] = []
    codec = learn(Spelling("words"), packs, "shelf", told.append)
    assert isinstance(codec, WordsCodec) and told == [0, 1]
    # Of 23 texts every third: those of numbers 1, 4, 7 ... with 10 and 20 left out.
    assert {int(word) for word in codec.words if word.isdigit()} == {1, 4, 7, 11, 14, 17, 21, 24}
    assert learn(Spelling("words"), packs, "shelf", told.append).state == codec.state and told == [0, 1]


# ---------------------------------------------------------------- images


def test_images_are_found(tmp_path: Path) -> None:
    touched(tmp_path / "in", "b.png", "a.jpg", "cats/c.JPEG", "d.gif", "e.npz", "f.txt")
    units, rejects = find(tmp_path / "in", "", "image")
    assert [unit.name for unit in units] == ["a.jpg", "b.png", "cats/c.JPEG"]
    assert rejects == [(name, "not image data") for name in ("d.gif", "e.npz", "f.txt")]
    assert [unit.name for unit in find(tmp_path / "in" / "e.npz", "", "image")[0]] == ["e.npz"]
    assert find("digits", "", "image") == ([Unit("digits", "", 0, 0)], [])
    with pytest.raises(SeqvaeError, match="holds no image data, that is no files in .jpeg .jpg .png"):
        find(touched(tmp_path / "none", "d.gif"), "", "image")


def test_packs_of_images_hold_them_all_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By parts of the size asked for, none of two splits, and not again once they are there."""
    rng = np.random.default_rng(0)
    grids, splits = rng.integers(0, 256, (25, 8, 9, 3), np.uint8), [-1] * 12 + [1] * 8 + [2] * 5
    told = [
        Picture(str(i), grid, str(i % 3) if i % 2 else None, ("a notice",) * (i == 3), split)
        for i, (grid, split) in enumerate(zip(grids, splits, strict=True))
    ]
    reads = []

    def images(*arguments: Any) -> Iterator[Picture]:
        reads.append(arguments)
        yield from told

    monkeypatch.setattr(sources, "images", images)
    monkeypatch.setattr(sources, "CELLS", 5 * 8 * 9 * 3 + 1)
    unit, counts = Unit("faces.npz", "/faces.npz", 1, 1), list[int]()

    def make() -> Packs:
        return album([unit], Framing(8, 9), tmp_path / "packs", 3, 4, counts.append)

    packs = make()
    assert packs.frame == (8, 9, 3, 256) and packs.counts == [12, 8, 5] and packs.rejects == []
    assert [unit.split for unit in packs.units] == [-1, -1, -1, 1, 1, 2] and counts == [5, 10, 12, 17, 20, 25]
    found = [(unit.split, *one) for unit in packs.units for one in turn(unit.path)]
    for (split, name, picture), expected in zip(found, told, strict=True):
        assert (split, name) == (expected.split, f"faces.npz:{expected.name}")
        assert (picture.label, picture.notices) == (expected.label, expected.notices)
        np.testing.assert_array_equal(picture.image, expected.image)
    assert make() == packs and reads == [(unit, Framing(8, 9), 3, 4)]
    Path(packs.units[0].path).unlink()
    assert make()[1:] == packs[1:] and len(reads) == 2


def test_image_files_stay_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    units, _ = find(touched(tmp_path / "in", "b.png", "a.jpg"), "", "image")
    monkeypatch.setattr(pictures, "survey", lambda files, framing, tell: (*map(len, files), 1, 2))
    packs = album(units, Framing(), tmp_path / "packs", 0, 0, lambda done: None)
    assert packs == Packs(units, [2, 0, 0], [], (2, 2, 1, 2)) and not (tmp_path / "packs").exists()
