"""Groups of several datasets -> tables of models by datasets, one per protocol.

A protocol is what two groups can share although their images differ: preprocessing, the split of
the fit and the version of the metric code. Groups that are ranked apart, and smoke tests on a
subset, are in no matrix.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from fgvc.report.aggregate_seeds import Line, unique_names
from fgvc.report.ranking import Group

MAX_MODELS = 60  # rows of a matrix, besides the best model of each dataset


@dataclass(frozen=True)
class Cell:
    """A line of a group. place: its place there; 1 is the best of the dataset."""

    group: Group
    place: int
    line: Line


@dataclass(frozen=True)
class Matrix:
    """Top-1 of models on datasets under one protocol.

    columns: one group per dataset or, where a dataset has several comparable groups, per group.
    rows: name of a model, and its cell per column (None: not measured), of the models measured on
    several datasets and of the best of each dataset. models: number of all models.
    """

    protocol: tuple[str, ...]
    columns: tuple[Group, ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]
    models: int

    @property
    def headers(self) -> list[str]:
        """Dataset and marks of each column; the same dataset twice also shows its key."""
        names = [
            ", ".join((group.fitted.first.dataset, *group.data_marks)) for group in self.columns
        ]
        return [
            name if names.count(name) == 1 else f"{name} ({group.key[:8]})"
            for name, group in zip(names, self.columns, strict=True)
        ]


def dataset_matrices(groups: Sequence[Group]) -> list[Matrix]:
    """One matrix per protocol under which a model was evaluated on several datasets."""
    by_protocol: dict[tuple[str, ...], list[Group]] = defaultdict(list)
    for group in groups:
        if group.entries and not group.apart and group.shared("subset") is None:
            metric_code = f"metric code {group.fitted.first.metric_version[:8]}"
            by_protocol[*group.protocol, metric_code].append(group)
    matrices = (_matrix(protocol, columns) for protocol, columns in sorted(by_protocol.items()))
    return [matrix for matrix in matrices if matrix is not None]


def _matrix(protocol: tuple[str, ...], columns: Sequence[Group]) -> Matrix | None:
    cells: dict[str, dict[str, Cell]] = defaultdict(dict)
    for group in columns:
        lines = [entry.line for entry in group.entries]
        plain = Counter(line.first.name for line in lines)
        for place, (line, unique) in enumerate(zip(lines, unique_names(lines), strict=True), 1):
            name = line.first.name if plain[line.first.name] == 1 else unique
            cells[name][group.key] = Cell(group, place, line)

    def datasets(name: str) -> int:
        return len({cell.group.fitted.first.dataset for cell in cells[name].values()})

    def order(name: str) -> tuple[float, float, str]:
        """Models on the most datasets first, then those of the best mean place."""
        own = cells[name].values()
        return -datasets(name), sum(cell.place for cell in own) / len(own), name

    several = sorted((name for name in cells if datasets(name) > 1), key=order)
    if not several:
        return None
    best = {name for name in cells if any(cell.place == 1 for cell in cells[name].values())}
    names = sorted({*several[:MAX_MODELS], *best}, key=order)
    rows = tuple((name, tuple(cells[name].get(group.key) for group in columns)) for name in names)
    return Matrix(protocol, tuple(columns), rows, len(cells))
