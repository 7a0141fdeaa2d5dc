"""Small files of every format that may hold a model or a state, and their readers.

`DOORS` names each door: files that it reads, a callable that reads one, and the ending of its name.
A reader may raise `EXPECTED` only. Some doors take the inside of a file, which is wrapped anew, so
that checksums and digests around it stay right.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from fgvc.config import finetuned_weights, schema
from fgvc.config.compose import composed, typed
from fgvc.config.errors import ConfigError
from fgvc.config.weight_digests import check_sidecars, fill_weights
from fgvc.data.preprocess import evaluation_transform
from fgvc.model import backbone
from fgvc.model.backbone import weights
from fgvc.model.backbone.tokenizer import PromptTokenizer
from fgvc.pipeline import restore, write_run
from fgvc.pipeline.job import Job
from fgvc.pipeline.resume_checks import check_content
from fgvc.record import checkpoint
from fgvc.record.resume_state import States
from fgvc.store import hashing
from fgvc.store.tensor_file import CONTENT, KEY
from fgvc.types import UserError

EXPECTED = (UserError, ConfigError, OSError)
Read = Callable[[Path], None]
Door = tuple[list[bytes], Read, str]  # files, reader, ending of a name
SIDE = 32


@functools.cache
def _conf() -> schema.Config:
    overrides = ["backbone=vit", "backbone.size=mini", "backbone.pretrained=false", "head=linear"]
    side = (f"resolution.side={SIDE}", f"resolution.name=r{SIDE}")
    return typed(
        composed([*overrides, *side, "dataset.subset=tiny", "runtime.weights_root=/nowhere"])
    )


def _backbone(path: Path | None) -> schema.Backbone:
    import copy

    conf = copy.deepcopy(_conf().backbone)
    conf.checkpoints = {"mini": conf.checkpoints["mini"]}
    conf.checkpoints["mini"].architecture = {"depth": 1, "embed_dim": 8, "num_heads": 2}
    conf.checkpoints["mini"].width = 8
    if path is not None:
        conf.pretrained, conf.weights = True, str(path)
    return conf


@functools.cache
def _state() -> dict[str, torch.Tensor]:
    from fgvc.types import WeightsSource

    model = backbone.build(_backbone(None), SIDE, WeightsSource("random", "mini"), 0)
    return dict(model.trunk.state_dict())


def _facts() -> dict[str, Any]:
    conf = _conf()
    row = _backbone(None).checkpoints["mini"]
    assert conf.head.name == "linear"
    facts: dict[str, Any] = {
        "format": 1,
        "config": write_run.portable_config(conf),
        "config_hash": "0" * 64,
        "head": {"name": "linear"},
        "labelmap": {"ids": ["1", "2"], "names": ["a b", "ü"]},
        "preprocess": evaluation_transform(conf).identity,
        "backbone": {
            "model": row.model,
            "weights": {"kind": "random", "revision": None, "sha256": None},
        },
        "answer": {"manifest_digest": "0" * 64},
        "split_digest": "0" * 64,
        "fit": {"images": 2, "validation": 0, "forced": False, "notes": []},
        "whole": True,
        "hashed": {},
    }
    facts["config"]["backbone"]["checkpoints"] = {"mini": dataclasses.asdict(row)}
    return json.loads(hashing.canonical_json(facts))


def _tensors() -> dict[str, torch.Tensor]:
    trunk = {f"backbone.trunk.{name}": value for name, value in _state().items()}
    head = {"head.weight_CD": torch.zeros(2, 8), "head.bias_C": torch.zeros(2)}
    images = {"fit.images": torch.arange(2), "fit.validation": torch.arange(0)}
    return {**trunk, **head, **images}


# --- readers ---


@functools.cache
def _composed(*overrides: str) -> Any:
    return composed(overrides)


def opened(file: Path, *overrides: str) -> Any:
    """What task=predict, task=export and task=eval do with a checkpoint before any picture."""
    arguments = ("task=predict", "image=x.png", *overrides)
    cfg = _composed(*arguments).copy()
    cfg.checkpoint = str(file)
    experiment = Job(typed(cfg), arguments, "")
    saved = restore.load_checkpoint(experiment)
    conf, source = restore.load_config_and_weights(saved, experiment)
    return saved.classifier(conf, source, torch.device("cpu"))


def _read_weights(path: Path) -> None:
    """As a command reads the weights of a backbone, from the config to the model."""
    conf = _backbone(path)
    fill_weights(conf, "/nowhere")
    finetuned_weights.check_backbone(conf, path, reads_text=False)
    check_sidecars(conf, "native")
    backbone.build(conf, SIDE, weights.find(conf), 0)


def _read_any_tensors(path: Path) -> None:
    weights.read(path)


def _read_checkpoint(path: Path) -> None:
    restore.read_checkpoint(path)


def _read_facts(path: Path) -> None:
    """The metadata of a checkpoint whose digest fits it, where it has one."""
    text = path.read_bytes().decode("utf-8", "surrogateescape").encode("utf-8", "replace").decode()
    tensors = dict(sorted(_tensors().items()))
    try:
        facts = json.loads(text)
        facts[CONTENT] = checkpoint._content_digest(tensors, facts)
        text = hashing.canonical_json(facts).decode()
    except (ValueError, TypeError, RecursionError):
        pass
    file = path.with_name("ckpt.bin")
    file.write_bytes(safetensors.torch.save(tensors, metadata={KEY: text}))
    try:
        opened(file)
    finally:
        file.unlink()


def _read_state(path: Path) -> None:
    """A resume state under the name of its bytes."""
    state_file = path.with_name(f"state-00000001.{hashing.sha256_file(path)}.pt")
    path.rename(state_file)
    try:
        _, state = States(path.parent, 1).load(state_file)
        check_content(state, state_file)
    finally:
        state_file.unlink()


def _read_inside(name: str, others: dict[str, bytes], read: Read) -> Read:
    """A file of an archive whose other files and checksums are right."""

    def wrapped(path: Path) -> None:
        file = path.with_name("wrapped.pt")
        with zipfile.ZipFile(file, "w") as archive:
            for other, data in {**others, name: path.read_bytes()}.items():
                archive.writestr(other, data)
        try:
            read(file)
        finally:
            file.unlink(missing_ok=True)

    return wrapped


def _read_beside(name: str) -> Read:
    """A file that a library wrote beside weights."""

    def read(path: Path) -> None:
        folder = path.parent / "beside"
        folder.mkdir(exist_ok=True)
        safetensors.torch.save_file(_state(), folder / "model.safetensors")
        (folder / name).write_bytes(path.read_bytes())
        try:
            _read_weights(folder / "model.safetensors")
        finally:
            (folder / name).unlink()

    return read


def _read_index(path: Path) -> None:
    file = path.with_name("model.safetensors.index.json")
    safetensors.torch.save_file(_state(), path.with_name("a.safetensors"))
    path.rename(file)
    try:
        _read_weights(file)
    finally:
        file.unlink()


def _read_tokenizer(path: Path) -> None:
    PromptTokenizer(path, 16, 300)(["a bird"])


# --- seeds ---


def _saved(value: object, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def _inside(data: bytes) -> tuple[str, bytes, dict[str, bytes]]:
    """Name and bytes of the pickle in an archive, and its other files."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in files if name.endswith("data.pkl"))
    return name, files.pop(name), files


def _npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **{"embedding/kernel": np.ones((4, 4, 3, 8), np.float32), "cls": np.ones(8)})
    return buffer.getvalue()


def _tar(version: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=version) as archive:
        entry = tarfile.TarInfo("w.pth")
        entry.size = 3
        archive.addfile(entry, io.BytesIO(b"abc"))
    return buffer.getvalue()[:2048]


class _Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


@functools.cache
def _torchscript() -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):  # deprecated, but such files are around
        torch.jit.save(torch.jit.trace(_Net(), torch.zeros(1, 2)), buffer)
    return buffer.getvalue()


def _checkpoint() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.write(Path(folder), _tensors(), _facts())
        return (Path(folder) / checkpoint.FILE).read_bytes()


def _resume() -> dict[str, Any]:
    trainer = {
        "model": {"a": torch.zeros(2)},
        "optimiser": {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(2)}},
        "scaler": {},
        "ema": None,
        "step": 1,
        "best": {"select": "top1", "patience": None, "epoch": None, "top1": 0.5, "loss": 1.0},
    }
    state = {"trainer": trainer, "epochs_judged": 0, "steps_per_epoch": 2, "unreadable": []}
    state |= {"history": [("train/loss", 1, 0.5)], "config": {"seed": 0}, "identity": {}}
    state |= {"origin": {"from": None, "changed": [], "other_code": False}}
    return {"step": 1, "best": None, "state": state}


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


@functools.cache
def _doors() -> dict[str, Door]:
    state, small = _state(), {"a.b": torch.ones(2, 3), "a.c": torch.ones(3)}
    checkpoint_bytes = _checkpoint()
    name, inside, others = _inside(_saved({"model": small, "epoch": 3}))
    module = _inside(_torchscript())
    resume = _inside(_saved(_resume()))
    bert = {"architecture": "vit_small_patch16_224", "num_classes": 0}
    bert["pretrained_cfg"] = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}
    vit = {"model_type": "vit", "layer_norm_eps": 1e-12, "num_attention_heads": 2}
    processor = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_normalize": True}
    processor |= {"size": {"height": 224, "width": 224}, "resample": 3, "rescale_factor": 1 / 255}
    index = {"metadata": {"total_size": 9}, "weight_map": dict.fromkeys(state, "a.safetensors")}
    vocabulary = {"<pad>": 0, "<eos>": 1, "<unk>": 2, "a": 3}
    tokenizer = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "merges": []}}
    tokenizer["model"] |= {"vocab": vocabulary, "unk_token": "<unk>"}  # type: ignore[operator]
    return {
        "safetensors": ([safetensors.torch.save(state)], _read_weights, ".safetensors"),
        "checkpoint": ([checkpoint_bytes], _read_checkpoint, ".bin"),
        "checkpoint as weights": ([checkpoint_bytes], _read_weights, ".bin"),
        "checkpoint facts": ([_json(_facts())], _read_facts, ".json"),
        "torch.save": ([_saved(state), _saved({"model": small})], _read_weights, ".pth"),
        "torch.save before 1.6": ([_saved(small, True)], _read_any_tensors, ".pth"),
        "pickle of torch.save": ([inside], _read_inside(name, others, _read_any_tensors), ".pkl"),
        "numpy": ([_npz()], _read_any_tensors, ".npz"),
        "torchscript": ([_torchscript()], _read_any_tensors, ".pt"),
        "pickle of torchscript": (
            [module[1]],
            _read_inside(module[0], module[2], _read_any_tensors),
            ".pkl",
        ),
        "tar": ([_tar(), _tar(tarfile.PAX_FORMAT)], _read_any_tensors, ".pth"),
        "index of shards": ([_json(index)], _read_index, ".json"),
        "config.json": ([_json(bert), _json(vit)], _read_beside("config.json"), ".json"),
        "preprocessor_config.json": (
            [_json(processor)],
            _read_beside("preprocessor_config.json"),
            ".json",
        ),
        "tokenizer": ([_json(tokenizer)], _read_tokenizer, ".json"),
        "resume state": ([_saved(_resume()), _saved(_resume(), True)], _read_state, ".pt"),
        "pickle of a resume state": (
            [resume[1]],
            _read_inside(resume[0], resume[2], _read_state),
            ".pkl",
        ),
    }


class _Doors(Mapping[str, Door]):
    """The doors by name; their files are made when the first one is opened, not on import."""

    def __getitem__(self, name: str) -> Door:
        return _doors()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(NAMES)

    def __len__(self) -> int:
        return len(NAMES)


NAMES = (
    "safetensors",
    "checkpoint",
    "checkpoint as weights",
    "checkpoint facts",
    "torch.save",
    "torch.save before 1.6",
    "pickle of torch.save",
    "numpy",
    "torchscript",
    "pickle of torchscript",
    "tar",
    "index of shards",
    "config.json",
    "preprocessor_config.json",
    "tokenizer",
    "resume state",
    "pickle of a resume state",
)
DOORS = _Doors()
