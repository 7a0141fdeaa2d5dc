"""An argument that Hydra cannot read -> one line that says how it is written.

A line offers only what Hydra can read.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import typing
from collections.abc import Iterator
from contextlib import suppress

from hydra.errors import HydraException

from fgvc.config import schema
from fgvc.config.compose import options
from fgvc.config.compose_cache import parsed
from fgvc.config.errors import ConfigError, nearest
from fgvc.config.image_argument import refuse_address
from fgvc.config.list_values import is_list, quoted_items
from fgvc.config.suggested_override import literal_or_interpolation, written
from fgvc.config.synonyms import for_word
from fgvc.untrusted.shell import word as shell_word

KEY = re.compile(r"[+~]*[A-Za-z_][A-Za-z0-9_./@-]*")
COLON = re.compile(r"([A-Za-z_][\w./]*)\s*:\s*(.*)", re.DOTALL)


def unreadable(argument: str, axes: tuple[str, ...]) -> ConfigError:
    """What is wrong with an argument that Hydra cannot read.

    Args:
        axes: the keys that choose an option.
    """
    key, sign, value = argument.partition("=")
    if not sign:
        return ConfigError(f"{argument}: expected key=value{_instead(argument, axes)}")
    if KEY.fullmatch(key) is None:
        return _no_key(argument, key, value, axes)
    if key == "image":
        refuse_address(value)
    if key in axes:
        names = [name for name in re.split(r"[\s,{}\[\]()'\"]+", value) if name in options(key)]
        several = f"; several: -m {key}={','.join(names)}" if len(names) > 1 else ""
        one = names[0] if len(names) == 1 else "OPTION"
        return ConfigError(f"{argument}: expected one name, as in {key}={one}{several}")
    if is_list(key):
        return _quotes(argument, "quote each item of the list", key, quoted_items(value))
    return _quotes(
        argument,
        "the value needs quotes for special characters",
        key,
        literal_or_interpolation(value),
    )


def _quotes(argument: str, what: str, key: str, value: str) -> ConfigError:
    with suppress(HydraException):
        parsed(f"{key}={value}")
        return ConfigError(f"{argument}: {what}: {shell_word(f'{key}={value}')}")
    return ConfigError(f"{argument}: {what}")


def _no_key(argument: str, key: str, value: str, axes: tuple[str, ...]) -> ConfigError:
    word = key.strip()
    if word in known_keys(axes):
        example = written(f"{word}={value.strip() or 'VALUE'}")
        return ConfigError(
            f"{argument}: a key and its = are written without blanks, as in {example}"
        )
    return ConfigError(f"{argument}: unknown config key{nearest(word, known_keys(axes))}")


def _instead(argument: str, axes: tuple[str, ...]) -> str:
    """What to write for an argument without `=`; an empty text where it is not known."""
    found = COLON.fullmatch(argument)
    if found is not None and found[1] in known_keys(axes):
        example = written(f"{found[1]}={found[2].strip() or 'VALUE'}")
        return f"; write {example} (no colon)"
    if argument in known_keys(axes):
        return f", without blanks beside =, as in {argument}=VALUE"
    if argument in ("help", "version"):
        return f"; write --{argument}"
    advice = for_word(argument)
    return nearest(argument, axes) if advice is None else f"; {advice}"


@functools.cache
def known_keys(axes: tuple[str, ...]) -> tuple[str, ...]:
    """Every key that any option has, and the axes."""
    nodes = [("", schema.Config)]
    nodes += [(f"{node}.", cls) for node, own in schema.VARIANTS.items() for cls in own.values()]
    keys = dict.fromkeys(key for prefix, cls in nodes for key in _leaves(cls, prefix))
    return (*axes, *keys)


def _leaves(cls: type, prefix: str) -> Iterator[str]:
    hints = typing.get_type_hints(cls)
    for item in dataclasses.fields(cls):
        hint = hints[item.name]
        nested = [
            part
            for part in (hint, *typing.get_args(hint))
            if dataclasses.is_dataclass(part) and typing.get_origin(hint) is not dict
        ]
        if nested and isinstance(nested[0], type):
            yield from _leaves(nested[0], f"{prefix}{item.name}.")
        elif f"{prefix}{item.name}" not in schema.VARIANTS:
            yield f"{prefix}{item.name}"
