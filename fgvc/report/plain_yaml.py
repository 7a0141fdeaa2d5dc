"""YAML of a record -> plain data, within bounds: no tags, anchors or deep nesting."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fgvc.record.verify import DamageError

MAX_CHARACTERS = 1 << 20  # characters: a config has some five thousand
MAX_DEPTH = 50


def plain_yaml(file: str, text: str) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        DamageError: no YAML, no mapping, too long, or with an anchor: a few of them make a document
            that fills any memory, and fgvc writes none.
    """
    import yaml

    if len(text) > MAX_CHARACTERS:
        raise DamageError(f"{file}: {len(text)} characters, at most {MAX_CHARACTERS}")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same in C, where it was built
    try:
        _check_events(file, yaml.parse(text, Loader=loader))
        value = yaml.load(text, Loader=loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise DamageError(f"{file}: not YAML that this version reads ({error})") from error
    if not isinstance(value, dict):
        raise DamageError(f"{file}: not a YAML mapping")
    return value


def _check_events(file: str, events: Iterable[Any]) -> None:
    """Read the events as they come and stop at the first that no config of fgvc has."""
    import yaml

    depth = 0
    for event in events:
        if isinstance(event, yaml.NodeEvent) and event.anchor is not None:  # an alias has one too
            raise DamageError(f"{file}: YAML with an anchor, which fgvc does not write")
        if getattr(event, "tag", None) is not None:
            raise DamageError(f"{file}: YAML with a tag, which fgvc does not write")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise DamageError(f"{file}: nested more than {MAX_DEPTH} levels deep")
