"""command.txt: the command of a run; for a job of a sweep, the command of its sweep in a comment.

The first line, typed again, is this run: of a job it has the overrides of this job alone.
"""

from __future__ import annotations

FILE = "command.txt"
SWEEP = "# a job of: "  # before the command of the sweep


def join(own: str, sweep: str | None) -> str:
    """The text of the file without its final line break."""
    return own if sweep is None else f"{own}\n{SWEEP}{sweep}"


def split(text: str) -> tuple[str, str | None]:
    """The command of the run, and the command of its sweep; None: not a job of a sweep.

    Text of any other form is the first of the two, with its line breaks.
    """
    line = text.removesuffix("\n")
    own, mark, sweep = line.partition(f"\n{SWEEP}")
    return (own, sweep) if mark else (line, None)
