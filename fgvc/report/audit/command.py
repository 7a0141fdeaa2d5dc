"""command.txt of a record -> its arguments, or why the line is not shown.

A forger may write any text there. A line is shown only if pasting it runs `python -m fgvc.run` and
nothing else: splitting the line as a shell does and quoting the words again must give the same
line.
"""

from __future__ import annotations

from fgvc.record.verify import DamageError
from fgvc.report.audit.record import Record
from fgvc.untrusted import shell

FILE = "command.txt"
PROGRAM = list(shell.PROGRAM)
MAX_CHARACTERS = 100_000  # Linux allows 131,072 bytes for one argument


def words(record: Record) -> list[str]:
    """The arguments of the recorded command.

    Raises:
        DamageError: fgvc does not write such a line; the message does not quote the line.
    """
    text = record.text(FILE)
    if len(text) > MAX_CHARACTERS:
        raise DamageError(f"{FILE}: {len(text)} characters, at most {MAX_CHARACTERS}: not shown")
    line = text.removesuffix("\n")
    if shell.UNSEEN.search(line):
        raise DamageError(f"{FILE}: has several lines or control characters: not shown")
    try:
        parts = shell.split(line)
    except ValueError:
        parts = []
    if parts[: len(PROGRAM)] != PROGRAM:
        raise DamageError(f"{FILE}: not a command of fgvc ({' '.join(PROGRAM)} …): not shown")
    if shell.command(parts) != line:
        raise DamageError(f"{FILE}: a shell would do more than run fgvc: not shown")
    return parts[len(PROGRAM) :]


def eval_command(checkpoint: str) -> str:
    """The command that measures the numbers again, from the images and ckpt.bin."""
    return shell.fgvc("task=eval", shell.override("checkpoint", checkpoint))
