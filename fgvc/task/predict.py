"""task=predict: a checkpoint and pictures -> class names with probabilities; no dataset is needed.

An operation: it has no config hash and no run folder. What is said on the way goes to stderr, so
that the answer has stdout, or its file, for itself.
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
from fgvc.config.schema import Config
from fgvc.config.sweep_expansion import key_of
from fgvc.data.decode import decode
from fgvc.exit_codes import DONE, FAILED
from fgvc.model.part_attention import Selection
from fgvc.pipeline import prediction_output, restore
from fgvc.pipeline.determinism import set_up_process
from fgvc.pipeline.inference import stream_batches
from fgvc.pipeline.input_images import find_images
from fgvc.pipeline.job import Job
from fgvc.pipeline.localization import draw_overlay
from fgvc.pipeline.prediction_output import ImagePrediction
from fgvc.pipeline.restore import StoredCheckpoint
from fgvc.record import console, image_overlay
from fgvc.store import atomic
from fgvc.store.output_path import output_file
from fgvc.types import Manifest, UserError, WeightsSource
from fgvc.untrusted.escape import visible


def run(job: Job) -> int:
    """Classify every picture that image= names; bad ones are named and passed over.

    Returns:
        The exit code: FAILED when no picture could be classified.

    Raises:
        UserError: no pictures, a damaged checkpoint, or weights that are not to be found.
        OSError: an answer or overlay cannot be written.
    """
    shape, target = _output(job)
    with contextlib.redirect_stdout(sys.stderr), find_images(job.conf.image) as given:
        kept = restore.load_checkpoint(job)
        conf, source = _settled(kept, job)
        manifest = replace(given.manifest, max_pixels=conf.dataset.max_pixels)
        found = _answers(kept, conf, source, job, manifest)
        bad = sum(one.error is not None for one in found)
        if given.note:
            console.say(given.note)
        console.say(f"{len(found) - bad} classified, {bad} could not be read")
    about = {"checkpoint": kept.id, "config_hash": kept.metadata["config_hash"]}
    root = (
        image_argument.STDIN if image_argument.reads_stdin(job.conf.image) else str(manifest.root)
    )
    about |= {"root": root, "title": _title(conf, len(kept.classes))}
    text = prediction_output.FORMATS[shape](found, kept.classes, about)
    if target is not None:
        atomic.write_text(target, text)
    else:
        with contextlib.suppress(BrokenPipeError):  # a reader that had enough ends no run
            if sys.stdout.isatty():  # a file or a pipe gets every byte
                text = visible(text, keep="\n")
            print(text, end="", flush=True)
    return DONE if bad < len(found) else FAILED


def _output(job: Job) -> tuple[str, Path | None]:
    """task.format, which the suffix of task.output gives where the command does not, and the file.

    Raises:
        UserError: a file of another format.
    """
    given, shape = job.conf.task.output, job.conf.task.format
    if given is None:
        return shape, None
    suffix = Path(given).suffix.lower().removeprefix(".")
    if suffix in prediction_output.FORMATS and not any(
        key_of(o) == "task.format" for o in job.overrides
    ):
        shape = suffix
    suffixes = {"table": (".txt", ".md", ".log")}.get(shape, (f".{shape}",))
    return shape, output_file(given, f"predictions{suffixes[0]}", suffixes)


def _settled(kept: StoredCheckpoint, job: Job) -> tuple[Config, WeightsSource]:
    conf, source = restore.load_config_and_weights(kept, job)
    if job.conf.task.overlay is not None and conf.part_attention.name == "off":
        raise UserError(
            f"task.overlay={job.conf.task.overlay}: {kept.file} has part_attention=off and selects "
            "no patches to draw; leave task.overlay out"
        )
    if conf.dataset.box_crop:
        console.say("note: made for pictures cut to their boxes (dataset.box_crop); cut these too")
    return conf, source


def _answers(
    kept: StoredCheckpoint, conf: Config, source: WeightsSource, job: Job, manifest: Manifest
) -> list[ImagePrediction]:
    """One for every picture, in their order, computed batch by batch."""
    device = set_up_process(conf)
    model = kept.classifier(conf, source, device)
    row_N = np.arange(len(manifest))
    found: dict[int, ImagePrediction] = {}
    with console.progress("pictures", len(manifest), "images") as advance:
        for seen in stream_batches(model, conf, manifest, row_N, device, check_digest=False):
            batch, logits_BC = seen.batch, seen.logits_BK.cpu().numpy()
            for bad in batch.bad:
                console.say(prediction_output.printable(bad.message))
                found[bad.row] = ImagePrediction(manifest.path[bad.row], error=bad.message)
            rows = batch.row_B.tolist()
            best = _best(logits_BC, job.conf.task.top_k) if rows else []
            named = [
                ImagePrediction(manifest.path[row], one)
                for row, one in zip(rows, best, strict=True)
            ]
            found |= zip(rows, named, strict=True)
            if seen.selection is not None and job.conf.task.overlay is not None:
                folder = Path(job.conf.task.overlay).expanduser()
                _draw(folder, kept, conf, manifest, seen.selection, named)
            advance(len(rows) + len(batch.bad))
    return [found[row] for row in range(len(manifest))]


def _best(logits_BC: np.ndarray, most: int) -> list[list[tuple[int, float]]]:
    """Class index and probability of the most probable classes, of each picture."""
    top_BK = metrics.topk(logits_BC, min(most, logits_BC.shape[1]))
    logprob_BC = metrics.log_probabilities(logits_BC)
    share_BK = np.exp(np.take_along_axis(logprob_BC, top_BK, axis=1))
    pairs = zip(top_BK.tolist(), share_BK.tolist(), strict=True)
    return [list(zip(index_K, share_K, strict=True)) for index_K, share_K in pairs]


def _draw(
    folder: Path,
    kept: StoredCheckpoint,
    conf: Config,
    manifest: Manifest,
    selected: Selection,
    named: Sequence[ImagePrediction],
) -> None:
    """An overlay of each picture of a batch, under the picture's own path and name."""
    for place, one in enumerate(named):
        index, share = one.best[0]
        data = untrusted.read_bytes(manifest.root / one.path, untrusted.PICTURE)
        picture_CHW = decode(data, one.path, manifest.max_pixels)
        score_BN = selected.patch_scores
        drawn = draw_overlay(
            picture_CHW,
            conf,
            image_overlay.title(kept.classes[index][1], share),
            selected.index_BK[place].cpu().numpy(),
            None if score_BN is None else score_BN[place].cpu().numpy(),
        )
        atomic.write_bytes(folder / f"{one.path}.png", image_overlay.png(drawn))


def _title(conf: Config, classes: int) -> str:
    return (
        f"{conf.backbone.name} {conf.backbone.size} · {conf.head.name} · "
        f"{conf.resolution.side} px · {conf.dataset.name} ({classes} classes)"
    )
