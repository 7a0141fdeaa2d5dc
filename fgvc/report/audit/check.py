"""A function -> a line of the checklist: what it asks, its state, and the evidence.

A check is a function from Record to its evidence: its name is its id, the first paragraph of its
docstring the question. It fails by raising DamageError, in one line that names the file.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from fgvc.report.audit.record import Record
from fgvc.report.sealed import DamageError
from fgvc.types import UserError

PASS, FAIL = "pass", "FAIL"
MISSING = "missing"  # not there, and not asked for
PERSON = "person"  # no program can answer: a named human sign-off


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


def identity(check: Check) -> str:
    """The stable id of a check, as metrics-follow."""
    return check.__name__.replace("_", "-")


def question(check: Check) -> str:
    """What it asks, as its docstring says."""
    return (inspect.getdoc(check) or "").partition("\n\n")[0].replace("\n", " ")


def answered(check: Check, record: Record) -> Result:
    """Ask one check; a record that it cannot read is a failure of the record."""
    try:
        found = check(record)
        verdict = Verdict(PASS, found) if isinstance(found, str) else found
    except (DamageError, UserError) as why:
        verdict = Verdict(FAIL, str(why))
    except (KeyError, TypeError, AttributeError, ValueError, IndexError, OSError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        verdict = Verdict(FAIL, f"not a record that this version reads: {what}")
    return Result(identity(check), question(check), *verdict)


def listed(names: list[str], most: int = 5) -> str:
    """The first few, and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def agree(what: str, *found: tuple[str, object]) -> None:
    """Raise DamageError unless every source says the same; names those that differ."""
    (first, value), *others = found
    for source, other in others:
        if other != value:
            raise DamageError(f"{source}: {what} is {_cut(other)}, {first} says {_cut(value)}")


def _cut(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:16]}…"
