"""Predictions and the dataset's class hierarchy -> how severe the mistakes are.

The distance of two classes is the height of their lowest common ancestor: the number of edges from
the ancestor down to its deepest class. 0: the same class; 1: siblings in a two-level tree.
N images, C classes, K predictions per image, L levels, V nodes.
"""

from __future__ import annotations

import numpy as np

from fgvc.metrics.confusion_counts import UNREADABLE
from fgvc.types import Hierarchy

ROOT = ""  # added above the top nodes of a hierarchy without a common root


class Tree:
    """The paths from the root down to the classes, in the label map's order.

    node_CL: indices of inner nodes, the root first; shorter paths are padded with a negative number
    that is unique to the class. height_V: of each inner node.
    """

    def __init__(self, hierarchy: Hierarchy) -> None:
        paths = [list(reversed(chain)) for chain in hierarchy.chain]
        if not (all(paths) and len({path[0] for path in paths}) == 1):
            paths = [[ROOT, *path] for path in paths]
        height: dict[str, int] = {}
        for path in paths:
            for depth, node in enumerate(path):
                height[node] = max(height.get(node, 0), len(path) - depth)
        self.height_V = np.array(list(height.values()))
        index = {node: place for place, node in enumerate(height)}
        padding_C1 = -1 - np.arange(len(paths))[:, None]
        self.node_CL = np.repeat(padding_C1, max(map(len, paths)), axis=1)
        for node_L, path in zip(self.node_CL, paths, strict=True):
            node_L[: len(path)] = [index[node] for node in path]

    def distance(self, label_N: np.ndarray, pred_NK: np.ndarray) -> np.ndarray:
        """int64 distance_NK between the class of each image and its predictions.

        An image that could not be read (UNREADABLE) has the largest possible distance.
        """
        shared_NKL = self.node_CL[label_N][:, None] == self.node_CL[pred_NK]
        depth_NK = np.logical_and.accumulate(shared_NKL, axis=2).sum(axis=2)
        lowest_NK = self.node_CL[label_N[:, None], depth_NK - 1]
        same_NK = pred_NK == label_N[:, None]
        # the padding of a class is not an inner node: index 0 instead
        distance_NK = self.height_V[np.where(same_NK, 0, lowest_NK)]
        distance_NK[same_NK] = 0
        distance_NK[pred_NK == UNREADABLE] = self.height_V.max()
        return distance_NK


def hierarchical_metrics(
    top_NK: np.ndarray, label_N: np.ndarray, hierarchy: Hierarchy
) -> dict[str, float | int | None]:
    """The hierarchical metrics of one split, as in metrics.json.

    Source: Bertinetto et al., "Making better mistakes" (CVPR 2020), sec. 3, which averages the same
    heights. They depend on the set of classes: only compare them for the same label map.

    Args:
        top_NK: as `topk` returns for k = min(5, C). label_N: class indices; at least one image.

    Returns:
        mistake_distance (mean over the wrong images; None without mistakes), top1_distance and
        top5_distance (mean over all images of the first and of all K predictions), and
        largest_distance, the height of the root.
    """
    tree = Tree(hierarchy)
    distance_NK = tree.distance(label_N, top_NK)
    first_N = distance_NK[:, 0]
    wrong_N = first_N > 0
    return {
        "mistake_distance": float(first_N[wrong_N].mean()) if wrong_N.any() else None,
        "top1_distance": float(first_N.mean()),
        "top5_distance": float(distance_NK.mean()),
        "largest_distance": int(tree.height_V.max()),
    }
