"""A record and the code of its commit -> whether config, page, plot and versions follow.

Only the same code can check this. Under another commit the result is "not checked", and the
evidence names the commit to check out.
"""

from __future__ import annotations

import itertools
import re

from fgvc.record import env_stamp as stamps
from fgvc.record import git_state
from fgvc.record.prediction_tables import confusion_plot
from fgvc.record.verify import DamageError
from fgvc.report.audit.check import MISSING, UncheckedError, Verdict, agree, join_names
from fgvc.report.audit.record import CONFIG, STAMP, CannotComposeError, Recompute, Record
from fgvc.report.flatten import flatten
from fgvc.store import hashing
from fgvc.untrusted.escape import one_line

PAGE, PLOT, LOCK = "report.html", "confusion.svg", "requirements.txt"
PATCHES_LOCK = f"+++ b/{LOCK}\n".encode()  # line of a patch that changes the lock file
OLD_PLOT = "confusion.png"  # of records before confusion.svg
COMMIT = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
ABSENT = object()


def command_follows(record: Record) -> str:
    """Does the recorded command compose to this config and hash?"""
    words = record.command_words()
    code = require_same_code(record)
    if record.stamp["task"] == "eval":
        raise UncheckedError("task=eval takes its config from the checkpoint")
    try:
        jobs = code.composed(words, record.stamp["run_id"])
    except CannotComposeError as error:
        raise UncheckedError(f"command.txt cannot be composed here: {one_line(error)}") from error
    config_hash = record.stamp["config_hash"]
    if config_hash not in jobs:
        hashes = join_names([other[:16] for other in jobs], most=3)
        raise DamageError(f"command.txt: composes to {hashes}, the record has {config_hash[:16]}")
    stored, expected = flatten(record.shown_config), flatten(jobs[config_hash])
    keys = sorted(stored.keys() | expected.keys())
    different_keys = [
        key
        for key in keys
        if stored.get(key, ABSENT) != expected.get(key, ABSENT)
        and not (key in code.places or (key.startswith("runtime.") and key.endswith("_root")))
    ]
    if different_keys:
        raise DamageError(f"config.yaml: {join_names(different_keys)} differ from command.txt")
    return f"composed again: config {config_hash[:16]}, {len(keys)} keys of {CONFIG}, without paths"


def page_follows(record: Record) -> str:
    """Is report.html the page that this code renders from the other files?"""
    page = record.text(PAGE)
    code = require_same_code(record)
    try:
        derived = code.page(record.path, record.shown_config)
    except CannotComposeError as error:
        raise UncheckedError(f"{CONFIG} cannot be read here: {one_line(error)}") from error
    if page != derived:
        difference = _first_difference(page, derived)
        raise DamageError(f"{PAGE}: does not follow from the other files: {difference}")
    return f"{len(page)} characters rendered again; the photographs are taken from the page itself"


def plot_follows(record: Record) -> str:
    """Is confusion.svg the plot that this code draws from the predictions?"""
    test, shown = record.predictions["test"], record.shown_config
    try:
        require_same_code(record)
    except UncheckedError as error:
        if OLD_PLOT in record.artifacts:
            raise UncheckedError(f"{OLD_PLOT}: drawn by earlier code; {error}") from error
        record.data(PLOT)  # a missing plot fails under any code
        raise
    stored = record.data(PLOT)
    model = f"{shown['backbone']['name']} {shown['backbone']['size']}"
    dataset, partial = shown["dataset"]["name"], record.stamp["partial"]
    names, tree = record.labelmap.names, record.hierarchy
    plot = confusion_plot(record.tally(test), names, tree, model, dataset, partial)
    if stored != plot.encode():
        raise DamageError(f"{PLOT}: does not follow from predictions.parquet")
    return f"{PLOT}: {len(stored)} bytes drawn again"


def _first_difference(page: str, derived: str) -> str:
    """The first line that differs, cut around the first difference."""
    pairs = zip(page.splitlines(), derived.splitlines(), strict=False)
    for number, (stored_line, derived_line) in enumerate(pairs, 1):
        if stored_line != derived_line:
            chars = zip(stored_line, derived_line, strict=False)
            at = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], chars))
            return f"line {number}: {one_line(stored_line[max(at - 20, 0) : at + 60], 90)}"
    return "the pages differ in their number of lines"


def requirements(record: Record) -> str | Verdict:
    """Does the checksum of the requirements match requirements.txt at the recorded commit?"""
    stamp = record.stamp
    checksum, commit = stamp["requirements_checksum"], stamp["git_commit"]
    if checksum is None:
        return Verdict(MISSING, "installed without requirements.txt")
    if commit is None:
        raise UncheckedError("the record names no commit")
    if stamp["code_patch_sha256"] is not None and PATCHES_LOCK in record.data("code.patch"):
        require_same_code(record)
        agree("sha256", (LOCK, stamps.requirements_checksum()), (STAMP, checksum))
        return f"{LOCK} of this tree"
    lock = git_state.file_at(commit, LOCK) if COMMIT.fullmatch(commit) else None
    if lock is None:
        raise UncheckedError(f"commit {one_line(commit, 70)} is not in this checkout")
    place = f"{LOCK} at {commit[:12]}"
    agree("sha256", (place, hashing.sha256_bytes(lock)), (STAMP, checksum))
    return place


def versions(record: Record) -> str:
    """Are the recorded versions those of the environment with this env_hash?"""
    if record.recompute is None:
        raise UncheckedError("no environment to compare with")
    stamp = record.stamp
    if stamp["env_hash"] != stamps.environment_hash()["env_hash"]:
        raise UncheckedError("env_hash is that of another environment")
    for key, value in stamps.installed().items():
        agree(key, ("this environment", value), (STAMP, stamp[key]))
    return "env_hash and versions are those of this environment"


def require_same_code(record: Record) -> Recompute:
    """The running code; UncheckedError unless it is the code of the record."""
    code, commit = record.recompute, record.stamp["git_commit"]
    if code is None:
        raise UncheckedError("no code to compare with")
    if commit is None:
        raise UncheckedError("the record names no commit")
    if code.code.commit is None:
        raise UncheckedError("this fgvc runs outside a git checkout")
    if commit != code.code.commit:
        made_by = f"made by commit {one_line(commit, 12)}"
        raise UncheckedError(f"{made_by}: check that commit out, then audit again")
    if record.stamp["code_patch_sha256"] != code.code.patch_sha256:
        raise UncheckedError("made by this commit with other uncommitted changes")
    return code
