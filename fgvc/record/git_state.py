"""The checkout that this program runs from -> its commit, its changes, and the files left out.

code.patch holds the changes of tracked files and the untracked source files; `git apply` restores
them. Never copied: ignored files, files whose name or content is that of a secret, and untracked
files that are no source. The head of the patch lists digests of the code that is not copied but can
be imported or composed. Thus the digest of the patch depends on all code that can change a number.
Other untracked files are listed in untracked.json.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fgvc.record import privacy
from fgvc.record.untracked_patch import new_file
from fgvc.store import hashing
from fgvc.untrusted import MIB, NotRegularError, open_regular
from fgvc.untrusted.shell import command as shell_command

TIMEOUT = 60  # seconds for a command to answer
CODE = Path(__file__).resolve().parents[2]  # the checkout, where there is one
PROGRAM = ("fgvc", "conf", "hydra_plugins")  # folders that the program imports from or composes
SOURCE = (".py", ".pyi", ".yaml", ".yml")
COMPILED = (".so", ".pyd")  # imported before a source file of the same name
LARGEST = 4 * MIB  # of a file that the patch copies; the largest source file here has 20 kB
COPIED = 64 * MIB  # of all untracked files together
LISTED = 500  # files of untracked.json
DIGESTED = MIB // 4  # of a listed file outside PROGRAM: datasets are not hashed at every start
AT_ONCE = 200  # paths of one command
HEAD = b"# not copied: "  # `git apply` skips lines before the first file
# the user's settings must not change the bytes of a patch, or start a program for it
SETTINGS = (
    "core.quotePath=true",
    "core.fsmonitor=false",
    "diff.noprefix=false",
    "diff.mnemonicPrefix=false",
    "diff.relative=false",
    "diff.suppressBlankEmpty=false",
    "diff.interHunkContext=0",
)
DIFF = ("diff", "--no-ext-diff", "--no-textconv", "--no-renames", "-O/dev/null")
SUBMODULES = "--ignore-submodules=dirty"
PATCH = ("--binary", "--full-index", "--no-color", "-U3", "--diff-algorithm=myers")
ELSEWHERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR")
DRIVERS = ("GIT_EXTERNAL_DIFF", "GIT_DIFF_OPTS")


@dataclass(frozen=True)
class OmittedFile:
    """A file that is not copied. size, sha256: None where they are not taken."""

    path: str
    reason: str
    size: int | None = None
    sha256: str | None = None

    def plain(self) -> dict[str, object]:
        return {
            "path": self.path.encode(errors="backslashreplace").decode(),
            "bytes": self.size,
            "sha256": self.sha256,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class GitState:
    """The program's own version. patch: the changes since the commit, as git prints them.

    error: why Git cannot read the checkout, and what to do; None outside a checkout. withheld: code
    that the patch names by digest only. untracked: files beside the code, at most LISTED, and
    `unlisted` more.
    """

    commit: str | None
    dirty: bool | None
    patch: bytes | None
    error: str | None = None
    withheld: tuple[OmittedFile, ...] = ()
    untracked: tuple[OmittedFile, ...] = ()
    unlisted: int = 0

    @property
    def patch_sha256(self) -> str | None:
        return hashing.sha256_bytes(self.patch) if self.patch else None

    @property
    def listing(self) -> dict[str, object]:
        """untracked.json, without times: the same tree gives the same bytes."""
        return {"files": [file.plain() for file in self.untracked], "more": self.unlisted}

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines on code that the record lacks, with what to do."""
        lines = []
        if self.error is not None:
            lacks = "the commit" if self.commit is None else "the changes since the commit"
            lines.append(f"the stamp lacks {lacks}: {self.error}")
        if self.withheld:
            files = ", ".join(f"{file.path!r} ({file.reason})" for file in self.withheld[:3])
            more = f" and {len(self.withheld) - 3} more" if len(self.withheld) > 3 else ""
            lines.append(
                f"code.patch leaves out {files}{more}: only digests are kept; keep secrets outside "
                "the checkout, and commit the code"
            )
        return tuple(lines)


def git_state(folder: Path = CODE) -> GitState:
    """Commit and uncommitted changes of the checkout this program runs from.

    All null outside a checkout and without Git; a checkout that Git cannot read says why.
    """
    commit = None
    try:
        top = _git(folder, "rev-parse", "--show-toplevel")
        if Path(os.fsdecode(top).removesuffix("\n")).resolve() != folder.resolve():
            return GitState(None, None, None)
        commit = _git(folder, "rev-parse", "--verify", "HEAD").decode().strip()
        return _changes(folder, commit)
    except (OSError, subprocess.SubprocessError) as error:
        return GitState(commit, None, None, _reason(folder, error))


def _changes(folder: Path, commit: str) -> GitState:
    tracked, withheld = _tracked(folder)
    patches, kept_back, others, unlisted = _untracked(folder)
    ignored = _ignored_source(folder)
    hidden = _hidden(folder)
    withheld = sorted([*withheld, *kept_back, *ignored, *hidden], key=lambda file: file.path)
    head = b"".join(HEAD + json.dumps(file.plain()).encode() + b"\n" for file in withheld)
    patch = head + tracked + patches
    dirty = bool(patch or others)
    return GitState(commit, dirty, patch or None, None, tuple(withheld), tuple(others), unlisted)


# --- tracked files ---


def _tracked(folder: Path) -> tuple[bytes, list[OmittedFile]]:
    """Changes of tracked files as a patch, and the changed files that it leaves out."""
    raw = _git(folder, *DIFF, SUBMODULES, "--raw", "-z", "--no-abbrev", "HEAD")
    fields = raw.split(b"\0")[:-1]
    pairs = list(zip(fields[::2], fields[1::2], strict=True))
    before = {os.fsdecode(path): head.split()[2].decode() for head, path in pairs}
    links = {os.fsdecode(path) for head, path in pairs if b"160000" in head[:15]}
    withheld = {path: why for path in before if (why := _refused(folder, path, path in links))}
    old = {path: name for path, name in before.items() if path not in {*withheld, *links}}
    withheld |= _old_secrets(folder, old)
    patch, late = _patch(folder, sorted(before.keys() - withheld.keys()))
    withheld |= dict.fromkeys(late, "holds a secret")
    return patch, [_described(folder, path, why) for path, why in sorted(withheld.items())]


def _refused(folder: Path, path: str, is_repository: bool = False) -> str | None:
    """Why the content of a file is not copied; None if it may be."""
    if privacy.is_secret_name(path):
        return "has the name of a secret"
    if is_repository:
        return None
    if _is_special(folder / path):  # git would fail, and the patch would be lost
        return "is a pipe, socket or device"
    data = _content(folder / path)
    if data is None:
        return f"has more than {LARGEST} bytes"
    return "holds a secret" if privacy.holds_secret(data) else None


def _is_special(path: Path) -> bool:
    try:
        mode = path.lstat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode))


def _content(path: Path) -> bytes | None:
    """Bytes of a file, the target of a link, b"" if it is gone; None if it is too large."""
    try:
        if path.is_symlink():
            return os.fsencode(path.readlink())
        with open_regular(path) as file:
            data = file.read(LARGEST + 1)
        return data if len(data) <= LARGEST else None
    except OSError:
        return b""


def _old_secrets(folder: Path, blob_of: Mapping[str, str]) -> dict[str, str]:
    """Reasons for files that are left out because a patch would show their committed content."""
    names = sorted({name for name in blob_of.values() if name.strip("0")})
    given = "".join(f"{name}\n" for name in names)
    sizes = _git(folder, "cat-file", "--batch-check=%(objectsize)", given=given) if names else b""
    size_of = dict(zip(names, sizes.split(b"\n"), strict=False))
    large = {name for name in names if not size_of[name].isdigit() or int(size_of[name]) > LARGEST}
    small = [name for name in names if name not in large]
    bad = {name for name, data in _blobs(folder, small) if privacy.holds_secret(data)}
    reasons = dict.fromkeys(bad, "held a secret when it was committed")
    reasons |= dict.fromkeys(large, f"had more than {LARGEST} bytes when it was committed")
    return {path: reasons[name] for path, name in blob_of.items() if name in reasons}


def _blobs(folder: Path, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Names of committed blobs, each with its content."""
    given = "".join(f"{name}\n" for name in names)
    out = _git(folder, "cat-file", "--batch", given=given) if names else b""
    at = 0
    for name in names:
        end = out.index(b"\n", at)
        size = int(out[at:end].split()[2])
        yield name, out[end + 1 : end + 1 + size]
        at = end + size + 2


def _patch(folder: Path, paths: Sequence[str]) -> tuple[bytes, list[str]]:
    """The changes of these paths, and the paths left out because their changes hold a secret."""
    if not paths:
        return b"", []
    if len(paths) <= AT_ONCE:
        text = _git(folder, "--literal-pathspecs", *DIFF, SUBMODULES, *PATCH, "HEAD", "--", *paths)
        if not privacy.holds_secret(text):
            return text, []
        if len(paths) == 1:
            return b"", list(paths)
    middle = len(paths) // 2
    first, bad = _patch(folder, paths[:middle])
    second, worse = _patch(folder, paths[middle:])
    return first + second, bad + worse


def _hidden(folder: Path) -> list[OmittedFile]:
    """Changed files that the index calls unchanged, so that no command of git shows a change.

    A skip-worktree file that is absent is none: a sparse checkout leaves it out.
    """
    rows = _git(folder, "ls-files", "-v", "-s", "-z").split(b"\0")[:-1]
    heads = {os.fsdecode(path): head for head, _, path in (row.partition(b"\t") for row in rows)}
    blob_of = {
        path: head.split()[2].decode()
        for path, head in heads.items()
        if (head[:1].islower() or head[:1] == b"S") and _is_plain(folder / path)
    }
    found = {path: _git(folder, "hash-object", "--", path).decode().strip() for path in blob_of}
    changed = [path for path, name in blob_of.items() if found[path] != name]
    return [_described(folder, path, "git is told to overlook it") for path in changed]


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


# --- untracked files ---


def _untracked(folder: Path) -> tuple[bytes, list[OmittedFile], list[OmittedFile], int]:
    """A patch of the source files, code that it leaves out, other files, how many more of them."""
    patches: list[bytes] = []
    code: list[OmittedFile] = []
    others: list[OmittedFile] = []
    unlisted = copied = 0
    for path in _paths(_git(folder, "ls-files", "--others", "--exclude-standard", "-z")):
        in_program, data = path.split("/")[0] in PROGRAM, None
        if path.endswith(SOURCE):
            reason, data = _new_source(folder, path, COPIED - copied)
        else:
            reason = "has the name of a secret" if privacy.is_secret_name(path) else "is no source"
        if data is not None:
            patches.append(new_file(path, data, folder / path))
            copied += len(data)
        elif in_program or len(others) < LISTED:
            (code if in_program else others).append(_described(folder, path, reason))
        else:
            unlisted += 1
    return b"".join(patches), code, others, unlisted


def _new_source(folder: Path, path: str, most: int) -> tuple[str, bytes | None]:
    """The bytes of an untracked source file, or None and why they are not copied."""
    if privacy.is_secret_name(path):
        return "has the name of a secret", None
    if (folder / path).is_symlink():
        return "is a link", None
    data = _content(folder / path)
    if data is None or len(data) > most:
        return f"is too large (more than {LARGEST} bytes, or {COPIED} of all)", None
    if privacy.holds_secret(data):
        return "holds a secret", None
    return ("is binary", None) if b"\0" in data else ("", data)


def _ignored_source(folder: Path) -> list[OmittedFile]:
    """Source and compiled files that .gitignore names and the program can use all the same."""
    command = ("ls-files", "--others", "--ignored", "--exclude-standard", "-z", "--", *PROGRAM)
    paths = [path for path in _paths(_git(folder, *command)) if path.endswith((*SOURCE, *COMPILED))]
    kept = [path for path in paths if not privacy.is_secret_name(path)]
    return [_described(folder, path, "is ignored by git") for path in kept]


def _paths(listing: bytes) -> list[str]:
    return sorted(os.fsdecode(path) for path in listing.split(b"\0")[:-1])


def _described(folder: Path, path: str, reason: str) -> OmittedFile:
    """A file by size and digest; no digest if the file is large or may hold a secret.

    A short password can be guessed from its digest. Thus a file with the name of a secret has a
    digest only if the program can use the file.
    """
    file, in_program = folder / path, path.split("/")[0] in PROGRAM
    code = in_program or path.endswith(SOURCE)
    try:
        if path.endswith("/"):
            return OmittedFile(path, "is a repository of its own")
        with open_regular(file) as opened:
            size = os.fstat(opened.fileno()).st_size
            guarded = privacy.is_secret_name(path) and not (in_program and path.endswith(SOURCE))
            if guarded or (size > DIGESTED and not code):
                return OmittedFile(path, reason, None if guarded else size)
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()  # pyright: ignore[reportArgumentType]
        return OmittedFile(path, reason, size, sha256)
    except FileNotFoundError:
        gone = "leads nowhere" if file.is_symlink() else "is deleted"
        return OmittedFile(path, f"{reason}; {gone}")
    except NotRegularError as error:
        return OmittedFile(path, f"{reason}; {error.strerror}")
    except OSError as error:
        return OmittedFile(path, f"{reason}; cannot be read ({error.strerror})")


# --- git ---


def file_at(commit: str, name: str, folder: Path = CODE) -> bytes | None:
    """A file of the checkout as it was at a commit; None where Git does not know it."""
    try:
        return _git(folder, "show", f"{commit}:{name}")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str, given: str | None = None) -> bytes:
    """Standard output of Git in a folder. Raises OSError and SubprocessError."""
    settings = [word for setting in SETTINGS for word in ("-c", setting)]
    command = ["git", "-C", str(folder), *settings, *arguments]
    dropped = DRIVERS
    if Path(os.environ.get("GIT_DIR", os.devnull)).is_dir():  # a hook's, or another repository
        dropped = (*DRIVERS, *ELSEWHERE)
    kept = {key: text for key, text in os.environ.items() if key not in dropped}
    done = subprocess.run(
        command,
        capture_output=True,
        check=True,
        timeout=TIMEOUT,
        env={**kept, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"},
        input=None if given is None else given.encode(),
        stdin=subprocess.DEVNULL if given is None else None,
    )
    return done.stdout


def _reason(folder: Path, error: OSError | subprocess.SubprocessError) -> str | None:
    """Why Git cannot read a checkout; None where there is no Git, or no checkout."""
    if isinstance(error, OSError) or not (folder / ".git").exists():
        return None
    if isinstance(error, subprocess.TimeoutExpired):
        return f"git in {folder} does not answer within {TIMEOUT} s"
    stderr = getattr(error, "stderr", None) or b""
    lines = stderr.decode(errors="replace").strip().splitlines() or [str(error)]
    if "dubious ownership" in lines[0]:
        way = shell_command(["git", "config", "--global", "--add", "safe.directory", str(folder)])
        return f"git refuses {folder}, which belongs to another user: {way}"
    way = shell_command(["git", "-C", str(folder), "status"])
    return f"git cannot read {folder} ({lines[-1]}): {way}"
