"""The record of a finished run -> its summary on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fgvc.config.schema import Config
from fgvc.html.formats import interval, number, percent
from fgvc.pipeline import localization
from fgvc.record import console
from fgvc.record.comparability import Comparability
from fgvc.record.not_ranked import reasons
from fgvc.types import Dataset


def print_summary(
    conf: Config, dataset: Dataset, stack_check: str, record: Mapping[str, Any], folder: Path
) -> None:
    """Print the numbers of a run, the notes on them, its cost and its folder.

    Args:
        stack_check: as in the environment stamp. record: as in metrics.json.
        folder: of the sealed run.
    """
    splits = [name for name in ("val", "test") if name in record]
    if (reads := record["test_reads"]) > 1:
        console.say(
            f"note: the test split was read {reads} times: an earlier process of this run stopped "
            "before its record was whole"
        )
    if stack_check == "skipped":
        console.say("note: runtime.stack_check=false, this stack was not validated")
    rows = [["top-1 [95 %]", *(interval(record[name]) for name in splits)]]
    rows.append(["top-5", *(percent(record[name]["top5"]) for name in splits)])
    for label, key in (("mean per class", "mean_per_class"), ("macro-F1", "macro_f1")):
        rows.append([f"{label} [95 %]", *(interval(record[name], key) for name in splits)])
    rows.append(["calibration error", *(percent(record[name]["ece"]) for name in splits)])
    rows.append(["loss (nats)", *(number(record[name]["loss"]) for name in splits)])
    rows.append(["images", *(str(record[name]["n"]) for name in splits)])
    console.table(_title(conf, dataset), ["%", *splits], rows)
    for note in record["notes"]:
        console.say(f"note: {note}")
    for name in splits:
        if record[name]["intervals_note"] is not None:
            console.say(f"note: {name}: {record[name]['intervals_note']}")
    for reason in reasons(record, Comparability(**record["comparability"])):
        console.say(f"note: {reason.sentence}")
    localization.print_localization(record)
    console.say(_cost_line(record["cost"]))
    console.provenance(dataset.name, dataset.card)
    console.say(f"record: {folder}")


def _title(conf: Config, dataset: Dataset) -> str:
    weights_note = "" if conf.backbone.pretrained else ", random weights"
    partial = ", PARTIAL COPY" if dataset.partial else ""
    subset = f", SUBSET {dataset.subset['name']}" if dataset.subset else ""
    return (
        f"{conf.backbone.name} {conf.backbone.size}{weights_note} · {conf.head.name} · "
        f"{conf.resolution.side} px · "
        f"{dataset.name} ({len(dataset.labelmap)} classes{partial}{subset}"
        f"{console.test_mark(dataset.test_source)})"
    )


def _cost_line(cost: Mapping[str, Any]) -> str:
    parts = []
    if cost["parameters"]:
        parts.append(f"{cost['parameters'] / 1e6:.1f} M parameters")
        parts.append(f"{cost['macs'] / 1e9:.2f} GMAC per image")
        if cost["images_per_s"] is not None:  # None if a process was killed before it was stored
            parts.append(f"{cost['images_per_s']:.0f} images/s in evaluation")
    parts.append(f"{cost['forwarded']} images forwarded now, {cost['seconds']:.1f} s in all")
    return "cost: " + ", ".join(parts)
