"""The fields of runs -> what the App shows at first: colours, ticked fields and panels."""

from __future__ import annotations

from collections.abc import Sequence

from fgvc.record.fiftyone.json_documents import Document, hex_id
from fgvc.record.fiftyone.run_fields import OUTCOME, RIGHT, TRUTH, WRONG, RunFields

OPACITY = 0.45  # of heat maps, which "color_by": "value" draws from violet to yellow, even on sky
# one colour for the chips of true classes: colours by class would include green and red; the map of
# features still has a colour per class
NEUTRAL = {
    "path": TRUTH,
    "fieldColor": "#4a5568",
    "colorByAttribute": "_cls",
    "valueColors": [{"value": "Classification", "color": "#4a5568"}],
}
WORKSPACE = "overview"  # the panels that task=view opens


def app_config(runs: Sequence[RunFields]) -> Document:
    """`app_config` of metadata.json: right is green and wrong is red, in every run."""
    active = [TRUTH, *(run.key("predictions") for run in runs)]
    if len(runs) == 1:  # of two runs, "True False" would not say which is whose
        active.append(runs[0].key("eval"))
    # the heat maps of two runs would cover each other
    active += [run.key("attention") for run in runs if "attention" in run.fields][:1]
    return {
        "active_fields": {"exclude": False, "paths": active},
        "color_scheme": {
            "_id": {"$oid": hex_id("color scheme")},
            "color_by": "value",
            "opacity": OPACITY,
            "fields": [NEUTRAL, *(field for run in runs for field in _colours(run))],
        },
    }


def _colours(run: RunFields) -> list[Document]:
    # the grid of images compares with True, the map of features with true
    names = {"True": RIGHT, "true": RIGHT, "False": WRONG, "false": WRONG}
    values = [{"value": name, "color": colour} for name, colour in names.items()]
    outcomes = [
        {"path": run.key(name), "fieldColor": RIGHT, "valueColors": values}
        for name in ("eval", "eval_val")
        if name in run.fields
    ]
    predictions = {"path": run.key("predictions"), "colorByAttribute": OUTCOME}
    return [{**predictions, "valueColors": values}, *outcomes]


def workspaces(runs: Sequence[RunFields]) -> list[Document]:
    """One workspace: the images, and behind them histograms of confidence and the feature map."""
    panels = [_panel("Samples", pinned=True)]
    panels += [_panel("Histograms", path=f"{runs[0].key('predictions')}.confidence")]
    if any("embedding" in run.fields for run in runs):
        panels.append(_panel("Embeddings"))
    panels.append(_panel("model_evaluation_panel_builtin"))
    space = {
        "_cls": "Space",
        "component_id": "root",
        "children": panels,
        "active_child": panels[0]["component_id"],
        "_name": WORKSPACE,
    }
    description = "images, histograms of confidence, map of the features, evaluation"
    return [{"name": WORKSPACE, "slug": WORKSPACE, "description": description, "child": space}]


def _panel(kind: str, pinned: bool = False, **state: object) -> Document:
    panel = {"_cls": "Panel", "component_id": kind, "type": kind}
    return {**panel, "pinned": pinned, "state": state}
