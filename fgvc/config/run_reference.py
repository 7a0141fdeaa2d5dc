"""`checkpoint=`, `run=`, `against=` as a prefix of a run folder's names, or `last` -> its path.

A run folder is RUN/CONFIG/CHECKPOINT below runtime.output_root. The path replaces the prefix in the
arguments, so a recorded command and config hold no word whose meaning changes with later runs.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from fgvc import untrusted
from fgvc.config.compose import composed
from fgvc.config.errors import ConfigError
from fgvc.config.override_grammar import key_of, parse_override, value_of
from fgvc.config.weight_files.run_folder import DEPTH, MOST_NAMED, SEALED, run_folders
from fgvc.untrusted.shell import override

KEYS = ("checkpoint", "run", "against")  # in this order: against=last depends on run=
LAST = "last"
OUTPUT_ROOT = "runtime.output_root"
QUOTED = re.compile(r"""(["'])(.*)\1""")
NAMES = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9._-]+){,2}")  # of a prefix
RUN_TIME = re.compile(r"\d{8}T\d{6}Z(?=-)")  # at the beginning of a run_id that fgvc made
SHORTEST, LONGER = 8, 12  # hex digits of a hash in a reference


@dataclass(frozen=True)
class CompleteRun:
    """A complete run folder. names: of RUN, CONFIG and CHECKPOINT."""

    folder: Path
    names: tuple[str, ...]

    @functools.cached_property
    def finished(self) -> str:
        """When it was sealed, as an ISO time in UTC; empty if its status is damaged."""
        try:
            return str(untrusted.read_json(self.folder / SEALED)["updated"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def matches(self, text: str) -> bool:
        """Whether consecutive names begin with the parts of the text."""
        parts = text.split("/")
        return any(
            all(map(str.startswith, self.names[start:], parts))
            for start in range(len(self.names) - len(parts) + 1)
        )

    def is_named(self, text: str) -> bool:
        return f"/{text}/" in f"/{'/'.join(self.names)}/"


def complete_runs(output_root: Path) -> list[CompleteRun]:
    """The complete runs below an output root, sorted by path."""
    folders = run_folders(output_root, SEALED)
    named = ((folder, folder.relative_to(output_root).parts) for folder in folders)
    return [CompleteRun(folder, names) for folder, names in named if len(names) == DEPTH]


def newest(runs: Sequence[CompleteRun]) -> CompleteRun | None:
    """The run that was sealed last; None without runs."""
    return max(runs, key=lambda run: (run.finished, run.names), default=None)


def reference(run: CompleteRun, runs: Sequence[CompleteRun], key: str = "run") -> str:
    """The shortest stable text that means this run, or its checkpoint, among all `runs`."""
    run_id, config, checkpoint = run.names
    hashes = [name[:length] for length in (SHORTEST, LONGER) for name in (checkpoint, config)]
    time = [match[0]] if (match := RUN_TIME.match(run_id)) else []
    for text in (*hashes, *time, run_id, f"{run_id}/{config[:SHORTEST]}"):
        matches = find(text, runs)
        is_copy = key == "checkpoint" and {other.names[-1] for other in matches} == {checkpoint}
        if (matches == [run] or is_copy) and not Path(text).exists():
            return text
    return str(run.folder)


def find(text: str, runs: Sequence[CompleteRun]) -> list[CompleteRun]:
    """The runs with a name equal to the text; otherwise those with a name that begins with it."""
    return [run for run in runs if run.is_named(text)] or [run for run in runs if run.matches(text)]


def resolve_runs(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments with a path for each prefix and `last`, and a note per replacement.

    An existing path is kept: it has precedence. `against=last` is the newest run other than run=.
    Nothing is replaced where runtime.output_root is wrong: the check of the config reports it.

    Raises:
        ConfigError: no run, or several, whose names begin with the text.
    """
    arguments, notes = list(arguments), []
    if (root := output_root(arguments)) is None:
        return arguments, notes
    for key in KEYS:
        for index, argument in enumerate(arguments):
            if key_of(argument) != key or "=" not in argument:
                continue
            texts = _texts(value_of(argument))
            paths = [_resolve(key, text, root, arguments) for text in texts]
            changed = [pair for pair in zip(texts, paths, strict=True) if pair[1] != pair[0]]
            if changed:
                values = ",".join(value_of(override(key, path)) for path in paths)
                arguments[index] = f"{key}={values}"
                notes += [f"{key}={text}: {path}" for text, path in changed]
    return arguments, notes


def output_root(arguments: Sequence[str]) -> Path | None:
    """runtime.output_root of a command; None if it is no path, or several."""
    typed = [argument for argument in arguments if key_of(argument) == OUTPUT_ROOT]
    try:
        if any(parse_override(argument).is_sweep_override() for argument in typed):
            return None
        text = composed(typed[-1:]).runtime.output_root
        return Path(text).expanduser() if text else None
    except (HydraException, OmegaConfBaseException):
        return None


def _texts(value: str) -> list[str]:
    """The values of an override, which a sweep separates by commas."""
    if (whole := QUOTED.fullmatch(value)) is not None:
        return [whole[2]]
    return value.split(",")


def _resolve(key: str, text: str, root: Path, arguments: Sequence[str]) -> str:
    if text == "null" or not NAMES.fullmatch(text) or Path(text).exists():
        return text  # a path; one that does not exist is reported with the other inputs
    runs = complete_runs(root)
    if text == LAST:
        others = [run for run in runs if key != "against" or not _is_run(run, arguments)]
        if (run := newest(others)) is None:
            other = "other " if len(others) < len(runs) else ""
            raise ConfigError(f"{key}=last: no {other}complete run is below {root}")
        return str(run.folder)
    matches = find(text, runs)
    if not matches:
        raise ConfigError(
            f"{key}={text}: no such file or folder, and no run below {root} has a name that begins "
            f"with it{_nearest(text, runs)}"
        )
    if key == "checkpoint" and len({run.names[-1] for run in matches}) == 1:
        matches = [max(matches, key=lambda run: run.finished)]  # evaluated again: the same bytes
    if len(matches) > 1:
        names = ", ".join(reference(run, runs) for run in matches[:MOST_NAMED])
        more = f" and {len(matches) - MOST_NAMED} more" if len(matches) > MOST_NAMED else ""
        raise ConfigError(
            f"{key}={text}: {len(matches)} complete runs below {root} begin with it; choose one: "
            f"{names}{more}"
        )
    return str(matches[0].folder)


def _is_run(run: CompleteRun, arguments: Sequence[str]) -> bool:
    """Whether run= of a command is this run, its file, or a folder above it."""
    for argument in arguments:
        if argument.startswith("run="):
            path, folder = Path(_texts(value_of(argument))[0]).resolve(), run.folder.resolve()
            return path in (folder, *folder.parents) or path.parent == folder
    return False


def _nearest(text: str, runs: Sequence[CompleteRun]) -> str:
    names = sorted({name for run in runs for name in run.names})
    heads = {name[: len(text)]: name for name in names}
    close = difflib.get_close_matches(text, heads, n=1, cutoff=0.6)
    near = f"; nearest: {heads[close[0]]}" if close else ""
    return f"{near}; {LAST} means the newest run" if runs else near
