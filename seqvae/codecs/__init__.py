"""Codecs by name: a reversible spelling for each kind of thing."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from seqvae.codecs.base import Codec, Encoded, Stream
from seqvae.codecs.notes import NotesCodec
from seqvae.song import SeqvaeError

CODECS = {"notes": NotesCodec}


def build_codec(config: Mapping[str, Any]) -> NotesCodec:
    """The codec that ``codec.config()`` describes. Raises `SeqvaeError` where there is no such codec."""
    name, settings = config.get("name"), {key: value for key, value in config.items() if key != "name"}
    if not isinstance(name, str) or name not in CODECS:
        raise SeqvaeError(f"unknown codec {name!r}; known: {', '.join(CODECS)}")
    with suppress(TypeError):
        return CODECS[name](**settings)
    raise SeqvaeError(f"the codec {name!r} cannot have the settings {settings}")


__all__ = ["CODECS", "Codec", "Encoded", "NotesCodec", "Stream", "build_codec"]
