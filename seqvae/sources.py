"""What a corpus is made of: the files of a folder, the built-in collections, and packs of texts and images.

Conventions: a *pack* is a file of up to PACK texts of one split, each with its name, a list in JSON a line;
or an .npz file of images of one split in about CELLS values. Texts of any source, and images that are no
files of their own, are packed before they are spelt, so that `harvest` reads them as it reads files of music:
in parallel, whatever their size, and never again after a kill.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seqvae import files, pictures, texts
from seqvae.codecs import Codec, PixelsCodec, Spelling, TextCodec
from seqvae.codecs.text import LEARNT_FROM
from seqvae.disk import write_atomic
from seqvae.pictures import Common, Framing, Picture
from seqvae.song import SeqvaeError

MUSIC = {".mid", ".midi", ".abc", ".musicxml", ".mxl", ".xml", ".krn"}
SUFFIXES = {"melody": MUSIC, "text": texts.SUFFIXES, "image": pictures.SUFFIXES}  # by the codec's kind
WORDS = {"melody": "music", "text": "text", "image": "image data"}
BUILT_IN = {
    "folk": "melody",
    "chorales": "melody",
    "wordnet": "text",
    "wordnet-glosses": "text",
    "digits": "image",
    "avatars": "image",
}
PACK = 500  # texts
CELLS = 1 << 18  # values of images, each of which is two bytes when spelt
PACKED, ALBUM = ".texts", ".images"  # suffixes of packs


class Unit(NamedTuple):
    """A file to be read."""

    name: str  # path below the source, with slashes
    path: str
    size: int  # bytes
    time: int  # ns, of the last change
    split: int = -1  # of all that is in it, an index; -1: to be drawn

    @classmethod
    def of(cls, path: str, source: str, split: int = -1) -> "Unit":
        known = os.stat(path) if os.path.exists(path) else os.lstat(path)  # a link to nothing
        name = Path(path).relative_to(source).as_posix()
        return cls(name, path, known.st_size, known.st_mtime_ns, split)


SHIPPED = ("folk", "chorales")  # with music21, in files
WHOLE = {name: Unit(name, "", 0, 0) for name in BUILT_IN if name not in SHIPPED}  # no files one by one


class Packs(NamedTuple):
    units: list[Unit]  # of one split each
    counts: list[int]  # texts or images of each split
    rejects: list[tuple[str, str]]  # name, reason
    frame: tuple[int, ...] = ()  # of images, a `Frame`


def kind(source: str | Path) -> str:
    """The kind of codec for a file or folder: "melody" where there is music, or else "image" where there are
    more images than texts, or else "text". Raises SeqvaeError for a folder with none, and where there is
    nothing."""
    if str(source) in BUILT_IN:
        return BUILT_IN[str(source)]
    found = Counter(texts.suffix(path) for path in _walk(source, "")[0])
    counts = {kind: sum(found[suffix] for suffix in of) for kind, of in SUFFIXES.items()}
    if not os.path.isdir(source):
        counts["image"] += found[pictures.ARRAYS]
    elif not any(counts.values()):
        known = f"music ({_listed(MUSIC)}), text ({_listed(texts.PLAIN)}, also with .gz)"
        raise SeqvaeError(f"{source} holds no files of {known} or images ({_listed(pictures.SUFFIXES)})")
    return "melody" if counts["melody"] else "image" if counts["image"] > counts["text"] else "text"


def _listed(suffixes: set[str]) -> str:
    return " ".join(sorted(suffixes))


def folk(essen: bool) -> list[Unit]:
    """The books of `files.folk`, each a file of its own for the workers."""
    root = files.shipped("folk tunes")
    collections = [root / name for name in files.COLLECTIONS + (("essenFolksong",) if essen else ())]
    return [Unit.of(str(path), str(root)) for books in collections for path in sorted(books.glob("*.abc"))]


def chorales() -> list[Unit]:
    """Bach's works in the corpus of music21, of which nearly all are chorales."""
    root = files.shipped("chorales") / "bach"
    return [Unit.of(str(path), str(root.parent)) for path in sorted(root.iterdir()) if path.suffix in MUSIC]


def find(
    source: str | Path,
    out: str | Path,
    kind: str,
    given: Sequence[str | Path | None] = (),
    essen: bool = False,
) -> tuple[list[Unit], list[tuple[str, str]]]:
    """The files of a kind in a file or folder, in order of name, or of what is built in, and (name, reason)
    for all that is left out. What is in `out` is not looked at; a file that is named may hold text whatever
    its ending. The files `given` make splits 1, 2 ... of their own, and follow.
    """
    units, rejects = _files(source, out, kind, essen)
    for split, path in enumerate(given, 1):
        if path is not None:
            others = [unit._replace(split=split) for unit in _files(path, out, kind, essen)[0]]
            taken = {os.path.realpath(unit.path) for unit in others}
            units = [unit for unit in units if os.path.realpath(unit.path) not in taken] + others
    if all(unit.split > 0 for unit in units):
        raise SeqvaeError(f"{source} has nothing besides the files that are splits of their own")
    return units, rejects


def _files(
    source: str | Path, out: str | Path, kind: str, essen: bool
) -> tuple[list[Unit], list[tuple[str, str]]]:
    if BUILT_IN.get(str(source)) == kind:
        if str(source) in SHIPPED:
            return (folk(essen) if source == "folk" else chorales()), []
        return [WHOLE[str(source)]], []
    paths, faults = _walk(source, out)
    root = os.path.abspath(source)
    rejects = [(os.path.relpath(fault.filename, root), "the folder cannot be read") for fault in faults]
    base = root if os.path.isdir(root) else os.path.dirname(root)
    units = []
    for path in sorted(paths):
        unit = Unit.of(path, base)
        named = base != root and (kind == "text" or kind == "image" and pictures.of_arrays(path))
        if texts.suffix(path) in SUFFIXES[kind] or named:
            units.append(unit)
        else:
            rejects.append((unit.name, f"not {WORDS[kind]}"))
    if not units:
        raise SeqvaeError(f"{source} holds no {WORDS[kind]}, that is no files in {_listed(SUFFIXES[kind])}")
    return units, rejects


def _walk(source: str | Path, out: str | Path) -> tuple[list[str], list[OSError]]:
    """Every file of a folder but for what is in `out`, or the file itself, and what cannot be entered."""
    root, been = os.path.abspath(source), {os.path.realpath(out)}
    if not os.path.isdir(root):
        if not os.path.exists(root):
            raise SeqvaeError(f"there is no file or folder {source}")
        return [root], []
    paths: list[str] = []
    faults: list[OSError] = []
    for folder, folders, names in os.walk(root, onerror=faults.append, followlinks=True):
        real = os.path.realpath(folder)
        folders[:] = [] if real in been else sorted(folders)
        paths += [] if real in been else [os.path.join(folder, name) for name in names]
        been.add(real)
    return paths, faults


def read(unit: Unit, split: str, column: str | None) -> Iterator[texts.Line]:
    if unit in WHOLE.values():
        return texts.wordnet(definitions=unit == WHOLE["wordnet-glosses"])
    return texts.read(unit.path, split=split, column=column)


def gather(
    units: list[Unit],
    codec: Codec | Spelling | Framing,
    folder: Path,
    recipe: dict[str, Any],
    draw: Callable[[str], int],
    spare: bool,
    progress: Callable[[str, int, int], None],
) -> tuple[Packs, Codec]:
    """Songs as they are, texts and images in packs below `folder`; and the codec, made for them where there
    is but the wish for one.

    The recipe is that of the corpus; `draw` and `progress` are told a text and, by stage, how far things are.
    Raises SeqvaeError where there is too little, and for a file of texts unless those of a folder are spared.
    """
    if isinstance(codec, Framing | PixelsCodec):
        framing = codec if isinstance(codec, Framing) else codec.framing
        seed, count = recipe["seed"], recipe.get("count", 0)
        packs = album(units, framing, folder, seed, count, lambda done: progress("reading", done, 0))
        return packs, PixelsCodec(*packs.frame) if isinstance(codec, Framing) else codec
    if not isinstance(codec, Spelling | TextCodec):
        return Packs(units, [len(units), 0, 0], []), codec
    found = ((unit, read(unit, recipe["split"], recipe["column"])) for unit in units)
    tell, spared = (lambda done: progress("reading", done, 0)), (lambda unit: spare and unit.split < 0)
    packs = pack(found, folder, draw, spared, tell)
    if packs.counts[0] < 2:
        some = sum(packs.counts)
        if not some:
            raise SeqvaeError(useless("text", recipe["source"], packs.rejects))
        of = f"{some} texts, of which {packs.counts[0]} are to train on" if some > 1 else "only one text"
        raise SeqvaeError(f"{recipe['source']} holds {of}: give more")
    if isinstance(codec, Spelling):
        stage = "learning the vocabulary"
        codec = learn(codec, packs, recipe["source"], lambda done: progress(stage, done, 1))
    return packs, codec


def useless(thing: str, source: str, rejects: list[tuple[str, str]]) -> str:
    """Why there is nothing in the source."""
    reason = next((why for _, why in rejects if not why.startswith("not ")), "its files are empty")
    return f"no {thing} in {source} can be used, for instance because: {reason}"


def pack(
    sources: Iterable[tuple[Unit, Iterable[texts.Line]]],
    folder: Path,
    draw: Callable[[str], int],
    spare: Callable[[Unit], bool],
    progress: Callable[[int], None],
) -> Packs:
    """Writes the texts of files into packs below `folder`, unless they all are there already.

    A text is of its file's split, or of the one that is drawn of it. A file that cannot be read is left out
    where it may be spared; else the SeqvaeError is raised. `progress` is told the number of texts.
    """
    if (held := _packed(folder)) is not None:
        return held
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    packs = Packs([], [0, 0, 0], [])
    waiting: tuple[list[str], ...] = ([], [], [])

    def flush(split: int) -> None:
        name = f"{split}-{len(packs.units):07}{PACKED}"
        with open(folder / name, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.writelines(waiting[split])
        packs.units.append(Unit.of(str(folder / name), str(folder), split))
        packs.counts[split] += len(waiting[split])
        waiting[split].clear()
        progress(sum(packs.counts))

    for unit, read in sources:
        try:
            for number, text, _ in read:
                name = f"{unit.name}:{number}"
                if isinstance(text, SeqvaeError):
                    packs.rejects.append((name, str(text)))
                    continue
                split = unit.split if unit.split >= 0 else draw(text)
                waiting[split].append(json.dumps([name, text], ensure_ascii=False) + "\n")
                if len(waiting[split]) == PACK:
                    flush(split)
        except SeqvaeError as fault:
            if not spare(unit):
                raise
            packs.rejects.append((unit.name, str(fault).removeprefix(f"{unit.path}: ")))
    for split in range(len(waiting)):
        if waiting[split]:
            flush(split)
    packs.units.sort(key=lambda unit: (unit.split, unit.name))
    write_atomic(folder / "packs.json", json.dumps(packs).encode())
    return packs


def _packed(folder: Path) -> Packs | None:
    """What `pack` wrote, if it is all there as it was written."""
    try:
        units, counts, rejects, frame = json.loads((folder / "packs.json").read_bytes())
        left_out = [(name, why) for name, why in rejects]
        packs = Packs([Unit(*unit) for unit in units], counts, left_out, tuple(frame))
        whole = all(Unit.of(unit.path, str(folder), unit.split) == unit for unit in packs.units)
        return packs if whole else None
    except (OSError, ValueError, TypeError):
        return None


def unpack(path: str | Path) -> Iterator[tuple[str, str]]:
    """(name, text) for every text of a pack."""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            name, text = json.loads(line)
            yield name, text


def learn(spelling: Spelling, packs: Packs, source: str, progress: Callable[[int], None]) -> TextCodec:
    """The codec, learnt from the texts of split 0 unless its vocabulary stands beside the packs already; of
    more than LEARNT_FROM texts from some, evenly spread. `progress` is told 0 and 1. Raises SeqvaeError, with
    the source's name, where nothing can be learnt."""
    held = Path(packs.units[0].path).with_name("vocabulary")
    if held.exists():
        return spelling.codec(held.read_bytes())
    progress(0)
    found = (text for unit in packs.units if unit.split == 0 for _, text in unpack(unit.path))
    try:
        codec = spelling.learn(islice(found, 0, None, -(-packs.counts[0] // LEARNT_FROM)))
    except SeqvaeError as fault:
        raise SeqvaeError(f"{source}: {fault}") from None
    write_atomic(held, codec.state)
    progress(1)
    return codec


def images(unit: Unit, framing: Framing, seed: int, count: int) -> Iterator[Picture]:
    """All images of a file of arrays or of what is built in: of the avatars so many, drawn from the seed."""
    if unit == WHOLE["digits"]:
        yield from pictures.digits(framing)
    elif unit == WHOLE["avatars"]:
        size = max(framing.height, framing.width) or pictures.LARGEST
        for number, (image, parts) in enumerate(pictures.avatars(count, seed, size)):
            label = " ".join(f"{name}={part}" for name, part in parts.items())
            yield Picture(str(number), pictures.refit(image, framing), label)
    else:
        yield from pictures.arrays(unit.path, framing)


def album(
    units: list[Unit], framing: Framing, folder: Path, seed: int, count: int, progress: Callable[[int], None]
) -> Packs:
    """Image files as they are, with their frame; or the `images` of the only unit in packs below `folder`,
    unless they all are there already. `progress` is told the number of images.

    Raises SeqvaeError where they have no frame in common, or are no images.
    """
    unit = units[0]
    if unit not in WHOLE.values() and not pictures.of_arrays(unit.path):
        frame = pictures.survey(((unit.name, unit.path) for unit in units), framing, progress)
        return Packs(units, [len(units), 0, 0], [], frame)
    if (held := _packed(folder)) is not None:
        return held
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    packs, common = Packs([], [0, 0, 0], []), Common()
    found = images(unit, framing, seed, count)
    for some in _sheaves(one._replace(name=f"{unit.name}:{one.name}") for one in found):
        for one in some:
            common.add(one.name, one.image.shape, one.image)
        path = folder / f"{len(packs.units):07}{ALBUM}"
        _bind(some, path)
        packs.units.append(Unit.of(str(path), str(folder), some[0].split))
        packs.counts[max(some[0].split, 0)] += len(some)
        progress(sum(packs.counts))
    packs = packs._replace(frame=common.frame())
    write_atomic(folder / "packs.json", json.dumps(packs).encode())
    return packs


def _sheaves(found: Iterable[Picture]) -> Iterator[list[Picture]]:
    """Pictures in order, as many together as have one split and shape and no more than about CELLS values."""
    sheaf: list[Picture] = []
    for picture in found:
        if sheaf:
            image, split = sheaf[0].image, sheaf[0].split
            full = len(sheaf) >= CELLS // image.size
            if full or picture.split != split or picture.image.shape != image.shape:
                yield sheaf
                sheaf = []
        sheaf.append(picture)
    if sheaf:
        yield sheaf


def _bind(some: list[Picture], path: Path) -> None:
    about = json.dumps([(one.name, one.label, one.notices) for one in some]).encode()
    with open(path, "wb") as file:
        np.savez(file, about=np.frombuffer(about, np.uint8), images=np.stack([one.image for one in some]))


def turn(path: str | Path) -> Iterator[tuple[str, Picture]]:
    """(name, picture) for every image of a pack."""
    with np.load(path) as stored:
        about, grids = json.loads(stored["about"].tobytes()), stored["images"]
    for (name, label, notices), image in zip(about, grids, strict=True):
        yield name, Picture(name, image, label, tuple(notices))
