"""Files of other people -> bytes and plain data, within stated bounds.

A path may be a named pipe, a device or a link to one: opening it can block forever, or reading it
never ends. JSON may be nested until the parser fails, or hold numbers that no field can hold.
Every reader opens files and parses JSON and YAML here. Standard library only (PyYAML is imported on
use), so that every room may import this module.
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

from fgvc.untrusted.escape import one_line

MOST_DEPTH = 100  # levels of nesting of a JSON document
MOST_STEPS = 4_000_000  # opcodes in the pickles of a file; a tensor takes 30
MOST_PICKLE = 64 << 20  # bytes of a pickle in an archive
MOST_DIGITS = 400  # of a number in YAML
DIGITS = re.compile(r"[-+]?[.0-9][0-9A-Fa-f_.:box+-]*")
MOST_NODES = 100_000  # values of a YAML document
ESCAPED = re.compile(rb"\\u[dD][89a-fA-F]")
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")
LARGEST = 2**63 - 1  # of an integer in JSON: the range of int64
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
MIB = 1 << 20
# largest size of a file that is read whole, by kind; bytes
TEXT = 64 * MIB  # settings and records of a run
LIST = 1024 * MIB  # a line or a document per image or class
IMAGE = 1024 * MIB
ARRAYS = 16 * 1024 * MIB  # tensors and columns of numbers


class _RefusedError(OSError):
    """Its text is one line that begins with the path."""

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


class NotRegularError(_RefusedError):
    """A named pipe, device, socket or folder instead of a file; the path is `filename`."""


class TooLargeError(_RefusedError):
    """A file larger than files of its kind may be; the path is `filename`."""


def open_regular(path: str | Path) -> io.BufferedReader:
    """Open a regular file, or a link to one, for reading, without waiting for a writer.

    Raises:
        NotRegularError: another kind of file.
        OSError: missing or not readable.
    """
    path = Path(path)

    def open_descriptor(name: str, flags: int) -> int:
        # here alone, and before the file object owns it, it is closed: closing it twice would turn
        # an interrupt into "Bad file descriptor"
        descriptor = os.open(name, flags | os.O_NONBLOCK)
        try:
            _check_mode(os.fstat(descriptor).st_mode, path)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    return open(path, "rb", opener=open_descriptor)


def read_bytes(path: str | Path, most: int) -> bytes:
    """The bytes of a regular file.

    Args:
        most: largest size in bytes.

    Raises:
        NotRegularError, OSError: as `open_regular`.
        TooLargeError: a larger file.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        pieces, length = [], 0
        # check the size first, to allocate no buffer of `most` bytes; kernel files have size 0
        while length <= most and size <= most:
            piece = file.read(max(size - length, MIB))
            if piece is None:  # a kernel file without a next line yet
                raise NotRegularError(errno.EINVAL, "no bytes are available yet", str(path))
            if not piece:
                return b"".join(pieces)
            pieces.append(piece)
            length += len(piece)
    reason = f"{max(size, length)} bytes, more than the {most} bytes that it may have"
    raise TooLargeError(errno.EFBIG, reason, str(path))


def read_text(path: str | Path, most: int = TEXT, encoding: str = "utf-8") -> str:
    """The text of a regular file, with line ends as "\\n".

    Raises:
        OSError: as `read_bytes`.
        UnicodeDecodeError: the bytes are not in this encoding.
    """
    return io.TextIOWrapper(io.BytesIO(read_bytes(path, most)), encoding).read()


def require_regular(path: str | Path) -> Path:
    """Check that a path is a regular file or a link to one, for a library that opens it by name.

    Raises:
        OSError: as `open_regular`.
    """
    _check_mode(Path(path).stat().st_mode, path)
    return Path(path)


def _check_mode(mode: int, path: str | Path) -> None:
    if not stat.S_ISREG(mode):
        kind = KINDS.get(stat.S_IFMT(mode), "a special file")
        raise NotRegularError(errno.EINVAL, f"{kind}, not a regular file", str(path))


def read_yaml(path: str | Path) -> str:
    """The text of a YAML file that any parser can load.

    Raises:
        OSError: as `read_bytes`.
        ValueError: not UTF-8, not YAML, a tag, nested too deep, a number of too many digits, or
            more than MOST_NODES values with every alias expanded; one line without the path.
    """
    import yaml

    try:
        text = read_text(path, 4 * MIB)
        _check_events(yaml.parse(text, yaml.SafeLoader))
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 (byte {error.start})") from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    return text


def parse_yaml(text: str) -> Any:
    """The plain data of a YAML document without anchors, as fgvc writes YAML.

    Raises:
        ValueError: as `read_yaml`, or an anchor; one line without a path.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same in C, where it is built
    try:
        _check_events(yaml.parse(text, loader), anchors=False)
        return yaml.load(text, loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from None


def folders_below(root: str | Path, depth: int) -> list[Path]:
    """The folders exactly `depth` levels below a root, sorted, through links; [] without a root.

    Raises:
        OSError: a folder cannot be listed (`glob` would treat it as empty).
    """
    level = [Path(root)] if os.path.lexists(root) else []
    for _ in range(depth):
        subfolders = []
        for folder in level:
            with os.scandir(folder) as entries:
                subfolders += [Path(entry) for entry in entries if Path(entry).is_dir()]
        level = sorted(subfolders)
    return level


def parse_json(data: bytes | str) -> Any:
    """A JSON document whose numbers fit int64 or a finite float64, nested at most MOST_DEPTH deep.

    Raises:
        ValueError: not JSON, not UTF-8, NaN, an infinity, a number out of range, a key twice in an
            object, half of a surrogate pair, or too deep; one line without the path.
    """
    try:
        value = json.loads(
            data,
            parse_int=_integer,
            parse_float=_finite,
            parse_constant=refuse_constant,
            object_pairs_hook=unique_keys,
        )
    except RecursionError:
        raise ValueError(f"nested more than {MOST_DEPTH} levels deep") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 (byte {error.start})") from None
    if _depth(value) > MOST_DEPTH:
        raise ValueError(f"nested more than {MOST_DEPTH} levels deep")
    if SURROGATE.search(data) if isinstance(data, str) else ESCAPED.search(data):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:  # cannot be encoded for a file, terminal or digest
            half = ascii(error.object[error.start])
            raise ValueError(f"{half} is half of a surrogate pair, not text") from None
    return value


def check_pickles(path: str | Path) -> None:
    """Count the opcodes of the pickles in a torch.save file, zip or legacy, before they are run.

    An opcode of one byte may allocate 64 bytes, so that a small archive can fill any memory.

    Raises:
        OSError: as `open_regular`.
        ValueError: more than MOST_STEPS; one line without the path.
    """
    with open_regular(path) as file:
        if file.read(4) == b"PK\x03\x04":  # the test of torch
            for data in _zipped_pickles(file):
                _check_steps(data, 1)
            return
        file.seek(0)
        _check_steps(file, 4)  # number, protocol, machine, content


def _zipped_pickles(file: io.BufferedReader) -> Iterator[io.BytesIO]:
    try:
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                if entry.filename.endswith(".pkl") and entry.file_size <= MOST_PICKLE:
                    yield io.BytesIO(archive.read(entry))
                elif entry.filename.endswith(".pkl"):
                    raise ValueError(f"a pickle of more than {MOST_PICKLE} bytes")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError):
        return  # damaged: the reader of weights reports it


def _check_steps(file: IO[bytes], pickles: int) -> None:
    steps = itertools.count(1)
    try:
        for _ in range(pickles):
            for _ in pickletools.genops(file):
                if next(steps) > MOST_STEPS:
                    raise OverflowError
    except OverflowError:
        raise ValueError(f"a pickle of more than {MOST_STEPS} steps, which no model has") from None
    except Exception:  # damaged: the reader of weights reports it
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


def _check_events(events: Iterable[Any], anchors: bool = True) -> None:
    """Check a YAML document event by event; an alias counts as all values of its anchor."""
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []  # anchor, and values before it
    count = 0
    for event in events:
        kind, anchor = type(event).__name__, getattr(event, "anchor", None)
        if (tag := getattr(event, "tag", None)) is not None:
            raise ValueError(f"the tag {one_line(tag, 24)}: write values without tags")
        if anchor is not None and not anchors:
            raise ValueError(f"the anchor {one_line(anchor, 24)}: write values without anchors")
        if kind == "AliasEvent":
            if anchor in (name for name, _ in open_nodes):
                raise ValueError(f"the alias *{anchor} is inside its own anchor")
            count += sizes.get(anchor or "", 1)
        elif kind == "ScalarEvent":
            # a number that Python takes minutes to parse, or cannot write again
            if (
                event.implicit[0]
                and len(event.value) > MOST_DIGITS
                and DIGITS.fullmatch(event.value)
            ):
                raise ValueError(f"a number of {len(event.value)} digits, at most {MOST_DIGITS}")
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
            raise ValueError(f"more than {MOST_NODES} values with its aliases expanded")


def _integer(text: str) -> int:
    # check the length first: Python refuses to convert more than 4300 digits
    if len(text) > 20 or abs(int(text)) > LARGEST:
        raise ValueError(f"the number {one_line(text, 24)} is larger than {LARGEST}")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {one_line(text, 24)} is not finite")
    return value


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object, as `object_pairs_hook` of `json`; ValueError if a key occurs twice."""
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {one_line(twice, 24)!r} twice in an object")
    return value


def refuse_constant(text: str) -> None:
    """Raise ValueError for NaN and the infinities, as `parse_constant` of `json`."""
    raise ValueError(f"{text} is not a JSON number")


def _depth(value: Any) -> int:
    """Levels of nesting; 0 for a number or a text. Iterative, because the document may be deep."""
    deepest, waiting = 0, [(value, 1)]
    while waiting:
        item, level = waiting.pop()
        if isinstance(item, dict | list):
            deepest = max(deepest, level)
            children = item.values() if isinstance(item, dict) else item
            waiting += [(child, level + 1) for child in children if isinstance(child, dict | list)]
    return deepest
