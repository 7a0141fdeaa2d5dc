"""A folder of event files -> the real TensorBoard, served by a thread of this process."""

from __future__ import annotations

import contextlib
import io
import logging
from pathlib import Path


def serve(folder: Path, address: str, port: int) -> None:
    """Start TensorBoard, which reads new events every few seconds; ends with this process."""
    from tensorboard.program import TensorBoard

    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    with contextlib.redirect_stderr(io.StringIO()):  # advice on its options; errors are raised
        board = TensorBoard()
        board.configure(logdir=str(folder), host=address, port=port)
        board.launch()
