"""Values -> the JSON that FiftyOne's importer reads: object ids, arrays, fields, stages, runs.

The format is that of FiftyOne 1.x (FiftyOneDataset); nothing here looks at a clock or a random
number, so that the same values are the same bytes.
"""

from __future__ import annotations

import base64
import datetime
import functools
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
    """A document in one line of ASCII: its reader goes by the locale, whatever that is."""
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode("ascii")


def hex_id(*names: str) -> str:
    """24 hex digits that follow from the names alone."""
    return hashlib.sha256("\0".join(names).encode(errors="surrogatepass")).hexdigest()[:24]


def object_id(hex_digits: str) -> Document:
    return {"$oid": hex_digits}


def pack_array(values: np.ndarray) -> str:
    """An array as text: base64 of zlib of the bytes that np.save writes.

    Stored, not squeezed: floats hardly shrink, and so the bytes are those of every zlib.
    """
    data = _header(values.dtype.str, values.shape) + values.tobytes()
    return base64.b64encode(zlib.compress(data, level=0)).decode("ascii")


@functools.lru_cache
def _header(kind: str, shape: tuple[int, ...]) -> bytes:
    out = io.BytesIO()
    fields = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(out, fields)
    return out.getvalue()


def array(values: np.ndarray) -> Document:
    return {"$binary": {"base64": pack_array(values), "subType": "00"}}


def timestamp(when: datetime.datetime) -> Document:
    """UTC, to the millisecond, as MongoDB keeps it."""
    text = when.astimezone(datetime.UTC).isoformat(timespec="milliseconds")
    return {"$date": text.replace("+00:00", "Z")}


def field(name: str, kind: str, **more: object) -> Document:
    """The declaration of a field of samples or labels.

    Args:
        kind: a class of fiftyone.core.fields, without "Field"; "A of B": a list.
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


def label_field(name: str, label: str, fields: Sequence[Document], description: str) -> Document:
    """The declaration of a field of labels, CLASSIFICATION or HEATMAP."""
    shared = [field("id", "ObjectId"), field("tags", "List of String")]
    return field(
        name,
        "EmbeddedDocument",
        embedded_doc_type=label,
        fields=[*shared, *fields],
        description=description,
    )


def default_fields() -> list[Document]:
    """The declarations that every dataset of pictures opens with."""
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
    """One stage of a view; FiftyOne keeps it as a string."""
    pairs = [list(pair) for pair in arguments.items()]
    return json.dumps({"_cls": f"fiftyone.core.stages.{name}", "kwargs": pairs})


def run(
    key: str, when: datetime.datetime, stages: Sequence[str], config: Mapping[str, object]
) -> Document:
    """What an evaluation or a brain run says of itself; its results lie in a file of its own."""
    return {
        "key": key,
        "version": "1.0.0",
        "timestamp": timestamp(when),
        "view_stages": list(stages) or None,
        "config": dict(config),
    }
