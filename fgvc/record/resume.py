"""Where a training stands -> files that no crash can spoil -> the same place again.

    resume/
        state-00000120.best-00000090.<sha256>.pt    all that an exact resume needs, after 120 steps
        best-00000090.<sha256>.pt                   the best weights by then

A file's name holds the digest of its bytes, so one rename makes both at once. A state holds the
name of the best weights of its moment: a state is whole only where they are too.
"""

from __future__ import annotations

import io
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fgvc import untrusted
from fgvc.store import atomic, digest, temporary
from fgvc.types import UserError

NAME = re.compile(r"(state|best)-(\d{8,})(?:\.best-(\d{8,}))?\.([0-9a-f]{64})\.pt")
PLAIN = (str, int, float, bool, type(None))
UNFIT = (KeyError, TypeError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError)


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
        self, on_note: Callable[[str], None], otherwise: str = ""
    ) -> tuple[int, dict[str, Any]] | None:
        """The newest whole state with its step; None where there is none.

        Args:
            on_note: told in one line each of the files passed over, and of what is taken instead.
            otherwise: what happens if every state is damaged; for the note.
        """
        temporary.remove_stale(self.folder)
        for entry in reversed(self._entries("state")):
            try:
                found = self.load(entry.path)
            except UserError as error:
                self._unfit.add(entry.path)
                on_note(f"{error}; passed over")
                continue
            if self._unfit:
                on_note(f"going on from step {entry.step}: {entry.path}")
            return found
        if self._unfit:
            on_note(f"{self.folder}: no whole resume state is left{otherwise}")
        return None

    def load(self, path: Path) -> tuple[int, dict[str, Any]]:
        """One state of this folder with its step; `best` then gives the weights it refers to.

        Raises:
            UserError: the state or its best weights are missing, damaged, or not ours.
        """
        record = _read(path)
        best = record.get("best")
        if best is not None:
            _verify(self.folder / best, f"{path} needs it: ")
        self._best = best
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
        path = self.folder / f"{stem}.{digest.sha256_bytes(data)}.pt"
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
                entry.path.unlink()
        needed = {entry.best for entry in kept}
        for entry in self._entries("best"):
            if entry.step not in needed:
                entry.path.unlink()

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
        record = torch.load(untrusted.require_regular(path), map_location="cpu", weights_only=True)
        if not isinstance(record["step"], int) or not isinstance(record["state"], dict):
            raise TypeError("no step and state")
    except UNFIT as error:
        raise UserError(
            f"{path} ({path.stat().st_size} bytes): not a resume state of fgvc, or it holds code "
            f"({type(error).__name__}): refused, and nothing in it was run"
        ) from error
    return record


def _verify(path: Path, why: str = "") -> None:
    recorded = _parsed(path).sha256
    if not path.is_file():
        raise UserError(f"{why}{path}: no such file")
    if digest.sha256_file(path) != recorded:
        size = path.stat().st_size
        raise UserError(f"{why}{path} ({size} bytes): {_looks_like(path)}, sha256 mismatch")


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
