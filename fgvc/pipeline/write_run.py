"""The results of a task -> the record of the run, sealed, and a summary on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from fgvc import metrics
from fgvc.config.schema import Config, chosen_checkpoint
from fgvc.data import loader
from fgvc.data.view_transform import grid_side
from fgvc.html.formats import TOP5_FROM, interval, number, percent
from fgvc.model.backbone import hf_config
from fgvc.parallel.device import peak_memory_mib
from fgvc.pipeline import localization, notes
from fgvc.pipeline.build_model import stride_of
from fgvc.pipeline.experiment import Experiment, Results
from fgvc.pipeline.features import WEIGHTS_NOTES
from fgvc.pipeline.restore import HEAD, store_weights
from fgvc.pipeline.run_images import DatasetImages
from fgvc.record import (
    class_means,
    comparability,
    console,
    env_stamp,
    fitted_images,
    measured_rate,
    precision_checks,
    prediction_tables,
    privacy,
)
from fgvc.record.class_means import ClassMeans
from fgvc.record.run_dir import TEST_READ_LOG
from fgvc.record.writers import WRITERS, RunRecord, WriterSpec, write_record
from fgvc.report.run_rows import run_name
from fgvc.types import Dataset, Predictions, WeightsSource


def write_run(
    experiment: Experiment, results: Results, writers: Sequence[WriterSpec] = WRITERS
) -> Path:
    """Write every file of the run folder, seal it, and print a summary; returns the folder.

    writers: the checkpoint, whose digest names the folder, must be among them.
    """
    run, conf, source = experiment.run, experiment.conf, experiment.extractor.source
    numbers = _numbers(experiment, results)
    if source.kind == "file" and source.path is not None:
        store_weights(conf, source.path)
    task, forced, side = experiment.task, results.fitted_images.forced, conf.resolution.side
    record = RunRecord(
        run=run,
        conf=conf,
        task=task,
        name=run_name(experiment.plain, task, side, forced, source.made_by),
        dataset=experiment.dataset,
        predictions=results.predictions,
        numbers=numbers,
        stamp=_stamp(experiment),
        checkpoint=_checkpoint(experiment, results),
        board=experiment.board,
        images=DatasetImages(experiment, results),
        steps=results.steps,
        features=results.features,
        unreadable=notes.unreadable_rows(experiment.dataset, results.unreadable),
    )
    write_record(record, writers)
    folder = run.seal(conf.runtime.retention_days)
    print_summary(conf, experiment.dataset, experiment.stack_check, record.timed_numbers, folder)
    return folder


def _numbers(experiment: Experiment, results: Results) -> dict[str, Any]:
    run, dataset, test = experiment.run, experiment.dataset, results.predictions["test"]
    names, fitted = dataset.labelmap.names, results.fitted_images
    image_N = fitted_images.short_digests(dataset.manifest.sha256, test.row_N)
    # test images that, byte for byte, fitted or chose head or backbone; backbone: in earlier runs
    overlap = {"images": fitted.overlap(image_N)}
    if earlier := fitted_images.overlap(fitted.backbone_N, image_N):
        overlap["backbone"] = earlier
    counts = metrics.tally(test.pred_N, test.label_N, experiment.num_classes)
    test_path = [dataset.manifest.path[row] for row in test.row_N.tolist()]
    counters = asdict(experiment.extractor.counters)
    cost = dict(results.cost or experiment.extractor.cost())
    cost.pop(WEIGHTS_NOTES, None)  # reported as notes
    by_split = {
        split: split_metrics(experiment, predictions)
        for split, predictions in results.predictions.items()
    }
    return {
        **by_split,
        "cost": {
            **cost,
            "extract_seconds": counters.pop("spent")["wall"],
            **counters,
            "process_peak_memory_mib": peak_memory_mib(experiment.extractor.device),
        },
        "test_reads": len(run.test_reads()),
        TEST_READ_LOG: run.test_reads(),
        "worst_pairs": [
            {**pair, "label_name": names[pair["label"]], "pred_name": names[pair["pred"]]}
            for pair in metrics.worst_pairs(counts, prediction_tables.WORST)
        ],
        **_comparability(experiment, results),
        "overlap": overlap,
        "predictions_digest": prediction_tables.predictions_digest(test_path, test.pred_N),
        "metric_version": metrics.VERSION,
        **localization.localization_metrics(experiment.conf, dataset, results.attention_maps),
        **results.numbers,
        "unreadable": notes.unreadable_counts(dataset, results.unreadable),
        "notes": notes.notes_of(experiment, results),
    }


def split_metrics(experiment: Experiment, predictions: Predictions) -> dict[str, Any]:
    """The metrics of one split with intervals, and with distances where there is a hierarchy."""
    top_NK, label_N = predictions.top_NK, predictions.label_N
    classes, hierarchy = experiment.num_classes, experiment.dataset.hierarchy
    numbers = metrics.evaluate(predictions, classes)
    numbers |= metrics.class_intervals(metrics.tally(predictions.pred_N, label_N, classes))
    if hierarchy is not None:
        numbers |= metrics.hierarchical_metrics(top_NK, label_N, hierarchy)
    return numbers


def _comparability(experiment: Experiment, results: Results) -> dict[str, object]:
    """The parts that two rows of a table must share to be ranked together, and their digests.

    comparability_key: digest of all parts. comparability_base: digest without the parts of the fit,
    with which a zero-shot run, which is fitted on nothing, joins the tables.
    """
    dataset, fitted = experiment.dataset, results.fitted_images
    parts = comparability.describe(
        experiment.plain,
        fitted_on=(fitted.manifest, fitted.split),
        evaluated_on=(dataset.manifest.digest, dataset.split_digest),
        labelmap=dataset.labelmap.digest,
        metrics=metrics.VERSION,
        forced=fitted.forced,
    )
    return {
        "comparability": asdict(parts),
        "comparability_key": parts.key,
        "comparability_base": parts.base,
    }


def _stamp(experiment: Experiment) -> dict[str, object]:
    conf, dataset, run = experiment.conf, experiment.dataset, experiment.run
    source = experiment.extractor.source
    is_subset = dataset.subset is not None
    row = chosen_checkpoint(conf.backbone)
    return {
        **env_stamp.environment(experiment.extractor.device),
        **experiment.identity,
        "run_id": run.run_id,
        "config_hash": experiment.config_hash,
        "git_dirty": run.code.dirty,
        "git_error": run.code.error,
        "precision": conf.precision,
        "fp16": conf.precision == "fp16",
        "matmul_precision": conf.matmul_precision,
        "seed": conf.seed,
        "tiny_train_subset_path": "splits/train.txt" if is_subset else None,
        "tiny_infer_subset_path": "splits/test.txt" if is_subset else None,
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
        "weights": {"kind": source.kind, "name": source.name, **_weights_facts(source)},
        "started": run.started.isoformat(),
    }


def _weights_facts(source: WeightsSource) -> dict[str, object]:
    """Revision and digest of the weights, and the run of fgvc that wrote them, if any."""
    made_by = {} if source.made_by is None else {"made_by": dict(source.made_by)}
    return {"revision": source.revision, "sha256": source.sha256, **made_by}


def _checkpoint(
    experiment: Experiment, results: Results
) -> Path | tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of ckpt.bin, or the checkpoint that was evaluated.

    The facts hold neither times nor paths: equal runs write equal bytes.
    """
    if isinstance(results.head, Path):
        return results.head
    prefix = "" if results.has_backbone else HEAD
    tensors = {f"{prefix}{name}": tensor for name, tensor in results.head.items()}
    conf, labelmap = experiment.conf, experiment.dataset.labelmap
    source, fitted = experiment.extractor.source, results.fitted_images
    eps = hf_config.norm_eps(conf.backbone, source)
    # no config holds the epsilon that weights from the hub set
    norm_eps = {} if eps in (None, conf.backbone.norm_eps) else {"norm_eps": eps}
    facts: dict[str, Any] = {
        "format": 1,
        "config": portable_config(conf),
        "config_hash": experiment.config_hash,
        "head": asdict(conf.head),
        "labelmap": {"ids": list(labelmap.ids), "names": list(labelmap.names)},
        "preprocess": experiment.extractor.preprocess.identity,
        "backbone": {
            "model": chosen_checkpoint(conf.backbone).model,
            "weights": {"kind": source.kind, **_weights_facts(source)},
            **norm_eps,
        },
        "answer": experiment.identity,
        "split_digest": experiment.dataset.split_digest,
        "fit": {
            **fitted.facts(),
            "notes": notes.notes_of(experiment, results, of_fit=True),
        },
    }
    if results.cascade is not None:
        facts[precision_checks.CASCADE] = dict(results.cascade)
    if results.has_backbone:  # readable without the weights that the training began with
        facts |= {"whole": True, "hashed": experiment.plain}
    tensors |= fitted.tensors()
    if isinstance(means := results.class_means, ClassMeans):
        tensors |= means.tensors()
    facts[class_means.FACTS] = {"reason": means} if isinstance(means, str) else means.facts()
    return tensors, facts


def portable_config(conf: Config) -> dict[str, object]:
    """The config without paths: enough to compose it again on another machine."""
    plain = asdict(conf)
    del plain["runtime"]
    for name in ("checkpoint", "run", "against", "image"):
        del plain[name]
    plain["task"].pop("certify", None)  # as without it: it changes no prediction
    del plain["dataset"]["root"], plain["dataset"]["table"], plain["backbone"]["weights"]
    return plain


def print_summary(
    conf: Config, dataset: Dataset, stack_check: str, record: Mapping[str, Any], folder: Path
) -> None:
    """Print the numbers of a run, the notes on them, its cost and its folder.

    A sweep prints one table of all its jobs at its end, so its jobs print only what that lacks.

    Args:
        stack_check: as in the environment stamp. record: as in metrics.json.
        folder: of the sealed run.
    """
    splits = [name for name in ("val", "test") if name in record]
    if (reads := record["test_reads"]) > 1:
        console.say(
            f"note: the test split was read {reads} times: an earlier process of this run stopped "
            "before its record was complete"
        )
    if stack_check == "skipped":
        console.say("note: runtime.stack_check=false, this stack was not validated")
    rows = [["top-1 [95 %]", *(interval(record[name]) for name in splits)]]
    if len(dataset.labelmap) >= TOP5_FROM:
        rows.append(["top-5", *(percent(record[name]["top5"]) for name in splits)])
    for label, key in (("mean per class", "mean_per_class"), ("macro-F1", "macro_f1")):
        rows.append([f"{label} [95 %]", *(interval(record[name], key) for name in splits)])
    rows.append(["calibration error", *(percent(record[name]["ece"]) for name in splits)])
    rows.append(["loss (nats)", *(number(record[name]["loss"]) for name in splits)])
    rows.append(["images", *(str(record[name]["n"]) for name in splits)])
    if not console.is_job_of_sweep():
        console.table(_title(conf, dataset), ["%", *splits], rows)
    for note in record["notes"]:
        console.say_summary(f"note: {note}")
    for name in splits:
        if record[name]["intervals_note"] is not None:
            console.say_summary(f"note: {name}: {record[name]['intervals_note']}")
    parts = comparability.Comparability(**record["comparability"])
    for name, sentence in precision_checks.sentences(record):
        console.say_summary(f"{name}: {sentence}")
    for reason in comparability.reasons(record, parts):
        console.say_summary(f"note: {reason.sentence}")
    localization.print_localization(record)
    console.say_summary(f"cost: {_describe_cost(record['cost'])}")
    console.provenance(dataset.name, dataset.card)
    console.say_summary(f"record: {folder}")


def _describe_cost(cost: Mapping[str, Any]) -> str:
    """The cost of a run in one line, and the conditions under which its rate was measured."""
    parts = []
    if cost["parameters"]:
        parts = [f"{cost['parameters'] / 1e6:.1f} M parameters"]
        parts.append(f"{cost['macs'] / 1e9:.2f} GMAC per image")
        if cost["images_per_s"] is not None:  # None if a process was killed before it was stored
            measured = measured_rate.from_cost(cost)
            rate = f"{cost['images_per_s']:.0f} images/s in evaluation"
            if measured.threads is not None:
                rate += f" with {measured.threads} thread{'s' * (measured.threads != 1)}"
            note = measured.load_note
            parts.append(rate if note is None else f"{rate} ({note})")
    parts.append(f"{cost['forwarded']} images forwarded now, {cost['seconds']:.1f} s in total")
    return ", ".join(parts)


def _title(conf: Config, dataset: Dataset) -> str:
    weights_note = "" if conf.backbone.pretrained else ", random weights"
    partial = ", PARTIAL COPY" if dataset.partial else ""
    subset = f", SUBSET {dataset.subset['name']}" if dataset.subset else ""
    parts = " finetuned" if conf.task.name == "train" else ""
    parts += "" if conf.part_attention.name == "off" else f" · {conf.part_attention.name}"
    return (
        f"{conf.backbone.name} {conf.backbone.size}{weights_note} · {conf.head.name}{parts} · "
        f"{conf.resolution.side} px · "
        f"{dataset.name} ({len(dataset.labelmap)} classes{partial}{subset}"
        f"{console.test_mark(dataset.test_source)})"
    )
