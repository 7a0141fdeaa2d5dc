"""Checkpoints, resume states and weights that are damaged or hostile: rows 8-12, 30 and 49."""

from __future__ import annotations

import copy
import functools
import io
import itertools
import json
import os
import random
import signal
import socket
import struct
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from fgvc.config.compose import composed, typed
from fgvc.config.errors import ConfigError
from fgvc.config.schema import architecture
from fgvc.config.schema.dataset import Generator
from fgvc.config.schema.tensor_names import tensor_names
from fgvc.data import synthetic
from fgvc.model.backbone import build, weights
from fgvc.model.backbone.hf_config import check_transformers
from fgvc.model.backbone.hf_keys import Layout
from fgvc.record import checkpoint
from fgvc.record.resume import BestLostError, States
from fgvc.report.audit import audited
from fgvc.store import digest
from fgvc.store.tensor_file import KEY
from fgvc.task.resume_content import check_content
from fgvc.types import UserError, WeightsSource
from tests.faults.fuzz_checkpoints import DOORS, EXPECTED, mutants, opened
from tests.jobs import FINETUNE

HUGE = 10**9
MUTANTS = 12  # per door
Change = Callable[[dict[str, Any]], None]
TRAIN = (*FINETUNE, "task.epochs=1", "task.learning_rate=5e-3", "runtime.threads=1")


# --- row 49: what a checkpoint says of itself chooses nothing here ---


@pytest.fixture
def no_network(monkeypatch):
    """Fail at any connection and at any model that is built with the library's own fetching."""
    from huggingface_hub import constants

    tried: list[object] = []

    def connect(*arguments: object, **_: object) -> None:
        tried.append(arguments)
        raise OSError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield
    assert tried == []


@pytest.fixture
def built(monkeypatch):
    """Names of the models that timm was asked for."""
    names: list[str] = []
    honest = timm.create_model

    def create(name: str, *arguments: Any, **more: Any) -> object:
        names.append(name)
        return honest(name, *arguments, **more)

    monkeypatch.setattr(timm, "create_model", create)
    return names


@pytest.fixture
def forged(finished, small_probe, tmp_path):
    """forged(change, whole) -> a checkpoint with other facts, consistent down to its digest."""

    def make(change: Change, whole: bool = False) -> Path:
        made = finished(*(TRAIN if whole else small_probe))
        tensors, facts, _ = checkpoint.read(made.folder)
        facts = copy.deepcopy(facts)
        change(facts)
        folder = tmp_path / "forged"
        folder.mkdir(exist_ok=True)
        checkpoint.write(folder, tensors, facts)
        return folder / checkpoint.FILE

    return make


def at(facts: dict[str, Any], key: str, value: object) -> None:
    *nodes, name = key.split(".")
    for node in nodes:
        facts = facts[node]
    facts[name] = value


def setting(key: str, value: object) -> Change:
    return lambda facts: at(facts, key, value)


ROW = "config.backbone.checkpoints.mini"
HOSTILE: dict[str, tuple[str, object, str]] = {  # what: key, value, words of the message
    "hub name": (f"{ROW}.model", "hf-hub:evil/model", "model=hf-hub:evil/model"),
    "hub_ name": (f"{ROW}.model", "hf_hub:evil/model", "model=hf_hub"),
    "local folder": (f"{ROW}.model", "local-dir:/tmp/evil", "model=local-dir"),
    "path": (f"{ROW}.model", "../../../etc/passwd", "model=../"),
    "address": (f"{ROW}.model", "https://evil.example/x", "model=https"),
    "unknown model": (f"{ROW}.model", "vit_evil_patch16_224", "vit_evil_patch16_224"),
    "long name": (f"{ROW}.model", "v" * 10**6, "model=vvv"),
    "repository": (f"{ROW}.repo", "https://evil.example", "repo=https"),
    "branch": (f"{ROW}.revision", "../../../../etc/passwd", "revision=../"),
    "tag": (f"{ROW}.tag", "../../evil", "tag=../"),
    "patch": (f"{ROW}.patch", HUGE, f"patch={HUGE}"),
    "width": (f"{ROW}.width", HUGE, f"width={HUGE}"),
    "native": (f"{ROW}.native", HUGE, f"native={HUGE}"),
    "depth": (f"{ROW}.architecture", {"depth": 100_000}, "architecture.depth=100000"),
    "wide": (f"{ROW}.architecture.embed_dim", 10**7, "architecture.embed_dim"),
    "heads": (f"{ROW}.architecture.num_heads", -1, "architecture.num_heads=-1"),
    "fraction": (f"{ROW}.architecture.mlp_ratio", 1e9, "architecture.mlp_ratio"),
    "registers": (f"{ROW}.architecture.reg_tokens", 10**8, "architecture.reg_tokens"),
    "file": (f"{ROW}.architecture.checkpoint_path", "/tmp/x", "architecture.checkpoint_path"),
    "source": (f"{ROW}.architecture.pretrained_cfg", "hf-hub:e/m", "architecture.pretrained_cfg"),
    "overlay": (f"{ROW}.architecture.pretrained_cfg_overlay", {"url": "x"}, "pretrained_cfg_o"),
    "cache": (f"{ROW}.architecture.cache_dir", "/tmp/evil", "architecture.cache_dir"),
    "features": (f"{ROW}.architecture.features_only", True, "architecture.features_only"),
    "weights": (f"{ROW}.architecture.pretrained", True, "architecture.pretrained"),
    "class": (f"{ROW}.architecture._target_", "os.system", "architecture._target_"),
    "code": (f"{ROW}.architecture.trust_remote_code", True, "architecture.trust_remote_code"),
    "layer": (f"{ROW}.architecture.act_layer", "os.system", "architecture.act_layer"),
    "library": ("config.backbone.library", "evil", "library"),
    "node": ("config.backbone._target_", "os.system", "_target_"),
    "reader": ("config.dataset.reader", "../../x", "config.dataset.reader"),
    "dataset": ("config.dataset.name", "../../../etc", "config.dataset.name"),
    "secret": ("config.dataset.name", "${oc.env:HOME}", "config.dataset.name"),
    "side": ("config.resolution.side", HUGE, f"resolution.side={HUGE}"),
    "grid": ("config.resolution.grid", HUGE, "resolution.grid"),
    "task": ("config.task.c_count", HUGE, "c_count"),
    "normalization": ("config.backbone.normalization", "../x", "normalization=../x"),
    "preprocessing": ("config.backbone.native", "../x", "native=../x"),
    "preprocess": ("config.preprocess", "evil", "preprocess=evil"),
    "not a number": (f"{ROW}.architecture.depth", "2", "architecture.depth=2"),
    "prompts": ("config.dataset.prompts", {"a": 1}, "prompts"),
    "prompts without end": ("config.dataset.prompts", ["{}"] * 100_000, "more than 10000 settings"),
    "birds": ("config.dataset.generator.train_per_class", HUGE, f"train_per_class={HUGE}"),
    "neighbours": ("head.k", HUGE, "head"),
    "digest": ("backbone.weights.sha256", "../../../etc/passwd", "backbone.weights.sha256"),
    "epsilon": ("backbone.norm_eps", -1, "backbone.norm_eps=-1"),
}


@pytest.mark.fault(49)
@pytest.mark.parametrize(
    ("what", "whole"),
    [
        *((what, False) for what in HOSTILE),
        *((what, True) for what in ("hub name", "depth", "file", "side")),
    ],
)
def test_a_checkpoint_chooses_nothing(forged, no_network, built, what, whole):
    key, value, words = HOSTILE[what]
    file = forged(setting(key, value), whole)
    built.clear()
    with pytest.raises((UserError, ConfigError)) as caught:
        opened(file)
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1500
    assert built == []


@pytest.mark.fault(49)
def test_a_genuine_checkpoint_still_opens(forged):
    for whole in (False, True):
        assert not opened(forged(lambda facts: None, whole)).training


@pytest.mark.fault(49)
def test_a_hub_repository_that_only_the_checkpoint_names_is_not_contacted(forged, no_network):
    def change(facts):
        weights = {"kind": "hub", "revision": "a" * 40, "sha256": "b" * 64}
        facts["backbone"]["weights"] = weights
        facts["config"]["backbone"]["pretrained"] = True
        facts["config"]["backbone"]["checkpoints"]["mini"]["repo"] = "evil/model"

    with pytest.raises(UserError, match="only the checkpoint names it") as caught:
        opened(forged(change))
    assert "hf download evil/model" in str(caught.value)


@pytest.mark.fault(49)
def test_a_huge_model_of_a_checkpoint_is_refused_before_it_is_allocated(forged, forked, ended):
    """Every argument lies within its own bounds; together they would take 400 GB."""

    def change(facts):
        row = facts["config"]["backbone"]["checkpoints"]["mini"]
        row["architecture"] = {"depth": 64, "embed_dim": 8192, "num_heads": 64}
        row |= {"width": 8192, "heads": 64}
        facts["fit"]["validation"] = 0

    for whole, words in ((False, "parameters, more than"), (True, "parameters, more than")):
        file = forged(change, whole)
        with pytest.raises((UserError, ConfigError), match=words):
            limited(opened, file)


def limited(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call with 3 GiB of address space beyond what is mapped now."""
    import resource

    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (mapped + 3 * 2**30, before[1]))
    try:
        return call(*arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.fault(49)
def test_a_checkpoint_cannot_ask_for_more_numbers_than_it_holds(forged):
    def change(facts):
        row = facts["config"]["backbone"]["checkpoints"]["mini"]
        row["architecture"] = {"depth": 12, "embed_dim": 768, "num_heads": 12}
        row |= {"width": 768, "heads": 12}

    with pytest.raises(UserError, match="the checkpoint holds"):
        limited(opened, forged(change, whole=True))


@pytest.mark.fault(49)
def test_every_row_here_passes_the_same_check():
    seen = 0
    for name in ("vit", "clip", "siglip2", "dinov2", "dinov3"):
        conf = typed(composed([f"backbone={name}", "backbone.pretrained=false"])).backbone
        for row in conf.checkpoints.values():
            architecture.check_row(conf.library, row, "row")
            seen += 1
    assert seen > 40


@pytest.mark.fault(49)
def test_the_names_of_both_libraries_are_names():
    import open_clip

    for name in (*timm.list_models(), *open_clip.list_models()):
        assert architecture.NAME.fullmatch(name), name


@pytest.mark.fault(49)
@pytest.mark.parametrize(
    ("library", "arguments", "words"),
    [
        ("open_clip", {"vision_cfg": {"timm_model_name": "hf-hub:e/m"}}, "timm_model_name"),
        ("open_clip", {"text_cfg": {"hf_model_name": "evil/model"}}, "hf_model_name"),
        ("open_clip", {"vision_cfg": {"layers": [3, 4, 6, 3]}}, "layers"),
        ("open_clip", {"text_cfg": {"vocab_size": HUGE}}, "vocab_size"),
        ("open_clip", {"custom_text": True}, "custom_text"),
        ("transformers", {"auto_map": {"AutoModel": "evil--x.Y"}}, "auto_map"),
        ("transformers", {"_name_or_path": "evil/model"}, "_name_or_path"),
        ("transformers", {"text_config": {"vocab_size": True}}, "vocab_size"),
        ("transformers", {"vision_config": {"hidden_act": "os.system"}}, "hidden_act"),
        ("transformers", {"vision_config": []}, "vision_config"),
        ("timm", {"mlp_ratio": float("nan")}, "mlp_ratio"),
        ("timm", {"embed_layer": "x"}, "embed_layer"),
        ("timm", {"img_size": HUGE}, "img_size"),
        ("jax", {}, "backbone.library"),
    ],
)
def test_arguments_of_every_library_are_checked(library, arguments, words):
    with pytest.raises(ConfigError) as caught:
        architecture.check_architecture(library, arguments, "a.b")
    assert words in str(caught.value)
    assert str(caught.value).startswith(("a.b.", "backbone.library"))


# --- row 9, 11, 12: facts that are no facts ---


def rewritten(file: Path, metadata: Any) -> Path:
    """The same tensors under another metadata text, whatever it is."""
    raw = file.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    header["__metadata__"] = metadata
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])
    return file


DEEP = '{"config":' * 5000 + "1" + "}" * 5000
UNFIT: dict[str, tuple[Any, str]] = {
    "a number": ({KEY: "3"}, "no mapping"),
    "a list": ({KEY: "[]"}, "no mapping"),
    "no JSON": ({KEY: "{"}, ""),
    "deep": ({KEY: DEEP}, "nested"),
    "a long number": ({KEY: '{"config": ' + "9" * 5000 + "}"}, "number"),
    "NaN": ({KEY: '{"config": NaN}'}, "NaN"),
    "an infinity": ({KEY: '{"config": 1e999}'}, "not finite"),
    "nothing": ({KEY: "{}"}, "config"),
    "empty nodes": ({KEY: '{"config": {"task": [], "dataset": 1}}'}, "config"),
    "another key": ({"format": "pt"}, KEY),
    "no text": ({KEY: 3}, ""),
}


@pytest.mark.fault(9, 11)
@pytest.mark.parametrize("what", UNFIT)
def test_facts_that_are_no_facts_are_one_line(forged, what):
    metadata, words = UNFIT[what]
    file = rewritten(forged(lambda facts: None), metadata)
    with pytest.raises(UserError) as caught:
        checkpoint.read(file)
    assert str(caught.value).startswith(str(file))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


WRONG: dict[str, tuple[str, object, str]] = {
    "config": ("config", [], "config=[]"),
    "config of texts": ("config.backbone", "x", "config.backbone=x"),
    "rows": ("config.backbone.checkpoints", {"mini": 3}, "checkpoints"),
    "hash": ("config_hash", 10**30 % 2**62, "config_hash"),
    "label map": ("labelmap", None, "labelmap"),
    "names": ("labelmap.names", "ab", "labelmap.names"),
    "no names": ("labelmap.names", [], "labelmap.names"),
    "a number as name": ("labelmap.names", [1, 2], "labelmap.names"),
    "fewer ids": ("labelmap.ids", ["a"], "labelmap: has 2 names and 1 ids"),
    "the same ids": ("labelmap.ids", ["a", "a"], "1 of them different"),
    "weights": ("backbone.weights", 3, "backbone.weights=3"),
    "fit": ("fit", True, "fit=True"),
    "count": ("fit.images", -1, "fit.images=-1"),
    "force": ("fit.forced", "no", "fit.forced=no"),
    "head": ("head", {"name": "linear"}, "head: not the head of its own config"),
    "runs": ("backbone.weights.made_by", {"task": "train"}, "made_by"),
    "answer": ("answer", {}, "answer.manifest_digest"),
    "whole": ("whole", "yes", "whole=yes"),
}


@pytest.mark.fault(12)
@pytest.mark.parametrize("what", WRONG)
def test_each_fact_has_its_type(forged, what):
    key, value, words = WRONG[what]
    file = forged(setting(key, value))
    with pytest.raises(UserError) as caught:
        checkpoint.read(file)
    assert str(caught.value).startswith(str(file))
    assert words in str(caught.value)


@pytest.mark.fault(12)
@pytest.mark.parametrize("key", ["labelmap.names", "config.backbone.contamination", "a\ud800b"])
def test_half_a_letter_in_the_facts_is_one_line(forged, monkeypatch, key):
    """JSON may hold half of a surrogate pair, which no digest or file takes."""
    ascii_only = functools.partial(json.dumps, sort_keys=True, separators=(",", ":"))
    monkeypatch.setattr(digest, "canonical_json", lambda value: ascii_only(value).encode())
    value = ["a\ud800b", "c"] if key == "labelmap.names" else "a\udfffb"
    file = forged(setting(key, value))
    monkeypatch.undo()
    with pytest.raises(UserError, match="half of a pair") as caught:
        checkpoint.read(file)
    assert str(caught.value).isprintable()


@pytest.mark.fault(12)
def test_a_checkpoint_cannot_ask_for_a_disk_of_birds(tmp_path):
    many = Generator(1, 64, 10_000, 10_000, 1024, 0)
    with pytest.raises(UserError, match=r"^dataset\.generator: 1280000 pictures of 1024 pixels"):
        synthetic.write(tmp_path / "birds", many)
    assert not list(tmp_path.iterdir())


@pytest.mark.fault(12)
def test_ten_million_classes_are_refused_at_the_door(forged, monkeypatch):
    """The bound, not the ten million: it is the same check."""
    from fgvc.config.schema import checkpoint_facts

    monkeypatch.setattr(checkpoint_facts, "MOST_BYTES", 50_000)
    names = [str(number) for number in range(10_000)]
    file = forged(lambda facts: facts["labelmap"].update(names=names, ids=names))
    with pytest.raises(UserError, match="more than 50000"):
        checkpoint.read(file)


TENSORS: dict[str, tuple[str, Callable[[torch.Tensor], torch.Tensor], str]] = {
    "narrow bank": ("head.bank_ND", lambda bank: bank[:, :3].contiguous(), "bank_ND has the shape"),
    "flat bank": ("head.bank_ND", lambda bank: bank.flatten(), "bank_ND has the shape"),
    "NaN": ("head.bank_ND", lambda bank: bank * float("nan"), "NaN"),
    "integers": ("head.bank_ND", lambda bank: bank.to(torch.int8), "int8"),
    "labels": ("head.label_N", lambda label: label + 5, "classes"),
    "negative labels": ("head.label_N", lambda label: label - 5, "classes"),
    "fewer labels": ("head.label_N", lambda label: label[:1], "label_N has the shape"),
    "float labels": ("head.label_N", lambda label: label.float(), "label_N holds"),
    "images": ("fit.images", lambda image: image.float(), "fit.images"),
    "images of two axes": ("fit.images", lambda image: image[None], "fit.images"),
}


@pytest.mark.fault(12)
@pytest.mark.parametrize("what", TENSORS)
def test_tensors_that_are_not_those_of_the_head_are_refused(finished, small_probe, tmp_path, what):
    name, change, words = TENSORS[what]
    tensors, facts, _ = checkpoint.read(finished(*small_probe).folder)
    tensors[name] = change(tensors[name])
    checkpoint.write(tmp_path, tensors, facts)
    with pytest.raises(UserError) as caught:
        opened(tmp_path / checkpoint.FILE)
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path))


@pytest.mark.fault(12)
def test_a_head_is_no_larger_than_its_tensors(finished, small_probe, tmp_path):
    probe = (*small_probe[:4], *small_probe[6:], "head=mlp", "head.hidden=8", "head.fit.epochs=1")
    tensors, facts, _ = checkpoint.read(finished(*probe).folder)
    for node in (facts["head"], facts["config"]["head"]):
        node["hidden"] = 2**20
    checkpoint.write(tmp_path, tensors, facts)
    with pytest.raises(UserError, match="shape"):
        limited(opened, tmp_path / checkpoint.FILE)


@pytest.mark.fault(49)
def test_what_lies_beside_a_checkpoint_names_plain_places_only(forged):
    file = forged(lambda facts: None)
    beside = file.with_name("config.yaml")
    for text in (
        "dataset: {root: '${oc.env:HOME}', table: 3}\nbackbone: {weights: [1]}\n",
        "dataset: 3\nbackbone: null\n",
        "[1, 2]",
        "dataset: {root: 2020-02-30}",
    ):
        beside.write_text(text)
        opened(file)
    for text in (
        "a: &a [1]\nb: [*a, *a]\n",
        "a: !!python/object/apply:os.system [x]\n",
        "a: [" * 5000,
    ):
        beside.write_text(text)
        with pytest.raises(UserError) as caught:
            opened(file)
        assert str(caught.value).startswith(f"{beside}: damaged")


@pytest.mark.fault(49)
def test_a_forged_checkpoint_ends_a_command_with_one_line(run, forged, no_network, tmp_path, jpeg):
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    file = forged(setting(f"{ROW}.model", "hf-hub:evil/model"))
    for task in ("predict", "export"):
        ran = run(f"task={task}", f"checkpoint={file}", f"image={tmp_path / 'a.jpg'}", bare=True)
        assert ran.code == 1
        assert ran.err.count("\n") == 1
        assert ran.err.startswith(f"fgvc: {file}: its config")
    ran = run("task=eval", f"checkpoint={file}", bare=True)
    assert (ran.code, ran.err.count("\n"), ran.folder) == (1, 1, None)


@pytest.mark.fault(49)
def test_a_forged_checkpoint_as_backbone_is_refused(forged, built):
    file = forged(setting(f"{ROW}.architecture.checkpoint_path", "/tmp/x"), whole=True)
    given = ["backbone=vit", "backbone.size=mini", f"backbone.weights='{file}'"]
    with pytest.raises(ConfigError, match="architecture.checkpoint_path"):
        typed(composed(given))
    file = forged(setting("config.backbone.checkpoints", {"mini": {"x": 1}}), whole=True)
    with pytest.raises(ConfigError, match="damaged checkpoint"):
        typed(composed(given))
    assert digest.sha256_file(file)


# --- rows 8-11: resume states ---


def harmed(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.fault(8, 9)
def test_bytes_that_torch_fails_on_in_any_way_are_one_line(tmp_path):
    """Legacy pickles, cut or with a bit changed all along, under a name that fits their digest."""
    buffer = io.BytesIO()
    torch.save(
        {"step": 1, "best": None, "state": {"a": torch.zeros(2)}},
        buffer,
        _use_new_zipfile_serialization=False,
    )
    whole, errors = buffer.getvalue(), {}
    cut = [whole[:end] for end in range(1, len(whole), 7)]
    changed = [
        whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :]
        for place in range(0, len(whole), 3)
        for bit in (1, 0x80)
    ]
    for data in (*cut, *changed):
        path = tmp_path / f"state-00000001.{digest.sha256_bytes(data)}.pt"
        path.write_bytes(data)
        try:
            States(tmp_path, 1).load(path)
        except UserError as error:
            errors[path] = error
        path.unlink()
    assert all(str(error).startswith(str(path)) for path, error in errors.items())
    assert all("\n" not in str(error) for error in errors.values())
    assert len({type(error.__cause__) for error in errors.values()}) > 3


CONTENT: dict[str, tuple[str, object]] = {
    "no trainer": ("trainer", None),
    "a list of weights": ("trainer.model", [1]),
    "a number as weight": ("trainer.model", {"a": 1}),
    "steps in words": ("trainer.step", "3"),
    "steps below zero": ("trainer.step", -1),
    "no such best": ("trainer.best", {"evil": 1}),
    "a best of another type": ("trainer.best", {"epoch": "x"}),
    "an average of no tensors": ("trainer.ema", {"n_averaged": 3}),
    "an optimiser by name": ("trainer.optimiser", {"a": {}}),
    "an optimiser without a moment": ("trainer.optimiser", {0: {"step": 1}, 1: {}}),
    "no steps": ("steps_per_epoch", 0),
    "a curve": ("history", [("train/loss", 1)]),
    "unreadable": ("unreadable", [1]),
    "config": ("config", 3),
    "identity": ("identity", []),
    "origin": ("origin", {"from": None}),
}


@pytest.mark.fault(8)
@pytest.mark.parametrize("what", CONTENT)
def test_a_state_of_wrong_content_is_refused_by_its_key(what):
    good = {
        "trainer": {
            "model": {"a": torch.zeros(2)},
            "optimiser": {},
            "scaler": {},
            "ema": None,
            "step": 1,
            "best": {"select": "top1", "patience": None, "epoch": 1, "top1": 0.5, "loss": 1.0},
        },
        "epochs_judged": 1,
        "steps_per_epoch": 3,
        "unreadable": [],
        "history": [["train/loss", 1, 0.5]],
        "config": {},
        "identity": {},
        "origin": {"from": None, "changed": [], "other_code": False},
    }
    check_content(good, "PATH")
    key, value = CONTENT[what]
    at(good, key, value)
    with pytest.raises(UserError, match=f"PATH: .* {key.split('.')[0]}.* no use|missing"):
        check_content(good, "PATH")


# --- item 11: the best weights of a training are lost, its last state is whole ---

LONG = (*FINETUNE, "runtime.threads=1", "runtime.keep_states=2", "runtime.run_id=lost")
AVERAGED = (*LONG, "task.ema=0.9", "task.epochs=2")


@pytest.fixture
def stopped(run, monkeypatch, tmp_path):
    """stopped(steps, ...) -> the resume folder of a finetune that was stopped after so many."""

    def start(steps: int, *more: str) -> Path:
        from fgvc.learn.train.trainer import Trainer

        honest = Trainer.step

        def step(self: Trainer, micros: Any) -> Any:
            report = honest(self, micros)
            if self.done == steps:
                signal.raise_signal(signal.SIGTERM)
            return report

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "step", step)
            ran = run(*LONG, *more)
        assert ran.code == 75, ran.err
        (folder,) = (tmp_path / "outputs").glob("lost/*/in-progress/resume")
        return folder

    return start


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.fault(8, 9)
def test_a_lost_best_stops_the_training_and_the_ways_out_work(run, stopped, monkeypatch):
    """In the second epoch, whose state holds averages too; the first one was judged."""
    monkeypatch.setenv("GIT_DIR", os.devnull)
    folder = stopped(5, "task.ema=0.9", "task.epochs=2")
    (best,), newest = folder.glob("best-*"), max(folder.glob("state-*"))
    harmed(best)
    before = contents(folder)
    next_run = "runtime.run_id=next"
    named = [(f"runtime.resume='{place}'", next_run) for place in (newest, folder)]
    for more in ((), *named):
        ran = run(*AVERAGED, *more)
        assert (ran.code, ran.folder) == (1, None)
        assert ran.err.startswith(f"fgvc: {best} (")
        for words in ("sha256 mismatch", "runtime.resume_force=true", str(newest)):
            assert words in ran.err
        assert ran.err.count("\n") == 1
        assert contents(folder) == before
    force = "runtime.resume_force=true"
    for more in ((force, next_run, f"runtime.resume='{newest}'"), (force,)):
        forced = run(*AVERAGED, *more)
        assert forced.code == 0, forced.err
        assert "resumed after step 5" in forced.out
        assert "without its best weights: not ranked" in forced.out
        record = forced.json("metrics.json")
        resumed, lost = record["resumed"], {"epoch": 1, "step": 3}
        assert (resumed["best_lost"], resumed["forced"], resumed["changed"]) == (lost, True, [])
        assert record["selection"]["best_lost"] == lost
        assert record["selection"]["best_epoch"] == 2
        assert record["comparability"]["forced"] is True
        (note,) = [note for note in record["notes"] if note.startswith("selection: ")]
        assert "the best weights of epoch 1 (step 3) were lost" in note
    fit = next(row for row in audited(forced.folder) if "forced resume" in str(row))
    assert "without the best weights so far" in str(fit)


@pytest.fixture
def states(tmp_path):
    return States(tmp_path / "resume", keep=3)


def saved(states: States, *steps: int, best: int | None = None) -> None:
    for step in steps:
        if step == best:
            states.save_best(step, {"a": torch.full((2,), float(step))})
        states.save(step, {"trainer": step})


@pytest.mark.fault(8)
def test_symmetric_losses_of_last_and_best(states):
    """Last lost: the state before. Best lost: the state before with its own best, or a stop."""
    notes: list[str] = []
    saved(states, 1, 2, best=1)
    saved(states, 3, best=3)
    newest = {step: next(states.folder.glob(f"state-{step:08d}*")) for step in (1, 2, 3)}
    first, third = sorted(states.folder.glob("best-*"))
    before = contents(states.folder)

    def again(**force: Any) -> Any:
        notes.clear()
        return States(states.folder, 3).newest(notes.append, **force)

    harmed(third)
    assert again() == (2, {"trainer": 2})  # an earlier state with its own best: nothing is lost
    assert again(without_best=True) == (2, {"trainer": 2})
    assert str(third) in notes[0]
    harmed(first)
    with pytest.raises(BestLostError) as caught:
        again()
    assert str(caught.value).startswith(f"{third} (")
    assert notes == []
    assert again(without_best=True) == (3, {"trainer": 3})
    harmed(newest[3])
    assert again(without_best=True) == (2, {"trainer": 2})
    for step in (1, 2):
        harmed(newest[step])
    assert again() is None  # nothing whole is left: it is said, and the files stay
    assert "no whole resume state is left" in notes[-1]
    assert contents(states.folder).keys() == before.keys()


@pytest.mark.fault(8)
def test_a_best_of_another_model_is_refused_before_it_is_loaded(run, stopped):
    still = ("task.learning_rate=0", "task.epochs=2")  # the first epoch stays the best
    folder = stopped(5, *still)
    (best,), state = folder.glob("best-*"), max(folder.glob("state-*"))

    def rewritten(path: Path, stem: str, key: str, value: object) -> str:
        record = torch.load(path, weights_only=True)
        record[key] = value
        buffer = io.BytesIO()
        torch.save(record, buffer)
        name = f"{stem}.{digest.sha256_bytes(buffer.getvalue())}.pt"
        (folder / name).write_bytes(buffer.getvalue())
        return name

    other = rewritten(best, "best-00000003", "state", {"a": torch.zeros(2)})
    rewritten(state, "state-00000006.best-00000003", "best", other)
    ran = run(*LONG, *still)
    assert (ran.code, ran.folder) == (1, None)
    assert "the best weights of step 3 are of another model: " in ran.err
    assert ran.err.count("\n") == 1


# --- items 8 and 9: weights, states and their neighbours, mutated ---


@pytest.mark.fault(8, 9, 10, 11)
@pytest.mark.parametrize("door", DOORS)
def test_a_mutated_file_is_read_or_refused_in_one_line(door, tmp_path):
    """A few mutants per door; the corpus is for longer runs."""
    seeds, read, suffix = DOORS[door]
    changed = itertools.islice(mutants(seeds, random.Random(door)), MUTANTS)
    lines = []
    for data in (*seeds, *changed):
        path = tmp_path / f"given{suffix}"
        path.write_bytes(data)
        try:
            read(path)
        except EXPECTED as error:
            lines.append(str(error))
    assert all(str(tmp_path) in line for line in lines)
    assert not any("\n" in line or "weights_only" in line for line in lines)
    assert len(lines) > MUTANTS // 4


# --- rows 10, 11: archives in the place of weights ---


def archived(version: int, *names: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=version) as archive:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = 3
            archive.addfile(entry, io.BytesIO(b"abc"))
    return buffer.getvalue()


def before_posix(data: bytes) -> bytes:
    """The same header without the magic that later formats added, and with its own checksum."""
    head = bytearray(data[:512])
    head[257:265] = bytes(8)
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + data[512:]


TARS = {
    "ustar": archived(tarfile.USTAR_FORMAT, "a/w.pth"),
    "gnu": archived(tarfile.GNU_FORMAT, "a/w.pth"),
    "pax": archived(tarfile.PAX_FORMAT, "ü/w.pth"),
    "before posix": before_posix(archived(tarfile.GNU_FORMAT, "a/w.pth")),
    "cut": before_posix(archived(tarfile.GNU_FORMAT, "a/w.pth"))[:700],
}


@pytest.mark.fault(11)
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt"])
@pytest.mark.parametrize("kind", TARS)
def test_a_tar_in_place_of_weights_is_named(tmp_path, kind, suffix):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(TARS[kind])
    with pytest.raises(UserError, match="are a tar archive: unpack it") as caught:
        weights.read(path)
    assert "weights_only" not in str(caught.value)


@pytest.mark.fault(11)
def test_the_way_out_of_a_tar_works(tmp_path):
    """The command of the message, in a shell, on an archive of real weights."""
    torch.save({"a": torch.ones(2)}, tmp_path / "w.pth")
    path = tmp_path / "all of it.pth"
    with tarfile.open(path, "w") as archive:
        archive.add(tmp_path / "w.pth", "w.pth")
    path.write_bytes(before_posix(path.read_bytes()))
    with pytest.raises(UserError) as caught:
        weights.read(path)
    command = str(caught.value).split("`")[1].replace("FOLDER", str(tmp_path / "out"))
    subprocess.run(command, shell=True, check=True)
    assert torch.equal(weights.read(tmp_path / "out" / "w.pth")["a"], torch.ones(2))


@pytest.mark.fault(11)
def test_a_tar_of_an_old_torch_and_a_file_of_zeros_are_named(tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(before_posix(archived(tarfile.GNU_FORMAT, "sys_info", "pickle", "storages")))
    with pytest.raises(UserError, match=r"a tar archive of torch before 0\.2"):
        weights.read(path)
    path.write_bytes(bytes(20_000))
    with pytest.raises(UserError, match=r"20000 bytes\) begin with 512 zeros"):
        weights.read(path)


@pytest.mark.fault(10)
@pytest.mark.parametrize(
    "data", [b"\x80\x02}q\x00.", b"abc" * 400, b"\x80\x05K\x01.", b"\x80\x04N."]
)
def test_no_message_advises_to_run_the_code_of_a_file(tmp_path, data):
    path = tmp_path / "w.pth"
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        weights.read(path)
    for word in ("weights_only", "torch.load", "safe_globals", "arbitrary"):
        assert word not in str(caught.value)


# --- row 47's kind: a small file that takes much memory or time ---


@pytest.mark.fault(10)
def test_a_memo_index_takes_no_memory(tmp_path):
    """The reader of C makes a table of 2**31 entries for it: 34 GB."""
    inside = b"\x80\x02}r\xff\xff\xff\x7f."
    path = tmp_path / "w.pt"
    for names in (("x/data.pkl", "x/constants.pkl"), ("x/data.pkl", "x/version")):
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, inside)
        with pytest.raises(UserError):
            limited(weights.read, path)


@pytest.mark.fault(10)
@pytest.mark.parametrize("kind", ["zip", "script", "legacy"])
def test_a_pickle_of_many_small_objects_is_refused_before_it_is_run(tmp_path, kind):
    """Each byte makes an empty list, of 64 bytes; in a zip they are packed a thousandfold."""
    inside, path = b"\x80\x02" + b"]" * 5_000_000 + b".", tmp_path / "w.pth"
    path.write_bytes(inside)
    if kind != "legacy":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x/data.pkl", inside)
            archive.writestr("x/constants.pkl" if kind == "script" else "x/version", b"3")
            archive.writestr(zipfile.ZipInfo("x/data/0"), bytes(200_000))  # as long as weights
    with pytest.raises(UserError, match="more than 4000000 steps") as caught:
        weights.read(path)
    assert "\n" not in str(caught.value)
    assert tensor_names(path) == frozenset()


@pytest.mark.fault(10)
def test_a_name_in_a_torchscript_is_shown_in_one_line(tmp_path):
    path = tmp_path / "w.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02\x8c\x08os\nfgvc:\x8c\x05\x1b[2Jx\x93.")
        archive.writestr("x/constants.pkl", b"N.")
    with pytest.raises(UserError, match="that names os") as caught:
        weights.read(path)
    assert str(caught.value).isprintable()


@pytest.mark.fault(10)
def test_mappings_inside_mappings_end(tmp_path):
    """Each of four levels holds the next a thousand times: a million million values."""
    held: dict[str, object] = {f"k{number}": 1 for number in range(1000)}
    for _ in range(4):
        held = {f"k{number}": held for number in range(1000)}
    path = tmp_path / "w.pth"
    torch.save({"model": held, "x": torch.ones(1)}, path)
    with pytest.raises(UserError, match="more than 500000 values"):
        weights.read(path)
    assert tensor_names(path) <= {"x"}


@pytest.mark.fault(9)
def test_a_list_of_shards_names_digests_only(tmp_path):
    store = tmp_path / "aa" / "x"
    store.parent.mkdir()
    for shards in ([], {}, {"a": "../../../../etc/passwd"}, {"a": 3}, {"a": "/dev/zero"}):
        store.write_text(json.dumps({"index": "0" * 64, "shards": shards}, separators=(",", ":")))
        with pytest.raises(UserError, match="is no list of shards"):
            weights.read(store)


@pytest.mark.fault(30)
def test_other_weights_than_the_pinned_ones_are_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(DOORS["safetensors"][0][0])
    given = ["backbone=vit", "backbone.size=mini", f"backbone.weights='{path}'"]
    with pytest.raises(ConfigError, match="not backbone.weights_sha256=" + "0" * 64):
        typed(composed([*given, f"backbone.weights_sha256={'0' * 64!r}"]))


@pytest.mark.fault(11)
@pytest.mark.parametrize("held", [3, [], "x", None])
def test_configs_beside_weights_of_other_libraries_hold_mappings(tmp_path, held):
    file = tmp_path / "open_clip_model.safetensors"
    file.write_bytes(DOORS["safetensors"][0][0])
    conf = typed(composed(["backbone=clip", "backbone.size=mini", "backbone.pretrained=false"]))
    source = WeightsSource("file", file.name, file)
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": held}))
    with pytest.raises(UserError, match=r"open_clip_config\.json has model_cfg="):
        build(conf.backbone, 32, source, 0)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": held}))
    kind = Layout("clip", "CLIPModel", "open_clip")
    row = conf.backbone.checkpoints["mini"]
    with pytest.raises(UserError, match=r"config\.json has vision_config="):
        check_transformers(row, kind, file, "vision_config", hidden_act="gelu")
