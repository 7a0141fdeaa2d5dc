"""The bytes of an untracked file -> the patch that adds it, as git prints it."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path


def new_file(path: str, data: bytes, file: Path) -> bytes:
    """The patch of a new file, made from the bytes that were searched for secrets."""
    executable = os.access(file, os.X_OK) and bool(file.lstat().st_mode & stat.S_IXUSR)
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    old, new = _quote(f"a/{path}"), _quote(f"b/{path}")
    head = b"diff --git %s %s\nnew file mode %s\nindex %s..%s\n" % (
        old,
        new,
        b"100755" if executable else b"100644",
        b"0" * 40,
        blob.encode(),
    )
    if not data:
        return head
    lines = data.split(b"\n")
    last_line = lines.pop()
    body = b"".join(b"+" + line + b"\n" for line in lines)
    body += b"+" + last_line + b"\n\\ No newline at end of file\n" if last_line else b""
    count = len(lines) + bool(last_line)
    count_text = b"1" if count == 1 else b"1,%d" % count
    tab = b"\t" if b" " in new and not new.startswith(b'"') else b""
    return head + b"--- /dev/null\n+++ %s%s\n@@ -0,0 +%s @@\n" % (new, tab, count_text) + body


def _quote(path: str) -> bytes:
    """A path as git prints it: a C string if a byte is not printable ASCII."""
    escapes = {7: "a", 8: "b", 9: "t", 10: "n", 11: "v", 12: "f", 13: "r", 34: '"', 92: "\\"}
    raw = os.fsencode(path)
    if all(32 <= byte < 127 and byte not in escapes for byte in raw):
        return raw
    characters = (
        f"\\{escapes[byte]}"
        if byte in escapes
        else (chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}")
        for byte in raw
    )
    return f'"{"".join(characters)}"'.encode()
