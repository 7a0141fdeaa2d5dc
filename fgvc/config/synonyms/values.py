"""How the value of another tool's setting is written here: `bf16-mixed` -> bf16, `0,1` -> 2."""

from __future__ import annotations

import re
from collections.abc import Callable

from fgvc.config.compose import options
from fgvc.config.synonyms.advice import Advice, Asked, is_true
from fgvc.config.synonyms.options import for_option

Convert = Callable[[str, Asked], str | None]  # None: fgvc has no such value
SWITCHED_ON = ("true", "1", "yes", "on", "value")
BATCH = 64  # images per step of recipe=modern


def same(value: str, asked: Asked) -> str:
    """The value as it was typed."""
    return value


def path(value: str, asked: Asked) -> str | None:
    """A path as it was typed; a switch names none."""
    return None if value.lower() in SWITCHED_ON[:-1] or not is_true(value) else value


def switch(on: str, off: str) -> Convert:
    return lambda value, asked: on if is_true(value) else off


def from_table(default: str, **names: str) -> Convert:
    """The first name that the value begins with; adamw_torch is adamw. A switch: the usual value.

    Another word is no name of ours: lamb is not adamw.
    """

    def convert(value: str, asked: Asked) -> str | None:
        word = value.lower().replace("-", "_")
        if word in SWITCHED_ON:
            return default
        word = word if is_true(word) else "none"
        return next((ours for name, ours in names.items() if word.startswith(name)), None)

    return convert


def number_or(default: str, off: str = "0") -> Convert:
    """A number as it is; a switch that is off: the value without effect; a word: the usual one."""

    def convert(value: str, asked: Asked) -> str:
        if re.fullmatch(r"[-+.\deE]+", value):
            return value
        return default if is_true(value) else off

    return convert


def chosen_by(value: str, asked: Asked) -> str | None:
    """What "best on validation" means: the loss or top-1."""
    word = value.lower()
    if "loss" in word:
        return "loss"
    return "top1" if re.search("acc|top_?-?1|prec@?1", word) else None


def micro_batch(value: str, asked: Asked) -> str:
    """Images per forward pass, from the number of passes per step."""
    passes = int(value) if value.isdigit() and int(value) else 1
    batch = asked.number("task.batch_size", BATCH)
    return str(max(1, batch // (passes * asked.number("runtime.nproc", 1))))


def processes(value: str, asked: Asked) -> str:
    if value.isdigit():
        return value if int(value) else "1"
    return str(len([part for part in re.split(r"[,\s]+", value.strip("[]")) if part]) or 1)


def per_device(value: str, asked: Asked) -> str:
    nproc = asked.number("runtime.nproc", 1)
    return str(int(value) * nproc) if value.isdigit() else value


def devices(value: str) -> Advice:
    """A device by its name, or a number of devices."""
    word = value.lower().strip("\"'")
    if word in ("gpu", "cuda") or word.startswith("cuda:"):
        index = word.partition(":")[2]
        return Advice(("runtime.device=cuda",), index and f"CUDA_VISIBLE_DEVICES={index} picks it")
    if word in ("cpu", "mps", "auto"):
        return Advice((f"runtime.device={word}",))
    count = processes(value, Asked(frozenset(), ""))
    note = "one process per GPU; CUDA_VISIBLE_DEVICES picks them"
    return Advice((f"runtime.nproc={count}",), note)


def precision(value: str) -> Advice:
    """fp32, bf16 or fp16 by any of its names; mixed precision by a switch is bf16."""
    word = value.lower()
    if not is_true(word) or re.search("32|^float$|^single$|^full$", word):
        return Advice(("precision=fp32",))
    if "16" in word or word == "half":
        return Advice((f"precision={'bf16' if 'b' in word else 'fp16'}",))
    if word in SWITCHED_ON:
        return Advice(("precision=bf16",))
    return Advice((), "precision= has fp32, bf16, fp16")


def option(group: str) -> Callable[[str], Advice]:
    """A key that means an axis: the option by its own name or by another tool's."""

    def build(value: str) -> Advice:
        if value in options(group):
            return Advice((f"{group}={value}",))
        found = for_option(group, value)
        return found or Advice((), f"{group}= has {', '.join(options(group))}")

    return build


def weights(value: str) -> Advice:
    if value.lower() in ("true", "1", "none", "null", "false", "0", "default") or "_V" in value:
        return Advice((f"backbone.pretrained={'true' if is_true(value) else 'false'}",))
    return Advice((f"backbone.weights={value}",))
