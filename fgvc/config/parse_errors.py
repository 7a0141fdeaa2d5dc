"""An argument that Hydra cannot parse -> one line that states how to write it.

A message suggests only what Hydra can parse.
"""

from __future__ import annotations

import functools
import re
from contextlib import suppress

from hydra.errors import HydraException

from fgvc.config import schema
from fgvc.config.errors import ConfigError, nearest
from fgvc.config.image_argument import refuse_address
from fgvc.config.list_values import is_list, quoted_items
from fgvc.config.option_files import options
from fgvc.config.override_grammar import parse_override
from fgvc.config.schema_keys import all_keys
from fgvc.config.suggested_override import literal_or_interpolation, written
from fgvc.config.synonyms import for_word
from fgvc.untrusted.shell import word as shell_word

KEY = re.compile(r"[+~]*[A-Za-z_][A-Za-z0-9_./@-]*")
COLON = re.compile(r"([A-Za-z_][\w./]*)\s*:\s*(.*)", re.DOTALL)


def parse_error(argument: str, axes: tuple[str, ...]) -> ConfigError:
    """The error for an argument that Hydra cannot parse.

    Args:
        axes: the keys that choose an option.
    """
    key, sign, value = argument.partition("=")
    if not sign:
        return ConfigError(f"{argument}: expected key=value{_suggestion(argument, axes)}")
    if KEY.fullmatch(key) is None:
        return _key_error(argument, key, value, axes)
    if key == "image":
        refuse_address(value)
    if key in axes:
        names = [name for name in re.split(r"[\s,{}\[\]()'\"]+", value) if name in options(key)]
        several = f"; several: -m {key}={','.join(names)}" if len(names) > 1 else ""
        example = names[0] if len(names) == 1 else "OPTION"
        return ConfigError(f"{argument}: expected one name, as in {key}={example}{several}")
    if is_list(key):
        return _quote_error(argument, "quote each item of the list", key, quoted_items(value))
    reason = "the value needs quotes for special characters"
    return _quote_error(argument, reason, key, literal_or_interpolation(value))


def _quote_error(argument: str, reason: str, key: str, value: str) -> ConfigError:
    with suppress(HydraException):
        parse_override(f"{key}={value}")
        return ConfigError(f"{argument}: {reason}: {shell_word(f'{key}={value}')}")
    return ConfigError(f"{argument}: {reason}")


def _key_error(argument: str, key: str, value: str, axes: tuple[str, ...]) -> ConfigError:
    word = key.strip()
    if word in known_keys(axes):
        example = written(f"{word}={value.strip() or 'VALUE'}")
        return ConfigError(f"{argument}: write key and = without spaces, as in {example}")
    return ConfigError(f"{argument}: unknown config key{nearest(word, known_keys(axes))}")


def _suggestion(argument: str, axes: tuple[str, ...]) -> str:
    """What to write for an argument without `=`; empty if not known."""
    colon = COLON.fullmatch(argument)
    if colon is not None and colon[1] in known_keys(axes):
        example = written(f"{colon[1]}={colon[2].strip() or 'VALUE'}")
        return f"; write {example} (no colon)"
    if argument in known_keys(axes):
        return f", without spaces around =, as in {argument}=VALUE"
    if argument in ("help", "version"):
        return f"; write --{argument}"
    advice = for_word(argument)
    return nearest(argument, axes) if advice is None else f"; {advice}"


@functools.cache
def known_keys(axes: tuple[str, ...]) -> tuple[str, ...]:
    """The keys of every option, and the axes."""
    leaves = [item.key for item in all_keys() if item.node is None]
    return (*axes, *dict.fromkeys(key for key in leaves if key not in schema.VARIANTS))
