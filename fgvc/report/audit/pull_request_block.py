"""A checklist -> the block for a pull request that .github/pull_request_template.md requires.

The author of the record chose its texts. Thus they are in code spans, which Markdown does not
interpret, and a command is shown only if pasting it runs fgvc and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from fgvc.record import command_file, privacy, retention
from fgvc.record.verify import read_retention
from fgvc.report.audit.check import FAIL, PERSON, UNCHECKED, Result, outcome
from fgvc.report.audit.record import Record
from fgvc.store import hashing
from fgvc.untrusted import escape, shell
from fgvc.untrusted.escape import fenced, one_line

HEADINGS = ("Commands", "Hashes", "Environment stamp", "Retention", "Audit")
EXCERPT = ("run_id", "git_commit", "git_dirty", "os_version", "python_version", "torch_version")
EXCERPT += ("gpu_name", "gpu_count", "precision", "seed")
ABSENT = "not readable"
MAX_CHARACTERS = 1000
DIGEST = re.compile("[0-9a-f]{64}")
PLACE = re.compile(r"[\w.-]{1,100}(/[0-9a-f]{16}){2}", re.ASCII)
# The owner of a folder can change every file and recompute every digest. In this case the audit
# detects only contradictions between two files, or between a file and the code.
PROVES = (
    "The files are those that were sealed, they agree with each other, and every number of "
    "metrics.json follows from predictions.parquet."
)
NOT_PROVEN = (
    "that this checkpoint gives these predictions: whoever changes predictions.parquet and "
    "recomputes every number and digest passes",
    "that the predicted files are the images of the dataset: their digests are as the record "
    "states them",
    "measured values: times, speed, memory, parameters, MACs, images decoded, prompts, solver "
    "steps and gaps, the losses on the path of C, the trials of a head, the curves of trainings, "
    "the losses of margin of a cascade, the fp32 predictions of a certificate",
    "the tree above the classes, except for the numbers that follow from it",
    "the machine and its packages, unless env_hash is that of this machine",
    "what only people read: photographs in report.html, embeddings and maps of FiftyOne, images "
    "and texts of TensorBoard, run.log",
    "the author: nothing is signed",
)
AGAIN = "To measure the numbers again, from the images and ckpt.bin:"


def render_block(record: Record, results: Sequence[Result]) -> str:
    """The block in Markdown; a section that cannot be read is marked "not readable"."""
    parts = []
    for body in (_commands, _hashes, _stamp, _retention):
        try:
            parts.append(body(record))
        except Exception as error:  # as in `run_check`: a forger chooses the type of every value
            reason = f"lacks {error}" if isinstance(error, KeyError) else error
            parts.append(f"{ABSENT}: {span(reason)}")
    pairs = zip(HEADINGS, [*parts, _audit(results)], strict=True)
    return "".join(f"### {heading}\n\n{part}\n\n" for heading, part in pairs).rstrip() + "\n"


def eval_command(checkpoint: str) -> str:
    """The command that measures the numbers again, from the images and ckpt.bin."""
    return shell.fgvc("task=eval", shell.override("checkpoint", checkpoint))


def span(text: object) -> str:
    """Text of a record as a one-line code span."""
    return escape.code(one_line(text, MAX_CHARACTERS))


def _commands(record: Record) -> str:
    run = f"OUTPUTS/{record.place}"
    if not PLACE.fullmatch(record.place):
        return f"{ABSENT}: the folder is {span(record.place)}, not a name that fgvc gives"
    own, sweep = record.commands()
    lines = [
        privacy.portable_command(shell.fgvc(*own)),
        shell.fgvc("task=audit", shell.override("run", run)),
        eval_command(f"{run}/ckpt.bin"),
    ]
    if sweep is not None:
        lines.insert(1, f"{command_file.SWEEP}{privacy.portable_command(shell.fgvc(*sweep))}")
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
    lines = ["| what | sha256 |", "|---|---|"]
    for name, value in rows.items():
        cell = "none" if value is None else "not a digest"
        if isinstance(value, str) and DIGEST.fullmatch(value):
            cell = f"`{value}`"
        lines.append(f"| {name} | {cell} |")
    return "\n".join(lines)


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
    failed, unchecked, sign_offs = (
        [(result.id, span(result.evidence)) for result in results if result.state == state]
        for state in (FAIL, UNCHECKED, PERSON)
    )
    lines = [f"- **{id}**: {evidence}" for id, evidence in failed]
    lines += [f"- **{id}** (not checked): {evidence}" for id, evidence in unchecked]
    checked = len(results) - len(sign_offs)
    head = (
        f"**{outcome(results)}**: {checked - len(lines)} of {checked} checks passed, "
        f"{len(failed)} failed, {len(unchecked)} could not be made"
    )
    proven = [PROVES, "", "Not proven:", "", *(f"- {line}" for line in NOT_PROVEN)]
    unpassed = [*lines, ""] if lines else []
    parts = [head, "", *unpassed, *proven, "", "Signed by a person, with name and date:", ""]
    return "\n".join([*parts, *(f"- [ ] {id}: {evidence}" for id, evidence in sign_offs)])
