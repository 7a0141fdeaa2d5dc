"""What one run adds to the samples: its fields, views, evaluations and its map, by their names.

A run alone has them bare (predictions, eval); beside another one each ends in the run's checkpoint
(predictions_1a2b3c4d). A run tells all that is needed for that in the `info` of its dataset.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fgvc.record.fiftyone import json_documents
from fgvc.record.fiftyone.json_documents import Document, field, label_field, stage

FIELDS = ("predictions", "eval", "eval_val", "hardness", "embedding", "attention")
MAP = "embedding_map"  # key of the brain run
TRUTH = "ground_truth"
MOST = 100  # samples of a view that is sorted by confidence
SHORT = 8  # hex digits of a checkpoint in a name


@dataclass(frozen=True)
class RunFields:
    """One run in a dataset.

    info: as it stands in metadata.json. name: what its views are called after, "" where it stands
    alone.
    """

    info: Mapping[str, Any]
    name: str = ""

    @property
    def named(self) -> RunFields:
        """The same beside another run."""
        return replace(self, name=self.info["checkpoint_id"][:SHORT])

    def key(self, field_name: str) -> str:
        """A field or run of this answer, by the name it has in a run that stands alone."""
        assert field_name in (*FIELDS, MAP), field_name
        return f"{field_name}_{self.name}" if self.name else field_name

    @property
    def fields(self) -> tuple[str, ...]:
        """Those of FIELDS that its samples have."""
        return tuple(self.info["fields"])

    @property
    def _when(self) -> datetime.datetime:
        return datetime.datetime.fromisoformat(self.info["started"])

    def evaluations(self) -> dict[str, Document]:
        """One a split, over its samples alone: validation may have been read by another head."""
        return {
            self.key(name): json_documents.run(
                self.key(name),
                self._when,
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
        }

    def brain(self) -> dict[str, Document]:
        """The map of the embeddings, where there are any."""
        if "embedding" not in self.fields:
            return {}
        config = {
            "cls": "fiftyone.brain.visualization.ManualVisualizationConfig",
            "type": "visualization",
            "method": "manual",
            "embeddings_field": self.key("embedding"),
            "points_field": None,
            "patches_field": None,
            "num_dims": 2,
        }
        tested = [stage("MatchTags", tags=["test"])]
        return {self.key(MAP): json_documents.run(self.key(MAP), self._when, tested, config)}

    def declared(self) -> list[Document]:
        """The declarations of its fields."""
        of = f"{self.info['name']} ({self.info['checkpoint_id'][:SHORT]})"
        kinds = {
            "predictions": lambda name: label_field(
                name, json_documents.CLASSIFICATION, _prediction_fields(), f"what {of} says"
            ),
            "eval": lambda name: _plain_field(name, "Boolean", "test: right or wrong"),
            "eval_val": lambda name: _plain_field(name, "Boolean", "validation: right or wrong"),
            "hardness": lambda name: _plain_field(name, "Float", "entropy of the prediction, nats"),
            "embedding": lambda name: _plain_field(
                name, "Vector", "the feature that the head read"
            ),
            "attention": lambda name: label_field(
                name,
                json_documents.HEATMAP,
                [
                    field("map", "Array"),
                    field("map_path", "String"),
                    field("range", "HeatmapRange of Float"),
                ],
                "where part attention looked; nothing where the network did not look",
            ),
        }
        return [kinds[name](self.key(name)) for name in self.fields]

    def views(self) -> list[Document]:
        """What is worth a look: mistakes, the surest of them, the least sure hits, worst pairs."""
        right, confidence = self.key("eval"), f"{self.key('predictions')}.confidence"
        wrong = stage("Match", filter={right: False})
        hits = stage("Match", filter={right: True})
        first = stage("Limit", limit=MOST)
        of = f" {self.name}" if self.name else ""
        fixed = [
            view(f"misclassified{of}", "every mistake on test", [wrong]),
            view(
                f"wrong with high confidence{of}",
                f"the {MOST} surest mistakes on test",
                [wrong, _sorted(confidence, reverse=True), first],
            ),
            view(
                f"right with low confidence{of}",
                f"the {MOST} least sure hits on test",
                [hits, _sorted(confidence, reverse=False), first],
            ),
        ]
        return [*fixed, *self._confused(of)]

    def _confused(self, of: str) -> list[Document]:
        """The classes confused most often: all of them, then pair by pair."""
        guess, right = f"{self.key('predictions')}.label", self.key("eval")
        # right is asked for too: validation is no part of these counts
        filters = [
            {right: False, f"{TRUTH}.label": pair["label"], guess: pair["pred"]}
            for pair in self.info["confused"]
        ]
        if not filters:
            return []
        together = [
            stage("Match", filter={"$or": filters}),
            _sorted(f"{TRUTH}.label", reverse=False),
        ]
        counts = [(pair["count"], pair["label"], pair["pred"]) for pair in self.info["confused"]]
        one_by_one = [
            view(f"confused {place}{of}", f"{true} taken for {guessed}: {count} of test", [only])
            for place, ((count, true, guessed), only) in enumerate(
                zip(counts, [stage("Match", filter=each) for each in filters], strict=True), start=1
            )
        ]
        return [view(f"worst confused pairs{of}", "pair by pair", together), *one_by_one]


def comparison_views(first: RunFields, second: RunFields) -> list[Document]:
    """Views of two answers: where one is right and the other wrong, and where both are wrong."""
    a, b = first.key("eval"), second.key("eval")
    cases = (
        (f"only {first.name} right", {a: True, b: False}),
        (f"only {second.name} right", {a: False, b: True}),
        ("both wrong", {a: False, b: False}),
    )
    return [view(name, "on test", [stage("Match", filter=case)]) for name, case in cases]


def view(name: str, description: str, stages: Sequence[str]) -> Document:
    """A saved view; names are of letters that a URL may hold."""
    slug = name.replace(" ", "-")
    return {"name": name, "slug": slug, "description": description, "view_stages": list(stages)}


def _sorted(by: str, reverse: bool) -> str:
    return stage("SortBy", field_or_expr=by, reverse=reverse)


def _plain_field(name: str, kind: str, description: str) -> Document:
    return field(name, kind, description=description)


def _prediction_fields() -> list[Document]:
    kinds = {"label": "String", "confidence": "Float", "logits": "Vector"}
    kinds |= {"top": "List of String", "top_confidence": "List of Float"}
    return [field(name, kind) for name, kind in kinds.items()]
