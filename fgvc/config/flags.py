"""`--lr 0.1` -> one line that says how an override is written; Hydra's own flags pass."""

from __future__ import annotations

import itertools
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from fgvc.config.compose import options
from fgvc.config.compose_cache import parse_override
from fgvc.config.errors import ConfigError
from fgvc.config.overrides import AXES, parse_command
from fgvc.config.synonyms import Advice, for_key, for_option

PRINTING_FLAGS = ("cfg", "info")
FLAGS_ALONE, FLAGS_WITH_VALUE = (
    ("-m", "--multirun", "--resolve"),
    ("-c", "--cfg", "-p", "--package"),
)
HOW_TO_WRITE = "overrides are written key=value, without dashes"


class _Parser(ArgumentParser):
    """Hydra's flags; an error in them is one line."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message.removeprefix('argument ')}; --help shows how it is written")


def move_flags_first(arguments: Sequence[str]) -> list[str]:
    """The arguments with Hydra's flags before the overrides, where its parser expects them."""
    first, rest = [], []
    left = iter(arguments)
    for argument in left:
        if argument in FLAGS_WITH_VALUE:
            first += [argument, *itertools.islice(left, 1)]
        elif argument in FLAGS_ALONE or argument.startswith(
            tuple(f"{name}=" for name in FLAGS_WITH_VALUE)
        ):
            first.append(argument)
        else:
            rest.append(argument)
    return [*first, *rest]


def parse_flags(arguments: Sequence[str]) -> Namespace:
    """Hydra's flags of a command.

    Raises:
        ConfigError: a flag that Hydra does not have, as `--lr 0.1`; names the override for it.
    """
    hydra = get_args_parser()
    parser = _Parser(
        add_help=False, allow_abbrev=False, parents=[hydra], conflict_handler="resolve"
    )
    flags, unknown = parser.parse_known_args(list(arguments))
    if unknown:
        raise ConfigError(_flag_error(unknown[0], list(arguments)))
    shown = [f"--{name}" for name in PRINTING_FLAGS if getattr(flags, name)]
    if len(shown) > 1 or (shown and flags.multirun):
        raise ConfigError(f"{' '.join([*shown, '-m'][:2])}: one of these at a time")
    if flags.package and not flags.cfg:
        raise ConfigError(f"--package {flags.package}: needs --cfg job")
    return flags


def _flag_error(flag: str, arguments: Sequence[str]) -> str:
    name, sign, value = flag.lstrip("-").partition("=")
    typed = flag
    after = arguments[arguments.index(flag) + 1 :][:1]
    if not sign:
        value = "true"
        if after and not after[0].startswith("-") and "=" not in after[0]:
            value, typed = after[0], f"{flag} {after[0]}"
    advice = _advice(name, value, arguments)
    if advice is None:
        return f"{typed}: {HOW_TO_WRITE}, as in backbone=dinov2 seed=0; --help lists them"
    return f"{typed}: {HOW_TO_WRITE}; {advice}"


def _advice(name: str, value: str, arguments: Sequence[str]) -> Advice | None:
    asked = parse_command(list(_overrides(arguments)))
    word = name.replace("-", "_")
    if word in AXES:
        return Advice((f"{word}={value}",)) if value in options(word) else for_option(word, value)
    if word in asked.legal:
        return Advice((f"{word}={value}",))
    advice = for_key(word, value, asked)
    if advice is None and value == "true" and word.startswith("no_"):
        return for_key(word.removeprefix("no_"), "false", asked)
    return advice


def _overrides(arguments: Sequence[str]) -> Iterator[Override]:
    """What a command sets beside its flags, as far as it can be read."""
    for argument in arguments:
        with suppress(HydraException):
            if "=" in argument and not argument.startswith("-"):
                yield parse_override(argument)
