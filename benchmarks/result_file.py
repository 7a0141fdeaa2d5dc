"""Rows of the groups that ran -> benchmarks/results/DATE-MACHINE.json.

The file of a day and a machine keeps the groups of earlier commands, so that groups can be measured
one by one. Each group holds the commit that it measured.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks import machine
from benchmarks.side_by_side import Row

FOLDER = Path(__file__).parent / "results"


@dataclass
class GroupResult:
    """What a group measured. error: why it ended early; its earlier rows are kept."""

    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)
    error: str | None = None


def write(results: Mapping[str, GroupResult], images: str, folder: Path = FOLDER) -> Path:
    """Add the results to the file of this day and machine, and return it.

    Args:
        images: description of the images that were measured.
    """
    facts, commit = machine.describe(), machine.commit()
    name = re.sub(r"[^a-z0-9]+", "-", f"{facts['cpu']}-{facts['cores']}-cores".lower()).strip("-")
    file = folder / f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}-{name}.json"
    groups = json.loads(file.read_bytes())["groups"] if file.is_file() else {}
    for group, result in results.items():
        groups[group] = {
            "commit": commit,
            "images": images,
            "seconds": round(result.seconds, 1),
            "error": result.error,
            "rows": _plain_rows(result.rows),
        }
    folder.mkdir(exist_ok=True)
    file.write_text(json.dumps({"machine": facts, "groups": groups}, indent=1) + "\n")
    return file


def _plain_rows(rows: Sequence[Row]) -> list[dict[str, object]]:
    return [
        {**asdict(row), "value": float(f"{row.value:.4g}"), "met": bool(row.met)} for row in rows
    ]
