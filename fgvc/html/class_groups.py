"""The tree above the classes -> groups of classes, in which a page lists thousands of classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fgvc.types import Hierarchy

OTHER = "other"  # the group of classes without an ancestor at the level of the groups


@dataclass(frozen=True)
class ClassGroups:
    """names: of the K groups, in alphabetic order. place_C: the group of each of the C classes."""

    names: tuple[str, ...]
    place_C: np.ndarray

    def name_of(self, index: int) -> str:
        return self.names[self.place_C[index]]


def top_groups(hierarchy: Hierarchy | None) -> ClassGroups | None:
    """The super-categories: the nodes of the topmost level that has several of them.

    None without a tree, and for a tree without a level of several nodes.
    """
    paths = () if hierarchy is None else [tuple(reversed(chain)) for chain in hierarchy.chain]
    for depth in range(max(map(len, paths), default=0)):
        nodes = [path[depth] if depth < len(path) else None for path in paths]
        if hierarchy is not None and len(set(nodes) - {None}) > 1:
            name_of = {node: OTHER if node is None else hierarchy.names[node] for node in nodes}
            order = sorted(name_of, key=lambda node: (name_of[node], node or ""))
            place = {node: k for k, node in enumerate(order)}
            names = tuple(name_of[node] for node in order)
            return ClassGroups(names, np.array([place[node] for node in nodes]))
    return None
