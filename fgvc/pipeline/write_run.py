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
from fgvc.pipeline.experiment import Experiment, Results, identity, store_weights
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


def write_run(experiment: Experiment, results: Results) -> Path:
    """Write every file of the run folder, seal it, and tell the person."""
    numbers = {name: split_metrics(experiment, one) for name, one in results.predictions.items()}
    record = {
        **numbers,
        "cost": _cost(experiment, results),
        "test_reads": len(experiment.run.test_reads()),
        TEST_READ_LOG: experiment.run.test_reads(),
        "worst_pairs": _worst_pairs(experiment, results.predictions["test"]),
        **comparable(experiment, results),
        "overlap": overlap(experiment, results),
        "predictions_digest": prediction_tables.predictions_digest(
            *prediction_tables.predicted(experiment.dataset.manifest, results.predictions["test"])
        ),
        "metric_version": metrics.VERSION,
        **localization.localization_metrics(
            experiment.conf, experiment.dataset, results.attention_maps
        ),
        **results.numbers,
        "unreadable": notes.unreadable_counts(experiment.dataset, results.unreadable),
        "notes": notes.notes_of(experiment, results),
    }
    if experiment.extractor.source.kind == "file" and experiment.extractor.source.path is not None:
        store_weights(experiment.conf, experiment.extractor.source.path)
    _write_who_and_what(experiment)
    _write_evaluation(experiment, results)
    experiment.run.write_json("metrics.json", record)
    if results.unreadable:
        rows = notes.unreadable_rows(experiment.dataset, results.unreadable)
        experiment.run.write_json(UNREADABLE_FILE, rows)
    localization.write(experiment, results, record)
    write_tensorboard.write(experiment, results, numbers)
    checkpoint_id = _write_checkpoint(experiment, results)
    write_fiftyone.write(experiment, results, numbers, checkpoint_id)
    write_page.write(experiment, checkpoint_id, results.fit.forced)
    folder = experiment.run.seal(checkpoint_id, experiment.conf.runtime.retention_days)
    _tell(experiment, record, folder)
    return folder


def split_metrics(experiment: Experiment, one: Predictions) -> dict[str, Any]:
    """The numbers of one split: intervals too, and distances where there is a hierarchy."""
    numbers = metrics.evaluate(one.logits_NC, one.label_N, experiment.num_classes)
    matrix = metrics.confusion(one.logits_NC, one.label_N, experiment.num_classes)
    numbers |= metrics.class_intervals(matrix)
    if experiment.dataset.hierarchy is not None:
        top_NK = metrics.topk(one.logits_NC, min(5, experiment.num_classes))
        numbers |= metrics.hierarchical(top_NK, one.label_N, experiment.dataset.hierarchy)
    return numbers


def comparable(experiment: Experiment, results: Results) -> dict[str, object]:
    """What two rows of a table must share to be ranked together, and its digests.

    comparability_key: digest of all parts. comparability_base: digest without how the head was
    fitted, by which a zero-shot run, which is fitted on nothing, joins the tables.
    """
    parts = comparability.describe(
        experiment.plain,
        fitted_on=(results.fit.manifest, results.fit.split),
        evaluated_on=(experiment.dataset.manifest.digest, experiment.dataset.split_digest),
        labelmap=experiment.dataset.labelmap.digest,
        metrics=metrics.VERSION,
        forced=results.fit.forced,
    )
    return {
        "comparability": asdict(parts),
        "comparability_key": parts.key,
        "comparability_base": parts.base,
    }


def overlap(experiment: Experiment, results: Results) -> dict[str, int]:
    """How many of the test images, byte for byte, fitted or chose head or backbone.

    backbone: how many fitted or chose the backbone in earlier runs of fgvc, if there are any.
    """
    row_N = results.predictions["test"].row_N
    image_N = fitted_images.short_digests(experiment.dataset.manifest.sha256, row_N)
    counts = {"images": results.fit.overlap(image_N)}
    if earlier := fitted_images.overlap(results.fit.backbone_N, image_N):
        counts["backbone"] = earlier
    return counts


def _cost(experiment: Experiment, results: Results) -> dict[str, object]:
    done = experiment.extractor.counters
    cost = dict(results.cost or experiment.extractor.cost())
    cost.pop(WEIGHTS_NOTES, None)  # reported as notes
    return {
        **cost,
        "decoded": done.decoded,
        "forwarded": done.forwarded,
        "prompts": done.prompts,
        "extract_seconds": done.seconds,
        "seconds": experiment.run.seconds,
        "process_peak_memory_mib": peak_memory_mib(experiment.extractor.device),
    }


def _write_who_and_what(experiment: Experiment) -> None:
    """Who and what: label map, splits, environment stamp."""
    names, ids = experiment.dataset.labelmap.names, experiment.dataset.labelmap.ids
    classes = [{"index": i, "id": ids[i], "name": names[i]} for i in range(experiment.num_classes)]
    labelmap = {"classes": classes, "checksum": experiment.dataset.labelmap.digest}
    if (
        above := experiment.dataset.hierarchy
    ) is not None:  # what distances of mistakes follow from
        labelmap["parents"] = [list(chain) for chain in above.chain]
        labelmap["nodes"] = dict(above.names)
    experiment.run.write_json("labelmap.json", labelmap)
    digests = {}
    for name in ("train", "val", "test"):
        rows = getattr(experiment.dataset.split, f"{name}_N").tolist()
        text = "".join(f"{experiment.dataset.manifest.path[row]}\n" for row in rows)
        experiment.run.write_text(f"splits/{name}.txt", text)
        digests[name] = {"sha256": hashing.sha256_bytes(text.encode()), "images": len(rows)}
    digests["split_digest"] = experiment.dataset.split_digest
    experiment.run.write_json("splits/digests.json", digests)
    experiment.run.write_json("env_stamp.json", dict(env_stamp.validated(_stamp(experiment))))


def _stamp(experiment: Experiment) -> dict[str, object]:
    conf, dataset, source = experiment.conf, experiment.dataset, experiment.extractor.source
    tiny = dataset.subset is not None
    row = chosen_checkpoint(conf.backbone)
    return {
        **env_stamp.environment(experiment.extractor.device),
        **identity(experiment),
        "run_id": experiment.run.run_id,
        "config_hash": experiment.config_hash,
        "git_dirty": experiment.run.code.dirty,
        "git_error": experiment.run.code.error,
        "precision": conf.precision,
        "fp16": conf.precision == "fp16",
        "matmul_precision": conf.matmul_precision,
        "seed": conf.seed,
        "tiny_train_subset_path": "splits/train.txt" if tiny else None,
        "tiny_infer_subset_path": "splits/test.txt" if tiny else None,
        "subset": dict(dataset.subset) if dataset.subset else None,
        "world_size": experiment.group.size,
        "launch": experiment.group.launch,
        "device_requested": conf.runtime.device,
        "stack_check": experiment.stack_check,
        "num_workers": loader.worker_count(conf.runtime.num_workers),
        "eval_batch_size": conf.runtime.eval_batch_size,
        "normalization": conf.backbone.normalization,
        "preprocess": experiment.extractor.preprocess.identity,
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
        "started": experiment.run.started.isoformat(),
        "finished": now().isoformat(),
        "seconds": experiment.run.seconds,
    }


def _write_evaluation(experiment: Experiment, results: Results) -> None:
    table = prediction_tables.predictions_table(experiment.dataset.manifest, results.predictions)
    experiment.run.write_bytes("predictions.parquet", prediction_tables.parquet_bytes(table))
    test = results.predictions["test"]
    experiment.run.write_text(
        "per_class.csv", prediction_tables.per_class_csv(test, experiment.dataset.labelmap)
    )
    matrix = metrics.confusion(test.logits_NC, test.label_N, experiment.num_classes)
    names = experiment.dataset.labelmap.names
    experiment.run.write_text("confusion.csv", prediction_tables.confusion_csv(matrix, names))
    experiment.run.write_bytes("confusion.png", _confusion_png(experiment, matrix))


def _worst_pairs(experiment: Experiment, test: Predictions) -> list[dict[str, object]]:
    """The most frequent confusions, with the names a person knows the classes by."""
    names = experiment.dataset.labelmap.names
    matrix = metrics.confusion(test.logits_NC, test.label_N, experiment.num_classes)
    pairs = metrics.worst_pairs(matrix, prediction_tables.WORST)
    return [
        {**pair, "label_name": names[pair["label"]], "pred_name": names[pair["pred"]]}
        for pair in pairs
    ]


def _confusion_png(experiment: Experiment, matrix: np.ndarray) -> bytes:
    backbone, dataset = experiment.conf.backbone, experiment.dataset
    title = confusion_plot.confusion_title(
        backbone.name, backbone.size, dataset.name, dataset.partial
    )
    return confusion_plot.confusion_png(matrix, dataset.labelmap.names, title)


def _write_checkpoint(experiment: Experiment, results: Results) -> str:
    if isinstance(results.head, Path):
        return checkpoint.copy(results.head, experiment.run.path)
    prefix = "" if results.has_backbone else "head."
    tensors = {f"{prefix}{name}": tensor for name, tensor in results.head.items()}
    tensors |= results.fit.tensors()
    fitted = {**results.fit.facts(), "notes": notes.notes_of_fit(experiment, results)}
    facts = {**_facts(experiment), "fit": fitted}
    if results.has_backbone:  # it can be read without the weights that the training began with
        facts |= {"whole": True, "hashed": experiment.plain}
    return checkpoint.write(experiment.run.path, tensors, facts)


def _facts(experiment: Experiment) -> dict[str, object]:
    """What a checkpoint says of itself; no time, no place: the same run gives the same bytes."""
    source, labelmap = experiment.extractor.source, experiment.dataset.labelmap
    return {
        "format": 1,
        "config": portable_config(experiment.conf),
        "config_hash": experiment.config_hash,
        "head": asdict(experiment.conf.head),
        "labelmap": {"ids": list(labelmap.ids), "names": list(labelmap.names)},
        "preprocess": experiment.extractor.preprocess.identity,
        "backbone": {
            "model": chosen_checkpoint(experiment.conf.backbone).model,
            "weights": {
                "kind": source.kind,
                "revision": source.revision,
                "sha256": source.sha256,
                **_made_by(source),
            },
            **_norm_eps(experiment),
        },
        "answer": identity(experiment),
        "split_digest": experiment.dataset.split_digest,
    }


def _norm_eps(experiment: Experiment) -> dict[str, float]:
    """Epsilon of the layer norms where weights from the hub set it: no config holds it then."""
    from fgvc.model.backbone import hf_config

    eps = hf_config.norm_eps(experiment.conf.backbone, experiment.extractor.source)
    return {} if eps in (None, experiment.conf.backbone.norm_eps) else {"norm_eps": eps}


def _made_by(source: WeightsSource) -> dict[str, object]:
    """The run of fgvc that wrote the weights, if one did."""
    return {} if source.made_by is None else {"made_by": dict(source.made_by)}


def portable_config(conf: Config) -> dict[str, object]:
    """The config without its places: enough to compose it again on another machine."""
    plain = asdict(conf)
    del plain["runtime"]
    for name in ("checkpoint", "run", "against", "image"):
        del plain[name]
    del plain["dataset"]["root"], plain["dataset"]["table"], plain["backbone"]["weights"]
    return plain


def _tell(experiment: Experiment, record: Mapping[str, Any], folder: Path) -> None:
    splits = [name for name in ("val", "test") if name in record]
    if (reads := record["test_reads"]) > 1:
        console.say(
            f"note: the test split was read {reads} times: an earlier process of this run stopped "
            "before its record was whole"
        )
    if experiment.stack_check == "skipped":
        console.say("note: runtime.stack_check=false, this stack was not validated")
    rows = [["top-1 [95 %]", *(console.interval(record[name]) for name in splits)]]
    rows.append(["top-5", *(console.percent(record[name]["top5"]) for name in splits)])
    for label, key in (("mean per class", "mean_per_class"), ("macro-F1", "macro_f1")):
        rows.append([f"{label} [95 %]", *(console.interval(record[name], key) for name in splits)])
    rows.append(["calibration error", *(console.percent(record[name]["ece"]) for name in splits)])
    rows.append(["loss (nats)", *(console.number(record[name]["loss"]) for name in splits)])
    rows.append(["images", *(str(record[name]["n"]) for name in splits)])
    console.table(_title(experiment), ["%", *splits], rows)
    for note in record["notes"]:
        console.say(f"note: {note}")
    for name in splits:
        if record[name]["intervals_note"] is not None:
            console.say(f"note: {name}: {record[name]['intervals_note']}")
    for line in _unranked(record):
        console.say(f"note: {line}")
    localization.print_localization(record)
    console.say(_cost_line(record["cost"]))
    console.provenance(experiment.dataset.name, experiment.dataset.card)
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


def _title(experiment: Experiment) -> str:
    conf = experiment.conf
    weights_note = "" if conf.backbone.pretrained else ", random weights"
    partial = ", PARTIAL COPY" if experiment.dataset.partial else ""
    subset = f", SUBSET {experiment.dataset.subset['name']}" if experiment.dataset.subset else ""
    source = experiment.dataset.test_source
    return (
        f"{conf.backbone.name} {conf.backbone.size}{weights_note} · {conf.head.name} · "
        f"{conf.resolution.side} px · "
        f"{experiment.dataset.name} ({experiment.num_classes} classes{partial}{subset}"
        f"{console.test_mark(source)})"
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
