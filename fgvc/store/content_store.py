"""A file -> a copy named by its SHA256, stored once.

Local weights are stored here, so that a checkpoint can refer to them by digest.
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import IO

from fgvc import untrusted
from fgvc.store import atomic, hashing, json_cache
from fgvc.types import UserError


class ContentStore:
    """Immutable files under `root`, at <first 2 hex digits>/<64 hex digits>."""

    def __init__(self, root: str | Path, notify: json_cache.Notify = lambda line: None) -> None:
        """notify is called with one line on each damaged file that is replaced."""
        self.root = Path(root)
        self._notify = notify
        self._verified: set[str] = set()

    def put(self, path: str | Path) -> str:
        """Store a copy of the file and return its SHA256; storing it again reads the file once.

        The copy is verified, so that its name matches its bytes even if the source changes
        meanwhile. It is no hard link, because editing the source in place would change it.

        Raises:
            OSError: the file cannot be read, or the copy cannot be written.
        """
        path = Path(path)
        with untrusted.open_regular(path) as source:
            return self._put(hashing.sha256_file(path), source, path.stat().st_size, str(path))

    def put_bytes(self, data: bytes) -> str:
        """Store bytes and return their SHA256; raises OSError as `put`."""
        return self._put(hashing.sha256_bytes(data), io.BytesIO(data), len(data), "the bytes")

    def _put(self, sha256: str, source: IO[bytes], size: int, name: str) -> str:
        """Copy the source unless a whole copy exists; a damaged copy is replaced, with a note."""
        target = self._place(sha256)
        for folder in (self.root, target.parent):
            json_cache.clear_folder(folder, self._notify)

        def load(path: Path) -> bool | None:
            return True if hashing.sha256_file(path) == sha256 else None

        if not json_cache.read_whole(target, load, self._notify, "replaced by the original"):
            json_cache.remove_folder(target)
            with atomic.open_atomic(target, size) as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
                copy.flush()
                _check_digest(
                    Path(copy.name), sha256, f"{name} changed while it was copied; put it again"
                )
            target.chmod(0o444)
        self._verified.add(sha256)
        return sha256

    def path(self, sha256: str) -> Path:
        """The path of a file, verified on first use by this object.

        Raises:
            UserError: the file is missing, or its bytes do not match its name.
        """
        target = self._place(sha256)
        if not target.is_file():  # folders and pipes too
            raise UserError(f"no file with sha256 {sha256} in {self.root}: give its path instead")
        if sha256 not in self._verified:
            _check_digest(
                target, sha256, f"{target} is damaged: delete it and give the original file again"
            )
            self._verified.add(sha256)
        return target

    def _place(self, sha256: str) -> Path:
        return self.root / sha256[:2] / sha256


def _check_digest(path: Path, sha256: str, message: str) -> None:
    actual = hashing.sha256_file(path)
    if actual != sha256:
        raise UserError(f"{message} (sha256 {actual}, expected {sha256})")
