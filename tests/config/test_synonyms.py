"""Words of other tools: each suggestion is a legal command with the same value."""

from __future__ import annotations

from pathlib import Path

import pytest

from fgvc.config.errors import ConfigError
from fgvc.config.overrides import jobs_of, parse_command
from fgvc.config.schema import TASKS
from fgvc.config.synonyms import for_key, for_option
from fgvc.config.synonyms.keys import meanings
from fgvc.config.synonyms.options import option_words, yaml_table
from fgvc.run import main

ROOT = Path(__file__).resolve().parents[2]


def refusal(arguments: list[str], folder: Path, capfd) -> str:
    """The error line of a wrong command, which exits with 2 and leaves no folder."""
    assert main(arguments) == 2
    stderr = capfd.readouterr().err
    assert stderr.startswith("fgvc: ")
    assert stderr.count("\n") == 1, stderr
    assert list(folder.iterdir()) == []
    return stderr.removeprefix("fgvc: ").rstrip("\n")


SUGGESTIONS = {  # as typed -> part of the error line
    "task.lr=0.001": "write task=train task.learning_rate=0.001",
    "task=train task.lr=0.001": "write task.learning_rate=0.001",
    "optimizer.lr=1e-3 task=train": "write task.learning_rate=1e-3",
    "trainer.optimizer.lr=1e-3 task=train": "write task.learning_rate=1e-3",
    "task=train task.bs=8": "write task.batch_size=8",
    "task=train per_device_train_batch_size=8 runtime.nproc=2": "write task.batch_size=16",
    "head=mlp epochs=3": "write head.fit.epochs=3",
    "head=mlp lr=3e-4": "write 'head.fit.learning_rates=[3e-4]'",
    "task=train task.accumulate=4": "write runtime.micro_batch=16",
    "task=train task.batch_size=32 accumulate_grad_batches=4": "write runtime.micro_batch=8",
    "model=dinov2": "write backbone=dinov2",
    "model=vit_base_patch16_224": "write backbone=vit_base",
    "backbone.name=clip": "write backbone=clip",
    "head.name=knn": "write head=knn",
    "hydra.run.dir=/tmp/x": "write runtime.output_root=/tmp/x",
    "output_dir=/tmp/x": "write runtime.output_root=/tmp/x",
    "trainer.max_epochs=3 task=train": "write task.epochs=3",
    "task.learning_rate=0.1": "write task=train task.learning_rate=0.1",
    "head.k=5": "write head=knn head.k=5",
    "part_attention.tokens=9": "write part_attention=transfg part_attention.tokens=9",
    "image_column_name=file dataset=table": "write dataset.path_column=file",
    "num_workers=4": "write runtime.num_workers=4",
    "gpus=0,1": "write runtime.nproc=2",
    "device=cuda:1": "write runtime.device=cuda (CUDA_VISIBLE_DEVICES=1 picks it)",
    "trainer.precision=16-mixed": "write precision=fp16",
    "amp=true": "write precision=bf16",
    "img_size=448": "write resolution=r448",
    "resolution=224": "write resolution=r224",
    "resolution=224x224": "write resolution=r224",
    "resolution=300": "write resolution=r",
    "num_classes=200": "the number of classes comes from the dataset",
    "scheduler=cosine": "fgvc has no choice of schedules",
    "ckpt_path=/x/ckpt.bin": "write task=eval checkpoint=/x/ckpt.bin",
    "task=predict ckpt_path=/x/ckpt.bin": "write checkpoint=/x/ckpt.bin",
    "pretrained=false": "write backbone.pretrained=false",
    "weights=/x/a.pth": "write backbone.weights=/x/a.pth",
    "freeze=true": "write task=probe",
    "linear_probe=false": "write task=train",
    "dataset=CUB_200_2011": "write dataset=cub",
    "dataset=CUB200": "write dataset=cub",
    "dataset=stanford-dogs": "write dataset=dogs",
    "dataset=stanford_cars": "write dataset=cars",
    "dataset=NABirds": "write dataset=nabirds",
    "dataset=inat": "write dataset=inat2017",
    "dataset=imagefolder": "write dataset=folder",
    "dataset=/data/moths": "write dataset=folder dataset.root=/data/moths",
    "dataset=birds.csv": "write dataset=table dataset.table=birds.csv",
    "backbone=ViT-B-16": "write backbone=clip_base (CLIP's tower; backbone=vit is",
    "backbone=ViT-B/16": "write backbone=clip_base",
    "backbone=ViT-B/32": "write backbone=clip backbone.checkpoint=base_32",
    "backbone=ViT-L-14": "write backbone=clip_large",
    "backbone=ViT-H-14": "no such option",
    "train": "train: expected key=value; write task=train",
    "finetune": "finetune: expected key=value; write task=train",
    "dinov2": "dinov2: expected key=value; write backbone=dinov2",
    "task=train use_mixup=0.2": "write task.mixup=0.2",
    "backbone=ViT-B-16-quickgelu-openai": "write backbone=clip_base",
    "backbone=openai/clip-vit-base-patch32": "write backbone=clip backbone.checkpoint=base_32",
    "backbone=dinov2_vitb14": "write backbone=dinov2_base",
    "backbone=facebook/dinov2-small": "write backbone=dinov2_small",
    "backbone=vit_large_patch14_dinov2.lvd142m": "write backbone=dinov2_large",
    "backbone=dinov2_vitg14": "write backbone=dinov2_giant",
    "backbone=dinov2_vits14_reg": "write backbone=dinov2_small backbone.registers=true",
    "backbone=google/siglip2-so400m-patch14-384": "write backbone=siglip2_so400m",
    "backbone=siglip": "write backbone=siglip2_base",
    "backbone=vit_b_16": "write backbone=vit_base",
    "task=finetune": "write task=train",
    "task=knn": "write task=probe head=knn",
    "task=test": "write task=eval",
    "task=inference": "write task=predict",
    "head=fc": "write head=linear",
    "part_attention=none": "write part_attention=off",
    "experiment=baseline_kn": "did you mean baseline_knn",
    "backbone=resnet50": "no such option",
    "--lr 0.1": "write task=train task.learning_rate=0.1",
    "--epochs=3 task=train": "write task.epochs=3",
    "--backbone dinov2": "write backbone=dinov2",
    "--dataset CUB200": "write dataset=cub",
    "--seed 3": "write seed=3",
    "--batch-size 8 task=train": "write task.batch_size=8",
    "-b 8 task=train": "write task.batch_size=8",
    "--amp": "write precision=bf16",
    "--dataset.root /data": "write dataset.root=/data",
    "--nonsense 1": "overrides are written key=value, without dashes",
    "--cfg everything": "--cfg",
}


@pytest.mark.parametrize("typed", SUGGESTIONS)
def test_a_word_of_another_tool_is_refused_with_our_command(typed, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    line = refusal(typed.split(), tmp_path, capfd)
    assert SUGGESTIONS[typed] in line
    assert "usage:" not in line


def command_of(*options: str):
    from fgvc.config.override_grammar import parse_override

    return parse_command([parse_override(option) for option in options])


SAMPLES = ("1", "0.1", "cub", "dinov2", "linear", "224", "cuda")
TEXT = ("task=zero_shot", "head=text_linear")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def composes(folder):
    """composes(context, suggestion): whether the suggestion is legal with the context."""
    cache = {}

    def check(context: tuple[str, ...], suggestion: tuple[str, ...]) -> bool:
        keys = {item.partition("=")[0]: item.partition("=")[2] for item in suggestion}
        overrides = [item for item in context if item.partition("=")[0] not in keys]
        if "dataset=table" in suggestion and "dataset.table" not in keys:
            overrides.append(f"dataset.table={folder / 'a.csv'}")
        overrides += ["backbone=clip"] if {*TEXT} & {*suggestion} and "backbone" not in keys else []
        task = TASKS.get(keys.get("task", "probe"))
        # task=view needs run= for FiftyOne alone
        for key in (*task.inputs, *(["run"] * (keys.get("task") == "view"))) if task else ():
            overrides += [f"{key}={folder}"] if key not in keys else []
        command = (*overrides, *suggestion)
        if command not in cache:
            try:
                cache[command] = bool(jobs_of(command, multirun=False))
            except ConfigError:
                cache[command] = False
        return cache[command]

    return check


def test_no_word_has_two_meanings():
    words = [word for row in yaml_table("words.yaml") for word in row["words"].split()]
    options = [
        (group, word)
        for group, rows in yaml_table("options.yaml").items()
        if group != "backbone"
        for row in rows
        for word in row["words"].split()
    ]
    assert (len(words), len(options)) == (len(set(words)), len(set(options)))


@pytest.mark.slow
def test_every_suggestion_of_the_table_of_keys_composes(composes, folder):
    """For some value of the word: 0.1 is no number of epochs. A note alone counts too."""
    (table := folder / "a.csv").touch()
    values = (*SAMPLES, str(folder), str(table))
    command, wrong = command_of(), set()
    for word in meanings():
        if word in command.legal:
            continue
        advice = [item for value in values if (item := for_key(word, value, command))]
        assert len(advice) == len(values), word
        assert all(item.overrides or item.note for item in advice)
        suggestions = dict.fromkeys(item.overrides for item in advice if item.overrides)
        if suggestions and not any(composes((), overrides) for overrides in suggestions):
            wrong.add(word)
    assert wrong == set()


def test_every_suggestion_of_the_table_of_options_composes(composes, folder):
    wrong = set()
    for group, words in option_words().items():
        for word in words:
            advice = for_option(group, word)
            assert advice is not None
            context = ("task=train",) if group in ("recipe", "part_attention") else ()
            if "table" in str(advice):  # needs the file itself
                context = (f"dataset.table={folder / 'a.csv'}",)
            if advice.overrides[0] != "sweep=tune" and not composes(context, advice.overrides):
                wrong.add((group, word))
    assert wrong == set()


BACKBONES = (
    "vit_tiny_patch16_224",
    "vit_small_patch16_224.augreg_in21k",
    "vit_l_16",
    "google/vit-base-patch16-224",
    "vit_base_patch16_clip_224.openai",
    "ViT-L-14-336-openai",
    "clip-vit-large-patch14",
    "dinov2_vitl14",
    "vit_giant_patch14_dinov2",
    "dinov2_vits14_reg4",
    "facebook/dinov2-with-registers-base",
    "dinov3_vits16",
    "facebook/dinov3-vitb16-pretrain-lvd1689m",
    "siglip_base",
    "google/siglip2-large-patch16-256",
    "siglip2_giant",
    "vit_base_patch16_siglip_224",
)


@pytest.mark.parametrize("name", BACKBONES)
def test_a_known_backbone_under_another_name_composes(name, composes):
    advice = for_option("backbone", name)
    assert advice is not None
    assert composes((), advice.overrides), advice


OTHERS = (
    "resnet50",
    "convnext_tiny",
    "swin_t",
    "vit_huge_patch14_224",
    "mae_vit_base",
    "dino_vitb16",
    "beit_base",
    "deit_base",
    "efficientnet_b0",
    "RN50",
    "mobilevit_s",
    "vit_base_patch32_224",
    "eva02_base_patch14_448",
    "dinov3_tiny",
)


@pytest.mark.parametrize("name", OTHERS)
def test_an_unsupported_model_gets_no_suggestion(name):
    assert for_option("backbone", name) is None
