"""Paths, densities and divergences of z against exact cases, and fits against what was planted."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
)

from seqvae.latent import (
    Mixture,
    Succession,
    aggregate_log_density,
    bilinear,
    divergences,
    fit_attribute,
    fit_measures,
    fit_plane,
    fit_succession,
    slerp,
)
from seqvae.objective import Posterior


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# -------------------------------------------------------------------------------------------- slerp


def test_slerp_ends_exactly_and_runs_along_the_circle() -> None:
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert torch.equal(slerp(a, b, 0), a) and torch.equal(slerp(a, b, 1), b)
    assert slerp(a, b, 0.5).tolist() == pytest.approx([2**-0.5, 2**-0.5], abs=1e-6)
    third = [math.cos(math.pi / 6), math.sin(math.pi / 6)]
    assert slerp(a, b, 1 / 3).tolist() == pytest.approx(third, abs=1e-6)
    assert slerp(2 * a, 4 * b, 0.5).tolist() == pytest.approx([3 * 2**-0.5] * 2, abs=1e-6)  # norms 2, 3, 4
    ends = noise(2, 7, 16)
    for t in (0, 1):
        assert torch.equal(slerp(ends[0], ends[1], t), ends[t])


def test_slerp_moves_angle_and_norm_evenly() -> None:
    a, b = 3 * noise(5, 32), noise(5, 32, seed=1)
    path = torch.stack([slerp(a, b, t / 8) for t in range(9)])
    steps = torch.linspace(0, 1, 9)[:, None]
    norms = a.norm(dim=1) * (1 - steps) + b.norm(dim=1) * steps
    torch.testing.assert_close(path.norm(dim=2), norms, atol=1e-4, rtol=1e-5)
    turns = torch.acos(torch.cosine_similarity(path[1:], path[:-1], dim=2))
    torch.testing.assert_close(turns, turns.mean(0).expand_as(turns), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("t", [0.0, 1e-6, 0.25, 0.5, 1.0])
def test_slerp_between_degenerate_ends_is_the_straight_line(t: float) -> None:
    a, zero = noise(4, 8), torch.zeros(4, 8)
    near = a * (1 + 1e-6) + 1e-7
    for b, exact in ((a, True), (-a, True), (3 * a, True), (-2 * a, True), (zero, True), (near, False)):
        for one, other in ((a, b), (b, a)):
            found = slerp(one, other, t)
            assert found.isfinite().all()
            torch.testing.assert_close(
                found, (1 - t) * one + t * other, atol=1e-5 if exact else 1e-4, rtol=1e-5
            )
    assert not slerp(zero, zero, t).any()
    tiny = slerp(a * 1e-30, a.flip(0) * 1e-30, t)  # the product of the norms underflows
    assert tiny.isfinite().all()


def test_slerp_of_a_batch_is_that_of_its_rows() -> None:
    a, b = noise(6, 8), noise(6, 8, seed=1)
    b[1], b[2], b[3] = a[1], -a[2], 0.0
    whole = slerp(a, b, 0.3)
    for row in range(6):
        torch.testing.assert_close(whole[row], slerp(a[row], b[row], 0.3), atol=1e-6, rtol=0)


# -------------------------------------------------------------------------- the aggregate posterior


def aggregate(posterior: Posterior) -> MixtureSameFamily:
    mean, scale = posterior.mean.double(), (0.5 * posterior.logvar.double()).exp()
    return MixtureSameFamily(Categorical(torch.ones(len(mean))), Independent(Normal(mean, scale), 1))


@pytest.mark.parametrize("chunk", [1, 7, 1024])
def test_the_aggregates_density_is_that_of_torch(chunk: int) -> None:
    posterior = Posterior(noise(50, 6), noise(50, 6, seed=1) - 1)
    z = 2 * noise(40, 6, seed=2)
    expected = aggregate(posterior).log_prob(z.double())
    found = aggregate_log_density(z, posterior, chunk)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-6)


def test_the_density_survives_narrow_posteriors_far_apart() -> None:
    posterior = Posterior(1000 * noise(20, 32), torch.full((20, 32), -12.0))
    z = posterior.sample(noise(20, 32, seed=1))
    expected = aggregate(posterior).log_prob(z.double())
    torch.testing.assert_close(aggregate_log_density(z, posterior).double(), expected, atol=1e-2, rtol=1e-6)


def test_identical_posteriors_share_nothing_with_what_they_encode() -> None:
    posterior = Posterior(noise(1, 12).expand(300, 12), noise(1, 12, seed=1).expand(300, 12))
    found = divergences(posterior, noise(300, 12, seed=2))
    assert found.mi == pytest.approx(0, abs=1e-4)
    assert found.kl == pytest.approx(posterior.kl()[0].sum().item(), rel=1e-6)
    assert found.active == 0


def test_posteriors_apart_tell_the_logarithm_of_their_number() -> None:
    for scale, logvar in ((10.0, -6.0), (300.0, -10.0)):
        posterior = Posterior(scale * noise(64, 12), torch.full((64, 12), logvar))
        found = divergences(posterior, noise(64, 12, seed=1))
        assert found.mi == pytest.approx(math.log(64), abs=1e-3)
        assert found.kl == pytest.approx(posterior.kl().sum(1).mean().item(), rel=1e-6)
        assert found.active == 12


def test_pairs_of_posteriors_tell_which_pair() -> None:
    mean = (20 * noise(32, 5)).repeat_interleave(2, 0)
    found = divergences(Posterior(mean, torch.full((64, 5), -4.0)), noise(64, 5, seed=1))
    assert found.mi == pytest.approx(math.log(32), abs=1e-3)


def test_active_units_are_those_whose_mean_varies_by_a_hundredth() -> None:
    signs = torch.tensor([1.0, -1.0]).repeat(50)[:, None]  # variance of signs * s is s^2
    mean = signs * torch.tensor([0.0, 0.0999, 0.1001, 3.0]) + torch.tensor([9.0, 0.0, 0.0, 0.0])
    assert divergences(Posterior(mean, torch.zeros(100, 4)), noise(100, 4)).active == 2


# -------------------------------------------------------------------------------- mixtures and chains


def uniform(n: int, seed: int = 1) -> Tensor:
    return torch.rand(n, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("told", [torch.zeros(40_000, 1), torch.zeros(40_000, 0)])
def test_a_mixture_samples_its_components_alike(told: Tensor) -> None:
    """With a condition that all share, and without any."""
    n, means = len(told), torch.tensor([[-90.0, 0.0], [0.0, 1.0], [90.0, -5.0]])
    scales = torch.tensor([[2.0, 0.5], [0.1, 3.0], [1.0, 1.0]])
    z = Mixture(means, scales, told[:3]).sample(uniform(n), noise(n, 2), told)
    which = (z[:, :1] - means[:, 0]).abs().argmin(1)
    # All bounds are 4 standard errors: odds of 6e-5 each, 1e-3 for the eighteen of them.
    for c in range(3):
        rows = z[which == c].double()
        count = len(rows)
        assert abs(count / n - 1 / 3) < 4 * (2 / 9 / n) ** 0.5
        assert ((rows.mean(0) - means[c]).abs() < 4 * scales[c] / count**0.5).all()
        assert ((rows.std(0) - scales[c]).abs() < 4 * scales[c] / (2 * count) ** 0.5).all()
        assert abs(rows.T.corrcoef()[0, 1]) < 4 / count**0.5


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_a_uniform_picks_among_the_components_that_fit(kind: torch.dtype) -> None:
    conditions = torch.tensor([[3, 4], [4, 4], [3, 4], [3, 8], [3, 4], [4, 4]])
    mixture = Mixture(torch.arange(6.0)[:, None], torch.zeros(6, 1), conditions.float())
    last = 1 - torch.finfo(kind).eps / 2  # the largest number below 1
    cases = {
        (3, 4): ([0.0, 0.33, 0.34, 0.66, 0.67, last], [0, 0, 2, 2, 4, 4]),
        (4, 4): ([0.0, 0.499, 0.5, last], [1, 1, 5, 5]),
        (3, 8): ([0.0, last], [3, 3]),
        (8, 4): ([0.0, 0.16, 0.17, 0.5, 0.83, 0.84, last], [0, 0, 1, 3, 4, 5, 5]),  # none fits, so all may
    }
    for told, (at, expected) in cases.items():
        given = torch.tensor(at, dtype=kind)
        z = mixture.sample(given, torch.zeros(len(at), 1), torch.tensor([told]).expand(len(at), -1))
        assert z[:, 0].tolist() == expected, told


def test_a_mixtures_density_is_that_of_the_components_that_fit() -> None:
    """As torch has it of those alone; told what none is told, of all."""
    means, scales = noise(6, 3), noise(6, 3, seed=1).exp()
    mixture = Mixture(means, scales, torch.tensor([[3.0], [4.0], [3.0], [2.0], [3.0], [4.0]]))
    z = 2 * noise(40, 3, seed=2)
    for kind, own in ((2, [3]), (3, [0, 2, 4]), (4, [1, 5]), (5, [0, 1, 2, 3, 4, 5])):  # 5 is told to none
        expected = aggregate(Posterior(means[own], 2 * scales[own].log())).log_prob(z.double())
        found = mixture.log_density(z, torch.tensor([[kind]])).double()
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


def test_the_largest_uniform_picks_the_last_component_of_any_number() -> None:
    last = torch.tensor([1 - 2**-24])
    for count in range(1, 3000, 7):
        mixture = Mixture(torch.arange(float(count))[:, None], torch.zeros(count, 1), torch.zeros(count, 0))
        assert mixture.sample(last, torch.zeros(1, 1), torch.zeros(1, 0)).item() == count - 1


def test_a_row_of_a_mixture_depends_on_its_own_inputs_alone() -> None:
    conditions = torch.arange(100)[:, None] % 7
    mixture = Mixture(noise(100, 16), noise(100, 16, seed=1).exp(), conditions.float())
    told = torch.arange(33)[:, None] % 9  # two of which no component has
    given = uniform(33), noise(33, 16, seed=2), told
    whole = mixture.sample(*given)
    for row in range(33):
        assert torch.equal(mixture.sample(*(part[row : row + 1] for part in given)), whole[row : row + 1])


def test_a_planted_succession_is_found() -> None:
    matrix, bias = 0.3 * noise(4, 4, seed=5), torch.tensor([1.0, -2.0, 0.0, 0.5])
    factor = torch.tensor([[0.2, 0, 0, 0], [0.1, 0.1, 0, 0], [0, 0, 0.3, 0], [0.0, 0.1, 0, 0.2]])
    planted = Succession(matrix, bias, factor, bias, factor)  # the last two are of no use to sample()
    z = noise(10_000, 4)
    found = fit_succession(z, planted.sample(z, noise(10_000, 4, seed=1)))
    # Estimates vary by at most 0.3 / sqrt(10,000) = 0.003: by 5 of these with odds of 6e-7, any of 36 2e-5.
    torch.testing.assert_close(found.matrix, matrix, atol=0.015, rtol=0)
    torch.testing.assert_close(found.bias, bias, atol=0.015, rtol=0)
    torch.testing.assert_close(found.factor @ found.factor.T, factor @ factor.T, atol=0.015, rtol=0)
    assert torch.equal(found.factor, found.factor.tril())


def test_points_are_preferred_by_what_they_gain_from_the_window_before() -> None:
    """In nats: log p(point | z) - log p(point), both as torch has them."""
    z, before = noise(3000, 4), noise(5, 4, seed=1)
    found = fit_succession(z, 0.6 * z.roll(1, 1) + 0.5 * noise(3000, 4, seed=2) + 1)
    points = 2 * noise(7, 4, seed=3)
    gained = torch.empty(5, 7)
    anyway = MultivariateNormal(found.mean, scale_tril=found.spread).log_prob(points)
    for row in range(5):
        centre = found.matrix @ before[row] + found.bias
        gained[row] = MultivariateNormal(centre, scale_tril=found.factor).log_prob(points) - anyway
    torch.testing.assert_close(found.preference(before, points), gained, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.mean, torch.full((4,), 1.0), atol=0.06, rtol=0)  # five standard errors


def test_a_preference_weighs_components_that_fit_and_no_others() -> None:
    mixture = Mixture(torch.arange(4.0)[:, None], torch.zeros(4, 1), torch.tensor([[0.0], [0], [1], [0]]))
    prefer = torch.tensor([[0.0, math.log(3), 99.0, -torch.inf]]).expand(4000, -1)
    z = mixture.sample(uniform(4000), torch.zeros(4000, 1), torch.zeros(4000, 1), prefer)[:, 0]
    assert set(z.tolist()) == {0.0, 1.0}
    assert z.mean().item() == pytest.approx(0.75, abs=4 * (0.75 * 0.25 / 4000) ** 0.5)  # odds 6e-5
    even = mixture.sample(uniform(50), torch.zeros(50, 1), torch.zeros(50, 1))
    assert torch.equal(
        even, mixture.sample(uniform(50), torch.zeros(50, 1), torch.zeros(50, 1), 7 * torch.ones(50, 4))
    )


def test_a_succession_without_noise_is_followed_exactly() -> None:
    z = noise(500, 3)
    found = fit_succession(z, z.roll(1, 1) + 7, ridge=0.0)
    again = found.sample(z, torch.zeros(500, 3))
    torch.testing.assert_close(again, z.roll(1, 1) + 7, atol=1e-4, rtol=0)


def test_a_succession_of_few_pairs_still_has_a_factor() -> None:
    found = fit_succession(noise(2, 16), noise(2, 16, seed=1))
    assert all(part.isfinite().all() for part in found)


# ------------------------------------------------------------------------------------------ attributes


def kinds(count: int = 4000, extra: float = 0.5) -> tuple[Posterior, Posterior]:
    """Means that differ in dimension 0 by 2; what they share varies much in 1, and with it 0 varies too.

    Of the second kind dimension 2 has the standard deviation `extra`, of the first 0.5.
    """
    eps = noise(2 * count, 3, seed=1)
    mean = eps * torch.tensor([0.5, 3.0, 0.5])
    mean[:, 0] += 0.5 * mean[:, 1]
    mean[count:, 0] += 2
    mean[count:, 2] *= extra / 0.5
    logvar = torch.full_like(mean, math.log(0.25))
    return Posterior(mean[:count], logvar[:count]), Posterior(mean[count:], logvar[count:])


def test_the_axis_is_the_linear_discriminant() -> None:
    """Exact: S^-1 d / (d S^-1 d) of the covariance the means were drawn with and the posteriors' variance."""
    attribute = fit_attribute(*kinds())
    weights = torch.diag(torch.tensor([0.5, 3.0, 0.5]))
    weights[0, 1] = 0.5 * 3.0
    within = weights @ weights.T + 0.25 * torch.eye(3)
    direction = torch.tensor([2.0, 0.0, 0.0])
    exact = torch.linalg.solve(within, direction)
    found = attribute.means[1] - attribute.means[0]
    torch.testing.assert_close(found, direction, atol=0.2, rtol=0)
    torch.testing.assert_close(attribute.axis, exact / (exact @ direction), atol=0.03, rtol=0)
    assert attribute.axis @ found == pytest.approx(1)
    first, second = kinds()
    assert attribute.place(first.mean).mean() == pytest.approx(-1, abs=1e-5)
    assert attribute.place(second.mean).mean() == pytest.approx(1, abs=1e-5)
    right = (attribute.place(second.mean) > 0).float().mean()
    assert right > 0.9 > (second.mean[:, 0] > 1).float().mean()  # what dimension 0 alone tells


@pytest.mark.parametrize("goal", [-1.1, -0.2, 0.4, 1.1])
def test_a_shift_brings_to_a_place_what_is_short_of_it(goal: float) -> None:
    attribute, z = fit_attribute(*kinds()), torch.cat([kind.mean[:50] for kind in kinds()])
    before, moved = attribute.place(z), attribute.shift(z, goal)
    short = before < goal if goal > 0 else before > goal
    assert short.any() and not short.all()
    torch.testing.assert_close(attribute.place(moved)[short], torch.full((len(z),), goal)[short])
    assert torch.equal(moved[~short], z[~short])
    direction = attribute.means[1] - attribute.means[0]  # kinds of one spread differ in nothing else
    step = moved - z
    torch.testing.assert_close(step, step[:, :1] / direction[0] * direction, atol=1e-5, rtol=1e-4)


def test_a_shift_takes_away_what_only_one_kind_has() -> None:
    """All of it from twice the spread on, none of it on the way to the kind that has it."""
    first, second = kinds(extra=4.0)
    attribute = fit_attribute(first, second)
    there, back = attribute.shift(first.mean, 1.0), attribute.shift(second.mean, -3.0)
    torch.testing.assert_close(there[:, 2].std(), first.mean[:, 2].std(), atol=0.02, rtol=0)
    share = math.sqrt((0.25 + 0.25) / (16 + 0.25))  # exact: of the posteriors' spreads with their noise
    assert (back[:, 2].std() / second.mean[:, 2].std()).item() == pytest.approx(share, rel=0.05)
    torch.testing.assert_close(back[:, 1], second.mean[:, 1], atol=0.1, rtol=0.02)
    part = attribute.shift(second.mean, -0.5)[:, 2].std()  # some are nearer than the whole way
    assert back[:, 2].std() < part < second.mean[:, 2].std()
    mild = fit_attribute(*kinds(extra=0.7))
    assert torch.equal(mild.maps, torch.zeros(2, 3, 3))


def test_what_a_line_cannot_tell_its_kinds_spread_does() -> None:
    """Thin frames: of the second kind, though past the first on the line between the means."""
    first, second = kinds(extra=4.0)
    attribute = fit_attribute(first, second)
    z = torch.cat((first.mean[:50], second.mean[:50]))
    odds = [
        MultivariateNormal(mean, scale_tril=factor).log_prob(z)
        for mean, factor in zip(attribute.means, attribute.factors, strict=True)
    ]
    torch.testing.assert_close(attribute.belongs(z, 1), (odds[1] - odds[0]).sigmoid(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(attribute.belongs(z, 0) + attribute.belongs(z, 1), torch.ones(100))
    thin = torch.tensor([[-2.0, 0.0, 6.0]])
    assert attribute.place(thin) < -1 and attribute.belongs(thin, 1) > 0.99
    assert attribute.shift(thin, -1.0)[0, 2].abs() < 1.5


def test_few_things_share_one_covariance() -> None:
    """Three of a kind vary in two dimensions at most: their maps are nearly none all the same."""
    z = noise(6, 40, seed=5)
    few = (Posterior(part, torch.full_like(part, -8.0)) for part in z.split(3))
    assert torch.equal(fit_attribute(*few).maps, torch.zeros(2, 40, 40))


def test_nothing_moves_at_scale_0_nor_where_the_kinds_are_one() -> None:
    first, second = kinds(50)
    assert torch.equal(fit_attribute(first, second).shift(first.mean, 0.0), first.mean)
    assert torch.allclose(fit_attribute(first, first).shift(second.mean, 1.0), second.mean, atol=1e-5)


def test_a_measure_is_a_way_along_which_it_rises() -> None:
    """Dimension 1 moves with dimension 0, of which alone the values are: the way has both, the axis one."""
    z = noise(20_000, 4, seed=8)
    z[:, 1] = 0.6 * z[:, 0] + 0.8 * z[:, 1]
    values = 3 * z[:, 0] + 10
    attribute = fit_measures(z, {"sum": values}, shrinkage=1e-6)["sum"]
    assert attribute.measure == "sum" and attribute.factors is None and attribute.maps is None
    assert attribute.deviations == pytest.approx({"sum": float(values.std(correction=0))})
    torch.testing.assert_close(attribute.way, torch.tensor([1.0, 0.6, 0, 0]), atol=0.03, rtol=0)
    torch.testing.assert_close(attribute.place(z), (values - values.mean()) / values.std(), atol=0.01, rtol=0)
    moved = attribute.shift(z, 2.0)
    short = attribute.place(z) < 2
    torch.testing.assert_close(moved[short][:, 0], torch.full((int(short.sum()),), 2.0), atol=0.03, rtol=0)
    assert torch.equal(moved[~short], z[~short])


@pytest.mark.parametrize("method", ["regression", "difference"])
def test_orthogonal_ways_leave_the_other_measures(method: str) -> None:
    """Two numbers that go together: along the one's own way the other rises by their correlation, 0.6."""
    z = noise(20_000, 4, seed=8)
    z[:, 3] = 0.5 * z[:, 0] + 0.5**0.5 * z[:, 3]  # tells nothing new, and goes along
    values = {"one": 5 * z[:, 0], "other": 0.6 * z[:, 0] + 0.8 * z[:, 1] - 2}
    plain = fit_measures(z, values, method, shrinkage=1e-6)
    apart = fit_measures(z, values, method, orthogonal=True, shrinkage=1e-6)
    for found, beside in ((plain, 0.6), (apart, 0.0)):
        for own, other in (("one", "other"), ("other", "one")):
            start = torch.zeros(1, 4)
            there = start + found[own].way
            assert found[own].place(there) - found[own].place(start) == pytest.approx(1, abs=1e-4)
            assert found[other].place(there) - found[other].place(start) == pytest.approx(beside, abs=0.03)
    # By hand: dimension 0 rises by 1 and dimension 3 with it; for the other to stay, 1 falls by 0.6 / 0.8.
    torch.testing.assert_close(apart["one"].way, torch.tensor([1, -0.75, 0, 0.5]), atol=0.05, rtol=0)


def test_a_difference_leads_from_the_quarter_that_has_least() -> None:
    z = noise(400, 3, seed=4)
    values = z[:, 0] + 0.1 * noise(400, seed=5)
    way = fit_measures(z, {"it": values}, "difference")["it"].way
    order = values.argsort()
    exact = z[order[-100:]].mean(0) - z[order[:100]].mean(0)
    assert torch.cosine_similarity(way, exact, dim=0) == pytest.approx(1, abs=1e-5)
    with pytest.raises(ValueError, match="regression or difference, not guess"):
        fit_measures(z, {"it": values}, "guess")


def test_a_plane_shows_the_two_widest_directions() -> None:
    turn = torch.linalg.qr(noise(5, 5, seed=2)).Q
    z = noise(5000, 5, seed=3) * torch.tensor([0.1, 3.0, 0.1, 1.5, 0.1]) @ turn + 7
    plane = fit_plane(z)
    torch.testing.assert_close((plane.axes.T @ turn.T).abs(), torch.eye(5)[[1, 3]], atol=0.02, rtol=0)
    assert plane.explained == pytest.approx((9 + 2.25) / (9 + 2.25 + 0.03), abs=0.002)
    assert plane.project(z).mean(0).abs().max() < 1e-4
    assert plane.axes.gather(0, plane.axes.abs().argmax(0, keepdim=True)).min() > 0
    assert torch.equal(fit_plane(-z).axes, plane.axes)
    assert fit_plane(z[:, :1]).project(z[:, :1]).shape == (5000, 2)


def test_a_square_has_its_corners_and_its_sides() -> None:
    corners = list(noise(4, 6, seed=1))
    for at, corner in zip(((0, 0), (1, 0), (0, 1), (1, 1)), corners, strict=True):
        found = bilinear(corners, *at)
        assert found is not None and torch.equal(found, corner)
    above, left = bilinear(corners, 0.3, 0), bilinear(corners, 0, 0.3)
    assert above is not None and torch.equal(above, slerp(corners[0], corners[1], 0.3))
    assert left is not None and torch.equal(left, slerp(corners[0], corners[2], 0.3))
    lacking = [None, *corners[1:]]
    alone = bilinear(lacking, 0.4, 0)
    assert alone is not None and torch.equal(alone, corners[1]) and bilinear(lacking, 0, 0) is None
    assert bilinear([None] * 4, 0.5, 0.5) is None
