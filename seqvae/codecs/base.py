"""What every codec offers: a reversible spelling of one kind of thing as rows of integers.

Conventions: an encoded thing is ``steps`` (T, K), one column a `Stream`, and a ``condition`` (C,) that the
decoder is told. The last symbol of stream 0 is END; the last row of ``steps`` is the END row, whose other
columns are 0 and carry no likelihood. Things of fixed length, images, have neither. Nothing here knows torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol, TypeVar

import numpy as np

Raw = TypeVar("Raw")


class Stream(NamedTuple):
    """One column of a step: symbols 0 .. size-1. ``networks.py`` maps ``kind`` to an embedding and a head.

    Kinds: ``increasing`` (a symbol is greater than the one before it in the sequence), ``rising`` (at least
    equal to it), ``ordinal`` (neighbouring symbols mean neighbouring values), ``category`` (no order),
    ``word`` (of a vocabulary).
    """

    name: str
    kind: str
    size: int

    @property
    def climb(self) -> int | None:
        """How much greater than the symbol before it one must be at least; None: it may be any."""
        return {"increasing": 1, "rising": 0}.get(self.kind)


class Encoded(NamedTuple):
    steps: np.ndarray  # (T, K) int16, END row last where there is one
    condition: np.ndarray  # (C,) int16


class Codec(Protocol[Raw]):
    """Laws: ``decode(*encode(x)) == snap(x)``; ``snap(snap(x)) == snap(x)``; ``decode`` never raises."""

    name: str
    kind: str  # of thing: melody, text, image
    state: bytes  # what was learnt from a corpus, a vocabulary; or nothing
    longest: int  # steps of a thing at most, END included, or exactly where there is no END
    streams: tuple[Stream, ...]
    conditions: tuple[Stream, ...]
    ruling: int  # so many first conditions have a z of their own (a metre); under the others any z goes

    def config(self) -> dict[str, int | str]:
        """What `build_codec` makes this codec of again, with the state."""
        ...

    def pieces(self, source: object) -> Iterator[tuple[int, Raw]]:
        """Cut what a file holds into the things this codec spells: (position, thing)."""
        ...

    def snap(self, raw: Raw) -> Raw: ...

    def encode(self, raw: Raw) -> Encoded: ...

    def decode(self, steps: np.ndarray, condition: np.ndarray) -> Raw: ...

    def augment(
        self, steps: np.ndarray, lengths: np.ndarray, conditions: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """A batch (B, T, K) told conditions (B, C), both changed in ways that keep it the same kind of thing
        (a melody: transposed)."""
        ...

    def fingerprint(self, steps: np.ndarray, condition: np.ndarray) -> bytes:
        """Equal for two things that are the same but for ``augment`` (a melody in another key)."""
        ...
