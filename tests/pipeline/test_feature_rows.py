"""Train, validation and both together are rows of one feature matrix, which is not copied."""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from fgvc.config.compose import composed, typed
from fgvc.pipeline import feature_rows, fit_head
from fgvc.pipeline.feature_rows import FeatureRows
from fgvc.record import class_means
from fgvc.types import BadImage, Features, UserError

CLASSES, IMAGES, WIDTH = 3, 60, 8
LABEL_N = np.arange(IMAGES) % CLASSES
BAD = tuple(BadImage(row, f"{row}: torn") for row in (4, 31))
VAL_N = np.arange(1, IMAGES, 5)
TRAIN_N = np.setdiff1d(np.arange(IMAGES), VAL_N)


def features() -> Features:
    """Features near the axis of their class, of all images that could be read."""
    row_N = np.setdiff1d(np.arange(IMAGES), [bad.row for bad in BAD])
    x_ND = np.random.default_rng(0).normal(size=(len(row_N), WIDTH)).astype(np.float32)
    x_ND[np.arange(len(row_N)), LABEL_N[row_N]] += 4
    return Features(x_ND, row_N, BAD)


def copied(whole: Features, row_N: np.ndarray) -> Features:
    """The features of some rows, by the definition."""
    kept_N = [index for index, row in enumerate(whole.row_N) if row in row_N]
    bad = tuple(image for image in whole.bad if image.row in row_N)
    return Features(whole.x_ND[kept_N], whole.row_N[kept_N], bad)


def is_same(rows: FeatureRows, expected: Features) -> bool:
    np.testing.assert_array_equal(rows.x_ND, expected.x_ND)
    np.testing.assert_array_equal(rows.row_N, expected.row_N)
    return sorted(bad.row for bad in rows.bad) == [bad.row for bad in expected.bad]


def test_rows_are_selected_and_joined_without_a_copy():
    whole = features()
    train, val = (feature_rows.select(whole, row_N) for row_N in (TRAIN_N, VAL_N))
    assert is_same(train, copied(whole, TRAIN_N))
    assert is_same(val, copied(whole, VAL_N))
    assert [bad.row for bad in train.bad] == [4]
    both = feature_rows.join(train, val)
    assert is_same(both, whole)
    assert both.x_RD is train.x_RD is val.x_RD is whole.x_ND
    assert not np.shares_memory(val.copy().x_ND, whole.x_ND)
    assert len(feature_rows.select(whole, VAL_N[:0]).copy().x_ND) == 0


def test_rows_of_unit_length_share_one_matrix():
    whole = features()
    parts = [feature_rows.select(whole, row_N) for row_N in (TRAIN_N, VAL_N)]
    train, val = feature_rows.unit_length(*parts)
    for rows, row_N in ((train, TRAIN_N), (val, VAL_N)):
        x_ND = copied(whole, row_N).x_ND
        expected_ND = torch.nn.functional.normalize(torch.from_numpy(x_ND), dim=1).numpy()
        np.testing.assert_array_equal(rows.x_ND, expected_ND)
    assert train.x_RD is val.x_RD
    assert parts[0].x_RD is whole.x_ND


def experiment(*overrides: str) -> Any:
    """What `fit_head` reads of an experiment."""
    conf = typed(composed(["backbone=vit_tiny", *overrides]))
    split = SimpleNamespace(val_N=VAL_N, test_N=VAL_N[:0])
    dataset = SimpleNamespace(
        manifest=SimpleNamespace(label_N=LABEL_N), split=split, labelmap=range(CLASSES)
    )
    return cast(Any, SimpleNamespace(conf=conf, dataset=dataset, num_classes=CLASSES))


FIT = ("head.fit.epochs=2", "head.fit.learning_rates=[1e-2]", "head.fit.weight_decays=[0]")


@pytest.mark.parametrize(
    ("overrides", "copies"),
    [
        (("head=cosine", *FIT), ["val", "val"]),
        (("head=cosine", *FIT, "final_fit=train"), ["val", "val"]),
        (("head=knn", "head.k=3"), ["train", "val", "both"]),  # the bank of each head
        (("head=knn", "head.k=3", "final_fit=train"), ["train", "val"]),
    ],
)
def test_fitting_a_head_copies_only_what_it_keeps(monkeypatch, overrides, copies):
    whole, sizes = features(), []
    parts = [feature_rows.select(whole, row_N) for row_N in (TRAIN_N, VAL_N)]
    names = {len(rows.index_N): name for rows, name in zip(parts, ("train", "val"), strict=True)}
    original = whole.x_ND.copy()

    def copy(rows: FeatureRows) -> np.ndarray:
        sizes.append(len(rows.index_N))
        return rows.x_RD[rows.index_N]

    monkeypatch.setattr(FeatureRows, "x_ND", property(copy))
    fit_head.fit_head(experiment(*overrides), *parts)
    assert [names.get(size, "both") for size in sizes] == copies
    np.testing.assert_array_equal(whole.x_ND, original)


def test_knn_refuses_features_that_are_not_finite():
    """A similarity that is not a number is neither near nor far."""
    whole = features()
    whole.x_ND[7, 0] = np.inf
    parts = [feature_rows.select(whole, row_N) for row_N in (TRAIN_N, VAL_N)]
    with pytest.raises(UserError, match="features of 1 of 47 rows are not finite"):
        fit_head.fit_head(experiment("head=knn", "head.k=3"), *parts)


def test_class_means_of_selected_rows_are_those_of_their_copy_in_bounded_memory(monkeypatch):
    monkeypatch.setattr(class_means, "CHUNK", 64)
    rng = np.random.default_rng(0)
    x_RD, label_R = rng.normal(size=(8192, 64)).astype(np.float32), rng.integers(0, 5, 8192)
    index_N = np.flatnonzero(rng.random(8192) < 0.9)
    expected = class_means.fit(x_RD[index_N], np.arange(len(index_N)), label_R[index_N])
    tracemalloc.start()
    try:
        means = class_means.fit(x_RD, index_N, label_R[index_N])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(means, class_means.ClassMeans)
    assert isinstance(expected, class_means.ClassMeans)
    np.testing.assert_array_equal(means.mean_MD, expected.mean_MD)
    assert means.limit == expected.limit
    assert peak < x_RD.nbytes / 2
