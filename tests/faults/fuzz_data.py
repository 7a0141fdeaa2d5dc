"""Doors of data and settings for a fuzz: small files as they should be, and what reads them.

DOORS: name -> (seeds, read, suffix). `read` gets the path of a mutated seed in its own folder
and must end well, or with one of REFUSALS in one line.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fgvc.config.errors import ConfigError
from fgvc.config.experiment_file import expand_experiment
from fgvc.config.weight_files import shards
from fgvc.data import digest_cache
from fgvc.data.datasets import cub, dogs, inat2017, nabirds, table
from fgvc.model.backbone import hf_config
from fgvc.run import main
from fgvc.types import UserError
from tests.dataset_conf import table_conf

REFUSALS = (UserError, ConfigError, OSError)
Door = tuple[list[bytes], Callable[[Path], None], str]
SEPARATOR = b"\x1e"  # between the files of a door that reads several
PICTURES = ("a.jpg", "b.jpg", "c.jpg", "d.jpg")

CUB = {
    "images.txt": "1 001.A/a.jpg\n2 001.A/b.jpg\n3 002.B/c.jpg\n4 002.B/d.jpg\n",
    "image_class_labels.txt": "1 1\n2 1\n3 2\n4 2\n",
    "train_test_split.txt": "1 1\n2 0\n3 1\n4 0\n",
    "classes.txt": "1 001.A\n2 002.B\n",
    "bounding_boxes.txt": "1 0.0 1.0 20.0 30.0\n2 1 1 2 2\n3 0 0 9 9\n4 0 0 1e1 9\n",
    "parts/parts.txt": "1 back\n2 beak\n",
    "parts/part_locs.txt": "1 1 3.0 4.0 1\n1 2 0.0 0.0 0\n",
}
NABIRDS = {
    "images.txt": "".join(f"{n:032x} {1 + n % 2:04d}/{n:032x}.jpg\n" for n in range(1, 5)),
    "image_class_labels.txt": "".join(f"{n:032x} {1 + n % 2}\n" for n in range(1, 5)),
    "train_test_split.txt": "".join(f"{n:032x} {n % 2}\n" for n in range(1, 5)),
    "classes.txt": "0 Birds\n1 Ducks\n2 Gulls\n",
    "hierarchy.txt": "1 0\n2 0\n",
    "sizes.txt": "".join(f"{n:032x} 60 45\n" for n in range(1, 5)),
}
DOG = b"""<annotation><size><width>60</width><height>45</height></size><object><name>dog</name>
<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object></annotation>"""
INAT = {
    "images": [
        {"id": n, "file_name": f"train_val_images/Aves/A/{n}.jpg", "width": 60, "height": 45.5}
        for n in range(1, 4)
    ],
    "annotations": [{"id": n, "image_id": n, "category_id": n % 2} for n in range(1, 4)],
    "categories": [
        {"id": n, "name": name, "supercategory": "Aves"} for n, name in enumerate(("A", "B"))
    ],
}
INAT_BOXES = {"annotations": [{"id": 1, "image_id": 2, "bbox": [1.0, 2, 3.5, 4]}]}
CSV = """path,label,split,id
a.jpg,Möwe,train,1
b.jpg,鳥,train,2
c.jpg,Möwe,test,3
d.jpg,鳥,test,4
"""
EXPERIMENT = """# @package _global_
defaults:
  - override /dataset: cub
  - override /backbone: dinov2
seed: 3
task: {seeds: [0, 1]}
head:
  k: &k 5
dataset:
  prompts: ["a {}."]
"""
CONFIG = b'{"model_type": "vit", "hidden_size": 32, "layer_norm_eps": 1e-12, "labels": {"0": "a"}}'
SHARDS = b'{"metadata": {"total_size": 9}, "weight_map": {"a": "x-00001-of-00002.safetensors"}}'


def _joined(files: dict[str, str]) -> bytes:
    return SEPARATOR.join(text.encode() for text in files.values())


def _laid_out(path: Path, files: dict[str, str]) -> Path:
    """The folder with the files that a mutated seed holds, in their order."""
    root = path.parent / "copy"
    for name, data in zip(files, path.read_bytes().split(SEPARATOR), strict=False):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    root.mkdir(exist_ok=True)
    return root


def _read_cub(path: Path) -> None:
    cub.read(_laid_out(path, CUB), partial=False)


def _read_nabirds(path: Path) -> None:
    nabirds.read(_laid_out(path, NABIRDS))


def _read_dog(path: Path) -> None:
    file = path.parent / "Annotation" / "dog" / "a"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(path.read_bytes())
    dogs._read_annotations(path.parent, ["dog/a.jpg"])


def _read_boxes(path: Path) -> None:
    annotations = path.parent / "train2017.json"
    annotations.write_text(json.dumps(INAT))
    inat2017._read_box_file(inat2017._read_annotations(annotations), path)


def _read_table(path: Path) -> None:
    for name in PICTURES:
        (path.parent / name).touch()
    table.read(table_conf(path, path.parent), cache_root=path.parent / "cache")


def _parquets() -> list[bytes]:
    names = ["Möwe", "鳥", "Möwe", "鳥"]
    features = {"label": {"_type": "ClassLabel", "names": ["Möwe", "鳥"]}}
    about = json.dumps({"info": {"features": features}})
    strings = pa.table({"path": list(PICTURES), "label": names})
    kinds = pa.table(
        {
            "path": pa.array(list(PICTURES), pa.large_string()),
            "label": pa.array(names).dictionary_encode(),
            "when": pa.array([0, 1, 2, None], pa.timestamp("ns")),
            "price": pa.array([None, 1, 2, 3], pa.decimal128(9, 2)),
            "tags": pa.array([["x"], [], None, ["y", "z"]]),
            "nothing": pa.nulls(4),
        }
    )
    numbered = pa.table({"path": list(PICTURES), "label": [0, 1, 0, 1]})
    numbered = numbered.replace_schema_metadata({"huggingface": about})
    inside = pa.table(
        {
            "image": [{"bytes": b"\xff\xd8 picture", "path": name} for name in PICTURES],
            "label": names,
        }
    )
    return [_parquet(table) for table in (strings, kinds, numbered, inside)]


def _parquet(rows: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(rows, sink)
    return sink.getvalue()


def _json_lines(rows: str) -> bytes:
    header, *lines = (line.split(",") for line in rows.splitlines())
    objects = (dict(zip(header, line, strict=True)) for line in lines)
    return "\n".join(json.dumps(row) for row in objects).encode()


def _read_experiment(path: Path) -> None:
    expand_experiment([f"experiment={path}"])


def _read_object(path: Path) -> None:
    hf_config.read_beside(path, path.name)


COMMANDS = (
    ("-m", "head=knn", "head.k=1,5", "seed=range(0,3)"),
    ("task=train", "backbone=vit_tiny", "task.learning_rate=1e-3", "task.epochs=2"),
    ("task=predict", "checkpoint=/nowhere", "image=[/nowhere/a.jpg,/nowhere/*.png]"),
    ("dataset=table", "dataset.table=/nowhere/t.csv", "dataset.prompts=['a {}.']"),
    ("sweep=search", "head=linear", "head.l2=tag(log,interval(1e-4,1))"),
    ("--cfg", "job", "backbone.checkpoints.x={model: y, patch: 16, native: 224, width: 192}"),
)


def _command(words: tuple[str, ...]) -> bytes:
    return "\n".join(words).encode()


def _run_command(path: Path) -> None:
    """Check the command whose arguments are the lines of the file; no run is started."""
    words = path.read_bytes().decode(errors="surrogateescape").split("\n")
    roots = ("output", "cache", "multirun", "data", "weights")
    places = [f"runtime.{root}_root={path.parent / root}" for root in roots]
    output, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(error):
        code = main([*words, *places, "runtime.dry_run=true"])
    lines = error.getvalue().splitlines()
    assert code == 0 or (code == 2 and len(lines) == 1), (words, code, lines)
    assert not [place for place in path.parent.iterdir() if place != path], words


DOORS: dict[str, Door] = {
    "command": (list(map(_command, COMMANDS)), _run_command, ".txt"),
    "cub": ([_joined(CUB)], _read_cub, ".txt"),
    "nabirds": ([_joined(NABIRDS)], _read_nabirds, ".txt"),
    "dogs-xml": ([DOG], _read_dog, ".xml"),
    "inat2017": (
        [json.dumps(INAT).encode()],
        lambda path: void(inat2017._read_annotations(path)),
        ".json",
    ),
    "inat2017-boxes": ([json.dumps(INAT_BOXES).encode()], _read_boxes, ".json"),
    "csv": ([CSV.encode(), CSV.encode("utf-16")], _read_table, ".csv"),
    "tsv": ([CSV.replace(",", "\t").encode()], _read_table, ".tsv"),
    "jsonl": ([_json_lines(CSV)], _read_table, ".jsonl"),
    "parquet": (_parquets(), _read_table, ".parquet"),
    "experiment": ([EXPERIMENT.encode()], _read_experiment, ".yaml"),
    "config-json": ([CONFIG], _read_object, ".json"),
    "shards": ([SHARDS], lambda path: void(shards.weight_map(path)), ".json"),
    "manifest": (
        [bytes(96)],
        lambda path: void(digest_cache.load(path, 1, lambda note: None)),
        ".bin",
    ),
}


def void(value: object) -> None:
    """Drop what a reader returns."""
