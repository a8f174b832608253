"""The KL, schedules and objectives against numbers worked out by hand and against torch.distributions."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from seqvae.divergence import (
    Critic,
    decomposition,
    density_ratio,
    disentangled_prior,
    importance_loss,
    maximum_mean_discrepancy,
)
from seqvae.objective import PENALTIES, Elbo, Posterior, Terms, schedule


def posterior(*pairs: tuple[float, float]) -> Posterior:
    """A batch of one with (mean, logvar) for each dimension."""
    mean, logvar = torch.tensor(pairs, dtype=torch.float32).T[:, None]
    return Posterior(mean, logvar)


def exact_kl(mean: float, logvar: float) -> float:
    """In double precision, with the series where the difference would cancel."""
    if abs(logvar) < 1e-3:
        return 0.5 * (mean * mean + logvar**2 / 2 + logvar**3 / 6 + logvar**4 / 24)
    return 0.5 * (mean * mean + math.expm1(logvar) - logvar)


# ---------------------------------------------------------------------------------------------- KL


def test_kl_of_known_gaussians() -> None:
    kl = posterior((0, 0), (1, 0), (-2, 0), (0, math.log(4)), (0, -math.log(4))).kl()
    assert kl.shape == (1, 5)
    expected = [0, 0.5, 2, 0.5 * (3 - math.log(4)), 0.5 * (math.log(4) - 0.75)]
    assert kl[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_kl_is_that_of_torch_and_of_monte_carlo() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, logvar = torch.randn(2, 3, 4, generator=generator)
    q, prior = Normal(mean.double(), (0.5 * logvar).exp().double()), Normal(0, 1)
    kl = Posterior(mean, logvar).kl()
    torch.testing.assert_close(kl.double(), kl_divergence(q, prior), atol=1e-6, rtol=1e-6)
    noise = torch.randn(40_000, 3, 4, generator=generator)
    z = Posterior(mean, logvar).sample(noise).double()
    draws = q.log_prob(z) - prior.log_prob(z)
    # Beyond 4 standard errors a right estimate falls with odds of 6e-5, any of 12 with 8e-4.
    assert ((draws.mean(0) - kl).abs() < 4 * draws.std(0) / 200).all()


def test_samples_have_the_posteriors_moments() -> None:
    q = posterior((3.0, math.log(0.25)), (-1.0, math.log(4.0)))
    z = q.sample(torch.randn(40_000, 2, generator=torch.Generator().manual_seed(0)))
    # 4 standard errors: 6e-5 for each of two means and two variances (that of a variance is 2 v^2 / n).
    assert ((z.mean(0) - torch.tensor([3.0, -1.0])).abs() < 4 * torch.tensor([0.5, 2.0]) / 200).all()
    assert ((z.var(0) / torch.tensor([0.25, 4.0]) - 1).abs() < 4 * 2**0.5 / 200).all()
    assert (q.sample(torch.zeros(1, 2)) == q.mean).all()


@pytest.mark.parametrize("logvar", [-100, -20, -1e-2, -1e-3, -1e-4, 1e-30, 1e-7, 1e-4, 1e-3, 0.1, 20, 80])
@pytest.mark.parametrize("mean", [0.0, 1e-3, 30.0])
def test_kl_keeps_its_digits(mean: float, logvar: float) -> None:
    q = posterior((mean, logvar))
    exact = exact_kl(q.mean.item(), q.logvar.item())
    # float32 rounds expm1(logvar) and logvar by 6e-8 of themselves before they cancel.
    assert q.kl().item() == pytest.approx(exact, rel=2e-6, abs=1e-7 * min(abs(logvar), 1))
    assert q.kl().item() >= -1e-7 * min(abs(logvar), 1)


def test_kl_is_computed_in_float32_whatever_comes_in() -> None:
    for kind in (torch.bfloat16, torch.float16):
        q = posterior((0.0, -0.1396484375), (0.5, 12.0), (-0.0078125, 2**-8))  # all exact in both kinds
        low = Posterior(q.mean.to(kind), q.logvar.to(kind))
        assert low.kl().dtype == torch.float32 and torch.equal(low.kl(), q.kl())
    assert q.kl()[0, 0].item() == pytest.approx(
        exact_kl(0.0, -0.1396484375), rel=1e-6
    )  # 0.0046: 0 in bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(q.kl(), low.kl()) and q.kl().dtype == torch.float32


def test_gradients_of_the_kl() -> None:
    mean, logvar = (
        torch.tensor([[0.5, -2.0]], requires_grad=True),
        torch.tensor([[1.0, 0.0]], requires_grad=True),
    )
    Posterior(mean, logvar).kl().sum().backward()
    assert mean.grad is not None and mean.grad.tolist() == [[0.5, -2.0]]
    assert logvar.grad is not None and logvar.grad[0].tolist() == pytest.approx(
        [0.5 * math.expm1(1), 0], abs=1e-6
    )


# ---------------------------------------------------------------------------------------- schedules


@pytest.mark.parametrize(
    ("kind", "step", "warmup", "cycle", "share"),
    [
        ("constant", 0, 100, 0, 1),
        ("constant", 7, 100, 50, 1),
        ("linear", 0, 100, 0, 0),
        ("linear", 25, 100, 0, 0.25),
        ("linear", 99, 100, 0, 0.99),
        ("linear", 100, 100, 0, 1),
        ("linear", 10**9, 100, 0, 1),
        ("linear", 0, 0, 0, 1),
        ("linear", 130, 100, 120, 1),  # a cycle is cyclical's alone
        ("sigmoid", 0, 100, 0, 1 / (1 + math.e**6)),
        ("sigmoid", 50, 100, 0, 0.5),
        ("sigmoid", 75, 100, 0, 1 / (1 + math.e**-3)),
        ("sigmoid", 100, 100, 0, 1),
        ("cyclical", 0, 50, 200, 0),
        ("cyclical", 40, 50, 200, 0.8),
        ("cyclical", 50, 50, 200, 1),
        ("cyclical", 199, 50, 200, 1),
        ("cyclical", 200, 50, 200, 0),
        ("cyclical", 625, 50, 200, 0.5),
        ("cyclical", 30, 40, 0, 0.75),  # without a cycle it rises once
        ("cyclical", 90, 40, 0, 1),
    ],
)
def test_schedules(kind: str, step: int, warmup: int, cycle: int, share: float) -> None:
    assert schedule(kind, step, warmup, cycle) == pytest.approx(share, abs=1e-12)


def test_a_schedule_of_no_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown schedule 'cosine'; known: constant, linear"):
        schedule("cosine", 0, 1)


# --------------------------------------------------------------------------------------- objectives

NLL = torch.tensor([10.0, 30.0])
SHIFTS = Posterior(torch.tensor([[1.0, 1.0], [2.0, 2.0]]), torch.zeros(2, 2))  # KL 1 and 4 nats a sequence


def terms(step: int, **settings: object) -> list[float]:
    found = Elbo(**settings)(NLL, SHIFTS, step)  # type: ignore[arg-type]
    return [found.loss.item(), found.nll.item(), found.kl.item(), found.weight]


def test_the_negative_elbo_and_its_weights() -> None:
    assert terms(0) == [22.5, 20, 2.5, 1]
    assert terms(0, beta=0.2) == pytest.approx([20.5, 20, 2.5, 0.2])
    assert terms(25, beta=2.0, warmup=100) == [21.25, 20, 2.5, 0.5]
    assert terms(0, beta=2.0, warmup=100) == [20, 20, 2.5, 0]
    assert terms(1025, warmup=100, anneal="cyclical", cycle=500) == [20.625, 20, 2.5, 0.25]


def test_free_bits_cost_nothing_in_each_sequence() -> None:
    assert terms(0, free_bits=1.0) == [21.5, 20, 2.5, 1]  # (0 + 3) / 2
    assert terms(0, free_bits=3.0) == [20.5, 20, 2.5, 1]  # (0 + 1) / 2, where the mean less 3 would be none
    assert terms(0, free_bits=9.0, beta=5.0) == [20, 20, 2.5, 5]


@pytest.mark.parametrize(
    ("over", "penalty"), [("sequence", (0.0 + 3.5) / 2), ("batch", 3.5 - 2), ("dimension", (2.5 - 1) + 0.0)]
)
def test_free_bits_are_of_a_sequence_a_batch_or_a_dimension(over: str, penalty: float) -> None:
    """KL of two sequences (1.5, 5.5 nats; 3.5 in the mean) in two dimensions (2.5 and 1 in the mean); 2 nats
    free: of dimensions one each."""
    kl = torch.tensor([[0.5, 1.0], [4.5, 1.0]])
    posterior = Posterior((2 * kl).sqrt(), torch.zeros(2, 2))
    terms = Elbo(free_bits=2, free_over=over)(torch.zeros(2), posterior, 0)
    assert terms.loss.item() == pytest.approx(penalty, rel=1e-6)
    assert terms.kl.item() == pytest.approx(3.5, rel=1e-6)


def test_capacity_is_a_target_that_grows() -> None:
    assert terms(0, capacity=4.0) == [21.5, 20, 2.5, 1]
    assert terms(0, capacity=1.0, beta=3.0) == [24.5, 20, 2.5, 3]
    assert terms(50, capacity=4.0, beta=3.0, warmup=100) == [21.5, 20, 2.5, 3]  # |2.5 - 2|
    assert terms(0, capacity=0.0, beta=3.0, warmup=100) == [27.5, 20, 2.5, 3]


def gradient(elbo: Elbo, scale: float, step: int = 0) -> Tensor:
    """Of the loss by the means of two sequences."""
    mean = scale * SHIFTS.mean.clone()
    mean.requires_grad_()
    elbo(NLL, Posterior(mean, SHIFTS.logvar), step).loss.backward()
    assert mean.grad is not None
    return mean.grad


def test_gradients_of_the_penalties() -> None:
    means = SHIFTS.mean / 2  # of a mean over two sequences
    assert torch.equal(gradient(Elbo(), 1.0), means)
    assert torch.equal(gradient(Elbo(beta=0.5, warmup=4), 1.0, step=1), means / 8)
    assert not gradient(Elbo(free_bits=9.0), 1.0).any()
    partly = gradient(Elbo(free_bits=2.0), 1.0)  # only the second is past its free bits
    assert not partly[0].any() and torch.equal(partly[1], means[1])
    assert torch.equal(gradient(Elbo(capacity=1.0), 1.0), means)  # above the capacity the KL is pushed down
    assert torch.equal(gradient(Elbo(capacity=4.0), 1.0), -means)  # below it up


def test_figures_carry_no_gradient() -> None:
    nll, mean = NLL.clone().requires_grad_(), SHIFTS.mean.clone().requires_grad_()
    found = Elbo()(nll, Posterior(mean, SHIFTS.logvar), 0)
    assert found.loss.requires_grad and not found.nll.requires_grad and not found.kl.requires_grad


@pytest.mark.parametrize("over", ["sequence", "batch", "dimension"])
def test_without_penalty_samples_or_prior_nothing_is_added_to_a_bit(over: str) -> None:
    """Loss and gradients are those of the formula alone, whatever else is given."""
    given, elbo = Given(), Elbo(beta=0.7, warmup=10, free_bits=0.3, free_over=over)
    kl = given.posterior.kl()
    if over == "dimension":
        beyond = (kl.mean(0) - 0.3 / 3).clamp(min=0).sum()
    else:
        beyond = ((kl.sum(1).mean() if over == "batch" else kl.sum(1)) - 0.3).clamp(min=0).mean()
    expected = given.nll.mean() + 0.7 * 0.5 * beyond
    plain = elbo(given.nll, given.posterior, 5)
    full = elbo(given.nll, given.posterior, 5, given.z, critic=Critic(3, 8), size=100)
    assert torch.equal(plain.loss, expected) and torch.equal(full.loss, expected)
    assert torch.equal(plain.nll, given.nll.mean()) and torch.equal(plain.kl, kl.sum(1).mean())
    for one, two, exact in zip(
        *(given.slopes(loss) for loss in (plain.loss, full.loss, expected)), strict=True
    ):
        assert torch.equal(one, exact) and torch.equal(two, exact)


# --------------------------------------------------------------------------------------- penalties


class Given:
    """What an objective is of, everything from mean and logvar (B, 3): K * B samples, the nll of each."""

    def __init__(self, samples: int = 1, batch: int = 20) -> None:
        generator = torch.Generator().manual_seed(0)
        mean, logvar = torch.randn(2, batch, 3, generator=generator)
        self.parameters = mean.requires_grad_(), (logvar - 1).requires_grad_()
        self.posterior = Posterior(*self.parameters)
        self.cube = self.posterior.sample(torch.randn(samples, batch, 3, generator=generator))
        self.z = self.cube.view(-1, 3)
        self.nll = 3 + (self.z * torch.tensor([1.0, -0.5, 2.0]) - 1).square().sum(1)
        torch.manual_seed(0)
        self.critic = Critic(3, width=16)

    def slopes(self, loss: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss, self.parameters, retain_graph=True)

    def terms(self, elbo: Elbo, prior: Tensor | None = None) -> Terms:
        torch.manual_seed(1)
        return elbo(self.nll, self.posterior, 0, self.z, prior, self.critic, 100)

    def penalty(self, name: str) -> Tensor:
        torch.manual_seed(1)
        return {
            "tc": lambda: decomposition(self.z, self.posterior, 100).tc,
            "factor": lambda: density_ratio(self.critic(self.z)),
            "mmd": lambda: maximum_mean_discrepancy(self.z, torch.randn(len(self.z), 3)),
            "dip-i": lambda: disentangled_prior(self.posterior, "i"),
            "dip-ii": lambda: disentangled_prior(self.posterior, "ii"),
        }[name]()


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_a_penalty_is_added_with_its_strength(name: str, beta: float) -> None:
    given = Given()
    found = given.terms(Elbo(beta=beta, penalty=name, strength=2.5))
    plain = given.terms(Elbo(beta=beta))
    expected = plain.loss + 2.5 * given.penalty(name)
    torch.testing.assert_close(found.loss, expected)
    assert found.loss != plain.loss and found.loss.shape == ()
    assert (found.nll, found.kl, found.weight) == (plain.nll, plain.kl, beta)
    for one, other in zip(given.slopes(found.loss), given.slopes(expected), strict=True):
        torch.testing.assert_close(one, other)


def test_the_schedule_is_of_the_kl_alone() -> None:
    given = Given()
    elbo = Elbo(penalty="dip-i", strength=2.0, warmup=100)
    found = elbo(given.nll, given.posterior, 0)
    torch.testing.assert_close(found.loss, given.nll.mean() + 2 * given.penalty("dip-i"))


def test_the_critics_weights_learn_nothing_from_the_objective() -> None:
    given = Given()
    given.terms(Elbo(penalty="factor", strength=1.0)).loss.backward()
    assert all(weight.grad is None and weight.requires_grad for weight in given.critic.parameters())


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("tc", "needs z"),
        ("factor", "needs z"),
        ("mmd", "needs z"),
        ("wae", "unknown penalty 'wae'; known: tc, factor, mmd, dip-i, dip-ii"),
    ],
)
def test_what_a_penalty_needs_it_asks_for(name: str, fault: str) -> None:
    given = Given()
    with pytest.raises(ValueError, match=fault):
        Elbo(penalty=name, strength=1.0)(given.nll, given.posterior, 0, critic=given.critic, size=100)


def test_a_critic_and_the_size_of_the_data_set_are_asked_for_too() -> None:
    given = Given()
    with pytest.raises(ValueError, match="needs a critic"):
        Elbo(penalty="factor", strength=1.0)(given.nll, given.posterior, 0, given.z)
    with pytest.raises(ValueError, match="a data set of 0"):
        Elbo(penalty="tc", strength=1.0)(given.nll, given.posterior, 0, given.z)


# ------------------------------------------------------------------------ learned priors and samples


def test_with_a_learned_prior_the_kl_is_that_of_the_sample() -> None:
    given = Given()
    shift = torch.tensor(0.4, requires_grad=True)
    prior = Normal(shift, 2.0).log_prob(given.z).sum(1)
    scale = (0.5 * given.posterior.logvar).exp()
    kl = Normal(given.posterior.mean, scale).log_prob(given.z).sum(1) - prior
    assert (kl < 0).any() and (kl > 0).any()
    for settings, excess in (
        ({}, kl.mean()),
        ({"free_bits": 0.5}, (kl - 0.5).clamp(min=0).mean()),
        ({"free_bits": 0.5, "free_over": "batch"}, kl.mean() - 0.5),
        ({"free_over": "dimension"}, kl.mean()),
        ({"capacity": 9.0}, 9 - kl.mean()),
    ):
        found = given.terms(Elbo(beta=0.5, **settings), prior)  # type: ignore[arg-type]
        expected = given.nll.mean() + 0.5 * excess
        torch.testing.assert_close(found.loss, expected)
        torch.testing.assert_close(found.kl, kl.mean())
        assert not found.kl.requires_grad
        of = (*given.parameters, shift)
        for one, other in zip(
            torch.autograd.grad(found.loss, of, retain_graph=True),
            torch.autograd.grad(expected, of, retain_graph=True),
            strict=True,
        ):
            torch.testing.assert_close(one, other)


def test_a_learned_prior_needs_z_and_has_no_dimensions() -> None:
    given, prior = Given(), torch.zeros(20)
    with pytest.raises(ValueError, match="needs z"):
        Elbo()(given.nll, given.posterior, 0, prior=prior)
    with pytest.raises(ValueError, match="no KL of each dimension"):
        given.terms(Elbo(free_bits=1.0, free_over="dimension"), prior)


@pytest.mark.parametrize("gradient", ["iwae", "stl", "dreg"])
@pytest.mark.parametrize("learned", [False, True])
def test_several_samples_make_the_importance_weighted_bound(gradient: str, learned: bool) -> None:
    """The decoder had z as K * B rows: the loss and the gradients are those of K times B."""
    given, other = Given(samples=5), Given(samples=5)
    prior = [Normal(0.3, 1.5).log_prob(one.z).sum(1) if learned else None for one in (given, other)]
    found = given.terms(Elbo(samples=5, gradient=gradient), prior[0])
    cube = None if prior[1] is None else prior[1].view(5, 20)
    loss = importance_loss(other.nll.view(5, 20), other.cube, other.posterior, gradient, cube)
    torch.testing.assert_close(found.loss, loss)
    for one, two in zip(given.slopes(found.loss), other.slopes(loss), strict=True):
        torch.testing.assert_close(one, two)
    told = Normal(given.posterior.mean, (0.5 * given.posterior.logvar).exp()).log_prob(given.cube).sum(2)
    before = Normal(0.0, 1.0).log_prob(given.cube).sum(2) if cube is None else cube
    torch.testing.assert_close(found.kl, (told - before).mean())
    assert found.nll == given.nll.mean() and found.weight == 1
    assert not found.nll.requires_grad and not found.kl.requires_grad
    assert found.loss < found.nll + found.kl  # the bound is tighter than the ELBO of the same samples


@pytest.mark.parametrize(
    "settings",
    [
        {"beta": 0.5},
        {"warmup": 100},
        {"free_bits": 1.0},
        {"capacity": 1.0},
        {"penalty": "tc", "strength": 1.0},
    ],
)
def test_several_samples_know_no_weights(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="a bound of several samples takes beta 1"):
        Given(samples=5).terms(Elbo(samples=5, **settings))  # type: ignore[arg-type]


def test_several_samples_need_their_z() -> None:
    given = Given(samples=5)
    with pytest.raises(ValueError, match="needs z"):
        Elbo(samples=5)(given.nll, given.posterior, 0)
    assert (
        Elbo(samples=5, warmup=10)(given.nll, given.posterior, 10, given.z).weight == 1
    )  # when it has risen


@pytest.mark.parametrize(
    "elbo",
    [
        Elbo(free_bits=0.5),
        *(Elbo(penalty=name, strength=2.0) for name in PENALTIES),
        *(Elbo(samples=4, gradient=gradient) for gradient in ("iwae", "stl", "dreg")),
    ],
    ids=lambda elbo: elbo.penalty or f"{elbo.samples} {elbo.gradient}",
)
def test_objectives_compile_whole(elbo: Elbo) -> None:
    torch._dynamo.reset()
    one, other = Given(elbo.samples), Given(elbo.samples)

    def loss(given: Given, nll: Tensor, posterior: Posterior, z: Tensor) -> Tensor:
        return elbo(nll, posterior, 0, z, None, given.critic, 100).loss

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.manual_seed(1)
    found = compiled(one, one.nll, one.posterior, one.z)
    expected = other.terms(elbo).loss
    torch.testing.assert_close(found, expected)
    for slope, exact in zip(one.slopes(found), other.slopes(expected), strict=True):
        torch.testing.assert_close(slope, exact)
