"""Draws, bounds and sentences of cascade and certificate."""

import numpy as np
import pytest
from scipy import stats

from fgvc import metrics
from fgvc.record import precision_checks as checks

PATHS = [f"images/{number}.jpg" for number in range(200)]


@pytest.mark.parametrize(("count", "n"), [(0, 299), (0, 298), (1, 299), (7, 40), (40, 40), (0, 1)])
def test_the_limit_is_the_one_sided_exact_one(count, n):
    oracle = stats.binomtest(count, n, alternative="less").proportion_ci(0.95, "exact").high
    assert metrics.upper_limit(count, n) == pytest.approx(oracle, rel=1e-12)


def test_299_images_without_a_difference_bound_it_below_one_percent():
    assert metrics.upper_limit(0, 299) < 0.01 < metrics.upper_limit(0, 298)


def test_a_draw_follows_from_seed_and_paths_alone():
    names = {PATHS[index] for index in checks.draw("a", PATHS, 20)}
    shuffled = list(np.random.default_rng(0).permutation(PATHS))
    assert names == {shuffled[index] for index in checks.draw("a", shuffled, 20)}
    assert names != {PATHS[index] for index in checks.draw("b", PATHS, 20)}
    assert names < {PATHS[index] for index in checks.draw("a", PATHS, 30)}
    assert checks.draw("a", PATHS, 1000).tolist() == list(range(200))


def test_draws_are_uniform():
    counts_N = np.bincount(
        np.concatenate([checks.draw(str(seed), PATHS, 50) for seed in range(40)]), minlength=200
    )
    assert stats.chisquare(counts_N).pvalue > 0.01


def test_every_digest_changes_the_draw():
    digests = ("config", "images", None, "predictions")
    other = [checks.digest(*digests[:i], "x", *digests[i + 1 :]) for i in range(4)]
    assert len({checks.digest(*digests), *other}) == 5


def test_the_bound_is_twice_the_largest_loss_rounded_up():
    facts = checks.cascade_bound(np.array([-5.0, 0.12341, 0.02]))
    assert (facts["largest_loss"], facts["bound"], facts["sample"]) == (0.124, 0.248, 3)
    assert facts["share"] == pytest.approx(1 - 0.05 ** (1 / 3))
    assert checks.cascade_bound(np.array([-1.0]))["bound"] == 0.0
    assert checks.round_up(0.124) == 0.124


def test_the_share_beyond_the_largest_loss_holds_in_95_percent_of_samples():
    random = np.random.default_rng(0)  # heavy tails: no normal distribution is assumed
    shares = stats.t(df=2).sf(stats.t(df=2).rvs((2000, 60), random_state=random).max(axis=1))
    stated = checks.cascade_bound(np.zeros(60))["share"]
    assert np.mean(shares <= stated) == pytest.approx(0.95, abs=0.015)


def sentence(images: int, of: int, differing: int = 0) -> str:
    rows = [{}] * differing
    limit = checks.limit(differing, images, of)
    facts = {"images": images, "of": of, "differing": rows, "limit": limit, "level": 0.95}
    ((_, text),) = checks.sentences({"certificate": facts})
    return text


def test_the_certificate_says_what_follows():
    assert "0 of 299 test images" in sentence(299, 5000)
    assert "of all 5000, fewer than 1 % (95 % confidence)" in sentence(299, 5000)
    assert "fewer than 5.2 %" in sentence(299, 5000, 9)
    assert "fewer than 0.03 %" in sentence(10_000, 50_000)
    assert sentence(40, 40, 1) == "1 of all 40 test images gets another prediction in fp32"
    assert checks.sentences({}) == []
