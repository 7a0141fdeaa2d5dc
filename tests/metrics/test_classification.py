"""Metrics compared with scikit-learn and torchmetrics, and fgvc's own rules for special cases."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from fgvc import metrics
from fgvc.types import UserError

oracle: Any = sklearn_metrics  # without annotations: pyright would guess them from the defaults

# images, classes, classes that occur
CASES = [(200, 7, 7), (200, 7, 4), (1, 3, 1), (50, 2, 2), (30, 40, 40), (9, 1, 1)]


def drawn(n, classes, occurring, seed=0):
    rng = np.random.default_rng(seed)
    label_N = rng.integers(0, occurring, n)
    logits_NC = rng.normal(size=(n, classes)) * 2
    logits_NC[np.arange(n), label_N] += 1.5
    return logits_NC, label_N


def evaluate(logits_NC, label_N, classes):
    predictions = metrics.from_logits(np.arange(len(label_N)), label_N, logits_NC)
    return metrics.evaluate(predictions, classes)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", CASES)
def test_evaluate_agrees_with_scikit_learn(case, seed):
    n, classes, occurring = case
    logits_NC, label_N = drawn(n, classes, occurring, seed)
    result = evaluate(logits_NC, label_N, classes)
    pred_N = logits_NC.argmax(1)
    recall = oracle.recall_score(
        label_N, pred_N, average="macro", labels=np.unique(label_N), zero_division=0
    )
    assert result["top1"] == pytest.approx(oracle.accuracy_score(label_N, pred_N), abs=1e-12)
    assert result["mean_per_class"] == pytest.approx(recall, abs=1e-12)
    assert result["macro_f1"] == pytest.approx(
        oracle.f1_score(label_N, pred_N, average="macro", zero_division=0), abs=1e-12
    )
    prob_NC = torch.softmax(torch.from_numpy(logits_NC), 1)
    if classes > 1:
        every = list(range(classes))
        loss = oracle.log_loss(label_N, prob_NC.numpy(), labels=every)
        assert result["loss"] == pytest.approx(loss, rel=1e-9)
    if classes > 5:
        top5 = oracle.top_k_accuracy_score(label_N, logits_NC, k=5, labels=range(classes))
        assert result["top5"] == pytest.approx(top5, abs=1e-12)
    else:
        assert result["top5"] == 1.0
    assert (result["n"], result["unreadable"]) == (n, 0)


@pytest.mark.parametrize("case", CASES[:2] + CASES[4:5])
def test_evaluate_agrees_with_torchmetrics(case):
    n, classes, occurring = case
    logits_NC, label_N = drawn(n, classes, occurring, seed=5)
    logit, label = torch.from_numpy(logits_NC), torch.from_numpy(label_N)
    result = evaluate(logits_NC, label_N, classes)
    for key, k in (("top1", 1), ("top5", 5)):
        expected = multiclass_accuracy(logit, label, classes, average="micro", top_k=k)
        assert result[key] == pytest.approx(float(expected), abs=1e-6)
    prob = torch.softmax(logit, 1)
    ece = multiclass_calibration_error(prob, label, classes, n_bins=15, norm="l1")
    assert result["ece"] == pytest.approx(float(ece), abs=1e-5)


def test_single_precision_gives_the_loss_of_double():
    logits_NC, label_N = drawn(200, 7, 7)
    single = logits_NC.astype(np.float32)
    from_single, from_double = (
        evaluate(x, label_N, 7) for x in (single, single.astype(np.float64))
    )
    assert from_single == from_double


@pytest.mark.parametrize("case", CASES)
def test_per_class_and_confusion_agree_with_scikit_learn(case):
    n, classes, occurring = case
    logits_NC, label_N = drawn(n, classes, occurring, seed=8)
    pred_N = logits_NC.argmax(1)
    rows = metrics.per_class(logits_NC, label_N, [f"class {c}" for c in range(classes)])
    expected = oracle.precision_recall_fscore_support(
        label_N, pred_N, labels=range(classes), zero_division=0
    )
    for key, column in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        np.testing.assert_allclose([row[key] for row in rows], column, atol=1e-12)
    np.testing.assert_array_equal(
        [row["predicted"] for row in rows], np.bincount(pred_N, minlength=classes)
    )
    for row in rows:
        right = round(row["recall"] * row["support"])
        assert (row["recall_low"], row["recall_high"]) == metrics.wilson(right, row["support"])
    assert rows[-1]["name"] == f"class {classes - 1}"
    matrix = metrics.confusion(logits_NC, label_N, classes).dense()
    np.testing.assert_array_equal(
        matrix[:, :classes], oracle.confusion_matrix(label_N, pred_N, labels=range(classes))
    )
    assert not matrix[:, classes].any()


def test_per_class_agrees_with_torchmetrics():
    logits_NC, label_N = drawn(300, 9, 9, seed=4)
    rows = metrics.per_class(logits_NC, label_N, [str(c) for c in range(9)])
    logit, label = torch.from_numpy(logits_NC), torch.from_numpy(label_N)
    for key, expected in (
        ("precision", multiclass_precision),
        ("recall", multiclass_recall),
        ("f1", multiclass_f1_score),
    ):
        scores = expected(logit, label, 9, average="none")
        assert [row[key] for row in rows] == pytest.approx(scores.tolist(), abs=1e-6)
    macro = multiclass_f1_score(logit, label, 9, average="macro")
    result = evaluate(logits_NC, label_N, 9)
    assert result["macro_f1"] == pytest.approx(float(macro), abs=1e-6)
    recall = multiclass_recall(logit, label, 9, average="macro")
    assert result["mean_per_class"] == pytest.approx(float(recall), abs=1e-6)


def with_unreadable():
    logits_NC, label_N = drawn(60, 4, 4, seed=3)
    unreadable_N = np.zeros(60, bool)
    unreadable_N[[0, 7, 31]] = True
    return logits_NC, label_N, unreadable_N


def test_an_unreadable_image_is_wrong_but_has_no_likelihood():
    logits_NC, label_N, unreadable_N = with_unreadable()
    readable = evaluate(logits_NC[~unreadable_N], label_N[~unreadable_N], 4)
    logits_NC[unreadable_N] = -math.inf
    result = evaluate(logits_NC, label_N, 4)
    assert result["top1"] == pytest.approx(readable["top1"] * 57 / 60)
    assert result["top5"] == pytest.approx(57 / 60)
    assert (result["loss"], result["ece"]) == (readable["loss"], readable["ece"])
    assert (result["n"], result["unreadable"]) == (60, 3)
    pred_N = np.where(unreadable_N, -1, logits_NC.argmax(1))
    assert result["mean_per_class"] == pytest.approx(
        oracle.recall_score(label_N, pred_N, average="macro", labels=range(4))
    )
    assert result["macro_f1"] == pytest.approx(
        oracle.f1_score(label_N, pred_N, average="macro", labels=range(4))
    )
    matrix = metrics.confusion(logits_NC, label_N, 4).dense()
    assert matrix[:, 4].sum() == 3
    np.testing.assert_array_equal(matrix.sum(1), np.bincount(label_N))
    assert (metrics.topk(logits_NC, 2)[unreadable_N] == metrics.UNREADABLE).all()


def test_nothing_readable_has_no_loss():
    result = evaluate(np.full((3, 2), -math.inf), np.array([0, 1, 1]), 2)
    assert (result["top1"], result["top5"], result["unreadable"]) == (0, 0, 3)
    assert result["loss"] is None
    assert result["ece"] is None


def test_one_impossible_class_does_not_make_an_image_unreadable():
    logits_NC = np.array([[-math.inf, 0.0, 1.0]])
    assert metrics.readable(logits_NC).tolist() == [True]
    result = evaluate(logits_NC, np.array([2]), 3)
    assert result["loss"] == pytest.approx(math.log1p(math.exp(-1)))


@pytest.mark.parametrize("seed", range(3))
def test_ties_go_to_the_lower_index(seed):
    logits_NC = np.random.default_rng(seed).integers(0, 3, (40, 9)).astype(np.float32)
    expected = [sorted(range(9), key=lambda c: (-row[c], c))[:4] for row in logits_NC]
    np.testing.assert_array_equal(metrics.topk(logits_NC, 4), expected)
    np.testing.assert_array_equal(metrics.topk(logits_NC, 1), np.array(expected)[:, :1])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_cannot_be_ranked_are_refused(value):
    logits_NC, label_N = drawn(5, 3, 3)
    logits_NC[2, 1] = value
    with pytest.raises(UserError, match="1 of 5 images are NaN or .inf .first: row 2"):
        evaluate(logits_NC, label_N, 3)


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_out_of_range_are_refused(label):
    logits_NC, label_N = drawn(5, 3, 3)
    label_N[0] = label
    with pytest.raises(UserError, match=rf"label {label} is outside 0\.\.2"):
        evaluate(logits_NC, label_N, 3)


def test_no_images_are_refused():
    with pytest.raises(UserError, match="0 images"):
        evaluate(np.zeros((0, 3)), np.zeros(0, int), 3)


def test_huge_logits_neither_overflow_nor_lose_the_loss():
    logits_NC = np.array([[1e5, 0.0], [0.0, 1e5]], dtype=np.float32)
    assert evaluate(logits_NC, np.array([0, 0]), 2)["loss"] == pytest.approx(5e4)


def test_the_interval_is_that_of_top1():
    logits_NC, label_N = drawn(200, 7, 7)
    result = evaluate(logits_NC, label_N, 7)
    right = int((logits_NC.argmax(1) == label_N).sum())
    assert result["top1_ci95"] == list(metrics.wilson(right, 200))


def test_keys_are_those_that_a_record_holds():
    result = evaluate(*drawn(10, 3, 3), 3)
    assert list(result) == [
        *("top1", "top5", "mean_per_class", "macro_f1", "loss", "ece", "n", "unreadable"),
        "top1_ci95",
    ]
    assert isinstance(metrics.VERSION, str)
