"""URL of an archive -> the verified file; resumed after a break, retried with growing pauses.

A try that extends the file does not count as a failure, because a large archive may take many
tries. After MAX_FAILURES tries in a row without progress, the error names the URL and the expected
digest.
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
PAUSE = 1.0  # seconds after the first failure; doubled after each further failure
MIN_PROGRESS = 1 << 20  # bytes that a try must add to count as progress
CHUNK = 1 << 15  # bytes; a broken connection loses less
TIMEOUT = (30.0, 60.0)  # seconds to connect, and between two chunks
MIN_FREE = 256 * MIB  # bytes to leave free on the disk


class DownloadError(Exception):
    """A failed try; the next may succeed."""


def download(archive: schema.Archive, target: Path, progress: Progress) -> Path:
    """Download an archive. An incomplete file stays beside the target (.part) and is resumed.

    Args:
        target: exists only after its digest was verified.
        progress: advanced by MiB.

    Raises:
        UserError: MAX_FAILURES tries without progress, or a full disk.
    """
    part = target.with_name(f"{target.name}.part")
    furthest, failures = _size(part), 0
    while True:
        try:
            _receive(archive, part, progress)
            if archive.bytes is not None and _size(part) < archive.bytes:
                raise DownloadError(f"ended after {_size(part)} of {archive.bytes} bytes")
            if wrong := difference(part, archive, lambda n, note="": None):
                part.unlink()
                raise DownloadError(wrong)
        except (DownloadError, requests.RequestException) as error:
            gained, furthest = _size(part) - furthest, max(furthest, _size(part))
            failures = 0 if gained >= MIN_PROGRESS else failures + 1
            if failures == MAX_FAILURES:
                digest = f"sha256 {archive.sha256}" if archive.sha256 else f"md5 {archive.md5}"
                kept = f"; the {_size(part)} bytes received so far are kept and resumed"
                raise UserError(
                    f"{archive.url}: {MAX_FAILURES} tries failed, the last with: "
                    f"{' '.join(str(error).split())} (expected: {archive.file}, {digest}); try "
                    "again later, or put the archive beside dataset.root= yourself"
                    f"{kept if _size(part) else ''}"
                ) from error
            time.sleep(PAUSE * 2 ** max(failures - 1, 0))
        else:
            part.replace(target)
            sync_folder(target.parent)
            return target


def _receive(archive: schema.Archive, part: Path, progress: Progress) -> None:
    """Append the missing bytes, or start again if the host does not support ranges."""
    start_size = _size(part)
    if archive.bytes is not None and start_size == archive.bytes:
        return
    assert archive.url is not None
    headers = {"Accept-Encoding": "identity"}
    if start_size:
        headers["Range"] = f"bytes={start_size}-"
    with requests.get(archive.url, headers=headers, stream=True, timeout=TIMEOUT) as reply:
        if start_size and reply.status_code == requests.codes.requested_range_not_satisfiable:
            return  # complete: the digest decides
        start = _first_byte(reply, start_size)
        # space for the rest of the archive and for its unpacked files
        total = archive.bytes or start + int(reply.headers.get("Content-Length") or 0)
        needed, free = total - start + total + MIN_FREE, shutil.disk_usage(part.parent).free
        if needed > free:
            raise UserError(
                f"{part.parent}: {needed / 2**30:.1f} GiB needed for {archive.file} and what it "
                f"holds, {free / 2**30:.1f} GiB free; make room, or set dataset.root= to another "
                "disk"
            )
        if os.path.lexists(part):
            untrusted.require_regular(part)
        done = start
        with open_named(part, "ab" if start else "wb") as file:
            for chunk in reply.iter_content(CHUNK):
                file.write(chunk)
                progress((done + len(chunk)) // MIB - done // MIB, archive.file)
                done += len(chunk)
                if archive.bytes is not None and done > archive.bytes:
                    break  # too long: the size check will fail
                if done % (64 * MIB) < CHUNK and shutil.disk_usage(part.parent).free < MIN_FREE:
                    raise UserError(f"{part}: the disk is full; make room and run again to resume")


def _first_byte(reply: requests.Response, expected: int) -> int:
    """The byte that a reply starts at; DownloadError if the reply is no part of the archive."""
    kind = reply.headers.get("Content-Type", "").lower()
    html = ", an HTML page" if kind.startswith("text/html") else ""
    if reply.status_code not in (requests.codes.ok, requests.codes.partial_content):
        raise DownloadError(f"HTTP {reply.status_code} {reply.reason}{html}")
    if html:
        raise DownloadError("an HTML page instead of the archive")
    if reply.status_code == requests.codes.ok:
        return 0
    if not reply.headers.get("Content-Range", "").startswith(f"bytes {expected}-"):
        raise DownloadError(f"another range than the one from byte {expected}")
    return expected


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
