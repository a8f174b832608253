"""ImageVAE: shapes at every size, known losses, samples sample by sample, learning, and what z is worth."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from seqvae.decoding import GREEDY, decode, drawn
from seqvae.image import ImageSize, ImageVAE
from seqvae.importance import importance_nll
from seqvae.likelihood import LIKELIHOODS
from seqvae.objective import Elbo

NOTHING = torch.zeros(0, dtype=torch.int64)
DENSE = ImageSize(network="dense", widths=(48,), latent=6)
CONV = ImageSize(widths=(8, 12), head=24, latent=6)


def pictures(count: int, shape: tuple[int, int, int], levels: int = 256, seed: int = 0) -> Tensor:
    """Steps (count, H * W, C) of discs of any place, radius and colour."""
    channels, high, wide = shape
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(0, 1, high), torch.linspace(0, 1, wide), indexing="ij")
    at = torch.rand(count, 3, 1, 1, generator=generator)
    disc = ((y - at[:, 0]).square() + (x - at[:, 1]).square()).sqrt() < 0.15 + 0.25 * at[:, 2]
    colour = 0.5 + 0.5 * torch.rand(count, channels, 1, 1, generator=generator)
    values = ((levels - 1) * disc[:, None] * (colour if levels > 2 else 1.0)).round().long()
    return values.flatten(2).transpose(1, 2)


def model_of(shape: tuple[int, int, int], size: ImageSize, levels: int = 256) -> ImageVAE:
    torch.manual_seed(0)
    return ImageVAE(shape, levels, size)


def noise(rows: int, latent: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(rows, latent, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("side", [8, 9, 15, 28, 64])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [DENSE, CONV], ids=["dense", "conv"])
def test_every_size_comes_out_as_it_went_in(side: int, channels: int, size: ImageSize) -> None:
    shape = (channels, side, side + 3 if side < 28 else side)
    model, steps = model_of(shape, size), pictures(3, shape)
    nll, posterior, z, *_ = model(steps, NOTHING, NOTHING, noise(3))
    assert nll.shape == (3,) and posterior.mean.shape == posterior.logvar.shape == z.shape == (3, 6)
    out = model.draw(z)
    assert out.shape == steps.shape and out.dtype == torch.int64 and 0 <= out.min() and out.max() <= 255


def test_steps_are_pictures_in_raster_order() -> None:
    model = model_of((3, 8, 9), CONV)
    steps = torch.arange(8 * 9 * 3).view(1, 72, 3)
    picture = model.pictures(steps)
    assert picture.shape == (1, 3, 8, 9)
    assert picture[0, 2, 4, 5].item() == pytest.approx((3 * (4 * 9 + 5) + 2) / 255)


def test_an_untrained_model_takes_each_pixel_for_a_coin() -> None:
    model, steps = model_of((1, 28, 28), CONV, levels=2), pictures(16, (1, 28, 28), levels=2)
    nll, posterior, *_ = model(steps, NOTHING, NOTHING, noise(16))
    torch.testing.assert_close(nll, torch.full((16,), 784 * math.log(2)), rtol=0.03, atol=0)
    assert posterior.kl().sum(1).max() < 10


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_likelihood_learns(likelihood: str, channels: int) -> None:
    shape = (channels, 12, 12)
    model = model_of(shape, ImageSize(widths=(16,), head=64, latent=6, likelihood=likelihood))
    steps, adam = pictures(32, shape), torch.optim.Adam(model.parameters(), 8e-3)
    objective, losses = Elbo(beta=0.1), []
    for step in range(80):
        nll, posterior, *_ = model(steps, NOTHING, NOTHING, noise(32, seed=step))
        terms = objective(nll, posterior, step)
        adam.zero_grad()
        terms.loss.backward()
        adam.step()
        losses.append(terms.loss.item())
    assert all(map(math.isfinite, losses)) and losses[-1] < losses[0] - 20
    z = model.encode(steps, NOTHING, NOTHING).mean
    own, other = (model.nll(at, steps, NOTHING, NOTHING).mean() for at in (z, z.roll(1, 0)))
    assert other > own + 5  # z tells of its picture


def test_samples_go_sample_by_sample() -> None:
    shape = (1, 12, 12)
    model, steps, eps = model_of(shape, CONV), pictures(5, shape), noise(15)
    nll, posterior, z, *_ = model(steps, NOTHING, NOTHING, eps)
    assert nll.shape == (15,) and posterior.mean.shape == (5, 6) and z.shape == (15, 6)
    for k, part in enumerate(eps.split(5)):
        one, _, at, *_ = model(steps, NOTHING, NOTHING, part)
        torch.testing.assert_close(nll[5 * k : 5 * k + 5], one)
        torch.testing.assert_close(z[5 * k : 5 * k + 5], at)


@pytest.mark.parametrize("size", [DENSE, CONV], ids=["dense", "conv"])
def test_a_picture_is_the_same_whatever_its_batch(size: ImageSize) -> None:
    model, z = model_of((1, 16, 16), size), noise(37)
    every = decode(model, z, torch.zeros(37, 0), GREEDY)
    assert len(every) == 37 and every[0].shape == (256, 1)
    for row in (0, 8, 36):
        assert (drawn(model, z[row : row + 1])[0] == every[row]).all()


def test_the_importance_weighted_nll_is_of_the_pictures() -> None:
    shape = (1, 8, 8)
    model, steps = model_of(shape, DENSE, levels=2).eval(), pictures(4, shape, levels=2)
    lengths, told = torch.full((4,), 64), torch.zeros(4, 0, dtype=torch.int64)
    found = importance_nll(model, steps, lengths, told, samples=700, seed=3)
    with torch.inference_mode():
        mean, std = (
            model.encode(steps, lengths, told).mean,
            model.encode(steps, lengths, told).logvar.mul(0.5).exp(),
        )
        for row in range(4):
            draw = np.random.Generator(np.random.Philox(key=(3, row)))
            z = mean[row] + std[row] * torch.from_numpy(draw.standard_normal((700, 6), np.float32))
            ratio = Normal(0, 1).log_prob(z).sum(1) - Normal(mean[row], std[row]).log_prob(z).sum(1)
            nll = torch.cat([model.nll(one[None], steps[row : row + 1], lengths, told) for one in z])
            exact = math.log(700) - torch.logsumexp(ratio.double() - nll.double(), 0)
            assert found[row].item() == pytest.approx(exact.item(), abs=1e-3)


def test_no_picture_is_left_of_too_many_halvings() -> None:
    with pytest.raises(ValueError, match="4 widths halve a picture of 8 x 8 to nothing"):
        model_of((1, 8, 8), ImageSize(widths=(4, 4, 4, 4)))
