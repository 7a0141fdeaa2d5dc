"""YAML of a record -> plain data, without tags, anchors or deep nesting."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fgvc.record.verify import DamageError

MAX_CHARACTERS = 1 << 20  # a config has about 5,000
MAX_DEPTH = 50


def plain_yaml(file: str, text: str) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        DamageError: not YAML, not a mapping, too long, or with an anchor. A few anchors can expand
            to a document larger than memory, and fgvc writes none.
    """
    import yaml

    if len(text) > MAX_CHARACTERS:
        raise DamageError(f"{file}: {len(text)} characters, at most {MAX_CHARACTERS}")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the faster C version, if available
    try:
        _check_events(file, yaml.parse(text, Loader=loader))
        value = yaml.load(text, Loader=loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise DamageError(f"{file}: not YAML that this version reads ({error})") from error
    if not isinstance(value, dict):
        raise DamageError(f"{file}: not a YAML mapping")
    return value


def _check_events(file: str, events: Iterable[Any]) -> None:
    """Raise DamageError at the first event that does not occur in a config of fgvc."""
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
