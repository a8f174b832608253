"""Nats against torch.distributions, and what counts: every stream of a note, stream 0 of END, no padding."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical

from seqvae.likelihood import ROWS, categorical, linear_categorical, sequence_nll

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
