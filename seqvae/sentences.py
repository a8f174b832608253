"""Sentences: a trained model that samples, reconstructs, varies, interpolates and shifts them.

Conventions: a sentence has one z; N sentences are z (N, Z). How symbols are chosen is a `Sampling` or a
`Beam`. What a model changes in a text it is given, `notices` says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

from seqvae import texts
from seqvae.checkpoint import Saved
from seqvae.codecs import TextCodec, WordsCodec
from seqvae.decoding import GREEDY, Beam, Sampling
from seqvae.engine import NOTHING, Places, Single, require
from seqvae.song import SeqvaeError

How = Sampling | Beam
Source = str | Tensor  # a text, or its z (Z,)
DRAWN = Sampling()


class Sentences(Single):
    """A model of text with everything it can do; `device` is where its encoder runs."""

    codec: TextCodec
    thing = "sentence"

    def __init__(self, saved: Saved, device: str = "cpu") -> None:
        if not isinstance(saved.codec, TextCodec):
            raise SeqvaeError(f"this is a model of {saved.codec.kind}, not of text")
        super().__init__(saved, device)

    def encode(self, texts: Sequence[Source]) -> Tensor:
        """Posterior means (N, Z). Raises `SeqvaeError` for a text without a word."""
        for text in texts:
            readable = isinstance(text, Tensor) or bool(self.codec.symbols(text))
            require(readable, f"there is nothing to read in {text[:40]!r}")
        return super().encode(texts)

    def decode(self, z: Tensor, how: How = GREEDY, seed: int = 0) -> list[str]:
        """z (N, Z) -> N texts."""
        return self.decoded(z, NOTHING.repeat(len(z), 0), how, seed)

    def notices(self, texts: Sequence[str]) -> tuple[str, ...]:
        """What spelling changes in the texts, each in a sentence: what is cut, and words it does not know."""
        found = []
        for text in texts:
            shown = text if len(text) <= 40 else f"{text[:37]}..."
            if self.codec.cut(text):
                found.append(f'"{shown}" is longer than {self.codec.longest - 1} steps, and was cut')
            if isinstance(self.codec, WordsCodec):
                unknown = dict.fromkeys(word for word in text.split() if word not in self.codec.index)
                if unknown:
                    found.append(f"the model does not know {', '.join(unknown)}")
        return tuple(dict.fromkeys(found))

    def sample(self, n: int = 1, how: How = DRAWN, seed: int = 0, prior: str = "fitted") -> list[str]:
        """n new sentences, from the mixture of exemplars if the model has one, else from N(0, I)."""
        return self.decode(self._new(n, seed, prior), how, seed)

    def reconstruct(self, texts: Sequence[Source], how: How = GREEDY, seed: int = 0) -> list[str]:
        """What the model keeps of each text: decoded from its posterior mean."""
        return self.decode(self.encode(texts), how, seed)

    def interpolate(
        self, a: Source, b: Source, steps: int = 7, how: How = GREEDY, seed: int = 0
    ) -> list[str]:
        """`steps` sentences from a to b: step s is decoded at slerp(a's, b's, s / (steps - 1)).

        The ends are what reconstruct() gives of a and b.
        """
        return self.decode(self._path(a, b, steps), how, seed)

    def vary(
        self, text: Source, amount: float = 0.3, n: int = 8, how: How = GREEDY, seed: int = 0
    ) -> list[str]:
        """n variations: z goes the share `amount` of the way (slerp) from the text's to that of a new one.

        At amount 0 all are the reconstruction, at 1 nothing is left of the text.
        """
        return self.decode(self._varied(text, amount, n, seed), how, seed)

    def labelled(self, path: Path, label: str | None = None) -> Iterator[tuple[str, str | None]]:
        """The texts of a file in which there is something to read, and their labels."""
        for line in texts.read(path, label=label):
            if isinstance(line.text, str) and self.codec.symbols(line.text):
                yield line.text, line.label

    def shift(self, text: Source, places: Sequence[Places], how: How = GREEDY, seed: int = 0) -> list[str]:
        """The text brought to each of the places of attributes.

        1 is where things of an attribute's second kind are on average, -1 those of its first. What is as far
        already, or further, stays; at 0 everything does. A `Place` that is relative moves the text
        that far, in standard deviations of the corpus, from where it is.
        Raises `SeqvaeError` for an attribute of another size than this model's.
        """
        return self.decode(self._brought(text, places), how, seed)

    def blend(
        self,
        corners: Sequence[Source],
        places: Sequence[tuple[float, float]],
        how: How = GREEDY,
        seed: int = 0,
    ) -> list[str]:
        """What lies at each place (x, y) of a square of four, two above and two below."""
        return self.decode(self._within(corners, places), how, seed)
