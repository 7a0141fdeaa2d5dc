"""The checkout that this program runs from -> its commit, its changes, and the omitted files.

code.patch holds the changes of tracked files and the untracked source files; `git apply` restores
them. Never copied: ignored files, files with the name or content of a secret, and untracked files
that are not source code. The head of the patch lists digests of code that is not copied but can be
imported or composed. Thus the digest of the patch depends on all code that can change a number.
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
from fgvc.record.git_command import new_file, run_git, why_unreadable
from fgvc.store import hashing
from fgvc.untrusted import MIB, NotRegularError, open_regular

CODE = Path(__file__).resolve().parents[2]  # the checkout, if there is one
PROGRAM = ("fgvc", "conf", "hydra_plugins")  # folders that the program imports from or composes
SOURCE = (".py", ".pyi", ".yaml", ".yml")
COMPILED = (".so", ".pyd")  # imported before a source file of the same name
LARGEST = 4 * MIB  # of a copied file; the largest source file of fgvc has 20 kB
COPIED = 64 * MIB  # of all copied untracked files together
LISTED = 500  # files in untracked.json
DIGESTED = MIB // 4  # of a listed file outside PROGRAM: datasets are not hashed at every start
MAX_PATHS = 200  # per command
HEAD = b"# not copied: "  # `git apply` skips lines before the first file
DIFF = ("diff", "--no-ext-diff", "--no-textconv", "--no-renames", "-O/dev/null")
SUBMODULES = "--ignore-submodules=dirty"
PATCH = ("--binary", "--full-index", "--no-color", "-U3", "--diff-algorithm=myers")


@dataclass(frozen=True)
class OmittedFile:
    """A file that is not copied. size, sha256: None if not recorded."""

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
    """The version of this program. patch: the changes since the commit, as git prints them.

    error: why Git cannot read the checkout, and what to do; None outside a checkout. withheld: code
    that the patch only holds as digests. untracked: other files, at most LISTED; unlisted: the
    number of further files.
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
        """The content of untracked.json, without times: the same tree gives the same bytes."""
        return {"files": [file.plain() for file in self.untracked], "more": self.unlisted}

    @property
    def notes(self) -> tuple[str, ...]:
        """One line per kind of code that the record lacks, with what to do."""
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
    """Commit and uncommitted changes of the checkout that this program runs from.

    All fields are None outside a checkout and without Git; `error` is set if Git cannot read the
    checkout.
    """
    commit = None
    try:
        top = run_git(folder, "rev-parse", "--show-toplevel")
        if Path(os.fsdecode(top).removesuffix("\n")).resolve() != folder.resolve():
            return GitState(None, None, None)
        commit = run_git(folder, "rev-parse", "--verify", "HEAD").decode().strip()
        tracked, withheld = _tracked_changes(folder)
        patches, withheld_code, others, unlisted = _untracked_files(folder)
        withheld += [*withheld_code, *_ignored_source(folder), *_hidden_changes(folder)]
    except (OSError, subprocess.SubprocessError) as error:
        return GitState(commit, None, None, why_unreadable(folder, error))
    withheld.sort(key=lambda file: file.path)
    head = b"".join(HEAD + json.dumps(file.plain()).encode() + b"\n" for file in withheld)
    patch = head + tracked + patches
    dirty = bool(patch or others)
    return GitState(commit, dirty, patch or None, None, tuple(withheld), tuple(others), unlisted)


def _tracked_changes(folder: Path) -> tuple[bytes, list[OmittedFile]]:
    """The changes of tracked files as a patch, and the changed files that it omits."""
    raw = run_git(folder, *DIFF, SUBMODULES, "--raw", "-z", "--no-abbrev", "HEAD")
    fields = raw.split(b"\0")[:-1]
    pairs = list(zip(fields[::2], fields[1::2], strict=True))
    blob_of = {os.fsdecode(path): head.split()[2].decode() for head, path in pairs}
    links = {os.fsdecode(path) for head, path in pairs if b"160000" in head[:15]}
    withheld = {path: why for path in blob_of if (why := _refusal(folder, path, path in links))}
    old_blob = {path: name for path, name in blob_of.items() if path not in {*withheld, *links}}
    withheld |= _old_secrets(folder, old_blob)
    patch, with_secrets = _patch(folder, sorted(blob_of.keys() - withheld.keys()))
    withheld |= dict.fromkeys(with_secrets, "holds a secret")
    return patch, [_describe(folder, path, why) for path, why in sorted(withheld.items())]


def _refusal(folder: Path, path: str, is_repository: bool = False) -> str | None:
    """Why the content of a file is not copied; None if it is copied."""
    if privacy.is_secret_name(path):
        return "has the name of a secret"
    if is_repository:
        return None
    if os.path.lexists(folder / path):
        mode = (folder / path).lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode)):
            return "is a pipe, socket or device"  # git would fail, and the patch would be lost
    data = _content(folder / path)
    if data is None:
        return f"has more than {LARGEST} bytes"
    return "holds a secret" if privacy.holds_secret(data) else None


def _content(path: Path) -> bytes | None:
    """Bytes of a file or the target of a link; b"" if it is missing, None if it is too large."""
    try:
        if path.is_symlink():
            return os.fsencode(path.readlink())
        with open_regular(path) as file:
            data = file.read(LARGEST + 1)
        return data if len(data) <= LARGEST else None
    except OSError:
        return b""


def _old_secrets(folder: Path, blob_of: Mapping[str, str]) -> dict[str, str]:
    """Reasons for omitting files whose committed content must not appear in a patch."""
    names = sorted({name for name in blob_of.values() if name.strip("0")})
    stdin = "".join(f"{name}\n" for name in names)
    sizes = run_git(folder, "cat-file", "--batch-check=%(objectsize)", stdin=stdin)
    size_of = dict(zip(names, sizes.split(b"\n"), strict=False))
    large = {name for name in names if not size_of[name].isdigit() or int(size_of[name]) > LARGEST}
    small = [name for name in names if name not in large]
    bad = {name for name, data in _blobs(folder, small) if privacy.holds_secret(data)}
    reasons = dict.fromkeys(bad, "held a secret when it was committed")
    reasons |= dict.fromkeys(large, f"had more than {LARGEST} bytes when it was committed")
    return {path: reasons[name] for path, name in blob_of.items() if name in reasons}


def _blobs(folder: Path, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    out = run_git(folder, "cat-file", "--batch", stdin="".join(f"{name}\n" for name in names))
    at = 0
    for name in names:
        end = out.index(b"\n", at)
        size = int(out[at:end].split()[2])
        yield name, out[end + 1 : end + 1 + size]
        at = end + size + 2


def _patch(folder: Path, paths: Sequence[str]) -> tuple[bytes, list[str]]:
    """The changes of paths, and the paths omitted because their changes hold a secret."""
    if not paths:
        return b"", []
    if len(paths) <= MAX_PATHS:
        command = (*DIFF, SUBMODULES, *PATCH, "HEAD", "--", *paths)
        text = run_git(folder, "--literal-pathspecs", *command)
        if not privacy.holds_secret(text):
            return text, []
        if len(paths) == 1:
            return b"", list(paths)
    middle = len(paths) // 2
    first, withheld = _patch(folder, paths[:middle])
    second, more_withheld = _patch(folder, paths[middle:])
    return first + second, withheld + more_withheld


def _hidden_changes(folder: Path) -> list[OmittedFile]:
    """Changed files that the index marks as unchanged, so that git shows no change.

    Missing skip-worktree files do not count: a sparse checkout leaves them out.
    """
    rows = run_git(folder, "ls-files", "-v", "-s", "-z").split(b"\0")[:-1]
    head_of = {os.fsdecode(path): head for head, _, path in (row.partition(b"\t") for row in rows)}
    blob_of = {
        path: head.split()[2].decode()
        for path, head in head_of.items()
        if (head[:1].islower() or head[:1] == b"S")
        and (folder / path).is_file()
        and not (folder / path).is_symlink()
    }
    return [
        _describe(folder, path, "git is configured to ignore changes to it")
        for path, name in blob_of.items()
        if run_git(folder, "hash-object", "--", path).decode().strip() != name
    ]


def _untracked_files(folder: Path) -> tuple[bytes, list[OmittedFile], list[OmittedFile], int]:
    """A patch of the source files, omitted code, other files, and the number of further files."""
    patches: list[bytes] = []
    code: list[OmittedFile] = []
    others: list[OmittedFile] = []
    unlisted = copied = 0
    for path in _paths(run_git(folder, "ls-files", "--others", "--exclude-standard", "-z")):
        in_program, data = path.split("/")[0] in PROGRAM, None
        if path.endswith(SOURCE):
            reason, data = _read_source(folder, path, COPIED - copied)
        else:
            reason = "has the name of a secret" if privacy.is_secret_name(path) else "is no source"
        if data is not None:
            patches.append(new_file(path, data, folder / path))
            copied += len(data)
        elif in_program or len(others) < LISTED:
            (code if in_program else others).append(_describe(folder, path, reason))
        else:
            unlisted += 1
    return b"".join(patches), code, others, unlisted


def _read_source(folder: Path, path: str, most: int) -> tuple[str, bytes | None]:
    """The bytes of an untracked source file; otherwise the reason for omitting it and None."""
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
    """Source and compiled files that git ignores but the program can import or compose."""
    command = ("ls-files", "--others", "--ignored", "--exclude-standard", "-z", "--", *PROGRAM)
    return [
        _describe(folder, path, "is ignored by git")
        for path in _paths(run_git(folder, *command))
        if path.endswith((*SOURCE, *COMPILED)) and not privacy.is_secret_name(path)
    ]


def _paths(listing: bytes) -> list[str]:
    return sorted(os.fsdecode(path) for path in listing.split(b"\0")[:-1])


def _describe(folder: Path, path: str, reason: str) -> OmittedFile:
    """An omitted file with size and digest; no digest if the file is large or may hold a secret.

    A short password can be guessed from its digest. Thus a file with the name of a secret has a
    digest only if the program can import or compose it.
    """
    file, in_program = folder / path, path.split("/")[0] in PROGRAM
    code = in_program or path.endswith(SOURCE)
    try:
        if path.endswith("/"):
            return OmittedFile(path, "is a repository of its own")
        with open_regular(file) as opened:
            size = os.fstat(opened.fileno()).st_size
            no_digest = privacy.is_secret_name(path) and not (in_program and path.endswith(SOURCE))
            if no_digest or (size > DIGESTED and not code):
                return OmittedFile(path, reason, None if no_digest else size)
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()  # pyright: ignore[reportArgumentType]
        return OmittedFile(path, reason, size, sha256)
    except FileNotFoundError:
        state = "leads nowhere" if file.is_symlink() else "is deleted"
        return OmittedFile(path, f"{reason}; {state}")
    except NotRegularError as error:
        return OmittedFile(path, f"{reason}; {error.strerror}")
    except OSError as error:
        return OmittedFile(path, f"{reason}; cannot be read ({error.strerror})")


def file_at(commit: str, name: str, folder: Path = CODE) -> bytes | None:
    """A file of the checkout at a commit; None if Git does not have it."""
    try:
        return run_git(folder, "show", f"{commit}:{name}")
    except (OSError, subprocess.SubprocessError):
        return None
