"""Images of the fit -> whether they are those of the config, and include no test image."""

from __future__ import annotations

from fgvc.metrics import UNREADABLE
from fgvc.record.comparability import was_forced
from fgvc.record.fitted_images import short_digests
from fgvc.record.not_ranked import APART, UNRANKED
from fgvc.record.verify import DamageError
from fgvc.report.audit.check import agree
from fgvc.report.audit.record import Record


def plain_fit(record: Record) -> str:
    """Is the run plain, that is, neither a forced resume nor a debugging run?"""
    resumed = record.numbers.get("resumed") or {}
    if was_forced(record.numbers, record.facts):
        source = f" from {resumed['from']}" if "from" in resumed else ""
        changed = ", ".join(resumed["changed"]) if resumed else "config"
        what = f"under another {changed}: no config describes this training"
        if not changed:
            what = "without the best weights so far: validation chose among the later epochs"
        raise DamageError(f"metrics.json: forced resume{source} {what}, and the run is {APART}")
    if resumed:
        changed = bool(resumed["changed"] or "best_lost" in resumed)
        agree("forced", ("changed keys", changed), ("metrics.json", resumed["forced"]))
    if (debug := record.config["task"].get("debug")) is not None:
        raise DamageError(
            f"config.canonical.json: task.debug={debug}: a debugging run is not a result, and is "
            f"{APART}"
        )
    return f"resumed after step {resumed['step']}" if resumed else "not resumed, no debugging run"


def fitted_on(record: Record) -> str:
    """Does the number of fitted images follow from final_fit and the split?"""
    fit, count = record.fit, record.numbers["fitted_on"]
    agree(
        "images of the fit",
        ("the digests in ckpt.bin", len(fit.image_N)),
        ("ckpt.bin", record.facts["fit"]["images"]),
        ("metrics.json", count),
    )
    agree(
        "validation images that chose the head",
        ("the digests in ckpt.bin", len(fit.validation_N)),
        ("ckpt.bin", record.facts["fit"]["validation"]),
    )
    backbone = record.facts["fit"].get("backbone", 0)
    counted = [("the digests in ckpt.bin", len(fit.backbone_N)), ("ckpt.bin", backbone)]
    if "made_by" not in record.facts["backbone"]["weights"]:
        counted.insert(0, ("weights of no run", 0))
    agree("images that fitted the backbone", *counted)
    if record.stamp["task"] == "eval":
        return f"{count} images, as the checkpoint states"
    expected = _expected_fit_size(record)
    agree("images of the fit", ("final_fit and the split", expected), ("metrics.json", count))
    _check_validation(record)
    return f"{count} images, as expected from final_fit={record.config['final_fit']} and the split"


def _expected_fit_size(record: Record) -> int:
    """Number of images of the fit, without unreadable images."""
    config = record.config
    if config["task"]["name"] == "zero_shot":
        return 0
    train, val = (len(record.split(name)) for name in ("train", "val"))
    unreadable = record.numbers["unreadable"]
    if config["task"].get("debug") is not None:
        return min(train, config["task"]["batch_size"]) - unreadable["train"]
    if config["final_fit"] == "trainval":
        return train + val - unreadable["train"] - unreadable["val"]
    return train - unreadable["train"]


def _check_validation(record: Record) -> None:
    """Check that ckpt.bin lists exactly the validation images that fitted or chose the head."""
    config, readable = record.config, []
    if (rows := record.predictions.get("val")) is not None:
        pairs = zip(rows.sha256, rows.pred_N, strict=True)
        readable = [digest for digest, pred in pairs if pred != UNREADABLE]
    on_trainval = config["final_fit"] == "trainval"
    selects = record.numbers["selection"] is not None and config["task"].get("debug") is None
    agree(
        "validation images that chose the head",
        ("validation images", len(readable) if selects and not on_trainval else 0),
        ("ckpt.bin", len(record.fit.validation_N)),
    )
    if selects or on_trainval:
        count = record.fit.overlap(short_digests(readable))
        counted_images = ("validation images in ckpt.bin", count)
        agree("images of fit and choice", ("validation images", len(readable)), counted_images)


def no_test_image_fitted(record: Record) -> str:
    """Is no test image, byte for byte, among the images that fitted or chose head or backbone?"""
    rows, fit = record.predictions["test"], record.fit
    count = fit.overlap(short_digests(rows.sha256))
    recorded = record.numbers["overlap"]["images"]
    agree("overlap", ("predictions.parquet and ckpt.bin", count), ("metrics.json", recorded))
    backbone = ""
    if earlier := len(fit.backbone_N):
        backbone = f", or the {earlier} that fitted or chose the backbone in earlier runs"
    images, fitted, chosen = len(rows.path), len(fit.image_N), len(fit.validation_N)
    if count:
        raise DamageError(
            f"ckpt.bin: {count} of {images} test images are among the {fitted} that the head was "
            f"fitted on and the {chosen} that chose it{backbone}; the run is {UNRANKED}"
        )
    return (
        f"none of {images} test images is among the {fitted} of the fit and the {chosen} of "
        f"validation that chose it{backbone}"
    )
