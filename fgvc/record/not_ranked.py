"""Reasons why a report does not rank a run beside plain runs, in the words of every output.

The decision is made by `comparability` (which runs share a key) and by
`report.aggregate_seeds.Line.why_unranked` (which lines of a key are not ranked).
"""

from __future__ import annotations

OVERLAP = "{images} of the {n} test images fitted or chose the head or the backbone"
CONTRADICTS = "its predictions differ from those of {folder}, the same checkpoint"
FORCED = "resumed by force under another config"
DEBUG = "a debugging run"
FITTED_ELSEWHERE = "fitted on other data"
# what follows from a reason: no place in any ranking, or a ranking apart from plain runs
UNRANKED = "the run is not ranked"
APART = "the run is not ranked beside plain runs"
