"""Option names of other tools -> our options.

Backbone names are parsed by rules, because timm, torchvision, open_clip, Hugging Face and torch.hub
spell the same model differently. The other axes have tables (options.yaml).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fgvc.config.option_files import options as legal
from fgvc.config.synonyms.advice import Advice, is_true
from fgvc.config.weight_files.shards import ENDINGS

OPEN_CLIP = re.compile(r"ViT-([A-Z])[-/]?(\d+)(?:-quickgelu)?")  # model names of open_clip
SUPERVISED = "CLIP's tower; backbone=vit is the one trained with the labels of ImageNet"
TABLES = (".csv", ".tsv", ".parquet")
LETTERS = {"t": "tiny", "s": "small", "b": "base", "l": "large"}


@functools.cache
def yaml_table(name: str) -> Any:
    """The contents of a YAML file beside this module."""
    return yaml.safe_load(Path(__file__).with_name(name).read_text(encoding="utf-8"))


@functools.cache
def option_words() -> dict[str, dict[str, Advice]]:
    """For each group with a table: word -> what to write."""
    return {
        group: {
            word: Advice(tuple(row["write"].split()), row.get("note", ""))
            for row in rows
            for word in row["words"].split()
        }
        for group, rows in yaml_table("options.yaml").items()
        if group != "backbone"
    }


def for_option(group: str, name: str) -> Advice | None:
    """What to write instead of an unknown option; None: not known."""
    word = re.sub(r"[^a-z0-9]+", "", name.lower())
    same = [option for option in legal(group) if option.replace("_", "") == word]
    if same:  # zero-shot, DINOv2, NABirds
        return Advice((f"{group}={same[0]}",))
    is_path = "/" in name or "\\" in name or name.startswith("~") or Path(name).suffix in TABLES
    if group == "backbone":
        if Path(name).suffix in ENDINGS or (is_path and Path(name).expanduser().exists()):
            return Advice((f"backbone.weights={name}",), "with the backbone= of these weights")
        return _backbone(name)
    if group == "resolution":
        return _resolution(name)
    if group == "dataset" and is_path:
        reader, key = ("table", "table") if Path(name).suffix in TABLES else ("folder", "root")
        return Advice((f"dataset={reader}", f"dataset.{key}={name}"))
    if group == "part_attention" and not is_true(name):
        return Advice(("part_attention=off",))
    return option_words().get(group, {}).get(word)


def _backbone(name: str) -> Advice | None:
    if (tower := OPEN_CLIP.fullmatch(name)) is not None:
        name = f"clip-vit-{tower[1]}{tower[2]}"
    packed = re.sub(r"[^a-z0-9]", "", name.lower().rpartition("/")[2])  # google/vit is not levit
    for family, row in yaml_table("options.yaml")["backbone"].items():
        if any(part in packed for part in row["names"].split()):
            size = _size(packed, row)
            if size is None:
                return None
            advice = _model(family, size, packed)
            return advice if tower is None else Advice(advice.overrides, SUPERVISED)
    return None


def _size(packed: str, family: Mapping[str, Any]) -> str | None:
    """The size in a name such as base, vitb14 or b_16; base if there is none; None: not in fgvc."""
    if any(part in packed for part in family.get("lacks", "").split()):
        return None
    sizes = dict(family.get("sizes", {}))
    for letter, size in LETTERS.items():
        sizes |= {size: size, rf"vit{letter}(?:\d|$)": size}
    return next((size for pattern, size in sizes.items() if re.search(pattern, packed)), "base")


def _model(family: str, size: str, packed: str) -> Advice:
    patch = re.search(r"(?:patch|vit[tsblhg]|(?<=vit)[tsblhg])(\d\d)", packed)
    if family == "clip" and size == "base" and patch and patch[1] == "32":
        return Advice(("backbone=clip", "backbone.checkpoint=base_32"))
    if family == "clip" and size == "large" and "336" in packed:
        return Advice(("backbone=clip", "backbone.checkpoint=large_336"))
    shorthand = f"backbone={family}_{size}"
    note = "SigLIP 2; fgvc has no SigLIP 1" if family == "siglip2" and "2" not in packed else ""
    if f"{family}_{size}" not in legal("backbone"):
        return Advice((f"backbone={family}", f"backbone.size={size}"), note)
    registers = family == "dinov2" and re.search(r"reg(?!net)", packed)
    return Advice((shorthand, *(["backbone.registers=true"] if registers else [])), note)


def _resolution(name: str) -> Advice | None:
    """`224`, `224px`, `224x224`: the option of that side, or the nearest one."""
    word = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    side = re.fullmatch(r"(?:r_?)?(\d{2,4})(?:_?px|x\d+|_\d+)?", word)
    if side is None:
        return None
    sides = [int(name[1:]) for name in legal("resolution") if name.startswith("r")]
    near = min(sides, key=lambda other: (abs(other - int(side[1])), -other))
    others = ", ".join(f"r{other}" for other in sides if other != near)
    note = "" if near == int(side[1]) else f"the nearest; others: {others}"
    return Advice((f"resolution=r{near}",), note)
