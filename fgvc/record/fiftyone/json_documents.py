"""Values -> the JSON that FiftyOne's importer reads: object ids, arrays, fields, stages, runs.

The format is FiftyOneDataset of FiftyOne 1.x. Nothing here reads a clock or draws a random number,
so the same values give the same bytes.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import io
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Document = dict[str, Any]
FIELDS, LABELS = "fiftyone.core.fields", "fiftyone.core.labels"
CLASSIFICATION, HEATMAP = f"{LABELS}.Classification", f"{LABELS}.Heatmap"
PLAIN = ("id", "created_at", "last_modified_at", "_media_type", "_rand", "_dataset_id", "filepath")


def json_line(document: Mapping[str, Any]) -> bytes:
    """A document in one line of ASCII: FiftyOne decodes the file by the locale."""
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode("ascii")


def hex_id(*names: str) -> str:
    """24 hex digits that depend on the names only."""
    return hashlib.sha256("\0".join(names).encode(errors="surrogatepass")).hexdigest()[:24]


def pack_array(values: np.ndarray) -> str:
    """An array as text: base64 of zlib of the bytes that np.save writes.

    zlib stores without compressing: floats hardly shrink, and every version of zlib then gives the
    same bytes.
    """
    out = io.BytesIO()
    np.save(out, np.ascontiguousarray(values))
    return base64.b64encode(zlib.compress(out.getvalue(), level=0)).decode("ascii")


def array(values: np.ndarray) -> Document:
    return {"$binary": {"base64": pack_array(values), "subType": "00"}}


def field(name: str, kind: str, **more: object) -> Document:
    """The declaration of a field of samples or labels.

    Args:
        kind: a class of fiftyone.core.fields, without "Field"; "List of B": a list with subfield B.
    """
    outer, _, inner = kind.partition(" of ")
    return {
        "name": name,
        "ftype": f"{FIELDS}.{outer}Field",
        "embedded_doc_type": None,
        "subfield": f"{FIELDS}.{inner}Field" if inner else None,
        "fields": [],
        "db_field": "_id" if name == "id" else name,
        "description": None,
        "info": None,
        "read_only": False,
        **more,
    }


def label_field(name: str, label: str, kinds: Mapping[str, str], description: str) -> Document:
    """The declaration of a field of labels, CLASSIFICATION or HEATMAP.

    Args:
        kinds: kind of each field of the label.
    """
    all_kinds = {"id": "ObjectId", "tags": "List of String", **kinds}
    fields = [field(name, kind) for name, kind in all_kinds.items()]
    label_facts = {"embedded_doc_type": label, "fields": fields, "description": description}
    return field(name, "EmbeddedDocument", **label_facts)


def default_fields() -> list[Document]:
    """The declarations of the default fields of an image dataset."""
    kinds = dict.fromkeys(("id", "_dataset_id"), "ObjectId")
    kinds |= dict.fromkeys(("created_at", "last_modified_at"), "DateTime")
    kinds |= {"_rand": "Float"}
    plain = [
        field(name, kinds.get(name, "String"), read_only=name in ("created_at", "last_modified_at"))
        for name in PLAIN
    ]
    sizes = [field(name, "Int") for name in ("size_bytes", "width", "height", "num_channels")]
    metadata = field(
        "metadata",
        "EmbeddedDocument",
        embedded_doc_type="fiftyone.core.metadata.ImageMetadata",
        fields=[*sizes, field("mime_type", "String")],
    )
    return [*plain, metadata, field("tags", "List of String")]


def stage(name: str, **arguments: object) -> str:
    """One stage of a view; FiftyOne stores it as a string."""
    pairs = [list(pair) for pair in arguments.items()]
    return json.dumps({"_cls": f"fiftyone.core.stages.{name}", "kwargs": pairs})


def run(
    key: str, when: datetime.datetime, stages: Sequence[str], config: Mapping[str, object]
) -> Document:
    """The document of an evaluation or a brain run; its results are in a separate file."""
    # UTC, to the millisecond, as MongoDB stores it
    time = when.astimezone(datetime.UTC).isoformat(timespec="milliseconds")
    return {
        "key": key,
        "version": "1.0.0",
        "timestamp": {"$date": time.replace("+00:00", "Z")},
        "view_stages": list(stages) or None,
        "config": dict(config),
    }
