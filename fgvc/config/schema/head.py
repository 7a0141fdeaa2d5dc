"""head= axis: what describes a head, and the heads of fgvc/model/head."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from fgvc.config.schema.fields import bounded
from fgvc.config.schema.gather import gather

Sizes = Mapping[str, int]  # axis -> size


@dataclass
class GradientFit:
    """How a probe fits a head without a convex objective to cached features.

    Validation chooses among all pairs of a learning rate and a weight decay, and the epoch.
    """

    epochs: int = bounded(1)
    batch_size: int = bounded(1)
    learning_rates: list[float] = MISSING
    weight_decays: list[float] = MISSING


@dataclass(frozen=True)
class HeadSpec:
    """A head: a module of fgvc/model/head holds its options, its functions and its HEAD.

    C classes, D feature width, N images; any other letter is an axis of the head's own.

    Attributes:
        options: dataclass of the `head` node.
        tensors: names of its tensors in a checkpoint -> their axes.
        build: (options, sizes by axis, torch.Generator) -> the head with initial values. An axis of
            the head's own has a size if the head is read from a checkpoint.
        fit: how a probe fits the head to features. "logistic" and "gradient": validation chooses
            its settings, and task=train trains it too. A function (options, x_ND, label_N, classes)
            -> head: in closed form, without validation. None: only task=zero_shot has it.
        reads_text: whether it compares features with text features of the class names.
        check: (options, tensors, classes) -> the reason why tensors of these shapes are no such
            head, or None.
    """

    options: type
    tensors: Mapping[str, str]
    build: Callable[[Any, Sizes, Any], Any]
    fit: str | Callable[[Any, Any, Any, int], Any] | None
    reads_text: bool = False
    check: Callable[[Any, Mapping[str, Any], int], str | None] | None = None

    @property
    def learns(self) -> bool:
        """Whether it has weights that an optimiser trains and settings that validation chooses."""
        return isinstance(self.fit, str)


@functools.cache
def heads() -> Mapping[str, HeadSpec]:
    """The heads by name."""
    return gather("fgvc.model.head", "HEAD")
