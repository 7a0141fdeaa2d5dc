"""Hydra's flags -> a namespace; any other flag, such as `--lr 0.1` -> the override to write."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from hydra.errors import HydraException

from fgvc.config.errors import ConfigError
from fgvc.config.option_files import AXES, options
from fgvc.config.override_grammar import parse_override
from fgvc.config.overrides import parse_command
from fgvc.config.synonyms import Advice, for_key, for_option

FLAGS_ALONE = ("-m", "--multirun", "--resolve")
INFO_FLAGS = ("-i", "--info")
FLAGS_WITH_VALUE = ("-c", "--cfg", "-p", "--package")
SWITCHES = ("--multirun -m", "--resolve", "--run -r", "--hydra-help", "--shell-completion -sc")
FLAGS_OF_HYDRA = ("--config-name -cn", "--config-path -cp", "--experimental-rerun")  # not of fgvc
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
HOW_TO_WRITE = "overrides are written key=value, without dashes"


class _Parser(ArgumentParser):
    """Raises an error of one line instead of exiting."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message.removeprefix('argument ')}; see --help")


def move_flags_first(arguments: Sequence[str]) -> list[str]:
    """The arguments with Hydra's flags before the overrides, where its parser expects them."""
    flags, overrides = [], []
    remaining = deque(arguments)
    while remaining:
        argument = remaining.popleft()
        if argument in INFO_FLAGS:  # its value is optional: an override is none
            has_value = remaining and "=" not in remaining[0] and not remaining[0].startswith("-")
            flags.append(f"--info={remaining.popleft() if has_value else 'all'}")
        elif argument in FLAGS_WITH_VALUE:
            flags += [argument, *([remaining.popleft()] if remaining else [])]
        elif argument in FLAGS_ALONE or argument.partition("=")[0] in FLAGS_WITH_VALUE:
            flags.append(argument)
        else:
            overrides.append(argument)
    return [*flags, *overrides]


def parse_flags(arguments: Sequence[str]) -> Namespace:
    """Hydra's flags in a command; --help and --version are answered before.

    Raises:
        ConfigError: a flag that fgvc does not have; for one such as `--lr 0.1`, with its override.
    """
    parser = _Parser(prog="fgvc", add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    for names in SWITCHES:
        parser.add_argument(*names.split(), action="store_true")
    for names in (*FLAGS_OF_HYDRA, "--package -p"):
        parser.add_argument(*names.split())
    parser.add_argument("--cfg", "-c", choices=("job", "hydra", "all"))
    parser.add_argument("--info", "-i", const="all", nargs="?", choices=INFO)
    flags, unknown = parser.parse_known_args(list(arguments))
    if unknown:
        raise ConfigError(_flag_error(unknown[0], list(arguments)))
    for name in (names.split()[0] for names in FLAGS_OF_HYDRA):
        if getattr(flags, name.removeprefix("--").replace("-", "_")):
            raise ConfigError(f"{name}: fgvc has one config, conf/config.yaml")
    printing = [f"--{name}" for name in ("cfg", "info") if getattr(flags, name)]
    if len(printing) > 1 or (printing and flags.multirun):
        raise ConfigError(f"{' '.join([*printing, '-m'][:2])}: one of these at a time")
    if "--" in arguments:
        raise ConfigError(f"--: {HOW_TO_WRITE}; leave it out")
    if flags.resolve and not flags.cfg:
        raise ConfigError("--resolve: needs --cfg job")
    if flags.package and not flags.cfg:
        raise ConfigError(f"--package {flags.package}: needs --cfg job")
    return flags


def _flag_error(flag: str, arguments: Sequence[str]) -> str:
    name, sign, value = flag.lstrip("-").partition("=")
    typed = flag
    if not sign:
        value = "true"
        following = arguments[arguments.index(flag) + 1 :][:1]
        if following and not following[0].startswith("-") and "=" not in following[0]:
            value, typed = following[0], f"{flag} {following[0]}"
    advice = _advice(name, value, arguments)
    if advice is None:
        return f"{typed}: {HOW_TO_WRITE}, as in backbone=dinov2 seed=0; --help lists them"
    return f"{typed}: {HOW_TO_WRITE}; {advice}"


def _advice(name: str, value: str, arguments: Sequence[str]) -> Advice | None:
    overrides = []
    for argument in arguments:
        with suppress(HydraException):
            if "=" in argument and not argument.startswith("-"):
                overrides.append(parse_override(argument))
    command = parse_command(overrides)
    word = name.replace("-", "_")
    if word in AXES:
        return Advice((f"{word}={value}",)) if value in options(word) else for_option(word, value)
    if word in command.legal:
        return Advice((f"{word}={value}",))
    advice = for_key(word, value, command)
    if advice is None and value == "true" and word.startswith("no_"):
        return for_key(word.removeprefix("no_"), "false", command)
    return advice
