"""Free running equals teacher forcing; a row's symbols depend on its own z, condition, seed and number."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seqvae import decoding
from seqvae.codecs import NotesCodec, Stream
from seqvae.decoding import (
    GREEDY,
    Beam,
    Rows,
    Sampling,
    Slots,
    Stepper,
    Ways,
    choose,
    decode,
    free_running,
    prepared,
    uniforms,
)
from seqvae.model import HierarchicalVAE, SequenceVAE, Size
from seqvae.networks import START

Batch = tuple[Tensor, Tensor, Tensor]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def sharp(model: SequenceVAE) -> SequenceVAE:
    """A model with opinions: its scores differ by several nats, and so do rows with another z."""
    with torch.no_grad():
        for layer in model.decoder.heads.scores:
            layer.get_parameter("weight").mul_(6)
        model.decoder.heads.known.weight.mul_(3)
        model.decoder.heads.scores[0].get_parameter("bias")[-1] -= 4  # END is rarer: rows grow longer
    return model


def told(count: int) -> Tensor:
    """Conditions (count, 2) of 4/4 and 6/8 in turn."""
    return torch.tensor([[4, 2], [6, 3]]).repeat(count // 2 + 1, 1)[:count]


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return len(one) == len(other) and all(map(np.array_equal, one, other))


# ----------------------------------------------------------------------------------- teacher forcing


@pytest.mark.parametrize("half", [False, True])
def test_step_by_step_is_teacher_forcing(
    sharp: SequenceVAE, batch: Batch, monkeypatch: pytest.MonkeyPatch, half: bool
) -> None:
    """The stepper, made to emit known steps, scores each symbol as the network does."""
    if half:
        sharp.load_state_dict({name: value.half().float() for name, value in sharp.state_dict().items()})
    compare(sharp, batch, monkeypatch)


def test_ensembles_step_by_step_are_teacher_forcing(
    ensemble: tuple[SequenceVAE, Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    compare(*ensemble, monkeypatch)


def compare(sharp: SequenceVAE, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    (steps, lengths, conditions), streams = batch, len(sharp.streams)
    z = noise(len(steps), sharp.size.latent)
    found: list[Tensor] = []

    def emit(logits: Tensor, uniform: Tensor, how: Ways) -> Tensor:
        t, k = divmod(len(found), streams)
        found.append(logits.clone())
        return steps[:, t, k]

    monkeypatch.setattr(decoding, "choose", emit)
    stepper, previous = Stepper(sharp), torch.tensor([stream.size + START for stream in sharp.streams])
    state, previous, last = (
        stepper.start(z, conditions),
        previous.expand(len(z), -1),
        torch.full((len(z),), -1),
    )
    for _ in range(steps.shape[1]):
        chosen = torch.zeros(streams, len(z)), Ways.of(GREEDY, len(z))
        previous = stepper.select(stepper.advance(state, previous), last, *chosen)
        last = previous[:, 0].where(previous[:, 0] < sharp.streams[0].size - 1, -1)
    with torch.no_grad():
        expected = sharp.decode(z, steps, conditions)
    for t in range(steps.shape[1]):
        for k in range(streams):
            real = t < lengths - int(k > 0)
            torch.testing.assert_close(
                found[streams * t + k][real], expected[k][real, t], atol=1e-5, rtol=1e-5
            )


def test_greedy_rows_are_the_networks_own_likeliest(sharp: SequenceVAE) -> None:
    z, conditions = noise(9, sharp.size.latent), told(9)
    for row, steps in enumerate(decode(Stepper(sharp), z, conditions, GREEDY)):
        given = torch.from_numpy(steps)[None]
        with torch.no_grad():
            logits = sharp.decode(z[row : row + 1], given, conditions[row : row + 1])
        for k in range(4):
            best = torch.stack([scores.argmax(-1) for scores in logits], -1)[0]
            length = len(steps) - int(k > 0)
            assert torch.equal(best[:length, k], given[0, :length, k])


def test_sections_are_decoded_each_as_the_conductor_tells(whole: HierarchicalVAE) -> None:
    """The whole is its sections' rows, one after the other; alone and among 600 the same.

    The sections of a thing draw alike, so that two which are told the same are the same.
    """
    for layer in whole.section.decoder.heads.scores:
        layer.get_parameter("weight").data.mul_(6)
    z, conditions, stepper = noise(600, whole.size.latent, seed=2), told(600), free_running(whole)
    found = decode(stepper, z, conditions, Sampling(), seed=1, most_steps=40)
    with torch.inference_mode():
        vectors = whole.conducted(z, conditions)
    apart = [
        decode(Stepper(whole.section), vectors[at::2], conditions, Sampling(), seed=1, most_steps=20)
        for at in range(2)
    ]
    assert same(found, list(map(np.concatenate, zip(*apart, strict=True))))
    assert len({row.tobytes() for row in found}) > 300 and max(map(len, found)) > 8
    assert same(decode(stepper, z[:1], conditions[:1], Sampling(), seed=1, most_steps=40), found[:1])
    assert decode(stepper, z[:0], conditions[:0], GREEDY) == []


def test_a_stepper_leaves_its_model_as_it_was(sharp: SequenceVAE) -> None:
    before = {name: value.clone() for name, value in sharp.state_dict().items()}
    z, stepper = noise(8, sharp.size.latent), Stepper(sharp)
    kept = z.clone()
    decode(stepper, z, told(8), Sampling(top_k=5, top_p=0.9))
    decode(stepper, z, told(8), GREEDY)
    assert torch.equal(z, kept)
    assert all(torch.equal(value, before[name]) for name, value in sharp.state_dict().items())


# ------------------------------------------------------------------------------ seeds and batch-mates


@pytest.mark.parametrize("how", [GREEDY, Sampling(), Sampling(1.3, 20, 0.95)])
@pytest.mark.parametrize("full", [False, True])
def test_a_row_never_depends_on_its_batch_mates(
    codec: NotesCodec, sharp: SequenceVAE, how: Sampling, full: bool
) -> None:
    """Alone, among 9 and among 600, which are decoded in two batches: the same symbols."""
    if full:
        torch.manual_seed(0)
        sharp = SequenceVAE(codec.streams, codec.conditions, Size())
    z, conditions, stepper = noise(600, sharp.size.latent), told(600), Stepper(sharp)
    whole = decode(stepper, z, conditions, how, seed=3)
    assert len({row.tobytes() for row in whole}) > 200  # the test would say nothing of rows all alike
    assert same(decode(stepper, z[:9], conditions[:9], how, seed=3), whole[:9])
    assert same(decode(stepper, z[:1], conditions[:1], how, seed=3), whole[:1])
    others = z.clone()
    others[1:] = noise(599, sharp.size.latent, seed=1)
    assert same(decode(stepper, others, conditions, how, seed=3)[:1], whole[:1])


@pytest.mark.parametrize("full", [False, True])
def test_eight_rows_have_the_bits_of_more(codec: NotesCodec, size: Size, full: bool) -> None:
    """Why batches are padded to a multiple of 8: the last bits of other numbers depend on it."""
    torch.manual_seed(0)
    model = SequenceVAE(codec.streams, codec.conditions, Size() if full else size)
    stepper, z, previous = Stepper(model), noise(512, model.size.latent), torch.tensor([[10, 40, 5, 3]])

    def bits(rows: int) -> list[Tensor]:
        state = stepper.start(z[:rows], told(rows))
        for _ in range(3):
            hidden = stepper.advance(state, previous.expand(rows, -1))
        return [*state, hidden]

    for rows in (decoding.FEWEST_ROWS, 16, 88, 504):
        assert all(torch.equal(few, many[:rows]) for few, many in zip(bits(rows), bits(512), strict=True))


def test_a_seed_is_repeated_and_another_differs(sharp: SequenceVAE) -> None:
    z, conditions, stepper = noise(20, sharp.size.latent), told(20), Stepper(sharp)
    one = decode(stepper, z, conditions, Sampling(), seed=1)
    assert same(one, decode(Stepper(sharp), z, conditions, Sampling(), seed=1))
    assert not same(one, decode(stepper, z, conditions, Sampling(), seed=2))
    twins = decode(stepper, z[:1].expand(2, -1), conditions[:1].expand(2, -1), Sampling(), seed=1)
    assert not same(twins[:1], twins[1:])  # rows of one z draw numbers of their own
    assert same(*(decode(stepper, z, conditions, GREEDY, seed=seed) for seed in (1, 2)))


def test_rows_of_one_z_draw_their_own_numbers(sharp: SequenceVAE) -> None:
    """In later batches too: nothing begins again with row 512."""
    rows = decode(
        Stepper(sharp), noise(1, sharp.size.latent).expand(520, -1), told(1).expand(520, -1), Sampling()
    )
    assert all(not np.array_equal(rows[i], rows[decoding.MOST_ROWS + i]) for i in range(8))


def test_uniforms_are_a_function_of_seed_row_step_and_stream() -> None:
    pairs = [(0, 0), (0, 1), (1, 0), (2**63, 5)]
    found = uniforms(pairs, 30, 4)
    assert found.shape == (4, 30, 4) and found.dtype == torch.float32
    assert (found >= 0).all() and (found < 1).all()
    assert torch.equal(found[2], uniforms([pairs[2]], 30, 4)[0])
    assert torch.equal(found[:, :7], uniforms(pairs, 7, 4))
    assert (
        len(found.flatten().unique()) > 470
    )  # of 480 numbers of 24 bits some two are equal with odds of 0.7 %
    many = uniforms([(9, row) for row in range(500)], 20, 4)
    # Mean and variance within 4 standard errors: odds of 6e-5 each.
    assert abs(many.mean() - 0.5) < 4 * (1 / 12 / 40_000) ** 0.5
    assert abs(many.var() - 1 / 12) < 4 * (1 / 180 / 40_000) ** 0.5


# --------------------------------------------------------------------------------- what rows look like


@pytest.mark.parametrize("how", [GREEDY, Sampling(), Sampling(100.0), Sampling(0.01), Sampling(top_k=2)])
def test_onsets_increase_and_every_row_ends(sharp: SequenceVAE, codec: NotesCodec, how: Sampling) -> None:
    sizes = [stream.size for stream in codec.streams]
    for row in decode(Stepper(sharp), noise(100, sharp.size.latent), told(100), how):
        assert row[-1, 0] == codec.end and (np.diff(row[:, 0]) > 0).all()
        assert (row >= 0).all() and (row < sizes).all()


@pytest.mark.parametrize("how", [GREEDY, Sampling(), Sampling(100.0)])
def test_rising_onsets_stay_or_rise(ensemble: tuple[SequenceVAE, Batch], how: Sampling) -> None:
    model, sizes = ensemble[0], [stream.size for stream in ensemble[0].streams]
    rows = decode(Stepper(model), noise(50, model.size.latent), told(50), how, most_steps=40)
    for row in rows:
        assert (np.diff(row[:, 0]) >= 0).all() and (row >= 0).all() and (row < sizes).all()
        assert row[-1, 0] == sizes[0] - 1 or len(row) == 40
    assert any((np.diff(row[:, 0]) == 0).any() for row in rows)


def test_a_row_that_does_not_end_is_cut(sharp: SequenceVAE, codec: NotesCodec) -> None:
    with torch.no_grad():
        sharp.decoder.heads.scores[0].get_parameter("bias")[-1] -= 1000
    z, stepper = noise(5, sharp.size.latent), Stepper(sharp)
    assert [len(row) for row in decode(stepper, z, told(5), Sampling(), most_steps=3)] == [3] * 5
    for row in decode(stepper, z, told(5), Sampling()):  # all onsets used up, nothing but END is left
        assert row[-1, 0] == codec.end and row[-2, 0] == codec.end - 1
    assert decode(stepper, z[:0], told(0), Sampling()) == []


def test_the_longest_row_has_every_onset(sharp: SequenceVAE, codec: NotesCodec) -> None:
    with torch.no_grad():
        last = sharp.decoder.heads.scores[0]
        last.get_parameter("weight").zero_()
        last.get_parameter("bias").copy_(-50.0 * torch.arange(codec.end + 1))
    (row,) = decode(Stepper(sharp), noise(1, sharp.size.latent), told(1), Sampling())
    assert row[:, 0].tolist() == list(range(codec.end + 1))


# ------------------------------------------------------------------------------------ slots

MIXED = [GREEDY, Sampling(), Sampling(1.3, 20, 0.95), Sampling(0.6, 3), Sampling(top_p=0.5)]


@pytest.mark.parametrize("full", [False, True])
def test_rows_that_come_and_go_are_what_they_are_alone(
    codec: NotesCodec, sharp: SequenceVAE, full: bool
) -> None:
    """Rows of five strategies enter 24 slots at random moments, and a third of them are dropped again."""
    if full:
        torch.manual_seed(0)
        sharp = SequenceVAE(codec.streams, codec.conditions, Size())
    z, conditions, stepper, chance = (
        noise(90, sharp.size.latent),
        told(90),
        Stepper(sharp),
        np.random.default_rng(2),
    )
    most, given, found, sizes = 40, list(range(90)), dict[int, np.ndarray](), set()
    slots: Slots[int] = Slots(stepper, 24, most)
    while given or len(slots):
        for row in given[: int(chance.integers(0, min(slots.room, 5) + 1))]:
            given.remove(row)
            slots.enter([row], of_seed_7(stepper, z, conditions, row, most))
        if len(slots):
            found |= dict(slots.step())
            sizes.add(len(slots))
        if chance.random() < 0.1:
            slots.drop(lambda row: row % 3 > 0)
    assert len(sizes) > 12 and 0 < len(set(range(90)) - found.keys()) < 60
    for row, steps in found.items():
        (alone,) = decode_row(stepper, z, conditions, row, most)
        assert np.array_equal(steps, alone)


def of_seed_7(stepper: Stepper, z: Tensor, conditions: Tensor, row: int, most: int) -> Rows:
    part = slice(row, row + 1)
    return prepared(stepper, z[part], conditions[part], MIXED[row % 5], [(7, row)], most)


def decode_row(stepper: Stepper, z: Tensor, conditions: Tensor, row: int, most: int) -> list[np.ndarray]:
    """Row `row` of seed 7, decoded with nobody."""
    slots: Slots[int] = Slots(stepper, 8, most)
    slots.enter([row], of_seed_7(stepper, z, conditions, row, most))
    while not (found := slots.step()):
        pass
    return [steps for _, steps in found]


def test_a_gap_in_full_slots_may_stay(sharp: SequenceVAE) -> None:
    """Seven rows of eight, again and again for longer than a row may be: nothing runs over."""
    z, stepper = noise(7, sharp.size.latent), Stepper(sharp)
    slots: Slots[int] = Slots(stepper, 8, 5)
    for turn in range(6):
        seeds = [(turn, row) for row in range(7)]
        slots.enter(range(7), prepared(stepper, z, told(7), Sampling(), seeds, 5))
        while len(slots) == 7:
            slots.step()
        slots.drop(lambda row: False)


def test_slots_show_what_is_chosen(sharp: SequenceVAE) -> None:
    z, stepper = noise(11, sharp.size.latent), Stepper(sharp)
    slots: Slots[int] = Slots(stepper, 16, 30)
    seeds = [(0, row) for row in range(11)]
    slots.enter(range(11), prepared(stepper, z, told(11), Sampling(), seeds, 30))
    seen: dict[int, list[list[int]]] = {row: [] for row in range(11)}

    def look(names: Any, symbols: Tensor) -> None:
        for name, chosen in zip(names, symbols.tolist(), strict=True):
            seen[name].append(chosen)

    found: dict[int, np.ndarray] = {}
    while len(slots):
        found |= dict(slots.step(look))
    assert all(found[row].tolist() == seen[row] for row in range(11))


# ------------------------------------------------------------------------------------ how symbols are chosen


def test_strategies_that_leave_one_symbol_are_greedy(sharp: SequenceVAE) -> None:
    z, conditions, stepper = noise(40, sharp.size.latent), told(40), Stepper(sharp)
    greedy = decode(stepper, z, conditions, GREEDY)
    for how in (Sampling(top_k=1), Sampling(top_p=1e-9), Sampling(5.0, 1), Sampling(0.5, 0, 1e-6)):
        assert same(decode(stepper, z, conditions, how, seed=7), greedy)


SCORES = [2.0, -1.0, 0.5, 0.4, -3.0, 1.0, 0.0, -1e4]


@pytest.fixture(scope="module")
def uniform() -> Tensor:
    return uniforms([(0, row) for row in range(20_000)], 1, 1)[:, 0, 0]


def shares(how: Sampling) -> Tensor:
    """What the strategy makes of SCORES, in plain words: cut to the k likeliest, warm, cut to mass p."""
    ranks = sorted(range(len(SCORES)), key=lambda i: -SCORES[i])
    kept = ranks[: how.top_k] if how.top_k else ranks
    weights = {i: math.exp(SCORES[i] / how.temperature) for i in kept}
    mass, nucleus = 0.0, []
    for i in kept:
        if mass < how.top_p * sum(weights.values()):
            nucleus.append(i)
        mass += weights[i]
    total = sum(weights[i] for i in nucleus)
    return torch.tensor([weights[i] / total if i in nucleus else 0.0 for i in range(len(SCORES))])


@pytest.mark.parametrize(
    "how",
    [Sampling(), Sampling(0.5), Sampling(3.0), Sampling(top_k=3), Sampling(2.0, 5, 0.8), Sampling(top_p=0.6)],
)
def test_symbols_come_as_often_as_their_probability_says(how: Sampling, uniform: Tensor) -> None:
    n = len(uniform)
    drawn = choose(torch.tensor(SCORES).repeat(n, 1), uniform, Ways.of(how, n))
    expected = shares(how)
    found = torch.bincount(drawn, minlength=len(SCORES)) / n
    # 4 standard errors: odds of 6e-5 for each of at most 8 symbols, 5e-4; symbols without mass never come.
    assert ((found - expected).abs() <= 4 * (expected * (1 - expected) / n).sqrt()).all()


@pytest.mark.parametrize("how", [Sampling(), Sampling(2.0), Sampling(top_k=3), Sampling(top_p=0.7)])
def test_the_ends_of_the_uniform_never_pick_what_has_no_mass(how: Sampling) -> None:
    """Sums of float32 end short of 1 or past it: the greatest number below 1 must stay among the symbols."""
    logits = 3 * noise(4000, 157)
    logits[:, :5] = logits[:, 100:] = -1e4
    for number in (0.0, 1 - 2**-24):
        drawn = choose(logits.clone(), torch.full((4000,), number), Ways.of(how, 4000))
        assert (drawn >= 5).all() and (drawn < 100).all()


def test_of_equals_the_first_is_the_likeliest() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0, 3.0, 3.0, -1e4] * 20])
    for how in (GREEDY, Sampling(top_p=1e-6)):
        assert choose(logits.clone(), torch.tensor([0.99]), Ways.of(how, 1)).tolist() == [1]


def test_zero_top_k_and_full_top_p_cut_nothing() -> None:
    logits, uniform = noise(500, 30), torch.rand(500, generator=torch.Generator().manual_seed(0))
    plain = choose(logits.clone(), uniform, Ways.of(Sampling(), len(logits)))
    for how in (Sampling(top_k=0), Sampling(top_k=30), Sampling(top_k=99), Sampling(top_p=1.0)):
        assert torch.equal(choose(logits.clone(), uniform, Ways.of(how, len(logits))), plain)


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": -1.0},
        {"temperature": 0.001},
        {"temperature": 101.0},
        {"temperature": math.nan},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.01},
        {"top_p": math.nan},
    ],
)
def test_strategies_out_of_bounds_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="temperature is 0 or in 0.01 .. 100, top-k at least 0, top-p in"):
        Sampling(**settings)


# -------------------------------------------------------------------------------------- words and beams


@pytest.fixture
def words() -> SequenceVAE:
    """Five words and END, a model with opinions."""
    torch.manual_seed(0)
    size = Size(embedding=(12,), encoder=8, decoder=16, head=12, latent=4)
    model = SequenceVAE((Stream("symbol", "word", 6),), (), size).eval()
    with torch.no_grad():
        model.decoder.steps.tables[0].weight.mul_(25)
        model.decoder.heads.known.weight.mul_(3)
    return model


def nothing(count: int) -> Tensor:
    return torch.zeros(count, 0, dtype=torch.int64)


def likelihood(model: SequenceVAE, z: Tensor, sequences: list[list[int]]) -> Tensor:
    """log p (N,) of sequences of one length at one z (1, Z)."""
    steps = torch.tensor(sequences)[..., None]
    lengths = torch.full((len(steps),), steps.shape[1])
    with torch.no_grad():
        return -model.nll(z.expand(len(steps), -1), steps, lengths, nothing(len(steps)))


def test_words_step_by_step_are_teacher_forcing(words: SequenceVAE) -> None:
    z = noise(9, 4)
    for row, steps in enumerate(decode(Stepper(words), z, nothing(9), Sampling(), seed=3, most_steps=12)):
        with torch.no_grad():
            logits = words.decode(z[row : row + 1], torch.from_numpy(steps)[None], nothing(1))[0][0]
        drawn = uniforms([(3, row)], len(steps), 1)[0, :, 0]
        assert (
            choose(logits.clone(), drawn, Ways.of(Sampling(), len(logits))).tolist() == steps[:, 0].tolist()
        )


@pytest.mark.parametrize("penalty", [0.0, 0.6, 2.0])
def test_a_beam_wide_enough_finds_the_best_of_all_sequences(words: SequenceVAE, penalty: float) -> None:
    """Every sequence of up to 4 steps is tried; those of 4 may lack END."""
    how, z, end = Beam(64, penalty), noise(10, 4), 5
    found = decode(Stepper(words), z, nothing(10), how, most_steps=4)
    for row, steps in enumerate(found):
        best, which = -math.inf, [0]
        for length in range(1, 5):
            last = [[end]] if length < 4 else [[symbol] for symbol in range(6)]
            heads = itertools.product(range(end), repeat=length - 1)
            tried = [[*head, *tail] for head in heads for tail in last]
            scores = likelihood(words, z[row : row + 1], tried) / how.discount(length)
            if scores.max() > best:
                best, which = scores.max().item(), tried[int(scores.argmax())]
        assert steps[:, 0].tolist() == which


def test_a_beam_of_one_without_penalty_is_greedy(words: SequenceVAE) -> None:
    z = noise(20, 4)
    greedy = decode(Stepper(words), z, nothing(20), GREEDY, most_steps=15)
    assert same(greedy, decode(Stepper(words), z, nothing(20), Beam(1, 0.0), most_steps=15))


def test_a_wider_beam_finds_likelier_sequences_and_rows_are_their_own(words: SequenceVAE) -> None:
    z, stepper = noise(40, 4), Stepper(words)
    found = {wide: decode(stepper, z, nothing(40), Beam(wide, 0.0), most_steps=10) for wide in (1, 2, 16)}
    total = {
        wide: sum(
            likelihood(words, z[row : row + 1], [steps[:, 0].tolist()]).item()
            for row, steps in enumerate(rows)
        )
        for wide, rows in found.items()
    }
    assert total[1] <= total[2] <= total[16] and total[1] < total[16]
    alone = decode(stepper, z[33:34], nothing(1), Beam(16, 0.0), most_steps=10)
    assert same(alone, found[16][33:34])


def test_beams_are_bounded_and_of_one_stream(model: SequenceVAE) -> None:
    for bad in ({"width": 0}, {"width": 65}, {"penalty": -1.0}, {"penalty": math.inf}):
        with pytest.raises(ValueError, match="beam"):
            Beam(**bad)
    with pytest.raises(ValueError, match="one stream"):
        decode(Stepper(model), noise(1, 8), told(1), Beam(4))
