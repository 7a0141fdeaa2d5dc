"""A suggestion, and the command that it is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fgvc.config.override_grammar import written


@dataclass(frozen=True)
class Advice:
    """A suggestion. overrides: complete words to write. note: further information.

    Without overrides, the note states why fgvc has no such setting.
    """

    overrides: tuple[str, ...] = ()
    note: str = ""

    def __str__(self) -> str:
        if not self.overrides:
            return self.note
        note = f" ({self.note})" if self.note else ""
        return f"write {' '.join(map(written, self.overrides))}{note}"


@dataclass(frozen=True)
class CommandContext:
    """A command. legal: keys of the chosen options. values: the values that it sets, by key."""

    legal: frozenset[str]
    task: str
    values: Mapping[str, str] = field(default_factory=dict)

    def number(self, key: str, default: int) -> int:
        """An integer that the command sets, or a default."""
        text = self.values.get(key, "")
        return int(text) if text.isdigit() and int(text) else default


def is_true(value: str) -> bool:
    """Whether a switch is on: `--amp` alone, `amp=true`, `amp=1`."""
    return value.strip().lower() not in ("false", "0", "no", "off", "none", "null")
