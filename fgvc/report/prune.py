"""An output root -> what may go, what stays and why; and what may go -> gone, never by halves.

Something goes only when its recorded time is over, nobody has pinned it, no table that is still
kept rests on it, and nobody works on it. It is renamed into the trash of the same root first, so
that a kill leaves it whole or absent, and what lies in the trash is the next prune's to finish.
Nothing outside the root is touched: a link stays, and what it points at too.
Homes of runs (config folders) stay with their lock file, which is never deleted.
"""

from __future__ import annotations

import datetime
import secrets
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from fgvc.record.retention import Retention, UnreadableError
from fgvc.record.run_dir import ASIDE, IN_PROGRESS
from fgvc.record.verify import DamageError, read_retention, read_status
from fgvc.report import table_archive
from fgvc.report.run_rows import SEALED, run_path
from fgvc.store import atomic
from fgvc.store.file_lock import LockHeld, holder, lock
from fgvc.types import UserError

TRASH = ".trash"


class Verdict(NamedTuple):
    goes: bool
    why: str


@dataclass(frozen=True)
class Item:
    """Something under the root. files: what moves together; home: whose lock guards it."""

    name: str
    files: tuple[Path, ...]
    verdict: Verdict
    home: Path | None = None

    def size(self) -> int:
        """Bytes of all its files."""
        whole = [path for file in self.files for path in (file, *file.rglob("*"))]
        return sum(path.lstat().st_size for path in whole if not path.is_dir())


class OutputRoot:
    """One output root at one moment. days: how long a run in progress is kept."""

    def __init__(self, path: Path, now: datetime.datetime, days: int) -> None:
        self.path, self.now = path.resolve(), now
        self.days = datetime.timedelta(days=days)
        if not self.path.is_dir():
            raise UserError(f"runtime.output_root={path}: no such folder; name the one to prune")
        if (self.path / TRASH).is_symlink():
            raise UserError(f"{self.path / TRASH}: a link, where the trash must be; remove it")

    def survey(self) -> list[Item]:
        """Everything under the root, with a verdict.

        Raises:
            UserError: a table cannot be read, and could name any run.
        """
        return [*self._leftovers(), *self._entries(), *self._tables()]

    def remove(self, items: Iterable[Item]) -> list[Item]:
        """Remove those that go; returns what was removed.

        Each is judged again under the lock of its home: a run may have begun or been pinned.

        Raises:
            LockHeld: another prune of this root is at work.
            OSError: something cannot be removed; what was moved waits in the trash.
        """
        removed = []
        with lock(self.path / TRASH / ".lock"):
            for item in (one for one in items if one.verdict.goes):
                if self._moved(item):
                    removed.append(item)
            for path in self._trashed():
                _delete(path)
        return removed

    def _moved(self, item: Item) -> bool:
        """Whether it was moved to the trash, or lies there already."""
        if item.home is None:
            self._move(item)
            return True
        try:
            with lock(item.home / ".lock"):
                if not self._judged(item.files[0]).goes:
                    return False
                self._move(item)
        except LockHeld:
            return False
        return True

    def _move(self, item: Item) -> None:
        for file in item.files:
            if file.parent != self.path / TRASH:
                name = file.relative_to(self.path).as_posix().replace("/", "+")
                file.rename(self.path / TRASH / f"{name}+{secrets.token_hex(4)}")
                atomic.sync_folder(file.parent)

    def _trashed(self) -> list[Path]:
        return sorted(path for path in self.path.glob(f"{TRASH}/*") if path.name != ".lock")

    def _leftovers(self) -> Iterator[Item]:
        for path in self._trashed():
            yield self._item(path, Verdict(True, "left over from a prune that was stopped"))

    def _entries(self) -> Iterator[Item]:
        """Runs, and what is none of ours."""
        for path in sorted(self.path.iterdir()):
            if path.is_symlink():
                yield self._item(path, _LINK)
            elif path.is_dir() and path.name != TRASH:
                yield from self._run_id(path)
            elif not path.name.startswith((".", table_archive.STEM)):
                yield self._item(path, _FOREIGN)

    def _run_id(self, folder: Path) -> Iterator[Item]:
        """outputs/{run_id}; a folder without a config's folder is no run."""
        inside = sorted(folder.iterdir())
        homes = [path for path in inside if SEALED.fullmatch(path.name)]
        if not homes:
            yield self._item(folder, _FOREIGN)
        for path in homes:
            if path.is_symlink():
                yield self._item(path, _LINK)
            elif path.is_dir():
                yield from self._home(path)

    def _home(self, home: Path) -> Iterator[Item]:
        """outputs/{run_id}/{config_hash}: complete runs, and one in progress with its states."""
        who = holder(home / ".lock")
        for path in sorted(home.iterdir()):
            if path.is_symlink():
                yield self._item(path, _LINK)
            elif path.name in (IN_PROGRESS, ASIDE) or SEALED.fullmatch(path.name):
                verdict = Verdict(False, f"running: {who}") if who else self._judged(path)
                yield self._item(path, verdict, home)
            elif path.name != ".lock":
                yield self._item(path, _FOREIGN)

    def _judged(self, path: Path) -> Verdict:
        """A folder of a home that nobody works on."""
        stopped = path.parent / IN_PROGRESS
        if path.name == ASIDE and not stopped.exists():
            return Verdict(True, "resume states of a run that is complete")
        resumable = path.name in (IN_PROGRESS, ASIDE)
        return self._in_progress(stopped) if resumable else self._retained(path)

    def _retained(self, folder: Path) -> Verdict:
        """A complete run, by what it recorded and by the tables that rest on it."""
        try:
            kept = read_retention(folder)
        except (UnreadableError, DamageError) as why:
            return Verdict(False, str(why))
        by = kept.holds(self.now) or self._named.get(run_path(folder))
        return Verdict(False, by) if by else _over(kept)

    def _in_progress(self, folder: Path) -> Verdict:
        """A run that stopped: it may go on for as long as a complete one is kept.

        Its status tells when it began or stopped; the newest file when it last worked, which a
        kill leaves unsaid.
        """
        try:
            told = read_status(folder)
            state, updated = told["state"], datetime.datetime.fromisoformat(told["updated"])
            times = [path.lstat().st_mtime for path in folder.rglob("*")]
            newest = datetime.datetime.fromtimestamp(max(times), datetime.UTC)
            first, last = min(updated, newest), max(updated, newest)
            kept = Retention(first, last + self.days, told["of"])
        except (DamageError, KeyError, TypeError, ValueError, OverflowError) as why:
            return Verdict(False, f"in progress, of unknown age ({why})")
        if by := kept.holds(self.now):
            return Verdict(False, f"{state}, can go on: {by}")
        return _over(kept)

    def _tables(self) -> Iterator[Item]:
        for table in self._found:
            name = (table.files[0].parent / table.stem).relative_to(self.path).as_posix()
            yield Item(f"{name}.*", table.files, self._of_table(table))

    def _of_table(self, table: table_archive.TableFiles) -> Verdict:
        if table.current:
            return Verdict(False, "the current table")
        if table.retention is None:
            return Verdict(False, table.trouble)
        by = table.retention.holds(self.now)
        return Verdict(False, by) if by else _over(table.retention)

    @cached_property
    def _found(self) -> list[table_archive.TableFiles]:
        """Tables in the root and one folder below it, where task=report may have put them."""
        below = [path for path in sorted(self.path.iterdir()) if path.is_dir()]
        folders = [path for path in below if not path.is_symlink() and path.name != TRASH]
        return [
            table for folder in (self.path, *folders) for table in table_archive.list_tables(folder)
        ]

    @cached_property
    def _named(self) -> dict[str, str]:
        """Run folder -> which table that is still kept rests on it."""
        why: dict[str, str] = {}
        for table in self._found:
            holds = table.retention.holds(self.now) if table.retention else table.trouble
            if holds:
                why |= dict.fromkeys(_rows(table), f"in {table.stem}.json, {holds}")
        return why

    def _item(self, path: Path, verdict: Verdict, home: Path | None = None) -> Item:
        return Item(path.relative_to(self.path).as_posix(), (path,), verdict, home)


_LINK = Verdict(False, "a link, which is never followed")
_FOREIGN = Verdict(False, "no run, no table")


def _over(kept: Retention) -> Verdict:
    return Verdict(True, f"its time was over on {kept.due:%Y-%m-%d}")


def _rows(table: table_archive.TableFiles) -> list[str]:
    try:
        return list(table_archive.referenced_runs(table))
    except (OSError, ValueError) as error:
        raise UserError(f"{error}; it may name any run: restore or remove it") from error


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
