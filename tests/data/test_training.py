"""fgvc.data.loader.training_batches: the same pixels for any division of the work."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fgvc.config import schema
from fgvc.config.compose import composed, typed
from fgvc.data import dataset, loader, manifest
from fgvc.data.augment import Augment, training_transform
from fgvc.data.datasets import cub as reader
from fgvc.data.decode import decode
from fgvc.data.sampler import Draws, Order
from fgvc.types import Batch, Manifest, UserError
from tests.narrow import not_none

EPOCH = 3


@pytest.fixture
def table(cub, tmp_path) -> Manifest:
    return manifest.build(reader.read(cub, False), tmp_path / "cache")


@pytest.fixture(scope="module")
def augment() -> Augment:
    """The augmentation of the modern recipe at 32 pixels, with erasing in every second image."""
    conf = typed(composed(["task=train", "backbone=vit", "backbone.pretrained=false"]))
    conf.task.erasing = 0.5
    resolution = dataclasses.replace(conf.resolution, side=32)
    return training_transform(dataclasses.replace(conf, resolution=resolution))


@pytest.fixture
def order(table) -> Order:
    """Two global batches of 12 per epoch, with some rows more than once."""
    return Order(
        np.arange(2, 27), table.label_N[2:27] ** 2, table.key_N[2:27], 5, "class_balanced", 12
    )


@pytest.fixture
def draws(order) -> Draws:
    epoch = order.epoch(EPOCH)
    return Draws.joined([epoch.part(step, 0, 1) for step in range(order.steps_per_epoch)])


@pytest.fixture
def read(table, augment) -> Callable[..., list[Batch]]:
    def make(draws: Draws, sizes: Sequence[int], workers: int = 0, epoch: int = EPOCH):
        return list(loader.training_batches(table, draws, augment, epoch, sizes, workers))

    return make


def pixels(batches: list[Batch]) -> torch.Tensor:
    return torch.cat([batch.pixels_BCHW for batch in batches])


def test_each_draw_comes_in_order_as_the_augmentation_makes_it(table, augment, draws, read):
    batches = read(draws, [5, 5, 2, 12])
    assert [len(batch.row_B) for batch in batches] == [5, 5, 2, 12]
    assert np.concatenate([batch.row_B for batch in batches]).tolist() == draws.row_N.tolist()
    assert np.concatenate([batch.place_B for batch in batches]).tolist() == [*range(12), *range(12)]
    assert draws.occurrence_N.max() > 0
    draw_pairs = zip(draws.row_N.tolist(), draws.occurrence_N.tolist(), strict=True)
    for one_CHW, (row, occurrence) in zip(pixels(batches), draw_pairs, strict=True):
        image_CHW = decode((table.root / table.path[row]).read_bytes(), "")
        key = int(table.key_N[row])
        assert torch.equal(one_CHW, augment(image_CHW, EPOCH, key, occurrence))


def test_a_row_drawn_again_and_another_epoch_are_augmented_again(draws, read):
    first = pixels(read(draws, [24]))
    again = pixels(read(draws, [24], epoch=EPOCH + 1))
    assert not any(
        torch.equal(first_CHW, again_CHW) for first_CHW, again_CHW in zip(first, again, strict=True)
    )
    (twice,) = np.flatnonzero(draws.occurrence_N == 1)[:1]
    (first_place,) = np.flatnonzero((draws.row_N == draws.row_N[twice]) & (draws.occurrence_N == 0))
    assert not torch.equal(first[twice], first[first_place])


@pytest.mark.parametrize("sizes", [[12, 12], [1] * 24, [7, 5, 7, 5]])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_workers_and_sizes_change_nothing(draws, read, workers, sizes, recwarn):
    torch.manual_seed(workers)
    assert torch.equal(pixels(read(draws, sizes, workers)), pixels(read(draws, [24])))


def test_ranks_and_a_start_within_the_epoch_change_nothing(order, draws, read):
    epoch_pixels = pixels(read(draws, [12, 12]))
    epoch = order.epoch(EPOCH)
    for rank, own in ((0, slice(0, 6)), (1, slice(6, 12))):
        part = epoch.part(1, rank, 2)
        batches = read(part, [4, 2])
        assert np.concatenate([batch.place_B for batch in batches]).tolist() == list(range(12))[own]
        assert torch.equal(pixels(batches), epoch_pixels[12:][own])


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_images_are_reported_and_not_replaced(cub, tmp_path, augment, workers):
    index = reader.read(cub, False)
    (cub / index.path[5]).write_bytes(b"<html>not found</html>")
    table = manifest.build(index, tmp_path / "cache")
    draws = Draws(np.array([4, 5, 6, 5, 5, 7]), np.array([0, 0, 0, 1, 2, 0]), np.arange(10, 16))
    batches = list(loader.training_batches(table, draws, augment, 0, [4, 1, 1], workers))
    assert [batch.row_B.tolist() for batch in batches] == [[4, 6], [], [7]]
    assert [batch.place_B.tolist() for batch in batches if batch.place_B is not None] == [
        [10, 12],
        [],
        [15],
    ]
    assert [[bad.row for bad in batch.bad] for batch in batches] == [[5, 5], [5], []]
    assert batches[0].bad[0].message.startswith(f"{table.path[5]}: an HTML page")
    assert batches[1].pixels_BCHW.shape == (0, 3, 32, 32)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_altered_file_ends_the_run(table, augment, jpeg, workers):
    draws = Draws(np.arange(4), np.zeros(4, dtype=np.int64), np.arange(4))
    (table.root / table.path[2]).write_bytes(jpeg(99))
    with pytest.raises(UserError, match="altered since"):
        list(loader.training_batches(table, draws, augment, 0, [2, 2], workers))


@dataclasses.dataclass(frozen=True)
class Killed(Augment):
    """Dies as if the kernel's out-of-memory killer had killed it."""

    def __call__(self, image_CHW: torch.Tensor, epoch: int, key: int, occurrence: int):
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def test_a_killed_worker_is_an_error_in_bounded_time(table, augment, draws):
    killed = Killed(augment.preprocess, 0, ())
    with pytest.raises(UserError, match="a loader process died") as caught:
        list(loader.training_batches(table, draws, killed, EPOCH, [12, 12], 2))
    assert table.path[draws.row_N[0]] in str(caught.value)
    assert "runtime.micro_batch" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_workers_can_be_spawned(table, augment, draws, read):
    images = loader._AugmentedImages(table, draws, augment, EPOCH)
    again = pickle.loads(pickle.dumps(images))
    expected, actual = images[3][1], again[3][1]
    assert isinstance(expected, torch.Tensor)
    assert torch.equal(actual, expected)
    spawned = DataLoader(
        images,
        batch_size=24,
        num_workers=1,
        collate_fn=loader._Collate(32),
        multiprocessing_context="spawn",
    )
    (batch,) = spawned
    assert torch.equal(batch.pixels_BCHW, pixels(read(draws, [24])))


def test_no_draws_no_batches(draws, read):
    none = Draws(draws.row_N[:0], draws.occurrence_N[:0], draws.place_N[:0])
    assert read(none, [], 2) == []


@pytest.mark.real
def test_real_photographs_of_an_epoch_are_the_same_at_any_number_of_workers(tmp_path, conf):
    if "FGVC_REAL_DATA" not in os.environ:
        pytest.skip("FGVC_REAL_DATA is not set")
    root = Path(os.environ["FGVC_REAL_DATA"]) / "data" / "cub20"
    official = schema.OfficialCounts(200, 5994, 5794)
    birds = dataset.load(conf("cub", root, partial=True, official=official), tmp_path)
    row_N = birds.split.train_N
    epoch = Order(
        row_N, birds.manifest.label_N[row_N], birds.manifest.key_N[row_N], 0, "uniform", 64
    ).epoch(0)
    draws = epoch.part(0, 0, 1)
    for recipe in ("modern", "transfg"):
        chosen = ["task=train", f"recipe={recipe}", "backbone=vit", "backbone.pretrained=false"]
        augment = training_transform(typed(composed(chosen)))
        alone, several = (
            list(loader.training_batches(birds.manifest, draws, augment, 0, sizes, workers))
            for sizes, workers in (([64], 0), ([16, 16, 32], 2))
        )
        assert not any(batch.bad for batch in alone)
        assert torch.equal(pixels(alone), pixels(several))
        assert pixels(alone).float().std() > 40


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_to_every_process_of_the_job_leaves_the_workers_reading(
    table, augment, draws, read, number
):
    expected = read(draws, [2] * 12)
    earlier = multiprocessing.active_children()  # of other tests, which may just be ending
    stream = loader.training_batches(table, draws, augment, EPOCH, [2] * 12, 2)
    batches = [next(stream), next(stream)]  # one of each worker: both have started
    workers = [child for child in multiprocessing.active_children() if child not in earlier]
    assert len(workers) == 2
    for worker in workers:
        os.kill(not_none(worker.pid), number)
    batches += list(stream)
    assert torch.equal(pixels(batches), pixels(expected))
