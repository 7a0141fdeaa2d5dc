"""backbone.weights=hf-hub:ORG/REPO and local-dir:PATH, as in timm and open_clip."""

import pytest

from fgvc.config.compose import composed, config_hash, hashed, typed
from fgvc.config.errors import ConfigError

VIT = ("backbone=vit_tiny",)


@pytest.fixture(autouse=True)
def empty_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def typed_config(*overrides):
    return typed(composed([*VIT, *overrides]))


@pytest.mark.parametrize(
    ("name", "repo", "revision"),
    [
        ("hf-hub:timm/vit_x.y", "timm/vit_x.y", "main"),
        ("hf_hub:timm/vit_x.y", "timm/vit_x.y", "main"),
        ("hf-hub:timm/vit_x.y@v2", "timm/vit_x.y", "v2"),
        ("hf-hub:gpt2", "gpt2", "main"),
    ],
)
def test_a_hub_name_replaces_the_repository_of_the_row(name, repo, revision):
    conf = typed_config(f"backbone.weights={name}")
    assert (conf.backbone.weights, conf.backbone.revision) == (None, revision)
    row = f"backbone.checkpoints.tiny.repo={repo}"
    assert hashed(conf) == hashed(typed_config(row, f"backbone.revision={revision}"))
    assert config_hash(hashed(conf)) != config_hash(hashed(typed_config()))


def test_the_revision_may_stand_apart_but_not_contradict():
    in_name = typed_config("backbone.weights=hf-hub:timm/x@v2")
    separate = typed_config("backbone.weights=hf-hub:timm/x", "backbone.revision=v2")
    assert hashed(in_name) == hashed(separate)
    with pytest.raises(ConfigError, match=r"backbone.revision=v1: .*another revision"):
        typed_config("backbone.weights=hf-hub:timm/x@v2", "backbone.revision=v1")


def test_a_hub_name_takes_precedence_over_a_file_in_the_weights_root(tmp_path):
    (tmp_path / "vit_tiny_patch16_224.augreg_in21k_ft_in1k.pth").write_bytes(b"weights")
    root = f"runtime.weights_root={tmp_path}"
    assert typed_config(root).backbone.weights is not None
    conf = typed_config(root, "backbone.weights=hf-hub:timm/x")
    assert (conf.backbone.weights, conf.backbone.weights_sha256) == (None, None)


def test_a_hub_name_removes_the_tag_of_open_clip():
    conf = typed(composed(["backbone=clip_base", "backbone.weights=hf-hub:laion/x"]))
    assert conf.backbone.checkpoints["base"].tag is None


@pytest.mark.parametrize("name", ["hf-hub:", "hf-hub:a/b/c", "hf-hub:a b", "hf-hub:a/b@"])
def test_an_invalid_repository_is_refused(name):
    with pytest.raises(ConfigError, match="Give hf-hub:ORG/REPO") as caught:
        typed_config(f"backbone.weights='{name}'")
    assert str(caught.value).startswith(f"backbone.weights={name}")
    assert "\n" not in str(caught.value)


def test_a_local_dir_is_the_path(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    paths = [tmp_path, tmp_path / "model.safetensors"]
    values = (*paths, f"local-dir:{tmp_path}")
    confs = [typed_config(f"backbone.weights={value}") for value in values]
    assert len({conf.backbone.weights for conf in confs}) == 1
    assert len({config_hash(hashed(conf)) for conf in confs}) == 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("timm/vit_tiny_patch16_224.augreg_in21k", "give hf-hub:timm/vit_tiny_patch16_224.augreg"),
        ("timm/vit_tiny_patch16_224", "no such file.*give hf-hub:timm/vit_tiny_patch16_224"),
        ("https://huggingface.co/timm/vit_x/tree/main", "an address.* give hf-hub:timm/vit_x"),
        ("https://example.org/w.pth", "an address is not read; download it"),
    ],
)
def test_a_path_like_a_repository_or_a_url_is_refused_with_a_hint(value, message):
    with pytest.raises(ConfigError, match=message) as caught:
        typed_config(f"backbone.weights={value}")
    assert str(caught.value).startswith(f"backbone.weights={value}")
