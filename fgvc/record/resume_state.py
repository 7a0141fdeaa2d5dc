"""Where a training stands -> files that no crash can spoil -> the same place again.

    resume/
        state-00000120.best-00000090.<sha256>.pt    all that an exact resume needs, after 120 steps
        best-00000090.<sha256>.pt                   the best weights by then

A file's name holds the digest of its bytes, so one rename makes both at once. A state holds the
name of the best weights of its moment: a state is whole only where they are too. Where the last
states are whole and only their best weights are lost, the training stops: without them, validation
would choose among fewer epochs, which is for the user to decide.
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

NAME = re.compile(r"(state|best)-(\d{8,})(?:\.best-(\d{8,}))?\.([0-9a-f]{64})\.pt")
PLAIN = (str, int, float, bool, type(None))


class BestLostError(UserError):
    """A state is whole, but the best weights that it refers to are missing or damaged."""

    def __init__(self, state: Path, reason: str) -> None:
        """reason: what is wrong with the best weights; begins with their path."""
        super().__init__(
            f"{reason}: the best weights so far, which {state} needs; that state is whole. Restore "
            "the file, or go on from the last state without it by runtime.resume_force=true, which "
            "is recorded: validation then chooses among the epochs to come. A new runtime.run_id "
            "trains anew"
        )
        self.reason = reason


@dataclass(frozen=True)
class Entry:
    """A file by its name. best: the step of the best weights that a state refers to."""

    path: Path
    step: int
    best: int | None
    sha256: str


class States:
    """The resume states of one run; whoever saves holds the run's lock."""

    def __init__(self, folder: Path, keep: int) -> None:
        """keep: newest states that stay, and with them the best weights that they refer to."""
        assert keep >= 1
        self.folder, self.keep = folder, keep
        self._best: str | None = None
        self.best_lost: int | None = None  # step of best weights that the loaded state lacks
        self._unfit: set[Path] = set()

    def save(self, step: int, state: Mapping[str, Any]) -> Path:
        """Write a state, whole or not at all, then remove what it makes superfluous.

        States of later steps go too: they belong to a course that was not gone on with.

        Args:
            step: optimiser steps taken.
            state: tensors and plain values (str, int, float, bool, None) in dicts, lists, tuples.

        Raises:
            OSError: the disk refused it, with path and bytes needed; earlier states are intact.
            TypeError: something that could be saved but not loaded again.
        """
        self._remove_leftovers()
        link = "" if self._best is None else f".best-{_parsed(self.folder / self._best).step:08d}"
        record = {"step": step, "best": self._best, "state": dict(state)}
        path = self._write(f"state-{step:08d}{link}", record)
        self._prune(step, path)
        return path

    def save_best(self, step: int, tensors: Mapping[str, Tensor]) -> Path:
        """Write the best weights so far, to which every state saved from now on refers.

        Raises:
            OSError: as `save`; the best before is intact.
        """
        self._remove_leftovers()
        path = self._write(f"best-{step:08d}", {"step": step, "state": dict(tensors)})
        self._best = path.name
        return path

    def newest(
        self, on_note: Callable[[str], None], otherwise: str = "", without_best: bool = False
    ) -> tuple[int, dict[str, Any]] | None:
        """The newest whole state with its step; None where there is none.

        Args:
            on_note: told in one line each of the files passed over, and of what is taken instead.
            otherwise: what happens if every state is damaged; for the note.
            without_best: where no state has its best weights, take the newest without them.

        Raises:
            BestLostError: states are whole, but none has its best weights; nothing was removed.
        """
        temporary_files.remove_stale(self.folder)
        lost: tuple[Path, BestLostError] | None = None
        notes: list[str] = []
        for entry in reversed(self._entries("state")):
            try:
                found = self.load(entry.path)
            except UserError as error:
                if isinstance(error, BestLostError):
                    lost = lost or (entry.path, error)
                self._unfit.add(entry.path)
                reason = error.reason if isinstance(error, BestLostError) else error
                notes.append(f"{reason}; passed over")
                continue
            if self._unfit:
                notes.append(f"going on from step {entry.step}: {entry.path}")
            for note in notes:
                on_note(note)
            return found
        if lost is not None:
            if not without_best:
                raise lost[1]
            return self.load(lost[0], without_best=True)
        for note in notes:
            on_note(note)
        if self._unfit:
            on_note(f"{self.folder}: no whole resume state is left{otherwise}")
        return None

    def load(self, path: Path, without_best: bool = False) -> tuple[int, dict[str, Any]]:
        """One state of this folder with its step; `best` then gives the weights it refers to.

        Args:
            without_best: load it also if its best weights are lost; `best_lost` is their step.

        Raises:
            UserError: the state is missing, damaged, or not ours.
            BestLostError: its best weights are.
        """
        record = _read(path)
        best, lost = record.get("best"), None
        if best is not None:
            try:
                _verify(self.folder / best)
            except UserError as error:
                if not without_best:
                    raise BestLostError(path, str(error)) from error
                best, lost = None, _parsed(self.folder / best).step
        self._best, self.best_lost = best, lost
        return record["step"], record["state"]

    def best(self) -> tuple[int, dict[str, Tensor]] | None:
        """The best weights with their step, as last saved or as the loaded state has them.

        Raises:
            UserError: the file is missing or damaged.
        """
        if self._best is None:
            return None
        record = _read(self.folder / self._best)
        return record["step"], record["state"]

    def _write(self, stem: str, record: Mapping[str, Any]) -> Path:
        _refuse_odd(record, stem)
        buffer = io.BytesIO()
        torch.save(record, buffer)
        data = buffer.getvalue()
        path = self.folder / f"{stem}.{hashing.sha256_bytes(data)}.pt"
        json_cache.remove_folder(path)
        atomic.write_bytes(path, data)
        return path

    def _entries(self, kind: str) -> list[Entry]:
        """By step, ascending."""
        files = (path for path in self.folder.glob(f"{kind}-*.pt") if NAME.fullmatch(path.name))
        return sorted(map(_parsed, files), key=lambda entry: entry.step)

    def _prune(self, step: int, written: Path) -> None:
        """Remove all but the state just written, its keep - 1 forerunners, and their best."""
        states = [entry for entry in self._entries("state") if entry.path != written]
        earlier = [one for one in states if one.step < step and one.path not in self._unfit]
        kept = [_parsed(written), *earlier[::-1][: self.keep - 1]]
        for entry in states:
            if entry not in kept:
                temporary_files.remove(entry.path)
        needed = {entry.best for entry in kept}
        for entry in self._entries("best"):
            if entry.step not in needed:
                temporary_files.remove(entry.path)

    def _remove_leftovers(self) -> None:
        """The run's lock is ours, so that a temporary file, of whichever host, is a dead one's."""
        for path in self.folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)


def _parsed(path: Path) -> Entry:
    match = NAME.fullmatch(path.name)
    if match is None:
        raise UserError(f"{path}: not the name of a resume state (state-STEP.….SHA256.pt)")
    return Entry(path, int(match[2]), int(match[3]) if match[3] else None, match[4])


def _read(path: Path) -> dict[str, Any]:
    """What was written, after its digest was verified; nothing in the file can run."""
    _verify(path)
    try:
        # given a path, torch would choose by its suffix; it warns of pickle protocols
        untrusted.check_pickles(path)
        with untrusted.open_regular(path) as file, warnings.catch_warnings(action="ignore"):
            record = torch.load(file, map_location="cpu", weights_only=True)
        if type(record["step"]) is not int or not isinstance(record["state"], dict):
            raise TypeError("no step and state")
        best = record.get("best")
        if best is not None and not (NAME.fullmatch(best) and best.startswith("best-")):
            raise ValueError("no name of best weights")
    except Exception as error:  # a damaged archive raises many types of exceptions
        raise UserError(
            f"{path} ({path.stat().st_size} bytes): not a resume state of fgvc, or it holds code "
            f"({type(error).__name__}): refused, and nothing in it was run"
        ) from error
    return record


def _verify(path: Path) -> None:
    recorded = _parsed(path).sha256
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if hashing.sha256_file(path) != recorded:
        size = path.stat().st_size
        raise UserError(f"{path} ({size} bytes): {_looks_like(path)}, sha256 mismatch")


def _looks_like(path: Path) -> str:
    with untrusted.open_regular(path) as opened:
        head = opened.read(64).lstrip().lower()
    if not head:
        return "an empty file"
    if head.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer, not the file itself"
    if head.startswith((b"<!doctype", b"<html")):
        return "an HTML page"
    return "truncated or altered"


def _refuse_odd(value: object, where: str) -> None:
    """A NumPy number passes for a float until the day it must be loaded again."""
    if isinstance(value, Tensor) or type(value) in PLAIN:
        return
    if type(value) in (dict, OrderedDict):
        assert isinstance(value, dict)
        for key, item in value.items():
            _refuse_odd(key, f"a key of {where}")
            _refuse_odd(item, f"{where}[{key!r}]")
    elif type(value) in (list, tuple):
        assert isinstance(value, list | tuple)
        for place, item in enumerate(value):
            _refuse_odd(item, f"{where}[{place}]")
    else:
        raise TypeError(f"{where} is a {type(value).__name__}: give tensors and plain values only")
