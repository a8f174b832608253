"""Sources of a corpus: what kind a file or folder is of, what is found in it, and packs of texts."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from seqvae import sources
from seqvae.codecs import Spelling, WordsCodec
from seqvae.song import SeqvaeError
from seqvae.sources import Packs, Unit, find, kind, learn, pack, unpack
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
    ],
)
def test_a_folder_is_of_music_where_there_is_some(tmp_path: Path, names: list[str], expected: str) -> None:
    assert kind(touched(tmp_path, *names)) == expected


def test_a_file_is_of_music_by_its_ending_alone(tmp_path: Path) -> None:
    touched(tmp_path, "a.mid", "a.xml", "a.txt", "a.csv.gz", "a", "a.0", "b.gz")
    kinds = {name: kind(tmp_path / name) for name in os.listdir(tmp_path)}
    assert {name for name in kinds if kinds[name] == "melody"} == {"a.mid", "a.xml"}
    assert kind("folk") == "melody" and kind("wordnet") == "text"


def test_neither_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SeqvaeError, match=r"no files of music \(.abc .krn .* or text \(.csv .jsonl"):
        kind(touched(tmp_path, "a.jpg", "b.gz"))
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
