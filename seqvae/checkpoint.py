"""Models and training states on disk: safetensors and JSON, nothing pickled.

A model folder holds model.safetensors (weights, the fitted prior under ``prior.*``, a codec's vocabulary as
``codec.state``) and config.json (codec, sizes, the recipe it was trained with, its figures, and the weights'
SHA-256).
"""

from __future__ import annotations

import hashlib
import json
import os
import textwrap
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from seqvae.codecs import Codec, PixelsCodec, build_codec
from seqvae.disk import write_atomic
from seqvae.image import ImageSize, ImageVAE, Model
from seqvae.latent import Attribute, Mixture, Succession
from seqvae.model import HierarchicalVAE, SequenceVAE, Size
from seqvae.song import SeqvaeError

FORMAT = 1
STATE = "codec.state"  # among the tensors
MOVED, TURNED = {"means", "axis"}, {"factors", "maps"}  # an attribute's tensors; a measure has no second two
AHEAD = "config.json.next"  # the config of weights that are being written


@dataclass
class Saved:
    """What a model folder holds."""

    model: Model
    codec: Codec
    config: dict[str, Any] = field(default_factory=dict)
    mixture: Mixture | None = None  # sampled from instead of N(0, I) where there is one
    succession: Succession | None = None

    def check_codec(self, codec: Codec) -> None:
        """Raises `SeqvaeError` where a corpus is spelt otherwise than this model spells."""
        if codec.config() != self.codec.config():
            ours, theirs = self.codec.config(), codec.config()
            raise SeqvaeError(f"the model spells {ours} and the corpus {theirs}; prepare the corpus to match")


def store(path: Path, data: bytes) -> None:
    """`write_atomic` into a folder made where there is none. Raises `SeqvaeError` where it cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)
    except OSError as fault:
        raise SeqvaeError(f"{path} cannot be written: {fault.strerror}") from None


def build_model(codec: Codec, size: Size | ImageSize) -> Model:
    """Raises `SeqvaeError` where the size is of another kind of network than the codec's things need.

    Or has not one embedding for each of the codec's streams; or where the head of words, which are scored by
    their embedding, has another width.
    """
    if isinstance(codec, PixelsCodec) != isinstance(size, ImageSize):
        raise SeqvaeError(f"this recipe is not for {codec.kind}s; choose another")
    if isinstance(codec, PixelsCodec) and isinstance(size, ImageSize):
        try:
            return ImageVAE((codec.channels, codec.height, codec.width), codec.levels, size)
        except ValueError as fault:
            raise SeqvaeError(str(fault)) from None
    assert isinstance(size, Size)
    if len(size.embedding) != len(codec.streams):
        names = ", ".join(stream.name for stream in codec.streams)
        raise SeqvaeError(f"embedding needs {len(codec.streams)} widths ({names}), not {len(size.embedding)}")
    tied = [
        width for width, stream in zip(size.embedding, codec.streams, strict=True) if stream.kind == "word"
    ]
    if any(width != size.head for width in tied):
        raise SeqvaeError(f"head must be as wide as the embedding of words, {tied[0]}, not {size.head}")
    sections = getattr(codec, "sections", 1)
    if (sections > 1) != (size.conductor > 0):
        raise SeqvaeError("a corpus in sections, and no other, takes a recipe with a conductor: melody-16")
    if size.conductor:
        return HierarchicalVAE(codec.streams, codec.conditions, size, sections)
    return SequenceVAE(codec.streams, codec.conditions, size)


def save_model(folder: Path, saved: Saved, *, half: bool = False) -> None:
    """Writes the folder; half stores tensors in float16. At every moment it is the old model or the new one.

    The config names the weights' hash, so it goes ahead under another name until the weights are there.
    """
    tensors = dict(saved.model.state_dict())
    for name, fitted in (("mixture", saved.mixture), ("succession", saved.succession)):
        if fitted is not None:
            tensors |= {f"prior.{name}.{key}": value for key, value in fitted._asdict().items()}
    kind = torch.float16 if half else torch.float32
    stored = {name: value.detach().to("cpu", kind).contiguous() for name, value in tensors.items()}
    if saved.codec.state:
        stored[STATE] = torch.frombuffer(bytearray(saved.codec.state), dtype=torch.uint8)
    data = save(stored)
    own = {
        "format": FORMAT,
        "codec": saved.codec.config(),
        "size": asdict(saved.model.size),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    config = own | {key: value for key, value in saved.config.items() if key not in own}
    store(folder / AHEAD, (json.dumps(config, indent=1) + "\n").encode())
    store(folder / "model.safetensors", data)
    os.replace(folder / AHEAD, folder / "config.json")


def load_model(folder: Path) -> Saved:
    """Raises `SeqvaeError` for a folder that is no model, or one truncated, tampered with or holding NaN."""
    config = read_config(folder)
    try:
        data = (folder / "model.safetensors").read_bytes()
    except OSError as fault:
        raise SeqvaeError(f"the model {folder} has no readable model.safetensors: {fault.strerror}") from None
    found = hashlib.sha256(data).hexdigest()
    if found != config.get("sha256") and (folder / AHEAD).exists():  # a save was killed between its files
        config = read_config(folder, AHEAD)
    if found != config.get("sha256"):
        raise SeqvaeError(f"{folder}/model.safetensors is not what its config.json describes; fetch it again")
    tensors = parse_tensors(data, folder / "model.safetensors")
    if not all(bool(value.isfinite().all()) for value in tensors.values()):
        raise SeqvaeError(f"the model {folder} holds weights that are not finite numbers; train it again")
    try:
        state = tensors.pop(STATE, torch.empty(0, dtype=torch.uint8))
        codec = build_codec(config["codec"], state.numpy().tobytes())
        kind, first = (ImageSize, "widths") if isinstance(codec, PixelsCodec) else (Size, "embedding")
        size = kind(**{**config["size"], first: tuple(config["size"][first])})
        fitted = {name: tensors.pop(name).float() for name in list(tensors) if name.startswith("prior.")}
        if size.widest > max(max(value.shape, default=0) for value in tensors.values()):
            raise ValueError("its sizes are wider than its weights")  # before memory is asked for them
        with torch.random.fork_rng(devices=[]):  # initialisation draws numbers, not from the caller's
            model = build_model(codec, size)
        # Copied to memory aligned as torch does it, on which a matrix product's last bits may depend.
        model.load_state_dict({k: v.to(torch.float32, copy=True) for k, v in tensors.items()}, assign=True)
        model.eval().requires_grad_(False)
        mixture, succession = _fitted(Mixture, "mixture", fitted), _fitted(Succession, "succession", fitted)
        return Saved(model, codec, config, mixture, succession)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as fault:
        why = f"no {fault}" if isinstance(fault, KeyError) else textwrap.shorten(str(fault), 200)
        raise SeqvaeError(f"the config.json of {folder} does not fit its weights ({why})") from None


def _fitted(kind: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    found = {key: tensors.get(f"prior.{name}.{key}") for key in kind._fields}
    return kind(**found) if all(value is not None for value in found.values()) else None


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """A model's config.json. Raises `SeqvaeError` where there is none or it is of another format."""
    try:
        config = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SeqvaeError(f"{folder} is no model: it has no config.json") from None
    except (OSError, ValueError, RecursionError):
        raise SeqvaeError(f"the config.json of {folder} cannot be read") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise SeqvaeError(f"the config.json of {folder} is of no model this version reads (format {FORMAT})")
    return config


def parse_tensors(data: bytes, path: Path) -> dict[str, Tensor]:
    """Raises `SeqvaeError` for bytes that are no safetensors file."""
    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError) as fault:
        raise SeqvaeError(f"{path} is damaged: {textwrap.shorten(str(fault), 200)}") from None


def metadata(data: bytes) -> dict[str, str]:
    """What stands in the header of a safetensors file beside its tensors."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return dict(header.get("__metadata__", {}))


def save_state(
    path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, progress: dict[str, Any]
) -> None:
    """A training's whole state in one file: weights, Adam's moments, and ``progress`` as JSON."""
    tensors = {f"weights.{name}": value for name, value in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        tensors |= {f"optimizer.{name}.{key}": value for key, value in optimizer.state[parameter].items()}
    data = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    store(path, save(data, {"progress": json.dumps(progress)}))


def load_state(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Restores in place what `save_state` wrote; returns the progress. `SeqvaeError` for a damaged file."""
    try:
        data = path.read_bytes()
    except OSError as fault:
        raise SeqvaeError(f"{path} cannot be read: {fault.strerror}") from None
    tensors = parse_tensors(data, path)
    told = metadata(data)
    try:
        own = "weights."
        model.load_state_dict({k.removeprefix(own): v for k, v in tensors.items() if k.startswith(own)})
        state: dict[torch.nn.Parameter, dict[str, Tensor]] = {}
        for name, parameter in model.named_parameters():
            keys = [key for key in tensors if key.rpartition(".")[0] == f"optimizer.{name}"]
            if keys:
                state[parameter] = {key.rpartition(".")[2]: tensors[key] for key in keys}
        for parameter, moments in state.items():
            optimizer.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device) for key, value in moments.items()
            }
        return dict(json.loads(told["progress"]))
    except (KeyError, RuntimeError, ValueError) as fault:
        raise SeqvaeError(f"{path} does not fit this recipe: {textwrap.shorten(str(fault), 200)}") from None


def save_attribute(path: Path, attribute: Attribute, saved: Saved, about: dict[str, Any]) -> None:
    """What leads from one kind of things to another, with the hash of the model it was learnt with."""
    told = about | {"sha256": saved.config["sha256"]}
    if attribute.measure:
        told |= {"measure": attribute.measure, "deviations": dict(attribute.deviations)}
    tensors = {name: value for name, value in attribute._asdict().items() if isinstance(value, Tensor)}
    store(path, save(tensors, {"about": json.dumps(told)}))


def attribute_name(path: Path) -> str:
    """What the attribute in a file was called when it was learnt, if it was called something."""
    about = json.loads(metadata(path.read_bytes()).get("about", "{}"))
    return str(about.get("name", ""))


def load_attribute(path: Path, saved: Saved) -> Attribute:
    """Raises `SeqvaeError` for another file, or an attribute of another model."""
    try:
        data = path.read_bytes()
    except OSError as fault:
        raise SeqvaeError(f"the attribute {path} cannot be read: {fault.strerror}") from None
    tensors, about = parse_tensors(data, path), metadata(data).get("about")
    if {*tensors} not in (MOVED, MOVED | TURNED) or about is None:
        raise SeqvaeError(f"{path} is no attribute; seqvae attributes learn makes one")
    told = json.loads(about)
    if told["sha256"] != saved.config["sha256"]:
        raise SeqvaeError(f"the attribute {path} was learnt with another model; learn it again with this one")
    return Attribute(**tensors, measure=told.get("measure", ""), deviations=told.get("deviations", {}))
