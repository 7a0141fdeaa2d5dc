"""The contrastive loss against its formula."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cosine_similarity

from fgvc.learn.train.contrastive import contrastive_gradient, contrastive_loss


def written_out(feature_BD, label_B, margin):
    total = torch.zeros(())
    for one, mine in zip(feature_BD, label_B, strict=True):
        for other, theirs in zip(feature_BD, label_B, strict=True):
            cosine = cosine_similarity(one, other, dim=0)
            total = total + (1 - cosine if mine == theirs else (cosine - margin).clamp(min=0))
    return total / len(label_B) ** 2


@pytest.mark.parametrize("margin", [0.0, 0.4])
def test_it_is_the_mean_over_ordered_pairs(margin):
    torch.manual_seed(0)
    feature_BD = torch.randn(7, 5, requires_grad=True)
    label_B = torch.tensor([0, 1, 0, 2, 2, 1, 0])
    found, expected = (
        loss(feature_BD, label_B, margin) for loss in (contrastive_loss, written_out)
    )
    torch.testing.assert_close(found, expected)
    grads = [torch.autograd.grad(one, feature_BD)[0] for one in (found, expected)]
    torch.testing.assert_close(*grads)


def test_no_image_is_no_loss_and_has_a_gradient():
    feature_BD = torch.randn(0, 5, requires_grad=True)
    loss = contrastive_loss(feature_BD, torch.empty(0).long(), 0.4)
    assert loss.item() == 0
    loss.backward()


@pytest.mark.parametrize("own", [slice(0, 3), slice(3, 3), slice(3, 7)])
def test_the_gradient_of_one_rank_needs_no_graph_of_the_others(own):
    """The others' features enter as constants; on several ranks see test_train_cuts.py."""
    torch.manual_seed(0)
    feature_BD = torch.randn(7, 5, dtype=torch.float64)
    label_B = torch.tensor([0, 1, 0, 2, 2, 1, 0])
    expected_BD = contrastive_gradient(feature_BD, label_B, 0.4, [7])
    own_bD = feature_BD[own].clone().requires_grad_()
    whole_BD = torch.cat([feature_BD[: own.start], own_bD, feature_BD[own.stop :]])
    contrastive_loss(whole_BD, label_B, 0.4).backward()
    torch.testing.assert_close(own_bD.grad, expected_BD[own])
