"""A checklist -> the block of a pull request, as .github/pull_request_template.md asks for it.

The author of the record chose its texts. Thus they stand in code spans, which Markdown does not
interpret, and a command is shown only if pasting it runs fgvc and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from fgvc.record import privacy, retention
from fgvc.record.verify import read_retention
from fgvc.report.audit import command, limits
from fgvc.report.audit.check import FAIL, PERSON, UNCHECKED, Result, outcome
from fgvc.report.audit.record import Record
from fgvc.store import hashing
from fgvc.untrusted import escape, shell
from fgvc.untrusted.escape import fenced, one_line

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
MOST = 1000
DIGEST = re.compile("[0-9a-f]{64}")
PLACE = re.compile(r"[\w.-]{1,100}(/[0-9a-f]{16}){2}", re.ASCII)


def render_block(record: Record, results: Sequence[Result]) -> str:
    """The block; what the record does not tell stands there as not readable."""
    bodies = (_commands, _hashes, _stamp, _retention)
    parts = [_told(body, record) for body in bodies] + [_audit(results)]
    pairs = zip(HEADINGS, parts, strict=True)
    return "".join(f"### {heading}\n\n{part}\n\n" for heading, part in pairs).rstrip() + "\n"


def _told(body, record: Record) -> str:
    try:
        return body(record)
    except Exception as why:  # as in `answered`: a forger chooses the type of every value
        return f"{ABSENT}: {span(f'lacks {why}' if isinstance(why, KeyError) else why)}"


def span(text: object) -> str:
    """Text of a record as a code span of one line."""
    return escape.code(one_line(text, MOST))


def _commands(record: Record) -> str:
    run = f"OUTPUTS/{record.place}"
    if not PLACE.fullmatch(record.place):
        return f"{ABSENT}: the folder is {span(record.place)}, no name that fgvc gives"
    lines = [
        privacy.portable_command(command.checked_command(record)),
        shell.fgvc("task=audit", shell.override("run", run)),
        command.eval_command(f"{run}/ckpt.bin"),
    ]
    block = fenced("\n".join(lines))
    return f"{block}\n\nConfig: `config.yaml`"


def _hashes(record: Record) -> str:
    stamp = record.stamp
    rows = {
        "config_hash": stamp["config_hash"],
        "checkpoint_id": record.artifacts["ckpt.bin"]["sha256"],
        "manifest": stamp["manifest_digest"],
        "split": stamp["split_digest"],
        "labelmap.json": stamp["labelmap_digest"],
        "weights": stamp["weights_digest"],
        "artifacts.json": hashing.sha256_bytes(record.data("artifacts.json")),
        "requirements.txt": stamp["requirements_checksum"],
        "env_hash": stamp["env_hash"],
    }
    lines = [f"| {name} | {_digest(value)} |" for name, value in rows.items()]
    return "\n".join(["| what | sha256 |", "|---|---|", *lines])


def _digest(value: object) -> str:
    if value is None:
        return "none"
    return f"`{value}`" if isinstance(value, str) and DIGEST.fullmatch(value) else "no digest"


def _stamp(record: Record) -> str:
    excerpt = {key: record.stamp[key] for key in EXCERPT}
    text = json.dumps(excerpt, indent=2, ensure_ascii=False)
    return f"{span(f'{record.place}/env_stamp.json')}\n\n{fenced(text, 'json')}"


def _retention(record: Record) -> str:
    kept = read_retention(record.path)
    pinned = ", ".join(kept.pinned_by) or "no"
    return (
        f"{span(f'{record.place}/{retention.FILE}')}: made {kept.created.isoformat()}, expires "
        f"{kept.expires.isoformat()}, pinned: {span(pinned)}"
    )


def _audit(results: Sequence[Result]) -> str:
    of = {
        state: [result for result in results if result.state == state]
        for state in (FAIL, UNCHECKED, PERSON)
    }
    lines = [
        f"- **{result.id}**{mark}: {span(result.evidence)}"
        for state, mark in ((FAIL, ""), (UNCHECKED, " (not checked)"))
        for result in of[state]
    ]
    signed = [f"- [ ] {result.id}: {span(result.evidence)}" for result in of[PERSON]]
    asked = len(results) - len(signed)
    answered = asked - len(of[FAIL]) - len(of[UNCHECKED])
    head = (
        f"**{outcome(results)}**: {answered} of {asked} checks passed, {len(of[FAIL])} failed, "
        f"{len(of[UNCHECKED])} could not be made"
    )
    proven = [limits.PROVES, "", "Not proven:", "", *(f"- {line}" for line in limits.NOT_PROVEN)]
    unpassed = [*lines, ""] if lines else []
    parts = [head, "", *unpassed, *proven, "", "Signed by a person, with name and date:", ""]
    return "\n".join([*parts, *signed])
