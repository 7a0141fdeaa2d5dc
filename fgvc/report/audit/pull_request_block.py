"""A checklist -> the block for a pull request that .github/pull_request_template.md requires.

The author of the record chose its texts. Thus they are in code spans, which Markdown does not
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
MAX_CHARACTERS = 1000
DIGEST = re.compile("[0-9a-f]{64}")
PLACE = re.compile(r"[\w.-]{1,100}(/[0-9a-f]{16}){2}", re.ASCII)


def render_block(record: Record, results: Sequence[Result]) -> str:
    """The block in Markdown; a section that cannot be read is marked "not readable"."""
    bodies = (_commands, _hashes, _stamp, _retention)
    parts = []
    for body in bodies:
        try:
            parts.append(body(record))
        except Exception as error:  # as in `run_check`: a forger chooses the type of every value
            reason = f"lacks {error}" if isinstance(error, KeyError) else error
            parts.append(f"{ABSENT}: {span(reason)}")
    pairs = zip(HEADINGS, [*parts, _audit(results)], strict=True)
    return "".join(f"### {heading}\n\n{part}\n\n" for heading, part in pairs).rstrip() + "\n"


def span(text: object) -> str:
    """Text of a record as a one-line code span."""
    return escape.code(one_line(text, MAX_CHARACTERS))


def _commands(record: Record) -> str:
    run = f"OUTPUTS/{record.place}"
    if not PLACE.fullmatch(record.place):
        return f"{ABSENT}: the folder is {span(record.place)}, not a name that fgvc gives"
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
    return f"`{value}`" if isinstance(value, str) and DIGEST.fullmatch(value) else "not a digest"


def _stamp(record: Record) -> str:
    excerpt = {key: record.stamp[key] for key in EXCERPT}
    text = json.dumps(excerpt, indent=2, ensure_ascii=False)
    return f"{span(f'{record.place}/env_stamp.json')}\n\n{fenced(text, 'json')}"


def _retention(record: Record) -> str:
    stored = read_retention(record.path)
    pinned = ", ".join(stored.pinned_by) or "no"
    return (
        f"{span(f'{record.place}/{retention.FILE}')}: made {stored.created.isoformat()}, expires "
        f"{stored.expires.isoformat()}, pinned: {span(pinned)}"
    )


def _audit(results: Sequence[Result]) -> str:
    by_state = {
        state: [result for result in results if result.state == state]
        for state in (FAIL, UNCHECKED, PERSON)
    }
    lines = [
        f"- **{result.id}**{mark}: {span(result.evidence)}"
        for state, mark in ((FAIL, ""), (UNCHECKED, " (not checked)"))
        for result in by_state[state]
    ]
    sign_offs = [f"- [ ] {result.id}: {span(result.evidence)}" for result in by_state[PERSON]]
    checked = len(results) - len(sign_offs)
    passed = checked - len(by_state[FAIL]) - len(by_state[UNCHECKED])
    head = (
        f"**{outcome(results)}**: {passed} of {checked} checks passed, "
        f"{len(by_state[FAIL])} failed, {len(by_state[UNCHECKED])} could not be made"
    )
    proven = [limits.PROVES, "", "Not proven:", "", *(f"- {line}" for line in limits.NOT_PROVEN)]
    unpassed = [*lines, ""] if lines else []
    parts = [head, "", *unpassed, *proven, "", "Signed by a person, with name and date:", ""]
    return "\n".join([*parts, *sign_offs])
