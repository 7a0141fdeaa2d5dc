"""Predictions by blocks, compared with the whole matrix of logits."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

from fgvc import metrics
from fgvc.metrics import predictions as blocks
from fgvc.metrics.precision_recall import count_by_threshold
from fgvc.types import UserError
from tests.narrow import not_none

N, C = 60, 9
COLUMNS = ("row_N", "label_N", "top_NK", "score_NK", "label_logprob_N", "entropy_N")


@pytest.fixture
def drawn():
    """Rows, labels by row, logits: with ties, an unreadable image, and a class ruled out."""
    rng = np.random.default_rng(0)
    row_N, label_of_row = rng.permutation(N) + 4, rng.integers(C, size=N + 4)
    logits_NC = rng.integers(-3, 4, (N, C)).astype(np.float32)
    logits_NC[7], logits_NC[8, :6] = -np.inf, -np.inf
    return row_N, label_of_row, logits_NC


def collected(drawn, keep, batch):
    row_N, label_of_row, logits_NC = drawn
    collector = metrics.PredictionCollector(label_of_row, C, keep)
    for first in range(0, N, batch):
        collector.add(row_N[first : first + batch], logits_NC[first : first + batch])
    return collector.result(np.sort(row_N))


def same_columns(a, b):
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), name)


def test_columns_are_those_of_the_whole_matrix(drawn):
    row_N, label_of_row, logits_NC = drawn
    found = metrics.from_logits(row_N, label_of_row[row_N], logits_NC)
    prob_NC = torch.softmax(torch.from_numpy(logits_NC).double(), 1).numpy()
    order_NC = np.argsort(-logits_NC, axis=1, kind="stable")[:, :5]
    readable_N = np.arange(N) != 7
    expected_NK = np.where(readable_N[:, None], order_NC, metrics.UNREADABLE)
    np.testing.assert_array_equal(found.top_NK, expected_NK)
    assert found.pred_N[7] == metrics.UNREADABLE
    np.testing.assert_allclose(
        found.score_NK[readable_N], np.take_along_axis(prob_NC, order_NC, axis=1)[readable_N]
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        label_N = np.log(prob_NC[np.arange(N), found.label_N])
        entropy_N = -np.nansum(prob_NC * np.log(prob_NC), axis=1)
    np.testing.assert_allclose(found.label_logprob_N[readable_N], label_N[readable_N])
    np.testing.assert_allclose(found.entropy_N[readable_N], entropy_N[readable_N])
    assert np.isnan([found.score_NK[7, 0], found.label_logprob_N[7], found.entropy_N[7]]).all()
    np.testing.assert_array_equal(found.logits_NC, logits_NC)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize(("batch", "cells"), [(1, 10 * C), (7, 3 * C), (N, 4 * C), (N, 1)])
def test_batches_and_blocks_change_no_bit(drawn, monkeypatch, keep, batch, cells):
    whole = collected(drawn, keep, N)
    monkeypatch.setattr(blocks, "BLOCK_CELLS", cells)
    found = collected(drawn, keep, batch)
    same_columns(found, whole)
    if keep:
        assert found.curves is None
        np.testing.assert_array_equal(found.logits_NC, whole.logits_NC)
    else:
        assert found.logits_NC is None


def test_without_logits_the_counts_of_the_curves_are_the_same(drawn, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_CELLS", 11 * C)
    kept, found = collected(drawn, True, 8), collected(drawn, False, 8)
    logits_NC = not_none(kept.logits_NC)
    expected = count_by_threshold(logits_NC, kept.label_N, blocks.THRESHOLDS)
    halves = [
        metrics.from_logits(kept.row_N[part], kept.label_N[part], logits_NC[part], keep=False)
        for part in (slice(0, 25), slice(25, N))
    ]
    joined = metrics.concatenate(halves)
    same_columns(joined, kept)
    for curves in (found.curves, joined.curves):
        for name in ("hit_CT", "false_CT", "support_C", "images"):
            np.testing.assert_array_equal(getattr(curves, name), getattr(expected, name), name)


def test_rows_that_were_not_added_are_unreadable(drawn):
    row_N, label_of_row, logits_NC = drawn
    collector = metrics.PredictionCollector(label_of_row, C, True)
    collector.add(row_N[:3], logits_NC[:3])
    found = collector.result(row_N[:5][::-1])
    assert (found.pred_N == metrics.UNREADABLE).tolist() == [True, True, False, False, False]
    assert metrics.evaluate(found, C)["unreadable"] == 2
    empty = metrics.PredictionCollector(label_of_row, C, False).result(row_N[:0])
    assert (len(empty.top_NK), not_none(empty.curves).images) == (0, 0)


def test_invalid_logits_of_all_batches_are_counted(drawn):
    row_N, _, logits_NC = drawn
    place_of_row = np.argsort(np.argsort(row_N))
    for place in (5, 40):
        logits_NC[np.flatnonzero(place_of_row == place)[0], 2] = np.nan
    with pytest.raises(UserError, match="2 of 60 images are NaN or .inf .first: row 5"):
        collected(drawn, False, 7)


def test_logits_are_kept_up_to_a_size():
    images = blocks.LOGIT_CELLS // blocks.LOGITS_UP_TO
    assert metrics.keeps_logits(images, blocks.LOGITS_UP_TO)
    assert not metrics.keeps_logits(images + 1, blocks.LOGITS_UP_TO)
    assert not metrics.keeps_logits(1, blocks.LOGITS_UP_TO + 1)
    assert metrics.keeps_logits(5794, 200)  # CUB
    assert metrics.keeps_logits(24_633, 555)  # NABirds
    assert not metrics.keeps_logits(95_986, 5089)  # iNaturalist 2017


def test_a_collector_holds_a_block_and_the_columns(monkeypatch):
    """Four times the images take a hundred bytes per image more, not their logits."""
    classes, batch = 400, 50
    monkeypatch.setattr(blocks, "BLOCK_CELLS", batch * classes)
    label_of_row = np.arange(4000) % classes
    logits_BC = np.random.default_rng(0).normal(size=(batch, classes)).astype(np.float32)

    def peak(images):
        tracemalloc.start()
        collector = metrics.PredictionCollector(label_of_row, classes, False)
        for first in range(0, images, batch):
            collector.add(np.arange(first, first + batch), logits_BC)
        metrics.evaluate(collector.result(np.arange(images)), classes)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(batch)
    assert peak(4000) - peak(1000) < 3000 * 4 * classes / 4


@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_topk_is_a_stable_sort(k):
    rng = np.random.default_rng(k)
    for values in (2, 4, 1000):
        logits_NC = rng.integers(0, values, (200, 9)).astype(np.float32)
        logits_NC[rng.random((200, 9)) < 0.3] = -np.inf
        logits_NC[:, 0] = 0
        expected = [sorted(range(9), key=lambda c: (-row[c], c))[:k] for row in logits_NC]
        np.testing.assert_array_equal(metrics.topk(logits_NC, k), expected)
