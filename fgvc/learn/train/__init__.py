"""Batches -> weights by gradient: one optimiser step per global batch, on any number of ranks.

Trainer(model, task, classes, depth_of, steps_per_epoch, device, precision, seed, world, ...)
trainer.step(micros) -> StepReport        one global batch, this rank's `Micro`s of it
trainer.state(), trainer.load(state)      an exact continuation
trainer.best.after(epoch, top1, loss)     which epoch is kept, and when patience has run out
"""

from fgvc.learn.train.best_epoch import BestEpoch
from fgvc.learn.train.errors import NonFinite, OutOfMemory
from fgvc.learn.train.grad_accumulation import Hooks
from fgvc.learn.train.step import LoaderBatch, StepReport
from fgvc.learn.train.trainer import Trainer

__all__ = ["BestEpoch", "Hooks", "LoaderBatch", "NonFinite", "OutOfMemory", "StepReport", "Trainer"]
