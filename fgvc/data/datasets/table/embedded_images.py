"""Images inside Parquet files -> files in a folder of the cache, unpacked once.

<cache_root>/tables/<16 hex digits>/images/ holds them, named by file and row. The folder's name
follows from the SHA256 of the Parquet files, so a changed table is unpacked anew. The folder is
renamed when it is complete; files.json beside images/ holds the digest and the state of each file,
and a folder that differs from it is unpacked again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from fgvc.data import file_state as states_of_files
from fgvc.data.datasets.table.parquet_file import ImageCell, ParquetTable
from fgvc.data.image_formats import HEAD_BYTES, READABLE, has_image_suffix, kind_of
from fgvc.data.index import repeated
from fgvc.store import atomic, disk_errors, hashing, json_cache, temporary_files
from fgvc.store.file_lock import lock
from fgvc.types import Progress, UserError

CACHE_FOLDER, STATES_FILE = "tables", "files.json"
UNPACKED = "unpacked again"
MAX_NAME = 50  # characters of a name that are kept: at most 200 bytes of the 255 of a file system
VERSION = 2  # of the folder: raise it when files.json has other columns
# name, SHA256, then as in `states.state`: bytes, times of modification and change in ns, inode
State = list[str | int]
OnNote = Callable[[str], None]


def has_bytes(table: ParquetTable, place: int) -> bool:
    """Whether the first image cell holds bytes; otherwise it only names a file."""
    for file, count in enumerate(table.counts):
        if count:
            return next(table.pictures(place, file)).data is not None
    return True


def unpack(
    table: ParquetTable,
    place: int,
    cache_root: Path,
    progress: Progress | None,
    on_note: OnNote,
) -> tuple[Path, list[str], int]:
    """Unpack the images of a column, unless the cache has them.

    Args:
        on_note: called with one line on damage in the cache, which is made anew.

    Returns:
        The folder, per row the path of its image in it, and bytes of all images.

    Raises:
        UserError: a row without image bytes.
        OSError: the cache cannot be written.
    """
    json_cache.clear_folder(cache_root / CACHE_FOLDER, on_note)
    key = _folder_key(table, place, cache_root, on_note)
    folder = cache_root / CACHE_FOLDER / key
    with lock(folder.with_suffix(".lock"), wait=True):
        temporary_files.remove_stale(folder.parent)
        states = _verify_unpacked(folder, on_note)
        if states is None:
            states = _unpack(table, place, folder, progress)
    return folder / "images", [str(name) for name, *_ in states], sum(int(row[2]) for row in states)


def _unpack(
    table: ParquetTable, place: int, folder: Path, progress: Progress | None
) -> list[State]:
    """Write every image and the states of the files, then rename the folder."""
    with atomic.new_folder(folder, replace=True) as unfinished:
        states = _write_images(table, place, unfinished / "images", progress)
        json_cache.write(unfinished / STATES_FILE, states)
    return states


def _write_images(
    table: ParquetTable, place: int, folder: Path, progress: Progress | None
) -> list[State]:
    """Write the images; returns the state of each, row by row."""
    states: list[State] = []
    for number, subfolder in enumerate(_subfolders(table)):
        (folder / subfolder).mkdir(parents=True, exist_ok=True)
        for row, picture in enumerate(table.pictures(place, number)):
            if not picture.data:
                raise UserError(
                    f"{table.where(len(states))}: column {table.names[place]} holds no image "
                    "bytes; fill them in, or remove the row"
                )
            name = "/".join(filter(None, (subfolder, _file_name(row, picture))))
            disk_errors.write_bytes(folder / name, picture.data)
            sha256 = hashing.sha256_bytes(picture.data)
            states.append([name, sha256, *states_of_files.state(str(folder / name))])
            if progress is not None:
                progress(1, "unpacking")
    return states


def _verify_unpacked(folder: Path, on_note: OnNote) -> list[State] | None:
    """The states of the files in a folder that is whole and as it was written; otherwise None.

    A file whose state changed is hashed: a copied cache has other times and inodes.
    """
    if not os.path.lexists(folder):
        return None
    states = json_cache.read(folder / STATES_FILE, on_note, UNPACKED)
    if states is None:
        if not os.path.lexists(folder / STATES_FILE):
            json_cache.report(folder, f"without {STATES_FILE}", on_note, UNPACKED)
        return None
    changed = 0
    for row in states:
        name, sha256, *before = row
        file = folder / "images" / name
        now = list(states_of_files.state(str(file)))
        if now == before:
            continue
        if not _has_digest(file, sha256):
            json_cache.report(file, "not the image that was unpacked", on_note, UNPACKED)
            return None
        row[2:], changed = now, changed + 1
    if changed:
        json_cache.write(folder / STATES_FILE, states)
    return states


def _has_digest(file: Path, sha256: str) -> bool:
    try:
        return hashing.sha256_file(file) == sha256
    except OSError:
        return False


def _subfolders(table: ParquetTable) -> list[str]:
    """A subfolder per Parquet file, named like it; none where there is a single file."""
    if len(table.files) == 1:
        return [""]
    stems = [_safe_name(file.stem) for file in table.files]
    if repeated(stems):
        stems = [f"{place:03}-{stem}" for place, stem in enumerate(stems)]
    return stems


def _file_name(row: int, picture: ImageCell) -> str:
    """Row number, the image's own name, and a suffix by its bytes where it has none."""
    own = _safe_name(re.split(r"[/\\]", picture.path)[-1]) if picture.path else ""
    name = f"{row:06}-{own}" if own else f"{row:06}"
    if has_image_suffix(name):
        return name
    kind = kind_of((picture.data or b"")[:HEAD_BYTES])
    return name + (READABLE[kind][0] if kind and kind in READABLE else "")


def _safe_name(name: str) -> str:
    """A name without control characters, its end kept where it is too long."""
    return re.sub(r"[\x00-\x1f\x7f/\\]", "_", name)[-MAX_NAME:]


def _folder_key(table: ParquetTable, place: int, cache_root: Path, on_note: OnNote) -> str:
    facts = {
        "version": VERSION,
        "column": table.names[place],
        "files": [[file.stem, _sha256(file, cache_root, on_note)] for file in table.files],
    }
    return hashing.sha256_bytes(hashing.canonical_json(facts))[:16]


def _sha256(file: Path, cache_root: Path, on_note: OnNote) -> str:
    """SHA256 of a Parquet file, remembered with the file's state: it may have gigabytes."""
    stat = file.stat()
    state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
    name = hashing.sha256_bytes(os.fsencode(file.resolve()))[:16]
    memory = cache_root / CACHE_FOLDER / f"{name}.json"
    known = json_cache.read(memory, on_note)
    if known is not None and known["state"] == state:
        return known["sha256"]
    sha256 = hashing.sha256_file(file)
    json_cache.write(memory, {"state": state, "sha256": sha256})
    return sha256
