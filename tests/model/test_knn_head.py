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

    def spy(self, top_BK, index_BK):
        sizes.append(len(top_BK))
        return votes(self, top_BK, index_BK)

    monkeypatch.setattr(KnnHead, "_votes", spy)
    monkeypatch.setattr(head_layers, "_MAX_SIMILARITIES", 200 * 7)
    torch.testing.assert_close(head(queries()), whole_BC)
    assert sizes == [7] * 7 + [1]


@pytest.fixture
def small_blocks(monkeypatch):
    """A bank of more than 64 rows is large; collects the shape of every block of similarities."""
    shapes, merge = [], head_layers._merge
    for name, value in (("_WHOLE_BANK", 64), ("_BANK_ROWS", 32), ("_MAX_SIMILARITIES", 32 * 10)):
        monkeypatch.setattr(head_layers, name, value)

    def spy(top_BK, index_BK, similarity_BM, first):
        shapes.append(tuple(similarity_BM.shape))
        return merge(top_BK, index_BK, similarity_BM, first)

    monkeypatch.setattr(head_layers, "_merge", spy)
    return shapes


def many_ties(order, rows=333, seed=3):
    """Rows between two axes whose cosines with an axis take five values, each exact in float32."""
    step_N = np.random.default_rng(seed).integers(0, 5, rows)
    if order == "ascending":  # every block replaces all neighbours
        step_N.sort()
    cosine_N = torch.from_numpy(step_N).float() / 4
    return torch.stack([cosine_N, -cosine_N.flip(0)], 1)


@pytest.mark.parametrize("segment", [1, 8, 64])
@pytest.mark.parametrize("order", ["drawn", "ascending"])
@pytest.mark.parametrize("k", [1, 5, 40, 333])
def test_neighbours_in_blocks_are_those_of_a_stable_sort(
    monkeypatch, small_blocks, k, order, segment
):
    monkeypatch.setattr(head_layers, "_SEGMENT", segment)
    bank_ND = many_ties(order)
    head = KnnHead(torch.ones(333, 2), torch.arange(333), 333, k, 0.07)
    head.bank_ND.copy_(bank_ND)
    top_BK, index_BK = head._nearest(torch.eye(2), max(32, k))
    for axis in range(2):
        cosine_N = bank_ND[:, axis].numpy()
        expected = np.argsort(-cosine_N, kind="stable")[:k]
        np.testing.assert_array_equal(index_BK[axis], expected)
        np.testing.assert_array_equal(top_BK[axis], cosine_N[expected])
    assert len(small_blocks) == math.ceil(333 / max(32, k))


def test_knn_with_a_large_bank_is_its_definition_and_agrees_with_scikit_learn(small_blocks):
    bank_ND, label_N = bank(rows=700)
    logits_BC = KnnHead(bank_ND, label_N, 6, 20, 0.07)(queries())
    share_BC = votes_in_a_loop(queries(), bank_ND, label_N, 6, 20, 0.07)
    torch.testing.assert_close(logits_BC.exp().double(), share_BC, atol=1e-5, rtol=1e-4)
    weights = cast(Any, lambda d: np.exp((1 - d) / 0.07))
    model = KNeighborsClassifier(20, metric="cosine", weights=weights)
    model.fit(bank_ND.double().numpy(), label_N.numpy())
    share_BC = model.predict_proba(queries().double().numpy())
    np.testing.assert_allclose(logits_BC.exp().numpy(), share_BC, atol=1e-5)
    assert len(small_blocks) == 5 * 22


def test_similarities_in_memory_do_not_grow_and_their_number_is_linear(small_blocks):
    cells = []
    for rows in (100, 400, 1600):
        small_blocks.clear()
        KnnHead(*bank(rows=rows), 6, 20, 0.07)(queries())
        assert max(small_blocks) == (10, 32)
        cells.append(sum(queries * rows for queries, rows in small_blocks))
    assert cells == [50 * 100, 50 * 400, 50 * 1600]


def test_few_candidates_are_sorted(monkeypatch, small_blocks):
    """Per image, k (1 + ln(N / k)) on average if the bank is in random order."""
    cells, argsort = [], torch.Tensor.argsort

    def spy(tensor, **options):
        cells.append(tensor.numel())
        return argsort(tensor, **options)

    monkeypatch.setattr(head_layers, "_BANK_ROWS", 256)
    monkeypatch.setattr(head_layers, "_MAX_SIMILARITIES", 256 * 50)
    monkeypatch.setattr(torch.Tensor, "argsort", spy)
    KnnHead(*bank(rows=4096), 6, 5, 0.07)(queries())
    assert len(small_blocks) == 16
    assert sum(cells) < 50 * 4096 / 10


def test_an_own_bank_is_normalised_in_place():
    bank_ND, label_N = bank()
    expected = KnnHead(bank_ND, label_N, 6, 20, 0.07)
    head = KnnHead(bank_ND, label_N, 6, 20, 0.07, overwrite=True)
    assert head.bank_ND is bank_ND
    assert expected.bank_ND is not bank_ND
    assert torch.equal(head.bank_ND, expected.bank_ND)


def test_a_feature_that_is_no_number_gets_no_neighbours_but_others_keep_theirs(small_blocks):
    head = KnnHead(*bank(), 6, 20, 0.07)
    feature_BD = queries(3)
    expected_BC = head(feature_BD)
    feature_BD[1] = torch.nan
    logits_BC = head(feature_BD)
    torch.testing.assert_close(logits_BC[[0, 2]], expected_BC[[0, 2]])
    assert logits_BC[1].isnan().any()


def test_knn_of_no_image():
    assert KnnHead(*bank(), 6, 20, 0.07)(torch.zeros(0, 16)).shape == (0, 6)


def test_knn_refuses_more_neighbours_than_rows():
    with pytest.raises(UserError, match=r"head\.k=201 exceeds the 200 images"):
        KnnHead(*bank(), 6, 201, 0.07)
