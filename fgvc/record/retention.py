"""When a run or table was made and how long it is kept at least -> a small JSON file.

The file holds its own checksum and names the run or table that it belongs to.

Times are those that were recorded when it was made, never those of the file system, which a copy
changes. A pin has no end: whoever pinned it takes it back.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace
from pathlib import Path

from fgvc import untrusted
from fgvc.store import atomic, hashing

FILE = "retention.json"
SHORTEST = 90  # days; what is recorded may be longer, never shorter
FIRST = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)  # an earlier clock was wrong


class UnreadableError(ValueError):
    """Why a retention file says nothing; one line that begins with the file's name."""


@dataclass(frozen=True)
class Retention:
    """created, expires: UTC. of: what the file belongs to, run_id/config_hash/checkpoint_id of a
    run or the SHA256 of a table's JSON. pinned_by: why it stays beyond its time, one text per
    reason."""

    created: datetime.datetime
    expires: datetime.datetime
    of: str
    pinned_by: tuple[str, ...] = ()

    @property
    def due(self) -> datetime.datetime:
        """From when it may go: the recorded expiry, but no sooner than SHORTEST days allow."""
        return max(self.expires, self.created + datetime.timedelta(days=SHORTEST))

    def holds(self, now: datetime.datetime) -> str | None:
        """Why it stays at that moment, in a few words; None where its time is over."""
        if self.pinned_by:
            return f"pinned by {', '.join(self.pinned_by)}"
        if self.created > now:
            return f"made in the future ({_minute(self.created)}): a clock was wrong"
        if self.created < FIRST:
            return f"made before fgvc was ({_minute(self.created)}): a clock was wrong"
        return f"kept until {_minute(self.due)}" if now < self.due else None


def new_retention(created: datetime.datetime, days: int, of: str) -> Retention:
    """Retention of a run or table that is made at that moment; of: as in Retention."""
    return Retention(created, created + datetime.timedelta(days=days), of)


def write(file: Path, retention: Retention) -> None:
    """Write it whole, with its checksum."""
    plain: dict[str, object] = {
        "created": retention.created.isoformat(),
        "expires": retention.expires.isoformat(),
        "of": retention.of,
        "pinned": bool(retention.pinned_by),
        "pinned_by": list(retention.pinned_by),
    }
    plain["checksum"] = hashing.sha256_bytes(hashing.canonical_json(plain))
    atomic.write_json(file, plain)


def read(file: Path) -> Retention:
    """What a file written by `write` says.

    Raises:
        UnreadableError: it is missing, or not the bytes that were written.
    """
    try:
        data = untrusted.read_bytes(file, untrusted.MIB)
        plain = untrusted.parse_json(data)
        claimed = plain.pop("checksum")
        if claimed != hashing.sha256_bytes(hashing.canonical_json(plain)):
            raise ValueError("checksum mismatch")
        created, expires = (_utc(plain[name]) for name in ("created", "expires"))
        retention = Retention(created, expires, *_texts(plain["of"], plain["pinned_by"]))
        if data != atomic.json_bytes({**plain, "checksum": claimed}):
            raise ValueError("not as it was written")
    except FileNotFoundError as error:
        raise UnreadableError(f"{file.name}: missing") from error
    except OSError as error:
        raise UnreadableError(f"{file.name}: unreadable ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise UnreadableError(f"{file.name}: damaged ({what[:80]})") from error
    return retention


def read_for(file: Path, of: str, created: str | None = None) -> Retention:
    """The retention of a run or table, from the file beside it.

    Args:
        of: as in Retention.
        created: when the run or table was made, as another file records it; None: not compared.

    Raises:
        UnreadableError: as `read`, or the file belongs to something else.
    """
    retention = read(file)
    if retention.of != of:
        raise UnreadableError(f"{file.name}: of another run or table ({retention.of}, not {of})")
    if created is not None and retention.created.isoformat() != created:
        made = retention.created.isoformat()
        raise UnreadableError(f"{file.name}: created {made}, but status.json says {created}")
    return retention


def pin(file: Path, why: str) -> None:
    """Keep for good what the file speaks of; several reasons may stand side by side.

    Raises:
        UnreadableError: as `read`.
    """
    found = read(file)
    write(file, replace(found, pinned_by=tuple(dict.fromkeys((*found.pinned_by, why)))))


def unpin(file: Path, why: str) -> None:
    """Take one reason back; raises UnreadableError as `read`."""
    found = read(file)
    write(file, replace(found, pinned_by=tuple(one for one in found.pinned_by if one != why)))


def _texts(of: object, pinned_by: object) -> tuple[str, tuple[str, ...]]:
    if not (isinstance(of, str) and isinstance(pinned_by, list)):
        raise ValueError("of: a text, pinned_by: a list")
    return of, tuple(map(str, pinned_by))


def _utc(text: str) -> datetime.datetime:
    time = datetime.datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return time.astimezone(datetime.UTC)


def _minute(time: datetime.datetime) -> str:
    return f"{time.astimezone(datetime.UTC):%Y-%m-%d %H:%M} UTC"
