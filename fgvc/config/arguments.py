"""Arguments of a command -> a refusal of text that no key, path or message can hold."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from fgvc.config.errors import ConfigError

LONGEST = 65_536  # characters of an argument
LONGEST_KEY = 200
LONGEST_WORD = 600  # letters of a word in a message
LONGEST_NAME, LONGEST_PATH = 255, 4095  # bytes, of Linux and macOS
CONTROL = re.compile(r"[\x00-\x1f\x7f\x80-\x9f\u2028\u2029]")
PATHS = re.compile(
    r"(dataset\.(root|table)|backbone\.weights|checkpoint|run|against|image|experiment"
    r"|task\.(output|path)|runtime\.\w+_root)"
)


def check_arguments(arguments: Sequence[str]) -> None:
    """Refuse arguments with illegal characters or of excessive length.

    Raises:
        ConfigError: not UTF-8, a control character, or a name that is longer than a file's.
    """
    for argument in arguments:
        shown = shorten(argument)
        if not _is_text(argument):
            raise ConfigError(f"{shown}: bytes that are not UTF-8; rename the file or folder")
        if match := CONTROL.search(argument):
            raise ConfigError(f"{shown}: holds the control character {match[0]!r}; leave it out")
        key, sign, value = argument.partition("=")
        if len(argument) > LONGEST or (sign and len(key) > LONGEST_KEY):
            bound = LONGEST if len(argument) > LONGEST else LONGEST_KEY
            raise ConfigError(f"{shown}: {max(len(key), len(value))} letters, at most {bound}")
        if sign and PATHS.fullmatch(key.lstrip("+")):
            _check_path(key, value)


def shorten(text: str, most: int = 120) -> str:
    """A text for a message: on one line, printable, its middle cut if it is long."""
    plain = CONTROL.sub(lambda control: repr(control[0])[1:-1], text)
    plain = plain.encode("utf-8", "backslashreplace").decode()
    return plain if len(plain) <= most else f"{plain[: most - 30]}…{plain[-20:]}"


def shorten_words(line: str) -> str:
    """A message in which no word has more than LONGEST_WORD letters."""
    return re.sub(rf"\S{{{LONGEST_WORD},}}", lambda long: shorten(long[0]), line)


def _check_path(key: str, value: str) -> None:
    names = re.split(r"[/,]", value)
    longest = max(len(os.fsencode(name)) for name in names)
    if longest > LONGEST_NAME:
        raise ConfigError(
            f"{key}={shorten(value)}: a name of {longest} bytes, at most {LONGEST_NAME} of a file"
        )
    if not value.startswith("[") and len(os.fsencode(value)) > LONGEST_PATH:
        raise ConfigError(
            f"{key}={shorten(value)}: a path of {len(os.fsencode(value))} bytes, at most "
            f"{LONGEST_PATH}"
        )


def _is_text(argument: str) -> bool:
    try:
        argument.encode()
    except UnicodeEncodeError:
        return False
    return True
