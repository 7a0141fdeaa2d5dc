"""Was the head fitted and chosen on the images of the config, plainly, and on no test image?"""

from __future__ import annotations

from fgvc.metrics import UNREADABLE
from fgvc.record.comparability import was_forced
from fgvc.record.fitted_images import short_digests
from fgvc.record.verify import DamageError
from fgvc.report.audit.check import agree
from fgvc.report.audit.record import Record


def plain_fit(record: Record) -> str:
    """Is it a plain run, that is, neither a forced resume nor a debugging run?"""
    resumed = record.numbers.get("resumed") or {}
    if was_forced(record.numbers, record.facts):
        source = f" from {resumed['from']}" if "from" in resumed else ""
        changed = ", ".join(resumed["changed"]) if resumed else "config"
        if not changed:
            raise DamageError(
                f"metrics.json: forced resume{source} without the best weights so far: validation "
                "chose among the later epochs, and the run is not ranked beside plain runs"
            )
        raise DamageError(
            f"metrics.json: forced resume{source} under another {changed}: no config describes "
            "this training, and it is not ranked beside plain runs"
        )
    if resumed:
        changed = bool(resumed["changed"] or "best_lost" in resumed)
        agree("forced", ("changed keys", changed), ("metrics.json", resumed["forced"]))
    if (debug := record.config["task"].get("debug")) is not None:
        raise DamageError(
            f"config.canonical.json: task.debug={debug}: a debugging run is no result and is not "
            "ranked beside plain runs"
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
    expected = _expected(record)
    agree("images of the fit", ("final_fit and the split", expected), ("metrics.json", count))
    _check_validation(record)
    return f"{count} images, as expected from final_fit={record.config['final_fit']} and the split"


def _expected(record: Record) -> int:
    """Images of the fit, without those that could not be read."""
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
    """Check that the images of earlier runs of fgvc are recorded, and for their weights only.

    Raises:
        DamageError: the numbers of images differ, or the weights are of no run of fgvc.
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
    """Check that ckpt.bin names the validation images that fitted or chose the head, no others.

    Raises:
        DamageError: some validation image is missing, or there are more.
    """
    config, read = record.config, _read(record, "val")
    joined = config["final_fit"] == "trainval"
    chooses = record.numbers["selection"] is not None and config["task"].get("debug") is None
    agree(
        "validation images that chose the head",
        ("validation images", len(read) if chooses and not joined else 0),
        ("ckpt.bin", len(record.fit.validation_N)),
    )
    if chooses or joined:
        counted = ("validation images in ckpt.bin", record.fit.overlap(short_digests(read)))
        agree("images of fit and choice", ("validation images", len(read)), counted)


def _read(record: Record, name: str) -> list[str]:
    """SHA256 of the images of a split that could be read; empty if it was not predicted."""
    if name not in record.predictions:
        return []
    rows = record.predictions[name]
    read_N = rows.pred_N != UNREADABLE
    return [digest for digest, kept in zip(rows.sha256, read_N, strict=True) if kept]


def no_test_image_fitted(record: Record) -> str:
    """Did no test image, byte for byte, fit or choose the head or the backbone?"""
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
            f"that chose it{backbone if earlier else ''}; the run is not ranked"
        )
    return (
        f"none of {len(rows.path)} test images is among the {len(fit.image_N)} of the fit and "
        f"the {len(fit.validation_N)} of validation that chose it{backbone if earlier else ''}"
    )
