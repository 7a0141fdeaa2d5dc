"""task=report: every run folder under runtime.output_root -> a table on the terminal and on disk.

An operation: it has no config hash and no run folder, and uses no weights and no device.
"""

from __future__ import annotations

from pathlib import Path

from fgvc.pipeline.job import Job
from fgvc.record import console
from fgvc.report.baselines import write_baselines
from fgvc.report.terminal_table import print_table
from fgvc.store.output_path import output_folder

FILES = ("baselines.csv", "baselines.json", "baselines.html")


def run(job: Job) -> None:
    """Write baselines.csv, .json and .html, and print the table.

    Raises:
        UserError: no complete run in it.
        OSError: the folder cannot be written.
    """
    root = Path(job.conf.runtime.output_root).expanduser()
    output = job.conf.task.output
    target = root if output is None else output_folder(output, FILES)
    print_table(write_baselines(root, target, job.conf.runtime.retention_days))
    console.say(f"table: {', '.join(str(target / name) for name in FILES)}")
