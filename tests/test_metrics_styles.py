"""The style of melodies: features worked out by hand, and densities against the formula at every point."""

import json

import numpy as np
import pytest
from test_metrics_music import COMMON, JIG, line, phrase

from seqvae.metrics import styles
from seqvae.song import TICKS, Metre, Note, Phrase

TUNE = phrase((0, 1, 60), (1, 0.5, 62), (1.5, 0.5, 60), (2, 2, 72))  # quarter, two eighths, a half


def test_features_by_hand():
    found = {name: np.asarray(measure(TUNE)) for name, measure in styles.FEATURES.items()}
    assert found["pitch_count"] == 3 and found["note_count"] == 4 and found["pitch_range"] == 12
    assert found["pitch_interval"] == pytest.approx((2 + 2 + 12) / 3)
    assert found["onset_interval"] == pytest.approx(2 / 3)
    np.testing.assert_allclose(found["pitch_classes"], [0.75, 0, 0.25] + [0] * 9)
    moves = np.zeros((12, 12))
    moves[0, 2] = moves[2, 0] = moves[0, 0] = 1 / 3
    np.testing.assert_allclose(found["pitch_class_transitions"], moves.ravel())
    np.testing.assert_allclose(found["note_lengths"], [0, 0.25, 0.25, 0.5] + [0] * 8)
    lengths = np.zeros((12, 12))
    lengths[2, 3] = lengths[3, 3] = lengths[3, 1] = 1 / 3
    np.testing.assert_allclose(found["note_length_transitions"], lengths.ravel())


def test_lengths_go_to_the_nearest_of_twelve():
    for beats, place in ((4, 0), (3, 5), (0.75, 7), (1 / 3, 11), (0.35, 11), (1 / TICKS, 4), (16, 0)):
        assert styles.length_classes(phrase((0, beats, 60))).tolist() == [place], beats


def test_the_order_of_notes_does_not_matter():
    shuffled = Phrase(TUNE.notes[::-1], TUNE.metre, TUNE.bars)
    for measure in styles.FEATURES.values():
        np.testing.assert_array_equal(measure(shuffled), measure(TUNE))


def test_silence_and_single_notes_have_features():
    for few in (phrase(), line(60)):
        for name, rows in styles.features([few]).items():
            assert rows.shape[0] == 1 and np.isfinite(rows).all(), name
    assert styles.features([line(60)] * (styles.MOST + 5))["pitch_count"].shape == (styles.MOST, 1)


# ---------------------------------------------------------------- likeness


def pile(count: int, centre: int, spread: int, seed: int) -> styles.Features:
    """Phrases of random pitches about one, of random lengths."""
    rng = np.random.default_rng(seed)
    phrases = []
    for _ in range(count):
        lengths = rng.choice([0.5, 1.0, 1.5], 6)
        onsets = np.cumsum(lengths) - lengths
        pitches = centre + rng.integers(-spread, spread + 1, 6)
        notes = zip(onsets.tolist(), lengths.tolist(), pitches.tolist(), strict=True)
        phrases.append(Phrase(tuple(Note(*note) for note in notes), COMMON, 4))
    return styles.features(phrases)


def test_a_density_is_the_mean_of_kernels():
    values = np.array([0.0, 1.0, 1.0, 2.5, 7.0])
    grid, width = np.linspace(-5, 12, styles.POINTS), 0.7
    kernels = np.exp(-0.5 * ((grid - values[:, None]) / width) ** 2)
    exact = kernels.sum(0) / kernels.sum()
    np.testing.assert_allclose(styles.density(values, grid, width), exact, atol=1e-5 * exact.max())


def test_normal_distances_meet_as_normal_curves_do():
    """N(0, 1) and N(1, 1) have 2 Phi(-1/2) = 0.617 in common, and a KL of 1/2."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 1, 200_000), rng.normal(1, 1, 200_000)
    found = styles.compared(first, second)
    # By 200,000 draws each, a kernel of 0.087; five standard errors are below 0.01.
    assert found.area == pytest.approx(0.617, abs=0.01)
    assert found.kl == pytest.approx(0.5, abs=0.02)


def test_one_kind_overlaps_and_what_never_meets_does_not():
    ours, alike, strange = pile(300, 60, 4, 0), pile(300, 60, 4, 1), pile(300, 60, 30, 2)
    for name, found in styles.likeness(ours, ours).items():
        assert found.area > 0.99 and found.kl < 0.01, name
    for name, found in styles.likeness(alike, ours).items():
        assert found.area > 0.93 and found.kl < 0.02, name
    apart = styles.likeness(strange, ours)
    assert apart["pitch_range"].area < 0.2 and apart["pitch_range"].kl > 2
    assert apart["note_lengths"].area > 0.95  # rhythms are of one kind
    never = styles.compared(np.array([0.0, 0.1, 0.2]), np.array([100.0, 100.1]))
    assert never.area < 1e-6 and 15 < never.kl < 28


def test_what_is_all_equal_is_compared_too():
    same = styles.features([TUNE] * 5)
    for found in styles.likeness(same, same).values():
        assert found.area == pytest.approx(1) and found.kl == pytest.approx(0, abs=1e-9)
    for name, found in styles.likeness(styles.features([line(60, 60)] * 5), same).items():
        assert found.area < 1e-3, name
    with pytest.raises(ValueError, match="two phrases of the reference"):
        styles.likeness(same, styles.features([TUNE]))


def test_distances_are_euclidean():
    rng = np.random.default_rng(0)
    for width in (1, 12):
        a, b = rng.random((4, width)), rng.random((3, width))
        exact = np.linalg.norm(a[:, None] - b, axis=2)
        np.testing.assert_allclose(styles.distances(a, b), exact, atol=1e-6)
        assert (np.diag(styles.distances(a, a)) == 0).all()


# ---------------------------------------------------------------- scale, groove, returns


def test_a_periodic_rhythm_has_one_groove():
    beats = [(float(at), 0.5, 60 + at) for at in range(16)]
    assert styles.groove_consistency(phrase(*beats, bars=4)) == 1
    assert (
        styles.groove_consistency(phrase(*((at * 0.5, 0.5, 60) for at in range(12)), metre=JIG, bars=2)) == 1
    )
    # Four onsets, then none: four of 48 ticks differ, once in three pairs of bars.
    assert styles.groove_consistency(phrase(*beats[:8], bars=4)) == pytest.approx(1 - 4 / 48 / 3)
    # Every bar against its neighbour in three places and in one of 48.
    uneven = phrase((0, 1, 60), (4, 1, 60), (5, 1, 60), (6, 1, 60), (8, 1, 60), (9, 1, 60), bars=3)
    assert styles.groove_consistency(uneven) == pytest.approx(1 - (2 + 1) / 48 / 2)
    assert styles.groove_consistency(line(60)) == 1
    late = phrase((0, 1, 60), (4, 1, 60), (8.0, 1, 60), bars=2)  # past its end
    assert styles.groove_consistency(late) == 1


def test_bars_that_return():
    """Bars A A' B A: A and A' share two of their three different notes, an empty bar equals an empty one."""
    a, changed, b = [(0, 60), (1, 62)], [(0, 60), (1, 62), (2, 64)], [(0, 61)]
    notes = [
        (4.0 * bar + at, 1.0, pitch) for bar, held in enumerate((a, changed, b, a)) for at, pitch in held
    ]
    tune = phrase(*notes, bars=4)
    third = 2 / 3
    np.testing.assert_allclose(
        styles.bar_similarity(tune), [[1, third, 0, 1], [third, 1, 0, third], [0, 0, 1, 0], [1, third, 0, 1]]
    )
    assert styles.self_similarity(tune) == pytest.approx((third + 1 + third) / 6)
    np.testing.assert_allclose(styles.similarity_by_lag([tune]), [third / 3, third / 2, 1])
    assert styles.self_similarity(phrase(bars=3)) == 1 == styles.self_similarity(line(60))
    assert styles.similarity_by_lag([]).shape == (0,)
    octave = phrase((0, 1, 60), (4, 1, 72), bars=2)
    assert styles.self_similarity(octave) == 0
    longer = phrase((0, 1, 60), (4, 2, 60), bars=2)
    assert styles.self_similarity(longer) == 1


def test_a_summary_is_plain():
    assert set(styles.summary([])) == set(found := styles.summary([TUNE, line(60)]))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["note_count"] == 2.5 and found["pitch_range"] == 6 and found["scale_consistency"] == 1
    assert set(styles.summary([]).values()) == {0.0}
    assert Metre(4, 4).ticks == 48  # what the groove above counts
