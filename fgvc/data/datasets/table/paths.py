"""Path cells of a table -> paths below the root, as the disk writes them. N rows.

Each folder is listed once: a table may have 675,000 rows, and a disk may be far away.
"""

from __future__ import annotations

import errno
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from fgvc.data.find_root import list_error, safe_relative, walk
from fgvc.data.image_formats import has_image_suffix, is_system_file
from fgvc.data.index import list_first
from fgvc.types import UserError
from fgvc.untrusted.shell import setting

URL = re.compile(r"([a-z][a-z0-9+.-]+://|data:)", re.IGNORECASE)
WINDOWS_PATH = re.compile(r"[A-Za-z]:[\\/]|\\\\")
MAX_DEPTH = 3  # of folders below the root that are searched for scattered names
MAX_SHOWN = 200  # characters of a cell in a message


@dataclass
class _FolderNames:
    """The names in a folder, and the names by stem and by lower case; made when first needed."""

    names: frozenset[str]
    by_stem: dict[str, list[str]] = field(default_factory=dict)
    by_case: dict[str, list[str]] = field(default_factory=dict)

    def index(self) -> None:
        if not self.by_case:
            for name in sorted(self.names):
                self.by_case.setdefault(name.casefold(), []).append(name)
                if has_image_suffix(name):
                    stem = os.path.splitext(name)[0]  # noqa: PTH122
                    self.by_stem.setdefault(stem, []).append(name)


class Disk:
    """Folders below a root, each listed once, and how many paths were read in another way."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folders: dict[str, _FolderNames | None] = {}
        self.changes: Counter[str] = Counter()

    def find(self, path: str) -> str | None:
        """The path as the disk writes it; None where there is no such file.

        Raises:
            UserError: several files match a name without suffix.
        """
        folder, _, name = path.rpartition("/")
        known = self._folder(folder)
        if known is None:
            place = next((form for form in _unicode_forms(folder) if self._folder(form)), None)
            if place is None:
                return None
            folder, known = place, self._folder(place)
            assert known is not None
        name = next((form for form in (name, *_unicode_forms(name)) if form in known.names), name)
        if name not in known.names:
            known.index()
            name = self._by_stem(known, folder, name) or self._by_case(known, name) or ""
        return f"{folder}/{name}".lstrip("/") if name else None

    def _by_stem(self, known: _FolderNames, folder: str, name: str) -> str | None:
        if has_image_suffix(name) or not (fitting := known.by_stem.get(name)):
            return None
        if len(fitting) > 1:
            raise UserError(
                f"{self.root / folder}: {list_first(fitting)} could each be {name!r}; write the suffix"
            )
        self.changes["have no suffix in the table: the single file of that name is read"] += 1
        return fitting[0]

    def _by_case(self, known: _FolderNames, name: str) -> str | None:
        fitting = known.by_case.get(name.casefold(), [])
        if len(fitting) != 1:
            return None
        self.changes["differ from the disk in upper and lower case: the disk's name is read"] += 1
        return fitting[0]

    def _folder(self, folder: str) -> _FolderNames | None:
        if folder not in self.folders:
            try:
                names = os.listdir(self.root / folder)  # noqa: PTH208 - names, not Path objects
            except (FileNotFoundError, NotADirectoryError):
                self.folders[folder] = None
            except OSError as error:
                if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
                    raise list_error(error) from None
                self.folders[folder] = None  # no such folder can be there
            else:
                self.folders[folder] = _FolderNames(frozenset(names))
        return self.folders[folder]


def is_image_path(cell: str) -> bool:
    """Whether a cell reads like a picture's path rather than like an id, a name or an address."""
    return has_image_suffix(cell) and not URL.match(cell)


def resolve(
    table: Path,
    root: Path,
    cells: Sequence[str],
    where: Callable[[int], str],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Resolve the path of every row.

    Args:
        table: the file that the paths come from.
        root: what relative paths are relative to.
        cells: the path of each row, as the table writes it.
        where: names a row, for a message.

    Returns:
        Paths relative to root, and notes on paths that are read in another way than written. A
        path that names no file stays as it is written: the manifest names missing files.

    Raises:
        UserError: an address, a path outside the root, or a table whose files are all missing.
    """
    disk, files_there = Disk(root), 0
    paths = []
    for row, cell in enumerate(cells):
        path = _relative_path(disk, table, cell, row, where, cells)
        try:
            on_disk = disk.find(path) or _find_decoded(disk, path)
        except UserError as error:
            raise UserError(f"{where(row)}: {error}") from None
        files_there += on_disk is not None
        paths.append(path if on_disk is None else on_disk)
    if not files_there:
        scattered = _find_scattered(root, paths)
        if scattered is None:
            raise _all_missing_error(table, root, paths, where)
        paths = scattered
        what = "are found by file name alone, each in one folder below dataset.root"
        disk.changes[what] = len(paths)
    notes = tuple(
        f"{table.name}: {n} of {len(cells)} paths {what}" for what, n in disk.changes.items()
    )
    return tuple(paths), notes


def _find_scattered(root: Path, paths: Sequence[str]) -> list[str] | None:
    """Where names without folders lie, if in several folders below the root, as archives in parts.

    Returns:
        None unless each name, with or without its suffix, is that of a single picture.
    """
    if any("/" in path for path in paths):
        return None
    places: dict[str, list[str]] = {}
    for folder, folders, names in walk(root):
        below = Path(folder).relative_to(root)
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        if len(below.parts) == MAX_DEPTH:
            folders.clear()
        for name in names:
            if has_image_suffix(name) and not is_system_file(name):
                for key in {name, os.path.splitext(name)[0]}:  # noqa: PTH122
                    places.setdefault(key, []).append((below / name).as_posix())
    matches = [places.get(path, []) for path in paths]
    if any(len(files) != 1 for files in matches):
        return None
    single = [files[0] for files in matches]
    # all in one folder: that is the root to set
    return single if len({os.path.dirname(path) for path in single}) > 1 else None  # noqa: PTH120


def _find_decoded(disk: Disk, path: str) -> str | None:
    """The file of a path written as in an address (a%20b.jpg), where none is called so."""
    decoded = safe_relative(unquote(path)) if "%" in path else None
    on_disk = None if decoded is None else disk.find(decoded)
    if on_disk is not None:
        disk.changes["are written as in addresses (%20): read as the characters they mean"] += 1
    return on_disk


def _relative_path(
    disk: Disk,
    table: Path,
    cell: str,
    row: int,
    where: Callable[[int], str],
    cells: Sequence[str],
) -> str:
    """A cell as a path relative to the root, by its text alone if it can be."""
    if "\0" in cell or not _is_text(cell):
        raise UserError(
            f"{where(row)}: {_shorten(cell)} is no path: NUL, or no Unicode text; correct it"
        )
    if URL.match(cell):
        raise UserError(
            f"{where(row)}: {_shorten(cell)} is an address, not a file; download the images first, "
            "and write their paths into the table"
        )
    if "\\" in cell and (
        safe_relative(cell) is None or disk.find(safe_relative(cell) or "") is None
    ):
        if WINDOWS_PATH.match(cell):
            raise UserError(
                f"{where(row)}: {_shorten(cell)} is an absolute path of Windows; "
                "write paths relative to dataset.root"
            )
        cell = cell.replace("\\", "/")
        disk.changes["are written with backslashes: read as slashes"] += 1
    if cell.startswith("~/"):
        cell = os.path.expanduser(cell)  # noqa: PTH111
    if (plain := safe_relative(cell)) is not None:
        return plain
    if below := _relative_to_root(disk.root, cell):
        return below
    # ../images/1.jpg is meant from the table's folder
    beside = None if cell.startswith("/") else os.path.join(table.parent.absolute(), cell)  # noqa: PTH118
    if beside is not None and (below := _relative_to_root(disk.root, beside)):
        return below
    raise _outside_error(disk.root, table, cell, where(row), cells)


def _relative_to_root(root: Path, path: str) -> str | None:
    """An absolute path, or one relative to the root with `..` in it, as relative to the root."""
    for base in dict.fromkeys((str(root.absolute()), str(root.resolve()))):
        prefix = base if base.endswith("/") else f"{base}/"
        whole = os.path.normpath(os.path.join(base, path))  # noqa: PTH118
        if whole.startswith("//"):
            whole = whole[1:]
        if whole.startswith(prefix):
            return safe_relative(whole.removeprefix(prefix))
    return None


def _outside_error(
    root: Path, table: Path, cell: str, where: str, cells: Sequence[str]
) -> UserError:
    """A path that is not below the root: name the folder that all paths are below."""
    base = table.parent.absolute()
    whole = [os.path.normpath(base / cell) for cell in cells if not URL.match(cell)]
    common = os.path.commonpath(map(os.path.dirname, whole))
    way_out = f"set {setting('dataset.root', common)}"
    if cell.startswith("/") and os.path.exists(f"{root}{cell}"):  # noqa: PTH110
        way_out = f"remove the slash at its start: {root}{cell} exists"
    elif any(safe_relative(other) is not None for other in cells):
        way_out = "other rows are below it: write all paths relative to dataset.root"
    elif not os.path.exists(os.path.normpath(base / cell)):  # noqa: PTH110
        way_out = "no such file either: write paths relative to dataset.root"
    return UserError(f"{where}: {_shorten(cell)} is not below dataset.root={root}; {way_out}")


def _all_missing_error(
    table: Path, root: Path, paths: Sequence[str], where: Callable[[int], str]
) -> UserError:
    """No file of the table exists: say where they were looked for, and where the first one is."""
    near = [table.parent, root.parent, table.parent.parent]
    near += sorted(path for path in root.iterdir() if path.is_dir())
    near += sorted(path for path in table.parent.iterdir() if path.is_dir())
    way_out = "set dataset.root= to the folder that the paths are relative to"
    for folder in dict.fromkeys(near):
        try:
            if folder != root and Disk(folder).find(paths[0]) is not None:
                way_out = f"set {setting('dataset.root', folder)}, where it is"
                break
        except UserError:
            continue
    return UserError(
        f"{where(0)}: no file {root / paths[0]}, nor that of any other row of {len(paths)}; "
        f"{way_out}"
    )


def _is_text(cell: str) -> bool:
    """Whether a cell can be written as UTF-8: half a surrogate pair cannot."""
    try:
        return cell.isascii() or bool(cell.encode())
    except UnicodeEncodeError:
        return False


def _unicode_forms(text: str) -> Iterable[str]:
    """Both compositions of accents: a table and a copy may differ in them."""
    if text.isascii():
        return ()
    return (unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text))


def _shorten(cell: str) -> str:
    return repr(cell if len(cell) <= MAX_SHOWN else f"{cell[:MAX_SHOWN]}…")
