"""task=doctor: a dataset on disk -> a table under its verdict, a JSON file, an exit code.

An operation: it has no config hash and no run folder, and uses no weights and no device.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fgvc.data import doctor, download
from fgvc.data.loader import worker_count
from fgvc.exit_codes import DONE, FAILED
from fgvc.pipeline.job import Job
from fgvc.record import console
from fgvc.store import atomic

VERDICTS = {
    "wrong": "WRONG",
    "partial": "PARTIAL COPY, as declared; no other finding",
    "sound": "SOUND",
}


def run(job: Job) -> int:
    """Examine the dataset; with dataset.download, download it first.

    Returns:
        The exit code: FAILED when something is wrong with the copy.

    Raises:
        UserError: the download failed, or this dataset has no download.
    """
    conf = job.conf.dataset
    if conf.download:
        with console.progress("download", None, "MiB") as progress:
            console.say(download.fetch(conf, progress))
    file = job.json_file("doctor", re.sub(r"[^\w.-]", "_", conf.name) + ".json")
    threads = max(1, worker_count(job.conf.runtime.num_workers))
    cache_root = Path(job.conf.runtime.cache_root).expanduser()
    examination = doctor.examine(conf, threads, console.progress, cache_root)
    atomic.write_json(file, examination.plain())
    rows = [
        (finding.severity, finding.check, f"{finding.message}\n→ {finding.fix}")
        for finding in examination.findings
    ]
    rows += [("", check, text) for check, text in _facts(examination) if text]
    console.table(_title(examination), ("", "check", "what was found"), rows, numbers=False)
    console.say(f"examination: {file}")
    return FAILED if examination.wrong else DONE


def _title(examination: doctor.Examination) -> str:
    severities = [finding.severity for finding in examination.findings]
    errors, notes = severities.count(doctor.ERROR), severities.count(doctor.NOTE)
    title = f"{examination.name}: {VERDICTS[examination.verdict]}"
    if errors:
        title += f": {_count(errors, 'error')}" + (f", {_count(notes, 'note')}" if notes else "")
    return title + (f"; {examination.caveat}" if examination.caveat else "")


def _facts(examination: doctor.Examination) -> list[tuple[str, str]]:
    """What was measured; an empty text where nothing was."""
    counts: Any = examination.facts.get("counts") or {}
    archives: Any = examination.facts["archives"]
    count_texts = []
    for name, count in counts.items():
        official = f" of {count['official']:,}" if count["official"] else ""
        count_texts.append(f"{count['found']:,}{official} {name}")
    return [
        ("layout", f"{examination.reader}, {examination.root}"),
        ("counts", ", ".join(count_texts)),
        ("images", _images(examination.facts["pictures"])),
        ("archives", ", ".join(f"{Path(file).name}: {what}" for file, what in archives.items())),
    ]


def _images(images: Any) -> str:
    if not images["read"]:
        return "none that can be read"
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in images["kinds"].items())
    sides = " and ".join(
        f"{name} side {side['min']} to {side['max']} px (median {side['median']})"
        for name, side in (("short", images["short_side"]), ("long", images["long_side"]))
    )
    return f"{images['read']:,} read: {kinds}; {sides}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
