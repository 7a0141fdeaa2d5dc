"""Batches -> weights by gradient: one optimiser step per global batch, on any number of ranks.

Trainer(model, task, classes, depth_of, steps_per_epoch, device, precision, seed, world, ...)
trainer.step(batches) -> StepReport       a global batch; this rank loads its `LoaderBatch`es
trainer.state(), trainer.load(state)      an exact resume
trainer.best.after(epoch, top1, loss)     the best epoch, and whether patience is exhausted
"""

from fgvc.learn.train.best_epoch import BestEpoch
from fgvc.learn.train.errors import NonFinite, OutOfMemory
from fgvc.learn.train.step import LoaderBatch, StepReport
from fgvc.learn.train.trainer import Trainer

__all__ = ["BestEpoch", "LoaderBatch", "NonFinite", "OutOfMemory", "StepReport", "Trainer"]
