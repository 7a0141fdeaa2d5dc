"""A training that stops before test (runtime.stop_before_test) -> validation.json, and no record.

The run stays in progress, in the state `validated`: no table takes it for a run, its states stay,
and the same command without the key goes on from them and reads test.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fgvc.config.compose import config_hash
from fgvc.config.schema import Config
from fgvc.data import dataset as datasets
from fgvc.model.backbone import weights
from fgvc.pipeline import notes
from fgvc.pipeline.experiment import Experiment, Results, identity
from fgvc.pipeline.run_identity import check_data, identity_of
from fgvc.pipeline.write_run import split_metrics
from fgvc.record import console, env_stamp
from fgvc.record.run_dir import IN_PROGRESS, SHORT, read_json

FILE = "validation.json"
STATE = "validated"


def write_validation(experiment: Experiment, results: Results) -> Path:
    """Leave the validation numbers in the run folder, which stays in progress."""
    numbers = split_metrics(experiment, results.predictions["val"])
    record = {
        "val": numbers,
        "splits": sorted(results.predictions),  # what was read of, as it was handed on
        "test_reads": len(experiment.run.test_reads()),
        "identity": identity(experiment),
        "seconds": experiment.run.seconds,
        **results.numbers,
        "unreadable": notes.unreadable_counts(experiment.dataset, results.unreadable),
        "notes": notes.notes_of(experiment, results),
    }
    experiment.run.write_json(FILE, record)
    experiment.run.pause(STATE)
    console.say(
        f"validation top-1 [95 %]: {console.interval(numbers)} %, "
        f"loss {console.number(numbers['loss'])}, {numbers['n']} images; test was not read"
    )
    for note in record["notes"]:
        console.say(f"note: {note}")
    console.say(f"in progress: {experiment.run.path}")
    return experiment.run.path


def is_validated(conf: Config, plain: Mapping[str, Any]) -> bool:
    """Whether an earlier process of this run was validated: same code, data and weights.

    Raises:
        UserError: it was validated on other data or weights; its files are unchanged.
    """
    found = None if not conf.runtime.stop_before_test else read_validation(run_folder(conf, plain))
    if found is None:
        return False
    place = run_folder(conf, plain)
    cache_root = Path(conf.runtime.cache_root).expanduser()
    dataset = datasets.load(conf.dataset, cache_root, remember=False)
    current = identity_of("train", env_stamp.git_state(), dataset, weights.find(conf.backbone))
    check_data(found["identity"], current, place)
    same = found["identity"] == current
    if same:
        console.say(f"validated already: {place}")
    return same


def run_folder(conf: Config, plain: Mapping[str, Any]) -> Path:
    """The folder of a run while it is in progress."""
    root = Path(conf.runtime.output_root).expanduser() / str(conf.runtime.run_id)
    return root / config_hash(dict(plain))[:SHORT] / IN_PROGRESS


def read_validation(folder: Path) -> dict[str, Any] | None:
    """What a run in progress found on validation; None where it has not got so far."""
    if not (folder / FILE).is_file() or read_json(folder, "status.json")["state"] != STATE:
        return None
    return read_json(folder, FILE)
