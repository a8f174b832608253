"""What is saved comes back to the bit, and what was damaged, tampered with or of another kind is refused."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from seqvae import checkpoint
from seqvae.checkpoint import (
    Saved,
    build_model,
    load_attribute,
    load_model,
    load_state,
    read_config,
    save_attribute,
    save_model,
    save_state,
    store,
)
from seqvae.codecs import NotesCodec
from seqvae.latent import Mixture, Succession, fit_attribute, fit_measures
from seqvae.model import HierarchicalVAE, SequenceVAE, Size
from seqvae.objective import Elbo, Posterior
from seqvae.song import SeqvaeError
from tests.conftest import LONGER

Batch = tuple[Tensor, Tensor, Tensor]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def saved(codec: NotesCodec, model: SequenceVAE) -> Saved:
    z = model.size.latent
    mixture = Mixture(noise(5, z), noise(5, z, seed=1).exp(), torch.tensor([[4.0, 2.0]]).expand(5, -1))
    succession = Succession(noise(z, z), noise(z), noise(z, z).tril(), noise(z), noise(z, z).tril())
    return Saved(model, codec, {"recipe": {"steps": 7}, "valid": {"nll": 1.5}}, mixture, succession)


@pytest.fixture
def folder(saved: Saved, tmp_path: Path) -> Path:
    save_model(tmp_path / "model", saved)
    return tmp_path / "model"


def refusal(load: Callable[[], object], *words: str) -> str:
    """The message, which is one sentence on one line and holds the words."""
    with pytest.raises(SeqvaeError) as caught:
        load()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    assert all(word in message for word in words), message
    return message


# ------------------------------------------------------------------------------------------ models


def test_a_model_comes_back_to_the_bit(saved: Saved, folder: Path, batch: Batch) -> None:
    found = load_model(folder)
    assert found.codec.config() == saved.codec.config() and found.model.size == saved.model.size
    assert found.config["recipe"] == {"steps": 7} and found.config["valid"] == {"nll": 1.5}
    weights = saved.model.state_dict()
    assert found.model.state_dict().keys() == weights.keys()
    for name, value in found.model.state_dict().items():
        assert torch.equal(value, weights[name]) and value.dtype == torch.float32
    for ours, theirs in ((saved.mixture, found.mixture), (saved.succession, found.succession)):
        assert ours is not None and theirs is not None
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert not found.model.training and not any(p.requires_grad for p in found.model.parameters())
    z = noise(len(batch[0]), saved.model.size.latent)
    with torch.no_grad():
        assert torch.equal(found.model.nll(z, *batch), saved.model.nll(z, *batch))


def test_half_precision_halves_the_file_and_rounds_once(saved: Saved, folder: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "half", saved, half=True)
    sizes = [(place / "model.safetensors").stat().st_size for place in (tmp_path / "half", folder)]
    assert sizes[0] < 0.6 * sizes[1]
    found = load_model(tmp_path / "half")
    for name, value in found.model.state_dict().items():
        assert torch.equal(value, saved.model.state_dict()[name].half().float())
    save_model(tmp_path / "again", found, half=True)  # nothing more is lost the second time
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "half" / name).read_bytes()


@pytest.mark.parametrize("conditions", [torch.tensor([[6.0, 3.0], [2048.0, 0.0]]), torch.zeros(2, 0)])
def test_a_mixture_in_half_precision_is_rounded_and_no_more(
    saved: Saved, tmp_path: Path, conditions: Tensor
) -> None:
    """A window's metre to the bit, means and scales to 11 bits; also where there are no conditions."""
    saved.mixture = Mixture(noise(2, 8), (noise(2, 8, seed=1) - 4).exp(), conditions)
    save_model(tmp_path, saved, half=True)
    found = load_model(tmp_path).mixture
    assert found is not None and all(part.dtype == torch.float32 for part in found)
    assert torch.equal(found.conditions, conditions)
    for part, whole in ((found.means, saved.mixture.means), (found.scales, saved.mixture.scales)):
        torch.testing.assert_close(part, whole, rtol=2**-11, atol=1e-7)  # which subnormals may miss


def test_a_prior_of_other_fields_is_left_out_for_good(saved: Saved, folder: Path, tmp_path: Path) -> None:
    """As models of earlier versions hold: weights and factors, no scales."""
    reweigh(folder, lambda tensors: tensors.pop("prior.mixture.scales"))
    reweigh(folder, lambda tensors: tensors.update({"prior.mixture.weights": torch.ones(5)}))
    found = load_model(folder)
    assert found.mixture is None and found.succession is not None
    save_model(tmp_path / "again", found)
    held = load((tmp_path / "again" / "model.safetensors").read_bytes())
    assert {name for name in held if name.startswith("prior.")} == {
        f"prior.succession.{key}" for key in Succession._fields
    }


def test_a_model_without_fitted_prior_has_none(codec: NotesCodec, model: SequenceVAE, tmp_path: Path) -> None:
    save_model(tmp_path, Saved(model, codec))
    found = load_model(tmp_path)
    assert found.mixture is None and found.succession is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_figures_cannot_pass_for_what_the_file_says_of_itself(saved: Saved, tmp_path: Path) -> None:
    saved.config |= {"format": 99, "sha256": "0", "codec": {}, "size": {}}
    save_model(tmp_path, saved)
    assert load_model(tmp_path).config["format"] == checkpoint.FORMAT


def test_a_model_saved_over_another_replaces_it(saved: Saved, folder: Path) -> None:
    with torch.no_grad():
        next(saved.model.parameters()).add_(1)
    saved.mixture = None
    save_model(folder, saved)
    found = load_model(folder)
    assert (
        torch.equal(next(found.model.parameters()), next(saved.model.parameters())) and found.mixture is None
    )


@pytest.mark.parametrize("moment", [1, 2, 3])
def test_a_save_killed_at_any_moment_leaves_the_old_or_the_new(
    saved: Saved, folder: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    moves, move = 0, os.replace

    def killed(old: Path, new: Path) -> None:
        nonlocal moves
        moves += 1
        if moves == moment:
            raise KeyboardInterrupt
        move(old, new)

    old = next(saved.model.parameters()).clone()
    with torch.no_grad():
        next(saved.model.parameters()).add_(1)
    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save_model(folder, saved)
    monkeypatch.undo()
    found = next(load_model(folder).model.parameters())
    assert torch.equal(found, old if moment < 3 else next(saved.model.parameters()))
    save_model(folder, saved)
    assert torch.equal(next(load_model(folder).model.parameters()), next(saved.model.parameters()))


def test_a_corpus_spelt_otherwise_is_refused(saved: Saved) -> None:
    saved.check_codec(NotesCodec())
    refusal(lambda: saved.check_codec(NotesCodec(4)), "'bars': 2", "'bars': 4", "prepare")


def test_a_model_in_sections_comes_back(whole: HierarchicalVAE, long_batch: Batch, tmp_path: Path) -> None:
    save_model(tmp_path, Saved(whole, LONGER))
    loaded = load_model(tmp_path)
    assert loaded.codec.config() == LONGER.config() and loaded.model.size == whole.size
    assert torch.equal(loaded.model.encode(*long_batch).mean, whole.eval().encode(*long_batch).mean)


def test_sections_need_a_conductor_and_a_conductor_sections(codec: NotesCodec, size: Size) -> None:
    refusal(lambda: build_model(LONGER, size), "sections", "conductor")
    refusal(lambda: build_model(codec, replace(size, conductor=8, section=4)), "sections", "conductor")


def test_an_embedding_for_each_stream_is_needed(codec: NotesCodec) -> None:
    refusal(lambda: build_model(codec, Size(embedding=(8, 8))), "embedding", "4", "onset, pitch")


# ------------------------------------------------------------------------------------- bad models


def test_folders_that_are_no_models_are_refused(folder: Path, tmp_path: Path) -> None:
    refusal(lambda: load_model(tmp_path), str(tmp_path), "no model")
    refusal(lambda: load_model(tmp_path / "nowhere"), "no model")
    refusal(lambda: load_model(folder / "config.json"), "cannot be read")
    (folder / "model.safetensors").unlink()
    refusal(lambda: load_model(folder), str(folder), "no readable model.safetensors")


@pytest.mark.parametrize("where", [0, 100, -1])
def test_a_flipped_byte_is_found(folder: Path, where: int) -> None:
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[where] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    refusal(lambda: load_model(folder), str(folder), "not what its config.json describes")


@pytest.mark.parametrize("keep", [0, 4, 50, 5000, -1])
def test_a_truncated_file_is_found_even_where_the_hash_was_mended(folder: Path, keep: int) -> None:
    data = (folder / "model.safetensors").read_bytes()[:keep]
    (folder / "model.safetensors").write_bytes(data)
    refusal(lambda: load_model(folder), "not what its config.json describes")
    tamper(folder, sha256=hashlib.sha256(data).hexdigest())
    refusal(lambda: load_model(folder), "model.safetensors is damaged")


def tamper(folder: Path, drop: str = "", **values: Any) -> None:
    """Changes config.json."""
    config = json.loads((folder / "config.json").read_text()) | values
    config.pop(drop, None)
    (folder / "config.json").write_text(json.dumps(config))


def reweigh(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Changes the weights and mends their hash."""
    tensors = load((folder / "model.safetensors").read_bytes())
    change(tensors)
    data = save(tensors)
    (folder / "model.safetensors").write_bytes(data)
    tamper(folder, sha256=hashlib.sha256(data).hexdigest())


def test_weights_that_are_no_numbers_are_refused(folder: Path) -> None:
    for value in (float("nan"), float("inf")):
        for name in ("encoder.mean.bias", "prior.mixture.means"):
            reweigh(folder, lambda tensors, name=name, value=value: tensors[name].view(-1)[3:4].fill_(value))  # type: ignore[misc]
            refusal(lambda: load_model(folder), str(folder), "not finite")
            reweigh(folder, lambda tensors, name=name: tensors[name].view(-1)[3:4].fill_(0))  # type: ignore[misc]
    load_model(folder)


def test_weights_that_do_not_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    reweigh(folder, lambda tensors: tensors.update(more=torch.zeros(1)))
    refusal(lambda: load_model(folder), "does not fit its weights", "more")
    reweigh(folder, lambda tensors: [tensors.pop(name) for name in ("more", "encoder.mean.bias")])
    refusal(lambda: load_model(folder), "does not fit its weights", "encoder.mean.bias")


WIDTHS = {"embedding": [12, 12, 8, 4], "condition": 4, "encoder": 24, "decoder": 40, "head": 20, "latent": 8}


def test_these_are_the_widths_of_the_model(model: SequenceVAE) -> None:
    assert Size(**WIDTHS | {"embedding": (12, 12, 8, 4)}) == model.size  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, ["no model this version reads"]),
        ({"format": "seqvae corpus"}, ["no model this version reads"]),
        ({"drop": "format"}, ["no model this version reads"]),
        ({"drop": "sha256"}, ["not what its config.json describes"]),
        ({"drop": "codec"}, ["does not fit", "codec"]),
        ({"drop": "size"}, ["does not fit", "size"]),
        ({"codec": {"name": "sketches"}}, ["unknown codec 'sketches'"]),
        ({"codec": {}}, ["unknown codec"]),
        ({"codec": "notes"}, ["does not fit"]),
        ({"codec": None}, ["does not fit"]),
        ({"codec": {"name": "notes", "bars": 3, "bar_ticks": 72}}, ["does not fit", "size mismatch"]),
        ({"codec": {"name": "notes", "bars": -2, "bar_ticks": 72}}, ["no notes codec"]),
        ({"codec": {"name": "notes", "beats": 8}}, ["cannot have the settings"]),
        ({"size": {}}, ["does not fit", "embedding"]),
        ({"size": []}, ["does not fit"]),
        ({"size": WIDTHS | {"width": 3}}, ["does not fit", "width"]),
        ({"size": WIDTHS | {"embedding": [12, 12, 8]}}, ["does not fit", "embedding needs 4"]),
        ({"size": WIDTHS | {"latent": "many"}}, ["does not fit"]),
        ({"size": WIDTHS | {"latent": -4}}, ["does not fit"]),
        ({"size": WIDTHS | {"decoder": 41}}, ["does not fit", "size mismatch"]),
        ({"size": WIDTHS | {"decoder": 10**12}}, ["does not fit", "wider than its weights"]),
    ],
)
def test_other_configs_are_refused(folder: Path, change: dict[str, Any], words: list[str]) -> None:
    tamper(folder, **change)
    refusal(lambda: load_model(folder), str(folder), *words)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "3", "null", '"notes"', "\xff\xfe", "[" * 100_000])
def test_configs_that_are_no_json_object_are_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    refusal(lambda: read_config(folder), str(folder), "config.json")


# --------------------------------------------------------------------------------- training states


def train(model: SequenceVAE, optimizer: torch.optim.Optimizer, batch: Batch, steps: range) -> None:
    for step in steps:
        nll, posterior, *_ = model(*batch, noise(len(batch[0]), model.size.latent, seed=step))
        optimizer.zero_grad()
        Elbo(warmup=10)(nll, posterior, step).loss.backward()
        optimizer.step()


def fresh(codec: NotesCodec, size: Size, seed: int = 0) -> tuple[SequenceVAE, torch.optim.Adam]:
    torch.manual_seed(seed)
    model = SequenceVAE(codec.streams, codec.conditions, size)
    return model, torch.optim.Adam(model.parameters(), 0.01, betas=(0.9, 0.99))


def test_an_attribute_comes_back_and_a_measure_is_small(folder: Path, tmp_path: Path) -> None:
    saved, path = load_model(folder), tmp_path / "deep" / "a.safetensors"
    z = noise(50, 128)
    measure = fit_measures(z, {"length": z[:, 0], "colour": z[:, 1]})["length"]
    save_attribute(path, measure, saved, {"windows": 50})
    again = load_attribute(path, saved)
    assert path.stat().st_size < 2500 and again.measure == "length" and again.maps is again.factors is None
    assert torch.equal(again.means, measure.means) and torch.equal(again.axis, measure.axis)
    assert again.deviations == measure.deviations and [*again.deviations] == ["length", "colour"]
    kinds = fit_attribute(Posterior(z[:25], z[:25]), Posterior(z[25:], z[25:]))
    save_attribute(path, kinds, saved, {})
    again = load_attribute(path, saved)
    assert not again.measure and again.maps is not None and torch.equal(again.maps, kinds.maps)
    save_attribute(path, kinds._replace(maps=None), saved, {})
    refusal(lambda: load_attribute(path, saved), str(path), "is no attribute")


def bits(model: SequenceVAE, optimizer: torch.optim.Optimizer) -> dict[str, bytes]:
    found = {name: value.numpy().tobytes() for name, value in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state[parameter].items():
            found[f"{name}/{key}"] = value.numpy().tobytes()
    return found


def test_a_resumed_training_has_the_bytes_of_one_undisturbed(
    codec: NotesCodec, size: Size, batch: Batch, tmp_path: Path
) -> None:
    model, optimizer = fresh(codec, size)
    train(model, optimizer, batch, range(3))
    progress = {"step": 3, "best": float("inf"), "rows": [{"nll": 1 / 3}]}
    save_state(tmp_path / "state", model, optimizer, progress)
    halfway = bits(model, optimizer)
    train(model, optimizer, batch, range(3, 6))
    again, its_optimizer = fresh(codec, size, seed=1)
    assert load_state(tmp_path / "state", again, its_optimizer) == progress
    assert bits(again, its_optimizer) == halfway
    train(again, its_optimizer, batch, range(3, 6))
    assert bits(again, its_optimizer) == bits(model, optimizer) != halfway


def test_a_state_saved_before_the_first_step_is_a_beginning(
    codec: NotesCodec, size: Size, batch: Batch, tmp_path: Path
) -> None:
    model, optimizer = fresh(codec, size)
    save_state(tmp_path / "state", model, optimizer, {"step": 0})
    again, its_optimizer = fresh(codec, size, seed=1)
    assert load_state(tmp_path / "state", again, its_optimizer) == {"step": 0}
    for one in ((model, optimizer), (again, its_optimizer)):
        train(*one, batch, range(2))
    assert bits(again, its_optimizer) == bits(model, optimizer)


def test_bad_states_are_refused(codec: NotesCodec, size: Size, batch: Batch, tmp_path: Path) -> None:
    model, optimizer = fresh(codec, size)
    train(model, optimizer, batch, range(1))
    path = tmp_path / "last.safetensors"
    refusal(lambda: load_state(path, model, optimizer), str(path), "cannot be read")
    save_state(path, model, optimizer, {"step": 1})
    other = fresh(codec, Size(**(vars(size) | {"latent": 9})))
    refusal(lambda: load_state(path, *other), str(path), "does not fit this recipe", "size mismatch")
    data = path.read_bytes()
    for cut in (0, 7, 300, len(data) - 1):
        path.write_bytes(data[:cut])
        refusal(lambda: load_state(path, model, optimizer), str(path), "is damaged")
    path.write_bytes(save({"weights.x": torch.zeros(1)}))
    refusal(lambda: load_state(path, model, optimizer), str(path), "does not fit this recipe")
    path.write_bytes(save({name: value for name, value in load(data).items()}))  # without progress
    refusal(lambda: load_state(path, model, optimizer), str(path), "does not fit this recipe", "progress")


# ----------------------------------------------------------------------------------------- writing


def test_nothing_is_written_where_nothing_can_be(saved: Saved, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    model, optimizer = saved.model, torch.optim.Adam(saved.model.parameters())
    refusal(lambda: save_model(tmp_path / "file", saved), "file", "cannot be written")
    refusal(lambda: save_model(tmp_path / "file" / "deep", saved), "cannot be written")
    refusal(lambda: save_state(tmp_path / "file" / "state", model, optimizer, {}), "cannot be written")
    (tmp_path / "folder").mkdir()
    refusal(lambda: store(tmp_path / "folder", b"data"), str(tmp_path / "folder"), "cannot be written: Is")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "in the way"


def test_folders_are_made(tmp_path: Path) -> None:
    store(tmp_path / "a" / "b" / "file", b"data")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"data"
