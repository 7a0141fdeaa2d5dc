"""Findings of an examination -> a verdict, and plain data for a JSON file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fgvc.data.index import list_first
from fgvc.types import UserError

ERROR, NOTE = "error", "note"
MAX_OFFENDERS = 10_000  # offenders per finding in the JSON; `count` counts all of them


@dataclass(frozen=True)
class Finding:
    """An error or a note.

    check: name of the check. message: names the first offenders. offenders: all of them.
    """

    severity: str
    check: str
    message: str
    fix: str
    offenders: tuple[str, ...] = ()


@dataclass(frozen=True)
class Examination:
    """The result of examining a dataset.

    facts: measured values. caveat: what even a sound copy cannot measure, printed with the verdict.
    """

    name: str
    reader: str
    root: str
    partial: bool
    findings: tuple[Finding, ...]
    facts: Mapping[str, object] = field(default_factory=dict)
    caveat: str | None = None

    @property
    def wrong(self) -> bool:
        return any(finding.severity == ERROR for finding in self.findings)

    @property
    def verdict(self) -> str:
        """wrong | partial (declared partial, no errors) | sound."""
        return "wrong" if self.wrong else "partial" if self.partial else "sound"

    def plain(self) -> dict[str, object]:
        """The examination as plain data, identical for identical copies."""
        return {
            "dataset": self.name,
            "reader": self.reader,
            "root": self.root,
            "verdict": self.verdict,
            "partial": self.partial,
            "caveat": self.caveat,
            "findings": [
                {
                    "severity": finding.severity,
                    "check": finding.check,
                    "says": finding.message,
                    "mend": finding.fix,
                    "offenders": list(finding.offenders[:MAX_OFFENDERS]),
                    "count": len(finding.offenders),
                }
                for finding in self.findings
            ],
            **self.facts,
        }


def about(
    offenders: Iterable[str], severity: str, check: str, message: str, fix: str, shown: int = 2
) -> list[Finding]:
    """A finding on the offenders; none without offenders.

    Args:
        message: `{count}` and `{first}` stand for the number of offenders and the first.
        shown: number of offenders in `{first}`.
    """
    names = tuple(offenders)
    text = message.replace("{count}", str(len(names))).replace("{first}", list_first(names, shown))
    return [Finding(severity, check, text, fix, names)] if names else []


def from_error(error: UserError, check: str, fix: str) -> Finding:
    """Turn an error into a finding: its message, and the fix after the last `; `, if any."""
    message, semicolon, advice = str(error).rpartition("; ")
    if not semicolon:
        return Finding(ERROR, check, str(error), fix)
    return Finding(ERROR, check, message, advice)
