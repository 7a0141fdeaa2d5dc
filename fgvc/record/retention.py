"""Creation and earliest deletion of a run or table -> a small JSON file.

The file holds its own checksum and identifies its run or table.

The times are recorded at creation; the file system's times are not used, because copying changes
them. A pin stays until it is removed.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace
from pathlib import Path

from fgvc import untrusted
from fgvc.store import atomic

FILE = "retention.json"
SHORTEST = 90  # days; the recorded time may be longer, never shorter
FIRST = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)  # an earlier clock was wrong


class RetentionError(ValueError):
    """A retention file cannot be read; the message is one line and begins with the file's name."""


@dataclass(frozen=True)
class Retention:
    """The retention of a run or table.

    created, expires: UTC. of: run_id/config_hash/checkpoint_id of a run, or the SHA256 of a table's
    JSON. pinned_by: reasons to keep it after it expires.
    """

    created: datetime.datetime
    expires: datetime.datetime
    of: str
    pinned_by: tuple[str, ...] = ()

    @property
    def due(self) -> datetime.datetime:
        """When it may be deleted: at the recorded expiry, but not before SHORTEST days."""
        return max(self.expires, self.created + datetime.timedelta(days=SHORTEST))

    def holds(self, now: datetime.datetime) -> str | None:
        """Why it must be kept at this time, in a few words; None if it may be deleted."""
        if self.pinned_by:
            return f"pinned by {', '.join(self.pinned_by)}"
        if self.created > now:
            return f"made in the future ({_minute(self.created)}): a clock was wrong"
        if self.created < FIRST:
            return f"made before fgvc existed ({_minute(self.created)}): a clock was wrong"
        return f"kept until {_minute(self.due)}" if now < self.due else None


def new_retention(created: datetime.datetime, days: int, of: str) -> Retention:
    """The retention of a new run or table; of: as in Retention."""
    return Retention(created, created + datetime.timedelta(days=days), of)


def write(file: Path, retention: Retention) -> None:
    plain = {
        "created": retention.created.isoformat(),
        "expires": retention.expires.isoformat(),
        "of": retention.of,
        "pinned": bool(retention.pinned_by),
        "pinned_by": list(retention.pinned_by),
    }
    atomic.write_checked_json(file, plain)


def read(file: Path) -> Retention:
    """Read a file written by `write`.

    Raises:
        RetentionError: the file is missing or changed.
    """
    try:
        plain = atomic.parse_checked_json(untrusted.read_bytes(file, untrusted.MIB))
        created, expires = (_utc(plain[name]) for name in ("created", "expires"))
        of, pinned_by = plain["of"], plain["pinned_by"]
        if not (isinstance(of, str) and isinstance(pinned_by, list)):
            raise ValueError("of: a text, pinned_by: a list")
        return Retention(created, expires, of, tuple(map(str, pinned_by)))
    except FileNotFoundError as error:
        raise RetentionError(f"{file.name}: missing") from error
    except OSError as error:
        raise RetentionError(f"{file.name}: unreadable ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise RetentionError(f"{file.name}: damaged ({reason[:80]})") from error


def read_for(file: Path, of: str, created: str | None = None) -> Retention:
    """The retention of a certain run or table.

    Args:
        of: as in Retention.
        created: the creation time that another file records; None: not compared.

    Raises:
        RetentionError: as `read`, or the file belongs to another run or table.
    """
    retention = read(file)
    if retention.of != of:
        raise RetentionError(f"{file.name}: of another run or table ({retention.of}, not {of})")
    if created is not None and retention.created.isoformat() != created:
        recorded = retention.created.isoformat()
        raise RetentionError(f"{file.name}: created {recorded}, but status.json says {created}")
    return retention


def pin(file: Path, reason: str) -> None:
    """Add a reason to keep the run or table; raises RetentionError as `read`."""
    retention = read(file)
    write(file, replace(retention, pinned_by=tuple(dict.fromkeys((*retention.pinned_by, reason)))))


def unpin(file: Path, reason: str) -> None:
    """Remove a reason to keep the run or table; raises RetentionError as `read`."""
    retention = read(file)
    reasons = tuple(text for text in retention.pinned_by if text != reason)
    write(file, replace(retention, pinned_by=reasons))


def _utc(text: str) -> datetime.datetime:
    time = datetime.datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return time.astimezone(datetime.UTC)


def _minute(time: datetime.datetime) -> str:
    return f"{time.astimezone(datetime.UTC):%Y-%m-%d %H:%M} UTC"
