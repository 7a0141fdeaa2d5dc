"""A typed override, maybe for another program -> the shell word that a message suggests.

A typed value is Hydra's syntax if Hydra can parse it (a number, a list, a quoted text), otherwise
plain text.
"""

from __future__ import annotations

import re

from hydra.core.override_parser.types import Override, QuotedString, ValueType
from hydra.errors import HydraException

from fgvc.config.override_grammar import parse_override
from fgvc.untrusted import shell

_RESOLVER = re.compile(r"\$\{(oc\.\w+|hydra):")  # resolvers of OmegaConf and Hydra


def written(override: str) -> str:
    """An override as one shell word, quoted for Hydra if Hydra would read another text."""
    key, sign, value = override.partition("=")
    home = value.removeprefix("~/")  # fgvc expands ~, and some shells do
    if home != value and shell.word(home) == home and _is_read(f"{key}={home}", home):
        return override
    if not sign or _is_read(override, value):
        return shell.word(override)
    return shell.word(f"{key}={literal_or_interpolation(value)}")


def literal_or_interpolation(text: str) -> str:
    """A text in quotes; `${` begins an interpolation only before a resolver."""
    resolvers = len(_RESOLVER.findall(text))
    only_resolvers = resolvers > 0 and resolvers == text.count("${")
    return shell.quoted(text) if only_resolvers else shell.literal(text)


def _is_read(override: str, value: str) -> bool:
    """Whether Hydra reads the value unchanged."""
    try:
        parsed = parse_override(override)
    except HydraException:
        return False
    if parsed.is_sweep_override():
        return parsed.value_type == ValueType.SIMPLE_CHOICE_SWEEP
    return not _is_other_text(parsed, value)


def _is_other_text(parsed: Override, value: str) -> bool:
    if isinstance(parsed._value, QuotedString):
        return False
    text = parsed.value()
    interpolates = value.count("${") > len(_RESOLVER.findall(value))
    return isinstance(text, str) and (text != value or interpolates)
