"""task=view: a run, or two runs of one dataset, in the FiftyOne App, or all runs in TensorBoard.

An operation: it leaves the records unchanged, and ends with Ctrl-C. FiftyOne shows verified records
only; its database is under runtime.cache_root, and a dataset replaces an earlier dataset of the
same name in it. TensorBoard shows runs in progress too, through a temporary folder of links.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from fgvc import untrusted
from fgvc.config.overrides import declared_values
from fgvc.parallel import signals
from fgvc.pipeline.job import Job
from fgvc.pipeline.recorded_images import candidate_roots
from fgvc.record import console, verify
from fgvc.record.fiftyone import app, display_text, two_runs
from fgvc.record.fiftyone.dataset import FOLDER
from fgvc.record.find_run import find_run
from fgvc.record.tensorboard import server
from fgvc.record.verify import DamageError
from fgvc.report import run_links
from fgvc.store.temporary_files import scratch
from fgvc.types import UserError, is_interruption

METADATA = "metadata.json"
GRACE = 20.0  # seconds in which FiftyOne may exit by itself
LINKS_EVERY = 5.0  # seconds between looks for new runs, as often as TensorBoard reads events


def run(job: Job) -> None:
    """Open FiftyOne or TensorBoard and wait for Ctrl-C, which also ends it cleanly while it loads.

    Raises:
        UserError: a missing or damaged record, runs of different images, missing images, a port in
            use, no FiftyOne, a database that does not answer, or no run for TensorBoard.
        OSError: the folder of the database cannot be made.
    """
    show = {"fiftyone": _show_fiftyone, "tensorboard": _show_tensorboard}[job.conf.task.viewer]
    try:
        show(job)
    except BaseException as error:
        if not is_interruption(error):
            raise
        console.say("view: closed")
        signals.exit_within(GRACE)


def _show_tensorboard(job: Job) -> None:
    conf, task = job.conf, job.conf.task
    root = Path(conf.runtime.output_root if conf.run is None else conf.run).expanduser()
    app.check_port(task.address, task.port)
    with scratch("tensorboard") as folder:
        count = run_links.update(folder, root)
        if not count:
            key = "runtime.output_root" if conf.run is None else "run"
            raise UserError(f"{key}={root}: no run with TensorBoard events. Give run=FOLDER")
        server.serve(folder, task.address, task.port)
        console.say(f"view: {count} runs of {root}, and those that start there")
        console.say(f"view: http://{task.address}:{task.port} (Ctrl-C ends it)")
        ended = threading.Event()
        follower = threading.Thread(target=_follow, args=(folder, root, ended), daemon=True)
        follower.start()
        try:
            while True:
                signals.pause()
        except KeyboardInterrupt:
            console.say("view: closed")
        finally:
            ended.set()
            follower.join()


def _follow(folder: Path, root: Path, ended: threading.Event) -> None:
    """Keep the links up to date until the event is set."""
    while not ended.wait(LINKS_EVERY):
        try:
            run_links.update(folder, root)
        except OSError as error:  # a run ended or was deleted meanwhile: the next look is right
            console.say(f"note: {error}")


def _show_fiftyone(job: Job) -> None:
    conf = job.conf
    paths = {"run": conf.run, "against": conf.against}
    runs = [find_run(Path(path), key) for key, path in paths.items() if path is not None]
    exports = [_export(folder) for folder in runs]
    root = _data_root(job, runs[0], exports[0])
    app.check_port(conf.task.address, conf.task.port)
    with scratch("view") as merged:
        if len(exports) > 1:
            two_runs.write(merged, *exports)
        app.prepare(Path(conf.runtime.cache_root).expanduser() / FOLDER)
        folder = exports[0] if len(exports) == 1 else merged
        infos = [
            untrusted.read_json(export / METADATA, untrusted.LIST)["info"] for export in exports
        ]
        dataset = app.load_dataset(folder, root, display_text.dataset_name(infos))
    session = app.launch(dataset, conf.task.address, conf.task.port)
    try:
        views, task = dataset.list_saved_views(), conf.task
        console.say(f"view: {len(dataset)} images as {dataset.name}; {len(views)} saved views")
        for name in views:
            console.say(f"  {name}")
        console.say(f"view: http://{task.address}:{task.port} (Ctrl-C ends it)")
        while True:
            signals.pause()
    except KeyboardInterrupt:
        console.say("view: closed")
    finally:
        _close(session)


def _close(session: Any) -> None:
    """Close the App; this process exits within GRACE seconds, even if FiftyOne hangs.

    FiftyOne's shutdown of its servers can hang. The servers exit with their parent, and no data is
    left to write.
    """
    signals.exit_within(GRACE)
    session.close()


def _export(folder: Path) -> Path:
    """The FiftyOne dataset of a run folder, verified."""
    try:
        artifacts = verify.read_index(folder)
        if f"{FOLDER}/{METADATA}" not in artifacts:
            raise UserError(f"{folder}: holds no {FOLDER}/, it is an older record: run it again")
        for file in artifacts:
            if file.startswith(f"{FOLDER}/"):
                verify.read_verified(folder, file, artifacts)
    except DamageError as error:
        hint = "give a run folder, outputs/RUN/CONFIG/CHECKPOINT"
        if (folder / "artifacts.json").is_file():  # a sealed run
            hint = "restore the file, or run it again"
        raise UserError(f"{folder}: {error}; {hint}") from error
    return folder / FOLDER


def _data_root(job: Job, run_folder: Path, export: Path) -> Path:
    """The folder of a run's images."""
    first = next(two_runs.samples(export))["filepath"]
    given, data_root = declared_values(job.overrides), Path(job.conf.runtime.data_root)
    try:
        roots = candidate_roots(run_folder, given, data_root)
    except (ValueError, TypeError, KeyError) as error:
        file, reason = run_folder / "config.yaml", " ".join(str(error).split())[:80]
        raise UserError(f"{file}: damaged ({reason})") from error
    for root in roots:
        if (root / first).is_file():
            return root
    raise UserError(
        f"{first} of {run_folder} is not in {' or '.join(map(str, roots))}: "
        "give dataset.root=PATH, the folder that the run had"
    )
