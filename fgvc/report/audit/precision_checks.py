"""Cascade and certificate of fast predictions -> whether they follow from the rest of the record.

n drawn images.
"""

from __future__ import annotations

from typing import Any

from fgvc import metrics
from fgvc.record import precision_checks as checks
from fgvc.record.verify import DamageError
from fgvc.report.audit.check import agree, require_same
from fgvc.report.audit.record import CONFIG, PREDICTIONS, STAMP, Record

METRICS = "metrics.json"
ROUNDING = 1e-6  # relative, of a margin from probabilities


def cascade_follows(record: Record) -> str:
    """Do the bound of the cascade and its statement follow from the sample?

    The losses of margin themselves would take the images: task=eval repeats the cascade.
    """
    facts, stored = record.numbers.get(checks.CASCADE), record.facts.get(checks.CASCADE)
    count = record.config["task"].get("cascade")
    agree("cascade", ("the config", count is not None), (METRICS, facts is not None))
    if facts is None or stored is None or count is None:
        agree("cascade", (METRICS, facts is not None), ("ckpt.bin", stored is not None))
        return "no cascade"
    readable = _readable(record)
    agree("images of the cascade", (PREDICTIONS, len(readable)), (METRICS, facts["images"]))
    expected: dict[str, Any] = {
        **stored,
        "factor": checks.FACTOR,
        "bound": checks.FACTOR * stored["largest_loss"],
        "share": metrics.upper_limit(0, stored["sample"], checks.LEVEL),
        "level": checks.LEVEL,
        "images": facts["images"],
        "repeated": facts["repeated"],
    }
    require_same(f"{METRICS} {checks.CASCADE}", facts, expected)
    most = record.facts["fit"]["images"] + record.facts["fit"]["validation"]
    if not (0 < facts["sample"] <= min(count, most) and facts["repeated"] <= len(readable)):
        raise DamageError(f"{METRICS} {checks.CASCADE}: more images than there are")
    # an image that was not repeated keeps a margin above the bound, up to rounding
    margin_N = metrics.score_margins(record.predictions["test"].score_NK)
    least = int((margin_N < facts["bound"] * (1 - ROUNDING)).sum())
    if type(facts["repeated"]) is not int or facts["repeated"] < least:
        problem = f"{facts['repeated']} repeated, but {least} margins are at most the bound"
        raise DamageError(f"{METRICS} {checks.CASCADE}: {problem}")
    return f"bound {facts['bound']:g} of {facts['sample']} images, {facts['repeated']} repeated"


def certificate_follows(record: Record) -> str:
    """Were the images of the certificate drawn by digest, and does its limit follow from them?

    The draw is repeated from the digests of config, images, weights and predictions. The float32
    predictions themselves would take the images: task=eval task.certify=N repeats them.
    """
    facts, stamp = record.numbers.get(checks.CERTIFICATE), record.stamp
    asked = None
    if stamp["task"] != "eval":  # its config is that of the checkpoint
        asked = record.shown_config["task"].get("certify")
        agree("certificate", (CONFIG, asked is not None), (METRICS, facts is not None))
    if facts is None:
        return "no certificate"
    readable, images = _readable(record), facts["images"]
    paths = list(readable)
    digests = [stamp[key] for key in ("config_hash", "manifest_digest", "weights_digest")]
    seed = checks.digest(*digests, record.numbers["predictions_digest"])
    agree("seed of the certificate", (f"{STAMP} and predictions", seed), (METRICS, facts["seed"]))
    expected = len(paths) if asked is None else min(asked, len(paths))
    if asked is not None or images > expected:
        agree("images of the certificate", (CONFIG, expected), (METRICS, images))
    drawn = [paths[index] for index in checks.draw(seed, paths, images).tolist()]
    digest = ("the draw", checks.digest_paths(drawn))
    agree("images of the certificate", digest, (METRICS, facts["drawn"]))
    differing = facts["differing"]
    classes = len(record.labelmap)
    if len({row["path"] for row in differing}) != len(differing):
        raise DamageError(f"{METRICS} {checks.CERTIFICATE}: lists an image twice")
    for row in differing:
        agree("prediction", (PREDICTIONS, readable.get(row["path"])), (METRICS, row["pred"]))
        if (
            row["path"] not in drawn
            or row["fp32"] == row["pred"]
            or row["fp32"] not in range(classes)
        ):
            raise DamageError(f"{METRICS} {checks.CERTIFICATE}: lists an image that cannot differ")
    recomputed = {
        **facts,
        "of": len(paths),
        "level": checks.LEVEL,
        "limit": checks.limit(len(differing), images, len(paths)),
    }
    require_same(f"{METRICS} {checks.CERTIFICATE}", facts, recomputed)
    return dict(checks.sentences(record.numbers))[checks.CERTIFICATE]


def _readable(record: Record) -> dict[str, int]:
    """Path -> prediction of each readable test image, in the order of the record."""
    rows = record.predictions["test"]
    pairs = zip(rows.path, rows.pred_N.tolist(), strict=True)
    return {path: pred for path, pred in pairs if pred != metrics.UNREADABLE}
