"""Reasons and the stamp of a run -> badges: what qualifies its numbers, on every page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fgvc.record.comparability import Reason
from fgvc.record.console import TEST_MARKS

UNKNOWN = "not recorded"


@dataclass(frozen=True)
class Badge:
    """A warning or note beside a number. kind: warn | note."""

    text: str
    title: str
    kind: str = "note"


def reason_badges(reasons: Iterable[Reason]) -> list[Badge]:
    """Why a report does not rank the run beside plain runs."""
    return [Badge(reason.badge, reason.sentence, "warn") for reason in reasons]


def stamp_badges(stamp: Mapping[str, Any], backbone_contamination: str) -> Iterator[Badge]:
    """Properties of the run that qualify its numbers.

    Args:
        stamp: env_stamp.json. backbone_contamination: what the pretrained weights may have seen.
    """
    card, test_source = stamp["dataset_card"], stamp["test_source"]
    keys = ("split", "contamination", "label_noise")
    split, contamination, label_noise = (card.get(key, UNKNOWN) for key in keys)
    if stamp["partial"]:
        notes = ("a part of the dataset", *stamp["dataset_notes"])
        yield Badge("partial copy", "; ".join(notes), "warn")
    if (subset := stamp["subset"]) is not None:
        yield Badge(f"subset {subset['name']}", f"a smoke test, dataset.subset: {subset}", "warn")
    if test_source in TEST_MARKS:
        yield Badge(
            TEST_MARKS[test_source], f"the dataset has no separate test split: {split}", "warn"
        )
    if stamp["weights"]["kind"] == "random":
        yield Badge("random weights", "the backbone was not pretrained", "warn")
    elif _is_warning(contamination):
        yield Badge("contamination", f"weights: {backbone_contamination} data: {contamination}")
    if _is_warning(label_noise):
        yield Badge("label noise", label_noise)
    if stamp["git_dirty"]:
        yield Badge("uncommitted code", "the commit alone is not this code; see code.patch", "warn")
    if stamp.get("stack_check") == "skipped":
        yield Badge("stack not validated", "runtime.stack_check=false", "warn")


def _is_warning(about: str) -> bool:
    """Whether a line of a dataset card is a warning; without a warning it begins with "none"."""
    return about != UNKNOWN and not about.startswith("none")
