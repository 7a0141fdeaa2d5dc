"""A dataset's own class ids and names -> LabelMap, or a refusal that lists the offenders."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fgvc.data.index import listed, repeated
from fgvc.types import LabelMap, UserError


def numbered(ids: Sequence[int], names: Sequence[str], where: str, gaps: bool) -> LabelMap:
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
            raise UserError(f"{where}: {what} listed twice: {listed(twice)}")
    missing = sorted(set(range(min(ids), max(ids) + 1)) - set(ids))
    if missing and not gaps:
        raise UserError(
            f"{where}: class ids {min(ids)} to {max(ids)} lack {listed(missing)}; "
            "complete it, or accept a partial copy with dataset.partial=true"
        )
    pairs = sorted(zip(ids, names, strict=True))
    return LabelMap(ids=tuple(str(i) for i, _ in pairs), names=tuple(name for _, name in pairs))


def named(names: Iterable[str]) -> LabelMap:
    """Label map of a dataset that only names its classes: id = name, in sorted order."""
    ordered = tuple(sorted(names))
    return LabelMap(ids=ordered, names=ordered)
