"""What the server imports that a sweep's jobs are forked from: each then begins with it loaded.

Nothing is computed here: a process that is forked must have no threads. A notice to stop that
reaches a whole group of processes must not end the server, or nobody would hear how its jobs end.
"""

from __future__ import annotations

import importlib

import fgvc.config.help
import fgvc.config.named_sweep
import fgvc.record.confusion_plot  # noqa: F401
from fgvc.parallel import signals

LOADED = (  # by name, because nothing of them is used here
    "fgvc.task.probe",
    "fgvc.task.train",
    "jinja2",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "pandas",  # pyarrow asks for it when it makes columns of Python's objects
    "sklearn.decomposition",
    "timm",
    "torch.utils.tensorboard",
)

signals.block()  # not ignore(): a job keeps a notice that comes before its handlers are set
for _name in LOADED:
    importlib.import_module(_name)
