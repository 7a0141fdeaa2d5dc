"""A function -> a line of the checklist: what it asks, its state, and the evidence.

A check is a function from Record to its evidence: its name is its id, the first paragraph of its
docstring the question. It fails by raising DamageError, in one line that names the file.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fgvc.record.verify import DamageError
from fgvc.report.audit.record import Record
from fgvc.types import UserError
from fgvc.untrusted.escape import one_line

PASS, FAIL = "pass", "FAIL"
UNCHECKED = "not checked"  # the check needs the record's own code or environment
MISSING = "missing"  # not there, and not asked for
PERSON = "person"  # no program can answer: a named human sign-off
OUTCOMES = ("failed", "not checked", "passed")  # of a whole audit, the worst first


class Verdict(NamedTuple):
    state: str
    evidence: str


@dataclass(frozen=True)
class Result:
    """One line of the checklist."""

    id: str
    question: str
    state: str
    evidence: str


Check = Callable[[Record], str | Verdict]  # evidence alone: it passed


def check_id(check: Check) -> str:
    """The stable id of a check, as metrics-follow."""
    return check.__name__.replace("_", "-")


def question(check: Check) -> str:
    """What it asks, as its docstring says."""
    return (inspect.getdoc(check) or "").partition("\n\n")[0].replace("\n", " ")


def run_check(check: Check, record: Record) -> Result:
    """Run one check; a record that it cannot read fails the check.

    Any exception counts: a forger chooses the types and sizes of every value.
    """
    try:
        found = check(record)
        verdict = Verdict(PASS, found) if isinstance(found, str) else found
    except (DamageError, UserError) as why:
        verdict = Verdict(FAIL, str(why))
    except Exception as error:
        what = (
            f"lacks {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
        )
        verdict = Verdict(FAIL, f"not a record that this version reads: {one_line(what, 160)}")
    return Result(check_id(check), question(check), verdict.state, one_line(verdict.evidence, 1000))


def outcome(results: Sequence[Result]) -> str:
    """The worst of OUTCOMES: failed where any check failed, passed where each was answered."""
    states = {result.state for result in results}
    failed, unchecked, passed = OUTCOMES
    return failed if FAIL in states else unchecked if UNCHECKED in states else passed


def join_names(names: list[str], most: int = 5) -> str:
    """The first few names, each cut, and the number of the rest."""
    names = [one_line(name, 100) for name in names]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def agree(what: str, *found: tuple[str, object]) -> None:
    """Raise DamageError unless every source says the same; names those that differ."""
    (first, value), *others = found
    for source, other in others:
        if other != value:
            raise DamageError(f"{source}: {what} is {_cut(other)}, {first} says {_cut(value)}")


def _cut(value: object) -> str:
    text = one_line(value, 200)
    return text if len(text) <= 40 else f"{text[:16]}…"
