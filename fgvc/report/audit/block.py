"""A checklist -> the block of a pull request, as .github/pull_request_template.md asks for it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from fgvc.record import retention
from fgvc.record.retention import UnreadableError
from fgvc.report.audit.check import FAIL, PERSON, Result
from fgvc.report.audit.record import Record
from fgvc.report.sealed import DamageError, retention_of
from fgvc.store import digest

HEADINGS = ("Commands", "Hashes", "Environment stamp", "Retention", "Audit")
EXCERPT = (
    "run_id",
    "git_commit",
    "git_dirty",
    "os_version",
    "python_version",
    "torch_version",
    "gpu_name",
    "gpu_count",
    "precision",
    "seed",
)
ABSENT = "not readable"


def markdown(record: Record, results: Sequence[Result]) -> str:
    """The block; what the record does not tell stands there as not readable."""
    bodies = (_commands, _hashes, _stamp, _retention)
    parts = [_told(body, record) for body in bodies] + [_audit(results)]
    pairs = zip(HEADINGS, parts, strict=True)
    return "".join(f"### {heading}\n\n{part}\n\n" for heading, part in pairs).rstrip() + "\n"


def _told(body, record: Record) -> str:
    try:
        return body(record)
    except (DamageError, UnreadableError, KeyError, TypeError, OSError) as why:
        return f"{ABSENT}: {' '.join(str(why).split())}"


def _commands(record: Record) -> str:
    audit = f"python -m fgvc.run task=audit run=OUTPUTS/{record.place}"
    return f"```\n{record.text('command.txt').strip()}\n{audit}\n```\n\nConfig: `config.yaml`"


def _hashes(record: Record) -> str:
    stamp = record.stamp
    rows = {
        "config_hash": stamp["config_hash"],
        "checkpoint_id": record.artifacts["ckpt.bin"]["sha256"],
        "manifest": stamp["manifest_digest"],
        "split": stamp["split_digest"],
        "labelmap.json": stamp["labelmap_digest"],
        "weights": stamp["weights_digest"],
        "artifacts.json": digest.sha256_bytes(record.data("artifacts.json")),
        "requirements.txt": stamp["requirements_checksum"],
        "env_hash": stamp["env_hash"],
    }
    lines = [f"| {name} | {f'`{value}`' if value else 'none'} |" for name, value in rows.items()]
    return "\n".join(["| what | sha256 |", "|---|---|", *lines])


def _stamp(record: Record) -> str:
    excerpt = {key: record.stamp[key] for key in EXCERPT}
    text = json.dumps(excerpt, indent=2, ensure_ascii=False)
    return f"`{record.place}/env_stamp.json`\n\n```json\n{text}\n```"


def _retention(record: Record) -> str:
    kept = retention_of(record.path)
    pinned = ", ".join(kept.pinned_by) or "no"
    return (
        f"`{record.place}/{retention.FILE}`: made {kept.created.isoformat()}, expires "
        f"{kept.expires.isoformat()}, pinned: {pinned}"
    )


def _audit(results: Sequence[Result]) -> str:
    failed = [f"- **{one.id}**: {one.evidence}" for one in results if one.state == FAIL]
    signed = [f"- [ ] {one.id}: {one.evidence}" for one in results if one.state == PERSON]
    asked = len(results) - len(signed)
    head = f"{asked - len(failed)} of {asked} checks without a failure"
    return "\n".join([head, *failed, "", "Signed by a person, with name and date:", "", *signed])
