"""Imports of the server that forks a sweep's jobs, so that each job starts with them loaded.

Nothing is computed here, because a process that forks must have no threads. A stop signal to the
whole process group must not end the server: the sweep would lose the exit codes of its jobs.
"""

import atexit
import gc
import importlib
import os
import traceback
from multiprocessing import forkserver

import fgvc.config.help
import fgvc.config.sweep_expansion  # noqa: F401
from fgvc.parallel import signals

LOADED = (  # by name: nothing here uses them
    "fgvc.html.confusion",
    "fgvc.record.fiftyone.dataset",
    "fgvc.record.run_page",
    "fgvc.task.probe",
    "fgvc.task.train",
    "jinja2",
    "timm",
    "torch.utils.tensorboard",
    "torchvision.transforms.v2",
)

signals.block()  # not ignore(): a signal before a job has set its handlers stays pending
for _name in LOADED:
    importlib.import_module(_name)
gc.freeze()  # a job that collects garbage would copy the pages of every object of the server

# the server computes nothing that its end could lose; freeing the objects of torch takes 0.5 s, and
# triton reports frozen objects as leaks. A process that only imports this module ends as usual
if any(frame.f_code is forkserver.main.__code__ for frame, _ in traceback.walk_stack(None)):
    atexit.register(os._exit, 0)
