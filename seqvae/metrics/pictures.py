"""How like its original a picture is, and what pictures are like.

Conventions: pictures are arrays (H, W, C) of uint8; values are compared as shares of white, 0 .. 1.
"""

from collections.abc import Collection, Sequence
from math import log10
from statistics import fmean

import numpy as np

Pair = tuple[np.ndarray, np.ndarray]
WHITE = 255


def squared_error(pairs: Collection[Pair]) -> float:
    """The mean over all values of all (original, estimate) pairs; 0 of none."""
    each = [np.square((a.astype(float) - b) / WHITE).mean() for a, b in pairs]
    return fmean(each) if each else 0.0


def compared(pairs: Collection[Pair]) -> dict[str, float]:
    """How near estimates come to their originals, (original, estimate) pairs, in plain floats.

    `psnr_db` is the peak signal to noise ratio of all pairs together, 100 at most.
    """
    error = squared_error(pairs)
    exact = [np.array_equal(*pair) for pair in pairs]
    return {
        "squared_error": error,
        "psnr_db": -10 * log10(max(error, 1e-10)),
        "exact_pictures": fmean(exact) if exact else 0.0,
    }


def summary(pictures: Sequence[np.ndarray]) -> dict[str, float]:
    """What a pile of pictures is like, in plain floats, ready for JSON.

    Means over the pictures: `brightness`, of their values, `contrast`, the values' standard deviation; and
    `variety`, the mean over pixels of the standard deviation among the pictures, 0 where all are alike.
    """
    if not len(pictures):
        return {"pictures": 0.0, "brightness": 0.0, "contrast": 0.0, "variety": 0.0}
    stack = np.stack(pictures).astype(float) / WHITE
    return {
        "pictures": float(len(stack)),
        "brightness": float(stack.mean()),
        "contrast": float(stack.std((1, 2, 3)).mean()),
        "variety": float(stack.std(0).mean()),
    }
