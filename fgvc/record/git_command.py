"""A Git command -> its output, independent of the user's settings; an error -> one line."""

from __future__ import annotations

import os
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
