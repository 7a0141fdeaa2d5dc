"""Images inside Parquet files -> files in a folder of the cache, unpacked once.

<cache_root>/tables/<16 hex digits>/images/ holds them, named by file and row. The folder's name
follows from the SHA256 of the Parquet files, so a changed table is unpacked anew. The folder is
renamed when it is complete; files.json beside images/ holds the state of each file, and a folder
that differs from it is unpacked again.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from fgvc import untrusted
from fgvc.data.formats import HEAD, READABLE, has_picture_suffix, kind_of
from fgvc.data.index import repeated
from fgvc.data.table.parquet import ParquetTable, Picture
from fgvc.store import atomic, digest
from fgvc.store.lock import lock
from fgvc.types import Progress, UserError

FOLDER = "tables"
LONGEST = 50  # characters of a name that are kept: at most 200 bytes of the 255 of a file system
State = list[str | int]  # name, bytes, time of modification in ns


def has_bytes(table: ParquetTable, place: int) -> bool:
    """Whether the first image cell holds bytes; otherwise it only names a file."""
    for file, count in enumerate(table.counts):
        if count:
            return next(table.pictures(place, file)).data is not None
    return True


def unpack(
    table: ParquetTable, place: int, cache_root: Path, progress: Progress | None
) -> tuple[Path, list[str], int]:
    """Unpack the images of a column, unless the cache has them.

    Returns:
        The folder, per row the path of its image in it, and bytes of all images.

    Raises:
        UserError: a row without image bytes.
        OSError: the cache cannot be written.
    """
    key = _key(table, place, cache_root)
    folder = cache_root / FOLDER / key
    with lock(folder.with_suffix(".lock"), wait=True):
        states = _unpacked(folder)
        if states is None:
            states = _unpack(table, place, folder, progress)
    return folder / "images", [str(name) for name, *_ in states], sum(int(row[1]) for row in states)


def _unpack(
    table: ParquetTable, place: int, folder: Path, progress: Progress | None
) -> list[State]:
    """Write every image and the states of the files, then rename the folder."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that died: we hold the lock
    try:
        states = _write_images(table, place, temporary / "images", progress)
        sealed = {"sha256": digest.sha256_bytes(digest.canonical_json(states)), "files": states}
        atomic.write_json(temporary / "files.json", sealed)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
        atomic.sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
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
            name = "/".join(filter(None, (subfolder, _name(row, picture))))
            (folder / name).write_bytes(picture.data)
            states.append([name, *_state(folder / name)])
            if progress is not None:
                progress(1, "unpacking")
    return states


def _unpacked(folder: Path) -> list[State] | None:
    """The states of the files in a folder that is whole and as it was written; otherwise None."""
    try:
        sealed = untrusted.read_json(folder / "files.json", untrusted.LIST)
        states = sealed["files"]
        if sealed["sha256"] != digest.sha256_bytes(digest.canonical_json(states)):
            return None
        root = folder / "images"
        if any(list(_state(root / name)) != state for name, *state in states):
            return None
        return states
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _state(path: Path) -> tuple[int, int]:
    """Bytes, and time of modification in ns: an edited image is noticed without reading it."""
    state = os.stat(path)  # noqa: PTH116 - as in manifest.py
    return state.st_size, state.st_mtime_ns


def _subfolders(table: ParquetTable) -> list[str]:
    """A subfolder per Parquet file, named like it; none where there is a single file."""
    if len(table.files) == 1:
        return [""]
    stems = [_safe(file.stem) for file in table.files]
    if repeated(stems):
        stems = [f"{place:03}-{stem}" for place, stem in enumerate(stems)]
    return stems


def _name(row: int, picture: Picture) -> str:
    """Row number, the image's own name, and a suffix by its bytes where it has none."""
    own = _safe(re.split(r"[/\\]", picture.path)[-1]) if picture.path else ""
    name = f"{row:06}-{own}" if own else f"{row:06}"
    if has_picture_suffix(name):
        return name
    kind = kind_of((picture.data or b"")[:HEAD])
    return name + (READABLE[kind][0] if kind and kind in READABLE else "")


def _safe(name: str) -> str:
    """A name without control characters, its end kept where it is too long."""
    return re.sub(r"[\x00-\x1f\x7f/\\]", "_", name)[-LONGEST:]


def _key(table: ParquetTable, place: int, cache_root: Path) -> str:
    facts = {
        "version": 1,
        "column": table.names[place],
        "files": [[file.stem, _sha256(file, cache_root)] for file in table.files],
    }
    return digest.sha256_bytes(digest.canonical_json(facts))[:16]


def _sha256(file: Path, cache_root: Path) -> str:
    """SHA256 of a Parquet file, remembered with the file's state: it may have gigabytes."""
    stat = file.stat()
    state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
    name = digest.sha256_bytes(os.fsencode(file.resolve()))[:16]
    memory = cache_root / FOLDER / f"{name}.json"
    try:
        known = untrusted.read_json(memory)
        if known["state"] == state and re.fullmatch("[0-9a-f]{64}", known["sha256"]):
            return known["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    sha256 = digest.sha256_file(file)
    atomic.write_json(memory, {"state": state, "sha256": sha256})
    return sha256
