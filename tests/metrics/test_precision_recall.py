"""Precision and recall by threshold, compared with torchmetrics and plain counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import (
    binary_precision_recall_curve,
    multiclass_precision_recall_curve,
)

from fgvc.metrics import precision_recall

N, C, T = 400, 6, 33


@pytest.fixture
def drawn():
    """Logits and labels of a mediocre classifier; the last class does not occur."""
    rng = np.random.default_rng(0)
    label_N = rng.integers(C - 1, size=N)
    logits_NC = rng.normal(size=(N, C)).astype(np.float32) * 1.5
    logits_NC[np.arange(N), label_N] += 1.5
    return logits_NC, label_N


def probabilities(logits_NC):
    return torch.softmax(torch.from_numpy(logits_NC).double(), 1)


def same(curve, precision, recall):
    """The convention of torchmetrics: precision without predictions is 0."""
    found_T = curve.hit_T + curve.false_T > 0
    np.testing.assert_allclose(curve.precision_T[found_T], precision[:T][found_T], atol=1e-9)
    np.testing.assert_allclose(curve.recall_T, recall[:T], atol=1e-9)
    assert (curve.precision_T[~found_T] == 1).all()


@pytest.mark.parametrize("chunk", [4096, 7])
def test_each_class_agrees_with_torchmetrics(drawn, chunk, monkeypatch):
    monkeypatch.setattr(precision_recall, "CHUNK_IMAGES", chunk)
    logits_NC, label_N = drawn
    counts = precision_recall.count_by_threshold(logits_NC, label_N, T)
    precision, recall, threshold = multiclass_precision_recall_curve(
        probabilities(logits_NC), torch.from_numpy(label_N), C, thresholds=T
    )
    assert len(threshold) == T
    for label in range(C - 1):
        same(
            precision_recall.of_class(counts, label),
            precision[label].numpy(),
            recall[label].numpy(),
        )
    assert counts.support_C.tolist() == np.bincount(label_N, minlength=C).tolist()


def test_micro_is_one_binary_question_for_each_image_and_class(drawn):
    logits_NC, label_N = drawn
    prob_NC = probabilities(logits_NC)
    truth_NC = torch.nn.functional.one_hot(torch.from_numpy(label_N), C)
    precision, recall, _ = binary_precision_recall_curve(
        prob_NC.flatten(), truth_NC.flatten(), thresholds=T
    )
    curve = precision_recall.micro(precision_recall.count_by_threshold(logits_NC, label_N, T))
    same(curve, precision.numpy(), recall.numpy())
    every_T = curve.hit_T + curve.false_T + curve.missed_T + curve.passed_T
    assert (every_T == N * C).all()


def test_macro_is_the_mean_over_classes_with_images(drawn):
    logits_NC, label_N = drawn
    counts = precision_recall.count_by_threshold(logits_NC, label_N, T)
    each = [precision_recall.of_class(counts, label) for label in range(C - 1)]
    mean = precision_recall.macro(counts)
    np.testing.assert_allclose(mean.recall_T, np.mean([curve.recall_T for curve in each], axis=0))
    for t in range(T):
        finding = [curve.precision_T[t] for curve in each if curve.hit_T[t] + curve.false_T[t]]
        assert mean.precision_T[t] == pytest.approx(np.mean(finding) if finding else 1.0)


def test_an_unreadable_image_is_missed_at_every_threshold(drawn):
    logits_NC, label_N = drawn
    before = precision_recall.of_class(
        precision_recall.count_by_threshold(logits_NC[1:], label_N[1:], T), int(label_N[0])
    )
    logits_NC[0] = -np.inf
    after = precision_recall.of_class(
        precision_recall.count_by_threshold(logits_NC, label_N, T), int(label_N[0])
    )
    np.testing.assert_array_equal(after.missed_T, before.missed_T + 1)
    np.testing.assert_array_equal(after.hit_T, before.hit_T)
    assert after.recall_T[0] < 1


def test_a_certain_answer_reaches_the_last_threshold():
    logits_NC = np.array([[800.0, 0.0], [0.0, 800.0]])
    curve = precision_recall.of_class(
        precision_recall.count_by_threshold(logits_NC, np.array([0, 1]), 5), 0
    )
    assert curve.hit_T.tolist() == [1, 1, 1, 1, 1]
    assert curve.false_T.tolist() == [1, 0, 0, 0, 0]
