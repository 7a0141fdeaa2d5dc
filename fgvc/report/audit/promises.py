"""Stack, source, licence and approval of a record -> the evidence that no digest can give.

A person judges a licence and an approval. These checks report the recorded texts, and a named
person signs.
"""

from __future__ import annotations

from fgvc.record.verify import DamageError
from fgvc.report.audit.check import PERSON, Verdict
from fgvc.report.audit.record import Record


def stack_validated(record: Record) -> str:
    """Did TensorBoard and FiftyOne pass task=check on this stack, if the backbone requires it?"""
    stack = record.stamp["stack_check"]
    if stack == "skipped":
        raise DamageError(
            "env_stamp.json: stack_check skipped; run task=check, then repeat the run"
        )
    versions = ("python", "torch", "tensorboard", "fiftyone")
    return f"{stack}: " + ", ".join(
        f"{name} {record.stamp[f'{name}_version']}" for name in versions
    )


def source(record: Record) -> str:
    """Are the source and the filtering of the images recorded?"""
    card = record.stamp["dataset_card"]
    for key in ("source", "filtering"):
        if not card.get(key):
            raise DamageError(f"env_stamp.json: dataset.card.{key} is not recorded")
    manifest = record.stamp["manifest_digest"]
    return f"{card['source']}; filtering: {card['filtering']}; manifest {manifest}"


def licence(record: Record) -> Verdict:
    """Do the licences permit this use of the images and weights? (a person signs)"""
    weights = record.stamp["weights"]
    images = f"images: {record.stamp['dataset_card'].get('license', 'not recorded')}"
    return Verdict(PERSON, f"{images}; weights: {weights['name']} ({weights['kind']})")


def approval(record: Record) -> Verdict:
    """Is a new or synthetic dataset approved? (a person signs)"""
    return Verdict(PERSON, record.stamp["dataset_card"].get("approval", "not recorded"))
