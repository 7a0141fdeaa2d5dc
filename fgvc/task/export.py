"""task=export: a checkpoint -> safetensors and ONNX files with its backbone inside, and a card.

An operation. Both files are compared with the original checkpoint on images before the folder gets
its name: thus it is complete and verified, or absent.
B batch, C 3 channels, H and W pixels, K classes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fgvc.config.compose import resolved
from fgvc.config.schema import Config, chosen_checkpoint
from fgvc.data import dataset as datasets
from fgvc.data.preprocess import evaluation_transform
from fgvc.model import onnx_export
from fgvc.model.classifier import Classifier
from fgvc.pipeline import restore
from fgvc.pipeline.determinism import seed_everything
from fgvc.pipeline.inference import stream_batches
from fgvc.pipeline.input_images import list_images
from fgvc.pipeline.job import Job
from fgvc.pipeline.restore import StoredCheckpoint
from fgvc.record import checkpoint, console
from fgvc.record.class_means import ClassMeans
from fgvc.record.run_dir import SHORT, index_files
from fgvc.report import model_card
from fgvc.store import atomic, hashing
from fgvc.store.output_path import output_folder
from fgvc.types import Manifest, UserError

MAX_IMAGES = 32  # test images to verify on, if the command gives no image=
FILES = (checkpoint.FILE, onnx_export.FILE, model_card.FILE)
CPU = torch.device("cpu")
Classify = Callable[[torch.Tensor], np.ndarray]  # uint8 pixels_BCHW -> logits_BK


@dataclasses.dataclass
class Agreement:
    """How far the predictions of a file differ from those of the original checkpoint."""

    images: int = 0
    other_top1: int = 0
    difference: float = 0.0  # of a logit, the largest

    def add(self, expected_BK: np.ndarray, actual_BK: np.ndarray) -> None:
        self.images += len(expected_BK)
        self.other_top1 += int((expected_BK.argmax(1) != actual_BK.argmax(1)).sum())
        self.difference = max(self.difference, float(np.abs(expected_BK - actual_BK).max()))


def run(job: Job) -> None:
    """Export the checkpoint that the command names.

    Raises:
        UserError: a damaged checkpoint, missing weights or images, a model that ONNX cannot
            express, or a file whose predictions differ from those of the checkpoint.
        OSError: the folder cannot be written.
    """
    stored = restore.load_checkpoint(job)
    conf, source = restore.load_config_and_weights(stored, job)
    conf = dataclasses.replace(conf, precision="fp32")  # both files compute in it
    default = Path(job.conf.runtime.output_root).expanduser() / "export" / stored.id[:SHORT]
    output = job.conf.task.output
    target = default if output is None else output_folder(output, FILES)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise UserError(
            f"task.output={output or target}: {target} exists already; name a new folder with "
            "task.output="
        )
    if conf.part_attention.name == "random":
        raise UserError(
            f"{stored.file} has part_attention=random, whose patches are drawn by the path of an "
            "image in its dataset, which a graph does not see: export another choice"
        )
    manifest, row_N = _images(job, conf)
    seed_everything(conf)
    with atomic.new_folder(target) as folder:
        original = stored.classifier(conf, source, CPU)
        metadata = dict(stored.metadata)
        if not stored.whole:
            plain = resolved(restore.merge_config(stored, job))
            restore.check_config_hash(stored, plain)
            metadata |= {"whole": True, "hashed": plain, "exported_from": stored.id}
        tensors = original.state_dict() | stored.fitted_images.tensors()
        if isinstance(stored.class_means, ClassMeans):
            tensors |= stored.class_means.tensors()
        checkpoint.write(folder, tensors, metadata)
        written = restore.read_checkpoint(folder / checkpoint.FILE)
        _write_graph(folder, written, conf)
        agreements = _compare(original, written, conf, manifest, row_N, job.conf.task.tolerance)
        card = _card(stored, written, conf, folder, agreements)
        atomic.write_text(folder / model_card.FILE, card)
        atomic.write_json(folder / "artifacts.json", index_files(folder))
    rows = []
    for name, agreement in agreements.items():
        counts = (agreement.images, agreement.images - agreement.other_top1)
        rows.append([name, *map(str, counts), f"{agreement.difference:.1e}"])
    columns = ("file", "images", "same class", "largest difference of a logit")
    console.table("against the original checkpoint", columns, rows)
    console.say(f"export: {target}")


def _images(job: Job, conf: Config) -> tuple[Manifest, np.ndarray]:
    """The images to verify the files on: image=, or the first test images of the dataset."""
    if job.conf.image is not None:
        manifest, note = list_images(job.conf.image)
        if note:
            console.say(note)
        manifest = dataclasses.replace(manifest, max_pixels=conf.dataset.max_pixels)
        return manifest, np.arange(len(manifest))
    root = conf.dataset.root or conf.dataset.table
    if root is None or not Path(root).expanduser().exists():
        raise UserError(
            f"dataset.root={root}: does not exist, and the export needs images to verify; give "
            "image=FILE, a folder of images, or dataset.root=PATH"
        )
    dataset = datasets.load(conf.dataset, Path(conf.runtime.cache_root).expanduser())
    return dataset.manifest, dataset.split.test_N[:MAX_IMAGES]


def _write_graph(folder: Path, written: StoredCheckpoint, conf: Config) -> None:
    facts = written.metadata
    description: dict[str, Any] = {
        "input": "uint8 RGB, batch x 3 x side x side, after resize and crop; normalization inside",
        "labels": [{"id": key, "name": name} for key, name in written.classes],
        "preprocess": facts["preprocess"],
        "model": facts["backbone"]["model"],
        "weights": facts["backbone"]["weights"],
        "config_hash": facts["config_hash"],
        "checkpoint": written.id,
        "exported_from": facts.get("exported_from"),
    }
    metadata = {
        f"fgvc.{key}": value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in description.items()
    }
    model, transform = written.classifier(conf, None, CPU), evaluation_transform(conf)
    file = folder / onnx_export.FILE
    onnx_export.write(file, model, transform.normalize, transform.side, metadata)


def _compare(
    original: Classifier,
    written: StoredCheckpoint,
    conf: Config,
    manifest: Manifest,
    row_N: np.ndarray,
    tolerance: float,
) -> dict[str, Agreement]:
    model, transform = written.classifier(conf, None, CPU), evaluation_transform(conf)
    graph = onnx_export.load_session(written.file.with_name(onnx_export.FILE), conf.runtime.threads)
    files: dict[str, Classify] = {
        checkpoint.FILE: lambda pixels: model(transform.normalize(pixels)).numpy(),
        onnx_export.FILE: lambda pixels: graph(pixels.numpy()),
    }
    agreements = {name: Agreement() for name in files}
    check_digest = bool(manifest.sha256)  # images of the command line have no digest
    for result in stream_batches(original, conf, manifest, row_N, CPU, check_digest):
        for bad in result.batch.bad:
            console.say(bad.message)
        for name, classify in files.items() if len(result.batch.row_B) else ():
            with torch.inference_mode():
                agreements[name].add(result.logits_BK.numpy(), classify(result.batch.pixels_BCHW))
    if not agreements[checkpoint.FILE].images:
        raise UserError(f"image={manifest.root}: no image could be read to verify the export on")
    for name, agreement in agreements.items():
        if agreement.other_top1 or not agreement.difference <= tolerance:  # NaN fails too
            raise UserError(
                f"{name}: its predictions differ from the checkpoint's: {agreement.other_top1} of "
                f"{agreement.images} images get another class, logits differ by up to "
                f"{agreement.difference:.2g} (task.tolerance={tolerance:g}); nothing was written"
            )
    return agreements


def _card(
    stored: StoredCheckpoint,
    written: StoredCheckpoint,
    conf: Config,
    folder: Path,
    agreements: Mapping[str, Agreement],
) -> str:
    row, contamination = chosen_checkpoint(conf.backbone), conf.backbone.contamination
    if not conf.backbone.pretrained:
        contamination = "nothing: the training began with random weights"
    return model_card.render_model_card(
        stored.file.parent,
        written.metadata,
        ids={"checkpoint": written.id, "exported_from": stored.id},
        weights={"license": row.license, "contamination": contamination},
        agreement={name: dataclasses.asdict(agreement) for name, agreement in agreements.items()},
        digests={
            file.name: hashing.sha256_file(file)
            for file in sorted(folder.iterdir())
            if file.name != model_card.FILE
        },
    )
