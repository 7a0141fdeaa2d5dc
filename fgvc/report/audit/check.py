"""A check function -> a line of the checklist: question, state and evidence.

A check takes a Record and returns its evidence. The function name is the id of the check, and the
first paragraph of its docstring is the question. A check fails by raising DamageError with one line
that names the file, and raises UncheckedError if it cannot be made.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fgvc.record.verify import DamageError
from fgvc.report.audit.record import Record
from fgvc.types import UserError
from fgvc.untrusted.escape import one_line

PASS, FAIL = "pass", "FAIL"
UNCHECKED = "not checked"
MISSING = "missing"  # absent, and not required
PERSON = "person"  # a named person must sign
TOLERANCE = 1e-9  # of floats, relative: logarithms differ between processors


class UncheckedError(Exception):
    """A check that cannot be made, with the reason: it needs other code or another environment."""


class Verdict(NamedTuple):
    state: str
    evidence: str


@dataclass(frozen=True)
class Result:
    id: str
    question: str
    state: str
    evidence: str


Check = Callable[[Record], str | Verdict]  # evidence alone: the check passed


def check_id(check: Check) -> str:
    """The stable id of a check, such as metrics-follow."""
    return check.__name__.replace("_", "-")


def run_check(check: Check, record: Record) -> Result:
    """Run one check. The check fails if it cannot read the record.

    Every exception counts, because a forger chooses the type and size of every value.
    """
    try:
        verdict = check(record)
        if isinstance(verdict, str):
            verdict = Verdict(PASS, verdict)
    except UncheckedError as error:
        verdict = Verdict(UNCHECKED, str(error))
    except (DamageError, UserError) as error:
        verdict = Verdict(FAIL, str(error))
    except Exception as error:
        kind = "lacks" if isinstance(error, KeyError) else f"{type(error).__name__}:"
        problem = one_line(f"{kind} {error}", 160)
        verdict = Verdict(FAIL, f"not a record that this version reads: {problem}")
    question = (inspect.getdoc(check) or "").partition("\n\n")[0].replace("\n", " ")
    return Result(check_id(check), question, verdict.state, one_line(verdict.evidence, 1000))


def outcome(results: Sequence[Result]) -> str:
    """The worst outcome among the results: failed, not checked or passed."""
    states = {result.state for result in results}
    if FAIL in states:
        return "failed"
    return UNCHECKED if UNCHECKED in states else "passed"


def join_names(names: list[str], most: int = 5) -> str:
    """The first few names, each shortened, and the number of the others."""
    names = [one_line(name, 100) for name in names]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def agree(what: str, *stated: tuple[str, object]) -> None:
    """Check that all sources state the same value.

    Raises:
        DamageError: two sources differ; the message names both.
    """
    (first, value), *others = stated
    for source, other in others:
        if other != value:
            problem = f"{what} is {_shorten(other)}, {first} says {_shorten(value)}"
            raise DamageError(f"{source}: {problem}")


def _shorten(value: object) -> str:
    text = one_line(value, 200)
    return text if len(text) <= 40 else f"{text[:16]}…"


def require_same(where: str, stored: Any, computed: Any) -> None:
    """Check a value of a record against the value that follows from other files, up to TOLERANCE.

    Raises:
        DamageError: at the first difference; `where` and the keys below it name the place.
    """
    if isinstance(computed, Mapping) and isinstance(stored, Mapping):
        if stored.keys() != computed.keys():
            raise DamageError(f"{where}: its keys differ from those that this version writes")
        for key, value in computed.items():
            require_same(f"{where} {key}", stored[key], value)
        return
    if isinstance(computed, list) and isinstance(stored, list) and len(stored) == len(computed):
        for place, value in enumerate(computed):
            require_same(f"{where} {place}", stored[place], value)
        return
    same = type(stored) is type(computed) and stored == computed
    if isinstance(computed, float) and isinstance(stored, int | float):
        same = math.isclose(stored, computed, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    if not same:
        raise DamageError(f"{where}: {_shorten(stored)}, recomputed {_shorten(computed)}")
