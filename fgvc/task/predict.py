"""task=predict: a checkpoint and images -> class names with probabilities, without a dataset.

An operation: it has no config hash and no run folder. Progress and notes go to stderr, so that only
the predictions go to stdout or their file.
B batch, C classes, K most probable ones or selected patches.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fgvc import metrics, untrusted
from fgvc.config import image_argument
from fgvc.config.override_grammar import key_of
from fgvc.config.schema import Config
from fgvc.data.decode import decode
from fgvc.exit_codes import DONE, FAILED
from fgvc.html.class_names import display_names
from fgvc.html.formats import plain
from fgvc.model.part_attention import Selection
from fgvc.parallel import bf16_cpu
from fgvc.pipeline import cascade, prediction_output, restore
from fgvc.pipeline.determinism import set_up_process
from fgvc.pipeline.inference import stream_batches
from fgvc.pipeline.input_images import find_images
from fgvc.pipeline.job import Job
from fgvc.pipeline.localization import draw_overlay
from fgvc.pipeline.prediction_output import PredictionHeader, PredictionRow
from fgvc.pipeline.restore import StoredCheckpoint
from fgvc.record import console, image_overlay
from fgvc.record.class_means import ClassMeans
from fgvc.store import atomic
from fgvc.store.output_path import output_file
from fgvc.types import Manifest, UserError, WeightsSource
from fgvc.untrusted.escape import visible


def run(job: Job) -> int:
    """Classify every image of image=; each unreadable image is listed with its error.

    Returns:
        The exit code: FAILED when no image could be classified.

    Raises:
        UserError: no images, a damaged checkpoint, or missing weights.
        OSError: predictions or an overlay cannot be written.
    """
    format_name, target = _output(job)
    with contextlib.redirect_stdout(sys.stderr), find_images(job.conf.image) as (images, note):
        stored = restore.load_checkpoint(job)
        conf, source = restore.load_config_and_weights(stored, job)
        overlay = job.conf.task.overlay
        if overlay is not None and conf.part_attention.name == "off":
            raise UserError(
                f"task.overlay={overlay}: {stored.file} has part_attention=off, so there are no "
                "selected patches to draw; leave task.overlay out"
            )
        if conf.dataset.box_crop:
            console.say(
                "note: made for images cropped to their boxes (dataset.box_crop); crop these too"
            )
        manifest = replace(images, max_pixels=conf.dataset.max_pixels)
        predictions = _predict(stored, conf, source, job, manifest)
        bad = sum(prediction.error is not None for prediction in predictions)
        if note:
            console.say(note)
        console.say(f"{len(predictions) - bad} classified, {bad} could not be read")
    from_stdin = image_argument.reads_stdin(job.conf.image)
    header = PredictionHeader(
        stored.id,
        stored.metadata["config_hash"],
        image_argument.STDIN if from_stdin else str(manifest.root),
        f"{conf.backbone.name} {conf.backbone.size} · {conf.head.name} · "
        f"{conf.resolution.side} px · {conf.dataset.name} ({len(stored.classes)} classes)",
        stored.class_means,
    )
    text = prediction_output.FORMATS[format_name](predictions, stored.classes, header)
    if target is not None:
        atomic.write_text(target, text)
    else:
        with contextlib.suppress(BrokenPipeError):  # `| head` closed the pipe
            is_terminal = sys.stdout.isatty()  # a file or a pipe gets every byte
            print(visible(text, keep="\n") if is_terminal else text, end="", flush=True)
    return DONE if bad < len(predictions) else FAILED


def _output(job: Job) -> tuple[str, Path | None]:
    """The format and the file. Without task.format, the suffix of task.output gives the format.

    Raises:
        UserError: a file of another format.
    """
    output, format_name = job.conf.task.output, job.conf.task.format
    if output is None:
        return format_name, None
    suffix = Path(output).suffix.lower().removeprefix(".")
    if suffix in prediction_output.FORMATS and not any(
        key_of(item) == "task.format" for item in job.overrides
    ):
        format_name = suffix
    suffixes = {"table": (".txt", ".md", ".log")}.get(format_name, (f".{format_name}",))
    return format_name, output_file(output, f"predictions{suffixes[0]}", suffixes)


def _predict(
    stored: StoredCheckpoint, conf: Config, source: WeightsSource, job: Job, manifest: Manifest
) -> list[PredictionRow]:
    """A prediction per image, in order, computed batch by batch."""
    device = set_up_process(conf)
    if (slow := bf16_cpu.slow_note(conf.precision, device.type)) is not None:
        console.say(f"note: {slow}")
    model, bound = stored.classifier(conf, source, device), cascade.stored_bound(stored)
    row_N, repeated = np.arange(len(manifest)), 0
    predictions: dict[int, PredictionRow] = {}
    with console.progress("predict", len(manifest), "images") as advance:
        for result in stream_batches(model, conf, manifest, row_N, device, check_digest=False):
            batch, logits_BC = result.batch, result.logits_BK.cpu().numpy()
            if bound is not None:
                logits_BC, count = cascade.repeat_batch(model, conf, manifest, result, bound)
                repeated += count
            for bad in batch.bad:
                console.say(plain(bad.message))
                predictions[bad.row] = PredictionRow(manifest.path[bad.row], error=bad.message)
            rows = batch.row_B.tolist()
            readable: list[PredictionRow] = []
            if rows:
                top_BK = metrics.topk(logits_BC, min(job.conf.task.top_k, logits_BC.shape[1]))
                logprob_BC = metrics.log_probabilities(logits_BC)
                probability_BK = np.exp(np.take_along_axis(logprob_BC, top_BK, axis=1))
                means, distance_B = stored.class_means, [None] * len(rows)
                if isinstance(means, ClassMeans):
                    feature_BD = result.feature_BD.cpu().numpy()
                    distance_B = means.relative_distance(feature_BD).tolist()
                top = zip(top_BK.tolist(), probability_BK.tolist(), distance_B, strict=True)
                for row, (index_K, probability_K, distance) in zip(rows, top, strict=True):
                    best = list(zip(index_K, probability_K, strict=True))
                    readable.append(PredictionRow(manifest.path[row], best, distance=distance))
            predictions |= zip(rows, readable, strict=True)
            if result.selection is not None and job.conf.task.overlay is not None:
                folder = Path(job.conf.task.overlay).expanduser()
                _draw(folder, stored, conf, manifest, result.selection, readable)
            advance(len(rows) + len(batch.bad))
    if bound is not None:
        console.say(
            f"{repeated} repeated in fp32: a margin of at most {bound['bound']:.3g}, the bound of "
            "the checkpoint's cascade"
        )
    return [predictions[row] for row in range(len(manifest))]


def _draw(
    folder: Path,
    stored: StoredCheckpoint,
    conf: Config,
    manifest: Manifest,
    selection: Selection,
    predictions: Sequence[PredictionRow],
) -> None:
    """Write an overlay of each image of a batch, under the path and name of the image."""
    names = display_names([name for _, name in stored.classes])
    for position, prediction in enumerate(predictions):
        index, probability = prediction.best[0]
        data = untrusted.read_bytes(manifest.root / prediction.path, untrusted.IMAGE)
        image_CHW = decode(data, prediction.path, manifest.max_pixels)
        score_BN = selection.patch_scores
        overlay = draw_overlay(
            image_CHW,
            conf,
            image_overlay.title(names[index], probability),
            selection.index_BK[position].cpu().numpy(),
            None if score_BN is None else score_BN[position].cpu().numpy(),
        )
        atomic.write_bytes(folder / f"{prediction.path}.png", image_overlay.png(overlay))
