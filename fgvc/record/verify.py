"""A sealed run folder -> the bytes of its files, verified by their recorded digests.

status.json holds its own checksum and the digest of artifacts.json, which holds the digest of every
other file. Only the header of ckpt.bin is read, because a feature bank can take gigabytes.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from fgvc import untrusted
from fgvc.record import retention
from fgvc.record.retention import Retention
from fgvc.record.run_dir import IN_PROGRESS, SHORT
from fgvc.store import atomic, hashing
from fgvc.untrusted.escape import one_line

CKPT, INDEX = "ckpt.bin", "artifacts.json"
STAMP, CONFIG = "env_stamp.json", "config.canonical.json"
Plain = Mapping[str, Any]
STATES = ("running", "done", "failed", "oom", "preempted", "validated")


class DamageError(Exception):
    """A folder or one of its files cannot be trusted; the message is always one line."""

    def __init__(self, why: object) -> None:
        super().__init__(one_line(why))


class OtherVersionError(DamageError):
    """An undamaged record of another version of fgvc; the message is one line."""


def read_verified(path: Path, file: str, artifacts: Plain) -> bytes:
    """The bytes of a file, verified by artifacts.json.

    Raises:
        DamageError: the file is missing, unreadable, not indexed, or changed.
    """
    data = read_file(path, file)
    if hashing.sha256_bytes(data) != _index_entry(artifacts, file)["sha256"]:
        raise DamageError(f"{file}: sha256 mismatch, it changed since the run")
    return data


def read_index(path: Path) -> Plain:
    """The content of artifacts.json, verified by status.json.

    Raises:
        DamageError: one of the two files is missing or damaged, or the run did not succeed.
    """
    record = read_status(path)
    if record["state"] != "done":
        raise DamageError(f"status.json: state {record['state']} in a sealed folder")
    data = read_file(path, "artifacts.json")
    if hashing.sha256_bytes(data) != record.get("artifacts_sha256"):
        raise DamageError("artifacts.json: sha256 mismatch with status.json")
    return parse_object("artifacts.json", data)


def read_status(path: Path) -> dict[str, Any]:
    """The content of status.json, verified by its own checksum.

    Raises:
        DamageError: the file is missing, changed, lacks a field, or belongs to another run.
    """
    try:
        record = atomic.parse_checked_json(read_file(path, "status.json"))
    except ValueError as error:
        raise DamageError(f"status.json: {error}") from error
    if record.get("state") not in STATES:
        state = one_line(record.get("state"), 40)
        raise DamageError(f"status.json: state {state} is not a state of fgvc")
    for key in ("started", "updated"):
        try:
            zone = datetime.datetime.fromisoformat(record[key]).tzinfo
        except (KeyError, TypeError, ValueError):
            zone = None
        if zone is None:
            raise DamageError(f"status.json: {key} is not a time with a zone")
    if not _belongs_to(path.resolve(), str(record.get("of"))):
        raise DamageError(f"status.json: of another run ({one_line(record.get('of'), 140)})")
    return record


def _belongs_to(path: Path, of: str) -> bool:
    """Whether a run folder belongs to a run; of: run_id/config_hash/checkpoint_id as in a path.

    A copied folder with another path is identified by its other files.
    """
    parts = path.parts[-3:]
    if path.name == IN_PROGRESS:  # killed after the status was written, before the rename
        return list(parts[:2]) == of.split("/")[:2]
    if "/".join(parts) == of:
        return True
    try:
        artifacts, data = parse_object(INDEX, read_file(path, INDEX)), read_file(path, STAMP)
        stamp, checkpoint = parse_object(STAMP, data), artifacts[CKPT]["sha256"]
        recorded = f"{stamp['run_id']}/{stamp['config_hash'][:SHORT]}/{checkpoint[:SHORT]}"
        return artifacts[STAMP]["sha256"] == hashing.sha256_bytes(data) and recorded == of
    except (DamageError, KeyError, TypeError):
        return False


def read_retention(path: Path) -> Retention:
    """The retention of a sealed run.

    Raises:
        DamageError: as `read_status`; retention.json is missing, damaged, or of another run.
    """
    record = read_status(path)  # identifies the run and the time it was sealed
    try:
        return retention.read_for(path / retention.FILE, record["of"], record["updated"])
    except retention.RetentionError as error:
        raise DamageError(str(error)) from error


def parse_object(file: str, data: bytes) -> dict[str, Any]:
    """Parse a JSON object; DamageError if it is anything else (JSON has no NaN)."""
    try:
        value = untrusted.parse_json(data)
    except ValueError as error:
        raise DamageError(f"{file}: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise DamageError(f"{file}: not a JSON object")
    return value


def read_checkpoint_facts(path: Path, artifacts: Plain) -> tuple[Plain, int]:
    """The facts of a checkpoint and the number of parameters of its head; loads no tensor.

    Raises:
        DamageError: the file is missing, truncated, or not a checkpoint.
    """
    try:
        if (path / CKPT).stat().st_size != _index_entry(artifacts, CKPT)["bytes"]:
            raise DamageError(f"{CKPT}: not as long as it was when the run ended")
        with safe_open(untrusted.require_regular(path / CKPT), framework="np") as tensors_file:
            (facts,) = (tensors_file.metadata() or {}).values()
            names = [name for name in tensors_file.keys() if name.startswith("head.")]  # noqa: SIM118
            size = sum(math.prod(tensors_file.get_slice(name).get_shape()) for name in names)
    except OSError as error:
        raise DamageError(f"{CKPT}: unreadable ({error.strerror})") from error
    except (SafetensorError, ValueError) as error:
        raise DamageError(f"{CKPT}: no checkpoint of fgvc ({error})") from error
    return parse_object(CKPT, facts.encode()), size


def check_names(path: Path, artifacts: Plain, stamp: Plain, facts: Plain) -> None:
    """Check by digests that the folder was not renamed or mixed from two runs.

    Raises:
        DamageError: a file belongs to another run.
    """
    identities = (
        (CKPT, artifacts[CKPT]["sha256"][:SHORT], path.name),
        (CONFIG, artifacts[CONFIG]["sha256"][:SHORT], path.parent.name),
        (STAMP, stamp.get("config_hash"), facts.get("config_hash")),
    )
    for file, actual, expected in identities:
        if actual != expected:
            raise DamageError(f"{file}: of another run ({actual}, not {expected})")


def read_file(path: Path, file: str) -> bytes:
    """The bytes of a file of a run, not verified; DamageError if it is missing or unreadable."""
    try:
        return untrusted.read_bytes(path / file, untrusted.ARRAYS)
    except FileNotFoundError as error:
        raise DamageError(f"{file}: missing") from error
    except OSError as error:
        raise DamageError(f"{file}: unreadable ({error.strerror})") from error


def _index_entry(artifacts: Plain, file: str) -> Plain:
    entry = artifacts.get(file)
    if not (isinstance(entry, dict) and {"sha256", "bytes"} <= entry.keys()):
        raise DamageError(f"artifacts.json: no entry for {file}")
    return entry
