"""Distances in a hierarchy, compared with networkx and by hand."""

from __future__ import annotations

import networkx
import numpy as np
import pytest

from fgvc import metrics
from fgvc.types import Hierarchy

BIRDS = Hierarchy(
    (
        ("duck", "waterfowl", "bird"),  # male
        ("duck", "waterfowl", "bird"),  # female
        ("waterfowl", "bird"),  # swan
        ("songbird", "bird"),  # wren
    ),
    {},
)


def logits_of(order_NC):
    """Logits that rank the classes in the order of each row."""
    order_NC = np.asarray(order_NC)
    logits_NC = np.empty(order_NC.shape)
    np.put_along_axis(logits_NC, order_NC, -np.arange(order_NC.shape[1], dtype=float)[None], 1)
    return logits_NC


def hierarchy_metrics(logits_NC, label_N):
    top_NK = metrics.topk(logits_NC, min(5, logits_NC.shape[1]))
    return metrics.hierarchical_metrics(top_NK, label_N, BIRDS)


def test_by_hand():
    order_NC = [[0, 1, 2, 3], [1, 0, 2, 3], [3, 2, 1, 0], [2, 3, 0, 1]]
    distances = hierarchy_metrics(logits_of(order_NC), np.array([0, 0, 1, 2]))
    # first predictions: right, the other duck, a songbird for a duck, right
    assert distances["mistake_distance"] == pytest.approx((1 + 3) / 2)
    assert distances["top1_distance"] == pytest.approx((0 + 1 + 3 + 0) / 4)
    assert distances["top5_distance"] == pytest.approx((6 + 6 + 6 + (0 + 3 + 2 + 2)) / 16)
    assert distances["largest_distance"] == 3


def random_hierarchy(rng, classes):
    """Paths of unequal length through a random tree, and its edges from parent to child."""
    graph = networkx.DiGraph()
    for node in range(1, 25):
        graph.add_edge(f"n{rng.integers(node)}", f"n{node}")
    inner = sorted(graph)
    for label in range(classes):
        graph.add_edge(inner[rng.integers(len(inner))], label)
    chains = []
    for label in range(classes):
        way = networkx.shortest_path(graph, "n0", label)[:-1]
        chains.append(tuple(reversed(way)))
    leaf_names = [n for n in graph if isinstance(n, str)]
    for node in sorted(leaf_names, key=lambda n: -len(networkx.ancestors(graph, n))):
        if graph.out_degree(node) == 0:  # no class below it: it is no part of anyone's chain
            graph.remove_node(node)
    return Hierarchy(tuple(chains), {}), graph


@pytest.mark.parametrize("seed", range(3))
def test_distances_are_heights_of_lowest_common_ancestors(seed):
    rng = np.random.default_rng(seed)
    classes = 30
    hierarchy, graph = random_hierarchy(rng, classes)
    label_N, pred_NK = rng.integers(classes, size=60), rng.integers(classes, size=(60, 3))
    found_NK = metrics.Tree(hierarchy).distance(label_N, pred_NK)
    for label, preds, distances in zip(label_N.tolist(), pred_NK.tolist(), found_NK, strict=True):
        for pred, distance in zip(preds, distances, strict=True):
            meet = networkx.lowest_common_ancestor(graph, label, pred)
            deepest = max(networkx.shortest_path_length(graph, meet).values())
            assert distance == deepest, (label, pred)
    assert len(set(found_NK.flatten().tolist())) > 3


def test_roots_are_joined_under_a_common_root():
    kingdoms = Hierarchy((("Aves",), ("Aves",), ("Insecta",)), {})
    distance_NK = metrics.Tree(kingdoms).distance(np.array([0]), np.array([[0, 1, 2]]))
    assert distance_NK.tolist() == [[0, 1, 2]]


def test_classes_below_nothing_are_all_equally_far():
    flat = metrics.Tree(Hierarchy(((), (), ()), {}))
    assert flat.distance(np.array([0]), np.array([[0, 1, 2]])).tolist() == [[0, 1, 1]]


def test_an_unreadable_image_is_as_wrong_as_can_be():
    logits_NC = logits_of([[0, 1, 2, 3], [0, 1, 2, 3]])
    logits_NC[1] = -np.inf
    distances = hierarchy_metrics(logits_NC, np.array([0, 0]))
    assert distances["mistake_distance"] == 3
    assert distances["top1_distance"] == pytest.approx(1.5)


def test_without_a_mistake_there_is_no_distance_of_one():
    distances = hierarchy_metrics(logits_of([[2, 3, 0, 1]]), np.array([2]))
    assert (distances["mistake_distance"], distances["top1_distance"]) == (None, 0.0)
