"""YAML of a record -> plain data, without tags, anchors or deep nesting."""

from __future__ import annotations

from typing import Any

from fgvc import untrusted
from fgvc.record.verify import DamageError

MAX_CHARACTERS = 1 << 20  # a config has about 5,000


def plain_yaml(file: str, text: str) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        DamageError: not YAML, not a mapping, too long, or as `untrusted.parse_yaml`.
    """
    if len(text) > MAX_CHARACTERS:
        raise DamageError(f"{file}: {len(text)} characters, at most {MAX_CHARACTERS}")
    try:
        value = untrusted.parse_yaml(text)
    except ValueError as error:
        raise DamageError(f"{file}: not YAML that this version reads ({error})") from error
    if not isinstance(value, dict):
        raise DamageError(f"{file}: not a YAML mapping")
    return value
