"""The contrastive loss against its formula, on one rank and on two."""

from __future__ import annotations

import os

import pytest
import torch
import torch.multiprocessing as multiprocessing
from torch import distributed
from torch.nn.functional import cosine_similarity

from fgvc.learn.train.contrastive import contrastive, of_all_ranks


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
    found, expected = (loss(feature_BD, label_B, margin) for loss in (contrastive, written_out))
    torch.testing.assert_close(found, expected)
    grads = [torch.autograd.grad(one, feature_BD)[0] for one in (found, expected)]
    torch.testing.assert_close(*grads)


def test_no_image_is_no_loss_and_has_a_gradient():
    feature_BD = torch.randn(0, 5, requires_grad=True)
    loss = contrastive(feature_BD, torch.empty(0).long(), 0.4)
    assert loss.item() == 0
    loss.backward()


def _rank(rank, port, queue):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    torch.manual_seed(0)
    feature_BD, label_B = torch.randn(5, 4), torch.tensor([0, 1, 0, 1, 1])
    own = slice(0, 2) if rank == 0 else slice(2, 5)
    mine = feature_BD[own].clone().requires_grad_()
    loss = contrastive(*of_all_ranks(mine, label_B[own], 2), 0.4)
    loss.backward()
    queue.put((rank, loss.item(), (mine.grad / 2).tolist()))
    distributed.destroy_process_group()


def test_two_ranks_of_unequal_size_have_the_loss_and_gradient_of_one(tmp_path):
    torch.manual_seed(0)
    feature_BD = torch.randn(5, 4, requires_grad=True)
    expected = contrastive(feature_BD, torch.tensor([0, 1, 0, 1, 1]), 0.4)
    expected.backward()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fgvc.task.server"])  # as other tests of this process do
    queue = context.SimpleQueue()
    port = 20000 + os.getpid() % 20000
    multiprocessing.start_processes(_rank, (port, queue), nprocs=2, start_method="forkserver")
    found = {rank: (loss, grad) for rank, loss, grad in (queue.get(), queue.get())}
    assert found[0][0] == found[1][0] == pytest.approx(expected.item(), rel=1e-6)
    together = torch.tensor(found[0][1] + found[1][1])
    torch.testing.assert_close(together, feature_BD.grad)
