"""ckpt.bin is written and copied in pieces, with the bytes of safetensors' own writer."""

from __future__ import annotations

import hashlib
import tracemalloc

import pytest
import torch
from safetensors.torch import save

from fgvc.record import checkpoint
from fgvc.store import hashing
from fgvc.store.tensor_file import KEY

TENSORS = {
    "z.weight": torch.arange(12, dtype=torch.float32).reshape(3, 4).T,  # not contiguous
    "a.half": torch.ones(5, dtype=torch.bfloat16),
    "fit.images": torch.arange(7),
    "head.flags": torch.tensor([True, False, True]),
    "none": torch.empty(0, 4),
    "scale": torch.tensor(2.5),
    "é": torch.arange(3, dtype=torch.float64),
}
FACTS = {"name": 'Möwe "a"\n\x07\u2028', "labelmap": ["x", "y"]}


@pytest.mark.parametrize("tensors", [TENSORS, {}])
def test_the_bytes_are_those_of_safetensors(tmp_path, monkeypatch, tensors):
    monkeypatch.setattr(checkpoint, "PIECE", 5)
    checkpoint_id = checkpoint.write(tmp_path, tensors, FACTS)
    data = (tmp_path / checkpoint.FILE).read_bytes()
    assert hashlib.sha256(data).hexdigest() == checkpoint_id
    content = {**FACTS, checkpoint.CONTENT: checkpoint._content_digest(tensors, FACTS)}
    metadata = {KEY: hashing.canonical_json(content).decode()}
    sorted_tensors = {name: tensors[name].contiguous() for name in sorted(tensors)}
    assert data == save(sorted_tensors, metadata=metadata)
    (tmp_path / "copy").mkdir()
    assert checkpoint.copy(tmp_path / checkpoint.FILE, tmp_path / "copy") == checkpoint_id
    assert (tmp_path / "copy" / checkpoint.FILE).read_bytes() == data


def test_no_tensor_is_copied(tmp_path, monkeypatch):
    """A bank of features can take gigabytes."""
    monkeypatch.setattr(checkpoint, "PIECE", 2**16)
    bank_ND = torch.zeros(2**12, 2**8)
    tracemalloc.start()
    checkpoint.write(tmp_path, {"bank": bank_ND}, {})
    (tmp_path / "copy").mkdir()
    checkpoint.copy(tmp_path / checkpoint.FILE, tmp_path / "copy")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < bank_ND.nbytes / 4
