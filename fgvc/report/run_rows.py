"""Complete run folders -> one typed row each; damaged folders -> one line each with the reason.

`predictions` reads predictions.parquet, for the runs that are compared.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgvc.record import comparability, not_ranked, retention, verify
from fgvc.record.badges import Badge, stamp_badges
from fgvc.record.comparability import Comparability
from fgvc.record.not_ranked import Reason
from fgvc.record.retention import RetentionError
from fgvc.record.run_dir import SHORT
from fgvc.record.verify import DamageError, OtherVersionError
from fgvc.report import typed_fields
from fgvc.report.run_names import run_name
from fgvc.store import hashing
from fgvc.untrusted.escape import one_line, visible

NO_COLUMN = ("path", "comparability", "reasons", "badges")
SEALED = re.compile(rf"[0-9a-f]{{{SHORT}}}")


@dataclass(frozen=True)
class DamagedRun:
    """A folder that no table contains. folder: run_id/config_hash/checkpoint_id. other_version: the
    files are intact, but another version of fgvc wrote them."""

    folder: str
    why: str
    other_version: bool = False


@dataclass(frozen=True)
class Run:
    """One complete run; each field that is not in NO_COLUMN is a column of baselines.csv.

    Accuracies and their bounds are fractions in 0..1, losses are in nats; None: not recorded.

    question: digest of the config without its seed. answer: digest of task, code, data and weights.
    rest: digest of the config without seed and part attention; part_rest: of the settings of part
    attention that have no column. fit_checkpoint: sha256 of the checkpoint that the fit wrote, also
    if this one was exported from it. join_key: digest that a finetune shares with its linear probe;
    join_base: the same without the seed of random weights. comparability_base: the key without how
    the head was fitted. reasons: why the run is not ranked. badges: what qualifies its numbers.
    head_size: numbers stored for the head (for kNN, its feature bank). fitted_on: number of images
    that fitted the head. overlap: number of test images that fitted or chose the head.
    forced: resumed by force. debug: task.debug. predictions_digest: of the predicted class of each
    test image. subset: dataset.subset; None: the whole dataset. test_source: as in types.Dataset.
    part_tokens: patches that part attention keeps; None: one per head, or no part attention.
    part_stride: pixels between its patches; None: the patch size, or no part attention. in_box:
    fraction of the kept patches inside the object's box. notes: remarks on the numbers, one line
    each.
    """

    path: Path
    comparability: Comparability
    reasons: tuple[Reason, ...]
    badges: tuple[Badge, ...]
    name: str
    task: str
    dataset: str
    backbone: str
    size: str
    model: str
    features: str
    head: str
    head_size: int
    part_attention: str
    part_tokens: int | None
    part_stride: int | None
    last_block: str | None
    in_box: float | None
    resolution: int
    token_grid: str
    normalization: str
    preprocess: str
    final_fit: str
    fitted_on: int | None
    fitted_manifest: str | None
    fitted_split: str | None
    forced: bool
    debug: str | None
    overlap: int | None
    precision: str
    partial: bool
    subset: str | None
    test_source: str
    n: int
    top1: float
    top1_low: float
    top1_high: float
    top5: float
    mean_per_class: float
    macro_f1: float
    loss: float | None
    ece: float | None
    val_top1: float | None
    val_loss: float | None
    parameters: int | None
    macs: int | None
    images_per_s: float | None
    peak_memory_mib: float | None
    device: str
    gpu_name: str | None
    weights_kind: str
    weights_digest: str | None
    weights_revision: str | None
    backbone_license: str
    backbone_contamination: str
    dataset_license: str
    dataset_contamination: str
    dataset_label_noise: str
    dataset_approval: str
    manifest_digest: str
    split_digest: str
    labelmap_digest: str
    metric_version: str
    comparability_key: str
    comparability_base: str
    predictions_digest: str | None
    join_key: str
    join_base: str
    notes: tuple[str, ...]
    question: str
    rest: str
    part_rest: str
    answer: str
    git_commit: str | None
    git_dirty: bool | None
    code_patch_sha256: str | None
    stack_check: str | None
    seed: int
    config_hash: str
    checkpoint_sha256: str
    fit_checkpoint: str
    run_id: str
    folder: str
    started: str
    finished: str


def scan_runs(folders: Iterable[Path]) -> tuple[list[Run], list[DamagedRun]]:
    """Read the complete runs among `folders`, sorted by path; other folders are skipped.

    Args:
        folders: candidates, as listed by `output_root.glob("*/*/*")`.
    """
    runs, damaged = [], []
    for path in sorted(folders):
        if not (SEALED.fullmatch(path.name) and SEALED.fullmatch(path.parent.name)):
            continue
        try:
            runs.append(read_run(path))
        except DamageError as error:
            other_version = isinstance(error, OtherVersionError)
            damaged.append(DamagedRun(run_path(path), str(error), other_version))
    return runs, damaged


def run_path(path: Path) -> str:
    """run_id/config_hash/checkpoint_id, which does not depend on the output root."""
    return "/".join(path.parts[-3:])


def read_run(path: Path) -> Run:
    """Read one complete run.

    Raises:
        DamageError: the folder cannot be trusted.
    """
    artifacts = verify.read_index(path)
    config, stamp, numbers = (
        verify.parse_object(file, verify.read_verified(path, file, artifacts))
        for file in ("config.canonical.json", "env_stamp.json", "metrics.json")
    )
    facts, head_size = verify.read_checkpoint_facts(path, artifacts)
    verify.check_names(path, artifacts, stamp, facts)
    try:
        parts = comparability.of_record(config, stamp, numbers, facts)
        reasons = tuple(not_ranked.reasons(numbers, parts))
        for checked in (parts, *reasons):
            typed_fields.check_types(checked)
        backbone_columns = _backbone_columns(
            facts["config"]["backbone"], config["backbone"]["checkpoint"]
        )
        run = Run(
            path=path,
            comparability=parts,
            reasons=reasons,
            badges=tuple(stamp_badges(stamp, backbone_columns["backbone_contamination"])),
            folder=run_path(path),
            head_size=head_size,
            checkpoint_sha256=artifacts[verify.CKPT]["sha256"],
            fit_checkpoint=facts.get("exported_from") or artifacts[verify.CKPT]["sha256"],
            **_config_columns(config, stamp, parts),
            **_stamp_columns(stamp),
            answer=_answer_digest(stamp, facts["answer"]),
            **_metric_columns(numbers),
            notes=(*_checked_notes(numbers.get("notes", [])), *_retention_notes(path)),
            **backbone_columns,
            **_part_columns(config, stamp, numbers.get("parts", {})),
            join_key=_join_key(parts, config, stamp, config["seed"]),
            join_base=_join_key(parts, config, stamp, None),
        )
        typed_fields.check_types(run)
        return run
    except KeyError as error:
        raise OtherVersionError(
            f"a record of another version of fgvc (it lacks {error}), skipped; to compare it, "
            "repeat the run"
        ) from error
    except (TypeError, AttributeError, ValueError, IndexError, ArithmeticError) as error:
        raise DamageError(f"not a record that this version reads: {error}") from error


def _config_columns(
    config: Mapping[str, Any], stamp: Mapping[str, Any], parts: Comparability
) -> dict[str, Any]:
    seedless = {key: value for key, value in config.items() if key != "seed"}
    backbone = config["backbone"]
    return {
        "name": run_name(
            config,
            stamp["task"],
            stamp["resolution"],
            parts.forced,
            stamp["weights"].get("made_by"),
        ),
        "backbone": backbone["name"],
        "size": backbone["checkpoint"]["size"],
        "model": backbone["checkpoint"]["model"],
        "features": backbone["features"],
        "head": config["head"]["name"],
        "preprocess": config["preprocess"],
        "final_fit": config["final_fit"],
        "subset": config["dataset"]["subset"],
        "precision": config["precision"],
        "seed": config["seed"],
        "question": hashing.sha256_bytes(hashing.canonical_json(seedless)),
        "fitted_manifest": parts.fitted_manifest,
        "fitted_split": parts.fitted_split,
        "forced": parts.forced,
        "debug": parts.debug,
        "comparability_key": parts.key,
        "comparability_base": parts.base,
    }


def _stamp_columns(stamp: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("run_id", "config_hash", "task", "dataset", "partial", "resolution", "normalization")
    keys += ("device", "gpu_name", "weights_digest", "git_commit", "git_dirty", "code_patch_sha256")
    keys += ("manifest_digest", "split_digest", "labelmap_digest", "started", "finished")
    card, weights = stamp["dataset_card"], stamp["weights"]
    card_keys = ("license", "contamination", "label_noise", "approval")
    return {
        **{key: stamp[key] for key in (*keys, "test_source")},
        **{f"dataset_{key}": card.get(key, "not recorded") for key in card_keys},
        "token_grid": "x".join(str(side) for side in stamp["token_grid"]),
        "weights_kind": weights["kind"],
        "weights_revision": weights["revision"],
        "stack_check": stamp.get("stack_check"),
    }


def _answer_digest(stamp: Mapping[str, Any], fit: Mapping[str, Any]) -> str:
    """Digest of task, code, data and weights of the run, and of the code and weights of the fit,
    which differ for an evaluation."""
    code = ("git_commit", "code_patch_sha256", "weights_digest")
    identity = {key: stamp[key] for key in ("task", "manifest_digest", *code)}
    identity["fit"] = {key: fit[key] for key in code}
    return hashing.sha256_bytes(hashing.canonical_json(identity))


def _metric_columns(numbers: Mapping[str, Any]) -> dict[str, Any]:
    test, val, cost = numbers["test"], numbers.get("val") or {}, numbers["cost"]
    low, high = test["top1_ci95"]
    keys = ("n", "top1", "top5", "mean_per_class", "macro_f1")
    required = {**{key: test[key] for key in keys}, "top1_low": low, "top1_high": high}
    optional = {key: test[key] for key in ("loss", "ece")}
    optional |= {f"val_{key}": val.get(key) for key in ("top1", "loss")}
    costs = ("parameters", "macs", "images_per_s", "peak_memory_mib")
    optional |= {key: cost.get(key) for key in costs}
    for key, value in {**required, **{k: v for k, v in optional.items() if v is not None}}.items():
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{key}={value!r} is not a number")
    return {
        **required,
        **optional,
        "metric_version": numbers["metric_version"],
        "fitted_on": numbers.get("fitted_on"),
        "overlap": (numbers.get("overlap") or {}).get("images"),
        "predictions_digest": numbers.get("predictions_digest"),
    }


def _checked_notes(notes: object) -> tuple[str, ...]:
    """The notes of a record, with control characters made visible.

    Raises:
        ValueError: notes is not a list of strings.
    """
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise ValueError(f"notes={notes!r}: not a list of strings")
    return tuple(map(visible, notes))


def _retention_notes(path: Path) -> tuple[str, ...]:
    """A note that task=prune never removes the run, if its retention.json is not its own."""
    try:
        retention.read_for(path / retention.FILE, run_path(path.resolve()))
    except RetentionError as error:
        return (f"{one_line(error)}; task=prune keeps the run, task=audit lists what differs",)
    return ()


def _part_columns(
    config: Mapping[str, Any], stamp: Mapping[str, Any], parts: Mapping[str, Any]
) -> dict[str, Any]:
    """Columns on part attention; parts: "parts" of metrics.json, which may be empty."""
    part_attention = dict(config["part_attention"])
    other_config = {
        key: value for key, value in config.items() if key not in ("seed", "part_attention")
    }
    name, last_block = part_attention.pop("name"), part_attention.pop("last_block", None)
    tokens = part_attention.pop("tokens", None)
    rest = [other_config, stamp["task"], stamp["weights_digest"]]
    return {
        "part_attention": name,
        "part_tokens": parts.get("tokens", tokens),
        "part_stride": part_attention.get("stride"),
        "last_block": last_block,
        "in_box": parts[name]["in_box"]["value"] if name in parts else None,
        "rest": hashing.sha256_bytes(hashing.canonical_json(rest)),
        "part_rest": hashing.sha256_bytes(hashing.canonical_json(part_attention)),
    }


def _backbone_columns(family: Mapping[str, Any], checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Licence and contamination of the weights, which the hashed config does not contain."""
    hashed = {key: value for key, value in checkpoint.items() if key not in ("repo", "revision")}
    licenses = [
        row["license"]
        for row in family["checkpoints"].values()
        if all(row.get(key) == value for key, value in hashed.items())
    ]
    return {
        "backbone_license": licenses[0] if licenses else "not recorded",
        "backbone_contamination": " ".join(family["contamination"].split()),
    }


def _architecture(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """The hashed config of a backbone without the source of its weights."""
    sources = ("repo", "revision", "weights_sha256")
    checkpoint = {key: value for key, value in backbone["checkpoint"].items() if key not in sources}
    rest = {key: value for key, value in backbone.items() if key not in sources}
    return {**rest, "checkpoint": checkpoint}


def _join_key(
    parts: Comparability, config: Mapping[str, Any], stamp: Mapping[str, Any], seed: int | None
) -> str:
    """Digest that a finetune shares with its probe; for random weights it contains `seed`."""
    weights = stamp["weights_digest"]
    shared = {
        "comparability": parts.key,
        "backbone": _architecture(config["backbone"]),
        "weights": {"seed": seed} if weights is None else weights,
        "precision": config["precision"],
        "resolution": stamp["resolution"],
    }
    return hashing.sha256_bytes(hashing.canonical_json(shared))
