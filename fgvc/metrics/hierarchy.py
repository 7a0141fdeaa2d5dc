"""Predictions and the dataset's own tree -> how far wrong the mistakes are.

The distance of two classes is the height of their lowest common ancestor: the edges from it down to
the deepest class below it. 0: the same class; 1: siblings in the plainest tree.
N images, C classes, K predictions an image, L levels, V nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fgvc.metrics.classification import UNREADABLE
from fgvc.types import Hierarchy

ROOT = ""  # stands above the tops of a dataset that names no common one


@dataclass(frozen=True)
class Tree:
    """The ways from the root down to the classes.

    node_CL: indices of inner nodes, the root first; below a class's own way a number that no other
    class has. height_V: of each inner node.
    """

    node_CL: np.ndarray
    height_V: np.ndarray

    @cached_property
    def height(self) -> int:
        """Of the root: the largest distance there is."""
        return int(self.height_V.max())

    def distance(self, label_N: np.ndarray, pred_NK: np.ndarray) -> np.ndarray:
        """int64 distance_NK between each image's class and its predictions.

        An image that could not be read (UNREADABLE) is as far off as can be.
        """
        shared_NKL = self.node_CL[label_N][:, None] == self.node_CL[pred_NK]
        depth_NK = np.logical_and.accumulate(shared_NKL, axis=2).sum(axis=2)
        lowest_NK = self.node_CL[label_N[:, None], depth_NK - 1]
        same_NK = pred_NK == label_N[:, None]
        # a class's own number is no inner node: look nothing up for it
        apart_NK = self.height_V[np.where(same_NK, 0, lowest_NK)]
        apart_NK[same_NK] = 0
        apart_NK[pred_NK == UNREADABLE] = self.height
        return apart_NK


def build_tree(hierarchy: Hierarchy) -> Tree:
    """The tree of a dataset's classes, in the label map's order."""
    ways = _root_paths(hierarchy)
    height: dict[str, int] = {}
    for way in ways:
        for depth, node in enumerate(way):
            height[node] = max(height.get(node, 0), len(way) - depth)
    index = {node: place for place, node in enumerate(height)}
    node_CL = np.repeat(-1 - np.arange(len(ways))[:, None], max(map(len, ways)), axis=1)
    for node_L, way in zip(node_CL, ways, strict=True):
        node_L[: len(way)] = [index[node] for node in way]
    return Tree(node_CL, np.array(list(height.values())))


def _root_paths(hierarchy: Hierarchy) -> list[list[str]]:
    """From one common root, which is added where the dataset's tree ends in several tops."""
    ways = [list(reversed(chain)) for chain in hierarchy.chain]
    if all(ways) and len({way[0] for way in ways}) == 1:
        return ways
    return [[ROOT, *way] for way in ways]


def hierarchical_metrics(
    top_NK: np.ndarray, label_N: np.ndarray, hierarchy: Hierarchy
) -> dict[str, float | int | None]:
    """The hierarchical numbers of one split, as they stand in metrics.json.

    Source: Bertinetto et al., "Making better mistakes" (CVPR 2020), sec. 3, where the same heights
    are averaged. They depend on which classes there are: compare like with like only.

    Args:
        top_NK: as `topk` gives them for min(5, C). label_N: class indices; at least one image.

    Returns:
        mistake_distance (mean over the wrong images; None where there is none), top1_distance and
        top5_distance (mean over all images, of the first and of all K predictions),
        and largest_distance, the height of the whole tree.
    """
    whole = build_tree(hierarchy)
    distance_NK = whole.distance(label_N, top_NK)
    first_N = distance_NK[:, 0]
    wrong_N = first_N > 0
    return {
        "mistake_distance": float(first_N[wrong_N].mean()) if wrong_N.any() else None,
        "top1_distance": float(first_N.mean()),
        "top5_distance": float(distance_NK.mean()),
        "largest_distance": whole.height,
    }
