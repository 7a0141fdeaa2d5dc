"""The state of a training -> crash-safe files -> the restored state.

    resume/
        state-00000120.best-00000090.<sha256>.pt    everything for an exact resume after 120 steps
        best-00000090.<sha256>.pt                   the best weights up to then

A file name holds the digest of the file, so one rename writes both. A state refers to the best
weights at its step and is usable only if these are intact. If the newest states are intact but
their best weights are lost, the training stops: without them validation would select among fewer
epochs, which the user must decide.
"""

from __future__ import annotations

import io
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fgvc import untrusted
from fgvc.store import atomic, hashing, json_cache, temporary_files
from fgvc.types import UserError
from fgvc.untrusted.file_format import placeholder

NAME = re.compile(r"(state|best)-(\d{8,})(?:\.best-(\d{8,}))?\.([0-9a-f]{64})\.pt")
PLAIN = (str, int, float, bool, type(None))


class BestLostError(UserError):
    """A state is intact, but the best weights that it refers to are missing or damaged."""

    def __init__(self, state: Path, reason: str) -> None:
        """reason: what is wrong with the best weights; begins with their path."""
        super().__init__(
            f"{reason}: these are the best weights so far, to which the intact state {state} "
            "refers. Restore the file; or resume without it by runtime.resume_force=true, which is "
            "recorded, and validation then selects among the remaining epochs; or train from the "
            "start with a new runtime.run_id"
        )
        self.state, self.reason = state, reason


@dataclass(frozen=True)
class StateFile:
    """A parsed file name. best: the step of the best weights that a state refers to."""

    path: Path
    step: int
    best: int | None
    sha256: str


class States:
    """The resume states of one run; saving requires the run's lock."""

    def __init__(self, folder: Path, keep: int) -> None:
        """keep: the number of newest states to keep, with the best weights they refer to."""
        assert keep >= 1
        self.folder, self.keep = folder, keep
        self._best: str | None = None
        self.best_lost: int | None = None  # step of the lost best weights of the loaded state
        self._damaged: set[Path] = set()

    def save(self, step: int, state: Mapping[str, Any]) -> Path:
        """Write a state atomically, then remove the states that are no longer needed.

        States of later steps are removed too: they belong to an abandoned continuation.

        Args:
            step: optimiser steps taken.
            state: tensors and plain values (str, int, float, bool, None) in dicts, lists, tuples.

        Raises:
            OSError: the disk refuses, with path and bytes needed; earlier states are intact.
            TypeError: a value could be saved but not loaded again.
        """
        self._remove_leftovers()
        link = ""
        if self._best is not None:
            link = f".best-{_parse_name(self.folder / self._best).step:08d}"
        record = {"step": step, "best": self._best, "state": dict(state)}
        path = self._write(f"state-{step:08d}{link}", record)
        states = [entry for entry in self._entries("state") if entry.path != path]
        earlier = [
            entry for entry in states if entry.step < step and entry.path not in self._damaged
        ]
        kept = [_parse_name(path), *earlier[::-1][: self.keep - 1]]
        needed = {entry.best for entry in kept}
        unused = [entry for entry in states if entry not in kept]
        unused += [entry for entry in self._entries("best") if entry.step not in needed]
        for entry in unused:
            temporary_files.remove(entry.path)
        return path

    def save_best(self, step: int, tensors: Mapping[str, Tensor]) -> Path:
        """Write the best weights so far; every state saved afterwards refers to them.

        Raises:
            OSError: as `save`; the earlier best weights are intact.
        """
        self._remove_leftovers()
        path = self._write(f"best-{step:08d}", {"step": step, "state": dict(tensors)})
        self._best = path.name
        return path

    def newest(
        self, notify: Callable[[str], None], otherwise: str = "", without_best: bool = False
    ) -> tuple[int, dict[str, Any]] | None:
        """The newest intact state with its step; None if there is none.

        Args:
            notify: called with one line per skipped file, and one on the state that is loaded.
            otherwise: the end of the note if every state is damaged: what happens then.
            without_best: if no state has its best weights, load the newest state without them.

        Raises:
            BestLostError: states are intact, but none has its best weights; nothing was removed.
        """
        temporary_files.remove_stale(self.folder)
        lost: BestLostError | None = None
        notes: list[str] = []
        for entry in reversed(self._entries("state")):
            try:
                loaded = self.load(entry.path)
            except UserError as error:
                reason = str(error)
                if isinstance(error, BestLostError):
                    lost, reason = lost or error, error.reason
                self._damaged.add(entry.path)
                notes.append(f"{reason}; skipped")
                continue
            if self._damaged:
                notes.append(f"resuming from step {entry.step}: {entry.path}")
            for note in notes:
                notify(note)
            return loaded
        if lost is not None:
            if not without_best:
                raise lost
            return self.load(lost.state, without_best=True)
        for note in notes:
            notify(note)
        if self._damaged:
            notify(f"{self.folder}: no intact resume state is left{otherwise}")
        return None

    def load(self, path: Path, without_best: bool = False) -> tuple[int, dict[str, Any]]:
        """Load a state of this folder with its step; `best` then loads the weights it refers to.

        Args:
            without_best: load it even if its best weights are lost; `best_lost` is their step.

        Raises:
            UserError: the state is missing, damaged, or not a state of fgvc.
            BestLostError: its best weights are missing or damaged.
        """
        record = _read(path)
        best, lost = record.get("best"), None
        if best is not None:
            try:
                _verify(self.folder / best)
            except UserError as error:
                if not without_best:
                    raise BestLostError(path, str(error)) from error
                best, lost = None, _parse_name(self.folder / best).step
        self._best, self.best_lost = best, lost
        return record["step"], record["state"]

    def best(self) -> tuple[int, dict[str, Tensor]] | None:
        """The best weights with their step, as last saved or as referred to by the loaded state.

        Raises:
            UserError: the file is missing or damaged.
        """
        if self._best is None:
            return None
        record = _read(self.folder / self._best)
        return record["step"], record["state"]

    def _write(self, stem: str, record: Mapping[str, Any]) -> Path:
        _check_plain(record, stem)
        buffer = io.BytesIO()
        torch.save(record, buffer)
        data = buffer.getvalue()
        path = self.folder / f"{stem}.{hashing.sha256_bytes(data)}.pt"
        json_cache.remove_folder(path)
        atomic.write_bytes(path, data)
        return path

    def _entries(self, kind: str) -> list[StateFile]:
        """The files of a kind (state or best) by ascending step."""
        files = (path for path in self.folder.glob(f"{kind}-*.pt") if NAME.fullmatch(path.name))
        return sorted(map(_parse_name, files), key=lambda entry: entry.step)

    def _remove_leftovers(self) -> None:
        """Remove temporary files; this process holds the lock, so no living process owns them."""
        for path in self.folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)


def _parse_name(path: Path) -> StateFile:
    match = NAME.fullmatch(path.name)
    if match is None:
        raise UserError(f"{path}: not the name of a resume state (state-STEP.….SHA256.pt)")
    return StateFile(path, int(match[2]), int(match[3]) if match[3] else None, match[4])


def _read(path: Path) -> dict[str, Any]:
    """The content of a file with a verified digest; no code in the file can run."""
    _verify(path)
    try:
        # opened here because torch treats a path by its suffix; it warns about pickle protocols
        untrusted.check_pickles(path)
        with untrusted.open_regular(path) as file, warnings.catch_warnings(action="ignore"):
            record = torch.load(file, map_location="cpu", weights_only=True)
        if type(record["step"]) is not int or not isinstance(record["state"], dict):
            raise TypeError("step or state is missing")
        best = record.get("best")
        if best is not None and not (NAME.fullmatch(best) and best.startswith("best-")):
            raise ValueError("not a name of best weights")
    except Exception as error:  # a damaged archive raises many types of exceptions
        raise UserError(
            f"{path} ({path.stat().st_size} bytes): not a resume state of fgvc, or it holds code "
            f"({type(error).__name__}): refused, no code in it was run"
        ) from error
    return record


def _verify(path: Path) -> None:
    recorded = _parse_name(path).sha256
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if hashing.sha256_file(path) != recorded:
        with untrusted.open_regular(path) as file:
            damage = placeholder(file.read(64)) or "truncated or altered"
        raise UserError(f"{path} ({path.stat().st_size} bytes): {damage}, sha256 mismatch")


def _check_plain(value: object, where: str) -> None:
    """Raise TypeError for values that torch saves but does not load, such as NumPy numbers."""
    if isinstance(value, Tensor) or type(value) in PLAIN:
        return
    if type(value) in (dict, OrderedDict):
        assert isinstance(value, dict)
        for key, item in value.items():
            _check_plain(key, f"a key of {where}")
            _check_plain(item, f"{where}[{key!r}]")
    elif type(value) in (list, tuple):
        assert isinstance(value, list | tuple)
        for index, item in enumerate(value):
            _check_plain(item, f"{where}[{index}]")
    else:
        raise TypeError(f"{where}: is a {type(value).__name__}, neither a tensor nor a plain value")
