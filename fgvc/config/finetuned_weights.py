"""`backbone.weights` that a run of fgvc wrote -> the run's facts, and whether its backbone fits.

A checkpoint of task=train, and a folder of task=export, hold a whole model. Its backbone is used,
its head is left aside. Positions are resized like those of any other file.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from fgvc.config.errors import ConfigError
from fgvc.config.schema import Backbone, Checkpoint, architecture, chosen_checkpoint
from fgvc.config.weight_files import checkpoint_metadata
from fgvc.config.weight_files.shards import safetensors_header
from fgvc.untrusted import parse_json
from fgvc.untrusted.shell import setting

KEY = "fgvc"  # in the metadata of a safetensors file
ROW_FIELDS = (  # fields of a row that decide which tensors the backbone has and what they compute
    "model",
    "tag",
    "patch",
    "registers",
    "prefix",
    "width",
    "activation",
    "architecture",
)
COMPATIBLE_FEATURES = {  # features that need tensors which other features leave out of the checkpoint
    ("open_clip", "projected"): ("projected",),
    ("transformers", "map"): ("map", "projected"),
    ("transformers", "projected"): ("map", "projected"),
}


def read_facts(path: Path) -> Mapping[str, Any] | None:
    """What a checkpoint of fgvc says of itself; None for any other file.

    Raises:
        ConfigError: the file is a checkpoint whose facts are damaged.
    """
    stat = path.stat()
    return _facts_of_version(path, stat.st_size, stat.st_mtime_ns)


def check_backbone(backbone: Backbone, path: Path, reads_text: bool) -> None:
    """Check that a checkpoint of fgvc fits the chosen backbone, and say what its backbone has seen.

    Any other file is left alone.

    Raises:
        ConfigError: the checkpoint holds no backbone, or another one; names the settings to give.
    """
    facts = read_facts(path)
    if facts is None:
        return
    _check_has_backbone(path, facts)
    saved = _saved_backbone(facts, path)
    _check_row(backbone, path, saved)
    _check_contents(backbone, path, saved, reads_text)
    backbone.contamination = training_data(facts)


def _saved_backbone(facts: Mapping[str, Any], path: Path) -> Backbone:
    """The `backbone` node of a checkpoint; ConfigError unless it names one legal row."""
    try:
        saved = backbone_config(facts)
        architecture.check_chosen(saved)
    except (KeyError, TypeError, AttributeError, ConfigError) as error:
        raise ConfigError(
            f"backbone.weights={path}: a damaged checkpoint, or of another version of fgvc: its "
            f"config.backbone ({architecture.shown(str(error), 300)}). Restore the file, or repeat "
            "the run that made it"
        ) from error
    return saved


def backbone_was_trained(facts: Mapping[str, Any]) -> bool:
    """Whether the run of a checkpoint changed the backbone's weights."""
    task = facts["config"]["task"]
    trained = task["name"] == "train" and task.get("tune") != "head"
    return trained or bool(facts["fit"]["forced"])


def training_data(facts: Mapping[str, Any]) -> str:
    """What the backbone of a checkpoint was trained on, for people."""
    before = str(facts["config"]["backbone"]["contamination"])
    if not facts["config"]["backbone"]["pretrained"]:
        before = "It began with random weights."
    if not backbone_was_trained(facts):
        return before
    fit, dataset = facts["fit"], facts["config"]["dataset"]["name"]
    chosen = f", chosen on {fit['validation']}" if fit["validation"] else ""
    return f"Finetuned with the labels of {dataset} ({fit['images']} images{chosen}). {before}"


def backbone_config(facts: Mapping[str, Any]) -> Backbone:
    """The `backbone` node of the run that wrote a checkpoint."""
    node = dict(facts["config"]["backbone"])
    rows, known = node.pop("checkpoints"), {item.name for item in fields(Backbone)}
    own = {key: value for key, value in node.items() if key in known}
    return Backbone(**own, checkpoints={name: Checkpoint(**row) for name, row in rows.items()})


def _check_has_backbone(path: Path, facts: Mapping[str, Any]) -> None:
    if facts.get("whole"):
        return
    weights = facts["backbone"]["weights"]
    give = f"Give the weights with sha256 {weights['sha256']} that it was fitted on"
    if not weights["sha256"]:
        give = "Its backbone had random weights (backbone.pretrained=false): set that"
    raise ConfigError(
        f"backbone.weights={path}: a checkpoint of task={facts['config']['task']['name']}, which "
        f"holds a head and no backbone. {give}, or give a checkpoint of task=train or task=export"
    )


def _check_row(backbone: Backbone, path: Path, saved: Backbone) -> None:
    """Refuse a checkpoint of another model than the chosen row."""
    saved_row, row = chosen_checkpoint(saved), chosen_checkpoint(backbone)
    pairs = {name: (getattr(saved_row, name), getattr(row, name)) for name in ROW_FIELDS}
    pairs |= {"normalization": (_normalization(saved, saved_row), _normalization(backbone, row))}
    if saved.library == backbone.library and all(a == b for a, b in pairs.values()):
        return
    field = next((name for name, (a, b) in pairs.items() if a != b), "library")
    saved_value, value = pairs.get(field, (saved.library, backbone.library))
    raise ConfigError(
        f"backbone.weights={path}: made with {_settings(saved, saved_row)} ({field}={saved_value}), not "
        f"{_settings(backbone, row)} ({field}={value}). Set {_settings(saved, saved_row)}"
    )


def _check_contents(backbone: Backbone, path: Path, saved: Backbone, reads_text: bool) -> None:
    """Refuse features and text that the tensors of the checkpoint cannot give."""
    if reads_text:
        raise ConfigError(
            f"backbone.weights={path}: a checkpoint of fgvc holds no text tower. Use a head that "
            "reads no class names (head=linear, knn, cosine or mlp), or the weights that the run "
            "began with"
        )
    needs = COMPATIBLE_FEATURES.get((backbone.library, backbone.features))
    if needs is not None and saved.features not in needs:
        raise ConfigError(
            f"backbone.features={backbone.features}: {path} was made with backbone.features="
            f"{saved.features} and lacks the layers for it. "
            f"Set {setting('backbone.features', saved.features)}"
        )


def _normalization(backbone: Backbone, row: Checkpoint) -> str:
    return row.normalization or backbone.normalization


def _settings(backbone: Backbone, row: Checkpoint) -> str:
    """The overrides that choose a row."""
    if backbone.checkpoint is not None:
        values = {"backbone": backbone.name, "backbone.checkpoint": backbone.checkpoint}
    else:
        values = {
            "backbone": backbone.name,
            "backbone.size": row.size,
            "backbone.patch": row.patch,
            **({"backbone.registers": True} if row.registers else {}),
            "backbone.normalization": _normalization(backbone, row),
        }
    return " ".join(setting(key, value) for key, value in values.items())


@functools.lru_cache(maxsize=64)
def _facts_of_version(path: Path, size: int, mtime_ns: int) -> Mapping[str, Any] | None:
    header = safetensors_header(path)
    if header is None:
        return None
    try:
        written = parse_json(header).get("__metadata__", {}).get(KEY)
    except (ValueError, AttributeError):
        return None
    try:
        return None if written is None else checkpoint_metadata.parse(written)
    except ValueError as error:
        raise ConfigError(
            f"backbone.weights={path}: a damaged checkpoint, or of another version of fgvc: "
            f"{error}. Restore the file, or repeat the run that made it"
        ) from error
