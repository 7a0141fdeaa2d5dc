"""The metadata ("facts") of a checkpoint of fgvc -> values of known types and bounds, or an error.

A checkpoint may be damaged, or written by someone else. Every reader checks the facts here first,
so that later code meets no list instead of a mapping, no digest that is a path, and no ten million
class names. The dataclasses check the config among the facts, like any config; here it is only
refused if it holds an interpolation, which could read the environment of this machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeGuard

from fgvc.config.schema.dataset import Dataset
from fgvc.config.schema.library import LIBRARIES
from fgvc.untrusted import parse_json
from fgvc.untrusted.escape import one_line
from fgvc.untrusted.shell import UNSEEN

MOST_BYTES = 90_000_000  # of the facts; the format allows a header of 100 MB
MOST_CLASSES = 1_000_000
MOST_LETTERS = 1000  # characters of a name
MOST_SETTINGS = 10_000  # values of the config; typical: 300
MOST_RUNS = 32  # that trained the backbone in succession
FREE_TEXTS = ("contamination",)  # keys of texts for people, which may hold anything
READERS = Dataset.__dataclass_fields__["reader"].metadata["choices"]
SHA256 = re.compile(r"[0-9a-f]{64}")
ABSENT = object()
Test = Callable[[Any], bool]


def parse(text: Any) -> dict[str, Any]:
    """The facts in the metadata of a checkpoint.

    Raises:
        ValueError: not JSON, or facts of another shape; one line without the path.
    """
    if not isinstance(text, str):
        raise ValueError(f"its facts are {one_line(text, 60)}, no text")
    if len(text) > MOST_BYTES:
        raise ValueError(f"its facts have {len(text)} letters, more than {MOST_BYTES}")
    facts = parse_json(text)
    if not isinstance(facts, dict):
        raise ValueError("its facts are no mapping")
    check(facts)
    return facts


def check(facts: Mapping[str, Any]) -> None:
    """Check the facts that readers of checkpoints use.

    Raises:
        ValueError: one line that begins with the key.
    """
    for key, (test, expected) in FACTS.items():
        _check(_get(facts, key), key, test, expected)
    for key, (test, expected) in OPTIONAL.items():
        if (value := _get(facts, key)) is not ABSENT:
            _check(value, key, test, expected)
    _check_classes(facts["labelmap"])
    _check_runs(facts["backbone"]["weights"])
    if facts["head"] != facts["config"]["head"]:
        raise ValueError("head: not the head of its own config")
    for count, (key, value) in enumerate(_leaves(facts["config"], "config")):
        if count == MOST_SETTINGS:  # each takes a millisecond to compose
            raise ValueError(f"config: more than {MOST_SETTINGS} settings")
        if isinstance(value, str) and ("${" in value or value == "???"):
            raise ValueError(
                f"{key}={one_line(value, 60)}: an interpolation, which no checkpoint needs"
            )


def _check(value: Any, key: str, test: Test, expected: str) -> None:
    if value is ABSENT:
        raise ValueError(f"lacks {key} (another version of fgvc may have written it)")
    if not test(value):
        raise ValueError(f"{key}={one_line(value, 60)}: must be {expected}")


def _get(facts: Any, key: str) -> Any:
    for name in key.split("."):
        if not _is_mapping(facts) or name not in facts:
            return ABSENT
        facts = facts[name]
    return facts


def _check_classes(labelmap: Mapping[str, Any]) -> None:
    ids, names = labelmap["ids"], labelmap["names"]
    if len(ids) != len(names) or len(set(ids)) != len(ids):
        raise ValueError(
            f"labelmap: has {len(names)} names and {len(ids)} ids, {len(set(ids))} of them "
            "different; each class needs a name and a unique id"
        )


def _check_runs(weights: Mapping[str, Any]) -> None:
    """Check the chain of runs that made the initial weights."""
    for _ in range(MOST_RUNS):
        if (made_by := weights.get("made_by")) is None:
            return
        for name, (test, expected) in MADE_BY.items():
            _check(_get(made_by, name), f"backbone.weights.made_by.{name}", test, expected)
        weights = made_by["weights"]
    raise ValueError(f"backbone.weights.made_by: more than {MOST_RUNS} runs")


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of the leaves, without `FREE_TEXTS`."""
    if _is_mapping(value):
        for name, child in value.items():
            if name not in FREE_TEXTS:
                yield from _leaves(child, f"{key}.{one_line(name, 60)}")
    elif isinstance(value, list):
        for child in value:
            yield from _leaves(child, key)
    else:
        yield key, value


def _is_mapping(value: Any) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, dict)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**40


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_line(value: Any) -> bool:
    """Whether a value is a text that fits into a message."""
    return _is_text(value) and len(value) <= MOST_LETTERS and not UNSEEN.search(value)


def _is_word(value: Any) -> bool:
    """Whether FOLDER/name is a path below the folder."""
    return _is_line(value) and bool(value) and value[0] not in "/~" and ".." not in value.split("/")


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and SHA256.fullmatch(value) is not None


def _or_null(test: Test) -> Test:
    return lambda value: value is None or test(value)


def _one_of(*values: str) -> tuple[Test, str]:
    return lambda value: isinstance(value, str) and value in values, f"one of {', '.join(values)}"


MAPPING: tuple[Test, str] = (_is_mapping, "a mapping")
FLAG: tuple[Test, str] = (_is_flag, "true or false")
COUNT: tuple[Test, str] = (_is_count, "a count")
WORD: tuple[Test, str] = (
    _is_word,
    f"a name of 1 to {MOST_LETTERS} letters, not a path to another folder",
)
LINE: tuple[Test, str] = (_or_null(_is_line), f"a line of at most {MOST_LETTERS} letters, or null")
DIGEST: tuple[Test, str] = (_is_sha256, "a sha256 of 64 hex digits")
DIGEST_OR_NULL: tuple[Test, str] = (_or_null(_is_sha256), f"{DIGEST[1]} or null")
WEIGHTS: Mapping[str, tuple[Test, str]] = {
    "kind": _one_of("file", "hub", "random", "checkpoint"),
    "revision": LINE,
    "sha256": DIGEST_OR_NULL,
}
CLASSES: tuple[Test, str] = (
    lambda value: _is_texts(value) and 0 < len(value) <= MOST_CLASSES,
    f"a list of 1 to {MOST_CLASSES} texts",
)
FACTS: Mapping[str, tuple[Test, str]] = {
    "config": MAPPING,
    "config.task": MAPPING,
    "config.task.name": WORD,
    "config.dataset": MAPPING,
    "config.dataset.name": WORD,
    "config.dataset.reader": _one_of(*READERS),
    "config.backbone": MAPPING,
    "config.backbone.library": _one_of(*LIBRARIES),
    "config.backbone.pretrained": FLAG,
    "config.backbone.contamination": (_is_text, "a text"),
    "config.backbone.checkpoints": (
        lambda value: _is_mapping(value) and all(map(_is_mapping, value.values())),
        "a mapping of rows",
    ),
    "config.head": MAPPING,
    "config_hash": DIGEST,
    "head": MAPPING,
    "head.name": WORD,
    "labelmap": MAPPING,
    "labelmap.ids": CLASSES,
    "labelmap.names": CLASSES,
    "preprocess": MAPPING,
    "backbone": MAPPING,
    "backbone.model": WORD,
    "backbone.weights": MAPPING,
    **{f"backbone.weights.{name}": rule for name, rule in WEIGHTS.items()},
    "answer": MAPPING,
    "answer.manifest_digest": DIGEST,
    "split_digest": DIGEST,
    "fit": MAPPING,
    "fit.images": COUNT,
    "fit.validation": COUNT,
    "fit.forced": FLAG,
}
OPTIONAL: Mapping[str, tuple[Test, str]] = {
    "config.task.tune": WORD,
    "backbone.norm_eps": (
        lambda value: isinstance(value, int | float) and 0 <= value <= 1,
        "a number from 0 to 1",
    ),
    "fit.notes": (_is_texts, "a list of texts"),
    "whole": FLAG,
    "hashed": MAPPING,
    "exported_from": DIGEST_OR_NULL,
}
MADE_BY: Mapping[str, tuple[Test, str]] = {
    "task": WORD,
    "dataset": WORD,
    "config_hash": DIGEST,
    "manifest_digest": DIGEST,
    "split_digest": DIGEST,
    "images": COUNT,
    "validation": COUNT,
    "weights": MAPPING,
    **{f"weights.{name}": rule for name, rule in WEIGHTS.items()},
}
