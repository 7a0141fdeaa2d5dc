"""task=doctor: a dataset on disk -> a table under its verdict, a JSON file, an exit code.

An operation: it has no config hash and no run folder, and uses no weights and no device.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from fgvc.config.schema import Config
from fgvc.data import doctor, download
from fgvc.data.loader import worker_count
from fgvc.exit_codes import DONE, FAILED
from fgvc.pipeline.job import Job
from fgvc.record import console
from fgvc.store import atomic
from fgvc.store.output_path import JSON, output_file

VERDICTS = {
    "wrong": "WRONG",
    "partial": "PARTIAL COPY, as declared; nothing else wrong",
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
    file = _output(job.conf)
    threads = max(1, worker_count(job.conf.runtime.num_workers))
    cache_root = Path(job.conf.runtime.cache_root).expanduser()
    examination = doctor.examine(conf, threads, console.progress, cache_root)
    atomic.write_json(file, examination.plain())
    console.table(
        _title(examination), ("", "check", "what was found"), _rows(examination), numbers=False
    )
    console.say(f"examination: {file}")
    return FAILED if examination.wrong else DONE


def _output(conf: Config) -> Path:
    name = re.sub(r"[^\w.-]", "_", conf.dataset.name) + ".json"
    if conf.task.output is not None:
        return output_file(conf.task.output, name, JSON)
    return Path(conf.runtime.output_root).expanduser() / "doctor" / name


def _title(examination: doctor.Examination) -> str:
    verdict = VERDICTS[examination.verdict]
    errors, notes = (
        sum(finding.severity == severity for finding in examination.findings)
        for severity in (doctor.ERROR, doctor.NOTE)
    )
    if errors:
        verdict += f": {_count(errors, 'error')}" + (f", {_count(notes, 'note')}" if notes else "")
    return f"{examination.name}: {verdict}" + (
        f"; {examination.caveat}" if examination.caveat else ""
    )


def _rows(examination: doctor.Examination) -> list[tuple[str, str, str]]:
    """Rows of errors, notes and measurements."""
    rows = [
        (finding.severity, finding.check, f"{finding.says}\n→ {finding.mend}")
        for finding in examination.findings
    ]
    facts = [("layout", f"{examination.reader}, {examination.root}"), *_measured(examination.facts)]
    return rows + [("", check, text) for check, text in facts if text]


def _measured(facts: Mapping[str, object]) -> list[tuple[str, str]]:
    return [
        ("counts", _counts(facts.get("counts"))),
        ("images", _images(facts["pictures"])),
        ("archives", _archives(facts["archives"])),
    ]


def _counts(counts: object) -> str:
    if not isinstance(counts, Mapping):
        return ""
    return ", ".join(
        f"{count['found']:,}"
        + (f" of {count['official']:,}" if count["official"] else "")
        + f" {name}"
        for name, count in counts.items()
    )


def _images(images: object) -> str:
    assert isinstance(images, Mapping)
    if not images["read"]:
        return "none that can be read"
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in images["kinds"].items())
    sides = " and ".join(
        f"{name} side {side['min']} to {side['max']} px (median {side['median']})"
        for name, side in (("short", images["short_side"]), ("long", images["long_side"]))
    )
    return f"{images['read']:,} read: {kinds}; {sides}"


def _archives(archives: object) -> str:
    assert isinstance(archives, Mapping)
    return ", ".join(f"{Path(file).name}: {what}" for file, what in archives.items())


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
