"""Where the rooms meet: one module per task, each with `run(job)`; here one is started and ended.

`run` returns None, an exit code of its own where an answer can be "no" without a failure, or
Skipped where the answer was there already.

Exit codes: 0 done, 1 failed, 2 the command was wrong, 75 stopped and resumable.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from omegaconf import DictConfig, OmegaConf

from fgvc import notices
from fgvc.config.compose import typed
from fgvc.config.errors import ConfigError
from fgvc.config.schema import Config, beside
from fgvc.escape import visible
from fgvc.record.folder import Preempted, state_of
from fgvc.store.places import explained, no_home
from fgvc.task.leftovers import remove_leftovers
from fgvc.types import UserError

DONE, FAILED, WRONG_COMMAND, PREEMPTED = 0, 1, 2, 75
MODULES = {
    "probe": "fgvc.task.probe",
    "zero_shot": "fgvc.task.zero_shot",
    "train": "fgvc.task.train",
    "eval": "fgvc.task.evaluate",
    "predict": "fgvc.task.predict",
    "doctor": "fgvc.task.doctor",
    "check": "fgvc.task.check",
    "view": "fgvc.task.view",
    "report": "fgvc.task.report",
    "compare": "fgvc.task.compare",
    "audit": "fgvc.task.audit",
    "plan": "fgvc.task.plan",
    "prune": "fgvc.task.prune",
    "export": "fgvc.task.export",
}

FRESH = ("probe", "zero_shot", "train")  # experiments that begin with weights, not a checkpoint


@dataclass(frozen=True)
class Job:
    """One job as it was asked for: composed config, its typed form, overrides, exact command."""

    cfg: DictConfig
    conf: Config
    overrides: tuple[str, ...]
    command: str


@dataclass(frozen=True)
class Skipped:
    """The complete run, made earlier under this run_id, that answers the job."""

    folder: Path


@dataclass(frozen=True)
class Ended:
    """How a job ended: done, skipped (complete before it began), failed, oom or preempted.

    line: what went wrong, in one line.
    """

    code: int
    state: str
    line: str | None = None
    traceback: str | None = None


def run_job(cfg: DictConfig, overrides: Sequence[str], command: str) -> Ended:
    """Run one job to its end, whatever happens in it."""
    try:
        with _stopping_on_signals():
            conf = typed(cfg)
            _weights_first(conf)
            remove_leftovers(conf)
            task = importlib.import_module(MODULES[conf.task.name])
            code = task.run(Job(cfg, conf, tuple(overrides), command))
    except ConfigError as error:
        return _end(error, str(error), WRONG_COMMAND)
    except UserError as error:
        return _end(error, str(error))
    except OSError as error:
        return _end(error, explained(error, cfg.runtime, _places(cfg)))
    except (Preempted, KeyboardInterrupt) as error:
        run_id = cfg.runtime.run_id
        line = f"stopped; the same command with runtime.run_id={run_id} goes on"
        return _end(error, line, PREEMPTED)
    except Exception as error:
        if isinstance(error, RuntimeError) and (line := no_home(error, cfg.runtime)) is not None:
            return _end(error, line)
        traceback.print_exc()
        return _end(error, f"{type(error).__name__}: {error}")
    if isinstance(code, Skipped):
        return Ended(DONE, "skipped")
    return Ended(code or DONE, "failed" if code else "done")


def _places(cfg: DictConfig) -> dict[str, str | None]:
    """Keys, other than roots of runtime, that name where this job writes."""
    keys = ["task.output", "task.overlay"]
    if cfg.dataset.reader == "synthetic" or OmegaConf.select(cfg, "dataset.download"):
        keys.append("dataset.root")
    return {key: OmegaConf.select(cfg, key) for key in keys}


def _weights_first(conf: Config) -> None:
    """Without a network the one line that says so must not wait for torch and a dataset, and
    weights from the hub that were made for other pixels are refused before a folder is made."""
    if conf.task.name in FRESH and conf.backbone.weights is None:
        from fgvc.model.backbone import weights

        path = weights.find(conf.backbone).path
        if path is not None and (reason := beside.refusal(conf.backbone, path, conf.preprocess)):
            raise ConfigError(reason)
        if conf.preprocess == "native":
            from fgvc.data.preprocess import check_geometry

            check_geometry(conf, path)


def _end(error: BaseException, text: str, code: int = FAILED) -> Ended:
    line = " ".join(text.split())
    with suppress(
        OSError
    ):  # standard error may be on the full disk too; the exit code still reports the failure
        print(f"fgvc: {visible(line)}", file=sys.stderr, flush=True)
    trace = "".join(traceback.format_exception(error))
    return Ended(code, state_of(error), line, trace)


def second_notice() -> signal.Handlers:
    """What a second notice does: it ends the process at once, the first having been too slow.

    But SLURM tells every process of a job, and so does the process that started this one; there
    it means nothing, and the end at once is SLURM's own SIGKILL.
    """
    return signal.SIG_IGN if "SLURM_JOB_ID" in os.environ else signal.SIG_DFL


@contextmanager
def _stopping_on_signals() -> Iterator[None]:
    """A cluster's notice (SIGTERM, SIGUSR1, SIGUSR2) ends the job as Ctrl-C does, resumably.

    A second one ends the process at once; what is on disk is whole at every moment anyway.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        for each in notices.CLUSTER:
            signal.signal(each, second_notice())
        raise Preempted(signal.Signals(number).name)

    before = {each: signal.signal(each, stop) for each in notices.CLUSTER}
    try:
        notices.accept()  # a job of a sweep starts with them blocked
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
