"""Likelihoods: -log p(x|z) in nats, from a decoder's raw outputs, in float32 even under autocast."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def categorical(logits: Tensor, target: Tensor) -> Tensor:
    """-log softmax(logits)[target] in nats: (..., V) and (...) -> (...), to be masked and summed by step."""
    flat = F.cross_entropy(logits.float().flatten(0, -2), target.flatten(), reduction="none")
    return flat.view(target.shape)


def sequence_nll(logits: list[Tensor], steps: Tensor, lengths: Tensor) -> Tensor:
    """Nats a sequence (B,): every stream of every real step, and of the END row stream 0 alone.

    logits: K tensors (B, T, V_k); steps (B, T, K); lengths (B,) count the END row.
    """
    place = torch.arange(steps.shape[1], device=steps.device)
    real = place < lengths[:, None]  # (B, T)
    note = place < lengths[:, None] - 1
    total = torch.zeros(steps.shape[0], device=steps.device)
    for k, scores in enumerate(logits):
        nll = categorical(scores, steps[..., k])
        total = total + torch.where(real if k == 0 else note, nll, 0.0).sum(1)
    return total
