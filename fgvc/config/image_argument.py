"""The value of image= -> the files and folders that it names, checked before any work starts.

A file, a folder, a pattern of names (*, ?, **), a list of these, or - for standard input. A name
that exists is taken literally, with * in it too.
"""

from __future__ import annotations

import glob
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
_FETCH_COMMANDS = {  # of addresses that curl does not read
    "s3": "aws s3 cp {} .",
    "gs": "gcloud storage cp {} .",
    "hf": "hf download",
}
_SPECIAL_KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFSOCK: "a socket"}


@dataclass(frozen=True)
class ImageSource:
    """What one name means. text: as given. root: paths of answers are relative to it.

    paths: the file or folder itself, or what matches a pattern, sorted. pattern: whether it is one.
    """

    text: str
    root: Path
    paths: tuple[Path, ...]
    pattern: bool = False


def reads_stdin(image: object) -> bool:
    """Whether the picture comes through standard input.

    Raises:
        ConfigError: beside other pictures.
    """
    texts = _names(image)
    if not any(text == STDIN or text in _ALIASES for text in texts):
        return False
    if len(texts) > 1:
        raise ConfigError("image=-: standard input holds one picture; give it alone")
    return True


def find_sources(image: object) -> list[ImageSource]:
    """Every name of `image`, found.

    Raises:
        ConfigError: a name that is not there, is no file or folder, or is an address; no name.
    """
    return [_find_source(text) for text in _names(image)]


def check(image: object) -> None:
    """Refuse what `places` refuses; standard input is not read."""
    if not reads_stdin(image):
        find_sources(image)


def refuse_address(text: str) -> None:
    """Refuse an address, whether or not Hydra can read it.

    Raises:
        ConfigError: names how to fetch the picture.
    """
    if found := _ADDRESS.match(text):
        raise ConfigError(
            f"image={text}: an address, which is not read; {_how_to_fetch(text, found[1])}"
        )


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
    if not all(str(item).strip() for item in items):  # an unset variable of the shell, say
        raise ConfigError("image=: an empty name; of the current folder it is image=.")
    return [str(item) for item in items]


def _find_source(text: str) -> ImageSource:
    path = Path(os.path.expanduser(text))  # noqa: PTH111 - a name may begin with ~ and be no user's
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # not there, or no name at all
        return _match_pattern(text)
    if stat.S_ISDIR(mode):
        return ImageSource(text, path, (path,))
    if not stat.S_ISREG(mode):
        kind = _SPECIAL_KINDS.get(stat.S_IFMT(mode), "a special file")
        raise ConfigError(
            f"image={text}: {kind}, not a file; pass the picture through standard input: image=- "
            f"< {word(text)}"
        )
    return ImageSource(text, path.parent, (path,))


def _match_pattern(text: str) -> ImageSource:
    """A pattern.

    Raises:
        ConfigError: it matches nothing, or the text is an address or no pattern.
    """
    refuse_address(text)
    whole = os.path.expanduser(text)  # noqa: PTH111 - a pattern is no path
    if not glob.has_magic(whole):
        raise ConfigError(f"image={text}: no such file or folder{_list_hint(text)}")
    _refuse_unreadable_folders(text, Path(whole))
    paths = tuple(Path(name) for name in sorted(glob.glob(whole, recursive=True)))  # noqa: PTH207
    if not paths:
        raise ConfigError(
            f"image={text}: no such file or folder, and as a pattern it matches none"
            + (_list_hint(text) or "; * stands for any part of a name, ** for any folders")
        )
    fixed = []
    for part in Path(whole).parts[:-1]:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return ImageSource(text, Path(*fixed), paths, pattern=True)


def _refuse_unreadable_folders(text: str, pattern: Path) -> None:
    """Refuse a pattern with a folder that cannot be listed: `glob` treats it as empty."""
    parts = pattern.parts
    first = next(place for place, part in enumerate(parts) if glob.has_magic(part))
    for until in range(first, len(parts)):
        for folder in glob.glob(str(Path(*parts[:until])), recursive=True):  # noqa: PTH207
            try:
                if os.path.isdir(folder):  # noqa: PTH112 - may be no path at all
                    os.scandir(folder).close()
            except OSError as error:
                raise ConfigError(
                    f"image={text}: {folder} cannot be listed ({error.strerror}); allow it to be "
                    "read, or name other folders"
                ) from None


def _how_to_fetch(text: str, scheme: str | None) -> str:
    if scheme == "file":
        return f"give the path: {setting('image', text.removeprefix('file://'))}"
    if scheme is None:
        return "save the picture as a file"
    if scheme in ("http", "https", "ftp"):
        return f"download it first, or pass it on: curl -sSL -- {word(text)} | … image=-"
    return f"download it first: {_FETCH_COMMANDS.get(scheme, 'as a file').format(word(text))}"


def _list_hint(text: str) -> str:
    """Several files in one text, as the list that Hydra reads."""
    inside = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    pieces = [piece.strip().strip("\"'") for piece in inside.split(",")]
    if (inside == text and len(pieces) < 2) or not all(map(os.path.exists, pieces)):
        return ""
    return f"; several are a list: {setting('image', pieces)}"
