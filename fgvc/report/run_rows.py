"""Complete run folders -> one typed row each; damaged folders -> one line each with the reason.

`predictions` reads predictions.parquet, for the runs that are compared.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, get_origin, get_type_hints

from fgvc.record import comparability, retention, verify
from fgvc.record.badges import Badge, stamp_badges
from fgvc.record.comparability import Comparability, Reason
from fgvc.record.retention import RetentionError
from fgvc.record.run_dir import SHORT
from fgvc.record.verify import DamageError, OtherVersionError
from fgvc.report import typed_fields
from fgvc.store import hashing
from fgvc.untrusted.escape import one_line, visible

NO_COLUMN = ("path", "comparability", "reasons", "badges")
Plain = Mapping[str, Any]
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

    The annotation of a field that is read unchanged is its place: config.canonical.json,
    env_stamp.json, metrics.json (numbers) or comparability, and the keys in it.
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
    fraction of the kept patches inside the object's box; in_box_random, in_box_centre: of as many
    random and central patches of the same images. other_load, load_average, threads, cores: the
    conditions of images_per_s, as in `MeasuredRate`. notes: remarks on the numbers, one line each.
    """

    path: Path
    comparability: Comparability
    reasons: tuple[Reason, ...]
    badges: tuple[Badge, ...]
    name: str
    task: Annotated[str, "stamp.task"]
    dataset: Annotated[str, "stamp.dataset"]
    backbone: Annotated[str, "config.backbone.name"]
    size: Annotated[str, "config.backbone.checkpoint.size"]
    model: Annotated[str, "config.backbone.checkpoint.model"]
    features: Annotated[str, "config.backbone.features"]
    head: Annotated[str, "config.head.name"]
    head_size: int
    part_attention: Annotated[str, "config.part_attention.name"]
    part_tokens: int | None
    part_stride: Annotated[int | None, "config.part_attention.stride?"]
    last_block: Annotated[str | None, "config.part_attention.last_block?"]
    in_box: float | None
    in_box_random: float | None
    in_box_centre: float | None
    resolution: Annotated[int, "stamp.resolution"]
    token_grid: str
    normalization: Annotated[str, "stamp.normalization"]
    preprocess: Annotated[str, "config.preprocess"]
    final_fit: Annotated[str, "config.final_fit"]
    fitted_on: Annotated[int | None, "numbers.fitted_on?"]
    fitted_manifest: Annotated[str | None, "comparability.fitted_manifest"]
    fitted_split: Annotated[str | None, "comparability.fitted_split"]
    forced: Annotated[bool, "comparability.forced"]
    debug: Annotated[str | None, "comparability.debug"]
    overlap: Annotated[int | None, "numbers.overlap?.images?"]
    precision: Annotated[str, "config.precision"]
    partial: Annotated[bool, "stamp.partial"]
    subset: Annotated[str | None, "config.dataset.subset"]
    test_source: Annotated[str, "stamp.test_source"]
    n: Annotated[int, "numbers.test.n"]
    top1: Annotated[float, "numbers.test.top1"]
    top1_low: float
    top1_high: float
    top5: Annotated[float, "numbers.test.top5"]
    mean_per_class: Annotated[float, "numbers.test.mean_per_class"]
    macro_f1: Annotated[float, "numbers.test.macro_f1"]
    loss: Annotated[float | None, "numbers.test.loss"]
    ece: Annotated[float | None, "numbers.test.ece"]
    val_top1: Annotated[float | None, "numbers.val?.top1?"]
    val_loss: Annotated[float | None, "numbers.val?.loss?"]
    parameters: Annotated[int | None, "numbers.cost.parameters?"]
    macs: Annotated[int | None, "numbers.cost.macs?"]
    images_per_s: Annotated[float | None, "numbers.cost.images_per_s?"]
    other_load: Annotated[float | None, "numbers.cost.other_load?"]
    load_average: Annotated[float | None, "numbers.cost.load_average?"]
    threads: Annotated[int | None, "numbers.cost.threads?"]
    cores: Annotated[int | None, "numbers.cost.cores?"]
    peak_memory_mib: Annotated[float | None, "numbers.cost.peak_memory_mib?"]
    device: Annotated[str, "stamp.device"]
    gpu_name: Annotated[str | None, "stamp.gpu_name"]
    weights_kind: Annotated[str, "stamp.weights.kind"]
    weights_digest: Annotated[str | None, "stamp.weights_digest"]
    weights_revision: Annotated[str | None, "stamp.weights.revision"]
    backbone_license: str
    backbone_contamination: str
    dataset_license: str
    dataset_contamination: str
    dataset_label_noise: str
    dataset_approval: str
    manifest_digest: Annotated[str, "stamp.manifest_digest"]
    split_digest: Annotated[str, "stamp.split_digest"]
    labelmap_digest: Annotated[str, "stamp.labelmap_digest"]
    metric_version: Annotated[str, "numbers.metric_version"]
    comparability_key: Annotated[str, "comparability.key"]
    comparability_base: Annotated[str, "comparability.base"]
    predictions_digest: Annotated[str | None, "numbers.predictions_digest?"]
    join_key: str
    join_base: str
    notes: tuple[str, ...]
    question: str
    rest: str
    part_rest: str
    answer: str
    git_commit: Annotated[str | None, "stamp.git_commit"]
    git_dirty: Annotated[bool | None, "stamp.git_dirty"]
    code_patch_sha256: Annotated[str | None, "stamp.code_patch_sha256"]
    stack_check: Annotated[str | None, "stamp.stack_check?"]
    seed: Annotated[int, "config.seed"]
    config_hash: Annotated[str, "stamp.config_hash"]
    checkpoint_sha256: str
    fit_checkpoint: str
    run_id: Annotated[str, "stamp.run_id"]
    folder: str
    started: Annotated[str, "stamp.started"]
    finished: Annotated[str, "stamp.finished"]


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
        reasons = tuple(comparability.reasons(numbers, parts))
        for checked in (parts, *reasons):
            typed_fields.check_types(checked)
        documents = {"config": config, "stamp": stamp, "numbers": numbers}
        documents["comparability"] = {**asdict(parts), "key": parts.key, "base": parts.base}
        backbone = _backbone_columns(facts["config"]["backbone"], config["backbone"]["checkpoint"])
        low, high = numbers["test"]["top1_ci95"]
        run = Run(
            path=path,
            comparability=parts,
            reasons=reasons,
            badges=tuple(stamp_badges(stamp, backbone["backbone_contamination"])),
            folder=run_path(path),
            head_size=head_size,
            checkpoint_sha256=artifacts[verify.CKPT]["sha256"],
            fit_checkpoint=facts.get("exported_from") or artifacts[verify.CKPT]["sha256"],
            top1_low=low,
            top1_high=high,
            notes=_notes(path, numbers.get("notes", [])),
            **{name: _find(documents, place) for name, place in _places().items()},
            **_key_columns(config, stamp, parts, facts["answer"]),
            **_part_columns(config, stamp, numbers.get("parts", {})),
            **backbone,
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


def run_name(
    config: Plain, task: str, resolution: int, forced: bool, made_by: Plain | None = None
) -> str:
    """The axes of a hashed config in one short line, with marks for unusual runs.

    Args:
        forced: whether the training was resumed by force.
        made_by: the run of fgvc that wrote the backbone's weights, if any.
    """
    backbone, part_attention = config["backbone"], config["part_attention"]
    random = "" if backbone["pretrained"] else " random"
    earlier = "" if made_by is None else f" of {made_by['task']} on {made_by['dataset']}"
    names = [
        f"{backbone['name']} {backbone['checkpoint']['size']}{random}{earlier}",
        config["head"]["name"] + (" finetuned" if config["task"]["name"] == "train" else ""),
        f"{resolution} px",
    ]
    settings = {key: part_attention.get(key) for key in ("tokens", "stride")}
    words = [f"{key} {value}" for key, value in settings.items() if value is not None]
    words += ["random block"] * (part_attention.get("last_block") == "random")
    marks = (
        (config["precision"], config["precision"] != "fp32"),
        (" ".join([part_attention["name"], *words]), part_attention["name"] != "off"),
        ("debug", config["task"].get("debug") is not None),
        ("forced resume", forced),
        ("eval", task == "eval"),
    )
    return " · ".join([*names, *(mark for mark, applies in marks if applies)])


@functools.cache
def _places() -> dict[str, str]:
    """Field of Run -> its place in a record, for the fields that are read unchanged."""
    hints = get_type_hints(Run, include_extras=True).items()
    return {name: hint.__metadata__[0] for name, hint in hints if get_origin(hint) is Annotated}


def _find(documents: Mapping[str, Any], place: str) -> Any:
    """The value at document.key.key; None if a key with a question mark is missing or null."""
    value: Any = documents
    for key in place.split("."):
        value = value.get(key[:-1]) if key.endswith("?") else value[key]
        if value is None:
            return None
    return value


def _key_columns(config: Plain, stamp: Plain, parts: Comparability, fit: Plain) -> dict[str, Any]:
    """Name, keys and card; fit: code, data and weights of the fit, as in the checkpoint."""
    seedless = {key: value for key, value in config.items() if key != "seed"}
    card, made_by = stamp["dataset_card"], stamp["weights"].get("made_by")
    code = ("git_commit", "code_patch_sha256", "weights_digest")
    answer = {key: stamp[key] for key in ("task", "manifest_digest", *code)}
    card_keys = ("license", "contamination", "label_noise", "approval")
    return {
        "name": run_name(config, stamp["task"], stamp["resolution"], parts.forced, made_by),
        "question": hashing.sha256_json(seedless),
        # code and weights of the fit differ for an evaluation
        "answer": hashing.sha256_json({**answer, "fit": {key: fit[key] for key in code}}),
        **{f"dataset_{key}": card.get(key, "not recorded") for key in card_keys},
        "token_grid": "x".join(str(side) for side in stamp["token_grid"]),
        "join_key": _join_key(parts, config, stamp, config["seed"]),
        "join_base": _join_key(parts, config, stamp, None),
    }


def _notes(path: Path, notes: object) -> tuple[str, ...]:
    """The notes of a record, with control characters made visible, and a note that task=prune never
    removes the run, if its retention.json is not its own."""
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise ValueError(f"notes={notes!r}: not a list of strings")
    try:
        retention.read_for(path / retention.FILE, run_path(path.resolve()))
    except RetentionError as error:
        kept = f"{one_line(error)}; task=prune keeps the run, task=audit lists what differs"
        return (*map(visible, notes), kept)
    return tuple(map(visible, notes))


def _part_columns(config: Plain, stamp: Plain, parts: Plain) -> dict[str, Any]:
    """Columns on part attention; parts: "parts" of metrics.json, which may be empty."""
    settings = dict(config["part_attention"])
    others = {key: value for key, value in config.items() if key not in ("seed", "part_attention")}
    name, tokens = settings.pop("name"), settings.pop("tokens", None)
    settings.pop("last_block", None)
    return {
        "part_tokens": parts.get("tokens", tokens),
        "in_box": _in_box(parts, name),
        "in_box_random": _in_box(parts, "random"),
        "in_box_centre": _in_box(parts, "centre"),
        "rest": hashing.sha256_json([others, stamp["task"], stamp["weights_digest"]]),
        "part_rest": hashing.sha256_json(settings),
    }


def _in_box(parts: Plain, selection: str) -> float | None:
    return parts[selection]["in_box"]["value"] if selection in parts else None


def _backbone_columns(family: Plain, checkpoint: Plain) -> dict[str, Any]:
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


def _join_key(parts: Comparability, config: Plain, stamp: Plain, seed: int | None) -> str:
    """Digest that a finetune shares with its probe; for random weights it contains `seed`.

    The backbone enters without the source of its weights, whose digest is in the key.
    """
    sources, weights = ("repo", "revision", "weights_sha256"), stamp["weights_digest"]
    backbone = {key: value for key, value in config["backbone"].items() if key not in sources}
    row = {key: value for key, value in backbone["checkpoint"].items() if key not in sources}
    shared = {
        "comparability": parts.key,
        "backbone": {**backbone, "checkpoint": row},
        "weights": {"seed": seed} if weights is None else weights,
        "precision": config["precision"],
        "resolution": stamp["resolution"],
    }
    return hashing.sha256_json(shared)
