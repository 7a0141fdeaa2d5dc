"""Archives that lie in or beside a copy -> whether they are the official ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from fgvc import untrusted
from fgvc.config import schema
from fgvc.data.doctor.finding import ERROR, NOTE, Finding
from fgvc.types import Progress

CHUNK = 1 << 20


def check_archives(
    conf: schema.Dataset, roots: Iterable[Path], progress: Progress
) -> tuple[dict[str, str], list[Finding]]:
    """What was found of each archive ({file: what}), and those that are not the official ones.

    Args:
        roots: the folders of the copy; their parents are looked into as well.
        progress: advanced by MiB read.
    """
    places = dict.fromkeys(place for root in roots for place in (root, root.parent))
    facts, found = {}, []
    for archive in conf.archives.values():
        for file in (place / archive.file for place in places):
            if not file.is_file():
                continue
            wrong = difference(file, archive, progress)
            facts[str(file)] = wrong or "official"
            if wrong:
                found.append(_finding(file, wrong))
    return facts, found


def _finding(file: Path, wrong: str) -> Finding:
    """A file that a run reads as it lies there may have been cut on purpose, an archive not."""
    if file.suffix == ".mat":
        mend = "if nobody cut or edited it on purpose, get the official file: it holds the labels"
        return Finding(NOTE, "archives", f"{file}: not the official file ({wrong})", mend)
    mend = "the download was cut off or changed: fetch it again, unpack it again"
    return Finding(ERROR, "archives", f"{file}: {wrong}", mend)


def difference(file: Path, archive: schema.Archive, progress: Progress) -> str | None:
    """In what a file differs from the official archive; None where it is the same.

    The size is looked at first, so that a cut-off file is known without being read.
    """
    size = file.stat().st_size
    if archive.bytes is not None and size != archive.bytes:
        return f"{size} of {archive.bytes} bytes"
    for method in ("sha256", "md5"):
        expected = getattr(archive, method)
        if expected is not None:
            actual = _digest(file, method, progress)
            return None if actual == expected else f"{method} is {actual}, not {expected}"
    return None


def _digest(file: Path, method: str, progress: Progress) -> str:
    running = hashlib.new(method, usedforsecurity=False)
    with untrusted.open_regular(file) as data:
        while piece := data.read(CHUNK):
            running.update(piece)
            progress(1)
    return running.hexdigest()
