"""The value of image= -> the files and folders that it names, checked before any work starts.

A file, a folder, a pattern (*, ?, **), a list of these, or - for standard input. A name that exists
is taken literally, even with a * in it.
"""

from __future__ import annotations

import glob
import itertools
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fgvc.config.errors import ConfigError
from fgvc.untrusted.shell import setting, word

STDIN = "-"
_ALIASES = ("/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://|data:")
_CURL = "download it first, or pass it on: curl -sSL -- {word} | … image=-"
_FETCH = {  # scheme of a URL -> what to do
    None: "save the image as a file",  # data:
    "file": "give the path: {path}",
    **dict.fromkeys(("http", "https", "ftp"), _CURL),
    "s3": "download it first: aws s3 cp {word} .",
    "gs": "download it first: gcloud storage cp {word} .",
    "hf": "download it first: hf download",
}
_SPECIAL_KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFSOCK: "a socket"}


@dataclass(frozen=True)
class ImageSource:
    """The files of one name. text: as typed. root: paths in predictions are relative to it.

    paths: the file or folder itself, or the sorted matches of a pattern. pattern: whether the name
    is a pattern.
    """

    text: str
    root: Path
    paths: tuple[Path, ...]
    pattern: bool = False


def reads_stdin(image: object) -> bool:
    """Whether the image comes through standard input.

    Raises:
        ConfigError: standard input together with other images.
    """
    names = _names(image)
    if not any(name == STDIN or name in _ALIASES for name in names):
        return False
    if len(names) > 1:
        raise ConfigError("image=-: standard input holds one image; give it alone")
    return True


def find_sources(image: object) -> list[ImageSource]:
    """The files of every name in `image`.

    Raises:
        ConfigError: a name that does not exist, is no file or folder, or is a URL; no name.
    """
    return [_find_source(text) for text in _names(image)]


def refuse_address(text: str) -> None:
    """Refuse a URL.

    Raises:
        ConfigError: states how to fetch the image.
    """
    if url := _ADDRESS.match(text):
        way = _FETCH.get(url[1], "download it first: as a file")
        path = setting("image", text.removeprefix("file://"))
        way = way.format(word=word(text), path=path)
        raise ConfigError(f"image={text}: an address, which is not read; {way}")


def _names(image: object) -> Sequence[str]:
    items = image if isinstance(image, list | tuple) else [image]
    for item in items:
        if item is None or isinstance(item, list | dict):
            raise ConfigError(
                f"image={image}: expected a file, a folder or a pattern, or a list of them: "
                "image=[a.jpg,b.jpg]"
            )
    if not items:
        raise ConfigError("image=[]: name at least one file, folder or pattern")
    if not all(str(item).strip() for item in items):  # for example, an unset shell variable
        raise ConfigError("image=: an empty name; the current folder is image=.")
    return [str(item) for item in items]


def _find_source(text: str) -> ImageSource:
    path = Path(os.path.expanduser(text))  # noqa: PTH111 - a file name may begin with ~
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # missing, or not a valid name
        return _match_pattern(text)
    if stat.S_ISDIR(mode):
        return ImageSource(text, path, (path,))
    if not stat.S_ISREG(mode):
        kind = _SPECIAL_KINDS.get(stat.S_IFMT(mode), "a special file")
        raise ConfigError(
            f"image={text}: {kind}, not a file; pass the image through standard input: image=- "
            f"< {word(text)}"
        )
    return ImageSource(text, path.parent, (path,))


def _match_pattern(text: str) -> ImageSource:
    """The matches of a pattern; ConfigError: no matches, not a pattern, or a URL."""
    refuse_address(text)
    pattern = os.path.expanduser(text)  # noqa: PTH111 - a pattern is no path
    if not glob.has_magic(pattern):
        raise ConfigError(f"image={text}: no such file or folder{_list_hint(text)}")
    _refuse_unreadable_folders(text, Path(pattern))
    paths = tuple(Path(name) for name in sorted(glob.glob(pattern, recursive=True)))  # noqa: PTH207
    if not paths:
        raise ConfigError(
            f"image={text}: no such file or folder, and as a pattern it matches none"
            + (_list_hint(text) or "; * matches any part of a name, ** any folders")
        )
    root = itertools.takewhile(lambda part: not glob.has_magic(part), Path(pattern).parts[:-1])
    return ImageSource(text, Path(*root), paths, pattern=True)


def _refuse_unreadable_folders(text: str, pattern: Path) -> None:
    """Refuse a pattern with a folder that cannot be listed: `glob` would treat it as empty."""
    parts = pattern.parts
    first = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    for end in range(first, len(parts)):
        for folder in glob.glob(str(Path(*parts[:end])), recursive=True):  # noqa: PTH207
            try:
                if os.path.isdir(folder):  # noqa: PTH112 - may be no valid path
                    os.scandir(folder).close()
            except OSError as error:
                raise ConfigError(
                    f"image={text}: {folder} cannot be listed ({error.strerror}); allow it to be "
                    "read, or name other folders"
                ) from None


def _list_hint(text: str) -> str:
    """A hint for several files in one text: the list that Hydra reads."""
    inside = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    pieces = [piece.strip().strip("\"'") for piece in inside.split(",")]
    if (inside == text and len(pieces) < 2) or not all(map(os.path.exists, pieces)):
        return ""
    return f"; several are a list: {setting('image', pieces)}"
