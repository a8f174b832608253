"""The ``pixels`` codec: an image of fixed size, one step a pixel in raster order, one stream a channel.

A symbol is a level of its channel, 0 .. levels - 1, which stand for evenly spread values 0 .. 255: of two
levels for 0 and 255. There is no END row, as every image has ``longest`` steps, and there are no conditions.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from seqvae.codecs.base import Encoded, Stream
from seqvae.pictures import LARGEST, SMALLEST, Frame, Framing, Picture, values
from seqvae.song import SeqvaeError

CHANNELS = {1: ("grey",), 3: ("red", "green", "blue")}


class PixelsCodec:
    """Spells an image (H, W, C) uint8, its values rounded to the nearest level.

    Raises `SeqvaeError` for sides, channels and levels that no image has.
    """

    name, kind, state, ruling = "pixels", "image", b"", 0

    def __init__(self, height: int, width: int, channels: int, levels: int = 256) -> None:
        sides = SMALLEST <= min(height, width) <= max(height, width) <= LARGEST
        if not sides or channels not in CHANNELS or not 2 <= levels <= 256:
            made = f"{width} x {height} pixels of {channels} channels in {levels} levels"
            raise SeqvaeError(f"no pixels codec spells images of {made}")
        self.height, self.width, self.channels, self.levels = height, width, channels, levels
        self.frame = Frame(height, width, channels, levels)
        self.framing = Framing(height, width, channels)  # that images have to be spelt
        self.longest = height * width
        self.values = values(levels)  # (levels,) uint8
        self.nearest = ((np.arange(256) * 2 * (levels - 1) + 255) // 510).astype(np.int16)  # level of a value
        self.streams: tuple[Stream, ...] = tuple(
            Stream(name, "ordinal", levels) for name in CHANNELS[channels]
        )
        self.conditions: tuple[Stream, ...] = ()

    def config(self) -> dict[str, int | str]:
        return {"name": self.name, **self.frame._asdict()}

    def pieces(self, source: object) -> Iterator[tuple[int, np.ndarray]]:
        """The image of a `Picture`, or the image itself, at place 0. Raises `SeqvaeError` for any other."""
        image = source.image if isinstance(source, Picture) else source
        if not isinstance(image, np.ndarray):
            raise SeqvaeError(f"the pixels codec spells images, not {type(source).__name__}")
        self._check(image)
        yield 0, image

    def _check(self, image: np.ndarray) -> None:
        if image.shape != self.frame[:3] or image.dtype != np.uint8:
            raise SeqvaeError(f"this model spells images of {self.frame}, not {image.dtype} {image.shape}")

    def moved(self, raw: np.ndarray) -> int:
        """How many pixels rounding to levels changes."""
        return int((self.snap(raw) != raw).any(2).sum())

    def snap(self, raw: np.ndarray) -> np.ndarray:
        return self.values[self.nearest[raw]]

    def encode(self, raw: np.ndarray) -> Encoded:
        """Raises `SeqvaeError` for an image of another frame."""
        self._check(raw)
        return Encoded(self.nearest[raw].reshape(-1, self.channels), np.zeros(0, np.int16))

    def decode(self, steps: np.ndarray, condition: np.ndarray) -> np.ndarray:
        """Any integers become an image: pixels too many go, those that lack are black, and what is no level
        becomes the nearest."""
        found = np.asarray(steps).reshape(-1, self.channels)[: self.longest]
        symbols = np.zeros((self.longest, self.channels), np.int64)
        symbols[: len(found)] = np.clip(found, 0, self.levels - 1)
        return self.values[symbols].reshape(self.frame[:3])

    def augment(
        self, steps: np.ndarray, lengths: np.ndarray, conditions: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        return steps, conditions

    def fingerprint(self, steps: np.ndarray, condition: np.ndarray) -> bytes:
        return np.asarray(steps, np.uint8).tobytes()
