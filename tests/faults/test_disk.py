"""Faults of disks: full, read-only, killed writers, damaged caches."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from fgvc.store import atomic, temporary

DEAD = 999_999_999  # no process has this id


# --- row 51: what a killed writer leaves ---


def left_by(target: Path, host: str | None = None, pid: int = DEAD) -> Path:
    """What a process that was killed before it renamed its temporary to `target` leaves."""
    target = Path(str(target).replace(f".{os.getpid()}.", f".{DEAD}."))  # a folder of ours
    target.parent.mkdir(parents=True, exist_ok=True)
    host = socket.gethostname() if host is None else host
    left = target.with_name(f".{target.name}.{host}.{pid}.0a1b2c3d.tmp")
    left.write_bytes(b"half")
    return left


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
def test_a_kill_at_any_rename_leaves_nothing_after_the_next_start(
    run, small_probe, tmp_path, renamed
):
    """Every rename of six commands; the next start of any command finds what a kill there left."""
    own = [f"runtime.{name}_root={tmp_path / name}" for name in ("cache", "data")]
    ran = run(*small_probe, *own, birds=False)
    assert ran.code == 0, ran.err
    record, place = str(ran.folder), f"runtime.output_root={tmp_path / 'outputs'}"
    for command in (
        ("task=report",),
        ("task=audit", f"run={record}"),
        ("task=audit", f"run={record}", f"task.output={tmp_path / 'elsewhere' / 'a.json'}"),
        ("task=export", f"checkpoint={record}", *own),
        ("task=predict", f"checkpoint={record}", f"image={ran.folder / 'confusion.png'}", *own),
        ("task=prune", f"run={record}", "task.pin=kept"),
    ):
        ran = run(*command, place, bare=True)
        assert ran.code in (0, 1), ran.err
        assert "Traceback" not in ran.err
    kinds = {path.relative_to(tmp_path).parts[0] for path in renamed}
    assert kinds == {"cache", "data", "outputs", "elsewhere"}
    assert len(renamed) > 30
    left = [left_by(target) for target in renamed]
    elsewhere = f"task.output={tmp_path / 'elsewhere' / 'b.json'}"
    assert run("task=audit", f"run={record}", elsewhere, *own, place, *small_probe).code == 0
    assert not [path for path in left if path.exists()]
    assert temporaries(tmp_path) == []


@pytest.mark.fault(51)
def test_a_probe_that_is_killed_at_a_rename_is_swept_by_the_next(started, small_probe, tmp_path):
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
    killed = started(*usual, setup=kill)
    assert killed.wait() == -signal.SIGKILL
    assert len(temporaries(tmp_path)) == 1
    again = started(*usual)
    assert again.wait() == 0, again.said
    assert temporaries(tmp_path) == []


@pytest.mark.fault(51)
def test_only_temporaries_of_the_dead_or_of_last_week_go(tmp_path, forked, ended):
    week_ago = time.time() - temporary.OLD - 60
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
    removed = temporary.remove_stale(tmp_path, depth=2, whole=("in-progress",))
    assert sorted(removed) == sorted([*dead, *old, folder])
    assert not any(path.exists() for path in removed)
    assert all(path.exists() for path in (*living, *others))


@pytest.mark.fault(51)
def test_a_sweep_follows_no_link(tmp_path):
    outside = left_by(tmp_path / "outside" / "x")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "linked").symlink_to(tmp_path / "outside")
    (tmp_path / "root" / f".z.{socket.gethostname()}.{DEAD}.0a1b2c3d.tmp").symlink_to(
        tmp_path / "outside"
    )
    assert len(temporary.remove_stale(tmp_path / "root", depth=9, whole=("linked",))) == 1
    assert outside.exists()
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["linked"]


@pytest.mark.fault(51)
def test_a_sweep_beside_a_writer_takes_nothing_of_its(tmp_path, forked, ended):
    """A hundred writes while another process sweeps the same folder without a pause."""

    def sweep() -> None:
        while not (tmp_path / "done").exists():
            temporary.remove_stale(tmp_path)

    pid = forked(sweep)
    for number in range(100):
        atomic.write_bytes(tmp_path / "file", b"%d" % number)
        with atomic.new_folder(tmp_path / "folder", replace=True) as folder:
            (folder / "x").write_bytes(b"%d" % number)
    (tmp_path / "done").touch()
    assert ended(pid) == 0
    assert (tmp_path / "file").read_bytes() == (tmp_path / "folder" / "x").read_bytes() == b"99"
    assert temporaries(tmp_path) == []


def test_a_sweep_reads_names_alone(tmp_path, monkeypatch):
    """No file is looked at: a cache of 100,000 files is listed, which takes 0.1 s."""
    folder = tmp_path / "features" / "k"
    folder.mkdir(parents=True)
    for number in range(300):
        (folder / f"{number}.safetensors").touch()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("looked at a file")

    for name in ("stat", "lstat"):
        monkeypatch.setattr(os, name, refuse)
    assert temporary.remove_stale(tmp_path, depth=2) == []


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
        with temporary.scratch("view") as folder:
            (folder / "half").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    assert ended(forked(die)) == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.stat().st_mode & 0o777 == 0o700
    with temporary.scratch("check"):
        assert not left.exists()
    assert list(tmp_path.iterdir()) == []
