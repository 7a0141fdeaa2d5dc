"""Path cells of a table -> paths below the root, as they are on disk. N rows.

Each folder is listed once, because a table may have 675,000 rows and be on a network disk.
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
MAX_DEPTH = 3  # levels below the root that are searched for scattered names
# errors of a path at which no folder can be
NO_FOLDER = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
MAX_SHOWN = 200  # characters of a cell in a message


@dataclass
class _FolderNames:
    """The names in a folder; by stem and in lower case after `index`."""

    names: frozenset[str]
    by_stem: dict[str, list[str]] = field(default_factory=dict)
    by_case: dict[str, list[str]] = field(default_factory=dict)

    def index(self) -> None:
        for name in () if self.by_case else sorted(self.names):
            self.by_case.setdefault(name.casefold(), []).append(name)
            if has_image_suffix(name):
                stem = os.path.splitext(name)[0]  # noqa: PTH122
                self.by_stem.setdefault(stem, []).append(name)


class Disk:
    """Folders below a root, each listed once. changes: number of paths per kind of change."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folders: dict[str, _FolderNames | None] = {}
        self.changes: Counter[str] = Counter()

    def find(self, path: str) -> str | None:
        """The path as it is on disk, None without a file; UserError: several files of a name."""
        folder, _, name = path.rpartition("/")
        folder = next((form for form in _unicode_forms(folder) if self._folder(form)), folder)
        folder_names = self._folder(folder)
        if folder_names is None:
            return None
        name = next((form for form in _unicode_forms(name) if form in folder_names.names), name)
        if name not in folder_names.names:
            folder_names.index()
            name = self._similar_name(folder_names, folder, name) or ""
        return f"{folder}/{name}".lstrip("/") if name else None

    def _similar_name(self, folder_names: _FolderNames, folder: str, name: str) -> str | None:
        """The file that a name without suffix, or in another case, means; None if there is none."""
        matches = [] if has_image_suffix(name) else folder_names.by_stem.get(name, [])
        if len(matches) > 1:
            raise UserError(
                f"{self.root / folder}: {list_first(matches)} could each be {name!r}; "
                "add the suffix"
            )
        change = "have no suffix in the table: the single file of that name is read"
        if not matches:
            matches = folder_names.by_case.get(name.casefold(), [])
            change = "differ from the disk in upper and lower case: the disk's name is read"
        if len(matches) != 1:
            return None
        self.changes[change] += 1
        return matches[0]

    def _folder(self, folder: str) -> _FolderNames | None:
        if folder not in self.folders:
            self.folders[folder] = None
            try:
                names = os.listdir(self.root / folder)  # noqa: PTH208 - names, not Path objects
                self.folders[folder] = _FolderNames(frozenset(names))
            except OSError as error:
                if error.errno not in NO_FOLDER:
                    raise list_error(error) from None
        return self.folders[folder]


def is_image_path(cell: str) -> bool:
    """Whether a cell looks like the path of an image rather than an id, a name or a URL."""
    return has_image_suffix(cell) and not URL.match(cell)


def resolve(
    table: Path, root: Path, cells: Sequence[str], where: Callable[[int], str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Resolve the path of every row.

    Args:
        table: the file that the paths come from.
        root: what relative paths are relative to.
        cells: the path of each row, as the table writes it.
        where: the name of a row, for a message.

    Returns:
        Paths relative to root, and notes on changed paths. A path without a file stays as written:
        the manifest names missing files.

    Raises:
        UserError: a URL, a path outside the root, or a table whose files are all missing.
    """
    disk, found_count, paths = Disk(root), 0, []
    for row, cell in enumerate(cells):
        try:
            path = _relative_path(disk, table, cell, cells)
            on_disk = disk.find(path)
            if on_disk is None and "%" in path and (decoded := safe_relative(unquote(path))):
                on_disk = disk.find(decoded)  # as in a URL: a%20b.jpg
                if on_disk is not None:
                    what = "are written as in addresses (%20): read as the characters they mean"
                    disk.changes[what] += 1
        except UserError as error:
            raise UserError(f"{where(row)}: {error}") from None
        found_count += on_disk is not None
        paths.append(path if on_disk is None else on_disk)
    if not found_count:
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
    """Find names without folders in several folders below the root, such as the parts of archives.

    Returns:
        None unless each name, with or without suffix, is the name of exactly one image.
    """
    if any("/" in path for path in paths):
        return None
    paths_of_name: dict[str, list[str]] = {}
    for folder, folders, names in walk(root):
        below = Path(folder).relative_to(root)
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        if len(below.parts) == MAX_DEPTH:
            folders.clear()
        for name in names:
            if has_image_suffix(name) and not is_system_file(name):
                for key in {name, os.path.splitext(name)[0]}:  # noqa: PTH122
                    paths_of_name.setdefault(key, []).append((below / name).as_posix())
    matches = [paths_of_name.get(path, []) for path in paths]
    if any(len(files) != 1 for files in matches):
        return None
    unique_paths = [files[0] for files in matches]
    # if all are in one folder, the user should set it as the root
    return unique_paths if len({os.path.dirname(path) for path in unique_paths}) > 1 else None  # noqa: PTH120


def _relative_path(disk: Disk, table: Path, cell: str, cells: Sequence[str]) -> str:
    """A cell as a path relative to the root; reads the disk only if necessary."""
    shown = _shorten(cell)
    try:
        is_text = "\0" not in cell and (cell.isascii() or bool(cell.encode()))
    except UnicodeEncodeError:  # half a surrogate pair
        is_text = False
    if not is_text:
        raise UserError(f"{shown} is not a path: NUL, or not Unicode text; correct it")
    if URL.match(cell):
        raise UserError(
            f"{shown} is an address, not a file; download the images first, and write their paths "
            "into the table"
        )
    plain = safe_relative(cell)
    if "\\" in cell and (plain is None or disk.find(plain) is None):
        if WINDOWS_PATH.match(cell):
            raise UserError(
                f"{shown} is an absolute path of Windows; write paths relative to dataset.root"
            )
        cell = cell.replace("\\", "/")
        disk.changes["are written with backslashes: read as slashes"] += 1
    if cell.startswith("~/"):
        cell = os.path.expanduser(cell)  # noqa: PTH111
    if (plain := safe_relative(cell)) is not None:
        return plain
    if relative := _relative_to_root(disk.root, cell):
        return relative
    # ../images/1.jpg is relative to the table's folder
    absolute = None if cell.startswith("/") else os.path.join(table.parent.absolute(), cell)  # noqa: PTH118
    if absolute is not None and (relative := _relative_to_root(disk.root, absolute)):
        return relative
    # the message names the common folder of all paths
    root, base = disk.root, table.parent.absolute()
    absolute_paths = [os.path.normpath(base / other) for other in cells if not URL.match(other)]
    common = os.path.commonpath(map(os.path.dirname, absolute_paths))
    way_out = f"set {setting('dataset.root', common)}"
    if cell.startswith("/") and os.path.exists(f"{root}{cell}"):  # noqa: PTH110
        way_out = f"remove the slash at its start: {root}{cell} exists"
    elif any(safe_relative(other) is not None for other in cells):
        way_out = "other rows are below it: write all paths relative to dataset.root"
    elif not os.path.exists(os.path.normpath(base / cell)):  # noqa: PTH110
        way_out = "no such file either: write paths relative to dataset.root"
    raise UserError(f"{_shorten(cell)} is not below dataset.root={root}; {way_out}")


def _relative_to_root(root: Path, path: str) -> str | None:
    """Make an absolute path, or a path with `..`, relative to the root; None if it is outside."""
    for base in (str(root.absolute()), str(root.resolve())):
        whole = os.path.normpath(os.path.join(base, path)).replace("//", "/", 1)  # noqa: PTH118
        prefix = f"{base.rstrip('/')}/"
        if whole.startswith(prefix):
            return safe_relative(whole.removeprefix(prefix))
    return None


def _all_missing_error(
    table: Path, root: Path, paths: Sequence[str], where: Callable[[int], str]
) -> UserError:
    """Error for a table whose files are all missing; suggests a root that has the first file."""
    nearby = [table.parent, root.parent, table.parent.parent]
    nearby += sorted(path for path in root.iterdir() if path.is_dir())
    nearby += sorted(path for path in table.parent.iterdir() if path.is_dir())
    way_out = "set dataset.root= to the folder that the paths are relative to"
    for folder in dict.fromkeys(nearby):
        try:
            if folder != root and Disk(folder).find(paths[0]) is not None:
                way_out = f"set {setting('dataset.root', folder)}, where it is"
                break
        except UserError:
            continue
    return UserError(
        f"{where(0)}: no file {root / paths[0]}, nor the file of any other row of {len(paths)}; "
        f"{way_out}"
    )


def _unicode_forms(text: str) -> Iterable[str]:
    """A text and both its Unicode compositions: a table and a disk may differ in them."""
    if text.isascii():
        return (text,)
    return (text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text))


def _shorten(cell: str) -> str:
    return repr(cell if len(cell) <= MAX_SHOWN else f"{cell[:MAX_SHOWN]}…")
