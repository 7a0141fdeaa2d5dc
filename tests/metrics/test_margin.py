"""Margins and their losses, against loops in plain Python."""

import numpy as np
import pytest

from fgvc import metrics


def test_a_margin_is_the_distance_to_the_best_other_class(monkeypatch):
    monkeypatch.setattr("fgvc.metrics.margin.ROWS", 3)  # several blocks
    random = np.random.default_rng(0)
    logits_NC = random.normal(size=(10, 4)).astype(np.float32)
    index_N = random.integers(4, size=10)
    for row, margin in enumerate(metrics.margins(logits_NC, index_N)):
        own, others = logits_NC[row, index_N[row]], np.delete(logits_NC[row], index_N[row])
        assert margin == pytest.approx(float(own) - float(others.max()))


def test_a_prediction_changes_only_if_its_margin_is_lost():
    random = np.random.default_rng(1)
    fast_NC = random.normal(size=(500, 5)).astype(np.float32)
    exact_NC = fast_NC + random.normal(scale=0.3, size=fast_NC.shape).astype(np.float32)
    pred_N = fast_NC.argmax(axis=1)
    is_lost_N = metrics.margin_losses(fast_NC, exact_NC) > metrics.margins(fast_NC, pred_N)
    np.testing.assert_array_equal(is_lost_N, exact_NC.argmax(axis=1) != pred_N)
    assert 0 < is_lost_N.sum() < 250


def test_a_single_class_loses_nothing():
    one_N1 = np.ones((3, 1), np.float32)
    assert metrics.margin_losses(one_N1, one_N1 + 1).tolist() == [0, 0, 0]
    assert np.isposinf(metrics.margins(one_N1, np.zeros(3, np.int64))).all()


def test_the_two_largest_probabilities_give_the_margin_of_the_prediction():
    logits_NC = np.random.default_rng(0).normal(0, 5, (20, 4)).astype(np.float32)
    logits_NC[3] = -np.inf  # unreadable
    logits_NC[4] = [0, 2000, 0, 0]  # the second probability underflows
    predictions = metrics.from_logits(np.arange(20), np.zeros(20, np.int64), logits_NC)
    margin_N = metrics.score_margins(predictions.score_NK)
    assert np.isnan(margin_N[3])
    assert np.isposinf(margin_N[4])
    rest = np.delete(np.arange(20), [3, 4])
    expected = metrics.margins(logits_NC[rest], predictions.pred_N[rest])
    np.testing.assert_allclose(margin_N[rest], expected, rtol=1e-12)
    assert np.isposinf(metrics.score_margins(np.ones((2, 1)))).all()
