"""What the network may see, that padding and batch-mates change nothing, and that it learns."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from seqvae import networks
from seqvae.codecs import NotesCodec, Stream
from seqvae.model import HierarchicalVAE, SequenceVAE, Size
from seqvae.networks import NEAR, POOLINGS, Conditions, Conductor, table
from seqvae.objective import Elbo, Posterior
from seqvae.song import Phrase
from tests.conftest import LONGER

Batch = tuple[Tensor, Tensor, Tensor]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# -------------------------------------------------------------------------------- what is seen and when


def differs(one: list[Tensor], other: list[Tensor]) -> Tensor:
    """(B, T) whether any stream scores a step otherwise, the masks of onsets apart."""
    pairs = zip(one, other, strict=True)
    return torch.stack([((a != b) & (a != -1e4) & (b != -1e4)).any(-1) for a, b in pairs]).any(0)


@pytest.mark.parametrize("k", range(4))
@pytest.mark.parametrize("t", [0, 1, 4])
def test_a_symbol_is_seen_by_what_comes_after_it_alone(
    model: SequenceVAE, batch: Batch, k: int, t: int
) -> None:
    """Bit for bit, in teacher forcing: later steps and later streams of its own step see it, nothing else."""
    steps, lengths, conditions = batch
    z = noise(len(steps), model.size.latent)
    changed = steps.clone()
    changed[:, t, k] = (steps[:, t, k] + 1) % (model.streams[k].size - 1)
    before, after = model.decode(z, steps, conditions), model.decode(z, changed, conditions)
    for j, (one, other) in enumerate(zip(before, after, strict=True)):
        assert torch.equal(one[:, :t], other[:, :t])
        same = (one[:, t] == other[:, t]).all(-1)
        assert same.all() if j <= k else not same.any(), f"stream {j} of its own step"
    for later in range(t + 1, t + 4):
        assert differs(before, after)[lengths > later, later].all()


def test_every_part_of_z_and_the_condition_is_seen(model: SequenceVAE, batch: Batch) -> None:
    steps, lengths, conditions = batch
    real = torch.arange(steps.shape[1]) < lengths[:, None]
    z = noise(len(steps), model.size.latent)
    before = model.decode(z, steps, conditions)
    for part in range(model.size.latent):
        other = z.clone()
        other[:, part] += 1
        assert differs(before, model.decode(other, steps, conditions))[real].all()
    for part in range(conditions.shape[1]):
        told = conditions.clone()
        told[:, part] += 1
        assert differs(before, model.decode(z, steps, told))[real].all()


def test_onsets_not_past_the_one_before_are_masked(model: SequenceVAE, batch: Batch) -> None:
    steps, lengths, conditions = batch
    scores = model.decode(noise(len(steps), model.size.latent), steps, conditions)[0]
    assert (scores[:, 0] > -1e4).all()
    for row, length in enumerate(lengths.tolist()):
        for t in range(1, length):
            last = int(steps[row, t - 1, 0])
            assert (scores[row, t, : last + 1] == -1e4).all() and (scores[row, t, last + 1 :] > -1e4).all()


def test_onsets_before_the_one_before_are_masked_where_they_rise(ensemble: tuple[SequenceVAE, Batch]) -> None:
    model, (steps, lengths, conditions) = ensemble
    scores = model.decode(noise(len(steps), model.size.latent), steps, conditions)[0]
    equal = 0
    for row, length in enumerate(lengths.tolist()):
        for t in range(1, length):
            last = int(steps[row, t - 1, 0])
            assert (scores[row, t, :last] == -1e4).all() and (scores[row, t, last:] > -1e4).all()
            equal += int(steps[row, t, 0]) == last
    assert equal > 50 and (scores[:, 0] > -1e4).all()


# ---------------------------------------------------------------------------------------- word dropout


def test_dropped_steps_hide_their_symbols(model: SequenceVAE, batch: Batch) -> None:
    """Input t is the step before t: hidden, its pitch, duration and velocity are seen by no later step."""
    steps, lengths, conditions = batch
    z, t = noise(len(steps), model.size.latent), 2
    dropped = torch.zeros(steps.shape[:2], dtype=torch.bool)
    dropped[:, t + 1] = True
    for k in (1, 2, 3):
        changed = steps.clone()
        changed[:, t, k] = (steps[:, t, k] + 1) % model.streams[k].size
        before, after = (model.decode(z, grid, conditions, dropped) for grid in (steps, changed))
        for one, other in zip(before, after, strict=True):
            assert torch.equal(one[:, t + 1 :], other[:, t + 1 :])
        before, after = (model.decode(z, grid, conditions) for grid in (steps, changed))
        assert differs(before, after)[lengths > t + 1, t + 1].all()


def test_the_start_is_never_dropped(model: SequenceVAE, batch: Batch) -> None:
    steps, _, conditions = batch
    z = noise(len(steps), model.size.latent)
    everything = torch.ones(steps.shape[:2], dtype=torch.bool)
    first = torch.zeros_like(everything)
    first[:, 0] = True
    plain = model.decode(z, steps, conditions)
    for one, other in zip(plain, model.decode(z, steps, conditions, first), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(plain, model.decode(z, steps, conditions, everything), strict=True):
        assert torch.equal(one[:, 0], other[:, 0]) and not torch.equal(one[:, 1:], other[:, 1:])
    assert everything.all()  # the caller's mask is left alone


# ---------------------------------------------------------------------------- padding and batch-mates


def test_padding_and_batch_mates_change_nothing(model: SequenceVAE, batch: Batch) -> None:
    steps, lengths, conditions = batch
    z = noise(len(steps), model.size.latent)
    posterior, nll = model.encode(*batch), model.nll(z, *batch)
    wild = torch.cat((steps, torch.zeros(len(steps), 5, 4, dtype=torch.int64)), 1)
    place = torch.arange(wild.shape[1]) >= lengths[:, None]
    generator = torch.Generator().manual_seed(1)
    for k, stream in enumerate(model.streams):
        wild[..., k][place] = torch.randint(stream.size, (int(place.sum()),), generator=generator)
    padded = model.encode(wild, lengths, conditions)

    def close(found: Tensor, expected: Tensor) -> None:
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-6)

    close(padded.mean, posterior.mean)
    close(padded.logvar, posterior.logvar)
    close(model.nll(z, wild, lengths, conditions), nll)
    for row, length in enumerate(lengths.tolist()):
        at = slice(row, row + 1)
        alone = model.encode(steps[at, :length], lengths[at], conditions[at])
        close(alone.mean, posterior.mean[at])
        close(alone.logvar, posterior.logvar[at])
        found = model.nll(z[at], steps[at, :length], lengths[at], conditions[at])
        close(found, nll[at])


def test_a_window_without_notes_has_a_posterior_and_a_likelihood(
    codec: NotesCodec, model: SequenceVAE
) -> None:
    steps = torch.tensor([[[codec.end, 0, 0, 0]]])
    nll, posterior, *_ = model(
        steps, torch.tensor([1]), torch.tensor([[4, 2]]), torch.zeros(1, model.size.latent)
    )
    assert all(part.isfinite().all() for part in posterior)
    assert nll.item() == pytest.approx(math.log(codec.end + 1), rel=0.2)  # END alone, at its first step


def test_the_encoder_sees_every_symbol_and_the_condition(model: SequenceVAE, batch: Batch) -> None:
    steps, lengths, conditions = batch
    mean = model.encode(*batch).mean
    for k, stream in enumerate(model.streams):
        for t in range(int(lengths.min()) - 1):
            changed = steps.clone()
            changed[:, t, k] = (steps[:, t, k] + 1) % stream.size
            assert (model.encode(changed, lengths, conditions).mean != mean).any(1).all()
    assert (model.encode(steps, lengths, conditions + 1).mean != mean).any(1).all()


def test_one_pass_is_encoding_sampling_and_decoding(model: SequenceVAE, batch: Batch) -> None:
    eps = noise(len(batch[0]), model.size.latent)
    nll, posterior, *_ = model(*batch, eps)
    assert torch.equal(posterior.mean, model.encode(*batch).mean)
    assert torch.equal(nll, model.nll(posterior.sample(eps), *batch))


def test_under_autocast_posterior_and_likelihood_are_float32(model: SequenceVAE, batch: Batch) -> None:
    eps = noise(len(batch[0]), model.size.latent)
    exact, *_ = model(*batch, eps)
    with torch.autocast("cpu", torch.bfloat16):
        nll, posterior, *_ = model(*batch, eps)
    assert nll.dtype == posterior.mean.dtype == posterior.logvar.dtype == torch.float32
    torch.testing.assert_close(nll, exact, atol=0, rtol=0.01)  # bfloat16 keeps 8 bits of a score


def test_a_codec_without_conditions_or_with_one_stream_has_a_model() -> None:
    streams = (Stream("letter", "category", 30),)
    model = SequenceVAE(
        streams, (), Size(embedding=(9,), condition=3, encoder=8, decoder=8, head=8, latent=4)
    )
    steps = torch.tensor([[[3], [1], [29]], [[5], [29], [0]]])
    nll, *_ = model(steps, torch.tensor([3, 2]), torch.zeros(2, 0, dtype=torch.int64), torch.zeros(2, 4))
    assert nll.tolist() == pytest.approx([3 * math.log(30), 2 * math.log(30)], rel=0.15)
    assert not Conditions((), 3)(torch.zeros(2, 0, dtype=torch.int64)).any()


@pytest.fixture
def words() -> SequenceVAE:
    torch.manual_seed(0)
    size = Size(embedding=(12,), encoder=10, decoder=14, head=12, latent=6)
    return SequenceVAE((Stream("symbol", "word", 30),), (), size)


def sentences(count: int, seed: int = 0) -> Batch:
    """Symbols (count, 9, 1) of 29 words and END, zero-padded; lengths; no conditions."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 10, (count,), generator=generator)
    steps = torch.randint(29, (count, 9, 1), generator=generator)
    place = torch.arange(9)
    steps[place == lengths[:, None] - 1] = 29
    steps[place >= lengths[:, None]] = 0
    return steps, lengths, torch.zeros(count, 0, dtype=torch.int64)


def test_words_are_scored_by_the_decoders_own_embedding(words: SequenceVAE) -> None:
    steps, _, conditions = sentences(5)
    z = noise(5, 6)
    before = words.decode(z, steps, conditions)[0]
    assert not any(name.startswith("decoder.heads.scores.0.weight") for name in words.state_dict())
    with torch.no_grad():
        words.decoder.steps.tables[0].weight[7] *= 2
    unread = (steps[:, :-1, 0] != 7).cumprod(1).bool()  # where 7 was not read yet
    after, moved = words.decode(z, steps, conditions)[0], torch.zeros(30, dtype=torch.bool)
    moved[7] = True
    assert torch.equal(after[:, 1:][unread][:, ~moved], before[:, 1:][unread][:, ~moved])
    torch.testing.assert_close(after[:, 0, 7], 2 * before[:, 0, 7])  # its bias is 0


def test_one_embedding_for_encoder_and_decoder(words: SequenceVAE) -> None:
    """The posterior and the scores are those of two equal ones, and it takes the sum of their gradients."""
    steps, lengths, conditions = sentences(5)
    shared = SequenceVAE(words.streams, (), replace(words.size, shared=True))
    assert words.state_dict().keys() - shared.state_dict().keys() == {"encoder.steps.tables.0.weight"}
    own, one = words.encoder.steps.tables[0].weight, shared.decoder.steps.tables[0].weight
    with torch.no_grad():
        own.copy_(words.decoder.steps.tables[0].weight)
    shared.load_state_dict({k: v for k, v in words.state_dict().items() if not k.startswith("encoder.steps")})
    for model in (words, shared):
        nll, posterior, *_ = model(steps, lengths, conditions, noise(5, 6))
        (nll.sum() + posterior.kl().sum()).backward()
    both = own.grad + words.decoder.steps.tables[0].weight.grad
    torch.testing.assert_close(one.grad, both)
    assert own.grad.abs().sum() > 0


def test_a_latent_of_none_is_a_language_model() -> None:
    size = Size(embedding=(12,), encoder=10, decoder=14, head=12, latent=0)
    torch.manual_seed(0)
    model = SequenceVAE((Stream("symbol", "word", 30),), (), size)
    assert not any(name.startswith("encoder") for name in model.state_dict())
    steps, lengths, conditions = sentences(5)
    nll, posterior, *_ = model(steps, lengths, conditions, torch.zeros(5, 0))
    assert posterior.kl().shape == (5, 0) and posterior.kl().sum() == 0
    assert torch.equal(nll, model.nll(torch.zeros(5, 0), steps, lengths, conditions))


def test_a_language_model_becomes_the_decoder(model: SequenceVAE, batch: Batch) -> None:
    """Where z is 0, and so what is made of it, it is the language model; any other z is still heard."""
    steps, lengths, conditions = batch
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    language = SequenceVAE(model.streams, NotesCodec().conditions, replace(model.size, latent=0))
    model.adopt(language.state_dict())
    wanted = language.nll(torch.zeros(len(steps), 0), steps, lengths, conditions)
    z = torch.zeros(len(steps), model.size.latent)
    torch.testing.assert_close(model.nll(z, steps, lengths, conditions), wanted)
    assert ((model.nll(z + 1, steps, lengths, conditions) - wanted).abs() > 1e-3).all()
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("gamma", [0.0, 0.6])
def test_every_pooling_sees_each_symbol_and_no_padding(pooling: str, gamma: float) -> None:
    torch.manual_seed(0)
    size = Size(embedding=(12,), encoder=40, decoder=14, head=12, latent=6, pooling=pooling, gamma=gamma)
    model = SequenceVAE((Stream("symbol", "word", 30),), (), size).eval()
    steps, lengths, conditions = sentences(12)
    before = model.encode(steps, lengths, conditions)
    padded = torch.cat((steps, torch.full((12, 3, 1), 5)), 1)
    for one, other in zip(before, model.encode(padded, lengths, conditions), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
    for row, length in enumerate(lengths.tolist()):
        for at in range(length):
            changed = steps[row : row + 1, :length].clone()
            changed[0, at] = (changed[0, at] + 11) % 29
            after = model.encode(changed, lengths[row : row + 1], conditions[:1])
            assert not torch.allclose(after.mean[0], before.mean[row], atol=1e-6, rtol=0), (row, at)


def test_a_batch_norm_holds_the_means_apart() -> None:
    """BN-VAE: in training every dimension's means have variance gamma^2, so KL >= gamma^2 Z / 2."""
    torch.manual_seed(0)
    size = Size(embedding=(12,), encoder=10, decoder=14, head=12, latent=6, gamma=0.7)
    model = SequenceVAE((Stream("symbol", "word", 30),), (), size)
    with torch.no_grad():
        model.encoder.mean.weight.mul_(30)  # means far enough apart for the norm's epsilon not to matter
    steps, lengths, conditions = sentences(64)
    found = model.encode(steps, lengths, conditions)
    torch.testing.assert_close(found.mean.var(0, unbiased=False), torch.full((6,), 0.49), atol=1e-2, rtol=0)
    assert found.kl().sum(1).mean() >= 0.99 * 6 * 0.49 / 2
    for _ in range(200):  # evaluation norms by what training saw, here one batch again and again
        model.encode(steps, lengths, conditions)
    still = model.eval().encode(steps, lengths, conditions)
    torch.testing.assert_close(still.mean, found.mean, atol=0.03, rtol=0)  # its variance is the unbiased one
    one = model.train().encode(steps[:1], lengths[:1], conditions[:1])
    torch.testing.assert_close(one.mean, still.mean[:1], atol=1e-5, rtol=0)


def test_dropout_is_in_training_alone(words: SequenceVAE) -> None:
    steps, lengths, conditions = sentences(8)
    z = noise(8, 6)
    plain = words.decode(z, steps, conditions)[0]
    words.decoder.dropout.p = 0.5
    torch.manual_seed(1)
    one, other = words.decode(z, steps, conditions)[0], words.decode(z, steps, conditions)[0]
    torch.manual_seed(1)
    assert torch.equal(one, words.decode(z, steps, conditions)[0]) and not torch.allclose(one, other)
    assert torch.equal(plain, words.eval().decode(z, steps, conditions)[0])
    mean = words.encode(steps, lengths, conditions).mean
    words.train().encoder.dropout.p = 0.5
    one, other = (words.encode(steps, lengths, conditions).mean for _ in range(2))
    assert not torch.allclose(one, other)
    assert torch.equal(mean, words.eval().encode(steps, lengths, conditions).mean)


def test_neighbours_in_an_ordered_table_begin_alike() -> None:
    torch.manual_seed(0)
    rows = table(Stream("pitch", "ordinal", 88), 24).weight.detach()
    assert rows.shape == (90, 24)
    near, far = (rows[1:88] - rows[:87]).norm(dim=1), (rows[40:88] - rows[:48]).norm(dim=1)
    assert near.max() < far.min()
    assert table(Stream("mode", "category", 7), 5).weight.shape == (9, 5)


# -------------------------------------------------------------------------------------------- learning


@pytest.mark.parametrize("full", [False, True])
def test_untrained_nats_are_the_logarithms_of_what_is_possible(
    codec: NotesCodec, batch: Batch, size: Size, full: bool
) -> None:
    """Within 10 %: a note's onset is one of those past the one before, its other streams any symbol."""
    steps, lengths, _ = batch
    expected = 0.0
    for row, length in enumerate(lengths.tolist()):
        before = [-1, *steps[row, : length - 1, 0].tolist()]
        expected += sum(math.log(codec.end - last) for last in before)
        expected += (length - 1) * sum(math.log(stream.size) for stream in codec.streams[1:])
    for seed in range(3):
        torch.manual_seed(seed)
        model = SequenceVAE(codec.streams, codec.conditions, Size() if full else size)
        with torch.no_grad():
            nll, *_ = model(*batch, noise(len(steps), model.size.latent, seed=seed))
        assert nll.sum().item() == pytest.approx(expected, rel=0.1)


def fit(model: SequenceVAE | HierarchicalVAE, batch: Batch, steps: int, objective: Callable) -> list[float]:
    """Adam on one batch; the loss at every step."""
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    losses = []
    for step in range(steps):
        nll, posterior, *_ = model(*batch, noise(len(batch[0]), model.size.latent, seed=step))
        loss = objective(nll, posterior, step).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_one_batch_is_learnt_through_z(model: SequenceVAE, batch: Batch) -> None:
    """The collapse alarm: after learning the batch, another window's z or none at all costs nats."""
    steps, lengths, conditions = (part[:12] for part in batch)
    losses = fit(model, (steps, lengths, conditions), 150, Elbo(beta=0.02, warmup=50))
    assert losses[-1] < 0.1 * losses[0]
    with torch.no_grad():
        posterior = model.encode(steps, lengths, conditions)
        nll = model.nll(posterior.mean, steps, lengths, conditions)
        rolled = model.nll(posterior.mean.roll(1, 0), steps, lengths, conditions)
        blank = model.nll(torch.zeros_like(posterior.mean), steps, lengths, conditions)
    assert nll.mean() < 0.05 * losses[0]
    assert (rolled > nll).all() and min(rolled.mean(), blank.mean()) > nll.mean() + 5


def test_every_weight_takes_part_in_learning(model: SequenceVAE, batch: Batch) -> None:
    dropped = torch.zeros(batch[0].shape[:2], dtype=torch.bool)
    dropped[:, 2] = True
    nll, posterior, *_ = model(*batch, noise(len(batch[0]), model.size.latent), dropped)
    Elbo()(nll, posterior, 0).loss.backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all() and weight.grad.any(), name


# -------------------------------------------------------------------------------- sections and a conductor


def test_sections_are_cut_at_their_ends(
    whole: HierarchicalVAE, longer: list[Phrase], long_batch: Batch
) -> None:
    found = whole.cut(*long_batch)
    codec, each = NotesCodec(), whole.sections
    for i, phrase in enumerate(longer):
        for k in range(each):
            begin = k * phrase.beats / each
            own = [n for n in phrase.notes if begin <= n.onset < begin + phrase.beats / each]
            notes = tuple(n._replace(onset=n.onset - begin) for n in own)
            steps = torch.from_numpy(codec.encode(Phrase(notes, phrase.metre, 2)).steps).long()
            row = i * each + k
            assert int(found.lengths[row]) == len(steps)
            assert torch.equal(found.steps[row, : len(steps)], steps)
            assert not found.steps[row, len(steps) :].any()
            assert torch.equal(found.conditions[row], long_batch[2][i])


def test_the_whole_is_its_sections_told_by_the_conductor(whole: HierarchicalVAE, long_batch: Batch) -> None:
    z = noise(len(long_batch[0]), whole.size.latent)
    cut = whole.cut(*long_batch)
    apart = whole.section.nll(whole.conducted(z, long_batch[2]), *cut[:3]).view(-1, whole.sections)
    torch.testing.assert_close(whole.nll(z, *long_batch), apart.sum(1))
    steps = long_batch[0].clone()
    steps[:, 0, 1] = (steps[:, 0, 1] + 1) % 88  # a pitch of the first section
    changed = whole.section.nll(whole.conducted(z, long_batch[2]), *whole.cut(steps, *long_batch[1:])[:3])
    differs = changed.view(-1, whole.sections) != apart
    assert differs[:, 0].all() and not differs[:, 1:].any()
    assert (whole.encode(steps, *long_batch[1:]).mean != whole.encode(*long_batch).mean).any(1).all()


def test_one_pass_of_the_whole_is_encoding_sampling_and_decoding(
    whole: HierarchicalVAE, long_batch: Batch
) -> None:
    eps = noise(3 * len(long_batch[0]), whole.size.latent)
    nll, posterior, z, *_ = whole(*long_batch, eps)
    assert torch.equal(posterior.mean, whole.encode(*long_batch).mean)
    torch.testing.assert_close(
        z, posterior.mean.repeat(3, 1) + (0.5 * posterior.logvar).exp().repeat(3, 1) * eps
    )
    again = whole.nll(z, *(part.repeat(3, *(1,) * (part.dim() - 1)) for part in long_batch))
    torch.testing.assert_close(nll, again)


def test_padding_and_batch_mates_change_nothing_of_the_whole(
    whole: HierarchicalVAE, long_batch: Batch
) -> None:
    steps, lengths, conditions = long_batch
    z = noise(len(steps), whole.size.latent)
    mean, nll = whole.encode(*long_batch).mean, whole.nll(z, *long_batch)
    wild = torch.cat((steps, torch.zeros(len(steps), 5, 4, dtype=torch.int64)), 1)
    place = torch.arange(wild.shape[1]) >= lengths[:, None]
    for k, stream in enumerate(whole.streams):  # END too
        draw = torch.randint(stream.size, (int(place.sum()),), generator=torch.Generator().manual_seed(k))
        wild[..., k][place] = draw.where(torch.arange(len(draw)) % 2 > 0, torch.tensor(stream.size - 1))
    torch.testing.assert_close(whole.encode(wild, lengths, conditions).mean, mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(whole.nll(z, wild, lengths, conditions), nll)
    for row, length in enumerate(lengths.tolist()):
        one = steps[row : row + 1, :length], lengths[row : row + 1], conditions[row : row + 1]
        torch.testing.assert_close(whole.encode(*one).mean[0], mean[row], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(whole.nll(z[row : row + 1], *one)[0], nll[row])


def test_every_weight_of_the_whole_takes_part_in_learning(whole: HierarchicalVAE, long_batch: Batch) -> None:
    dropped = torch.zeros(long_batch[0].shape[:2], dtype=torch.bool)
    dropped[:, 2] = True
    nll, posterior, *_ = whole(*long_batch, noise(len(long_batch[0]), whole.size.latent), dropped)
    Elbo()(nll, posterior, 0).loss.backward()
    for name, weight in whole.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all() and weight.grad.any(), name
    own = {id(weight) for weight in whole.decoder.parameters()}
    assert own == {
        id(w) for n, w in whole.named_parameters() if n.startswith(("conductor", "section.decoder"))
    }


def test_a_batch_in_sections_is_learnt_through_z(whole: HierarchicalVAE, long_batch: Batch) -> None:
    losses = fit(whole, long_batch, 150, Elbo(beta=0.02, warmup=50))
    assert losses[-1] < 0.2 * losses[0]
    with torch.no_grad():
        mean = whole.encode(*long_batch).mean
        nll, rolled = whole.nll(mean, *long_batch), whole.nll(mean.roll(1, 0), *long_batch)
    assert nll.mean() < 0.1 * losses[0] and rolled.mean() > nll.mean() + 10


def test_sections_told_nearly_the_same_are_told_the_same() -> None:
    """Two of four lie close: they meet half way, whatever the batch, and the others stay."""
    conductor = Conductor(6, 16, 8, 4).requires_grad_(False).eval()
    conductor.say.weight.zero_(), conductor.say.bias.zero_(), conductor.own.weight.mul_(1e-3)
    places = torch.tensor([0.0, 1.0, 1.02, 3.0])[:, None].expand(4, 8)
    conductor.own.bias.copy_(places.flatten())
    told = conductor(torch.randn(5, 6))
    expected = torch.tensor([0.0, 1.01, 1.01, 3.0])[:, None].expand(5, 4, 8)
    torch.testing.assert_close(told, expected, atol=0.005, rtol=0)
    assert torch.equal(told[:, 1], told[:, 2])
    conductor.own.bias.div_(3.1).mul_(NEAR)  # all nearer to each other than NEAR
    everywhere = conductor(torch.randn(5, 6))
    assert torch.equal(everywhere, everywhere[:, :1].expand(5, 4, 8))
    conductor.train().own.bias.requires_grad_()
    heard = conductor(torch.randn(5, 6))
    assert (heard[:, 0] - heard[:, 3]).abs().min() > 0.05  # the farthest are drawn together, not made one
    (slope,) = torch.autograd.grad((heard[:, 3] - heard[:, 0]).sum(), conductor.own.bias)
    assert (slope.view(4, 8)[0] < 0).all() and (slope.view(4, 8)[3] > 0).all()


def test_an_aligned_conductor_says_what_the_sections_said(
    size: Size, long_batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 12 sequences 11 components are all; the first few are the best of their number."""
    monkeypatch.setattr(networks, "NEAR", 0.0)  # each section by itself
    gaps = []
    for latent in (16, 4, 2):
        torch.manual_seed(0)
        told = replace(size, latent=latent, conductor=16, section=8)
        whole = HierarchicalVAE(LONGER.streams, LONGER.conditions, told, LONGER.sections).eval()
        with torch.no_grad():
            each = whole.section.infer(*whole.cut(*long_batch)[:3])
            said = Posterior(*(part.view(12, -1) for part in each))
            whole.align(said)
            z = whole.encode(*long_batch)
            found = whole.conducted(z.mean, long_batch[2]).view(12, -1)
        gaps.append((found - said.mean).square().sum().item())
        scales = torch.linalg.svdvals(said.mean.double() - said.mean.double().mean(0))
        assert gaps[-1] == pytest.approx(scales[latent:].square().sum().item(), rel=1e-3, abs=1e-6)
        used = min(latent, 11)
        torch.testing.assert_close(
            z.mean[:, :used].var(0, correction=0), torch.ones(used), atol=1e-2, rtol=1e-2
        )
        noise_of = said.logvar.exp().mean() / (scales[:used] ** 2 / 12)
        torch.testing.assert_close(
            z.logvar[0, :used].double(), noise_of.log().clamp(-8, 0), atol=1e-3, rtol=1e-3
        )
    assert gaps[0] < 1e-6 < gaps[1] < gaps[2]
