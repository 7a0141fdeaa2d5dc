"""What a dataset of 675,000 images costs per image, counted on a few thousand."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fgvc.config.compose import composed, typed
from fgvc.data import dataset, file_state, split, subset
from fgvc.data.doctor import exact_duplicates, examine, images
from fgvc.data.download.unpack import unpack
from fgvc.data.index import Index
from fgvc.launch import dry_run
from fgvc.store import hashing
from fgvc.types import TEST, TRAIN, LabelMap, Progress
from tests.narrow import not_none

COUNT, CLASSES = 4000, 40


def quiet(n: int, note: str = "") -> None:
    pass


@contextmanager
def peak() -> Iterator[Callable[[], int]]:
    """Gives a function that returns the peak of allocated bytes so far."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture
def index(tmp_path) -> Index:
    """An index whose images do not exist."""
    return Index(
        tmp_path,
        tuple(f"images/{row % CLASSES:04d}/{row:032x}.jpg" for row in range(COUNT)),
        np.arange(COUNT) % CLASSES,
        np.where(np.arange(COUNT) < 0.8 * COUNT, TRAIN, TEST).astype(np.uint8),
        LabelMap(tuple(map(str, range(CLASSES))), tuple(f"class {c}" for c in range(CLASSES))),
    )


def test_the_doctor_keeps_a_few_hundred_bytes_per_image(index, monkeypatch):
    """And reads each image once."""
    rng, reads = np.random.default_rng(0), []

    def read(root: Path, name: str, max_pixels: int) -> images.ImageRecord:
        reads.append(name)
        high, low = rng.integers(0, 2**63, 2).tolist()
        return images.ImageRecord(rng.bytes(32), 48, 36, "JPEG RGB", (high, low))

    monkeypatch.setattr(images, "_read_image", read)
    with peak() as bytes_allocated:
        table = images.read_images(index.root, index.path, 1, quiet)
        assert bytes_allocated() / COUNT < 300  # with the tasks that wait
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        assert exact_duplicates.check_duplicates(index, table) == []
        assert (bytes_allocated() - before) / COUNT < 120
    assert sorted(reads) == sorted(index.path)


def test_an_image_of_the_doctor_is_read_from_disk_once(cub, conf, monkeypatch):
    read, names = file_state.read, []
    monkeypatch.setattr(file_state, "read", lambda path: names.append(path) or read(path))

    @contextmanager
    def bar(title: str, total: int | None, unit: str) -> Iterator[Progress]:
        yield quiet

    examine(conf("cub", cub), 2, bar)
    assert len(names) == len(set(names)) == 27


def test_a_split_hashes_each_path_once(index, monkeypatch):
    key, texts = split._sort_key, []
    monkeypatch.setattr(split, "_sort_key", lambda *text: texts.append(text) or key(*text))
    carved = split.carve(index, 0.1, 0)
    train = int((index.split_N == TRAIN).sum())
    assert len(carved.val_N) == round(0.1 * train)
    assert len(texts) == len(set(texts)) == train + CLASSES


def test_a_tiny_subset_of_a_large_index_is_tiny(index):
    tiny = subset.tiny_subset(index, validation=True)
    assert len(tiny) == subset.MAX_CLASSES * (3 + subset.TEST_PER_CLASS)
    with peak() as bytes_allocated:
        subset.tiny_subset(index, validation=True)
        assert bytes_allocated() / COUNT < 200


def test_a_dry_run_holds_one_index_at_a_time(cub, tmp_path, monkeypatch):
    """And the files, whose digests are cached, are not hashed again."""
    overrides = ["dataset=cub", f'dataset.root="{cub}"', "dataset.partial=true"]
    conf = typed(composed([*overrides, f'runtime.cache_root="{tmp_path / "cache"}"']))
    loaded, hashed = dataset.load(conf.dataset, tmp_path / "cache"), []
    read, indices = dataset.read, []

    def read_one(*arguments: Any, **more: Any) -> Index:
        assert not any(index() for index in indices)
        index = read(*arguments, **more)
        indices.append(weakref.ref(index))
        return index

    monkeypatch.setattr(dataset, "read", read_one)
    monkeypatch.setattr(hashing, "sha256_file", hashed.append)
    monkeypatch.setattr(dry_run, "_counts", {})
    counts = dry_run.count_images(conf)
    assert (counts.train + counts.val, counts.test) == (18, 9)
    assert not_none(counts.dataset).manifest.digest == loaded.manifest.digest
    assert (len(indices), hashed) == (2, [])


def test_unpacking_keeps_nothing_of_a_member(tmp_path):
    """tarfile keeps a KiB per member if it is not told to forget it."""
    peaks = []
    for count in (200, 2000):
        file, target = tmp_path / f"{count}.tar", tmp_path / str(count)
        with tarfile.open(file, "w") as archive:
            for number in range(count):
                member = tarfile.TarInfo(f"train_val_images/Aves/a species/{number:032x}.jpg")
                member.size = 8
                archive.addfile(member, io.BytesIO(b"%08d" % number))
        target.mkdir()
        with peak() as bytes_allocated:
            unpack(file, target, quiet)
            peaks.append(bytes_allocated())
        assert len(list((target / "train_val_images/Aves/a species").iterdir())) == count
    assert peaks[1] - peaks[0] < 100 * 1800
