"""backbone.weights=hf-hub:ORG/REPO and local-dir:PATH, as timm and open_clip spell them."""

import pytest

from fgvc.config.compose import composed, config_hash, hashed, typed
from fgvc.config.errors import ConfigError

VIT = ("backbone=vit_tiny",)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def _typed(*overrides):
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
def test_a_name_of_the_hub_is_the_rows_repository(name, repo, revision):
    conf = _typed(f"backbone.weights={name}")
    assert (conf.backbone.weights, conf.backbone.revision) == (None, revision)
    spelt_out = _typed(f"backbone.checkpoints.tiny.repo={repo}", f"backbone.revision={revision}")
    assert hashed(conf) == hashed(spelt_out)
    assert config_hash(hashed(conf)) != config_hash(hashed(_typed()))


def test_the_revision_may_stand_apart_but_not_contradict():
    together = _typed("backbone.weights=hf-hub:timm/x@v2")
    apart = _typed("backbone.weights=hf-hub:timm/x", "backbone.revision=v2")
    assert hashed(together) == hashed(apart)
    with pytest.raises(ConfigError, match=r"backbone.revision=v1: .*another revision"):
        _typed("backbone.weights=hf-hub:timm/x@v2", "backbone.revision=v1")


def test_a_file_of_the_row_in_the_weights_root_is_not_taken_for_the_repository(tmp_path):
    (tmp_path / "vit_tiny_patch16_224.augreg_in21k_ft_in1k.pth").write_bytes(b"weights")
    root = f"runtime.weights_root={tmp_path}"
    assert _typed(root).backbone.weights is not None
    conf = _typed(root, "backbone.weights=hf-hub:timm/x")
    assert (conf.backbone.weights, conf.backbone.weights_sha256) == (None, None)


def test_a_repository_is_none_of_open_clips_own_tags():
    conf = typed(composed(["backbone=clip_base", "backbone.weights=hf-hub:laion/x"]))
    assert conf.backbone.checkpoints["base"].tag is None


@pytest.mark.parametrize("name", ["hf-hub:", "hf-hub:a/b/c", "hf-hub:a b", "hf-hub:a/b@"])
def test_what_is_no_repository_is_refused(name):
    with pytest.raises(ConfigError, match="Give hf-hub:ORG/REPO") as caught:
        _typed(f"backbone.weights='{name}'")
    assert str(caught.value).startswith(f"backbone.weights={name}")
    assert "\n" not in str(caught.value)


def test_a_local_dir_is_the_path(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    paths = [tmp_path, tmp_path / "model.safetensors"]
    confs = [_typed(f"backbone.weights={given}") for given in (*paths, f"local-dir:{tmp_path}")]
    assert len({conf.backbone.weights for conf in confs}) == 1
    assert len({config_hash(hashed(conf)) for conf in confs}) == 1


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("timm/vit_tiny_patch16_224.augreg_in21k", "give hf-hub:timm/vit_tiny_patch16_224.augreg"),
        ("timm/vit_tiny_patch16_224", "no such file; .*give hf-hub:timm/vit_tiny_patch16_224"),
        ("https://huggingface.co/timm/vit_x/tree/main", "an address.* give hf-hub:timm/vit_x"),
        ("https://example.org/w.pth", "an address is not read; download it"),
    ],
)
def test_what_reads_like_a_repository_or_an_address_is_answered(given, says):
    with pytest.raises(ConfigError, match=says) as caught:
        _typed(f"backbone.weights={given}")
    assert str(caught.value).startswith(f"backbone.weights={given}")
