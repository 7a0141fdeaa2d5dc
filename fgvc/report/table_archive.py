"""A table in several formats -> files of one stem; the table they replace stays beside them, dated.

baselines.json, baselines.csv and what else begins with `baselines.` are one table, and
baselines.retention.json says how long it is kept. A table that differs moves the older one to
baselines-TIME.*, TIME being when that one was written, with the retention it had.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fgvc import untrusted
from fgvc.record import retention
from fgvc.record.retention import Retention, UnreadableError
from fgvc.record.run_dir import now
from fgvc.store import atomic, hashing
from fgvc.store.file_lock import lock

STEM = "baselines"
KEEPER = ".retention.json"
DATED = re.compile(rf"{STEM}-\d{{8}}T\d{{12}}Z")


@dataclass(frozen=True)
class TableFiles:
    """One table on disk: its stem, its files, and its retention (None, and why it has none)."""

    stem: str
    files: tuple[Path, ...]
    retention: Retention | None
    trouble: str = ""

    @property
    def current(self) -> bool:
        return self.stem == STEM


def write_table(target: Path, formats: Mapping[str, bytes], days: int) -> None:
    """Write a table, and leave the one it replaces, if it differs, under its date.

    Args:
        formats: bytes by ending, as {"csv": …, "json": …}.
        days: how long it is kept at least, from now on.

    Raises:
        OSError: the folder cannot be read or written.
    """
    with lock(target / f".{STEM}.lock", wait=True):
        if any(_differs(target / f"{STEM}.{kind}", data) for kind, data in formats.items()):
            _set_aside(target, days)
            for kind, data in formats.items():
                atomic.write_bytes(target / f"{STEM}.{kind}", data)
        _keep(target, days)


def list_tables(folder: Path) -> list[TableFiles]:
    """Every table that lies in a folder, by stem."""
    stems = {path.name.partition(".")[0] for path in folder.glob(f"{STEM}*") if path.is_file()}
    return [_table(folder, stem) for stem in sorted(stems) if stem == STEM or DATED.fullmatch(stem)]


def _table(folder: Path, stem: str) -> TableFiles:
    files = tuple(sorted(folder.glob(f"{stem}.*")))
    try:
        kept = retention.read_for(folder / f"{stem}{KEEPER}", _digest(folder / f"{stem}.json"))
        if stem not in (STEM, _dated(kept.created)):
            raise UnreadableError(f"{stem}{KEEPER}: created {kept.created.isoformat()}, not {stem}")
        return TableFiles(stem, files, kept)
    except UnreadableError as why:
        return TableFiles(stem, files, None, str(why))


def _differs(file: Path, data: bytes) -> bool:
    return not file.is_file() or untrusted.read_bytes(file, untrusted.ARRAYS) != data


def _set_aside(target: Path, days: int) -> None:
    """Give every file of the table the dated name; its retention goes last, so that a kill between
    two of them is made good by the next table."""
    keeper = target / f"{STEM}{KEEPER}"
    files = [path for path in target.glob(f"{STEM}.*") if path != keeper]
    if not files and not keeper.exists():
        return
    dated = _dated(_written(keeper, days))
    for file in (*files, keeper):
        file.rename(target / f"{dated}{file.name.removeprefix(STEM)}")
    atomic.sync_folder(target)


def _written(keeper: Path, days: int) -> datetime.datetime:
    """When the table was written; one without a record of it counts from now."""
    try:
        return retention.read(keeper).created.astimezone(datetime.UTC)
    except UnreadableError:
        return _keep(keeper.parent, days).created


def _keep(target: Path, days: int) -> Retention:
    """Write the retention of the current table, from now on."""
    kept = retention.new_retention(now(), days, _digest(target / f"{STEM}.json"))
    retention.write(target / f"{STEM}{KEEPER}", kept)
    return kept


def _digest(file: Path) -> str:
    """SHA256 of a table's JSON; empty where there is none."""
    return hashing.sha256_file(file) if file.is_file() else ""


def _dated(written: datetime.datetime) -> str:
    return f"{STEM}-{written.astimezone(datetime.UTC):%Y%m%dT%H%M%S%fZ}"


def referenced_runs(table: TableFiles) -> Iterator[str]:
    """The run folders that a table rests on, as run_id/config_hash/checkpoint_id.

    Raises:
        ValueError: its JSON is not one that this version reads.
    """
    for file in (path for path in table.files if path.name == f"{table.stem}.json"):
        try:
            for row in untrusted.read_json(file, untrusted.LIST)["rows"]:
                yield from row["folder"]
        except (KeyError, TypeError, UnicodeDecodeError) as error:
            raise ValueError(f"{file}: no table of fgvc") from error
