"""The mixture of exemplars: which windows it takes, what it keeps of them, and when one is asked for."""

import pytest
import torch
from torch import Tensor

from seqvae.latent import Divergences
from seqvae.objective import Posterior
from seqvae.prior import FEWEST, WIDTH, exemplars, fit_mixture, needs_fit

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
