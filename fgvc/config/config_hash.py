"""A typed config -> the plain data that is hashed -> config_hash.

Everything that can change a number is hashed. Paths and settings of speed are not: the metadata of
a field says which it is (fgvc.config.schema.fields).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from fgvc.config import inert, schema

# metadata of fields that are not hashed
UNHASHED = frozenset({"place", "card", "declared", "verifies"})


def hashed(conf: schema.Config) -> dict[str, Any]:
    """The hashed part of a config, as plain data."""
    return inert.apply(conf, hashed_with_inert(conf))


def hashed_with_inert(conf: schema.Config) -> dict[str, Any]:
    """The hashed part of a config, including the keys that change no number (see inert/)."""
    plain, backbone = _hashed(conf), conf.backbone
    # the chosen row instead of the table of checkpoints: adding a checkpoint changes no hash
    row = _hashed(schema.chosen_checkpoint(backbone))
    for name in ("checkpoints", "checkpoint", "size", "patch", "registers", "revision"):
        plain["backbone"].pop(name, None)
    # a local file is identified by its digest, a file of the hub by its revision, never by both
    row["revision"] = backbone.revision or row["revision"]
    if backbone.weights is not None or not backbone.pretrained:
        del row["revision"], row["repo"]
    plain["backbone"]["checkpoint"] = row
    return plain


def canonical(plain: dict[str, Any]) -> bytes:
    """The bytes that are hashed: canonical JSON (sorted keys, no spaces, no NaN)."""
    return json.dumps(
        plain, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    ).encode()


def config_hash(plain: dict[str, Any]) -> str:
    """SHA256 of the canonical JSON of exactly this argument; 64 hex digits."""
    return hashlib.sha256(canonical(plain)).hexdigest()


def _hashed(node: Any) -> dict[str, Any]:
    plain = {}
    for item in dataclasses.fields(node):
        value = getattr(node, item.name)
        if item.name == "runtime" or UNHASHED & item.metadata.keys():
            continue
        if "legacy" in item.metadata and value == item.metadata["legacy"]:
            continue
        value = value + 0.0 if isinstance(value, float) else value  # -0.0 becomes 0.0
        plain[item.name] = _hashed(value) if dataclasses.is_dataclass(value) else value
    return plain
