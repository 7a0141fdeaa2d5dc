"""A hashed config and facts of a run -> the short name of the run in tables and pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEFAULTS = {"precision": "fp32", "part_attention": "off"}  # not part of a name


def run_name(
    config: Mapping[str, Any],
    task: str,
    resolution: int,
    forced: bool,
    made_by: Mapping[str, Any] | None = None,
) -> str:
    """The axes of a hashed config in one short line, with marks for unusual runs.

    Args:
        forced: whether the training was resumed by force.
        made_by: the run of fgvc that wrote the backbone's weights, if any.
    """
    backbone, random = config["backbone"], "" if config["backbone"]["pretrained"] else " random"
    earlier = "" if made_by is None else f" of {made_by['task']} on {made_by['dataset']}"
    parts = [
        f"{backbone['name']} {backbone['checkpoint']['size']}{random}{earlier}",
        config["head"]["name"] + (" finetuned" if config["task"]["name"] == "train" else ""),
        f"{resolution} px",
    ]
    axes = {
        "precision": config["precision"],
        "part_attention": _part_attention_name(config["part_attention"]),
    }
    parts += [value for axis, value in axes.items() if value != DEFAULTS[axis]]
    marks = {
        "debug": config["task"].get("debug") is not None,
        "forced resume": forced,
        "eval": task == "eval",
    }
    return " · ".join([*parts, *(mark for mark, applies in marks.items() if applies)])


def _part_attention_name(part_attention: Mapping[str, Any]) -> str:
    """Part attention with its settings."""
    settings = {
        "": part_attention["name"],
        "tokens ": part_attention.get("tokens"),
        "stride ": part_attention.get("stride"),
    }
    words = [f"{what}{value}" for what, value in settings.items() if value is not None]
    return " ".join(words + ["random block"] * (part_attention.get("last_block") == "random"))
