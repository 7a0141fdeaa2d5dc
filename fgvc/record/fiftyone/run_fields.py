"""The info of a run -> its fields, saved views, evaluations and brain runs in a dataset.

In the dataset of one run the names are plain (predictions, eval). In the dataset of two runs each
name ends in what distinguishes the runs (predictions_transfg and predictions_off), or in the ids of
their checkpoints (predictions_1a2b3c4d) if no axis does.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fgvc.record.fiftyone import display_text, json_documents
from fgvc.record.fiftyone.json_documents import Document, field, label_field, stage

FIELDS = ("predictions", "eval", "eval_val", "hardness", "embedding", "attention")
MAP = "embedding_map"  # key of the brain run
TRUTH = "ground_truth"
OUTCOME = "right"  # attribute of a prediction, which colours it in the App
RIGHT, WRONG = "#2a9134", "#d62839"  # colours of hits and mistakes, everywhere in the App
MOST = 100  # maximum number of samples in a view that is sorted by confidence
PREDICTION = {  # fields of a prediction -> kind, as of json_documents.field
    "label": "String",
    "confidence": "Float",
    OUTCOME: "Boolean",
    "logits": "Vector",
    "top": "List of String",
    "top_confidence": "List of Float",
}
PLAIN_FIELDS = {  # kind and description of the fields that are no labels
    "eval": ("Boolean", "test: right or wrong"),
    "eval_val": ("Boolean", "validation: right or wrong"),
    "hardness": ("Float", "entropy of the prediction, nats"),
    "embedding": ("Vector", "the feature that the head read"),
}


@dataclass(frozen=True)
class RunFields:
    """The fields of one run in a dataset.

    info: `info` of metadata.json. label: names the run in a dataset of two runs; "" in the dataset
    of one run.
    """

    info: Mapping[str, Any]
    label: str = ""

    def key(self, name: str) -> str:
        """The name of a field or brain run with the label of this run."""
        assert name in (*FIELDS, MAP), name
        return f"{name}_{display_text.field_suffix(self.label)}" if self.label else name

    @property
    def fields(self) -> tuple[str, ...]:
        """The members of FIELDS that the samples of this run have."""
        return tuple(self.info["fields"])

    @property
    def _started(self) -> datetime.datetime:
        return datetime.datetime.fromisoformat(self.info["started"])

    def evaluations(self) -> list[Document]:
        """One evaluation per split: another head may have predicted the validation split."""
        return [
            json_documents.run(
                self.key(name),
                self._started,
                [stage("MatchTags", tags=[split])],
                {
                    "cls": "fiftyone.utils.eval.classification.SimpleEvaluationConfig",
                    "type": "classification",
                    "method": "simple",
                    "pred_field": self.key("predictions"),
                    "gt_field": TRUTH,
                    "custom_metrics": None,
                },
            )
            for name, split in (("eval", "test"), ("eval_val", "val"))
            if name in self.fields
        ]

    def brain_methods(self) -> list[Document]:
        """The visualization of the embeddings; empty without embeddings."""
        if "embedding" not in self.fields:
            return []
        config = {
            "cls": "fiftyone.brain.visualization.ManualVisualizationConfig",
            "type": "visualization",
            "method": "manual",
            "embeddings_field": self.key("embedding"),
            "points_field": None,
            "patches_field": None,
            "num_dims": 2,
        }
        test_view = [stage("MatchTags", tags=["test"])]
        return [json_documents.run(self.key(MAP), self._started, test_view, config)]

    def declarations(self) -> list[Document]:
        run_name = display_text.title(self.info)
        labels = {
            "predictions": (
                json_documents.CLASSIFICATION,
                PREDICTION,
                f"predictions of {run_name}",
            ),
            "attention": (
                json_documents.HEATMAP,
                {"map": "Array", "map_path": "String", "range": "HeatmapRange of Float"},
                "scores of part attention; empty outside the network's view",
            ),
        }
        return [
            label_field(self.key(name), *labels[name])
            if name in labels
            else field(self.key(name), PLAIN_FIELDS[name][0], description=PLAIN_FIELDS[name][1])
            for name in self.fields
        ]

    def views(self) -> list[Document]:
        """Saved views: errors, confident errors, hits of low confidence, most confused pairs."""
        right, confidence = self.key("eval"), f"{self.key('predictions')}.confidence"
        wrong = stage("Match", filter={right: False})
        hits = stage("Match", filter={right: True})
        limit = stage("Limit", limit=MOST)
        of = f": {self.label}" if self.label else ""
        views = [
            view(f"misclassified{of}", "every mistake on test", [wrong], WRONG),
            view(
                f"wrong with high confidence{of}",
                f"the {MOST} most confident mistakes on test",
                [wrong, stage("SortBy", field_or_expr=confidence, reverse=True), limit],
                WRONG,
            ),
            view(
                f"right with low confidence{of}",
                f"the {MOST} least confident hits on test",
                [hits, stage("SortBy", field_or_expr=confidence, reverse=False), limit],
                RIGHT,
            ),
        ]
        return [*views, *self._pair_views(of)]

    def _pair_views(self, of: str) -> list[Document]:
        """One view of all most confused pairs, then a view per pair; of: the end of their names."""
        right, pred = self.key("eval"), f"{self.key('predictions')}.label"
        pairs = self.info["confused"]
        # the filter on `right`, a field of the test split, leaves validation out of these counts
        filters = [
            {right: False, f"{TRUTH}.label": pair["label"], pred: pair["pred"]} for pair in pairs
        ]
        if not filters:
            return []
        all_pairs = [
            stage("Match", filter={"$or": filters}),
            stage("SortBy", field_or_expr=f"{TRUTH}.label", reverse=False),
        ]
        names = [display_text.pair_name(**pair) for pair in pairs]
        pair_views = [
            view(
                (name if names.count(name) == 1 else f"{name}, pair {number}") + of,
                f"{pair['label']} taken for {pair['pred']}: {pair['count']} of test",
                [stage("Match", filter=pair_filter)],
                WRONG,
                f"confused {number}{of}",
            )
            for number, (name, pair, pair_filter) in enumerate(
                zip(names, pairs, filters, strict=True), start=1
            )
        ]
        worst = view(f"worst confused pairs{of}", "pair by pair", all_pairs, WRONG)
        return [worst, *pair_views]


def comparison_views(first: RunFields, second: RunFields) -> list[Document]:
    """Views of two runs: the test images that one run or both runs get wrong."""
    a, b = first.key("eval"), second.key("eval")
    cases = (
        (f"only {first.label} right", {a: True, b: False}, RIGHT),
        (f"only {second.label} right", {a: False, b: True}, RIGHT),
        ("both wrong", {a: False, b: False}, WRONG),
    )
    return [
        view(name, "on test", [stage("Match", filter=case)], colour) for name, case, colour in cases
    ]


def view(
    name: str, description: str, stages: Sequence[str], colour: str, address: str = ""
) -> Document:
    """A saved view.

    Args:
        colour: of its dot in the list of views.
        address: names it in a URL instead of its name, which may hold characters of any script.
    """
    return {
        "name": name,
        "slug": display_text.slug(address or name),
        "description": description,
        "color": colour,
        "view_stages": list(stages),
    }
