"""specs/stack.json and README's table: one entry a platform and Python, one source for both."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest

from fgvc.record.stack_check import published
from fgvc.types import UserError

ROOT = Path(__file__).resolve().parents[2]
README = "# bird\n\n<!-- stack -->\nold\n<!-- /stack -->\n\nend\n"


def record(python: str = "3.11.7", platform: str = "Linux x86_64", day: int = 1, **more: object):
    versions = dict.fromkeys(published.COLUMNS.values(), "1.0")
    return {
        **versions,
        "passed": True,
        "platform": platform,
        "python_version": python,
        "checked": f"2026-01-{day:02d}T10:00:00Z",
        **more,
    }


@pytest.fixture
def checkout(tmp_path) -> Path:
    (tmp_path / "README.md").write_text(README)
    return tmp_path


def test_readme_shows_the_records_that_are_checked_in():
    records = published.read_records(ROOT)
    assert len(records) >= 1
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert published.insert_table(readme, records) == readme
    assert all(entry["passed"] for entry in records)


def test_the_checked_in_records_name_no_host_and_no_path():
    text = (ROOT / "specs" / "stack.json").read_text(encoding="utf-8")
    assert re.search(r'"[^"]*(/home/|/root|/work|/tmp|/Users/|\\\\)', text) is None
    assert socket.gethostname() not in text.replace("localhost", "")


def test_a_newer_check_takes_the_place_of_its_kind_only():
    old = [record(day=1), record("3.12.1", day=1), record(platform="Darwin arm64")]
    new = published.merge(old, record("3.11.9", day=2))
    assert [(one["platform"], one["python_version"]) for one in new] == [
        ("Darwin arm64", "3.11.7"),
        ("Linux x86_64", "3.11.9"),
        ("Linux x86_64", "3.12.1"),
    ]
    assert published.merge(new, record("3.11.2", day=1)) == new  # an older one brings nothing


def test_python_minors_sort_as_numbers():
    both = published.merge([record("3.10.1")], record("3.9.1"))
    assert [one["python_version"] for one in both] == ["3.9.1", "3.10.1"]


def test_publishing_writes_both_and_leaves_the_rest_of_readme(checkout):
    published.publish(record(timm_version=None), checkout)
    published.publish(record("3.12.1", day=3), checkout)
    specs = json.loads((checkout / "specs" / "stack.json").read_text())
    assert [one["python_version"] for one in specs] == ["3.11.7", "3.12.1"]
    text = (checkout / "README.md").read_text()
    assert text.startswith("# bird\n\n<!-- stack -->\n| platform | Python |")
    assert text.endswith("|\n<!-- /stack -->\n\nend\n")
    assert "old" not in text
    assert "| Linux x86_64 | 3.11.7 | 1.0 | – |" in text
    assert "| 2026-01-03 |" in text


def test_outside_a_checkout_it_is_refused(tmp_path):
    for readme in (None, "a README of something else\n"):
        if readme is not None:
            (tmp_path / "README.md").write_text(readme)
        with pytest.raises(UserError, match=r"task\.record=true: needs a checkout"):
            published.publish(record(), tmp_path)
        assert not (tmp_path / "specs").exists()
