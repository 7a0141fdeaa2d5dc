"""A file -> a file named by its own SHA256, kept once however often it is put.

Local weights go here, so that a checkpoint which names them by digest can find them again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from fgvc import untrusted
from fgvc.store import atomic, hashing, json_cache
from fgvc.types import UserError


def _ignore(line: str) -> None:
    """Drop a note."""


class ContentStore:
    """Files under `root`, at <first 2 hex digits>/<64 hex digits>, never changed once there."""

    def __init__(self, root: str | Path, on_note: Callable[[str], None] = _ignore) -> None:
        """on_note is called with one line on each damaged file that is replaced."""
        self.root = Path(root)
        self._on_note = on_note
        self._verified: set[str] = set()

    def put(self, path: str | Path) -> str:
        """Keep a copy of the file and return its SHA256; putting it again costs one reading.

        The copy is checked while it is made: the name never belies the bytes, even if the source
        changes meanwhile. No hard link: a source edited in place would alter the kept file.

        Raises:
            OSError: the file cannot be read or the copy not written.
        """
        path = Path(path)
        sha256 = hashing.sha256_file(path)
        target = self._place(sha256)
        if not self._is_whole(target):
            with (
                untrusted.open_regular(path) as source,
                atomic.open_atomic(target, size=path.stat().st_size) as copy,
            ):
                shutil.copyfileobj(source, copy, 1 << 20)
                copy.flush()
                _check_digest(
                    Path(copy.name), sha256, f"{path} changed while it was copied; put it again"
                )
            target.chmod(0o444)
        self._verified.add(sha256)
        return sha256

    def put_bytes(self, data: bytes) -> str:
        """Keep bytes that are in memory; return their SHA256.

        Raises:
            OSError: the file cannot be written.
        """
        sha256 = hashing.sha256_bytes(data)
        target = self._place(sha256)
        if not self._is_whole(target):
            atomic.write_bytes(target, data)
            target.chmod(0o444)
        self._verified.add(sha256)
        return sha256

    def path(self, sha256: str) -> Path:
        """Where the file lies, its bytes verified on first use by this object.

        Raises:
            UserError: it is not here, or its bytes are not those of its name.
        """
        target = self._place(sha256)
        if not target.is_file():  # nor is a folder or a pipe
            raise UserError(f"no file with sha256 {sha256} in {self.root}: give its path instead")
        if sha256 not in self._verified:
            _check_digest(
                target, sha256, f"{target} is damaged: delete it and give the original file again"
            )
            self._verified.add(sha256)
        return target

    def _is_whole(self, target: Path) -> bool:
        """Whether the file is there with the bytes of its name; any other goes, with a note."""
        for folder in (self.root, target.parent):
            json_cache.clear_folder(folder, self._on_note)
        if not os.path.lexists(target):
            return False
        reason = "its bytes are not those of its name"
        try:
            if hashing.sha256_file(target) == target.name:
                return True
        except OSError as error:
            reason = error.strerror or str(error)
        json_cache.report(target, reason, self._on_note, "replaced by the original")
        json_cache.remove_folder(target)
        return False

    def _place(self, sha256: str) -> Path:
        return self.root / sha256[:2] / sha256


def _check_digest(path: Path, sha256: str, otherwise: str) -> None:
    found = hashing.sha256_file(path)
    if found != sha256:
        raise UserError(f"{otherwise} (sha256 {found}, expected {sha256})")
