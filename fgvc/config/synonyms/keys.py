"""Keys under the names that other tools give them -> our keys, with the value that was typed."""

from __future__ import annotations

from collections.abc import Callable

from fgvc.config import schema
from fgvc.config.compose import options, owners
from fgvc.config.errors import nearest
from fgvc.config.synonyms import values
from fgvc.config.synonyms.advice import Advice, Asked
from fgvc.config.synonyms.options import for_option
from fgvc.config.synonyms.words import MEANINGS, Meaning

LISTS = ("head.fit.learning_rates", "head.fit.weight_decays")
AMBIGUOUS = (  # words that mean something of their own below another node
    *("a", "b", "c", "e", "j", "k", "app", "classes", "cpu", "data", "dataset", "dir", "eval"),
    *("file", "format", "input", "labels", "load", "log", "model", "name", "path", "predict"),
    *("root", "size", "source", "table", "test", "train", "type", "val"),
)
NAMES = ("backbone.name", *(f"{node}.name" for node in schema.VARIANTS))  # say which option it is


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


def unknown_key(key: str, value: str, asked: Asked) -> str:
    """The one line for a key that cannot be set: by its meaning, otherwise by its spelling."""
    advice = for_key(key, value, asked)
    if key in NAMES:
        return f"{key}={value}: an option brings its own name; {advice}"
    if advice is not None:
        return f"{key}={value}: {_other_choice(advice, asked) or f'unknown config key; {advice}'}"
    legal = [one for one in asked.legal if one not in NAMES and ("." in one or "." not in key)]
    return f"unknown config key {key}{nearest(key, legal)}"


def _other_choice(advice: Advice, asked: Asked) -> str | None:
    """The answer where a suggestion would replace an option that the command names; or None."""
    for override in advice.overrides[:-1]:
        axis, _, option = override.partition("=")
        given = asked.given.get(axis, option)
        if given == option:
            continue
        setting = advice.overrides[-1].partition("=")[0]
        line = f"{axis}={given} has no {setting}; {override} has it"
        is_other_work = {given, option} & set(schema.OPERATIONS)
        return line if is_other_work else f"{line}: {advice}"
    return None


def for_key(key: str, value: str, asked: Asked) -> Advice | None:
    """What to write instead of a key that the chosen options do not have; None: not known.

    Args:
        key: as typed, without dashes or `+` in front.
        value: as typed; "VALUE" where none was.
    """
    word = key.lower().replace("-", "_").replace("/", ".")
    node, chosen = word.partition(".")[0], owners(word)
    if chosen and word not in asked.legal and (len(chosen) == 1 or node != "task"):
        others = f"or {node}={', '.join(chosen[1:])}" if len(chosen) > 1 else ""
        return Advice((f"{node}={chosen[0]}", f"{word}={value}"), others)
    for name in _shorter(word):
        if (build := BUILT.get(name)) is not None:
            return build(value)
        if (meaning := MEANINGS.get(name)) is not None:
            return _advice(meaning, word, value, asked)
    return None


def for_word(word: str) -> Advice | None:
    """What to write instead of a word without a value, as `fgvc train`; None: not known."""
    for group in ("task", "backbone", "dataset"):
        if word in options(group):
            return Advice((f"{group}={word}",))
    return for_option("task", word)


def _shorter(word: str) -> list[str]:
    """The key, then the key without its first node, and so on: optimizer.lr is lr."""
    parts = word.split(".")
    ends = [".".join(parts[start:]) for start in range(len(parts))]
    ends = [end for end in ends if end == word or end not in AMBIGUOUS]
    return [*ends, *(end.removeprefix("use_") for end in ends if end.startswith("use_"))]


def _advice(meaning: Meaning, word: str, value: str, asked: Asked) -> Advice:
    if not meaning.keys:
        return Advice((), meaning.note)
    known = [key for key in meaning.keys if key in asked.legal]
    node = word.partition(".")[0]
    beside = [key for key in known if key.partition(".")[0] == node]
    key = (beside or known or list(meaning.keys))[0]
    before = [item for item in meaning.needs if asked.given.get(item.partition("=")[0]) is None]
    if meaning.tasks and asked.task not in meaning.tasks:
        before.append(f"task={meaning.tasks[0]}")
    if not known and (chosen := owners(key)):
        before.append(f"{key.partition('.')[0]}={chosen[0]}")
    converted = meaning.value(value, asked)
    if converted is None:
        return Advice((), f"{key} has no {value}{meaning.note and f'; {meaning.note}'}")
    converted = f"[{converted}]" if key in LISTS and not converted.startswith("[") else converted
    return Advice((*before, f"{key}={converted}"), meaning.note)
