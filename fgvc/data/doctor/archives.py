"""Archives in or beside a copy -> whether they are the official archives."""

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
    """Verify the archives: {file: result}, and a finding per archive that is not official.

    Args:
        roots: the folders of the copy; their parents are searched as well.
        progress: advanced by MiB read.
    """
    folders = dict.fromkeys(place for root in roots for place in (root, root.parent))
    facts, findings = {}, []
    for archive in conf.archives.values():
        for file in (place / archive.file for place in folders):
            if not file.is_file():
                continue
            reason = difference(file, archive, progress)
            facts[str(file)] = reason or "official"
            if reason is None:
                continue
            severity, message = ERROR, f"{file}: {reason}"
            fix = "the download was cut off or changed: fetch it again, unpack it again"
            if file.suffix == ".mat":  # runs read it, and people may cut or edit it
                severity, message = NOTE, f"{file}: not the official file ({reason})"
                fix = "if nobody changed it on purpose, get the official file: it holds the labels"
            findings.append(Finding(severity, "archives", message, fix))
    return facts, findings


def difference(file: Path, archive: schema.Archive, progress: Progress) -> str | None:
    """Describe how a file differs from the official archive; None if it does not.

    The size is compared first, so a truncated file is not read.
    """
    size = file.stat().st_size
    if archive.bytes is not None and size != archive.bytes:
        return f"{size} of {archive.bytes} bytes"
    for method in ("sha256", "md5"):
        expected = getattr(archive, method)
        if expected is not None:
            running = hashlib.new(method, usedforsecurity=False)
            with untrusted.open_regular(file) as data:
                while piece := data.read(CHUNK):
                    running.update(piece)
                    progress(1)
            actual = running.hexdigest()
            return None if actual == expected else f"{method} is {actual}, not {expected}"
    return None
