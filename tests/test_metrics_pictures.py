"""How like pictures are, in numbers worked out by hand."""

from math import log10

import numpy as np
import pytest

from seqvae.metrics.pictures import compared, squared_error, summary

BLACK, WHITE = np.zeros((4, 6, 1), np.uint8), np.full((4, 6, 1), 255, np.uint8)
COLUMNS = np.tile(np.array([0, 255], np.uint8), (4, 3))[:, :, None]  # (4, 6, 1), half of it white


def moved(picture: np.ndarray, by: int) -> np.ndarray:
    return (picture.astype(int) + by).astype(np.uint8)


def test_black_for_white_is_the_whole_error_either_way() -> None:
    assert squared_error([(BLACK, WHITE)]) == squared_error([(WHITE, BLACK)]) == 1  # no uint8 wraps round
    assert squared_error([(BLACK, COLUMNS)]) == 0.5
    assert squared_error([(BLACK, moved(BLACK, 51))]) == pytest.approx(0.04, rel=1e-12)


def test_a_colour_that_is_off_counts_for_a_third() -> None:
    colour = np.zeros((4, 6, 3), np.uint8)
    off = colour.copy()
    off[:, :, 1] = 51
    assert squared_error([(colour, off)]) == pytest.approx(0.04 / 3, rel=1e-12)


@pytest.mark.parametrize("error", [1, 51, 255])
def test_the_ratio_of_a_known_error(error: int) -> None:
    """An error of e everywhere is 20 log10(255 / e) dB: 48.13 of one level, 0 of all."""
    found = compared([(BLACK, moved(BLACK, error)), (COLUMNS, np.abs(COLUMNS.astype(int) - error))])
    assert found["psnr_db"] == pytest.approx(20 * log10(255 / error), abs=1e-9)
    assert found["squared_error"] == pytest.approx((error / 255) ** 2, rel=1e-12)
    assert found["exact_pictures"] == 0


def test_the_ratio_is_of_all_errors_together() -> None:
    """Not the mean of each pair's: errors of 0 and 0.04 are 0.02 together."""
    found = compared([(WHITE, WHITE.copy()), (BLACK, moved(BLACK, 51))])
    assert found["psnr_db"] == pytest.approx(-10 * log10(0.02), abs=1e-9)
    assert found["exact_pictures"] == 0.5


def test_what_is_exact_has_the_highest_ratio() -> None:
    for pairs in ([(COLUMNS, COLUMNS.copy())], []):
        exact = float(len(pairs))
        assert compared(pairs) == {"squared_error": 0.0, "psnr_db": 100.0, "exact_pictures": exact}


def test_brightness_contrast_and_variety_are_told_apart() -> None:
    for pile, brightness, contrast, variety in (
        ([BLACK, WHITE], 0.5, 0, 0.5),
        ([COLUMNS] * 3, 0.5, 0.5, 0),
        ([COLUMNS, 255 - COLUMNS], 0.5, 0.5, 0.5),
        ([BLACK, BLACK, BLACK, WHITE], 0.25, 0, 0.1875**0.5),
        ([WHITE], 1, 0, 0),
    ):
        found = {"pictures": len(pile), "brightness": brightness, "contrast": contrast, "variety": variety}
        assert summary(pile) == pytest.approx(found, abs=1e-12)


def test_an_empty_pile_is_like_nothing() -> None:
    assert summary([]) == {"pictures": 0.0, "brightness": 0.0, "contrast": 0.0, "variety": 0.0}
    assert all(type(value) is float for pile in ([], [WHITE]) for value in summary(pile).values())
