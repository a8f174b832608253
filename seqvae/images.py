"""Images: a trained model that samples, reconstructs, varies, interpolates and shifts pictures.

Conventions: a picture is an array (H, W, C) of uint8 of the model's own size; N pictures are z (N, Z). What
is decoded is the likelihood's mean, so nothing is drawn but z.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from seqvae import pictures
from seqvae.checkpoint import Saved
from seqvae.codecs import PixelsCodec
from seqvae.decoding import GREEDY
from seqvae.engine import NOTHING, Places, Single, require
from seqvae.song import SeqvaeError

Source = np.ndarray | Tensor  # a picture, or its z (Z,)


class Images(Single):
    """A model of pictures with everything it can do; `device` is where its encoder runs."""

    codec: PixelsCodec
    thing = "picture"

    def __init__(self, saved: Saved, device: str = "cpu") -> None:
        if not isinstance(saved.codec, PixelsCodec):
            raise SeqvaeError(f"this is a model of {saved.codec.kind}, not of images")
        super().__init__(saved, device)

    def encode(self, pictures: Sequence[Source]) -> Tensor:
        """Posterior means (N, Z). Raises `SeqvaeError` for a picture of another size or other colours."""
        return super().encode(pictures)

    def decode(self, z: Tensor) -> list[np.ndarray]:
        """z (N, Z) -> N pictures."""
        return self.decoded(z, NOTHING.repeat(len(z), 0), GREEDY, 0)

    def read(self, path: str | Path) -> np.ndarray:
        """The picture in a file, brought to the model's size and colours."""
        return pictures.load(path, self.codec.framing)

    def sample(self, n: int = 1, seed: int = 0, prior: str = "fitted") -> list[np.ndarray]:
        """n new pictures, from the mixture of exemplars if the model has one, else from its prior."""
        return self.decode(self._new(n, seed, prior))

    def reconstruct(self, pictures: Sequence[Source]) -> list[np.ndarray]:
        """What the model keeps of each picture: decoded from its posterior mean."""
        return self.decode(self.encode(pictures))

    def interpolate(self, a: Source, b: Source, steps: int = 9) -> list[np.ndarray]:
        """`steps` pictures from a to b: step s is decoded at slerp(a's, b's, s / (steps - 1))."""
        return self.decode(self._path(a, b, steps))

    def vary(self, picture: Source, amount: float = 0.3, n: int = 8, seed: int = 0) -> list[np.ndarray]:
        """n variations: z goes the share `amount` of the way (slerp) from the picture's to a new one's."""
        return self.decode(self._varied(picture, amount, n, seed))

    def walk(self, side: int = 15, reach: float = 2.2) -> list[list[np.ndarray]]:
        """side rows of pictures over the plane from -reach to reach, the second axis upwards.

        Raises `SeqvaeError` unless the latent has two dimensions.
        """
        size = self.saved.model.size.latent
        require(side >= 1, f"a walk is at least one picture wide, not {side}")
        require(size == 2, f"a walk is over a latent of 2 dimensions, and this model's has {size}")
        line = torch.linspace(-reach, reach, side)
        z = torch.cartesian_prod(line.flip(0), line).flip(1)
        every = self.decode(z)
        return [every[at : at + side] for at in range(0, side * side, side)]

    def labelled(self, path: Path, label: str | None = None) -> Iterator[tuple[np.ndarray, str | None]]:
        """The pictures below a folder, labelled by the folder each is in, or those of an .npz file.

        Raises `SeqvaeError` where a label is asked for by name.
        """
        require(label is None, f"pictures have labels, but no column {label} of them; leave it out")
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in found:
            if file == path or file.suffix.lower() in pictures.SUFFIXES:
                for picture in pictures.read(file, self.codec.framing):
                    yield picture.image, file.parent.name if path.is_dir() else picture.label

    def shift(self, picture: Source, places: Sequence[Places]) -> list[np.ndarray]:
        """The picture brought to each of the places of attributes.

        1 is where things of an attribute's second kind are on average, -1 those of its first. What is as far
        already, or further, stays; at 0 everything does. A `Place` that is relative moves the picture
        that far, in standard deviations of the corpus, from where it is.
        Raises `SeqvaeError` for an attribute of another size than this model's.
        """
        return self.decode(self._brought(picture, places))

    def blend(self, corners: Sequence[Source], places: Sequence[tuple[float, float]]) -> list[np.ndarray]:
        """What lies at each place (x, y) of a square of four, two above and two below."""
        return self.decode(self._within(corners, places))
