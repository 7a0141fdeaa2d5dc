"""A sealed run folder -> the bytes of its files, each held against the digest it was sealed with.

status.json vouches for itself and for artifacts.json, which vouches for every other file. Of
ckpt.bin only the header is read: a bank of features may take gigabytes.
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
STAMP = "env_stamp.json"
STATES = ("running", "done", "failed", "oom", "preempted", "validated")


class DamageError(Exception):
    """Why a folder, or a file of it, cannot be trusted; one line, whatever the record holds."""

    def __init__(self, why: object) -> None:
        super().__init__(one_line(why))


class OtherVersionError(DamageError):
    """A whole record that another version of fgvc wrote; one line."""


def read_verified(path: Path, file: str, artifacts: Mapping[str, Any]) -> bytes:
    """A file's bytes, which are those that the run indexed.

    Raises:
        DamageError: it is missing, unreadable, not indexed, or changed since.
    """
    data = _bytes(path, file)
    if hashing.sha256_bytes(data) != _indexed(artifacts, file)["sha256"]:
        raise DamageError(f"{file}: sha256 mismatch, it changed since the run")
    return data


def read_index(path: Path) -> Mapping[str, Any]:
    """artifacts.json, after status.json vouched for itself and for it.

    Raises:
        DamageError: either is missing or damaged, or the run did not end well.
    """
    told = read_status(path)
    if told["state"] != "done":
        raise DamageError(f"status.json: state {told['state']} in a sealed folder")
    data = _bytes(path, "artifacts.json")
    if hashing.sha256_bytes(data) != told.get("artifacts_sha256"):
        raise DamageError("artifacts.json: sha256 mismatch with status.json")
    return parse_object("artifacts.json", data)


def read_status(path: Path) -> dict[str, Any]:
    """status.json, which vouches for itself and names its run.

    Raises:
        DamageError: it is missing, not the bytes that were written, lacks a field, or belongs to
            another run.
    """
    data = _bytes(path, "status.json")
    told = parse_object("status.json", data)
    claimed = told.pop("checksum", None)
    if claimed != hashing.sha256_bytes(hashing.canonical_json(told)):
        raise DamageError("status.json: checksum mismatch, it changed since it was written")
    if data != atomic.json_bytes({**told, "checksum": claimed}):
        raise DamageError("status.json: not as it was written")
    _check_status(path.resolve(), told)
    return told


def _check_status(path: Path, told: Mapping[str, Any]) -> None:
    """DamageError unless all fields are valid and name the run of this folder."""
    if told.get("state") not in STATES:
        raise DamageError(
            f"status.json: state {one_line(told.get('state'), 40)} is not a state of fgvc"
        )
    for key in ("started", "updated"):
        try:
            zone = datetime.datetime.fromisoformat(told[key]).tzinfo
        except (KeyError, TypeError, ValueError):
            zone = None
        if zone is None:
            raise DamageError(f"status.json: {key} is no time with a zone")
    if not _is_of(path, str(told.get("of"))):
        raise DamageError(f"status.json: of another run ({one_line(told.get('of'), 140)})")


def _is_of(path: Path, of: str) -> bool:
    """Whether run_id/config_hash/checkpoint_id, cut as in a path, are those of a run's folder.

    A copy of the folder alone, under any name, is the same run: its other files say which.
    """
    own = path.parts[-3:]
    if path.name == IN_PROGRESS:  # a run killed between its status and its rename keeps this name
        return list(own[:2]) == of.split("/")[:2]
    return "/".join(own) == of or _recorded(path) == of


def _recorded(path: Path) -> str | None:
    """The same from artifacts.json and env_stamp.json; None where they do not agree."""
    try:
        artifacts, data = parse_object(INDEX, _bytes(path, INDEX)), _bytes(path, STAMP)
        stamp, checkpoint = parse_object(STAMP, data), artifacts[CKPT]["sha256"]
        if artifacts[STAMP]["sha256"] == hashing.sha256_bytes(data):
            return f"{stamp['run_id']}/{stamp['config_hash'][:SHORT]}/{checkpoint[:SHORT]}"
    except (DamageError, KeyError, TypeError):
        pass
    return None


def read_retention(path: Path) -> Retention:
    """How long the run of a sealed folder is kept.

    Raises:
        UnreadableError: retention.json is missing, damaged, or of another run.
        DamageError: as `status`, which records when the run was sealed.
    """
    told = read_status(path)  # which names the run of this folder
    return retention.read_for(path / retention.FILE, told["of"], told["updated"])


def parse_object(file: str, data: bytes) -> dict[str, Any]:
    """A JSON object. Raises DamageError where it is none (NaN, which JSON lacks, included)."""
    try:
        value = untrusted.parse_json(data)
    except ValueError as error:
        raise DamageError(f"{file}: not JSON ({_short(error)})") from error
    if not isinstance(value, dict):
        raise DamageError(f"{file}: not a JSON object")
    return value


def read_checkpoint_facts(
    path: Path, artifacts: Mapping[str, Any]
) -> tuple[Mapping[str, Any], int]:
    """What a checkpoint says of itself, and how many numbers its head holds; no tensor is loaded.

    Raises:
        DamageError: it is missing, cut short, or no checkpoint.
    """
    try:
        if (path / CKPT).stat().st_size != _indexed(artifacts, CKPT)["bytes"]:
            raise DamageError(f"{CKPT}: not as long as it was when the run ended")
        with safe_open(untrusted.require_regular(path / CKPT), framework="np") as opened:
            (facts,) = (opened.metadata() or {}).values()
            names = [name for name in opened.keys() if name.startswith("head.")]  # noqa: SIM118
            size = sum(math.prod(opened.get_slice(name).get_shape()) for name in names)
    except OSError as error:
        raise DamageError(f"{CKPT}: unreadable ({error.strerror})") from error
    except (SafetensorError, ValueError) as error:
        raise DamageError(f"{CKPT}: no checkpoint of fgvc ({_short(error)})") from error
    return parse_object(CKPT, facts.encode()), size


def check_names(
    path: Path, artifacts: Mapping[str, Any], stamp: Mapping[str, Any], facts: Mapping[str, Any]
) -> None:
    """Find a folder that was moved, or mixed from two runs, by its names.

    Raises:
        DamageError: a file belongs to another run.
    """
    told = {
        CKPT: (artifacts[CKPT]["sha256"][:SHORT], path.name),
        "config.canonical.json": (
            artifacts["config.canonical.json"]["sha256"][:SHORT],
            path.parent.name,
        ),
        "env_stamp.json": (stamp.get("config_hash"), facts.get("config_hash")),
    }
    for file, (found, expected) in told.items():
        if found != expected:
            raise DamageError(f"{file}: of another run ({found}, not {expected})")


def _bytes(path: Path, file: str) -> bytes:
    try:
        return untrusted.read_bytes(path / file, untrusted.ARRAYS)
    except FileNotFoundError as error:
        raise DamageError(f"{file}: missing") from error
    except OSError as error:
        raise DamageError(f"{file}: unreadable ({error.strerror})") from error


def _indexed(artifacts: Mapping[str, Any], file: str) -> Mapping[str, Any]:
    entry = artifacts.get(file)
    if not (isinstance(entry, dict) and {"sha256", "bytes"} <= entry.keys()):
        raise DamageError(f"artifacts.json: does not tell of {file}")
    return entry


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:100] or type(error).__name__
