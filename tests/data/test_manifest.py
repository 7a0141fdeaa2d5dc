"""fgvc.data.manifest: digests are computed once, later starts look at sizes and times only."""

from __future__ import annotations

import hashlib
import os
import shutil

import numpy as np
import pytest

from fgvc.data import cub as reader
from fgvc.data import folder, manifest
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


@pytest.mark.parametrize(
    ("left", "right"),
    [("train/robin/0.jpg", "train/wren/0.jpg"), ("train/robin", "train/wren"), ("train", "test")],
)
def test_swapped_files_of_equal_size_and_time_are_refused(classes, tmp_path, left, right):
    """Some archives give every file one time, and uncompressed images of one size are equally
    long. A folder that is renamed changes no time of the files in it."""
    counts = {f"{part}/{name}": 2 for part in ("train", "test") for name in ("robin", "wren")}
    root = classes(counts)
    for file in root.rglob("*.jpg"):
        file.write_bytes(file.read_bytes().ljust(20_000, b"\0"))
        os.utime(file, ns=(1, 1))
    index = folder.read(root, 0.5, 0)
    manifest.build(index, tmp_path / "cache")
    for source, target in ((left, "aside"), (right, left), ("aside", right)):
        (root / source).rename(root / target)
    with pytest.raises(UserError, match="altered since its digest was taken"):
        manifest.build(index, tmp_path / "cache")


def test_only_the_files_that_were_touched_are_hashed_again(cub, build):
    """A new link, another mode and another inode change no byte, and thus no digest."""
    before, _ = build()
    linked, moded, copied = (cub / before.path[row] for row in (0, 9, 18))
    os.link(linked, cub / "link")
    moded.chmod(0o600)
    shutil.copy2(copied, cub / "copy")
    (cub / "copy").rename(copied)
    after, hashed = build()
    assert (hashed, after.sha256, after.digest) == (3, before.sha256, before.digest)
    assert build()[1] == 0


def test_an_inode_of_zero_is_unknown():
    """As some network file systems report it."""
    with_inode_14, without_14 = np.array([[9, 1, 1, 7]]), np.array([[9, 1, 1, 0]])
    assert len(manifest._changed(with_inode_14, without_14)) == 0
    assert len(manifest._changed(without_14, with_inode_14)) == 0
    for column in range(4):
        other_14 = with_inode_14.copy()
        other_14[0, column] += 1
        assert manifest._changed(with_inode_14, other_14).tolist() == [0]


def test_a_cache_without_change_times_is_made_again(build, tmp_path):
    before, _ = build()
    (cached,) = (tmp_path / "cache" / "manifests").iterdir()
    with np.load(cached) as columns:
        state_N4, sha256_N = columns["state_N4"], columns["sha256_N"]
    np.savez(cached, size_N=state_N4[:, 0], mtime_N=state_N4[:, 1], sha256_N=sha256_N)
    after, hashed = build()
    assert (hashed, after.sha256) == (27, before.sha256)


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
    known = manifest.Known(np.array([[1, 2, 3, 4]]), np.array([b"\1" + bytes(31)], "V32"))
    manifest._save(tmp_path / "a.npz", known)
    again = manifest._load(tmp_path / "a.npz", 1)
    assert again is not None
    assert again.sha256_N.tolist() == [b"\1" + bytes(31)]
