"""Facts that a record states twice, or that follow from its config -> whether they agree.

Among them the images of the fit: those of the config, and no test image.
"""

from __future__ import annotations

import math
from typing import Any

from fgvc.metrics import UNREADABLE
from fgvc.record.comparability import APART, UNRANKED, was_forced
from fgvc.record.fitted_images import short_digests
from fgvc.record.verify import DamageError
from fgvc.report.audit.check import TOLERANCE, agree, join_names
from fgvc.report.audit.record import CONFIG, STAMP, Record
from fgvc.report.flatten import conflicting_keys, flatten

UNTRACKED = "untracked.json"
# keys that task=eval may change in the config of a checkpoint
EVAL_KEYS = ("dataset.partial", "dataset.accept_altered", "backbone.norm_eps")
SOURCES = ("repo", "revision")  # the config may give others than the table of the family
FROM_DATA = "from the data:"  # starts a card text that the data reader replaces
LOOSE_GAP = 1e-5  # widest relative gap of the lowest and of the chosen C, as in the fit
TIE = 1e-4  # nats: losses on the path of C within this distance count as equal, as in the fit


def checkpoint_config(record: Record) -> str:
    """Does ckpt.bin state the config, the head and the preprocessing of the record?"""
    config = record.facts["config"]
    skipped = EVAL_KEYS if record.stamp["task"] == "eval" else ()
    if keys := conflicting_keys(config, record.shown_config, skipped):
        raise DamageError(f"ckpt.bin: {join_names(keys)} differ from {CONFIG}")
    head, shown = flatten(record.facts["head"]), flatten(record.shown_config["head"])
    agree("head", (CONFIG, {key: shown.get(key) for key in head}), ("ckpt.bin", head))
    row = record.config["backbone"]["checkpoint"]
    agree("model", ("the config", row["model"]), ("ckpt.bin", record.facts["backbone"]["model"]))
    transform = record.facts["preprocess"]
    agree("preprocess", ("ckpt.bin", transform), (STAMP, record.stamp["preprocess"]))
    agree("format", ("fgvc", 1), ("ckpt.bin", record.facts["format"]))
    hashed = {key: row[key] for key in row if key not in SOURCES}
    shown = record.shown_config["backbone"]
    table, name = shown["checkpoints"], shown["checkpoint"]
    rows = list(table.values()) if name is None else [table[name]]
    if not any(all(row.get(key) == value for key, value in hashed.items()) for row in rows):
        raise DamageError(f"config.canonical.json: its checkpoint is not a row of {CONFIG}")
    return f"{len(flatten(config))} keys as in {CONFIG}"


def stamp_follows(record: Record) -> str:
    """Does env_stamp.json agree with the config and with itself?"""
    stamp, runtime = record.stamp, record.shown_config["runtime"]
    stated = {
        "run_id": runtime["run_id"],
        "eval_batch_size": runtime["eval_batch_size"],
        "device_requested": runtime["device"],
        "matmul_precision": record.shown_config["matmul_precision"],
    }
    if isinstance(runtime["num_workers"], int):
        stated["num_workers"] = runtime["num_workers"]
    if runtime["threads"] is not None:
        stated["threads"] = runtime["threads"]
    for key, value in stated.items():
        agree(key, (CONFIG, value), (STAMP, stamp[key]))
    if stamp["git_error"] is None and stamp["git_commit"] is not None:
        listing = record.json(UNTRACKED) if UNTRACKED in record.artifacts else {}
        untracked = bool(listing and (listing["files"] or listing["more"]))
        has_changes = stamp["code_patch_sha256"] is not None or untracked
        sources = f"code.patch and {UNTRACKED}"
        agree("git_dirty", (sources, has_changes), (STAMP, stamp["git_dirty"]))
    tiny = record.config["dataset"]["subset"] is not None
    for part, split in (("train", "train"), ("infer", "test")):
        key = f"tiny_{part}_subset_path"
        agree(key, ("the config", f"splits/{split}.txt" if tiny else None), (STAMP, stamp[key]))
    patch = record.config["backbone"]["checkpoint"]["patch"]
    stride = record.config["part_attention"].get("stride") or patch
    side = (record.config["resolution"]["side"] - patch) // stride + 1
    agree("token_grid", ("the config", [side, side]), (STAMP, stamp["token_grid"]))
    if stamp["device"] != "cuda":
        for key in ("gpu_name", "cuda_version", "cudnn_version"):
            agree(key, (f"device {stamp['device']}", None), (STAMP, stamp[key]))
    _check_weights(record)
    for key, value in record.numbers["cost"].items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (is_number and math.isfinite(value) and value >= 0):
            raise DamageError(f"metrics.json: cost {key} is {value}, not a number of at least 0")
    return "config, device, weights, token grid and cost agree"


def _check_weights(record: Record) -> None:
    weights, config = record.stamp["weights"], record.config["backbone"]
    random = weights["kind"] == "random"
    if weights["kind"] != "checkpoint":  # an evaluation of a finetune: weights of ckpt.bin
        agree("random weights", ("the config", not config["pretrained"]), (STAMP, random))
    for key, stamp_key in (("sha256", "weights_digest"), ("revision", "weights_revision")):
        agree(f"weights {key}", (STAMP, weights[key]), (stamp_key, record.stamp[stamp_key]))
    for entry in record.numbers["test_read_log"]:
        read = ("metrics.json test_read_log", entry["weights_revision"])
        agree("weights_revision", (STAMP, weights["revision"]), read)
    if random:
        model = config["checkpoint"]["model"]
        agree("name of the weights", ("the config", model), (STAMP, weights["name"]))


def card_follows(record: Record) -> str:
    """Are source, licence, approval and the other texts of the card those of the config?"""
    card = {key: str(value) for key, value in record.shown_config["dataset"]["card"].items()}
    stamped = dict(record.stamp["dataset_card"])
    if card.get("split", "").startswith(FROM_DATA):
        del card["split"]
        stamped.pop("split", None)
    for key in sorted(card.keys() | stamped.keys()):
        agree(f"dataset.card.{key}", (CONFIG, card.get(key)), (STAMP, stamped.get(key)))
    return f"{len(stamped)} texts as in {CONFIG}"


def selection_follows(record: Record) -> str:
    """Is the chosen C the best one on the recorded path of C?"""
    selection, task = record.numbers["selection"], record.config["task"]
    if selection is None or "path" not in selection:
        return "no path of C"
    path, whole = selection["path"], selection.get("whole", "path")
    count, low = task["c_count"], math.log10(task["c_low"])
    high = math.log10(task.get("c_high", task["c_low"]))  # not hashed where there is one value
    grid = [10 ** (low + (high - low) * i / max(count - 1, 1)) for i in range(count)]
    index = _positions([row["c"] for row in path], grid)
    if whole is not None:
        agree("values of C", ("the config", count), ("metrics.json selection", len(path)))
    searches = task.get("c_search", "path") == "bracket"
    if whole not in ((None, "two minima") if searches else ("path", "few values")):
        problem = "task.c_search does not end like this"
        raise DamageError(f"metrics.json selection: whole is {whole}: {problem}")
    # lowest and chosen are solved as far as a search does at least; others are only ruled out
    rows = dict(zip(index, path, strict=True))
    lowest = min(rows, key=lambda i: rows[i]["val_loss"])
    highest = rows[lowest]["val_loss"] + TIE
    chosen = min(i for i, row in rows.items() if row["val_loss"] <= highest)
    decide = {chosen} if rows[chosen]["val_loss"] <= TIE else {lowest, chosen}
    loose = {i for i, row in rows.items() if row.get("loose", False)}
    if loose if whole else any(_is_far(rows[i]) for i in loose & decide):
        raise DamageError("metrics.json selection: a value of C that decides was solved loosely")
    best = rows[chosen]["c"]
    # the search solves the neighbours of the chosen C, and both ends
    needed = {i for i in (0, chosen - 1, count - 1) if i >= 0}
    if missing := needed - set(index):
        problem = f"path lacks C = {grid[min(missing)]:.3g}, without which C cannot be chosen"
        raise DamageError(f"metrics.json selection: {problem}")
    agree("C of c", ("the path", best), ("metrics.json selection", selection["c"]))
    units = sum(row["units"] for row in path)
    if not math.isclose(selection.get("units", units), units, rel_tol=TOLERANCE):
        raise DamageError("metrics.json selection: units is not the sum of those of the path")
    for key in ("chosen", "final"):
        c = selection[key]["c"]
        agree(f"C of {key}", ("the path", best), ("metrics.json selection", c))
    end = None if count == 1 else {0: "first", count - 1: "last"}.get(chosen)
    agree("end", ("the path", end), ("metrics.json selection", selection["end"]))
    for place, row in [*enumerate(path), *((key, selection[key]) for key in ("chosen", "final"))]:
        targets = [task["gap"]] if place in range(len(path)) else [task["gap"], task["final_gap"]]
        if not _is_solved(row, math.inf if row.get("loose", False) else max(targets)):
            problem = "gap, iterations, units and converged contradict each other or the config"
            raise DamageError(f"metrics.json selection: {place}: {problem}")
    if not all(0 <= row["val_top1"] <= 1 and row["val_loss"] >= 0 for row in path):
        raise DamageError("metrics.json selection: val_top1 or val_loss is out of range")
    shares = [row["val_top1"] * record.numbers["val"]["n"] for row in path]
    if any(abs(share - round(share)) > 1e-6 for share in shares):
        problem = "val_top1 is not a fraction of the validation images"
        raise DamageError(f"metrics.json selection: {problem}")
    return f"C = {best:g} of {count} values, {len(path)} of which were solved"


def _is_far(row: dict[str, Any]) -> bool:
    """Whether a solve should have continued: max_iterations did not end it."""
    return row["converged"] and row["gap"] is not None and row["gap"] > LOOSE_GAP


def _is_solved(row: dict[str, Any], target: float) -> bool:
    """Whether the facts on one solution agree: it converged where its gap is at most the target.

    target: the widest gap at which the solve may end.
    """
    gap, iterations, units, loose = row["gap"], row["iterations"], row["units"], row.get("loose")
    if type(iterations) is not int or type(row["converged"]) is not bool:
        return False
    if type(loose) not in (bool, type(None)) or not (iterations >= 0 and 0 <= units < math.inf):
        return False
    if gap is None:
        return not row["converged"]
    return 0 <= gap < math.inf and (gap <= target or not row["converged"])


def _positions(c_values: list[float], grid: list[float]) -> list[int]:
    """Where the recorded values of C are among those of the config, ascending."""
    near = [min(range(len(grid)), key=lambda i: abs(grid[i] - c)) for c in c_values]
    matches = all(
        math.isclose(c, grid[i], rel_tol=TOLERANCE) for c, i in zip(c_values, near, strict=True)
    )
    if not matches or near != sorted(set(near)):
        problem = "path does not follow from task.c_low and task.c_high"
        raise DamageError(f"metrics.json selection: {problem}")
    return near


def notes(record: Record) -> str:
    """Does the record contain the notes on the fit that the checkpoint keeps?

    The note on unreadable images is excluded: its text in the record also counts test images.
    """
    start = "of the fit: " if record.stamp["task"] == "eval" else ""
    expected = [
        note for note in record.facts["fit"]["notes"] if start or "cannot be read (" not in note
    ]
    for note in expected:
        if f"{start}{note}" not in record.numbers["notes"]:
            raise DamageError(f"metrics.json: notes lack a note of ckpt.bin: {note}")
    return f"{len(record.numbers['notes'])}, with {len(expected)} of ckpt.bin"


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
    fitted_images, count = record.fitted_images, record.numbers["fitted_on"]
    agree(
        "images of the fit",
        ("the digests in ckpt.bin", len(fitted_images.image_N)),
        ("ckpt.bin", record.facts["fit"]["images"]),
        ("metrics.json", count),
    )
    agree(
        "validation images that chose the head",
        ("the digests in ckpt.bin", len(fitted_images.validation_N)),
        ("ckpt.bin", record.facts["fit"]["validation"]),
    )
    backbone = record.facts["fit"].get("backbone", 0)
    counted = [("the digests in ckpt.bin", len(fitted_images.backbone_N)), ("ckpt.bin", backbone)]
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
        ("ckpt.bin", len(record.fitted_images.validation_N)),
    )
    if selects or on_trainval:
        count = record.fitted_images.overlap(short_digests(readable))
        counted_images = ("validation images in ckpt.bin", count)
        agree("images of fit and choice", ("validation images", len(readable)), counted_images)


def no_test_image_fitted(record: Record) -> str:
    """Is no test image, byte for byte, among the images that fitted or chose head or backbone?"""
    rows, fitted_images = record.predictions["test"], record.fitted_images
    count = fitted_images.overlap(short_digests(rows.sha256))
    recorded = record.numbers["overlap"]["images"]
    agree("overlap", ("predictions.parquet and ckpt.bin", count), ("metrics.json", recorded))
    backbone = ""
    if earlier := len(fitted_images.backbone_N):
        backbone = f", or the {earlier} that fitted or chose the backbone in earlier runs"
    images, fitted = len(rows.path), len(fitted_images.image_N)
    chosen = len(fitted_images.validation_N)
    if count:
        raise DamageError(
            f"ckpt.bin: {count} of {images} test images are among the {fitted} that the head was "
            f"fitted on and the {chosen} that chose it{backbone}; the run is {UNRANKED}"
        )
    return (
        f"none of {images} test images is among the {fitted} of the fit and the {chosen} of "
        f"validation that chose it{backbone}"
    )
