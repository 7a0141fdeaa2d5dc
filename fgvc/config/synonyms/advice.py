"""What a suggestion is, and what is known of the command that it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fgvc.config.suggested_override import written


@dataclass(frozen=True)
class Advice:
    """A suggestion. overrides: what to write, complete; note: what else to know of it.

    Without overrides the note alone is the answer: fgvc has no such setting, and why.
    """

    overrides: tuple[str, ...] = ()
    note: str = ""

    def __str__(self) -> str:
        if not self.overrides:
            return self.note
        note = f" ({self.note})" if self.note else ""
        return f"write {' '.join(map(written, self.overrides))}{note}"


@dataclass(frozen=True)
class Asked:
    """A command. legal: keys of the chosen options. given: the values that it sets, by key."""

    legal: frozenset[str]
    task: str
    given: Mapping[str, str] = field(default_factory=dict)

    def number(self, key: str, otherwise: int) -> int:
        """A whole number that the command sets, or another where it sets none."""
        text = self.given.get(key, "")
        return int(text) if text.isdigit() and int(text) else otherwise


def is_true(value: str) -> bool:
    """Whether a switch is on: `--amp` alone, `amp=true`, `amp=1`."""
    return value.strip().lower() not in ("false", "0", "no", "off", "none", "null")
