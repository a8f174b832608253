"""Images out of files, arrays and two collections: scikit-learn's digits and drawn faces.

Conventions: an image is (H, W, C) uint8, with C 1 (grey) or 3 (red, green, blue), and sides of SMALLEST to
LARGEST pixels. What an image loses on the way here is a notice, in one sentence. What cannot be read raises
`SeqvaeError`, in a sentence that names the file; nothing is ever unpickled. An array is read in parts.
"""

import gzip
import importlib.util
import io
import math
import os
import random
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, ClassVar, NamedTuple
from zipfile import BadZipFile, ZipFile

import numpy as np
from PIL import Image, ImageOps

from seqvae.song import SeqvaeError

SMALLEST, LARGEST = 8, 64  # pixels of a side
SUFFIXES = {".png", ".jpg", ".jpeg"}
ARRAYS = ".npz"
LEVELS = (2, 4, 16, 17, 256)  # of 1, 2 and 4 bits, of scikit-learn's digits, of 8 bits
ORIENTATION = 0x0112  # in EXIF: how a camera was held; 1 is upright
TURNED = "FLIP_LEFT_RIGHT ROTATE_180 FLIP_TOP_BOTTOM TRANSPOSE ROTATE_270 TRANSVERSE ROTATE_90"
TURNS: dict[object, Image.Transpose] = dict(enumerate((Image.Transpose[name] for name in TURNED.split()), 2))
OVERSAMPLING = 4  # times the pixels asked for, at least, that a JPEG file is read in
CHUNK = 1 << 20  # bytes of an array that are read at a time
CLEAR, PALETTE = "its transparent parts were laid on white", "its palette was replaced by the colours"
DEEP = "of its 16 bits a channel the lower 8 were left out"
INKS = "its printing colours became red, green and blue"

DAMAGES = (OSError, ValueError, EOFError, KeyError, RuntimeError, BadZipFile, struct.error, zlib.error)
SPLITS = ({"train", "training"}, {"valid", "val", "validation", "dev"}, {"test", "testing"})  # in keys
PICTURED = {"x", "image", "images", "data", "pixels", "arr"}
LABELLED = {"y", "label", "labels", "target", "targets"}

GLASSES = ("PRESCRIPTION_1", "PRESCRIPTION_2", "ROUND", "KURT", "SUNGLASSES", "WAYFARERS")
# Of python-avatars' parts those that show at this size and hide neither the eyes nor the hair's colour.
PARTS = {
    "hair": "NONE BIG_HAIR BOB BUN CAESAR CURLY CURVY DREADS FRIZZLE FRO LONG_NOT_TOO_LONG MIA_WALLACE SHAGGY"
    " SHAGGY_MULLET SHORT_CURLY SHORT_DREADS_2 SHORT_FLAT SHORT_ROUND SHORT_WAVED SIDES STRAIGHT_1",
    "hair_colour": "AUBURN BLACK BLONDE BLONDE_GOLDEN BROWN BROWN_DARK PASTEL_PINK PLATINUM RED SILVER_GRAY",
    "skin": "BLACK BROWN DARK_BROWN LIGHT PALE TANNED YELLOW",
    "facial_hair": "NONE NONE NONE BEARD_LIGHT BEARD_MEDIUM MOUSTACHE_MAGNUM",  # none on half of the faces
    "eyes": "CLOSED DEFAULT DEFAULT HAPPY SIDE SQUINT SURPRISED WINK",
    "eyebrows": "ANGRY DEFAULT FLAT_NATURAL RAISED_EXCITED SAD_CONCERNED UP_DOWN",
    "mouth": "BIG_SMILE DEFAULT DISBELIEF SAD SERIOUS SMILE TONGUE TWINKLE",
    "clothing": "BLAZER_SHIRT COLLAR_SWEATER HOODIE OVERALL SHIRT_CREW_NECK SHIRT_SCOOP_NECK SHIRT_V_NECK",
    "clothing_colour": "BLACK BLUE_01 BLUE_03 GRAY_01 HEATHER PASTEL_GREEN PASTEL_ORANGE PINK RED WHITE",
}
HEAD = "22 20 220 220"  # the view, of 264 x 280: a square with the head and the shoulders


@dataclass(frozen=True)
class Framing:
    """What images are made into: the largest part of that shape about their centre, resized, in so many
    channels. Zero leaves them as they are. Raises `SeqvaeError` for sides and channels of no image."""

    height: int = 0
    width: int = 0
    channels: int = 0
    kind: ClassVar[str] = "image"

    def __post_init__(self) -> None:
        sides = (self.height, self.width)
        if any(sides) and not all(SMALLEST <= side <= LARGEST for side in sides):
            raise SeqvaeError(f"images have sides of {SMALLEST} to {LARGEST} pixels, not {max(sides)}")
        if self.channels not in (0, 1, 3):
            raise SeqvaeError(f"images have 1 channel or 3, not {self.channels}")


AS_IT_IS = Framing()


class Frame(NamedTuple):
    """What images have in common."""

    height: int
    width: int
    channels: int
    levels: int = 256  # of each channel

    def __str__(self) -> str:
        sort = "black and white" if self[2:] == (1, 2) else "grey" if self.channels == 1 else "colour"
        levels = "" if self.levels == 256 or sort == "black and white" else f" in {self.levels} levels"
        return f"{self.width} x {self.height} {sort}{levels}"


class Picture(NamedTuple):
    name: str  # in its file, or of it
    image: np.ndarray  # (H, W, C) uint8
    label: str | None = None
    notices: tuple[str, ...] = ()
    split: int = -1  # that its file puts it in: 1 valid, 2 test; -1 neither


def read(path: str | os.PathLike[str], framing: Framing = AS_IT_IS) -> Iterator[Picture]:
    """The image of a PNG or JPEG file, or all those of the arrays in an .npz file (`arrays`).

    Grey and colour stay what they are unless the framing says otherwise. Raises SeqvaeError for a file that
    is damaged or no image, and for an image of other sides than SMALLEST to LARGEST.
    """
    if of_arrays(path):
        return arrays(path, framing)
    picture = _file(path, framing)
    _check(f"{path}: it", picture.image.shape)
    return iter([picture])


def load(path: str | os.PathLike[str], framing: Framing = AS_IT_IS) -> np.ndarray:
    """The first image that `read` gives."""
    return next(read(path, framing)).image


def _file(path: str | os.PathLike[str], framing: Framing) -> Picture:
    """As `read` gives it, but of any sides."""
    with _opened(path) as image:
        if framing.height:
            image.draft(None, (OVERSAMPLING * max(framing.height, framing.width),) * 2)
        plain, notices = _plain(image)
        return Picture(os.path.basename(path), _framed(plain, framing), None, notices)


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """The image in a file, whose faults, also later ones, become sentences."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd in its metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=("PNG", "JPEG")) as image:
                yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        most = f"{Image.MAX_IMAGE_PIXELS} pixels"
        raise SeqvaeError(f"{path}: it has more than {most}; scale it down") from None
    except (OSError, SyntaxError, ValueError, EOFError, OverflowError, struct.error, zlib.error) as fault:
        if isinstance(fault, OSError) and fault.errno:
            raise SeqvaeError(f"{path}: it cannot be read: {fault.strerror}") from None
        raise SeqvaeError(f"{path}: it is no whole PNG or JPEG image") from None


def _held(image: Image.Image) -> str:
    """How the file holds pixels, as no mode tells of 16-bit colour; "" once they are read."""
    return str(tile[0][3]) if (tile := getattr(image, "tile", None)) else ""


def _grey(image: Image.Image) -> bool:
    return image.mode in ("1", "L", "LA", "I", "I;16") or _held(image).startswith("LA")


def _plain(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """An image of any mode, the right way up, in mode L or RGB, and what that cost it."""
    mode, notices = "L" if _grey(image) else "RGB", [DEEP] if "16" in _held(image) else []
    image.load()
    if (turn := TURNS.get(image.getexif().get(ORIENTATION))) is not None:
        image = image.transpose(turn)
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    notices += [PALETTE] if image.mode == "P" else [INKS] if image.mode == "CMYK" else []
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            notices.append(CLEAR)
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode), tuple(notices)


def _framed(image: Image.Image, framing: Framing) -> np.ndarray:
    """An image in mode L or RGB as (H, W, C)."""
    if framing.channels:
        image = image.convert("L" if framing.channels == 1 else "RGB")
    sides = (framing.width, framing.height)
    if framing.height and image.size != sides:
        image = ImageOps.fit(image, sides, Image.Resampling.LANCZOS)
    grid = np.asarray(image)
    return grid.reshape(*grid.shape[:2], -1)


def _check(name: str, shape: tuple[int, ...]) -> None:
    height, width = shape[:2]
    if not SMALLEST <= min(height, width) <= max(height, width) <= LARGEST:
        sides = f"{SMALLEST} x {SMALLEST} to {LARGEST} x {LARGEST}"
        raise SeqvaeError(f"{name} has {width} x {height} pixels, not {sides}: give a size (--size 32)")


# ---------------------------------------------------------------------------- what images have in common


class Common:
    """The frame of images that are told one after another."""

    def __init__(self) -> None:
        self.first: tuple[str, tuple[int, ...]] | None = None
        self.seen = np.zeros(256, bool)  # values of any channel

    def add(self, name: str, shape: tuple[int, ...], image: np.ndarray | None) -> None:
        """An image of this shape, or None where it was not looked at. Raises SeqvaeError where it differs
        from the first, naming both."""
        self.first = self.first or (name, shape)
        if shape != self.first[1]:
            one, other = Frame(*self.first[1]), Frame(*shape)
            ways = ["a size (--size 32)"] if one[:2] != other[:2] else []
            ways += ["a mode (--mode grey)"] if one[2] != other[2] else []
            raise SeqvaeError(f"{self.first[0]} is {one} and {name} is {other}: give {' and '.join(ways)}")
        self.seen[slice(None) if image is None else image] = True

    def frame(self) -> Frame:
        """In as few of LEVELS as hold every value. Raises SeqvaeError where no image was told."""
        if self.first is None:
            raise SeqvaeError("there are no images in it")
        held = np.flatnonzero(self.seen)
        levels = next(count for count in LEVELS if np.isin(held, values(count)).all())
        height, width, channels = self.first[1]
        return Frame(height, width, channels, levels)


def values(levels: int) -> np.ndarray:
    """(levels,) uint8: the values 0 .. 255 that so many levels stand for, evenly spread but for rounding."""
    return ((np.arange(levels) * 510 + levels - 1) // (2 * levels - 2)).astype(np.uint8)


def survey(files: Iterable[tuple[str, str]], framing: Framing, progress: Callable[[int], None]) -> Frame:
    """The frame of image files (name, path) as the framing makes them. Where that decides everything none is
    read, and of images that will be resized only the beginning.

    What cannot be read is passed over. Raises SeqvaeError where two images differ, naming both, where one has
    other sides than SMALLEST to LARGEST, and where none can be read.
    """
    if framing.height and framing.channels:
        return Frame(framing.height, framing.width, framing.channels)
    common, why = Common(), ""
    for done, (name, path) in enumerate(files, 1):
        progress(done)
        try:
            image = None if framing.height else _file(path, framing).image
            shape = (framing.height, framing.width, _channels(path)) if image is None else image.shape
        except SeqvaeError as fault:
            why = why or str(fault)
            continue
        if image is not None:
            _check(name, shape)
        common.add(name, shape, image)
    if common.first is None:
        raise SeqvaeError(f"none of its images can be read, for instance because: {why}")
    return common.frame()


def _channels(path: str) -> int:
    with _opened(path) as image:
        return 1 if _grey(image) else 3


# ------------------------------------------------------------------------------------------------ arrays


class _Array(NamedTuple):
    key: str
    split: int  # -1: none is said
    labels: str | None  # key of its labels


def of_arrays(path: str | os.PathLike[str]) -> bool:
    """Whether a file is one of arrays, by its name."""
    return os.fspath(path).lower().endswith(ARRAYS)


def splits(path: str | os.PathLike[str]) -> tuple[str | None, str | None]:
    """The arrays of an .npz file that are its valid and test split, if any. Raises as `arrays` does."""
    found = {array.split: array.key for array in _arrays(path)}
    return found.get(1), found.get(2)


def arrays(path: str | os.PathLike[str], framing: Framing = AS_IT_IS) -> Iterator[Picture]:
    """All images in an .npz file, those to train on first, named by key and place: "x_train:0".

    Arrays are told by the words in their keys: images by PICTURED, or as the only array, labels by LABELLED,
    and splits by SPLITS, so that x_train, x_test, y_train and y_test are what they seem; other keys are
    passed over. Images are (N, H, W) or (N, H, W, 1 or 3), or of the framing's size as rows of pixels
    (N, H * W), or of bits (N, H * W / 8), as numpy.packbits makes them. They are bool, integers 0 .. 255 or
    real numbers 0 .. 1, of which NaN and others are counted. Raises SeqvaeError for all else.
    """
    try:
        for array in _arrays(path):
            with ZipFile(path) as archive, archive.open(f"{array.key}.npy") as file:
                labels = None if array.labels is None else _labels(archive, array.labels)
                yield from _pictures(file, array, labels, framing)
    except SeqvaeError as fault:
        raise SeqvaeError(f"{path}: {str(fault).removeprefix(f'{path}: ')}") from None
    except DAMAGES:
        raise SeqvaeError(f"{path}: it is no whole .npz file of arrays; save or fetch it again") from None


def _arrays(path: str | os.PathLike[str]) -> list[_Array]:
    """Its arrays of images by split, without -1 if there are others."""
    try:
        with ZipFile(path) as archive:
            keys = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    except OSError as fault:
        raise SeqvaeError(f"{path}: it cannot be read: {fault.strerror or fault}") from None
    except DAMAGES:
        raise SeqvaeError(f"{path}: it is no .npz file; save or fetch it again") from None
    words = {key: set(re.split("[^a-z]+", key.lower())) for key in keys}
    split = {key: next((i for i, of in enumerate(SPLITS) if of & words[key]), -1) for key in keys}
    labels = {split[key]: key for key in keys if words[key] & LABELLED}
    others = [key for key in keys if key not in labels.values()]
    images = [key for key in others if split[key] >= 0 or words[key] & PICTURED] or others
    if any(split[key] >= 0 for key in images):
        images = [key for key in images if split[key] >= 0]
    images.sort(key=lambda key: split[key])
    found = [_Array(key, split[key], labels.get(split[key])) for key in images]
    if [one.split for one in found] not in ([-1], [0], [0, 1], [0, 2], [0, 1, 2]):
        asked = "name one x and its labels y, or x_train, x_valid and x_test"
        raise SeqvaeError(f"{path}: it has the arrays {', '.join(keys)[:200] or 'none'}; {asked}")
    return found


_Header = tuple[tuple[int, ...], bool, np.dtype]  # shape, whether columns come first, dtype


def _read_header(file: IO[bytes], key: str) -> _Header:
    first, later = np.lib.format.read_array_header_1_0, np.lib.format.read_array_header_2_0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers that Python 2 wrote
            found = (first if np.lib.format.read_magic(file) == (1, 0) else later)(file)
    except Exception as fault:  # of damaged headers nearly every kind
        raise ValueError(fault) from None
    if found[2].hasobject:
        raise SeqvaeError(f"{key} holds Python objects, which are never unpickled; save an array of numbers")
    return found


def _labels(archive: ZipFile, key: str) -> list[str]:
    with archive.open(f"{key}.npy") as file:
        shape, _, dtype = _read_header(file, key)
        if len(shape) != 1 and shape[1:] != (1,):
            raise SeqvaeError(f"{key} has the shape {shape}, where labels are (N,)")
        return np.frombuffer(file.read(), dtype).astype(str).tolist()


def _grid(shape: tuple[int, ...], dtype: np.dtype, key: str, framing: Framing) -> tuple[int, int, int]:
    """(H, W, C) of the images in an array, which are bits where it is wider than its rows."""
    sides = framing.height, framing.width
    cells = sides[0] * sides[1]
    if shape[:1] < (1,):
        raise SeqvaeError(f"{key} holds no images")
    if dtype.kind not in "biuf":
        raise SeqvaeError(f"{key} holds {dtype}, where images are bool, integers 0 to 255 or reals 0 to 1")
    if len(shape) == 2 and cells and (shape[1] == cells or dtype == np.uint8 and shape[1] == -(-cells // 8)):
        return *sides, 1
    if len(shape) == 3 or len(shape) == 4 and shape[3] in (1, 3):
        if not cells:
            _check(f"an image of {key}", shape[1:])
        return shape[1], shape[2], shape[3] if len(shape) == 4 else 1
    way = " of the size you give (--size 28)" if len(shape) == 2 else ""
    asked = "(N, H, W) or (N, H, W, 1 or 3), or rows of pixels or packed bits"
    raise SeqvaeError(f"{key} has the shape {shape}, where images are {asked}{way}")


def _pictures(
    file: IO[bytes], array: _Array, labels: list[str] | None, framing: Framing
) -> Iterator[Picture]:
    """The images of one array; where some are none, those before it, and then a SeqvaeError that counts."""
    header = _read_header(file, array.key)
    shape, _, dtype = header
    if labels is not None and len(labels) != shape[0]:
        raise SeqvaeError(f"{array.key} holds {shape[0]} images and {array.labels} {len(labels)} labels")
    grid = _grid(shape, dtype, array.key, framing)
    bits, split = len(shape) == 2 and shape[1] < grid[0] * grid[1], array.split or -1
    at, bad, first, largest = 0, 0, 0, 0.0
    for rows in _chunks(file, header):
        if bits:
            rows = np.unpackbits(rows, axis=1)[:, : grid[0] * grid[1]].view(bool)
        wrong = _wrong(rows)
        first = first if bad or not wrong.any() else at + int(wrong.argmax())
        bad, largest = bad + int(wrong.sum()), max(largest, rows.max())
        if not bad:
            images = _bytes(rows).reshape(-1, *grid)
            for number, image in enumerate(images, at):
                label = None if labels is None else labels[number]
                yield Picture(f"{array.key}:{number}", refit(image, framing), label, (), split)
        at += len(rows)
    if bad:
        what = "NaN or values outside 0 to 1" if dtype.kind == "f" else "values outside 0 to 255"
        raise SeqvaeError(f"{array.key} holds {what} in {bad} of {at} images, first in number {first}")
    if dtype.kind in "iu" and not bits and largest <= 1:
        raise SeqvaeError(f"{array.key} holds nothing above 1 of 255: if 1 is white, save it as bool")


def _chunks(file: IO[bytes], header: _Header) -> Iterator[np.ndarray]:
    """The rows of an array, (n, ...) at a time; raises EOFError where it is cut short."""
    shape, columns_first, dtype = header
    size = math.prod(shape[1:]) * dtype.itemsize
    step = max(1, CHUNK // max(size, 1))
    # Column by column each row is all over the file: nothing for it but to hold the whole.
    whole = np.frombuffer(file.read(), dtype).reshape(shape[::-1]).T if columns_first else None
    for start in range(0, shape[0], step):
        count = min(step, shape[0] - start)
        if whole is not None:
            yield whole[start : start + count]
            continue
        data = file.read(count * size)
        if len(data) < count * size:
            raise EOFError
        yield np.frombuffer(data, dtype).reshape(count, *shape[1:])


def _wrong(rows: np.ndarray) -> np.ndarray:
    """(n,) whether any value is no pixel's."""
    within: np.ndarray = (rows >= 0) & (rows <= (1 if rows.dtype.kind == "f" else 255))  # False for NaN
    return np.logical_not(within.reshape(len(rows), -1).all(axis=1))


def _bytes(rows: np.ndarray) -> np.ndarray:
    """Values 0 .. 1 of bool or reals, or integers 0 .. 255, as uint8."""
    return rows.astype(np.uint8) if rows.dtype.kind in "iu" else np.rint(rows * 255.0).astype(np.uint8)


def refit(image: np.ndarray, framing: Framing) -> np.ndarray:
    """An image (H, W, C) as the framing makes it."""
    height, width, channels = image.shape
    wanted = (framing.height or height, framing.width or width, framing.channels or channels)
    if image.shape == wanted:
        return image
    return _framed(Image.fromarray(image[..., 0] if channels == 1 else image), framing)


# ------------------------------------------------------------------------------------- two collections


def digits(framing: Framing = AS_IT_IS) -> Iterator[Picture]:
    """The 1,797 handwritten digits, 8 x 8 in 17 levels, that ship with scikit-learn (UCI, Alpaydin & Kaynak
    1998); the label is the digit. Raises SeqvaeError where scikit-learn is not installed."""
    spec = importlib.util.find_spec("sklearn")
    folder = Path(spec.origin).parent if spec and spec.origin else Path()
    path = folder / "datasets/data/digits.csv.gz"
    if not path.is_file():
        asked = "run pip install scikit-learn"
        raise SeqvaeError(f"the digits ship with scikit-learn, which is not installed: {asked}")
    with gzip.open(path, "rt") as file:
        table = np.loadtxt(file, np.int64, delimiter=",")  # (N, 8 * 8 + 1)
    for number, row in enumerate(table):
        yield Picture(str(number), refit(values(17)[row[:-1]].reshape(8, 8, 1), framing), str(row[-1]))


def avatars(
    count: int, seed: int, size: int = LARGEST, glasses: bool | None = None
) -> Iterator[tuple[np.ndarray, dict[str, str]]]:
    """Drawn faces: (image (size, size, 3), the names of its parts), each a function of the seed and its
    number alone, in one version of python-avatars and resvg-py.

    About half of them wear glasses, or all or none as asked; but for these a face is the same either way. The
    part "glasses" is "none" or their sort. Raises SeqvaeError where the two packages are not installed.
    """
    if not all(importlib.util.find_spec(name) for name in ("python_avatars", "resvg_py")):
        asked = "run pip install python-avatars resvg-py"
        raise SeqvaeError(f"avatars are drawn by python-avatars and resvg-py, not installed: {asked}")
    for number in range(count):
        drawn = random.Random(f"{seed}/{number}")
        options = {name: of.split() for name, of in PARTS.items()} | {"glasses": list(GLASSES)}
        # random() alone is promised to stay what it is in other Pythons.
        parts = {name: of[int(drawn.random() * len(of))] for name, of in options.items()}
        wears = drawn.random() < 0.5 if glasses is None else glasses
        parts["glasses"] = parts["glasses"] if wears else "NONE"
        yield _drawn(parts, size), {name: part.lower() for name, part in parts.items()}


def _drawn(parts: dict[str, str], size: int) -> np.ndarray:
    import python_avatars as drawing
    import resvg_py

    svg = drawing.Avatar(
        top=drawing.HairType[parts["hair"]],
        eyebrows=drawing.EyebrowType[parts["eyebrows"]],
        eyes=drawing.EyeType[parts["eyes"]],
        mouth=drawing.MouthType[parts["mouth"]],
        facial_hair=drawing.FacialHairType[parts["facial_hair"]],
        skin_color=drawing.SkinColor[parts["skin"]],
        hair_color=drawing.HairColor[parts["hair_colour"]],
        facial_hair_color=drawing.HairColor[parts["hair_colour"]],
        accessory=drawing.AccessoryType[parts["glasses"]],
        clothing=drawing.ClothingType[parts["clothing"]],
        clothing_color=drawing.ClothingColor[parts["clothing_colour"]],
    ).render()
    svg = re.sub('width="[^"]*" height="[^"]*" viewBox="[^"]*"', f'viewBox="{HEAD}"', svg, count=1)
    png = resvg_py.svg_to_bytes(svg, width=size, height=size, background="white", skip_system_fonts=True)
    with Image.open(io.BytesIO(bytes(png))) as image:
        return np.asarray(image.convert("RGB"))
