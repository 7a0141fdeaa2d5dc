"""An archive -> files below one folder; only regular files and folders are accepted.

Every member is checked before it is written: nothing outside the folder, no links, no devices, no
more bytes than the size of the archive makes plausible. Bytes are counted while decompressing.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import IO, cast

from fgvc import untrusted
from fgvc.data.find_root import safe_relative
from fgvc.store.disk_errors import open_named
from fgvc.types import Progress, UserError
from fgvc.untrusted import MIB
from fgvc.untrusted.escape import one_line

MAX_RATIO = 50  # unpacked bytes per byte of the archive; JSON reaches 10, bombs far more
MIN_LIMIT = 1 << 26  # bytes that an archive of any size may unpack to
MAX_HEADER = 1 << 20  # bytes of the headers of a tar member: name, times and attributes
CHUNK = 1 << 18  # bytes read or written at a time
MAX_XZ_MEMORY = 256 * MIB  # of an xz decoder; xz -9 takes 65 MiB
MAX_ZIP_DIRECTORY = 64 * MIB  # bytes of a zip's directory: half a million members
XZ_SIGNATURES = (b"\xfd7zXZ\0", b"]\0\0\x80\0")  # and the older .lzma
DAMAGE_ERRORS = (
    *(tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError),
    *(NotImplementedError, LookupError, OverflowError, RuntimeError, ValueError, struct.error),
)
UNPACK_BY_HAND = "unpack it yourself, and set dataset.root= to the folder"


class UnpackError(UserError):
    """An archive that is damaged or unsafe."""


def unpack(file: Path, folder: Path, progress: Progress) -> None:
    """Unpack a .tar (plain, .gz, .bz2, .xz) or a .zip into a folder that nobody else uses.

    Args:
        progress: advanced by MiB unpacked.

    Raises:
        UnpackError: a member that is no regular file or folder or leads outside, too many bytes, or
            a damaged archive. The caller removes the files unpacked so far.
    """
    try:
        read = _unzip if zipfile.is_zipfile(untrusted.require_regular(file)) else _untar
        read(file, folder, _Budget(file, progress))
    except UserError:
        raise
    except DAMAGE_ERRORS as error:
        raise UnpackError(f"{file}: damaged archive ({' '.join(str(error).split())})") from error
    except OSError as error:
        # from a decompressor, not from the disk; or a member begins before the archive
        if error.errno in (None, errno.EINVAL):
            raise UnpackError(f"{file}: damaged archive ({error})") from error
        if not isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
            raise
        raise UnpackError(
            f"{file}: names {error.filename} twice; the archive is refused"
        ) from error


class _Budget:
    """Counts unpacked bytes and raises if they become too many."""

    def __init__(self, file: Path, progress: Progress) -> None:
        self.file, self.progress = file, progress
        self.most = max(file.stat().st_size * MAX_RATIO, MIN_LIMIT)
        self.spent = 0

    def check(self, size: int, name: str) -> None:
        """Refuse a member whose header states too many bytes."""
        if self.spent + size > self.most:
            raise UnpackError(
                f"{self.file}: {one_line(name)} would bring it to {self.spent + size} bytes "
                f"unpacked, more than the {self.most} that its size makes plausible; if you trust "
                f"it, {UNPACK_BY_HAND}"
            )

    def spend(self, size: int, name: str) -> None:
        self.check(size, name)
        before, self.spent = self.spent, self.spent + size
        self.progress(self.spent // MIB - before // MIB, f"{self.file.name} unpacked")


def _untar(file: Path, folder: Path, budget: _Budget) -> None:
    with untrusted.open_regular(file) as packed:
        content = _TarContent(packed, file)
        with tarfile.open(fileobj=cast("IO[bytes]", content), mode="r|") as archive:
            for member in archive:
                content.left = MAX_HEADER
                archive.members = []  # pyright: ignore[reportAttributeAccessIssue] a KiB each
                budget.spend(tarfile.BLOCKSIZE, member.name)  # of its header
                if member.isdir() and member.name in (".", "./", ""):
                    continue
                # a sparse file states two sizes, and its gaps cost no byte of the archive
                plain = (member.isreg() and not member.issparse()) or member.isdir()
                _check_member(file, member.name, plain)
                budget.check(member.size, member.name)
                content.left += member.size
                # written here: TarFile.extract has no `filter` before Python 3.11.4
                data = None if member.isdir() else archive.extractfile(member)
                # "wb": if a file occurs twice, the later one wins
                _write(folder / member.name, data, "wb", budget)
                content.left = MAX_HEADER


def _unzip(file: Path, folder: Path, budget: _Budget) -> None:
    with (
        _ZipSource(untrusted.require_regular(file)) as packed,
        zipfile.ZipFile(cast("IO[bytes]", packed)) as archive,
    ):
        for member in archive.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            _check_member(file, member.filename, kind in (0, stat.S_IFREG, stat.S_IFDIR))
            budget.check(member.file_size, member.filename)
            if member.compress_type == zipfile.ZIP_LZMA:  # its decoder has no memory limit
                raise UnpackError(
                    f"{file}: {one_line(member.filename)} is packed by LZMA; {UNPACK_BY_HAND}"
                )
            data = None if member.is_dir() else archive.open(member)
            _write(folder / member.filename, data, "xb", budget)


def _write(target: Path, data: IO[bytes] | None, mode: str, budget: _Budget) -> None:
    """Write a checked member. data: content of a file; None for a folder."""
    if data is None:
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with data, open_named(target, mode) as out:
        while chunk := data.read(CHUNK):
            budget.spend(len(chunk), target.name)
            out.write(chunk)


def _check_member(file: Path, name: str, plain: bool) -> None:
    shown = one_line(name)
    if not plain:
        raise UnpackError(
            f"{file}: {shown} is a link, a device or a sparse file; the archive is refused"
        )
    if safe_relative(name.replace("\\", "/")) is None or "\0" in name:
        raise UnpackError(f"{file}: {shown} leads out of its folder; the archive is refused")


# --- content of archives, with a limit on the bytes and on the memory of the decompressor ---


class _TarContent(io.RawIOBase):
    """The decompressed content of a tar. left: bytes that may still be read."""

    def __init__(self, packed: IO[bytes], file: Path) -> None:
        head = packed.read(6)
        packed.seek(0)
        self._stream, self.file, self.left = packed, file, MAX_HEADER
        if head.startswith(b"\x1f\x8b"):
            self._stream = cast("IO[bytes]", gzip.GzipFile(fileobj=packed))
        elif head.startswith(b"BZh"):
            self._stream = bz2.BZ2File(packed)
        elif head.startswith(XZ_SIGNATURES):
            self._stream = cast("IO[bytes]", _Xz(packed))

    def read(self, size: int = -1, /) -> bytes:
        """Read at most `size` bytes; tarfile reads in small pieces."""
        data = self._stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise UnpackError(
                f"{self.file}: a member has headers of more than {MAX_HEADER} bytes; the archive "
                "is refused"
            )
        return data


class _Xz(io.RawIOBase):
    """A decompressor with a memory limit, unlike LZMAFile: a small header may claim 4 GiB."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._decoder = file, lzma.LZMADecompressor(memlimit=MAX_XZ_MEMORY)

    def read(self, size: int = -1, /) -> bytes:
        while True:
            packed = b""
            if self._decoder.eof:  # perhaps another stream follows, after padding
                packed = self._decoder.unused_data
                while not (packed := packed.lstrip(b"\0")):
                    if not (packed := self._file.read(CHUNK)):
                        return b""
                self._decoder = lzma.LZMADecompressor(memlimit=MAX_XZ_MEMORY)
            elif self._decoder.needs_input and not (packed := self._file.read(CHUNK)):
                raise EOFError("the compressed data is cut short")
            if data := self._decoder.decompress(packed, size):
                return data


class _ZipSource(io.FileIO):
    """A zip whose directory is only read if it is small."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_ZIP_DIRECTORY:
            raise UnpackError(
                f"{self.name}: its directory has more than {MAX_ZIP_DIRECTORY} bytes; "
                f"{UNPACK_BY_HAND}"
            )
        return super().read(size) or b""
