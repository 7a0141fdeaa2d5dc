"""What no digest can show: the stack, the smoke subset, licences and approval.

A licence and an approval are for a person to judge: the check says what there is to read, and that
a named person must sign.
"""

from __future__ import annotations

from fgvc.record.verify import DamageError
from fgvc.report.audit.check import PERSON, Verdict
from fgvc.report.audit.record import Record


def stack_validated(record: Record) -> str:
    """Did TensorBoard and FiftyOne pass on this stack, where the backbone asks for it?"""
    told = record.stamp["stack_check"]
    if told == "skipped":
        raise DamageError("env_stamp.json: stack_check skipped; run task=check, then repeat it")
    versions = ("python", "torch", "tensorboard", "fiftyone")
    return f"{told}: " + ", ".join(f"{one} {record.stamp[f'{one}_version']}" for one in versions)


def source(record: Record) -> str:
    """Are source and filtering of the images recorded?"""
    card = record.stamp["dataset_card"]
    for key in ("source", "filtering"):
        if not card.get(key):
            raise DamageError(f"env_stamp.json: dataset.card.{key} is not recorded")
    manifest = record.stamp["manifest_digest"]
    return f"{card['source']}; filtering: {card['filtering']}; manifest {manifest}"


def licence(record: Record) -> Verdict:
    """May the images and the weights be used so? (a person signs)"""
    weights = record.stamp["weights"]
    told = f"images: {record.stamp['dataset_card'].get('license', 'not recorded')}"
    return Verdict(PERSON, f"{told}; weights: {weights['name']} ({weights['kind']})")


def approval(record: Record) -> Verdict:
    """Is a new or synthetic dataset approved? (a person signs)"""
    return Verdict(PERSON, record.stamp["dataset_card"].get("approval", "not recorded"))
