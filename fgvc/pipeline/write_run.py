"""What a task found -> every file of the run folder, sealed, and a table for the person.

C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from fgvc import metrics
from fgvc.config.schema import Config, chosen_checkpoint
from fgvc.data import loader
from fgvc.data.view_transform import grid_side
from fgvc.parallel.device import peak_memory_mib
from fgvc.pipeline import localization, notes, write_fiftyone, write_page, write_tensorboard
from fgvc.pipeline.build_model import stride_of
from fgvc.pipeline.experiment import Experiment, Outcome, identity, keep_weights
from fgvc.pipeline.features import WEIGHTS_NOTES
from fgvc.record import (
    checkpoint,
    comparability,
    confusion_plot,
    console,
    env_stamp,
    fitted_images,
    prediction_tables,
    privacy,
)
from fgvc.record.page.run import UNREADABLE_FILE
from fgvc.record.run_dir import TEST_READ_LOG, now
from fgvc.store import hashing
from fgvc.types import Predictions, WeightsSource


def write_run(job: Experiment, outcome: Outcome) -> Path:
    """Write every file of the run folder, seal it, and tell the person."""
    numbers = {name: numbers_of(job, one) for name, one in outcome.splits.items()}
    record = {
        **numbers,
        "cost": _cost(job, outcome),
        "test_reads": len(job.run.test_reads()),
        TEST_READ_LOG: job.run.test_reads(),
        "worst_pairs": _worst_pairs(job, outcome.splits["test"]),
        **comparable(job, outcome),
        "overlap": overlap(job, outcome),
        "predictions_digest": prediction_tables.predictions_digest(
            *prediction_tables.predicted_classes(job.dataset.manifest, outcome.splits["test"])
        ),
        "metric_version": metrics.VERSION,
        **localization.localization_metrics(job.conf, job.dataset, outcome.looks),
        **outcome.numbers,
        "unreadable": notes.unreadable_counts(job.dataset, outcome.unreadable),
        "notes": notes.notes_of(job, outcome),
    }
    if job.extractor.source.kind == "file" and job.extractor.source.path is not None:
        keep_weights(job.conf, job.extractor.source.path)
    _write_who_and_what(job)
    _write_evaluation(job, outcome)
    job.run.write_json("metrics.json", record)
    if outcome.unreadable:
        rows = notes.unreadable_rows(job.dataset, outcome.unreadable)
        job.run.write_json(UNREADABLE_FILE, rows)
    localization.write(job, outcome, record)
    write_tensorboard.write(job, outcome, numbers)
    checkpoint_id = _write_checkpoint(job, outcome)
    write_fiftyone.write(job, outcome, numbers, checkpoint_id)
    write_page.write(job, checkpoint_id, outcome.fit.forced)
    folder = job.run.seal(checkpoint_id, job.conf.runtime.retention_days)
    _tell(job, record, folder)
    return folder


def numbers_of(job: Experiment, one: Predictions) -> dict[str, Any]:
    """The numbers of one split: intervals too, and distances where there is a hierarchy."""
    numbers = metrics.evaluate(one.logits_NC, one.label_N, job.classes)
    matrix = metrics.confusion(one.logits_NC, one.label_N, job.classes)
    numbers |= metrics.class_intervals(matrix)
    if job.dataset.hierarchy is not None:
        top_NK = metrics.topk(one.logits_NC, min(5, job.classes))
        numbers |= metrics.hierarchical_metrics(top_NK, one.label_N, job.dataset.hierarchy)
    return numbers


def comparable(job: Experiment, outcome: Outcome) -> dict[str, object]:
    """What two rows of a table must share to be ranked together, and its digests.

    comparability_key: digest of all parts. comparability_base: digest without how the head was
    fitted, by which a zero-shot run, which is fitted on nothing, joins the tables.
    """
    parts = comparability.describe(
        job.plain,
        fitted_on=(outcome.fit.manifest, outcome.fit.split),
        evaluated_on=(job.dataset.manifest.digest, job.dataset.split_digest),
        labelmap=job.dataset.labelmap.digest,
        metrics=metrics.VERSION,
        forced=outcome.fit.forced,
    )
    return {
        "comparability": asdict(parts),
        "comparability_key": parts.key,
        "comparability_base": parts.base,
    }


def overlap(job: Experiment, outcome: Outcome) -> dict[str, int]:
    """How many of the test images, byte for byte, fitted or chose head or backbone.

    backbone: how many fitted or chose the backbone in earlier runs of fgvc, if there are any.
    """
    row_N = outcome.splits["test"].row_N
    image_N = fitted_images.short_digests(job.dataset.manifest.sha256, row_N)
    counts = {"images": outcome.fit.overlap(image_N)}
    if earlier := fitted_images.overlap(outcome.fit.backbone_N, image_N):
        counts["backbone"] = earlier
    return counts


def _cost(job: Experiment, outcome: Outcome) -> dict[str, object]:
    done = job.extractor.counters
    cost = dict(outcome.cost or job.extractor.cost())
    cost.pop(WEIGHTS_NOTES, None)  # reported as notes
    return {
        **cost,
        "decoded": done.decoded,
        "forwarded": done.forwarded,
        "prompts": done.prompts,
        "extract_seconds": done.seconds,
        "seconds": job.run.seconds,
        "process_peak_memory_mib": peak_memory_mib(job.extractor.device),
    }


def _write_who_and_what(job: Experiment) -> None:
    """Who and what: label map, splits, environment stamp."""
    names, ids = job.dataset.labelmap.names, job.dataset.labelmap.ids
    classes = [{"index": i, "id": ids[i], "name": names[i]} for i in range(job.classes)]
    labelmap = {"classes": classes, "checksum": job.dataset.labelmap.digest}
    if (above := job.dataset.hierarchy) is not None:  # what distances of mistakes follow from
        labelmap["parents"] = [list(chain) for chain in above.chain]
        labelmap["nodes"] = dict(above.names)
    job.run.write_json("labelmap.json", labelmap)
    digests = {}
    for name in ("train", "val", "test"):
        rows = getattr(job.dataset.split, f"{name}_N").tolist()
        text = "".join(f"{job.dataset.manifest.path[row]}\n" for row in rows)
        job.run.write_text(f"splits/{name}.txt", text)
        digests[name] = {"sha256": hashing.sha256_bytes(text.encode()), "images": len(rows)}
    digests["split_digest"] = job.dataset.split_digest
    job.run.write_json("splits/digests.json", digests)
    job.run.write_json("env_stamp.json", dict(env_stamp.validate(_stamp(job))))


def _stamp(job: Experiment) -> dict[str, object]:
    conf, dataset, source = job.conf, job.dataset, job.extractor.source
    tiny = dataset.subset is not None
    row = chosen_checkpoint(conf.backbone)
    return {
        **env_stamp.environment(job.extractor.device),
        **identity(job),
        "run_id": job.run.run_id,
        "config_hash": job.hash,
        "git_dirty": job.run.code.dirty,
        "git_error": job.run.code.error,
        "precision": conf.precision,
        "fp16": conf.precision == "fp16",
        "matmul_precision": conf.matmul_precision,
        "seed": conf.seed,
        "tiny_train_subset_path": "splits/train.txt" if tiny else None,
        "tiny_infer_subset_path": "splits/test.txt" if tiny else None,
        "subset": dict(dataset.subset) if dataset.subset else None,
        "world_size": job.world.size,
        "launch": job.world.launch,
        "device_requested": conf.runtime.device,
        "stack_check": job.stack,
        "num_workers": loader.worker_count(conf.runtime.num_workers),
        "eval_batch_size": conf.runtime.eval_batch_size,
        "normalization": conf.backbone.normalization,
        "preprocess": job.extractor.preprocess.identity,
        "resolution": conf.resolution.side,
        "token_grid": [grid_side(conf.resolution.side, row.patch, stride_of(conf))] * 2,
        "dataset": dataset.name,
        "dataset_card": dict(dataset.card),
        "dataset_notes": [privacy.without_user_paths(note) for note in dataset.notes],
        "partial": dataset.partial,
        "test_source": dataset.test_source,
        "split_digest": dataset.split_digest,
        "labelmap_digest": dataset.labelmap.digest,
        "weights": {
            "kind": source.kind,
            "name": source.name,
            "revision": source.revision,
            "sha256": source.sha256,
            **_made_by(source),
        },
        "started": job.run.started.isoformat(),
        "finished": now().isoformat(),
        "seconds": job.run.seconds,
    }


def _write_evaluation(job: Experiment, outcome: Outcome) -> None:
    table = prediction_tables.predictions_table(job.dataset.manifest, outcome.splits)
    job.run.write_bytes("predictions.parquet", prediction_tables.parquet_bytes(table))
    test = outcome.splits["test"]
    job.run.write_text("per_class.csv", prediction_tables.per_class_csv(test, job.dataset.labelmap))
    matrix = metrics.confusion(test.logits_NC, test.label_N, job.classes)
    names = job.dataset.labelmap.names
    job.run.write_text("confusion.csv", prediction_tables.confusion_csv(matrix, names))
    job.run.write_bytes("confusion.png", _confusion_png(job, matrix))


def _worst_pairs(job: Experiment, test: Predictions) -> list[dict[str, object]]:
    """The most frequent confusions, with the names a person knows the classes by."""
    names = job.dataset.labelmap.names
    matrix = metrics.confusion(test.logits_NC, test.label_N, job.classes)
    pairs = metrics.worst_pairs(matrix, prediction_tables.WORST)
    return [
        {**pair, "label_name": names[pair["label"]], "pred_name": names[pair["pred"]]}
        for pair in pairs
    ]


def _confusion_png(job: Experiment, matrix: np.ndarray) -> bytes:
    backbone, dataset = job.conf.backbone, job.dataset
    title = confusion_plot.confusion_title(
        backbone.name, backbone.size, dataset.name, dataset.partial
    )
    return confusion_plot.confusion_png(matrix, dataset.labelmap.names, title)


def _write_checkpoint(job: Experiment, outcome: Outcome) -> str:
    if isinstance(outcome.head, Path):
        return checkpoint.copy(outcome.head, job.run.path)
    prefix = "" if outcome.whole else "head."
    tensors = {f"{prefix}{name}": tensor for name, tensor in outcome.head.items()}
    tensors |= outcome.fit.tensors()
    fitted = {**outcome.fit.facts(), "notes": notes.notes_of_fit(job, outcome)}
    facts = {**_facts(job), "fit": fitted}
    if outcome.whole:  # it can be read without the weights that the training began with
        facts |= {"whole": True, "hashed": job.plain}
    return checkpoint.write(job.run.path, tensors, facts)


def _facts(job: Experiment) -> dict[str, object]:
    """What a checkpoint says of itself; no time, no place: the same run gives the same bytes."""
    source, labelmap = job.extractor.source, job.dataset.labelmap
    return {
        "format": 1,
        "config": portable(job.conf),
        "config_hash": job.hash,
        "head": asdict(job.conf.head),
        "labelmap": {"ids": list(labelmap.ids), "names": list(labelmap.names)},
        "preprocess": job.extractor.preprocess.identity,
        "backbone": {
            "model": chosen_checkpoint(job.conf.backbone).model,
            "weights": {
                "kind": source.kind,
                "revision": source.revision,
                "sha256": source.sha256,
                **_made_by(source),
            },
            **_norm_eps(job),
        },
        "answer": identity(job),
        "split_digest": job.dataset.split_digest,
    }


def _norm_eps(job: Experiment) -> dict[str, float]:
    """Epsilon of the layer norms where weights from the hub set it: no config holds it then."""
    from fgvc.model.backbone import hf_config

    eps = hf_config.norm_eps(job.conf.backbone, job.extractor.source)
    return {} if eps in (None, job.conf.backbone.norm_eps) else {"norm_eps": eps}


def _made_by(source: WeightsSource) -> dict[str, object]:
    """The run of fgvc that wrote the weights, if one did."""
    return {} if source.made_by is None else {"made_by": dict(source.made_by)}


def portable(conf: Config) -> dict[str, object]:
    """The config without its places: enough to compose it again on another machine."""
    plain = asdict(conf)
    del plain["runtime"]
    for name in ("checkpoint", "run", "against", "image"):
        del plain[name]
    del plain["dataset"]["root"], plain["dataset"]["table"], plain["backbone"]["weights"]
    return plain


def _tell(job: Experiment, record: Mapping[str, Any], folder: Path) -> None:
    splits = [name for name in ("val", "test") if name in record]
    if (reads := record["test_reads"]) > 1:
        console.say(
            f"note: the test split was read {reads} times: an earlier process of this run stopped "
            "before its record was whole"
        )
    if job.stack == "skipped":
        console.say("note: runtime.stack_check=false, this stack was not validated")
    rows = [["top-1 [95 %]", *(console.interval(record[name]) for name in splits)]]
    rows.append(["top-5", *(console.percent(record[name]["top5"]) for name in splits)])
    for label, key in (("mean per class", "mean_per_class"), ("macro-F1", "macro_f1")):
        rows.append([f"{label} [95 %]", *(console.interval(record[name], key) for name in splits)])
    rows.append(["calibration error", *(console.percent(record[name]["ece"]) for name in splits)])
    rows.append(["loss (nats)", *(console.number(record[name]["loss"]) for name in splits)])
    rows.append(["images", *(str(record[name]["n"]) for name in splits)])
    console.table(_title(job), ["%", *splits], rows)
    for note in record["notes"]:
        console.say(f"note: {note}")
    for name in splits:
        if record[name]["intervals_note"] is not None:
            console.say(f"note: {name}: {record[name]['intervals_note']}")
    for line in _unranked(record):
        console.say(f"note: {line}")
    localization.print_localization(record)
    console.say(_cost_line(record["cost"]))
    console.provenance(job.dataset.name, job.dataset.card)
    console.say(f"record: {folder}")


def _unranked(record: Mapping[str, Any]) -> Iterator[str]:
    """Reasons why a report does not rank the run beside plain runs, one line each."""
    images, n, told = record["overlap"]["images"], record["test"]["n"], record["comparability"]
    earlier = record["overlap"].get("backbone")
    if images:
        what = f"the head or, in earlier runs, the backbone ({earlier})" if earlier else "the head"
        yield f"{images} of the {n} test images fitted or chose {what}: not ranked"
    if told["forced"]:
        lost = "best_lost" in (record.get("resumed") or {})
        how = "without its best weights" if lost else "under another config"
        yield f"resumed by force {how}: not ranked beside plain runs"
    if told["debug"] is not None:
        yield f"task.debug={told['debug']}: not ranked beside plain runs"


def _title(job: Experiment) -> str:
    conf = job.conf
    weights_note = "" if conf.backbone.pretrained else ", random weights"
    partial = ", PARTIAL COPY" if job.dataset.partial else ""
    subset = f", SUBSET {job.dataset.subset['name']}" if job.dataset.subset else ""
    source = job.dataset.test_source
    return (
        f"{conf.backbone.name} {conf.backbone.size}{weights_note} · {conf.head.name} · "
        f"{conf.resolution.side} px · "
        f"{job.dataset.name} ({job.classes} classes{partial}{subset}{console.test_mark(source)})"
    )


def _cost_line(cost: Mapping[str, Any]) -> str:
    parts = []
    if cost["parameters"]:
        parts.append(f"{cost['parameters'] / 1e6:.1f} M parameters")
        parts.append(f"{cost['macs'] / 1e9:.2f} GMAC an image")
        if cost["images_per_s"] is not None:  # not measured where a kill came before it was kept
            parts.append(f"{cost['images_per_s']:.0f} images/s in evaluation")
    fresh = f"{cost['forwarded']} images forwarded now, {cost['seconds']:.1f} s in all"
    return "cost: " + ", ".join([*parts, fresh])
