"""Log records of a run -> run.log; a disk error names the file and ends the run."""

from __future__ import annotations

import io
import logging
import sys
from pathlib import Path

from fgvc.store.disk_errors import NamedFile

FORMAT = "%(asctime)s %(levelname)s %(message)s"


class RunLog(logging.FileHandler):
    """The first line that cannot be written raises; later lines are dropped silently."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8")
        self.setFormatter(logging.Formatter(FORMAT))

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
