"""Are these the bytes that the run wrote? Every digest is computed anew."""

from __future__ import annotations

from fgvc.record import verify
from fgvc.record.retention import FILE, SHORTEST, UnreadableError
from fgvc.record.run_dir import OUTSIDE_INDEX, SHORT
from fgvc.record.verify import DamageError
from fgvc.report.audit.check import agree, join_names
from fgvc.report.audit.record import Record
from fgvc.report.flatten import flatten
from fgvc.store import hashing

ROW = "backbone.checkpoint."  # of the hashed config: the chosen row of the family's table
ANY = "any"  # in the hash, where a key changes no number: it stands for every value


def status(record: Record) -> str:
    """Does status.json vouch for itself and for artifacts.json, and say that the run ended well?"""
    told = verify.read_status(record.path)
    verify.read_index(record.path)
    started = record.stamp["started"]
    agree("started", ("env_stamp.json", started), ("status.json", told["started"]))
    return f"done, {told['started'][:19]} to {told['updated'][:19]} UTC"


def hashes(record: Record) -> str:
    """Is every file the one that was indexed, none missing and none extra?"""
    here = set(record.files())
    extra = sorted(here - record.artifacts.keys() - set(OUTSIDE_INDEX))
    gone = sorted(record.artifacts.keys() - here)
    changed = [name for name in sorted(here & record.artifacts.keys()) if _changed(record, name)]
    differences = {"changed": changed, "missing": gone, "extra": extra}
    wrong = [f"{what}: {join_names(names)}" for what, names in differences.items() if names]
    if wrong:
        raise DamageError("; ".join(wrong))
    size = sum(entry["bytes"] for entry in record.artifacts.values())
    return f"{len(record.artifacts)} files, {size} bytes, each sha256 computed anew"


def _changed(record: Record, name: str) -> bool:
    entry, file = record.artifacts[name], record.path / name
    if file.is_symlink() or not file.is_file() or file.stat().st_size != entry["bytes"]:
        return True
    return hashing.sha256_file(file) != entry["sha256"]


def names(record: Record) -> str:
    """Is the folder named by its run, its config and its checkpoint?"""
    run_id, config_hash, checkpoint_id = record.path.parts[-3:]
    ckpt = hashing.sha256_file(record.path / verify.CKPT)
    canonical = hashing.sha256_bytes(record.data("config.canonical.json"))
    agree("the run_id", ("the folder", run_id), ("env_stamp.json", record.stamp["run_id"]))
    agree("the hash", ("the folder", config_hash), ("config.canonical.json", canonical[:SHORT]))
    agree("the sha256", ("the folder", checkpoint_id), (verify.CKPT, ckpt[:SHORT]))
    return f"config_hash {canonical}, checkpoint_id {ckpt}"


def retention(record: Record) -> str:
    """Does retention.json belong to this run and keep it for at least 90 days?"""
    try:
        kept = verify.read_retention(record.path)
    except UnreadableError as why:
        raise DamageError(str(why)) from why
    days = (kept.expires - kept.created).total_seconds() / 86400
    if days < SHORTEST:
        raise DamageError(f"{FILE}: {days:.1f} days, at least {SHORTEST}")
    pinned = f"; pinned by {', '.join(kept.pinned_by)}" if kept.pinned_by else ""
    return f"{FILE}: {days:.0f} days, expires {kept.expires.isoformat()}{pinned}"


def config(record: Record) -> str:
    """Do the hashed config, in canonical form, and config.yaml say the same?"""
    data = record.data("config.canonical.json")
    if data != hashing.canonical_json(record.config):
        raise DamageError("config.canonical.json: not in canonical form")
    shown = flatten(record.shown_config)
    differ = [
        key
        for key, value in flatten(record.config).items()
        if not key.startswith(ROW) and value != ANY and shown.get(key, value) != value
    ]
    if differ:
        raise DamageError(f"config.yaml: another {join_names(differ)} than config.canonical.json")
    return f"config.canonical.json: {len(data)} bytes, sha256 is the config_hash"
