"""Passed checks -> specs/stack.json, one entry per platform and Python -> README's table."""

from __future__ import annotations

from collections.abc import Sequence
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
    """The checked-in records, and the README that shows them.

    Raises:
        UserError: `root` is no checkout, so there is nothing to record in.
    """
    readme = root / "README.md"
    if not readme.is_file() or OPENING not in untrusted.read_text(readme):
        raise UserError("task.record=true: needs a checkout of fgvc; leave it out elsewhere")
    return root / "specs" / "stack.json", readme


def publish(record: dict[str, Any], root: Path) -> None:
    """Enter a passed check in place of an earlier one of its kind, and redraw README's table.

    Raises:
        UserError: as `places`.
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
    """The checked-in records; none where the file is not there yet.

    Raises:
        UserError: the file is damaged.
    """
    specs = root / "specs" / "stack.json"
    try:
        records = read_json(specs)
        _ = table(records), [_kind(record) for record in records]  # have all that is shown
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split()).removeprefix(f"{specs}: ")
        raise UserError(
            f"{specs}: damaged ({reason}); restore it with git checkout -- specs/stack.json"
        ) from error
    return records


def merge(records: Sequence[dict[str, Any]], new: dict[str, Any]) -> list[dict[str, Any]]:
    """The records with `new` among them, sorted; of one platform and Python the newer stays."""
    by_kind = {_kind(record): record for record in sorted([*records, new], key=_checked)}
    return [by_kind[kind] for kind in sorted(by_kind)]


def table(records: Sequence[dict[str, Any]]) -> str:
    """A Markdown table, one row a record."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for record in records:
        shown = {**record, "checked": _checked(record)[:10]}
        lines.append(f"| {' | '.join(markdown(shown[key] or '–') for key in COLUMNS.values())} |")
    return "\n".join(lines)


def insert_table(readme: str, records: Sequence[dict[str, Any]]) -> str:
    """README with the table of these records between its two markers."""
    before, _, rest = readme.partition(OPENING)
    _, _, after = rest.partition(CLOSING)
    return f"{before}{OPENING}\n{table(records)}\n{CLOSING}{after}"


def _kind(record: dict[str, Any]) -> tuple[str, tuple[int, ...]]:
    minor = tuple(int(part) for part in record["python_version"].split(".")[:2])
    return record["platform"], minor


def _checked(record: dict[str, Any]) -> str:
    return record["checked"]
