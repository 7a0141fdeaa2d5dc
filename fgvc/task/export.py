"""task=export: a checkpoint -> one with its backbone inside, as safetensors and ONNX, and a card.

An operation. Both files are held against the original checkpoint on pictures before the folder has
its name: it is whole and verified, or absent.
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
from fgvc.record.run_dir import SHORT, index_files
from fgvc.report import model_card
from fgvc.store import atomic, hashing
from fgvc.store.output_path import output_folder
from fgvc.types import Manifest, UserError, WeightsSource

PICTURES = 32  # of the dataset's test images, where the command names none
FILES = (checkpoint.FILE, onnx_export.FILE, model_card.FILE)
CPU = torch.device("cpu")
Classify = Callable[[torch.Tensor], np.ndarray]  # uint8 pixels_BCHW -> logits_BK


@dataclasses.dataclass
class Agreement:
    """How far a file's answers are from the original checkpoint's, picture by picture."""

    pictures: int = 0
    other_top1: int = 0
    difference: float = 0.0  # the largest of a logit

    def add(self, expected_BK: np.ndarray, found_BK: np.ndarray) -> None:
        self.pictures += len(expected_BK)
        self.other_top1 += int((expected_BK.argmax(1) != found_BK.argmax(1)).sum())
        self.difference = max(self.difference, float(np.abs(expected_BK - found_BK).max()))


def run(job: Job) -> None:
    """Export the checkpoint that the command names.

    Raises:
        UserError: a damaged checkpoint, weights or pictures that are not to be found, a model that
            ONNX cannot express, or a file that does not answer as the checkpoint does.
        OSError: the folder cannot be written.
    """
    kept = restore.load_checkpoint(job)
    conf, source = restore.load_config_and_weights(kept, job)
    conf = dataclasses.replace(conf, precision="fp32")  # what both files compute in
    target = _target(job, kept)
    _check_exportable(conf, kept)
    manifest, row_N = _pictures(job, conf)
    seed_everything(conf)
    with atomic.new_folder(target) as folder:
        original = kept.classifier(conf, source, CPU)
        written = _write_checkpoint(folder, kept, conf, original, job)
        _write_graph(folder, written, conf)
        found = _compared(original, written, conf, source, manifest, row_N)
        _check(found, job.conf.task.tolerance)
        atomic.write_text(folder / model_card.FILE, _card(kept, written, conf, folder, found))
        atomic.write_json(folder / "artifacts.json", index_files(folder))
    _tell(found, target)


def _target(job: Job, kept: StoredCheckpoint) -> Path:
    """The folder to be, which must be new and no part of a run.

    Raises:
        UserError: it exists already, or lies in a run folder, which is immutable.
    """
    usual = Path(job.conf.runtime.output_root).expanduser() / "export" / kept.id[:SHORT]
    given = job.conf.task.output
    target = usual if given is None else output_folder(given, FILES)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise UserError(
            f"task.output={given or target}: {target} exists already; an export is a folder of its "
            "own: name a new one with task.output="
        )
    return target


def _check_exportable(conf: Config, kept: StoredCheckpoint) -> None:
    if conf.part_attention.name == "random":
        raise UserError(
            f"{kept.file} has part_attention=random, whose patches are drawn by the path of an "
            "image in its dataset, which a graph does not see: export another choice"
        )


def _pictures(job: Job, conf: Config) -> tuple[Manifest, np.ndarray]:
    """What the files are verified on: image=, or the first test images of the dataset.

    Raises:
        UserError: neither is here.
    """
    if job.conf.image is not None:
        found = list_images(job.conf.image)
        if found.note:
            console.say(found.note)
        manifest = dataclasses.replace(found.manifest, max_pixels=conf.dataset.max_pixels)
        return manifest, np.arange(len(manifest))
    place = conf.dataset.root or conf.dataset.table
    if place is None or not Path(place).expanduser().exists():
        raise UserError(
            f"no picture to verify the export on: dataset.root={place} is not here; give "
            "image=FILE, a folder of pictures, or dataset.root=PATH"
        )
    dataset = datasets.load(conf.dataset, Path(conf.runtime.cache_root).expanduser(), _silent)
    return dataset.manifest, dataset.split.test_N[:PICTURES]


def _silent(n: int, note: str = "") -> None:
    """No bar for what takes a moment."""


def _write_checkpoint(
    folder: Path, kept: StoredCheckpoint, conf: Config, original: Classifier, job: Job
) -> StoredCheckpoint:
    """ckpt.bin with backbone and head, in the form that task=train writes; as it reads back.

    Raises:
        UserError: the config composed here is not the one the checkpoint was made with.
    """
    facts = dict(kept.metadata)
    if kept.embedded_weights is None:
        plain = resolved(restore.merge_config(kept, job))
        restore.check_config_hash(kept, plain)
        facts |= {"whole": True, "hashed": plain, "exported_from": kept.id}
    checkpoint.write(folder, {**original.state_dict(), **kept.fit.tensors()}, facts)
    return restore.read_checkpoint(folder / checkpoint.FILE)


def _write_graph(folder: Path, written: StoredCheckpoint, conf: Config) -> None:
    facts = written.metadata
    told: dict[str, Any] = {
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
        for key, value in told.items()
    }
    model = written.classifier(conf, _inside(written), CPU)
    transform = evaluation_transform(conf)
    onnx_export.write(
        folder / onnx_export.FILE, model, transform.normalize, transform.side, metadata
    )


def _compared(
    original: Classifier,
    written: StoredCheckpoint,
    conf: Config,
    source: WeightsSource,
    manifest: Manifest,
    row_N: np.ndarray,
) -> dict[str, Agreement]:
    """Each file's answers against those of the original checkpoint.

    Raises:
        UserError: none of the pictures can be read.
    """
    transform = evaluation_transform(conf)
    again = written.classifier(conf, _inside(written), CPU)
    graph = onnx_export.load_session(written.file.with_name(onnx_export.FILE), conf.runtime.threads)
    files: dict[str, Classify] = {
        checkpoint.FILE: lambda pixels: again(transform.normalize(pixels)).numpy(),
        onnx_export.FILE: lambda pixels: graph(pixels.numpy()),
    }
    found = {name: Agreement() for name in files}
    known = bool(manifest.sha256)  # a picture that only the command names has no digest
    for seen in stream_batches(original, conf, manifest, row_N, CPU, known):
        for bad in seen.batch.bad:
            console.say(bad.message)
        for name, classify in files.items() if len(seen.batch.row_B) else ():
            with torch.inference_mode():
                found[name].add(seen.logits_BK.numpy(), classify(seen.batch.pixels_BCHW))
    if not found[checkpoint.FILE].pictures:
        raise UserError(f"image={manifest.root}: no picture could be read to verify the export on")
    return found


def _check(found: Mapping[str, Agreement], tolerance: float) -> None:
    """UserError unless every file names the same classes and gives the same logits."""
    for name, one in found.items():
        if one.other_top1 or not one.difference <= tolerance:  # a NaN is no agreement
            raise UserError(
                f"{name} does not answer as the checkpoint does: {one.other_top1} of "
                f"{one.pictures} pictures get another class, logits differ by up to "
                f"{one.difference:.2g} (task.tolerance={tolerance:g}); nothing was kept"
            )


def _card(
    kept: StoredCheckpoint,
    written: StoredCheckpoint,
    conf: Config,
    folder: Path,
    found: Mapping[str, Agreement],
) -> str:
    row, seen = chosen_checkpoint(conf.backbone), conf.backbone.contamination
    if not conf.backbone.pretrained:
        seen = "nothing: the training began with random weights"
    return model_card.render_model_card(
        kept.file.parent,
        written.metadata,
        ids={"checkpoint": written.id, "exported_from": kept.id},
        weights={"license": row.license, "contamination": seen},
        agreement={name: dataclasses.asdict(one) for name, one in found.items()},
        digests={
            file.name: hashing.sha256_file(file)
            for file in sorted(folder.iterdir())
            if file.name != model_card.FILE
        },
    )


def _inside(written: StoredCheckpoint) -> WeightsSource:
    source = written.embedded_weights
    assert source is not None
    return source


def _tell(found: Mapping[str, Agreement], target: Path) -> None:
    rows = [
        [name, str(one.pictures), str(one.pictures - one.other_top1), f"{one.difference:.1e}"]
        for name, one in found.items()
    ]
    console.table(
        "against the original checkpoint",
        ["file", "pictures", "same class", "largest difference of a logit"],
        rows,
    )
    console.say(f"export: {target}")
