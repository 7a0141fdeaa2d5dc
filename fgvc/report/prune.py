"""An output root -> expired and kept items, with reasons; removal is atomic per item.

An item is removed only if its retention has expired, it is not pinned, no table that is still kept
lists it, and no process works on it. It is first renamed into the trash of the same root, so that
an interrupted prune leaves it whole or absent. The next prune empties the trash. Nothing outside
the root is touched: links and their targets are kept. Config folders keep their lock file, which is
never deleted.
"""

from __future__ import annotations

import datetime
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from fgvc.record.retention import Retention
from fgvc.record.run_dir import ASIDE, IN_PROGRESS
from fgvc.record.verify import DamageError, read_retention, read_status
from fgvc.report import table_archive
from fgvc.report.run_rows import SEALED, run_path
from fgvc.store import atomic
from fgvc.store.file_lock import LockHeld, holder, lock
from fgvc.types import UserError

TRASH = ".trash"


class Decision(NamedTuple):
    remove: bool
    reason: str


@dataclass(frozen=True)
class Item:
    """Something under the root. files: moved together; home: the config folder whose lock guards
    it."""

    name: str
    files: tuple[Path, ...]
    decision: Decision
    home: Path | None = None

    def size(self) -> int:
        whole = [path for file in self.files for path in (file, *file.rglob("*"))]
        return sum(path.lstat().st_size for path in whole if not path.is_dir())


class OutputRoot:
    """An output root at a given time. days: retention of a run in progress."""

    def __init__(self, path: Path, now: datetime.datetime, days: int) -> None:
        self.path, self.now = path.resolve(), now
        self.days = datetime.timedelta(days=days)
        if not self.path.is_dir():
            raise UserError(f"runtime.output_root={path}: no such folder; set it to an output root")
        if (self.path / TRASH).is_symlink():
            raise UserError(f"{self.path / TRASH}: a link in place of the trash folder. Remove it")

    def survey(self) -> list[Item]:
        """List everything under the root with a decision.

        Raises:
            UserError: a table cannot be read, so it could list any run.
        """
        leftover = Decision(True, "left over from a prune that was stopped")
        trash = (self._item(path, leftover) for path in self._trashed())
        return [*trash, *self._entries(), *self._tables()]

    def remove(self, items: Iterable[Item]) -> list[Item]:
        """Remove the items whose decision allows it; returns the removed items.

        The decision is computed again under the lock of the config folder, because a run may have
        started or been pinned.

        Raises:
            LockHeld: another prune of this root is running.
            OSError: an item cannot be removed; what was moved stays in the trash.
        """
        removed = []
        with lock(self.path / TRASH / ".lock"):
            for item in (item for item in items if item.decision.remove):
                if self._move_to_trash(item):
                    removed.append(item)
            for path in self._trashed():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        return removed

    def _move_to_trash(self, item: Item) -> bool:
        """Move an item unless its decision has changed; returns whether it is in the trash."""
        try:
            with nullcontext() if item.home is None else lock(item.home / ".lock"):
                if item.home is not None and not self._judge(item.files[0]).remove:
                    return False
                for file in (file for file in item.files if file.parent != self.path / TRASH):
                    name = file.relative_to(self.path).as_posix().replace("/", "+")
                    file.rename(self.path / TRASH / f"{name}+{secrets.token_hex(4)}")
                    atomic.sync_folder(file.parent)
        except LockHeld:
            return False
        return True

    def _trashed(self) -> list[Path]:
        return sorted(path for path in self.path.glob(f"{TRASH}/*") if path.name != ".lock")

    def _entries(self) -> Iterator[Item]:
        """Runs, and files that fgvc did not write; a folder without a config folder is no run."""
        for path in sorted(self.path.iterdir()):
            if path.is_dir() and not path.is_symlink() and path.name != TRASH:
                homes = [item for item in sorted(path.iterdir()) if SEALED.fullmatch(item.name)]
                for home in homes:
                    if home.is_symlink():
                        yield self._item(home)
                    elif home.is_dir():
                        yield from self._config_folder_items(home)
                if not homes and path.name != table_archive.OLDER:
                    yield self._item(path)
            elif path.is_symlink() or not path.name.startswith((".", table_archive.STEM)):
                yield self._item(path)

    def _config_folder_items(self, home: Path) -> Iterator[Item]:
        """Items of outputs/{run_id}/{config_hash}: complete runs, and a run in progress."""
        running = holder(home / ".lock")
        for path in sorted(home.iterdir()):
            is_run = path.name in (IN_PROGRESS, ASIDE) or SEALED.fullmatch(path.name)
            if is_run and not path.is_symlink():
                decision = Decision(False, f"running: {running}") if running else self._judge(path)
                yield self._item(path, decision, home)
            elif path.is_symlink() or path.name != ".lock":
                yield self._item(path)

    def _judge(self, path: Path) -> Decision:
        """The decision on a folder in a config folder that no process works on: by the retention of
        a complete run and the tables that list it, or by the age of a stopped run."""
        stopped = path.parent / IN_PROGRESS
        if path.name == ASIDE and not stopped.exists():
            return Decision(True, "resume states of a complete run")
        if path.name in (IN_PROGRESS, ASIDE):
            return self._in_progress(stopped)
        try:
            decision = self._by_retention(read_retention(path))
        except DamageError as error:
            return Decision(False, str(error))
        table = self._listed_in.get(run_path(path)) if decision.remove else None
        return Decision(False, table) if table else decision

    def _in_progress(self, folder: Path) -> Decision:
        """The decision on a stopped run, which can be resumed as long as a complete run is kept.

        status.json has the time of the last change of state. The newest file shows when a killed
        run last wrote.
        """
        try:
            stored = read_status(folder)
            state, updated = stored["state"], datetime.datetime.fromisoformat(stored["updated"])
            times = [path.lstat().st_mtime for path in folder.rglob("*")]
            newest = datetime.datetime.fromtimestamp(max(times), datetime.UTC)
            first, last = min(updated, newest), max(updated, newest)
            retention = Retention(first, last + self.days, stored["of"])
        except (DamageError, KeyError, TypeError, ValueError, OverflowError) as error:
            return Decision(False, f"in progress, of unknown age ({error})")
        return self._by_retention(retention, f"{state}, resumable: ")

    def _by_retention(self, retention: Retention, prefix: str = "") -> Decision:
        if reason := retention.holds(self.now):
            return Decision(False, f"{prefix}{reason}")
        return Decision(True, f"expired on {retention.due:%Y-%m-%d}")

    def _tables(self) -> Iterator[Item]:
        for table in self._table_files:
            name = (table.files[0].parent / table.stem).relative_to(self.path).as_posix()
            if table.stem == table_archive.STEM:
                decision = Decision(False, "the current table")
            elif table.retention is None:
                decision = Decision(False, table.trouble)
            else:
                decision = self._by_retention(table.retention)
            yield Item(f"{name}.*", table.files, decision)

    @cached_property
    def _table_files(self) -> list[table_archive.TableFiles]:
        """Tables in the root and one folder below it, where task=report may have written them."""
        below = [path for path in sorted(self.path.iterdir()) if path.is_dir()]
        folders = [path for path in below if not path.is_symlink() and path.name != TRASH]
        tables = map(table_archive.list_tables, (self.path, *folders))
        # the older tables of the root are listed with the root and with their own folder
        return list({table.files: table for of_folder in tables for table in of_folder}.values())

    @cached_property
    def _listed_in(self) -> dict[str, str]:
        """Run folder -> the table that lists it and is still kept, with the reason."""
        reasons: dict[str, str] = {}
        for table in self._table_files:
            holds = table.retention.holds(self.now) if table.retention else table.trouble
            try:
                runs = list(table_archive.referenced_runs(table)) if holds else []
            except (OSError, ValueError) as error:
                raise UserError(f"{error}; it may list any run. Restore or remove it") from error
            reasons |= dict.fromkeys(runs, f"in {table.stem}.json, {holds}")
        return reasons

    def _item(self, path: Path, decision: Decision | None = None, home: Path | None = None) -> Item:
        """An item of one path; without a decision, the path is not of fgvc and stays."""
        name = path.relative_to(self.path).as_posix()
        is_link = path.is_symlink()
        foreign = "a link, never followed" if is_link else "neither a run nor a table of fgvc"
        return Item(name, (path,), decision or Decision(False, foreign), home)
