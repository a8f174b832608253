"""Codecs by name: a reversible spelling for each kind of thing."""

from seqvae.codecs.base import Codec, Encoded, Stream
from seqvae.codecs.notes import NotesCodec
from seqvae.song import SeqvaeError

CODECS = {"notes": NotesCodec}


def build_codec(config: dict[str, int | str]) -> NotesCodec:
    """The codec that ``codec.config()`` describes. Raises `SeqvaeError` for an unknown name."""
    arguments = dict(config)
    name = arguments.pop("name", None)
    if name not in CODECS:
        raise SeqvaeError(f"unknown codec {name!r}; known: {', '.join(CODECS)}")
    return CODECS[str(name)](*(int(arguments[key]) for key in ("bars", "bar_ticks")))


__all__ = ["CODECS", "Codec", "Encoded", "NotesCodec", "Stream", "build_codec"]
