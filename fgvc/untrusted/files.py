"""Files that other people made -> bytes and plain data, within stated bounds.

A path in a folder may be a named pipe, a device or a link to these: opening it waits for ever, or
reading it never ends. JSON may be nested until the parser fails, or hold numbers that no field can
hold. Every reader opens files and parses JSON here. Standard library only (a
YAML reader is imported where one is needed), so that every room may use it.
"""

from __future__ import annotations

import errno
import io
import itertools
import json
import math
import os
import pickletools
import re
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

RESOLVER = re.compile(r"\$\{[^{}]*:")
MOST_DEPTH = 100  # levels of nesting of a JSON document
MOST_STEPS = 4_000_000  # of the pickles of a file; 30 for each tensor
MOST_PICKLE = 64 << 20  # bytes of a pickle in an archive
MOST_DIGITS = 400  # of a number in YAML
DIGITS = re.compile(r"[-+]?[.0-9][0-9A-Fa-f_.:box+-]*")
MOST_NODES = 100_000  # values of a YAML document
ESCAPED = re.compile(rb"\\u[dD][89a-fA-F]")
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")
LARGEST = 2**63 - 1  # of an integer in JSON: the range of int64
MIB = 1 << 20
# bytes that a file of a kind may have, where a file is read whole
TEXT = 64 * MIB  # settings, and what a program writes about a run
LIST = 1024 * MIB  # a line or a document per image or class
PICTURE = 1024 * MIB
ARRAYS = 16 * 1024 * MIB  # tensors and columns of numbers


class _RefusedError(OSError):
    """An error whose text is one line that begins with the path."""

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


class NotRegularError(_RefusedError):
    """A named pipe, device, socket or folder where a file is expected; the path is `filename`."""


class TooLargeError(_RefusedError):
    """More bytes than a file of its kind may have; the path is `filename`."""


def open_regular(path: str | Path) -> io.BufferedReader:
    """Open a regular file, or a link to a regular file, for reading; never wait for a writer.

    Raises:
        NotRegularError: anything else, by its kind.
        OSError: missing or not readable.
    """
    path = Path(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            reason = f"{_kind(mode)}, not a regular file"
            raise NotRegularError(errno.EINVAL, reason, str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(path: str | Path, most: int) -> bytes:
    """The bytes of a regular file.

    Args:
        most: bytes that a file of this kind may have.

    Raises:
        NotRegularError, OSError: as `open_regular`.
        TooLargeError: more bytes.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        pieces, length = [], 0
        # the size first, so that no buffer of `most` bytes is allocated; kernel files have size 0
        while length <= most and size <= most:
            piece = file.read(max(size - length, MIB))
            if piece is None:  # a kernel file that waits for its next line
                raise NotRegularError(errno.EINVAL, "no bytes are available yet", str(path))
            if not piece:
                return b"".join(pieces)
            pieces.append(piece)
            length += len(piece)
    reason = f"{max(size, length)} bytes, more than the {most} bytes that it may have"
    raise TooLargeError(errno.EFBIG, reason, str(path))


def read_text(path: str | Path, most: int = TEXT, encoding: str = "utf-8") -> str:
    """The text of a regular file, its lines ended by "\\n".

    Raises:
        OSError: as `read_bytes`.
        UnicodeDecodeError: the bytes are no text in this encoding.
    """
    return io.TextIOWrapper(io.BytesIO(read_bytes(path, most)), encoding).read()


def require_regular(path: str | Path) -> Path:
    """Check that a path is a regular file or a link to it, for a library that opens it by name.

    Raises:
        OSError: as `open_regular`.
    """
    mode = Path(path).stat().st_mode
    if not stat.S_ISREG(mode):
        raise NotRegularError(errno.EINVAL, f"{_kind(mode)}, not a regular file", str(path))
    return Path(path)


def read_yaml(path: str | Path, most: int = 4 * MIB) -> str:
    """The text of a YAML file that a parser can take: bounded in bytes, depth and aliases.

    Raises:
        OSError: as `read_bytes`.
        ValueError: not UTF-8, or as `check_yaml`; one line without the path.
    """
    try:
        return check_yaml(read_text(path, most))
    except UnicodeDecodeError as error:
        raise ValueError(f"no UTF-8 text (byte {error.start})") from None


def check_yaml(text: str) -> str:
    """The same text, if it is YAML that a parser can take.

    Raises:
        ValueError: not YAML, too deep, or more than MOST_NODES values once every alias stands for
            what it names; one line.
    """
    import yaml

    try:
        _refuse_large(yaml.parse(text, yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    return text


def folders_below(root: str | Path, depth: int) -> list[Path]:
    """The folders exactly `depth` levels below a root, links followed, sorted; none without a root.

    Raises:
        OSError: a folder on the way cannot be listed; a pattern would treat it as empty.
    """
    level = [Path(root)] if os.path.lexists(root) else []
    for _ in range(depth):
        below = []
        for folder in level:
            with os.scandir(folder) as entries:
                below += [Path(entry) for entry in entries if Path(entry).is_dir()]
        level = sorted(below)
    return level


def calls_resolver(text: str) -> bool:
    """Whether a value of a config calls a resolver, as `${oc.env:HOME}` does."""
    return RESOLVER.search(text) is not None


def parse_json(data: bytes | str) -> Any:
    """A JSON document whose numbers fit int64 or a finite float64, nested at most MOST_DEPTH deep.

    Raises:
        ValueError: not JSON, not UTF-8, NaN, an infinity, a number out of range, a key twice in an
            object, half a letter, or too deep; one line without the file, which the caller knows.
    """
    try:
        value = json.loads(
            data,
            parse_int=_integer,
            parse_float=_finite,
            parse_constant=refuse_constant,
            object_pairs_hook=unique,
        )
    except RecursionError:
        raise ValueError(f"nested more than {MOST_DEPTH} levels deep") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"no UTF-8 text (byte {error.start})") from None
    if _depth(value) > MOST_DEPTH:
        raise ValueError(f"nested more than {MOST_DEPTH} levels deep")
    _check_letters(data, value)
    return value


def check_pickles(path: str | Path) -> None:
    """Count the steps of the pickles in a file of torch.save, zip or legacy, before they are run.

    A step of one byte may take 64 bytes of memory, so that a small archive fills any memory.

    Raises:
        OSError: as `open_regular`.
        ValueError: more than MOST_STEPS; one line without the path.
    """
    with open_regular(path) as file:
        if file.read(4) == b"PK\x03\x04":  # as torch tells the two apart
            for data in _zipped_pickles(file):
                _count_steps(data, 1)
            return
        file.seek(0)
        _count_steps(file, 4)  # number, protocol, machine, content


def _zipped_pickles(file: io.BufferedReader) -> Iterator[io.BytesIO]:
    try:
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                if entry.filename.endswith(".pkl") and entry.file_size <= MOST_PICKLE:
                    yield io.BytesIO(archive.read(entry))
                elif entry.filename.endswith(".pkl"):
                    raise ValueError(f"a pickle of more than {MOST_PICKLE} bytes")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError):
        return  # damaged: its reader words it


def _count_steps(file: IO[bytes], pickles: int) -> None:
    steps = itertools.count(1)
    try:
        for _ in range(pickles):
            for _ in pickletools.genops(file):
                if next(steps) > MOST_STEPS:
                    raise OverflowError
    except OverflowError:
        raise ValueError(f"a pickle of more than {MOST_STEPS} steps, which no model has") from None
    except Exception:  # damaged: its reader words it
        return


def read_json(path: str | Path, most: int = 64 * MIB) -> Any:
    """The JSON document of a regular file of at most `most` bytes.

    Raises:
        OSError: as `read_bytes`.
        ValueError: as `parse_json`; the line begins with the path.
    """
    data = read_bytes(path, most)
    try:
        return parse_json(data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _refuse_large(events: Iterable[Any]) -> None:
    """Count the values of a document from its events: an alias counts what its anchor holds."""
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []  # anchor, and values before it
    count = 0
    for event in events:
        kind, anchor = type(event).__name__, getattr(event, "anchor", None)
        if (tag := getattr(event, "tag", None)) is not None:
            raise ValueError(f"the tag {_short(tag)}: write values without tags")
        if kind == "AliasEvent":
            if anchor in (name for name, _ in open_nodes):
                raise ValueError(f"the alias *{anchor} stands inside its own anchor")
            count += sizes.get(anchor or "", 1)
        elif kind == "ScalarEvent":
            _check_scalar(event)
            count += 1
            sizes[anchor or ""] = 1
        elif kind in ("MappingStartEvent", "SequenceStartEvent"):
            open_nodes.append((anchor, count))
            count += 1
        elif kind in ("MappingEndEvent", "SequenceEndEvent"):
            name, before = open_nodes.pop()
            sizes[name or ""] = count - before
        if len(open_nodes) > MOST_DEPTH:
            raise ValueError(f"nested more than {MOST_DEPTH} levels deep")
        if count > MOST_NODES:
            raise ValueError(f"more than {MOST_NODES} values once its aliases are filled in")


def _check_scalar(event: Any) -> None:
    """Refuse a number that Python takes minutes to read, or cannot write again."""
    if event.implicit[0] and len(event.value) > MOST_DIGITS and DIGITS.fullmatch(event.value):
        raise ValueError(f"a number of {len(event.value)} digits, at most {MOST_DIGITS}")


def _check_letters(data: bytes | str, value: Any) -> None:
    """Refuse half of a surrogate pair, which no file, terminal or digest can take."""
    is_text = isinstance(data, str)
    if not (SURROGATE.search(data) if is_text else ESCAPED.search(data)):
        return
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])
        raise ValueError(f"the letter {half}, half of a pair, which is no text") from None


def _integer(text: str) -> int:
    # the length first: Python itself refuses to convert more than 4300 digits
    if len(text) > 20 or abs(int(text)) > LARGEST:
        raise ValueError(f"the number {_short(text)} is larger than {LARGEST}")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {_short(text)} is not finite")
    return value


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object, for `object_pairs_hook` of `json`; ValueError if a key occurs twice."""
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {_short(twice)!r} twice in an object")
    return value


def refuse_constant(text: str) -> None:
    """Raise ValueError for NaN and the infinities; for `parse_constant` of `json`."""
    raise ValueError(f"{text} is no number of JSON")


def _short(text: str, most: int = 24) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


def _depth(value: Any) -> int:
    """Levels of nesting; 0 for a number or a text. Not recursive: the document may be deep."""
    deepest, waiting = 0, [(value, 1)]
    while waiting:
        item, level = waiting.pop()
        if isinstance(item, dict | list):
            deepest = max(deepest, level)
            children = item.values() if isinstance(item, dict) else item
            waiting += [(child, level + 1) for child in children if isinstance(child, dict | list)]
    return deepest


def _kind(mode: int) -> str:
    kinds = (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    return next((name for is_kind, name in kinds if is_kind(mode)), "a special file")
