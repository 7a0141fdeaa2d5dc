"""Values -> commands that a person pastes into a shell: every printed command is made here.

Two programs read a value: the shell (sh, bash, zsh) splits a line into words, and Hydra parses
`key=value` by its own grammar, with `${...}` as an interpolation. `override` quotes for Hydra,
`word` for the shell, `setting` for both. A printed word holds no control character or line break,
because a terminal obeys some of them even inside quotes; `printf` produces them instead.
Standard library only, so that every room may import this module.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

PROGRAM = ("python", "-m", "fgvc.run")
# control characters, line and paragraph separators, marks that reverse text, lone surrogates
UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_BARE = re.compile(r"[A-Za-z0-9_@%+:,./-][A-Za-z0-9_@%+=:,./-]*")  # zsh expands a leading =
# text that Hydra reads unchanged, and not as a number, boolean or null
_PLAIN = re.compile(r"(?=[^.\d]|\.\.?/)[A-Za-z0-9_./][A-Za-z0-9_./-]*|\.\.?|\d{8}T\d{6}Z-[0-9a-f]+")
_WORDS = frozenset({"true", "false", "null", "inf", "nan"})
_PIECE = re.compile(r"""("\$\(printf '[^']*'\)")|('[^']*')|("'")|([^\s'"]+)|(\s+)""")
_OCTAL = re.compile(rb"%%|\\([0-7]{3})")
# what printf writes in octal; an interactive bash expands ! between double quotes, and a word that
# begins with - would be an option
_NOT_INERT = re.compile(rf"""[%\\'"!$`]|\A-|{UNSEEN.pattern}""")
_BEFORE, _AFTER = "\"$(printf '", "')\""


def override(key: str, value: object) -> str:
    """`key=value` for Hydra, which reads back the same value with the same type.

    Args:
        value: text, a path, a number, a boolean, None, or a list of these.
    """
    return f"{key}={_hydra(value)}"


def literal(text: str) -> str:
    """A text in double quotes for Hydra; `${` does not begin an interpolation."""
    return quoted(escaped(text))


def escaped(value: Any) -> Any:
    """Plain data that OmegaConf reads unchanged: no `${` begins an interpolation."""
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    if isinstance(value, Mapping):
        return {key: escaped(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [escaped(item) for item in value]
    return value


def quoted(text: str) -> str:
    """A text in double quotes for Hydra; an interpolation stays an interpolation.

    Hydra reads a backslash as itself unless a quote follows.
    """
    inside = re.sub(r'(\\*)"', r'\1\1\\"', text)
    end = len(inside) - len(inside.rstrip("\\"))
    return f'"{inside}{end * chr(92)}"'


def word(text: str) -> str:
    """A text as one shell word, quoted only if necessary.

    A NUL, which no command can hold, becomes the letter U+2400.
    """
    text = text.replace("\0", "\u2400")
    if _BARE.fullmatch(text):
        return text
    if UNSEEN.search(text):
        body = text.rstrip("\n")  # the shell strips these from the output of a command
        tail = text[len(body) :]
        written = _NOT_INERT.sub(lambda match: _in_printf(match[0]), body)
        return f"{_BEFORE}{written}{_AFTER}" + (f"'{tail}'" if tail else "")
    return "'" + text.replace("'", "'\"'\"'") + "'"


def file_word(path: str | os.PathLike[str]) -> str:
    """A path as a shell word that no program reads as an option."""
    text = os.fspath(path)
    return word(f"./{text}" if text.startswith("-") else text)


def setting(key: str, value: object) -> str:
    """`key=value` for Hydra, as one shell word."""
    return word(override(key, value))


def variable(key: str, name: str, beyond: str = "") -> str:
    """`key=value` as one shell word, with a shell variable as the value.

    The text of the variable is inside Hydra's quotes: it may hold anything but `"`, `${` and a
    backslash at its end.

    Args:
        beyond: plain text after the variable, the rest of a path; begins with /.
    """
    return f'{key}="\\"${name}{beyond}\\""'


def command(words: Iterable[str]) -> str:
    return " ".join(map(word, words))


def fgvc(*overrides: str) -> str:
    """The command of this program with overrides made by `override`."""
    return command([*PROGRAM, *overrides])


def split(line: str) -> list[str]:
    """The words of a command that `command` made.

    Raises:
        ValueError: a line of another form, for example with an unclosed quote.
    """
    words: list[str] = []
    start, in_word = 0, False
    while start < len(line):
        piece = _PIECE.match(line, start)
        if piece is None:
            raise ValueError(f"not a command that fgvc wrote: {line[start : start + 40]}")
        if piece[5] is None:
            text = _unprinted(piece[1]) if piece[1] else piece[4] or piece[0][1:-1]
            words[-1:] = [words[-1] + text] if in_word else [*words[-1:], text]
        start, in_word = piece.end(), piece[5] is None
    return words


def _hydra(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        raise TypeError("Hydra's grammar has no quotes for the keys of a mapping")
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{','.join(map(_hydra, value))}]"
    text = str(value)
    plain = _PLAIN.fullmatch(text) and text.lower() not in _WORDS
    return text if plain else literal(text)


def _in_printf(char: str) -> str:
    if char == "%":
        return "%%"
    try:
        data = char.encode("utf-8", "surrogateescape")  # a byte of a name that is not UTF-8
    except UnicodeEncodeError:  # half of a surrogate pair
        return "\ufffd"
    return "".join(f"\\{byte:03o}" for byte in data)


def _unprinted(piece: str) -> str:
    inside = piece[len(_BEFORE) : -len(_AFTER)].encode()
    data = _OCTAL.sub(lambda match: bytes([int(match[1], 8)]) if match[1] else b"%", inside)
    return data.decode("utf-8", "surrogateescape")
