"""What an examination found -> a verdict, rows for a person, plain data for a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fgvc.types import UserError

ERROR, NOTE = "error", "note"
MAX_OFFENDERS = 10_000  # offenders that the JSON names of one finding; `count` is always the whole


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong (error) or worth knowing (note).

    check: which examination it comes from. says: what was seen, with the first offenders. mend:
    what to do about it. offenders: all of them, for the file.
    """

    severity: str
    check: str
    says: str
    mend: str
    offenders: tuple[str, ...] = ()


@dataclass(frozen=True)
class Examination:
    """A dataset on disk, examined. facts: what was measured, whatever is thought of it. caveat:
    what a sound copy of this dataset cannot measure, for the line of the verdict."""

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
        """wrong | partial (as declared, and nothing else wrong) | sound"""
        return "wrong" if self.wrong else "partial" if self.partial else "sound"

    def plain(self) -> dict[str, object]:
        """All of it as plain data: the same copy gives the same."""
        return {
            "dataset": self.name,
            "reader": self.reader,
            "root": self.root,
            "verdict": self.verdict,
            "partial": self.partial,
            "caveat": self.caveat,
            "findings": [_finding_as_dict(finding) for finding in self.findings],
            **self.facts,
        }


def errors_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Errors first, each kind in the order it was found."""
    return tuple(sorted(findings, key=lambda finding: finding.severity != ERROR))


def from_error(error: UserError, check: str, mend: str) -> Finding:
    """A refusal of another module as a finding: what it says, and the way out that it names.

    Args:
        mend: what to do where the refusal names no way out.
    """
    says, semicolon, way_out = str(error).rpartition("; ")
    return Finding(ERROR, check, says if semicolon else way_out, way_out if semicolon else mend)


def _finding_as_dict(finding: Finding) -> dict[str, object]:
    return {
        "severity": finding.severity,
        "check": finding.check,
        "says": finding.says,
        "mend": finding.mend,
        "count": len(finding.offenders),
        "offenders": list(finding.offenders[:MAX_OFFENDERS]),
    }
