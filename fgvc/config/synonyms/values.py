"""Values of other tools' settings -> our values: `bf16-mixed` -> bf16, `0,1` -> 2."""

from __future__ import annotations

import re

from fgvc.config.option_files import options
from fgvc.config.synonyms.advice import Advice, CommandContext, is_true
from fgvc.config.synonyms.options import for_option

SWITCHED_ON = ("true", "1", "yes", "on", "value")
BATCH = 64  # images per step of recipe=modern


def convert(function: str, value: str, command: CommandContext) -> str | Advice | None:
    """Our value; None: fgvc has none. function: of this module, such as `switch fp16 fp32`."""
    name, *arguments = function.split()
    return globals()[name](value, command, *arguments)


def same(value: str, command: CommandContext) -> str:
    return value


def path(value: str, command: CommandContext) -> str | None:
    """The typed path; a switch is no path."""
    return None if value.lower() in SWITCHED_ON[:-1] or not is_true(value) else value


def switch(value: str, command: CommandContext, on: str, off: str) -> str:
    return on if is_true(value) else off


def constant(value: str, command: CommandContext, text: str) -> str:
    return text


def first_prefix(value: str, command: CommandContext, default: str, *pairs: str) -> str | None:
    """Our name for the first prefix of the value: adamw_torch is adamw. A switch: the default.

    None for another word: lamb is not adamw.

    Args:
        pairs: PREFIX=NAME.
    """
    names = dict(pair.split("=") for pair in pairs)
    word = value.lower().replace("-", "_")
    if word in SWITCHED_ON:
        return default
    word = word if is_true(word) else "none"
    return next((option for prefix, option in names.items() if word.startswith(prefix)), None)


def number(value: str, command: CommandContext, default: str, off: str = "0") -> str:
    """The typed number; for a switch that is off, `off`; otherwise the default."""
    if re.fullmatch(r"[-+.\deE]+", value):
        return value
    return default if is_true(value) else off


def chosen_by(value: str, command: CommandContext) -> str | None:
    """The criterion for the best epoch: loss or top1."""
    word = value.lower()
    if "loss" in word:
        return "loss"
    return "top1" if re.search("acc|top_?-?1|prec@?1", word) else None


def micro_batch(value: str, command: CommandContext) -> str:
    """Images per forward pass, from the number of passes per step."""
    passes = int(value) if value.isdigit() and int(value) else 1
    batch = command.number("task.batch_size", BATCH)
    return str(max(1, batch // (passes * command.number("runtime.nproc", 1))))


def per_device(value: str, command: CommandContext) -> str:
    nproc = command.number("runtime.nproc", 1)
    return str(int(value) * nproc) if value.isdigit() else value


def devices(value: str, command: CommandContext) -> Advice:
    """A device name, or a number of devices."""
    word = value.lower().strip("\"'")
    if word in ("gpu", "cuda") or word.startswith("cuda:"):
        index = word.partition(":")[2]
        return Advice(("runtime.device=cuda",), index and f"CUDA_VISIBLE_DEVICES={index} picks it")
    if word in ("cpu", "mps", "auto"):
        return Advice((f"runtime.device={word}",))
    indices = [part for part in re.split(r"[,\s]+", value.strip("[]")) if part]
    count = int(value) if value.isdigit() else len(indices)
    note = "one process per GPU; CUDA_VISIBLE_DEVICES picks them"
    return Advice((f"runtime.nproc={count or 1}",), note)


def precision(value: str, command: CommandContext) -> Advice:
    """fp32, bf16 or fp16, under any name; a switch for mixed precision means bf16."""
    word = value.lower()
    if not is_true(word) or re.search("32|^float$|^single$|^full$", word):
        return Advice(("precision=fp32",))
    if "16" in word or word == "half":
        return Advice((f"precision={'bf16' if 'b' in word else 'fp16'}",))
    if word in SWITCHED_ON:
        return Advice(("precision=bf16",))
    return Advice((), "precision= has fp32, bf16, fp16")


def option(value: str, command: CommandContext, group: str) -> Advice:
    """For a key that means an axis: the option, under our name or another tool's."""
    if value in options(group):
        return Advice((f"{group}={value}",))
    advice = for_option(group, value)
    return advice or Advice((), f"{group}= has {', '.join(options(group))}")


def weights(value: str, command: CommandContext) -> Advice:
    if value.lower() in ("true", "1", "none", "null", "false", "0", "default") or "_V" in value:
        return Advice((f"backbone.pretrained={'true' if is_true(value) else 'false'}",))
    return Advice((f"backbone.weights={value}",))
