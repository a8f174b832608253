"""Nats against torch.distributions in float64 or, where it has none, against enumeration and quadrature.

Of sequences also what counts: every stream of a note, stream 0 of END, no padding. Of pictures the bar for
values and gradients is 1e-5 of them and 1e-6 for each summed term.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, ContinuousBernoulli, Distribution, Laplace, Normal

from seqvae.likelihood import (
    COMPONENTS,
    LEAST_VARIANCE,
    LIKELIHOODS,
    LOGSCALE,
    NUMBERS,
    ROWS,
    categorical,
    continuous_bernoulli,
    continuous_bernoulli_mean,
    gaussian,
    gaussian_optimal,
    laplace,
    linear_categorical,
    logistic_mixture,
    logistic_mixture_mean,
    sequence_nll,
)

SIZES = (7, 5, 3)


@pytest.fixture
def scored() -> tuple[list[Tensor], Tensor, Tensor]:
    """Logits of 3 streams (4, 6, V), steps (4, 6, 3) with wild padding, lengths from END alone to all 6."""
    generator = torch.Generator().manual_seed(0)
    logits = [3 * torch.randn(4, 6, size, generator=generator) for size in SIZES]
    steps = torch.stack([torch.randint(size, (4, 6), generator=generator) for size in SIZES], -1)
    return logits, steps, torch.tensor([6, 3, 1, 2])


def test_categorical_is_that_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(4, 6, 9, generator=generator, dtype=torch.float64)
    target = torch.randint(9, (4, 6), generator=generator)
    expected = -Categorical(logits=logits).log_prob(target)
    torch.testing.assert_close(categorical(logits.float(), target).double(), expected, atol=1e-5, rtol=1e-6)


def test_categorical_of_equal_scores_is_the_log_of_their_number() -> None:
    for score in (0.0, 1e4, -1e4):
        nll = categorical(torch.full((3, 88), score), torch.tensor([0, 40, 87]))
        assert nll.tolist() == pytest.approx([math.log(88)] * 3, abs=1e-6)


def test_masked_scores_neither_count_nor_overflow() -> None:
    logits = torch.tensor([[0.0, 0.0, -1e4], [0.0, -1e4, -1e4]])
    assert categorical(logits, torch.tensor([1, 0])).tolist() == pytest.approx([math.log(2), 0], abs=1e-6)
    assert categorical(logits, torch.tensor([2, 1])).tolist() == pytest.approx([1e4 + math.log(2), 1e4])


def test_half_precision_scores_are_summed_in_float32() -> None:
    logits = torch.zeros(1, 100).bfloat16()
    assert categorical(logits, torch.tensor([0])).dtype == torch.float32
    assert categorical(logits, torch.tensor([0])).item() == pytest.approx(math.log(100), abs=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        nll = sequence_nll([logits[:, None]], torch.zeros(1, 1, 1, dtype=torch.int64), torch.tensor([1]))
    assert nll.dtype == torch.float32 and nll.item() == pytest.approx(math.log(100), abs=1e-6)


def linear(count: int, kind: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """layer (count, 2, 8), weight (50, 8), bias (50,) that learn, target (count, 2), a slope of the loss."""
    generator = torch.Generator().manual_seed(count)
    layer, weight, bias = (
        torch.randn(shape, generator=generator, dtype=kind).requires_grad_()
        for shape in ((count, 2, 8), (50, 8), (50,))
    )
    target = torch.randint(50, (count, 2), generator=generator)
    return layer, weight, bias, target, torch.randn(count, 2, generator=generator, dtype=kind)


def slopes(loss: Tensor, *of: Tensor) -> tuple[Tensor, ...]:
    return tuple(slope.double() for slope in torch.autograd.grad(loss, of))


@pytest.mark.parametrize("count", [1, 64, ROWS])
def test_linear_categorical_is_a_linear_layer_and_a_categorical(count: int) -> None:
    """Values and all three gradients, in blocks of rows that come out even and that do not."""
    layer, weight, bias, target, slope = linear(count)
    nll = linear_categorical(layer, weight, bias, target)
    exact = [part.detach().double().requires_grad_() for part in (layer, weight, bias)]
    expected = -Categorical(logits=exact[0] @ exact[1].T + exact[2]).log_prob(target)
    torch.testing.assert_close(nll.double(), expected, atol=1e-6, rtol=1e-5)
    found = slopes((nll * slope).sum(), layer, weight, bias)
    for one, other in zip(found, slopes((expected * slope).sum(), *exact), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_linear_categorical_under_autocast_sums_in_float32_what_bfloat16_scored() -> None:
    layer, weight, bias, target, slope = linear(64)
    with torch.autocast("cpu", torch.bfloat16):
        nll = linear_categorical(layer, weight, bias, target)
        plain = categorical(torch.nn.functional.linear(layer, weight, bias), target)
    assert nll.dtype == torch.float32
    torch.testing.assert_close(nll, plain)
    found, expected = (slopes((one * slope).sum(), layer, weight, bias) for one in (nll, plain))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=0.02 * other.abs().max().item(), rtol=0.02)


def test_linear_categorical_keeps_nothing_where_nothing_learns() -> None:
    layer, weight, bias, target, _ = (part.detach() for part in linear(3))
    nll = linear_categorical(layer, weight, bias, target)
    assert nll.grad_fn is None
    torch.testing.assert_close(nll, categorical(layer @ weight.T + bias, target))


def test_linear_categorical_may_be_differentiated_twice_over_but_not_to_the_second_order() -> None:
    layer, weight, bias, target, _ = linear(3)
    loss = linear_categorical(layer, weight, bias, target).square().sum()
    (one,) = torch.autograd.grad(loss, layer, retain_graph=True)
    (two,) = torch.autograd.grad(loss, layer, create_graph=True)
    torch.testing.assert_close(one, two)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        two.sum().backward()


def test_a_sequence_is_the_sum_of_its_notes_and_its_end(scored: tuple[list[Tensor], Tensor, Tensor]) -> None:
    logits, steps, lengths = scored
    for row, nll in enumerate(sequence_nll(logits, steps, lengths).tolist()):
        end = int(lengths[row]) - 1
        expected = -Categorical(logits=logits[0][row, end].double()).log_prob(steps[row, end, 0]).item()
        for t in range(end):
            for k in range(3):
                expected -= Categorical(logits=logits[k][row, t].double()).log_prob(steps[row, t, k]).item()
        assert nll == pytest.approx(expected, rel=1e-6)


def test_padding_and_the_other_columns_of_end_count_nothing(
    scored: tuple[list[Tensor], Tensor, Tensor],
) -> None:
    logits, steps, lengths = scored
    before = sequence_nll(logits, steps, lengths)
    counted = []
    for k in range(3):
        for t in range(6):
            changed = [scores.clone() for scores in logits]
            changed[k][:, t, 0] += 1
            counted.append(((sequence_nll(changed, steps, lengths) != before), t, k))
    for differs, t, k in counted:
        assert differs.tolist() == [t < length - (k > 0) for length in lengths.tolist()], (t, k)


def test_gradients_reach_what_counts_alone(scored: tuple[list[Tensor], Tensor, Tensor]) -> None:
    logits, steps, lengths = scored
    logits = [
        scores.masked_fill(torch.arange(scores.shape[2]) < 2, -1e4).requires_grad_() for scores in logits
    ]
    sequence_nll(logits, steps, lengths).sum().backward()
    for k, scores in enumerate(logits):
        assert scores.grad is not None and scores.grad.isfinite().all()
        place = torch.arange(6)[None]
        expected = place < lengths[:, None] - int(k > 0)
        assert not scores.grad[~expected].any()


# ----------------------------------------------------------------------------------------- pictures


def picture(name: str, batch: int, channels: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Parameters (B, P, H, W), standard normal, and a target (B, C, H, W) of levels with many 0 and 255."""
    generator = torch.Generator().manual_seed(channels)
    wide = LIKELIHOODS[name].width(channels)
    parameters = torch.randn(batch, wide, height, width, generator=generator)
    level = torch.randint(-40, 296, (batch, channels, height, width), generator=generator).clamp(0, 255)
    return parameters, level / 255


def exact(name: str, parameters: Tensor, target: Tensor) -> Tensor:
    """What `LIKELIHOODS[name].nll` must be, (B,) in float64."""
    raw, x = parameters.double(), target.double()
    if name == "logistic_mixture":
        return exact_mixture(raw, x, 256)
    if name == "bernoulli":
        found = Bernoulli(logits=raw, validate_args=False).log_prob(x)
    elif name == "continuous_bernoulli":
        found = ContinuousBernoulli(logits=raw).log_prob(x)
    elif name == "laplace":
        found = Laplace(raw, 0.1).log_prob(x)
    elif name == "gaussian":
        found = Normal(raw, 0.1).log_prob(x)
    elif name == "gaussian_optimal":
        found = Normal(raw, (raw - x).square().mean().sqrt()).log_prob(x)
    else:
        variance = raw[:, -1].mean((1, 2)).exp() + 1 / 255**2 / 12
        found = Normal(raw[:, :-1], variance.sqrt()[:, None, None, None]).log_prob(x)
    return -found.sum((1, 2, 3))


def exact_mixture(raw: Tensor, x: Tensor, levels: int) -> Tensor:
    """Pixel by pixel as in the docstring: differences of sigmoids, taken in whichever tail is the smaller."""
    channels, count = x.shape[1], {1: 3, 3: 10}[x.shape[1]]
    y, half = 2 * x - 1, 1 / (levels - 1)
    found = []
    for part in raw.split(count, 1):
        means, scales, slopes = part[:, 1:].split([channels, channels, count - 1 - 2 * channels], 1)
        total = part[:, 0]
        for c in range(channels):
            mean = means[:, c]
            if c == 1:
                mean = mean + slopes[:, 0].tanh() * y[:, 0]
            if c == 2:
                mean = mean + slopes[:, 1].tanh() * y[:, 0] + slopes[:, 2].tanh() * y[:, 1]
            scale = (7 * torch.tanh(scales[:, c] / 7)).exp()
            above, below = (y[:, c] + half - mean) / scale, (y[:, c] - half - mean) / scale
            sign = torch.where(above + below > 0, -1.0, 1.0)
            inner = ((sign * above).sigmoid() - (sign * below).sigmoid()).abs().log()
            inner = torch.where(x[:, c] == 0, F.logsigmoid(above), inner)
            total = total + torch.where(x[:, c] == 1, F.logsigmoid(-below), inner)
        found.append(total)
    weights = torch.stack([part[:, 0] for part in raw.split(count, 1)])
    return (weights.logsumexp(0) - torch.stack(found).logsumexp(0)).sum((1, 2))


def with_slope(nll: Tensor, of: Tensor) -> tuple[Tensor, Tensor]:
    """Nats and the gradient of a sum in which every example has another weight."""
    weights = 1 + torch.arange(len(nll), device=nll.device) % 3
    return nll.detach().double(), torch.autograd.grad((nll * weights).sum(), of)[0].double()


def leaf(parameters: Tensor) -> Tensor:
    return parameters.detach().clone().requires_grad_()


@pytest.mark.parametrize(("batch", "height", "width"), [(1000, 1, 1), (6, 5, 4)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_pictures_cost_what_their_distribution_says(
    name: str, channels: int, batch: int, height: int, width: int
) -> None:
    """Pixels on their own, where no sum hides an error, and pictures, where all must be summed."""
    parameters, target = picture(name, batch, channels, height, width)
    parameters, raw = leaf(parameters), leaf(parameters.double())
    nll = LIKELIHOODS[name].nll(parameters, target)
    assert nll.shape == (batch,) and nll.dtype == torch.float32
    terms = channels * height * width
    value, slope = with_slope(nll, parameters)
    expected, expected_slope = with_slope(exact(name, raw, target), raw)
    torch.testing.assert_close(value, expected, atol=1e-6 * terms, rtol=1e-5)
    torch.testing.assert_close(slope, expected_slope, atol=1e-6 * channels, rtol=1e-5)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_what_is_shown_is_the_mean(name: str) -> None:
    """Cut to [0, 1] where the raw output is a mean itself; that of mixtures has tests of its own."""
    parameters, _ = picture(name, 6, 3, 5, 4)
    raw = parameters.double()
    if name == "bernoulli":
        expected = Bernoulli(logits=raw).mean
    elif name == "continuous_bernoulli":
        expected = ContinuousBernoulli(logits=raw).mean
    elif name == "logistic_mixture":
        expected = logistic_mixture_mean(parameters, 3).double()
    else:
        expected = raw[:, :3].clamp(0, 1)
    shown = LIKELIHOODS[name].mean(parameters, 3).double()
    torch.testing.assert_close(shown, expected, atol=3e-7, rtol=0)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_half_precision_parameters_cost_what_they_do_in_float32(name: str) -> None:
    parameters, target = picture(name, 4, 3, 5, 4)
    nll, low = LIKELIHOODS[name].nll, parameters.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found, mean = nll(low, target), LIKELIHOODS[name].mean(low, 3)
    assert found.dtype == mean.dtype == torch.float32
    assert torch.equal(found, nll(low.float(), target))
    assert torch.equal(mean, LIKELIHOODS[name].mean(low.float(), 3))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_nothing_overflows(name: str, channels: int) -> None:
    """Parameters of -10^12, 0 and 10^12 in every mixture, beside black, greys and white."""
    generator = torch.Generator().manual_seed(0)
    wide = LIKELIHOODS[name].width(channels)
    parameters = 1e12 * torch.randint(-1, 2, (200, wide, 3, 2), generator=generator).float()
    parameters.requires_grad_()
    target = torch.randint(0, 6, (200, channels, 3, 2), generator=generator) / 5
    nll, mean = LIKELIHOODS[name].nll(parameters, target), LIKELIHOODS[name].mean(parameters, channels)
    assert nll.isfinite().all() and mean.shape == target.shape
    assert mean.min() >= 0 and mean.max() <= 1 and mean.max() - mean.min() > 0.9
    for one in (nll, mean):
        assert torch.autograd.grad(one.sum(), parameters)[0].isfinite().all()


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_no_value_is_looked_at_and_no_device_is_named(name: str) -> None:
    """Tensors without values would refuse both; the gradient is of the parameters' own kind."""
    parameters, target = (part.to("meta") for part in picture(name, 4, 3, 5, 4))
    parameters = leaf(parameters.bfloat16())
    nll = LIKELIHOODS[name].nll(parameters, target)
    assert nll.is_meta and nll.shape == (4,)
    assert torch.autograd.grad(nll.sum(), parameters)[0].dtype == torch.bfloat16
    assert LIKELIHOODS[name].mean(parameters, 3).shape == target.shape


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_pictures_compile_to_one_graph(name: str) -> None:
    parameters, target = picture(name, 4, 3, 5, 4)
    parameters = leaf(parameters)
    torch.compiler.reset()
    compiled = torch.compile(LIKELIHOODS[name].nll, fullgraph=True, backend="aot_eager")
    found = with_slope(compiled(parameters, target), parameters)
    expected = with_slope(LIKELIHOODS[name].nll(parameters, target), parameters)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_pictures_cost_the_same_on_a_gpu(name: str) -> None:
    parameters, target = picture(name, 6, 3, 5, 4)
    here, there = leaf(parameters), leaf(parameters.cuda())
    expected = with_slope(LIKELIHOODS[name].nll(here, target), here)
    aim = target.cuda()
    torch.cuda.set_sync_debug_mode("error")  # whatever waits for the device raises
    try:
        nll, mean = LIKELIHOODS[name].nll(there, aim), LIKELIHOODS[name].mean(there, 3)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for one, other in zip(with_slope(nll, there), expected, strict=True):
        torch.testing.assert_close(one.cpu(), other, atol=6e-5, rtol=1e-5)
    torch.testing.assert_close(mean.cpu(), LIKELIHOODS[name].mean(here, 3), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_shapes_that_would_broadcast_are_refused(name: str) -> None:
    parameters, target = picture(name, 4, 3, 5, 4)
    for wrong in (target[:, :1], target[:1], target[..., :1]):
        with pytest.raises(ValueError, match="fit|components"):
            LIKELIHOODS[name].nll(parameters, wrong)


# -------------------------------------------------------------------------------- continuous Bernoulli

# Both sides of 1, where the series ends, and of 17, past which sigmoid(logits) is 1 in float32.
SIZED = (0.0, 1e-30, 1e-8, 1e-4, 0.01, 0.3, 0.9, 0.999, 1.0, 1.001, 3.0, 10.0, 17.0, 40.0)
LOGITS = torch.tensor([sign * size for size in SIZED for sign in (1, -1)])
NODES, WEIGHTS = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(100))
AT, WEIGHT = (NODES + 1) / 2, WEIGHTS / 2  # Gauss-Legendre on [0, 1]


def test_continuous_bernoulli_integrates_to_1() -> None:
    target = AT.float().expand(len(LOGITS), -1)
    nll = continuous_bernoulli(LOGITS[:, None].expand_as(target).reshape(-1, 1), target.reshape(-1, 1))
    total = nll.double().neg().exp().view(target.shape) @ WEIGHT
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-6, rtol=0)


@pytest.mark.parametrize("target", [0.0, 0.25, 0.5, 1.0])
def test_continuous_bernoulli_is_that_of_quadrature(target: float) -> None:
    """Values and gradients, the slope of -log p being the mean less the target, and the mean."""
    logits = leaf(LOGITS)[:, None]
    value, slope = with_slope(continuous_bernoulli(logits, torch.full_like(logits, target)), logits)
    x = LOGITS.double()
    top = x.clamp(min=0)  # so that no node's exp(x t) overflows
    bulk = torch.exp(x[:, None] * AT - top[:, None]) * WEIGHT
    mean = (bulk @ AT) / bulk.sum(1)
    torch.testing.assert_close(value, bulk.sum(1).log() + top - x * target, atol=3e-7, rtol=1e-6)
    weights = 1 + torch.arange(len(x)) % 3
    torch.testing.assert_close(slope[:, 0] / weights, mean - target, atol=3e-7, rtol=0)
    torch.testing.assert_close(continuous_bernoulli_mean(LOGITS).double(), mean, atol=3e-7, rtol=0)


def test_continuous_bernoulli_far_from_grey() -> None:
    """exp(-1000) is nothing: -log p = 1000 |t - edge| - log 1000, and the mean is 1 / 1000 from the edge."""
    logits = torch.tensor([[1e3], [-1e3], [1e3], [-1e3]], requires_grad=True)
    target = torch.tensor([[1.0], [0.0], [0.25], [0.25]])
    value, slope = with_slope(continuous_bernoulli(logits, target), logits)
    assert value.tolist() == pytest.approx([d - math.log(1e3) for d in (0, 0, 750, 250)], rel=1e-6)
    weights = torch.tensor([1, 2, 3, 1])
    assert (slope[:, 0] / weights).tolist() == pytest.approx([-1e-3, 1e-3, 0.749, -0.249], rel=1e-5)
    assert continuous_bernoulli_mean(logits)[:, 0].tolist() == pytest.approx([0.999, 1e-3] * 2, rel=1e-6)


def test_the_mean_of_continuous_bernoulli_has_the_variance_for_a_slope() -> None:
    logits = leaf(LOGITS)
    (slope,) = torch.autograd.grad(continuous_bernoulli_mean(logits).sum(), logits)
    bulk = torch.exp(LOGITS.double()[:, None] * AT - LOGITS.double().clamp(min=0)[:, None]) * WEIGHT
    bulk = bulk / bulk.sum(1, keepdim=True)
    variance = bulk @ AT.square() - (bulk @ AT).square()
    torch.testing.assert_close(slope.double(), variance, atol=1e-6, rtol=1e-5)


# ---------------------------------------------------------------------------------- Gaussian, Laplace


@pytest.mark.parametrize("shape", [(), (6, 1, 1, 1), (3, 1, 1), (6, 3, 5, 4)])
@pytest.mark.parametrize(("density", "law", "half"), [(gaussian, Normal, 0.5), (laplace, Laplace, 1.0)])
def test_scales_may_be_of_any_shape_and_learn(
    density: Callable[[Tensor, Tensor, float | Tensor], Tensor],
    law: type[Distribution],
    half: float,
    shape: tuple[int, ...],
) -> None:
    """A number or a tensor: one scale for all, of each picture, each channel, each value."""
    mean, target = picture("gaussian", 6, 3, 5, 4)
    scale = leaf(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    raw = leaf(scale.double())
    exactly = -law(mean.double(), (half * raw).exp()).log_prob(target.double()).sum((1, 2, 3))
    expected, expected_slope = with_slope(exactly, raw)
    value, slope = with_slope(density(mean, target, scale), scale)
    torch.testing.assert_close(value, expected, atol=6e-5, rtol=1e-5)
    torch.testing.assert_close(slope, expected_slope, atol=6e-5, rtol=1e-5)
    if not shape:
        assert torch.equal(density(mean, target, scale.item()), density(mean, target, scale))


def test_the_optimal_variance_is_the_best_of_all() -> None:
    mean, target = picture("gaussian_optimal", 6, 3, 5, 4)
    best = gaussian_optimal(mean, target).sum().item()
    others = torch.linspace(-4, 4, 4001, dtype=torch.float64)  # logvar
    totals = torch.stack([gaussian(mean, target, other).sum() for other in others.float()])
    # Half a step of 0.002 off, a value costs (0.001 / 2)^2 nats more: 9e-5 for all 360.
    assert totals.min().item() == pytest.approx(best, abs=2e-3)
    assert (totals > best - 1e-3).all() and 0 < totals.argmin() < 4000


def test_a_perfect_picture_has_a_variance_all_the_same() -> None:
    """The nats of rounding to 256 levels, for the optimal variance and at once for a learned one."""
    _, target = picture("gaussian", 6, 3, 5, 4)
    mean = leaf(target)
    nats = 60 * 0.5 * math.log(2 * math.pi * LEAST_VARIANCE)
    nll = gaussian_optimal(mean, target)
    assert nll.tolist() == pytest.approx([nats] * 6, rel=1e-5)
    assert not torch.autograd.grad(nll.sum(), mean)[0].any()
    learned = torch.cat((target, torch.full((6, 1, 5, 4), -50.0)), 1)
    assert LIKELIHOODS["gaussian_learned"].nll(learned, target).tolist() == pytest.approx(
        [nats] * 6, rel=1e-5
    )


# --------------------------------------------------------------------------------- mixture of logistics


def every(levels: int, channels: int) -> Tensor:
    """Every picture of one pixel, (levels ** channels, channels, 1, 1)."""
    rows = list(itertools.product(range(levels), repeat=channels))
    return torch.tensor(rows)[:, :, None, None] / (levels - 1)


@pytest.mark.parametrize("spread", [0.5, 3.0, 30.0])
@pytest.mark.parametrize(("levels", "channels"), [(2, 1), (256, 1), (1024, 1), (2, 3), (5, 3)])
def test_a_mixture_of_logistics_sums_to_1_over_all_levels(levels: int, channels: int, spread: float) -> None:
    generator = torch.Generator().manual_seed(levels)
    target = every(levels, channels)
    for _ in range(5):
        pixel = spread * torch.randn(1, COMPONENTS * NUMBERS[channels], 1, 1, generator=generator)
        nll = logistic_mixture(pixel.expand(len(target), -1, -1, -1), target, levels)
        assert nll.double().neg().exp().sum().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("levels", [2, 5, 256])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_mixture_of_logistics_has_as_many_levels_as_told(channels: int, levels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    parameters = torch.randn(500, 4 * NUMBERS[channels], 1, 1, generator=generator)  # 4 components
    target = torch.randint(levels, (500, channels, 1, 1), generator=generator) / (levels - 1)
    expected = exact_mixture(parameters.double(), target.double(), levels)
    found = logistic_mixture(parameters, target, levels).double()
    torch.testing.assert_close(found, expected, atol=1e-6 * channels, rtol=1e-5)


def test_levels_far_from_every_logistic_keep_their_nats() -> None:
    """Past 103 nats a difference of sigmoids is 0 in float32, and its slope nothing or NaN."""
    level = torch.arange(256)
    target = (level / 255).view(-1, 1, 1, 1)
    pixel = torch.tensor([0.0, -1.0, LOGSCALE * math.atanh(-6 / LOGSCALE)])  # black, of scale exp(-6)
    parameters = leaf(pixel.view(1, 3, 1, 1).expand(256, -1, -1, -1))
    nll = logistic_mixture(parameters, target)
    slope = torch.autograd.grad(nll.sum(), parameters)[0][:, 1, 0, 0]
    scale = math.exp(-6)
    # Of what lies above black, exp(-(2 k - 1) / 255 / scale), all but what lies a level further.
    reach = (2 * level[1:].double() - 1) / 255 / scale
    inner = reach - math.log1p(-math.exp(-2 / 255 / scale))
    outer = torch.cat((inner[:-1], reach[-1:]))
    far = outer > 103
    assert far.sum() > 200
    torch.testing.assert_close(nll[1:][far].double(), outer[far], atol=0, rtol=1e-5)
    torch.testing.assert_close(
        slope[1:][far].double(), torch.full_like(outer[far], -1 / scale), atol=0, rtol=1e-5
    )


def test_the_mean_of_a_mixture_of_logistics_is_that_of_its_levels() -> None:
    parameters, _ = picture("logistic_mixture", 20, 1, 1, 1)
    target = every(256, 1)
    for pixel in parameters[:, None]:
        nll = logistic_mixture(pixel.expand(256, -1, -1, -1), target).double()
        expected = (nll.neg().exp() * target[:, 0, 0, 0]).sum().item()
        assert logistic_mixture_mean(pixel, 1).item() == pytest.approx(expected, abs=2e-6)


def test_the_mean_of_a_mixture_of_colours_is_that_of_its_levels() -> None:
    """Exact where no logistic reaches an edge: two of them, in the middle, each with its own coefficients."""
    first = [0.3, -0.2, 0.1, 0.05, -3.5, -4.0, -3.8, 0.9, -0.6, 0.8]
    second = [-0.4, 0.2, -0.1, 0.1, -3.5, -3.6, -4.2, -0.7, 0.5, 0.4]
    pixel = torch.tensor([*first, *second]).view(1, 20, 1, 1)
    target = every(32, 3)
    chance = logistic_mixture(pixel.expand(len(target), -1, -1, -1), target, 32).double().neg().exp()
    expected = (chance[:, None] * target[:, :, 0, 0]).sum(0)
    torch.testing.assert_close(
        logistic_mixture_mean(pixel, 3)[0, :, 0, 0].double(), expected, atol=1e-4, rtol=0
    )


def test_parameters_that_make_no_mixture_are_refused() -> None:
    grey = torch.zeros(2, 1, 4, 4)
    with pytest.raises(ValueError, match="31 parameters make no components of 3"):
        logistic_mixture(torch.zeros(2, 31, 4, 4), grey)
    with pytest.raises(ValueError, match="1 or 3 channels, not 2"):
        logistic_mixture(torch.zeros(2, 30, 4, 4), grey.expand(-1, 2, -1, -1))
    with pytest.raises(ValueError, match="1 or 3 channels, not 4"):
        LIKELIHOODS["logistic_mixture"].width(4)
