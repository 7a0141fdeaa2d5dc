"""How the value of another tool's setting is written here: `bf16-mixed` -> bf16, `0,1` -> 2."""

from __future__ import annotations

import re
from collections.abc import Callable

from fgvc.config.compose import options
from fgvc.config.synonyms.advice import Advice, Asked, is_true
from fgvc.config.synonyms.options import for_option

Convert = Callable[[str, Asked], str]
BATCH = 64  # images per step of recipe=modern


def same(value: str, asked: Asked) -> str:
    """The value as it was typed."""
    return value


def switch(on: str, off: str) -> Convert:
    return lambda value, asked: on if is_true(value) else off


def from_table(default: str, **names: str) -> Convert:
    """The first name that the value begins with; adamw_torch is adamw."""

    def convert(value: str, asked: Asked) -> str:
        word = value.lower().replace("-", "_")
        return next((ours for name, ours in names.items() if word.startswith(name)), default)

    return convert


def number_or(default: str) -> Convert:
    """A number as it is; a word or a switch: the usual value."""

    def convert(value: str, asked: Asked) -> str:
        return value if re.fullmatch(r"[-+.\deE]+", value) else default

    return convert


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
    word = value.lower()
    if not is_true(word):
        return Advice(("precision=fp32",))
    return Advice((f"precision={'fp16' if '16' in word and 'b' not in word else 'bf16'}",))


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
