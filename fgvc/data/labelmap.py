"""A dataset's class ids and names -> LabelMap, or an error that lists the offending entries.

Built once over all splits, so a class missing from one split shifts no index. N images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fgvc.data.index import list_first, repeated
from fgvc.types import LabelMap, UserError

MAX_IDS_PER_CLASS = 1000  # range of ids per class up to which missing ids are listed


def from_ids(
    ids: Sequence[int], names: Sequence[str], raw_N: np.ndarray, where: str, partial: bool
) -> LabelMap:
    """Label map of a dataset that numbers its classes; index order is the order of the ids.

    Args:
        ids, names: class by class, in any order.
        raw_N: the class id of each image.
        where: the file they come from, for the message.
        partial: leave out classes without an image (inner nodes of a hierarchy, or classes that a
            partial copy lacks); ids between the lowest and the highest may be missing.

    Raises:
        UserError: no class, a duplicate id or name, or a gap.
    """
    if partial:
        used_ids = set(np.unique(raw_N).tolist())
        used = [position for position, number in enumerate(ids) if number in used_ids]
        ids, names = [ids[position] for position in used], [names[position] for position in used]
    if not ids:
        raise UserError(f"{where}: lists no class")
    for what, values in (("class id", [str(number) for number in ids]), ("class name", names)):
        if duplicates := repeated(values):
            raise UserError(f"{where}: {what} listed twice: {list_first(duplicates)}")
    span = max(ids) - min(ids) + 1
    if not partial and span > MAX_IDS_PER_CLASS * len(ids):  # too many missing ids to list
        raise UserError(
            f"{where}: class ids {min(ids)} to {max(ids)} for {len(ids)} classes; correct the ids, "
            "or accept a partial copy with dataset.partial=true"
        )
    if not partial and (missing := sorted(set(range(min(ids), max(ids) + 1)) - set(ids))):
        raise UserError(
            f"{where}: class ids {min(ids)} to {max(ids)} lack {list_first(missing)}; "
            "complete it, or accept a partial copy with dataset.partial=true"
        )
    pairs = sorted(zip(ids, names, strict=True))
    return LabelMap(ids=tuple(str(i) for i, _ in pairs), names=tuple(name for _, name in pairs))


def from_names(name_N: Sequence[str]) -> tuple[LabelMap, np.ndarray]:
    """Label map and labels of images whose classes are only named: id = name, in sorted order."""
    names = tuple(sorted(set(name_N)))
    index_of = {name: index for index, name in enumerate(names)}
    return LabelMap(names, names), np.array([index_of[name] for name in name_N], dtype=np.int64)


def to_indices(raw_N: np.ndarray, labelmap: LabelMap, where: object, source: str) -> np.ndarray:
    """The dataset's own class id of each image -> int64 class index.

    Args:
        raw_N: integer ids.
        where: the file the ids come from, for the message.
        source: the file that defines the ids, for the message.

    Raises:
        UserError: ids that the label map lacks.
    """
    id_C = np.array(labelmap.ids, dtype=np.int64)  # ascending, as `from_ids` sorts them
    if unknown := np.setdiff1d(raw_N, id_C).tolist():
        raise UserError(
            f"{where}: class ids that {source} does not list: {list_first(unknown)} "
            f"(it lists {id_C.min()} to {id_C.max()})"
        )
    return np.searchsorted(id_C, raw_N).astype(np.int64)


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
        is_other = allow_other_folders and folder not in class_folders
        if not is_other and folder not in (class_folder[label], "images"):
            messages.append(f"{image_path} labelled {class_folder[label]}")
    if messages:
        raise UserError(
            f"{where}: {len(messages)} images are in the folder of another class than their label: "
            f"{list_first(messages, limit=3)}"
        )
