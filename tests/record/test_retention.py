"""Retention: what is recorded, what holds a thing back, and that a changed byte is noticed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from fgvc.record import retention
from fgvc.record.retention import UnreadableError

MADE = datetime(2026, 3, 1, 12, 0, 0, 5, tzinfo=UTC)
KEPT = retention.new_retention(MADE, 120, "a/b/c")


@pytest.fixture
def file(tmp_path):
    retention.write(tmp_path / retention.FILE, KEPT)
    return tmp_path / retention.FILE


def test_what_is_written_is_read(file):
    assert retention.read(file) == KEPT
    assert KEPT.expires - KEPT.created == timedelta(days=120)


@pytest.mark.parametrize(
    ("kept", "now", "why"),
    [
        (KEPT, MADE + timedelta(days=119), "kept until 2026-06-29 12:00 UTC"),
        (KEPT, MADE + timedelta(days=121), None),
        (KEPT, MADE - timedelta(seconds=1), "in the future"),
        (replace(KEPT, pinned_by=("a release",)), MADE + timedelta(days=999), "pinned by a rel"),
        (replace(KEPT, created=datetime(1970, 1, 1, tzinfo=UTC)), MADE, "before fgvc was"),
        (replace(KEPT, expires=MADE), MADE + timedelta(days=89), "kept until 2026-05-30"),
        (replace(KEPT, expires=MADE), MADE + timedelta(days=91), None),
    ],
)
def test_what_holds_it(kept, now, why):
    found = kept.holds(now)
    assert found is None if why is None else why in found


@pytest.mark.fault(56)
def test_any_flipped_byte_is_noticed(file):
    data = file.read_bytes()
    for place in range(len(data)):
        for bit in (1, 0x29):  # 0x29: a blank becomes a tab, which JSON would not mind
            changed = bytearray(data)
            changed[place] ^= bit
            file.write_bytes(bytes(changed))
            with pytest.raises(UnreadableError, match=r"^retention\.json: "):
                retention.read(file)


def test_pins_come_and_go_and_the_times_stay(file):
    retention.pin(file, "release 1")
    retention.pin(file, "a paper = 2")
    retention.pin(file, "release 1")
    assert retention.read(file) == replace(KEPT, pinned_by=("release 1", "a paper = 2"))
    retention.unpin(file, "release 1")
    retention.unpin(file, "a paper = 2")
    assert retention.read(file) == KEPT


def test_a_missing_one_says_so(tmp_path):
    with pytest.raises(UnreadableError, match=r"retention\.json: missing"):
        retention.read(tmp_path / retention.FILE)
