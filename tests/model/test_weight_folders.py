"""Folders of a training: their weights file is read, or the message suggests another path."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from fgvc.config.weight_digests import fill_weights
from fgvc.model.backbone import weights
from fgvc.types import UserError

LORA = "base_model.model.vit.encoder.layer.0.attention.attention.query.lora_A.weight"


@pytest.fixture
def refusal(mini, tmp_path):
    """refusal(folder) -> the message, equal in composing and in reading."""

    def read(folder):
        conf = mini("vit", folder)
        with pytest.raises(UserError) as error:
            weights.find(conf)
        with pytest.raises(ValueError, match=re.escape(str(error.value))):
            fill_weights(conf, str(tmp_path / "no root"))
        assert str(error.value).startswith(f"backbone.weights={folder}: ")
        assert "\n" not in str(error.value)
        return str(error.value)

    return read


def _save(file, state=None, metadata=None):
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(state or {"a": torch.ones(2)}, file, metadata=metadata)


def test_a_checkpoint_of_fgvc_beside_other_weights_is_refused(refusal, mini, tmp_path):
    _save(tmp_path / "model.safetensors")
    _save(tmp_path / "ckpt.bin", metadata={"fgvc": "{}"})
    message = refusal(tmp_path)
    assert f"{tmp_path}/model.safetensors or {tmp_path}/ckpt.bin" in message
    named = mini("vit", tmp_path / "model.safetensors")
    assert weights.find(named).path == tmp_path / "model.safetensors"
    (tmp_path / "ckpt.bin").write_bytes(b"of another library")
    assert weights.find(mini("vit", tmp_path)).path == tmp_path / "model.safetensors"


@pytest.mark.parametrize("place", ["", "checkpoint-500"])
def test_an_adapter_is_named(refusal, tmp_path, place):
    _save(tmp_path / place / "adapter_model.safetensors", {LORA: torch.ones(2, 2)})
    (tmp_path / place / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    (tmp_path / "training_args.bin").write_bytes(b"x")
    message = refusal(tmp_path)
    assert "adapter_model.safetensors is a PEFT adapter" in message
    assert "merge_and_unload()" in message


def test_an_adapter_beside_its_model_is_not_ignored(refusal, tmp_path):
    _save(tmp_path / "model.safetensors")
    (tmp_path / "adapter_config.json").write_text("{}")
    message = refusal(tmp_path)
    assert "model.safetensors and adapter_config.json, a PEFT adapter" in message


@pytest.mark.parametrize("file", ["model.safetensors", "model.safetensors.index.json"])
def test_the_checkpoints_of_a_trainer_are_named(refusal, mini, tmp_path, file):
    for step in (1000, 500, 20):
        _save(tmp_path / f"checkpoint-{step}" / file)
    for name in ("training_args.bin", "rng_state_0.pth", "random_states_0.pkl"):
        (tmp_path / name).write_bytes(b"x")
    message = refusal(tmp_path)
    assert "checkpoint-20, checkpoint-500, checkpoint-1000 do: name one" in message
    assert message.endswith(f"such as {tmp_path}/checkpoint-1000")
    named = mini("vit", tmp_path / "checkpoint-1000")
    if file == "model.safetensors":
        assert weights.find(named).path == tmp_path / "checkpoint-1000" / file


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_sharded_state_of_accelerate_is_named_and_the_way_out_works(refusal, tmp_path):
    state_folder = tmp_path / "pytorch_model_fsdp_0"
    dcp_save({"model": {"a": torch.ones(2)}}, checkpoint_id=state_folder, no_dist=True)
    (tmp_path / "random_states_0.pkl").write_bytes(b"x")
    message = refusal(tmp_path)
    assert f"dcp_to_torch {state_folder} FILE` and name FILE" in message
    dcp_to_torch_save(state_folder, tmp_path / "FILE")
    assert weights.read(tmp_path / "FILE")["a"].tolist() == [1, 1]
