"""The run folders of one sweep -> its closing table: what is done, what failed, what came out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgvc.record import console
from fgvc.record.folder import IN_PROGRESS, read_json

COLUMNS = ("run", "top-1 [95 %]", "per class", "images/s", "state")


@dataclass(frozen=True)
class Row:
    """One job of a sweep. metrics, stamp: None for a job that has not ended well."""

    name: str
    state: str
    folder: Path
    metrics: dict[str, Any] | None = None
    stamp: dict[str, Any] | None = None

    @property
    def top1(self) -> float:
        return self.metrics["test"]["top1"] if self.metrics else -1.0

    @property
    def comparability(self) -> str | None:
        """Rows of different keys are never ranked together."""
        return self.metrics["comparability_key"] if self.metrics else None


def rows_of(run: Path) -> list[Row]:
    """Every job under outputs/{run_id}, best first within a comparability key, failures last."""
    rows = [_row(status.parent) for status in sorted(run.glob("*/*/status.json"))]
    return sorted(rows, key=lambda row: (row.comparability or "~", -row.top1, row.name))


def print_sweep(run: Path) -> None:
    """The table of a sweep on the terminal, one block per comparability key."""
    rows = rows_of(run)
    keys = list(dict.fromkeys(row.comparability for row in rows if row.comparability))
    for key in keys:
        block = [row for row in rows if row.comparability == key]
        console.table(f"comparable ({key[:8]})", COLUMNS, [_cells(row) for row in block])
    for row in rows:
        if row.metrics is None:
            console.say(f"{row.state}: {row.name} ({row.folder})")
    stamps = [row.stamp for row in rows if row.stamp]
    for dataset, card in {stamp["dataset"]: stamp["dataset_card"] for stamp in stamps}.items():
        console.provenance(dataset, card)
    console.say(f"records: {run}")


def _row(folder: Path) -> Row:
    status = read_json(folder, "status.json")
    name = _name(folder)
    if folder.name == IN_PROGRESS:
        return Row(name, f"{status['state']}, {status['error']}", folder)
    metrics, stamp = read_json(folder, "metrics.json"), read_json(folder, "env_stamp.json")
    state = "partial copy" if stamp["partial"] else status["state"]
    return Row(name, state, folder, metrics, stamp)


def _name(folder: Path) -> str:
    """The choices of a run in one short line."""
    from omegaconf import OmegaConf

    conf = OmegaConf.load(folder / "config.yaml")
    weights = "" if conf.backbone.pretrained else " random"
    parts = (
        f"{conf.backbone.name} {conf.backbone.size}{weights}",
        conf.head.name,
        f"{conf.resolution.side} px",
        conf.dataset.name,
    )
    return " · ".join(parts)


def _cells(row: Row) -> list[str]:
    assert row.metrics is not None
    test, cost = row.metrics["test"], row.metrics["cost"]
    rate = f"{cost['images_per_s']:.0f}" if cost["images_per_s"] else "–"
    mean = console.percent(test["mean_per_class"])
    return [row.name, console.interval(test), mean, rate, row.state]
