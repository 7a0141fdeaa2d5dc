"""fgvc.record.principal_components, compared with scikit-learn's PCA."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from fgvc.record import principal_components as module
from fgvc.record.principal_components import principal_components


@pytest.mark.parametrize("shape", [(50, 6), (9, 2), (5, 12)])
def test_components_agree_with_scikit_learn_signs_included(shape):
    rng = np.random.default_rng(0)
    x_ND = (rng.normal(size=shape) * np.linspace(1, 3, shape[1]) + 5).astype(np.float32)
    count = min(2, *shape)
    expected_NK = PCA(count, svd_solver="covariance_eigh").fit_transform(x_ND.astype(np.float64))
    np.testing.assert_allclose(principal_components(x_ND, count), expected_NK, atol=1e-10)


def test_no_more_components_than_features():
    assert principal_components(np.eye(9, 2), 32).shape == (9, 2)


def test_equal_features_are_at_the_origin():
    assert not principal_components(np.ones((4, 8), np.float32), 3).any()


def test_components_by_blocks_are_those_of_all_images_together(monkeypatch):
    x_ND = np.random.default_rng(0).normal(2, 1, (50, 6)).astype(np.float32)
    whole_NK = principal_components(x_ND, 2)
    monkeypatch.setattr(module, "BLOCK_VALUES", 7 * 6)
    np.testing.assert_allclose(principal_components(x_ND, 2), whole_NK, atol=1e-12)
