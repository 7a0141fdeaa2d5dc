"""Key names of other tools -> overrides with our keys and the typed value."""

from __future__ import annotations

import difflib
import functools
from dataclasses import dataclass

from fgvc.config import schema
from fgvc.config.errors import nearest
from fgvc.config.option_files import options
from fgvc.config.schema_keys import owners
from fgvc.config.synonyms import values
from fgvc.config.synonyms.advice import Advice, CommandContext
from fgvc.config.synonyms.options import for_option, yaml_table

LISTS = ("head.fit.learning_rates", "head.fit.weight_decays")
AMBIGUOUS = (  # words with another meaning below another node
    *("a", "b", "c", "e", "j", "k", "app", "classes", "cpu", "data", "dataset", "dir", "eval"),
    *("file", "format", "input", "labels", "load", "log", "model", "name", "path", "predict"),
    *("root", "size", "source", "table", "test", "train", "type", "val"),
)
CLOSE = 0.75  # similarity of a typo, from 0 to 1
NAMES = ("backbone.name", "head.name", "part_attention.name", "task.name")  # which option it is


@dataclass(frozen=True)
class Meaning:
    """A row of words.yaml, which describes its columns."""

    words: str
    keys: str = ""
    value: str = "same"
    needs: str = ""
    tasks: str = ""
    note: str = ""


@functools.cache
def meanings() -> dict[str, Meaning]:
    """Word of another tool -> its meaning."""
    rows = [Meaning(**row) for row in yaml_table("words.yaml")]
    return {word: row for row in rows for word in row.words.split()}


def unknown_key(key: str, value: str, command: CommandContext) -> str:
    """The message for a key that cannot be set: by its meaning, otherwise by its spelling."""
    advice = for_key(key, value, command)
    if key in NAMES:
        return f"{key}={value}: the option sets its name; {advice}"
    if advice is not None:
        return f"{key}={value}: {_other_choice(advice, command) or f'unknown config key; {advice}'}"
    legal = [
        name for name in command.legal if name not in NAMES and ("." in name or "." not in key)
    ]
    close = nearest(key, legal, CLOSE)
    word = nearest_word(key.rpartition(".")[2]) if not close else None
    if word is not None and (advice := for_key(word, value, command)) is not None:
        return f"{key}={value}: unknown config key; {advice}"
    return f"unknown config key {key}{close or nearest(key, legal)}"


def nearest_word(name: str) -> str | None:
    """The word of another tool that a mistyped name means; None: not known."""
    return next(iter(difflib.get_close_matches(name, meanings(), n=1, cutoff=CLOSE)), None)


def _other_choice(advice: Advice, command: CommandContext) -> str | None:
    """The message if a suggestion would replace an option of the command; otherwise None."""
    for override in advice.overrides[:-1]:
        axis, _, option = override.partition("=")
        current = command.values.get(axis, option)
        if current == option:
            continue
        setting = advice.overrides[-1].partition("=")[0]
        line = f"{axis}={current} has no {setting}; {override} has it"
        tasks = [schema.TASKS[name] for name in (current, option) if name in schema.TASKS]
        return f"{line}: {advice}" if all(task.experiment for task in tasks) else line
    return None


def for_key(key: str, value: str, command: CommandContext) -> Advice | None:
    """What to write instead of a key that the chosen options lack; None: not known.

    Args:
        key: as typed, without leading dashes or `+`.
        value: as typed; "VALUE" if none was.
    """
    word = key.lower().replace("-", "_").replace("/", ".")
    node, names = word.partition(".")[0], owners(word)
    if names and word not in command.legal and (len(names) == 1 or node != "task"):
        others = f"or {node}={', '.join(names[1:])}" if len(names) > 1 else ""
        return Advice((f"{node}={names[0]}", f"{word}={value}"), others)
    parts = word.split(".")
    suffixes = [".".join(parts[start:]) for start in range(len(parts))]  # optimizer.lr, lr
    suffixes = [name for name in suffixes if name == word or name not in AMBIGUOUS]
    suffixes += [name.removeprefix("use_") for name in suffixes if name.startswith("use_")]
    meaning = next((meanings()[name] for name in suffixes if name in meanings()), None)
    return None if meaning is None else _advice(meaning, word, value, command)


def for_word(word: str) -> Advice | None:
    """What to write instead of a word without a value, such as `fgvc train`; None: not known."""
    for group in ("task", "backbone", "dataset"):
        if word in options(group):
            return Advice((f"{group}={word}",))
    return for_option("task", word)


def _advice(meaning: Meaning, word: str, value: str, command: CommandContext) -> Advice:
    converted = values.convert(meaning.value, value, command)
    if isinstance(converted, Advice):
        return converted
    if not meaning.keys:
        return Advice((), meaning.note)
    keys, tasks = meaning.keys.split(), meaning.tasks.split()
    legal = [key for key in keys if key in command.legal]
    node = word.partition(".")[0]
    same_node = [key for key in legal if key.partition(".")[0] == node]
    key = (same_node or legal or keys)[0]
    if converted is None:
        return Advice((), f"{key} has no {value}{meaning.note and f'; {meaning.note}'}")
    needs = meaning.needs.split()
    needed = [item for item in needs if item.partition("=")[0] not in command.values]
    if tasks and command.task not in tasks:
        needed.append(f"task={tasks[0]}")
    if not legal and (options_with_key := owners(key)):
        needed.append(f"{key.partition('.')[0]}={options_with_key[0]}")
    converted = f"[{converted}]" if key in LISTS and not converted.startswith("[") else converted
    return Advice((*needed, f"{key}={converted}"), meaning.note)
