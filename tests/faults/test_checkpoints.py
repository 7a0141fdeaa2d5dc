"""Metadata of a checkpoint, forged or damaged: rows 9, 11, 12 and 49."""

from __future__ import annotations

import copy
import functools
import json
import socket
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from fgvc.config.compose import composed, parse_config, typed
from fgvc.config.errors import ConfigError
from fgvc.config.schema import architecture
from fgvc.config.schema.dataset import Generator
from fgvc.data.datasets.synthetic import folder as synthetic
from fgvc.record import checkpoint
from fgvc.store import hashing
from fgvc.store.tensor_file import KEY
from fgvc.types import UserError
from tests.faults.fuzz_checkpoints import opened
from tests.faults.steps import call_with_limited_memory, set_key
from tests.jobs import FINETUNE

HUGE = 10**9
Change = Callable[[dict[str, Any]], None]
TRAIN = (*FINETUNE, "task.epochs=1", "task.learning_rate=5e-3", "runtime.threads=1")


# --- row 49: the metadata of a checkpoint choose no settings ---


@pytest.fixture
def no_network(monkeypatch):
    """Fail at any connection and at any model that the library would download."""
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
    """Names of the models requested from timm."""
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

    def make(change: Change, trained: bool = False) -> Path:
        ran = finished(*(TRAIN if trained else small_probe))
        tensors, facts, _ = checkpoint.read(ran.folder)
        facts = copy.deepcopy(facts)
        change(facts)
        folder = tmp_path / "forged"
        folder.mkdir(exist_ok=True)
        checkpoint.write(folder, tensors, facts)
        return folder / checkpoint.FILE

    return make


def setting(key: str, value: object) -> Change:
    return lambda facts: set_key(facts, key, value)


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
    ("setting_name", "trained"),
    [
        *((name, False) for name in HOSTILE),
        *((name, True) for name in ("hub name", "depth", "file", "side")),
    ],
)
def test_a_checkpoint_chooses_nothing(forged, no_network, built, setting_name, trained):
    key, value, words = HOSTILE[setting_name]
    file = forged(setting(key, value), trained)
    built.clear()
    with pytest.raises((UserError, ConfigError)) as caught:
        opened(file)
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1500
    assert built == []


@pytest.mark.fault(49)
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("name", "quantum", "head=quantum: not one of "),
        ("k", 0, "head.k=0: must be at least 1"),
        ("k", 2**40, "head.k=1099511627776: must be at least 1 and at most 2147483648"),
        ("k", 1.5, "head.k=1.5: must be an integer"),
        ("temperature", 0.0, "head.temperature=0.0: must be at least 1e-06"),
        ("k", 10_000, "head.k=10000 exceeds the"),
        ("hidden", 3, "unknown config key head.hidden"),
    ],
)
def test_options_that_the_head_does_not_have_are_refused(forged, name, value, words):
    def change(facts):
        for node in (facts["head"], facts["config"]["head"]):
            node[name] = value

    file = forged(change)
    with pytest.raises(UserError) as caught:
        opened(file)
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(file))


@pytest.mark.fault(49)
def test_a_genuine_checkpoint_still_opens(forged):
    for trained in (False, True):
        assert not opened(forged(lambda facts: None, trained)).training


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
    """Every argument is within its own bounds; together they would take 400 GB."""

    def change(facts):
        row = facts["config"]["backbone"]["checkpoints"]["mini"]
        row["architecture"] = {"depth": 64, "embed_dim": 8192, "num_heads": 64}
        row |= {"width": 8192, "heads": 64}
        facts["fit"]["validation"] = 0

    for trained, words in ((False, "parameters, more than"), (True, "parameters, more than")):
        file = forged(change, trained)
        with pytest.raises((UserError, ConfigError), match=words):
            call_with_limited_memory(opened, file)


@pytest.mark.fault(49)
def test_a_checkpoint_cannot_ask_for_more_numbers_than_it_holds(forged):
    def change(facts):
        row = facts["config"]["backbone"]["checkpoints"]["mini"]
        row["architecture"] = {"depth": 12, "embed_dim": 768, "num_heads": 12}
        row |= {"width": 768, "heads": 12}

    with pytest.raises(UserError, match="the checkpoint holds"):
        call_with_limited_memory(opened, forged(change, trained=True))


@pytest.mark.fault(49)
def test_every_row_here_passes_the_same_check():
    row_count = 0
    for name in ("vit", "clip", "siglip2", "dinov2", "dinov3"):
        conf = parse_config(composed([f"backbone={name}"])).backbone
        for row in conf.checkpoints.values():
            architecture.check_row(conf.library, row, "row")
            row_count += 1
    assert row_count > 40


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
    rows = parse_config(composed(["backbone=vit"])).backbone.checkpoints
    row = replace(rows["tiny"], architecture=arguments)
    with pytest.raises(ConfigError) as caught:
        architecture.check_row(library, row, "a.b")
    assert words in str(caught.value)
    assert str(caught.value).startswith(("a.b.", "backbone.library"))


# --- row 9, 11, 12: facts that are no facts ---


def rewritten(file: Path, metadata: Any) -> Path:
    """The same tensors with any other metadata text."""
    raw = file.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    header["__metadata__"] = metadata
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])
    return file


DEEP = '{"config":' * 5000 + "1" + "}" * 5000
UNFIT: dict[str, tuple[Any, str]] = {
    "a number": ({KEY: "3"}, "not a mapping"),
    "a list": ({KEY: "[]"}, "not a mapping"),
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
@pytest.mark.parametrize("fault", UNFIT)
def test_facts_that_are_no_facts_are_one_line(forged, fault):
    metadata, words = UNFIT[fault]
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
    "head": ("head", {"name": "linear"}, "head: not the head of its config"),
    "runs": ("backbone.weights.made_by", {"task": "train"}, "made_by"),
    "answer": ("answer", {}, "answer.manifest_digest"),
    "whole": ("whole", "yes", "whole=yes"),
    "class means": ("class_means", [], "class_means=[]"),
    "no distance": ("class_means", {"limit": 0.0, "images": 3}, "class_means.limit=0.0"),
    "a distance as text": ("class_means", {"limit": "1", "images": 3}, "class_means.limit=1"),
    "two lines": ("class_means", {"reason": "a\nb"}, "class_means.reason"),
}


@pytest.mark.fault(12)
@pytest.mark.parametrize("fault", WRONG)
def test_each_fact_has_its_type(forged, fault):
    key, value, words = WRONG[fault]
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
    monkeypatch.setattr(hashing, "canonical_json", lambda value: ascii_only(value).encode())
    value = ["a\ud800b", "c"] if key == "labelmap.names" else "a\udfffb"
    file = forged(setting(key, value))
    monkeypatch.undo()
    with pytest.raises(UserError, match="half of a surrogate pair") as caught:
        checkpoint.read(file)
    assert str(caught.value).isprintable()


@pytest.mark.fault(12)
def test_a_checkpoint_cannot_ask_for_a_disk_of_birds(tmp_path):
    many = Generator(1, 64, 10_000, 10_000, 1024, 0)
    with pytest.raises(UserError, match=r"^dataset\.generator: 1280000 images of 1024 pixels"):
        synthetic.write(tmp_path / "birds", many)
    assert not list(tmp_path.iterdir())


@pytest.mark.fault(12)
def test_ten_million_classes_are_refused_at_the_door(forged, monkeypatch):
    """Tests the bound itself, not ten million classes: the check is the same."""
    from fgvc.config.weight_files import checkpoint_metadata

    monkeypatch.setattr(checkpoint_metadata, "MOST_BYTES", 50_000)
    names = [str(number) for number in range(10_000)]
    file = forged(lambda facts: facts["labelmap"].update(names=names, ids=names))
    with pytest.raises(UserError, match="more than 50000"):
        checkpoint.read(file)


TENSORS: dict[str, tuple[str, Callable[[torch.Tensor], torch.Tensor], str]] = {
    "narrow bank": ("head.bank_ND", lambda bank: bank[:, :3].contiguous(), "bank_ND is ("),
    "flat bank": ("head.bank_ND", lambda bank: bank.flatten(), "bank_ND is ("),
    "NaN": ("head.bank_ND", lambda bank: bank * float("nan"), "NaN"),
    "scalar bank": ("head.bank_ND", lambda bank: bank.sum(), "bank_ND is ()"),
    "short bank": ("head.bank_ND", lambda bank: bank[:0], "0 images of the bank"),
    "integers": ("head.bank_ND", lambda bank: bank.to(torch.int8), "int8"),
    "small floats": ("head.bank_ND", lambda bank: bank.to(torch.float8_e5m2), "float8"),
    "labels": ("head.label_N", lambda label: label + 5, "classes"),
    "negative labels": ("head.label_N", lambda label: label - 5, "classes"),
    "fewer labels": ("head.label_N", lambda label: label[:1], "label_N is (1,)"),
    "float labels": ("head.label_N", lambda label: label.float(), "label_N holds"),
    "images": ("fit.images", lambda image: image.float(), "fit.images"),
    "images of two axes": ("fit.images", lambda image: image[None], "fit.images"),
    "narrow means": ("class.means", lambda mean: mean[:, :3].contiguous(), "has 3 columns"),
    "NaN means": ("class.means", lambda mean: mean * float("nan"), "class.means: not rows"),
    "flat means": ("class.means", lambda mean: mean.flatten(), "class.means: not rows"),
    "many means": ("class.means", lambda mean: mean.repeat(9, 1), "18 rows for 2 classes"),
}


@pytest.mark.fault(12)
@pytest.mark.parametrize("fault", TENSORS)
def test_tensors_that_are_not_those_of_the_head_are_refused(finished, small_probe, tmp_path, fault):
    name, change, words = TENSORS[fault]
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
    with pytest.raises(UserError, match=r"head=mlp: hidden_HD is \(8, .* \(1048576, "):
        call_with_limited_memory(opened, tmp_path / checkpoint.FILE)


@pytest.mark.fault(49)
def test_files_beside_a_checkpoint_name_plain_paths_only(forged):
    file = forged(lambda facts: None)
    beside = file.with_name("config.yaml")
    for text in (
        "dataset: {root: '${oc.env:HOME}', table: 3}\nbackbone: {weights: [1]}\n",
        "dataset: 3\nbackbone: null\n",
        "[1, 2]",
        "dataset: {root: 2020-02-20}",
    ):
        beside.write_text(text)
        opened(file)
    for text in (
        "a: &a [1]\nb: [*a, *a]\n",
        "a: !!python/object/apply:os.system [x]\n",
        "a: [" * 5000,
        "dataset: {root: 2020-02-30}",
        f"a: {'1' * 5000}",
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
    file = forged(setting(f"{ROW}.architecture.checkpoint_path", "/tmp/x"), trained=True)
    overrides = ["backbone=vit", "backbone.size=mini", f"backbone.weights='{file}'"]
    with pytest.raises(ConfigError, match="architecture.checkpoint_path"):
        typed(composed(overrides))
    file = forged(setting("config.backbone.checkpoints", {"mini": {"x": 1}}), trained=True)
    with pytest.raises(ConfigError, match="damaged checkpoint"):
        typed(composed(overrides))
    assert hashing.sha256_file(file)
