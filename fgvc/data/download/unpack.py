"""An archive -> files below one folder: plain files and folders only, or a refusal.

Every member is checked before it is written: nothing outside the folder, no links, no devices, no
more bytes than the archive's own size makes plausible. Bytes are counted as they come out.
"""

from __future__ import annotations

import errno
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from fgvc import untrusted
from fgvc.data.download.stream import MAX_ZIP_DIRECTORY, TarContent, TooLongError, ZipSource
from fgvc.data.find_root import safe_relative
from fgvc.store.disk_errors import open_named
from fgvc.types import Progress, UserError
from fgvc.untrusted import MIB

MAX_RATIO = 50  # bytes unpacked for each byte of the archive: JSON shrinks tenfold, bombs further
MIN_LIMIT = 1 << 26  # bytes that any archive may unpack to
MAX_HEADER = 1 << 20  # bytes of the headers of a member of a tar: its name, times and attributes
CHUNK = 1 << 18  # bytes written at a time
DAMAGE_ERRORS = (
    *(tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError),
    *(NotImplementedError, LookupError, OverflowError, RuntimeError, ValueError, struct.error),
)
UNPACK_BY_HAND = "unpack it yourself, and set dataset.root= to the folder"


class UnpackError(UserError):
    """An archive that holds what no dataset needs, or is damaged."""


def unpack(file: Path, folder: Path, progress: Progress) -> None:
    """Unpack a .tar (plain, .gz, .bz2, .xz) or a .zip into a folder that is ours alone.

    Args:
        progress: advanced by MiB unpacked.

    Raises:
        UnpackError: a member that is no plain file or folder or leads outside, too many bytes, or a
            damaged archive. What was unpacked until then stays for the caller to remove.
    """
    budget = _Budget(file, progress)
    with _report_damage(file):
        if zipfile.is_zipfile(untrusted.require_regular(file)):
            _unzip(file, folder, budget)
        else:
            _untar(file, folder, budget)


class _Budget:
    """Counts unpacked bytes, and ends it where they become too many."""

    def __init__(self, file: Path, progress: Progress) -> None:
        self.file, self.progress = file, progress
        self.most = max(file.stat().st_size * MAX_RATIO, MIN_LIMIT)
        self.spent = 0

    def check(self, size: int, name: str) -> None:
        """Refuse a member whose header states too many bytes."""
        if self.spent + size > self.most:
            raise UnpackError(
                f"{self.file}: {_printable(name)} would bring it to {self.spent + size} bytes "
                f"unpacked, more than the {self.most} that its size makes plausible; if you trust "
                f"it, {UNPACK_BY_HAND}"
            )

    def spend(self, size: int, name: str) -> None:
        """Count unpacked bytes."""
        self.check(size, name)
        before, self.spent = self.spent, self.spent + size
        self.progress(self.spent // MIB - before // MIB, f"{self.file.name} unpacked")


def _untar(file: Path, folder: Path, budget: _Budget) -> None:
    with untrusted.open_regular(file) as packed:
        content = TarContent(packed)
        content.left = MAX_HEADER
        with (
            _report_long_headers(file),
            tarfile.open(fileobj=cast("IO[bytes]", content), mode="r|") as archive,
        ):
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
                _write(
                    folder / member.name, data, "wb", budget
                )  # if a file occurs twice, the later wins
                content.left = MAX_HEADER


@contextmanager
def _report_long_headers(file: Path) -> Iterator[None]:
    try:
        yield
    except TooLongError:
        raise UnpackError(
            f"{file}: a member whose headers have more than {MAX_HEADER} bytes; the archive is refused"
        ) from None


def _unzip(file: Path, folder: Path, budget: _Budget) -> None:
    try:
        archive = zipfile.ZipFile(cast("IO[bytes]", ZipSource(untrusted.require_regular(file))))
    except TooLongError:
        raise UnpackError(
            f"{file}: its directory has more than {MAX_ZIP_DIRECTORY} bytes; {UNPACK_BY_HAND}"
        ) from None
    with archive, cast("IO[bytes]", archive.fp):
        for member in archive.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            _check_member(file, member.filename, kind in (0, stat.S_IFREG, stat.S_IFDIR))
            budget.check(member.file_size, member.filename)
            if member.compress_type == zipfile.ZIP_LZMA:  # its decoder has no bound of memory
                raise UnpackError(
                    f"{file}: {_printable(member.filename)} is packed by LZMA; {UNPACK_BY_HAND}"
                )
            data = None if member.is_dir() else archive.open(member)
            _write(folder / member.filename, data, "xb", budget)


def _write(target: Path, data: IO[bytes] | None, mode: str, budget: _Budget) -> None:
    """Write a member that `_check` accepted. data: of a file; None makes a folder.

    Raises:
        OSError: a file stands where a folder should be, or the other way round.
    """
    if data is None:
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with data, open_named(target, mode) as out:
        while piece := data.read(CHUNK):
            budget.spend(len(piece), target.name)
            out.write(piece)


def _printable(name: str) -> str:
    return name if name.isprintable() else ascii(name)


def _check_member(file: Path, name: str, plain: bool) -> None:
    shown = _printable(name)
    if not plain:
        raise UnpackError(
            f"{file}: {shown} is a link, a device or a sparse file; the archive is refused"
        )
    if safe_relative(name.replace("\\", "/")) is None or "\0" in name:
        raise UnpackError(f"{file}: {shown} leads out of its folder; the archive is refused")


@contextmanager
def _report_damage(file: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except DAMAGE_ERRORS as error:
        raise UnpackError(f"{file}: damaged archive ({' '.join(str(error).split())})") from error
    except OSError as error:
        # of a decompressor, not of the disk; or a member begins before the archive
        if error.errno in (None, errno.EINVAL):
            raise UnpackError(f"{file}: damaged archive ({error})") from error
        if not isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
            raise
        raise UnpackError(
            f"{file}: names {error.filename} twice; the archive is refused"
        ) from error
