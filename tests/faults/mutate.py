"""Bytes of a valid file and a number -> bytes of a damaged file, a function of the number.

Plain damage: flipped bits, cuts, splices, repeated blocks, extreme lengths. Framed damage keeps the
frame of a format valid, so that it reaches the reader behind the frame: a leaf of JSON, the header
of safetensors, a member of a zip archive, a chunk of PNG, a header of tar.
"""

from __future__ import annotations

import io
import json
import random
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any

MOST = 1 << 16  # maximum bytes of a mutated input
ODD = (
    None,
    True,
    -1,
    0,
    2**31,
    2**63,
    10**30,
    1e308,
    -0.0,
    "",
    "\x00",
    "\ud800",
    "../../../etc/passwd",
    "/dev/zero",
    "é" * 300,
    "=1+1",
    "${oc.env:HOME}",
    [],
    {},
    [[]],
    {"": None},
)
RAW = (
    "NaN",
    "Infinity",
    "1e999",
    "-1e999",
    "1" * 5000,
    "[" * 5000,
    '{"a":' * 5000,
    "nul",
    '"\\ud800"',
)
LENGTHS = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
    2**64 - 1,
)
TOKENS = (
    b"-1", b"0", b"1e999", b"nan", b"9" * 20, b"9" * 5000, b"\xff\xfe", b"\x00", b"\xc3", b'"',
    b"\r", b"\t", b",", b"{", b"../..", b"\xef\xbb\xbf", b"\xe2\x80\xae", b"*x", b"!!python/none ",
)  # fmt: skip


def mutated(seeds: Sequence[bytes], number: int) -> bytes:
    """Input number `number`: a random seed, damaged one to four times."""
    rng = random.Random(number)
    data = rng.choice(seeds)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        framed = _framed(data)
        how = rng.choice(framed) if framed and rng.random() < 0.6 else rng.choice(PLAIN)
        data = how(data, rng, seeds)[:MOST]
    return data


Mutation = Callable[[bytes, random.Random, Sequence[bytes]], bytes]


# --- plain damage ---


def flip(data: bytes, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 32)) if out else 0):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def cut(data: bytes, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def drop(data: bytes, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    start, end = _range(data, rng)
    return data[:start] + data[end:]


def repeat(data: bytes, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    start, end = _range(data, rng)
    return data[:start] + data[start:end] * rng.choice((2, 3, 50)) + data[end:]


def splice(data: bytes, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    other = rng.choice(seeds)
    start, end = _range(other, rng)
    at = rng.randrange(len(data) + 1)
    return data[:at] + other[start:end] + data[at + rng.choice((0, end - start)) :]


def noise(data: bytes, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(data) + 1)
    inserted = rng.randbytes(rng.randrange(1, 64))
    return data[:at] + inserted + data[at + rng.choice((0, len(inserted))) :]


def length(data: bytes, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Write an extreme number at a random place, which may be a length field."""
    size, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
    at = rng.randrange(max(len(data) - size, 0) + 1)
    if rng.random() < 0.5:
        at = min(at, 64)
    value = rng.choice(LENGTHS) % (1 << 8 * size)
    return data[:at] + value.to_bytes(size, order) + data[at + size :]


def token(data: bytes, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Replace a word of a text by another word or number."""
    words = list(re.finditer(rb"[\w.+-]+", data[:MOST]))
    if not words:
        return data + rng.choice(TOKENS)
    word = rng.choice(words)
    return data[: word.start()] + rng.choice(TOKENS) + data[word.end() :]


def line(data: bytes, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Repeat, drop or move a line."""
    lines = data.splitlines(keepends=True) or [b""]
    at = rng.randrange(len(lines))
    chosen = lines.pop(at)
    for _ in range(rng.choice((0, 1, 2, 100))):
        lines.insert(rng.randrange(len(lines) + 1), chosen)
    return b"".join(lines)


PLAIN: tuple[Mutation, ...] = (flip, cut, drop, repeat, splice, noise, length, token, line)


def _range(data: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.choice((1, 4, 16, 64, 1024, MOST)))


# --- damage within a valid frame ---


def _framed(data: bytes) -> list[Mutation]:
    mutations: list[Mutation] = []
    if data[:1] in (b"{", b"["):
        mutations.append(leaf)
    if len(data) > 8 and data[8:9] == b"{":
        mutations.append(tensor_header)
    if data[:4] == b"PK\x03\x04":
        mutations.append(member)
    if data[:4] == b"\x89PNG":
        mutations.append(chunk)
    if data[257:262] == b"ustar":
        mutations.append(tar_header)
    return mutations


def leaf(data: bytes, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Replace, drop or rename a value of a JSON document, or of the first of several JSON lines."""
    head, _, rest = data.partition(b"\n")
    for text, after in ((data, b""), (head, b"\n" + rest)):
        try:
            return _leaf(json.loads(text), rng) + after
        except (ValueError, RecursionError):
            continue
    return token(data, rng, seeds)


def _leaf(document: Any, rng: random.Random) -> bytes:
    places = list(_places(document))
    if not places:
        return rng.choice(RAW).encode()
    holder, key = rng.choice(places)
    match rng.randrange(5):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[rng.choice(("", "é", "__class__", f"{key}x"))] = holder.pop(key)
        case 2:
            holder[key] = "@raw@"
            text = json.dumps(document, ensure_ascii=True)
            return text.replace('"@raw@"', rng.choice(RAW), 1).encode()
        case 3:
            other = rng.choice(places)
            holder[key] = json.loads(json.dumps(other[0][other[1]]))
        case _:
            holder[key] = rng.choice(ODD)
    return json.dumps(document, ensure_ascii=True).encode()


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) pair of a JSON document."""
    places: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        holder = waiting.pop()
        if isinstance(holder, dict | list):
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            places += [(holder, key) for key in keys]
            waiting += [holder[key] for key in keys]
    return places


def tensor_header(data: bytes, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Damage the JSON header of safetensors and correct its length."""
    size = int.from_bytes(data[:8], "little")
    if size > len(data) - 8:
        return length(data, rng, seeds)
    header = leaf(data[8 : 8 + size].strip(), rng, seeds)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def member(data: bytes, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Damage, rename, drop or repeat a member of a zip archive; the archive stays valid."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, OSError):
        return flip(data, rng, seeds)
    if not members:
        return flip(data, rng, seeds)
    at = rng.randrange(len(members))
    name, content = members[at]
    match rng.randrange(6):
        case 0:
            members[at] = (
                rng.choice(("../x", "/x", "x\\..\\y", "é", "a" * 300, name + "/")),
                content,
            )
        case 1:
            members.pop(at)
        case 2:
            members.append((name, rng.choice(members)[1]))
        case _:
            members[at] = (name, rng.choice(_framed(content) or PLAIN)(content, rng, seeds))
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as archive:
        warnings.simplefilter("ignore")  # about duplicate names
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content)
    return out.getvalue()


def chunk(data: bytes, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Damage, drop or repeat a chunk of a PNG and correct its checksum."""
    chunks, at = [], 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    if not chunks:
        return flip(data, rng, seeds)
    place = rng.randrange(len(chunks))
    kind, content = chunks[place]
    match rng.randrange(4):
        case 0:
            chunks.pop(place)
        case 1:
            chunks.insert(rng.randrange(len(chunks) + 1), chunks[place])
        case _:
            chunks[place] = (kind, rng.choice(PLAIN)(content, rng, [content]))
    return data[:8] + b"".join(
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def tar_header(data: bytes, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Replace a field of the first header of a tar and correct its checksum."""
    header = bytearray(data[:512])
    start, size, values = rng.choice(
        (
            (0, 100, (b"../x", b"/x", b"a/../../x", b"\xff\xfe", b"x" * 100, b"\x00")),
            (124, 12, (b"77777777777\x00", b"\x80" + b"\xff" * 11, b"-1", b"00000000000\x00")),
            (156, 1, (b"0", b"1", b"2", b"3", b"5", b"6", b"x", b"g", b"L", b"S", b"\xff")),
            (157, 100, (b"/etc/passwd", b"..", b"")),
        )
    )
    header[start : start + size] = rng.choice(values).ljust(size, b"\x00")[:size]
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header) + data[512:]
