"""The images per second of an extraction -> whether the machine was busy with other work.

`cost` in metrics.json and in the cache of costs holds a rate with the conditions under which it was
measured. Rates are compared only if their conditions are equal and no other work disturbed them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LOADED = 0.2  # of the usable cores kept busy by other processes; above, a rate is of a busy machine


@dataclass(frozen=True)
class MeasuredRate:
    """Images per second, and its conditions; None where they were not recorded.

    other_load: usable cores that other processes kept busy. load_average: of the last minute before
    the measurement, which includes earlier work of this process. threads: of all processes of the
    run on this machine. cores: that they may use.
    """

    images_per_s: float | None = None
    other_load: float | None = None
    load_average: float | None = None
    threads: int | None = None
    cores: int | None = None

    @property
    def is_loaded(self) -> bool:
        """Whether other processes took a share of the machine that slows the measurement."""
        if self.other_load is None or not self.cores:
            return False
        return self.other_load > LOADED * self.cores

    @property
    def load_note(self) -> str | None:
        """Why the rate is lower than that of an idle machine; None if it is not, or unknown."""
        if not self.is_loaded:
            return None
        return f"other processes used {self.other_load:.1f} of {self.cores} cores"


def from_cost(cost: Mapping[str, Any]) -> MeasuredRate:
    """The rate in the cost of a record, which an older version may have written."""
    return MeasuredRate(**{name: cost.get(name) for name in MeasuredRate.__dataclass_fields__})
