"""Likelihoods: -log p(x|z) in nats, from a decoder's raw outputs, in float32 even under autocast.

Sequences are summed by step, pictures over all but the first dimension. Pictures are in [0, 1], as is checked
where data is read: to look here would wait for the device. Nats of densities (continuous Bernoulli, Gaussian,
Laplace) may be negative; to compare them with those of levels, add log(levels - 1) for each value.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

ROWS = 256  # scored at a time: with 10,000 symbols 10 MB, which a core's cache still holds
FIXED_LOGSCALE = math.log(0.1)  # where none is learnt: a tenth of the way from black to white
LEAST_VARIANCE = 1 / 255**2 / 12  # what rounding to 256 levels makes; below it a density rewards the rounding
LEAST_LOGVAR = math.log(LEAST_VARIANCE)
COMPONENTS = 10  # of a mixture of logistics (Salimans et al. 2017)
NUMBERS = {1: 1 + 2, 3: 1 + 6 + 3}  # of a component by channels: weight, means and log scales, coefficients
LOGSCALE = 7.0  # log scales of logistics stay between -7 and 7: a bin of 256 levels is exp(-4.8) wide


def categorical(logits: Tensor, target: Tensor) -> Tensor:
    """-log softmax(logits)[target] in nats: (..., V) and (...) -> (...), to be masked and summed by step."""
    flat = F.cross_entropy(logits.float().flatten(0, -2), target.flatten(), reduction="none")
    return flat.view(target.shape)


def linear_categorical(layer: Tensor, weight: Tensor, bias: Tensor, target: Tensor) -> Tensor:
    """`categorical` of the scores layer (..., W) @ weight.T (W, V) + bias (V,), for many symbols V.

    The scores are made some rows at a time and only their softmax is kept, in the precision of the products:
    a third less time than a linear layer and a cross entropy at V = 10,000, half of the memory.
    """
    nll: Tensor = LinearCategorical.apply(layer.flatten(0, -2), weight, bias, target.flatten())
    return nll.view(target.shape)


class LinearCategorical(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, layer: Tensor, weight: Tensor, bias: Tensor, target: Tensor) -> Tensor:
        device = layer.device.type
        kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else layer.dtype
        ctx.dtypes = layer.dtype, weight.dtype, bias.dtype
        layer, weight, bias = layer.to(kind), weight.to(kind), bias.to(kind)
        nll = torch.empty(len(layer), device=layer.device)
        learns = any(ctx.needs_input_grad)
        slope = torch.empty(len(layer) if learns else 0, len(weight), dtype=kind, device=layer.device)
        # One room for all: at this size a fresh one costs as much as what is done with it
        scores = torch.empty(ROWS, len(weight), dtype=kind, device=layer.device)
        room = torch.empty(ROWS, len(weight), device=layer.device)
        for start in range(0, len(layer), ROWS):
            part = slice(start, start + ROWS)
            own, rows = target[part, None], len(target[part])
            found = room[:rows].copy_(torch.addmm(bias, layer[part], weight.T, out=scores[:rows]))
            top, score = found.amax(1), found.gather(1, own)[:, 0]
            torch.softmax(found, 1, out=found)
            nll[part] = top - found.amax(1).log() - score  # the greatest share is never 0
            if learns:
                slope[part] = found.scatter_add_(1, own, found.new_full(own.shape, -1))
        if learns:
            ctx.save_for_backward(layer, weight, slope)
        return nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """With S the softmax less the targets' ones, and G = diag(grad): G S weight, S' G layer, S' grad."""
        layer, weight, slope = ctx.saved_tensors
        grad = grad[:, None]
        scaled = torch.cat((layer.float() * grad, grad), 1).to(layer.dtype)
        of_weight, of_bias = (slope.T @ scaled).split([layer.shape[1], 1], 1)
        of_layer = (slope @ weight).float() * grad
        one, two, three = ctx.dtypes
        return of_layer.to(one), of_weight.to(two), of_bias[:, 0].to(three), None


def sequence_nll(logits: list[Tensor], steps: Tensor, lengths: Tensor) -> Tensor:
    """Nats a sequence (B,) of K tensors of scores (B, T, V_k) for steps (B, T, K), as `summed` counts."""
    return summed([categorical(scores, steps[..., k]) for k, scores in enumerate(logits)], lengths)


def summed(nll: list[Tensor], lengths: Tensor) -> Tensor:
    """Nats a sequence (B,): every stream of every real step, and of the END row stream 0 alone.

    nll: K tensors (B, T); lengths (B,) count the END row.
    """
    place = torch.arange(nll[0].shape[1], device=lengths.device)
    real = place < lengths[:, None]  # (B, T)
    note = place < lengths[:, None] - 1
    total = torch.zeros(len(lengths), device=lengths.device)
    for k, nats in enumerate(nll):
        total = total + torch.where(real if k == 0 else note, nats, 0.0).sum(1)
    return total


def bernoulli(logits: Tensor, target: Tensor) -> Tensor:
    """-log p(target | sigmoid(logits)), nats (B,): both (B, ...), ValueError where they differ in shape.

    Grey g costs g times what white does and 1 - g times what black does: a cross entropy, not a density.
    """
    logits, target = paired(logits, target)
    # Both terms are positive: the usual softplus(x) - x * target cancels where x is large.
    return torch.lerp(F.softplus(logits), F.softplus(-logits), target).flatten(1).sum(1)


def continuous_bernoulli(logits: Tensor, target: Tensor) -> Tensor:
    """-log p(target), nats (B,), p(t) = exp(x t) x / (exp(x) - 1) on [0, 1] where x is the logits.

    Loaiza-Ganem & Cunningham 2019, proposition 1: lambda = sigmoid(x) makes C(lambda) = x / tanh(x / 2).
    Both are (B, ...); ValueError where they differ in shape.
    """
    logits, target = paired(logits, target)
    negative = logits < 0
    size = torch.where(negative, -logits, logits)  # abs() has no slope at 0
    away = torch.where(negative, target, 1 - target)
    small, large = size.clamp(max=1), size.clamp(min=1)  # the branch not taken must not overflow
    square = small.square()
    # log((1 - exp(-size)) / size): of the closed form the slope cancels near 0.
    series = square * (1 / 24 - square * (1 / 2880 - square * (1 / 181440 - square / 9676800))) - small / 2
    exact = torch.log(-torch.expm1(-large) / large)
    return (size * away + torch.where(size < 1, series, exact)).flatten(1).sum(1)


def continuous_bernoulli_mean(logits: Tensor) -> Tensor:
    """The mean of `continuous_bernoulli`, 1 / (1 - exp(-x)) - 1 / x (the same proposition), in [0, 1]."""
    logits = logits.float()
    size = torch.where(logits < 0, -logits, logits)
    small, large = size.clamp(max=1), size.clamp(min=1)  # the branch not taken must not overflow
    square = small.square()
    series = 1 / 2 - small * (1 / 12 - square * (1 / 720 - square * (1 / 30240 - square / 1209600)))
    exact = 1 / large + torch.exp(-large) / torch.expm1(-large)
    dark = torch.where(size < 1, series, exact)  # the mean at -size
    return torch.where(logits < 0, dark, 1 - dark)


def gaussian(mean: Tensor, target: Tensor, logvar: float | Tensor) -> Tensor:
    """-log N(target; mean, exp(logvar)), nats (B,): mean and target (B, ...), which logvar broadcasts to.

    One scale a picture is (B, 1, 1, 1). ValueError where mean and target differ in shape.
    """
    mean, target = paired(mean, target)
    logvar = scalar(logvar, mean)
    square = (target - mean).square() * torch.exp(-logvar)
    return (0.5 * (square + logvar + math.log(2 * math.pi))).flatten(1).sum(1)


def gaussian_optimal(mean: Tensor, target: Tensor) -> Tensor:
    """`gaussian` at the batch's best variance, its mean squared error (sigma-VAE: Rybkin et al. 2021).

    At least LEAST_VARIANCE; gradients pass through it. An example's nats depend on its batch-mates, and in an
    evaluation the variance is chosen with hindsight: figures to be compared want a learned or a fixed one.
    """
    mean, target = paired(mean, target)
    variance = (target - mean).square().mean().clamp(min=LEAST_VARIANCE)
    return gaussian(mean, target, variance.log())


def gaussian_learned(parameters: Tensor, target: Tensor) -> Tensor:
    """`gaussian` of parameters (B, C + 1, H, W): C means and a channel whose mean is the picture's logvar.

    LEAST_VARIANCE is added to that variance: a floor which, unlike a clamp, always has a slope.
    """
    logvar = parameters[:, -1:].float().mean((2, 3), keepdim=True)  # (B, 1, 1, 1)
    return gaussian(parameters[:, :-1], target, torch.logaddexp(logvar, scalar(LEAST_LOGVAR, logvar)))


def laplace(mean: Tensor, target: Tensor, logscale: float | Tensor) -> Tensor:
    """-log of the Laplace density of scale exp(logscale), nats (B,); shapes as `gaussian`'s."""
    mean, target = paired(mean, target)
    logscale = scalar(logscale, mean)
    nats = (target - mean).abs() * torch.exp(-logscale) + logscale + math.log(2)
    return nats.flatten(1).sum(1)


def logistic_mixture(parameters: Tensor, target: Tensor, levels: int = 256) -> Tensor:
    """-log p, nats (B,), of logistics cut into levels (Salimans et al. 2017, eq. 2 and 3; 1 and 3 channels).

    target (B, C, H, W) is k / (levels - 1); the first and last level take the tails. parameters (B, P, H, W)
    hold, component by component, the logit of its weight, C means and C log scales in units where black is -1
    and white 1, and for 3 channels what tanh makes the coefficients of red in green's mean, of red in blue's
    and of green in blue's. A raw log scale s counts as 7 tanh(s / 7). ValueError where P, C or a shape errs.
    """
    weights, means, logscales, slopes = components(parameters, target.shape[1])
    if (len(parameters), *parameters.shape[2:]) != (len(target), *target.shape[2:]):
        raise ValueError(f"parameters {tuple(parameters.shape)} do not fit {tuple(target.shape)}")
    target = target.float()[:, None]  # (B, 1, C, H, W)
    x, half = 2 * target - 1, 1 / (levels - 1)
    if target.shape[2] == 3:
        red, green = x[:, :, 0], x[:, :, 1]
        hung = slopes[:, :, 0] * red, slopes[:, :, 1] * red + slopes[:, :, 2] * green
        means = means + torch.stack((torch.zeros_like(hung[0]), *hung), 2)
    precision = torch.exp(-logscales)
    above, below = (x + half - means) * precision, (x - half - means) * precision
    first, last = target < half / 2, target > 1 - half / 2
    # sigmoid(above) - sigmoid(below), as a product in which nothing cancels or underflows:
    # sigmoid(above) sigmoid(-below) (1 - exp(below - above)).
    inner = torch.log(-torch.expm1(-2 * half * precision)).masked_fill(first | last, 0.0)
    outer = F.softplus(-above).masked_fill(last, 0.0) + F.softplus(below).masked_fill(first, 0.0)
    nats = -torch.logsumexp(weights + (inner - outer).sum(2), 1)  # (B, H, W)
    return nats.flatten(1).sum(1)


def logistic_mixture_mean(parameters: Tensor, channels: int) -> Tensor:
    """The mean (B, C, H, W) in [0, 1] of `logistic_mixture`, but for the rounding to levels.

    A logistic with its tails at the edges has the mean s (softplus((m + 1) / s) - softplus((m - 1) / s)) - 1:
    here as m clamped between the edges and what the tails add, so that nothing cancels.
    Green and blue hang on the component's means of the channels before: exact while no tail reaches an edge.
    """
    weights, means, logscales, slopes = components(parameters, channels)
    found: list[Tensor] = []  # (B, M, H, W) each
    for c in range(channels):
        mean, scale = means[:, :, c], logscales[:, :, c].exp()
        for earlier, slope in zip(found, range(c * (c - 1) // 2, c * (c + 1) // 2), strict=True):
            mean = mean + slopes[:, :, slope] * earlier
        low, high = (F.softplus(-(mean - edge).abs() / scale) for edge in (-1, 1))
        found.append(mean.clamp(-1, 1) + scale * (low - high))
    mixed = (weights.exp()[:, :, None] * torch.stack(found, 2)).sum(1)
    return ((mixed + 1) / 2).clamp(0, 1)


def components(parameters: Tensor, channels: int) -> tuple[Tensor, ...]:
    """Log weights (B, M, H, W), means and log scales (B, M, C, H, W), coefficients (B, M, 0 or 3, H, W)."""
    count = numbers(channels)
    if parameters.shape[1] % count:
        raise ValueError(f"{parameters.shape[1]} parameters make no components of {count} numbers each")
    parts = parameters.float().unflatten(1, (-1, count))  # (B, M, count, H, W)
    weights, means, logscales, slopes = parts.split([1, channels, channels, count - 2 * channels - 1], 2)
    bounded = LOGSCALE * torch.tanh(logscales / LOGSCALE)
    return weights[:, :, 0].log_softmax(1), means, bounded, slopes.tanh()


def numbers(channels: int) -> int:
    """Of one component of a mixture of logistics; ValueError for other than 1 or 3 channels."""
    if channels not in NUMBERS:
        raise ValueError(f"a mixture of logistics is of 1 or 3 channels, not {channels}")
    return NUMBERS[channels]


def paired(parameters: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float32; ValueError where they differ in shape, as they would broadcast."""
    if parameters.shape != target.shape:
        raise ValueError(f"parameters {tuple(parameters.shape)} do not fit {tuple(target.shape)}")
    return parameters.float(), target.float()


def scalar(value: float | Tensor, like: Tensor) -> Tensor:
    """In float32; a number is written on the device itself, as a copy would wait for it."""
    if isinstance(value, Tensor):
        return value.float()
    return torch.full((), value, dtype=torch.float32, device=like.device)


class Likelihood(NamedTuple):
    """What a model of pictures needs to know of one likelihood.

    width: channels C of a picture -> channels P of the network's raw output, the parameters.
    nll: parameters (B, P, H, W), target (B, C, H, W) -> nats (B,).
    mean: parameters, C -> (B, C, H, W) in [0, 1], the picture that is shown.
    """

    width: Callable[[int], int]
    nll: Callable[[Tensor, Tensor], Tensor]
    mean: Callable[[Tensor, int], Tensor]


def as_many(channels: int) -> int:
    return channels


def clamped(parameters: Tensor, channels: int) -> Tensor:
    """Of a Gaussian or a Laplace the raw output is the mean, which may leave [0, 1]."""
    return parameters[:, :channels].float().clamp(0, 1)


LIKELIHOODS = {
    "bernoulli": Likelihood(as_many, bernoulli, lambda logits, channels: logits.float().sigmoid()),
    "continuous_bernoulli": Likelihood(
        as_many, continuous_bernoulli, lambda logits, channels: continuous_bernoulli_mean(logits)
    ),
    "gaussian": Likelihood(as_many, partial(gaussian, logvar=2 * FIXED_LOGSCALE), clamped),
    "gaussian_optimal": Likelihood(as_many, gaussian_optimal, clamped),
    "gaussian_learned": Likelihood(lambda channels: channels + 1, gaussian_learned, clamped),
    "laplace": Likelihood(as_many, partial(laplace, logscale=FIXED_LOGSCALE), clamped),
    "logistic_mixture": Likelihood(
        lambda channels: COMPONENTS * numbers(channels), logistic_mixture, logistic_mixture_mean
    ),
}
