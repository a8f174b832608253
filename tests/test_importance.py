"""The importance-weighted estimate against the plain way, exact cases, and what it may not depend on."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from seqvae.codecs.base import Stream
from seqvae.decoding import Stepper
from seqvae.importance import BLOCK, importance_nll, log_total, nll_at
from seqvae.model import HierarchicalVAE, SequenceVAE, Size

WORDS = 2 * BLOCK + 100  # three blocks of scores, the last a part


def words(latent: int = 8) -> SequenceVAE:
    """A model of words to whose decoder z matters, its posterior (standard deviation 0.37) a poor one."""
    torch.manual_seed(0)
    size = Size((16,), encoder=24, decoder=32, head=16, latent=latent)
    model = SequenceVAE((Stream("symbol", "word", WORDS),), (), size).eval()
    with torch.no_grad():
        for weight in (*model.decoder.first.parameters(), *model.decoder.steps.parameters()):
            weight.mul_(3)
        model.decoder.heads.scores[0].bias.normal_()
    return model


def sentences(count: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Steps (count, 11, 1) of 1 to 11 words with END, zero-padded; lengths; no conditions."""
    generator = torch.Generator().manual_seed(1)
    steps = torch.randint(WORDS - 1, (count, 11, 1), generator=generator)
    lengths = torch.arange(count) % 6 * 2 + 1
    steps[torch.arange(count), lengths - 1] = WORDS - 1
    steps[torch.arange(11) >= lengths[:, None]] = 0
    return steps, lengths, torch.zeros(count, 0, dtype=torch.int64)


@torch.no_grad()
def log_weights(
    model: SequenceVAE | HierarchicalVAE, batch: tuple[Tensor, ...], samples: int, seed: int
) -> Tensor:
    """log p(x|z) p(z) / q(z|x) (B, S) the plain way, at the same noise, each term by its own definition."""
    rows = []
    for index in range(len(batch[0])):
        steps, lengths, told = (part[index : index + 1] for part in batch)
        draw = np.random.Generator(np.random.Philox(key=(seed, index)))
        noise = torch.from_numpy(draw.standard_normal((samples, model.size.latent), np.float32))
        posterior = model.encode(steps, lengths, told)
        z = posterior.sample(noise)
        repeated = (part.expand(samples, *part.shape[1:]) for part in (steps, lengths, told))
        ratio = Normal(0, 1).log_prob(z) - Normal(posterior.mean, (0.5 * posterior.logvar).exp()).log_prob(z)
        rows.append(ratio.double().sum(1) - model.nll(z, *repeated).double())
    return torch.stack(rows)


def close(found: Tensor, expected: Tensor) -> None:
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected.double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("samples", [1, 7, 600])
def test_words_as_the_plain_way(samples: int) -> None:
    """600 samples are more than go through the decoder at a time."""
    model, batch = words(), sentences()
    expected = np.log(samples) - log_weights(model, batch, samples, 3).logsumexp(1)
    close(importance_nll(model, *batch, samples=samples, seed=3), expected)


def test_melodies_as_the_plain_way(model: SequenceVAE, batch: tuple[Tensor, Tensor, Tensor]) -> None:
    """Four streams, an increasing one, and conditions."""
    part = (batch[0][:6], batch[1][:6], batch[2][:6])
    expected = np.log(20) - log_weights(model.eval(), part, 20, 0).logsumexp(1)
    close(importance_nll(model, *part, samples=20), expected)


def test_ensembles_as_the_plain_way(
    ensemble: tuple[SequenceVAE, tuple[Tensor, Tensor, Tensor]],
) -> None:
    """Five streams, a rising one."""
    model, batch = ensemble
    expected = np.log(20) - log_weights(model.eval(), batch, 20, 0).logsumexp(1)
    close(importance_nll(model, *batch, samples=20), expected)


def test_sections_under_a_conductor_as_the_plain_way(
    whole: HierarchicalVAE, long_batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    part = tuple(rows[:5] for rows in long_batch)
    expected = np.log(20) - log_weights(whole.eval(), part, 20, 0).logsumexp(1)
    close(importance_nll(whole, *part, samples=20), expected)


@pytest.mark.parametrize("samples", [1, 500])
def test_without_a_latent_it_is_the_nll(samples: int) -> None:
    model, batch = words(latent=0), sentences()
    with torch.no_grad():
        close(importance_nll(model, *batch, samples=samples), model.nll(torch.zeros(6, 0), *batch))


def deaf(model: SequenceVAE) -> SequenceVAE:
    """Its decoder ignores z, so that -log p(x) is its nll at any z."""
    with torch.no_grad():
        model.decoder.first.weight.zero_()
        model.decoder.heads.known.weight.zero_()
        model.decoder.lstm.weight_ih_l0[:, model.decoder.steps.width :].zero_()
        for weight in (*model.encoder.mean.parameters(), *model.encoder.logvar.parameters()):
            weight.zero_()
    return model


@pytest.mark.parametrize("samples", [1, 50])
def test_the_prior_as_posterior_of_a_deaf_decoder_is_exact(samples: int) -> None:
    model, batch = deaf(words()), sentences()
    with torch.no_grad():
        close(importance_nll(model, *batch, samples=samples), model.nll(torch.zeros(6, 8), *batch))


def test_a_wide_posterior_of_a_deaf_decoder_comes_near_the_truth() -> None:
    """Of 8 dimensions at variance 1.5 the weights p/q have variance (1.5^2 / 2)^4 - 1 = 0.602 about 1.

    So their mean over 20,000 is within 4 * sqrt(0.602 / 20,000) = 0.022 of 1 but once in 16,000.
    """
    model = deaf(words())
    with torch.no_grad():
        model.encoder.logvar.bias.fill_(np.log(1.5))
        one = tuple(part[1:2] for part in sentences())
        truth = model.nll(torch.zeros(1, 8), *one)
    found = importance_nll(model, *one, samples=20_000)
    assert abs((truth - found).exp().item() - 1) < 0.022


def test_more_samples_are_tighter() -> None:
    """One sentence under 100 indices: 100 draws of the estimate. Its mean falls by over 4 standard errors of
    the difference at each step, which is no chance (3e-5 a step)."""
    model = words()
    steps, lengths, told = (part[3:4].expand(100, *part.shape[1:]) for part in sentences())
    found = [importance_nll(model, steps, lengths, told, samples=samples) for samples in (1, 8, 256)]
    for loose, tight in zip(found, found[1:], strict=False):
        error = ((loose.var() + tight.var()) / 100).sqrt()
        assert loose.mean() - tight.mean() > 4 * error


def test_a_sentence_depends_on_seed_and_index_alone() -> None:
    model, (steps, lengths, told) = words(), sentences()
    whole = importance_nll(model, steps, lengths, told, samples=30, seed=5)
    some = [4, 1]
    short = steps[some, : int(lengths[some].max())]
    again = importance_nll(model, short, lengths[some], told[some], samples=30, seed=5, indices=some)
    assert torch.equal(again, whole[some])
    assert not torch.equal(again, importance_nll(model, short, lengths[some], told[some], samples=30, seed=5))
    assert not torch.isclose(whole, importance_nll(model, steps, lengths, told, samples=30, seed=6)).any()


def test_dropout_and_batchnorm_are_as_in_evaluation() -> None:
    torch.manual_seed(0)
    size = Size((16,), encoder=24, decoder=32, head=16, latent=8, gamma=0.6)
    model, batch = SequenceVAE((Stream("symbol", "word", WORDS),), (), size), sentences()
    model.decoder.dropout.p = 0.5
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = importance_nll(model.train(), *batch, samples=4)
    assert torch.equal(found, importance_nll(model.eval(), *batch, samples=4))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_log_total_of_large_and_masked_scores() -> None:
    """Scores of +-1,000 neither overflow nor vanish; blocks masked in whole or in part count for nothing."""
    generator = torch.Generator().manual_seed(0)
    layer, weight = torch.randn(5, 16, generator=generator), torch.randn(16, WORDS, generator=generator)
    bias = torch.randn(WORDS, generator=generator)
    for scale, masked in ((1, 0), (100, 0), (1, 100), (1, BLOCK), (1, BLOCK + 7), (1, WORDS - 1)):
        shift = bias.masked_fill(torch.arange(WORDS) < masked, -1e4)
        exact = (scale * layer.double() @ weight.double() + shift).logsumexp(1)
        torch.testing.assert_close(
            log_total(scale * layer, weight, shift).double(), exact, rtol=1e-6, atol=1e-5
        )


def test_everything_stands_on_the_models_device() -> None:
    """The device that holds no numbers shows whether any tensor was made elsewhere."""
    device = torch.device("meta")
    model, (steps, _, told) = words().to(device), sentences()
    with device, torch.inference_mode():
        stepper = Stepper(model)
    with torch.inference_mode():
        found = nll_at(stepper, torch.zeros(4, 8, device=device), steps[5].to(device), told[:1].to(device))
    assert found.device == device and found.shape == (4,)


def test_no_sentences_and_no_samples() -> None:
    model, (steps, lengths, told) = words(), sentences()
    assert importance_nll(model, steps[:0], lengths[:0], told[:0]).shape == (0,)
    with pytest.raises(ValueError, match="at least one sample"):
        importance_nll(model, steps, lengths, told, samples=0)
