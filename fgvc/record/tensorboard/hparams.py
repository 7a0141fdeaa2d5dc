"""The choices of a run -> its row in TensorBoard's HPARAMS tab, and the declaration of the columns.

Every run declares all columns, even if a probe has no epochs: the tab reads the declaration of the
first run only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from fgvc.record.tensorboard.events import Events

# the hyperparameters and their places in the config
AXES = {  # the first columns, if nothing is known about other runs
    "dataset": "dataset.name",
    "backbone": "backbone.name",
    "size": "backbone.size",
    "resolution": "resolution.side",
    "head": "head.name",
}
OPTIONS = ("epochs", "batch_size", "optimiser", "learning_rate", "layer_decay", "weight_decay")
TRAINING_CHOICES = {name: f"task.{name}" for name in OPTIONS}
CHOICES = {
    **AXES,
    "task": "task.name",
    "part_attention": "part_attention.name",
    **{name: name for name in ("preprocess", "precision", "final_fit", "seed")},
    **TRAINING_CHOICES,
}
NUMBERS = {"resolution", "seed", *TRAINING_CHOICES} - {"optimiser"}
RESULTS = ("test/top1", "test/mean_per_class", "test/macro_f1", "test/loss", "val/top1")
FIRST_FILE = "events.out.tfevents.0000000000"  # TensorBoard reads it before the events of a run


def declaration(differing: Collection[str]) -> Any:
    """A summary that declares the columns.

    Args:
        differing: members of CHOICES; their columns come first, and alone are shown at the start.
    """
    from tensorboard.plugins.hparams import plugin_data_pb2 as messages
    from torch.utils.tensorboard.summary import hparams

    examples = {name: 0.0 if name in NUMBERS else "" for name in CHOICES}
    declared, _, _ = hparams(examples, dict.fromkeys(RESULTS, 0.0))
    plugin_data = declared.value[0].metadata.plugin_data
    message = messages.HParamsPluginData()  # pyright: ignore[reportAttributeAccessIssue]
    message.ParseFromString(plugin_data.content)
    for info in message.experiment.hparam_infos:
        info.differs = info.name in differing
    plugin_data.content = message.SerializeToString()
    return declared


def session(choices: Mapping[str, str | float | int]) -> list[Any]:
    """The summaries of one run's row; the tab reads RESULTS from the scalars of the run's folder.

    SummaryWriter.add_hparams would write these scalars a second time.
    """
    from torch.utils.tensorboard.summary import hparams

    return list(hparams(dict(choices), {})[1:])


def varied(runs: Collection[Mapping[str, Any]]) -> list[str]:
    """The hyperparameters that have several values in these runs.

    Args:
        runs: flat configs, dotted key -> value; either as resolved or as hashed.
    """
    hashed = {"size": "backbone.checkpoint.size"}  # the hashed config has no backbone.size
    names = []
    for name, place in CHOICES.items():
        values = {run.get(place, run.get(hashed.get(name, place))) for run in runs}
        if len(values - {None}) > 1:
            names.append(name)
    return names


def write_declaration(folder: Path, differing: Collection[str]) -> None:
    """Write an event file that TensorBoard reads before the other event files of the folder."""
    from tensorboard.compat.proto import event_pb2

    messages: Any = event_pb2  # its classes are generated on import
    events = Events(folder)
    events.add_event(messages.Event(wall_time=0.0, summary=declaration(differing)))
    events.close()
    events.path.rename(folder / FIRST_FILE)
