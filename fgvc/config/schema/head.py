"""head= axis: what describes a head, and the heads of fgvc/model/head."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from fgvc.config.schema.fields import bounded
from fgvc.config.schema.gather import gather


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

    C classes, N training images.

    Attributes:
        options: dataclass of the `head` node.
        layer: its torch module in fgvc/model/head_layers.py. Its class method `create` takes
            (options, sizes of the axes, torch.Generator) and returns a head with initial values.
        fit: how a probe fits the head to features. "logistic" and "gradient": validation chooses
            its settings, and task=train trains it too. A function (options, x_ND, label_N, classes)
            -> head: in closed form, without validation; it may keep and change x_ND. None: only
            task=zero_shot has it.
        reads_text: whether it compares features with text features of the class names.
        bank: the name of its tensor that has a row per training image, if there is one. Such a head
            has no tensors outside its state dict.
        check: (tensors, classes) -> the error in the values of a stored head, or None. Names,
            shapes and types of numbers are those of a head that `create` returns, and all values
            are finite.
    """

    options: type
    layer: str
    fit: str | Callable[[Any, Any, Any, int], Any] | None
    reads_text: bool = False
    bank: str | None = None
    check: Callable[[Mapping[str, Any], int], str | None] | None = None

    def __post_init__(self) -> None:
        assert not self.learns or self.fit in ("logistic", "gradient")

    @property
    def learns(self) -> bool:
        """Whether it has weights that an optimiser trains and settings that validation chooses."""
        return isinstance(self.fit, str)


@functools.cache
def heads() -> Mapping[str, HeadSpec]:
    return gather("fgvc.model.head", "HEAD")
