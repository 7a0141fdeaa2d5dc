"""An argument that Hydra cannot parse -> one line that states how to write it.

A message suggests only what Hydra can parse.
"""

from __future__ import annotations

import functools
import re
from contextlib import suppress

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from fgvc.config.errors import ConfigError, nearest
from fgvc.config.image_argument import refuse_address
from fgvc.config.option_files import AXES, options
from fgvc.config.override_grammar import literal_or_interpolation, parse_override, written
from fgvc.config.schema_keys import all_keys, list_keys
from fgvc.config.synonyms import for_word
from fgvc.untrusted.shell import literal
from fgvc.untrusted.shell import word as shell_word

KEY = re.compile(r"[+~]*[A-Za-z_][A-Za-z0-9_./@-]*")
COLON = re.compile(r"([A-Za-z_][\w./]*)\s*:\s*(.*)", re.DOTALL)


def parse_argument(argument: str) -> Override:
    """An argument of the command line, parsed.

    Raises:
        ConfigError: states how to write it.
    """
    try:
        return parse_override(argument)
    except HydraException as error:
        raise parse_error(argument) from error


def parse_error(argument: str) -> ConfigError:
    key, sign, value = argument.partition("=")
    if not sign:
        return ConfigError(f"{argument}: expected key=value{_suggestion(argument)}")
    if KEY.fullmatch(key) is None:
        word = key.strip()
        if word not in known_keys():
            return ConfigError(f"{argument}: unknown config key{nearest(word, known_keys())}")
        example = written(f"{word}={value.strip() or 'VALUE'}")
        return ConfigError(f"{argument}: write key and = without spaces, as in {example}")
    if key == "image":
        refuse_address(value)
    if key in AXES:
        names = [name for name in re.split(r"[\s,{}\[\]()'\"]+", value) if name in options(key)]
        several = f"; several: -m {key}={','.join(names)}" if len(names) > 1 else ""
        example = names[0] if len(names) == 1 else "OPTION"
        return ConfigError(f"{argument}: expected one name, as in {key}={example}{several}")
    if key in list_keys():
        line = f"{argument}: quote each item of the list"
        items = value.removeprefix("[").removesuffix("]").split(",")
        quoted = f"[{','.join(literal(item.strip()) for item in items)}]"
    else:
        line = f"{argument}: the value needs quotes for special characters"
        quoted = literal_or_interpolation(value)
    with suppress(HydraException):
        parse_override(f"{key}={quoted}")
        line += f": {shell_word(f'{key}={quoted}')}"
    return ConfigError(line)


def _suggestion(argument: str) -> str:
    """What to write for an argument without `=`; empty if not known."""
    colon = COLON.fullmatch(argument)
    if colon is not None and colon[1] in known_keys():
        example = written(f"{colon[1]}={colon[2].strip() or 'VALUE'}")
        return f"; write {example} (no colon)"
    if argument in known_keys():
        return f", without spaces around =, as in {argument}=VALUE"
    if argument in ("help", "version"):
        return f"; write --{argument}"
    advice = for_word(argument)
    return nearest(argument, AXES) if advice is None else f"; {advice}"


@functools.cache
def known_keys() -> tuple[str, ...]:
    """The keys of every option, and the axes."""
    leaves = [item.key for item in all_keys() if item.node is None]
    return tuple(dict.fromkeys((*AXES, *leaves)))
