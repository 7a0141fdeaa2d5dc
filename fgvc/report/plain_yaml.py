"""YAML of a record -> plain data, within bounds: no tags, anchors or deep nesting."""

from __future__ import annotations

from typing import Any

from fgvc import untrusted
from fgvc.record.verify import DamageError

MOST = 1 << 20  # characters: a config has about five thousand


def plain_yaml(file: str, text: str) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        DamageError: not YAML, not a mapping, too long, or as `untrusted.parse_yaml`.
    """
    if len(text) > MOST:
        raise DamageError(f"{file}: {len(text)} characters, at most {MOST}")
    try:
        value = untrusted.parse_yaml(text)
    except ValueError as error:
        raise DamageError(f"{file}: not YAML that this version reads ({error})") from error
    if not isinstance(value, dict):
        raise DamageError(f"{file}: not a YAML mapping")
    return value
