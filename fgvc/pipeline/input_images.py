"""image= of task=predict and task=export -> the pictures that it names, without labels.

What is passed over in a folder or under a pattern is counted by kind in a note.
"""

from __future__ import annotations

import os
import stat
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from fgvc import untrusted
from fgvc.config import image_argument
from fgvc.config.image_argument import ImageSource
from fgvc.data import image_formats
from fgvc.data.decode_errors import advice
from fgvc.store.disk_errors import open_named
from fgvc.store.temporary_files import scratch
from fgvc.types import Manifest, UserError

Passed = dict[str, list[str]]  # kind -> files of it


@dataclass(frozen=True)
class InputImages:
    """note: what was passed over; empty where nothing was."""

    manifest: Manifest
    note: str = ""


@contextmanager
def find_images(image: object) -> Iterator[InputImages]:
    """The pictures; one that comes through standard input lies in a file as long as it is used.

    Raises:
        UserError: no picture, or a folder that cannot be listed.
    """
    if not image_argument.reads_stdin(image):
        yield list_images(image)
        return
    if sys.stdin.isatty():
        raise UserError("image=-: standard input is a terminal; pipe a picture in: … < bird.jpg")
    with scratch("picture") as folder:
        file = folder / image_argument.STDIN
        with open_named(file) as copy:
            _copy_input(copy)
        if not file.stat().st_size:
            raise UserError("image=-: standard input is empty; pipe one picture in: … < bird.jpg")
        yield InputImages(_manifest(folder, [image_argument.STDIN]))


def _copy_input(copy: IO[bytes]) -> None:
    """Copy standard input; a device in its place has no end.

    Raises:
        UserError: more bytes than a picture may have.
    """
    left = untrusted.PICTURE
    while piece := sys.stdin.buffer.read(untrusted.MIB):
        left -= len(piece)
        if left < 0:
            raise UserError(
                f"image=-: standard input holds more than the {untrusted.PICTURE} bytes that a "
                "picture may have; pipe one picture in: … < bird.jpg"
            )
        copy.write(piece)


def list_images(image: object) -> InputImages:
    """The pictures of files, folders and patterns: each once, in the order of their names.

    A folder is searched with the folders below it, linked ones too; hidden files are passed over.

    Raises:
        UserError: no picture, or a folder that cannot be listed; standard input.
    """
    if image_argument.reads_stdin(image):
        raise UserError("image=-: only task=predict reads standard input; name a file or a folder")
    passed: Passed = defaultdict(list)
    found = [
        (place, sorted(_files(place, passed), key=Path.as_posix))
        for place in image_argument.find_sources(image)
    ]
    if not any(files for _, files in found):
        texts = ", ".join(place.text for place, _ in found)
        raise UserError(
            f"image={texts}: no picture in this folder or below it"
            + (f" (passed over: {_listed(passed)})" if passed else "")
            + f"; read are {', '.join(image_formats.READABLE)}, by suffix "
            f"({', '.join(_suffixes())}) or "
            "else by their first bytes; name another folder, or the file itself"
        )
    root = _root([place.root for place, _ in found])
    if len(found) > 1:
        found = [(place, [Path(os.path.abspath(file)) for file in files]) for place, files in found]  # noqa: PTH100 - links stay
    files = dict.fromkeys(file for _, files in found for file in files)
    note = f"note: passed over: {_listed(passed)}" if passed else ""
    return InputImages(_manifest(root, [file.relative_to(root).as_posix() for file in files]), note)


def _manifest(root: Path, path: list[str]) -> Manifest:
    nothing_N = np.zeros(len(path), np.int64)
    return Manifest(root, tuple(path), nothing_N, nothing_N.astype(np.uint8), ())


def _root(roots: list[Path]) -> Path:
    """The folder that paths are relative to: the only folder given, or the common parent."""
    if len(roots) == 1:
        return roots[0]
    return Path(os.path.commonpath([os.path.abspath(root) for root in roots]))  # noqa: PTH100


def _files(place: ImageSource, passed: Passed) -> Iterator[Path]:
    if not place.pattern and not place.paths[0].is_dir():
        yield place.paths[0]  # named by the user: decoding says what it is
        return
    seen: set[tuple[int, int]] = set()
    for path in place.paths:
        if path.is_dir():
            yield from _below(path, place.text, passed, seen)
        elif _is_picture(path, passed):
            yield path


def _below(folder: Path, text: str, passed: Passed, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """Pictures in a folder and below it; a folder that is linked twice, or in a ring, once."""
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        names = sorted(os.listdir(folder))  # noqa: PTH208
    except OSError as error:
        raise UserError(f"image={text}: {folder} cannot be listed ({error.strerror})") from error
    for name in names:
        path = folder / name
        if name.startswith("."):
            if not image_formats.is_system_file(name):
                passed["hidden"].append(name)
        elif path.is_dir():
            yield from _below(path, text, passed, seen)
        elif _is_picture(path, passed):
            yield path


def _is_picture(path: Path, passed: Passed) -> bool:
    """Whether a file is a picture; one that is not is counted, apart from rubbish."""
    if image_formats.is_system_file(path.name):
        return False
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            passed["pipe, socket or device"].append(path.name)
            return False
        if image_formats.is_image(path):
            return True
        passed[image_formats.describe_kind(path)].append(path.name)
    except OSError as error:
        if image_formats.has_image_suffix(path.name):
            return True  # a broken link, say: it is named among the answers
        passed[f"unreadable ({error.strerror})"].append(path.name)
    return False


def _listed(passed: Mapping[str, list[str]]) -> str:
    """Kinds with their numbers, the first name of each and what to do, the most frequent first."""
    words = []
    for kind, names in sorted(passed.items(), key=lambda item: -len(item[1])):
        to_do = f"; {remedy}" if (remedy := advice(kind)) else ""
        words.append(f"{len(names)} {kind} ({names[0]}{', …' if names[1:] else ''}{to_do})")
    return ", ".join(words)


def _suffixes() -> list[str]:
    return sorted(image_formats.SUFFIXES)
