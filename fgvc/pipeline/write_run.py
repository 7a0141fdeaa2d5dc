"""The results of a task -> the record of the run, sealed, and a summary on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from fgvc import metrics
from fgvc.config.schema import Config, chosen_checkpoint
from fgvc.data import loader
from fgvc.data.view_transform import grid_side
from fgvc.model.backbone import hf_config
from fgvc.parallel.device import peak_memory_mib
from fgvc.pipeline import localization, notes
from fgvc.pipeline.build_model import stride_of
from fgvc.pipeline.experiment import Experiment, Results, identity, store_weights
from fgvc.pipeline.features import WEIGHTS_NOTES
from fgvc.pipeline.print_summary import print_summary
from fgvc.pipeline.run_images import DatasetImages
from fgvc.record import comparability, env_stamp, fitted_images, prediction_tables, privacy
from fgvc.record.run_dir import TEST_READ_LOG, now
from fgvc.record.writers import WRITERS, RunRecord, WriterSpec, write_record
from fgvc.report.run_rows import run_name
from fgvc.types import Predictions, WeightsSource


def write_run(
    experiment: Experiment, results: Results, writers: Sequence[WriterSpec] | None = None
) -> Path:
    """Write every file of the run folder, seal it, and print a summary; returns the folder.

    Args:
        writers: None: WRITERS. The checkpoint, whose digest names the folder, must be among them.
    """
    run, conf, source = experiment.run, experiment.conf, experiment.extractor.source
    numbers = _numbers(experiment, results)
    if source.kind == "file" and source.path is not None:
        store_weights(conf, source.path)
    forced, side = results.fit.forced, conf.resolution.side
    record = RunRecord(
        run=run,
        conf=conf,
        task=experiment.task,
        name=run_name(experiment.plain, experiment.task, side, forced, source.made_by),
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
    write_record(record, WRITERS if writers is None else writers)
    folder = run.seal(conf.runtime.retention_days)
    print_summary(conf, experiment.dataset, experiment.stack_check, numbers, folder)
    return folder


# --- metrics.json ---


def _numbers(experiment: Experiment, results: Results) -> dict[str, Any]:
    """The content of metrics.json."""
    run, dataset, test = experiment.run, experiment.dataset, results.predictions["test"]
    by_split = {
        split: split_metrics(experiment, predictions)
        for split, predictions in results.predictions.items()
    }
    maps = results.attention_maps
    return {
        **by_split,
        "cost": _cost(experiment, results),
        "test_reads": len(run.test_reads()),
        TEST_READ_LOG: run.test_reads(),
        "worst_pairs": _worst_pairs(experiment, test),
        **_comparability(experiment, results),
        "overlap": _overlap(experiment, results),
        "predictions_digest": prediction_tables.predictions_digest(
            *prediction_tables.predicted_classes(dataset.manifest, test)
        ),
        "metric_version": metrics.VERSION,
        **localization.localization_metrics(experiment.conf, dataset, maps),
        **results.numbers,
        "unreadable": notes.unreadable_counts(dataset, results.unreadable),
        "notes": notes.notes_of(experiment, results),
    }


def split_metrics(experiment: Experiment, predictions: Predictions) -> dict[str, Any]:
    """The metrics of one split with intervals, and with distances where there is a hierarchy."""
    logits_NC, label_N = predictions.logits_NC, predictions.label_N
    classes, hierarchy = experiment.num_classes, experiment.dataset.hierarchy
    numbers = metrics.evaluate(logits_NC, label_N, classes)
    numbers |= metrics.class_intervals(metrics.confusion(logits_NC, label_N, classes))
    if hierarchy is not None:
        numbers |= metrics.hierarchical_metrics(
            metrics.topk(logits_NC, min(5, classes)), label_N, hierarchy
        )
    return numbers


def _comparability(experiment: Experiment, results: Results) -> dict[str, object]:
    """The parts that two rows of a table must share to be ranked together, and their digests.

    comparability_key: digest of all parts. comparability_base: digest without the parts of the fit,
    with which a zero-shot run, which is fitted on nothing, joins the tables.
    """
    dataset, fit = experiment.dataset, results.fit
    parts = comparability.describe(
        experiment.plain,
        fitted_on=(fit.manifest, fit.split),
        evaluated_on=(dataset.manifest.digest, dataset.split_digest),
        labelmap=dataset.labelmap.digest,
        metrics=metrics.VERSION,
        forced=fit.forced,
    )
    return {
        "comparability": asdict(parts),
        "comparability_key": parts.key,
        "comparability_base": parts.base,
    }


def _overlap(experiment: Experiment, results: Results) -> dict[str, int]:
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
    counters = experiment.extractor.counters
    cost = dict(results.cost or experiment.extractor.cost())
    cost.pop(WEIGHTS_NOTES, None)  # reported as notes
    return {
        **cost,
        "decoded": counters.decoded,
        "forwarded": counters.forwarded,
        "prompts": counters.prompts,
        "extract_seconds": counters.seconds,
        "seconds": experiment.run.seconds,
        "process_peak_memory_mib": peak_memory_mib(experiment.extractor.device),
    }


def _worst_pairs(experiment: Experiment, test: Predictions) -> list[dict[str, object]]:
    """The most frequent confusions, with class names."""
    names = experiment.dataset.labelmap.names
    matrix = metrics.confusion(test.logits_NC, test.label_N, experiment.num_classes)
    return [
        {**pair, "label_name": names[pair["label"]], "pred_name": names[pair["pred"]]}
        for pair in metrics.worst_pairs(matrix, prediction_tables.WORST)
    ]


# --- environment stamp ---


def _stamp(experiment: Experiment) -> dict[str, object]:
    conf, dataset, run = experiment.conf, experiment.dataset, experiment.run
    source = experiment.extractor.source
    is_subset = dataset.subset is not None
    row = chosen_checkpoint(conf.backbone)
    return {
        **env_stamp.environment(experiment.extractor.device),
        **identity(experiment),
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
        "finished": now().isoformat(),
        "seconds": run.seconds,
    }


def _weights_facts(source: WeightsSource) -> dict[str, object]:
    """Revision and digest of the weights, and the run of fgvc that wrote them, if any."""
    made_by = {} if source.made_by is None else {"made_by": dict(source.made_by)}
    return {"revision": source.revision, "sha256": source.sha256, **made_by}


# --- checkpoint ---


def _checkpoint(
    experiment: Experiment, results: Results
) -> Path | tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of ckpt.bin, or the checkpoint that was evaluated."""
    if isinstance(results.head, Path):
        return results.head
    prefix = "" if results.has_backbone else "head."
    tensors = {f"{prefix}{name}": tensor for name, tensor in results.head.items()}
    tensors |= results.fit.tensors()
    fit = {**results.fit.facts(), "notes": notes.notes_of_fit(experiment, results)}
    facts = {**_checkpoint_facts(experiment), "fit": fit}
    if results.has_backbone:  # readable without the weights that the training began with
        facts |= {"whole": True, "hashed": experiment.plain}
    return tensors, facts


def _checkpoint_facts(experiment: Experiment) -> dict[str, object]:
    """The facts of a checkpoint, without times and paths: equal runs write equal bytes."""
    conf, labelmap = experiment.conf, experiment.dataset.labelmap
    source = experiment.extractor.source
    eps = hf_config.norm_eps(conf.backbone, source)
    # no config holds the epsilon that weights from the hub set
    norm_eps = {} if eps in (None, conf.backbone.norm_eps) else {"norm_eps": eps}
    return {
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
        "answer": identity(experiment),
        "split_digest": experiment.dataset.split_digest,
    }


def portable_config(conf: Config) -> dict[str, object]:
    """The config without paths: enough to compose it again on another machine."""
    plain = asdict(conf)
    del plain["runtime"]
    for name in ("checkpoint", "run", "against", "image"):
        del plain[name]
    del plain["dataset"]["root"], plain["dataset"]["table"], plain["backbone"]["weights"]
    return plain
