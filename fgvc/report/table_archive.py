"""A table in several formats -> files of one stem; a replaced table is kept under a dated stem.

All files `baselines.*` are one table; baselines.retention.json states how long it is kept. A new
table with other content first moves the older table to baselines/baselines-TIME.*, with its
retention. TIME is the time at which the older table was written. Earlier versions left the dated
tables beside the current table; these are listed too, and stay where they are.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fgvc import untrusted
from fgvc.record import retention
from fgvc.record.retention import Retention, RetentionError
from fgvc.record.run_dir import now
from fgvc.store import atomic, hashing
from fgvc.store.file_lock import lock

STEM = "baselines"
RETENTION_SUFFIX = ".retention.json"
DATED = re.compile(rf"{STEM}-\d{{8}}T\d{{12}}Z")
OLDER = STEM  # the folder of the dated tables, beside the current table
# a link of the page to a run; not to a place in the page
LINK = re.compile(rb'(<a (?:class="name" )?href=")(?!#)')


@dataclass(frozen=True)
class TableFiles:
    """One table on disk. trouble: why it has no retention; empty if it has one."""

    stem: str
    files: tuple[Path, ...]
    retention: Retention | None
    trouble: str = ""


def write_table(target: Path, formats: Mapping[str, bytes], days: int) -> None:
    """Write a table; a replaced table with other content is kept under its date.

    Args:
        formats: bytes by suffix, such as {"csv": …, "json": …}.
        days: minimum retention from now.

    Raises:
        OSError: the folder cannot be read or written.
    """
    with lock(target / f".{STEM}.lock", wait=True):
        files = {target / f"{STEM}.{kind}": data for kind, data in formats.items()}
        if any(
            not file.is_file() or untrusted.read_bytes(file, untrusted.ARRAYS) != data
            for file, data in files.items()
        ):
            _set_aside(target, days)
            for file, data in files.items():
                atomic.write_bytes(file, data)
        _write_retention(target, days)


def list_tables(folder: Path) -> list[TableFiles]:
    """The current table of a folder and the older tables, also those in its folder OLDER."""
    older = folder / OLDER
    folders = (folder, older) if older.is_dir() and not older.is_symlink() else (folder,)
    return [table for place in folders for table in _tables_in(place)]


def _tables_in(folder: Path) -> list[TableFiles]:
    stems = {path.name.partition(".")[0] for path in folder.glob(f"{STEM}*") if path.is_file()}
    return [_table(folder, stem) for stem in sorted(stems) if stem == STEM or DATED.fullmatch(stem)]


def _table(folder: Path, stem: str) -> TableFiles:
    files = tuple(sorted(folder.glob(f"{stem}.*")))
    try:
        file = folder / f"{stem}{RETENTION_SUFFIX}"
        stored = retention.read_for(file, _digest(folder / f"{stem}.json"))
        if stem not in (STEM, _dated_stem(stored.created)):
            raise RetentionError(f"{file.name}: created {stored.created.isoformat()}, not {stem}")
        return TableFiles(stem, files, stored)
    except RetentionError as error:
        return TableFiles(stem, files, None, str(error))


def _set_aside(target: Path, days: int) -> None:
    """Move the current table to its dated stem in the folder OLDER.

    The retention is moved last, so that the next table completes an interrupted move.
    """
    retention_file = target / f"{STEM}{RETENTION_SUFFIX}"
    files = [path for path in target.glob(f"{STEM}.*") if path != retention_file]
    if not files and not retention_file.exists():
        return
    try:
        written = retention.read(retention_file).created
    except RetentionError:  # the time of writing is unknown
        written = _write_retention(target, days).created
    older = target / OLDER
    older.mkdir(exist_ok=True)
    for file in (*files, retention_file):
        moved = older / f"{_dated_stem(written)}{file.name.removeprefix(STEM)}"
        if file.suffix == ".html":  # its links are relative to the page
            page = untrusted.read_bytes(file, untrusted.ARRAYS)
            atomic.write_bytes(moved, LINK.sub(rb"\1../", page))
            file.unlink()
        else:
            file.rename(moved)
    atomic.sync_folder(older)
    atomic.sync_folder(target)


def _write_retention(target: Path, days: int) -> Retention:
    table_retention = retention.new_retention(now(), days, _digest(target / f"{STEM}.json"))
    retention.write(target / f"{STEM}{RETENTION_SUFFIX}", table_retention)
    return table_retention


def _digest(file: Path) -> str:
    """SHA256 of a table's JSON; empty if there is none."""
    return hashing.sha256_file(file) if file.is_file() else ""


def _dated_stem(written: datetime.datetime) -> str:
    return f"{STEM}-{written.astimezone(datetime.UTC):%Y%m%dT%H%M%S%fZ}"


def referenced_runs(table: TableFiles) -> Iterator[str]:
    """The run folders that a table lists, as run_id/config_hash/checkpoint_id.

    Raises:
        ValueError: this version cannot read the JSON of the table.
    """
    for file in (path for path in table.files if path.name == f"{table.stem}.json"):
        try:
            for row in untrusted.read_json(file, untrusted.LIST)["rows"]:
                yield from row["folder"]
        except (KeyError, TypeError, UnicodeDecodeError) as error:
            raise ValueError(f"{file}: not a table of fgvc") from error
