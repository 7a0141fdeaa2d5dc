"""The metadata ("facts") of a checkpoint of fgvc -> values of known types and bounds, or an error.

A checkpoint may be damaged, or written by someone else. Every reader checks the facts here first,
so that later code meets no list instead of a mapping, no digest that is a path, and no ten million
class names. The dataclasses check the config among the facts, like any config; here it is only
refused if it holds an interpolation, which could read the environment of this machine.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fgvc.config.errors import ConfigError
from fgvc.config.schema.dataset import Dataset
from fgvc.config.schema.library import LIBRARIES
from fgvc.config.schema_keys import leaves
from fgvc.untrusted import parse_json
from fgvc.untrusted.escape import one_line
from fgvc.untrusted.file_format import safetensors_header
from fgvc.untrusted.shell import UNSEEN

MOST_BYTES = 90_000_000  # of the facts; the format allows a header of 100 MB
MOST_CLASSES = 1_000_000
MOST_LETTERS = 1000  # characters of a name
MOST_SETTINGS = 10_000  # values of the config; typical: 300
MOST_DISTANCE = 1000.0  # from a class mean; a distance of two features is at most 2
MOST_RUNS = 32  # that trained the backbone in succession
FREE_TEXTS = ("contamination",)  # keys of texts for people, which may hold anything
READERS = Dataset.__dataclass_fields__["reader"].metadata["choices"]
SHA256 = re.compile(r"[0-9a-f]{64}")
ABSENT = object()
KEY = "fgvc"  # in the metadata of a safetensors file
Test = Callable[[Any], bool]
Rule = tuple[Test, str]  # a test, and the expected value


def read_facts(path: Path) -> Mapping[str, Any] | None:
    """The facts of a checkpoint of fgvc; None for any other file.

    Raises:
        ConfigError: the facts are damaged.
    """
    stat = path.stat()
    return _facts_of_version(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _facts_of_version(path: Path, size: int, mtime_ns: int) -> Mapping[str, Any] | None:
    header = safetensors_header(path)
    metadata = header[0].get("__metadata__") if header else None
    if not isinstance(metadata, dict) or KEY not in metadata:
        return None
    try:
        return parse(metadata[KEY])
    except ValueError as error:
        raise ConfigError(
            f"backbone.weights={path}: a damaged checkpoint, or of another version of fgvc: "
            f"{error}. Restore the file, or repeat the run that wrote it"
        ) from error


def parse(text: Any) -> dict[str, Any]:
    """The facts in the metadata of a checkpoint.

    Raises:
        ValueError: not JSON, or facts of another shape; one line without the path.
    """
    if not isinstance(text, str):
        raise ValueError(f"its facts are {one_line(text, 60)}, not text")
    if len(text) > MOST_BYTES:
        raise ValueError(f"its facts have {len(text)} letters, more than {MOST_BYTES}")
    facts = parse_json(text)
    if not isinstance(facts, dict):
        raise ValueError("its facts are not a mapping")
    check(facts)
    return facts


def check(facts: Mapping[str, Any]) -> None:
    """Check the facts that readers of checkpoints use.

    Raises:
        ValueError: one line that begins with the key.
    """
    _check_values(facts, FACTS)
    _check_values(facts, OPTIONAL, required=False)
    ids, names = facts["labelmap"]["ids"], facts["labelmap"]["names"]
    if len(ids) != len(names) or len(set(ids)) != len(ids):
        raise ValueError(
            f"labelmap: has {len(names)} names and {len(ids)} ids, {len(set(ids))} of them "
            "different; each class needs a name and a unique id"
        )
    _check_runs(facts["backbone"]["weights"])
    if facts["head"] != facts["config"]["head"]:
        raise ValueError("head: not the head of its config")
    for count, (key, value) in enumerate(leaves(facts["config"], "config")):
        if count == MOST_SETTINGS:  # each takes a millisecond to compose
            raise ValueError(f"config: more than {MOST_SETTINGS} settings")
        is_free = key.rpartition(".")[2] in FREE_TEXTS
        if not is_free and isinstance(value, str) and ("${" in value or value == "???"):
            setting = f"{one_line(key, 120)}={one_line(value, 60)}"
            raise ValueError(f"{setting}: an interpolation, which no checkpoint needs")


def _check_values(
    facts: Mapping[str, Any], rules: Mapping[str, Rule], before: str = "", required: bool = True
) -> None:
    """Check values by dotted keys. before: the keys that lead to `facts`, for messages."""
    for keys, (test, expected) in rules.items():
        for key in keys.split():
            value: Any = facts
            for name in key.split("."):
                value = value.get(name, ABSENT) if isinstance(value, dict) else ABSENT
            if value is ABSENT and required:
                raise ValueError(
                    f"lacks {before}{key} (another version of fgvc may have written it)"
                )
            if value is not ABSENT and not test(value):
                raise ValueError(f"{before}{key}={one_line(value, 60)}: must be {expected}")


def _check_runs(weights: Mapping[str, Any]) -> None:
    """Check the initial weights, and the chain of runs that made them."""
    before = "backbone.weights."
    for _ in range(MOST_RUNS):
        _check_values(weights, WEIGHTS, before)
        if (made_by := weights.get("made_by")) is None:
            return
        _check_values(made_by, MADE_BY, "backbone.weights.made_by.")
        weights, before = made_by["weights"], "backbone.weights.made_by.weights."
    raise ValueError(f"backbone.weights.made_by: more than {MOST_RUNS} runs")


def _is_line(value: Any) -> bool:
    """Whether a value is a text that fits into a message."""
    return isinstance(value, str) and len(value) <= MOST_LETTERS and not UNSEEN.search(value)


def _is_word(value: Any) -> bool:
    """Whether FOLDER/name is a path below the folder."""
    return _is_line(value) and bool(value) and value[0] not in "/~" and ".." not in value.split("/")


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _or_null(rule: Rule) -> Rule:
    test, expected = rule
    return lambda value: value is None or test(value), f"{expected} or null"


def _one_of(*values: str) -> Rule:
    return lambda value: isinstance(value, str) and value in values, f"one of {', '.join(values)}"


MAPPING: Rule = (lambda value: isinstance(value, dict), "a mapping")
FLAG: Rule = (lambda value: isinstance(value, bool), "true or false")
COUNT: Rule = (lambda value: type(value) is int and 0 <= value < 2**40, "a count")
WORD: Rule = (_is_word, f"a name of 1 to {MOST_LETTERS} letters, not a path to another folder")
DIGEST: Rule = (
    lambda value: isinstance(value, str) and SHA256.fullmatch(value) is not None,
    "a sha256 of 64 hex digits",
)
SHARE: Rule = (
    lambda value: isinstance(value, int | float) and 0 <= value <= 1,
    "a number from 0 to 1",
)
CLASSES: Rule = (
    lambda value: _is_texts(value) and 0 < len(value) <= MOST_CLASSES,
    f"a list of 1 to {MOST_CLASSES} texts",
)
ROWS: Rule = (
    lambda value: isinstance(value, dict) and all(map(MAPPING[0], value.values())),
    "a mapping of rows",
)
# keys, separated by spaces -> their rule; a mapping before the keys inside it
FACTS: Mapping[str, Rule] = {
    "config config.task config.dataset config.backbone config.head head labelmap": MAPPING,
    "preprocess backbone backbone.weights answer fit": MAPPING,
    "config.task.name config.dataset.name head.name backbone.model": WORD,
    "config.dataset.reader": _one_of(*READERS),
    "config.backbone.library": _one_of(*LIBRARIES),
    "config.backbone.contamination": (lambda value: isinstance(value, str), "a text"),
    "config.backbone.checkpoints": ROWS,
    "config_hash answer.manifest_digest split_digest": DIGEST,
    "labelmap.ids labelmap.names": CLASSES,
    "fit.images fit.validation": COUNT,
    "config.backbone.pretrained fit.forced": FLAG,
}
OPTIONAL: Mapping[str, Rule] = {
    "config.task.tune": WORD,
    "config.backbone.norm_eps": _or_null(SHARE),
    "backbone.norm_eps": SHARE,
    "fit.notes": (_is_texts, "a list of texts"),
    "class_means": MAPPING,
    "class_means.limit": (
        lambda value: type(value) is float and 0 < value <= MOST_DISTANCE,
        "a distance above 0",
    ),
    "class_means.images": COUNT,
    "class_means.reason": (_is_line, f"a line of at most {MOST_LETTERS} letters"),
    "whole": FLAG,
    "hashed": MAPPING,
    "exported_from": _or_null(DIGEST),
}
WEIGHTS: Mapping[str, Rule] = {
    "kind": _one_of("file", "hub", "random", "checkpoint"),
    "revision": _or_null((_is_line, f"a line of at most {MOST_LETTERS} letters")),
    "sha256": _or_null(DIGEST),
}
MADE_BY: Mapping[str, Rule] = {
    "task dataset": WORD,
    "config_hash manifest_digest split_digest": DIGEST,
    "images validation": COUNT,
    "weights": MAPPING,
}
