"""Arguments of a command -> an error for text that no key, path or message can hold."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from fgvc.config.errors import ConfigError
from fgvc.config.schema_keys import path_keys
from fgvc.untrusted.escape import shorten

LONGEST = 65_536  # characters of an argument
LONGEST_KEY = 200
LONGEST_WORD = 600  # characters of a word in a message
LONGEST_NAME, LONGEST_PATH = 255, 4095  # bytes, on Linux and macOS
CONTROL = re.compile(r"[\x00-\x1f\x7f\x80-\x9f\u2028\u2029]")


def check_arguments(arguments: Sequence[str]) -> None:
    """Refuse arguments with illegal characters or of excessive length.

    Raises:
        ConfigError: not UTF-8, a control character, or a name longer than a file name can be.
    """
    for argument in arguments:
        prefix = shorten(argument)
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise ConfigError(
                f"{prefix}: bytes that are not UTF-8; rename the file or folder"
            ) from None
        if match := CONTROL.search(argument):
            raise ConfigError(f"{prefix}: holds the control character {match[0]!r}; leave it out")
        key, sign, value = argument.partition("=")
        if len(argument) > LONGEST or (sign and len(key) > LONGEST_KEY):
            bound = LONGEST if len(argument) > LONGEST else LONGEST_KEY
            raise ConfigError(f"{prefix}: {max(len(key), len(value))} letters, at most {bound}")
        if sign and key.lstrip("+") in path_keys() | {"experiment"}:
            longest = max(len(os.fsencode(name)) for name in re.split(r"[/,]", value))
            length = 0 if value.startswith("[") else len(os.fsencode(value))  # of one path
            place = f"{key}={shorten(value)}"
            if longest > LONGEST_NAME:
                raise ConfigError(
                    f"{place}: a name of {longest} bytes, at most {LONGEST_NAME} of a file"
                )
            if length > LONGEST_PATH:
                raise ConfigError(f"{place}: a path of {length} bytes, at most {LONGEST_PATH}")


def shorten_words(line: str) -> str:
    """A message with every word of more than LONGEST_WORD characters shortened."""
    return re.sub(rf"\S{{{LONGEST_WORD},}}", lambda long: shorten(long[0]), line)
