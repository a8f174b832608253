"""The fitted prior finds what was planted, and is asked for only where N(0, I) is the wrong place."""

import pytest
import torch
from torch import Tensor

from seqvae.latent import ANY, Divergences, Mixture
from seqvae.prior import fit_mixture, needs_fit

PLANTED = Mixture(
    torch.tensor([0.3, 0.7]),
    torch.tensor([[-4.0, 0.0, 1.0], [4.0, 2.0, -1.0]]),
    torch.tensor([[[1.0, 0, 0], [0.5, 0.5, 0], [0, 0, 2.0]], [[0.5, 0, 0], [0, 1.0, 0], [-0.3, 0, 1.0]]]),
    torch.full((2, 1), ANY),
)


def alike(n: int) -> Tensor:
    """(n, 1) one condition for all."""
    return torch.zeros(n, 1, dtype=torch.int64)


def planted(n: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return PLANTED.sample(
        torch.rand(n, generator=generator), torch.randn(n, 3, generator=generator), alike(n)
    )


def test_two_planted_components_are_found() -> None:
    n = 20_000
    found = fit_mixture(planted(n), alike(n), components=2)
    order = found.means[:, 0].argsort()
    # They are 8 apart and hardly overlap, so estimates vary as if each point's component were known. All
    # bounds are 4 standard errors of the planted values: odds of 6e-5 each, 2e-3 for the 26 of them.
    assert (found.weights[order] - PLANTED.weights).abs().max() < 4 * (0.3 * 0.7 / n) ** 0.5
    for c, at in enumerate(order.tolist()):
        count = n * PLANTED.weights[c]
        cov = PLANTED.factors[c] @ PLANTED.factors[c].T
        assert ((found.means[at] - PLANTED.means[c]).abs() < 4 * (cov.diagonal() / count).sqrt()).all()
        spread = (cov.diagonal()[:, None] * cov.diagonal() + cov**2) / count
        again = found.factors[at] @ found.factors[at].T
        assert ((again - cov).abs() < 4 * spread.sqrt() + 1e-4).all()  # 1e-4 is added to variances
        assert torch.equal(found.factors[at], found.factors[at].tril())


def test_a_fit_is_repeatable_and_in_float32() -> None:
    z = planted(500)
    one, other = fit_mixture(z, alike(500), seed=1), fit_mixture(z, alike(500), seed=1)
    assert all(torch.equal(a, b) and a.dtype == torch.float32 for a, b in zip(one, other, strict=True))
    assert one.weights.sum().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("points", "components"), [(2, 1), (23, 1), (24, 2), (500, 8)])
def test_few_points_get_few_components(points: int, components: int) -> None:
    found = fit_mixture(planted(points), alike(points), components=8)
    assert len(found.weights) == components and all(part.isfinite().all() for part in found)


def test_a_fit_is_needed_past_five_nats_between_kl_and_mi() -> None:
    assert not needs_fit(Divergences(kl=12.0, mi=7.0, active=8))
    assert needs_fit(Divergences(kl=12.0, mi=6.9, active=8))


def test_a_common_condition_has_its_own_gaussian_and_a_rare_one_the_pooled_one() -> None:
    """4,000 points at +5 told 0, 2,000 at -5 told 1, and 3 at +50 told 2, which are too few."""
    generator = torch.Generator().manual_seed(0)
    told = torch.tensor([0] * 4000 + [1] * 2000 + [2] * 3)[:, None]
    centre = torch.tensor([5.0, -5.0, 50.0])[told[:, 0]][:, None]
    found = fit_mixture(centre + torch.randn(6003, 2, generator=generator), told, components=1)
    assert found.conditions[:, 0].tolist() == [ANY, 0, 1]
    n = 1000
    for kind, mean in ((0, 5.0), (1, -5.0), (2, 5 / 3), (9, 5 / 3)):  # 5/3: the mean of all
        noise = torch.randn(n, 2, generator=generator)
        z = found.sample(torch.rand(n, generator=generator), noise, torch.full((n, 1), kind))
        # 4 standard errors of a mean of n plus that of the fit: odds of 6e-5 for each of 8 numbers
        assert ((z.mean(0) - mean).abs() < 4 * z.std(0) / n**0.5 + 0.2).all(), kind
