"""An archive's address -> the verified file; resumed after a break, retried with growing pauses.

A try that brings the file further than it has ever been is not counted: a large archive may take
many. TRIES in a row that do not, and the download ends with the address and the expected digest.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import requests

from fgvc import untrusted
from fgvc.config import schema
from fgvc.data.doctor.archives import difference
from fgvc.store.atomic import sync_folder
from fgvc.store.disk_errors import open_named
from fgvc.types import Progress, UserError
from fgvc.untrusted import MIB

MAX_FAILURES = 5
PAUSE = 1.0  # seconds after the first failure; doubled after each further one
MIN_PROGRESS = 1 << 20  # bytes that a try has to add to be called progress
CHUNK = 1 << 15  # bytes; what is lost of a broken connection is less
TIMEOUT = (30.0, 60.0)  # seconds to connect, and between two pieces
MIN_FREE = 256 * MIB  # bytes left free on the disk


class DownloadError(Exception):
    """A try that failed; another may not."""


def download(archive: schema.Archive, target: Path, progress: Progress) -> Path:
    """Fetch one archive. An incomplete one stays beside the target (.part), for the next time.

    Args:
        target: takes its name only once its digest is the expected one.
        progress: advanced by MiB.

    Raises:
        UserError: TRIES failures without progress, or a disk that is too small.
    """
    part = target.with_name(f"{target.name}.part")
    furthest, failures = _size(part), 0
    while True:
        try:
            _receive(archive, part, progress)
            _verify(archive, part)
        except (DownloadError, requests.RequestException) as error:
            gained, furthest = _size(part) - furthest, max(furthest, _size(part))
            failures = 0 if gained >= MIN_PROGRESS else failures + 1
            if failures == MAX_FAILURES:
                raise UserError(_failure_message(archive, part, error)) from error
            time.sleep(PAUSE * 2 ** max(failures - 1, 0))
        else:
            part.replace(target)
            sync_folder(target.parent)
            return target


def _receive(archive: schema.Archive, part: Path, progress: Progress) -> None:
    """Add to the part what it lacks, or write it anew where the host knows no ranges."""
    have = _size(part)
    if archive.bytes is not None and have == archive.bytes:
        return
    assert archive.url is not None
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(archive.url, headers=headers, stream=True, timeout=TIMEOUT) as reply:
        if have and reply.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing lacks: the digest decides
        start = _first_byte(reply, have)
        _check_disk(archive, reply, part, start)
        if os.path.lexists(part):
            untrusted.require_regular(part)
        with open_named(part, "ab" if start else "wb") as file:
            _copy(archive, reply, file, start, progress)


def _first_byte(reply: requests.Response, have: int) -> int:
    """The byte that a reply begins with; TryError where it is no part of an archive."""
    kind = reply.headers.get("Content-Type", "").lower()
    html = ", an HTML page" if kind.startswith("text/html") else ""
    if reply.status_code not in (requests.codes.ok, requests.codes.partial_content):
        raise DownloadError(f"HTTP {reply.status_code} {reply.reason}{html}")
    if html:
        raise DownloadError("an HTML page instead of the archive")
    if reply.status_code == requests.codes.ok:
        return 0
    if not reply.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        raise DownloadError(f"another range than the one from byte {have}")
    return have


def _check_disk(archive: schema.Archive, reply: requests.Response, part: Path, start: int) -> None:
    """Room for the rest of the archive and, beside it, for what it holds."""
    length = int(reply.headers.get("Content-Length") or 0)
    total = archive.bytes or start + length
    needed = total - start + total + MIN_FREE
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise UserError(
            f"{part.parent}: {_gib(needed)} needed for {archive.file} and what it holds, "
            f"{_gib(free)} free; make room, or set dataset.root= to another disk"
        )


def _copy(
    archive: schema.Archive, reply: requests.Response, file, start: int, progress: Progress
) -> None:
    done = start
    for piece in reply.iter_content(CHUNK):
        file.write(piece)
        progress((done + len(piece)) // MIB - done // MIB, archive.file)
        done += len(piece)
        if archive.bytes is not None and done > archive.bytes:
            break  # too long: the size will tell
        if done % (64 * MIB) < CHUNK and shutil.disk_usage(Path(file.name).parent).free < MIN_FREE:
            raise UserError(f"{file.name}: the disk is full; make room and start again: it resumes")


def _verify(archive: schema.Archive, part: Path) -> None:
    """Refuse a file that is not the archive. One that is only too short is kept."""
    size = _size(part)
    if archive.bytes is not None and size < archive.bytes:
        raise DownloadError(f"ended after {size} of {archive.bytes} bytes")
    if wrong := difference(part, archive, lambda n, note="": None):
        part.unlink()
        raise DownloadError(wrong)


def _failure_message(archive: schema.Archive, part: Path, error: Exception) -> str:
    expected = f"sha256 {archive.sha256}" if archive.sha256 else f"md5 {archive.md5}"
    kept = (
        f"; the {_size(part)} bytes that arrived are kept and gone on with" if _size(part) else ""
    )
    return (
        f"{archive.url}: {MAX_FAILURES} tries failed, the last with: {' '.join(str(error).split())} "
        f"(expected: {archive.file}, {expected}); try again later, or put the archive beside "
        f"dataset.root= yourself{kept}"
    )


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _gib(number: int) -> str:
    return f"{number / 2**30:.1f} GiB"
