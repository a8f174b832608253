"""The one public face: a model by its name, with everything that can be done with its kind of thing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seqvae.checkpoint import load_model
from seqvae.engine import find_model
from seqvae.images import Images
from seqvae.melodies import Melodies
from seqvae.sentences import Sentences

KINDS: dict[str, Any] = {"melody": Melodies, "text": Sentences, "image": Images}


class Pipeline:
    """`from_pretrained` gives `Melodies`, `Sentences` or `Images`: the model knows its kind."""

    @staticmethod
    def from_pretrained(name: str | Path, device: str = "cpu") -> Any:
        """An embedded model by name, or the model in a folder or in a training's run folder.

        Raises `SeqvaeError` where there is none, or it is damaged.
        """
        saved = load_model(find_model(name))
        return KINDS[saved.codec.kind](saved, device)
