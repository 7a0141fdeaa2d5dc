"""fgvc.data.loader: every row once, in order, with any number of workers; none substituted."""

from __future__ import annotations

import os
import pickle
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from fgvc.data import loader, manifest
from fgvc.data.datasets import cub as reader
from fgvc.data.decode import decode
from fgvc.data.image_input import ImageInput
from fgvc.data.preprocess import Preprocess, crop_to_box
from fgvc.types import BadImage, Manifest, UserError

PREPROCESS = Preprocess("shared", 32, "imagenet", "vit")


@pytest.fixture
def table(cub, tmp_path) -> Manifest:
    return manifest.build(reader.read(cub, False), tmp_path / "cache")


def test_rows_come_in_the_order_asked_for_with_their_own_pixels(table):
    rows = np.random.default_rng(0).permutation(len(table))[:13]
    batches = list(loader.batches(table, rows, PREPROCESS, 4, 0))
    assert [len(batch.row_B) for batch in batches] == [4, 4, 4, 1]
    assert np.concatenate([batch.row_B for batch in batches]).tolist() == rows.tolist()
    for batch in batches:
        assert batch.pixels_BCHW.dtype == torch.uint8
        assert batch.bad == ()
        for row, pixels in zip(batch.row_B, batch.pixels_BCHW, strict=True):
            data = (table.root / table.path[row]).read_bytes()
            assert torch.equal(pixels, PREPROCESS(decode(data, "")))


def test_cropped_rows_are_cropped_to_their_own_boxes_first(table):
    box_N4 = np.tile(np.array([1, 2, 30, 20.5], np.float32), (len(table), 1))
    box_N4[5] = 10.2, 0, 5.5, 36
    cut = replace(table, box_N4=box_N4, cropped=True)
    rows = np.array([5, 3])
    (batch,) = loader.batches(cut, rows, PREPROCESS, 4, 0)
    expected = [
        PREPROCESS(
            decode((table.root / table.path[row]).read_bytes(), "")[:, top:bottom, left:right]
        )
        for row, (top, bottom, left, right) in ((5, (0, 36, 10, 16)), (3, (2, 23, 1, 31)))
    ]
    assert torch.equal(batch.pixels_BCHW, torch.stack(expected))


def test_a_box_outside_its_image_is_a_bad_image(table):
    box_N4 = np.tile(np.array([1, 2, 30, 20.5], np.float32), (len(table), 1))
    box_N4[5], box_N4[6] = (48, 0, 5, 5), (47.5, 35.5, 5, 5)
    cut = replace(table, box_N4=box_N4, cropped=True)
    (batch,) = loader.batches(cut, np.array([4, 5, 6]), PREPROCESS, 3, 0)
    assert batch.row_B.tolist() == [4, 6]
    (bad,) = batch.bad
    assert bad.message.startswith(f"{table.path[5]}: dataset.box_crop=true: the box 48, 0, 5, 5")
    assert "48 x 36 pixels" in bad.message


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ((0, 0, 8, 6), (0, 6), (0, 8)),
        ((-3, -2, 5, 4), (0, 2), (0, 2)),
        ((6.5, 4.5, 9, 9), (4, 6), (6, 8)),
        ((2.2, 1.9, 1.0, 0.2), (1, 3), (2, 4)),
        ((3, 3, 0, -4), (3, 4), (3, 4)),
        ((20, 20, 5, 5), (5, 6), (7, 8)),
        ((-9, -9, 2, 2), (0, 1), (0, 1)),
    ],
)
def test_boxes_are_clamped_to_the_image_and_keep_a_pixel(box, rows, columns):
    image_CHW = torch.arange(48, dtype=torch.uint8).reshape(1, 6, 8)
    expected = image_CHW[:, slice(*rows), slice(*columns)]
    assert torch.equal(crop_to_box(image_CHW, box), expected)


@pytest.mark.fault(6)
@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_nothing(table, workers, recwarn):
    rows = np.arange(len(table))[::-1]
    alone = list(loader.batches(table, rows, PREPROCESS, 5, 0))
    several = list(loader.batches(table, rows, PREPROCESS, 5, workers))
    assert len(alone) == len(several) == 6
    for batch, expected in zip(alone, several, strict=True):
        assert batch.row_B.tolist() == expected.row_B.tolist()
        assert torch.equal(batch.pixels_BCHW, expected.pixels_BCHW)


def test_sections_are_read_by_one_loader_in_the_batches_of_one_loader_each(table, monkeypatch):
    rows, sizes, loaders = np.arange(9), [5, 3, 1], []
    parts = np.split(rows, np.cumsum(sizes)[:-1])
    apart = [batch for part in parts for batch in loader.batches(table, part, PREPROCESS, 2, 0)]
    create = loader.DataLoader

    def spy(*arguments, **options):
        loaders.append(options["num_workers"])
        return create(*arguments, **options)

    monkeypatch.setattr(loader, "DataLoader", spy)
    batches = list(loader.batches(table, rows, PREPROCESS, 2, 0, sections=sizes))
    assert [batch.row_B.tolist() for batch in batches] == [[0, 1], [2, 3], [4], [5, 6], [7], [8]]
    for batch, expected in zip(batches, apart, strict=True):
        assert torch.equal(batch.pixels_BCHW, expected.pixels_BCHW)
    assert loaders == [0]


def test_no_rows_no_batches(table):
    assert list(loader.batches(table, np.array([], dtype=np.int64), PREPROCESS, 4, 2)) == []


@pytest.mark.fault(20, 21)
@pytest.mark.parametrize("workers", [0, 2])
def test_an_undecodable_image_is_reported_and_not_replaced(cub, tmp_path, workers):
    index = reader.read(cub, False)
    (cub / index.path[2]).write_bytes(b"<html>not found</html>")
    (cub / index.path[5]).write_bytes((cub / index.path[5]).read_bytes()[:-200])
    table = manifest.build(index, tmp_path / "cache")
    batches = list(loader.batches(table, np.arange(8), PREPROCESS, 4, workers))
    assert [batch.row_B.tolist() for batch in batches] == [[0, 1, 3], [4, 6, 7]]
    assert [len(batch.pixels_BCHW) for batch in batches] == [3, 3]
    (html,), (torn,) = (batch.bad for batch in batches)
    assert (html.row, torn.row) == (2, 5)
    assert html.message.startswith(f"{table.path[2]}: an HTML page")
    assert torn.message.startswith(f"{table.path[5]}: damaged image")


def test_a_batch_of_nothing_but_bad_images_is_empty(cub, tmp_path):
    index = reader.read(cub, False)
    (cub / index.path[0]).write_bytes(b"")
    table = manifest.build(index, tmp_path / "cache")
    (batch,) = loader.batches(table, np.array([0]), PREPROCESS, 4, 0)
    assert batch.pixels_BCHW.shape == (0, 3, 32, 32)
    assert batch.pixels_BCHW.dtype == torch.uint8
    assert len(batch.row_B) == 0
    assert batch.bad[0].row == 0


@pytest.mark.fault(24)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_with_other_bytes_than_the_manifests_ends_the_run(table, workers):
    file = table.root / table.path[4]
    data = bytearray(file.read_bytes())
    data[-30] ^= 1
    file.write_bytes(data)
    with pytest.raises(UserError, match="altered since") as caught:
        list(loader.batches(table, np.arange(8), PREPROCESS, 4, workers))
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_disappears_is_a_bad_image_that_another_run_may_read(table, workers):
    (table.root / table.path[4]).unlink()
    (table.root / table.path[6]).unlink()
    os.mkfifo(table.root / table.path[6])
    _, batch = loader.batches(table, np.arange(8), PREPROCESS, 4, workers)
    assert batch.row_B.tolist() == [5, 7]
    assert batch.bad == (
        BadImage(4, f"{table.path[4]}: missing since the run began", lost=True),
        BadImage(
            6,
            f"{table.path[6]}: a pipe, socket or device instead of a file since the run began",
            lost=True,
        ),
    )


@pytest.mark.parametrize("appears", [False, True])
def test_a_file_that_the_manifest_lacks_is_a_bad_image(cub, tmp_path, jpeg, appears):
    """Even if it appears later, because the features would belong to another manifest."""
    index = reader.read(cub, False)
    file = cub / index.path[1]
    file.unlink()
    table = manifest.build(index, tmp_path / "cache", policy=manifest.Policy(skip=True))
    if appears:
        file.write_bytes(jpeg(5))
    (batch,) = loader.batches(table, np.arange(3), PREPROCESS, 4, 0)
    assert batch.row_B.tolist() == [0, 2]
    why = "could not be read when the run began" if appears else "missing"
    assert batch.bad == (BadImage(1, f"{index.path[1]}: {why}"),)


def test_digests_may_be_left_unchecked(table, jpeg):
    (table.root / table.path[0]).write_bytes(jpeg(99))
    (batch,) = loader.batches(table, np.array([0]), PREPROCESS, 4, 0, check_digest=False)
    assert torch.equal(batch.pixels_BCHW[0], PREPROCESS(decode(jpeg(99), "")))


class Killed(Preprocess):
    """Dies as if the kernel's out-of-memory killer had killed it."""

    def __call__(self, image: ImageInput) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


@pytest.mark.fault(33)
def test_a_killed_worker_is_an_error_in_bounded_time(table):
    killed = Killed("shared", 32, "imagenet", "vit")
    with pytest.raises(UserError, match="a loader process died") as caught:
        list(loader.batches(table, np.arange(8), killed, 4, 2))
    assert table.path[0] in str(caught.value)
    assert "\n" not in str(caught.value)


class Broken(Preprocess):
    """An error of fgvc, not of the image."""

    def __call__(self, image: ImageInput) -> torch.Tensor:
        raise KeyError("ours")


@pytest.mark.fault(33)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_fault_of_ours_names_path_and_row(table, workers):
    broken = Broken("shared", 32, "imagenet", "vit")
    with pytest.raises(RuntimeError, match=r"bird 3 ü=1\.jpg \(row 3\): KeyError"):
        list(loader.batches(table, np.array([3]), broken, 4, workers))


def test_what_a_worker_gets_can_be_spawned(table):
    images = loader._Images(table, np.array([1, 2]), PREPROCESS, True)
    again = pickle.loads(pickle.dumps(images))
    expected, actual = images[1][1], again[1][1]
    assert isinstance(expected, torch.Tensor)
    assert torch.equal(actual, expected)
    assert pickle.loads(pickle.dumps(loader._Collate(32))) == loader._Collate(32)


def test_threads_of_this_process_are_left_as_they_were(table):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for _ in loader.batches(table, np.arange(4), PREPROCESS, 2, 0):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_worker_count():
    assert loader.worker_count(0) == 0
    assert loader.worker_count(7) == 7
    assert 1 <= loader.worker_count(None) <= loader.MAX_WORKERS
    with pytest.raises(UserError, match=r"runtime\.num_workers=-1: 0 or more"):
        loader.worker_count(-1)
