"""A training with runtime.stop_before_test -> validation.json, without a complete record.

The run stays in progress, in the state `validated`. Tables ignore it, its resume states stay, and
the same command without the key resumes from them and reads test.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fgvc.config.compose import config_hash
from fgvc.config.schema import Config
from fgvc.data import dataset as datasets
from fgvc.html.formats import interval, number
from fgvc.model.backbone import weights
from fgvc.pipeline import notes
from fgvc.pipeline.experiment import Experiment, Results, check_data, identity_of
from fgvc.pipeline.write_run import split_metrics
from fgvc.record import console, env_stamp
from fgvc.record.run_dir import IN_PROGRESS, SHORT, read_json, write_status

FILE = "validation.json"
STATE = "validated"


def write_validation(experiment: Experiment, results: Results) -> None:
    """Write the validation numbers into the run folder, which stays in progress."""
    run, numbers = experiment.run, split_metrics(experiment, results.predictions["val"])
    record = {
        "val": numbers,
        "splits": sorted(results.predictions),
        "test_reads": len(run.test_reads()),
        "identity": experiment.identity,
        "seconds": run.seconds,
        **results.numbers,
        "unreadable": notes.unreadable_counts(experiment.dataset, results.unreadable),
        "notes": notes.notes_of(experiment, results),
    }
    run.write_json(FILE, record)
    write_status(run.path, STATE, run.started)
    console.say(
        f"validation top-1 [95 %]: {interval(numbers)} %, "
        f"loss {number(numbers['loss'])}, {numbers['n']} images; test was not read"
    )
    for note in record["notes"]:
        console.say(f"note: {note}")
    console.say(f"in progress: {run.path}")


def is_validated(conf: Config, plain: Mapping[str, Any]) -> bool:
    """Whether an earlier process validated this run with the same code, data and weights.

    Raises:
        UserError: it was validated on other data or weights; its files are unchanged.
    """
    folder = run_folder(conf, plain)
    record = read_validation(folder) if conf.runtime.stop_before_test else None
    if record is None:
        return False
    cache_root = Path(conf.runtime.cache_root).expanduser()
    dataset = datasets.load(conf.dataset, cache_root, remember=False)
    current = identity_of("train", env_stamp.git_state(), dataset, weights.find(conf.backbone))
    check_data(record["identity"], current, folder)
    if record["identity"] != current:
        return False
    console.say(f"validated already: {folder}")
    return True


def run_folder(conf: Config, plain: Mapping[str, Any]) -> Path:
    root = Path(conf.runtime.output_root).expanduser() / str(conf.runtime.run_id)
    return root / config_hash(dict(plain))[:SHORT] / IN_PROGRESS


def read_validation(folder: Path) -> dict[str, Any] | None:
    """The validation record of a run in progress; None if the run has not been validated."""
    if not (folder / FILE).is_file() or read_json(folder, "status.json")["state"] != STATE:
        return None
    return read_json(folder, FILE)
