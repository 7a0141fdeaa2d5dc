"""Log records of a run -> run.log, without secrets; a disk error names it and ends the run."""

from __future__ import annotations

import io
import logging
import sys
from pathlib import Path

from fgvc.record import privacy
from fgvc.store.disk_errors import NamedFile


class _MaskingFormatter(logging.Formatter):
    """Mask secrets: a library may log a URL with a password, or the header of a request."""

    def format(self, record: logging.LogRecord) -> str:
        return privacy.masked(super().format(record))


class RunLog(logging.FileHandler):
    """The first line that cannot be written raises; later lines are dropped silently."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8")
        self.setFormatter(_MaskingFormatter("%(asctime)s %(levelname)s %(message)s"))

    def _open(self) -> io.TextIOWrapper:
        path = Path(self.baseFilename)
        return io.TextIOWrapper(
            io.BufferedWriter(NamedFile(path, "a", path)), encoding="utf-8", errors=self.errors
        )

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, OSError):  # logging would print a traceback and continue
            raise error
        super().handleError(record)
