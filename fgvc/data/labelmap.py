"""A dataset's own class ids and names -> LabelMap, or a refusal that lists the offenders.

Built once over all splits: a class that one split lacks shifts nothing. N images.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from fgvc.data.index import list_first, repeated
from fgvc.types import LabelMap, UserError

MAX_IDS_PER_CLASS = 1000  # ids between the lowest and the highest, per class, that are listed


def from_ids(ids: Sequence[int], names: Sequence[str], where: str, gaps: bool) -> LabelMap:
    """Label map of a dataset that numbers its classes; index order is the order of the ids.

    Args:
        ids, names: class by class, in any order.
        where: the file they come from, for the message.
        gaps: whether ids may be missing between the lowest and the highest (a partial copy).

    Raises:
        UserError: no class, an id or a name twice, or a gap.
    """
    if not ids:
        raise UserError(f"{where}: lists no class")
    for what, values in (("class id", [str(number) for number in ids]), ("class name", names)):
        if twice := repeated(values):
            raise UserError(f"{where}: {what} listed twice: {list_first(twice)}")
    span = max(ids) - min(ids) + 1
    if not gaps and span > MAX_IDS_PER_CLASS * len(ids):  # the ids between are not worth a list
        raise UserError(
            f"{where}: class ids {min(ids)} to {max(ids)} for {len(ids)} classes; correct the ids, "
            "or accept a partial copy with dataset.partial=true"
        )
    missing = [] if gaps else sorted(set(range(min(ids), max(ids) + 1)) - set(ids))
    if missing:
        raise UserError(
            f"{where}: class ids {min(ids)} to {max(ids)} lack {list_first(missing)}; "
            "complete it, or accept a partial copy with dataset.partial=true"
        )
    pairs = sorted(zip(ids, names, strict=True))
    return LabelMap(ids=tuple(str(i) for i, _ in pairs), names=tuple(name for _, name in pairs))


def from_names(names: Iterable[str]) -> LabelMap:
    """Label map of a dataset that only names its classes: id = name, in sorted order."""
    ordered = tuple(sorted(names))
    return LabelMap(ids=ordered, names=ordered)


def to_indices(raw_N: np.ndarray, labelmap: LabelMap, where: object, source: str) -> np.ndarray:
    """The dataset's own class id of each image -> int64 class index.

    Args:
        raw_N: integer ids.
        where: the file the ids come from; source: the one that defines them. For the message.

    Raises:
        UserError: ids that the label map lacks, listed beside its range.
    """
    known_C = np.array(labelmap.ids, dtype=np.int64)
    raw_U, place_N = np.unique(raw_N, return_inverse=True)
    if unknown := sorted(set(raw_U.tolist()) - set(known_C.tolist())):
        raise UserError(
            f"{where}: class ids that {source} does not list: {list_first(unknown)} "
            f"(it lists {known_C.min()} to {known_C.max()})"
        )
    index_of = {raw: index for index, raw in enumerate(known_C.tolist())}
    return np.array([index_of[raw] for raw in raw_U.tolist()], dtype=np.int64)[place_N]


def drop_empty_classes(
    ids: Sequence[int], names: Sequence[str], raw_N: np.ndarray
) -> tuple[list[int], list[str]]:
    """The ids and names of those classes that have images.

    For hierarchies, which name inner nodes too, and for partial copies, whose definition may still
    be the whole one.
    """
    occurring = set(np.unique(raw_N).tolist())
    kept = [(number, name) for number, name in zip(ids, names, strict=True) if number in occurring]
    return [number for number, _ in kept], [name for _, name in kept]


def check_class_folders(
    path: Sequence[str], label_N: np.ndarray, folder_of: Sequence[str], where: object, lax: bool
) -> None:
    """The folder an image lies in is a second witness of its label: a shifted map shows here.

    Args:
        folder_of: per class, the name of its folder; `images` holds images of every class.
        lax: accept a folder that is named after no class.

    Raises:
        UserError: images that lie in the folder of another class, the first ones listed.
    """
    known = set(folder_of)
    wrong = []
    for one, label in zip(path, label_N.tolist(), strict=True):
        folder = one.rsplit("/", 2)[-2]
        if folder in (folder_of[label], "images") or (lax and folder not in known):
            continue
        wrong.append(f"{one} labelled {folder_of[label]}")
    if wrong:
        raise UserError(
            f"{where}: {len(wrong)} images lie in another class's folder than their label says: "
            f"{list_first(wrong, most=3)}"
        )
