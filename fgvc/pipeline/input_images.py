"""image= of task=predict and task=export -> a manifest of the images, without labels.

A note counts the files of folders and patterns that are skipped, by kind.
"""

from __future__ import annotations

import os
import stat
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from fgvc import untrusted
from fgvc.config import image_argument
from fgvc.config.image_argument import ImageSource
from fgvc.data import image_formats
from fgvc.data.decode_errors import advice
from fgvc.store.disk_errors import open_named
from fgvc.store.temporary_files import scratch
from fgvc.types import Manifest, UserError

Skipped = dict[str, list[str]]  # kind -> names of skipped files


@contextmanager
def find_images(image: object) -> Iterator[tuple[Manifest, str]]:
    """As `list_images`; an image from standard input is in a temporary file during the block.

    Raises:
        UserError: there is no image or one of too many bytes, or a folder cannot be listed.
    """
    if not image_argument.reads_stdin(image):
        yield list_images(image)
        return
    if sys.stdin.isatty():
        raise UserError("image=-: standard input is a terminal; pipe an image in: … < bird.jpg")
    with scratch("image") as folder:
        file, left = folder / image_argument.STDIN, untrusted.IMAGE
        with open_named(file) as copy:
            while chunk := sys.stdin.buffer.read(untrusted.MIB):
                left -= len(chunk)
                if left < 0:  # a device in its place has no end
                    raise UserError(
                        f"image=-: standard input holds more than the {untrusted.IMAGE} bytes that "
                        "an image may have; pipe one image in: … < bird.jpg"
                    )
                copy.write(chunk)
        if not file.stat().st_size:
            raise UserError("image=-: standard input is empty; pipe one image in: … < bird.jpg")
        yield _manifest(folder, [image_argument.STDIN]), ""


def list_images(image: object) -> tuple[Manifest, str]:
    """The images of files, folders and patterns, without duplicates, sorted by path.

    A folder is searched with its subfolders, linked ones too; hidden files are skipped.

    Returns:
        The images, and a note on skipped files; an empty note if none were skipped.

    Raises:
        UserError: there is no image, a folder cannot be listed, or the argument is standard input.
    """
    if image_argument.reads_stdin(image):
        raise UserError("image=-: only task=predict reads standard input; name a file or a folder")
    skipped: Skipped = defaultdict(list)
    places = list(image_argument.find_sources(image))
    files_of = [sorted(_files(place, skipped), key=Path.as_posix) for place in places]
    if not any(files_of):
        texts = ", ".join(place.text for place in places)
        raise UserError(
            f"image={texts}: no image in this folder or below it"
            + (f" (skipped: {_describe(skipped)})" if skipped else "")
            + f"; expected {', '.join(image_formats.READABLE)}, recognised by suffix "
            f"({', '.join(sorted(image_formats.SUFFIXES))}) or by the first bytes. Name another "
            "folder, or the file itself"
        )
    root = places[0].root
    if len(places) > 1:
        root = Path(os.path.commonpath([os.path.abspath(place.root) for place in places]))  # noqa: PTH100
        files_of = [[Path(os.path.abspath(file)) for file in files] for files in files_of]  # noqa: PTH100 - links stay
    files = dict.fromkeys(file for files in files_of for file in files)
    note = f"note: skipped: {_describe(skipped)}" if skipped else ""
    return _manifest(root, [file.relative_to(root).as_posix() for file in files]), note


def _manifest(root: Path, path: list[str]) -> Manifest:
    zero_N = np.zeros(len(path), np.int64)
    return Manifest(root, tuple(path), zero_N, zero_N.astype(np.uint8), ())


def _files(place: ImageSource, skipped: Skipped) -> Iterator[Path]:
    if not place.pattern and not place.paths[0].is_dir():
        yield place.paths[0]  # named by the user: the decoder reports its kind
        return
    visited: set[tuple[int, int]] = set()
    for path in place.paths:
        if path.is_dir():
            yield from _walk(path, place.text, skipped, visited)
        elif _is_image(path, skipped):
            yield path


def _walk(
    folder: Path, text: str, skipped: Skipped, visited: set[tuple[int, int]]
) -> Iterator[Path]:
    """Images in a folder and below it; each folder once, also with links to it or a cycle."""
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in visited:
            return
        visited.add((status.st_dev, status.st_ino))
        names = sorted(os.listdir(folder))  # noqa: PTH208
    except OSError as error:
        raise UserError(f"image={text}: {folder} cannot be listed ({error.strerror})") from error
    for name in names:
        path = folder / name
        if name.startswith("."):
            if not image_formats.is_system_file(name):
                skipped["hidden"].append(name)
        elif path.is_dir():
            yield from _walk(path, text, skipped, visited)
        elif _is_image(path, skipped):
            yield path


def _is_image(path: Path, skipped: Skipped) -> bool:
    """Whether a file is an image; other files are added to `skipped`, system files are not."""
    if image_formats.is_system_file(path.name):
        return False
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            skipped["pipe, socket or device"].append(path.name)
            return False
        if image_formats.is_image(path):
            return True
        skipped[image_formats.describe_kind(path)].append(path.name)
    except OSError as error:
        if image_formats.has_image_suffix(path.name):
            return True  # a broken link, for example: reported as an unreadable image
        skipped[f"unreadable ({error.strerror})"].append(path.name)
    return False


def _describe(skipped: Mapping[str, list[str]]) -> str:
    """Kinds with their counts, the first name of each and a remedy, most frequent first."""
    parts = []
    for kind, names in sorted(skipped.items(), key=lambda item: -len(item[1])):
        remedy = advice(kind)
        example = f"{names[0]}{', …' if names[1:] else ''}{f'; {remedy}' if remedy else ''}"
        parts.append(f"{len(names)} {kind} ({example})")
    return ", ".join(parts)
