"""The mixture of exemplars: which windows it takes, what it keeps, when one is asked for; learnt mixtures."""

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from seqvae.latent import Divergences
from seqvae.objective import Posterior
from seqvae.prior import FEWEST, WIDTH, MixturePrior, VampPrior, exemplars, fit_mixture, needs_fit

UNTOLD = torch.zeros(500, 0, dtype=torch.int64)  # conditions of a codec that has none


def planted(n: int, z: int = 3) -> Posterior:
    """Posteriors far from N(0, I), wide and narrow."""
    generator = torch.Generator().manual_seed(0)
    mean, logvar = torch.randn(2, n, z, generator=generator)
    return Posterior(4 * mean + torch.arange(float(z)), logvar - 1)


def kinds(*counts: int) -> Tensor:
    """(N, 2) so many windows of the conditions (0, 8), (1, 8), ..., in turn."""
    first = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return torch.stack([first, torch.full_like(first, 8)], 1)


# ------------------------------------------------------------------------------- what is kept


def test_known_numbers() -> None:
    """Means at -3 and 3 with variance 1: the aggregate posterior has mean 0 and variance 1 + 9."""
    posterior = Posterior(torch.tensor([[-3.0], [3.0]]), torch.zeros(2, 1))
    found = fit_mixture(posterior, kinds(1, 1), width=0.6)
    order = found.conditions[:, 0].argsort()
    assert found.conditions[order].tolist() == [[0, 8], [1, 8]]
    assert found.means[order, 0].tolist() == pytest.approx([-2.4, 2.4], rel=1e-6)
    assert found.scales[:, 0].tolist() == pytest.approx([(0.64 + 3.6) ** 0.5] * 2, rel=1e-6)


@pytest.mark.parametrize("width", [0.0, WIDTH, 0.7, 1.0])
def test_the_whole_keeps_the_mean_and_variance_of_the_aggregate(width: float) -> None:
    posterior = planted(500)
    var = posterior.logvar.exp()
    found = fit_mixture(posterior, UNTOLD, width=width)
    torch.testing.assert_close(found.means.mean(0), posterior.mean.mean(0), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        found.means.var(0, unbiased=False) + found.scales.square().mean(0),
        posterior.mean.var(0, unbiased=False) + var.mean(0),
        atol=0,
        rtol=1e-5,
    )


def test_width_leads_from_the_posteriors_themselves_to_one_gaussian() -> None:
    posterior, order = planted(500), exemplars(UNTOLD, 500, 0)
    narrow, wide = (fit_mixture(posterior, UNTOLD, 500, width) for width in (0.0, 1.0))
    torch.testing.assert_close(narrow.means, posterior.mean[order], atol=1e-5, rtol=0)
    torch.testing.assert_close(narrow.scales, (0.5 * posterior.logvar[order]).exp())
    torch.testing.assert_close(wide.means, posterior.mean.mean(0).expand(500, -1), atol=1e-6, rtol=0)
    assert (wide.scales == wide.scales[0]).all()
    assert not torch.equal(fit_mixture(posterior, UNTOLD).scales, narrow.scales)  # there is a width by itself


def test_centre_and_variance_are_of_all_windows_not_of_those_taken() -> None:
    posterior = planted(500)
    whole, part = (fit_mixture(posterior, UNTOLD, count, width=1.0) for count in (500, 70))
    assert len(part.means) == 70
    assert torch.equal(part.means, whole.means[:70]) and torch.equal(part.scales, whole.scales[:70])


def test_each_condition_keeps_its_own_windows() -> None:
    """Each condition has its own place in z, told in the mean, and only that place is sampled under it."""
    told = kinds(3000, 300, 3)
    place = 50.0 * told[:, :1] * torch.ones(1, 4)
    found = fit_mixture(Posterior(place, torch.full_like(place, -6.0)), told, components=200, width=0.01)
    generator = torch.Generator().manual_seed(0)
    uniform, noise = torch.rand(600, generator=generator), torch.randn(600, 4, generator=generator)
    for kind in range(3):
        z = found.sample(uniform, noise, torch.tensor([[kind, 8]]).expand(600, -1))
        assert (z - 50 * kind).abs().max() < 1  # scales are 0.17 at most: 6 of these, odds of 2e-6 for all
    seen = (found.sample(uniform, noise, torch.tensor([[0, 9]]).expand(600, -1))[:, 0] / 50).round()
    assert seen.unique().tolist() == [0, 1, 2]  # a condition of no window: 3 of 200 are missed with odds 1e-4


def test_a_fit_is_repeatable_and_in_float32() -> None:
    posterior, told = planted(500), kinds(400, 100)
    one, again, other = (fit_mixture(posterior, told, 150, seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) and a.dtype == torch.float32 for a, b in zip(one, again, strict=True))
    assert not torch.equal(one.means, other.means)


# ------------------------------------------------------------------------------- which are taken


@pytest.mark.parametrize(
    ("counts", "components", "expected"),
    [
        ((5000, 100, 10), 138, [64, 64, 10]),  # no room for others
        ((30, 20, 0, 50), 2048, [30, 20, 0, 50]),  # fewer windows than components
        ((5000, 90, 3), 10, [64, 64, 3]),  # so few that the conditions take more
        ((1,), 2048, [1]),
    ],
)
def test_every_condition_has_its_exemplars(
    counts: tuple[int, ...], components: int, expected: list[int]
) -> None:
    told = kinds(*counts)
    found = exemplars(told, components, 0)
    assert len(found.unique()) == len(found)
    assert told[found, 0].bincount(minlength=len(counts)).tolist() == expected


def test_the_rest_is_drawn_from_all() -> None:
    told = kinds(6000, 2000, 20)
    found = exemplars(told, 2048, 0)
    assert len(found) == len(found.unique()) == 2048
    counts = told[found, 0].bincount().tolist()
    rest, left = 2048 - 2 * FEWEST - 20, 8000 - 2 * FEWEST
    share = (6000 - FEWEST) / left
    # 4 standard errors of draws without replacement: odds of 6e-5 for each of three numbers.
    error = (rest * share * (1 - share) * (1 - rest / left)) ** 0.5
    assert counts[2] == 20 and abs(counts[0] - FEWEST - rest * share) < 4 * error
    for kind, start, count in ((0, 0, 6000), (1, 6000, 2000)):  # from their whole length
        places = found[told[found, 0] == kind].double() - start
        assert abs(places.mean() - (count - 1) / 2) < 4 * count / (12 * len(places)) ** 0.5


def test_the_first_of_a_condition_are_no_more_likely_than_others() -> None:
    """Where only the share of each condition is taken: 64 of 6,000, mean and 4 standard errors of it."""
    found = exemplars(kinds(6000, 1), 1, 3)[:FEWEST].double()
    assert abs(found.mean() - 2999.5) < 4 * 6000 / (12 * FEWEST) ** 0.5


def test_without_conditions_any_windows_are_taken() -> None:
    found = exemplars(UNTOLD, 100, 0)
    assert len(found) == len(found.unique()) == 100 and 0 <= found.min() and found.max() < 500
    assert fit_mixture(planted(500), UNTOLD, 100).conditions.shape == (100, 0)


# ------------------------------------------------------------------------------- when


def test_a_fit_is_needed_past_five_nats_between_kl_and_mi() -> None:
    assert not needs_fit(Divergences(kl=12.0, mi=7.0, active=8))
    assert needs_fit(Divergences(kl=12.0, mi=6.9, active=8))


# ------------------------------------------------------------------------------- learnt with the model


class Encode(nn.Module):
    """Pictures (N, 1, 2, 2) -> posteriors (N, 3), which also says what it was given."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer = nn.Linear(4, 6)
        self.seen = torch.zeros(0)

    def forward(self, pictures: Tensor) -> Posterior:
        self.seen = pictures.detach()
        return Posterior(*(4 * self.layer(pictures.flatten(1))).chunk(2, 1))


def mixture() -> MixturePrior:
    torch.manual_seed(0)
    prior = MixturePrior(5, 3)
    with torch.no_grad():
        prior.weights.normal_()
        prior.means.mul_(2)
        prior.logvars.normal_()
    return prior


def exact(means: Tensor, logvars: Tensor, weights: Tensor) -> MixtureSameFamily:
    """As torch has it, in float64."""
    parts = Independent(Normal(means.double(), (0.5 * logvars.double()).exp()), 1)
    return MixtureSameFamily(Categorical(logits=weights.double()), parts)


def agree(found: Tensor, expected: Tensor, of: list[Tensor]) -> None:
    """Values, and gradients by everything."""
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    pairs = [torch.autograd.grad(value.sum(), of, retain_graph=True) for value in (found, expected)]
    for one, other in zip(*pairs, strict=True):
        assert other.any()
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_a_learned_mixtures_density_is_that_of_torch() -> None:
    prior, z = mixture(), torch.randn(20, 3, generator=torch.Generator().manual_seed(2)).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = prior.log_density(z)
    assert found.shape == (20,) and found.dtype == torch.float32
    expected = exact(prior.means, prior.logvars, prior.weights).log_prob(z.double())
    agree(found, expected, [z, *prior.parameters()])


def test_a_vamp_priors_density_is_the_mean_of_its_pseudo_inputs_posteriors() -> None:
    torch.manual_seed(0)
    prior, encode = VampPrior(7, (1, 2, 2)), Encode()
    z = torch.randn(20, 3, generator=torch.Generator().manual_seed(2)).requires_grad_()
    found = prior.log_density(z, encode)
    assert encode.seen.shape == (7, 1, 2, 2) and torch.equal(encode.seen, prior.pseudo_inputs())
    assert 0 < encode.seen.min() < 0.3 and 0.7 < encode.seen.max() < 1
    components = encode(prior.pseudo_inputs())
    expected = exact(*components, torch.zeros(7)).log_prob(z.double())
    agree(found, expected, [z, *prior.parameters(), *encode.parameters()])
    assert {name for name, _ in prior.named_parameters()} == {"logits"}  # the encoder is the model's own


def test_samples_of_learned_priors_have_their_moments() -> None:
    """Means and variances of 40,000 within 5 standard errors: odds of 6e-7 for each of 12."""
    prior, encode = mixture(), Encode()
    torch.manual_seed(0)
    vamp = VampPrior(7, (1, 2, 2))
    generator = torch.Generator().manual_seed(3)
    uniform, noise = torch.rand(40_000, generator=generator), torch.randn(40_000, 3, generator=generator)
    with torch.no_grad():
        components = encode(vamp.pseudo_inputs())
        for z, truth in (
            (prior.sample(uniform, noise), exact(prior.means, prior.logvars, prior.weights)),
            (vamp.sample(uniform, noise, encode), exact(*components, torch.zeros(7))),
        ):
            z = z.double()
            error = z.std(0) / 200
            assert ((z.mean(0) - truth.mean).abs() < 5 * error).all()
            square = (z - truth.mean).square()
            assert ((square.mean(0) - truth.variance).abs() < 5 * square.std(0) / 200).all()
    again = prior.sample(uniform[:8], noise[:8])
    assert torch.equal(again, prior.sample(uniform, noise)[:8])  # each row by its own noise alone


def test_a_learned_mixture_finds_two_clouds() -> None:
    """At +-3 with standard deviation 0.5, three quarters of the points in one: 400 steps of Adam."""
    torch.manual_seed(0)
    prior = MixturePrior(2, 1)
    generator = torch.Generator().manual_seed(0)
    side = (torch.rand(2000, 1, generator=generator) < 0.75) * 6.0 - 3
    z = side + 0.5 * torch.randn(2000, 1, generator=generator)
    optimiser = torch.optim.Adam(prior.parameters(), 0.05)
    for _ in range(400):
        loss = -prior.log_density(z).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    order = prior.means[:, 0].argsort()
    assert prior.means[order, 0].tolist() == pytest.approx([-3, 3], abs=0.1)
    assert prior.weights.softmax(0)[order].tolist() == pytest.approx([0.25, 0.75], abs=0.05)
    assert (0.5 * prior.logvars).exp().flatten().tolist() == pytest.approx([0.5, 0.5], abs=0.05)


def test_learned_priors_compile_whole() -> None:
    torch._dynamo.reset()
    prior, z = mixture(), torch.randn(20, 3)
    vamp, encode = VampPrior(7, (1, 2, 2)), nn.Sequential(nn.Flatten(), nn.Linear(4, 6))

    def densities(z: Tensor) -> Tensor:
        told = vamp.log_density(z, lambda pictures: Posterior(*encode(pictures).chunk(2, 1)))
        return prior.log_density(z) + told

    found = torch.compile(densities, fullgraph=True, backend="aot_eager")(z)
    torch.testing.assert_close(found, densities(z))
