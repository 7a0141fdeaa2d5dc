"""Downloads from a faulty host end complete, verified and inside their folder, or not at all."""

from __future__ import annotations

import hashlib
import io
import stat
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

import pytest

from fgvc.config import schema
from fgvc.data import download
from fgvc.data.download import http
from fgvc.data.download.unpack import UnpackError, unpack
from fgvc.types import UserError

Misdeed = Callable[["Reply", bytes, int], None]


def silent(n: int, note: str = "") -> None:
    """A progress that shows nothing."""


# --- a host ---


class Reply(BaseHTTPRequestHandler):
    """Serves `server.files`; the first requests of a path get its `misdeeds`, in turn."""

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Host)
        server.requests.append((self.path, self.headers.get("Range")))
        data = server.files[self.path]
        range_header = self.headers.get("Range")
        start = int(range_header.removeprefix("bytes=").rstrip("-")) if range_header else 0
        misdeeds = server.misdeeds.get(self.path, [])
        (misdeeds.pop(0) if misdeeds else honest)(self, data, start)

    def begin(self, code: int, **headers: object) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


class Host(ThreadingHTTPServer):
    """misdeeds: by path. requests: path and range of each request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Reply)
        self.files: dict[str, bytes] = {}
        self.misdeeds: dict[str, list[Misdeed]] = {}
        self.requests: list[tuple[str, str | None]] = []

    def handle_error(self, request: object, client_address: object) -> None:
        pass


def honest(reply: Reply, data: bytes, start: int) -> None:
    if start >= len(data):
        reply.begin(416, Content_Length=0)
    elif start:
        content_range = f"bytes {start}-{len(data) - 1}/{len(data)}"
        reply.begin(206, Content_Length=len(data) - start, Content_Range=content_range)
        reply.wfile.write(data[start:])
    else:
        without_ranges(reply, data, start)


def without_ranges(reply: Reply, data: bytes, start: int) -> None:
    reply.begin(200, Content_Length=len(data))
    reply.wfile.write(data)


def cut_after(share: float) -> Misdeed:
    """Announce all remaining bytes and close the connection after a share of them."""

    def misdeed(reply: Reply, data: bytes, start: int) -> None:
        rest = data[start:]
        code = {"Content_Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        reply.begin(206 if start else 200, Content_Length=len(rest), **code)
        reply.wfile.write(rest[: int(len(rest) * share)])

    return misdeed


def cut_without_ranges(reply: Reply, data: bytes, start: int) -> None:
    cut_after(0.5)(reply, data, 0)


def short_and_proud(reply: Reply, data: bytes, start: int) -> None:
    """Send half of the file with a matching length."""
    without_ranges(reply, data[: len(data) // 2], 0)


def too_long(reply: Reply, data: bytes, start: int) -> None:
    without_ranges(reply, data + b"more" * 50_000, 0)


def other_bytes(reply: Reply, data: bytes, start: int) -> None:
    without_ranges(reply, bytes(len(data)), 0)


def wrong_range(reply: Reply, data: bytes, start: int) -> None:
    reply.begin(206, Content_Length=len(data), Content_Range=f"bytes 0-{len(data) - 1}/{len(data)}")
    reply.wfile.write(data)


def not_found(reply: Reply, data: bytes, start: int) -> None:
    page = b"<!doctype html><title>gone</title>"
    reply.begin(404, Content_Type="text/html", Content_Length=len(page))
    reply.wfile.write(page)


def sign_in(reply: Reply, data: bytes, start: int) -> None:
    page = b"<html>please sign in</html>"
    reply.begin(200, Content_Type="text/html; charset=utf-8", Content_Length=len(page))
    reply.wfile.write(page)


def hang_up(reply: Reply, data: bytes, start: int) -> None:
    reply.connection.close()


@pytest.fixture
def host(monkeypatch) -> Iterator[Host]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Host()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def served(host) -> Callable[..., schema.Archive]:
    """`served(name, data, *misdeeds, **fields)` -> an archive that the host has."""

    def make(name: str, data: bytes, *misdeeds: Misdeed, **fields: object) -> schema.Archive:
        host.files[f"/{name}"], host.misdeeds[f"/{name}"] = data, list(misdeeds)
        url = f"http://127.0.0.1:{host.server_port}/{name}"
        digest = hashlib.sha256(data).hexdigest()
        values = {"url": url, "bytes": len(data), "md5": None, "sha256": digest, **fields}
        return schema.Archive(file=name, **values)

    return make


@pytest.fixture(autouse=True)
def pauses(monkeypatch) -> list[float]:
    """The pauses requested by the program; tests do not wait."""
    waited: list[float] = []
    monkeypatch.setattr(http.time, "sleep", waited.append)
    monkeypatch.setattr(http, "MIN_PROGRESS", 1000)
    return waited


# --- one file ---

DATA = bytes(range(256)) * 1200  # 300 KiB


def received(archive: schema.Archive, folder: Path) -> Path:
    return http.download(archive, folder / archive.file, silent)


def test_a_file_arrives_whole(served, host, tmp_path, pauses):
    advances: list[tuple[int, str]] = []
    data = DATA * 8  # 2.3 MiB
    archive = served("a.tar", data)
    file = http.download(archive, tmp_path / "a.tar", lambda n, note="": advances.append((n, note)))
    assert file.read_bytes() == data
    assert host.requests == [("/a.tar", None)]
    assert sum(n for n, _ in advances) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]
    assert pauses == []


@pytest.mark.parametrize("size_known", [True, False])
def test_an_interrupted_download_is_resumed(served, host, tmp_path, pauses, size_known):
    size = {} if size_known else {"bytes": None}
    archive = served("a.tar", DATA, cut_after(0.25), cut_after(0.5), hang_up, **size)
    assert received(archive, tmp_path).read_bytes() == DATA
    starts = [int(range_header[6:-1]) if range_header else 0 for _, range_header in host.requests]
    assert 0 <= len(DATA) // 4 - starts[1] < http.CHUNK
    assert 0 == starts[0] < starts[1] < starts[2] == starts[3]  # nothing came of the third


def test_a_later_start_resumes_a_partial_download(served, host, tmp_path, pauses):
    (tmp_path / "a.tar.part").write_bytes(DATA[:1000])
    assert received(served("a.tar", DATA), tmp_path).read_bytes() == DATA
    assert host.requests == [("/a.tar", "bytes=1000-")]


@pytest.mark.parametrize("size_known", [True, False])
def test_a_part_that_is_whole_is_only_verified(served, host, tmp_path, pauses, size_known):
    (tmp_path / "a.tar.part").write_bytes(DATA)
    archive = served("a.tar", DATA, **({} if size_known else {"bytes": None}))
    assert received(archive, tmp_path).read_bytes() == DATA
    assert len(host.requests) == (0 if size_known else 1)


@pytest.mark.fault(28)
@pytest.mark.parametrize(
    "misdeed",
    [
        short_and_proud,
        too_long,
        other_bytes,
        not_found,
        sign_in,
        hang_up,
        cut_without_ranges,
        cut_after(0.9),
    ],
)
@pytest.mark.parametrize("size_known", [True, False])
def test_a_host_that_misbehaves_twice(served, tmp_path, pauses, misdeed, size_known):
    size = {} if size_known else {"bytes": None}
    archive = served("a.tar", DATA, misdeed, misdeed, **size)
    assert received(archive, tmp_path).read_bytes() == DATA
    assert len(pauses) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


def test_ranges_that_are_ignored_restart(served, host, tmp_path):
    archive = served("a.tar", DATA, cut_after(0.5), without_ranges)
    assert received(archive, tmp_path).read_bytes() == DATA
    assert len(host.requests) == 2


def test_another_range_than_asked_for_spoils_nothing(served, host, tmp_path):
    archive = served("a.tar", DATA, cut_after(0.5), wrong_range)
    assert received(archive, tmp_path).read_bytes() == DATA
    assert host.requests[1] == host.requests[2] != host.requests[0]


@pytest.mark.fault(28)
@pytest.mark.parametrize(
    ("misdeed", "expected", "part_stays"),
    [
        (not_found, "HTTP 404 Not Found, an HTML page", False),
        (sign_in, "an HTML page instead of the archive", False),
        (other_bytes, "sha256 is", False),
        (too_long, f"of {len(DATA)} bytes", False),
        (hang_up, "Connection", False),
        (short_and_proud, f"ended after {len(DATA) // 2} of {len(DATA)} bytes", True),
        (cut_without_ranges, "IncompleteRead", True),
    ],
)
def test_tries_are_counted_and_bounded(
    served, host, tmp_path, pauses, misdeed, expected, part_stays
):
    archive = served("a.tar", DATA, *[misdeed] * 50)
    with pytest.raises(UserError) as caught:
        received(archive, tmp_path)
    message = str(caught.value)
    assert expected in message
    assert archive.url in message
    assert archive.sha256 in message
    assert "\n" not in message
    # a first try that brings something is progress, and not one of those that count
    first = 1 if misdeed in (other_bytes, too_long, short_and_proud, cut_without_ranges) else 0
    assert len(host.requests) in (http.MAX_FAILURES, http.MAX_FAILURES + first)
    assert pauses[-4:] == [1.0, 2.0, 4.0, 8.0]
    assert [path.name for path in tmp_path.iterdir()] == (["a.tar.part"] if part_stays else [])


@pytest.mark.fault(13)
def test_a_full_disk_is_seen_before(served, host, tmp_path, pauses, monkeypatch):
    class Full:
        free = len(DATA)

    monkeypatch.setattr(http.shutil, "disk_usage", lambda _: Full)
    with pytest.raises(UserError, match=r"needed for a\.tar and what it holds.*make room"):
        received(served("a.tar", DATA), tmp_path)
    assert len(host.requests) == 1
    assert list(tmp_path.iterdir()) == []


# --- archives ---


def tar(
    *members: tarfile.TarInfo | tuple[str, bytes], mode: Literal["w:gz", "w:bz2"] = "w:gz"
) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size, info.mode = len(member[1]), 0o4755
                archive.addfile(info, io.BytesIO(member[1]))
    return out.getvalue()


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return out.getvalue()


def special(kind: bytes, name: str = "odd", target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


GOOD = ("images/a.jpg", b"picture")
BAD = {
    "absolute": tar(GOOD, ("/tmp/fgvc-evil", b"x")),
    "above": tar(GOOD, ("images/../../evil", b"x")),
    "symlink": tar(GOOD, special(tarfile.SYMTYPE, target="/etc/passwd")),
    "symlink-inside": tar(GOOD, special(tarfile.SYMTYPE, target="images/a.jpg")),
    "symlinked-folder": tar(special(tarfile.SYMTYPE, "out", ".."), ("out/evil", b"x")),
    "hardlink": tar(GOOD, special(tarfile.LNKTYPE, target="images/a.jpg")),
    "hardlink-outside": tar(GOOD, special(tarfile.LNKTYPE, target="../../evil")),
    "device": tar(GOOD, special(tarfile.CHRTYPE)),
    "block-device": tar(GOOD, special(tarfile.BLKTYPE)),
    "fifo": tar(GOOD, special(tarfile.FIFOTYPE)),
    "file-as-folder": tar(GOOD, ("images/a.jpg/b", b"x")),
    "truncated": tar(GOOD, ("b", bytes(range(256)) * 300))[:150],
    "bomb": tar(("zeros", bytes(70 << 20))),
    "zip-slip": zipped(GOOD, ("../evil", b"x")),
    "zip-backslash": zipped(GOOD, ("..\\evil", b"x")),
    "zip-absolute": zipped(GOOD, ("/tmp/fgvc-evil", b"x")),
    "zip-symlink": zipped(GOOD, (zip_link(), b"/etc/passwd")),
    "zip-bomb": zipped(("zeros", bytes(70 << 20))),
    "zip-twice": None,
    "no-archive": b"hello" * 1000,
}


def zip_twice() -> bytes:
    with pytest.warns(UserWarning, match="Duplicate name"):
        return zipped(GOOD, GOOD)


@pytest.mark.fault(27)
@pytest.mark.parametrize("name", BAD)
def test_malicious_and_damaged_archives_are_refused(tmp_path, name):
    file, folder = tmp_path / "archive", tmp_path / "deep" / "folder"
    file.write_bytes(BAD[name] or zip_twice())
    folder.mkdir(parents=True)
    with pytest.raises(UnpackError) as caught:
        unpack(file, folder, silent)
    assert "\n" not in str(caught.value)
    outside = sorted(path for path in tmp_path.rglob("*") if folder not in path.parents)
    assert outside == [file, folder.parent, folder]
    assert not Path("/tmp/fgvc-evil").exists()
    assert not [path for path in folder.rglob("*") if path.is_symlink()]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
def test_plain_archives_are_unpacked(tmp_path, mode):
    file, folder = tmp_path / "archive", tmp_path / "folder"
    members = [GOOD, ("ü b/c=d.txt", b"text")]
    file.write_bytes(zipped(*members) if mode == "zip" else tar(*members, mode=mode))
    folder.mkdir()
    unpack(file, folder, silent)
    for name, data in members:
        assert (folder / name).read_bytes() == data
        assert not (folder / name).stat().st_mode & (stat.S_ISUID | stat.S_IXUSR)


@pytest.mark.fault(27)
def test_a_tar_is_unpacked_where_tarfile_has_no_filter(tmp_path, monkeypatch):
    """In Python 3.11.0 to 3.11.3, TarFile.extract has no `filter`."""
    for name in ("extract", "extractall"):
        monkeypatch.delattr(tarfile.TarFile, name)
    file, folder = tmp_path / "archive", tmp_path / "folder"
    file.write_bytes(tar(GOOD, (GOOD[0], b"a later copy"), mode="w:gz"))
    folder.mkdir()
    unpack(file, folder, silent)
    assert (folder / GOOD[0]).read_bytes() == b"a later copy"


# --- a dataset ---


@pytest.fixture
def dataset_of(conf, tmp_path) -> Callable[..., schema.Dataset]:
    def make(*archives: schema.Archive, reader: str = "dogs") -> schema.Dataset:
        rows = {str(number): archive for number, archive in enumerate(archives)}
        return conf(reader, tmp_path / "data" / "dogs", archives=rows, download=True)

    return make


def files_beside(tmp_path: Path) -> list[str]:
    """Names beside the dataset, without lock files."""
    entries = (tmp_path / "data").iterdir() if (tmp_path / "data").exists() else ()
    return sorted(path.name for path in entries if not path.name.endswith(".lock"))


def test_several_archives_become_one_folder(served, dataset_of, host, tmp_path):
    images, lists = served("images.tar", tar(GOOD)), served("lists.zip", zipped(("l.mat", b"m")))
    message = download.fetch(dataset_of(images, lists), silent)
    root = tmp_path / "data" / "dogs"
    assert (root / "images" / "a.jpg").read_bytes() == b"picture"
    assert (root / "l.mat").read_bytes() == b"m"
    assert "images.tar, lists.zip" in message
    assert files_beside(tmp_path) == ["dogs"]
    assert len(host.requests) == 2
    assert "nothing downloaded" in download.fetch(dataset_of(images, lists), silent)
    assert len(host.requests) == 2


def test_an_archive_beside_the_root_is_used_and_kept(served, dataset_of, host, tmp_path):
    archive = served("images.tar", tar(GOOD))
    file = tmp_path / "data" / "images.tar"
    file.parent.mkdir()
    file.write_bytes(tar(GOOD)[:-1])
    download.fetch(dataset_of(archive), silent)
    assert len(host.requests) == 1  # another file than the archive, by its digest
    for path in sorted((tmp_path / "data" / "dogs").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    file.write_bytes(host.files["/images.tar"])
    download.fetch(dataset_of(archive), silent)  # into an empty folder
    assert len(host.requests) == 1
    assert files_beside(tmp_path) == ["dogs", "images.tar"]


def test_nothing_is_put_in_place_when_the_second_archive_fails(served, dataset_of, host, tmp_path):
    first = served("images.tar", tar(GOOD))
    second = served("lists.tar", tar(GOOD), *[not_found] * http.MAX_FAILURES)
    with pytest.raises(UserError, match="404"):
        download.fetch(dataset_of(first, second), silent)
    assert files_beside(tmp_path) == [".dogs.download"]  # the first is not fetched twice
    download.fetch(dataset_of(first, second), silent)
    assert [path for path, _ in host.requests].count("/images.tar") == 1
    assert files_beside(tmp_path) == ["dogs"]


@pytest.mark.fault(27)
def test_a_malicious_archive_leaves_nothing(served, dataset_of, tmp_path):
    archives = served("good.tar", tar(GOOD)), served("bad.tar", BAD["above"])
    with pytest.raises(UserError, match="leads out of its folder"):
        download.fetch(dataset_of(*archives), silent)
    assert files_beside(tmp_path) == []


@pytest.mark.fault(28)
def test_no_digest_no_download(served, dataset_of, host):
    with pytest.raises(UserError, match="neither sha256 nor md5"):
        download.fetch(dataset_of(served("a.tar", tar(GOOD), sha256=None)), silent)
    assert host.requests == []


@pytest.mark.parametrize(
    ("reader", "expected"),
    [
        ("cars", r"no host serves Stanford Cars.*1\).*2\).*3\)"),
        ("nabirds", r"form\. 1\).*2\)"),
        ("folder", "no download for your own dataset"),
        ("synthetic", "drawn"),
    ],
)
def test_an_archive_without_a_url_is_reported_with_the_steps(
    dataset_of, reader, expected, tmp_path
):
    archive = schema.Archive(file="a.tgz", url=None, bytes=None, md5="0" * 32, sha256=None)
    with pytest.raises(UserError, match=expected) as caught:
        download.fetch(dataset_of(archive, reader=reader), silent)
    assert "\n" not in str(caught.value)
    assert files_beside(tmp_path) == []
