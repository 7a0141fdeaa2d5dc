"""Images inside Parquet files -> files in a folder of the cache, unpacked once.

The files are <cache_root>/tables/<16 hex digits>/images/, named by Parquet file and row. The digits
are derived from the SHA256 of the Parquet files, so a changed table is unpacked again. The folder
gets its name when it is complete. files.json beside images/ holds the digest and state of each
file; a folder that differs from it is unpacked again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fgvc.data import file_state as states_of_files
from fgvc.data.datasets.table.parquet_file import ImageCell, ParquetTable
from fgvc.data.image_formats import READABLE, has_image_suffix
from fgvc.data.index import repeated
from fgvc.store import atomic, disk_errors, hashing, json_cache, temporary_files
from fgvc.store.file_lock import lock
from fgvc.types import Progress, UserError
from fgvc.untrusted.file_format import kind_of

CACHE_FOLDER, STATES_FILE = "tables", "files.json"
UNPACKED = "unpacked again"
MAX_NAME = 50  # characters of a name: at most 200 of the 255 bytes of a file system
VERSION = 2  # of the folder: raise it when files.json has other columns
# name, SHA256, then as in `file_state.state`: bytes, modification and change time in ns, inode
State = list[str | int]
Notify = Callable[[str], None]


def has_bytes(table: ParquetTable, column: int) -> bool:
    """Whether the first image cell holds bytes; otherwise it only names a file."""
    files = [file for file, count in enumerate(table.counts) if count]
    return not files or next(table.images(column, files[0])).data is not None


def unpack(
    table: ParquetTable, column: int, cache_root: Path, progress: Progress | None, notify: Notify
) -> tuple[Path, list[str], int]:
    """Unpack the images of a column, unless the cache has them.

    Args:
        notify: called with one line on damage in the cache, which is then rebuilt.

    Returns:
        The folder, the path of the image of each row in it, and the bytes of all images.

    Raises:
        UserError: a row without image bytes.
        OSError: the cache cannot be written.
    """
    json_cache.clear_folder(cache_root / CACHE_FOLDER, notify)
    facts = {
        "version": VERSION,
        "column": table.names[column],
        "files": [[file.stem, _sha256(file, cache_root, notify)] for file in table.files],
    }
    key = hashing.sha256_json(facts)[:16]
    folder = cache_root / CACHE_FOLDER / key
    with lock(folder.with_suffix(".lock"), wait=True):
        temporary_files.remove_stale(folder.parent)
        states = _verify_unpacked(folder, notify)
        if states is None:
            with atomic.new_folder(folder, replace=True) as unfinished:
                states = _write_images(table, column, unfinished / "images", progress)
                json_cache.write(unfinished / STATES_FILE, states)
    return folder / "images", [str(name) for name, *_ in states], sum(int(row[2]) for row in states)


def _write_images(
    table: ParquetTable, column: int, folder: Path, progress: Progress | None
) -> list[State]:
    states: list[State] = []
    subfolders = [_safe_name(file.stem) for file in table.files]  # one per Parquet file
    if repeated(subfolders):
        subfolders = [f"{number:03}-{stem}" for number, stem in enumerate(subfolders)]
    for number, subfolder in enumerate([""] if len(subfolders) == 1 else subfolders):
        (folder / subfolder).mkdir(parents=True, exist_ok=True)
        for row, cell in enumerate(table.images(column, number)):
            if not cell.data:
                raise UserError(
                    f"{table.where(len(states))}: column {table.names[column]} holds no image "
                    "bytes; fill them in, or remove the row"
                )
            name = f"{subfolder}/{_file_name(row, cell)}".lstrip("/")
            disk_errors.write_bytes(folder / name, cell.data)
            sha256 = hashing.sha256_bytes(cell.data)
            states.append([name, sha256, *states_of_files.state(str(folder / name))])
            if progress is not None:
                progress(1, "unpacking")
    return states


def _verify_unpacked(folder: Path, notify: Notify) -> list[State] | None:
    """The states of the files in a folder that is complete and unchanged; otherwise None.

    Files whose state changed are hashed, because a copied cache has other times and inodes.
    """
    if not os.path.lexists(folder):
        return None
    states = json_cache.read(folder / STATES_FILE, notify, UNPACKED)
    if states is None:
        if not os.path.lexists(folder / STATES_FILE):
            json_cache.report(folder, f"without {STATES_FILE}", notify, UNPACKED)
        return None
    changed = False
    for row in states:
        name, sha256, *before = row
        file = folder / "images" / name
        now = list(states_of_files.state(str(file)))
        if now == before:
            continue
        with suppress(OSError):
            if hashing.sha256_file(file) == sha256:
                row[2:], changed = now, True
                continue
        json_cache.report(file, "not the image that was unpacked", notify, UNPACKED)
        return None
    if changed:
        json_cache.write(folder / STATES_FILE, states)
    return states


def _file_name(row: int, cell: ImageCell) -> str:
    """Row number and the image's own name, with a suffix by its bytes if it has none."""
    own = _safe_name(re.split(r"[/\\]", cell.path)[-1]) if cell.path else ""
    name = f"{row:06}-{own}" if own else f"{row:06}"
    if has_image_suffix(name):
        return name
    kind = kind_of(cell.data or b"") or ""
    return name + (READABLE[kind][0] if kind in READABLE else "")


def _safe_name(name: str) -> str:
    """A name without control characters, shortened to its last MAX_NAME characters."""
    return re.sub(r"[\x00-\x1f\x7f/\\]", "_", name)[-MAX_NAME:]


def _sha256(file: Path, cache_root: Path, notify: Notify) -> str:
    """SHA256 of a Parquet file, cached with the file's state because files can be large."""
    state = list(states_of_files.state(str(file)))
    name = hashing.sha256_bytes(os.fsencode(file.resolve()))[:16]
    memory_file = cache_root / CACHE_FOLDER / f"{name}.json"
    remembered = json_cache.read(memory_file, notify)
    if remembered is not None and remembered["state"] == state:
        return remembered["sha256"]
    sha256 = hashing.sha256_file(file)
    json_cache.write(memory_file, {"state": state, "sha256": sha256})
    return sha256
