"""Where the rooms meet: one module per task, each with `run(job)`; here one is started and ended.

`run` returns None, or an exit code of its own where an answer can be "no" without a failure.

Exit codes: 0 done, 1 failed, 2 the command was wrong, 75 stopped and resumable.
"""

from __future__ import annotations

import importlib
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from omegaconf import DictConfig

from fgvc.config.compose import typed
from fgvc.config.errors import ConfigError
from fgvc.config.schema import Config
from fgvc.record.folder import Preempted
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


def run_job(cfg: DictConfig, overrides: Sequence[str], command: str) -> int:
    """Run one job to its end, whatever happens in it; returns its exit code."""
    try:
        with _stopping_on_signals():
            conf = typed(cfg)
            _weights_first(conf)
            task = importlib.import_module(MODULES[conf.task.name])
            code = task.run(Job(cfg, conf, tuple(overrides), command))
    except ConfigError as error:
        return _end(WRONG_COMMAND, str(error))
    except UserError as error:
        return _end(FAILED, str(error))
    except OSError as error:
        return _end(FAILED, _of_disk(error))
    except (Preempted, KeyboardInterrupt):
        run_id = cfg.runtime.run_id
        return _end(PREEMPTED, f"stopped; the same command with runtime.run_id={run_id} goes on")
    except Exception as error:
        traceback.print_exc()
        return _end(FAILED, f"{type(error).__name__}: {' '.join(str(error).split())}")
    return DONE if code is None else code


def _weights_first(conf: Config) -> None:
    """Without a network the one line that says so must not wait for torch and a dataset."""
    if conf.task.name in FRESH and conf.backbone.weights is None:
        from fgvc.model.backbone import weights

        weights.find(conf.backbone)


def _end(code: int, line: str) -> int:
    print(f"fgvc: {' '.join(line.split())}", file=sys.stderr, flush=True)
    return code


def _of_disk(error: OSError) -> str:
    if error.filename is None:
        return str(error)
    return f"{error.filename}: {error.strerror}"


@contextmanager
def _stopping_on_signals() -> Iterator[None]:
    """SIGTERM and SIGUSR1 (a cluster's notice) end the job as Ctrl-C does: cleanly, resumably.

    A second one ends the process at once; what is on disk is whole at every moment anyway.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_DFL)
        raise Preempted(signal.Signals(number).name)

    signals = (signal.SIGTERM, signal.SIGUSR1)
    before = {each: signal.signal(each, stop) for each in signals}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
