"""command.txt of a record -> its words, or why the line is not shown.

A forger may write anything there. A line is shown only if pasting it runs `python -m fgvc.run` and
nothing else: it is split into words as a shell splits it, and the words, quoted again, give the
very same line.
"""

from __future__ import annotations

from fgvc.record.verify import DamageError
from fgvc.report.audit.record import Record
from fgvc.untrusted import shell

FILE = "command.txt"
PROGRAM = list(shell.PROGRAM)
MOST = 100_000  # characters; Linux itself allows 131,072 bytes for one argument


def words(record: Record) -> list[str]:
    """The arguments of the recorded command.

    Raises:
        DamageError: fgvc does not write such a line; the message does not repeat it.
    """
    text = record.text(FILE)
    if len(text) > MOST:
        raise DamageError(f"{FILE}: {len(text)} characters, at most {MOST}: not shown")
    line = text.removesuffix("\n")
    if shell.UNSEEN.search(line):
        raise DamageError(f"{FILE}: several lines or control characters: not shown")
    try:
        parts = shell.split(line)
    except ValueError:
        parts = []
    if parts[: len(PROGRAM)] != PROGRAM:
        raise DamageError(f"{FILE}: no command of fgvc ({' '.join(PROGRAM)} …): not shown")
    if shell.command(parts) != line:
        raise DamageError(f"{FILE}: a shell would do more than run fgvc: not shown")
    return parts[len(PROGRAM) :]


def checked_command(record: Record) -> str:
    """The recorded command as a line that may be pasted into a shell; raises as `words`."""
    return shell.fgvc(*words(record))


def eval_command(checkpoint: str) -> str:
    """The command that measures the numbers again, from the images and ckpt.bin."""
    return shell.fgvc("task=eval", shell.override("checkpoint", checkpoint))
