"""A row of backbone.checkpoints from any source -> safe names and architecture arguments.

A row may come from a checkpoint of another person. It may only name a model of the chosen library
and give the arguments that fgvc.config.schema.library lists, each of its type and within its
bounds, so a checkpoint cannot cause access to a file, a URL or an import.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from fgvc.config.errors import ConfigError, nearest
from fgvc.config.schema.backbone import Backbone, Checkpoint, chosen_checkpoint, row_key
from fgvc.config.schema.library import LIBRARIES, PATCH, SIDE, TOKENS, WIDTH, Number, Rules
from fgvc.untrusted.escape import one_line

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")  # of a model or of a tag
REPO = re.compile(r"([A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?)?")
REVISION = re.compile(r"(\w[\w.-]{0,95}(/\w[\w.-]{0,95}){0,4})?")
LARGEST = 2_500_000_000  # parameters of a custom model
ROW: Mapping[str, Number] = {
    "patch": PATCH,
    "prefix": TOKENS,
    "width": WIDTH,
    "native": SIDE,
    "heads": Number(1, 256, null=True),
    "blocks": Number(1, 128, null=True),
    "embedding": Number(1, 8192, null=True),
}


def check_chosen(backbone: Backbone) -> None:
    """Check the row of the chosen checkpoint, without building, opening or fetching anything.

    Raises:
        ConfigError: as `check_row`.
    """
    check_row(backbone.library, chosen_checkpoint(backbone), row_key(backbone))


def check_row(library: str, row: Checkpoint, key: str) -> None:
    """Check the names, numbers and architecture of a row.

    Args:
        library: timm, open_clip or transformers.
        key: dotted key of the row, for messages.

    Raises:
        ConfigError: an illegal name, an unlisted argument, a value of another type or out of
            bounds; one line that begins with the key.
    """
    patterns = (("model", NAME), ("tag", NAME), ("repo", REPO), ("revision", REVISION))
    for field, pattern in patterns:
        value = getattr(row, field)
        if value is not None and not (isinstance(value, str) and pattern.fullmatch(value)):
            raise ConfigError(
                f"{key}.{field}={_short(value)}: must be a name of letters, digits, '.', '_' and "
                "'-', not a path or an address. Give local weights by backbone.weights=PATH, and "
                "a repository by backbone.weights=hf-hub:ORG/REPO"
            )
    for field, number in ROW.items():
        if not number.accepts(getattr(row, field)):
            raise ConfigError(f"{key}.{field}={_short(getattr(row, field))}: must be {number}")
    if library not in LIBRARIES:
        raise ConfigError(f"backbone.library={_short(library)}: not one of {', '.join(LIBRARIES)}")
    _check(row.architecture, LIBRARIES[library].architecture, f"{key}.architecture")


def check_size(parameters: int, key: str) -> None:
    """Refuse a model larger than any published model of its kind, before it is allocated.

    Args:
        parameters: counted on the meta device.
        key: dotted key that determines the size, for the message.

    Raises:
        ConfigError: more than LARGEST.
    """
    if parameters > LARGEST:
        raise ConfigError(
            f"{key}: makes a model of {parameters:,} parameters, more than {LARGEST:,}. Give a "
            "smaller width or depth"
        )


def _short(value: Any) -> str:
    return one_line(value, 60)


def _check(arguments: Any, rules: Rules, key: str) -> None:
    if not isinstance(arguments, Mapping):
        raise ConfigError(f"{key}={_short(arguments)}: must be a mapping of arguments")
    for name, value in arguments.items():
        place = f"{key}.{_short(name)}"
        if name not in rules:
            raise ConfigError(
                f"{place}={_short(value)}: not an argument that fgvc passes to the library"
                f"{nearest(_short(name), list(rules))}. It passes {', '.join(rules)}"
            )
        rule = rules[name]
        if isinstance(rule, Mapping):
            if value is not None:
                _check(value, rule, place)
        elif not rule.accepts(value) or (isinstance(value, float) and not math.isfinite(value)):
            raise ConfigError(f"{place}={_short(value)}: must be {rule}")
