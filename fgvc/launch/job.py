"""One job -> its task, run to the end -> how it ended: an exit code, a state and one line.

Exit codes: 0 done, 1 failed, 2 the command was wrong, 75 stopped and resumable.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf

from fgvc.config.compose import typed
from fgvc.config.errors import ConfigError
from fgvc.config.schema import Config
from fgvc.config.weight_files import sidecars
from fgvc.exit_codes import DONE, FAILED, PREEMPTED, WRONG_COMMAND
from fgvc.launch.stale_files import remove_leftovers
from fgvc.parallel import signals
from fgvc.pipeline.job import Job, Skipped
from fgvc.record.run_dir import state_of
from fgvc.store.disk_advice import disk_error_line, missing_home_line
from fgvc.types import Preempted, UserError
from fgvc.untrusted.escape import visible

FRESH = ("probe", "zero_shot", "train")  # experiments that begin with weights, not a checkpoint


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
        with signals.raise_on_signal(Preempted):
            conf = typed(cfg)
            _weights_first(conf)
            remove_leftovers(conf)
            task = importlib.import_module(f"fgvc.task.{conf.task.name}")
            code = task.run(Job(cfg, conf, tuple(overrides), command))
    except ConfigError as error:
        return _end(error, str(error), WRONG_COMMAND)
    except UserError as error:
        return _end(error, str(error))
    except OSError as error:
        return _end(error, disk_error_line(error, cfg.runtime, _places(cfg)))
    except (Preempted, KeyboardInterrupt) as error:
        run_id = cfg.runtime.run_id
        line = f"stopped; the same command with runtime.run_id={run_id} goes on"
        return _end(error, line, PREEMPTED)
    except Exception as error:
        if (
            isinstance(error, RuntimeError)
            and (line := missing_home_line(error, cfg.runtime)) is not None
        ):
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
        if path is not None and (
            reason := sidecars.normalization_mismatch(conf.backbone, path, conf.preprocess)
        ):
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
