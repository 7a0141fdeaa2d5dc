"""An archive -> its content as a stream, bounded by the number of decompressed bytes.

The sizes of names, members and directories in headers are not trusted: decompressed bytes are
counted, and the memory of the decompressor is bounded.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from typing import IO, cast

from fgvc.untrusted import MIB

CHUNK = 1 << 16  # compressed bytes read at a time
MAX_XZ_MEMORY = 256 * MIB  # memory of an xz decoder; xz -9 takes 65 MiB
MAX_ZIP_DIRECTORY = 64 * MIB  # bytes of a zip's directory: half a million members
_XZ_SIGNATURES = (b"\xfd7zXZ\0", b"]\0\0\x80\0")  # and the older .lzma


class TooLongError(Exception):
    """More bytes than allowed."""


class TarContent(io.RawIOBase):
    """The content of a tar, decompressed. left: bytes that may still come out of it."""

    def __init__(self, file: IO[bytes]) -> None:
        head = file.read(6)
        file.seek(0)
        self._stream: IO[bytes] = file
        if head.startswith(b"\x1f\x8b"):
            self._stream = cast("IO[bytes]", gzip.GzipFile(fileobj=file))
        elif head.startswith(b"BZh"):
            self._stream = bz2.BZ2File(file)
        elif head.startswith(_XZ_SIGNATURES):
            self._stream = cast("IO[bytes]", _Xz(file))
        self.left = 0

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, which are asked for in small pieces.

        Raises:
            TooLongError: more than `left`.
        """
        data = self._stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise TooLongError
        return data


class _Xz(io.RawIOBase):
    """A decompressor with a memory limit, which LZMAFile lacks: a small header may claim 4 GiB."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._decoder = file, self._fresh()

    @staticmethod
    def _fresh() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(memlimit=MAX_XZ_MEMORY)

    def read(self, size: int = -1, /) -> bytes:
        while True:
            packed = b""
            if self._decoder.eof:  # perhaps another stream follows, after padding
                packed = self._decoder.unused_data
                while not (packed := packed.lstrip(b"\0")):
                    if not (packed := self._file.read(CHUNK)):
                        return b""
                self._decoder = self._fresh()
            elif self._decoder.needs_input and not (packed := self._file.read(CHUNK)):
                raise EOFError("the compressed data is cut short")
            if data := self._decoder.decompress(packed, size):
                return data


class ZipSource(io.FileIO):
    """A zip whose directory is read whole only if it is short."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_ZIP_DIRECTORY:
            raise TooLongError
        return super().read(size) or b""
