"""`backbone.weights` written by a run of fgvc -> the run's metadata, checked against the config.

A checkpoint of task=train, and a folder of task=export, hold a whole model. The backbone is used,
the head ignored. Positions are resized like the positions of any other file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from fgvc.config.errors import ConfigError
from fgvc.config.schema import Backbone, Checkpoint, architecture, chosen_checkpoint
from fgvc.config.weight_files.checkpoint_metadata import read_facts
from fgvc.untrusted.escape import one_line
from fgvc.untrusted.shell import setting

ROW_FIELDS = ["model", "tag", "patch", "registers", "prefix", "width", "activation", "architecture"]
# features that need tensors -> the features whose checkpoints hold these tensors
COMPATIBLE_FEATURES = {
    ("open_clip", "projected"): ("projected",),
    ("transformers", "map"): ("map", "projected"),
    ("transformers", "projected"): ("map", "projected"),
}


def check_backbone(backbone: Backbone, path: Path, reads_text: bool) -> None:
    """Check that a checkpoint of fgvc matches the chosen backbone, and set its `contamination`.

    Any other file is ignored.

    Raises:
        ConfigError: the checkpoint holds no backbone, or another one; names the settings to give.
    """
    facts = read_facts(path)
    if facts is None:
        return
    if not facts.get("whole"):
        sha256 = facts["backbone"]["weights"]["sha256"]
        advice = f"Give the weights with sha256 {sha256} that it was fitted on"
        if not sha256:
            advice = "Its backbone had random weights: set backbone.pretrained=false"
        raise ConfigError(
            f"backbone.weights={path}: a checkpoint of task={facts['config']['task']['name']}, "
            f"which holds a head and no backbone. {advice}, or give a checkpoint of task=train or "
            "task=export"
        )
    known = {item.name for item in fields(Backbone)}  # another version may have other keys
    node = {key: value for key, value in facts["config"]["backbone"].items() if key in known}
    try:
        node["checkpoints"] = {key: Checkpoint(**row) for key, row in node["checkpoints"].items()}
        saved = Backbone(**node)
        architecture.check_chosen(saved)
    except (KeyError, TypeError, AttributeError, ConfigError) as error:
        raise ConfigError(
            f"backbone.weights={path}: a damaged checkpoint, or of another version of fgvc: its "
            f"config.backbone ({one_line(error)}). Restore the file, or repeat the run that "
            "wrote it"
        ) from error
    saved_values, values = _model_values(saved), _model_values(backbone)
    field = next((name for name in values if values[name] != saved_values[name]), None)
    if field is not None:
        raise ConfigError(
            f"backbone.weights={path}: made with {_settings(saved)} ({field}="
            f"{saved_values[field]}), not {_settings(backbone)} ({field}={values[field]}). "
            f"Set {_settings(saved)}"
        )
    _check_contents(backbone, path, saved, reads_text)
    backbone.contamination = _training_data(facts)


def _model_values(backbone: Backbone) -> dict[str, Any]:
    """The settings that determine the tensors of the backbone and their computation."""
    row = chosen_checkpoint(backbone)
    values = {name: getattr(row, name) for name in ROW_FIELDS}
    normalization = row.normalization or backbone.normalization
    return {**values, "normalization": normalization, "library": backbone.library}


def backbone_was_trained(facts: Mapping[str, Any]) -> bool:
    """Whether the run of a checkpoint changed the backbone's weights."""
    task = facts["config"]["task"]
    trained = task["name"] == "train" and task.get("tune") != "head"
    return trained or bool(facts["fit"]["forced"])


def _training_data(facts: Mapping[str, Any]) -> str:
    """The training data of the backbone in a checkpoint, as a text for the user."""
    before = str(facts["config"]["backbone"]["contamination"])
    if not facts["config"]["backbone"]["pretrained"]:
        before = "It began with random weights."
    if not backbone_was_trained(facts):
        return before
    fit, dataset = facts["fit"], facts["config"]["dataset"]["name"]
    chosen = f", chosen on {fit['validation']}" if fit["validation"] else ""
    return f"Finetuned with the labels of {dataset} ({fit['images']} images{chosen}). {before}"


def _check_contents(backbone: Backbone, path: Path, saved: Backbone, reads_text: bool) -> None:
    """Refuse features and text that the checkpoint has no tensors for."""
    if reads_text:
        raise ConfigError(
            f"backbone.weights={path}: a checkpoint of fgvc holds no text tower. Use a head that "
            "reads no class names (head=linear, knn, cosine or mlp), or the weights that the run "
            "started from"
        )
    needs = COMPATIBLE_FEATURES.get((backbone.library, backbone.features))
    if needs is not None and saved.features not in needs:
        raise ConfigError(
            f"backbone.features={backbone.features}: {path} was made with backbone.features="
            f"{saved.features} and lacks the layers for it. "
            f"Set {setting('backbone.features', saved.features)}"
        )


def _settings(backbone: Backbone) -> str:
    values: dict[str, object] = {"backbone": backbone.name}
    if backbone.checkpoint is not None:
        values["backbone.checkpoint"] = backbone.checkpoint
    else:
        row = chosen_checkpoint(backbone)
        values |= {"backbone.size": row.size, "backbone.patch": row.patch}
        if row.registers:
            values["backbone.registers"] = True
        values["backbone.normalization"] = row.normalization or backbone.normalization
    return " ".join(setting(key, value) for key, value in values.items())
