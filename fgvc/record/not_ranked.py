"""The facts of a run -> the reasons why a report does not rank it, in the words of every output.

`comparability` decides which runs share a key; a reason that is part of the key ranks its runs
apart. The other reasons leave a run of a key without a place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fgvc.record.comparability import Comparability

UNRANKED, APART = "not ranked", "not ranked beside plain runs"


@dataclass(frozen=True)
class Reason:
    """Why a report does not rank a run beside plain runs.

    badge: the reason in a few words. text: the reason in full. apart: whether the run is ranked
    apart, among runs of the same kind; otherwise it has no place in any ranking.
    """

    badge: str
    text: str
    apart: bool = True

    @property
    def sentence(self) -> str:
        """What follows from the reason, and the reason in full."""
        return f"{APART if self.apart else UNRANKED}: {self.text}"


def reasons(numbers: Mapping[str, Any], parts: Comparability) -> Iterator[Reason]:
    """The reasons that a run's own record holds.

    Args:
        numbers: metrics.json. parts: its comparability, as recorded or recomputed.
    """
    overlap = numbers.get("overlap") or {}
    if images := overlap.get("images"):
        n, fitted = numbers["test"]["n"], "the head"
        if earlier := overlap.get("backbone"):
            fitted = f"the head or, in earlier runs, the backbone ({earlier})"
        yield Reason(
            f"fitted or chosen on {images} of {n} test images",
            f"{images} of the {n} test images fitted or chose {fitted}",
            apart=False,
        )
    if parts.forced:
        lost = "best_lost" in (numbers.get("resumed") or {})
        how = "without its best weights" if lost else "under another config"
        yield Reason("forced resume", f"resumed by force {how}")
    if parts.debug is not None:
        yield Reason(f"debug: {parts.debug}", f"a debugging run, task.debug={parts.debug}")
    if parts.fitted_elsewhere:
        text = f"fitted on other data ({parts.fitted_data[:8]})"
        yield Reason(text, text)


def contradiction(folder: str) -> Reason:
    """The reason of an evaluation whose predictions differ from those of the run in `folder`."""
    text = f"its predictions differ from those of {folder}, the same checkpoint"
    return Reason("other predictions", text, apart=False)
