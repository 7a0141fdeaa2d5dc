"""Files are whole or absent: after exceptions, refusals of the disk and SIGKILL at any moment."""

import errno
import os
import random
import resource
import signal
import time

import pytest

from fgvc.store import atomic, hashing, temporary_files


def names(folder):
    return [path.name for path in folder.iterdir()]


def test_new_bytes_replace_old_ones_and_leave_nothing_else(tmp_path):
    for data in (b"old", b"new"):
        atomic.write_bytes(tmp_path / "a" / "file", data)
    assert (tmp_path / "a" / "file").read_bytes() == b"new"
    assert names(tmp_path / "a") == ["file"]


def test_text_is_utf8_with_plain_newlines(tmp_path):
    atomic.write_text(tmp_path / "t", "é\n")
    assert (tmp_path / "t").read_bytes() == b"\xc3\xa9\n"


def test_json_is_sorted_and_refuses_nan(tmp_path):
    atomic.write_json(tmp_path / "j", {"b": [1], "a": "é"})
    assert (tmp_path / "j").read_text() == '{\n  "a": "é",\n  "b": [\n    1\n  ]\n}\n'
    with pytest.raises(ValueError):
        atomic.write_json(tmp_path / "j", {"a": float("nan")})
    assert '"é"' in (tmp_path / "j").read_text()


@pytest.mark.parametrize("error", [RuntimeError("mine"), KeyboardInterrupt(), OSError(5, "disk")])
def test_an_exception_keeps_the_old_file(tmp_path, error):
    atomic.write_bytes(tmp_path / "file", b"old")

    def write_half():
        with atomic.open_atomic(tmp_path / "file") as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error)) as caught:
        write_half()
    assert caught.value is error
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_an_error_about_another_file_is_not_reworded(tmp_path):
    with (
        pytest.raises(PermissionError) as caught,
        atomic.open_atomic(tmp_path / "file"),
    ):
        raise PermissionError(errno.EACCES, "Permission denied", "/another/file")
    assert caught.value.filename == "/another/file"


@pytest.mark.fault(14)
def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "f").write_bytes(b"")
    for path in (tmp_path / "f" / "x", tmp_path / "f" / "x" / "y"):
        with pytest.raises(NotADirectoryError) as caught:
            atomic.write_bytes(path, b"abc")
        assert caught.value.filename == str(path)
        assert "3 bytes needed" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.fault(13)
@pytest.mark.parametrize("size_known", [True, False])
def test_a_full_disk_leaves_the_old_file(tmp_path, forked, ended, size_known):
    """The kernel's limit on file size refuses a write half way, like a full disk."""
    target = tmp_path / "file"
    atomic.write_bytes(target, b"old")

    def write(size):
        with atomic.open_atomic(target, size=size) as file:
            file.write(bytes(10_000))

    def overfill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        with pytest.raises(OSError) as caught:
            write(10_000 if size_known else None)
        needed = "10000 bytes needed" if size_known else "more than 4096 bytes needed"
        assert caught.value.errno == errno.EFBIG
        assert caught.value.filename == str(target)
        assert needed in str(caught.value)
        assert str(target) in str(caught.value)

    assert ended(forked(overfill)) == 0
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


@pytest.mark.fault(1)
def test_sigkill_never_leaves_a_torn_file(tmp_path, forked, ended):
    target = tmp_path / "file"
    sizes = (200_000, 300_000)
    atomic.write_bytes(target, b"\0" * sizes[0])

    def write_forever():
        while True:
            for value, size in enumerate(sizes):
                atomic.write_bytes(target, bytes([value]) * size)

    delay = random.Random(0)
    for _ in range(25):
        pid = forked(write_forever)
        time.sleep(delay.uniform(0.001, 0.03))
        os.kill(pid, signal.SIGKILL)
        assert ended(pid) == -signal.SIGKILL
        data = target.read_bytes()
        assert data in (b"\0" * sizes[0], b"\1" * sizes[1])
    temporary_files.remove_stale(tmp_path)
    assert names(tmp_path) == ["file"]


@pytest.mark.fault(1, 51)
def test_only_temporaries_of_the_dead_are_removed(tmp_path, forked, ended):
    def die_while_writing():
        with atomic.open_atomic(tmp_path / "a.b"):
            os.kill(os.getpid(), signal.SIGKILL)

    pid = forked(die_while_writing)
    assert ended(pid) == -signal.SIGKILL
    (dead,) = tmp_path.iterdir()
    of_other_host = tmp_path / f".x.another-host.{pid}.00.tmp"
    of_other_host.touch()
    with atomic.open_atomic(tmp_path / "mine") as file:
        assert temporary_files.remove_stale(tmp_path) == [dead]
        file.write(b"whole")
    assert {path.name for path in tmp_path.iterdir()} == {"mine", of_other_host.name}


def test_digests_are_those_of_sha256sum(tmp_path):
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "abc").write_bytes(b"abc")
    assert hashing.sha256_bytes(b"abc") == hashing.sha256_file(tmp_path / "abc") == expected


def test_canonical_json_depends_on_the_data_alone():
    first, second = (
        {"b": (1, 2), "a": {"y": 0.5, "x": "é"}},
        {"a": {"x": "é", "y": 0.5}, "b": [1, 2]},
    )
    assert hashing.canonical_json(first) == hashing.canonical_json(second)
    assert hashing.canonical_json(second) == '{"a":{"x":"é","y":0.5},"b":[1,2]}'.encode()
    with pytest.raises(ValueError):
        hashing.canonical_json({"a": float("inf")})
