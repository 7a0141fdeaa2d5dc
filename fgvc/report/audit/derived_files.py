"""A record and the code of its commit -> whether config, page, plot and versions follow.

Only the same code can check this: under another commit the result is "not checked", and the line
names the commit to check out.
"""

from __future__ import annotations

import difflib
import re

from fgvc.record import confusion_plot, git_state
from fgvc.record import env_stamp as stamps
from fgvc.record.verify import DamageError
from fgvc.report.audit import command
from fgvc.report.audit.check import MISSING, UNCHECKED, Verdict, agree, join_names
from fgvc.report.audit.recompute import CannotComposeError, Recompute
from fgvc.report.audit.record import Record
from fgvc.report.flatten import flatten
from fgvc.store import hashing
from fgvc.untrusted.escape import one_line

PAGE, PLOT, LOCK = "report.html", "confusion.png", "requirements.txt"
PATCHED = f"+++ b/{LOCK}\n".encode()  # of a patch that changes the lock
COMMIT = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
ABSENT = object()


def command_follows(record: Record) -> str | Verdict:
    """Does the recorded command, composed again, give this config under this hash?"""
    words = command.words(record)
    if isinstance(here := require_same_code(record), Verdict):
        return here
    if record.stamp["task"] == "eval":
        return Verdict(UNCHECKED, "task=eval takes its config from the checkpoint")
    try:
        jobs = here.composed(words, record.stamp["run_id"])
    except CannotComposeError as why:
        return Verdict(UNCHECKED, f"command.txt cannot be composed here: {one_line(why)}")
    own = record.stamp["config_hash"]
    shown = next((job.shown for job in jobs if job.config_hash == own), None)
    if shown is None:
        hashes = join_names([job.config_hash[:16] for job in jobs], most=3)
        raise DamageError(f"command.txt: gives config {hashes}, the record has {own[:16]}")
    stored, expected = flatten(record.shown_config), flatten(shown)
    keys = sorted(stored.keys() | expected.keys())
    differ = [
        key
        for key in keys
        if not _is_place(key, here) and stored.get(key, ABSENT) != expected.get(key, ABSENT)
    ]
    if differ:
        raise DamageError(f"config.yaml: another {join_names(differ)} than command.txt gives")
    return f"composed again: config {own[:16]}, {len(keys)} keys of config.yaml but places"


def _is_place(key: str, here: Recompute) -> bool:
    """Whether a key names a place, which differs by machine."""
    return key in here.places or (key.startswith("runtime.") and key.endswith("_root"))


def page_follows(record: Record) -> str | Verdict:
    """Is report.html the page that this code makes of the other files?"""
    page = record.text(PAGE)
    if isinstance(here := require_same_code(record), Verdict):
        return here
    try:
        derived = here.page(record.path, record.shown_config)
    except CannotComposeError as why:
        return Verdict(UNCHECKED, f"config.yaml cannot be read here: {one_line(why)}")
    if page != derived:
        raise DamageError(f"{PAGE}: does not follow from the other files: {_first(page, derived)}")
    return f"{len(page)} characters derived again; its photographs are its own"


def plot_follows(record: Record) -> str | Verdict:
    """Is confusion.png the plot that this code and environment make of the predictions?"""
    test, names, shown = record.predictions["test"], record.labelmap.names, record.shown_config
    stored = record.data(PLOT)
    if isinstance(here := require_same_code(record), Verdict):
        return here
    if record.stamp["env_hash"] != stamps.environment_hash()["env_hash"]:
        return Verdict(UNCHECKED, "env_hash is of another environment than this one")
    matrix = record.tally(test)
    backbone, dataset = shown["backbone"], shown["dataset"]
    title = confusion_plot.confusion_title(
        backbone["name"], backbone["size"], dataset["name"], record.stamp["partial"]
    )
    if stored != confusion_plot.confusion_png(matrix, names, title):
        raise DamageError(f"{PLOT}: does not follow from predictions.parquet")
    return f"{PLOT}: {len(stored)} bytes drawn again"


def _first(page: str, derived: str) -> str:
    """The first line that differs, cut around the difference."""
    pairs = zip(page.splitlines(), derived.splitlines(), strict=False)
    for number, (stored, made) in enumerate(pairs, 1):
        if stored != made:
            match = difflib.SequenceMatcher(None, stored[:2000], made[:2000], autojunk=False)
            at = match.find_longest_match().size if stored[:1] == made[:1] else 0
            return f"line {number}: {one_line(stored[max(at - 20, 0) : at + 60], 90)}"
    return "other lines at the end"


def requirements(record: Record) -> str | Verdict:
    """Does the checksum of the requirements match the lock at the recorded commit?"""
    stamp = record.stamp
    checksum, commit = stamp["requirements_checksum"], stamp["git_commit"]
    if checksum is None:
        return Verdict(MISSING, "installed without a lock")
    if commit is None:
        return Verdict(UNCHECKED, "the record names no commit")
    if stamp["code_patch_sha256"] is not None and PATCHED in record.data("code.patch"):
        here = require_same_code(record)
        if isinstance(here, Verdict):
            return here
        agree("sha256", (LOCK, stamps.requirements_checksum()), ("env_stamp.json", checksum))
        return f"{LOCK} of this tree"
    lock = git_state.file_at(commit, LOCK) if COMMIT.fullmatch(commit) else None
    if lock is None:
        return Verdict(UNCHECKED, f"commit {one_line(commit, 70)} is not in this checkout")
    lock_sha256 = hashing.sha256_bytes(lock)
    agree("sha256", (f"{LOCK} at {commit[:12]}", lock_sha256), ("env_stamp.json", checksum))
    return f"{LOCK} at {commit[:12]}"


def versions(record: Record) -> str | Verdict:
    """Are the versions those of the environment that env_hash names?"""
    if record.here is None:
        return Verdict(UNCHECKED, "no environment to compare with")
    stamp = record.stamp
    if stamp["env_hash"] != stamps.environment_hash()["env_hash"]:
        return Verdict(UNCHECKED, "env_hash is of another environment than this one")
    for key, value in stamps.installed().items():
        agree(key, ("this environment", value), ("env_stamp.json", stamp[key]))
    return "env_hash and versions are those of this environment"


def require_same_code(record: Record) -> Recompute | Verdict:
    """The code that runs the audit if it is the record's own; otherwise the reason."""
    here, commit = record.here, record.stamp["git_commit"]
    if here is None:
        return Verdict(UNCHECKED, "no code to compare with")
    if commit is None:
        return Verdict(UNCHECKED, "the record names no commit")
    if here.code.commit is None:
        return Verdict(UNCHECKED, "this fgvc runs outside of a git checkout")
    if commit != here.code.commit:
        short = one_line(commit, 12)
        return Verdict(UNCHECKED, f"made by commit {short}: git checkout it, then audit again")
    if record.stamp["code_patch_sha256"] != here.code.patch_sha256:
        return Verdict(UNCHECKED, "made by this commit with other uncommitted changes")
    return here
