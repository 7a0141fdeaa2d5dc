"""Retention files: content, reasons to keep a run, detection of changed bytes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from fgvc.record import retention
from fgvc.record.retention import RetentionError

CREATED = datetime(2026, 3, 1, 12, 0, 0, 5, tzinfo=UTC)
RETENTION = retention.new_retention(CREATED, 120, "a/b/c")


@pytest.fixture
def file(tmp_path):
    retention.write(tmp_path / retention.FILE, RETENTION)
    return tmp_path / retention.FILE


def test_what_is_written_is_read(file):
    assert retention.read(file) == RETENTION
    assert RETENTION.expires - RETENTION.created == timedelta(days=120)


@pytest.mark.parametrize(
    ("record", "now", "reason"),
    [
        (RETENTION, CREATED + timedelta(days=119), "kept until 2026-06-29 12:00 UTC"),
        (RETENTION, CREATED + timedelta(days=121), None),
        (RETENTION, CREATED - timedelta(seconds=1), "in the future"),
        (
            replace(RETENTION, pinned_by=("a release",)),
            CREATED + timedelta(days=999),
            "pinned by a rel",
        ),
        (
            replace(RETENTION, created=datetime(1970, 1, 1, tzinfo=UTC)),
            CREATED,
            "before fgvc existed",
        ),
        (
            replace(RETENTION, expires=CREATED),
            CREATED + timedelta(days=89),
            "kept until 2026-05-30",
        ),
        (replace(RETENTION, expires=CREATED), CREATED + timedelta(days=91), None),
    ],
)
def test_reasons_to_keep(record, now, reason):
    text = record.holds(now)
    assert text is None if reason is None else reason in text


@pytest.mark.fault(56)
def test_any_flipped_byte_is_detected(file):
    data = file.read_bytes()
    for place in range(len(data)):
        for bit in (1, 0x29):  # 0x29 turns a blank into a tab, which is valid JSON
            changed = bytearray(data)
            changed[place] ^= bit
            file.write_bytes(bytes(changed))
            with pytest.raises(RetentionError, match=r"^retention\.json: "):
                retention.read(file)


def test_pins_come_and_go_and_the_times_stay(file):
    retention.pin(file, "release 1")
    retention.pin(file, "a paper = 2")
    retention.pin(file, "release 1")
    assert retention.read(file) == replace(RETENTION, pinned_by=("release 1", "a paper = 2"))
    retention.unpin(file, "release 1")
    retention.unpin(file, "a paper = 2")
    assert retention.read(file) == RETENTION


def test_a_missing_file_is_reported(tmp_path):
    with pytest.raises(RetentionError, match=r"retention\.json: missing"):
        retention.read(tmp_path / retention.FILE)
