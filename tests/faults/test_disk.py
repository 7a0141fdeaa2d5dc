"""Faults of disks: full, read-only, killed writers, damaged caches."""

from __future__ import annotations

import errno
import logging
import os
import random
import resource
import shutil
import signal
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fgvc.config.schema import Generator
from fgvc.data import digest_cache, rescale
from fgvc.data.datasets.synthetic import folder as synthetic_folder
from fgvc.data.datasets.synthetic.species import species
from fgvc.data.datasets.table import embedded_images
from fgvc.data.datasets.table.open_table import open_table
from fgvc.data.datasets.table.parquet_file import ParquetTable
from fgvc.data.download import unpack
from fgvc.record.run_dir import RunLog, open_run
from fgvc.record.tensorboard import Board, events
from fgvc.store import atomic, json_cache, temporary_files
from fgvc.store.array_cache import cached_arrays
from fgvc.store.content_store import ContentStore
from fgvc.store.disk_errors import NamedFile, NamedWriter, disk_error_line, open_named
from fgvc.store.feature_cache import FeatureCache
from fgvc.store.file_lock import lock
from fgvc.types import Features, UserError
from tests.jobs import shard_by_shard

DEAD = 999_999_999  # no process has this id


# --- row 51: what a killed writer leaves ---


def left_by(target: Path, host: str | None = None, pid: int = DEAD) -> Path:
    """The files of a process that was killed before it renamed its temporary file to `target`."""
    target = Path(str(target).replace(f".{os.getpid()}.", f".{DEAD}."))  # a folder of ours
    target.parent.mkdir(parents=True, exist_ok=True)
    host = temporary_files.this_host() if host is None else host
    temporary = target.with_name(f".{target.name}.{host}.{pid}.0a1b2c3d.tmp")
    temporary.write_bytes(b"half")
    return temporary


def temporaries(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.name.endswith(".tmp"))


@pytest.fixture
def renamed(monkeypatch) -> list[Path]:
    """The target of every rename of this process."""
    targets: list[Path] = []
    for name in ("replace", "rename"):
        own = getattr(os, name)

        def record(source, target, own=own, **kwargs):
            targets.append(Path(target))
            return own(source, target, **kwargs)

        monkeypatch.setattr(os, name, record)
    return targets


@pytest.mark.fault(51)
@pytest.mark.slow
def test_a_kill_at_any_rename_leaves_nothing_after_the_next_start(
    run, small_probe, tmp_path, renamed
):
    """Every rename of six commands: the next start of any command removes the files of the kill."""
    own = [f"runtime.{name}_root={tmp_path / name}" for name in ("cache", "data")]
    ran = run(*small_probe, *own, birds=False)
    assert ran.code == 0, ran.err
    Image.new("RGB", (30, 30)).save(tmp_path / "bird.png")
    record, place = str(ran.folder), f"runtime.output_root={tmp_path / 'outputs'}"
    for command in (
        ("task=report",),
        ("task=audit", f"run={record}"),
        ("task=audit", f"run={record}", f"task.output={tmp_path / 'elsewhere' / 'a.json'}"),
        ("task=export", f"checkpoint={record}", *own),
        ("task=predict", f"checkpoint={record}", f"image={tmp_path / 'bird.png'}", *own),
        ("task=prune", f"run={record}", "task.pin=kept"),
    ):
        ran = run(*command, place, bare=True)
        assert ran.code in (0, 1), ran.err
        assert "Traceback" not in ran.err
    kinds = {path.relative_to(tmp_path).parts[0] for path in renamed}
    assert kinds == {"cache", "data", "outputs", "elsewhere"}
    assert len(renamed) > 30
    left = [left_by(target) for target in renamed]
    output = f"task.output={tmp_path / 'elsewhere' / 'b.json'}"
    assert run("task=audit", f"run={record}", output, *own, place, *small_probe).code == 0
    assert not [path for path in left if path.exists()]
    assert temporaries(tmp_path) == []


@pytest.mark.fault(51)
@pytest.mark.slow
def test_a_probe_that_is_killed_at_a_rename_is_swept_by_the_next(start_job, small_probe, tmp_path):
    """Killed before it renames the measured costs, then run to its end."""
    kill = """
import os
rename = os.replace
def replace(source, target):
    if "costs" in str(target):
        os.kill(os.getpid(), 9)
    rename(source, target)
os.replace = replace
"""
    usual = (*small_probe, "runtime.run_id=r", f"runtime.cache_root={tmp_path / 'cache'}")
    killed = start_job(*usual, setup=kill)
    assert killed.wait() == -signal.SIGKILL
    assert len(temporaries(tmp_path)) == 1
    again = start_job(*usual)
    assert again.wait() == 0, again.output
    assert temporaries(tmp_path) == []


@pytest.mark.fault(51)
def test_only_temporaries_of_the_dead_or_of_last_week_go(tmp_path, forked, ended):
    week_ago = time.time() - temporary_files.MAX_AGE - 60
    dead = [left_by(tmp_path / "a" / "b.bin"), left_by(tmp_path / "deep" / "in-progress" / "x")]
    old = [left_by(tmp_path / "a" / "c", host="another"), left_by(tmp_path / "a" / "d", pid=1)]
    for path in old:
        os.utime(path, (week_ago, week_ago))
    folder = left_by(tmp_path / "a" / "folder")
    folder.unlink()
    (folder / "images").mkdir(parents=True)
    living = [
        left_by(tmp_path / "a" / "e", host="another"),
        left_by(tmp_path / "a" / "f", pid=1),
        left_by(tmp_path / "a" / "g", pid=os.getpid()),
    ]
    others = [tmp_path / "a" / name for name in ("x.tmp", ".y.tmp", ".z.12.0a1b2c3d.tmpx")]
    for path in others:
        path.write_bytes(b"mine")
    removed = temporary_files.remove_stale(tmp_path, depth=2, whole=("in-progress",))
    assert sorted(removed) == sorted([*dead, *old, folder])
    assert not any(path.exists() for path in removed)
    assert all(path.exists() for path in (*living, *others))


@pytest.mark.fault(51)
def test_a_sweep_leaves_what_a_container_of_the_same_name_writes(tmp_path, monkeypatch):
    """The id of its process belongs to another process here, or to none."""
    spaces = {"here": "pid:[4026531836]", "container": "pid:[4026532178]"}

    def enter(space: str) -> None:
        monkeypatch.setattr(os, "readlink", lambda path: spaces[space])

    for writer, other in (("here", "container"), ("container", "here")):
        enter(writer)
        monkeypatch.setattr(os, "getpid", lambda: DEAD)
        written = temporary_files.temporary_path(tmp_path / writer)
        written.touch()
        enter(other)
        assert temporary_files.remove_stale(tmp_path) == []
        enter(writer)
        assert temporary_files.remove_stale(tmp_path) == [written]


@pytest.mark.fault(51)
def test_a_sweep_follows_no_link(tmp_path):
    outside = left_by(tmp_path / "outside" / "x")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "linked").symlink_to(tmp_path / "outside")
    (tmp_path / "root" / f".z.{temporary_files.this_host()}.{DEAD}.0a1b2c3d.tmp").symlink_to(
        tmp_path / "outside"
    )
    assert len(temporary_files.remove_stale(tmp_path / "root", depth=9, whole=("linked",))) == 1
    assert outside.exists()
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["linked"]


@pytest.mark.fault(51)
def test_a_sweep_beside_a_writer_removes_none_of_its_files(tmp_path, forked, ended):
    """Thirty writes while another process continuously sweeps the same folder."""

    def sweep() -> None:
        while not (tmp_path / "done").exists():
            temporary_files.remove_stale(tmp_path)

    pid = forked(sweep)
    for number in range(30):
        atomic.write_bytes(tmp_path / "file", b"%d" % number)
        with atomic.new_folder(tmp_path / "folder", replace=True) as folder:
            (folder / "x").write_bytes(b"%d" % number)
    (tmp_path / "done").touch()
    assert ended(pid) == 0
    assert (tmp_path / "file").read_bytes() == (tmp_path / "folder" / "x").read_bytes() == b"29"
    assert temporaries(tmp_path) == []


def test_a_sweep_reads_names_alone(tmp_path, monkeypatch):
    """No file is opened: listing a cache of 100,000 files takes 0.1 s."""
    folder = tmp_path / "features" / "k"
    folder.mkdir(parents=True)
    for number in range(300):
        (folder / f"{number}.safetensors").touch()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("looked at a file")

    for name in ("stat", "lstat"):
        monkeypatch.setattr(os, name, refuse)
    assert temporary_files.remove_stale(tmp_path, depth=2) == []


def test_a_long_name_still_fits_into_a_folder(tmp_path):
    target = tmp_path / ("ä" * 127)  # 254 bytes
    atomic.write_bytes(target, b"whole")
    assert target.read_bytes() == b"whole"


@pytest.mark.fault(51)
def test_a_killed_view_or_check_leaves_nothing_in_the_folder_for_temporaries(
    tmp_path, monkeypatch, forked, ended
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def die() -> None:
        with temporary_files.scratch("view") as folder:
            (folder / "half").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    assert ended(forked(die)) == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.stat().st_mode & 0o777 == 0o700
    with temporary_files.scratch("check"):
        assert not left.exists()
    assert list(tmp_path.iterdir()) == []


# --- row 50: damage in any cache ---

DAMAGES = ("bit", "bit", "bit", "bit", "cut", "empty", "text", "folder", "pipe")


def damaged(path: Path, kind: str, chance: random.Random) -> None:
    """Damage a file that a cache keeps."""
    data = bytearray(path.read_bytes())
    path.unlink()
    if kind == "folder":
        (path / "inside").mkdir(parents=True)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        other = {"cut": data[: len(data) // 2], "empty": b"", "text": b'{"a": [1]}\n'}
        path.write_bytes(other.get(kind, data))


def cases(seed: int = 0) -> list[Any]:
    return [pytest.param(kind, seed + row, id=f"{kind}{row}") for row, kind in enumerate(DAMAGES)]


@pytest.mark.fault(50)
@pytest.mark.parametrize("name", ["key.json", "done.json", "00001.safetensors", "00001.sha256"])
@pytest.mark.parametrize(("kind", "seed"), cases())
def test_damaged_features_are_computed_again_with_a_note(tmp_path, name, kind, seed):
    chance, row_N, computed = random.Random(seed), np.arange(10), []

    def compute(row_n: np.ndarray) -> Features:
        computed.append(row_n.tolist())
        return Features(np.outer(row_n, np.ones(3, np.float32)).astype(np.float32), row_n, ())

    def get() -> tuple[Features, list[str]]:
        notes: list[str] = []
        cache = FeatureCache(tmp_path, notes.append)
        return cache.get({"model": "mini"}, row_N, shard_by_shard(compute), shard_rows=4), notes

    before, _ = get()
    (folder,) = tmp_path.iterdir()
    damaged(folder / name, kind, chance)
    computed.clear()
    after, notes = get()
    assert np.array_equal(after.x_ND, before.x_ND)
    assert computed == ([[4, 5, 6, 7]] if name.startswith("00001") else [])
    (note,) = notes
    assert note.startswith(str(folder / name.replace("sha256", "safetensors")))
    assert "damaged in the cache" in note
    assert get()[1] == []
    assert computed == ([[4, 5, 6, 7]] if name.startswith("00001") else [])


@pytest.mark.fault(50)
@pytest.mark.parametrize(("kind", "seed"), cases(100))
def test_damaged_arrays_are_computed_again_with_a_note(tmp_path, kind, seed):
    chance, notes, calls = random.Random(seed), [], []

    def compute() -> dict[str, np.ndarray]:
        calls.append(1)
        return {"x": np.arange(6.0)}

    cached_arrays(tmp_path, {}, compute)
    (file,) = tmp_path.glob("*.safetensors")
    damaged(file, kind, chance)
    for _ in range(2):
        assert cached_arrays(tmp_path, {}, compute, notes.append)["x"].tolist() == [
            0,
            1,
            2,
            3,
            4,
            5,
        ]
    assert len(calls) == 2
    assert [note.startswith(f"{file}: damaged in the cache") for note in notes] == [True]


@pytest.mark.fault(50)
@pytest.mark.parametrize(("kind", "seed"), cases(200))
def test_damaged_plain_data_is_a_miss_with_a_note(tmp_path, kind, seed):
    file, notes = tmp_path / "costs.json", []
    value = {"images_per_s": 12.5, "parameters": 5_000_000, "notes": ["ä", None]}
    json_cache.write(file, value)
    assert json_cache.read(file, notes.append) == value
    damaged(file, kind, random.Random(seed))
    assert json_cache.read(file, notes.append) is None
    assert [note.startswith(f"{file}: damaged in the cache") for note in notes] == [True]
    json_cache.write(file, value)
    assert json_cache.read(file, notes.append) == value


def test_a_bit_anywhere_in_plain_data_is_never_used(tmp_path):
    """Every bit of a file: the damaged file does not match its digest, or has the same value."""
    file = tmp_path / "costs.json"
    json_cache.write(file, {"n": 1.5})
    data = file.read_bytes()
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        file.write_bytes(changed)
        assert json_cache.read(file, lambda note: None) in (None, {"n": 1.5})


@pytest.mark.fault(50)
@pytest.mark.parametrize(("kind", "seed"), cases(300))
def test_damaged_digests_are_computed_again_with_a_note(tmp_path, kind, seed):
    file, notes = tmp_path / "manifests" / "a.digests", []
    digests = digest_cache.Digests(
        np.arange(12, dtype=np.int64).reshape(3, 4), np.frombuffer(bytes(range(96)), "V32")
    )
    digest_cache.save(file, digests)
    damaged(file, kind, random.Random(seed))
    assert (digest_cache.load(file, 3, notes.append).state_N4[:, 0] == -1).all()
    assert [note.startswith(f"{file}: a damaged cache") for note in notes] == [True]
    digest_cache.save(file, digests)
    assert digest_cache.load(file, 3, notes.append).sha256_N.tobytes() == digests.sha256_N.tobytes()
    assert len(notes) == 1


@pytest.mark.fault(50)
@pytest.mark.parametrize(("kind", "seed"), cases(400))
def test_damaged_kept_weights_are_replaced_by_the_original_with_a_note(tmp_path, kind, seed):
    source, notes = tmp_path / "vit.safetensors", []
    source.write_bytes(bytes(range(256)) * 40)
    sha256 = ContentStore(tmp_path / "weights").put(source)
    stored = ContentStore(tmp_path / "weights").path(sha256)
    damaged(stored, kind, random.Random(seed))
    with pytest.raises(UserError, match=sha256):
        ContentStore(tmp_path / "weights").path(sha256)
    store = ContentStore(tmp_path / "weights", notes.append)
    assert store.put(source) == sha256
    assert ContentStore(tmp_path / "weights").path(sha256).read_bytes() == source.read_bytes()
    assert [note.startswith(f"{stored}: damaged in the cache") for note in notes] == [True]


@pytest.mark.fault(50)
@pytest.mark.parametrize("name", ["generator.json", "images.txt", "parts/parts.txt", "images"])
@pytest.mark.parametrize("kind", ["bit", "cut", "empty", "text"])
def test_damaged_synthetic_birds_are_drawn_again_with_a_note(tmp_path, name, kind):
    root, notes = tmp_path / "birds", []
    settings = Generator(version=1, classes=2, train_per_class=1, test_per_class=1, side=32, seed=0)
    synthetic_folder.write(root, settings)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    if name == "images":
        shutil.rmtree(root / "parts")
        (root / "parts").write_text("a file")
    else:
        damaged(root / name, kind, random.Random(len(name)))
    synthetic_folder.write(root, settings, notify=notes.append)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    assert [note.startswith(f"{root}: damaged synthetic birds") for note in notes] == [True]


def parquet_table(file: Path) -> ParquetTable:
    table = open_table(file)
    assert isinstance(table, ParquetTable)
    return table


@pytest.mark.fault(50)
@pytest.mark.parametrize("name", ["images", "files.json", "memory"])
@pytest.mark.parametrize(("kind", "seed"), cases(500))
def test_damaged_images_of_a_table_are_unpacked_again_with_a_note(tmp_path, name, kind, seed):
    cells = [{"bytes": bytes([row]) * 50, "path": f"{row}.jpg"} for row in range(3)]
    table = pa.table({"image": cells, "label": [0, 1, 0]})
    pq.write_table(table, tmp_path / "birds.parquet")
    opened, notes = parquet_table(tmp_path / "birds.parquet"), []
    root, paths, _ = embedded_images.unpack(opened, 0, tmp_path / "cache", None, notes.append)
    assert notes == []
    file = {"images": root / paths[1], "files.json": root.parent / "files.json"}.get(name)
    if file is None:
        (file,) = (tmp_path / "cache" / "tables").glob("*.json")
    state = file.stat()
    damaged(file, kind, random.Random(seed))
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))  # as a disk that loses a bit
    again = embedded_images.unpack(opened, 0, tmp_path / "cache", None, notes.append)
    assert again[:2] == (root, paths)
    assert [(root / path).read_bytes() for path in paths] == [cell["bytes"] for cell in cells]
    assert [note.startswith(f"{file}: damaged in the cache") for note in notes] == [True]
    embedded_images.unpack(opened, 0, tmp_path / "cache", None, notes.append)
    assert len(notes) == 1


def test_a_copied_cache_is_not_unpacked_again(tmp_path):
    table = pa.table({"image": [{"bytes": b"a" * 50, "path": "a.jpg"}] * 2, "label": [0, 1]})
    pq.write_table(table, tmp_path / "birds.parquet")
    opened, notes = parquet_table(tmp_path / "birds.parquet"), []
    embedded_images.unpack(opened, 0, tmp_path / "cache", None, notes.append)
    shutil.copytree(tmp_path / "cache", tmp_path / "copy")
    (folder,) = (path for path in (tmp_path / "copy" / "tables").iterdir() if path.is_dir())
    inode = folder.stat().st_ino
    embedded_images.unpack(opened, 0, tmp_path / "copy", None, notes.append)
    assert folder.stat().st_ino == inode
    assert notes == []


@pytest.mark.fault(50)
@pytest.mark.parametrize("place", ["features", "text", "weights", "manifests", "key"])
def test_a_file_in_place_of_a_folder_of_a_cache_is_removed_with_a_note(tmp_path, place):
    notes: list[str] = []
    source = tmp_path / "source"
    source.write_bytes(b"weights")
    folder = tmp_path / place
    if place == "features":
        folder.write_text("in the way")
        FeatureCache(folder, notes.append).get({}, np.arange(2), shard_by_shard(features_of))
    elif place == "key":
        FeatureCache(folder).get({}, np.arange(2), shard_by_shard(features_of))
        (folder,) = folder.iterdir()
        shutil.rmtree(folder)
        folder.write_text("in the way")
        FeatureCache(folder.parent, notes.append).get({}, np.arange(2), shard_by_shard(features_of))
    else:
        folder.write_text("in the way")
        if place == "text":
            cached_arrays(folder, {}, lambda: {"x": np.zeros(1)}, notes.append)
        elif place == "weights":
            ContentStore(folder, notes.append).put(source)
        else:
            json_cache.clear_folder(folder, notes.append)
            folder.mkdir()
    assert folder.is_dir()
    assert [note.startswith(f"{folder}: damaged in the cache") for note in notes] == [True]


def features_of(row_n: np.ndarray) -> Features:
    return Features(np.zeros((len(row_n), 2), np.float32), row_n, ())


@pytest.mark.fault(50)
def test_costs_that_are_lost_beside_whole_features_are_measured_as_far_as_they_can(
    run, small_probe, tmp_path
):
    """The rate needs a forward pass; the run reports and records the other costs."""
    place = f"runtime.cache_root={tmp_path / 'cache'}"
    assert run(*small_probe, place, "runtime.run_id=a").code == 0
    for path in (tmp_path / "cache" / "costs").iterdir():
        path.write_bytes(b"{}")
    ran = run(*small_probe, place, "runtime.run_id=b")
    assert ran.code == 0, ran.err
    cost = ran.json("metrics.json")["cost"]
    assert cost["parameters"]
    assert cost["images_per_s"] is None
    assert "GMAC per image" in ran.out
    assert "images/s in evaluation" not in ran.out


@pytest.mark.fault(50)
def test_a_bit_in_every_cached_file_changes_no_result(run, small_probe, tmp_path):
    """One bit of each file of the cache, then the same probe: same numbers, a note per file."""
    usual = (*small_probe, f"runtime.cache_root={tmp_path / 'cache'}")
    first = run(*usual, birds=False)
    assert first.code == 0, first.err
    files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    files = [path for path in files if path.stat().st_size and "lock" not in path.name]
    assert {path.relative_to(tmp_path / "cache").parts[0] for path in files} == {
        *("features", "manifests", "costs")
    }
    for number, path in enumerate(sorted(files)):
        damaged(path, "bit", random.Random(number))
    again = run(*usual, birds=False)
    assert again.code == 0, again.err
    numbers, before = again.json("metrics.json"), first.json("metrics.json")
    assert (numbers["test"], numbers["val"]) == (before["test"], before["val"])
    assert numbers["cost"]["parameters"] == before["cost"]["parameters"]
    for name in ("predictions.parquet", "ckpt.bin"):
        assert (again.folder / name).read_bytes() == (first.folder / name).read_bytes()
    for path in files:
        if path.suffix != ".sha256":  # its shard is named
            assert f"{path}: " in again.out, path
    third = run(*usual, birds=False)
    assert "damaged" not in third.out
    shard = next(path for path in files if path.suffix == ".safetensors")
    damaged(next(path for path in files if "costs" in str(path)), "bit", random.Random(7))
    damaged(shard, "cut", random.Random(8))
    planned = run(*usual, "runtime.dry_run=true", birds=False)
    assert planned.code == 0, planned.err
    assert "damaged in the cache" in " ".join(planned.out.split())


# --- rows 13, 58: a full disk ---


@pytest.fixture
def no_room(forked, ended, capfd) -> Callable[[Callable[[], object]], None]:
    """Run a check in a child whose files cannot grow; its assertions are those of the test."""

    def run(check: Callable[[], object]) -> None:
        def limited() -> None:
            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
            try:
                check()
            finally:  # what failed must be printed
                resource.setrlimit(resource.RLIMIT_FSIZE, before)

        assert ended(forked(limited)) == 0, capfd.readouterr().err

    return run


def refused(write: Callable[[], object], path: Path) -> OSError:
    """The error of a write that the disk refuses: it names the path and the bytes."""
    with pytest.raises(OSError) as caught:
        write()
    assert caught.value.filename == str(path)
    assert "bytes needed)" in str(caught.value)
    assert caught.value.errno in (errno.ENOSPC, errno.EFBIG)
    return caught.value


FULL = Path("/dev/full")  # every write to it ends in ENOSPC, as on a full disk


@pytest.mark.fault(58)
def test_a_full_disk_is_first_noticed_when_a_stream_is_closed(tmp_path):
    file = open_named(FULL)
    file.write(b"abc")  # still buffered
    assert refused(file.close, FULL).errno == errno.ENOSPC
    file.close()  # silent: the error was reported


@pytest.mark.fault(58)
def test_the_first_error_survives_the_closing_of_the_stream():
    def fail() -> None:
        with open_named(FULL) as file:
            file.write(b"abc")
            raise KeyError("first")

    with pytest.raises(KeyError, match="first"):
        fail()


@pytest.mark.fault(13, 58)
@pytest.mark.parametrize("code", ["ENOSPC", "EDQUOT", "EIO", "ESTALE"])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_an_error_at_the_end_of_a_write_names_the_file(tmp_path, monkeypatch, call, code):
    target, number = tmp_path / "ckpt.bin", getattr(errno, code)
    atomic.write_bytes(target, b"old")

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(OSError) as caught:
            atomic.write_bytes(target, b"new")
    assert (caught.value.errno, caught.value.filename) == (number, str(target))
    assert "3 bytes needed" in str(caught.value)
    assert target.read_bytes() == b"old"
    assert temporaries(tmp_path) == []


@pytest.mark.fault(13)
def test_the_log_of_a_run_names_its_file_and_prints_no_traceback(tmp_path, capfd):
    (tmp_path / "run.log").symlink_to(FULL)
    log = logging.getLogger("test of a full disk")
    log.propagate, handler = False, RunLog(tmp_path / "run.log")
    log.addHandler(handler)
    refused(lambda: log.error("line"), tmp_path / "run.log")
    log.error("another, of the run that fails: dropped")
    handler.close()
    assert capfd.readouterr().err == ""


@pytest.mark.fault(13)
def test_an_error_of_the_lock_names_its_file(tmp_path, no_room):
    def check() -> None:
        def hold() -> None:
            with lock(tmp_path / ".lock"):
                pass

        refused(hold, tmp_path / ".lock")

    no_room(check)
    with lock(tmp_path / ".lock"):
        pass


@pytest.fixture
def full_events(monkeypatch) -> None:
    """Event files of TensorBoard are on a full disk."""
    monkeypatch.setattr(
        events, "open_named", lambda path: NamedWriter(NamedFile(FULL, "w", Path(path)))
    )


@pytest.mark.fault(13)
@pytest.mark.usefixtures("full_events")
def test_errors_of_events_name_their_file_in_the_thread_that_makes_them(tmp_path, capfd):
    with pytest.raises(OSError, match="bytes needed") as caught, Board(tmp_path):
        pass
    assert caught.value.filename.startswith(f"{tmp_path}/tb/events.out.tfevents.")
    assert capfd.readouterr().err == ""


@pytest.mark.fault(13, 58)
def test_the_closing_of_the_events_hides_no_earlier_error(tmp_path):
    def fail() -> None:
        with Board(tmp_path) as board:
            os.dup2(os.open(FULL, os.O_WRONLY), board._events._file.fileno())
            board.scalar("train/loss", 1.0)
            raise KeyError("first")

    with pytest.raises(KeyError, match="first"):
        fail()


@pytest.mark.fault(13)
def test_the_status_of_a_failed_run_hides_no_earlier_error(tmp_path, forked, ended, capfd):
    def check() -> None:
        def write() -> None:
            with open_run(tmp_path, "r", "0" * 64, {}) as run:
                logging.getLogger("fgvc").info("begun")
                resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
                run.write_text("splits/train.txt", "a\n")

        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            refused(write, tmp_path / "r" / ("0" * 16) / "in-progress" / "splits" / "train.txt")
        finally:  # what failed must be printed
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert ended(forked(check)) == 0, capfd.readouterr().err
    assert "Logging error" not in capfd.readouterr().err


@pytest.mark.fault(13)
@pytest.mark.parametrize("writer", ["synthetic", "table", "archive", "part", "rescale", "weights"])
def test_every_other_writer_names_its_file(tmp_path, no_room, writer):
    source = tmp_path / "source"
    source.write_bytes(b"weights" * 100)
    grey = tmp_path / "grey.png"
    Image.fromarray(np.full((8, 8), 300, np.uint16)).save(grey)
    cells = [{"bytes": b"a" * 50, "path": "a.jpg"}] * 2
    pq.write_table(pa.table({"image": cells, "label": [0, 1]}), tmp_path / "birds.parquet")
    with tarfile.open(tmp_path / "birds.tar", "w") as tar:
        tar.add(source, "source")

    def check() -> None:
        target = tmp_path / "out" / "image.png"
        target.parent.mkdir()
        if writer == "synthetic":
            target = target.with_suffix(".jpg")
            synthetic_folder.draw_file(
                synthetic_folder.DrawingJob(target, species(2, 0)[0].code, (0, 0, 0, 0), 32)
            )
        elif writer == "table":
            table = parquet_table(tmp_path / "birds.parquet")
            names = embedded_images._write_images(table, 0, target.parent, None)
            raise AssertionError(names)
        elif writer == "archive":
            unpack(tmp_path / "birds.tar", target.parent, lambda n, note="": None)
        elif writer == "part":
            with open_named(target, "ab") as file:
                file.write(b"abc")
        elif writer == "rescale":
            rescale.rescale(grey, target, 0, 1000)
        else:
            ContentStore(target.parent).put(source)

    def assert_named() -> None:
        with pytest.raises(OSError) as caught:
            check()
        assert caught.value.filename.startswith(str(tmp_path / "out")), caught.value
        assert "bytes needed)" in str(caught.value)

    no_room(assert_named)


@pytest.mark.fault(13)
@pytest.mark.parametrize("key", ["cache", "output", "multirun", "data"])
def test_the_line_names_the_key_that_moves_the_folder(tmp_path, key):
    runtime = {f"{name}_root": str(tmp_path / name) for name in ("cache", "output", "multirun")}
    runtime["data_root"] = str(tmp_path / "cache" / "data")  # the innermost of two
    file = Path(runtime[f"{key}_root"]) / "deep" / "file"
    error = OSError(errno.ENOSPC, "No space left on device (9 bytes needed)", str(file))
    line = disk_error_line(error, runtime)
    assert line.startswith(f"{file}: No space left on device (9 bytes needed); runtime.{key}_root=")
    assert f"give another with runtime.{key}_root=PATH" in line
    chosen = disk_error_line(error, runtime, {"task.output": str(file.parent)})
    assert chosen.endswith(f"; task.output={file.parent}: give another with task.output=PATH")


@pytest.mark.fault(13)
@pytest.mark.slow
def test_the_same_command_finishes_once_there_is_space(start_job, small_probe, tmp_path):
    usual = (*small_probe, f"runtime.cache_root={tmp_path / 'cache'}", "runtime.run_id=r")
    job = start_job(*usual, most=25_000)
    assert job.wait() == 1
    assert job.line.startswith(f"fgvc: {tmp_path / 'outputs' / 'r'}")
    assert "bytes needed); runtime.output_root=" in job.line
    assert "Traceback" not in job.output
    before = {path: path.read_bytes() for path in (tmp_path / "cache").rglob("*.safetensors")}
    assert before
    again = start_job(*usual)
    assert again.wait() == 0, again.output
    assert all(path.read_bytes() == data for path, data in before.items())
    assert temporaries(tmp_path) == []


@pytest.mark.fault(13)
def test_a_sweep_without_room_ends_in_one_line(start_job, small_probe, tmp_path):
    job = start_job("-m", *small_probe, "seed=0,1", "runtime.run_id=s", most=1000)
    assert job.wait() == 1
    assert job.line.startswith(f"fgvc: {tmp_path / 'multirun' / 's' / 'multirun.yaml'}: ")
    assert "bytes needed); runtime.multirun_root=" in job.line
    assert "Traceback" not in job.output


@pytest.mark.fault(13)
def test_standard_output_on_a_full_disk_ends_in_one_line(start_job):
    job = start_job("--help", setup="os.dup2(os.open('/dev/full', os.O_WRONLY), 1)")
    assert job.wait() == 1
    assert job.line == "fgvc: standard output: No space left on device"
    assert "Traceback" not in job.output
    assert "Exception ignored" not in job.output


# --- row 14: a folder that cannot be written ---


@pytest.mark.fault(14)
@pytest.mark.parametrize("parent", ["a file", "/proc"])
@pytest.mark.parametrize("key", ["cache", "output", "data"])
def test_a_folder_that_cannot_be_written_is_named_with_its_key(
    run, small_probe, tmp_path, parent, key
):
    (tmp_path / "file").touch()
    place = (Path("/proc") if parent == "/proc" else tmp_path / "file") / "fgvc"
    ran = run(*small_probe, f"runtime.{key}_root={place}", birds=False)
    assert ran.code == 1
    (line,) = [line for line in ran.err.splitlines() if line.startswith("fgvc: ")]
    assert line.startswith(f"fgvc: {place}")
    assert f"runtime.{key}_root" in line
    assert "Traceback" not in ran.err
    assert "features train" not in ran.out  # before any work
