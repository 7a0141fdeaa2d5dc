"""Wilson's interval against scipy, over every count of small samples."""

import pytest
from scipy.stats import binomtest

from fgvc.metrics import wilson


@pytest.mark.parametrize("n", [1, 2, 7, 40, 5794])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_wilson_agrees_with_scipy(n, level):
    for successes in {0, 1, n // 3, n // 2, n - 1, n}:
        theirs = binomtest(successes, n).proportion_ci(level, method="wilson")
        low, high = wilson(successes, n, level)
        assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
        assert 0 <= low <= successes / n <= high <= 1


def test_nothing_counted_says_nothing():
    assert wilson(0, 0) == (0.0, 1.0)


def test_width_at_the_size_of_cub():
    low, high = wilson(round(0.9 * 5794), 5794)
    assert (high - low) / 2 == pytest.approx(0.0077, abs=1e-4)
