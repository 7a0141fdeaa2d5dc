"""fgvc.data.manifest: digests are computed once; later starts only check sizes and times."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from fgvc.data import digest_cache, file_state, manifest
from fgvc.data.datasets import cub as reader
from fgvc.data.datasets import folder
from fgvc.types import ABSENT, TEST, TRAIN, VAL, Manifest, UserError

STRICT = manifest.Policy()


class Hashed:
    """A progress that counts files hashed."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, n: int, note: str = "") -> None:
        self.count += n


@pytest.fixture
def build(cub, tmp_path):
    """`build()` -> (manifest, number of files hashed), always with the same cache."""

    def built(
        policy: manifest.Policy = STRICT,
        notes: list[str] | None = None,
        remember: bool = True,
    ) -> tuple[Manifest, int]:
        hashed, messages = Hashed(), [] if notes is None else notes
        table = manifest.build(
            reader.read(cub, False), tmp_path / "cache", hashed, policy, messages.append, remember
        )
        return table, hashed.count

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


@pytest.mark.fault(24)
@pytest.mark.parametrize("more", [b"", b"more"])
def test_altered_bytes_are_refused_naming_the_file_and_the_way_out(cub, build, more):
    build()
    file = alter(first(cub), more)
    policy = manifest.Policy(accept="do this")
    for _ in range(2):  # a refusal accepts nothing
        with pytest.raises(
            UserError, match=r"altered since its .* \(1 of 27 files\); do this"
        ) as e:
            build(policy)
        assert str(e.value).startswith(f"{file}: ")
        assert "\n" not in str(e.value)


@pytest.mark.fault(24)
@pytest.mark.parametrize("more", [b"", b"more"])
def test_altered_bytes_are_hashed_again_with_a_note_where_they_may_change(cub, build, more):
    before, _ = build()
    file = alter(first(cub), more)
    notes: list[str] = []
    after, hashed = build(manifest.Policy(rehash=True), notes)
    path = reader.read(cub, False).path[0]
    assert notes == [
        f"1 of 27 files changed since they were last hashed (first: {path}): hashed again; the "
        "manifest digest is new"
    ]
    assert (hashed, after.sha256[0]) == (1, hashlib.sha256(file.read_bytes()).hexdigest())
    assert list(after.sha256)[1:] == list(before.sha256)[1:]
    assert after.digest != before.digest
    again, hashed = build()  # accepted: the strictest policy has nothing to say
    assert (hashed, again.digest) == (0, after.digest)


def test_what_is_not_to_be_remembered_is_noted_again(cub, build):
    build()
    alter(first(cub))
    for remember, count in ((False, 1), (True, 1), (True, 0)):
        notes: list[str] = []
        build(manifest.Policy(rehash=True), notes, remember)
        assert len(notes) == count


def alter(file, more: bytes = b""):
    """Change one bit, the length, or the time of a file."""
    data = bytearray(file.read_bytes())
    data[-30] ^= not more
    file.write_bytes(bytes(data) + more)
    os.utime(file, ns=(1, 1))
    return file


@pytest.mark.fault(24)
@pytest.mark.parametrize(
    ("left", "right"),
    [("train/robin/0.jpg", "train/wren/0.jpg"), ("train/robin", "train/wren"), ("train", "test")],
)
def test_swapped_files_of_equal_size_and_time_are_refused(classes, tmp_path, left, right):
    """Some archives give every file the same time, and uncompressed images of one size have the
    same length. Renaming a folder does not change the times of its files."""
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
    """A new link, mode or inode changes no byte, and thus no digest."""
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
    assert len(file_state.changed_rows(with_inode_14, without_14)) == 0
    assert len(file_state.changed_rows(without_14, with_inode_14)) == 0
    for column in range(4):
        other_14 = with_inode_14.copy()
        other_14[0, column] += 1
        assert file_state.changed_rows(with_inode_14, other_14).tolist() == [0]


def test_other_size_is_refused_without_hashing(cub, build, tmp_path):
    build()
    hashed = Hashed()
    with first(cub).open("ab") as file:
        file.write(b"more")
    with pytest.raises(UserError, match=r"altered .*\(1 of 27 files\)"):
        manifest.build(reader.read(cub, False), tmp_path / "cache", hashed)
    assert hashed.count == 0


@pytest.mark.fault(24)
def test_missing_files_are_counted_and_the_first_named(cub, build):
    build()
    index = reader.read(cub, False)
    for row in (3, 20):
        (cub / index.path[row]).unlink()
    with pytest.raises(UserError, match=r"missing \(2 of 27 images cannot be read\); ") as caught:
        build(manifest.Policy(restore="look for them"))
    assert str(caught.value).startswith(str(cub / index.path[3]))
    assert "; look for them, or dataset.on_bad_image=skip leaves" in str(caught.value)


def make_absent(file, kind: str) -> None:
    """Replace a file by a link, a folder or a pipe."""
    file.unlink(missing_ok=True)
    {
        "missing": lambda: None,
        "broken link": lambda: file.symlink_to("nowhere.jpg"),
        "leads back": lambda: file.symlink_to(file.name),
        "folder": file.mkdir,
        "pipe": lambda: os.mkfifo(file),
        "Input/output": lambda: file.symlink_to("/proc/self/mem"),  # open it can be, read it cannot
        "too long": lambda: file.symlink_to("a" * 300),
    }[kind]()


KINDS = ["missing", "broken link", "leads back", "folder", "pipe", "Input/output", "too long"]


@pytest.mark.fault(57)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cached", [False, True])
def test_a_file_that_cannot_be_read_is_refused_or_marked(cub, build, kind, cached):
    original = build()[0] if cached else None
    path = reader.read(cub, False).path[4]
    data = (cub / path).read_bytes()
    make_absent(cub / path, kind)
    with pytest.raises(UserError, match=kind) as caught:
        build()
    assert str(caught.value).startswith(f"{cub / path}: ")
    notes: list[str] = []
    marked, _ = build(manifest.Policy(skip=True), notes)
    assert len(notes) == 1
    assert notes[0].startswith(f"1 of 27 images cannot be read (first: {path}: ")
    assert [row for row, sha256 in enumerate(marked.sha256) if sha256 == ABSENT] == [4]
    assert build(manifest.Policy(skip=True))[0].digest == marked.digest
    (cub / path).rmdir() if kind == "folder" else (cub / path).unlink(missing_ok=True)
    (cub / path).write_bytes(data)
    restored, hashed = build()
    assert hashed == 1
    assert restored.sha256[4] == hashlib.sha256(data).hexdigest()
    assert restored.digest != marked.digest
    assert original is None or restored.digest == original.digest


def test_a_file_that_returns_with_other_bytes_was_altered(cub, build):
    build()
    file = first(cub)
    data = file.read_bytes()
    file.unlink()
    build(manifest.Policy(skip=True))
    file.write_bytes(data + b"more")
    with pytest.raises(UserError, match="altered since its digest was taken"):
        build()


@pytest.mark.parametrize(("split", "name"), [(TRAIN, "training"), (TEST, "test")])
def test_a_split_without_any_file_is_refused_under_any_policy(cub, build, split, name):
    index = reader.read(cub, False)
    for row in np.flatnonzero(index.split_N == split):
        (cub / index.path[row]).unlink()
    with pytest.raises(UserError, match=f"missing: none of the {name} images can be read; "):
        build(manifest.Policy(skip=True))


def test_files_that_cannot_be_read_are_no_copies_of_each_other(cub, build):
    index = reader.read(cub, False)
    for row in (0, 6, 9):
        (cub / index.path[row]).unlink()
    assert manifest.duplicate_notes(build(manifest.Policy(skip=True))[0]) == ()


@pytest.mark.fault(50)
@pytest.mark.parametrize(
    "damage", ["torn", "longer", "head", "state", "digest", "empty", "html", "arrays", "folder"]
)
def test_a_damaged_cache_is_made_again_with_a_note(cub, build, tmp_path, damage):
    before, _ = build()
    (cached,) = (tmp_path / "cache" / "manifests").iterdir()
    data = bytearray(cached.read_bytes())
    place = {"head": 3, "state": 40, "digest": data.index(bytes.fromhex(before.sha256[5])) + 7}
    if damage in place:
        data[place[damage]] ^= 4
    data = {"torn": data[:-200], "longer": data * 2, "empty": b"", "html": b"<html>"}.get(
        damage, data
    )
    cached.write_bytes(data)
    if damage == "arrays":
        with cached.open("wb") as out:
            np.savez(out, state_N4=np.zeros((27, 4)), sha256_N=np.zeros(27, "V32"))
    if damage == "folder":
        cached.unlink()
        cached.symlink_to(tmp_path)
    notes: list[str] = []
    after, hashed = build(notes=notes)
    assert (hashed, after.sha256) == (27, before.sha256)
    assert notes == [f"{cached}: a damaged cache of digests; all 27 files are hashed again"]
    again, hashed = build(notes=notes)
    assert (hashed, again.sha256, len(notes)) == (0, before.sha256, 1)


def test_a_copy_in_another_place_has_its_own_cache_and_the_same_digest(cub, build, tmp_path):
    before, _ = build()
    other = tmp_path / "elsewhere"
    shutil.copytree(cub, other)
    hashed = Hashed()
    after = manifest.build(reader.read(other, False), tmp_path / "cache", hashed)
    assert hashed.count == 27
    assert after.digest == before.digest


@pytest.mark.fault(26)
def test_duplicates_across_splits_and_with_two_labels_are_noted(cub, build):
    assert manifest.duplicate_notes(build()[0]) == ()
    index = reader.read(cub, False)
    # rows 0..5 train and 6..8 test of the first class, 9.. train of the second
    for row in (6, 9):
        shutil.copy(cub / index.path[0], cub / index.path[row])
    shutil.rmtree(cub.parent / "cache")
    across, contradicting = manifest.duplicate_notes(build()[0])
    assert across.startswith("1 image occurs in both train and test")
    assert f"{index.path[0]} = {index.path[6]}" in across
    assert contradicting.startswith("1 image occurs in train under two labels")
    assert f"{index.path[0]} = {index.path[9]}" in contradicting


def test_an_image_in_both_train_and_an_own_validation_split_is_noted(cub, build):
    index = reader.read(cub, False)
    shutil.copy(cub / index.path[0], cub / index.path[1])
    built_manifest, _ = build()
    split_N = built_manifest.split_N.copy()
    split_N[[1]] = VAL
    (note,) = manifest.duplicate_notes(replace(built_manifest, split_N=split_N))
    assert note.startswith("1 image occurs in both train and validation, byte for byte")
    assert f"{index.path[0]} = {index.path[1]}" in note


def test_digests_ending_in_zero_bytes_survive_the_cache(tmp_path):
    digests = digest_cache.Digests(np.array([[1, 2, 3, 4]]), np.array([b"\1" + bytes(31)], "V32"))
    digest_cache.save(tmp_path / "a", digests)
    again = digest_cache.load(tmp_path / "a", 1, pytest.fail)
    assert again.sha256_N.tolist() == [b"\1" + bytes(31)]
    assert again.state_N4.tolist() == [[1, 2, 3, 4]]
