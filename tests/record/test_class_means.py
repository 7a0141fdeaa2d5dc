"""The distance of an image from the class means, which marks pictures of none of the classes."""

from __future__ import annotations

import numpy as np
import pytest

from fgvc.record import class_means
from fgvc.record.class_means import ClassMeans


def images(classes: int, per_class: int, seed: int, width: int = 48) -> tuple:
    """Features and labels of classes that lie near each other, at another scale per seed."""
    centre_CD = 2 + np.random.default_rng(0).normal(size=(classes, width))
    label_N = np.repeat(np.arange(classes), per_class)
    noise_ND = np.random.default_rng(seed).normal(size=(len(label_N), width))
    return (centre_CD[label_N] + noise_ND).astype(np.float32), label_N


def fitted(x_ND: np.ndarray, label_N: np.ndarray) -> ClassMeans:
    means = class_means.fit(x_ND, np.arange(len(x_ND)), label_N)
    assert isinstance(means, ClassMeans)
    return means


@pytest.mark.parametrize(
    ("classes", "per_class"), [(2, 3), (2, 50), (20, 1), (20, 3), (20, 30), (200, 5)]
)
def test_at_most_5_percent_of_new_images_are_far_and_other_pictures_are(classes, per_class):
    """Averaged over ten draws of the training images, because a few of them choose the limit."""
    other_ND = np.random.default_rng(9).normal(size=(500, 48)).astype(np.float32)
    far, detected = [], []
    for seed in range(10):
        means = fitted(*images(classes, per_class, seed))
        far.append((means.relative_distance(images(classes, 50, 100 + seed)[0]) > 1).mean())
        detected.append((means.relative_distance(other_ND) > 1).mean())
    assert np.mean(far) <= 0.05
    if classes * per_class >= 100:
        assert np.max(far) <= 0.05
        assert np.mean(detected) > 0.9


def test_the_limit_is_the_quantile_of_distances_without_the_image_itself():
    x_ND, label_N = images(4, 25, 1)
    unit_ND = x_ND / np.linalg.norm(x_ND, axis=1, keepdims=True)
    distances = []
    for image in range(len(x_ND)):
        rest = np.arange(len(x_ND)) != image
        mean_CD = np.stack([unit_ND[rest & (label_N == c)].mean(axis=0) for c in range(4)])
        mean_CD /= np.linalg.norm(mean_CD, axis=1, keepdims=True)
        distances.append(1 - (mean_CD @ unit_ND[image]).max())
    means = fitted(x_ND, label_N)
    assert means.limit == pytest.approx(sorted(distances)[98], abs=1e-6)  # of 100: ceil(.98 * 101)
    assert means.images == 100
    kept_N = means.relative_distance(x_ND) <= 1
    assert kept_N.sum() >= 98


def test_many_images_are_sampled_and_few_are_extrapolated(monkeypatch):
    x_ND, label_N = images(4, 100, 1)
    full = fitted(x_ND, label_N)
    monkeypatch.setattr(class_means, "MAX_HELD_OUT", 100)
    monkeypatch.setattr(class_means, "CHUNK", 7)
    sampled = fitted(x_ND, label_N)
    assert (full.images, sampled.images) == (400, 100)
    np.testing.assert_array_equal(sampled.mean_MD, full.mean_MD)
    assert sampled.limit == pytest.approx(full.limit, rel=0.3)
    few = fitted(x_ND[::50], label_N[::50])
    assert few.limit > few.relative_distance(x_ND[::50]).max() * few.limit
    assert (
        class_means.fit(x_ND, np.arange(1), label_N[:1]) == "too few images to choose the limit (1)"
    )


def test_scale_and_missing_classes_do_not_matter_and_the_size_is_bounded():
    x_ND, label_N = images(4, 25, 1)
    means, scaled = fitted(x_ND, label_N), fitted(8 * x_ND, 3 * label_N)
    assert means.limit == scaled.limit
    np.testing.assert_array_equal(means.mean_MD, scaled.mean_MD)
    stored = ClassMeans(np.zeros((5089, 768), np.float32), 0.5, 10)
    assert sum(tensor.nbytes for tensor in stored.tensors().values()) <= 32e6
    assert means.relative_distance(np.zeros((1, 48), np.float32))[0] == pytest.approx(
        1 / means.limit
    )


def test_a_checkpoint_gives_the_means_back_or_why_there_are_none():
    means = fitted(*images(4, 25, 1))
    facts = {"labelmap": {"names": list("abcd")}, class_means.FACTS: means.facts()}
    restored = class_means.from_checkpoint(facts, means.tensors())
    assert isinstance(restored, ClassMeans)
    assert (restored.limit, restored.images) == (means.limit, means.images)
    np.testing.assert_array_equal(restored.mean_MD, means.mean_MD)
    old = {"labelmap": facts["labelmap"]}
    assert class_means.from_checkpoint(old, {}) == "an older version of fgvc wrote the checkpoint"
    none = {**old, class_means.FACTS: {"reason": "no images"}}
    assert class_means.from_checkpoint(none, {}) == "no images"
    facts["labelmap"]["names"] = list("abc")
    with pytest.raises(ValueError, match=r"class\.means: 4 rows for 3 classes"):
        class_means.from_checkpoint(facts, means.tensors())


def test_the_tolerance_factor_of_few_images_is_that_of_published_tables():
    """One-sided, 95 % confidence, coverage 0.98 lies between k(.95) = 3.708 and k(.99) = 5.062 of
    n = 6 (Natrella 1963, table A-7)."""
    distance_N = np.array([-1.0, -1.0, -1.0, 1.0, 1.0, 1.0])
    factor = class_means._upper_bound(distance_N) / distance_N.std(ddof=1)
    assert 3.708 < factor < 5.062
