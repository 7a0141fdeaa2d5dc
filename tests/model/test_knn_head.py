"""head=knn: exact arithmetic, ties, bounded memory."""

import math
from typing import Any, cast

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from fgvc.model import head_layers
from fgvc.model.head_layers import FLOOR, KnnHead
from fgvc.types import UserError


def bank(rows=200, width=16, classes=6, seed=0):
    rng = np.random.default_rng(seed)
    x_ND = rng.normal(size=(rows, width)).astype(np.float32) * rng.uniform(0.1, 9, (rows, 1))
    return torch.from_numpy(x_ND.astype(np.float32)), torch.from_numpy(
        rng.integers(0, classes, rows)
    )


def queries(rows=50, width=16, seed=9):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(rows, width)).astype("f4"))


def votes_in_a_loop(query_BD, bank_ND, label_N, classes, k, temperature):
    """The definition, one image at a time, in float64."""
    unit_ND = bank_ND.double() / bank_ND.double().norm(dim=1, keepdim=True)
    share_BC = torch.zeros(len(query_BD), classes, dtype=torch.float64)
    for row, query_D in enumerate(query_BD.double()):
        cosine_N = unit_ND @ (query_D / query_D.norm())
        for index in cosine_N.argsort(descending=True)[:k].tolist():
            share_BC[row, label_N[index]] += math.exp(cosine_N[index] / temperature)
    return share_BC / share_BC.sum(1, keepdim=True)


@pytest.mark.parametrize("k", [1, 20, 200])
def test_knn_is_its_definition(k):
    bank_ND, label_N = bank()
    logits_BC = KnnHead(bank_ND, label_N, 6, k, 0.07)(queries())
    share_BC = votes_in_a_loop(queries(), bank_ND, label_N, 6, k, 0.07)
    assert logits_BC.dtype == torch.float32
    torch.testing.assert_close(logits_BC.exp().double(), share_BC, atol=1e-5, rtol=1e-4)
    assert (logits_BC[share_BC == 0] == np.float32(FLOOR)).all()


def test_knn_agrees_with_scikit_learn():
    bank_ND, label_N = bank()
    weights = cast(Any, lambda d: np.exp((1 - d) / 0.07))  # documented, but not annotated
    model = KNeighborsClassifier(20, metric="cosine", weights=weights)
    model.fit(bank_ND.double().numpy(), label_N.numpy())
    share_BC = model.predict_proba(queries().double().numpy())
    logits_BC = KnnHead(bank_ND, label_N, 6, 20, 0.07)(queries())
    np.testing.assert_allclose(logits_BC.exp().numpy(), share_BC, atol=1e-5)


def test_knn_ignores_the_length_of_features():
    head = KnnHead(*bank(), 6, 20, 0.07)
    torch.testing.assert_close(head(queries() * 50), head(queries()))


def test_knn_of_a_zero_feature_and_a_tiny_temperature_is_finite():
    bank_ND, label_N = bank()
    bank_ND[0] = 0
    logits_BC = KnnHead(bank_ND, label_N, 6, 20, 1e-6)(torch.cat([queries(), torch.zeros(1, 16)]))
    assert logits_BC.isfinite().all()
    torch.testing.assert_close(logits_BC.exp().sum(1), torch.ones(51))


@pytest.mark.parametrize("k", [1, 3, 5])
def test_knn_takes_the_lower_row_of_equal_neighbours(k):
    bank_ND = torch.eye(4)[[1, 0, 0, 0, 0, 0, 2]]
    head = KnnHead(bank_ND, torch.arange(7), 7, k, 0.07)
    voted = (head(torch.eye(4)[:1])[0] > FLOOR).nonzero().flatten()
    assert voted.tolist() == list(range(1, k + 1))


def test_knn_in_chunks_is_knn_at_once(monkeypatch):
    head = KnnHead(*bank(), 6, 20, 0.07)
    whole_BC = head(queries())
    sizes = []
    votes = KnnHead._votes

    def spy(self, feature_BD):
        sizes.append(len(feature_BD))
        return votes(self, feature_BD)

    monkeypatch.setattr(KnnHead, "_votes", spy)
    monkeypatch.setattr(head_layers, "_MAX_SIMILARITIES", 200 * 7)
    torch.testing.assert_close(head(queries()), whole_BC)
    assert sizes == [7] * 7 + [1]


def test_knn_of_no_image():
    assert KnnHead(*bank(), 6, 20, 0.07)(torch.zeros(0, 16)).shape == (0, 6)


def test_knn_refuses_more_neighbours_than_rows():
    with pytest.raises(UserError, match=r"head\.k=201 exceeds the 200 images"):
        KnnHead(*bank(), 6, 201, 0.07)
