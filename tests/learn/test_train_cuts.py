"""A step is the same for any division of its global batch into ranks and micro-batches.

Everything that could depend on the division is active: drop path, dropout in backbone and head,
mixed pairs, the contrastive loss, and unreadable images. All computations are in float64.
Fault table of the project: row 45.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import socket
from datetime import timedelta

import numpy as np
import pytest
import torch
import torch.multiprocessing as multiprocessing
from torch import distributed, nn

from fgvc.config.compose import composed, typed
from fgvc.data.sampler import EpochOrder
from fgvc.learn.train import LoaderBatch, Trainer
from fgvc.model.backbone import build
from fgvc.model.build_head import new_head
from fgvc.model.classifier import Classifier
from fgvc.types import WeightsSource
from tests.narrow import not_none

CLASSES, SIDE, STEPS = 5, 32, 2
WORLDS, MICRO_BATCHES, BATCHES = (1, 2, 3), (None, 1, 2, 3, 4, 7), (13, 10, 4)
TIMEOUT = 120.0  # seconds for all of the grid on several ranks: a guard against waiting for ever
CPU = torch.device("cpu")


@functools.cache
def make_conf(**changes):
    settings = {"optimiser": "sgd", "learning_rate": 0.1, "clip_norm": 0.5, "mixup": 0.8}
    settings |= {"cutmix": 1.0, "mix_probability": 0.8, "warmup_steps": 0}
    overrides = [f"task.{key}={value}" for key, value in {**settings, **changes}.items()]
    choices = ["backbone=vit", "backbone.size=mini", "backbone.pretrained=false", "head=mlp"]
    choices += ["head.hidden=8", "head.dropout=0.3"]
    return typed(composed(["task=train", *choices, *overrides]))


@functools.cache
def model():
    """A two-block ViT and an MLP head in float64, with every kind of random layer, and a buffer,
    which DistributedDataParallel sends from rank 0 to the others at every step."""
    conf = make_conf()
    backbone = build(conf.backbone, SIDE, WeightsSource("random", "random"), seed=0)
    for name, part in backbone.named_modules():
        if isinstance(part, nn.Dropout) and not name.endswith("attn_drop"):
            part.p = 0.2
    classifier = Classifier(backbone, new_head(conf.head, backbone.feature_dim, CLASSES, 0))
    classifier.returns_features = True
    classifier.thaw(conf.task)
    classifier.randomize(0.5)
    classifier.register_buffer("constant", torch.ones(3))
    return classifier.double()


def make_trainer(batch_size, world=1, micro_batch=None, pull=0.7, **changes):
    classifier = copy.deepcopy(model())
    task = dataclasses.replace(make_conf(**changes).task, batch_size=batch_size)

    def before_forward(row_B, key_B):
        classifier.random_layers.set_keys(key_B)

    choices = (3, world, (pull, 0.1), micro_batch, before_forward)
    return Trainer(classifier, task, CLASSES, lambda name: 0, STEPS, CPU, "fp32", *choices)


def loader_batches(step, batch_size, rank, world, micro_batch):
    """This rank's part of a global batch, read as in the task. In the second batch, images 1 and 2
    and all images of the last of three ranks are unreadable."""
    generator = torch.Generator().manual_seed(step)
    pixels_BCHW = torch.randn(batch_size, 3, SIDE, SIDE, generator=generator).double()
    label_B = torch.randint(CLASSES, (batch_size,), generator=generator)
    sampler_epoch = EpochOrder(np.arange(batch_size), np.zeros(batch_size, np.int64), batch_size)
    last = sampler_epoch.part(0, 2, 3).place_N.tolist()
    unreadable = [1, 2, *last] if step == 1 else []
    place_B = sampler_epoch.part(0, rank, world).place_N
    size = max(2 * (micro_batch or batch_size), 2)
    for start in range(0, max(len(place_B), 1), size):
        good_B = np.array(
            [p for p in place_B[start : start + size] if p not in unreadable], np.int64
        )
        yield LoaderBatch(pixels_BCHW[good_B], label_B[good_B], good_B, good_B)


def run_steps(batch_size, micro_batch, rank, world):
    """Vectors: the gradient of each step and the sum of all updates; the reports."""
    trainer = make_trainer(batch_size, world, micro_batch)
    before, vectors, reports = flat_parameters(trainer.unwrapped_model), [], []
    for step in range(STEPS):
        reports.append(trainer.step(loader_batches(step, batch_size, rank, world, micro_batch)))
        vectors.append(flat_gradient(trainer.unwrapped_model))
    numbers = [(report.loss, report.top1, report.images, report.grad_norm) for report in reports]
    return [*vectors, flat_parameters(trainer.unwrapped_model) - before], numbers


def flat_gradient(model):
    return torch.cat([not_none(value.grad).flatten() for value in model.parameters()])


def flat_parameters(model):
    return torch.cat([value.detach().flatten() for value in model.parameters()])


def _rank(rank, port, folder):
    torch.set_num_threads(1)
    for world in WORLDS[1:]:
        if rank >= world:
            continue
        distributed.init_process_group(
            "gloo",
            f"tcp://127.0.0.1:{port + world}",
            timedelta(seconds=TIMEOUT),
            world_size=world,
            rank=rank,
        )
        for batch_size in BATCHES:
            for micro_batch in MICRO_BATCHES:
                results = run_steps(batch_size, micro_batch, rank, world)
                torch.save(results, folder / f"{rank}-{world}-{batch_size}-{micro_batch}.pt")
        distributed.destroy_process_group()


@pytest.fixture(scope="module")
def rank_results(tmp_path_factory):
    """several(rank, world, batch, micro) -> result of that rank; one group runs all cases."""
    folder = tmp_path_factory.mktemp("cuts")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fgvc.launch.fork_server"])  # as other tests of this process do
    ranks = [
        context.Process(target=_rank, args=(rank, port, folder)) for rank in range(max(WORLDS))
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(TIMEOUT)
    ended = [process.exitcode for process in ranks]
    for process in ranks:
        process.kill()
    assert ended == [0] * len(ranks)
    return lambda *key: torch.load(folder / f"{'-'.join(map(str, key))}.pt")


@pytest.fixture(scope="module")
def single_process():
    """whole(batch) -> result in one process with one micro-batch."""
    before, classifier = torch.get_num_threads(), {}
    torch.set_num_threads(1)
    for batch_size in BATCHES:
        classifier[batch_size] = run_steps(batch_size, None, 0, 1)
    yield classifier.get
    torch.set_num_threads(before)


def assert_same(results, expected):
    for vector, other in zip(results[0], expected[0], strict=True):
        assert (vector - other).norm() / other.norm() < 1e-6
    for report, other in zip(results[1], expected[1], strict=True):
        assert report == pytest.approx(other, rel=1e-6)


@pytest.mark.parametrize("batch_size", BATCHES)
@pytest.mark.parametrize("micro_batch", MICRO_BATCHES[1:])
def test_micro_batches_move_the_weights_equally(single_process, batch_size, micro_batch):
    assert_same(run_steps(batch_size, micro_batch, 0, 1), single_process(batch_size))


@pytest.mark.fault(45)
@pytest.mark.slow
@pytest.mark.timeout(2 * TIMEOUT)
@pytest.mark.parametrize("world", WORLDS[1:])
@pytest.mark.parametrize("micro_batch", MICRO_BATCHES)
def test_ranks_and_micro_batches_move_the_weights_equally(
    single_process, rank_results, micro_batch, world
):
    """Ranks with unequal numbers of images, or none, make the same collective calls: none hangs."""
    for batch_size in BATCHES:
        for rank in range(world):
            assert_same(
                rank_results(rank, world, batch_size, micro_batch), single_process(batch_size)
            )


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("contrastive loss", {"pull": 0.0}),
        ("mixing", {"mixup": 0.0, "cutmix": 0.0}),
    ],
)
def test_what_the_cuts_are_tested_with_has_an_effect(single_process, name, changes):
    trainer = make_trainer(BATCHES[0], **changes)
    trainer.step(loader_batches(0, BATCHES[0], 0, 1, None))
    gradient = flat_gradient(trainer.unwrapped_model)
    expected = single_process(BATCHES[0])[0][0]
    assert (gradient - expected).norm() / expected.norm() > 1e-2, name
