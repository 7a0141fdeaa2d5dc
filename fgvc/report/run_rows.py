"""Complete run folders -> one typed row each; a folder that cannot be trusted -> a line saying why.

predictions.parquet is left to `answers`, for the runs that are compared.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgvc.record import comparability, retention, verify
from fgvc.record.comparability import Comparability
from fgvc.record.retention import UnreadableError
from fgvc.record.run_dir import SHORT
from fgvc.record.verify import DamageError, OtherVersionError
from fgvc.report import typed_fields
from fgvc.report.run_names import run_name
from fgvc.store import hashing
from fgvc.untrusted.escape import one_line, visible

SEALED = re.compile(rf"[0-9a-f]{{{SHORT}}}")


@dataclass(frozen=True)
class DamagedRun:
    """A folder that is in no table. folder: run_id/config_hash/checkpoint_id. other_version: its
    files are whole, but another version of fgvc wrote them."""

    folder: str
    why: str
    other_version: bool = False


@dataclass(frozen=True)
class Run:
    """One complete run; each field is a column of baselines.csv, bar `path` and `comparability`.

    Accuracies and their bounds are fractions in 0..1, losses nats; None: not measured, or not told.
    question: digest of the config without its seed. answer: digest of task, code, data and weights.
    fit_checkpoint: sha256 of the checkpoint of the fit, from which this one may be exported.
    join_key: what a finetune shares with the probe it is held against. join_base: the same without
    the seed of random weights. head_size: numbers stored for the head (for kNN its bank).
    comparability_base: the key without how the head was fitted.
    fitted_on: images behind the head. forced: resumed by force. debug: task.debug. overlap: test
    images that fitted or chose the head, None: not recorded. predictions_digest: of the predicted
    class of each test image, None: not recorded.
    subset: dataset.subset, None: the whole dataset. test_source: as in types.Dataset.
    part_tokens: the patches that part attention keeps; None: one per head, or no part attention.
    part_stride: pixels between its patches; None: the patch, or no part attention.
    in_box: the share of them inside the object's box. notes: what a reader of the numbers must
    know, one line each. rest: digest of all that is neither seed nor part attention; part_rest: of
    part attention, all but what has a column.
    """

    path: Path
    comparability: Comparability
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
    """The sealed folders among `folders` (others are passed over), in the order of their names.

    Args:
        folders: candidates, as `output_root.glob("*/*/*")` lists them.
    """
    runs, damaged = [], []
    for path in sorted(folders):
        if not (SEALED.fullmatch(path.name) and SEALED.fullmatch(path.parent.name)):
            continue
        try:
            runs.append(read_run(path))
        except DamageError as why:
            other_version = isinstance(why, OtherVersionError)
            damaged.append(DamagedRun(run_path(path), str(why), other_version))
    return runs, damaged


def run_path(path: Path) -> str:
    """run_id/config_hash/checkpoint_id: the same wherever the outputs lie."""
    return "/".join(path.parts[-3:])


def fit_marks(run: Run) -> str:
    """Additions to `final_fit` in a title: other data, forced resume, debugging; may be empty."""
    parts = run.comparability
    marks = (
        (parts.fitted_elsewhere, f" of other data ({_fitted_data(parts)[:8]})"),
        (parts.forced, " · forced resume"),
        (parts.debug is not None, " · debug"),
    )
    return "".join(mark for applies, mark in marks if applies)


def _fitted_data(parts: Comparability) -> str:
    """Digest of the data of the fit: its manifest or, where that is the same, its split."""
    same = parts.fitted_manifest == parts.manifest
    return str(parts.fitted_split if same else parts.fitted_manifest)


def read_run(path: Path) -> Run:
    """One sealed folder; every file is read whole, so that what is wrong is found in one place.

    Raises:
        DamageError: why it cannot be trusted.
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
        typed_fields.check_types(parts)
        run = Run(
            path=path,
            comparability=parts,
            folder=run_path(path),
            head_size=head_size,
            checkpoint_sha256=artifacts[verify.CKPT]["sha256"],
            fit_checkpoint=facts.get("exported_from") or artifacts[verify.CKPT]["sha256"],
            **_of_config(config, stamp, parts),
            **_of_comparability(parts),
            **_of_stamp(stamp),
            answer=_answer(stamp, facts["answer"]),
            **_of_numbers(numbers),
            notes=(*_notes(numbers.get("notes", [])), *_retention_notes(path)),
            **_of_backbone(facts["config"]["backbone"], config["backbone"]["checkpoint"]),
            **_of_parts(config, stamp, numbers.get("parts", {})),
            join_key=_join_key(parts, config, stamp, config["seed"]),
            join_base=_join_key(parts, config, stamp, None),
        )
        typed_fields.check_types(run)
        return run
    except KeyError as error:
        raise OtherVersionError(
            f"a record of another version of fgvc (it lacks {error}), passed over; to compare it, "
            "repeat the run"
        ) from error
    except (TypeError, AttributeError, ValueError, IndexError, ArithmeticError) as error:
        raise DamageError(f"the record is not one that this version reads: {error}") from error


def _of_comparability(parts: Comparability) -> dict[str, Any]:
    return {
        "fitted_manifest": parts.fitted_manifest,
        "fitted_split": parts.fitted_split,
        "forced": parts.forced,
        "debug": parts.debug,
        "comparability_key": parts.key,
        "comparability_base": parts.base,
    }


def _of_config(
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
    }


def _of_stamp(stamp: Mapping[str, Any]) -> dict[str, Any]:
    told = ("run_id", "config_hash", "task", "dataset", "partial", "resolution", "normalization")
    told += ("device", "gpu_name", "weights_digest", "git_commit", "git_dirty", "code_patch_sha256")
    told += ("manifest_digest", "split_digest", "labelmap_digest", "started", "finished")
    card, weights = stamp["dataset_card"], stamp["weights"]
    about = ("license", "contamination", "label_noise", "approval")
    return {
        **{key: stamp[key] for key in (*told, "test_source")},
        **{f"dataset_{key}": card.get(key, "not recorded") for key in about},
        "token_grid": "x".join(str(side) for side in stamp["token_grid"]),
        "weights_kind": weights["kind"],
        "weights_revision": weights["revision"],
        "stack_check": stamp.get("stack_check"),
    }


def _answer(stamp: Mapping[str, Any], fit: Mapping[str, Any]) -> str:
    """Digest of task, code, data and weights, and of the code and weights that fitted the head:
    those of an evaluation are its own."""
    code = ("git_commit", "code_patch_sha256", "weights_digest")
    who = {key: stamp[key] for key in ("task", "manifest_digest", *code)}
    who["fit"] = {key: fit[key] for key in code}
    return hashing.sha256_bytes(hashing.canonical_json(who))


def _of_numbers(numbers: Mapping[str, Any]) -> dict[str, Any]:
    test, val, cost = numbers["test"], numbers.get("val") or {}, numbers["cost"]
    low, high = test["top1_ci95"]
    told = ("n", "top1", "top5", "mean_per_class", "macro_f1")
    must = {**{key: test[key] for key in told}, "top1_low": low, "top1_high": high}
    may = {key: test[key] for key in ("loss", "ece")}
    may |= {f"val_{key}": val.get(key) for key in ("top1", "loss")}
    costs = ("parameters", "macs", "images_per_s", "peak_memory_mib")
    may |= {key: cost.get(key) for key in costs}
    for key, value in {**must, **{k: v for k, v in may.items() if v is not None}}.items():
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{key}={value!r} is no number")
    return {
        **must,
        **may,
        "metric_version": numbers["metric_version"],
        "fitted_on": numbers.get("fitted_on"),
        "overlap": (numbers.get("overlap") or {}).get("images"),
        "predictions_digest": numbers.get("predictions_digest"),
    }


def _notes(notes: object) -> tuple[str, ...]:
    """The notes of a record; records of older versions have none.

    Raises:
        ValueError: notes is not a list of strings.
    """
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise ValueError(f"notes={notes!r}: not a list of strings")
    return tuple(map(visible, notes))


def _retention_notes(path: Path) -> tuple[str, ...]:
    """Why task=prune never removes the run, if its retention belongs to another run."""
    try:
        retention.read_for(path / retention.FILE, run_path(path.resolve()))
    except UnreadableError as why:
        return (f"{one_line(why)}; task=prune keeps the run, task=audit names what differs",)
    return ()


def _of_parts(
    config: Mapping[str, Any], stamp: Mapping[str, Any], found: Mapping[str, Any]
) -> dict[str, Any]:
    """found: "parts" of metrics.json, empty where nothing is known to hold a selection against."""
    chosen = dict(config["part_attention"])
    other = {key: value for key, value in config.items() if key not in ("seed", "part_attention")}
    name, last_block = chosen.pop("name"), chosen.pop("last_block", None)
    tokens = chosen.pop("tokens", None)
    rest = [other, stamp["task"], stamp["weights_digest"]]
    return {
        "part_attention": name,
        "part_tokens": found.get("tokens", tokens),
        "part_stride": chosen.get("stride"),
        "last_block": last_block,
        "in_box": found[name]["in_box"]["value"] if name in found else None,
        "rest": hashing.sha256_bytes(hashing.canonical_json(rest)),
        "part_rest": hashing.sha256_bytes(hashing.canonical_json(chosen)),
    }


def _of_backbone(family: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """What only people need to know stands outside the hashed config, beside the weights' row."""
    hashed = {key: value for key, value in chosen.items() if key not in ("repo", "revision")}
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
    """The hashed config of a backbone without what only says where its weights come from."""
    sources = ("repo", "revision", "weights_sha256")
    chosen = {key: value for key, value in backbone["checkpoint"].items() if key not in sources}
    rest = {key: value for key, value in backbone.items() if key not in sources}
    return {**rest, "checkpoint": chosen}


def _join_key(
    parts: Comparability, config: Mapping[str, Any], stamp: Mapping[str, Any], seed: int | None
) -> str:
    """Digest that a finetune shares with its probe; random weights enter by their `seed`."""
    weights = stamp["weights_digest"]
    shared = {
        "comparability": parts.key,
        "backbone": _architecture(config["backbone"]),
        "weights": {"seed": seed} if weights is None else weights,
        "precision": config["precision"],
        "resolution": stamp["resolution"],
    }
    return hashing.sha256_bytes(hashing.canonical_json(shared))
