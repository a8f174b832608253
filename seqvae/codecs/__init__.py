"""Codecs by name: a reversible spelling for each kind of thing."""

from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from typing import Any

from seqvae.codecs.base import Codec, Encoded, Stream
from seqvae.codecs.grid import GridCodec
from seqvae.codecs.notes import NotesCodec
from seqvae.codecs.pixels import PixelsCodec
from seqvae.codecs.text import PiecesCodec, Spelling, TextCodec, WordsCodec
from seqvae.codecs.voices import VoicesCodec
from seqvae.song import SeqvaeError

CODECS: dict[str, Any] = {
    "notes": NotesCodec,
    "melody": GridCodec,
    "voices": VoicesCodec,
    "words": WordsCodec,
    "pieces": PiecesCodec,
    "pixels": PixelsCodec,
}


def build_codec(config: Mapping[str, Any], state: bytes = b"") -> Codec[Any]:
    """The codec that ``codec.config()`` describes, with the ``codec.state`` it names by its hash.

    Raises `SeqvaeError` where there is no such codec, or the state is another.
    """
    settings = dict(config)
    name, vocabulary = settings.pop("name", None), settings.pop("vocabulary", None)
    if not isinstance(name, str) or name not in CODECS:
        raise SeqvaeError(f"unknown codec {name!r}; known: {', '.join(CODECS)}")
    if vocabulary is not None:
        if vocabulary != sha256(state).hexdigest():
            raise SeqvaeError("the vocabulary is not the one its model was trained with; fetch it again")
        settings["state"] = state
    with suppress(TypeError):
        return CODECS[name](**settings)
    raise SeqvaeError(f"the codec {name!r} cannot have the settings {settings.keys() - {'state'}}")


__all__ = ["CODECS", "Codec", "Encoded", "GridCodec", "NotesCodec", "PiecesCodec", "PixelsCodec"]
__all__ += ["Spelling", "Stream", "TextCodec", "VoicesCodec", "WordsCodec", "build_codec"]
