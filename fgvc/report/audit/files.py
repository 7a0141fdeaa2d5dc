"""Files of a record -> whether they are the bytes that the run wrote, by recomputed digests."""

from __future__ import annotations

from fgvc.record import verify
from fgvc.record.retention import FILE, SHORTEST, RetentionError
from fgvc.record.run_dir import OUTSIDE_INDEX, SHORT
from fgvc.record.verify import DamageError
from fgvc.report.audit.check import agree, join_names
from fgvc.report.audit.record import STAMP, Record
from fgvc.report.flatten import conflicting_keys, flatten
from fgvc.store import hashing

ROW = "backbone.checkpoint."  # in the hashed config: the chosen row of the family's table
ANY = "any"  # in the hashed config: the key changes no number, and every value matches


def status(record: Record) -> str:
    """Do the checksums of status.json and artifacts.json match, and did the run complete?"""
    state = verify.read_status(record.path)
    verify.read_index(record.path)
    started = record.stamp["started"]
    agree("started", (STAMP, started), ("status.json", state["started"]))
    return f"done, {state['started'][:19]} to {state['updated'][:19]} UTC"


def hashes(record: Record) -> str:
    """Does every file match artifacts.json, with no file missing and no extra file?"""
    present, changed = set(record.files()), []
    extra = sorted(present - record.artifacts.keys() - set(OUTSIDE_INDEX))
    missing = sorted(record.artifacts.keys() - present)
    for name in sorted(present & record.artifacts.keys()):
        entry, file = record.artifacts[name], record.path / name
        is_file = file.is_file() and not file.is_symlink()
        same_size = is_file and file.stat().st_size == entry["bytes"]
        if not same_size or hashing.sha256_file(file) != entry["sha256"]:
            changed.append(name)
    differences = {"changed": changed, "missing": missing, "extra": extra}
    problems = [f"{what}: {join_names(names)}" for what, names in differences.items() if names]
    if problems:
        raise DamageError("; ".join(problems))
    size = sum(entry["bytes"] for entry in record.artifacts.values())
    return f"{len(record.artifacts)} files, {size} bytes, each sha256 recomputed"


def names(record: Record) -> str:
    """Is the folder named after its run, config and checkpoint?"""
    run_id, config_hash, checkpoint_id = record.path.parts[-3:]
    checkpoint_digest = hashing.sha256_file(record.path / verify.CKPT)
    config_digest = hashing.sha256_bytes(record.data("config.canonical.json"))
    agree("the run_id", ("the folder", run_id), (STAMP, record.stamp["run_id"]))
    agree("the hash", ("the folder", config_hash), ("config.canonical.json", config_digest[:SHORT]))
    agree("the sha256", ("the folder", checkpoint_id), (verify.CKPT, checkpoint_digest[:SHORT]))
    return f"config_hash {config_digest}, checkpoint_id {checkpoint_digest}"


def retention(record: Record) -> str:
    """Does retention.json belong to this run and keep the run for at least 90 days?"""
    try:
        stored = verify.read_retention(record.path)
    except RetentionError as error:
        raise DamageError(str(error)) from error
    days = (stored.expires - stored.created).total_seconds() / 86400
    if days < SHORTEST:
        raise DamageError(f"{FILE}: {days:.1f} days, at least {SHORTEST}")
    pinned = f"; pinned by {', '.join(stored.pinned_by)}" if stored.pinned_by else ""
    return f"{FILE}: {days:.0f} days, expires {stored.expires.isoformat()}{pinned}"


def config(record: Record) -> str:
    """Is the hashed config in canonical form, and does config.yaml agree with it?"""
    data = record.data("config.canonical.json")
    if data != hashing.canonical_json(record.config):
        raise DamageError("config.canonical.json: not in canonical form")
    hashed = {key: value for key, value in flatten(record.config).items() if value != ANY}
    if keys := conflicting_keys(hashed, flatten(record.shown_config), (ROW,)):
        raise DamageError(f"config.yaml: {join_names(keys)} differ from config.canonical.json")
    return f"config.canonical.json: {len(data)} bytes, sha256 is the config_hash"
