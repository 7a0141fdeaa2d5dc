"""Choices that are legal alone -> whether they fit together, said before any work starts."""

from __future__ import annotations

from pathlib import Path

from fgvc.config.errors import ConfigError
from fgvc.config.schema import Config, chosen_checkpoint

INPUTS = {"eval": {"checkpoint"}}  # what a task reads beside its dataset; others read none
SIDES = (224, 256, 336, 384, 392, 448, 512, 518)  # pixels; the options of resolution=


def check_side(conf: Config) -> None:
    """Refuse a side, in pixels, that its name belies or that is not a whole number of patches.

    Raises:
        ConfigError: names the side, the patch and the nearest resolutions that fit.
    """
    side, name = conf.resolution.side, conf.resolution.name
    if name != f"r{side}":
        raise ConfigError(
            f"resolution.side={side} but resolution.name={name}: choose a resolution=, or set "
            f"resolution.name=r{side} too"
        )
    row = chosen_checkpoint(conf.backbone)
    if side % row.patch == 0:
        return
    fitting = [option for option in SIDES if option % row.patch == 0]
    closest = sorted(sorted(fitting, key=lambda option: abs(option - side))[:3])
    raise ConfigError(
        f"resolution={side} px is not a multiple of {row.patch}, the patch of {row.model}; "
        f"nearest that fit: {', '.join(f'resolution=r{option}' for option in closest)}"
    )


def check_inputs(conf: Config) -> None:
    """Refuse a missing input of the task, and one that it would silently ignore."""
    if conf.runtime.nproc != 1:
        raise ConfigError(f"runtime.nproc={conf.runtime.nproc}: task={conf.task.name} runs as 1")
    if conf.runtime.resume is not None:
        raise ConfigError(
            f"runtime.resume={conf.runtime.resume}: task={conf.task.name} has no state to resume "
            "from a path; the same runtime.run_id goes on where its features stopped"
        )
    wanted = INPUTS.get(conf.task.name, set())
    for name in ("checkpoint", "run", "against", "image"):
        value = getattr(conf, name)
        if value is None and name in wanted:
            raise ConfigError(f"task={conf.task.name} needs {name}=PATH")
        if value is not None and name not in wanted:
            raise ConfigError(f"{name}={value}: task={conf.task.name} reads no {name}")
    _check_table(conf)
    if conf.task.name == "probe":
        _check_probe(conf)
    if conf.checkpoint is not None and not Path(conf.checkpoint).expanduser().exists():
        raise ConfigError(f"checkpoint={conf.checkpoint}: no such file or folder")
    if conf.dataset.download and conf.task.name != "doctor":
        raise ConfigError(
            f"dataset.download=true: task={conf.task.name} downloads nothing; "
            "fetch the dataset first with task=doctor dataset.download=true"
        )


def _check_probe(conf: Config) -> None:
    """What a probe could find out only after its features were extracted."""
    dataset, task = conf.dataset, conf.task
    if conf.head.name == "linear" and dataset.val_fraction == 0:
        raise ConfigError("dataset.val_fraction=0 leaves no image to choose C on: 0.1 is usual")
    if task.c_count > 1 and not task.c_low < task.c_high:
        raise ConfigError(
            f"task.c_low={task.c_low:g} task.c_high={task.c_high:g}: {task.c_count} values need a "
            "low that is below the high"
        )


def _check_table(conf: Config) -> None:
    dataset = conf.dataset
    if conf.task.name == "eval":
        return  # the reader is the checkpoint's
    if dataset.reader == "table" and dataset.table is None:
        raise ConfigError(
            "dataset=table needs dataset.table=FILE, a CSV, TSV or Parquet of path, label, split"
        )
    if dataset.reader != "table" and dataset.table is not None:
        raise ConfigError(
            f"dataset.table={dataset.table}: only dataset=table reads one, not "
            f"dataset={dataset.name}"
        )
