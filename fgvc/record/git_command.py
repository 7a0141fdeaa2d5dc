"""A Git command -> its output, independent of the user's settings; an error -> one line.

`new_file` prints a patch as git does.
"""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from pathlib import Path

from fgvc.untrusted.shell import command as shell_command

TIMEOUT = 60  # seconds per command
# the user's settings must not change the bytes of a patch, or start a program
SETTINGS = (
    "core.quotePath=true",
    "core.fsmonitor=false",
    "diff.noprefix=false",
    "diff.mnemonicPrefix=false",
    "diff.relative=false",
    "diff.suppressBlankEmpty=false",
    "diff.interHunkContext=0",
)
REPOSITORY_VARIABLES = tuple(
    f"GIT_{name}" for name in ("DIR", "WORK_TREE", "INDEX_FILE", "PREFIX", "COMMON_DIR")
)
DIFF_VARIABLES = ("GIT_EXTERNAL_DIFF", "GIT_DIFF_OPTS")


def run_git(folder: Path, *arguments: str, stdin: str | None = None) -> bytes:
    """Standard output of a Git command in a folder. Raises OSError and SubprocessError."""
    settings = [word for setting in SETTINGS for word in ("-c", setting)]
    command = ["git", "-C", str(folder), *settings, *arguments]
    removed = DIFF_VARIABLES
    if Path(os.environ.get("GIT_DIR", os.devnull)).is_dir():  # a hook's, or another repository
        removed = (*DIFF_VARIABLES, *REPOSITORY_VARIABLES)
    environment = {key: text for key, text in os.environ.items() if key not in removed}
    done = subprocess.run(
        command,
        capture_output=True,
        check=True,
        timeout=TIMEOUT,
        env={**environment, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"},
        input=None if stdin is None else stdin.encode(),
        stdin=subprocess.DEVNULL if stdin is None else None,
    )
    return done.stdout


def why_unreadable(folder: Path, error: OSError | subprocess.SubprocessError) -> str | None:
    """Why Git cannot read a checkout, and what to do; None without Git or outside a checkout."""
    if isinstance(error, OSError) or not (folder / ".git").exists():
        return None
    if isinstance(error, subprocess.TimeoutExpired):
        return f"git in {folder} does not answer within {TIMEOUT} s"
    stderr = getattr(error, "stderr", None) or b""
    lines = stderr.decode(errors="replace").strip().splitlines() or [str(error)]
    if "dubious ownership" in lines[0]:
        words = ["git", "config", "--global", "--add", "safe.directory", str(folder)]
        command = shell_command(words)
        return f"git refuses {folder}, which belongs to another user: {command}"
    command = shell_command(["git", "-C", str(folder), "status"])
    return f"git cannot read {folder} ({lines[-1]}): {command}"


def new_file(path: str, data: bytes, file: Path) -> bytes:
    """The patch of a new file, made from the bytes that were searched for secrets."""
    executable = os.access(file, os.X_OK) and bool(file.lstat().st_mode & stat.S_IXUSR)
    mode = b"100755" if executable else b"100644"
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    old, new = _quote(f"a/{path}"), _quote(f"b/{path}")
    head = b"diff --git %s %s\nnew file mode %s\n" % (old, new, mode)
    head += b"index %s..%s\n" % (b"0" * 40, blob.encode())
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
