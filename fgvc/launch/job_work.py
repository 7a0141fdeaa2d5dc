"""The config of a job and its numbers of images -> the work of its fit, and repeated forwards."""

from __future__ import annotations

from dataclasses import dataclass

from fgvc.config.schema import Config, is_exact
from fgvc.config.schema.head import heads
from fgvc.config.schema.task import FEW_VALUES
from fgvc.report import fit_estimate
from fgvc.report.fit_estimate import FitCost, ProbeSizes
from fgvc.types import Dataset


@dataclass(frozen=True)
class ImageCounts:
    """Numbers of classes and images. dataset: loaded only if its image digests are cached."""

    classes: int
    train: int
    val: int
    test: int
    dataset: Dataset | None
    note: str | None


def repeated(conf: Config, role: str, count: int) -> int:
    """Images that the cascade's sample or the certificate forwards in fp32 as well."""
    asked = getattr(conf.task, "cascade" if role == "train" else "certify", None)
    return 0 if asked is None or is_exact(conf) else min(asked, count)


def fit_cost(conf: Config, images: ImageCounts, width: int) -> FitCost | None:
    """The cost of the head; None for a head in closed form that keeps no training images."""
    spec, head, task = heads()[conf.head.name], conf.head, conf.task
    refits = conf.final_fit == "trainval" and images.val > 0
    sizes = ProbeSizes(images.train, images.val, images.test, width, images.classes, refits)
    if spec.fit == "logistic":
        searches = task.c_search == "bracket" and task.c_count > FEW_VALUES
        return fit_estimate.logistic_cost(sizes, task.c_count, searches)
    if spec.fit == "gradient":
        hidden, settings = getattr(head, "hidden", None), head.fit
        weights = width * images.classes if hidden is None else hidden * (width + images.classes)
        pairs = len(settings.learning_rates) * len(settings.weight_decays)
        return fit_estimate.gradient_cost(sizes, weights, pairs, settings.epochs)
    return None if spec.bank is None else fit_estimate.knn_cost(sizes)
