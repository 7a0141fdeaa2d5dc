"""Facts that a record states twice, or that follow from its config -> whether they agree."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fgvc.record.verify import DamageError
from fgvc.report.audit.check import agree, join_names
from fgvc.report.audit.record import Record
from fgvc.report.flatten import flatten

CONFIG, STAMP, UNTRACKED = "config.yaml", "env_stamp.json", "untracked.json"
# what task=eval decides anew, under the config of a checkpoint
OF_EVAL = ("dataset.partial", "dataset.accept_altered", "backbone.norm_eps")
FROM_DATA = "from the data:"  # begins the text of a card that reading the data replaces
TIE = 1e-4  # nats: losses on the path of C that count as equal, as the fit chooses
RELATIVE = 1e-9


def checkpoint_config(record: Record) -> str:
    """Does ckpt.bin state the config, the head and the preprocessing of the record?"""
    inside, shown = flatten(record.facts["config"]), flatten(record.shown_config)
    skipped = OF_EVAL if record.stamp["task"] == "eval" else ()
    differ = [
        key
        for key, value in inside.items()
        if not key.startswith(skipped) and shown.get(key, value) != value
    ]
    if differ:
        raise DamageError(f"ckpt.bin: another {join_names(differ)} than {CONFIG}")
    head = flatten(record.facts["head"])
    agree("head", (CONFIG, {key: shown.get(f"head.{key}") for key in head}), ("ckpt.bin", head))
    row = record.config["backbone"]["checkpoint"]
    agree("model", ("the config", row["model"]), ("ckpt.bin", record.facts["backbone"]["model"]))
    transform = record.facts["preprocess"]
    agree("preprocess", ("ckpt.bin", transform), (STAMP, record.stamp["preprocess"]))
    agree("format", ("fgvc", 1), ("ckpt.bin", record.facts["format"]))
    _check_row(record)
    return f"{len(inside)} keys as in {CONFIG}"


def _check_row(record: Record) -> None:
    """DamageError unless the hashed row of the backbone is one of config.yaml's table."""
    shown = record.shown_config["backbone"]
    rows = [row for row in (shown["checkpoint"], *shown["checkpoints"].values()) if row]
    sources = ("repo", "revision")  # the config may give another revision
    chosen = {k: v for k, v in record.config["backbone"]["checkpoint"].items() if k not in sources}
    if not any(all(row.get(key) == value for key, value in chosen.items()) for row in rows):
        raise DamageError(f"config.canonical.json: a checkpoint that is no row of {CONFIG}")


def stamp_follows(record: Record) -> str:
    """Does env_stamp.json state what the config decides, and nothing that contradicts itself?"""
    stamp, runtime = record.stamp, record.shown_config["runtime"]
    for key, value in {
        "run_id": runtime["run_id"],
        "eval_batch_size": runtime["eval_batch_size"],
        "device_requested": runtime["device"],
        "matmul_precision": record.shown_config["matmul_precision"],
    }.items():
        agree(key, (CONFIG, value), (STAMP, stamp[key]))
    if isinstance(workers := runtime["num_workers"], int):
        agree("num_workers", (CONFIG, workers), (STAMP, stamp["num_workers"]))
    if runtime["threads"] is not None:
        agree("threads", (CONFIG, runtime["threads"]), (STAMP, stamp["threads"]))
    if stamp["git_error"] is None and stamp["git_commit"] is not None:
        beyond = stamp["code_patch_sha256"] is not None or _has_untracked(record)
        sources = f"code.patch and {UNTRACKED}"
        agree("git_dirty", (sources, beyond), (STAMP, stamp["git_dirty"]))
    tiny = record.config["dataset"]["subset"] is not None
    for part, split in (("train", "train"), ("infer", "test")):
        key = f"tiny_{part}_subset_path"
        agree(key, ("the config", f"splits/{split}.txt" if tiny else None), (STAMP, stamp[key]))
    agree("token_grid", ("the config", [_grid(record.config)] * 2), (STAMP, stamp["token_grid"]))
    if stamp["device"] != "cuda":
        for key in ("gpu_name", "cuda_version", "cudnn_version"):
            agree(key, (f"device {stamp['device']}", None), (STAMP, stamp[key]))
    _check_weights(record)
    _check_cost(record)
    return "config, device, weights, token grid and cost agree"


def _has_untracked(record: Record) -> bool:
    """Whether the checkout held files that are neither tracked nor in the patch."""
    if UNTRACKED not in record.artifacts:
        return False
    listing = record.json(UNTRACKED)
    return bool(listing["files"] or listing["more"])


def _grid(config: Mapping[str, Any]) -> int:
    """Tokens along a side, as the backbone cuts the picture."""
    patch = config["backbone"]["checkpoint"]["patch"]
    stride = config["part_attention"].get("stride") or patch
    return (config["resolution"]["side"] - patch) // stride + 1


def _check_weights(record: Record) -> None:
    weights, config = record.stamp["weights"], record.config["backbone"]
    random = weights["kind"] == "random"
    if weights["kind"] != "checkpoint":  # an evaluation of a finetune reads them from there
        agree("random weights", ("the config", not config["pretrained"]), (STAMP, random))
    for key, also in (("sha256", "weights_digest"), ("revision", "weights_revision")):
        agree(f"weights {key}", (STAMP, weights[key]), (also, record.stamp[also]))
    for entry in record.numbers["test_read_log"]:
        agree(
            "weights_revision",
            (STAMP, weights["revision"]),
            ("metrics.json test_read_log", entry["weights_revision"]),
        )
    if random:
        model = config["checkpoint"]["model"]
        agree("name of the weights", ("the config", model), (STAMP, weights["name"]))


def _check_cost(record: Record) -> None:
    """DamageError where a cost is no number that can be measured."""
    for key, value in record.numbers["cost"].items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (number and math.isfinite(value) and value >= 0):
            raise DamageError(f"metrics.json: cost {key} is {value}, no number of at least 0")


def card_follows(record: Record) -> str:
    """Are source, licence, approval and the other texts on the images those of the config?"""
    card = {key: str(value) for key, value in record.shown_config["dataset"]["card"].items()}
    stamped = dict(record.stamp["dataset_card"])
    if card.get("split", "").startswith(FROM_DATA):
        del card["split"]
        stamped.pop("split", None)
    for key in sorted(card.keys() | stamped.keys()):
        agree(f"dataset.card.{key}", (CONFIG, card.get(key)), (STAMP, stamped.get(key)))
    return f"{len(stamped)} texts as in {CONFIG}"


def selection_follows(record: Record) -> str:
    """Is the penalty the one that the recorded path of C chooses?"""
    selection, task = record.numbers["selection"], record.config["task"]
    if selection is None or "path" not in selection:
        return "no path of C"
    path = selection["path"]
    cs, losses = [row["c"] for row in path], [row["val_loss"] for row in path]
    _check_path(cs, task)
    lowest = min(losses)
    best = next(c for c, loss in zip(cs, losses, strict=True) if loss <= lowest + TIE)
    for key, value in {
        "c": selection["c"],
        "chosen": selection["chosen"]["c"],
        "final": selection["final"]["c"],
    }.items():
        agree(f"C of {key}", ("the path", best), ("metrics.json selection", value))
    end = None if len(cs) == 1 else {cs[0]: "first", cs[-1]: "last"}.get(best)
    agree("end", ("the path", end), ("metrics.json selection", selection["end"]))
    shares = [row["val_top1"] * record.numbers["val"]["n"] for row in path]
    if any(abs(share - round(share)) > 1e-6 for share in shares):
        raise DamageError("metrics.json selection: val_top1 is no share of the validation images")
    return f"C = {best:g} of {len(cs)} values"


def _check_path(cs: Sequence[float], task: Mapping[str, Any]) -> None:
    count = task["c_count"]
    low, high = math.log10(task["c_low"]), math.log10(task["c_high"])
    agree("values of C", ("the config", count), ("metrics.json selection", len(cs)))
    expected = [10 ** (low + (high - low) * i / max(count - 1, 1)) for i in range(count)]
    if not all(math.isclose(*pair, rel_tol=RELATIVE) for pair in zip(cs, expected, strict=True)):
        raise DamageError("metrics.json selection: path is not that of task.c_low and task.c_high")
