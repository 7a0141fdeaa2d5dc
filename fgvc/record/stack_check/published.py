"""Passed checks -> specs/stack.json, one entry per platform and Python -> README's table."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from fgvc import untrusted
from fgvc.store import atomic, temporary_files
from fgvc.types import UserError
from fgvc.untrusted import read_json
from fgvc.untrusted.escape import markdown

OPENING, CLOSING = "<!-- stack -->", "<!-- /stack -->"
COLUMNS = {
    "platform": "platform",
    "Python": "python_version",
    "torch": "torch_version",
    "timm": "timm_version",
    "transformers": "transformers_version",
    "open_clip": "open_clip_version",
    "TensorBoard": "tensorboard_version",
    "FiftyOne": "fiftyone_version",
    "checked": "checked",
}


def locate(root: Path) -> tuple[Path, Path]:
    """The file of the checked-in records, and the README that shows them.

    Raises:
        UserError: `root` is not a checkout.
    """
    readme = root / "README.md"
    if not readme.is_file() or OPENING not in untrusted.read_text(readme):
        raise UserError("task.record=true: needs a checkout of fgvc. Leave task.record out")
    return root / "specs" / "stack.json", readme


def publish(record: dict[str, Any], root: Path) -> None:
    """Record a passed check, and update README's table.

    The record replaces an earlier record of the same platform and Python.

    Raises:
        UserError: as `locate`.
        OSError: the disk refuses.
    """
    assert record["passed"]
    specs, readme = locate(root)
    records = merge(read_records(root), record)
    for folder in (specs.parent, root):
        temporary_files.remove_stale(folder)
    atomic.write_json(specs, records)
    atomic.write_text(readme, insert_table(untrusted.read_text(readme), records))


def read_records(root: Path) -> list[dict[str, Any]]:
    """The checked-in records; empty if the file does not exist yet.

    Raises:
        UserError: the file is damaged.
    """
    specs = root / "specs" / "stack.json"
    try:
        records = read_json(specs)
        _ = table(records), [_kind(record) for record in records]  # checks all fields
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split()).removeprefix(f"{specs}: ")
        raise UserError(
            f"{specs}: damaged ({reason}); restore it with git checkout -- specs/stack.json"
        ) from error
    return records


def merge(records: Sequence[dict[str, Any]], new: dict[str, Any]) -> list[dict[str, Any]]:
    """The records with `new`, sorted; the newest record per platform and Python."""
    by_date = sorted([*records, new], key=itemgetter("checked"))
    by_kind = {_kind(record): record for record in by_date}
    return [by_kind[kind] for kind in sorted(by_kind)]


def table(records: Sequence[dict[str, Any]]) -> str:
    """A Markdown table with one row per record."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for record in records:
        cells = {**record, "checked": record["checked"][:10]}
        lines.append(f"| {' | '.join(markdown(cells[key] or '–') for key in COLUMNS.values())} |")
    return "\n".join(lines)


def insert_table(readme: str, records: Sequence[dict[str, Any]]) -> str:
    """README with the table of these records between its two markers."""
    before, _, rest = readme.partition(OPENING)
    _, _, after = rest.partition(CLOSING)
    return f"{before}{OPENING}\n{table(records)}\n{CLOSING}{after}"


def _kind(record: dict[str, Any]) -> tuple[str, tuple[int, ...]]:
    version = tuple(int(part) for part in record["python_version"].split(".")[:2])
    return record["platform"], version
