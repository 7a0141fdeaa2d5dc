"""A dataset's class ids and names -> LabelMap, or an error that lists the offending entries.

Built once over all splits, so a class missing from one split shifts no index. N images.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from fgvc.data.index import list_first, repeated
from fgvc.types import LabelMap, UserError

MAX_IDS_PER_CLASS = 1000  # range of ids per class up to which missing ids are listed


def from_ids(ids: Sequence[int], names: Sequence[str], where: str, allow_gaps: bool) -> LabelMap:
    """Label map of a dataset that numbers its classes; index order is the order of the ids.

    Args:
        ids, names: class by class, in any order.
        where: the file they come from, for the message.
        allow_gaps: whether ids between the lowest and the highest may be missing (partial copies).

    Raises:
        UserError: no class, a duplicate id or name, or a gap.
    """
    if not ids:
        raise UserError(f"{where}: lists no class")
    for what, values in (("class id", [str(number) for number in ids]), ("class name", names)):
        if duplicates := repeated(values):
            raise UserError(f"{where}: {what} listed twice: {list_first(duplicates)}")
    span = max(ids) - min(ids) + 1
    if not allow_gaps and span > MAX_IDS_PER_CLASS * len(ids):  # too many missing ids to list
        raise UserError(
            f"{where}: class ids {min(ids)} to {max(ids)} for {len(ids)} classes; correct the ids, "
            "or accept a partial copy with dataset.partial=true"
        )
    missing = [] if allow_gaps else sorted(set(range(min(ids), max(ids) + 1)) - set(ids))
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
        where: the file the ids come from, for the message.
        source: the file that defines the ids, for the message.

    Raises:
        UserError: ids that the label map lacks.
    """
    id_C = np.array(labelmap.ids, dtype=np.int64)
    raw_U, inverse_N = np.unique(raw_N, return_inverse=True)
    if unknown := sorted(set(raw_U.tolist()) - set(id_C.tolist())):
        raise UserError(
            f"{where}: class ids that {source} does not list: {list_first(unknown)} "
            f"(it lists {id_C.min()} to {id_C.max()})"
        )
    index_of = {raw: index for index, raw in enumerate(id_C.tolist())}
    return np.array([index_of[raw] for raw in raw_U.tolist()], dtype=np.int64)[inverse_N]


def drop_empty_classes(
    ids: Sequence[int], names: Sequence[str], raw_N: np.ndarray
) -> tuple[list[int], list[str]]:
    """The ids and names of the classes that have images.

    For hierarchies, which also name inner nodes, and for partial copies, whose class file may still
    name all classes.
    """
    used_ids = set(np.unique(raw_N).tolist())
    pairs = [(number, name) for number, name in zip(ids, names, strict=True) if number in used_ids]
    return [number for number, _ in pairs], [name for _, name in pairs]


def check_class_folders(
    path: Sequence[str],
    label_N: np.ndarray,
    class_folder: Sequence[str],
    where: object,
    allow_other_folders: bool,
) -> None:
    """Compare each label with the folder of its image, to detect a shifted label map.

    Args:
        class_folder: folder name per class; a folder called `images` may hold any class.
        allow_other_folders: accept folders that are named after no class.

    Raises:
        UserError: images in the folder of another class.
    """
    class_folders = set(class_folder)
    messages = []
    for image_path, label in zip(path, label_N.tolist(), strict=True):
        folder = image_path.rsplit("/", 2)[-2]
        if folder in (class_folder[label], "images") or (
            allow_other_folders and folder not in class_folders
        ):
            continue
        messages.append(f"{image_path} labelled {class_folder[label]}")
    if messages:
        raise UserError(
            f"{where}: {len(messages)} images lie in another class's folder than their label says: "
            f"{list_first(messages, limit=3)}"
        )
