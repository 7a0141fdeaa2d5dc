"""Key names of other tools -> overrides with our keys and the typed value."""

from __future__ import annotations

from collections.abc import Callable

from fgvc.config import schema
from fgvc.config.errors import nearest
from fgvc.config.option_files import options
from fgvc.config.schema_keys import owners
from fgvc.config.synonyms import values
from fgvc.config.synonyms.advice import Advice, Command
from fgvc.config.synonyms.options import for_option
from fgvc.config.synonyms.words import MEANINGS, Meaning

LISTS = ("head.fit.learning_rates", "head.fit.weight_decays")
AMBIGUOUS = (  # words with another meaning below another node
    *("a", "b", "c", "e", "j", "k", "app", "classes", "cpu", "data", "dataset", "dir", "eval"),
    *("file", "format", "input", "labels", "load", "log", "model", "name", "path", "predict"),
    *("root", "size", "source", "table", "test", "train", "type", "val"),
)
NAMES = ("backbone.name", *(f"{node}.name" for node in schema.VARIANTS))  # which option it is


def _all(words: str, build: Callable[[str], Advice]) -> dict[str, Callable[[str], Advice]]:
    return dict.fromkeys(words.split(), build)


BUILT = {  # words whose meaning depends on the value
    **_all(
        "model arch architecture net backbone.name model.name net.name model_name encoder "
        "model_name_or_path network backbone_name timm_model model.backbone model.arch a",
        values.option("backbone"),
    ),
    **_all(
        "data datamodule data_module dataset_name data.name data.dataset data_set task.dataset "
        "train_data train_dataset",
        values.option("dataset"),
    ),
    **_all("head.name classifier head_type classifier_type", values.option("head")),
    **_all("task.name mode stage run_mode", values.option("task")),
    **_all(
        "img_size image_size input_size imgsz img resolution.side crop_size train_crop_size res "
        "val_crop_size img_dim resize im_size size px",
        values.option("resolution"),
    ),
    **_all("part_attention.name", values.option("part_attention")),
    **_all(
        "device devices gpus gpu gpu_ids n_gpus n_gpu num_gpus ngpus accelerator world_size "
        "nproc_per_node num_processes cuda use_cuda",
        values.devices,
    ),
    **_all("weights pretrained init_weights", values.weights),
    **_all(
        "amp mixed_precision use_amp half autocast dtype amp_dtype torch_dtype precision",
        values.precision,
    ),
}


def unknown_key(key: str, value: str, command: Command) -> str:
    """The message for a key that cannot be set: by its meaning, otherwise by its spelling."""
    advice = for_key(key, value, command)
    if key in NAMES:
        return f"{key}={value}: an option brings its own name; {advice}"
    if advice is not None:
        return f"{key}={value}: {_other_choice(advice, command) or f'unknown config key; {advice}'}"
    legal = [
        name for name in command.legal if name not in NAMES and ("." in name or "." not in key)
    ]
    return f"unknown config key {key}{nearest(key, legal)}"


def _other_choice(advice: Advice, command: Command) -> str | None:
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


def for_key(key: str, value: str, command: Command) -> Advice | None:
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
    for name in _suffixes(word):
        if (build := BUILT.get(name)) is not None:
            return build(value)
        if (meaning := MEANINGS.get(name)) is not None:
            return _advice(meaning, word, value, command)
    return None


def for_word(word: str) -> Advice | None:
    """What to write instead of a word without a value, such as `fgvc train`; None: not known."""
    for group in ("task", "backbone", "dataset"):
        if word in options(group):
            return Advice((f"{group}={word}",))
    return for_option("task", word)


def _suffixes(word: str) -> list[str]:
    """The key, then the key without its first node, and so on: optimizer.lr, lr."""
    parts = word.split(".")
    suffixes = [".".join(parts[start:]) for start in range(len(parts))]
    suffixes = [name for name in suffixes if name == word or name not in AMBIGUOUS]
    switches = [name.removeprefix("use_") for name in suffixes if name.startswith("use_")]
    return [*suffixes, *switches]


def _advice(meaning: Meaning, word: str, value: str, command: Command) -> Advice:
    if not meaning.keys:
        return Advice((), meaning.note)
    legal = [key for key in meaning.keys if key in command.legal]
    node = word.partition(".")[0]
    same_node = [key for key in legal if key.partition(".")[0] == node]
    key = (same_node or legal or list(meaning.keys))[0]
    needed = [item for item in meaning.needs if command.values.get(item.partition("=")[0]) is None]
    if meaning.tasks and command.task not in meaning.tasks:
        needed.append(f"task={meaning.tasks[0]}")
    if not legal and (options_with_key := owners(key)):
        needed.append(f"{key.partition('.')[0]}={options_with_key[0]}")
    converted = meaning.value(value, command)
    if converted is None:
        return Advice((), f"{key} has no {value}{meaning.note and f'; {meaning.note}'}")
    converted = f"[{converted}]" if key in LISTS and not converted.startswith("[") else converted
    return Advice((*needed, f"{key}={converted}"), meaning.note)
