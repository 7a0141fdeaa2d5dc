"""fgvc.data.manifest: digests are computed once, later starts look at sizes and times only."""

from __future__ import annotations

import hashlib
import os
import shutil

import numpy as np
import pytest

from fgvc.data import cub as reader
from fgvc.data import manifest
from fgvc.types import Manifest, UserError


class Hashed:
    """A progress that counts files hashed."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, n: int, note: str = "") -> None:
        self.count += n


@pytest.fixture
def build(cub, tmp_path):
    """`build()` -> (manifest, number of files hashed), always over the same cache."""

    def built() -> tuple[Manifest, int]:
        hashed = Hashed()
        return manifest.build(reader.read(cub, False), tmp_path / "cache", hashed), hashed.count

    return built


def first(cub):
    return cub / reader.read(cub, False).path[0]


def test_digests_are_of_the_bytes(cub, build):
    table, hashed = build()
    assert hashed == len(table) == 27
    for path, sha256 in zip(table.path, table.sha256, strict=True):
        assert hashlib.sha256((cub / path).read_bytes()).hexdigest() == sha256


def test_second_start_hashes_nothing_and_gives_the_same(build):
    before, _ = build()
    after, hashed = build()
    assert hashed == 0
    assert after.digest == before.digest
    assert after.sha256 == before.sha256


def test_new_time_same_bytes_is_accepted_after_one_hash(cub, build):
    before, _ = build()
    os.utime(first(cub), ns=(1, 1))
    after, hashed = build()
    assert (hashed, after.sha256) == (1, before.sha256)
    assert build()[1] == 0


def test_altered_bytes_are_refused_naming_file_and_cache(cub, build, tmp_path):
    build()
    file = first(cub)
    data = bytearray(file.read_bytes())
    data[-30] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(1, 1))
    (cached,) = (tmp_path / "cache" / "manifests").iterdir()
    with pytest.raises(UserError, match="altered since its digest was taken") as caught:
        build()
    assert str(file) in str(caught.value)
    assert str(cached) in str(caught.value)
    assert "\n" not in str(caught.value)
    cached.unlink()
    assert build()[1] == 27


def test_other_size_is_refused_without_hashing(cub, build, tmp_path):
    build()
    hashed = Hashed()
    with first(cub).open("ab") as file:
        file.write(b"more")
    with pytest.raises(UserError, match=r"altered .*\(1 of 27 files\)"):
        manifest.build(reader.read(cub, False), tmp_path / "cache", hashed)
    assert hashed.count == 0


def test_missing_files_are_counted_and_the_first_named(cub, build):
    build()
    index = reader.read(cub, False)
    for row in (3, 20):
        (cub / index.path[row]).unlink()
    with pytest.raises(UserError, match=r"missing, or no plain file \(2 of the 27 ") as caught:
        build()
    assert index.path[3] in str(caught.value)


@pytest.mark.parametrize("damage", ["torn", "flipped", "empty", "html"])
def test_a_damaged_cache_is_made_again(build, tmp_path, damage):
    before, _ = build()
    (cached,) = (tmp_path / "cache" / "manifests").iterdir()
    data = bytearray(cached.read_bytes())
    middle = data.index(bytes.fromhex(before.sha256[5]))
    data[middle] ^= 1
    damaged = {"torn": data[:200], "flipped": data, "empty": b"", "html": b"<html>"}[damage]
    cached.write_bytes(damaged)
    after, hashed = build()
    assert (hashed, after.sha256) == (27, before.sha256)


def test_a_copy_elsewhere_has_its_own_cache_and_the_same_digest(cub, build, tmp_path):
    before, _ = build()
    other = tmp_path / "elsewhere"
    shutil.copytree(cub, other)
    hashed = Hashed()
    after = manifest.build(reader.read(other, False), tmp_path / "cache", hashed)
    assert hashed.count == 27
    assert after.digest == before.digest


def test_duplicates_across_splits_and_with_two_labels_are_noted(cub, build):
    assert manifest.duplicate_notes(build()[0]) == ()
    index = reader.read(cub, False)
    # rows 0..5 train and 6..8 test of the first class, 9.. train of the second
    for row in (6, 9):
        shutil.copy(cub / index.path[0], cub / index.path[row])
    shutil.rmtree(cub.parent / "cache")
    across, contradicting = manifest.duplicate_notes(build()[0])
    assert across.startswith("1 picture occurs in both train and test")
    assert f"{index.path[0]} = {index.path[6]}" in across
    assert contradicting.startswith("1 picture occurs in train under two labels")
    assert f"{index.path[0]} = {index.path[9]}" in contradicting


def test_digests_ending_in_zero_bytes_survive_the_cache(tmp_path):
    known = manifest.Known(np.array([1]), np.array([2]), np.array([b"\1" + bytes(31)], "V32"))
    manifest._save(tmp_path / "a.npz", known)
    again = manifest._load(tmp_path / "a.npz", 1)
    assert again is not None
    assert again.sha256_N.tolist() == [b"\1" + bytes(31)]
