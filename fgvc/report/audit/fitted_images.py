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
        if not changed:
            raise DamageError(
                f"metrics.json: forced resume{source} without the best weights so far: validation "
                f"chose among the later epochs, and the run is {APART}"
            )
        raise DamageError(
            f"metrics.json: forced resume{source} under another {changed}: no config describes "
            f"this training, and the run is {APART}"
        )
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
    _check_backbone(record)
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


def _check_backbone(record: Record) -> None:
    """Check the number of images that fitted the backbone in earlier runs of fgvc.

    Raises:
        DamageError: the numbers differ, or are not 0 although no run of fgvc wrote the weights.
    """
    stated = record.facts["fit"].get("backbone", 0)
    agree(
        "images that fitted the backbone",
        ("the digests in ckpt.bin", len(record.fit.backbone_N)),
        ("ckpt.bin", stated),
    )
    if "made_by" not in record.facts["backbone"]["weights"]:
        agree("images that fitted the backbone", ("weights of no run", 0), ("ckpt.bin", stated))


def _check_validation(record: Record) -> None:
    """Check that ckpt.bin lists exactly the validation images that fitted or chose the head.

    Raises:
        DamageError: a validation image is missing or in excess.
    """
    config, readable = record.config, _readable_digests(record, "val")
    on_trainval = config["final_fit"] == "trainval"
    selects = record.numbers["selection"] is not None and config["task"].get("debug") is None
    agree(
        "validation images that chose the head",
        ("validation images", len(readable) if selects and not on_trainval else 0),
        ("ckpt.bin", len(record.fit.validation_N)),
    )
    if selects or on_trainval:
        counted_images = (
            "validation images in ckpt.bin",
            record.fit.overlap(short_digests(readable)),
        )
        agree("images of fit and choice", ("validation images", len(readable)), counted_images)


def _readable_digests(record: Record, name: str) -> list[str]:
    """SHA256 of the readable images of a split; empty if the split was not predicted."""
    if name not in record.predictions:
        return []
    rows = record.predictions[name]
    read_N = rows.pred_N != UNREADABLE
    return [digest for digest, readable in zip(rows.sha256, read_N, strict=True) if readable]


def no_test_image_fitted(record: Record) -> str:
    """Is no test image, byte for byte, among the images that fitted or chose head or backbone?"""
    rows, fit = record.predictions["test"], record.fit
    count = fit.overlap(short_digests(rows.sha256))
    recorded = record.numbers["overlap"]["images"]
    agree("overlap", ("predictions.parquet and ckpt.bin", count), ("metrics.json", recorded))
    earlier = len(fit.backbone_N)
    backbone = f", or the {earlier} that fitted or chose the backbone in earlier runs"
    if count:
        raise DamageError(
            f"ckpt.bin: {count} of {len(rows.path)} test images are among the "
            f"{len(fit.image_N)} that the head was fitted on and the {len(fit.validation_N)} "
            f"that chose it{backbone if earlier else ''}; the run is {UNRANKED}"
        )
    return (
        f"none of {len(rows.path)} test images is among the {len(fit.image_N)} of the fit and "
        f"the {len(fit.validation_N)} of validation that chose it{backbone if earlier else ''}"
    )
