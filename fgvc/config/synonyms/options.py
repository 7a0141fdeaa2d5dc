"""Option names of other tools -> our options.

Backbone names are parsed by rules, because timm, torchvision, open_clip, Hugging Face and torch.hub
spell the same model differently. The other axes have tables.
"""

from __future__ import annotations

import re
from pathlib import Path

from fgvc.config.option_files import options as legal
from fgvc.config.synonyms.advice import Advice, is_true
from fgvc.config.weight_files.shards import ENDINGS

FOLDER_NOTE = "in folders by class; dataset.name= names it"
OPEN_CLIP = re.compile(r"ViT-([A-Z])[-/]?(\d+)(?:-quickgelu)?")  # model names of open_clip
SUPERVISED = "CLIP's tower; backbone=vit is the one trained with the labels of ImageNet"
TABLES = (".csv", ".tsv", ".parquet")


def for_option(group: str, name: str) -> Advice | None:
    """What to write instead of an unknown option; None: not known."""
    word = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    same = [option for option in legal(group) if option.replace("_", "") == word.replace("_", "")]
    if same:  # zero-shot, DINOv2, NABirds
        return Advice((f"{group}={same[0]}",))
    if group == "backbone":
        return _backbone(name)
    if group == "resolution":
        return _resolution(word)
    if group == "dataset" and _is_path(name):
        return _dataset_at(name)
    if group == "part_attention" and not is_true(name):
        return Advice(("part_attention=off",))
    if (row := OPTIONS.get(group, {}).get(word.replace("_", ""))) is None:
        return None
    *overrides, note = row
    return Advice(tuple(overrides), note)


def _backbone(name: str) -> Advice | None:
    if Path(name).suffix in ENDINGS or (_is_path(name) and Path(name).expanduser().exists()):
        return Advice((f"backbone.weights={name}",), "with the backbone= of these weights")
    if (tower := OPEN_CLIP.fullmatch(name)) is not None:
        name = f"clip-vit-{tower[1]}{tower[2]}"
    packed = re.sub(r"[^a-z0-9]", "", name.lower().rpartition("/")[2])  # google/vit is not levit
    patch = re.search(r"(?:patch|vit[tsblhg]|(?<=vit)[tsblhg])(\d\d)", packed)
    side = int(patch[1]) if patch else None
    for family, (names, sizes) in FAMILIES.items():
        if any(part in packed for part in names):
            size = _size(packed, sizes)
            if size is None:
                return None
            advice = _model(family, size, side, packed)
            return advice if tower is None else Advice(advice.overrides, SUPERVISED)
    return None


def _size(packed: str, sizes: dict[str, str]) -> str | None:
    """The size in a name such as base, vitb14 or b_16; base if there is none."""
    for pattern, size in sizes.items():
        if re.search(pattern, packed):
            return size or None
    return "base"


def _model(family: str, size: str, patch: int | None, packed: str) -> Advice:
    if family == "clip" and size == "base" and patch == 32:
        return Advice(("backbone=clip", "backbone.checkpoint=base_32"))
    if family == "clip" and size == "large" and "336" in packed:
        return Advice(("backbone=clip", "backbone.checkpoint=large_336"))
    shorthand = f"backbone={family}_{size}"
    note = "SigLIP 2; fgvc has no SigLIP 1" if family == "siglip2" and "2" not in packed else ""
    if f"{family}_{size}" not in legal("backbone"):
        return Advice((f"backbone={family}", f"backbone.size={size}"), note)
    registers = family == "dinov2" and re.search(r"reg(?!net)", packed)
    return Advice((shorthand, *(["backbone.registers=true"] if registers else [])), note)


LETTERS = {"t": "tiny", "s": "small", "b": "base", "l": "large"}


def _sizes(**extra: str) -> dict[str, str]:
    """Patterns for the names and letters of sizes -> the size; empty: fgvc lacks this size."""
    patterns = dict(extra)
    for letter, size in LETTERS.items():
        patterns |= {size: size, rf"vit{letter}(?:\d|$)": size}
    return patterns


FAMILIES: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "dinov3": (("dinov3",), _sizes(vith="", huge="", vit7b="", convnext="", tiny="", vitt16="")),
    "dinov2": (("dinov2",), _sizes(giant="giant", vitg="giant")),
    "siglip2": (("siglip",), _sizes(so400m="so400m", giant="giant")),
    "clip": (("clip", "openai"), _sizes(vith="", vitg="", huge="", giant="", rn50="", resnet="")),
    "vit": (
        ("vit",),
        _sizes(
            deit="", mobilevit="", dino="", mae="", beit="", eva="", vith="", huge="", vitg="",
            giant="", crossvit="", maxvit="", efficientvit="", levit="", fastvit="", convit="",
            tinyvit="", davit="", samvit="", sam="", gcvit="", hgnet="", nextvit="", patch8="",
            patch32="", patch14="", vitb32="", vitl32="",
        ),
    ),
}  # fmt: skip


def _resolution(word: str) -> Advice | None:
    """`224`, `224px`, `224x224`: the option of that side, or the nearest one."""
    side = re.fullmatch(r"(?:r_?)?(\d{2,4})(?:_?px|x\d+|_\d+)?", word)
    if side is None:
        return None
    sides = [int(name[1:]) for name in legal("resolution") if name.startswith("r")]
    near = min(sides, key=lambda other: (abs(other - int(side[1])), -other))
    note = "" if near == int(side[1]) else f"the nearest; others: {', '.join(map(str, sides))}"
    return Advice((f"resolution=r{near}",), note)


def _is_path(name: str) -> bool:
    return "/" in name or "\\" in name or name.startswith("~") or Path(name).suffix in TABLES


def _dataset_at(name: str) -> Advice:
    if Path(name).suffix in TABLES:
        return Advice(("dataset=table", f"dataset.table={name}"))
    return Advice(("dataset=folder", f"dataset.root={name}"))


def _rows(*rows: tuple[str, *tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Words -> overrides and, as the last item, a note, which may be empty."""
    return {word: tuple(row) for words, *row in rows for word in words.split()}


OPTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "dataset": _rows(
        (
            "cub200 cub2011 cub2002011 cub2002010 cubbirds caltechucsdbirds "
            "caltechucsdbirds200 caltechucsdbirds2002011 birds200 cubs cub200birds",
            "dataset=cub",
            "",
        ),
        ("stanfordcars cars196 car stanfordcar stanfordcarsdataset", "dataset=cars", ""),
        ("stanforddogs dogs120 dog stanforddog", "dataset=dogs", ""),
        ("nabird nabirds555 birdsna", "dataset=nabirds", ""),
        ("inat inat17 inaturalist inaturalist2017 inaturalist17", "dataset=inat2017", ""),
        (
            "inat2018 inat2019 inat2021 inat18 inat19 inat21 inaturalist2018 inaturalist2019 "
            "inaturalist2021 inat2021mini",
            "dataset=folder",
            "fgvc reads iNaturalist 2017 only; others in folders by class",
        ),
        (
            "imagefolder imagefolders folders custom local mydata own directory dir "
            "torchimagefolder",
            "dataset=folder",
            "with dataset.root=PATH",
        ),
        ("csv tsv parquet dataframe tables file", "dataset=table", "with dataset.table=FILE"),
        ("toy fake fakedata dummy random synth", "dataset=synthetic", ""),
        (
            "imagenet imagenet1k imagenet21k ilsvrc2012 cifar10 cifar100 aircraft fgvcaircraft "
            "flowers flowers102 oxfordflowers oxfordflowers102 food101 pets oxfordpets "
            "oxfordiiitpet compcars",
            "dataset=folder",
            FOLDER_NOTE,
        ),
    ),
    "task": _rows(
        (
            "finetune finetuning finetunes fit training fulltune fullfinetune retrain",
            "task=train",
            "",
        ),
        ("linearprobe linprobe linearprobing linear lp probing features", "task=probe", ""),
        ("knn nearestneighbours nearestneighbors", "task=probe", "head=knn", ""),
        ("zeroshot zs", "task=zero_shot", ""),
        ("test evaluate evaluation validate validation val testing", "task=eval", ""),
        ("infer inference classify prediction predictions demo", "task=predict", ""),
        ("visualize visualise show browse app fiftyone viz viewer", "task=view", ""),
        ("download fetch", "task=doctor", "dataset.download=true", ""),
        ("verify validaterun", "task=audit", ""),
        ("inspect checkdata examine diagnose", "task=doctor", ""),
        ("table leaderboard summary results baselines", "task=report", ""),
        ("diff", "task=compare", ""),
        ("clean cleanup delete gc pin", "task=prune", ""),
        ("onnx convert save", "task=export", ""),
        ("tune hpo search optuna sweep", "sweep=tune", ""),
    ),
    "head": _rows(
        ("fc linearhead logreg logistic logisticregression linearprobe lr", "head=linear", ""),
        ("nn knnhead nearestneighbor nearestneighbour kneighbors", "head=knn", ""),
        ("cosinehead arcface cosface normalized", "head=cosine", ""),
        ("mlphead twolayer nonlinear", "head=mlp", ""),
        ("zeroshot textonly clip", "task=zero_shot", ""),
        ("textprobe", "head=text_linear", ""),
    ),
    "part_attention": _rows(
        ("transfgpaper", "part_attention=transfg_published", ""),
        ("true on pam psm", "part_attention=transfg", ""),
        ("center", "part_attention=centre", ""),
        ("attentionrollout", "part_attention=rollout", ""),
        ("topk clstopk", "part_attention=cls_topk", ""),
    ),
    "recipe": _rows(
        ("default standard adamw deit3 timm", "recipe=modern", ""),
        ("sgd paper transfgrecipe published", "recipe=transfg", ""),
    ),
}
