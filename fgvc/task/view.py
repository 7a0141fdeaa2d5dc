"""task=view: a run, or two runs of one dataset, in the FiftyOne App until Ctrl-C.

An operation: the record is read, held against its digests, and left as it is. The database is our
own, under runtime.cache_root; a dataset in it takes the place of an earlier one of its name.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from fgvc import untrusted
from fgvc.config.overrides import declared_values
from fgvc.data.find_root import named_root
from fgvc.pipeline.job import Job
from fgvc.record import console, verify
from fgvc.record.fiftyone import app, two_runs
from fgvc.record.fiftyone.dataset import FOLDER
from fgvc.record.fiftyone.run_fields import SHORT
from fgvc.record.find_run import find_run
from fgvc.record.verify import DamageError
from fgvc.store.temporary_files import scratch
from fgvc.types import Preempted, UserError


def run(job: Job) -> None:
    """Open the App and wait; Ctrl-C ends it well, while it loads too.

    Raises:
        UserError: no such record or a damaged one, runs of other images, pictures that are not to
            be found, a port that is taken, no FiftyOne here, or a database that does not answer.
        OSError: the database's folder cannot be made.
    """
    try:
        _show(job)
    except (KeyboardInterrupt, Preempted):
        console.say("view: closed")
        app.exit_soon()


def _show(job: Job) -> None:
    conf = job.conf
    given = {"run": conf.run, "against": conf.against}
    runs = [find_run(Path(path), key) for key, path in given.items() if path is not None]
    exports = [_export(one) for one in runs]
    root = _data_root(job, runs[0], exports[0])
    app.check_port(conf.task.address, conf.task.port)
    with scratch("view") as beside:
        if len(exports) > 1:
            two_runs.write(beside, *exports)
        app.prepare(Path(conf.runtime.cache_root).expanduser() / FOLDER)
        folder = exports[0] if len(exports) == 1 else beside
        dataset = app.load_dataset(folder, root, _name(runs))
    session = app.launch(dataset, conf.task.address, conf.task.port)
    try:
        _tell(job, dataset)
        while True:
            signal.pause()
    except (KeyboardInterrupt, Preempted):
        console.say("view: closed")
    finally:
        app.close_app(session)


def _export(folder: Path) -> Path:
    """The dataset of a run folder, whole and as it was written.

    Raises:
        UserError: names the file that is missing or changed.
    """
    try:
        artifacts = verify.read_index(folder)
        if f"{FOLDER}/metadata.json" not in artifacts:
            raise UserError(f"{folder}: holds no {FOLDER}/, it is an older record: run it again")
        for file in artifacts:
            if file.startswith(f"{FOLDER}/"):
                verify.read_verified(folder, file, artifacts)
    except DamageError as error:
        way = "give a run folder, outputs/RUN/CONFIG/CHECKPOINT"
        if (folder / "artifacts.json").is_file():  # a sealed run
            way = "restore the file, or run it again"
        raise UserError(f"{folder}: {error}; {way}") from error
    return folder / FOLDER


def _data_root(job: Job, run_folder: Path, export: Path) -> Path:
    """Where the pictures of a run lie: as the command says, where they were, or in data_root.

    Raises:
        UserError: none of these holds the first picture; names where it was looked for.
    """
    first = next(two_runs.samples(export))["filepath"]
    places = _places(job, run_folder)
    for place in places:
        if (place / first).is_file():
            return place
    raise UserError(
        f"{first} of {run_folder} is not in {' or '.join(map(str, places))}: "
        "give dataset.root=PATH, the folder that the run had"
    )


def _places(job: Job, run_folder: Path) -> Sequence[Path]:
    given = declared_values(job.overrides)
    root, table = given.get("dataset.root"), given.get("dataset.table")
    if root is not None or table is not None:
        return [named_root(root, table)]
    file = run_folder / "config.yaml"
    try:
        had = yaml.safe_load(untrusted.read_yaml(file))["dataset"]
        recorded = named_root(had["root"], had["table"])
    except (ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        raise UserError(f"{file}: damaged ({' '.join(str(error).split())[:80]})") from error
    return [recorded, Path(job.conf.runtime.data_root).expanduser() / recorded.name]


def _name(runs: Sequence[Path]) -> str:
    """Of the dataset in the database: the checkpoints, by which a person finds it again."""
    return "-".join(["fgvc", *(one.resolve().name[:SHORT] for one in runs)])


def _tell(job: Job, dataset: Any) -> None:
    task = job.conf.task
    views = ", ".join(dataset.list_saved_views())
    console.say(f"view: {len(dataset)} images as {dataset.name}; saved views: {views}")
    console.say(f"view: http://{task.address}:{task.port} (Ctrl-C ends it)")
