"""An archive -> files below one folder: plain files and folders only, or a refusal.

Every member is looked at before it is written: nothing outside the folder, no links, no devices, no
more bytes than the archive's own size makes plausible.
"""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from fgvc import untrusted
from fgvc.data.layout import inside
from fgvc.types import Progress, UserError

MOST_TIMES = 50  # bytes unpacked for each byte of the archive: JSON shrinks tenfold, bombs further
LEAST = 1 << 26  # bytes that any archive may unpack to
MIB = 1 << 20
DAMAGE = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError)


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
    with _damage_told(file):
        if zipfile.is_zipfile(untrusted.require_regular(file)):
            _unzip(file, folder, budget)
        else:
            _untar(file, folder, budget)


class _Budget:
    """Counts unpacked bytes, and ends it where they become too many."""

    def __init__(self, file: Path, progress: Progress) -> None:
        self.file, self.progress = file, progress
        self.most = max(file.stat().st_size * MOST_TIMES, LEAST)
        self.spent = 0

    def spend(self, size: int, name: str) -> None:
        before, self.spent = self.spent, self.spent + size
        if self.spent > self.most:
            raise UnpackError(
                f"{self.file}: {name} would bring it to {self.spent} bytes unpacked, more than the "
                f"{self.most} that its size makes plausible; it is refused"
            )
        self.progress(self.spent // MIB - before // MIB, f"{self.file.name} unpacked")


def _untar(file: Path, folder: Path, budget: _Budget) -> None:
    with tarfile.open(untrusted.require_regular(file), "r|*") as archive:
        for member in archive:
            if member.isdir() and member.name in (".", "./", ""):
                continue
            _check(file, member.name, member.isreg() or member.isdir())
            budget.spend(member.size, member.name)
            # written here: TarFile.extract has no `filter` before Python 3.11.4
            data = None if member.isdir() else archive.extractfile(member)
            _write(folder / member.name, data, "wb")  # of a file twice, the later one holds


def _unzip(file: Path, folder: Path, budget: _Budget) -> None:
    with zipfile.ZipFile(untrusted.require_regular(file)) as archive:
        for member in archive.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            _check(file, member.filename, kind in (0, stat.S_IFREG, stat.S_IFDIR))
            budget.spend(member.file_size, member.filename)
            data = None if member.is_dir() else archive.open(member)
            _write(folder / member.filename, data, "xb")


def _write(target: Path, data: IO[bytes] | None, mode: str) -> None:
    """Write a member that `_check` accepted. data: of a file; None makes a folder.

    Raises:
        OSError: a file stands where a folder should be, or the other way round.
    """
    if data is None:
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with data, target.open(mode) as out:
        shutil.copyfileobj(data, out)


def _check(file: Path, name: str, plain: bool) -> None:
    if not plain:
        raise UnpackError(f"{file}: {name} is a link or a device; the archive is refused")
    if inside(name.replace("\\", "/")) is None or "\0" in name:
        raise UnpackError(f"{file}: {name} leads out of its folder; the archive is refused")


@contextmanager
def _damage_told(file: Path) -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        raise UnpackError(f"{file}: damaged archive ({' '.join(str(error).split())})") from error
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise UnpackError(
            f"{file}: names {error.filename} twice; the archive is refused"
        ) from error
